#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# baton-perf beside ucx_perftest over rc, in turns, in one virtual machine with soft RoCE devices.
# Emulated: the ratio says what Baton adds to UCX, the figures say nothing about real devices.
set -euo pipefail
top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)

usage() {
    cat <<'EOF'
usage: tests/rdma/figures.sh [--rounds N] [--preset NAME]

Prints a table: MB/s (10^6) of ucx_perftest -t ucp_put_bw and of whole hand-offs by baton-perf, for
messages and pages of 64 KiB and 1 MiB; lowest, median and highest of the rounds, and the median of
the rounds' ratios. Needs scripts/setup.sh --rdma --bench and a built preset (default release).
EOF
}

rounds=5 preset=release inside=no
while [ $# -gt 0 ]; do
    case $1 in
    --rounds) rounds=$2; shift ;;
    --preset) preset=$2; shift ;;
    --inside) inside=yes ;;
    -h | --help) usage; exit 0 ;;
    *) usage >&2; exit 2 ;;
    esac
    shift
done
if [ $inside = no ]; then
    exec "$top/tests/rdma/rdma-vm" --offline --quiet --timeout 600 -- \
        "${BASH_SOURCE[0]}" --inside --rounds "$rounds" --preset "$preset"
fi

perf=$top/build/$preset/bin/baton-perf
export UCX_TLS=rc UCX_IB_GID_INDEX=0 UCX_RC_RETRY_COUNT=6

# Each prints MB/s. perftest's own are 2^20 bytes.
run_perftest() { # bytes, count
    local server
    UCX_NET_DEVICES=rxe1:1 ucx_perftest -t ucp_put_bw >/dev/null 2>&1 &
    server=$!
    until ss -Htln sport = :13337 | grep -q .; do sleep 0.1; done
    UCX_NET_DEVICES=rxe0:1 ucx_perftest 127.0.0.1 -t ucp_put_bw -s "$1" -n "$2" -w 10 -f 2>/dev/null |
        awk '$1 + 0 > 0 && NF >= 7 { mib = $6 } END { print mib * 1.048576 }'
    kill $server 2>/dev/null || true
    wait $server 2>/dev/null || true
}
run_baton() { # bytes, pages
    local log receiver peer
    log=$(mktemp)
    "$perf" --role receiver --devices rxe1:1 >"$log" 2>/dev/null &
    receiver=$!
    until grep -q -- --peer "$log"; do sleep 0.1; done
    peer=$(sed -n 's/.*--peer \([^ ]*\).*/\1/p' "$log")
    "$perf" --role sender --peer "$peer" --devices rxe0:1 --transport put --pages "$2" \
        --page-bytes "$1" --iterations 3 --warmup 1 2>/dev/null |
        awk '$1 == "GB/s" { print $3 * 1000 }'
    kill $receiver && wait $receiver 2>/dev/null || true
    rm -f "$log"
}
summary() { sort -g | awk '{ v[NR] = $1 } END { printf "%.1f / %.1f / %.1f", v[1], v[int((NR + 1) / 2)], v[NR] }'; }

echo "| page | ucx_perftest put_bw, rc | Baton, hand-off | Baton / perftest, median |"
echo "| --- | --- | --- | --- |"
for size in 65536:128 1048576:8; do
    bytes=${size%:*} count=${size#*:} ucx=() baton=() ratio=()
    for ((round = 0; round < rounds; round++)); do
        ucx+=("$(run_perftest "$bytes" "$count")")
        baton+=("$(run_baton "$bytes" "$count")")
        ratio+=("$(awk "BEGIN { print ${baton[-1]} / ${ucx[-1]} }")")
    done
    printf '| %d KiB | %s | %s | %s |\n' $((bytes / 1024)) "$(printf '%s\n' "${ucx[@]}" | summary)" \
        "$(printf '%s\n' "${baton[@]}" | summary)" \
        "$(printf '%s\n' "${ratio[@]}" | sort -g | awk '{ v[NR] = $1 } END { printf "%.2f", v[int((NR + 1) / 2)] }')"
done
