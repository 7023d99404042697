#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# baton-keygen as a user meets it. $1: the program.
set -euo pipefail
keygen=$1
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT

fail() {
    echo "keygen: $*" >&2
    exit 1
}
# expect STATUS PATTERN ARGS...: exit status, and a line of output (both streams) that matches
expect() {
    local wanted=$1 pattern=$2 found=0 output
    shift 2
    output=$("$keygen" "$@" 2>&1) || found=$?
    [ "$found" -eq "$wanted" ] || fail "$*: wanted status $wanted, found $found: $output"
    grep -qE -- "$pattern" <<<"$output" || fail "$*: wanted '$pattern', found: $output"
}

expect 0 'secret key: .*/p0\.key' "$folder/p0"
[ "$(stat -c %a "$folder/p0.key")" = 600 ] || fail "secret key has another mode than 600"
expect 1 'p0\.pub: File exists' "$folder/p0"
public=$("$keygen" --show "$folder/p0")
grep -qxF -- "$public" "$folder/p0.pub" || fail "--show prints another key than p0.pub has"
chmod 644 "$folder/p0.key"
expect 1 'wanted mode 0600, found 0644' --show "$folder/p0"
expect 1 'No such file' --show "$folder/none"
[ -z "$("$keygen" --quiet "$folder/p1")" ] || fail "--quiet is not"
expect 2 'wanted the NAME'
expect 2 'unknown' --shwo "$folder/p0"
expect 0 '--show .*public key' --help
expect 0 '[0-9]+\.[0-9]+\.[0-9]+' --version
echo "keygen: all as expected"
