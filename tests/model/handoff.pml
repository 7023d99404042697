/* SPDX-License-Identifier: Apache-2.0 */
/* Sender, receiver and proxy of docs/protocol.md, for Spin. README.md says what is in it, what is
 * left out, and how to run it; run.sh gives it its configuration:
 *
 *   RANKS    1 or 2 pairs of a sender and a receiver rank. Request 0 is moved by all ranks, request
 *            1 by rank 0 alone.
 *   PAGES    of each receiver's pool
 *   N0, N1   chunks of the requests, 1 or 2; the first chunk of both is the same. N1 0: no request 1
 *   BESIDE   1: request 0 has one more rank, of which nothing is said but what the proxy hears
 *   MAPPED   1: written by copies into mapped memory. 0: by puts: which travel, or, LOCAL, which the
 *            sender's side carries out, as CMA does, whatever becomes of the receiver's worker
 *   BEHIND   1: COMMIT goes behind the puts. 0: after a flush, through the socket
 *   LOCAL    1: both ends watch each other's process
 *   ATTEMPTS that the proxy makes of a request
 *   FAULTS   that may happen in a run
 *   LATE     1: one fault is that a message is kept, and comes at any later time or never
 *   CLINGS   1: one is that an endpoint that is closed by force does not end
 *   DEAF     1: one is that a sender does not read what it is told, and speaks on
 *   MUTE     1: one is that a sender never says DRAINED, and speaks of all else
 *
 * One process does what happens by itself; it ends when nothing can happen any more and all timers
 * have run out. The other lets faults happen. Every step is one handler of the C code, so what may
 * interleave is what may interleave there. Time passes only when nothing else can happen; a timer
 * that is early is a fault. */
#ifndef CLINGS
#define CLINGS 0
#endif
#ifndef DEAF
#define DEAF 0
#endif
#ifndef MUTE
#define MUTE 0
#endif

#define SLOTS (3 + ATTEMPTS) /* tickets of a receiver at once, 4 or 5 */
#define ROOM 3  /* messages in a channel: what does not fit is lost, as with ZeroMQ */
#define LIVES (2 + FAULTS) /* epochs of a sender, from 1 */

#define X(r, x) ((r) * 2 + (x))              /* transfer x of rank r */
#define C(r, x, c) ((r) * 4 + (x) * 2 + (c)) /* its chunk c */
#define T(r, t) ((r) * SLOTS + (t))
#define H(r, t, c) ((r) * SLOTS * 2 + (t) * 2 + (c)) /* chunk c of ticket t */
#define P(r, p) ((r) * PAGES + (p))
#define K(r, e) ((r) * LIVES + (e)) /* the peer whose epoch is e */
#define W(r, e) ((r) * 2 + (e) % 2) /* its wire */

#define is_moved_by(x, r) ((x) == 0 || ((r) == 0 && N1 > 0))
#define n_chunks(x) ((x) == 0 -> N0 : N1)
#define key_of(x, c) ((x) == 0 -> 1 + (c) : ((c) == 0 -> 1 : 3))
#define full_mask(x) ((1 << n_chunks(x)) - 1)
#define bit(mask, i) (((mask) >> (i)) & 1)

/* Chunks at the sender: */
#define IDLE 0
#define POSTED 1
#define LANDED 2
#define TOLD 3 /* named by a COMMIT */
#define PRESENT 4
/* Chunks of a ticket: */
#define NONE 0
#define RESERVED 1
#define HELD 2
#define QUARANTINED 3

/* The guards of the tables; what they do is in the function of each machine that moves it. */
#define PEER_IF_NONE(r) true
#define PEER_IF_ENDPOINT(r) s_endpoint[r]
#define PEER_IF_NO_ENDPOINT(r) !s_endpoint[r]
#define XFER_IF_NONE(r, x) true
#define is_told(r, x, c) (t_chunk[C(r, x, c)] == TOLD || t_chunk[C(r, x, c)] == PRESENT)
#define XFER_IF_COMPLETE(r, x) (is_told(r, x, 0) && (n_chunks(x) == 1 || is_told(r, x, 1)))
#define XFER_IF_QUIET(r, x) (t_out[X(r, x)] == 0 && s_copies[r] == 0)
#define holds_nothing(r, t) (h_state[H(r, t, 0)] == NONE && h_state[H(r, t, 1)] == NONE)
#define n_chunks_of(r, t) n_chunks(k_request[T(r, t)])
#define TICKET_IF_NONE(r, t) true
#define TICKET_IF_SECURED(r, t) \
    (h_state[H(r, t, 0)] != NONE && (n_chunks_of(r, t) == 1 || h_state[H(r, t, 1)] != NONE))
#define is_whole(r, t) \
    (h_state[H(r, t, 0)] == HELD && (n_chunks_of(r, t) == 1 || h_state[H(r, t, 1)] == HELD))
#define TICKET_IF_WHOLE(r, t) is_whole(r, t)
#define TICKET_IF_NOTHING(r, t) holds_nothing(r, t)
#define PAGE_IF_NONE(r, p) true
#define PAGE_IF_UNCLAIMED(r, p) (p_holds[P(r, p)] == 0 && p_pins[P(r, p)] == 0)

#include "states.pml"

mtype = { INIT, MEMREG, ALLOC, COMMIT, CANCEL, RELEASE, DRAINED, BEAT, WRITE,
          INIT_ANSWER, MEMREG_ANSWER, ALLOC_ANSWER, COMMIT_ANSWER, BYE_ANSWER, BEAT_ANSWER, REVOKE }

/* type; epoch of who speaks; epoch that it is meant for; then, by type:
 *   INIT, INIT_ANSWER, MEMREG, MEMREG_ANSWER: number of the connection; INIT_ANSWER: and the worker
 *   ALLOC: request, id. RELEASE: request
 *   COMMIT: mask of chunks and FINAL, ticket, generation
 *   CANCEL, DRAINED: 1 if it has the nonce, ticket, generation
 *   BEAT: generations of the tickets of requests 0 and 1, number of the connection */
chan to_receiver[RANKS] = [ROOM] of { mtype, byte, byte, byte, byte, byte };
/* and, last, a status:
 *   ALLOC_ANSWER: id, ticket, generation, pages of chunks 0 and 1, outcome
 *   COMMIT_ANSWER: mask as asked, ticket, generation, -, -, status
 *   REVOKE: id of the ALLOC, ticket, generation
 *   BEAT_ANSWER: number of the connection as asked (0: unasked), unknown generations 0 and 1 */
chan to_sender[RANKS] = [ROOM] of { mtype, byte, byte, byte, byte, byte, byte, byte, byte };
/* Worker that it is sent to, then WRITE: page, key, generation; COMMIT: mask, ticket, generation; then the epoch. */
chan wire[RANKS * 2] = [ROOM] of { mtype, byte, byte, byte, byte, byte };
chan notices = [ROOM] of { byte, byte, byte, bool }; /* request, attempt, rank, ready */
#if LATE
/* One message each way of rank 0 that has left its channel and has not come yet. */
chan late_to_receiver = [1] of { mtype, byte, byte, byte, byte, byte };
chan late_to_sender = [1] of { mtype, byte, byte, byte, byte, byte, byte, byte, byte };
#endif

#define FINAL 4
#define ASKED 8 /* a COMMIT is under way */
#define OK 1
#define QUEUED 2
#define REFUSED 3
#define STALE 4
#define COMPLETE 5

/* A page as a sender knows it: its number and which memory of that number, for a region that was
 * replaced lies elsewhere. 0: none. */
#define name_page(p, memory) (1 + (p) + 4 * (memory))
#define page_of(name) (((name) - 1) % 4)
#define memory_of(name) (((name) - 1) / 4)

/* The sender. */
byte s_epoch[RANKS] = 1;
mtype s_peer[RANKS] = PEER_DOWN;
byte s_knows[RANKS];          /* epoch of the receiver; 0: none */
byte s_connection[RANKS] = 1; /* number of the next endpoint */
bool s_endpoint[RANKS];
byte s_worker[RANKS]; /* of the receiver, at the other end */
bool s_owes[RANKS];    /* the receiver must hear that an endpoint is gone */
bool s_stopped[RANKS]; /* by a signal, perhaps in the middle of a copy */
bool s_stalls[RANKS];  /* its engine computes and computes: no chunk comes */
bool s_clings[RANKS];  /* the endpoint that it closes does not end */
bool s_deaf[RANKS];    /* it does not read what it is told */
bool s_mute[RANKS];    /* copies of transfers that fail do not end while there is the connection */
byte s_copies[RANKS];  /* 1 + chunk that is being copied */
byte s_ids[RANKS];     /* of ALLOCs */
mtype t_state[RANKS * 2] = NOWHERE;
byte t_attempt[RANKS * 2];
byte t_id[RANKS * 2]; /* of the ALLOC under way */
byte t_ticket[RANKS * 2], t_generation[RANKS * 2]; /* 0: none */
byte t_commit[RANKS * 2];                          /* under way: ASKED, FINAL, mask */
bool t_revoked[RANKS * 2], t_cut[RANKS * 2];       /* cut: writes ended with their endpoint */
bool t_is_told[RANKS * 2];                         /* the proxy, and the user, of its end */
byte t_out[RANKS * 2];                             /* puts on the wire */
byte t_chunk[RANKS * 4], t_page[RANKS * 4];
mtype t_bye[RANKS * 2] = NOWHERE; /* CANCEL or RELEASE without an answer */
#define NO_NONCE 8                /* added to the ticket: it was queued */
byte t_bye_ticket[RANKS * 2], t_bye_generation[RANKS * 2];

/* The receiver. */
byte r_epoch[RANKS] = 1;
byte r_next[RANKS];            /* the last generation given */
bool r_stopped[RANKS];
byte r_workers[RANKS];         /* that it has made; each has another name */
short r_complete[RANKS];       /* bit: this generation ended well */
byte k_connection[RANKS * LIVES]; /* 0: this epoch is not known */
byte k_worker[RANKS * LIVES];     /* made for it */
bool k_deaf[RANKS * LIVES];       /* does not read: not listened to until it says INIT */
short k_seen[RANKS * LIVES];      /* ids of ALLOCs */
mtype k_state[RANKS * SLOTS] = NOWHERE;
byte k_peer[RANKS * SLOTS], k_request[RANKS * SLOTS], k_attempt[RANKS * SLOTS];
byte k_id[RANKS * SLOTS], k_generation[RANKS * SLOTS];
byte h_state[RANKS * SLOTS * 2], h_page[RANKS * SLOTS * 2];
mtype p_state[RANKS * PAGES] = PAGE_FREE;
byte p_memory[RANKS * PAGES], p_owner[RANKS * PAGES]; /* generation that may write it */
byte p_key[RANKS * PAGES];                            /* whose bytes are in it; 0: nobody's, whole */
byte p_holds[RANKS * PAGES], p_pins[RANKS * PAGES];

/* The proxy, one entry per request, and decode. */
#define WAITS 0
#define READY 1
#define FAILED 2
#define SERVED 3
byte q_state[2], q_attempt[2], q_ranks[2];
byte q_release[RANKS * 2]; /* 1 + attempt: RELEASE on its way */
byte q_lost[RANKS * 2];    /* 1 + attempt: its prefill engine died, which the proxy will see */
byte d_state[RANKS * 2];   /* 1: pinned, 2: done */
byte d_page[RANKS * 4];
bool excused[2]; /* decode may miss chunks: a hold ended early, or the receiver restarted */
bool is_stuck[RANKS]; /* the wires */

byte o_state;     /* the rank beside */
#define UNTOLD 0
#define SLOW 1 /* takes its time */
#define TOLD_ALL 2
bool is_untold;   /* a notice to the proxy was lost */
byte idle;        /* timers that have run out since something last moved */
byte n_faults;
bool is_hard;     /* a fault that may cost an attempt */
bool is_over;

/* Of one step. The checker that Spin makes has variables of the short names itself. */
#define a v_a
#define b v_b
#define c v_c
#define d v_d
#define e v_e
#define g v_g
#define i v_i
#define j v_j
#define m v_m
#define n v_n
#define p v_p
#define t v_t
#define u v_u
#define v v_v
#define w v_w
#define x v_x
#define y v_y
#define mask v_mask
#define found v_found
#define status v_status
#define type v_type
#define from v_from
hidden byte c, d, e, g, i, j, n, p, t, u, x, y;
hidden mtype act, on, on_page, type, answer = NOWHERE, proof = NOWHERE;
hidden mtype todo[RANKS * SLOTS] = NOWHERE; /* what happens to tickets */
hidden mtype next[RANKS * 2] = NOWHERE;     /* and to transfers */
hidden byte page_0, page_1, from, meant, a, b, v, w, m, status, mask, found, wanted;
hidden byte is_foreign; /* what is heard is of another life or connection */
#define changes_something assert(!is_foreign) /* Invariant 5: it changes nothing. */
hidden byte flag, forgot, good, is_final, is_told = true, answer_1, answer_2, answer_3, answer_status, answers, greets;

#include "receiver.pml"
#include "sender.pml"
#include "proxy.pml"
#include "time.pml"
#include "faults.pml"
