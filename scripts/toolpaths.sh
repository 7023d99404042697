# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash
# Where setup.sh keeps tools that the distribution lacks, and how they are found; to be sourced.
set -euo pipefail
tools_venv=${BATON_TOOLS_VENV:-$HOME/.cache/baton/tools}
cuda_venv=${BATON_CUDA_VENV:-$HOME/.cache/baton/cuda}

# new_enough VERSION WANTED; an empty VERSION is not.
new_enough() { [ -n "$1" ] && printf '%s\n%s\n' "$2" "$1" | sort -V -C; }
cmake_version() { cmake --version 2>/dev/null | sed -n 's/^cmake version //p'; }

ucx_version() {
    if [ -n "${UCX_ROOT:-}" ]; then
        local file=$UCX_ROOT/include/ucp/api/ucp_version.h
        sed -n 's/^#define UCP_API_M[AIJNOR]* *\([0-9]*\).*/\1/p' "$file" 2>/dev/null | paste -sd.
    else
        pkg-config --modversion ucx 2>/dev/null || true
    fi
}

# Prints the CUDA compiler: the machine's, else the one that setup.sh --cuda installed.
find_nvcc() {
    local candidate
    for candidate in "$(command -v nvcc || true)" /usr/local/cuda/bin/nvcc \
        "$cuda_venv"/lib/python3*/site-packages/nvidia/cu13/bin/nvcc \
        "$cuda_venv"/lib/python3*/site-packages/nvidia/cuda_nvcc/bin/nvcc; do
        if [ -n "$candidate" ] && [ -x "$candidate" ]; then
            echo "$candidate"
            return 0
        fi
    done
    return 1
}

if [ -x "$tools_venv/bin/cmake" ]; then export PATH=$tools_venv/bin:$PATH; fi
if [ -z "${UCX_ROOT:-}" ]; then
    for prefix in "$tools_venv"/lib/python3*/site-packages/libucx; do
        if [ -d "$prefix" ]; then export UCX_ROOT=$prefix; fi
    done
fi
