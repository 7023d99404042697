#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Baton beside other engines and the machine's floors, in turns, as one table.
usage() {
    cat <<'END'
usage: bench/compare.sh [option...]

Moves the same pages between two processes of this machine with baton-perf, NIXL, Mooncake,
ucx_perftest, plain copies, process_vm_writev and plain sockets: in turns, round after round, every
byte verified (but for ucx_perftest, which has no contents). Prints one table of medians, ratios
and targets, met or missed. Builds the preset `release` first, and a second baton-perf against the
UCX wheel.

  --rounds N       rounds; default 5
  --only KEY       only works whose key contains KEY; may be given several times
  --list           the works, their keys and who does them
  --iterations N   transfers of 64 MiB in a run; default 21
  --json FILE      everything measured as JSON besides; -: on standard output
  --markdown F     the tables of docs/performance.md besides
  --build DIR      a build folder to take as it is (bin/baton-perf, bin/floor_*); builds nothing
  --wheel-perf F   the baton-perf built against the wheel's UCX to take, with --build
  --huge-shmem     shared memory has huge pages on request during the run: as root, advise in
                   /sys/kernel/mm/transparent_hugepage/shmem_enabled, put back at the end; without
                   it, unless the system does so anyway, baton with huge pages has no figure
  --no-install     take the peers that are there; say what is missing
  -h, --help

The peers live outside the tree in $BATON_PEERS (default ~/.cache/baton-peers), a virtual
environment each: nixl, mc (Mooncake), ucx (the UCX wheel). What is missing is installed there from
PyPI in pinned versions; without network, or with --no-install, their lines say so.
END
}

top=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
peers=${BATON_PEERS:-$HOME/.cache/baton-peers}
build='' wheel_perf='' install=yes list=no pass=()
while [ $# -gt 0 ]; do
    case "$1" in
    --rounds | --only | --iterations | --json | --markdown)
        if [ $# -lt 2 ]; then echo "compare: $1: wanted a value" >&2; exit 2; fi
        pass+=("$1" "$2"); shift ;;
    --build) build=${2:?compare: --build: wanted a folder}; shift ;;
    --wheel-perf) wheel_perf=${2:?compare: --wheel-perf: wanted a file}; shift ;;
    --huge-shmem) pass+=("$1") ;;
    --list) list=yes pass+=("$1") ;;
    --no-install) install=no ;;
    -h | --help) usage; exit 0 ;;
    *) echo "compare: unknown option '$1'" >&2; usage >&2; exit 2 ;;
    esac
    shift
done
set -euo pipefail

# peer NAME PACKAGE==VERSION [pip option or package...]: a virtual environment; trouble is told, not
# fatal.
peer() {
    local venv=$peers/$1 was_there=no
    shift
    if [ $install = no ] || has_package "$venv" "$1"; then return 0; fi
    echo "compare: installing $* into $venv" >&2
    if [ -e "$venv" ]; then was_there=yes; fi
    if ! python3 -m venv "$venv" ||
        ! "$venv/bin/pip" install -q --disable-pip-version-check --retries 1 "$@" >&2; then
        echo "compare: could not install $* (no network?); going on without" >&2
        if [ $was_there = no ]; then rm -rf "$venv"; fi # half of it would only fail later
    fi
}

# has_package VENV PACKAGE==VERSION
has_package() {
    [ -x "$1/bin/python" ] && [ "$("$1/bin/python" -c '
import importlib.metadata, sys
print(importlib.metadata.version(sys.argv[1]))' "${2%%==*}" 2>/dev/null)" = "${2##*==}" ]
}

# build_against UCX FOLDER: a release baton-perf that links that UCX.
build_against() {
    cmake --preset release -B "$2" -DUCX_ROOT="$1" -DBATON_TESTS=OFF &&
        cmake --build "$2" --target baton-perf
}

if [ $list = no ]; then
    mkdir -p "$peers"
    peer ucx libucx-cu13==1.22.0 --no-deps
    peer nixl nixl==1.5.1 nixl-cu13==1.5.1 numpy --no-deps
    peer mc mooncake-transfer-engine-non-cuda==0.3.13.post1 numpy
    if [ -z "$build" ]; then
        # shellcheck source=scripts/common.sh
        . "$top/scripts/common.sh"
        if [ $install = yes ]; then
            "$top/scripts/setup.sh" --bench >&2 || echo "compare: ucx-utils is missing" >&2
        fi
        programs=(baton-perf floor_copy floor_digest floor_vm floor_tcp floor_wake)
        build=$top/build/release wheel_build=$top/build/compare-wheel
        logged release "build: release" build_targets release "${programs[@]}" >&2
        wheel=$(echo "$peers"/ucx/lib/python3*/site-packages/libucx)
        if [ -d "$wheel" ]; then
            logged wheel "build: against the wheel's UCX" \
                build_against "$wheel" "$wheel_build" >&2
            wheel_perf=$wheel_build/bin/baton-perf
        fi
    fi
fi
exec env PYTHONDONTWRITEBYTECODE=1 python3 "$top/bench/compare/compare.py" "${pass[@]}" \
    --build "${build:-none}" ${wheel_perf:+--wheel-perf "$wheel_perf"} --peers "$peers"
