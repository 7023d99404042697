#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# launch.sh stops everything when one of its processes dies, and when it is told to stop, and leaves
# no process behind. Not a ctest test: it builds. .ci/run calls it.
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

# start: launches 1 and 2 and returns when all are ready.
start() {
    rm -f "$work/out"
    mkfifo "$work/pipe"
    "$top/scripts/launch.sh" --prefillers 1 --decoders 2 >"$work/pipe" 2>&1 &
    launch_pid=$!
    exec 3<"$work/pipe"
    rm "$work/pipe"
    while read -r -t 300 line <&3; do
        echo "$line" >>"$work/out"
        if [[ $line == *"all are ready"* ]]; then return; fi
    done
    fail "launch.sh did not get ready"
}

# stopped STATUS: launch.sh ends with it, and none of its processes is left.
stopped() {
    local status=0 pid
    cat <&3 >>"$work/out" # until it has ended
    wait "$launch_pid" || status=$?
    launch_pid=
    [ $status = "$1" ] || fail "wanted exit status $1, found $status"
    # shellcheck disable=SC2013  # numbers
    for pid in $(awk '$2 ~ /^[0-9]+$/ { print $2 }' "$work/out"); do
        if kill -0 "$pid" 2>/dev/null; then fail "process $pid is left"; fi
    done
}

start
curl -sf "$(sed -n 's/.*curl -N \(http[^ ]*\) .*/\1/p' "$work/out")" \
    -H 'Content-Type: application/json' -d '{"prompt": "Once upon a time", "max_tokens": 4}' \
    >"$work/answer" || fail "no answer"
grep -q '"completion_tokens":4' "$work/answer" || fail "wanted 4 tokens: $(cat "$work/answer")"
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
echo "launch_test: ok"
