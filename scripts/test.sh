#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what is missing, builds, and runs all tests.
case "${1:-}" in
-h | --help)
    cat <<'EOF'
usage: scripts/test.sh [ctest option...]

Installs missing packages (scripts/setup.sh), builds the preset `dev` (gcc, ASan + UBSan) and runs
its tests. PRESET=clang|tsan|release|coverage takes another build.

  scripts/test.sh                    everything
  scripts/test.sh -L unit            one label: unit, integration, stress, threads, model, gpu, rdma
  scripts/test.sh -R test_messages   by name
EOF
    exit 0
    ;;
esac
# shellcheck source=scripts/common.sh
. "$(dirname "$0")/common.sh"
preset=${PRESET:-dev}
"$top/scripts/setup.sh"
build "$preset" -DBATON_TESTS=ON
cd "$top"
ctest --test-dir "build/$preset" --output-on-failure -j"$(nproc)" "$@"
