#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# tools/install-deps.sh on made-up systems: only the commands in $tmp/bin are there.
set -u
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
mkdir "$tmp/bin"

fake() { printf '#!/bin/bash\n%s\n' "$2" >"$tmp/bin/$1" && chmod +x "$tmp/bin/$1"; }
run() { env -i PATH="$tmp/bin" /bin/bash tools/install-deps.sh "$@" >"$tmp/out" 2>&1; }
# expect NAME EXIT TEXT STATUS: the exit status and a text in the output.
expect()
{
    if [ "$4" = "$2" ] && [[ $(<"$tmp/out") == *"$3"* ]]; then
        echo "ok $1"
    else
        echo "not ok $1: exit $4, wanted $2 and '$3', got: $(tr '\n' ' ' <"$tmp/out")"
    fi
}

for c in mktemp tail rm; do ln -s "$(command -v $c)" "$tmp/bin/$c"; done
for c in gcc ar make clang python3 gnuplot; do fake $c true; done
fake pkg-config 'exit 0'
fake id 'echo 1000'
fake sudo 'exit 1'
fake apt-get 'echo "$@" >>'"$tmp"'/apt; [ -e '"$tmp"'/updated ] || [ "$1" = update ] && touch '"$tmp"'/updated'

run; status=$?
expect all_there 0 '' $status

fake pkg-config 'case $* in *jansson*) exit 1 ;; esac'
run; status=$?
expect no_root_prints_the_command 1 'sudo apt-get install -y --no-install-recommends libjansson-dev' $status
run --check build; status=$?
expect check_names_the_package 1 'not installed: libjansson-dev' $status
[ -e "$tmp/apt" ] && echo 'not ok installs_nothing_unasked: apt-get ran' || echo 'ok installs_nothing_unasked'

rm "$tmp/bin/python3"
run build; status=$?
grep -q python3 "$tmp/out" && echo 'not ok build_needs_less: it asks for python3' || echo 'ok build_needs_less'

ln -s "$(command -v touch)" "$tmp/bin/touch"
fake id 'echo 0'
run; status=$?
expect root_installs 0 'Installing python3 libjansson-dev' $status
if [ "$(grep -c '^install.*libjansson-dev$' "$tmp/apt")" = 2 ] && [ "$(grep -c '^update' "$tmp/apt")" = 1 ]; then
    echo 'ok updates_the_index_only_when_needed'
else
    echo "not ok updates_the_index_only_when_needed: $(tr '\n' ';' <"$tmp/apt")"
fi

rm "$tmp/bin/apt-get"
run; status=$?
expect not_debian 1 'by their Debian names: python3 libjansson-dev' $status
