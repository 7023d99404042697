#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Starts prefill engines, decode engines and the proxy on this machine, until Ctrl-C.
# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"
# shellcheck source=scripts/fleet.sh
. "$top/scripts/fleet.sh"

usage() {
    cat <<'EOF'
usage: scripts/launch.sh [--prefillers X] [--decoders Y] [option...] [engine option...]

Starts X prefill and Y decode engines and the proxy, every one a process of its own, waits until all
are ready, prints their ports and a curl line to try, and stops all of them on Ctrl-C or when one
dies (but see --restart). Builds what is missing.

  --prefillers X       how many [1]
  --decoders Y         how many [1]
  --tp N               ranks of each engine [1]
  --proxy-port P       where the proxy listens for HTTP [any free port]
  --build PRESET       which build to use: release, dev, ... [release]
  --prefill-option O   an option for prefill engines only; may be repeated
  --decode-option O    for decode engines only
  --proxy-option O     for the proxy
  --restart N          a process that dies is started again, on the ports it had, after 0.5 s, then
                       1, 2, 4, 8 s; when one dies more than N times in a minute, all stop [0]
  --keep-logs          leave the logs behind
  -h, --help

Everything else goes to every engine (build/release/bin/baton-engine --help), for example
  --model FOLDER       a Hugging Face Llama [random weights, seed 1]
  --threads N          threads of each [cores divided by engines]
EOF
}

prefillers=1 decoders=1 tp=1 port=0 preset=release weights=(--random-weights 1) restarts=0 threads=
while [ $# -gt 0 ]; do
    case "$1" in
    --prefillers | --decoders | --tp | --proxy-port | --restart | --build | --prefill-option | \
        --decode-option | --proxy-option)
        [ $# -gt 1 ] || { echo "launch.sh: $1 wants a value" >&2; exit 2; }
        ;;
    esac
    case "$1" in
    --prefillers) prefillers=$2; shift ;;
    --decoders) decoders=$2; shift ;;
    --tp) tp=$2; shift ;;
    --proxy-port) port=$2; shift ;;
    --build) preset=$2; shift ;;
    --prefill-option) fleet_prefill_options+=("$2"); shift ;;
    --decode-option) fleet_decode_options+=("$2"); shift ;;
    --proxy-option) fleet_proxy_options+=("$2"); shift ;;
    --restart) restarts=$2; shift ;;
    --keep-logs) fleet_keep_logs=yes ;;
    -h | --help) usage; exit 0 ;;
    --model | --model=* | --random-weights | --random-weights=*)
        weights=()
        fleet_options+=("$1")
        ;;
    --threads | --threads=*)
        threads=given
        fleet_options+=("$1")
        ;;
    *) fleet_options+=("$1") ;;
    esac
    shift
done
for count in "$prefillers" "$decoders" "$tp"; do
    if ! [[ $count =~ ^[1-9][0-9]*$ ]]; then
        echo "launch.sh: wanted a number from 1 up, found '$count'" >&2
        exit 2
    fi
done
if ! [[ $restarts =~ ^[0-9]+$ ]]; then
    echo "launch.sh: --restart: wanted a number, found '$restarts'" >&2
    exit 2
fi
if [ -z "$threads" ]; then fleet_options+=(--threads "$(fleet_threads $((prefillers + decoders)))"); fi
fleet_options+=("${weights[@]}")

build_programs "$preset" baton-engine baton-proxy
fleet_bin=$top/build/$preset/bin
trap fleet_close EXIT
trap 'echo; echo "launch.sh: stopping"; exit 0' INT TERM HUP
fleet_open
fleet_launch "$prefillers" "$decoders" "$tp" "$port"
echo
fleet_print_table
echo
fleet_print_curl
echo
echo "launch.sh: all are ready; Ctrl-C stops them"
if [ "$restarts" -gt 0 ]; then fleet_supervise "$restarts"; else fleet_watch; fi
