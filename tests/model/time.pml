/* SPDX-License-Identifier: Apache-2.0 */
/* Timers, what must hold at the end, and the process in which all happens. Part of handoff.pml. */
#define LAST 11 /* timer */
#define runs(r) (!s_stopped[r] && !r_stopped[r] && !s_stalls[r] && !is_stuck[r])
#define all_run (runs(0) && runs(RANKS - 1))
#define works(r) (runs(r) && !s_clings[r] && !s_deaf[r] && !s_mute[r])
#define all_work (works(0) && works(RANKS - 1))

inline say_again(r)
{
    if
    :: !s_stopped[r] ->
        if
        :: s_peer[r] == PEER_INIT -> say_to_receiver(r, INIT, s_connection[r], 0, 0)
        :: s_peer[r] == PEER_MEMREG -> say_to_receiver(r, MEMREG, s_connection[r] - 1, 0, 0)
        :: else
        fi;
        for (x : 0 .. 1) {
            if
            :: t_state[X(r, x)] == XFER_WAIT_GRANT ->
                say_to_receiver(r, ALLOC, x * 2 + t_attempt[X(r, x)], t_id[X(r, x)], 0)
            :: t_commit[X(r, x)] != 0 -> say_commit(r, x)
            :: else
            fi;
            say_bye(r, x)
        }
    :: else
    fi;
    for (t : 0 .. SLOTS - 1) {
        if
        :: r_stopped[r]
        :: !r_stopped[r] && k_state[T(r, t)] == TICKET_REVOKED -> say_revoke(r, t)
        :: !r_stopped[r] && k_state[T(r, t)] == TICKET_HELD && q_state[k_request[T(r, t)]] == WAITS &&
           q_attempt[k_request[T(r, t)]] == k_attempt[T(r, t)] &&
           !bit(q_ranks[k_request[T(r, t)]], r) -> /* STATUS */
            rank_ready(k_request[T(r, t)], r)
        :: else
        fi
    }
}

#define names(r, x, t) \
    (k_generation[T(r, t)] == t_generation[X(r, x)] || \
     (t_state[X(r, x)] == XFER_WAIT_GRANT && k_id[T(r, t)] == t_id[X(r, x)] && \
      k_peer[T(r, t)] == s_epoch[r]))
#define is_named(r, t) (names(r, 0, t) || names(r, 1, t))
#define may_move(r, t) (k_state[T(r, t)] == TICKET_GRANTED || k_state[T(r, t)] == TICKET_QUEUED)
#define is_heard(r, e) \
    ((e) == s_epoch[r] && !s_stopped[r] && s_knows[r] == r_epoch[r] && !k_deaf[K(r, e)])

inline compare_tickets(r)
{
    if
    :: s_stopped[r] || s_deaf[r] || r_stopped[r] || s_peer[r] != PEER_READY
    :: !s_stopped[r] && !s_deaf[r] && !r_stopped[r] && s_peer[r] == PEER_READY &&
       (s_knows[r] != r_epoch[r] || k_connection[K(r, s_epoch[r])] == 0) -> peer_down(r, false, true)
    :: else ->
        for (u : 0 .. 1) {
            flag = t_generation[X(r, u)] != 0 && t_state[X(r, u)] != XFER_COMMITTING;
            for (t : 0 .. SLOTS - 1) {
                if
                :: k_state[T(r, t)] != NOWHERE && k_peer[T(r, t)] == s_epoch[r] &&
                   k_generation[T(r, t)] == t_generation[X(r, u)] -> flag = false
                :: else
                fi
            }
            if :: flag -> next[X(r, u)] = XFER_ON_FAIL :: else fi
        }
    fi
}

/* Nothing heard, or nobody's ticket. */
#define hears_nothing(r) ((r_stopped[r] || s_deaf[r]) && !s_stopped[r] && s_peer[r] == PEER_READY)
inline silence(r)
{
    if
    :: hears_nothing(r) -> peer_down(r, false, false)
    :: else
    fi;
    for (e : 1 .. LIVES - 1) {
        if
        :: !r_stopped[r] && k_connection[K(r, e)] != 0 && !is_heard(r, e) -> fall_silent(r, e)
        :: else
        fi
    }
    for (t : 0 .. SLOTS - 1) {
        if
        :: !r_stopped[r] && may_move(r, t) && !is_named(r, t) -> todo[T(r, t)] = TICKET_ON_FAIL
        :: else
        fi
    }
}

/* No answer within the time of a stage. Who only owes the receiver the end of an endpoint asks on. */
#define waits_for_connection(r) \
    ((s_peer[r] == PEER_INIT && (t_state[X(r, 0)] != NOWHERE || t_state[X(r, 1)] != NOWHERE)) || \
     s_peer[r] == PEER_MEMREG || t_out[X(r, 0)] > 0 || t_out[X(r, 1)] > 0 || \
     (BEHIND && (t_commit[X(r, 0)] != 0 || t_commit[X(r, 1)] != 0)))
#define waits_for_the_end(r, x) (t_state[X(r, x)] != NOWHERE && !t_is_told[X(r, x)])
#define waits_for_answer(r, x) \
    (t_commit[X(r, x)] != 0 || (t_state[X(r, x)] == XFER_WAIT_GRANT && t_generation[X(r, x)] == 0))
inline stages_end(r)
{
    if
    :: s_stopped[r]
    :: !s_stopped[r] && s_peer[r] == PEER_CLOSING -> /* it is overdue */
        for (u : 0 .. 1) {
            if
            :: waits_for_the_end(r, u) ->
                next[X(r, u)] = (t_state[X(r, u)] == XFER_DRAINING -> XFER_ON_OVERDUE : XFER_ON_FAIL)
            :: else
            fi
        }
    :: !s_stopped[r] && s_peer[r] != PEER_CLOSING && waits_for_connection(r) ->
        peer_down(r, false, false)
    :: else ->
        for (u : 0 .. 1) {
            if
            :: waits_for_answer(r, u) -> next[X(r, u)] = XFER_ON_FAIL
            :: else
            fi
        }
    fi
}

inline deadlines_pass(r)
{
    for (u : 0 .. 1) {
        if
        :: !s_stopped[r] -> next[X(r, u)] = XFER_ON_FAIL
        :: else
        fi
    }
}

inline tickets_pass(r)
{
    for (t : 0 .. SLOTS - 1) {
        if
        :: !r_stopped[r] && may_move(r, t) -> todo[T(r, t)] = TICKET_ON_FAIL
        :: else
        fi
    }
}

inline patience_ends(r)
{
    proof = (LOCAL -> TICKET_ON_PATIENCE : TICKET_ON_UNPLUGGED);
    for (e : 1 .. LIVES - 1) {
        flag = false;
        for (u : 0 .. SLOTS - 1) {
            flag = flag || (k_state[T(r, u)] == TICKET_REVOKED && k_peer[T(r, u)] == e)
        }
        if
        :: flag && !r_stopped[r] && k_connection[K(r, e)] != 0 -> lose_peer(r, e)
        :: else
        fi
    }
}

inline leases_end(r)
{
    for (t : 0 .. SLOTS - 1) {
        if
        :: !r_stopped[r] && k_state[T(r, t)] == TICKET_HELD -> todo[T(r, t)] = TICKET_ON_EXPIRED
        :: else
        fi
    }
}

/* Invariant 3, wait by wait: once a timer has run out and nothing has come of it, whoever runs has
 * nothing left that it was for, whatever the other side does. */
#define a_ticket(r, t, is_so) (r_stopped[r] || !(is_so))
#define no_ticket(r, what) \
    (what(r, 0) && what(r, 1) && what(r, 2) && what(r, 3) && what(r, SLOTS - 1))
#define is_heard_of(r, t) a_ticket(r, t, may_move(r, t) && !is_heard(r, k_peer[T(r, t)]))
#define is_named_still(r, t) a_ticket(r, t, may_move(r, t) && !is_named(r, t))
#define has_time(r, t) a_ticket(r, t, may_move(r, t))
#define is_settled(r, t) a_ticket(r, t, k_state[T(r, t)] == TICKET_REVOKED)
#define is_let_go(r, t) a_ticket(r, t, k_state[T(r, t)] == TICKET_HELD)

#define nothing_forgotten(r) (s_stopped[r] || s_deaf[r] || r_stopped[r] || s_peer[r] != PEER_READY || \
                              (s_knows[r] == r_epoch[r] && k_connection[K(r, s_epoch[r])] != 0))
#define nothing_silent(r) (no_ticket(r, is_heard_of) && no_ticket(r, is_named_still) && \
                           !hears_nothing(r))
#define no_stage(r) \
    (s_stopped[r] || (s_peer[r] == PEER_CLOSING -> \
                      !(waits_for_the_end(r, 0) || waits_for_the_end(r, 1)) : \
                      !(waits_for_connection(r) || waits_for_answer(r, 0) || waits_for_answer(r, 1))))
#define is_told_or_mute(r, x) \
    (!waits_for_the_end(r, x) || (s_mute[r] && t_state[X(r, x)] == XFER_DRAINING))
#define no_transfer_at(r) (s_stopped[r] || (is_told_or_mute(r, 0) && is_told_or_mute(r, 1)))
#define no_live_ticket(r) no_ticket(r, has_time)
#define no_quarantine(r) no_ticket(r, is_settled)
#define no_hold(r) no_ticket(r, is_let_go)

/* Invariants 3, 4 and 6: whatever happened, everything has ended, and nothing is missing. */
inline check_end()
{
    for (i : 0 .. RANKS - 1) {
        for (y : 0 .. 1) { assert(t_state[X(i, y)] == NOWHERE && d_state[X(i, y)] != 1) }
        for (t : 0 .. SLOTS - 1) { assert(k_state[T(i, t)] == NOWHERE) }
        for (p : 0 .. PAGES - 1) {
            assert(p_state[P(i, p)] == PAGE_FREE || p_state[P(i, p)] == PAGE_LANDED);
            assert(p_holds[P(i, p)] == 0 && p_pins[P(i, p)] == 0)
        }
        assert(!s_owes[i] && s_peer[i] != PEER_CLOSING)
    }
    i = 0;
    for (x : 0 .. 1) {
        assert(q_state[x] == SERVED || q_state[x] == FAILED);
        /* Messages that are lost, late or doubled cost no attempt. */
        assert(is_hard || (q_state[x] == SERVED && q_attempt[x] == 0))
    }
}

inline leave_requests()
{
    for (x : 0 .. 1) {
        if
        :: q_state[x] == WAITS ->
            /* Invariant 6: whoever runs has told the proxy. */
            assert(is_untold || !all_run || (x == 0 && o_state == SLOW));
            fail_request(x)
        :: else
        fi
    }
}

inline go_on()
{
    assert(q_state[0] != WAITS && q_state[1] != WAITS);
    for (i : 0 .. RANKS - 1) {
        s_stopped[i] = false; r_stopped[i] = false; s_stalls[i] = false; is_stuck[i] = false;
        s_clings[i] = false; s_deaf[i] = false; s_mute[i] = false
    }
    i = 0; idle = 0
}

/* Which timers run out, when nothing else can happen: the shorter ones first. What moves sets idle
 * back. */
#define AT_ALL_RANKS(stage, what) \
    :: d_step { idle == stage -> idle++; for (j : 0 .. RANKS - 1) { what(j) }; skip }
#define AND_THEN(stage, has_worked, what) \
    :: d_step { idle == stage -> idle++; \
                for (j : 0 .. RANKS - 1) { assert(has_worked(j)); what(j) }; skip }
#if BESIDE
#define TIME BESIDE_LATER OWN_TIME
#else
#define TIME OWN_TIME
#endif
#define OWN_TIME \
    :: d_step { idle < 3 -> idle++; for (j : 0 .. RANKS - 1) { say_again(j) }; skip } \
    AT_ALL_RANKS(3, compare_tickets) \
    AND_THEN(4, nothing_forgotten, silence) \
    AND_THEN(5, nothing_silent, stages_end) \
    AND_THEN(6, no_stage, deadlines_pass) \
    AND_THEN(7, no_transfer_at, tickets_pass) \
    AND_THEN(8, no_live_ticket, patience_ends) \
    AND_THEN(9, no_quarantine, leases_end) \
    :: d_step { idle == 10 -> idle++; assert(no_hold(0) && no_hold(RANKS - 1)); \
                leave_requests(); skip } \
    :: d_step { idle == LAST && !all_work -> go_on(); skip } \
    :: d_step { idle == LAST && all_work -> check_end(); is_over = true; skip }

/* What every step ends with. */
inline carry_out()
{
    d_step {
        for (j : 0 .. RANKS - 1) {
            run_transfers(j);
            run_tickets(j);
            if
            :: answers == j && answer == INIT_ANSWER && k_connection[K(j, from)] == 0 ->
                k_connection[K(j, from)] = answer_1;
                r_workers[j]++;
                k_worker[K(j, from)] = r_workers[j]
            :: else
            fi;
            if
            :: answers == j && answer == INIT_ANSWER -> answer_2 = k_worker[K(j, from)]
            :: else
            fi;
            if
            :: answers == j && answer != NOWHERE ->
                say_to_sender(j, answer, from, answer_1, answer_2, answer_3, 0, 0, answer_status)
            :: else
            fi;
            if
            :: greets == 1 + j && wants_peer(j) -> hello(j)
            :: else
            fi
        }
        answer = NOWHERE; proof = NOWHERE; is_final = false; is_told = true; greets = 0
    }
}

active proctype world()
{
    d_step {
        if :: N1 == 0 -> q_state[1] = SERVED :: else fi;
        for (i : 0 .. RANKS - 1) {
            for (x : 0 .. 1) {
                if
                :: is_moved_by(x, i) -> t_state[X(i, x)] = XFER_WAIT_PEER
                :: else
                fi
            }
        }; skip }
    do
    :: atomic {
        if
    SENDER(0)
    TRANSFER(0, 0)
    TRANSFER(0, 1)
    RECEIVER(0)
    PAGE(0, 0)
#if PAGES > 1
    PAGE(0, 1)
#endif
#if PAGES > 2
    PAGE(0, 2)
#endif
    REQUEST(0)
#if BESIDE
    BESIDE_NOW
#endif
    REQUEST(1)
    DECODE(0, 0)
    DECODE(0, 1)
#if RANKS > 1
    SENDER(1)
    TRANSFER(1, 0)
    RECEIVER(1)
    PAGE(1, 0)
#if PAGES > 1
    PAGE(1, 1)
#endif
    DECODE(1, 0)
#endif
    :: d_step { len(notices) > 0 -> proxy_hears(); skip }
    :: else ->
            if
            TIME
            fi
        fi;
        carry_out();
        if
        :: is_over -> break
        :: else
        fi
    }
    od
}
