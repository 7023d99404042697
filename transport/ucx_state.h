/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of the ucx backend: the structs behind the seam's types, and what its files share.
 * Foreign callbacks only record and push to the worker's done queue. */
#ifndef BT_TRANSPORT_UCX_STATE_H
#define BT_TRANSPORT_UCX_STATE_H
#include <pthread.h>
#include <ucp/api/ucp.h>

#include "transport/transport_op.h"

/* Free before UCX makes a worker or a connection: UCX 1.13 aborts when it cannot have a thread's
 * stack, and crashes when it cannot have a few buffers. */
enum { BT_UCX_ROOM_BYTES = 64 << 20 };

typedef struct ucx_memory ucx_memory;
typedef struct ucx_endpoint ucx_endpoint;

typedef struct {
    bt_transport base;
    ucp_context_h context;
    bool has_left_workers; /* that could not be destroyed */
    bool has_verbs;        /* RDMA devices are named */
    pthread_mutex_t lock;  /* of the two below: workers of other threads look memories up */
    ucx_memory *memories;
    uint32_t n_users; /* workers and memories */
} ucx_transport;

struct ucx_memory {
    bt_memory base;
    ucx_memory *next;
    ucp_mem_h handle;
};

typedef struct ucx_held ucx_held;
typedef struct ucx_message ucx_message;
struct ucx_message_slab;

/* Bytes of a bt_endpoint_send, at either end. */
typedef struct ucx_note {
    struct ucx_note *next;
    uint64_t endpoint_id;
    uint64_t
        n_before; /* target: messages that must have landed before; writer: puts to be flushed */
    size_t n_bytes;
    uint8_t bytes[];
} ucx_note;

typedef struct {
    ucx_note *first, *last;
    uint32_t n;
    size_t n_bytes; /* of all */
} ucx_notes;

/* What a peer's endpoint has sent here in messages (ucx_message.h). */
typedef struct {
    uint64_t endpoint_id;
    uint64_t n_landed; /* messages below this number have landed, all of them */
    uint64_t n_refused;
    uint64_t *ahead; /* bits of those above it that have come, by number % window; NULL: none */
} ucx_sender;

typedef struct {
    bt_worker base;
    ucp_worker_h handle;
    int fd; /* UCX's, closed with the worker */
    ucx_endpoint *endpoints;
    bt_op_pool pool;
    bt_op_queue done;
    uint32_t n_closing;         /* endpoints that wait for their puts before they close */
    uint32_t n_parked;          /* endpoints with something parked */
    ucx_message *free_messages; /* messages of ours; slabs live as long as the worker */
    struct ucx_message_slab *slabs;
    uint32_t n_answers;    /* of ours that have not left */
    ucp_datatype_t packed; /* several pieces as one message; has_packed: it was made */
    bool has_packed;
    ucx_sender *senders; /* [n_senders], room for cap_senders */
    uint32_t n_senders, cap_senders;
    ucx_notes held;     /* messages that came before what they must stay behind */
    ucx_notes received; /* to be reported */
    ucx_notes reported; /* valid until the next progress */
} ucx_worker;

/* Where the last put of a kind of memory went; key NULL: nowhere yet. */
typedef struct {
    ucp_rkey_h key;
    uint64_t address;
} ucx_last_put;

struct ucx_endpoint {
    bt_endpoint base;
    ucx_endpoint *next;
    ucp_ep_h handle;      /* NULL once handed back to UCX */
    bt_op failed, closed; /* embedded, so that reporting them needs no memory */
    bt_op last_flush;     /* of a closing endpoint whose puts go in messages; never reported */
    bt_op note_flush;     /* of puts that notes must stay behind; never reported */
    uint32_t n_ops;       /* puts and flushes that have not finished */
    uint32_t n_remotes;
    bool has_failed, is_closing, is_forced;
    bool is_handed_back; /* to UCX, which closes it */
    bool ucx_is_done;    /* UCX has let go of the handle */
    bool uses_messages;  /* for puts to host memory */
    bool waits_to_close;
    bool is_flushing_for_notes;
    bool uses_verbs;           /* puts go over a queue pair */
    bool is_wired;             /* the peer has answered */
    bt_op hello;               /* finds that out; never reported */
    ucx_held *held;            /* what is posted then */
    ucx_last_put last_puts[2]; /* to host memory, to device memory */
    uint64_t read_back;        /* what reading back brings; nobody looks at it */
    uint32_t n_read_backs;
    uint64_t n_rma_puts, n_rma_flushed; /* put calls outside of messages, and flushed ones */
    ucx_notes notes;                    /* wait for them */
    uint64_t id;                        /* random; names us to the target */
    uint64_t n_messages;                /* puts and notes in messages so far */
    ucx_message *parked;                /* not sent yet; NULL: nothing */
    uint32_t n_parked_entries;          /* of its list */
    uint64_t parked_bytes, parked_number;
    uint64_t next_flush;
    bt_op_queue flushes; /* whose answer has not come; tag is the flush's number */
};

typedef struct {
    bt_remote base;
    ucp_rkey_h handle;
    bool is_released; /* lives on for what is held */
    uint32_t n_held;
} ucx_remote;

/* Packed worker addresses and keys are only understood by the same UCX. */
void bt_ucx_version(uint16_t *major, uint16_t *minor);
/* Whether the UCX that runs is older than 1.minor. */
bool bt_ucx_is_older(uint16_t minor);

baton_status bt_status_from_ucs(ucs_status_t status);
/* bt_fail with the status's meaning and UCX's text behind ours. */
__attribute__((format(printf, 2, 3))) baton_status bt_fail_ucs(ucs_status_t status,
                                                               const char *format, ...);

baton_status bt_ucx_memory_alloc(bt_transport *transport, size_t bytes, baton_memory_kind kind,
                                 bt_memory **memory_p);
baton_status bt_ucx_memory_register(bt_transport *transport, void *base, size_t bytes,
                                    baton_memory_kind kind, bt_memory **memory_p);
void bt_ucx_memory_free(bt_memory *memory);
baton_status bt_ucx_worker_create(bt_transport *transport, bt_worker **worker_p);
void bt_ucx_worker_destroy(bt_worker *worker);
int bt_ucx_worker_fd(bt_worker *worker);
baton_status bt_ucx_worker_arm(bt_worker *worker);
uint32_t bt_ucx_worker_progress(bt_worker *worker, bt_event *events, uint32_t max);
void bt_ucx_worker_observe(bt_worker *worker);
baton_status bt_ucx_connect(bt_worker *worker, const void *address, size_t address_bytes,
                            uint64_t user_data, bt_endpoint **endpoint_p);
void bt_ucx_close(bt_endpoint *endpoint, bt_close_mode mode, uint64_t user_data);
/* Lets go of the endpoint whatever it is doing; for a worker that is destroyed. */
void bt_ucx_force(ucx_endpoint *endpoint);
/* UCX cannot let go of the endpoint without ending the process (see ucx_endpoint.c). */
bool bt_ucx_is_stuck(const ucx_endpoint *endpoint);
/* Closes endpoints that have waited for their puts. */
void bt_ucx_close_waiting(ucx_worker *worker);
/* Once UCX has let go and every operation has been finished: queues CLOSED. */
void bt_ucx_try_close(ucx_endpoint *endpoint);
void bt_ucx_path(bt_endpoint *endpoint, bt_path *out);
/* Whether puts may go over queue pairs (rc, dc). */
bool bt_ucx_path_has_queue_pairs(const bt_path *path);
baton_status bt_ucx_import(bt_endpoint *endpoint, const void *rkey, size_t rkey_bytes,
                           bt_remote **remote_p);
void bt_ucx_release(bt_remote *remote);
baton_status bt_ucx_map(bt_remote *remote, uint64_t remote_addr, void **local_p);
bool bt_ucx_populate(bt_remote *remote, uint64_t remote_addr, uint64_t bytes);
baton_status bt_ucx_put(bt_endpoint *endpoint, bt_memory *local, bt_remote *remote,
                        const bt_run *runs, uint32_t n_runs, uint64_t user_data);
baton_status bt_ucx_flush(bt_endpoint *endpoint, uint64_t user_data);
baton_status bt_ucx_send(bt_endpoint *endpoint, const void *bytes, size_t n_bytes);

/* ucx_wire.c: what goes over queue pairs is held as another part of op until the peer has answered.
 * wire starts to find out; drop ends what is held. */
ucs_status_t bt_ucx_wire(ucx_endpoint *endpoint);
bool bt_ucx_must_hold(const ucx_endpoint *endpoint);
ucs_status_t bt_ucx_hold(bt_op *op, bt_memory *local, bt_remote *remote, const bt_run *runs,
                         uint32_t n_runs);
void bt_ucx_drop_held(ucx_endpoint *endpoint, baton_status status, const char *detail);
void bt_ucx_remote_free(ucx_remote *remote);
/* Posts as parts of op. A flush over queue pairs reads back behind it. */
ucs_status_t bt_ucx_post_runs(bt_op *op, bt_memory *local, bt_remote *remote, const bt_run *runs,
                              uint32_t n_runs);
ucs_status_t bt_ucx_post_flush(bt_op *op);

/* The endpoint is of no more use: reports FAILED once. detail is static. */
void bt_ucx_fail(ucx_endpoint *endpoint, baton_status status, const char *detail);
/* One part of the operation has finished; the last one queues it for reporting. */
void bt_ucx_finish_part(bt_op *op);
void bt_ucx_record_failure(bt_op *op, ucs_status_t status);

#endif
