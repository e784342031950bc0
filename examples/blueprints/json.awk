# JSON for awk: functions only, so that any program may stand after them.
# Texts are bytes (LC_ALL=C). No two braces stand side by side: find would take them as its own.

# A text as a JSON string.
function json_string(text,    i, c, out) {
    if (!json_ready) {
        for (i = 1; i < 32; i++) json_escape[sprintf("%c", i)] = sprintf("\\u%04x", i)
        json_escape["\""] = "\\\""
        json_escape["\\"] = "\\\\"
        json_ready = 1
    }
    for (i = 1; i <= length(text); i++) {
        c = substr(text, i, 1)
        out = out ((c in json_escape) ? json_escape[c] : c)
    }
    return "\"" out "\""
}

# The text of a JSON string. Escapes beyond ASCII do not occur in what we are given.
function json_plain(raw,    i, c, out, last) {
    last = length(raw)
    for (i = 2; i < last; i++) {
        c = substr(raw, i, 1)
        if (c == "\\") {
            c = substr(raw, ++i, 1)
            if (c == "n") c = "\n"
            else if (c == "t") c = "\t"
            else if (c == "r") c = "\r"
            else if (c == "b") c = "\b"
            else if (c == "f") c = "\f"
            else if (c == "u") {
                c = sprintf("%c", 16 * json_digit(substr(raw, i + 3, 1)) + json_digit(substr(raw, i + 4, 1)))
                i += 4
            }
        }
        out = out c
    }
    return out
}

function json_digit(hex) {
    return index("0123456789abcdef", tolower(hex)) - 1
}

# Begins to read a JSON text.
function json_open(text) {
    json_text = text
    json_at = 1
    json_end = length(text)
}

# Takes the next token into json_token, as it is written. False at the end.
function json_next(    c, from) {
    while (json_at <= json_end && index(" \t\r\n", substr(json_text, json_at, 1))) json_at++
    if (json_at > json_end) return 0
    from = json_at
    c = substr(json_text, json_at++, 1)
    if (c == "\"") {
        while (json_at <= json_end && (c = substr(json_text, json_at++, 1)) != "\"")
            if (c == "\\") json_at++
    } else if (!index("[]}:,{", c)) {
        while (json_at <= json_end && !index("[]}:,{ \t\r\n", substr(json_text, json_at, 1))) json_at++
    }
    json_token = substr(json_text, from, json_at - from)
    return 1
}

# The next value as it is written, or a lone closing bracket or comma.
function json_value(    depth, out) {
    while (json_next()) {
        out = out json_token
        if (json_token == "{" || json_token == "[") depth++
        else if (json_token == "}" || json_token == "]") depth--
        if (depth <= 0) return out
    }
    return out
}

# Reads an object: each field's value, as it is written, by the field's name.
function json_object(text, fields,    name) {
    json_open(text)
    json_next()
    while (json_next() && json_token != "}") {
        if (json_token == ",") continue
        name = json_plain(json_token)
        json_next()
        fields[name] = json_value()
    }
}

# Prints a JSON text with line breaks on its two outer levels.
function json_print(text,    depth) {
    json_open(text)
    while (json_next()) {
        if (json_token == "{" || json_token == "[") {
            printf "%s", json_token
            if (++depth <= 2) json_break(depth)
        } else if (json_token == "}" || json_token == "]") {
            if (depth-- <= 2) json_break(depth)
            printf "%s", json_token
        } else if (json_token == ",") {
            printf ","
            if (depth <= 2) json_break(depth); else printf " "
        } else if (json_token == ":") {
            printf ": "
        } else {
            printf "%s", json_token
        }
    }
    print ""
}

function json_break(depth) {
    printf "\n"
    while (depth-- > 0) printf "  "
}
