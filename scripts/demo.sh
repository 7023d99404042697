#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Prefill and decode engines behind the proxy answer real prompts, every answer is compared with one
# engine alone, and two proofs show that the KV cache really moved.
# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"
# shellcheck source=scripts/fleet.sh
. "$top/scripts/fleet.sh"

usage() {
    cat <<'EOF'
usage: scripts/demo.sh [--prefillers X] [--decoders Y] [--tp N] [--prompts N] [--keep]

Builds, starts X prefill and Y decode engines and the proxy (every one a process of its own) and one
engine alone, streams English prompts of 200 to 4,000 tokens through the proxy, compares every
answer with the engine alone, prints what moved for each request, and shows with two proofs that
decode computes with the KV that moved. Leaves nothing behind. Exit status 0: all identical and both
proofs hold.

  --prefillers X    [2]
  --decoders Y      [2]
  --tp N            ranks of each engine: so many senders or receivers [1]
  --prompts N       [32]
  --keep            start the same system again at the end and leave it up, until Ctrl-C
  --keep-logs       leave the logs behind
  -h, --help
EOF
}

prefillers=2 decoders=2 tp=1 prompts=32 keep=no
while [ $# -gt 0 ]; do
    case "$1" in
    --prefillers | --decoders | --tp | --prompts)
        if ! [[ ${2:-} =~ ^[1-9][0-9]*$ ]]; then
            echo "demo.sh: $1: wanted a number from 1 up, found '${2:-}'" >&2
            exit 2
        fi
        declare "${1#--}=$2"
        shift
        ;;
    --keep) keep=yes ;;
    --keep-logs) fleet_keep_logs=yes ;;
    -h | --help) usage; exit 0 ;;
    *) echo "demo.sh: unknown option '$1'" >&2; usage >&2; exit 2 ;;
    esac
    shift
done

# Pools far below what the prompts need (about 2 MiB each), so that chunks are evicted and blocks are
# reused while the demo runs.
model=(--random-weights 1)
small_pools=(--kv-blocks 600)
small_decode=("${small_pools[@]}" --set pool_bytes=12MiB --log-level debug)

texts=()
find_texts() {
    local file
    for file in /usr/share/common-licenses/GPL-3 /usr/share/common-licenses/GFDL-1.3 \
        /usr/share/common-licenses/MPL-2.0 "$top/LICENSE" "$top"/README.md "$top"/docs/*.md; do
        if [ -r "$file" ]; then texts+=("$file"); fi
    done
}

# start_system MODE: the fleet and the engine alone, which becomes $alone.
start_system() {
    local threads
    threads=$(fleet_threads $((prefillers + decoders)))
    fleet_options=("${model[@]}" --threads "$threads" --set "digests=$1")
    fleet_open
    fleet_start_engine alone both "${model[@]}" --log-level warn
    fleet_launch "$prefillers" "$decoders" "$tp" 0
    fleet_await alone
    alone=http://127.0.0.1:$(fleet_field port)
}

# compare NAME N OPTION...: sends N prompts to the proxy and to the engine alone.
compare() {
    local name=$1 n=$2
    shift 2
    "$fleet_bin/baton-demo" --name "$name" --proxy "$fleet_url" --alone "$alone" --prompts "$n" \
        --prefillers "$prefillers" --decoders "$decoders" "$@" "${texts[@]}"
}

# The sum of a counter over the decode engines.
decode_counter() {
    local url
    for url in "${fleet_decode_urls[@]}"; do
        curl -sf "$url/metrics"
    done | awk -v name="$1" 'index($0, name) == 1 { sum += $2 } END { printf "%d", sum }'
}

main_run() {
    local status=0 computed requests
    fleet_prefill_options=("${small_pools[@]}")
    fleet_decode_options=("${small_decode[@]}")
    fleet_proxy_options=(--log-level debug)
    start_system full
    fleet_print_table
    echo
    compare demo "$prompts" --logs "$fleet_dir" >"$fleet_dir/answers" || status=$?
    verdict=$(tail -n 1 "$fleet_dir/answers")
    sed '$d' "$fleet_dir/answers"
    if [ $status -gt 1 ]; then return $status; fi
    computed=$(decode_counter 'baton_engine_prompt_tokens_by_source_total{source="computed"}')
    requests=$(decode_counter 'baton_engine_requests_total')
    echo "decode engines: $requests requests, $computed prompt tokens computed," \
        "$(decode_counter baton_receiver_bytes_landed_total) bytes received," \
        "$(decode_counter baton_receiver_chunks_evicted_total) chunks evicted"
    if [ "$requests" -lt "$prompts" ] || [ "$computed" -gt "$requests" ]; then
        echo "demo.sh: wanted at most one prompt token computed per request" >&2
        status=1
    fi
    fleet_close
    return $status
}

# Digests off, and every moved page of one layer overwritten: answers must differ.
proof_of_use() {
    local line
    fleet_prefill_options=()
    fleet_decode_options=(--spoil-layer 2)
    fleet_proxy_options=(--log-level warn)
    start_system off
    line=$(compare "proof 1" 4 --no-table) || true
    fleet_close
    echo "$line (one layer of what moved was overwritten)"
    [[ $line == *" 0 identical, 4 different" ]] || {
        echo "demo.sh: proof 1: wanted answers that differ" >&2
        return 1
    }
}

# Digests on, and one byte changed on its way: refused, by name.
proof_of_digests() {
    local line status=0
    fleet_prefill_options=(--spoil-byte)
    fleet_decode_options=()
    fleet_proxy_options=(--log-level warn)
    start_system full
    line=$(compare "proof 2" 4 --no-table 2>&1) || true
    [[ $line == *ERR_DIGEST_MISMATCH* && $line == *"4 of 4 requests failed"* ]] || status=1
    [ "$(decode_counter baton_receiver_digests_failed_total)" -gt 0 ] || status=1
    [ "$(decode_counter baton_receiver_requests_ready_total)" = 0 ] || status=1
    fleet_close
    echo "$line (one byte was changed on its way)"
    if [ $status != 0 ]; then
        echo "demo.sh: proof 2: wanted ERR_DIGEST_MISMATCH and no hand-off" >&2
    fi
    return $status
}

build_programs release baton-engine baton-proxy baton-demo
fleet_bin=$top/build/release/bin
find_texts
trap fleet_close EXIT
trap 'echo; echo "demo.sh: stopping"; exit 130' INT TERM HUP
result=0
main_run || result=1
proof_of_use || result=1
proof_of_digests || result=1
echo "${verdict:-demo: nothing ran}"
if [ $keep = yes ] && [ $result = 0 ]; then
    exec "$top/scripts/launch.sh" --prefillers "$prefillers" --decoders "$decoders" --tp "$tp"
fi
exit $result
