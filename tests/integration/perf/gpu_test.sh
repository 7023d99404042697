#!/bin/sh
# SPDX-License-Identifier: Apache-2.0
# Transfers between two processes from and to the memory of a GPU: cuda_ipc where UCX has it, staged
# through pinned pages where it has not. Every byte is verified.
# usage: gpu_test.sh BATON-PERF [DRIVER]: DRIVER stands in for libcuda.so.1
set -u
perf=$1
folder=$(mktemp -d) || exit 1
out=$folder/out
trap 'rm -rf "$folder"' EXIT
if [ $# -gt 1 ]; then
    ln -s "$2" "$folder/libcuda.so.1" || exit 1
    LD_LIBRARY_PATH=$folder${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}
    export LD_LIBRARY_PATH
fi

run() {
    if "$perf" --memory "$@" --iterations 3 --warmup 1 >"$out" 2>&1; then
        grep -E 'GB/s|path' "$out" | head -3
        return
    fi
    if grep -q 'cuda: wanted NVIDIA\|cuda: wanted a GPU\|cuda: wanted .* to start' "$out"; then
        echo "skipped: no GPU: $(tail -1 "$out")"
        exit 77
    fi
    echo "failed: $perf --memory $*" >&2
    cat "$out" >&2
    exit 1
}

run cuda --pages 64 --page-bytes 256KiB
run cuda --pages 64 --page-bytes 256KiB --paged --layers 4 --heads 8 --head-dim 128
run cuda --pages 64 --page-bytes 256KiB --digests full
run cuda --pages 64 --page-bytes 256KiB --transport tcp
run cuda_host --pages 64 --page-bytes 256KiB
