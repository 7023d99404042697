#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# bench/compare.sh runs what is there, says what is missing, and judges targets. Usage:
# compare_test.sh REPOSITORY BUILD
set -euo pipefail
command -v python3 >/dev/null || { echo "no python3"; exit 77; }
top=$1 build=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

fail() {
    echo "compare_test: $*" >&2
    cat "$work/out" >&2
    exit 1
}

export BATON_PEERS=$work/peers
compare() { "$top/bench/compare.sh" --build "$build" --no-install "$@" >"$work/out" 2>&1; }

compare --rounds 2 --iterations 1 --only 2048x4k --json "$work/json" \
    --markdown "$work/md" || fail "status $?"
grep -Eq '^  baton +[0-9,.]+ ' "$work/out" || fail "wanted a figure of baton's"
grep -Eq '^  NT-store floor +[0-9,.]+ ' "$work/out" || fail "wanted a figure of the floor's"
grep -Eq '^  process_vm floor +[0-9,.]+ ' "$work/out" || fail "wanted a figure of the other floor's"
grep -Eq '^    baton : NIXL, 4 KiB pages +- +>= 3 +not measured' "$work/out" ||
    fail "wanted NIXL not measured"
grep -Eq '^  NT-store floor, huge pages +[0-9,.]+ ' "$work/out" ||
    fail "wanted a figure of the floor with huge pages"
grep -Eq '^  baton, huge pages +([0-9,.]+|-) ' "$work/out" || fail "wanted baton with huge pages"
grep -Eq '^  baton +.* mapped, 4 KiB pages$' "$work/out" || fail "wanted the pages' size"
grep -Fq "missing: $BATON_PEERS/nixl/bin/python" "$work/out" || fail "wanted NIXL missing"
python3 - "$work/json" <<'END' || fail "wanted two rounds in the JSON"
import json, sys
work = json.load(open(sys.argv[1]))["works"][0]
assert len(work["rounds"]["baton"]) == 2 and all(work["rounds"]["baton"]), work
assert work["rounds"]["NIXL"] == [None, None], work
END
grep -Fq "| 2,048 x 4 KiB scattered | baton : NIXL, 4 KiB pages | at least 3 | - | not measured |" "$work/md" ||
    fail "wanted the target in Markdown"
for floor in "floor_tcp --lanes 2" "floor_tcp --buffer 65536" "floor_copy --memcpy --shared" \
    "floor_vm --huge"; do
    # shellcheck disable=SC2086  # a program and its options
    "$build"/bin/$floor --pages 1025 --page-bytes 4096 --iterations 3 >"$work/out" 2>&1 ||
        fail "$floor: status $?"
    grep -Fq '"verified": 5' "$work/out" || fail "$floor: wanted 5 verified iterations"
done
for floor in "floor_tcp --latency --poll" "floor_tcp --latency --pause" floor_wake; do
    # shellcheck disable=SC2086
    "$build"/bin/$floor --pages 1 --page-bytes 4096 --iterations 3 >"$work/out" 2>&1 ||
        fail "$floor: status $?"
    grep -Eq '"us": \{"min": [0-9]*[1-9]' "$work/out" || fail "$floor: wanted a time"
done
# What compare.sh builds is what its works run.
needed=$(sed -n 's/.*floor\(_mode\)\{0,1\}("\(floor_[a-z]*\)".*/\2/p' "$top/bench/compare/works.py" | sort -u)
for program in baton-perf $needed; do
    grep -Eq "^ *programs=\(.*\b$program\b.*\)" "$top/bench/compare.sh" ||
        fail "$program: wanted it built by compare.sh"
done
for program in $needed; do
    "$build/bin/$program" --help >"$work/out" 2>"$work/err" || fail "$program --help: status $?"
    grep -q '^usage: ' "$work/out" || fail "$program --help: wanted its usage on stdout"
    if [ -s "$work/err" ]; then fail "$program --help: wanted nothing on stderr"; fi
done
if compare --only nothing-has-this-key; then fail "wanted a failure without any work"; fi
echo "compare_test: ok"
