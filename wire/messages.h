/* SPDX-License-Identifier: Apache-2.0 */
/* The control messages of docs/protocol.md: structs, and the two calls that turn them into frames
 * and back. Decoding allocates nothing: blobs point into the frame, and lists are walked with the
 * cursors below. Everything is bounds-checked here, so that who gets a bt_message may trust sizes
 * and ranges, but not meaning (tickets, epochs, page numbers).
 *
 * Thread rule: any thread. */
#ifndef BT_WIRE_MESSAGES_H
#define BT_WIRE_MESSAGES_H
#include <baton/keys.h>
#include <baton/kv.h>
#include <baton/layout.h>
#include <baton/status.h>
#include <stdbool.h>

#include "wire/packwriter.h"
#include "wire/blob.h"

enum {
    BT_PROTOCOL_VERSION = 1,
    BT_FRAME_BYTES_MAX = 4 << 20,
    BT_GREETING_BYTES_MAX = 16 << 10, /* INIT, MEMREG: under 2 KiB, and what later ones add */
    BT_REQUEST_ID_BYTES_MAX = 256,
    BT_PEER_NAME_BYTES_MAX = 64,
    BT_NOTICE_ADDRESS_BYTES_MAX = 256,
    BT_TEXT_BYTES_MAX = 512,
    BT_NONCE_BYTES = 16,
    BT_CHUNKS_MAX = 65536,
    BT_REGIONS_MAX = 64,
    BT_HEARTBEAT_TICKETS_MAX = 1024,
    BT_WORLD_MAX = 65536,
    BT_BLOB_BYTES_MAX = 4096, /* a worker's address, an rkey */
    BT_SCRATCH_BYTES_MAX = 1 << 30,
    BT_DOORBELL_BYTES_MAX = 64,
    BT_TRACE_BYTES_MAX = 128,
};

/* X(NAME): the `type` on the wire is the name. */
#define BT_MESSAGE_TYPES(X) \
    X(INIT)                 \
    X(INIT_ANSWER)          \
    X(MEMREG)               \
    X(MEMREG_ANSWER)        \
    X(ALLOC)                \
    X(ALLOC_ANSWER)         \
    X(COMMIT)               \
    X(COMMIT_ANSWER)        \
    X(CANCEL)               \
    X(CANCEL_ANSWER)        \
    X(REVOKE)               \
    X(DRAINED)              \
    X(RELEASE)              \
    X(RELEASE_ANSWER)       \
    X(STATUS)               \
    X(STATUS_ANSWER)        \
    X(HEARTBEAT)            \
    X(HEARTBEAT_ANSWER)

typedef enum {
#define BT_MESSAGE_ENUM(name) BT_MSG_##name,
    BT_MESSAGE_TYPES(BT_MESSAGE_ENUM)
#undef BT_MESSAGE_ENUM
} bt_message_type;

typedef struct {
    bt_blob boot; /* boot id of the host */
    uint64_t pid_ns;
    uint64_t start;
    uint32_t pid;
    uint32_t uid; /* from here on 0 from older peers; known when ipc_ns is not 0 */
    uint64_t ipc_ns, mnt_ns, user_ns;
} bt_process_id;

/* INIT's `digests`. */
enum {
    BT_DIGESTS_OFF,
    BT_DIGESTS_WHOLE,     /* XXH3-64 of a page in one piece: nobody speaks it any more; refused */
    BT_DIGESTS_TILES,     /* kernels/digest.h */
    BT_DIGESTS_SAMPLED,   /* kernels/sample.h */
    BT_DIGESTS_MAX = 255, /* what is read, so that it can be refused by name */
};

/* INIT and INIT_ANSWER. */
typedef struct {
    bt_blob name;
    uint32_t rank, world;
    baton_layout layout;
    bt_blob seed;        /* INIT: 32 bytes, key[-1] */
    uint32_t digests;    /* BT_DIGESTS_* */
    uint32_t connection; /* INIT: counts the sender's endpoints to this receiver, from 1 */
    bt_process_id process;
    uint32_t probe; /* INIT only: 1 connects to measure the path, and will never ask for pages */
    bt_blob worker; /* from here on INIT_ANSWER only */
    uint64_t page_bytes;
    uint32_t lease_ms, heartbeat_ms, silent_ms;
    uint32_t require_rdma;    /* what the receiver wants of the path; 0 from older ones */
    uint64_t min_bytes_per_s; /* as above */
} bt_msg_init;

typedef enum { BT_REGION_POOL = 1, BT_REGION_ENGINE = 2 } bt_region_kind;

typedef struct {
    uint32_t region, generation;
    uint32_t kind;   /* bt_region_kind */
    uint32_t memory; /* baton_memory_kind */
    uint64_t base, page_bytes;
    uint32_t n_pages;
    bt_blob rkey;
} bt_msg_region;

/* Memory of the receiver that every connected sender may overwrite at any time, to measure the
 * path; what lies in it means nothing. */
typedef struct {
    uint64_t base, bytes; /* bytes 0: there is none */
    bt_blob rkey;
} bt_msg_scratch;

/* Where frames of the alloc port go besides ZeroMQ (core/framering.h): two rings in one piece of
 * the receiver's memory, the one to the receiver first. */
typedef struct {
    uint64_t base;
    uint32_t to_receiver_bytes, to_sender_bytes; /* capacities; 0: there are none */
    bt_blob rkey;
    bt_blob doorbell; /* the receiver's, see core/wakesocket.h */
} bt_msg_ring;

typedef struct {
    bt_msg_ring ring;
    uint32_t n_regions; /* decoding fills regions[]; at most BT_REGIONS_MAX */
    bt_msg_region regions[BT_REGIONS_MAX];
    bt_msg_scratch scratch;
} bt_msg_memreg_answer;

typedef struct {
    bt_blob request;
    bt_blob keys; /* n * 32 bytes, 1 <= n <= BT_CHUNKS_MAX */
    uint32_t last_tokens, deadline_ms, may_queue;
    bt_blob notice;
    bt_blob trace; /* a traceparent (core/traceparent.h), not checked; empty: none */
} bt_msg_alloc;

typedef enum { BT_ALLOC_GRANTED = 1, BT_ALLOC_QUEUED = 2, BT_ALLOC_REFUSED = 3 } bt_alloc_outcome;

/* Chunks [first, first + count) go to pages [page, page + count) of the region. */
typedef struct {
    uint32_t first, count, region, generation, page;
} bt_page_run;

typedef struct {
    uint32_t outcome; /* bt_alloc_outcome */
    uint64_t ticket;
    uint32_t generation;
    bt_blob nonce; /* 16 bytes when granted */
    uint32_t n_chunks, place, retry_ms, pages_wanted, pages_total;
    const bt_page_run *runs; /* encoding: [n_runs] of the caller */
    uint32_t n_runs;
    bt_blob packed_runs; /* decoding: for bt_message_next_run */
} bt_msg_alloc_answer;

typedef struct {
    uint32_t first, count;
} bt_chunk_range;

/* COMMIT, CANCEL, REVOKE, DRAINED: what names a ticket. nonce is empty in REVOKE. */
typedef struct {
    uint64_t ticket;
    uint32_t generation;
    bt_blob nonce;
} bt_ticket_name;

typedef struct {
    bt_ticket_name name;
    const bt_chunk_range *ranges; /* encoding: [n_ranges] of the caller */
    uint32_t n_ranges;
    bt_blob packed_ranges; /* decoding: for bt_message_next_range */
    bt_blob digests;       /* 8 bytes per chunk of the ranges, or empty */
    uint32_t final;
} bt_msg_commit;

typedef struct {
    uint32_t landed, final;
} bt_msg_commit_answer;

/* CANCEL and REVOKE. */
typedef struct {
    bt_ticket_name name;
    uint32_t drained; /* CANCEL */
    int32_t reason;
} bt_msg_end;

typedef enum {
    BT_REQUEST_UNKNOWN = 0,
    BT_REQUEST_QUEUED = 1,
    BT_REQUEST_MOVING = 2,
    BT_REQUEST_READY = 3,
    BT_REQUEST_FAILED = 4,
    BT_REQUEST_PINNED = 5,
    BT_REQUEST_EXPIRED = 6,
} bt_request_state;

typedef struct {
    uint32_t state; /* bt_request_state */
    uint32_t n_chunks, landed, rank, world;
    int32_t reason;
} bt_msg_status_answer;

typedef struct {
    uint64_t ticket;
    uint32_t posted, sent, landed; /* chunks */
} bt_ticket_progress;

/* HEARTBEAT, and HEARTBEAT_ANSWER (only .ticket is used there). */
typedef struct {
    const bt_ticket_progress *tickets; /* encoding: [n_tickets] of the caller */
    uint32_t n_tickets;
    bt_blob packed_tickets; /* decoding: for bt_message_next_ticket */
} bt_msg_heartbeat;

typedef struct {
    bt_message_type type;
    uint32_t v;
    uint64_t epoch, id, peer_epoch;
    int32_t status; /* answers */
    bt_blob text;   /* answers, CANCEL, REVOKE */
    union {
        bt_msg_init init; /* INIT, INIT_ANSWER */
        bt_blob doorbell; /* MEMREG: the sender's; empty: no rings are wanted */
        bt_msg_memreg_answer memreg_answer;
        bt_msg_alloc alloc;
        bt_msg_alloc_answer alloc_answer;
        bt_msg_commit commit;
        bt_msg_commit_answer commit_answer;
        bt_msg_end end;         /* CANCEL, REVOKE */
        bt_ticket_name drained; /* DRAINED */
        bt_blob request;        /* RELEASE, STATUS */
        uint32_t released;      /* RELEASE_ANSWER */
        bt_msg_status_answer status_answer;
        bt_msg_heartbeat heartbeat; /* HEARTBEAT, HEARTBEAT_ANSWER */
    } u;
} bt_message;

/* Appends the message to the writer (which caps the frame). An answer with a negative status is
 * written without the type's own fields (but ALLOC_ANSWER has outcome, always REFUSED then,
 * retry_ms and the pages). Members that a type, or an ALLOC_ANSWER's outcome, does not have are not
 * looked at.
 * Errors: TOO_LARGE, NO_MEMORY, INVALID_ARG (a field over its limit). */
baton_status bt_message_encode(const bt_message *message, bt_packwriter *writer);
/* Reads one frame. When `v` is another version, or INIT or its answer says what is not known here,
 * only the common fields can be relied on and the status is VERSION_MISMATCH, so that the caller
 * can still answer. Errors: BAD_MESSAGE (text says which field and where), VERSION_MISMATCH (what
 * was wanted and found). */
baton_status bt_message_decode(const void *frame, size_t bytes, bt_message *message);

/* Cursors over the lists of a decoded message, which were checked whole: runs are ascending,
 * disjoint and within n_chunks; ranges lie below BT_CHUNKS_MAX, in any order. *cursor starts
 * 0-initialised. Returns false at the end. */
typedef struct {
    size_t offset;
    uint32_t index;
} bt_list_cursor;
bool bt_message_next_run(const bt_msg_alloc_answer *answer, bt_list_cursor *cursor,
                         bt_page_run *run);
bool bt_message_next_range(const bt_msg_commit *commit, bt_list_cursor *cursor,
                           bt_chunk_range *range);
bool bt_message_next_ticket(const bt_msg_heartbeat *heartbeat, bt_list_cursor *cursor,
                            bt_ticket_progress *ticket);

/* "ALLOC_ANSWER" ...; "?" for a value outside the list. */
const char *bt_message_type_name(bt_message_type type);

#endif
