# The checker: passes a list of words, one a line, in lower case, in order, each once, not over the
# limit; else it complains about the first thing that is wrong.
# Standard input is {"draft": text, "limit": bytes}; $1 holds json.awk.
set -eu
LC_ALL=C
export LC_ALL

awk "$1"'
    function verdict(list, limit,    count, i, line) {
        if (list == "") return "the list is empty, write at least one word"
        count = split(list, line, "\n")
        for (i = 1; i <= count; i++)
            if (line[i] == "" || line[i] ~ /[[:space:][:punct:]]/)
                return "line " i " is not a word: put one word on each line"
        for (i = 1; i <= count; i++)
            if (tolower(line[i]) != line[i]) return "line " i " is not in lower case"
        for (i = 2; i <= count; i++)
            if ((line[i] "") < (line[i - 1] "")) return "line " i " is out of order: sort the list"
        for (i = 2; i <= count; i++)
            if ((line[i] "") == (line[i - 1] "")) return "line " i " repeats: write each word once"
        if (length(list) + 1 > limit)
            return "the list has " (length(list) + 1) " bytes, over " limit ": leave words out"
        return ""
    }
    { text = text $0 "\n" }
    END {
        json_object(text, field)
        complaint = verdict(json_plain(field["draft"]), field["limit"] + 0)
        printf "{\"pass\":%s,\"complaint\":%s}\n", (complaint == "" ? "true" : "false"), json_string(complaint)
    }'
