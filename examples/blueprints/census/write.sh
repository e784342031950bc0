# Writes a report: standard input is {"path": where, "body": what}. The file appears whole or not
# at all. $1 holds json.awk.
set -eu
LC_ALL=C
export LC_ALL

input=$(cat)
field() {
    printf '%s\n' "$input" |
        awk "$1"'{ text = text $0 "\n" } END { json_object(text, field); '"$2"' }'
}

path=$(field "$1" 'printf "%sx", json_plain(field["path"])')
path=${path%x}
case $path in
    '') echo 'the report has no path' >&2; exit 2 ;;
    -*) path=./$path ;;
esac
part=$path.part.$$
trap 'rm -f -- "$part"' EXIT
field "$1" 'json_print(field["body"])' > "$part"
mv -f -- "$part" "$path"
field "$1" 'print "{\"path\":" field["path"] "}"'
