#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Installs what Baton needs from the distribution's packages, and only what is missing.
# shellcheck source=scripts/toolpaths.sh
. "$(dirname "$0")/toolpaths.sh"

usage() {
    cat <<'EOF'
usage: scripts/setup.sh [--check] [--cuda] [--bench] [--rdma]

Installs the packages that building, testing and running Baton needs (Debian 12 or newer,
Ubuntu 22.04 or newer). Needs root or sudo when something is missing; else it does nothing, and
needs no network. Where the distribution's CMake is older than 3.25 or its UCX older than 1.13
(Ubuntu 22.04), they come from PyPI, in a virtual environment outside the tree
($BATON_TOOLS_VENV, default ~/.cache/baton/tools), where the other scripts find them.

  --check   only list what is missing; exit status 1 when something is
  --cuda    also see to a CUDA compiler: the machine's nvcc, else the one from PyPI, in a virtual
            environment outside the tree ($BATON_CUDA_VENV, default ~/.cache/baton/cuda)
  --bench   also ucx_perftest, which bench/compare.sh puts beside Baton
  --rdma    also what the tests of RDMA need, which run in a virtual machine with soft RoCE devices:
            QEMU and tools (70 MB of packages), and a Debian kernel that is unpacked, not installed
            (60 MB to fetch, 220 MB in ~/.cache/baton/rdma-vm)
  -h, --help
EOF
}

check_only=no
cuda=no
bench=no
rdma=no
for argument in "$@"; do
    case "$argument" in
    --check) check_only=yes ;;
    --cuda) cuda=yes ;;
    --bench) bench=yes ;;
    --rdma) rdma=yes ;;
    -h | --help) usage; exit 0 ;;
    *) echo "setup: unknown option '$argument'" >&2; usage >&2; exit 2 ;;
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

# Each line: names of one package, of which the first that the distribution has is taken.
wanted() {
    cat <<'EOF'
gcc
libc6-dev
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
spin
EOF
    if [ $rdma = yes ]; then
        printf '%s\n' qemu-system-x86 busybox-static cpio kmod iproute2 ibverbs-providers xz-utils
    fi
    if [ $cuda = yes ]; then echo g++; fi # nvcc compiles its host code with it
    if [ $bench = yes ]; then echo ucx-utils; fi
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

# The first of the names that apt can install.
available() {
    local name
    for name in "$@"; do
        if [ -n "$(apt-cache show "$name" 2>/dev/null)" ]; then
            echo "$name"
            return 0
        fi
    done
    echo "setup: none of these packages is known here: $*" >&2
    return 1
}

install_packages() {
    local packages=() line name
    for line in "${missing[@]}"; do
        # shellcheck disable=SC2086  # the line is a list of names
        name=$(available $line) || return 1
        packages+=("$name")
    done
    say "installing ${packages[*]}"
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends -qq \
        -o Dpkg::Use-Pty=0 "${packages[@]}" >/dev/null
}

# Fetches the package lists only when those that are there do not do.
install_missing() {
    command -v apt-get >/dev/null || {
        echo "setup: wanted apt-get (Debian, Ubuntu), found none; install by hand: ${missing[*]}" >&2
        exit 1
    }
    if ! install_packages 2>/dev/null; then
        say "updating the package lists"
        as_root apt-get update -qq
        install_packages
    fi
    say "packages installed"
}

# pip_install VENV PACKAGE...: makes the virtual environment when there is none.
pip_install() {
    local venv=$1
    shift
    if [ ! -x "$venv/bin/pip" ]; then
        if ! installed python3-venv; then
            missing=(python3-venv)
            install_missing
        fi
        python3 -m venv "$venv"
    fi
    say "installing $* from PyPI into $venv"
    "$venv/bin/pip" install -q --disable-pip-version-check "$@"
}

# see_to WHAT FOUND VENV PACKAGE...: WHAT is not there unless FOUND is yes, and PyPI has it.
see_to() {
    local what=$1 found=$2
    shift 2
    if [ "$found" = yes ]; then return; fi
    if [ $check_only = yes ]; then
        say "missing: $what"
        status=1
    else
        pip_install "$@"
    fi
}

yes_if() { if "$@" >/dev/null; then echo yes; else echo no; fi; }

setup_tools() {
    see_to "CMake 3.25 or newer" "$(yes_if new_enough "$(cmake_version)" 3.25)" \
        "$tools_venv" 'cmake>=3.25,<4'
    see_to "UCX 1.13 or newer" "$(yes_if new_enough "$(ucx_version)" 1.13)" \
        "$tools_venv" libucx-cu13
}

setup_cuda() {
    see_to nvcc "$(yes_if find_nvcc)" \
        "$cuda_venv" nvidia-cuda-nvcc nvidia-cuda-runtime nvidia-cuda-crt nvidia-nvvm
    local nvcc
    if nvcc=$(find_nvcc); then
        say "CUDA compiler: $nvcc (add its folder to PATH, or build with -DBATON_NVCC=$nvcc)"
    elif [ $check_only = no ]; then
        echo "setup: wanted nvcc in $cuda_venv, found none after installing it" >&2
        exit 1
    fi
}

setup_rdma() {
    local vm=$(dirname "$0")/../tests/rdma/rdma-vm
    if [ $check_only = no ]; then
        "$vm" --prepare
    elif ! "$vm" --prepare --offline --quiet; then
        status=1
    fi
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
# What is missing altogether has been said; what is too old is another matter.
if [ $status = 0 ]; then setup_tools; fi
if [ $cuda = yes ]; then setup_cuda; fi
if [ $rdma = yes ]; then setup_rdma; fi
exit $status
