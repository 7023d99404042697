#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# How much CPU a system uses that has nothing to do: a proxy, a prefill and a decode engine that know
# each other, and an engine alone.
case "${1:-}" in
-h | --help)
    cat <<'EOF'
usage: scripts/idle_cpu.sh [SECONDS]

Starts a prefill engine, a decode engine with its receiver, a proxy, and one engine alone; sends a
request, so that all are connected; and prints for each what share of a core it uses over SECONDS
[10] of idleness. Takes build/release (PRESET=... another build).
EOF
    exit 0
    ;;
esac
# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"
bin=$top/build/${PRESET:-release}/bin
seconds=${1:-10}
logs=$(mktemp -d)
pids=()
stop() {
    kill "${pids[@]}" 2>/dev/null || true
    wait
    rm -rf "$logs"
}
trap stop EXIT

# start NAME PROGRAM ARGUMENT...: its ready line is in $logs/NAME then
start() {
    local name=$1
    shift
    "$bin/$1" "${@:2}" >"$logs/$name" 2>"$logs/$name.err" &
    pids+=($!)
    until grep -qs ready "$logs/$name"; do
        kill -0 $! || { cat "$logs/$name.err"; exit 1; }
        sleep 0.05
    done
}
port() { grep -o "$2[0-9]*" "$logs/$1" | head -1 | grep -o '[0-9]*$'; }
# Nanoseconds that all its threads have run.
used_ns() { cat "/proc/$1"/task/*/schedstat | awk '{ns += $1} END {printf "%d", ns}'; }

start alone baton-engine --random-weights 7
start prefill baton-engine --random-weights 7 --role prefill
start decode baton-engine --random-weights 7 --role decode
start proxy baton-proxy --host 127.0.0.1 --port 0 --proxy-host 127.0.0.1 --proxy-port 0 \
    --prefill "http://127.0.0.1:$(port prefill ' port=')" \
    --decode "http://127.0.0.1:$(port decode ' port='),init=$(port decode init_ports=),alloc=$(port decode alloc_ports=)"
curl -sSf -o "$logs/answer" "http://127.0.0.1:$(port proxy http=127.0.0.1:)/v1/completions" \
    -d '{"prompt":"Once upon a time","max_tokens":4}'

names=(alone prefill decode proxy)
what=("idle engine" "idle prefill engine, connected" "receiver waiting for KV (decode engine)"
    "idle proxy")
before=()
for pid in "${pids[@]}"; do before+=("$(used_ns "$pid")"); done
sleep "$seconds"
printf '%-42s %s\n' process "% of a core over $seconds s"
for i in "${!names[@]}"; do
    awk -v name="${what[$i]}" -v used="$(($(used_ns "${pids[$i]}") - before[i]))" \
        -v seconds="$seconds" \
        'BEGIN { printf "%-42s %.3f\n", name, 100 * used / (seconds * 1e9) }'
done
