#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Checks the model of the protocol with Spin: every configuration, exhaustively.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)

usage() {
    cat <<'END'
usage: tests/model/run.sh [--large | --sample] [--jobs N] [--cycles] [--keep DIR] [CONFIGURATION...]

Checks the model (tests/model/handoff.pml) of sender, receiver and proxy with Spin, all states of
each configuration; without names all those of CI, which takes 6 GiB at most. Exit status: 0 all
hold, 1 an error was found, 2 a search was not finished, 77 there is no spin or no gcc.

  --large        the larger configurations instead, one at a time: minutes, and 8 GiB
  --sample       what is larger still, with 3 bits of a table of 4 GiB for a state instead of the
                 state (-DBITSTATE), for 10 minutes: a part of it, so that finding nothing proves
                 nothing
  --jobs N       so many at a time, which share the 6 GiB (default 2)
  --cycles       looks for runs without an end instead (non-progress cycles)
  --first-error  an error is expected: builds the checker fast rather than a fast checker
  --source DIR   takes core/states.def and tests/model/*.pml from DIR (mutants.sh)
  --keep DIR     leaves checker, output and the trail of an error in DIR/CONFIGURATION
  --list         names the configurations, and what they are
  -h, --help
END
}

# name RANKS PAGES N0 N1 MAPPED BEHIND LOCAL FAULTS ATTEMPTS LATE BESIDE, and what else is 1 (see
# handoff.pml)
quick_configurations() { echo "quick 1 3 2 2 1 0 1 1 1 0 0"; }
configurations() {
    cat <<'END'
behind         1 3 2 2 0 1 0 2 1 0 0
late-behind    1 2 2 1 0 1 0 2 1 1 0
beside         1 2 2 1 1 0 1 2 1 0 1
same-key       1 3 2 1 1 0 1 2 1 0 0
flushed        1 3 2 2 0 0 0 2 1 0 0
beside-alone   1 2 2 0 1 0 1 2 1 0 1
beside-flushed 1 2 2 0 0 0 0 2 1 0 1
mapped         1 3 2 2 1 0 1 2 1 0 0
late           1 2 2 1 1 0 1 2 1 1 0
late-again     1 1 1 0 0 0 0 3 2 1 0
full           1 2 2 2 1 0 1 2 1 0 0
ranks          2 1 1 1 1 0 1 1 1 0 0
mapped-again   1 2 2 2 1 0 1 1 2 0 0
behind-again   1 2 2 1 0 1 0 1 2 0 0
same-host      1 2 2 1 0 0 1 2 1 0 0 CLINGS
clings         1 2 2 1 0 0 0 2 1 0 0 CLINGS
clings-behind  1 2 2 1 0 1 0 2 1 0 0 CLINGS
deaf           1 2 2 1 1 0 1 2 1 0 0 DEAF
deaf-behind    1 2 2 1 0 1 0 2 1 0 0 DEAF
mute           1 2 2 1 1 0 1 2 1 0 0 MUTE
mute-flushed   1 2 2 1 0 0 0 2 1 0 0 MUTE
END
}
large_configurations() {
    cat <<'END'
large-again    1 2 2 1 1 0 1 2 2 0 0
large-ranks    2 1 1 1 1 0 1 2 1 0 0
large-faults   1 2 2 1 1 0 1 3 1 0 0
END
}
sample_configurations() {
    cat <<'END'
sample-ranks   2 2 2 1 1 0 1 2 1 0 0
END
}
all_configurations() {
    quick_configurations
    configurations
    large_configurations
    sample_configurations
}

source=$top list=configurations keep='' mem=6000 jobs=2 cycles=no optimize=-O1 store=-DCOLLAPSE bits=(-w25)
chosen=()
while [ $# -gt 0 ]; do
    case "$1" in
    --large) list=large_configurations mem=8000 jobs=1 ;;
    --jobs) jobs=$2; shift ;;
    --sample) list=sample_configurations mem=8000 jobs=1 store=-DBITSTATE bits=(-w35 -Q10) ;;
    --cycles) cycles=yes ;;
    --first-error) optimize=-O0 ;;
    --source) source=$2; shift ;;
    --keep) keep=$2; shift ;;
    --list) all_configurations; exit 0 ;;
    -h | --help) usage; exit 0 ;;
    -*) echo "run.sh: unknown option '$1'" >&2; usage >&2; exit 2 ;;
    *) chosen+=("$1") ;;
    esac
    shift
done
for tool in spin gcc; do
    command -v $tool >/dev/null || { echo "skipped: no $tool (scripts/setup.sh installs it)"; exit 77; }
done

# shellcheck source=SCRIPTDIR/jobs.sh
. "$here/jobs.sh"

# check NAME RANKS PAGES N0 N1 MAPPED BEHIND LOCAL FAULTS ATTEMPTS LATE BESIDE MORE...
check() {
    local name=$1 dir=$work/$1 mode=(-DSAFETY) run=() more=()
    for word in "${@:13}"; do more+=("-D$word=1"); done
    mkdir -p "$dir"
    cd "$dir"
    # cpp first: Spin would look for the tables beside the model, and for a line in each of them.
    gcc -E -P -x c -I"$source" -I"$source/tests/model" -DRANKS="$2" -DPAGES="$3" -DN0="$4" \
        -DN1="$5" -DMAPPED="$6" -DBEHIND="$7" -DLOCAL="$8" -DFAULTS="$9" -DATTEMPTS="${10}" \
        -DLATE="${11}" -DBESIDE="${12}" "${more[@]}" \
        "$source/tests/model/handoff.pml" >model.pml
    spin -a model.pml >spin.out || { cat spin.out; return 2; }
    if [ $cycles = yes ]; then mode=(-DNP) run=(-l); fi
    # Nothing is local to a process here, so that there is no order to reduce.
    gcc $optimize -w "${mode[@]}" $store -DNOREDUCE -DMEMLIM=$((mem / jobs)) -DVECTORSZ=4096 \
        -o pan pan.c
    local TIMEFORMAT=%U errors states depth memory # of the processor: others may use it, too
    { time ./pan "${run[@]}" -m100000 "${bits[@]}" >pan.out 2>&1 || true; } 2>seconds
    errors=$(sed -n 's/.*errors: \([0-9]*\).*/\1/p' pan.out)
    depth=$(sed -n 's/.*depth reached \([0-9]*\),.*/\1/p' pan.out)
    states=$(sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' pan.out)
    memory=$(sed -n 's/^ *\([0-9.]*\)[ \t]*total actual memory usage/\1/p' pan.out)
    printf '%-14s %11s states, depth %4s, %5.0f MB, %3.0f s: ' "$name" "${states:-?}" "${depth:-?}" \
        "${memory:-0}" "$(<seconds)"
    if [ -n "$keep" ]; then mkdir -p "$keep/$name" && cp -r . "$keep/$name"; fi
    if [ "${errors:-1}" != 0 ]; then
        echo "ERROR"
        grep -m 1 '^pan:1:' pan.out || cat pan.out
        return 1
    elif grep -q 'max search depth too small' pan.out ||
        { [ $store != -DBITSTATE ] && grep -q 'Search not completed' pan.out; }; then
        echo "not finished"
        grep -m 1 '^pan: reached\|^error: ' pan.out
        return 2
    fi
    if [ $store = -DBITSTATE ]; then
        echo "no errors in a sample, $(sed -n 's/^\(hash factor: [0-9.]*\).*/\1/p' pan.out)"
    else
        echo "no errors"
    fi
}

status=0
ended() {
    if [ "$1" != 0 ]; then status=$1; fi
}
# Says its line in one piece.
report() {
    local result=0 text
    text=$(check "$@") || result=$?
    echo "$text"
    return $result
}
while read -r name rest; do
    if [ ${#chosen[@]} -gt 0 ] && [[ " ${chosen[*]} " != *" $name "* ]]; then continue; fi
    # shellcheck disable=SC2086  # eleven numbers, and words
    start report "$name" $rest
done < <(if [ ${#chosen[@]} -gt 0 ]; then all_configurations; else $list; fi)
finish
exit $status
