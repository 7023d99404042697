#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# install_test.sh BUILD VERSION CC CMAKE SANITIZE: installs BUILD into a fresh prefix, moves that, and
# builds and runs a user's program from it: with pkg-config and with find_package, shared and static.
set -euo pipefail
build=$1 version=$2 cc=$3 cmake=$4 sanitize=$5
here=$(cd "$(dirname "$0")" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() {
    echo "install: $*" >&2
    exit 1
}

"$cmake" --install "$build" --prefix "$work/first" >"$work/log" 2>&1 ||
    { cat "$work/log" >&2; fail "cmake --install failed"; }
mv "$work/first" "$work/prefix"
prefix=$work/prefix
libdir=$(dirname "$(find "$prefix" -name libbaton_sender.so)")
export PKG_CONFIG_PATH=$libdir/pkgconfig

# Only baton_* leaves the shared libraries, and both are named by their major version.
for part in sender receiver; do
    library=$libdir/libbaton_$part.so
    nm -D --defined-only "$library" | awk '{print $NF}' >"$work/symbols"
    grep -qx "baton_${part}_create" "$work/symbols" || fail "$library lacks baton_${part}_create"
    if grep -v '^baton_' "$work/symbols"; then fail "$library exports more than baton_*"; fi
    readelf -d "$library" | grep -q "SONAME.*\[libbaton_$part.so.${version%%.*}\]" ||
        fail "$library: no SONAME"
done

# The headers stand alone, in C and in C++ where there is a compiler for it.
for header in "$prefix"/include/baton/*.h; do
    "$cc" -std=c17 -Wall -Wextra -Wpedantic -Werror -I"$prefix/include" -fsyntax-only -x c "$header"
    if command -v g++ >/dev/null; then
        g++ -std=c++17 -Wall -Wextra -Werror -I"$prefix/include" -fsyntax-only -x c++ "$header"
    fi
done

for program in baton-engine baton-keygen; do
    [ -x "$prefix/bin/$program" ] || fail "$program is not installed"
done
"$prefix/bin/baton-engine" --version | grep -q "$version" || fail "baton-engine --version"

flags=(-std=c17 -Wall -Wextra -Werror "-DEXPECTED_VERSION=\"$version\"")
if [ -n "$sanitize" ]; then flags+=("-fsanitize=$sanitize"); fi
run() {
    echo "install: $1"
    LD_LIBRARY_PATH=$libdir "$2"
}

compile() { "$cc" "${flags[@]}" "$here/consumer.c" -o "$@"; }
read -ra shared < <(pkg-config --cflags --libs baton)
compile "$work/shared" "${shared[@]}"
run "pkg-config, shared" "$work/shared"
compile "$work/reversed" -lbaton_receiver "${shared[@]}" -Wl,--no-as-needed
run "pkg-config, shared, receiver first" "$work/reversed"
read -ra static < <(pkg-config --cflags --libs baton-static)
compile "$work/static" "${static[@]}"
if ldd "$work/static" | grep libbaton; then fail "the static program loads a shared libbaton"; fi
run "pkg-config, static" "$work/static"

"$cmake" -G Ninja -S "$here/package" -B "$work/package" -DCMAKE_PREFIX_PATH="$prefix" \
    -DCMAKE_C_COMPILER="$cc" -DEXPECTED_VERSION="$version" \
    -DCMAKE_C_FLAGS="${sanitize:+-fsanitize=$sanitize}" >"$work/log" 2>&1 &&
    "$cmake" --build "$work/package" >>"$work/log" 2>&1 || { cat "$work/log" >&2; fail "find_package"; }
run "find_package, shared" "$work/package/consumer"
run "find_package, static" "$work/package/consumer_static"
echo "install: ok"
