# Counts one file, named on standard input: its lines, its open marks, its longest line in bytes.
# $1 holds json.awk.
set -eu
LC_ALL=C
export LC_ALL

path=$(cat; printf x)
path=${path%x}
export path

awk "$1"'
    {
        if (length($0) > longest) longest = length($0)
        todo += gsub(/TO[D]O|FIX[M]E/, "&")
    }
    END {
        printf "{\"path\":%s,\"lines\":%d,\"todo\":%d,\"longest_line\":%d}\n",
            json_string(ENVIRON["path"]), NR, todo, longest
    }' < "$path"
