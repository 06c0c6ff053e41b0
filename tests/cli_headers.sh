#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Each header compiles alone; the public one as C++ too. What is written over a vec header compiles after the scalar one,
# what is written over a dot header after the AVX2 tier's. And includes go down the list of rooms (docs/design.md, section 5).
set -u
log=$(mktemp)
trap 'rm -f "$log"' EXIT

# compiles NAME COMPILER ARGUMENTS...
compiles()
{
    local name=$1
    shift
    if "$@" -fsyntax-only >"$log" 2>&1; then
        echo "ok $name"
    else
        echo "not ok $name: $(grep -m 1 error "$log")"
    fi
}

flags=(-Iinclude -Isrc -D_GNU_SOURCE -Wall -Wextra -Werror)
while read -r header; do
    isa=()
    case $header in
    */avxvnni/*) isa=(-mavx2 -mfma -mf16c -mavxvnni) ;;
    */avx2/*) isa=(-mavx2 -mfma -mf16c) ;;
    */avx512/* | */avx512bf16/*) isa=(-mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mfma -mf16c) ;;
    esac
    before=()
    grep -q VEC_FN "$header" && ! grep -q 'define VEC_FN' "$header" && before=(-include src/kernels/scalar/vec_scalar.h)
    [ "${header##*/}" = int_tile.h ] && before=(-include src/kernels/avx2/dot_avx2.h)
    # shellcheck disable=SC2046
    compiles "$header" gcc -std=c11 "${flags[@]}" "${isa[@]}" $(pkg-config --cflags jansson libpcre2-8 openblas) \
        -Wno-unused-function "${before[@]}" -include "$header" -x c /dev/null
done < <(find include src server -name '*.h' 2>/dev/null | sort)

if command -v g++ >/dev/null; then
    compiles atom.h_as_cplusplus g++ "${flags[@]}" -include include/atom/atom.h -x c++ /dev/null
else
    echo 'skip atom.h_as_cplusplus: there is no g++'
fi

# Of each room, the rooms that stand above it.
above=
for room in bench eval quant engine model backend cuda kernels base; do
    name=includes_of_${room}_go_down
    upward=$([ -z "$above" ] || grep -rnE "#include \"(${above#|})/" "src/$room" --include='*.[ch]' --include='*.cu' --include='*.cuh' | head -n 1)
    if [ -n "$upward" ]; then
        echo "not ok $name: $upward"
    else
        echo "ok $name"
    fi
    above="$above|$room"
done
