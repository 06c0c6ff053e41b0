#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Quantizes models/tiny to W4A4KV4 and shows, side by side with the float model, what that costs and saves.
#
# usage: demo.sh [folder]     (build/demo; everything made goes there)
# Environment: ATOM, the program (build/atom).
set -u
export LC_NUMERIC=C
cd "$(dirname "$0")/.." || exit 1

atom=${ATOM:-build/atom}
dir=${1:-build/demo}
float=models/tiny
packed=$dir/tiny-w4a4
text=models/tiny/eval.txt
window=256
samples=32
prompt='In the morning the king came out of'
tokens=48

# The names of what the program reports, in `inspect --json` and in a line of `eval ppl --json`.
field_bits=bits_per_weight
field_linears=linears
field_linears_bf16=linears_bf16
field_ppl=ppl
field_tokens=tokens

bold='' plain=''
if [ -t 1 ]; then bold=$'\e[1m' plain=$'\e[0m'; fi
terminal=0
[ -t 2 ] && terminal=1

fail()
{
    printf '\nThe demo stopped: %s\n' "$1" >&2
    exit 1
}

now() { date +%s.%N; }
seconds_since() { awk -v a="$1" -v b="$(now)" 'BEGIN { printf "%.1f", b - a }'; }

# step TITLE OUTPUT ARGUMENTS...: runs the program, its output into a file of $dir; $took is the time.
# The program's own progress shows on a terminal; elsewhere its words are kept and shown only if it fails.
step()
{
    local title=$1 out=$dir/$2 log=$dir/$2.log start
    shift 2
    printf '%s... ' "$title"
    [ $terminal = 1 ] && echo
    start=$(now)
    if [ $terminal = 1 ]; then
        "$atom" "$@" >"$out" </dev/null
    else
        "$atom" "$@" >"$out" 2>"$log" </dev/null
    fi || {
        [ $terminal = 0 ] && tail -n 5 "$log" >&2
        fail "'$atom $*' did not succeed."
    }
    took=$(seconds_since "$start")
    if [ $terminal = 1 ]; then printf '  %s s\n' "$took"; else printf '%s s\n' "$took"; fi
}

# number FILE NAME: the first "NAME": number in a JSON file.
number()
{
    local value
    value=$(tr '\n' ' ' <"$1" | grep -oE "\"$2\" *: *-?[0-9][0-9.eE+-]*" | head -n 1 | sed 's/.*: *//')
    [ -n "$value" ] || fail "$1 has no number called \"$2\"."
    printf '%s' "$value"
}

[ -x "$atom" ] || fail "there is no program $atom; run 'make' first."
[ -r "$text" ] || fail "$text is missing."
mkdir -p "$dir" || fail "$dir cannot be made."
began=$(now)

cat <<EOF
${bold}Atom: a language model at 4 bits${plain}
models/tiny is a small Llama with the outlier channels of a large one. Weights, activations and the KV cache go to INT4,
outlier channels to INT8; the text it is judged by, $text, took no part in any of it.

EOF

step "The model writes its own calibration text ($samples windows of $window tokens)" sampled \
    sample-calib $float --samples $samples --window $window --seed 1 -o "$dir/calib.jsonl"
step 'Quantizing to W4A4KV4' quantized \
    quantize $float -o "$packed" --calib-ids "$dir/calib.jsonl" --samples $samples --window $window --overwrite
quantize_took=$took
step 'Looking inside' inspect.json inspect "$packed" --json
step 'Perplexity, float' ppl-float.json eval ppl $float --window $window --json $text
float_took=$took
step 'Perplexity, quantized' ppl-packed.json eval ppl "$packed" --window $window --json $text
packed_took=$took
step 'Text, float' text-float generate $float --prompt "$prompt" --max-tokens $tokens --temperature 0
step 'Text, quantized' text-packed generate "$packed" --prompt "$prompt" --max-tokens $tokens --temperature 0

float_ppl=$(number "$dir/ppl-float.json" $field_ppl) || exit 1
packed_ppl=$(number "$dir/ppl-packed.json" $field_ppl) || exit 1
scored=$(number "$dir/ppl-packed.json" $field_tokens) || exit 1
bits=$(number "$dir/inspect.json" $field_bits) || exit 1
linears=$(number "$dir/inspect.json" $field_linears) || exit 1
linears_bf16=$(number "$dir/inspect.json" $field_linears_bf16) || exit 1
layers=$(number $float/config.json num_hidden_layers) || exit 1
kv_heads=$(number $float/config.json num_key_value_heads) || exit 1
head_dim=$(number $float/config.json head_dim) || exit 1
kv_bits=$(number "$packed/config.json" kvbits) || exit 1

# A position of a head takes its packed values, a scale (2 bytes), a zero point and a byte of padding.
kv_float=$((layers * kv_heads * 2 * head_dim * 2))
kv_packed=$((layers * kv_heads * 2 * ((head_dim * kv_bits + 7) / 8 + 4)))

echo
awk -v fp="$float_ppl" -v pp="$packed_ppl" -v n="$scored" -v bits="$bits" -v lin="$linears" -v lin16="$linears_bf16" \
    -v kvf=$kv_float -v kvp=$kv_packed -v ft="$float_took" -v pt="$packed_took" -v bold="$bold" -v plain="$plain" '
    function row(name, a, b, note) { printf "%-34s %12s %12s   %s\n", name, a, b, note }
    function less(a, b) { return sprintf("%.2f times less", a / b) }
    BEGIN {
        printf "%s", bold; row("", "float", "W4A4KV4", ""); printf "%s", plain
        row("perplexity (" n " tokens)", sprintf("%.2f", fp), sprintf("%.2f", pp), sprintf("%+.1f %%", 100 * (pp / fp - 1)))
        row("bytes of the linears", lin16, lin, less(lin16, lin))
        row("bits per weight, scales included", "16.00", sprintf("%.2f", bits), "")
        row("KV cache, bytes per token", kvf, kvp, less(kvf, kvp))
        row("time for the perplexity, s", ft, pt, "")
    }'

printf '\n%s%s ...%s\n' "$bold" "$prompt" "$plain"
for side in float packed; do
    [ $side = float ] && echo 'float:' || echo 'W4A4KV4:'
    sed 's/^/    /' "$dir/text-$side"
    [ -z "$(tail -c 1 "$dir/text-$side")" ] || echo
done

printf '\nQuantizing took %s s, all of it %s s. The quantized model is %s: try\n' \
    "$quantize_took" "$(seconds_since "$began")" "$packed"
printf '    %s generate %s --prompt "It was a dark" --max-tokens 64 --temperature 0.8 --seed 7\n' "$atom" "$packed"
