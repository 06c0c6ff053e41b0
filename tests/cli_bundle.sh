#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# `make bundle`: unpacked anywhere, the program runs with glibc and nothing else from the system, in any environment.
set -u
build=${ATOM_BUILD:-build}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
[ -e "$build/libatom.so" ] || { echo 'skip bundle: this build has no shared library (a sanitizer build)'; exit; }

say() { if [ "$1" = 0 ]; then echo "ok $2"; else echo "not ok $2: $(tail -n 3 "$tmp/log" | tr '\n' ' ')"; fi; }

env -u MAKEFLAGS -u MAKELEVEL make --no-print-directory BUILD="$build" bundle >"$tmp/log" 2>&1
say $? builds
mkdir "$tmp/a place"
tar xzf "$build"/atom-*-linux-*.tar.gz -C "$tmp/a place" --strip-components 1 2>"$tmp/log"
say $? unpacks
root="$tmp/a place"

env -i "$root/bin/atom" --version >"$tmp/log" 2>&1
say $? runs_with_an_empty_environment

# The loader itself tells which files it takes.
env -i LD_DEBUG=files "$root/bin/atom" --version 2>&1 | sed -n 's/.*calling init: //p' |
    sed "s|$root/bin/../lib/|$root/lib/|" | sort -u >"$tmp/loaded"
grep -q "$root/lib/" "$tmp/loaded"
say $? takes_its_own_libraries
grep -vF "$root/" "$tmp/loaded" | grep -vE '/(ld-linux[^/]*|lib(c|m|mvec|pthread|dl|rt)\.so\.[0-9]+)$' >"$tmp/log"
[ $? = 1 ]
say $? takes_only_glibc_from_the_system

: >"$tmp/log"
for lib in "$root"/lib/*; do
    case $(basename "$lib") in
    libopenblas*) want=openblas ;;
    libgfortran*) want=gfortran ;;
    libquadmath*) want=quadmath ;;
    libgcc_s*) want=libgcc ;;
    libjansson*) want=jansson ;;
    libpcre2*) want=pcre2 ;;
    libutf8proc*) want=utf8proc ;;
    *) want=$(basename "$lib" | sed 's/\.so.*//') ;;
    esac
    ls "$root/licences" | grep -q "$want" || echo "no licence for $(basename "$lib")" >>"$tmp/log"
done
[ -n "$(ls "$root/lib")" ] && [ ! -s "$tmp/log" ]
say $? has_a_licence_for_each_library
[ -r "$root/models/tiny/model.safetensors" ] && [ -r "$root/LICENSE" ]
say $? has_the_model_and_our_licence

# A root folder that holds glibc and the bundle and nothing else. The loader learns $ORIGIN from /proc, which is not there.
jail=$tmp/jail
mkdir -p "$jail/atom" "$jail/lib64" "$jail/lib/$(gcc -print-multiarch)"
cp -r "$root/." "$jail/atom"
cp -L "$(gcc -print-file-name=ld-linux-x86-64.so.2)" "$jail/lib64"
for lib in libc.so.6 libm.so.6 libmvec.so.1 libpthread.so.0 libdl.so.2 librt.so.1; do
    file=$(gcc -print-file-name=$lib)
    [ -e "$file" ] && cp -L "$file" "$jail/lib/$(gcc -print-multiarch)"
done
if [ "$(id -u)" = 0 ]; then enter=(chroot "$jail"); else enter=(unshare -r chroot "$jail"); fi
if ! "${enter[@]}" /lib64/ld-linux-x86-64.so.2 --version >"$tmp/log" 2>&1; then
    echo 'skip runs_in_an_empty_root: chroot is not allowed here'
else
    env -i PATH="$PATH" LD_ORIGIN_PATH=/atom/bin "${enter[@]}" /atom/bin/atom --version >"$tmp/log" 2>&1
    say $? runs_in_an_empty_root
    if "$root/bin/atom" --help 2>&1 | grep -q generate; then
        env -i PATH="$PATH" LD_ORIGIN_PATH=/atom/bin "${enter[@]}" /atom/bin/atom generate /atom/models/tiny --prompt 'In the morning' \
            --max-tokens 4 --temperature 0 >"$tmp/log" 2>&1
        say $? generates_in_an_empty_root
    else
        echo 'not ok generates_in_an_empty_root: --help does not name generate'
    fi
fi
