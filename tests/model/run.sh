#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Checks the model of the protocol with Spin: every configuration, exhaustively.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)

usage() {
    cat <<'END'
usage: tests/model/run.sh [--big] [--cycles] [--source DIR] [--keep DIR] [CONFIGURATION...]

Checks the model (tests/model/handoff.pml) of sender, receiver and proxy with Spin, all states of
each configuration; without names all those of CI, which takes 6 GiB at most. Exit status: 0 all
hold, 1 an error was found, 77 there is no spin or no gcc.

  --big          the larger configurations instead: hours, and 48 GiB
  --cycles       looks for runs without an end instead (non-progress cycles)
  --first-error  an error is expected: builds the checker fast rather than a fast checker
  --source DIR   takes core/states.def and tests/model/*.pml from DIR (mutants.sh)
  --keep DIR     leaves checker, output and the trail of an error in DIR/CONFIGURATION
  --list         names the configurations, and what they are
  -h, --help
END
}

# name RANKS PAGES N0 N1 MAPPED BEHIND LOCAL FAULTS ATTEMPTS (see handoff.pml)
quick_configurations() { echo "quick 1 3 2 2 1 0 1 1 1"; }
configurations() {
    cat <<'END'
mapped        1 3 2 2 1 0 1 2 1
mapped-again  1 2 2 2 1 0 1 1 2
flushed       1 3 2 2 0 0 0 2 1
behind        1 3 2 2 0 1 0 2 1
behind-again  1 2 2 1 0 1 0 1 2
same-key      1 3 2 1 1 0 1 2 1
full          1 2 2 2 1 0 1 2 1
ranks         2 1 1 1 1 0 1 1 1
END
}
big_configurations() {
    cat <<'END'
big-mapped    1 3 2 2 1 0 1 2 2
big-behind    1 3 2 2 0 1 0 2 2
big-faults    1 2 2 1 1 0 1 3 1
big-ranks     2 1 1 1 1 0 1 2 1
END
}

source=$top list=configurations keep='' mem=6000 cycles=no optimize=-O1
chosen=()
while [ $# -gt 0 ]; do
    case "$1" in
    --big) list=big_configurations mem=48000 ;;
    --cycles) cycles=yes ;;
    --first-error) optimize=-O0 ;;
    --source) source=$2; shift ;;
    --keep) keep=$2; shift ;;
    --list) quick_configurations; configurations; big_configurations; exit 0 ;;
    -h | --help) usage; exit 0 ;;
    -*) echo "run.sh: unknown option '$1'" >&2; usage >&2; exit 2 ;;
    *) chosen+=("$1") ;;
    esac
    shift
done
for tool in spin gcc; do
    command -v $tool >/dev/null || { echo "skipped: no $tool (scripts/setup.sh installs it)"; exit 77; }
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# check NAME RANKS PAGES N0 N1 MAPPED BEHIND LOCAL FAULTS ATTEMPTS
check() {
    local name=$1 dir=$work/$1 began=$SECONDS mode=(-DSAFETY) run=()
    mkdir -p "$dir"
    cd "$dir"
    # cpp first: Spin would look for the tables beside the model, and for a line in each of them.
    gcc -E -P -x c -I"$source" -I"$source/tests/model" -DRANKS="$2" -DPAGES="$3" -DN0="$4" \
        -DN1="$5" -DMAPPED="$6" -DBEHIND="$7" -DLOCAL="$8" -DFAULTS="$9" -DATTEMPTS="${10}" \
        "$source/tests/model/handoff.pml" >model.pml
    spin -a model.pml >spin.out || { cat spin.out; return 2; }
    if [ $cycles = yes ]; then mode=(-DNP) run=(-l); fi
    # Nothing is local to a process here, so that there is no order to reduce.
    gcc $optimize -w "${mode[@]}" -DCOLLAPSE -DNOREDUCE -DMEMLIM="$mem" -DVECTORSZ=4096 -o pan pan.c
    ./pan "${run[@]}" -m100000 -w25 >pan.out 2>&1 || true
    local errors states depth memory
    errors=$(sed -n 's/.*errors: \([0-9]*\).*/\1/p' pan.out)
    depth=$(sed -n 's/.*depth reached \([0-9]*\),.*/\1/p' pan.out)
    states=$(sed -n 's/^ *\([0-9.e+]*\) states, stored.*/\1/p' pan.out)
    memory=$(sed -n 's/^ *\([0-9.]*\)[ \t]*total actual memory usage/\1/p' pan.out)
    printf '%-14s %11s states, depth %4s, %5.0f MB, %4d s: ' "$name" "${states:-?}" "${depth:-?}" \
        "${memory:-0}" $((SECONDS - began))
    if [ -n "$keep" ]; then mkdir -p "$keep/$name" && cp -r . "$keep/$name"; fi
    if grep -q 'out of memory\|search depth too small\|max search depth\|interrupted' pan.out; then
        echo "not finished"
        grep -m 2 'memory\|depth' pan.out | head -2
        return 2
    elif [ "${errors:-1}" != 0 ]; then
        echo "ERROR"
        grep -m 1 '^pan:1:' pan.out || cat pan.out
        return 1
    fi
    echo "no errors"
}

status=0
while read -r name rest; do
    if [ ${#chosen[@]} -gt 0 ] && [[ " ${chosen[*]} " != *" $name "* ]]; then continue; fi
    # shellcheck disable=SC2086  # nine numbers
    check "$name" $rest || status=$?
done < <(if [ ${#chosen[@]} -gt 0 ]; then quick_configurations; configurations; big_configurations; else $list; fi)
exit $status
