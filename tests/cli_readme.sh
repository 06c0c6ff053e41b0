#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The README's shell examples run, in order, as they stand there; the program's --help names each command they use.
set -u
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
atom=${ATOM:-build/atom}

"$atom" --help >"$tmp/help" 2>&1 || echo "not ok help: 'atom --help' failed"
awk '/^```sh$/ { on = 1; next } /^```/ { on = 0 } on' README.md >"$tmp/examples"
[ -s "$tmp/examples" ] || echo 'not ok examples: README.md has none'
n=0
while read -r line; do
    n=$((n + 1))
    command=$(echo "$line" | sed -n 's|.*build/atom \([a-z-]*\).*|\1|p')
    name=$n-$command
    # What the examples write goes to the temporary folder, and the program is the one under test.
    line=${line//build\/tiny-w4a4/$tmp\/tiny-w4a4}
    line=${line//build\/atom/\"$atom\"}
    if ! grep -qw -- "$command" "$tmp/help"; then
        echo "not ok $name: --help does not name it"
    elif ! bash -c "$line" >"$tmp/out" 2>"$tmp/err" </dev/null; then
        echo "not ok $name: $(tail -n 1 "$tmp/err")"
    elif [ ! -s "$tmp/out" ] && [ "$command" != quantize ]; then
        echo "not ok $name: it printed nothing"
    else
        echo "ok $name"
    fi
done <"$tmp/examples"
