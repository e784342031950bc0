# The writer: follows one directive on a draft and prints the next draft as a JSON string.
# Standard input is {"draft": text, "directive": text, "limit": bytes}; $1 holds json.awk.
set -eu
LC_ALL=C
export LC_ALL

input=$(cat)
field() {
    printf '%s\n' "$input" | awk "$1"'
        { text = text $0 "\n" }
        END { json_object(text, field); raw = field["'"$2"'"]; print (raw ~ /^"/ ? json_plain(raw) : raw) }'
}

directive=$(field "$1" directive)
limit=$(field "$1" limit)
field "$1" draft |
    case $directive in
        *'one word on each line'*) tr -s '[:space:][:punct:]' '\n' | sed '/^$/d' ;;
        *'lower case'*) tr '[:upper:]' '[:lower:]' ;;
        *'sort the list'*) sort ;;
        *'each word once'*) awk '!seen[$0]++' ;;
        *'leave words out'*) awk -v limit="$limit" '
            { word[NR] = $0; size += length($0) + 1 }
            END {
                while (size > limit && kept++ < NR) {
                    longest = 0
                    for (i = 1; i <= NR; i++)
                        if (i in word && (!longest || length(word[i]) > length(word[longest]))) longest = i
                    size -= length(word[longest]) + 1
                    delete word[longest]
                }
                for (i = 1; i <= NR; i++) if (i in word) print word[i]
            }' ;;
        *) cat ;;
    esac |
    awk "$1"'{ text = text sep $0; sep = "\n" } END { print json_string(text) }'
