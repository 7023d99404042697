# SPDX-License-Identifier: Apache-2.0
# shellcheck shell=bash disable=SC2154  # jobs and ended are of whoever sources this
# Jobs side by side, for run.sh and mutants.sh: start CMD... waits until fewer than $jobs run,
# finish for the last of them; ended STATUS is called for each. $work is theirs, and goes with them.
work=$(mktemp -d)
running=0
set -m # every job is a group, so that its checker ends with it
# shellcheck disable=SC2317  # the traps call it
stop() {
    for job in $(jobs -p); do kill -- "-$job" 2>/dev/null || true; done
    rm -rf "$work"
}
trap stop EXIT
trap 'exit 130' INT TERM

reap() {
    local code=0 # and no name of theirs, which ended() would set instead
    wait -n || code=$?
    running=$((running - 1))
    ended $code
}
start() {
    if [ $running -ge "$jobs" ]; then reap; fi
    "$@" &
    running=$((running + 1))
}
finish() {
    while [ $running -gt 0 ]; do reap; done
}
