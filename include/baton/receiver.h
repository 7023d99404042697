/* SPDX-License-Identifier: Apache-2.0 */
/* The decode side: a pool of registered pages that senders write, an index of the chunks that have
 * landed, and lookups that pin what a prompt needs. One receiver is one rank.
 *
 *   sender ──ALLOC, put, COMMIT──▶ pages ──lookup──▶ pin ──read pages──▶ unpin
 *                                    └─ without hold and pin: a prefix cache under LRU
 *
 * Thread rule: any thread, but create and destroy; all calls are non-blocking but destroy. */
#ifndef BATON_RECEIVER_H
#define BATON_RECEIVER_H
#include <baton/keys.h>
#include <baton/kv.h>
#include <baton/options.h>
#include <baton/sender.h>
BATON_BEGIN_DECLS

typedef struct baton_receiver baton_receiver;
typedef struct baton_pin baton_pin;

typedef struct {
    const char *name;    /* for logs; NULL: "receiver" */
    baton_layout layout; /* of this rank */
    uint32_t rank;
    uint32_t world;       /* 0: 1 */
    const char *key_seed; /* see baton_key_chain_init */
    baton_digests digests;
    const char *host;    /* to bind; NULL: 127.0.0.1 */
    uint16_t init_port;  /* 0: any free one; see baton_receiver_ports */
    uint16_t alloc_port; /* 0: any free one */
    uint64_t pool_bytes; /* rounded down to pages; 0: 256 MiB */
    uint32_t n_regions;  /* pieces the pool is cut into, so that one can be replaced; 0: 4 */
    void *pool_base;     /* NULL: ours; else the engine's memory of pool_bytes, borrowed until
                            destroy (region kind `engine`, n_regions 1) */
    /* Where the pool lies. CUDA_HOST: pinned host memory. CUDA_DEVICE: of the GPU that is current
     * in create, else the first; where peers cannot write it, each page has a pinned one beside it,
     * which is copied to the device before the key becomes visible. */
    baton_memory_kind memory;
    uint32_t max_queued;      /* requests that wait for pages; 0: 1,024 */
    uint32_t max_peers;       /* 0: 1,024 */
    uint32_t max_deadline_ms; /* of a request, whatever its sender says; 0: 3,600,000, an hour */
    const char *notice; /* where to tell of expired holds when ALLOC named nothing; NULL: nowhere */
    const char *const *notice_allow; /* [n_notice_allow], as the sender's */
    uint32_t n_notice_allow;
    const char *admin; /* as the sender's */
    baton_progress_mode progress;
    baton_security security;
    baton_data_path data;
    baton_timeouts timeouts;
} baton_receiver_options;

typedef enum {
    BATON_RECEIVER_READY,   /* every chunk of the request can be looked up */
    BATON_RECEIVER_FAILED,  /* .status, .text */
    BATON_RECEIVER_EXPIRED, /* ready, but nobody came within the lease */
} baton_receiver_event_kind;

typedef struct {
    baton_receiver_event_kind kind;
    baton_status status;
    uint32_t n_chunks, sent_chunks; /* sent: written by this transfer; the others were there */
    uint64_t sent_bytes;
    uint64_t move_ns; /* from granted to complete */
    char request[BATON_REQUEST_ID_BYTES + 1];
    char text[BATON_EVENT_TEXT_BYTES];
} baton_receiver_event;

/* One pinned chunk. */
typedef struct {
    const void
        *page; /* [n_layers][n_planes][n_tokens][n_kv_heads][head_dim]; borrowed until unpin */
    uint64_t bytes;
    uint32_t n_tokens;
    baton_memory_kind memory;
} baton_pinned_chunk;

typedef struct {
    /* Pages by state; the five add up to pages_total, always. */
    uint64_t pages_total, pages_free, pages_reserved, pages_landed, pages_quarantined,
        pages_retired;
    uint64_t page_bytes;
    uint64_t chunks_landed_total, chunks_present_total, chunks_evicted_total;
    uint64_t chunks_duplicate_total; /* sent, but another request published the key first */
    uint64_t bytes_landed_total;
    uint64_t tickets_granted_total, tickets_queued_total, tickets_refused_total;
    uint64_t requests_ready_total, requests_failed_total, holds_expired_total;
    uint64_t digests_checked_total, digests_failed_total;
    uint64_t lookups_total, lookup_tokens_total, lookup_hit_tokens_total;
    uint64_t pins_expired_total;
    uint64_t messages_total, messages_dropped_total, messages_stale_total;
    uint64_t ring_messages_total; /* of messages_total, those that came through shared memory */
    uint64_t notices_sent_total, notices_dropped_total;
    uint64_t events_dropped_total;  /* nobody polled them: the oldest of more than 4,096 */
    uint64_t answers_dropped_total; /* too many waited for the peer, or it has gone */
    uint64_t connections_cut_total; /* sent what was never a message */
    uint64_t peers, peers_lost_total;
    uint64_t peers_deaf_total; /* that did not read their answers, and were heard no more */
    uint64_t tickets_live, tickets_queued, holds_live, pins_live;
    uint64_t moves_refused_total; /* of a state machine: a bug of ours, harmless so far */
} baton_receiver_stats;

/* Errors: INVALID_ARG, CONFIG, NO_MEMORY, ADDRESS_IN_USE (names the port), PERMISSION (would bind
 * to more than loopback without keys), TRANSPORT; UNSUPPORTED (CUDA memory without a driver or GPU;
 * the text says what is missing). */
BATON_API baton_status baton_receiver_create(const baton_receiver_options *options,
                                             baton_receiver **receiver_p);
/* As baton_sender_create_from_file. */
BATON_API baton_status baton_receiver_create_from_file(const char *path,
                                                       const baton_receiver_options *options,
                                                       const char *const *overrides,
                                                       uint32_t n_overrides,
                                                       baton_receiver **receiver_p);
/* All pins must be given back. Revokes what is live. NULL is allowed. */
BATON_API void baton_receiver_destroy(baton_receiver *receiver);
BATON_API void baton_receiver_ports(baton_receiver *receiver, uint16_t *init_port,
                                    uint16_t *alloc_port);

/* The longest landed prefix of tokens[n_tokens], a short last chunk of any length included, pinned
 * as one handle: *n_matched tokens (0: *pin_p is NULL, status OK). Ends the oldest hold whose last
 * key is the last one pinned. Errors: INVALID_ARG, NO_MEMORY. */
BATON_API baton_status baton_receiver_lookup(baton_receiver *receiver, const uint32_t *tokens,
                                             uint32_t n_tokens, baton_pin **pin_p,
                                             uint32_t *n_matched);
/* How many tokens a lookup would match; pins nothing. */
BATON_API baton_status baton_receiver_peek(baton_receiver *receiver, const uint32_t *tokens,
                                           uint32_t n_tokens, uint32_t *n_matched);
BATON_API uint32_t baton_pin_chunks(const baton_pin *pin);
/* Errors: OUT_OF_RANGE. */
BATON_API baton_status baton_pin_chunk(const baton_pin *pin, uint32_t chunk,
                                       baton_pinned_chunk *out);
/* Gives the pin back, when what was read has been copied. LEASE_EXPIRED: the pin's time limit
 * passed before; its pages may have been written since, so the copy must not be used. The handle is
 * gone either way. */
BATON_API baton_status baton_receiver_unpin(baton_receiver *receiver, baton_pin *pin);

/* As unpin, for pages that a GPU is to copy: gives the pin back when the device has done what is
 * queued on the stream at the call (NULL: the default one). Returns at once; LEASE_EXPIRED is said
 * now or never. On other errors (UNSUPPORTED, IO) the pin is still the caller's. Destroy waits for
 * the stream. */
BATON_API baton_status baton_receiver_unpin_after(baton_receiver *receiver, baton_pin *pin,
                                                  struct CUstream_st *stream);

/* Ends a request here: its holds, or its transfer. Errors: NOT_FOUND. */
BATON_API baton_status baton_receiver_release(baton_receiver *receiver, const char *request);

BATON_API uint32_t baton_receiver_poll(baton_receiver *receiver, baton_receiver_event *events,
                                       uint32_t max);
/* Readable while events wait (level triggered); owned by the receiver. */
BATON_API int baton_receiver_event_fd(baton_receiver *receiver);
/* As the sender's. */
BATON_API uint32_t baton_receiver_progress(baton_receiver *receiver);
BATON_API int baton_receiver_progress_fd(baton_receiver *receiver);
/* As baton_sender_admin. */
BATON_API const char *baton_receiver_admin(const baton_receiver *receiver);
BATON_API void baton_receiver_get_stats(baton_receiver *receiver, baton_receiver_stats *stats);

BATON_END_DECLS
#endif
