# SPDX-License-Identifier: Apache-2.0
# Reads what one test program printed (tests/README.md) and writes a line a test: result, name, reason, parted by tabs.
# Variables: name (of the program), status (its exit status), limit (the seconds it had).

function emit(result, test, why)
{
    gsub(/\t/, " ", test)
    gsub(/\t/, " ", why)
    n[result]++
    total++
    print result "\t" name (test == "" ? "" : "/" test) "\t" why
}

# "NAME: why" into test and why.
function split_reason(text,    at)
{
    at = index(text, ": ")
    test = at ? substr(text, 1, at - 1) : text
    why = at ? substr(text, at + 2) : ""
}

# cmocka gives no reason for a skip: a line before it does.
/^#? ?skip: / {
    sub(/^#? ?skip: /, "")
    reason = $0
    next
}

/^1\.\.[0-9]+ *$/ {
    planned += substr($0, 4)
    next
}

/^(not )?ok [0-9]+ # SKIP/ {
    sub(/^.*# SKIP */, "")
    emit("skip", $0, reason == "" ? "no reason given" : reason)
    reason = ""
    next
}

/^(not )?ok / {
    result = /^ok/ ? "ok" : "not ok"
    sub(/^(not )?ok +/, "")
    sub(/^[0-9]+( - | +|$)/, "")
    split_reason($0)
    emit(result, test, why)
    reason = ""
    next
}

/^skip [^ ]/ {
    sub(/^skip +/, "")
    split_reason($0)
    emit("skip", test, why == "" ? "no reason given" : why)
    next
}

# Python's unittest, verbose: "test_name (module.Class) ... ok"
/ \.\.\. (ok|FAIL|ERROR)$/ {
    emit(/ok$/ ? "ok" : "not ok", $1, "")
    next
}
/ \.\.\. skipped / {
    why = $0
    sub(/^.* \.\.\. skipped ['"]?/, "", why)
    sub(/['"]$/, "", why)
    emit("skip", $1, why)
    next
}
# ... and terse, which names nothing
/^Ran [0-9]+ tests? in / { ran = $2 }
/^(OK|FAILED) \(.*\)$/ {
    while (match($0, /(failures|errors|skipped)=[0-9]+/)) {
        pair = substr($0, RSTART, RLENGTH)
        terse[substr(pair, 1, index(pair, "=") - 1)] = substr(pair, index(pair, "=") + 1)
        $0 = substr($0, RSTART + RLENGTH)
    }
}

END {
    if (!total && ran) {
        bad = terse["failures"] + terse["errors"]
        for (i = 0; i < bad; i++) emit("not ok", "unittest", "see the log")
        for (i = 0; i < terse["skipped"]; i++) emit("skip", "unittest", "no reason given")
        for (i = 0; i < ran - bad - terse["skipped"]; i++) emit("ok", "unittest", "")
    }
    if (status == 124 || status == 137) emit("not ok", "", "did not end in " limit " s")
    else if (status > 128) emit("not ok", "", "crashed with signal " status - 128)
    else if (total < planned) emit("not ok", "", "ended after " total " of " planned " tests, exit status " status)
    else if (status && !n["not ok"]) emit("not ok", "", "exit status " status)
    else if (!total) emit("not ok", "", "reported no result")
}
