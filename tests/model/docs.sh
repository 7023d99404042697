#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# docs.sh CTEST BUILD: the tables of docs/reliability.md name the configurations and the mutants that
# there are, every invariant of the protocol has a guard that was taken out, of the model or of the
# code, and the tests that it names exist.
set -euo pipefail
ctest=$1 build=$2
here=$(cd "$(dirname "$0")" && pwd)
docs=$here/../../docs/reliability.md
rdma=$here/../rdma/CMakeLists.txt

# table HEADING: the rows of the table whose first row begins so
table() { awk -v heading="| $1 " 'index($0, heading) == 1 { on = 1 } on && !/^\|/ { exit } on' "$docs" | tail -n +3; }
mutants() { "$here/mutants.sh" --list | sed -E 's/^([^ ]+) +([^ ]+) +(.*)$/| `\1` | \3 | `\2` |/'; }
configurations() { "$here/run.sh" --list | awk '$1 !~ /^(quick$|sample-)/ { print "`" $1 "`" }' | sort; }

failed=0
differ() {
    if ! diff "$2" "$3"; then
        echo "docs/reliability.md: its $1 (>) are not those of tests/model (<)" >&2
        failed=1
    fi
}
differ "guards taken out" <(mutants) <(table "taken out")
differ "configurations" <(configurations) <(table "configuration" | awk '{ print $2 }' | sort)
for invariant in 1 2 3 4 5 6 7 8; do
    { table "taken out"; table "guard | invariant"; } | grep -E "\| ([0-9], )*$invariant(,|:| \|)" >/dev/null || {
        echo "docs/reliability.md: no guard of invariant $invariant has been taken out" >&2
        failed=1
    }
done

# Where there are no rdma_ tests in this build, tests/rdma/CMakeLists.txt names them.
tests=$("$ctest" --test-dir "$build" -N | sed -n 's/^ *Test *#[0-9]*: //p')
while read -r name; do
    grep -Fqx "$name" <<<"$tests" || grep -Eq "baton_vm_test\(($name |${name%_*}_\\$)" "$rdma" || {
        echo "docs/reliability.md: no test is called $name" >&2
        failed=1
    }
done < <(grep -Eo '`(test|fuzz|rdma)_[a-z0-9_]+`' "$docs" | tr -d '`' | sort -u)
exit $failed
