/* SPDX-License-Identifier: Apache-2.0 */
/* The sender's state machine (docs/protocol.md), without sockets, threads or sleep: frames, the
 * user's commands and time go in; frames, notices and events come out through bt_tx_out. sender.c
 * puts it on ZeroMQ and a thread; tests and fuzzers drive it by hand.
 *
 *   bt_tx ─┬─ inbox ── commands of any thread; which transfers live and what was pushed
 *          ├─ peers ───── endpoint, remotes (mapped or not), regions
 *          ├─ transfers ─ chunks: PUSHED → (staged) → POSTED → FLUSHING → LANDED → COMMITTED
 *          │               (POSTED → COMMITTED where COMMIT goes behind the data)
 *          └─ pending ─── requests without an answer, sent again until their deadline
 *
 * Thread rule: owner thread; the inbox (txinbox.c) and stats take calls from any thread. */
#ifndef BT_SENDER_TX_H
#define BT_SENDER_TX_H
#include <baton/sender.h>

#include "core/clock.h"
#include "core/doorbell.h"
#include "core/eventqueue.h"
#include "core/framering.h"
#include "core/process.h"
#include "core/states.h"
#include "core/tracelog.h"
#include "kernels/sample.h"
#include "sender/txpath.h"
#include "transport/transport.h"
#include "wire/messages.h"

#include <pthread.h>
#include <stdatomic.h>

enum {
    BT_TX_HOST_BYTES = 256,
    BT_TX_CHUNK_BITS = 20,      /* of a transport call's user_data; the rest names the transfer */
    BT_TX_COMMIT_RANGES = 64,   /* of one COMMIT */
    BT_TX_TURN_BYTES = 4 << 20, /* of one transfer and copying thread, before others and the sockets
                                   have theirs */
    BT_TX_MIN_GBPS_MAX = 1000000,
    BT_TX_LAYER_GROUPS = 4,        /* of a chunk that is pushed while it is computed */
    BT_TX_RING_FRAMES = 64,        /* of one peer in a turn */
    BT_TX_MEASURE_BYTES = 1 << 20, /* of a peer's scratch area that are used */
    BT_TX_COMMIT_BYTES = 32 << 20, /* landed, while more is on its way: worth a COMMIT of its own */
    BT_TX_COMMIT_DIGEST_BYTES = 4 << 20, /* with digests, which the receiver takes meanwhile */
    BT_TX_COMMIT_CHUNKS = 512,   /* so are so many, which the receiver publishes meanwhile */
    BT_TX_FREED_MAX = 64,        /* SOURCE_FREEs that are told the user at once */
    BT_TX_PUT_BYTES = 512 << 10, /* of one put of several chunks: the wire need not wait longer */
    BT_TX_PUT_RUNS = 128,
    BT_TX_PUTS_OUT_BYTES = 32 << 20, /* posted to one peer: more than its wire holds, and not so
                                       much that another transfer's put comes far behind */
};

typedef struct bt_tx bt_tx;
typedef struct bt_tx_peer bt_tx_peer;
typedef struct bt_tx_transfer bt_tx_transfer;
typedef struct bt_tx_pending bt_tx_pending;
typedef struct bt_tx_layers bt_tx_layers; /* txlayers.c */
typedef struct bt_tx_group bt_tx_group;

typedef enum {
    BT_TX_INIT_PORT,
    BT_TX_ALLOC_PORT,
    BT_TX_N_PORTS,
    BT_TX_DATA_PORT = BT_TX_N_PORTS, /* no socket: behind what was put on the peer's endpoint */
} bt_tx_port;

/* What comes out, called by the owner. */
typedef struct {
    /* Sockets to the peer's two ports are wanted (or no longer). */
    baton_status (*open)(void *ctx, bt_tx_peer *peer);
    void (*close)(void *ctx, bt_tx_peer *peer);
    void (*send)(void *ctx, bt_tx_peer *peer, bt_tx_port port, const void *frame, size_t bytes);
    /* retry_ms: when the receiver thinks that another attempt is worth it; 0: no word of it. */
    void (*notice)(void *ctx, const char *address, const char *request, baton_status status,
                   const char *text, uint32_t retry_ms);
    /* The peer's process can be watched: pidfd is readable when it has exited. -1: stop watching.
     */
    void (*watch)(void *ctx, bt_tx_peer *peer, int pidfd);
    /* The peer has answered and cannot be watched: from now on is_connected says whether a
     * connection to it stands. Both NULL: cannot be told. */
    void (*follow)(void *ctx, bt_tx_peer *peer);
    bool (*is_connected)(void *ctx, bt_tx_peer *peer);
    /* Wakes whoever has this doorbell; false: nobody, as far as can be told. NULL: no rings. */
    bool (*ring)(void *ctx, bt_blob doorbell);
    bt_blob doorbell; /* that wakes us; borrowed; empty: no rings */
    void *ctx;
} bt_tx_out;

typedef struct bt_tx_region {
    uint32_t region, generation, n_pages;
    uint64_t base, page_bytes;
    bt_remote *remote;
    uint8_t *mapped;    /* where page 0 is written from here; NULL: by put */
    uint64_t populated; /* bytes of it, from the first, that were faulted in ahead */
} bt_tx_region;

struct bt_tx_peer {
    bt_tx_peer *next;
    void *shell; /* the shell's: its sockets */
    char host[BT_TX_HOST_BYTES];
    uint16_t init_port, alloc_port;
    bt_tx_peer_state state; /* core/states.def */
    bool keep;              /* connected in advance: reconnects by itself */
    /* Until then INIT is said, wanted or not: the connection ended with pages granted, and the
     * receiver keeps them from everybody until it hears of it. 0: nothing is owed. */
    uint64_t owes_proof_until_ns;
    uint64_t first_id;   /* of this connection: what answers an older request is an earlier one's */
    uint32_t connection; /* number of the next endpoint */
    uint32_t n_failures; /* in a row, for the back-off */
    uint64_t closing_ns; /* CLOSING: since when */
    bool is_overdue;     /* and for too long, which everybody has heard */
    uint64_t next_attempt_ns;
    uint64_t epoch; /* the receiver's; 0: unknown */
    bt_process process;
    int pidfd;
    uint64_t last_heard_ns, last_heartbeat_ns;
    uint32_t heartbeat_ms, silent_ms;
    uint32_t digests; /* as agreed */
    bt_endpoint *endpoint;
    bt_tx_region regions[BT_REGIONS_MAX];
    uint32_t n_regions, last_region; /* that was looked for and found */
    bool is_populated;               /* all of them that are mapped (txpopulate.c) */
    uint64_t populate_until_ns;      /* ahead of READY; 0: not begun */
    bt_remote *ring_remote;          /* of the two rings below; NULL: none */
    bt_framering to_receiver, from_receiver;
    bool alloc_port_works;                   /* heard on it: only then are rings used besides it */
    uint8_t doorbell[BT_DOORBELL_BYTES_MAX]; /* [doorbell_bytes] the receiver's */
    size_t doorbell_bytes;
    bt_tx_pending *hello;    /* INIT or MEMREG under way */
    uint64_t puts_out_bytes; /* of whole chunks, put without BT_EVENT_PUT */
    bt_tx_measure measure;
    bt_tx_figures figures;    /* of this connection */
    baton_path_choice path;   /* how its pages are written; never AUTO once READY */
    bool puts_from_device;    /* puts read device memory where it is */
    baton_memory_kind memory; /* of its regions */
    bool require_rdma, rdma_is_theirs, floor_is_theirs;
    uint64_t min_bytes_per_s; /* 0: none */
    bool should_map;          /* on this host, shared memory of ours, and yet not mapped */
    char why_not_mapped[BATON_EVENT_TEXT_BYTES];
    /* Turned down for its path: until its next attempt transfers fail with this at once. */
    baton_status refusal;
    char refusal_text[BATON_EVENT_TEXT_BYTES];
    baton_sender_peer shown; /* stats lock */
    char name[BT_PEER_NAME_BYTES_MAX + 1];
};

typedef enum {
    BT_TX_CHUNK_IDLE,      /* not pushed */
    BT_TX_CHUNK_PUSHED,    /* waits for a grant, for its turn, or for a staging slot */
    BT_TX_CHUNK_LAYERED,   /* pushed in groups of layers, of which not all have moved */
    BT_TX_CHUNK_COPYING,   /* waits for a GPU: txdevice.h */
    BT_TX_CHUNK_POSTED,    /* put posted */
    BT_TX_CHUNK_FLUSHING,  /* a flush that covers it is under way */
    BT_TX_CHUNK_LANDED,    /* written; COMMIT is to be sent */
    BT_TX_CHUNK_COMMITTED, /* COMMIT is sent */
    BT_TX_CHUNK_PRESENT,   /* the receiver has it already */
} bt_tx_chunk_state;

/* Where a pushed chunk's bytes are. */
typedef struct {
    const baton_kv_view *view; /* paged KV; NULL: contiguous at data */
    baton_kv_tokens tokens;    /* its arrays are owned by the source */
    void *owned;               /* the arrays */
    const void *data;
    size_t bytes;
    uint32_t first_layer, n_layers; /* n_layers 0: all of them */
    baton_memory_kind memory;
    bt_cuda *cuda;     /* of ready */
    bt_cu_event ready; /* the bytes are there once it has completed; NULL: they are */
    bool owns_ready;
    bool is_direct;  /* device memory that puts read where it is */
    bt_memory *page; /* data is in page `device_slot` of ours, which goes back; NULL: the user's */
    uint32_t device_slot;
    bool has_digest; /* the GPU took it */
    uint64_t digest;
} bt_tx_source;

/* What waits for the user. Most events are SOURCE_FREE, which is a chunk and no more: they are made
 * long when they are taken. */
typedef struct {
    baton_transfer transfer;
    uint64_t user_data;
    baton_sender_event *end; /* owned; NULL: SOURCE_FREE */
    uint32_t chunk, first_layer, n_layers;
} bt_tx_event;

typedef struct {
    bt_tx_chunk_state state;
    bool put_done;     /* POSTED, FLUSHING: its put has left local memory */
    uint32_t put_next; /* of the chunks of one put, which is named by the first; UINT32_MAX: last */
    bool keeps_slot;   /* between groups of layers, counted in n_kept_slots */
    bool source_busy;  /* SOURCE_FREE is still to come */
    int32_t slot;      /* staging slot, -1: none */
    uint32_t next;     /* in its bt_tx_list */
    uint32_t region, generation, page;
    uint64_t digest;
    bt_tx_source source;
    bt_tx_layers *layers; /* NULL: pushed whole, or not yet */
} bt_tx_chunk;

/* Chunks of one transfer in one state, in the order in which they got there: a transfer of many
 * chunks is not searched for them. */
typedef struct {
    uint32_t first, last, n;
} bt_tx_list;

/* When a transfer reached what (txadmin.h). */
typedef enum {
    BT_TX_AT_OPENED,
    BT_TX_AT_ALLOC_SENT,
    BT_TX_AT_GRANTED,
    BT_TX_AT_FIRST_PUSH,
    BT_TX_AT_LAST_PUSH,
    BT_TX_AT_LAST_OUT,   /* the last chunk is written, or handed to the transport */
    BT_TX_AT_FINAL_SENT, /* COMMIT final */
    BT_TX_AT_COMMITTED,  /* ... is answered */
    BT_TX_AT_FAILED,
    BT_TX_AT_NOTIFIED, /* the notice to the proxy leaves */
    BT_TX_N_STAGES,
} bt_tx_stage;

struct bt_tx_transfer {
    bt_tx_transfer *prev, *next; /* all, oldest first */
    bt_tx_transfer *hash_next;   /* inbox: same bucket by id; then the list of the dead */
    baton_transfer id;
    uint64_t user_data;
    bt_tx_state state; /* core/states.def */
    bt_tx_peer *peer;  /* set when the owner has taken BEGIN */
    baton_key *keys;   /* [n_chunks] */
    uint32_t n_chunks, last_tokens;
    bt_tx_chunk *chunks;                                 /* [n_chunks] */
    uint8_t *pushed;                                     /* [n_chunks] inbox lock */
    uint8_t *seen;                                       /* [n_chunks][n_layers] inbox lock:
                                                            pushed; NULL: none by layers */
    bool is_finishing;                                   /* inbox lock: finish was called */
    bool is_over;                                        /* inbox lock: takes no more calls */
    bool finish_seen;                                    /* owner: the FINISH command has come */
    uint32_t next_chunk;                                 /* no PUSHED chunk lies before it */
    uint32_t n_posted, n_landed, n_committed, n_present; /* chunks, growing */
    uint32_t n_pushed;                     /* without those that turned out to be present */
    uint32_t n_puts_out;                   /* puts without BT_EVENT_PUT */
    uint32_t n_slots;                      /* staging slots that wait for theirs */
    bt_tx_list posted, flushing, landed;   /* chunks that are POSTED, FLUSHING, LANDED */
    bt_tx_group *first_group, *last_group; /* layers that were pushed and have not moved */
    uint32_t n_partial;                    /* chunks some of whose layers were put, not all */
    bool unflushed;                        /* puts were posted since the last flush was */
    bool flush_out;                        /* a flush without BT_EVENT_FLUSH */
    uint32_t n_told;     /* chunks of the COMMIT under way that no flush has covered: its answer */
    uint64_t told_bytes; /* says that they have landed */
    bool is_answered;    /* COMMITTING: final was answered, an event is still to come */
    bool asked_regions;  /* MEMREG was asked again for a region that its grant names */
    bool revoked;        /* the receiver wants DRAINED */
    bool has_ticket;
    bool may_ask;      /* else ALLOC waits for the ASK command */
    bool force_closed; /* what was under way ended with its endpoint: DRAINED must not be said */
    uint64_t ticket;
    uint32_t generation;
    uint8_t nonce[BT_NONCE_BYTES];
    bt_samples samples;   /* what a sampled digest looks at; made by the first chunk that moves */
    uint64_t deadline_ns; /* finish may bring it nearer: wait_ns */
    uint64_t wait_ns;     /* that somebody waits from finish on; 0: until the deadline */
    uint64_t progress_ns; /* last time a put or flush finished or was posted */
    uint64_t granted_ns;
    uint64_t sent_bytes;
    void (*granted)(void *ctx); /* the user's; NULL: nobody */
    void *granted_ctx;
    bt_tx_pending *alloc, *commit; /* under way */
    baton_sender_event *end;       /* room for DONE or FAILED, until it is reported */
    baton_status reason;
    uint32_t retry_ms; /* as a refusal said; 0: nothing */
    char reason_text[BATON_EVENT_TEXT_BYTES];
    uint64_t at_ns[BT_TX_N_STAGES]; /* 0: not yet */
    bt_traceparent trace;
    char request[BT_REQUEST_ID_BYTES_MAX + 1];
    char notice[BT_NOTICE_ADDRESS_BYTES_MAX + 1];
    char host[BT_TX_HOST_BYTES];
    uint16_t init_port, alloc_port;
};

/* A request on its way: sent again, the same bytes, until an answer or the deadline. */
struct bt_tx_pending {
    bt_tx_pending *prev, *next;
    uint64_t id;
    bt_message_type type;
    bt_tx_peer *peer;
    bt_tx_transfer *transfer; /* NULL: the peer's own (INIT, MEMREG), or a farewell (CANCEL) */
    bt_tx_port port;
    uint64_t again_ns, deadline_ns;
    uint32_t interval_ms;
    size_t bytes;
    uint8_t frame[];
};

typedef enum {
    BT_TX_BEGIN,
    BT_TX_PUSH,
    BT_TX_ASK,
    BT_TX_FINISH,
    BT_TX_CANCEL,
    BT_TX_CONNECT,
} bt_tx_command_kind;

typedef struct bt_tx_command {
    struct bt_tx_command *next;
    bt_tx_command_kind kind;
    bt_tx_transfer *transfer; /* all but CONNECT; it takes them along when it ends */
    uint32_t chunk;           /* PUSH */
    bt_tx_source source;      /* PUSH */
    char *host;               /* CONNECT; owned */
    uint16_t init_port, alloc_port;
} bt_tx_command;

enum { BT_TX_BUCKETS = 1024 };

struct bt_tx {
    baton_sender_options options; /* defaults filled in; strings borrowed from the shell */
    bt_process self;
    uint64_t epoch;
    baton_key_chain root;
    uint64_t token_bytes, page_bytes;
    const bt_clock *clock;
    bt_transport *transport;
    bt_worker *worker;
    bt_tx_out out;
    bt_packwriter writer;
    uint8_t *ring_frame; /* [ring_frame_bytes] the frame that came by a ring */
    size_t ring_frame_bytes;
    uint64_t n_ring_frames;             /* that have come by rings */
    bt_eventqueue *events;              /* of bt_tx_event */
    bt_tx_event freed[BT_TX_FREED_MAX]; /* [n_freed] on their way to `events` */
    uint32_t n_freed;

    struct bt_tx_copies *copies; /* of several threads; NULL: this one copies alone */
    struct bt_tx_device *device; /* NULL until the first chunk that needs a GPU */
    bt_doorbell *bell;           /* rung when a GPU has done something; NULL: nobody sleeps */

    bt_memory *staging;   /* options.staging_chunks pages; made when the first put needs it */
    uint32_t *free_slots; /* [staging_chunks] stack */
    uint32_t n_free_slots;
    uint32_t slot_share;   /* of one transfer in this turn */
    uint32_t n_kept_slots; /* of chunks that keep theirs between groups of layers */
    baton_transfer turn;   /* whose turn came first: next time it comes last */
    struct {               /* the put that a transfer's turn is putting together */
        bt_memory *memory;
        const bt_tx_region *region;
        bt_run runs[BT_TX_PUT_RUNS];
        uint32_t n_runs, n_chunks, first, last; /* chunks, linked by put_next */
        uint64_t bytes;
    } batch;
    struct {
        uint8_t *base;
        size_t bytes;
        bt_memory *memory;
    } registered[16]; /* the engine's memory */
    /* Growing; an entry is written before it is counted, by who registers, and read by the owner.
     */
    _Atomic uint32_t n_registered;
    uint32_t last_registered; /* that was looked for and found */

    bt_tracelog *traces; /* of transfers that have ended; NULL: nobody asks */

    bt_memory *measure_memory; /* [BT_TX_MEASURE_BYTES], made by the first measurement */
    uint32_t last_measure;
    /* Tests put theirs here. */
    void (*measure_copy)(bt_tx *tx, void *to, const void *from, size_t bytes);

    bt_tx_peer *peers; /* linked and unlinked with the stats lock held */
    bt_tx_transfer *first, *last;
    bt_tx_transfer *dead; /* ended, freed by the next progress: loops may still stand on them */
    bt_tx_pending *pending;
    uint64_t next_id;
    uint64_t active_ns; /* when a command, a message or bytes were last worked on */
    uint32_t
        last_connection;     /* over all peers: one that is forgotten and met again goes on above */
    bool is_closing;         /* no new connections */
    uint32_t n_last_flushes; /* of connections, under way; their user_data is 0 */
    uint64_t jitter;         /* state of the back-off's random numbers */

    struct {
        pthread_mutex_t lock;
        bt_tx_command *first, **last;
        bt_tx_command *taken; /* owner: what it took from there and has not carried out yet */
        bt_tx_transfer *by_id[BT_TX_BUCKETS];
        baton_transfer next_transfer;
        uint32_t n_live;
        bool closed;
    } inbox;
    pthread_mutex_t stats_lock;
    baton_sender_stats stats;
};

/* Life, tx.c. transport is borrowed. destroy force-closes what is left. */
void bt_tx_defaults(baton_sender_options *options);
baton_status bt_tx_create(const baton_sender_options *options, bt_transport *transport,
                          const bt_tx_out *out, bt_tx **tx_p);
void bt_tx_destroy(bt_tx *tx); /* NULL is allowed. */

/* In, tx.c. handle: a frame from a peer's port. progress: commands, worker, timers, a few chunks
 * of each transfer; returns when it wants to run again at the latest (now: there is more to do). */
void bt_tx_handle(bt_tx *tx, bt_tx_peer *peer, bt_tx_port port, const void *frame, size_t bytes);
uint64_t bt_tx_progress(bt_tx *tx);
void bt_tx_peer_exited(bt_tx *tx, bt_tx_peer *peer);
/* The worker and the rings are armed and no command waits; false: progress again before sleeping.
 */
bool bt_tx_arm(bt_tx *tx);
/* Awake again, or not asleep after all: rings need no doorbell. */
void bt_tx_disarm(bt_tx *tx);
/* Cancels everything, then flushes the connections; true when nothing is left to wait for. For a
 * shell that is stopping. */
bool bt_tx_close(bt_tx *tx);

/* Out, tx.c. */
baton_status bt_tx_encode(bt_tx *tx, bt_message *message);
void bt_tx_send(bt_tx *tx, bt_tx_peer *peer, bt_tx_port port, bt_message *message);
void bt_tx_stat(bt_tx *tx, uint64_t *counter, uint64_t n); /* counter of tx->stats += n */

/* Control rings in shared memory, txring.c. Requests go by the ring when they are said for the
 * first time; whatever is said again, or does not fit, goes the other way: a ring may fail at any
 * time without harm. */
/* The receiver offers rings. Not to have them is no failure. */
void bt_tx_ring_open(bt_tx *tx, bt_tx_peer *peer, const bt_msg_ring *offer);
void bt_tx_ring_close(bt_tx_peer *peer);
/* True: sent by the ring. */
bool bt_tx_ring_send(bt_tx *tx, bt_tx_peer *peer, const void *frame, size_t bytes);
void bt_tx_rings_serve(bt_tx *tx);      /* handles what waits there */
bool bt_tx_rings_wait(const bt_tx *tx); /* a frame is in one of them */
/* All rings are empty, and the next frame in one wakes us; false: there is one already. */
bool bt_tx_rings_sleep(bt_tx *tx);

/* Any thread, txinbox.c. */
baton_status bt_tx_begin(bt_tx *tx, const baton_transfer_options *options,
                         baton_transfer *transfer);
baton_status bt_tx_push(bt_tx *tx, baton_transfer transfer, uint32_t chunk,
                        const bt_tx_source *source);
/* Fills in what source->order means for the owner: an event. *source is not to be used when it
 * fails; when it succeeds, bt_tx_push takes the event over, also when that fails. */
baton_status bt_tx_source_order(bt_tx *tx, const baton_source *from, bt_tx_source *source);
/* Its event, if any, has completed, or nobody waits for it any more. */
void bt_tx_source_is_there(bt_tx_source *source);
baton_status bt_tx_post(bt_tx *tx, bt_tx_command_kind kind, baton_transfer transfer);
baton_status bt_tx_connect(bt_tx *tx, const char *host, uint16_t init_port, uint16_t alloc_port);
void bt_tx_get_stats(bt_tx *tx, baton_sender_stats *stats);
bool bt_tx_has_commands(bt_tx *tx);
/* Owner. The oldest command, or NULL; freed with bt_tx_command_free. */
bt_tx_command *bt_tx_next_command(bt_tx *tx);
void bt_tx_command_free(bt_tx_command *command);
/* Any thread; the transfer itself is the owner's. NULL when it has ended. */
bt_tx_transfer *bt_tx_transfer_find(bt_tx *tx, baton_transfer id);
/* Owner. The transfer takes no more calls; commands of it that wait are taken back, with a
 * SOURCE_FREE for each push. */
void bt_tx_retract(bt_tx *tx, bt_tx_transfer *transfer);
/* Owner. Nobody finds it any more. */
void bt_tx_unlist(bt_tx *tx, bt_tx_transfer *transfer);
void bt_tx_source_free(bt_tx *tx, const bt_tx_transfer *transfer, uint32_t chunk,
                       bt_tx_source *source);
/* Its own parts, without a word to the user. */
void bt_tx_source_release(bt_tx_source *source);
/* What bt_tx_source_free would say of a source of the user's. */
bt_tx_event bt_tx_source_event(const bt_tx *tx, const bt_tx_transfer *transfer, uint32_t chunk,
                               const bt_tx_source *source);
void bt_tx_transfer_free(bt_tx_transfer *transfer);

/* Events, txevents.c. Owner: report, end and flush. SOURCE_FREE is reported a few at once, in order
 * with the rest, and at the end of a turn. */
void bt_tx_event_source_free(bt_tx *tx, const bt_tx_event *event);
void bt_tx_event_end(bt_tx *tx, bt_tx_transfer *transfer, const baton_sender_event *event);
void bt_tx_events_flush(bt_tx *tx);
void bt_tx_events_destroy(bt_tx *tx);
/* Any thread. */
uint32_t bt_tx_poll(bt_tx *tx, baton_sender_event *events, uint32_t max);

/* Requests, txpending.c. request sends and remembers; deadline_ms from now. */
baton_status bt_tx_request(bt_tx *tx, bt_tx_peer *peer, bt_tx_transfer *transfer, bt_tx_port port,
                           bt_message *message, uint64_t deadline_ms, bt_tx_pending **pending_p);
bt_tx_pending *bt_tx_pending_find(bt_tx *tx, const bt_tx_peer *peer, uint64_t id);
void bt_tx_pending_drop(bt_tx *tx, bt_tx_pending *pending);
/* All of a transfer (its own pointers are cleared), or all of a peer. */
void bt_tx_pending_drop_peer(bt_tx *tx, const bt_tx_peer *peer);
void bt_tx_pending_tick(bt_tx *tx, uint64_t now_ns);

/* Peers, txpeers.c. */
/* Errors: NO_MEMORY, and what a socket cannot be had for. */
baton_status bt_tx_peer_get(bt_tx *tx, const char *host, uint16_t init_port, uint16_t alloc_port,
                            bt_tx_peer **peer_p);
void bt_tx_on_init_answer(bt_tx *tx, bt_tx_peer *peer, const bt_message *message);
void bt_tx_on_memreg_answer(bt_tx *tx, bt_tx_peer *peer, const bt_message *message);
void bt_tx_peers_tick(bt_tx *tx, uint64_t now_ns);
/* When the tick has something to do for this peer. */
uint64_t bt_tx_peer_wake_ns(const bt_tx *tx, const bt_tx_peer *peer, uint64_t now_ns);
/* The connection is of no more use: fails its transfers, closes the endpoint by force. */
void bt_tx_peer_down(bt_tx *tx, bt_tx_peer *peer, baton_status reason, const char *text);
/* The receiver must hear, in the next INIT, that this connection has ended. */
void bt_tx_owe_proof(bt_tx *tx, bt_tx_peer *peer);
/* After the last transfer: flushes every connection, so that it can end; true when all are. */
bool bt_tx_peers_close(bt_tx *tx);
void bt_tx_peer_closed(bt_tx *tx, bt_tx_peer *peer); /* BT_EVENT_CLOSED has come */
/* Looks where the last one was first: chunks in a row mostly lie in one region. */
const bt_tx_region *bt_tx_region_find(bt_tx_peer *peer, uint32_t region, uint32_t generation);
void bt_tx_ask_regions(bt_tx *tx, bt_tx_peer *peer);

/* What is known of up to max peers; returns how many there are. Any thread. txpath.c. */
uint32_t bt_tx_peers_shown(bt_tx *tx, baton_sender_peer *peers, uint32_t max);
void bt_tx_measure_defaults(bt_tx *tx); /* txmeasure.c */

/* Mapped pages ahead of their first use, txpopulate.c. ahead: a slice, before the peer is used;
 * true when it need not wait any longer. idle: a slice, when nothing has happened for a while;
 * returns when it wants its next turn. */
bool bt_tx_populate_ahead(const bt_tx *tx, bt_tx_peer *peer, uint64_t now_ns);
uint64_t bt_tx_populate_idle(bt_tx *tx, uint64_t now_ns);

/* Transfers, txtransfers.c. */
void bt_tx_transfer_start(bt_tx *tx, bt_tx_transfer *transfer); /* BEGIN was taken */
void bt_tx_peer_is_ready(bt_tx *tx, bt_tx_peer *peer);          /* its waiting transfers ALLOC */
void bt_tx_transfer_ask(bt_tx *tx, bt_tx_transfer *transfer);   /* ASK was taken */
void bt_tx_on_alloc_answer(bt_tx *tx, bt_tx_transfer *transfer, const bt_message *message);
void bt_tx_on_commit_answer(bt_tx *tx, bt_tx_transfer *transfer, const bt_message *message);
void bt_tx_on_revoke(bt_tx *tx, bt_tx_peer *peer, const bt_message *message);
void bt_tx_on_heartbeat_answer(bt_tx *tx, bt_tx_peer *peer, const bt_message *message);
/* The only way that a transfer changes its state. False: the event is not legal there, or its guard
 * fails; that is counted, and changes nothing. The action is the caller's. */
bool bt_tx_transfer_move(bt_tx *tx, bt_tx_transfer *transfer, bt_tx_change event);
void bt_tx_transfer_fail(bt_tx *tx, bt_tx_transfer *transfer, baton_status reason,
                         const char *text);
/* A copy of its on the GPU has been given up: fails it with GPU_TIMEOUT, also when it is failing
 * for another reason already, because what the GPU may still read is not free. */
void bt_tx_transfer_hangs(bt_tx *tx, bt_tx_transfer *transfer, uint32_t chunk);
/* DRAINING, and the transport does not let go of its endpoint: the user and the proxy hear of the
 * end now, once, and what the endpoint may still read becomes free when it has gone. */
void bt_tx_transfer_overdue(bt_tx *tx, bt_tx_transfer *transfer);
static inline bool bt_tx_transfer_is_told(const bt_tx_transfer *transfer)
{
    return transfer->end == NULL;
}
/* FINISH was taken: from here on somebody may be waiting. */
void bt_tx_finish_seen(bt_tx *tx, bt_tx_transfer *transfer);
/* Ends a DRAINING transfer when nothing of it is under way any more. */
void bt_tx_transfer_settle(bt_tx *tx, bt_tx_transfer *transfer);
/* Ends a transfer whose final COMMIT was answered, once every event of it has come. */
void bt_tx_transfer_finish(bt_tx *tx, bt_tx_transfer *transfer);
void bt_tx_transfers_tick(bt_tx *tx, uint64_t now_ns);
/* Sends COMMIT for what has landed, if none is under way and it is worth it. */
void bt_tx_commit(bt_tx *tx, bt_tx_transfer *transfer);

/* Where a request leaves, txchannel.c. */
bt_tx_port bt_tx_commit_port(const bt_tx *tx, const bt_tx_peer *peer);
void bt_tx_transmit(bt_tx *tx, bt_tx_peer *peer, bt_tx_port port, const void *frame, size_t bytes);

/* Bytes, txmove.c. */
/* The region that a granted chunk's page is in. Errors: BUSY (it is being asked for), BAD_MESSAGE.
 */
baton_status bt_tx_chunk_region(bt_tx *tx, bt_tx_transfer *transfer, uint32_t chunk,
                                const bt_tx_region **region_p);
/* A staging slot for the chunk. Errors: BUSY (none is free now), NO_MEMORY, TRANSPORT. */
baton_status bt_tx_take_slot(bt_tx *tx, bt_tx_transfer *transfer, bt_tx_chunk *chunk);
/* Gives the chunk's slot back, if it has one. */
void bt_tx_give_slot(bt_tx *tx, bt_tx_transfer *transfer, bt_tx_chunk *chunk);
void bt_tx_chunk_landed(bt_tx *tx, bt_tx_transfer *transfer, uint32_t chunk);
void bt_tx_chunk_pushed(bt_tx *tx, bt_tx_transfer *transfer, bt_tx_command *push);
void bt_tx_list_append(bt_tx_transfer *transfer, bt_tx_list *list, uint32_t chunk);
uint32_t bt_tx_list_pop(const bt_tx_transfer *transfer, bt_tx_list *list); /* n > 0 */
/* The chunk can be moved now (again). */
void bt_tx_chunk_is_ready(bt_tx_transfer *transfer, uint32_t chunk);
/* The registered memory that data lies in, whole; NULL: none. */
bt_memory *bt_tx_find_registered(bt_tx *tx, const void *data, size_t bytes);
/* n chunks more have landed. */
void bt_tx_count_landed(bt_tx *tx, bt_tx_transfer *transfer, uint32_t n, uint64_t bytes);
/* What a sampled digest of the chunk looks at, borrowed from the transfer; NULL: there is none, or
 * it is of all bytes. Errors: NO_MEMORY, TOO_LARGE. */
baton_status bt_tx_chunk_sample(const bt_tx *tx, bt_tx_transfer *transfer, uint32_t chunk,
                                const bt_sample **sample_p);
uint64_t bt_tx_chunk_bytes(const bt_tx *tx, const bt_tx_transfer *transfer, uint32_t chunk);
/* Flushes what was posted, if there is some and no flush under way. One flush at a time: what is
 * posted meanwhile waits for the next. */
baton_status bt_tx_flush(bt_tx_transfer *transfer);
/* Moves the next chunks of a MOVING transfer; true when there may be more to do at once. */
bool bt_tx_move(bt_tx *tx, bt_tx_transfer *transfer);
/* A turn of every transfer, each time beginning with another. */
bool bt_tx_move_all(bt_tx *tx);
void bt_tx_on_event(bt_tx *tx, const bt_event *event);
baton_status bt_tx_register(bt_tx *tx, void *base, size_t bytes, baton_memory_kind kind);

#endif
