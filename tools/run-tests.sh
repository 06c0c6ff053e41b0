#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs test programs one after another, counts what they report, and ends with "N passed, N failed, N skipped".
# tests/README.md says what a program prints.
#
# usage: run-tests.sh [-b build] [-l label] [-t seconds] [-r results] program...
#   -b   folder of the build under test (build); logs go to its logs/
#   -l   put in front of every name
#   -t   most seconds for one program (300)
#   -r   append results there and leave out the final list and line, which the caller prints (-s)
# usage: run-tests.sh -s results      prints that list and line
set -u

build=build label='' limit=300 results='' summary=''
while getopts b:l:t:r:s: opt; do
    case $opt in
    b) build=$OPTARG ;;
    l) label=$OPTARG ;;
    t) limit=$OPTARG ;;
    r) results=$OPTARG ;;
    s) summary=$OPTARG ;;
    *) exit 2 ;;
    esac
done
shift $((OPTIND - 1))
here=$(cd "$(dirname "$0")" && pwd)

summarize()
{
    awk -F '\t' '
        { n[$1]++ }
        $1 == "not ok" { failed = failed "  FAILED   " $2 ($3 == "" ? "" : ": " substr($3, 1, 300)) "\n" }
        $1 == "skip"   { skipped = skipped "  skipped  " $2 ": " $3 "\n" }
        END {
            if (failed skipped != "") printf "\n%s%s", skipped, failed
            if (!(n["ok"] + n["not ok"])) print "\nNo test ran."
            printf "%d passed, %d failed, %d skipped\n", n["ok"], n["not ok"], n["skip"]
            exit !(n["ok"] && !n["not ok"])
        }' "$1"
}

if [ -n "$summary" ]; then
    summarize "$summary"
    exit
fi

mkdir -p "$build/logs"
own_results=
if [ -z "$results" ]; then
    own_results=1
    results=$build/logs/results
    : >"$results"
fi
one=$(mktemp)
trap 'rm -f "$one"' EXIT

ATOM=$(cd "$build" && pwd)/atom
export ATOM CMOCKA_MESSAGE_OUTPUT=TAP
export ATOM_BUILD=${ATOM%/atom} ATOM_SHARED=${ATOM_SHARED:-../shared}
failed_any=0

for program in "$@"; do
    case $program in
    */cli_*.py) run=(python3 "$program") ;;
    */cli_*.sh) run=(bash "$program") ;;
    */cli_*) continue ;;
    *) run=("$program") ;;
    esac
    name=$(basename "$program")
    name=${name%.*}
    log=$build/logs/$name.log
    start=$SECONDS
    timeout -k 10 "$limit" "${run[@]}" >"$log" 2>&1 </dev/null
    status=$?
    awk -v name="$label$name" -v status=$status -v limit="$limit" -f "$here/read-results.awk" "$log" >"$one"
    cat "$one" >>"$results"
    awk -F '\t' -v name="$label$name" -v took=$((SECONDS - start)) '
        { n[$1]++ }
        END {
            printf "%-32s %4d passed", name, n["ok"]
            if (n["not ok"]) printf ", %d FAILED", n["not ok"]
            if (n["skip"]) printf ", %d skipped", n["skip"]
            print (took >= 2 ? "  (" took " s)" : "")
        }' "$one"
    if grep -q '^not ok' "$one"; then
        failed_any=1
        sed -n 's/^not ok\t/    FAILED /p' "$one" | tr '\t' ' ' | cut -c 1-300
        tail -n 40 "$log" | sed 's/^/    | /'
    fi
done

if [ -n "$own_results" ]; then
    summarize "$results"
else
    exit $failed_any
fi
