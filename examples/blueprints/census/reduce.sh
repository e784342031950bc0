# Joins the rows on standard input, a JSON list of objects, into totals and a table.
# $1 holds json.awk.
set -eu
LC_ALL=C
export LC_ALL

awk "$1"'
    { text = text $0 "\n" }
    END {
        json_open(text)
        if (!json_next() || json_token != "[") exit 2
        while ((row = json_value()) != "]" && row != "") if (row != ",") rows[++count] = row
        longest_in = "null"
        for (i = 1; i <= count; i++) {
            split("", field)
            json_object(rows[i], field)
            lines += field["lines"]
            todo += field["todo"]
            if (field["longest_line"] + 0 > longest) {
                longest = field["longest_line"] + 0
                longest_in = field["path"]
            }
        }
        printf "{\"totals\":{\"files\":%d,\"lines\":%d,\"todo\":%d,\"longest_line\":%d,\"longest_in\":%s},\"files\":[",
            count, lines, todo, longest, longest_in
        for (i = 1; i <= count; i++) printf "%s%s", (i > 1 ? ",\n" : ""), rows[i]
        print "]}"
    }'
