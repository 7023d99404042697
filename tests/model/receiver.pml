/* SPDX-License-Identifier: Apache-2.0 */
/* The receiver: pages, tickets, and what it hears. Part of handoff.pml. */
#define is_named_to(r, p, chunk) (t_page[(r) * 4 + (chunk)] == name_page(p, p_memory[P(r, p)]))
#define may_copy_to(r, p, chunk) \
    (t_state[(r) * 2 + (chunk) / 2] == XFER_DRAINING && t_chunk[(r) * 4 + (chunk)] == IDLE && \
     is_named_to(r, p, chunk))
#define is_copied_to(r, p) \
    ((s_copies[r] != 0 && is_named_to(r, p, s_copies[r] - 1)) || \
     (MAPPED && s_mute[r] && (may_copy_to(r, p, 0) || may_copy_to(r, p, 1) || \
                              may_copy_to(r, p, 2) || may_copy_to(r, p, 3))))

inline page_move(r, p, event)
{
    page_table(r, p, p_state[P(r, p)], event);
    /* Invariant 1: who could be writing it now would write a page that is another's. */
    assert(p_state[P(r, p)] == PAGE_QUARANTINED || p_state[P(r, p)] == PAGE_RETIRED ||
           !is_copied_to(r, p));
    if
    :: p_state[P(r, p)] != PAGE_LANDED -> p_key[P(r, p)] = 0
    :: else
    fi;
    if
    :: p_state[P(r, p)] == PAGE_FREE || p_state[P(r, p)] == PAGE_LANDED -> p_owner[P(r, p)] = 0
    :: else
    fi
}

/* Invariant 1, where it matters: a write reaches memory that only its ticket may have. p, and flag:
 * it is a page of the pool still. */
inline check_write(r, name, generation)
{
    p = page_of(name);
    flag = p_memory[P(r, p)] == memory_of(name);
    assert(!flag || p_state[P(r, p)] == PAGE_QUARANTINED || p_state[P(r, p)] == PAGE_RETIRED ||
           (p_state[P(r, p)] == PAGE_RESERVED && p_owner[P(r, p)] == generation))
}

/* The landed page of a key: found, 1 + page; 0: none. */
inline find_landed(r, key)
{
    found = 0;
    for (p : 0 .. PAGES - 1) {
        if
        :: p_state[P(r, p)] == PAGE_LANDED && p_key[P(r, p)] == key -> found = 1 + p
        :: else
        fi
    }
}

/* ---- what the receiver says ---- */

inline notice(x, attempt, r, is_ready)
{
    if
    :: len(notices) < ROOM -> notices ! x, attempt, r, is_ready
    :: else -> is_untold = true
    fi
}

inline say_to_sender(r, kind, meant_for, x1, x2, x3, x4, x5, x6)
{
    if
    :: len(to_sender[r]) < ROOM ->
        to_sender[r] ! kind, r_epoch[r], meant_for, x1, x2, x3, x4, x5, x6
    :: else
    fi
}

inline say_revoke(r, t)
{
    if
    :: k_connection[K(r, k_peer[T(r, t)])] != 0 ->
        say_to_sender(r, REVOKE, k_peer[T(r, t)], k_id[T(r, t)], 1 + t, k_generation[T(r, t)], 0, 0, OK)
    :: else
    fi
}

#define page_name_of(r, t, c) \
    (h_state[H(r, t, c)] == RESERVED -> \
     name_page(h_page[H(r, t, c)], p_memory[P(r, h_page[H(r, t, c)])]) : 0)

inline answer_alloc(r, t)
{
    page_0 = page_name_of(r, t, 0);
    page_1 = page_name_of(r, t, 1);
    found = (k_state[T(r, t)] == TICKET_QUEUED -> QUEUED : OK);
    say_to_sender(r, ALLOC_ANSWER, k_peer[T(r, t)], k_id[T(r, t)], 1 + t, k_generation[T(r, t)],
                  page_0, page_1, found)
}

/* ---- tickets ---- */

/* What the action of a move does to the chunks of ticket t. */
inline act_on_chunks(r, t)
{
    for (c : 0 .. 1) {
        d = h_page[H(r, t, c)];
        on_page = NOWHERE;
        if
        :: act == TICKET_DO_PUBLISH && bit(mask, c) && h_state[H(r, t, c)] == RESERVED ->
            find_landed(r, key_of(k_request[T(r, t)], c));
            if
            :: found != 0 -> on_page = PAGE_ON_DUPLICATE
            :: else ->
                /* Invariant 2. */
                assert(p_key[P(r, d)] == key_of(k_request[T(r, t)], c));
                on_page = PAGE_ON_PUBLISH
            fi
        :: act == TICKET_DO_QUARANTINE && h_state[H(r, t, c)] == RESERVED -> on_page = PAGE_ON_ABORT
        :: act == TICKET_DO_FREE && h_state[H(r, t, c)] == RESERVED -> on_page = PAGE_ON_GIVE_BACK
        :: act == TICKET_DO_PROVE && h_state[H(r, t, c)] == QUARANTINED -> on_page = PAGE_ON_PROOF
        :: act == TICKET_DO_RETIRE && h_state[H(r, t, c)] == QUARANTINED -> on_page = PAGE_ON_RETIRE
        :: (act == TICKET_DO_QUARANTINE || act == TICKET_DO_FREE) && h_state[H(r, t, c)] == HELD ->
            assert(p_state[P(r, d)] == PAGE_LANDED && p_holds[P(r, d)] > 0);
            p_holds[P(r, d)]--;
            h_state[H(r, t, c)] = NONE; h_page[H(r, t, c)] = 0
        :: else
        fi;
        if
        :: on_page != NOWHERE -> page_move(r, d, on_page)
        :: else
        fi;
        if
        :: on_page == NOWHERE
        :: on_page == PAGE_ON_DUPLICATE || on_page == PAGE_ON_PUBLISH ->
            if
            :: on_page == PAGE_ON_DUPLICATE -> d = found - 1 /* another was first: its page is held */
            :: else
            fi;
            h_state[H(r, t, c)] = HELD; h_page[H(r, t, c)] = d; p_holds[P(r, d)]++
        :: on_page == PAGE_ON_ABORT -> h_state[H(r, t, c)] = QUARANTINED
        :: else -> h_state[H(r, t, c)] = NONE; h_page[H(r, t, c)] = 0
        fi
    }
}

/* The event `on` happens to ticket t; what follows from it at once is in todo[T(r, t)]. */
inline ticket_move(r, t)
{
    idle = 0;
    if
    :: k_state[T(r, t)] == TICKET_HELD && on != TICKET_ON_CONSUMED -> excused[k_request[T(r, t)]] = true
    :: else
    fi;
    if
    :: on == TICKET_ON_FAIL && is_told -> notice(k_request[T(r, t)], k_attempt[T(r, t)], r, false)
    :: else
    fi;
    ticket_table(r, t, k_state[T(r, t)], on);
    act_on_chunks(r, t);
    if
    :: on == TICKET_ON_GRANT || on == TICKET_ON_QUEUE ->
        for (i : 0 .. SLOTS - 1) { /* Invariant 7: first come, first served. */
            assert(on != TICKET_ON_GRANT || k_state[T(r, i)] != TICKET_QUEUED ||
                   k_generation[T(r, i)] > k_generation[T(r, t)])
        }
        answer_alloc(r, t)
    :: on == TICKET_ON_COMMIT && is_final -> todo[T(r, t)] = TICKET_ON_FINAL
    :: on == TICKET_ON_FAIL && k_state[T(r, t)] == TICKET_REVOKED ->
        if
        :: holds_nothing(r, t) -> todo[T(r, t)] = TICKET_ON_EMPTY
        :: !holds_nothing(r, t) && k_connection[K(r, k_peer[T(r, t)])] == 0 -> todo[T(r, t)] = proof
        :: else -> say_revoke(r, t)
        fi
    :: else
    fi;
    if
    :: k_state[T(r, t)] == TICKET_ENDED ->
        assert(holds_nothing(r, t));
        if
        :: on == TICKET_ON_CONSUMED || on == TICKET_ON_EXPIRED ->
            r_complete[r] = r_complete[r] | (1 << k_generation[T(r, t)])
        :: else
        fi;
        k_state[T(r, t)] = NOWHERE; k_peer[T(r, t)] = 0; k_request[T(r, t)] = 0;
        k_attempt[T(r, t)] = 0; k_id[T(r, t)] = 0; k_generation[T(r, t)] = 0
    :: else
    fi
}

#define is_evictable(r, p) \
    (p_state[P(r, p)] == PAGE_LANDED && p_holds[P(r, p)] == 0 && p_pins[P(r, p)] == 0)

/* All or nothing: every chunk that has landed is held, a page reserved for every other. good: done.
 */
inline secure(r, t)
{
    n = 0; wanted = 0;
    for (c : 0 .. n_chunks_of(r, t) - 1) { /* what is there is held first, and not evicted */
        find_landed(r, key_of(k_request[T(r, t)], c));
        if
        :: found != 0 ->
            h_state[H(r, t, c)] = HELD; h_page[H(r, t, c)] = found - 1; p_holds[P(r, found - 1)]++
        :: else -> wanted++
        fi
    }
    for (p : 0 .. PAGES - 1) {
        if
        :: p_state[P(r, p)] == PAGE_FREE || is_evictable(r, p) -> n++
        :: else
        fi
    }
    good = n >= wanted; /* checked: atomic */
    c = 0;
    do
    :: c == n_chunks_of(r, t) -> break
    :: c < n_chunks_of(r, t) && good && h_state[H(r, t, c)] == NONE ->
        found = 0;
        for (p : 0 .. PAGES - 1) { /* free ones first */
            if
            :: p_state[P(r, p)] == PAGE_FREE -> found = 1 + p
            :: p_state[P(r, p)] != PAGE_FREE && found == 0 && is_evictable(r, p) -> found = 1 + p
            :: else
            fi
        }
        d = found - 1;
        on_page = (p_state[P(r, d)] == PAGE_FREE -> PAGE_ON_TAKE : PAGE_ON_EVICT);
        page_move(r, d, on_page);
        if
        :: on_page == PAGE_ON_TAKE ->
            p_owner[P(r, d)] = k_generation[T(r, t)];
            h_state[H(r, t, c)] = RESERVED; h_page[H(r, t, c)] = d; c++
        :: else
        fi
    :: c < n_chunks_of(r, t) && !good && h_state[H(r, t, c)] == HELD ->
        p_holds[P(r, h_page[H(r, t, c)])]--;
        h_state[H(r, t, c)] = NONE; h_page[H(r, t, c)] = 0; c++
    :: else -> c++
    od
}

/* Carries out todo[], then grants whoever has waited longest, while there are pages. */
inline run_tickets(r)
{
    u = 0;
    do
    :: u < SLOTS && todo[T(r, u)] != NOWHERE -> on = todo[T(r, u)]; todo[T(r, u)] = NOWHERE; ticket_move(r, u)
    :: u < SLOTS && todo[T(r, u)] == NOWHERE -> u++
    :: else ->
        t = SLOTS;
        for (i : 0 .. SLOTS - 1) {
            if
            :: (k_state[T(r, i)] == TICKET_QUEUED || k_state[T(r, i)] == TICKET_NEW) &&
               (t == SLOTS || k_generation[T(r, i)] < k_generation[T(r, t)]) -> t = i /* checked: queue */
            :: else
            fi
        }
        if
        :: t == SLOTS -> good = false
        :: else -> secure(r, t)
        fi;
        if
        :: good -> todo[T(r, t)] = TICKET_ON_GRANT; u = t
        :: else ->
            u = SLOTS;
            for (i : 0 .. SLOTS - 1) {
                if
                :: k_state[T(r, i)] == TICKET_NEW -> todo[T(r, i)] = TICKET_ON_QUEUE; u = i
                :: else
                fi
            }
        fi;
        if
        :: u == SLOTS -> break
        :: else
        fi
    od
}

inline empty_wire(r, epoch)
{
    do
    :: len(wire[W(r, epoch)]) > 0 -> wire[W(r, epoch)] ? _, _, _, _, _, _
    :: else -> break
    od
}

/* With a worker goes what is on its way to it; not what a sender here writes by itself. */
inline destroy_worker(r, epoch)
{
    if :: !LOCAL -> empty_wire(r, epoch) :: else fi
}

/* Everything of the sender with this epoch that still moves fails, and what is in quarantine is
 * settled by `proof`, if there is one. */
inline settle_peer(r, epoch)
{
    for (t : 0 .. SLOTS - 1) {
        if
        :: k_peer[T(r, t)] == epoch &&
           (k_state[T(r, t)] == TICKET_QUEUED || k_state[T(r, t)] == TICKET_GRANTED) ->
            todo[T(r, t)] = TICKET_ON_FAIL
        :: k_peer[T(r, t)] == epoch && k_state[T(r, t)] == TICKET_REVOKED -> todo[T(r, t)] = proof
        :: else
        fi
    }
}

inline lose_peer(r, epoch)
{
    destroy_worker(r, epoch); /* before a page is free */
    settle_peer(r, epoch);
    for (t : 0 .. SLOTS - 1) {
        if
        :: k_peer[T(r, t)] == epoch && k_state[T(r, t)] == TICKET_HELD -> k_peer[T(r, t)] = 0
        :: else
        fi
    }
    k_connection[K(r, epoch)] = 0; k_worker[K(r, epoch)] = 0; k_seen[K(r, epoch)] = 0;
    k_deaf[K(r, epoch)] = false;
    idle = 0
}

/* Its answers pile up: its requests fail, and it ages as if it said nothing. That proves nothing. */
inline deafen(r, e)
{
    k_deaf[K(r, e)] = true;
    proof = NOWHERE; settle_peer(r, e);
    idle = 0
}
#define may_deafen(r, e) \
    (!r_stopped[r] && (s_deaf[r] || s_stopped[r]) && len(to_sender[r]) == ROOM && \
     k_connection[K(r, e)] != 0 && !k_deaf[K(r, e)])
/* It may still take its writers out of the way. */
#define is_listened_to(r) (!k_deaf[K(r, from)] || type == CANCEL || type == DRAINED)

/* Where the writer may be stopped in a copy into mapped memory, silence proves nothing: it is lost
 * only when there is nothing of it that would need a proof. */
inline fall_silent(r, e)
{
    flag = false;
    for (u : 0 .. SLOTS - 1) {
        flag = flag || (k_peer[T(r, u)] == e &&
                        (k_state[T(r, u)] == TICKET_REVOKED || k_state[T(r, u)] == TICKET_GRANTED))
    }
    if
    :: !LOCAL || !flag -> proof = TICKET_ON_UNPLUGGED; lose_peer(r, e)
    :: else -> proof = NOWHERE; settle_peer(r, e) /* not what was proven of another */
    fi
}

/* ---- what the receiver hears ---- */

inline reply(kind, x1, x2, x3, x6)
{
    answer = kind; answer_1 = x1; answer_2 = x2; answer_3 = x3; answer_status = x6
}

/* The ticket of that name: t; SLOTS: none. */
inline find_named(r, ticket, generation)
{
    t = SLOTS;
    if
    :: ticket != 0 && k_state[T(r, ticket - 1)] != NOWHERE && k_peer[T(r, ticket - 1)] == from &&
       k_generation[T(r, ticket - 1)] == generation /* checked: generation */ -> t = ticket - 1
    :: else
    fi
}

inline receiver_alloc(r)
{
    t = SLOTS; e = SLOTS;
    for (u : 0 .. SLOTS - 1) {
        if
        :: k_state[T(r, u)] != NOWHERE && k_peer[T(r, u)] == from && k_id[T(r, u)] == b -> t = u
        :: k_state[T(r, u)] == NOWHERE -> e = u
        :: else
        fi
    }
    changes_something;
    if
    :: t != SLOTS && k_state[T(r, t)] != TICKET_REVOKED -> answer_alloc(r, t)
    :: t != SLOTS && k_state[T(r, t)] == TICKET_REVOKED -> reply(ALLOC_ANSWER, b, 0, 0, REFUSED)
    :: t == SLOTS && bit(k_seen[K(r, from)], b) -> reply(ALLOC_ANSWER, b, 0, 0, REFUSED)
    :: else ->
        assert(e != SLOTS);
        k_seen[K(r, from)] = k_seen[K(r, from)] | (1 << b);
        r_next[r]++;
        assert(r_next[r] < 15);
        k_state[T(r, e)] = TICKET_NEW; k_peer[T(r, e)] = from; k_request[T(r, e)] = a / 2;
        k_attempt[T(r, e)] = a % 2; k_id[T(r, e)] = b; k_generation[T(r, e)] = r_next[r]
    fi
}

inline receiver_commit(r)
{
    find_named(r, b, v);
    if :: t != SLOTS -> changes_something :: else fi;
    reply(COMMIT_ANSWER, a, b, v, STALE);
    if
    :: t == SLOTS && bit(r_complete[r], v) -> answer_status = COMPLETE
    :: t == SLOTS && !bit(r_complete[r], v)
    :: t != SLOTS && k_state[T(r, t)] == TICKET_REVOKED -> answer_status = REFUSED
    :: t != SLOTS && k_state[T(r, t)] == TICKET_HELD -> answer_status = COMPLETE
    :: t != SLOTS && k_state[T(r, t)] == TICKET_GRANTED ->
        mask = a % FINAL; is_final = a >= FINAL;
        answer_status = (is_final -> COMPLETE : OK);
        todo[T(r, t)] = TICKET_ON_COMMIT
    fi
}

/* CANCEL and DRAINED: that no write of this ticket can come any more. */
inline receiver_drained(r)
{
    find_named(r, b, v);
    if :: t != SLOTS -> changes_something :: else fi;
    if
    :: t != SLOTS && k_state[T(r, t)] == TICKET_HELD && a == 0 -> t = SLOTS /* only with the nonce */
    :: else
    fi;
    if
    :: t != SLOTS && k_state[T(r, t)] == TICKET_REVOKED -> todo[T(r, t)] = TICKET_ON_DRAINED
    :: t != SLOTS && type == CANCEL && k_state[T(r, t)] == TICKET_GRANTED -> todo[T(r, t)] = TICKET_ON_CANCEL
    :: t != SLOTS && type == CANCEL &&
       (k_state[T(r, t)] == TICKET_QUEUED || k_state[T(r, t)] == TICKET_HELD) ->
        is_told = false; todo[T(r, t)] = TICKET_ON_FAIL
    :: else
    fi;
    if
    :: type == CANCEL -> reply(BYE_ANSWER, v, 0, 0, OK)
    :: else
    fi
}

/* RELEASE of a request, from whomever. */
inline release(r, request, attempt)
{
    is_told = false;
    for (t : 0 .. SLOTS - 1) {
        if
        :: k_state[T(r, t)] != NOWHERE && k_request[T(r, t)] == request &&
           k_attempt[T(r, t)] == attempt ->
            if
            :: k_state[T(r, t)] == TICKET_HELD -> todo[T(r, t)] = TICKET_ON_CONSUMED
            :: k_state[T(r, t)] == TICKET_QUEUED || k_state[T(r, t)] == TICKET_GRANTED ->
                todo[T(r, t)] = TICKET_ON_FAIL
            :: else
            fi
        :: else
        fi
    }
}

inline receiver_init(r)
{
    if
    :: k_connection[K(r, from)] == 0 -> idle = 0
    :: k_connection[K(r, from)] != 0 && a > k_connection[K(r, from)] ->
        /* The old endpoint is gone; with its worker, so is all that it still had on its way. */
        destroy_worker(r, from); /* checked: worker */
        proof = TICKET_ON_UNPLUGGED;
        settle_peer(r, from);
        k_connection[K(r, from)] = 0; /* so that what fails now is settled, too; carry_out() */
        idle = 0
    :: else
    fi;
    k_deaf[K(r, from)] = false; /* checked: reads */
    reply(INIT_ANSWER, a, 0, 0, OK)
}

inline receiver_beat(r)
{
    g = a; w = b;
    for (t : 0 .. SLOTS - 1) {
        if
        :: k_state[T(r, t)] != NOWHERE && k_peer[T(r, t)] == from ->
            if :: k_generation[T(r, t)] == a -> g = 0 :: else fi;
            if :: k_generation[T(r, t)] == b -> w = 0 :: else fi
        :: else
        fi
    }
    reply(BEAT_ANSWER, v, g, w, OK)
}

inline receiver_hears(r)
{
    is_foreign = type != INIT && type != RELEASE &&
                 (k_connection[K(r, from)] == 0 || meant != r_epoch[r]);
    if
    :: type == INIT -> receiver_init(r)
    :: type == RELEASE -> release(r, a / 2, a % 2); reply(BYE_ANSWER, 0, 0, 0, OK)
    :: type != INIT && type != RELEASE &&
       !(is_listened_to(r) && k_connection[K(r, from)] != 0 && meant == r_epoch[r]) -> /* checked: epoch */
        if
        :: type == DRAINED
        :: type == MEMREG -> reply(MEMREG_ANSWER, a, 0, 0, STALE)
        :: type == ALLOC -> reply(ALLOC_ANSWER, b, 0, 0, STALE)
        :: type == COMMIT -> reply(COMMIT_ANSWER, a, b, v, STALE)
        :: type == BEAT -> reply(BEAT_ANSWER, v, 0, 0, STALE)
        :: else -> reply(BYE_ANSWER, v, 0, 0, STALE)
        fi
    :: else ->
        if
        :: type == MEMREG -> reply(MEMREG_ANSWER, a, 0, 0, OK)
        :: type == ALLOC -> receiver_alloc(r)
        :: type == COMMIT -> receiver_commit(r)
        :: type == CANCEL || type == DRAINED -> receiver_drained(r)
        :: else -> receiver_beat(r)
        fi
    fi;
    answers = r
}

/* What its worker brings: a put, or a COMMIT behind puts. */
inline worker_hears(r, epoch)
{
    wire[W(r, epoch)] ? type, m, a, b, v, w; /* worker, as the message has it, epoch */
    from = w;
    flag = LOCAL || k_worker[K(r, from)] == m;
    is_foreign = !flag;
    if
    :: type == WRITE && flag ->
        for (u : 0 .. 1) { /* the sender sees that it has arrived */
            if
            :: t_generation[X(r, u)] == v && t_out[X(r, u)] > 0 && s_epoch[r] == w &&
               s_worker[r] == m -> t_out[X(r, u)]--
            :: else
            fi
        }
        check_write(r, a, v);
        if
        :: flag && p_state[P(r, p)] == PAGE_RESERVED -> p_key[P(r, p)] = b
        :: else
        fi
    :: type == COMMIT && flag && !k_deaf[K(r, from)] -> receiver_commit(r)
    :: else
    fi;
    answers = r
}
