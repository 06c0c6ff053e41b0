#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Finds what building and checking Atom needs and is not here, and installs it from Debian.
#
# usage: install-deps.sh [--check] [build]
#   --check   install nothing; name what is missing and fail
#   build     only what `make` needs, not what `make check` needs besides
#
# Looks for what is used (commands, pkg-config modules), not for package names, so it serves other systems too.
set -u

check_only=0
scope=all
for arg in "$@"; do
    case $arg in
    --check) check_only=1 ;;
    build) scope=build ;;
    *) echo "usage: install-deps.sh [--check] [build]" >&2; exit 2 ;;
    esac
done

# What is looked for, and the Debian package that brings it.
commands="${CC:-gcc}:gcc ar:binutils make:make pkg-config:pkg-config"
modules="openblas:libopenblas-dev lapacke:liblapacke-dev jansson:libjansson-dev libpcre2-8:libpcre2-dev libutf8proc:libutf8proc-dev"
if [ $scope = all ]; then
    commands="$commands clang:clang python3:python3 gnuplot:gnuplot-nox"
    modules="$modules cmocka:libcmocka-dev"
fi

missing=
for pair in $commands; do
    command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair#*:}"
done
[ -e /usr/include/stdio.h ] || missing="$missing libc6-dev"
names=
for pair in $modules; do names="$names ${pair%%:*}"; done
# shellcheck disable=SC2086
if ! pkg-config --exists $names 2>/dev/null; then
    for pair in $modules; do
        pkg-config --exists "${pair%%:*}" 2>/dev/null || missing="$missing ${pair#*:}"
    done
fi
[ -z "$missing" ] && exit 0

install="apt-get install -y --no-install-recommends$missing"
if ! command -v apt-get >/dev/null 2>&1; then
    echo "Atom needs these, by their Debian names:$missing" >&2
    echo "Install your system's packages of the same libraries, so that pkg-config finds them, and run this again." >&2
    exit 1
fi

as_root=
if [ "$(id -u)" != 0 ]; then
    if sudo -n true 2>/dev/null; then as_root="sudo -n"; else check_only=1; fi
fi
if [ $check_only = 1 ]; then
    echo "Atom needs packages that are not installed:$missing" >&2
    echo "Install them with:  sudo $install" >&2
    exit 1
fi

echo "Installing$missing"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# An index may be missing or stale: the list is fetched only when the install fails without.
# shellcheck disable=SC2086
if ! $as_root $install >"$log" 2>&1 </dev/null &&
   ! { $as_root apt-get update && $as_root $install; } >"$log" 2>&1 </dev/null; then
    tail -n 5 "$log" >&2
    echo "Could not install packages. The command was:  sudo $install" >&2
    exit 1
fi
