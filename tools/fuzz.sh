#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs each fuzzer for a while; what it finds stays in build-fuzz/ beside its corpus.
#
# usage: fuzz.sh seconds fuzzer...
set -u
seconds=$1
shift
[ $# -gt 0 ] || { echo "There is no tests/fuzz_*.c." >&2; exit 1; }
failed=0
for fuzzer in "$@"; do
    name=$(basename "$fuzzer")
    found=$(dirname "$fuzzer")/found-$name
    mkdir -p "$found/corpus"
    seeds=tests/corpus/${name#fuzz_}
    [ -d "$seeds" ] || seeds=
    echo "== $name, $seconds s"
    "$fuzzer" -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -verbosity=0 -print_final_stats=1 \
        -artifact_prefix="$found/" "$found/corpus" ${seeds:+"$seeds"} || failed=1
done
exit $failed
