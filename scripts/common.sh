# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# What the other scripts share; to be sourced. Sets top, the root of the repository.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
# shellcheck source=scripts/toolpaths.sh
. "$top/scripts/toolpaths.sh"

# Compilation results are kept between builds where ccache is there.
if command -v ccache >/dev/null; then export CMAKE_C_COMPILER_LAUNCHER=ccache; fi

# build PRESET [cmake option...]: configures and builds build/PRESET; says nothing unless it fails.
build() {
    local preset=$1
    shift
    logged "$preset" "build: $preset" build_now "$preset" "$@"
}
build_now() {
    cmake --preset "$@" && cmake --build --preset "$1"
}

# build_programs PRESET TARGET...: as build, but only these; does nothing when they are up to date.
build_programs() {
    local preset=$1
    shift
    "$top/scripts/setup.sh"
    logged "$preset" "build: $preset ($*)" build_targets "$preset" "$@"
}
build_targets() {
    local preset=$1
    shift
    cmake --preset "$preset" && cmake --build --preset "$preset" --target "$@"
}

# logged NAME TITLE COMMAND...: runs it in the root; what it prints is shown only when it fails.
logged() {
    local log began=$SECONDS title=$2
    log=$(mktemp -t "baton-build-$1.XXXXXX")
    shift 2
    echo "$title"
    if ! (cd "$top" && "$@") >"$log" 2>&1; then
        grep -E 'error|warning|FAILED|Error' -A5 "$log" | head -60 || true
        echo "$title failed, whole log: $log" >&2
        return 1
    fi
    rm -f "$log"
    echo "build: took $((SECONDS - began)) s"
}
