#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The test runner itself: a crash, silence or a broken plan must never pass for success.
set -u
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# expect NAME EXIT LINE SCRIPT: runs SCRIPT as the one test program and compares the runner's last line and exit status.
expect()
{
    local name=$1 want_exit=$2 want=$3 got status
    printf '#!/bin/bash\n%s\n' "$4" >"$tmp/test_it"
    chmod +x "$tmp/test_it"
    tools/run-tests.sh -b "$tmp/build" -t 1 "$tmp/test_it" >"$tmp/out" 2>&1
    status=$?
    got=$(tail -n 1 "$tmp/out")
    if [ "$got" = "$want" ] && [ $status = "$want_exit" ]; then
        echo "ok $name"
    else
        echo "not ok $name: exit $status, '$got' instead of '$want'"
    fi
}

expect plain_lines 0 '2 passed, 0 failed, 1 skipped' 'echo ok a; echo ok b; echo "skip c: no data"'
expect a_failure 1 '1 passed, 1 failed, 0 skipped' 'echo ok a; echo "not ok b: 1 is not 2"'
expect tap 1 '1 passed, 1 failed, 1 skipped' 'echo 1..3; echo "ok 1 - a"; echo "not ok 2 - b"; echo "skip: why"
    echo "not ok 3 # SKIP c"; exit 1'
expect crash 1 '1 passed, 1 failed, 0 skipped' 'echo 1..1; echo "ok 1 - a"; kill -SEGV $$'
expect crash_first 1 '0 passed, 1 failed, 0 skipped' 'kill -ABRT $$'
expect unfinished_plan 1 '1 passed, 1 failed, 0 skipped' 'echo 1..2; echo "ok 1 - a"'
expect late_exit_status 1 '1 passed, 1 failed, 0 skipped' 'echo ok a; exit 3'
expect silence 1 '0 passed, 1 failed, 0 skipped' 'true'
expect only_skips 1 '0 passed, 0 failed, 1 skipped' 'echo "skip a: no data"'
expect too_slow 1 '1 passed, 1 failed, 0 skipped' 'echo ok a; sleep 5'
expect unittest_verbose 1 '1 passed, 1 failed, 1 skipped' 'echo "test_a (t.T.test_a) ... ok"
    echo "test_b (t.T.test_b) ... FAIL"; echo "test_c (t.T.test_c) ... skipped '\''no data'\''"
    echo "Ran 3 tests in 0.1s"; echo "FAILED (failures=1, skipped=1)"; exit 1'
expect unittest_mixed_with_output 0 '2 passed, 0 failed, 0 skipped' 'echo "test_a (t.T.test_a) ... ok"
    echo "test_b (t.T.test_b) ... noise"; echo ok; echo "Ran 2 tests in 0.1s"; echo OK'
expect unittest_terse 0 '3 passed, 0 failed, 1 skipped' 'echo "Ran 4 tests in 0.1s"; echo "OK (skipped=1)"'

printf '#!/bin/bash\necho "skip a: the reason"\necho ok b' >"$tmp/test_it"
if tools/run-tests.sh -b "$tmp/build" "$tmp/test_it" 2>&1 | grep -q 'skipped  test_it/a: the reason'; then
    echo 'ok skips_are_named'
else
    echo 'not ok skips_are_named: no line for it'
fi
tools/run-tests.sh -b "$tmp/build" >"$tmp/out" 2>&1 && echo 'not ok nothing_to_run: exit 0' || echo 'ok nothing_to_run'
