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
    local preset=$1 log began=$SECONDS
    shift
    log=$(mktemp -t "baton-build-$preset.XXXXXX")
    echo "build: $preset"
    if ! (cd "$top" && cmake --preset "$preset" "$@" && cmake --build --preset "$preset") \
        >"$log" 2>&1; then
        grep -E 'error|warning|FAILED|Error' -A5 "$log" | head -60 || true
        echo "build: $preset failed, whole log: $log" >&2
        return 1
    fi
    rm -f "$log"
    echo "build: $preset took $((SECONDS - began)) s"
}
