#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Prefill and decode engines and the proxy under load while things go wrong: tests/stress/chaos.
# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"
usage() {
    cat <<'EOT'
usage: scripts/chaos.sh [option...]

Prefill and decode engines with the proxy, on loopback, while clients ask: processes are
killed, stopped and started again, a pool shrinks, control frames are lost, repeated and swapped,
clients hang up. Every answer is compared with that of one engine alone. At the end no answer was
wrong, none took for ever, no process ended by itself (but for an assertion of UCX 1.13: README,
Limits), and no page, pin, lease, descriptor or endpoint is left over.

  --minutes N      how long things go wrong [3]
  --seed N         which things, and in which order [1]
  --prefillers N   prefill engines, 2 to 4 [2]
  --decoders N     decode engines, 2 to 4 [2]
  --build PRESET   release, dev (ASan + UBSan), tsan [release]
EOT
}
minutes=3 seed=1 prefillers=2 decoders=2 preset=release
while [ $# -gt 0 ]; do
    case $1 in
    -h | --help) usage && exit 0 ;;
    --minutes | --seed | --prefillers | --decoders | --build)
        [ $# -ge 2 ] || { echo "chaos.sh: $1 wants a value; see --help" >&2 && exit 2; }
        case $1 in
        --minutes) minutes=$2 ;;
        --seed) seed=$2 ;;
        --prefillers) prefillers=$2 ;;
        --decoders) decoders=$2 ;;
        *) preset=$2 ;;
        esac
        shift 2
        ;;
    *) echo "chaos.sh: no option $1; see --help" >&2 && exit 2 ;;
    esac
done
for number in "$minutes" "$seed" "$prefillers" "$decoders"; do
    case $number in '' | *[!0-9]* | 0) echo "chaos.sh: wanted a number from 1, found '$number'" >&2 && exit 2 ;; esac
done
"$top/scripts/setup.sh"
build_chaos() {
    cmake --preset "$preset" -DBATON_TESTS=ON && cmake --build --preset "$preset" --target chaos
}
logged "$preset" "build: $preset (chaos)" build_chaos
BATON_CHAOS_SECONDS=$((minutes * 60)) BATON_CHAOS_SEED=$seed \
    BATON_CHAOS_PREFILLERS=$prefillers BATON_CHAOS_DECODERS=$decoders \
    exec ctest --test-dir "$top/build/$preset" -R '^chaos$' --verbose --timeout $((minutes * 60 + 600))
