#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# The Makefile on a project of six small files: what is built again when, and in which variants it builds.
set -u
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
mkdir -p "$tmp/include/atom" "$tmp/src/base" "$tmp/src/kernels/avx2" "$tmp/src/kernels/avxvnni" "$tmp/src/kernels/avx512" "$tmp/cli"
cp -r Makefile tools "$tmp"
cp include/atom/atom.h "$tmp/include/atom"
cd "$tmp" || exit 1

cat >src/base/base.c <<'EOF'
#include "atom/atom.h"
#include "base/base.h"
const char *atom_version(void) { return ATOM_VERSION; }
int atom_hidden(void) { return 1; }
EOF
echo 'int atom_hidden(void);' >src/base/base.h
cat >src/kernels/avx2/it_avx2.c <<'EOF'
#if !defined(__AVX2__) || !defined(__FMA__) || defined(__AVXVNNI__) || defined(__AVX512F__)
#error
#endif
int atom_avx2;
EOF
cat >src/kernels/avxvnni/it_avxvnni.c <<'EOF'
#if !defined(__AVX2__) || !defined(__AVXVNNI__) || defined(__AVX512F__)
#error
#endif
int atom_avxvnni;
EOF
cat >src/kernels/avx512/it_avx512.c <<'EOF'
#ifndef __AVX512VNNI__
#error
#endif
int atom_avx512;
EOF
cat >cli/main.c <<'EOF'
#include "atom/atom.h"
#include <stdio.h>
int main(void) { return puts(atom_version()) < 0; }
EOF

# say NAME: the status of the command before it decides.
say() { if [ $? = 0 ]; then echo "ok $1"; else echo "not ok $1: $(tail -n 3 log | tr '\n' ' ')"; fi; }
build() { env -u MAKEFLAGS -u MAKELEVEL -u SAN -u MODE -u BUILD -u CC -u CFLAGS make "$@" >log 2>&1; }
made() { grep -E '^  (CC|AR|LD)' log | sed 's|.*/||' | sort | tr '\n' ' '; }
makes() { [ "$(made)" = "$1" ] || { echo "it made: $(made)" >>log; false; }; }

build && [ "$(build/atom)" = "$(sed -n 's/^#define ATOM_VERSION "\(.*\)"/\1/p' include/atom/atom.h)" ]
say builds
[ -e build/libatom.so.0 ] && ! nm -D build/libatom.so | grep -q atom_hidden && nm -D build/libatom.so | grep -q atom_version
say hides_what_is_not_in_the_header
build && makes ''
say builds_nothing_twice
build CFLAGS=-DX && [ "$(made | wc -w)" = 8 ]
say rebuilds_for_other_flags
build && [ "$(made | wc -w)" = 8 ] && build MODE=debug && [ "$(made | wc -w)" = 8 ] && build
say rebuilds_for_other_modes
sleep 0.01 && touch src/base/base.h && build && grep -q base.o log && ! grep -q main.o log
say rebuilds_for_a_header
echo 'int atom_new;' >src/base/new.c && build && ar t build/libatom.a | grep -q new.o && ! grep -q base.o log
say takes_a_new_file
rm src/base/new.c && build && ! ar t build/libatom.a | grep -q new.o
say drops_a_removed_file
rm src/base/base.h && sed -i '/base.h/d; /hidden/d' src/base/base.c && build
say survives_a_removed_header
build BUILD=elsewhere SAN=address,undefined && elsewhere/atom >>log && nm elsewhere/atom | grep -q asan_
say builds_with_sanitizers
if command -v clang >/dev/null; then
    build BUILD=elsewhere CC=clang && elsewhere/atom >>log && readelf -p .comment elsewhere/atom | grep -q clang
    say builds_with_clang
else
    echo 'skip builds_with_clang: there is no clang'
fi
build MODE=fast
[ $? != 0 ] && grep -q "MODE is 'fast'" log
say refuses_an_unknown_mode
mkdir bin && printf '#!/bin/sh\ncase "$*" in *jansson*) exit 1 ;; esac\nexec %s "$@"\n' "$(command -v pkg-config)" >bin/pkg-config
chmod +x bin/pkg-config
PATH=$PWD/bin:$PATH build BUILD=third
[ $? != 0 ] && grep -q 'libjansson-dev' log && ! grep -q 'fatal error' log
say names_a_missing_package
build help && grep -q 'make demo' log
say helps
build clean && [ ! -e build ]
say cleans
