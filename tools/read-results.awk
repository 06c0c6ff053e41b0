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

# Python's unittest, verbose: "test_name (module.Class) ... ok"; with a docstring, its first line comes before the dots.
function unittest_name(text)
{
    sub(/ \.\.\. .*$/, "", text)
    sub(/ \(.*\)$/, "", text)
    return text
}
/ \.\.\. (ok|FAIL|ERROR)$/ {
    seen[/ok$/ ? "ok" : "not ok"]++
    emit(/ok$/ ? "ok" : "not ok", unittest_name($0), "")
    next
}
/ \.\.\. skipped / {
    why = $0
    sub(/^.* \.\.\. skipped ['"]?/, "", why)
    sub(/['"]$/, "", why)
    seen["skip"]++
    emit("skip", unittest_name($0), why)
    next
}
# Its last lines count the tests that were not named above: it was terse, or their lines were mixed with other output.
/^Ran [0-9]+ tests? in / { ran = $2 }
/^(OK|FAILED)( \(.*\))?$/ {
    while (match($0, /(failures|errors|skipped)=[0-9]+/)) {
        pair = substr($0, RSTART, RLENGTH)
        counted[substr(pair, 1, index(pair, "=") - 1)] = substr(pair, index(pair, "=") + 1)
        $0 = substr($0, RSTART + RLENGTH)
    }
    failed = counted["failures"] + counted["errors"]
    for (i = seen["not ok"]; i < failed; i++) emit("not ok", "unnamed", "see the log")
    for (i = seen["skip"]; i < counted["skipped"]; i++) emit("skip", "unnamed", "no reason given")
    for (i = seen["ok"]; i < ran - failed - counted["skipped"]; i++) emit("ok", "unnamed", "")
    delete counted
    delete seen
    ran = 0
    next
}

END {
    if (status == 124 || status == 137) emit("not ok", "", "did not end in " limit " s")
    else if (status > 128) emit("not ok", "", "crashed with signal " status - 128)
    else if (total < planned) emit("not ok", "", "ended after " total " of " planned " tests, exit status " status)
    else if (status && !n["not ok"]) emit("not ok", "", "exit status " status)
    else if (!total) emit("not ok", "", "reported no result")
}
