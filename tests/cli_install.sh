#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# `make install`: a program outside the tree finds the library through pkg-config, shared and static; what the shared
# library shows is atom.h and nothing else; `make uninstall` leaves no file.
set -u
build=${ATOM_BUILD:-build}
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT
[ -e "$build/libatom.so" ] || { echo 'skip install: this build has no shared library (a sanitizer build)'; exit; }
version=$(sed -n 's/^#define ATOM_VERSION "\(.*\)"/\1/p' include/atom/atom.h)

say() { if [ "$1" = 0 ]; then echo "ok $2"; else echo "not ok $2: $(tail -n 3 "$tmp/log" | tr '\n' ' ')"; fi; }
quiet_make() { env -u MAKEFLAGS -u MAKELEVEL make --no-print-directory BUILD="$build" PREFIX=/opt/atom DESTDIR="$tmp" "$@"; }

quiet_make install >"$tmp/log" 2>&1
say $? installs
root=$tmp/opt/atom

cat >"$tmp/use.c" <<'EOF'
#include <atom/atom.h>
#include <stdio.h>
int main(void) { return puts(atom_version()) < 0; }
EOF
export PKG_CONFIG_PATH=$root/lib/pkgconfig
[ "$(pkg-config --modversion atom 2>"$tmp/log")" = "$version" ]
say $? pkg_config_knows_the_version

# shellcheck disable=SC2046
gcc -o "$tmp/shared" "$tmp/use.c" $(pkg-config --define-variable=prefix="$root" --cflags --libs atom) >"$tmp/log" 2>&1 &&
    [ "$(LD_LIBRARY_PATH=$root/lib "$tmp/shared" 2>>"$tmp/log")" = "$version" ] &&
    readelf -d "$tmp/shared" | grep -q 'NEEDED.*libatom.so.0\]'
say $? links_shared

# shellcheck disable=SC2046
gcc -o "$tmp/static" "$tmp/use.c" -I"$root/include" "$root/lib/libatom.a" \
    $(pkg-config --define-variable=prefix="$root" --static --libs atom | sed 's/-latom//') >"$tmp/log" 2>&1 &&
    [ "$("$tmp/static" 2>>"$tmp/log")" = "$version" ]
say $? links_static

nm -D --defined-only "$root/lib/libatom.so" | awk '$2 != "A" { print $3 }' | sort >"$tmp/shown"
grep -oE '^ATOM_API .*' include/atom/atom.h | grep -oE 'atom_[a-z_0-9]+\(' | tr -d '(' | sort >"$tmp/declared"
comm -23 "$tmp/shown" "$tmp/declared" >"$tmp/log"
[ ! -s "$tmp/log" ]
say $? shows_only_what_atom.h_declares
comm -13 "$tmp/shown" "$tmp/declared" | tr '\n' ' ' >"$tmp/log"
[ ! -s "$tmp/log" ]
say $? shows_all_that_atom.h_declares

"$root/bin/atom" --version >"$tmp/log" 2>&1 && grep -qF "$version" "$tmp/log"
say $? program_runs

quiet_make uninstall >"$tmp/log" 2>&1
find "$root" -not -type d >"$tmp/log"
[ ! -s "$tmp/log" ]
say $? uninstalls
