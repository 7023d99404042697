/* SPDX-License-Identifier: Apache-2.0 */
/* The sender: transfers, its peer, and what it hears. Part of handoff.pml. */
inline say_to_receiver(r, kind, x1, x2, x3)
{
    if
    :: len(to_receiver[r]) < ROOM -> to_receiver[r] ! kind, s_epoch[r], s_knows[r], x1, x2, x3
    :: else
    fi
}

inline forget_transfer(r, x)
{
    t_state[X(r, x)] = NOWHERE; t_attempt[X(r, x)] = 0; t_id[X(r, x)] = 0; t_ticket[X(r, x)] = 0;
    t_generation[X(r, x)] = 0; t_commit[X(r, x)] = 0; t_revoked[X(r, x)] = false;
    t_cut[X(r, x)] = false; t_is_told[X(r, x)] = false; t_out[X(r, x)] = 0;
    for (c : 0 .. 1) {
        t_chunk[C(r, x, c)] = IDLE; t_page[C(r, x, c)] = 0
    }
}

/* A CANCEL or RELEASE, which is said again until it is answered. */
inline say_bye(r, x)
{
    if
    :: t_bye[X(r, x)] == CANCEL ->
        say_to_receiver(r, CANCEL, (t_bye_ticket[X(r, x)] < NO_NONCE -> 1 : 0),
                        t_bye_ticket[X(r, x)] % NO_NONCE, t_bye_generation[X(r, x)])
    :: t_bye[X(r, x)] == RELEASE -> say_to_receiver(r, RELEASE, t_bye_generation[X(r, x)], 0, 0)
    :: else
    fi
}

inline farewell(r, x)
{
    if
    :: s_peer[r] == PEER_READY && t_generation[X(r, x)] != 0 ->
        t_bye[X(r, x)] = CANCEL;
        t_bye_ticket[X(r, x)] = t_ticket[X(r, x)] + (act == XFER_DO_LEAVE -> NO_NONCE : 0);
        t_bye_generation[X(r, x)] = t_generation[X(r, x)]; say_bye(r, x)
    :: s_peer[r] == PEER_READY && t_generation[X(r, x)] == 0 ->
        t_bye[X(r, x)] = RELEASE; t_bye_ticket[X(r, x)] = 0;
        t_bye_generation[X(r, x)] = x * 2 + t_attempt[X(r, x)]; say_bye(r, x)
    :: else
    fi
}

/* The event `on` happens to transfer x. */
inline transfer_move(r, x)
{
    idle = 0;
    transfer_table(r, x, t_state[X(r, x)], on);
    if
    :: act == XFER_DO_LEAVE || (act == XFER_DO_SWEAR && !t_revoked[X(r, x)]) -> farewell(r, x)
    :: act == XFER_DO_SWEAR && t_revoked[X(r, x)] ->
        say_to_receiver(r, DRAINED, 1, t_ticket[X(r, x)], t_generation[X(r, x)])
    :: on == XFER_ON_ALLOC ->
        s_ids[r]++;
        assert(s_ids[r] < 15);
        t_id[X(r, x)] = s_ids[r];
        say_to_receiver(r, ALLOC, x * 2 + t_attempt[X(r, x)], t_id[X(r, x)], 0)
    :: else
    fi;
    if
    :: on == XFER_ON_OVERDUE ||
       (t_state[X(r, x)] == XFER_ENDED && !t_is_told[X(r, x)]) -> /* checked: told */
        assert(is_hard || on == XFER_ON_DONE); /* what is lost, late or doubled ends nothing */
        assert(!t_is_told[X(r, x)]); /* Invariant 6: once. */
        t_is_told[X(r, x)] = true;
        notice(x, t_attempt[X(r, x)], r, on == XFER_ON_DONE)
    :: else
    fi;
    if
    :: t_state[X(r, x)] == XFER_ENDED ->
        assert(t_out[X(r, x)] == 0); /* SOURCE_FREE: nothing reads them */
        forget_transfer(r, x)
    :: else
    fi
}

inline say_commit(r, x)
{
    if
    :: !BEHIND ->
        say_to_receiver(r, COMMIT, t_commit[X(r, x)] - ASKED, t_ticket[X(r, x)], t_generation[X(r, x)])
    :: BEHIND && len(wire[W(r, s_epoch[r])]) < ROOM ->
        wire[W(r, s_epoch[r])] ! COMMIT, s_worker[r], t_commit[X(r, x)] - ASKED,
            t_ticket[X(r, x)], t_generation[X(r, x)], s_epoch[r]
    :: else
    fi
}

#define is_ready_chunk(r, x, c) \
    (t_chunk[C(r, x, c)] == LANDED || (BEHIND && t_chunk[C(r, x, c)] == POSTED))
#define is_last(r, x) \
    ((is_told(r, x, 0) || is_ready_chunk(r, x, 0)) && \
     (n_chunks(x) == 1 || is_told(r, x, 1) || is_ready_chunk(r, x, 1)))

inline commit(r, x)
{
    mask = 0;
    flag = is_last(r, x);
    for (c : 0 .. 1) {
        if
        :: is_ready_chunk(r, x, c) -> mask = mask | (1 << c); t_chunk[C(r, x, c)] = TOLD
        :: else
        fi
    }
    t_commit[X(r, x)] = ASKED + mask + (flag -> FINAL : 0);
    say_commit(r, x);
    idle = 0;
    if
    :: flag -> next[X(r, x)] = XFER_ON_FINAL
    :: else
    fi
}

#define is_drained(r, x) \
    (t_state[X(r, x)] == XFER_DRAINING && XFER_IF_QUIET(r, x) && s_peer[r] != PEER_CLOSING && \
     !(s_mute[r] && s_peer[r] == PEER_READY))
#define may_commit(r, x) \
    (t_state[X(r, x)] == XFER_MOVING && t_commit[X(r, x)] == 0 && \
     (is_ready_chunk(r, x, 0) || is_ready_chunk(r, x, 1) || is_last(r, x)))

/* Carries out next[], and what follows at once: the end of what is drained, COMMIT of what is there.
 */
inline run_transfers(r)
{
    y = 0;
    do
    :: y == 2 -> break
    :: y < 2 && next[X(r, y)] == XFER_ON_FAIL &&
       (t_state[X(r, y)] == XFER_DRAINING || t_state[X(r, y)] == NOWHERE) -> next[X(r, y)] = NOWHERE
    :: y < 2 && next[X(r, y)] != NOWHERE &&
       !(next[X(r, y)] == XFER_ON_FAIL &&
         (t_state[X(r, y)] == XFER_DRAINING || t_state[X(r, y)] == NOWHERE)) ->
        on = next[X(r, y)]; next[X(r, y)] = NOWHERE;
        if
        :: on == XFER_ON_FAIL -> t_id[X(r, y)] = 0; t_commit[X(r, y)] = 0
        :: on == XFER_ON_FORGOTTEN -> t_ticket[X(r, y)] = 0; t_generation[X(r, y)] = 0
        :: else
        fi;
        transfer_move(r, y)
    :: y < 2 && next[X(r, y)] == NOWHERE && is_drained(r, y) ->
        next[X(r, y)] = (t_cut[X(r, y)] || s_peer[r] != PEER_READY -> XFER_ON_CUT : XFER_ON_DRAINED)
    :: y < 2 && next[X(r, y)] == NOWHERE && may_commit(r, y) -> commit(r, y)
    :: else -> y++
    od
}

inline peer_move(r, event)
{
    idle = 0;
    on = event;
    peer_table(r, s_peer[r], on)
}

/* is_gone: its process has exited. is_strange: it lives, but does not know us. */
inline peer_down(r, is_gone, is_strange)
{
    if
    :: s_peer[r] == PEER_DOWN || s_peer[r] == PEER_CLOSING
    :: else ->
        peer_move(r, PEER_ON_LOST);
        for (y : 0 .. 1) {
            if
            :: t_bye[X(r, y)] != NOWHERE && !is_gone -> s_owes[r] = true
            :: else
            fi;
            t_bye[X(r, y)] = NOWHERE; t_bye_ticket[X(r, y)] = 0; t_bye_generation[X(r, y)] = 0;
            t_id[X(r, y)] = 0; t_commit[X(r, y)] = 0;
            if
            :: t_state[X(r, y)] == NOWHERE
            :: else ->
                t_cut[X(r, y)] = t_cut[X(r, y)] || t_out[X(r, y)] > 0 ||
                                 t_chunk[C(r, y, 0)] == POSTED || t_chunk[C(r, y, 1)] == POSTED;
                if
                :: t_state[X(r, y)] != XFER_WAIT_PEER && !is_gone -> s_owes[r] = true
                :: else
                fi;
                if
                :: t_state[X(r, y)] == XFER_WAIT_GRANT && is_strange -> next[X(r, y)] = XFER_ON_FORGOTTEN
                :: t_state[X(r, y)] == XFER_WAIT_PEER && is_strange
                :: else -> next[X(r, y)] = XFER_ON_FAIL
                fi
            fi
        }
        s_knows[r] = 0
    fi
}

inline sender_alloc_answer(r)
{
    x = 2;
    for (u : 0 .. 1) {
        if
        :: t_state[X(r, u)] == XFER_WAIT_GRANT && t_id[X(r, u)] == a -> x = u /* checked: pending */
        :: else
        fi
    }
    if :: x != 2 -> changes_something :: else fi;
    if
    :: x == 2
    :: x != 2 && status == STALE -> forgot = true
    :: x != 2 && status == REFUSED -> t_id[X(r, x)] = 0; next[X(r, x)] = XFER_ON_REFUSED
    :: x != 2 && status == QUEUED -> t_ticket[X(r, x)] = b; t_generation[X(r, x)] = v
    :: else ->
        t_id[X(r, x)] = 0; t_ticket[X(r, x)] = b; t_generation[X(r, x)] = v;
        t_page[C(r, x, 0)] = w; t_page[C(r, x, 1)] = m;
        for (c : 0 .. n_chunks(x) - 1) {
            if
            :: t_page[C(r, x, c)] == 0 -> t_chunk[C(r, x, c)] = PRESENT
            :: else
            fi
        }
        next[X(r, x)] = XFER_ON_GRANTED
    fi
}

inline sender_commit_answer(r)
{
    x = 2;
    for (u : 0 .. 1) {
        if
        :: t_commit[X(r, u)] == ASKED + a && t_generation[X(r, u)] == v -> x = u
        :: else
        fi
    }
    if :: x != 2 -> changes_something :: else fi;
    if
    :: x == 2
    :: x != 2 && from != s_knows[r] && status == STALE -> forgot = true /* of another life */
    :: x != 2 && (from == s_knows[r] || status != STALE) && (status == REFUSED || status == STALE) ->
        t_revoked[X(r, x)] = t_revoked[X(r, x)] || status == REFUSED;
        next[X(r, x)] = XFER_ON_FAIL
    :: else ->
        t_commit[X(r, x)] = 0;
        if
        :: t_state[X(r, x)] == XFER_COMMITTING ->
            next[X(r, x)] = (status == COMPLETE -> XFER_ON_DONE : XFER_ON_FAIL)
        :: else
        fi
    fi
}

inline sender_revoked(r)
{
    x = 2; flag = false;
    for (u : 0 .. 1) {
        if
        :: t_state[X(r, u)] != NOWHERE && t_generation[X(r, u)] == v && t_ticket[X(r, u)] == b -> x = u
        :: t_state[X(r, u)] == XFER_WAIT_GRANT && t_id[X(r, u)] == a && x == 2 -> x = u
        :: else
        fi
    }
    if
    :: x != 2 ->
        changes_something;
        flag = t_state[X(r, x)] != XFER_WAIT_GRANT;
        t_revoked[X(r, x)] = true;
        next[X(r, x)] = XFER_ON_FAIL
    :: else
    fi;
    if
    :: !flag -> say_to_receiver(r, DRAINED, 0, b, v) /* no write of it is under way, none will come */
    :: else
    fi
}

inline sender_beat_answer(r)
{
    if
    :: a != s_connection[r] - 1 /* checked: beat; unasked, or of an earlier connection */
    :: a == s_connection[r] - 1 && status == STALE -> forgot = true
    :: else ->
        for (u : 0 .. 1) {
            if
            :: t_generation[X(r, u)] != 0 && t_state[X(r, u)] != XFER_COMMITTING &&
               (t_generation[X(r, u)] == b || t_generation[X(r, u)] == v) ->
                changes_something;
                next[X(r, u)] = XFER_ON_FAIL
            :: else
            fi
        }
    fi
}

inline sender_bye_answer(r)
{
    for (u : 0 .. 1) {
        if
        :: t_bye[X(r, u)] != NOWHERE && (t_bye[X(r, u)] == RELEASE || t_bye_generation[X(r, u)] == a) ->
            changes_something;
            t_bye[X(r, u)] = NOWHERE; t_bye_ticket[X(r, u)] = 0; t_bye_generation[X(r, u)] = 0
        :: else
        fi
    }
}

inline sender_init_answer(r)
{
    if
    :: s_peer[r] == PEER_INIT && a == s_connection[r] ->
        changes_something;
        s_knows[r] = from; s_endpoint[r] = true; s_worker[r] = b; s_connection[r]++;
        s_owes[r] = false;
        assert(s_connection[r] < 8); /* Invariant 3: each has a fault or a timer behind it. */
        peer_move(r, PEER_ON_ACCEPTED);
        say_to_receiver(r, MEMREG, s_connection[r] - 1, 0, 0)
    :: else
    fi
}

inline sender_memreg_answer(r)
{
    if
    :: s_peer[r] == PEER_MEMREG && a == s_connection[r] - 1 && status == STALE -> forgot = true
    :: s_peer[r] == PEER_MEMREG && a == s_connection[r] - 1 && status == OK ->
        changes_something;
        peer_move(r, PEER_ON_REGIONS);
        peer_move(r, PEER_ON_MEASURED);
        for (u : 0 .. 1) {
            if
            :: t_state[X(r, u)] == XFER_WAIT_PEER -> next[X(r, u)] = XFER_ON_ALLOC
            :: else
            fi
        }
    :: else
    fi
}

inline sender_hears(r)
{
    forgot = false;
    is_foreign = meant != s_epoch[r] ||
                 (type != INIT_ANSWER && status != STALE && from != s_knows[r]) ||
                 (type == BEAT_ANSWER && a != s_connection[r] - 1);
    if
    :: meant != s_epoch[r] || /* checked: epoch */
       (type != INIT_ANSWER && status != STALE && from != s_knows[r]) /* checked: life */
    :: else ->
        if
        :: type == INIT_ANSWER -> sender_init_answer(r)
        :: type == MEMREG_ANSWER -> sender_memreg_answer(r)
        :: type == ALLOC_ANSWER -> sender_alloc_answer(r)
        :: type == COMMIT_ANSWER -> sender_commit_answer(r)
        :: type == REVOKE -> sender_revoked(r)
        :: type == BEAT_ANSWER -> sender_beat_answer(r)
        :: else -> sender_bye_answer(r)
        fi
    fi;
    if
    :: forgot -> changes_something; peer_down(r, false, true)
    :: else
    fi
}

#define wants_peer(r) (s_owes[r] || t_state[X(r, 0)] != NOWHERE || t_state[X(r, 1)] != NOWHERE)

inline hello(r)
{
    peer_move(r, PEER_ON_HELLO);
    say_to_receiver(r, INIT, s_connection[r], 0, 0)
}

inline closed(r)
{
    s_endpoint[r] = false; s_worker[r] = 0;
    if :: LOCAL -> empty_wire(r, s_epoch[r]) :: else fi; /* checked: closed */
    for (u : 0 .. 1) { t_out[X(r, u)] = 0 }
    peer_move(r, PEER_ON_CLOSED);
    greets = 1 + r
}

/* Half of a copy into a mapped page, the other half, or a put. */
inline begin_copy(r, x, chunk)
{
    s_copies[r] = 1 + x * 2 + chunk;
    check_write(r, t_page[C(r, x, chunk)], t_generation[X(r, x)]);
    if :: flag -> p_key[P(r, p)] = 0 :: else fi
}

inline end_copy(r)
{
    x = (s_copies[r] - 1) / 2; c = (s_copies[r] - 1) % 2;
    s_copies[r] = 0;
    check_write(r, t_page[C(r, x, c)], t_generation[X(r, x)]);
    if
    :: flag && p_state[P(r, p)] == PAGE_RESERVED -> p_key[P(r, p)] = key_of(x, c)
    :: else
    fi;
    t_chunk[C(r, x, c)] = LANDED;
    idle = 0
}

inline post_put(r, x, chunk)
{
    wire[W(r, s_epoch[r])] ! WRITE, s_worker[r], t_page[C(r, x, chunk)], key_of(x, chunk),
        t_generation[X(r, x)], s_epoch[r];
    t_chunk[C(r, x, chunk)] = POSTED; t_out[X(r, x)]++;
    idle = 0
}

inline flushed(r, x)
{
    for (c : 0 .. 1) {
        if
        :: t_chunk[C(r, x, c)] == POSTED -> t_chunk[C(r, x, c)] = LANDED
        :: else
        fi
    }
}

#define acts(r) (!s_stopped[r] && s_copies[r] == 0)
#define may_write(r, x, c) \
    (acts(r) && !s_stalls[r] && t_state[X(r, x)] == XFER_MOVING && (c) < n_chunks(x) && t_chunk[C(r, x, c)] == IDLE)
/* The transport says so: the other end has gone, or its worker has. */
#define is_broken(r) \
    (s_endpoint[r] && s_peer[r] != PEER_CLOSING && \
     (s_knows[r] != r_epoch[r] || k_worker[K(r, s_epoch[r])] != s_worker[r]))
#define is_exited(r) (LOCAL && s_endpoint[r] && s_peer[r] != PEER_CLOSING && s_knows[r] != r_epoch[r])

#define SENDER(r) \
    :: d_step { acts(r) && !s_deaf[r] && len(to_sender[r]) > 0 -> \
                to_sender[r] ? type, from, meant, a, b, v, w, m, status; sender_hears(r); skip } \
    :: d_step { acts(r) && s_peer[r] == PEER_DOWN && wants_peer(r) -> hello(r); skip } \
    :: d_step { acts(r) && s_peer[r] == PEER_CLOSING && !s_clings[r] -> closed(r); skip } \
    :: d_step { acts(r) && is_exited(r) -> peer_down(r, true, false); skip } \
    :: d_step { acts(r) && !LOCAL && is_broken(r) -> peer_down(r, false, false); skip } \
    :: d_step { MAPPED && !s_stopped[r] && s_copies[r] != 0 -> end_copy(r); skip }

#define TRANSFER(r, x) \
    :: d_step { MAPPED && may_write(r, x, 0) -> begin_copy(r, x, 0); skip } \
    :: d_step { MAPPED && may_write(r, x, 1) && t_chunk[C(r, x, 0)] != IDLE -> \
                begin_copy(r, x, 1); skip } \
    :: d_step { !MAPPED && may_write(r, x, 0) && len(wire[W(r, s_epoch[r])]) < ROOM -> \
                post_put(r, x, 0); skip } \
    :: d_step { !MAPPED && may_write(r, x, 1) && t_chunk[C(r, x, 0)] != IDLE && \
                len(wire[W(r, s_epoch[r])]) < ROOM -> post_put(r, x, 1); skip } \
    :: d_step { !MAPPED && !BEHIND && acts(r) && t_state[X(r, x)] == XFER_MOVING && \
                t_out[X(r, x)] == 0 && (t_chunk[C(r, x, 0)] == POSTED || \
                t_chunk[C(r, x, 1)] == POSTED) -> flushed(r, x); skip } \
    :: d_step { !MAPPED && acts(r) && is_drained(r, x) -> skip }
