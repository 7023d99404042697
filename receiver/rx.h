/* SPDX-License-Identifier: Apache-2.0 */
/* The receiver's state machine (docs/protocol.md), without sockets, threads or sleep: frames,
 * commands and time go in, frames, notices and events come out through bt_rx_out. receiver.c puts
 * it on ZeroMQ and a thread; tests and fuzzers drive it by hand.
 *
 *   bt_rx ─┬─ peers ───┬─ worker (one per peer: destroying it is proof), pidfd
 *          │           └─ tickets ── grant (store)
 *          ├─ queue of tickets that wait for pages, first come first served
 *          ├─ regions ── memory
 *          └─ ended requests, remembered for STATUS
 *
 * Thread rule: owner thread, for everything but what takes `lock` itself and says so: lookups,
 * pins, stats and commands come from any thread. The owner holds the lock while it works, and lets
 * it go only to hash pages that no one else may touch. */
#ifndef BT_RECEIVER_RX_H
#define BT_RECEIVER_RX_H
#include <baton/receiver.h>

#include "core/clock.h"
#include "core/doorbell.h"
#include "core/framering.h"
#include "core/process.h"
#include "core/states.h"
#include "core/tracelog.h"
#include "kernels/sample.h"
#include "store/store.h"
#include "transport/transport.h"
#include "wire/messages.h"

#include <pthread.h>

enum {
    BT_RX_ROUTE_BYTES_MAX = 255,
    BT_RX_USER_BYTES = 41,             /* a key in Z85 */
    BT_RX_PEERS_PER_ROUTE = 8,         /* that one connection may speak for */
    BT_RX_QUEUED_CHUNKS_MAX = 1 << 20, /* of all requests that wait: their keys are memory */
    BT_RX_ID_WINDOW = 4096, /* of request ids of a peer that are told apart when repeated */
    BT_RX_ENDED_MAX = 4096,
    BT_RX_COMMANDS_MAX = 4096,
    BT_RX_SCRATCH_BYTES = 1 << 20,
    BT_RX_MIN_GBPS_MAX = 1000000,
    BT_RX_RING_IN_BYTES = 256 << 10,  /* an ALLOC of 4,096 keys and more */
    BT_RX_RING_OUT_BYTES = 128 << 10, /* its answer, had every page a run of its own */
    BT_RX_RING_FRAMES = 64,           /* of one peer in a turn */
};
#define BT_RX_ENDED_NS (60 * BT_NS_PER_S)
#define BT_RX_RETIRE_NS (60 * BT_NS_PER_S)

typedef struct bt_rx bt_rx;
typedef struct bt_rx_peer bt_rx_peer;
typedef struct bt_rx_ticket bt_rx_ticket;

typedef enum { BT_RX_INIT_PORT, BT_RX_ALLOC_PORT, BT_RX_N_PORTS } bt_rx_port;

/* Where a peer's frames come from on a port: a ROUTER's routing id, and the public key that it was
 * let in with ("": there are no keys). n 0: not heard there yet. */
typedef struct {
    uint8_t n;
    uint8_t bytes[BT_RX_ROUTE_BYTES_MAX];
    char user[BT_RX_USER_BYTES];
} bt_rx_route;

/* What comes out. Called by the owner, with the lock held; must not call back. */
typedef struct {
    void (*send)(void *ctx, bt_rx_port port, const bt_rx_route *route, const void *frame,
                 size_t bytes);
    void (*notice)(void *ctx, const char *address, const char *request, baton_status status,
                   const char *text);
    void (*event)(void *ctx, const baton_receiver_event *event);
    /* A peer's worker or pidfd (-1: none) came or goes, for the shell's poll set. */
    void (*peer_fds)(void *ctx, bt_rx_peer *peer, int worker_fd, int pidfd, bool added);
    /* Wakes whoever has this doorbell; false: nobody, as far as can be told. NULL: no rings. */
    bool (*ring)(void *ctx, bt_blob doorbell);
    /* As send; false: nobody is connected there any more. NULL: cannot be told. */
    bool (*reach)(void *ctx, bt_rx_port port, const bt_rx_route *route, const void *frame,
                  size_t bytes);
    bt_blob doorbell;  /* that wakes us; borrowed; empty: no rings */
    bt_doorbell *bell; /* rung when a GPU has done something; NULL: nobody sleeps */
    void *ctx;
} bt_rx_out;

struct bt_rx_ticket {
    bt_rx_ticket *prev, *next; /* all tickets, oldest first */
    bt_rx_ticket *queue_next;  /* while QUEUED */
    bt_rx_ticket *hash_next;   /* same bucket by id */
    bt_rx_ticket_state state;  /* core/states.def */
    uint64_t id;
    uint32_t generation;
    uint8_t nonce[BT_NONCE_BYTES];
    bt_rx_peer *peer;  /* NULL when the peer is gone; only HELD tickets outlive it */
    uint64_t alloc_id; /* id of the ALLOC, to answer it again */
    bt_grant *grant;   /* NULL while QUEUED and when nothing is left of it */
    baton_key *keys;   /* [n_chunks] while QUEUED, then NULL: the grant has them */
    baton_key last_key;
    uint32_t n_chunks, last_tokens, present_chunks, sent_chunks;
    uint64_t n_tokens; /* of the whole prompt */
    uint64_t sent_bytes;
    uint64_t deadline_ns; /* of the request */
    uint64_t lease_ns;    /* HELD: when the hold runs out */
    uint64_t granted_ns, revoked_ns;
    uint64_t named_ns;   /* QUEUED, GRANTED: when its sender last spoke of it */
    baton_status reason; /* REVOKED */
    char reason_text[BATON_EVENT_TEXT_BYTES];
    /* For rxadmin.c; 0: not yet. */
    uint64_t alloc_ns, first_commit_ns, last_commit_ns, looked_up_ns, pinned_ns;
    uint64_t pin;       /* number of the pin that ended the hold */
    bt_samples samples; /* what a sampled digest looks at; made by the first COMMIT */
    bt_traceparent trace;
    char request[BT_REQUEST_ID_BYTES_MAX + 1];
    char notice[BT_NOTICE_ADDRESS_BYTES_MAX + 1];
};

struct bt_rx_peer {
    bt_rx_peer *next;
    uint64_t epoch;
    uint32_t connection; /* of the sender's endpoint that `worker` was made for */
    bt_process process;
    int pidfd;        /* -1: cannot be watched */
    bool is_probe;    /* it only measures: ALLOC is refused */
    bool has_tickets; /* of any state; only find_idle's */
    bool same_host;   /* it may write mapped, so only DRAINED or its exit is proof */
    bool is_silent;   /* its tickets are revoked; kept for the proof it may still bring */
    bool is_deaf;     /* does not read; as silent, whatever it says, until it says INIT */
    uint32_t digests; /* BT_DIGESTS_* as agreed */
    bt_worker *worker;
    bool worker_is_due;     /* the shell's flag in its poll set: its descriptor was readable */
    bool has_exited;        /* so is this: the pidfd was */
    bool is_fed;            /* its last COMMIT came behind its data, not by a ring */
    bt_memory *ring_memory; /* of the two rings below, made for this connection; NULL: none */
    bt_framering from_sender, to_sender;
    uint8_t doorbell[BT_DOORBELL_BYTES_MAX]; /* [doorbell_bytes] the sender's */
    size_t doorbell_bytes;
    bt_rx_route routes[BT_RX_N_PORTS];
    uint64_t last_heard_ns;
    uint64_t last_revoke_ns;
    uint64_t last_reach_ns; /* when it was looked whether its connection is still there */
    uint64_t newest_id;     /* highest request id seen */
    uint64_t
        seen_ids[BT_RX_ID_WINDOW / 64]; /* bit id % window: seen, for ids above newest - window */
    uint32_t n_revoked;                 /* of its tickets are REVOKED */
    uint32_t n_queued;                  /* and QUEUED */
    char name[BT_PEER_NAME_BYTES_MAX + 1];
};

typedef struct {
    bool used;
    bool is_emptied; /* replaced and out of the store; its memory stays mapped until the end */
    bool is_stuck;   /* could not be replaced, which was logged */
    uint32_t generation, n_pages;
    bt_memory *memory;              /* what peers write */
    void *pages;                    /* what decode reads: memory's base, or device memory of ours */
    struct bt_rx_arrival *arrivals; /* [n_pages] where a GPU has a part in landing: rxdevice.h */
    uint64_t *digests;              /* [n_pages] pinned; NULL: the CPU takes them */
} bt_rx_region;

/* A process that may still write retired pages: its exit is the proof that they lack. */
typedef struct {
    int pidfd;
    uint64_t regions; /* bit r: pages of region r */
} bt_rx_debtor;

typedef struct {
    char request[BT_REQUEST_ID_BYTES_MAX + 1];
    bt_request_state state;
    baton_status reason;
    uint32_t n_chunks, landed;
    uint64_t ended_ns;
    uint64_t peer_epoch, alloc_id; /* 0: of a peer that had gone before */
    uint64_t ticket;
    uint32_t generation;
    uint8_t nonce[BT_NONCE_BYTES];
} bt_rx_ended;

/* From other threads to the owner. */
typedef enum { BT_RX_CONSUMED, BT_RX_RELEASE, BT_RX_UNPINNED } bt_rx_command_kind;
typedef struct {
    bt_rx_command_kind kind;
    uint64_t
        n_tokens[2]; /* CONSUMED: a hold of so many tokens ending in keys[i] may end; 0: none */
    baton_key keys[2];
    uint64_t pin; /* CONSUMED, UNPINNED: its number */
    uint64_t looked_up_ns, at_ns;
    char request[BT_REQUEST_ID_BYTES_MAX + 1]; /* RELEASE */
} bt_rx_command;

struct bt_rx {
    pthread_mutex_t lock;
    baton_receiver_options options; /* defaults filled in; strings borrowed from the shell */
    bt_process self;
    uint64_t epoch;
    baton_key_chain root;
    uint64_t token_bytes, page_bytes;
    const bt_clock *clock;
    bt_transport *transport;
    bt_store *store;
    bt_rx_out out;
    bt_packwriter writer; /* of the frame being sent */
    uint8_t
        *ring_frame; /* [BT_RX_RING_IN_BYTES] the frame that came by a ring; made for the first */
    bt_rx_peer *ring_peer; /* whose ring it came by: its answer goes the same way */

    bt_rx_region regions[BT_STORE_REGIONS_MAX];
    uint32_t next_generation;
    bt_rx_debtor debtors[BT_STORE_REGIONS_MAX]; /* [n_debtors] */
    uint32_t n_debtors;
    uint64_t owed_for_ever; /* bit r: of region r, by those who cannot be watched */
    uint64_t debtors_looked_ns;
    bt_memory *scratch; /* any connected sender may overwrite it, to measure; never a page */

    bt_rx_peer *peers;
    uint32_t n_peers;
    bt_rx_ticket *first_ticket, *last_ticket;
    bt_rx_ticket **by_id; /* [BT_RX_BUCKETS] */
    uint32_t n_tickets, max_tickets;
    uint64_t next_ticket;
    bt_rx_ticket *queue_first, *queue_last;
    uint32_t n_queued, n_held;
    uint64_t n_queued_chunks;
    uint64_t refusal_logged_ns; /* when a refused INIT was last worth a line; 0: never */
    uint64_t deaf_logged_ns;    /* and a peer that does not read */
    bt_rx_ended *ended;         /* [BT_RX_ENDED_MAX] ring */
    uint32_t ended_next;

    bt_rx_command *commands; /* [BT_RX_COMMANDS_MAX] */
    uint32_t n_commands;
    baton_pin *pins; /* list, see rxlookup.c */
    uint32_t n_pins;
    uint64_t last_pin;           /* number of the youngest */
    bt_tracelog *traces;         /* of requests that have ended; NULL: nobody asks */
    uint32_t n_leaving;          /* of them wait only for a GPU */
    struct bt_rx_device *device; /* NULL: the pool is in host memory */
    bool gpu_hangs;              /* at the end: what it reads or writes is not freed */

    baton_receiver_stats stats; /* what the store does not count */
};

enum { BT_RX_BUCKETS = 1024 };

/* Life, rx.c. options must have its defaults filled in (bt_rx_defaults); transport is borrowed. */
void bt_rx_defaults(baton_receiver_options *options);
baton_status bt_rx_create(const baton_receiver_options *options, bt_transport *transport,
                          const bt_rx_out *out, bt_rx **rx_p);
void bt_rx_destroy(bt_rx *rx); /* All pins must be gone. NULL is allowed. */

/* In, rx.c; each takes the lock. handle: one frame from a port. progress: moves the workers, runs
 * commands and, when due, the reaper; returns when it wants to run again at the latest. */
void bt_rx_handle(bt_rx *rx, bt_rx_port port, const bt_rx_route *route, const void *frame,
                  size_t bytes);
uint64_t bt_rx_progress(bt_rx *rx);
void bt_rx_peer_exited(bt_rx *rx, bt_rx_peer *peer); /* its pidfd is readable */
/* Every worker and ring is armed; false: progress again before sleeping. */
bool bt_rx_arm(bt_rx *rx);
/* Awake again, or not asleep after all: rings need no doorbell. */
void bt_rx_disarm(bt_rx *rx);
/* Handles COMMITs and other requests that wait in rings or at the workers of fed peers, ahead of a
 * whole progress. False: there were none. */
bool bt_rx_look(bt_rx *rx);

/* A frame that came behind the peer's data, or with it; lock held. Only COMMIT comes there: its
 * nonce says who speaks, on a path that has no authentication of its own. The answer takes the
 * socket. */
void bt_rx_handle_behind(bt_rx *rx, bt_rx_peer *peer, const void *frame, size_t bytes);

/* Out, rx.c; lock held. */
void bt_rx_send(bt_rx *rx, bt_rx_port port, const bt_rx_route *route, bt_message *message);
/* Answers `request` with a status and the last error's text; a type's own fields are not sent. */
void bt_rx_answer_failure(bt_rx *rx, bt_rx_port port, const bt_rx_route *route,
                          const bt_message *request, baton_status status);
void bt_rx_answer(bt_rx *rx, bt_rx_port port, const bt_rx_route *route, const bt_message *request,
                  bt_message *answer);

/* A frame's message of the alloc port; lock held. */
void bt_rx_on_alloc_port(bt_rx *rx, const bt_rx_route *route, const bt_message *message);

/* Control rings in shared memory, rxring.c; lock held. A request that came by a ring is answered by
 * the ring; whatever else there is to say, or does not fit, goes the other way, as does everything
 * that is said again: a ring may fail at any time without harm. */
/* What MEMREG_ANSWER says: the rings of this connection, made now if the sender wants some and can
 * be woken. */
void bt_rx_ring_offer(bt_rx *rx, bt_rx_peer *peer, bt_blob doorbell, bt_msg_ring *offer);
void bt_rx_ring_close(bt_rx_peer *peer);
/* True: sent by the ring. */
bool bt_rx_ring_send(bt_rx *rx, const bt_rx_route *route);
/* The sender has taken the offer: something of its has come that way. Otherwise it may not be able
 * to map the rings, and nobody would read what is said there unasked. */
bool bt_rx_ring_is_used(const bt_rx_peer *peer);
void bt_rx_ring_serve(bt_rx *rx, bt_rx_peer *peer); /* handles what waits there */
/* All rings are empty, and the next frame in one wakes us; false: there is one already. */
bool bt_rx_rings_sleep(bt_rx *rx);
bool bt_rx_rings_wait(const bt_rx *rx); /* a frame is in one of them */

/* Peers, rxpeers.c; lock held. */
void bt_rx_on_init(bt_rx *rx, const bt_rx_route *route, const bt_message *message);
/* Says why, the last error, to the sender and in the log. */
void bt_rx_refuse_init(bt_rx *rx, bt_rx_port port, const bt_rx_route *route,
                       const bt_message *message, baton_status status);
void bt_rx_on_memreg(bt_rx *rx, const bt_rx_route *route, const bt_message *message);
void bt_rx_on_heartbeat(bt_rx *rx, bt_rx_peer *peer, const bt_message *message);
/* The peer that a message is from: known, and meant for this epoch. Otherwise NULL, answered (where
 * the type has an answer) and counted. */
bt_rx_peer *bt_rx_sender(bt_rx *rx, bt_rx_port port, const bt_rx_route *route,
                         const bt_message *message);
/* Nobody reads what is said to this connection. Takes the lock. */
void bt_rx_deaf(bt_rx *rx, bt_rx_port port, const bt_rx_route *route);
/* It has given a sign of life. */
void bt_rx_peer_heard(bt_rx *rx, bt_rx_peer *peer);
void bt_rx_peers_tick(bt_rx *rx, uint64_t now_ns);
/* It has exited, gone silent beyond doubt, or not said DRAINED for too long: revokes its tickets,
 * destroys its worker, and settles what that proves. `exited`: mapped writes cannot come any more
 * either. */
void bt_rx_peer_lost(bt_rx *rx, bt_rx_peer *peer, baton_status reason, bool exited);
/* Marks a request id as seen; true when it had been, or is too old to tell. */
bool bt_rx_seen_before(bt_rx_peer *peer, uint64_t id);

/* Tickets, rxtickets.c; lock held. */
void bt_rx_on_alloc(bt_rx *rx, bt_rx_peer *peer, const bt_message *message);
void bt_rx_on_cancel(bt_rx *rx, bt_rx_peer *peer, const bt_message *message);
void bt_rx_on_drained(bt_rx *rx, bt_rx_peer *peer, const bt_message *message);
bt_rx_ticket *bt_rx_ticket_find(bt_rx *rx, uint64_t id);
/* As find, and the name fits: peer, generation, nonce. NULL is counted as stale. */
bt_rx_ticket *bt_rx_ticket_named(bt_rx *rx, const bt_rx_peer *peer, const bt_ticket_name *name);
/* As named, for a sender that takes itself out: without a nonce it speaks of a ticket whose grant
 * it has not seen, which it therefore never wrote for. */
bt_rx_ticket *bt_rx_ticket_disowned(bt_rx *rx, const bt_rx_peer *peer, const bt_ticket_name *name);
/* The only way that a ticket changes its state, and what that means for its grant. False: the event
 * is not legal there, or its guard fails; that is counted, and changes nothing. */
bool bt_rx_ticket_move(bt_rx *rx, bt_rx_ticket *ticket, bt_rx_ticket_change event);
/* Fails a ticket in any live state: QUEUED and HELD end, GRANTED is revoked. */
void bt_rx_ticket_fail(bt_rx *rx, bt_rx_ticket *ticket, baton_status reason, const char *text);
/* Proof or none, for a REVOKED ticket; ends it. */
void bt_rx_ticket_settle(bt_rx *rx, bt_rx_ticket *ticket, bt_rx_ticket_change proof);
/* The event ends the ticket: remembers the request as `state`, and frees the ticket. */
void bt_rx_ticket_end(bt_rx *rx, bt_rx_ticket *ticket, bt_rx_ticket_change event,
                      bt_request_state state, baton_status reason);
void bt_rx_tickets_tick(bt_rx *rx, uint64_t now_ns);
/* Grants queued tickets, in order, while there are pages. */
void bt_rx_pump_queue(bt_rx *rx);

/* Commit, rxcommit.c; lock held. */
void bt_rx_on_commit(bt_rx *rx, bt_rx_peer *peer, const bt_message *message);

/* Requests by name, rxrequests.c; lock held. */
void bt_rx_on_release(bt_rx *rx, const bt_rx_route *route, const bt_message *message);
void bt_rx_on_status(bt_rx *rx, const bt_rx_route *route, const bt_message *message);
uint32_t bt_rx_release_request(bt_rx *rx, const char *request, size_t bytes);
void bt_rx_consume(bt_rx *rx, const bt_rx_command *command);
/* The ticket was complete and has ended since: a COMMIT of it is answered once more. */
bool bt_rx_was_complete(const bt_rx *rx, const bt_ticket_name *name, uint32_t *landed);
/* Why the request of an ALLOC has ended; OK when it is not remembered, or ended well. */
baton_status bt_rx_reason_of(const bt_rx *rx, uint64_t peer_epoch, uint64_t alloc_id);
void bt_rx_remember(bt_rx *rx, const bt_rx_ticket *ticket, bt_request_state state,
                    baton_status reason);

/* Regions, rxregions.c; lock held. */
baton_status bt_rx_regions_create(bt_rx *rx);
void bt_rx_regions_destroy(bt_rx *rx);
void bt_rx_regions_fill(bt_rx *rx, bt_msg_memreg_answer *answer);
void *bt_rx_page_address(bt_rx *rx, bt_page_ref page);
/* Replaces regions with retired pages by fresh ones, and frees what has emptied once every process
 * that might still write it has exited. */
void bt_rx_regions_tick(bt_rx *rx);
/* Pages of these regions (bit r: region r) are being retired, because the process of *pidfd (-1: it
 * cannot be watched) may still write them. Takes *pidfd over: it is -1 then. */
void bt_rx_regions_owe(bt_rx *rx, uint64_t regions, int *pidfd);

/* Lookups and pins, rxlookup.c; they take the lock. */
baton_status bt_rx_lookup(bt_rx *rx, const uint32_t *tokens, uint32_t n_tokens, baton_pin **pin_p,
                          uint32_t *n_matched);
baton_status bt_rx_peek(bt_rx *rx, const uint32_t *tokens, uint32_t n_tokens, uint32_t *n_matched);
baton_status bt_rx_unpin(bt_rx *rx, baton_pin *pin);
/* As unpin, once the GPU has done what is queued on the stream. */
baton_status bt_rx_unpin_after(bt_rx *rx, baton_pin *pin, struct CUstream_st *stream);
/* Waits for the GPUs of pins that are leaving, until then (monotonic): else rx->gpu_hangs. */
void bt_rx_pins_finish(bt_rx *rx, uint64_t until_ns);
/* Ends a request by name, soon. Errors: INVALID_ARG, NOT_FOUND, BUSY. */
baton_status bt_rx_post_release(bt_rx *rx, const char *request);
void bt_rx_get_stats(bt_rx *rx, baton_receiver_stats *stats);
void bt_rx_pins_tick(bt_rx *rx, uint64_t now_ns); /* lock held */

#endif
