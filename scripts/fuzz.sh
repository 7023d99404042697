#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Runs the libFuzzer targets (clang) and prints what came of it. See usage below.
# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"

usage() {
    cat <<'EOF'
usage: scripts/fuzz.sh [--jobs N] [TIME] [TARGET...]

Builds the preset `fuzz` and runs every target, or those named, for TIME each: seconds, or 5m, 1h
(20). N run at a time (2). What a run learns stays in build/fuzz/work and goes into the next one; the
inputs in tests/fuzz/corpus are where it starts.

Prints for each target: executions, executions per second, edges covered, inputs that cover them,
and findings. With a finding it ends with 1, the paths of the inputs, and how to run them again.

  --list      names the targets
  --help      this text
EOF
}

seconds_of() {
    case $1 in
        *h) echo $((${1%h} * 3600)) ;;
        *m) echo $((${1%m} * 60)) ;;
        *) echo "${1%s}" ;;
    esac
}

jobs=2 seconds=20 list=
wanted=()
while [ $# -gt 0 ]; do
    case $1 in
        --help | -h) usage; exit 0 ;;
        --list) list=1 ;;
        --jobs) jobs=${2:?--jobs: wanted a number}; shift ;;
        [0-9]*) seconds=$(seconds_of "$1") ;;
        fuzz_*) wanted+=("$1") ;;
        *) echo "fuzz.sh: wanted a time or a target, found '$1' (--help)" >&2; exit 2 ;;
    esac
    shift
done

cd "$top"
folder=$top/build/fuzz/fuzz
command -v clang >/dev/null || { echo "fuzz.sh: wanted clang, found none; install it" >&2; exit 2; }
logged fuzz "build: fuzz" build_targets fuzz fuzzers
known=$(cut -d' ' -f1 "$folder/targets")
if [ -n "$list" ]; then echo "$known"; exit 0; fi
if [ ${#wanted[@]} = 0 ]; then mapfile -t wanted <<<"$known"; fi
for target in "${wanted[@]}"; do
    grep -qx "$target" <<<"$known" ||
        { echo "fuzz.sh: no target '$target'; there are:" "${known//$'\n'/ }" >&2; exit 2; }
done

mkdir -p build/fuzz/work build/fuzz/found build/fuzz/log
export ASAN_OPTIONS=detect_leaks=1
export LSAN_OPTIONS=suppressions=$top/tests/support/sanitizers.supp:print_suppressions=0
export UBSAN_OPTIONS=print_stacktrace=1
export UCX_MEM_EVENTS=no

# run_one TARGET: its output goes to build/fuzz/log/TARGET, findings to build/fuzz/found/TARGET-...
run_one() {
    local target=$1 corpus rc=0
    corpus=$(grep "^$target " "$folder/targets" | cut -d' ' -f2-)
    mkdir -p "build/fuzz/work/$target"
    # Twice the time to end by itself: reading the corpus does not count for libFuzzer.
    # shellcheck disable=SC2086
    timeout -k 10 $((seconds * 2 + 120)) "$folder/$target" -max_total_time="$seconds" \
        -rss_limit_mb=2048 -timeout=30 -print_final_stats=1 \
        -artifact_prefix="build/fuzz/found/$target-" "build/fuzz/work/$target" $corpus \
        >"build/fuzz/log/$target" 2>&1 || rc=$?
    echo "$rc" >"build/fuzz/log/$target.rc"
}

# number TARGET PATTERN: the last number behind the pattern in its log; 0: none.
number() { { grep -oE "$2 *[0-9]+" "build/fuzz/log/$1" || echo 0; } | tail -1 | grep -oE '[0-9]+$'; }

# found TARGET: the inputs that this run has written; a slow one is no finding.
found() {
    find build/fuzz/found -name "$1-*" ! -name "$1-slow-unit-*" -newer build/fuzz/log/began
}

rm -f build/fuzz/log/*.rc
touch build/fuzz/log/began
began=$SECONDS
for target in "${wanted[@]}"; do
    while [ "$(jobs -rp | wc -l)" -ge "$jobs" ]; do wait -n || true; done
    run_one "$target" &
done
wait

printf '%-18s %12s %8s %9s %7s %9s\n' target executions exec/s coverage corpus findings
failed=()
for target in "${wanted[@]}"; do
    n=$(found "$target" | wc -l)
    rc=$(cat "build/fuzz/log/$target.rc")
    if [ "$rc" != 0 ] || [ "$n" != 0 ]; then failed+=("$target"); fi
    printf '%-18s %12s %8s %9s %7s %9s\n' "$target" "$(number "$target" stat::number_of_executed_units:)" \
        "$(number "$target" stat::average_exec_per_sec:)" "$(number "$target" 'cov:')" \
        "$(number "$target" 'corp:')" "$n"
done
echo "fuzz: ${#wanted[@]} targets, $seconds s each, $((SECONDS - began)) s in all"

for target in ${failed[@]+"${failed[@]}"}; do
    echo
    echo "fuzz: $target ended with $(cat "build/fuzz/log/$target.rc"), log: $top/build/fuzz/log/$target" >&2
    grep -E 'ERROR|SUMMARY|runtime error' "build/fuzz/log/$target" | head -5 >&2 || true
    found "$target" | sed "s|^|  again: $folder/$target $top/|" >&2
done
[ ${#failed[@]} = 0 ]
