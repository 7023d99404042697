/* SPDX-License-Identifier: Apache-2.0 */
/* The data path's seam: memory that a peer may write, workers that carry the writes, endpoints
 * that issue them. Two backends fill bt_transport_ops: `ucx` (UCP: verbs, cuda_ipc, shared memory,
 * tcp) and `loop` (both ends in one process, faults on demand, injected clock).
 *
 *   writer                                                target
 *   transport                                             transport
 *     worker --- endpoint -- put runs, flush, send -->      worker (one per peer)
 *                  \-- remote (imported key) - - - - - ->   memory (registered region)
 *
 * The target makes one worker for each peer, because destroying a worker is the one proof, on
 * paths where bytes wait in a queue of ours (tcp sockets, verbs queue pairs), that this peer's late
 * writes can no longer reach memory; the others go on undisturbed.
 *
 * Nothing blocks. What finishes later is reported once by bt_worker_progress as a bt_event that
 * echoes the caller's user_data; every started operation finishes exactly once, also on failure,
 * close and destroy (destroy reports to nobody).
 *
 * Thread rule: owner thread of the worker; transport and memory calls are for the thread that made
 * the transport. */
#ifndef BT_TRANSPORT_TRANSPORT_H
#define BT_TRANSPORT_TRANSPORT_H
#include <baton/kv.h>
#include <baton/options.h>
#include <baton/status.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "core/clock.h"
#include "core/cudadevice.h"
#include "core/fail.h"

typedef struct bt_transport_ops bt_transport_ops;
typedef struct bt_transport bt_transport; /* base of a backend's own struct; see below */
typedef struct bt_worker bt_worker;
typedef struct bt_endpoint bt_endpoint;
typedef struct bt_memory bt_memory;
typedef struct bt_remote bt_remote;

enum {
    BT_ADDRESS_BYTES_MAX = 4096,  /* of a worker address, which travels in INIT */
    BT_RKEY_BYTES_MAX = 4096,     /* of a packed remote key, which travels in MEMREG */
    BT_SEND_BYTES_MAX = 32 << 10, /* of a message behind the data */
    BT_PATH_TEXT_BYTES = 128,
};

/* A piece that is contiguous on both ends; or `count` of them at regular distances, which may be
 * negative. */
typedef struct {
    uint64_t local_addr;   /* within the call's local memory; device memory is not host-readable */
    uint64_t remote_addr;  /* within the remote region, in the peer's address space */
    uint64_t bytes;        /* of each piece, > 0 */
    uint32_t count;        /* 0: 1 */
    int64_t local_stride;  /* from a piece to the next; not read when there is none */
    int64_t remote_stride; /* also */
} bt_run;

static inline uint32_t bt_run_count(const bt_run *run)
{
    return run->count != 0 ? run->count : 1;
}
/* Where piece i is. */
static inline uint64_t bt_run_local(const bt_run *run, uint32_t i)
{
    return run->local_addr + i * (uint64_t)run->local_stride;
}
static inline uint64_t bt_run_remote(const bt_run *run, uint32_t i)
{
    return run->remote_addr + i * (uint64_t)run->remote_stride;
}
/* Adds the piece that `next` is to the run when it goes on regularly there. False: it does not. */
bool bt_run_join(bt_run *run, const bt_run *next);

typedef enum {
    BT_EVENT_PUT,    /* every run of a put has left local memory: it may be reused (not: arrived) */
    BT_EVENT_FLUSH,  /* every put posted before the flush has arrived at the target */
    BT_EVENT_CLOSED, /* the endpoint is gone, its pointer invalid from here on; the last event of
                        all of it. A failure status: CLOSE_FLUSH could not finish what was posted */
    BT_EVENT_FAILED, /* the endpoint failed; what was posted on it finishes with a failure; close it
                      */
    BT_EVENT_MESSAGE, /* at the target: a peer's bt_endpoint_send */
} bt_event_kind;

typedef struct {
    bt_event_kind kind;
    baton_status status;  /* OK, or why it failed */
    uint64_t user_data;   /* of the call; for FAILED that of bt_endpoint_connect; for
                             MESSAGE 0 */
    const uint8_t *bytes; /* [n_bytes] MESSAGE; valid until the worker's next progress */
    size_t n_bytes;
    char text[BT_PATH_TEXT_BYTES]; /* failure detail, "" when OK */
} bt_event;

typedef enum {
    BT_CLOSE_FLUSH, /* finishes what was posted, then closes */
    BT_CLOSE_FORCE, /* what was posted finishes with CANCELED; legal at any time. Bytes that have
                       left (BT_EVENT_PUT) may still land afterwards: they wait in the target's
                       socket */
} bt_close_mode;

/* What carries the bytes of an endpoint, asked after connecting, for the log line and for rules. */
typedef struct {
    char transport[BT_PATH_TEXT_BYTES]; /* "tcp", "rc_verbs", "loop" ...; "" when unknown */
    char device[BT_PATH_TEXT_BYTES];    /* "lo", "mlx5_0:1" ... */
    uint32_t n_rails;
    bool puts_are_mapped;  /* puts go through memory mapped here: closing proves nothing (inv. 1) */
    bool puts_from_device; /* reads device memory where it is, although its name does not say so */
} bt_path;

typedef struct {
    const char *backend;             /* "ucx" or "loop" */
    const char *const *data_devices; /* [n_data_devices] net devices to bind to; none: "lo" */
    uint32_t n_data_devices;
    baton_memory_kind memory;     /* of most bytes: data_devices "auto" is what is near it */
    bool no_tcp;                  /* data_tcp: off */
    uint32_t n_lanes;             /* connections over each device, see rails.h; 0: 1 */
    const char *transports;       /* UCX transport list, NULL: chosen by us; UCX_TLS wins */
    const bt_clock *clock;        /* NULL: monotonic */
    struct bt_loop_net *loop_net; /* loop only: the network both ends share, borrowed */
} bt_transport_options;

struct bt_transport_ops {
    const char *name;
    baton_status (*create)(const bt_transport_options *options, bt_transport **transport_p);
    void (*destroy)(bt_transport *transport);

    /* Host memory, whose kind may be HOST or CUDA_HOST: the seam pins it, and allocates on devices.
     */
    baton_status (*memory_alloc)(bt_transport *transport, size_t bytes, baton_memory_kind kind,
                                 bt_memory **memory_p);
    baton_status (*memory_register)(bt_transport *transport, void *base, size_t bytes,
                                    baton_memory_kind kind, bt_memory **memory_p);
    void (*memory_free)(bt_memory *memory);

    baton_status (*worker_create)(bt_transport *transport, bt_worker **worker_p);
    void (*worker_destroy)(bt_worker *worker);
    int (*worker_fd)(bt_worker *worker);
    baton_status (*worker_arm)(bt_worker *worker);
    uint32_t (*worker_progress)(bt_worker *worker, bt_event *events, uint32_t max);
    void (*worker_observe)(bt_worker *worker); /* NULL: nothing of ours copies elsewhere */

    baton_status (*connect)(bt_worker *worker, const void *address, size_t address_bytes,
                            uint64_t user_data, bt_endpoint **endpoint_p);
    void (*close)(bt_endpoint *endpoint, bt_close_mode mode, uint64_t user_data);
    void (*path)(bt_endpoint *endpoint, bt_path *out);

    baton_status (*import)(bt_endpoint *endpoint, const void *rkey, size_t rkey_bytes,
                           bt_remote **remote_p);
    void (*release)(bt_remote *remote);
    baton_status (*map)(bt_remote *remote, uint64_t remote_addr, void **local_p);
    bool (*populate)(bt_remote *remote, uint64_t remote_addr, uint64_t bytes);

    baton_status (*put)(bt_endpoint *endpoint, bt_memory *local, bt_remote *remote,
                        const bt_run *runs, uint32_t n_runs, uint64_t user_data);
    baton_status (*flush)(bt_endpoint *endpoint, uint64_t user_data);
    baton_status (*send)(bt_endpoint *endpoint, const void *bytes, size_t n_bytes);
};

/* First member of every backend's struct of the same role. */
struct bt_transport {
    const bt_transport_ops *ops;
    bool reaches_device; /* set by create: puts read and write CUDA device memory themselves */
    /* NULL until the first CUDA memory; then current in every call of the backend's. Release by the
     * call that opens it, acquire by the others. */
    _Atomic(bt_cuda *) cuda;
    bt_transport *seam; /* whose part this is and whose cuda counts: set up before its workers. Of
                           lanes and their users alone */
    bool is_abandoned;  /* and in the list of those */
    bt_transport *next_abandoned;
};
struct bt_worker {
    bt_transport *transport;
    const uint8_t *address; /* [address_bytes] opaque to others, owned by the worker */
    size_t address_bytes;
};
struct bt_endpoint {
    bt_worker *worker;
    bool may_not_attach; /* set by the owner before it imports keys: the peer's shared memory is
                            another user's; nothing of it can be mapped then */
};
struct bt_memory {
    bt_transport *transport;
    void *base;
    size_t bytes;
    baton_memory_kind kind;
    bool is_pinned;      /* base was pinned by alloc */
    bool is_device_own;  /* base was allocated on the device by alloc */
    const uint8_t *rkey; /* [rkey_bytes] packed remote key for the peer, owned by the memory */
    size_t rkey_bytes;
};
struct bt_remote {
    bt_endpoint *endpoint;
    uint64_t base; /* of the region in the peer's address space; runs are checked against it */
    uint64_t bytes;
    baton_memory_kind kind;
};

/* Opens the backend that options name. Errors: INVALID_ARG (unknown backend; the text lists those
 * there are), UNSUPPORTED, TRANSPORT, NO_MEMORY. */
baton_status bt_transport_create(const bt_transport_options *options, bt_transport **transport_p);
/* As create, from a user's options, for memory of this kind; no backend named: "ucx". */
baton_status bt_transport_open(const baton_data_path *data, baton_memory_kind memory,
                               bt_transport **transport_p);
/* The GPU that CUDA memory of this transport is on; opened at the first call. Borrowed until
 * destroy. Any thread. Errors: UNSUPPORTED, NO_MEMORY, IO. */
baton_status bt_transport_cuda(bt_transport *transport, bt_cuda **cuda_p);
/* Makes that GPU current on this thread, as UCX's CUDA transports want it: for the seam itself, and
 * for threads behind it. NULL: there is none, or it cannot be; leave takes that too. Any thread. */
bt_cuda *bt_transport_enter(const bt_transport *transport);
void bt_transport_leave(const bt_cuda *entered);
/* All workers and memories must be gone. NULL is allowed. */
void bt_transport_destroy(bt_transport *transport);

/* New memory that is registered and, where the transport allows it, mappable by peers on this host
 * (device memory never is; pinned memory is, like other host memory). Zeroed and populated (first
 * touch is paid here, not in a request). Errors: NO_MEMORY, TRANSPORT; for CUDA kinds also
 * UNSUPPORTED: no driver, no GPU, or, for device memory, a transport without reaches_device. */
baton_status bt_memory_alloc(bt_transport *transport, size_t bytes, baton_memory_kind kind,
                             bt_memory **memory_p);
/* Registers the caller's memory (region kind `engine`), borrowed until bt_memory_free. Errors as
 * alloc; INVALID_ARG (device memory is wanted, and this is none). */
baton_status bt_memory_register(bt_transport *transport, void *base, size_t bytes,
                                baton_memory_kind kind, bt_memory **memory_p);
/* Deregisters; frees what alloc made. NULL is allowed. */
void bt_memory_free(bt_memory *memory);
/* Instead of free: a device that does not answer may still write it. It stays as it is, and with it
 * its transport, which must be abandoned too. NULL is allowed. */
void bt_memory_abandon(bt_memory *memory);
/* From now on bt_transport_destroy leaves everything as it is, until the process ends. */
void bt_transport_abandon(bt_transport *transport);

baton_status bt_worker_create(bt_transport *transport, bt_worker **worker_p);
/* Closes by force what is still open; remotes must be released before. After it no queued write of
 * a peer reaches memory (mapped writers excepted). Does not wait for peers. NULL is allowed. */
void bt_worker_destroy(bt_worker *worker);
/* To be polled for reading after bt_worker_arm said OK. */
int bt_worker_fd(bt_worker *worker);
/* OK: the fd will wake up; ERR_BUSY: there is work already, progress again. */
baton_status bt_worker_arm(bt_worker *worker);
/* Moves work on; writes up to max events; returns how many. */
uint32_t bt_worker_progress(bt_worker *worker, bt_event *events, uint32_t max);
/* Orders this thread with those of ours that copy what peers put (lane.h): every byte of which the
 * peer has heard that it landed is this thread's to read from here on, and memory that the peer
 * hears of from here on is theirs to write. To be called before what a peer says of what has landed
 * is believed, and before it is told where it may write. Any thread. NULL is allowed. */
void bt_worker_observe(bt_worker *worker);

/* Starts connecting; usable at once, failure comes as BT_EVENT_FAILED. Errors: INVALID_ARG (bytes
 * that are no address), VERSION_MISMATCH (of another backend or UCX), UNREACHABLE, NO_MEMORY. */
baton_status bt_endpoint_connect(bt_worker *worker, const void *address, size_t address_bytes,
                                 uint64_t user_data, bt_endpoint **endpoint_p);
/* Ends in BT_EVENT_CLOSED. No other call on the endpoint or its remotes after this one (release the
 * remotes first). */
void bt_endpoint_close(bt_endpoint *endpoint, bt_close_mode mode, uint64_t user_data);
void bt_endpoint_path(bt_endpoint *endpoint, bt_path *path);

/* Errors: INVALID_ARG (bytes that are no key), VERSION_MISMATCH, UNREACHABLE. */
baton_status bt_remote_import(bt_endpoint *endpoint, const void *rkey, size_t rkey_bytes,
                              bt_remote **remote_p);
void bt_remote_release(bt_remote *remote); /* NULL is allowed. */
/* Where remote_addr of the region can be written with plain stores from here. Errors: UNREACHABLE,
 * when it cannot be mapped. Borrowed until the remote is released. */
baton_status bt_remote_map(bt_remote *remote, uint64_t remote_addr, void **local_p);
/* Faults [remote_addr, remote_addr + bytes) of what is mapped in, keeping what is there: the first
 * store into each page is several times slower than the next. The caller waits for it, 0.2 us and
 * more for a page of 4 KiB. False: it was not done (Linux before 5.14; not mapped; outside of the
 * region), and stores pay for themselves. */
bool bt_remote_populate(bt_remote *remote, uint64_t remote_addr, uint64_t bytes);

/* Posts all runs, or none (an error return is the only report then); one BT_EVENT_PUT when all have
 * left local memory. The list is read before it returns. local is NULL for host memory that was
 * never registered. Errors: NO_MEMORY, TRANSPORT, CLOSED (the endpoint has failed), INVALID_ARG
 * (n_runs or a run's bytes 0, or a run outside local or outside the remote region). */
baton_status bt_endpoint_put(bt_endpoint *endpoint, bt_memory *local, bt_remote *remote,
                             const bt_run *runs, uint32_t n_runs, uint64_t user_data);
/* One BT_EVENT_FLUSH when everything posted before is visible at the target. It fails with REFUSED
 * when the target turned a put down, because its memory was freed since (ucx over tcp; loop fails
 * the endpoint instead). */
baton_status bt_endpoint_flush(bt_endpoint *endpoint, uint64_t user_data);

/* Sends bytes[n_bytes] behind the data, copied at once: BT_EVENT_MESSAGE at the target's worker,
 * once everything put on the endpoint before is visible there and every message before has been
 * reported, whichever lanes carried them. No event here; lost only with the endpoint (which fails
 * with REFUSED when the target turned down one of those puts), and by closing it. Errors:
 * NO_MEMORY, TRANSPORT, CLOSED (the endpoint has failed), INVALID_ARG (n_bytes 0 or over
 * BT_SEND_BYTES_MAX). */
baton_status bt_endpoint_send(bt_endpoint *endpoint, const void *bytes, size_t n_bytes);

/* What this process has open of every transport, for tests and soaks. Any thread. */
typedef struct {
    uint64_t workers, memories, remotes;
} bt_transport_counts;
bt_transport_counts bt_transport_live(void);
/* One more, or one less, of a kind; for the seam itself. */
typedef enum { BT_LIVE_WORKERS, BT_LIVE_MEMORIES, BT_LIVE_REMOTES, BT_LIVE_KINDS } bt_live_kind;
void bt_transport_count(bt_live_kind kind, int64_t change);

extern const bt_transport_ops bt_ucx_ops;
extern const bt_transport_ops bt_loop_ops;

#endif
