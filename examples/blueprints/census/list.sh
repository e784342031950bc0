# Lists the source files below the directory named on standard input, as a JSON list of paths.
# $1 holds json.awk. What is hidden, built or fetched is left out.
set -eu
LC_ALL=C
export LC_ALL

dir=$(cat; printf x)
dir=${dir%x}
case $dir in
    '') echo 'the directory is empty text' >&2; exit 2 ;;
    . | ./) prefix= ;;
    */) prefix=$dir ;;
    *) prefix=$dir/ ;;
esac
export prefix
case $dir in -*) dir=./$dir ;; esac
CDPATH= cd -- "$dir"

find . -name '.?*' -prune -o \
    -type d \( -name target -o -name node_modules -o -name vendor \) -prune -o \
    -type f \( -name '*.rs' -o -name '*.c' -o -name '*.h' -o -name '*.cc' -o -name '*.cpp' \
        -o -name '*.go' -o -name '*.py' -o -name '*.js' -o -name '*.ts' -o -name '*.java' \
        -o -name '*.rb' -o -name '*.sh' -o -name '*.awk' \) \
    -exec awk "$1"'
        BEGIN {
            for (i = 1; i < ARGC; i++) print json_string(ENVIRON["prefix"] substr(ARGV[i], 3))
        }' {} + |
    sort |
    awk '{ printf "%s%s", (NR == 1 ? "[" : ",\n"), $0 } END { print (NR ? "]" : "[]") }'
