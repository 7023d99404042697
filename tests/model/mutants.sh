#!/usr/bin/env bash
# SPDX-License-Identifier: Apache-2.0
# Takes one guard after the other out of the protocol, in the tables or in the model, and wants Spin
# to find an error each time: a check that nothing can fail checks nothing.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
top=$(cd "$here/../.." && pwd)

usage() {
    cat <<'END'
usage: tests/model/mutants.sh [--list] [--jobs N] [MUTANT...]

Makes a copy of core/states.def and the model for each mutant, takes one guard out, and runs the
configuration in which that must show, --jobs (2) at a time. Exit status: 0 each was found, 1 some were not, 77 no spin.
END
}

# name ~ tables, model or both ~ configuration ~ sed program ~ invariant: what is taken out
mutants() {
    cat <<'END'
reuse-before-proof~tables~mapped~s/GRANTED, FAIL, NONE, REVOKED, QUARANTINE/GRANTED, FAIL, NONE, REVOKED, FREE/~1: pages of a revoked ticket are free at once
silence-is-proof~tables~mapped~s/REVOKED, PATIENCE, NONE, ENDED, RETIRE/REVOKED, PATIENCE, NONE, ENDED, PROVE/~1: pages are free after 60 s without proof
worker-is-proof~model~mapped~s/:: !LOCAL || !flag -> proof/:: true -> proof/~1: a destroyed worker is taken for proof about mapped writes
worker-lives-on~model~flushed~s/destroy_worker(r, from); .*//;s/flag = LOCAL || k_worker\[K(r, from)\] == m;/flag = k_worker[K(r, from)] != 0;/~1: the worker of a lost connection is not destroyed
worker-is-proof-here~model~same-host~s/:: !LOCAL || !flag -> proof/:: true -> proof/~1: a destroyed worker is taken for proof about puts that the sender carries out
exit-is-believed~model~same-host~s/LOCAL -> empty_wire(r, s_epoch\[r\] - 1)/false -> skip/~1: puts outlive the process that carries them out
next-connection~model~same-host~s/ \&\& !s_clings\[r\] -> closed/ -> closed/;s/:: LOCAL -> empty_wire(r, s_epoch\[r\]) .*checked: closed.*/:: true fi;/~1: there is a next connection before the former one has ended
unread-is-proof~model~deaf~s/proof = NOWHERE; settle_peer(r, e);/proof = TICKET_ON_DRAINED; settle_peer(r, e); k_connection[K(r, e)] = 0;/~1: what cannot be said to a sender counts as said
region-in-place~model~mapped~s/^                p_memory\[P(r, i)\]++; idle = 0;/                idle = 0;/~1: the fresh region lies where the retired pages are
drained-too-early~both~flushed~s/DRAINING, DRAINED, QUIET/DRAINING, DRAINED, NONE/;s/XFER_DRAINING && XFER_IF_QUIET(r, x) &&/XFER_DRAINING \&\&/;s/assert(t_out.*SOURCE_FREE.*/skip;/~1: DRAINED is said while puts are under way
pin-is-no-claim~both~full~s/LANDED, EVICT, UNCLAIMED/LANDED, EVICT, NONE/;s/p_holds\[P(r, p)\] == 0 && p_pins\[P(r, p)\] == 0)$/p_holds[P(r, p)] == 0)/~1: a page that decode reads may be evicted
late-grant~model~late~s/:: t_state\[X(r, u)\] == XFER_WAIT_GRANT \&\& t_id\[X(r, u)\] == a \&\& x == 2 -> x = u/:: false -> skip/~1: a grant that comes behind its REVOKE is written
publish-before-bytes~model~mapped~s/(t_chunk\[C(r, x, c)\] == LANDED ||/(t_chunk[C(r, x, c)] == LANDED || t_chunk[C(r, x, c)] == IDLE ||/~2: COMMIT names chunks that were not written
commit-before-flush~model~flushed~s/(BEHIND && t_chunk\[C(r, x, c)\] == POSTED)/t_chunk[C(r, x, c)] == POSTED/~2: COMMIT through the socket does not wait for the flush
nothing-said-again~model~mapped~s/what(j)\; skip }/what(j); skip }/;s/for (j : 0 .. RANKS - 1) { say_again(j) }/skip/~3: a lost message is not said again
no-hold-lease~model~mapped~s/AND_THEN(9, no_quarantine, leases_end)/:: d_step { idle == 9 -> idle++; skip }/~3, 4: holds have no lease
lost-not-settled~model~flushed~s/    settle_peer(r, epoch);/    skip;/~3: the tickets of a lost sender are not settled
no-stage-connection~model~flushed~s/!= PEER_CLOSING \&\& waits_for_connection(r) ->/!= PEER_CLOSING \&\& false ->/~3: the sender waits for INIT_ANSWER, MEMREG_ANSWER and a flush without end
no-request-deadline~model~mapped~s/AND_THEN(6, no_stage, deadlines_pass)/:: d_step { idle == 6 -> idle++; skip }/~3: the sender waits for chunks and pages without end
silent-receiver~model~mapped~s/:: hears_nothing(r) -> peer_down/:: false -> peer_down/~3: the sender does not mind a receiver that says nothing
silent-sender~model~mapped~s/k_connection\[K(r, e)\] != 0 && !is_heard(r, e) -> fall_silent/false -> fall_silent/~3: the receiver does not mind a sender that says nothing
nobody-names-it~model~flushed~s/may_move(r, t) && !is_named(r, t) -> todo/false -> todo/~3: a ticket that no heartbeat names lives on
heartbeats-unread~model~mapped~s/AT_ALL_RANKS(3, compare_tickets)/:: d_step { idle == 3 -> idle++; skip }/~3: the sender does not mind that the receiver has forgotten it
no-patience~model~mapped~s/AND_THEN(8, no_live_ticket, patience_ends)/:: d_step { idle == 8 -> idle++; skip }/~3: quarantine without proof has no end
patience-with-speakers~model~mute~s/:: flag \&\& !r_stopped\[r\] \&\& k_connection/:: flag \&\& !is_heard(r, e) \&\& !r_stopped[r] \&\& k_connection/~3: a sender that speaks and never says DRAINED keeps its pages
overdue-unsaid~model~clings~s/s_peer\[r\] == PEER_CLOSING -> \/\* it is overdue/false -> \/* it is overdue/~3: the user and the proxy wait for an endpoint that does not end
deaf-to-init~model~deaf~s/^    k_deaf\[K(r, from)\] = false; .*checked: reads.*//~3: who reads again is not listened to again
proxy-waits-on~model~mapped~s/                leave_requests(); skip }/                skip }/~3: the proxy waits without end
pages-leak~tables~mapped~s/REVOKED, DRAINED, NONE, ENDED, PROVE/REVOKED, DRAINED, NONE, ENDED, NONE/~4: pages stay in quarantine after DRAINED
hold-leaks~tables~mapped~s/HELD, CONSUMED, NONE, ENDED, FREE/HELD, CONSUMED, NONE, ENDED, NONE/~4: the holds of a consumed request stay
pin-leaks~model~mapped~s/^        p_pins\[P(r, p)\]--;/        skip;/~4: decode does not unpin
region-not-replaced~model~mapped~s/p_state\[P(r, i)\] == PAGE_RETIRED -> p_state/false -> p_state/~4: retired pages never come back
nothing-evicted~model~full~s/^    (p_state\[P(r, p)\] == PAGE_LANDED && p_holds/    (false \&\& p_holds/~4: what nobody needs stays for ever
generation~model~mapped~s/k_generation\[T(r, ticket - 1)\] == generation/true/~5: the generation of a ticket is not compared
alloc-twice~model~mapped~s/ && k_id\[T(r, u)\] == b -> t = u/ \&\& false -> t = u/;s/bit(k_seen\[K(r, from)\], b)/false/~5: an ALLOC that comes twice is carried out twice
sender-epoch~model~late-again~s/meant != s_epoch\[r\] || \/\* checked: epoch \*\//false || /~5: the sender takes what was said to its former life
sender-life~model~late~s/(type != INIT_ANSWER && status != STALE && from != s_knows\[r\]) \/\* checked: life \*\//false/~5: the sender takes what a former life of the receiver said
receiver-epoch~model~late~s/ && meant == r_epoch\[r\]) -> \/\* checked: epoch \*\//) ->/~5: the receiver takes what was said to its former life
receiver-stranger~model~late~s/(is_listened_to(r) && k_connection\[K(r, from)\] != 0 && /(/~5: the receiver takes what a sender says that it does not know
beat-of-old~model~late-again~s/:: a != s_connection\[r\] - 1 \/\* checked: beat.*/:: false/;s/:: a == s_connection\[r\] - 1 && status == STALE -> forgot/:: status == STALE -> forgot/~5: an answer to a heartbeat of an earlier connection, or to none, counts
behind-old-puts~model~late-behind~s/:: type == COMMIT && flag /:: type == COMMIT /~5: COMMIT of a connection that has ended counts
ready-before-all-ranks~model~ranks~s/:: q_ranks\[x\] == all_ranks(x) ->/:: true ->/~6: the proxy waits for one rank only
old-notice~model~mapped-again~s/q_state\[x\] == WAITS && q_attempt\[x\] == a/q_state[x] == WAITS/~6: a notice of an earlier attempt counts for a later one
hold-not-moved~model~same-key~s/d = found - 1 .*/d = d/~6: the hold of a duplicate stays with the page that goes back
hold-is-no-claim~both~full~s/LANDED, EVICT, UNCLAIMED/LANDED, EVICT, NONE/;s/p_holds\[P(r, p)\] == 0 && p_pins\[P(r, p)\] == 0)$/p_pins[P(r, p)] == 0)/~6: what waits for decode may be evicted
final-without-all~both~mapped~s/GRANTED, FINAL, WHOLE/GRANTED, FINAL, NONE/;s/MOVING, FINAL, COMPLETE/MOVING, FINAL, NONE/;s/(n_chunks(x) == 1 || is_told(r, x, 1) || is_ready_chunk(r, x, 1)))/true)/~6: the last COMMIT does not wait for all chunks
proxy-not-told~model~mapped~s/^        notice(x, t_attempt\[X(r, x)\], r, on == XFER_ON_DONE)$/        skip/~6: the sender does not tell the proxy how it ended
told-twice~model~clings~s/ \&\& !t_is_told\[X(r, x)\]) -> \/\* checked: told/) -> \/* checked: told/~6: a transfer that was overdue is told of again when it ends
overdue-is-end~tables~clings~s/DRAINING, OVERDUE, NONE, DRAINING, TELL/DRAINING, OVERDUE, NONE, ENDED, TELL/~6: chunks that an endpoint may still read are free
commit-not-idempotent~model~flushed~s/bit(r_complete\[r\], v) -> answer_status = COMPLETE/bit(r_complete[r], v) -> answer_status = STALE/~6: COMMIT said again after decode has come is an error
crash-unseen~model~mapped~s/            q_lost\[X(r, x)\] = 1 + t_attempt\[X(r, x)\];/            skip;/~6: the proxy does not see that a prefill engine has died
grant-by-pieces~model~full~s/:: c < n_chunks_of(r, t) && !good && h_state/:: c < n_chunks_of(r, t) \&\& false \&\& h_state/~7: a request that is queued keeps what it could get
overtaking~model~behind-again~s/k_generation\[T(r, i)\] < k_generation\[T(r, t)\]) -> t = i/k_generation[T(r, i)] > k_generation[T(r, t)]) -> t = i/~7: who came last is granted first
END
}

chosen=() jobs=2
while [ $# -gt 0 ]; do
    case "$1" in
    --list) mutants | awk -F'~' '{printf "%-24s %-14s %s\n", $1, $3, $5}'; exit 0 ;;
    --jobs) jobs=$2; shift ;;
    -h | --help) usage; exit 0 ;;
    -*) echo "mutants.sh: unknown option '$1'" >&2; usage >&2; exit 2 ;;
    *) chosen+=("$1") ;;
    esac
    shift
done

# shellcheck source=SCRIPTDIR/jobs.sh
. "$here/jobs.sh"

# try NAME FILE CONFIGURATION PROGRAM WHAT: 0 found, 1 not, 77 no spin
try() {
    local name=$1 file=$2 tree=$work/$1 changed=yes status=0
    mkdir -p "$tree/core" "$tree/tests/model"
    cp "$top/core/states.def" "$tree/core"
    cp "$here"/*.pml "$tree/tests/model"
    if [ "$file" != model ]; then sed -i "$4" "$tree/core/states.def"; fi
    if [ "$file" != tables ]; then sed -i "$4" "$tree"/tests/model/*.pml; fi
    if [ "$file" != model ] && cmp -s "$tree/core/states.def" "$top/core/states.def"; then
        changed=no
    fi
    if [ "$file" != tables ] && cmp -s <(cat "$tree"/tests/model/*.pml) <(cat "$here"/*.pml); then
        changed=no
    fi
    if [ $changed = no ]; then
        echo "$name: found nothing to take out: $5"
        return 1
    fi
    "$here/run.sh" --first-error --jobs 1 --source "$tree" "$3" >"$tree/out" || status=$?
    if [ $status = 77 ]; then cat "$tree/out"; return 77; fi
    if [ $status != 1 ]; then
        printf '%-24s NOT FOUND: %s\n' "$name" "$5"
        cat "$tree/out"
        return 1
    fi
    printf '%-24s found: %s\n' "$name" "$(sed -n 's/^pan:1: //p' "$tree/out")"
}

missed=0 found=0
ended() {
    case $1 in
    0) found=$((found + 1)) ;;
    77) exit 77 ;;
    *) missed=$((missed + 1)) ;;
    esac
}
while IFS='~' read -r name file configuration program what; do
    if [ ${#chosen[@]} -gt 0 ] && [[ " ${chosen[*]} " != *" $name "* ]]; then continue; fi
    start try "$name" "$file" "$configuration" "$program" "$what"
done < <(mutants)
finish
echo "$found guards taken out and missed by the protocol, $missed not"
[ $missed = 0 ]
