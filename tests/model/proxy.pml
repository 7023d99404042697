/* SPDX-License-Identifier: Apache-2.0 */
/* The proxy, and the decode engine. Part of handoff.pml. */
#define all_ranks(x) ((x) == 0 -> (1 << (RANKS + BESIDE)) - 1 : 1)

inline fail_request(x)
{
    q_state[x] = FAILED; q_ranks[x] = 0; idle = 0;
    for (i : 0 .. RANKS - 1) {
        if
        :: is_moved_by(x, i) -> q_release[X(i, x)] = 1 + q_attempt[x]
        :: else
        fi
    }
    i = 0
}

inline rank_ready(x, rank)
{
    q_ranks[x] = q_ranks[x] | (1 << rank);
    idle = 0;
    if
    :: q_ranks[x] == all_ranks(x) -> q_state[x] = READY; q_ranks[x] = 0
    :: else
    fi
}

inline proxy_hears()
{
    notices ? x, a, b, flag;
    if
    :: q_state[x] == WAITS && q_attempt[x] == a /* checked: attempt */ ->
        if
        :: flag -> rank_ready(x, b)
        :: else -> fail_request(x)
        fi
    :: flag && (q_attempt[x] != a || q_state[x] == FAILED) -> /* RELEASE may have come too early */
        q_release[X(b, x)] = 1 + a; idle = 0
    :: else
    fi
}

/* The same request once more, under a new name. */
inline try_again(x)
{
    if :: x == 0 -> o_state = UNTOLD :: else fi;
    q_state[x] = WAITS; q_attempt[x] = 1; excused[x] = false; idle = 0;
    for (i : 0 .. RANKS - 1) {
        if
        :: is_moved_by(x, i) ->
            d_state[X(i, x)] = 0; t_state[X(i, x)] = XFER_WAIT_PEER; t_attempt[X(i, x)] = 1;
            if
            :: s_peer[i] == PEER_READY -> next[X(i, x)] = XFER_ON_ALLOC
            :: else
            fi
        :: else
        fi
    }
    i = 0
}

inline serve_if_done(x)
{
    if
    :: q_state[x] == READY && d_state[X(0, x)] == 2 &&
       (!is_moved_by(x, RANKS - 1) || d_state[X(RANKS - 1, x)] == 2) ->
        q_state[x] = SERVED; d_state[X(0, x)] = 0; d_state[X(RANKS - 1, x)] = 0
    :: else
    fi
}

/* Decode pins what it finds, which ends the oldest hold of that prompt. */
inline lookup(r, x)
{
    idle = 0;
    good = true;
    for (c : 0 .. n_chunks(x) - 1) {
        find_landed(r, key_of(x, c));
        d_page[C(r, x, c)] = found;
        good = good && found != 0
    }
    /* Invariant 6: no chunk vanishes silently between ready and decode. */
    assert(good || excused[x]);
    i = SLOTS;
    for (t : 0 .. SLOTS - 1) {
        if
        :: good && k_state[T(r, t)] == TICKET_HELD && k_request[T(r, t)] == x &&
           (i == SLOTS || k_generation[T(r, t)] < k_generation[T(r, i)]) -> i = t
        :: else
        fi
    }
    for (c : 0 .. 1) {
        if
        :: good && d_page[C(r, x, c)] != 0 -> p_pins[P(r, d_page[C(r, x, c)] - 1)]++
        :: else -> d_page[C(r, x, c)] = 0
        fi
    }
    d_state[X(r, x)] = (good -> 1 : 2);
    if
    :: i != SLOTS -> todo[T(r, i)] = TICKET_ON_CONSUMED
    :: else
    fi;
    serve_if_done(x)
}

inline unpin(r, x)
{
    for (c : 0 .. n_chunks(x) - 1) {
        p = d_page[C(r, x, c)] - 1;
        /* Invariants 1 and 2: what decode has read was right until it was done. */
        assert(p_state[P(r, p)] == PAGE_LANDED && p_key[P(r, p)] == key_of(x, c));
        p_pins[P(r, p)]--;
        d_page[C(r, x, c)] = 0
    }
    d_state[X(r, x)] = 2; idle = 0;
    serve_if_done(x)
}

#define no_transfer(x) \
    (t_state[X(0, x)] == NOWHERE && (!is_moved_by(x, RANKS - 1) || t_state[X(RANKS - 1, x)] == NOWHERE))
#define no_pin(x) (d_state[X(0, x)] != 1 && d_state[X(RANKS - 1, x)] != 1)

#define flows(r) (!is_stuck[r] && (LOCAL -> !s_stopped[r] : !r_stopped[r]))
#define RECEIVER(r) \
    :: d_step { !r_stopped[r] && len(to_receiver[r]) > 0 -> \
                to_receiver[r] ? type, from, meant, a, b, v; receiver_hears(r); skip } \
    :: d_step { flows(r) && len(wire[r * 2]) > 0 -> worker_hears(r, 0); skip } \
    :: d_step { flows(r) && len(wire[r * 2 + 1]) > 0 -> worker_hears(r, 1); skip } \
    :: d_step { DEAF && may_deafen(r, s_epoch[r]) -> deafen(r, s_epoch[r]); skip } \
    :: d_step { LOCAL && !r_stopped[r] && s_epoch[r] > 1 && k_connection[K(r, 1)] != 0 -> \
                proof = TICKET_ON_EXITED; lose_peer(r, 1); skip } \
    :: d_step { LOCAL && !r_stopped[r] && s_epoch[r] > 2 && k_connection[K(r, 2)] != 0 -> \
                proof = TICKET_ON_EXITED; lose_peer(r, 2); skip } \
    :: d_step { LOCAL && !r_stopped[r] && LIVES > 4 && s_epoch[r] > 3 && k_connection[K(r, 3)] != 0 -> \
                proof = TICKET_ON_EXITED; lose_peer(r, 3); skip }
/* A region with a retired page gives way to a fresh one elsewhere. */
#define PAGE(r, i) \
    :: d_step { !r_stopped[r] && p_state[P(r, i)] == PAGE_RETIRED -> p_state[P(r, i)] = PAGE_FREE; \
                p_memory[P(r, i)]++; idle = 0; skip }
/* The rank beside: ready or failed, now or at any later time; and time may pass anew, for its sake. */
#define BESIDE_TELLS(when) \
    :: d_step { when -> o_state = TOLD_ALL; \
                if :: q_state[0] == WAITS -> rank_ready(0, RANKS) :: else fi; skip } \
    :: d_step { when -> o_state = TOLD_ALL; is_hard = true; \
                if :: q_state[0] == WAITS -> fail_request(0) :: else fi; skip }
#define BESIDE_NOW \
    BESIDE_TELLS(o_state == UNTOLD) \
    :: d_step { o_state == UNTOLD -> o_state = SLOW; is_hard = true; skip }
#define BESIDE_LATER \
    BESIDE_TELLS(o_state == SLOW) \
    :: d_step { o_state == SLOW && idle > 2 -> idle = 0; skip }
#define REQUEST(x) \
    :: d_step { q_state[x] == FAILED && q_attempt[x] + 1 < ATTEMPTS && no_transfer(x) && no_pin(x) -> \
                try_again(x); skip }
#define DECODE(r, x) \
    :: d_step { !r_stopped[r] && q_release[X(r, x)] != 0 -> \
                release(r, x, q_release[X(r, x)] - 1); q_release[X(r, x)] = 0; skip } \
    :: d_step { q_lost[X(r, x)] != 0 -> \
                flag = q_state[x] == WAITS && q_lost[X(r, x)] == 1 + q_attempt[x]; \
                q_lost[X(r, x)] = 0; \
                if :: flag -> fail_request(x) :: else fi; skip } \
    :: d_step { !r_stopped[r] && q_state[x] == READY && d_state[X(r, x)] == 0 -> lookup(r, x); skip } \
    :: d_step { !r_stopped[r] && d_state[X(r, x)] == 1 -> unpin(r, x); skip }
