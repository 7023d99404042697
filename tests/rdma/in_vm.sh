#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs one test program in a virtual machine with soft RoCE devices (rdma-vm); exit status 77 where
# that cannot run. BATON_BIN and what sanitizers and UCX are told go along.
#   in_vm.sh DEVICES PROGRAM [ARGUMENT...]
set -euo pipefail
devices=$1
shift
env=()
for name in BATON_BIN ASAN_OPTIONS LSAN_OPTIONS UBSAN_OPTIONS UCX_HANDLE_ERRORS UCX_MEM_EVENTS \
    UCX_MEM_MMAP_HOOK_MODE; do
    env+=(--env "$name")
done
exec "$(dirname "$0")/rdma-vm" --offline --timeout 280 --devices "$devices" "${env[@]}" -- "$@"
