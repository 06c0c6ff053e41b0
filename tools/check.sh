#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Everything that must pass, in stages; the last line counts all of it. Called by `make check`.
set -u
cd "$(dirname "$0")/.." || exit 1

jobs=$(nproc)
results=build/check-results
mkdir -p build
: >"$results"
tests=()
for source in tests/test_*.c; do
    [ -e "$source" ] && tests+=("$(basename "$source" .c)")
done
# CUDA's tests want CUDA code: sanitized builds have none, and neither has a build without nvcc.
mapfile -t plain < <(printf '%s\n' "${tests[@]}" | grep -v '^test_cuda_')
# The thread sanitizer is slow: it gets the tests in which threads meet.
threaded=$(grep -lE 'pthread_create|atom_parallel|atom_pool_start|atom_runtime_threads' tests/test_*.c 2>/dev/null |
           sed 's|tests/||; s|\.c$||')

# stage NAME BUILD GOALS [VAR=...]: builds; a failure is one failed test, its log shown.
stage()
{
    local name=$1 build=$2 goals=$3
    shift 3
    printf '\n== %s\n' "$name"
    mkdir -p "$build/logs"
    # shellcheck disable=SC2086
    if env -u MAKEFLAGS -u SAN -u MODE -u BUILD make -j"$jobs" $goals BUILD="$build" "$@" >"$build/logs/make.log" 2>&1; then
        printf 'ok\t%s/build\t\n' "$name" >>"$results"
        return 0
    fi
    printf 'not ok\t%s/build\tsee %s\n' "$name" "$build/logs/make.log" >>"$results"
    grep -nE 'error|warning|undefined|\*\*\*' "$build/logs/make.log" | head -n 30
    return 1
}

# Built tests alone; the others are named as skipped.
built()
{
    local name
    for name in "${tests[@]}"; do
        if [ -x "build/tests/$name" ]; then
            echo "build/tests/$name"
        else
            printf 'skip\t%s\tbuilt without CUDA: nvcc is not here\n' "$name" >>"$results"
        fi
    done
}

if stage release build 'all tests'; then
    mapfile -t programs < <(built)
    tools/run-tests.sh -b build -r "$results" "${programs[@]}" tests/cli_*
fi

stage 'address and undefined sanitizers' build-asan tests SAN=address,undefined &&
    tools/run-tests.sh -b build-asan -l asan/ -t 600 -r "$results" "${plain[@]/#/build-asan/tests/}"

if [ -n "$threaded" ]; then
    # OpenBLAS is not instrumented: its own threads would look like races.
    # shellcheck disable=SC2086
    stage 'thread sanitizer' build-tsan "$(printf 'build-tsan/tests/%s ' $threaded)" SAN=thread &&
        OPENBLAS_NUM_THREADS=1 tools/run-tests.sh -b build-tsan -l tsan/ -t 600 -r "$results" $(printf 'build-tsan/tests/%s ' $threaded)
fi

stage 'clang, no warnings' build-clang 'all tests' CC=clang MODE=debug CUDA=0

printf '\n== all of it\n'
tools/run-tests.sh -s "$results"
