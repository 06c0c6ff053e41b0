#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Packs the program with every shared library it needs but glibc's, their licences and models/tiny.
#
# usage: bundle.sh program out.tar.gz
#   program   linked with DT_RPATH $ORIGIN/../lib, which counts for the libraries' own needs too (`make bundle` does so)
set -eu
export LC_ALL=C

program=$1
archive=$2
name=$(basename "$archive" .tar.gz)
tree=$(dirname "$program")/$name

fail() { echo "bundle: $1" >&2; exit 1; }

rm -rf "$tree"
mkdir -p "$tree/bin" "$tree/lib" "$tree/licences" "$tree/models" "$tree/docs"
strip -o "$tree/bin/atom" "$program"

# glibc is the system's: its libraries and its loader have to be of one build.
is_glibc()
{
    case $1 in
    ld-linux*|libc.so.*|libm.so.*|libmvec.so.*|libpthread.so.*|libdl.so.*|librt.so.*|libresolv.so.*|libutil.so.*) return 0 ;;
    esac
    return 1
}

# The text that goes with a library: its Debian package's copyright file.
licence_of()
{
    local file package
    for file in "$1" "${1#/usr}" "/usr$1"; do
        package=$(dpkg -S "$file" 2>/dev/null | head -n 1 | sed 's/[:,].*//') || package=
        [ -n "$package" ] && break
    done
    [ -n "$package" ] && [ -r "/usr/share/doc/$package/copyright" ] || fail "no licence text found for $1"
    cp -L "/usr/share/doc/$package/copyright" "$tree/licences/$package.txt"
}

env -u LD_LIBRARY_PATH ldd "$program" | awk '$2 == "=>" { print $1, ($3 == "not" ? "" : $3) }' >"$tree/needed"
while read -r soname path; do
    is_glibc "$soname" && continue
    [ -n "$path" ] || fail "$soname is not on this system"
    # Through Debian's alternatives to the file itself; its soname stays the name asked for.
    real=$(readlink -f "$path")
    cp "$real" "$tree/lib/$soname"
    chmod 644 "$tree/lib/$soname"
    licence_of "$real"
done <"$tree/needed"
rm "$tree/needed"

# Linked in as an archive, so ldd does not name it.
archive_of_lapacke=$(${CC:-gcc} -print-file-name=liblapacke.a)
case $archive_of_lapacke in
/*) licence_of "$(readlink -f "$archive_of_lapacke")" ;;
esac

# Those texts point at the licences every Debian has; other systems have them not.
grep -ohE '/usr/share/common-licenses/[A-Za-z0-9.-]*[A-Za-z0-9]' "$tree"/licences/*.txt | sort -u | while read -r file; do
    [ ! -r "$file" ] || cp -L "$file" "$tree/licences/$(basename "$file")"
done

cp LICENSE NOTICE README.md "$tree"
cp docs/*.md "$tree/docs"
cp -r models/tiny "$tree/models/tiny"

glibc=$(cat "$tree/bin/atom" "$tree"/lib/* | grep -ao 'GLIBC_2\.[0-9]*' | sort -u -t . -k 2n | tail -n 1)
cat >"$tree/BUNDLE.txt" <<EOF
$name

    bin/atom eval ppl models/tiny --window 256 models/tiny/eval.txt

Runs where it is unpacked, on any Linux of this processor with glibc ${glibc#GLIBC_} or later. lib/ holds the libraries bin/atom
needs, as Debian built them; licences/ their terms. Any of them may be replaced by a compatible build of the same name.
EOF

tar --sort=name --owner=0 --group=0 --numeric-owner -C "$(dirname "$tree")" -czf "$archive.partial" "$name"
mv "$archive.partial" "$archive"
rm -rf "$tree"
echo "$archive ($(du -h "$archive" | cut -f 1), glibc ${glibc#GLIBC_} or later)"
