/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of a lane: what its owner (lane.c) and its thread (lane_thread.c) share. lane.h has the
 * rule of who may touch what. */
#ifndef BT_TRANSPORT_LANE_STATE_H
#define BT_TRANSPORT_LANE_STATE_H
#include <pthread.h>

#include "core/doorbell.h"
#include "transport/lane.h"

enum {
    BT_LANE_RING_EVENTS = 64, /* of a worker; more wait with the inner worker */
    BT_LANE_EVENTS_AT_ONCE = 16,
};

typedef struct lane_call lane_call;
typedef struct lane_worker lane_worker;
typedef struct lane_endpoint lane_endpoint;

/* Something for the thread to do; who owns it says `run`. */
struct lane_call {
    lane_call *next;
    void (*run)(lane_call *call); /* on the thread */
};

typedef struct {
    lane_call *first, *last;
} lane_calls;

typedef struct {
    bt_transport base;
    bt_transport *inner; /* owned */
    pthread_t thread;
    bool has_thread;
    bt_doorbell *bell; /* wakes the thread */
    pthread_mutex_t lock;
    pthread_cond_t answered;
    lane_calls calls; /* not run yet; under lock */
    /* The thread's alone. */
    int fd; /* epoll over the bell and the inner workers' fds */
    lane_worker *workers;
    bool must_stop;
} lane_transport;

/* Bytes of a message, for as long as its event is valid. */
typedef struct lane_copy {
    struct lane_copy *next;
    uint8_t bytes[];
} lane_copy;

/* An event on its way to the owner. */
typedef struct {
    bt_event event;
    lane_copy *copy;       /* its bytes, owned; NULL: no message */
    lane_endpoint *closed; /* gone with this event; NULL: none */
} lane_report;

struct lane_worker {
    bt_worker base;       /* its address is the inner worker's */
    bt_doorbell *bell;    /* wakes the owner */
    pthread_mutex_t lock; /* of the four below */
    lane_report ring[BT_LANE_RING_EVENTS];
    uint32_t first, n;
    bool is_stalled; /* there is more than the ring can take */
    /* The thread's alone. */
    bt_worker *inner; /* NULL: not made */
    lane_worker *next;
    lane_calls failed; /* lane_op whose failure is not reported yet */
    bt_event found[BT_LANE_EVENTS_AT_ONCE];
    uint32_t n_found, n_told; /* of found */
    /* The owner's alone. */
    lane_endpoint *endpoints;
    lane_copy *reported; /* valid until the next progress */
    bool has_slept;      /* armed since the last progress: the bell's fd may be readable */
};

/* A call that ends in no event of its own when it cannot be done. */
typedef struct {
    lane_call base;
    lane_endpoint *endpoint;
    bt_event event; /* of its failure: kind and user_data from the start */
    bt_memory *local;
    bt_remote *remote; /* inner */
    size_t n;          /* of runs, or bytes in their place */
    bt_run runs[];
} lane_op;

struct lane_endpoint {
    bt_endpoint base;
    lane_endpoint *next; /* the owner's */
    bt_endpoint *inner;  /* the thread's */
    uint64_t connect_user_data, close_user_data;
    bt_close_mode mode;
    bool has_failed;      /* the thread's: FAILED has been reported */
    lane_call close_call; /* embedded, so that closing needs no memory */
};

typedef struct {
    bt_remote base;
    bt_remote *inner;       /* the thread's */
    lane_call release_call; /* also */
} lane_remote;

/* Any thread: queues the call. */
void bt_lane_post(lane_transport *lane, lane_call *call);
/* Runs fn(ctx) on the thread and waits for it; its status, with its text. */
baton_status bt_lane_ask(lane_transport *lane, baton_status (*fn)(void *ctx), void *ctx);

/* Errors: NO_MEMORY, IO. */
baton_status bt_lane_thread_start(lane_transport *lane);
/* After its workers are gone; what was posted before runs. */
void bt_lane_thread_stop(lane_transport *lane);

/* On the thread. The worker gets turns, or no more: its failures are dropped. Errors: IO. */
baton_status bt_lane_worker_enter(lane_worker *worker);
void bt_lane_worker_leave(lane_worker *worker);
/* The call ends: its failure (baton_last_error has the text) is reported, success is not. */
void bt_lane_op_end(lane_op *op, baton_status status);

#endif
