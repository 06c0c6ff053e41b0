#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The ablation table: quantizes a model once per row and measures perplexity. One JSON line a row on stdout.
#
# usage: ablation.sh MODEL CALIBRATION_TEXT EVAL_TEXT [ROW...]    (ATOM names the program, default build/atom)
set -eu
atom=${ATOM:-build/atom}
samples=${SAMPLES:-64} window=${WINDOW:-1024}
[ $# -ge 3 ] || { sed -n '3,5p' "$0" | cut -c3- >&2; exit 2; }
model=$1 calib=$2 text=$3
shift 3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# name|options on top of the paper's scheme
rows='rtn|--kvbits 16 --group 0 --outliers 0 --rows-per-scale 1 --act-clip 1 --weight-clip 1 --no-gptq
outliers-int8|--kvbits 16 --group 0 --rows-per-scale 1 --act-clip 1 --weight-clip 1 --no-gptq
groups|--kvbits 16 --act-clip 1 --weight-clip 1 --no-gptq
clipping|--kvbits 16 --no-gptq
gptq|--kvbits 16
paper|
one-row-per-scale|--kvbits 16 --rows-per-scale 1
one-row-per-scale-kv4|--rows-per-scale 1
w4a8kv4|--abits 8 --act-clip 1
w4a8kv8|--abits 8 --act-clip 1 --kvbits 8 --rows-per-scale 1
w8a8|--wbits 8 --abits 8 --kvbits 16 --group 0 --outliers 0 --rows-per-scale 1 --act-clip 1 --weight-clip 1 --no-gptq
w4a16-rtn|--abits 16 --kvbits 16 --outliers 0 --weight-clip 1 --no-gptq
kv4|--wbits 16 --abits 16 --kvbits 4
kv8|--wbits 16 --abits 16 --kvbits 8
search-rotate-qk|--rows-per-scale 1 --weight-clip 1 --search-clip --kv-rope post --rotate qk
search-rotate-qkv|--rows-per-scale 1 --weight-clip 1 --search-clip --kv-rope post --rotate qkv
asymmetric|--scheme default --smooth 0
default|--scheme default'

measure() { # name, options, model
    "$atom" eval ppl "$3" --window "$window" --quiet --json "$text" |
        python3 -c 'import json, sys
r = json.load(sys.stdin)
print(json.dumps({"row": sys.argv[1], "options": sys.argv[2], "ppl": round(r["ppl"], 4), "tokens": r["tokens"],
                  "eval_seconds": round(r["seconds"], 1), "quantize_seconds": float(sys.argv[3])}), flush=True)' \
            "$1" "$2" "$4"
}

wanted() { [ $# -eq 1 ] || case " ${*:2} " in *" $1 "*) ;; *) return 1 ;; esac; }

wanted float "$@" && measure float "" "$model" 0
while IFS='|' read -r name options; do
    wanted "$name" "$@" || continue
    started=$(date +%s.%N)
    # shellcheck disable=SC2086
    "$atom" quantize "$model" -o "$work/q" --calib "$calib" --samples "$samples" --window "$window" --scheme paper \
        $options --quiet --overwrite </dev/null
    measure "$name" "$options" "$work/q" "$(awk -v a="$started" -v b="$(date +%s.%N)" 'BEGIN { printf "%.1f", b - a }')"
done <<<"$rows"
