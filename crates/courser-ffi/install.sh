#!/bin/sh
# Installs the C library: install.sh [--prefix DIR] [--engine] [--from DIR]
#   --prefix DIR   below which include/, lib/ and lib/pkgconfig/ are; /usr/local otherwise. DESTDIR goes before it.
#   --engine       the library that has the engine inside, instead of the one that attaches to a service
#   --from DIR     takes libcourserstack.so and libcourserstack.a from there and builds nothing
set -eu
here=$(cd "$(dirname "$0")" && pwd)
prefix=/usr/local features= from=
while [ $# -gt 0 ]; do
    case $1 in
        --prefix) prefix=${2:?a folder}; shift 2 ;;
        --engine) features="--features engine"; shift ;;
        --from) from=${2:?a folder}; shift 2 ;;
        *) sed -n '2,5s/^# \{0,1\}//p' "$0" >&2; exit 2 ;;
    esac
done
case $prefix in /*) ;; *) prefix=$(pwd)/$prefix ;; esac
if [ -z "$from" ]; then
    # shellcheck disable=SC2086 -- two words, or none
    cargo build --release --manifest-path "$here/Cargo.toml" $features
    from=${CARGO_TARGET_DIR:-$here/../../target}/release
fi
version=$(sed -n '/^\[workspace.package\]/,/^\[lints/s/^version = "\(.*\)"/\1/p' "$here/../../Cargo.toml" | head -n 1)
short=${version%.*}
to=${DESTDIR:-}$prefix
mkdir -p "$to/include" "$to/lib/pkgconfig"
install -m 644 "$here/include/courser.h" "$to/include/courser.h"
install -m 644 "$from/libcourserstack.a" "$to/lib/libcourserstack.a"
install -m 755 "$from/libcourserstack.so" "$to/lib/libcourserstack.so.$version"
ln -sf "libcourserstack.so.$version" "$to/lib/libcourserstack.so.$short"
ln -sf "libcourserstack.so.$short" "$to/lib/libcourserstack.so"
sed -e "s|@prefix@|$prefix|" -e "s|@version@|$version|" "$here/courser.pc.in" >"$to/lib/pkgconfig/courser.pc"
