#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# tools/demo.sh with a made-up program: its table, its sums and how it stops. `make demo` runs the real one.
set -u
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

cat >"$tmp/atom" <<'EOF'
#!/bin/bash
echo "atom $*" >&2
case "$1 $2 ${3-}" in
"$FAIL_AT"*) echo 'the disk is full' >&2; exit 1 ;;
sample-calib*) ;;
quantize*) mkdir -p "$4" && echo '{"quantization_config": {"kvbits": 4}}' >"$4/config.json" ;;
inspect*) printf '{\n "bits_per_weight": 5.25,\n "bytes": {"linears": 1000, "linears_bf16": 3000}}\n' ;;
"eval ppl models/tiny") echo '{"file": "eval.txt", "tokens": 3060, "ppl": 40.0}' ;;
"eval ppl"*) echo '{"file": "eval.txt", "tokens": 3060, "ppl": 44.0}' ;;
generate*) printf 'some words' ;;
esac
EOF
chmod +x "$tmp/atom"

demo() { ATOM=$tmp/atom FAIL_AT=${1-never} tools/demo.sh "$tmp/demo" >"$tmp/out" 2>&1 </dev/null; }
shows()
{
    if grep -qE -- "$2" "$tmp/out"; then echo "ok $1"; else echo "not ok $1: no line like '$2'"; fi
}

demo && echo 'ok ends_well' || { echo 'not ok ends_well: it failed'; cat "$tmp/out"; }
shows perplexity '^perplexity \(3060 tokens\) +40\.00 +44\.00 +\+10\.0 %'
shows linears '^bytes of the linears +3000 +1000 +3\.00 times less'
shows bits '^bits per weight.* 16\.00 +5\.25'
shows kv '^KV cache, bytes per token +4096 +1088 +3\.76 times less'
shows text '^    some words$'
demo && echo 'ok runs_again' || echo 'not ok runs_again: it failed'
for at in sample-calib quantize inspect 'eval ppl models/tiny' generate; do
    if demo "$at"; then
        echo "not ok stops_at_${at%% *}: exit 0"
    elif grep -q '^The demo stopped: ' "$tmp/out" && grep -q 'the disk is full' "$tmp/out"; then
        echo "ok stops_at_${at%% *}"
    else
        echo "not ok stops_at_${at%% *}: no sentence"
    fi
done
