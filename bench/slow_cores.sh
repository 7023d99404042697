#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# What lanes bring where a core is the limit, on a machine that has not the cores to show it.
usage() {
    cat <<'END'
usage: bench/slow_cores.sh [option...]

Moves pages over tcp between two processes with 1, 2 and 4 lanes (baton-perf), while each thread of
both that moves them is held to a share of a core (SCHED_DEADLINE): as if there were a slow core for
each. Prints bandwidth, and the CPU time that each thread took. Needs root, and chrt of util-linux.

  --perf FILE      the baton-perf to take; default build/release/bin/baton-perf
  --percent N      of a core for each thread; default 16. All threads of the run with most lanes
                   together must fit the machine (the kernel refuses more)
  --lanes "1 2 4"  how many, one run each
  --iterations N   transfers of 64 MiB in a run; default 60
  --rounds N       all runs in turns, so often; default 3
  -h, --help
END
}

perf=build/release/bin/baton-perf percent=16 all_lanes="1 2 4" iterations=60 rounds=3
while [ $# -gt 0 ]; do
    case "$1" in
    --perf) perf=$2 ;;
    --percent) percent=$2 ;;
    --lanes) all_lanes=$2 ;;
    --iterations) iterations=$2 ;;
    --rounds) rounds=$2 ;;
    -h | --help) usage; exit 0 ;;
    *) echo "slow_cores: $1: unknown option" >&2; exit 2 ;;
    esac
    if [ $# -lt 2 ]; then echo "slow_cores: $1: wanted a value" >&2; exit 2; fi
    shift 2
done
out=$(mktemp -d) || exit 1
trap 'rm -rf "$out"' EXIT

# The tasks of both processes that move bytes, their first threads aside.
movers() {
    local pid task
    for pid in "$1" $(pgrep -P "$1"); do
        for task in /proc/"$pid"/task/*; do
            [ "${task##*/}" = "$pid" ] && continue
            case $(cat "$task/comm" 2>/dev/null) in
            baton-sender | baton-receiver | baton-lane) echo "$task" ;;
            esac
        done
    done
}

# Of a task, in ticks.
cpu_time() {
    awk '{ print $14 + $15 }' "$1/stat" 2>/dev/null
}

run() {
    local lanes=$1 pid task period=1000000 runtime=$((percent * 10000))
    "$perf" --transport tcp --data-lanes "$lanes" --pages 256 --page-bytes 256KiB --scatter \
        --iterations "$iterations" >"$out/report" 2>&1 &
    pid=$!
    while [ "$(movers $pid | wc -l)" -lt $((lanes > 1 ? 2 + 2 * lanes : 2)) ]; do
        kill -0 $pid 2>/dev/null || { cat "$out/report" >&2; return 1; }
        sleep 0.05
    done
    for task in $(movers $pid); do
        chrt -d --sched-runtime $runtime --sched-deadline $period \
            --sched-period $period -p 0 "${task##*/}" || { kill $pid; return 1; }
    done
    sleep 2
    for task in $(movers $pid); do
        echo "    $(cat "$task/comm") $(cpu_time "$task") ticks"
    done | sort | uniq -c >"$out/threads"
    wait $pid || { cat "$out/report" >&2; return 1; }
    echo "lanes $lanes: $(awk '/^GB\/s/ { print $3 }' "$out/report") GB/s (median)"
    cat "$out/threads"
}

for ((round = 0; round < rounds; round++)); do
    for lanes in $all_lanes; do run "$lanes" || exit 1; done
done
