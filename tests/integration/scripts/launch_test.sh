#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# launch.sh stops everything when one of its processes dies, or starts that one again, stops when it
# is told to, and leaves no process behind. Not a ctest test: it builds. .ci/run calls it.
set -euo pipefail
top=$(cd "$(dirname "$0")/../../.." && pwd)
work=$(mktemp -d)
launch_pid=
finish() {
    if [ -n "$launch_pid" ]; then kill -TERM "$launch_pid" 2>/dev/null || true; fi
    rm -rf "$work"
}
trap finish EXIT

fail() {
    echo "launch_test: $*" >&2
    cat "$work/out" >&2
    exit 1
}

# start [OPTION...]: launches 1 and 2 and returns when all are ready.
start() {
    rm -f "$work/out"
    mkfifo "$work/pipe"
    "$top/scripts/launch.sh" --prefillers 1 --decoders 2 "$@" >"$work/pipe" 2>&1 &
    launch_pid=$!
    exec 3<"$work/pipe"
    rm "$work/pipe"
    hear "all are ready"
}

# hear TEXT: waits for a line with it.
hear() {
    while read -r -t 300 line <&3; do
        echo "$line" >>"$work/out"
        if [[ $line == *"$1"* ]]; then return; fi
    done
    fail "never heard '$1' from launch.sh"
}

# ask: one request through the proxy gets its 4 tokens.
ask() {
    curl -sf "$(sed -n 's/.*curl -N \(http[^ ]*\) .*/\1/p' "$work/out")" \
        -H 'Content-Type: application/json' -d '{"prompt": "Once upon a time", "max_tokens": 4}' \
        >"$work/answer" || fail "no answer"
    grep -q '"completion_tokens":4' "$work/answer" || fail "wanted 4 tokens: $(cat "$work/answer")"
}

# stopped STATUS: launch.sh ends with it, and none of its processes is left.
stopped() {
    local status=0 pid
    cat <&3 >>"$work/out" # until it has ended
    wait "$launch_pid" || status=$?
    launch_pid=
    [ $status = "$1" ] || fail "wanted exit status $1, found $status"
    # shellcheck disable=SC2013  # numbers
    for pid in $(awk '$2 ~ /^[0-9]+$/ { print $2 } / is back, pid / { print $NF }' "$work/out"); do
        if kill -0 "$pid" 2>/dev/null; then fail "process $pid is left"; fi
    done
}

start
ask
kill -KILL "$(awk '$1 == "decode-2" { print $2 }' "$work/out")"
stopped 1
grep -q 'decode-2 .* has died' "$work/out" || fail "wanted to hear that decode-2 has died"
logs=$(sed -n 's/^launch.sh: logs are in //p' "$work/out")
[ -f "$logs/decode-2.log" ] || fail "wanted the log of decode-2 to be kept"
rm -rf "$logs"

start
logs=$(awk '$1 == "proxy" { print $NF }' "$work/out")
kill -TERM "$launch_pid"
stopped 0
[ ! -e "$(dirname "$logs")" ] || fail "wanted no logs left in $(dirname "$logs")"
# With one decoder: the next request needs the one that comes back.
start --decoders 1 --restart 2
ask
for name in decode-1 prefill-1 proxy; do
    kill -KILL "$(awk -v name=$name '$1 == name { print $2 }' "$work/out")"
    hear "$name is back"
    ask
done
for i in 1 2; do # three times in a minute, the one above included
    kill -KILL "$(sed -n 's/.* decode-1 is back, pid //p' "$work/out" | tail -n 1)"
    if [ $i = 1 ]; then hear "decode-1 is back"; fi
done
stopped 1
grep -q 'decode-1 has died 3 times in a minute: giving up' "$work/out" || fail "wanted it to give up"
rm -rf "$(sed -n 's/^launch.sh: logs are in //p' "$work/out")"
echo "launch_test: ok"
