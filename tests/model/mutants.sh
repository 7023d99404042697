#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Takes one guard after the other out of the protocol, in the tables or in the model, and wants Spin
# to find an error each time: a check that nothing can fail checks nothing.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)

usage() {
    cat <<'END'
usage: tests/model/mutants.sh [--list] [MUTANT...]

Makes a copy of core/states.def and the model for each mutant, takes one guard out, and runs the
configuration in which that must show. Exit status: 0 each was found, 1 some were not, 77 no spin.
END
}

# name ~ tables, model or both ~ configuration ~ sed program ~ what is taken out
mutants() {
    cat <<'END'
reuse-before-proof~tables~mapped~s/GRANTED, FAIL, NONE, REVOKED, QUARANTINE/GRANTED, FAIL, NONE, REVOKED, FREE/~1: pages of a revoked ticket are free at once
silence-is-proof~tables~mapped~s/REVOKED, PATIENCE, NONE, ENDED, RETIRE/REVOKED, PATIENCE, NONE, ENDED, PROVE/~1: pages are free after 60 s without proof
worker-is-proof~model~mapped~s/:: !LOCAL || !flag -> proof/:: true -> proof/~1: a destroyed worker is taken for proof about mapped writes
worker-lives-on~model~flushed~s/empty_wire(r, from); .*//;s/flag = k_connection\[K(r, from)\] == m;/flag = k_connection[K(r, from)] != 0;/~1: the worker of a lost connection is not destroyed
drained-too-early~both~flushed~s/DRAINING, DRAINED, QUIET/DRAINING, DRAINED, NONE/;s/XFER_DRAINING && t_out\[X(r, x)\] == 0 &&/XFER_DRAINING \&\&/~1: DRAINED is said while puts are under way
pin-is-no-claim~both~full~s/LANDED, EVICT, UNCLAIMED/LANDED, EVICT, NONE/;s/p_holds\[P(r, p)\] == 0 && p_pins\[P(r, p)\] == 0)$/p_holds[P(r, p)] == 0)/~1: a page that decode reads may be evicted
publish-before-bytes~model~mapped~s/(t_chunk\[C(r, x, c)\] == LANDED ||/(t_chunk[C(r, x, c)] == LANDED || t_chunk[C(r, x, c)] == IDLE ||/~2: COMMIT names chunks that were not written
commit-before-flush~model~flushed~s/(BEHIND && t_chunk\[C(r, x, c)\] == POSTED)/t_chunk[C(r, x, c)] == POSTED/~2: COMMIT through the socket does not wait for the flush
no-lease~model~flushed~s/AT_ALL_RANKS(4, silence)/:: d_step { idle == 4 -> idle++; skip }/;s/AT_ALL_RANKS(6, deadlines_pass)/:: d_step { idle == 6 -> idle++; skip }/~3: neither silence, a ticket that nobody names, nor a deadline ends anything
nothing-said-again~model~mapped~s/what(j)\; skip }/what(j); skip }/;s/for (j : 0 .. RANKS - 1) { say_again(j) }/skip/~3: a lost message is not said again
no-hold-lease~model~mapped~s/AT_ALL_RANKS(8, leases_end)/:: d_step { idle == 8 -> idle++; skip }/~3, 4: holds have no lease
generation~model~mapped~s/k_generation\[T(r, ticket - 1)\] == generation/true/~5: the generation of a ticket is not compared
alloc-twice~model~mapped~s/ && k_id\[T(r, u)\] == b -> t = u/ \&\& false -> t = u/;s/bit(k_seen\[K(r, from)\], b)/false/~5: an ALLOC that comes twice is carried out twice
ready-before-all-ranks~model~ranks~s/:: q_ranks\[x\] == all_ranks(x) ->/:: true ->/~6: the proxy waits for one rank only
old-notice~model~mapped-again~s/q_state\[x\] == WAITS && q_attempt\[x\] == a/q_state[x] == WAITS/~6: a notice of an earlier attempt counts for a later one
hold-not-moved~model~same-key~s/d = found - 1 .*/d = d/~6: the hold of a duplicate stays with the page that goes back
hold-is-no-claim~both~full~s/LANDED, EVICT, UNCLAIMED/LANDED, EVICT, NONE/;s/p_holds\[P(r, p)\] == 0 && p_pins\[P(r, p)\] == 0)$/p_pins[P(r, p)] == 0)/~6: what waits for decode may be evicted
final-without-all~both~mapped~s/GRANTED, FINAL, WHOLE/GRANTED, FINAL, NONE/;s/MOVING, FINAL, COMPLETE/MOVING, FINAL, NONE/;s/(n_chunks(x) == 1 || is_told(r, x, 1) || is_ready_chunk(r, x, 1)))/true)/~6: the last COMMIT does not wait for all chunks
grant-by-pieces~model~full~s/:: c < n_chunks_of(r, t) && !good && h_state/:: c < n_chunks_of(r, t) \&\& false \&\& h_state/~7: a request that is queued keeps what it could get
overtaking~model~behind-again~s/k_generation\[T(r, i)\] < k_generation\[T(r, t)\]) -> t = i/k_generation[T(r, i)] > k_generation[T(r, t)]) -> t = i/~7: who came last is granted first
END
}

chosen=()
while [ $# -gt 0 ]; do
    case "$1" in
    --list) mutants | awk -F'~' '{printf "%-24s %-14s %s\n", $1, $3, $5}'; exit 0 ;;
    -h | --help) usage; exit 0 ;;
    *) chosen+=("$1") ;;
    esac
    shift
done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
missed=0 found=0
while IFS='~' read -r name file configuration program what; do
    if [ ${#chosen[@]} -gt 0 ] && [[ " ${chosen[*]} " != *" $name "* ]]; then continue; fi
    rm -rf "$work/tree"
    mkdir -p "$work/tree/core" "$work/tree/tests/model"
    cp "$top/core/states.def" "$work/tree/core"
    cp "$here"/*.pml "$work/tree/tests/model"
    if [ "$file" != model ]; then sed -i "$program" "$work/tree/core/states.def"; fi
    if [ "$file" != tables ]; then sed -i "$program" "$work"/tree/tests/model/*.pml; fi
    changed=yes
    if [ "$file" != model ] && cmp -s "$work/tree/core/states.def" "$top/core/states.def"; then
        changed=no
    fi
    if [ "$file" != tables ] && cmp -s <(cat "$work"/tree/tests/model/*.pml) <(cat "$here"/*.pml); then
        changed=no
    fi
    if [ $changed = no ]; then
        echo "$name: found nothing to take out: $what" >&2
        exit 1
    fi
    status=0
    "$here/run.sh" --first-error --source "$work/tree" "$configuration" >"$work/out" || status=$?
    if [ $status = 77 ]; then cat "$work/out"; exit 77; fi
    if [ $status = 1 ]; then
        found=$((found + 1))
        printf '%-24s found: %s\n' "$name" "$(sed -n 's/^pan:1: //p' "$work/out")"
    else
        missed=$((missed + 1))
        printf '%-24s NOT FOUND: %s\n' "$name" "$what"
        cat "$work/out"
    fi
done < <(mutants)
echo "$found guards taken out and missed by the protocol, $missed not"
[ $missed = 0 ]
