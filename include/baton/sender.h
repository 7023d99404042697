/* SPDX-License-Identifier: Apache-2.0 */
/* The prefill side: hands the KV of a request to one receiver rank, chunk by chunk while prefill
 * goes on. One sender is one rank; an engine with tensor parallel size N makes N.
 *
 *   begin ──▶ push chunk 0, 1, ... (any order) ──▶ finish        cancel at any time
 *     events: SOURCE_FREE once per pushed chunk; DONE or FAILED once per transfer, always last
 *
 * A pushed chunk's source must stay as it is until its SOURCE_FREE, which also comes after cancel
 * and failure, once no local operation can read it any more. KV of a GPU may be pushed before it
 * has been computed: with the stream or event after which it is there.
 *
 * Thread rule: any thread, but create, close and destroy, and all calls are non-blocking but
 * destroy. With BATON_PROGRESS_MANUAL, progress is for one thread at a time. */
#ifndef BATON_SENDER_H
#define BATON_SENDER_H
#include <baton/keys.h>
#include <baton/kv.h>
#include <baton/options.h>
BATON_BEGIN_DECLS

typedef struct baton_sender baton_sender;
/* Names a transfer of one sender; never used again in its life; 0 is none. */
typedef uint64_t baton_transfer;

enum { BATON_EVENT_TEXT_BYTES = 256, BATON_REQUEST_ID_BYTES = 256 };

typedef enum {
    BATON_PATH_AUTO,   /* the fastest that can be had, as measured when connecting */
    BATON_PATH_MAPPED, /* straight into the receiver's page, or fail */
    BATON_PATH_PUT,    /* through the transport; from where the source lies, if it is registered */
    BATON_PATH_STAGED, /* through the transport, always from a staging page */
} baton_path_choice;

typedef enum {
    BATON_LAYERWISE_AUTO, /* for prompts of layerwise_min_tokens or more */
    BATON_LAYERWISE_OFF,  /* whole chunks */
    BATON_LAYERWISE_ON,   /* always */
} baton_layerwise;

typedef enum {
    BATON_COMMIT_AUTO,   /* behind the data where puts carry it; else through the socket */
    BATON_COMMIT_SOCKET, /* through the socket, after a flush */
} baton_commit_choice;

typedef struct {
    const char *name;    /* for logs; NULL: "sender" */
    baton_layout layout; /* of this rank */
    uint32_t rank;
    uint32_t world;       /* 0: 1 */
    const char *key_seed; /* see baton_key_chain_init */
    baton_digests digests;
    baton_path_choice path;
    /* Where most KV is pushed from, for data_devices "auto" alone: of RDMA devices those near it
     * are taken. CUDA_DEVICE: near the GPU that is current in create, else the first. */
    baton_memory_kind memory;
    bool skip_measure; /* nothing is measured when connecting: AUTO is then mapped where it can be,
                          and a min_gbps cannot be met */
    baton_commit_choice commit;
    bool probe; /* only a look at the path (baton_sender_peers), with more time to measure it: rank,
                   layout and key_seed are not compared with the receiver's, alloc_port is not used,
                   and transfers are refused with STATE */
    baton_layerwise layerwise;     /* what baton_sender_layer_group answers */
    uint32_t layerwise_min_tokens; /* 0: 64 (docs/performance.md, Layers) */
    uint32_t staging_chunks;       /* chunks gathered ahead of the wire where puts are used; 0: 8 */
    uint32_t copy_threads;         /* that copy host memory to pages, the one that progresses
                                      included: 1 to 64; 0: 1 */
    const char *notice;            /* where requests without an address of their own are announced:
                                      "tcp://host:port"; NULL: nowhere */
    const char *const *notice_allow; /* [n_notice_allow] addresses that requests may name besides;
                                        "*" allows any; none: only `notice` and loopback */
    uint32_t n_notice_allow;
    const char *admin; /* where questions about it are answered (docs/operations.md): "auto",
                          "off", "unix:PATH", "127.0.0.1:PORT"; NULL: "auto" */
    baton_progress_mode progress;
    baton_security security;
    baton_data_path data;
    baton_timeouts timeouts;
    bool spoil_byte; /* for proofs that digests work: a byte of every transfer's first chunk is
                        changed on its way, after its digest was taken */
} baton_sender_options;

typedef struct {
    const char *request; /* the proxy's id of this attempt, 1 to 256 bytes; copied */
    const char *host;    /* receiver; copied */
    uint16_t init_port;
    uint16_t alloc_port;
    const baton_key *keys; /* [n_chunks], copied */
    uint32_t n_chunks;
    uint32_t last_tokens; /* of the last chunk; the others have layout.chunk_tokens */
    uint32_t deadline_ms; /* 0: timeouts.request_ms */
    uint32_t wait_ms;     /* how long somebody waits for DONE from finish on, when that is before
                             the deadline; 0: as long as that */
    const char *notice;   /* proxy's address for this request, NULL: the options'; copied */
    uint64_t user_data;   /* echoed in events */
    bool asks_later;      /* the receiver is not asked for pages before baton_transfer_ask, so
                             that ranks of a request need not wait for each other's pages */
    /* Called once, by whoever progresses the sender, when the receiver has granted the pages; must
     * return at once, and may call baton_transfer_ask of any sender. NULL: nobody wants to know.
     * ctx is borrowed until DONE or FAILED. */
    void (*granted)(void *ctx);
    void *granted_ctx;
    const char *traceparent; /* W3C Trace Context of the request, for logs and baton-ctl here and at
                                the receiver; NULL, "" or not valid: none; copied */
} baton_transfer_options;

typedef enum {
    BATON_SOURCE_NOW,          /* its bytes are there at the call */
    BATON_SOURCE_AFTER_STREAM, /* when the GPU has done what is queued on .stream at the call */
    BATON_SOURCE_AFTER_EVENT,  /* when .event has completed, which was recorded before the call */
} baton_source_order;

/* Where a chunk's bytes are, and from when on. GPU handles are of the device's primary context, the
 * one of CUDA's runtime and of everything on top of it. */
typedef struct {
    const baton_kv_view *view; /* paged KV, borrowed with its planes until SOURCE_FREE; NULL: in one
                                  piece, in page layout, at data */
    const baton_kv_tokens *tokens; /* of the view; copied */
    const void *data;              /* borrowed until SOURCE_FREE */
    size_t bytes;                  /* at data: must be the chunk's */
    baton_memory_kind memory;      /* of data; a view says its own */
    baton_source_order order;
    struct CUstream_st *stream; /* AFTER_STREAM; NULL: the default one; used during the call only */
    struct CUevent_st *event;   /* AFTER_EVENT; borrowed until SOURCE_FREE */
} baton_source;

typedef enum {
    BATON_SENDER_SOURCE_FREE, /* .chunk */
    BATON_SENDER_DONE,        /* every byte has landed and is published */
    /* .status, .text. With GPU_TIMEOUT, sources without SOURCE_FREE may still be read by the GPU:
     * they get theirs after this event, if it ever ends its copies. So it is with any status for
     * registered memory, when the transport does not let go of a connection within flush_ms. */
    BATON_SENDER_FAILED,
} baton_sender_event_kind;

typedef struct {
    baton_sender_event_kind kind;
    baton_status status;
    baton_transfer transfer;
    uint64_t user_data;
    uint32_t chunk;
    uint32_t first_layer, n_layers; /* SOURCE_FREE: of the chunk; as pushed, or all of them */
    uint32_t sent_chunks;           /* DONE, FAILED: chunks written by this transfer */
    uint32_t present_chunks;        /* DONE, FAILED: chunks that were there already */
    uint64_t sent_bytes;
    uint64_t move_ns;  /* DONE: from granted to committed */
    uint32_t retry_ms; /* FAILED: refused by a receiver that is full; another attempt is worth it
                          then. 0: no word of that */
    char text[BATON_EVENT_TEXT_BYTES];
} baton_sender_event;

typedef struct {
    uint64_t transfers_begun_total, transfers_done_total, transfers_failed_total;
    uint64_t tickets_granted_total; /* transfers whose pages were granted */
    uint64_t chunks_sent_total, chunks_present_total;
    uint64_t bytes_sent_total, bytes_mapped_total; /* mapped: the part written without puts */
    uint64_t bytes_staged_total; /* copied from device memory through pinned pages */
    uint64_t notices_sent_total, notices_dropped_total;
    uint64_t messages_dropped_total; /* malformed */
    uint64_t messages_stale_total;   /* of another epoch, generation or ticket */
    uint64_t peers_ready, peers_lost_total;
    uint64_t transfers_live;
    uint64_t peers_mapped, peers_put, peers_staged; /* of peers_ready */
    uint64_t peers_refused_total;                   /* for require_rdma or min_gbps */
    uint64_t moves_refused_total; /* of a state machine: a bug of ours, harmless so far */
} baton_sender_stats;

/* One receiver rank, as this sender sees it. GB/s of 10^9 bytes, measured when connecting; 0: not
 * measured. All but host, ports and status are of the last connection. */
typedef struct {
    char host[256];
    uint16_t init_port, alloc_port;
    bool connected;
    baton_path_choice path;
    baton_memory_kind memory; /* of its pool */
    char transport[128];      /* of puts: "tcp", "rc_verbs" ... */
    char device[128];
    uint32_t n_rails;
    double copy_gbps;                            /* stores into its memory, by copy_threads */
    double stage_gbps;                           /* copies into a staging page, by one thread */
    double wire_gbps;                            /* puts */
    double post_us;                              /* CPU time of posting a put */
    double flush_us;                             /* a tiny put until it is known to have arrived */
    char why_not_mapped[BATON_EVENT_TEXT_BYTES]; /* "" when mapped, or not wanted */
    baton_status status;                         /* why it is not connected; OK: it is, or was not
                                                    tried yet */
    char text[BATON_EVENT_TEXT_BYTES];
} baton_sender_peer;

/* Errors: INVALID_ARG, CONFIG, NO_MEMORY, TRANSPORT. */
BATON_API baton_status baton_sender_create(const baton_sender_options *options,
                                           baton_sender **sender_p);
/* As create; what the YAML file, BATON_* variables and `overrides` ([n_overrides] "key=value") say
 * goes over `options` (NULL: all defaults). Errors: CONFIG with file and line. */
BATON_API baton_status baton_sender_create_from_file(const char *path,
                                                     const baton_sender_options *options,
                                                     const char *const *overrides,
                                                     uint32_t n_overrides, baton_sender **sender_p);
/* Cancels what is live, waits for it to drain (bounded by flush_ms, then by force), frees. Events
 * not polled are lost. NULL is allowed. */
BATON_API void baton_sender_destroy(baton_sender *sender);

/* Connects ahead of the first transfer, and keeps the peer connected. Errors: INVALID_ARG. */
BATON_API baton_status baton_sender_connect(baton_sender *sender, const char *host,
                                            uint16_t init_port, uint16_t alloc_port);
/* Registers the engine's memory so that chunks pushed from it need no staging copy where they are
 * contiguous. Borrowed until destroy. Call before the first transfer. Errors: UNSUPPORTED (device
 * memory that the transport cannot reach: chunks of it are staged, and need no registration). */
BATON_API baton_status baton_sender_register(baton_sender *sender, void *base, size_t bytes,
                                             baton_memory_kind kind);

/* Starts a transfer; what fails later comes as an event. Errors: INVALID_ARG, TOO_LARGE,
 * PERMISSION (a notice address that is not allowed), NO_MEMORY, CLOSED. */
BATON_API baton_status baton_transfer_begin(baton_sender *sender,
                                            const baton_transfer_options *options,
                                            baton_transfer *transfer);
/* The receiver may be asked now: of a transfer that asks_later. Chunks may be pushed before. More
 * than once is no error. Errors: NOT_FOUND (ended already), NO_MEMORY. */
BATON_API baton_status baton_transfer_ask(baton_sender *sender, baton_transfer transfer);
/* Chunk `chunk` of the transfer can be read: gathered from paged KV. view (with its planes) is
 * borrowed until SOURCE_FREE, tokens are copied. Each chunk once. Errors: INVALID_ARG,
 * OUT_OF_RANGE, NOT_FOUND (ended already: the chunk gets no SOURCE_FREE), NO_MEMORY. */
BATON_API baton_status baton_transfer_push(baton_sender *sender, baton_transfer transfer,
                                           uint32_t chunk, const baton_kv_view *view,
                                           const baton_kv_tokens *tokens);
/* As push, for a chunk that lies in one piece, in page layout: bytes must be the chunk's. */
BATON_API baton_status baton_transfer_push_bytes(baton_sender *sender, baton_transfer transfer,
                                                 uint32_t chunk, const void *data, size_t bytes);
/* As both of the above, with more to say of the source. Device memory is gathered on the GPU, on a
 * stream of ours; where the transport cannot read it, it goes on through pinned pages. Errors: also
 * UNSUPPORTED (no driver, no GPU; the text says what is missing). */
BATON_API baton_status baton_transfer_push_source(baton_sender *sender, baton_transfer transfer,
                                                  uint32_t chunk, const baton_source *source);
/* Layers [first_layer, first_layer + n_layers) of a chunk can be read: for engines that hand KV
 * over while the forward pass still runs. A view is the whole cache's; data holds these layers
 * only, in page layout. Every layer of a chunk once, in any order and any groups; a chunk is pushed
 * whole or by layers. Each push has its own SOURCE_FREE, soon after the copy: layers are always
 * copied, into the receiver's page or a staging page, which the chunk keeps until its last layer
 * has gone, or, device memory, into a page of ours for this group alone; only a group of registered
 * device memory in one piece is put from where it is. from->order holds for each group by itself.
 * Errors: as push_source; also OUT_OF_RANGE (layers), INVALID_ARG (a layer for the second time). */
BATON_API baton_status baton_transfer_push_layers(baton_sender *sender, baton_transfer transfer,
                                                  uint32_t chunk, uint32_t first_layer,
                                                  uint32_t n_layers, const baton_source *source);
/* How many layers an engine that can push while it computes should push at a time, for a prompt of
 * n_tokens: a quarter of them, or all, when whole chunks are better. Any thread. */
BATON_API uint32_t baton_sender_layer_group(const baton_sender *sender, uint32_t n_tokens);
/* No more pushes: all chunks that the receiver did not have were pushed. DONE follows when they
 * have landed; FAILED with STATE when one was never pushed. Errors: NOT_FOUND (ended already). */
BATON_API baton_status baton_transfer_finish(baton_sender *sender, baton_transfer transfer);
/* FAILED with CANCELED follows, unless the transfer ended first. Errors: NOT_FOUND. */
BATON_API baton_status baton_transfer_cancel(baton_sender *sender, baton_transfer transfer);

/* Takes up to max events; returns how many. */
BATON_API uint32_t baton_sender_poll(baton_sender *sender, baton_sender_event *events,
                                     uint32_t max);
/* Readable while events wait (level triggered); owned by the sender. */
BATON_API int baton_sender_event_fd(baton_sender *sender);
/* BATON_PROGRESS_MANUAL: moves work on; never blocks; returns the milliseconds until it wants to be
 * called again at the latest, also when nothing on its fds happens. 0: at once; nothing may wake
 * you until then. Who polls, coming back at once again and again, is told so for a while although
 * nothing is left to do: it saves everybody the system calls of waking him. */
BATON_API uint32_t baton_sender_progress(baton_sender *sender);
/* BATON_PROGRESS_MANUAL: one fd (epoll) to wait on between progress calls. */
BATON_API int baton_sender_progress_fd(baton_sender *sender);
BATON_API void baton_sender_get_stats(baton_sender *sender, baton_sender_stats *stats);
/* Where questions about it are answered, "unix:..." or "127.0.0.1:..."; "off". Borrowed until
 * destroy. */
BATON_API const char *baton_sender_admin(const baton_sender *sender);
/* Writes up to max of the peers; returns how many there are. */
BATON_API uint32_t baton_sender_peers(baton_sender *sender, baton_sender_peer *peers, uint32_t max);

BATON_END_DECLS
#endif
