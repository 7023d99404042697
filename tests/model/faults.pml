/* SPDX-License-Identifier: Apache-2.0 */
/* What may go wrong. Part of handoff.pml. */
inline fault(hard)
{
    n_faults++;
    is_hard = is_hard || hard
}

inline crash_sender(r)
{
    fault(true);
    for (x : 0 .. 1) {
        if
        :: t_state[X(r, x)] != NOWHERE ->
            q_lost[X(r, x)] = 1 + t_attempt[X(r, x)];
            forget_transfer(r, x)
        :: else
        fi;
        t_bye[X(r, x)] = NOWHERE; t_bye_ticket[X(r, x)] = 0; t_bye_generation[X(r, x)] = 0
    }
    s_epoch[r]++; s_peer[r] = PEER_DOWN; s_knows[r] = 0; s_connection[r] = 1; s_endpoint[r] = false;
    s_worker[r] = 0;
    s_owes[r] = false; s_stopped[r] = false; s_stalls[r] = false; s_copies[r] = 0; s_ids[r] = 0; idle = 0;
    s_clings[r] = false; s_deaf[r] = false; s_mute[r] = false;
    if :: LOCAL -> empty_wire(r, s_epoch[r] - 1) :: else fi;
    do
    :: len(to_sender[r]) > 0 -> to_sender[r] ? _, _, _, _, _, _, _, _, _
    :: else -> break
    od
}

inline crash_receiver(r)
{
    fault(true);
    r_epoch[r]++; r_next[r] = 0; r_complete[r] = 0; idle = 0; /* numbers begin anew */
    r_stopped[r] = false;
    for (e : 0 .. LIVES - 1) { k_connection[K(r, e)] = 0; k_worker[K(r, e)] = 0; k_seen[K(r, e)] = 0;
                           k_deaf[K(r, e)] = false }
    for (t : 0 .. SLOTS - 1) {
        if
        :: k_state[T(r, t)] == TICKET_HELD -> excused[k_request[T(r, t)]] = true
        :: else
        fi;
        k_state[T(r, t)] = NOWHERE; k_peer[T(r, t)] = 0; k_request[T(r, t)] = 0;
        k_attempt[T(r, t)] = 0; k_id[T(r, t)] = 0; k_generation[T(r, t)] = 0;
        for (c : 0 .. 1) { h_state[H(r, t, c)] = NONE; h_page[H(r, t, c)] = 0 }
    }
    for (p : 0 .. PAGES - 1) {
        p_state[P(r, p)] = PAGE_FREE; p_memory[P(r, p)]++; p_owner[P(r, p)] = 0; p_key[P(r, p)] = 0;
        p_holds[P(r, p)] = 0; p_pins[P(r, p)] = 0
    }
    empty_wire(r, 0); empty_wire(r, 1);
    for (x : 0 .. 1) {
        if
        :: is_moved_by(x, r) ->
            q_release[X(r, x)] = 0; d_state[X(r, x)] = 0;
            d_page[C(r, x, 0)] = 0; d_page[C(r, x, 1)] = 0;
            if
            :: q_state[x] == READY -> fail_request(x) /* its decode leg breaks */
            :: else
            fi
        :: else
        fi
    }
}

#define can_fail (n_faults < FAULTS && idle == 0 && !is_over)

#define MESSAGE_FAULTS(r) \
    :: d_step { can_fail && len(to_receiver[r]) > 0 -> \
                fault(false); to_receiver[r] ? _, _, _, _, _, _; skip } \
    :: d_step { can_fail && len(to_sender[r]) > 0 -> \
                fault(false); to_sender[r] ? _, _, _, _, _, _, _, _, _; skip } \
    :: d_step { can_fail && len(to_receiver[r]) > 0 && len(to_receiver[r]) < ROOM -> \
                fault(false); to_receiver[r] ? <type, from, meant, a, b, v>; \
                to_receiver[r] ! type, from, meant, a, b, v; skip } \
    :: d_step { can_fail && len(to_sender[r]) > 0 && len(to_sender[r]) < ROOM -> \
                fault(false); to_sender[r] ? <type, from, meant, a, b, v, w, m, status>; \
                to_sender[r] ! type, from, meant, a, b, v, w, m, status; skip } \
    :: d_step { can_fail && len(to_receiver[r]) > 1 -> \
                fault(false); to_receiver[r] ? type, from, meant, a, b, v; \
                to_receiver[r] ! type, from, meant, a, b, v; skip } \
    :: d_step { can_fail && len(to_sender[r]) > 1 -> \
                fault(false); to_sender[r] ? type, from, meant, a, b, v, w, m, status; \
                to_sender[r] ! type, from, meant, a, b, v, w, m, status; skip } \
    :: d_step { can_fail && s_peer[r] == PEER_READY && acts(r) -> /* a heartbeat, at any time */ \
                fault(false); \
                say_to_receiver(r, BEAT, t_generation[X(r, 0)], t_generation[X(r, 1)], \
                                s_connection[r] - 1); skip } \
    :: d_step { can_fail && !LOCAL && !r_stopped[r] && k_connection[K(r, s_epoch[r])] != 0 -> \
                fault(false); /* is anybody there? */ \
                say_to_sender(r, BEAT_ANSWER, s_epoch[r], 0, 0, 0, 0, 0, OK); skip }

#define PROCESS_FAULTS(r) \
    :: d_step { can_fail -> crash_sender(r); skip } \
    :: d_step { can_fail -> crash_receiver(r); skip } \
    :: d_step { can_fail && LOCAL && !s_stopped[r] -> fault(true); s_stopped[r] = true; skip } \
    :: d_step { can_fail && !r_stopped[r] -> fault(true); r_stopped[r] = true; skip } \
    :: d_step { can_fail && !s_stalls[r] -> fault(true); s_stalls[r] = true; skip } \
    :: d_step { can_fail && !MAPPED && !is_stuck[r] -> fault(true); is_stuck[r] = true; skip } \
    :: d_step { can_fail && CLINGS && s_peer[r] == PEER_CLOSING && !s_clings[r] -> \
                fault(true); s_clings[r] = true; skip } \
    :: d_step { can_fail && DEAF && !s_deaf[r] -> fault(true); s_deaf[r] = true; skip } \
    :: d_step { can_fail && MUTE && !s_mute[r] -> fault(true); s_mute[r] = true; skip } \
    :: d_step { !is_over && s_clings[r] -> s_clings[r] = false; idle = 0; skip } \
    :: d_step { !is_over && s_deaf[r] -> s_deaf[r] = false; idle = 0; skip } \
    :: d_step { !is_over && s_mute[r] -> s_mute[r] = false; idle = 0; skip } \
    :: d_step { !is_over && s_stopped[r] -> s_stopped[r] = false; idle = 0; skip } \
    :: d_step { !is_over && r_stopped[r] -> r_stopped[r] = false; idle = 0; skip } \
    :: d_step { !is_over && s_stalls[r] -> s_stalls[r] = false; idle = 0; skip } \
    :: d_step { !is_over && is_stuck[r] -> is_stuck[r] = false; idle = 0; skip }

/* A timer that is early, a user who cancels, an endpoint that fails. */
#define EARLY(r) \
    :: d_step { can_fail && acts(r) && s_endpoint[r] -> fault(true); peer_down(r, false, false); skip } \
    :: d_step { can_fail && !r_stopped[r] && k_connection[K(r, s_epoch[r])] != 0 -> \
                fault(true); fall_silent(r, s_epoch[r]); skip }
#define EARLY_TRANSFER(r, x) \
    :: d_step { can_fail && acts(r) && t_state[X(r, x)] != NOWHERE && \
                t_state[X(r, x)] != XFER_DRAINING -> fault(true); next[X(r, x)] = XFER_ON_FAIL; skip }
#define EARLY_TICKET(r, t) \
    :: d_step { can_fail && !r_stopped[r] && (k_state[T(r, t)] == TICKET_GRANTED || \
                k_state[T(r, t)] == TICKET_QUEUED) -> fault(true); todo[T(r, t)] = TICKET_ON_FAIL; skip } \
    :: d_step { can_fail && !r_stopped[r] && k_state[T(r, t)] == TICKET_HELD -> \
                fault(true); todo[T(r, t)] = TICKET_ON_EXPIRED; skip }

#if ATTEMPTS > 1
#define EARLY_LAST_TICKET(r) EARLY_TICKET(r, 4)
#else
#define EARLY_LAST_TICKET(r)
#endif

#define LATE_MESSAGES \
    :: d_step { can_fail && len(to_receiver[0]) > 0 && len(late_to_receiver) == 0 -> \
                fault(false); to_receiver[0] ? type, from, meant, a, b, v; \
                late_to_receiver ! type, from, meant, a, b, v; skip } \
    :: d_step { can_fail && len(to_sender[0]) > 0 && len(late_to_sender) == 0 -> \
                fault(false); to_sender[0] ? type, from, meant, a, b, v, w, m, status; \
                late_to_sender ! type, from, meant, a, b, v, w, m, status; skip } \
    :: d_step { can_fail && len(to_receiver[0]) > 0 && len(late_to_receiver) == 0 -> /* a copy */ \
                fault(false); to_receiver[0] ? <type, from, meant, a, b, v>; \
                late_to_receiver ! type, from, meant, a, b, v; skip } \
    :: d_step { can_fail && len(to_sender[0]) > 0 && len(late_to_sender) == 0 -> \
                fault(false); to_sender[0] ? <type, from, meant, a, b, v, w, m, status>; \
                late_to_sender ! type, from, meant, a, b, v, w, m, status; skip } \
    :: d_step { !is_over && !r_stopped[0] && len(late_to_receiver) > 0 -> \
                late_to_receiver ? type, from, meant, a, b, v; receiver_hears(0); skip } \
    :: d_step { !is_over && acts(0) && len(late_to_sender) > 0 -> \
                late_to_sender ? type, from, meant, a, b, v, w, m, status; sender_hears(0); skip }

active proctype faults()
{
end:
    do
    :: atomic {
        if
    MESSAGE_FAULTS(0)
    PROCESS_FAULTS(0)
    EARLY(0)
    EARLY_TRANSFER(0, 0)
    EARLY_TRANSFER(0, 1)
    EARLY_TICKET(0, 0)
    EARLY_TICKET(0, 1)
    EARLY_TICKET(0, 2)
    EARLY_TICKET(0, 3)
    EARLY_LAST_TICKET(0)
#if RANKS > 1
    MESSAGE_FAULTS(1)
    PROCESS_FAULTS(1)
    EARLY(1)
    EARLY_TRANSFER(1, 0)
    EARLY_TICKET(1, 0)
    EARLY_TICKET(1, 1)
    EARLY_TICKET(1, 2)
    EARLY_TICKET(1, 3)
    EARLY_LAST_TICKET(1)
#endif
#if LATE
    LATE_MESSAGES
#endif
    :: d_step { can_fail && len(notices) > 0 ->
                fault(false); is_untold = true; notices ? _, _, _, _; skip }
    :: d_step { can_fail && len(notices) > 0 && len(notices) < ROOM ->
                fault(false); notices ? <x, a, b, flag>; notices ! x, a, b, flag; skip }
    :: d_step { can_fail && len(notices) > 1 ->
                fault(false); notices ? x, a, b, flag; notices ! x, a, b, flag; skip }
        fi;
        carry_out()
    }
    od
}
