#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what Baton needs from the distribution's packages, and only what is missing.
set -euo pipefail

usage() {
    cat <<'EOF'
usage: scripts/setup.sh [--check] [--cuda]

Installs the packages that building, testing and running Baton needs (Debian 12 or newer,
Ubuntu 22.04 or newer). Needs root or sudo when something is missing; does nothing otherwise.

  --check   only list what is missing; exit status 1 when something is
  --cuda    also see to a CUDA compiler: the machine's nvcc, else the one from PyPI, in a virtual
            environment outside the tree ($BATON_CUDA_VENV, default ~/.cache/baton/cuda)
  -h, --help
EOF
}

check_only=no
cuda=no
for argument in "$@"; do
    case "$argument" in
    --check) check_only=yes ;;
    --cuda) cuda=yes ;;
    -h | --help) usage; exit 0 ;;
    *) echo "setup.sh: unknown option '$argument'" >&2; usage >&2; exit 2 ;;
    esac
done

say() { echo "setup: $*"; }

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo "$@"
    else
        echo "setup: wanted root or sudo to run: $*" >&2
        exit 1
    fi
}

# Each line: names of which the first that the distribution has is taken.
wanted() {
    cat <<'EOF'
gcc
clang
clang-format
cmake
ninja-build
ccache
pkg-config pkgconf
libclang-rt-dev libclang-rt-14-dev
libucx-dev
libibverbs-dev
libzmq3-dev
libmsgpack-c-dev libmsgpack-dev
libyaml-dev
libuv1-dev
libllhttp-dev node-llhttp
libxxhash-dev
libsodium-dev
libjansson-dev
libssl-dev
libcmocka-dev
gcovr
curl
EOF
}

installed() { dpkg-query -W -f='${Status}' "$1" 2>/dev/null | grep -q 'ok installed'; }

find_missing() {
    missing=()
    local line name any
    while read -r line; do
        any=no
        for name in $line; do
            if installed "$name"; then any=yes; fi
        done
        if [ $any = no ]; then missing+=("$line"); fi
    done < <(wanted)
}

# The first of the names that apt knows.
available() {
    local name
    for name in "$@"; do
        if apt-cache show "$name" >/dev/null 2>&1; then echo "$name"; return 0; fi
    done
    echo "setup: none of these packages is known here: $*" >&2
    return 1
}

install_missing() {
    command -v apt-get >/dev/null || {
        echo "setup: wanted apt-get (Debian, Ubuntu), found none; install by hand: ${missing[*]}" >&2
        exit 1
    }
    say "updating the package lists"
    as_root apt-get update -qq
    local packages=() line
    for line in "${missing[@]}"; do
        # shellcheck disable=SC2086  # the line is a list of names
        packages+=("$(available $line)")
    done
    say "installing ${packages[*]}"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends \
        -qq "${packages[@]}" >/dev/null
    say "done"
}

cuda_venv=${BATON_CUDA_VENV:-$HOME/.cache/baton/cuda}
find_nvcc() {
    local candidate
    for candidate in "$(command -v nvcc || true)" /usr/local/cuda/bin/nvcc \
        "$cuda_venv"/lib/python3*/site-packages/nvidia/cu13/bin/nvcc \
        "$cuda_venv"/lib/python3*/site-packages/nvidia/cuda_nvcc/bin/nvcc; do
        if [ -n "$candidate" ] && [ -x "$candidate" ]; then echo "$candidate"; return 0; fi
    done
    return 1
}

setup_cuda() {
    if nvcc=$(find_nvcc); then
        say "CUDA compiler: $nvcc"
        return
    fi
    if [ $check_only = yes ]; then
        say "missing: nvcc"
        status=1
        return
    fi
    installed python3-venv || as_root apt-get install -y --no-install-recommends -qq python3-venv
    say "installing nvcc from PyPI into $cuda_venv"
    python3 -m venv "$cuda_venv"
    "$cuda_venv/bin/pip" install -q nvidia-cuda-nvcc nvidia-cuda-runtime nvidia-cuda-crt nvidia-nvvm
    nvcc=$(find_nvcc) || { echo "setup: nvcc is still not there" >&2; exit 1; }
    say "CUDA compiler: $nvcc"
}

status=0
find_missing
if [ ${#missing[@]} = 0 ]; then
    say "every package is there"
elif [ $check_only = yes ]; then
    printf 'setup: missing: %s\n' "${missing[@]}"
    status=1
else
    install_missing
fi
if [ $cuda = yes ]; then setup_cuda; fi
exit $status
