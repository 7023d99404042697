/* SPDX-License-Identifier: Apache-2.0 */
/* The owner's side of a lane: the table of operations. */
#include "transport/lane.h"

#include <assert.h>
#include <string.h>

#include "core/alloc.h"
#include "transport/lane_state.h"

static lane_transport *lane_of(const bt_endpoint *endpoint)
{
    return (lane_transport *)endpoint->worker->transport;
}

static const bt_transport_ops *inner_ops(const bt_endpoint *endpoint)
{
    return lane_of(endpoint)->inner->ops;
}

static baton_status lane_memory_alloc(bt_transport *base, size_t bytes, baton_memory_kind kind,
                                      bt_memory **memory_p)
{
    bt_transport *inner = ((lane_transport *)base)->inner;
    return inner->ops->memory_alloc(inner, bytes, kind, memory_p);
}

static baton_status lane_memory_register(bt_transport *base, void *block, size_t bytes,
                                         baton_memory_kind kind, bt_memory **memory_p)
{
    bt_transport *inner = ((lane_transport *)base)->inner;
    return inner->ops->memory_register(inner, block, bytes, kind, memory_p);
}

static baton_status open_inner(void *ctx)
{
    lane_worker *worker = ctx;
    bt_transport *inner = ((lane_transport *)worker->base.transport)->inner;
    BATON_TRY(inner->ops->worker_create(inner, &worker->inner));
    worker->base.address = worker->inner->address;
    worker->base.address_bytes = worker->inner->address_bytes;
    return bt_lane_worker_enter(worker);
}

static baton_status close_inner(void *ctx)
{
    lane_worker *worker = ctx;
    bt_lane_worker_leave(worker);
    worker->inner->transport->ops->worker_destroy(worker->inner);
    return BATON_OK;
}

static void free_copies(lane_copy *copy)
{
    while (copy != NULL) {
        lane_copy *next = copy->next;
        bt_free(copy);
        copy = next;
    }
}

static void lane_worker_destroy(bt_worker *base)
{
    lane_worker *worker = (lane_worker *)base;
    if (worker->inner != NULL)
        bt_lane_ask((lane_transport *)base->transport, close_inner, worker);
    for (uint32_t i = 0; i < worker->n; i++)
        bt_free(worker->ring[(worker->first + i) % BT_LANE_RING_EVENTS].copy);
    free_copies(worker->reported);
    while (worker->endpoints != NULL) {
        lane_endpoint *endpoint = worker->endpoints;
        worker->endpoints = endpoint->next;
        bt_free(endpoint);
    }
    bt_doorbell_destroy(worker->bell);
    pthread_mutex_destroy(&worker->lock);
    bt_free(worker);
}

static baton_status lane_worker_create(bt_transport *base, bt_worker **worker_p)
{
    lane_worker *worker = bt_calloc(1, sizeof(*worker));
    if (worker == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "lane: no memory for a worker");
    worker->base.transport = base;
    pthread_mutex_init(&worker->lock, NULL);
    baton_status status = bt_doorbell_create(&worker->bell);
    if (status == BATON_OK)
        status = bt_lane_ask((lane_transport *)base, open_inner, worker);
    if (status == BATON_OK)
        *worker_p = &worker->base;
    else
        lane_worker_destroy(&worker->base);
    return status;
}

static int lane_worker_fd(bt_worker *base)
{
    return bt_doorbell_fd(((lane_worker *)base)->bell);
}

/* Whatever was reported since the last progress has rung. */
static baton_status lane_worker_arm(bt_worker *base)
{
    lane_worker *worker = (lane_worker *)base;
    pthread_mutex_lock(&worker->lock);
    bool is_empty = worker->n == 0;
    pthread_mutex_unlock(&worker->lock);
    if (!is_empty || !bt_doorbell_sleep(worker->bell))
        return BATON_ERR_BUSY;
    worker->has_slept = true;
    return BATON_OK;
}

static uint32_t take_reports(lane_worker *worker, lane_report *reports, uint32_t max)
{
    uint32_t n = 0;
    pthread_mutex_lock(&worker->lock);
    for (; n < max && worker->n > 0; n++, worker->n--) {
        reports[n] = worker->ring[worker->first];
        worker->first = (worker->first + 1) % BT_LANE_RING_EVENTS;
    }
    bool has_made_room = n > 0 && worker->is_stalled;
    worker->is_stalled = worker->is_stalled && !has_made_room;
    pthread_mutex_unlock(&worker->lock);
    if (has_made_room)
        bt_doorbell_ring(((lane_transport *)worker->base.transport)->bell);
    return n;
}

static void free_endpoint(lane_endpoint *endpoint)
{
    lane_endpoint **at = &((lane_worker *)endpoint->base.worker)->endpoints;
    while (*at != endpoint)
        at = &(*at)->next;
    *at = endpoint->next;
    bt_free(endpoint);
}

static uint32_t lane_worker_progress(bt_worker *base, bt_event *events, uint32_t max)
{
    lane_worker *worker = (lane_worker *)base;
    lane_report reports[BT_LANE_EVENTS_AT_ONCE];
    free_copies(worker->reported);
    worker->reported = NULL;
    bt_doorbell_wake(worker->bell);
    if (worker->has_slept)
        bt_doorbell_silence(worker->bell);
    worker->has_slept = false;
    uint32_t n =
        take_reports(worker, reports, max < BT_LANE_EVENTS_AT_ONCE ? max : BT_LANE_EVENTS_AT_ONCE);
    for (uint32_t i = 0; i < n; i++) {
        events[i] = reports[i].event;
        if (reports[i].copy != NULL) {
            reports[i].copy->next = worker->reported;
            worker->reported = reports[i].copy;
        }
        if (reports[i].closed != NULL)
            free_endpoint(reports[i].closed);
    }
    return n;
}

static void lane_worker_observe(bt_worker *base)
{
    bt_worker *inner = ((lane_worker *)base)->inner;
    if (inner->transport->ops->worker_observe != NULL)
        inner->transport->ops->worker_observe(inner);
}

typedef struct {
    lane_endpoint *endpoint;
    const void *bytes; /* an address or a key */
    size_t n_bytes;
    lane_remote *remote;
    bt_path *path;
    uint64_t remote_addr, range_bytes;
    void **local_p;
} lane_subject;

static baton_status connect_inner(void *ctx)
{
    lane_subject *subject = ctx;
    lane_endpoint *endpoint = subject->endpoint;
    return inner_ops(&endpoint->base)
        ->connect(((lane_worker *)endpoint->base.worker)->inner, subject->bytes, subject->n_bytes,
                  (uint64_t)(uintptr_t)endpoint, &endpoint->inner);
}

static baton_status lane_connect(bt_worker *base, const void *address, size_t address_bytes,
                                 uint64_t user_data, bt_endpoint **endpoint_p)
{
    lane_worker *worker = (lane_worker *)base;
    lane_endpoint *endpoint = bt_calloc(1, sizeof(*endpoint));
    if (endpoint == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "lane: no memory for an endpoint");
    endpoint->base.worker = base;
    endpoint->connect_user_data = user_data;
    lane_subject subject = {.endpoint = endpoint, .bytes = address, .n_bytes = address_bytes};
    baton_status status = bt_lane_ask(lane_of(&endpoint->base), connect_inner, &subject);
    if (status != BATON_OK) {
        bt_free(endpoint);
        return status;
    }
    endpoint->next = worker->endpoints;
    worker->endpoints = endpoint;
    *endpoint_p = &endpoint->base;
    return BATON_OK;
}

#define ENDPOINT_OF_CLOSE(call) \
    ((lane_endpoint *)((char *)(call)-offsetof(lane_endpoint, close_call)))
#define REMOTE_OF_RELEASE(call) \
    ((lane_remote *)((char *)(call)-offsetof(lane_remote, release_call)))

static void run_close(lane_call *call)
{
    lane_endpoint *endpoint = ENDPOINT_OF_CLOSE(call);
    inner_ops(&endpoint->base)
        ->close(endpoint->inner, endpoint->mode, (uint64_t)(uintptr_t)endpoint);
}

static void lane_close(bt_endpoint *base, bt_close_mode mode, uint64_t user_data)
{
    lane_endpoint *endpoint = (lane_endpoint *)base;
    endpoint->mode = mode;
    endpoint->close_user_data = user_data;
    endpoint->close_call.run = run_close;
    bt_lane_post(lane_of(base), &endpoint->close_call);
}

static baton_status ask_path(void *ctx)
{
    lane_subject *subject = ctx;
    bt_endpoint *inner = subject->endpoint->inner;
    inner->worker->transport->ops->path(inner, subject->path);
    return BATON_OK;
}

static void lane_path(bt_endpoint *base, bt_path *out)
{
    lane_subject subject = {.endpoint = (lane_endpoint *)base, .path = out};
    bt_lane_ask(lane_of(base), ask_path, &subject);
}

static baton_status import_inner(void *ctx)
{
    lane_subject *subject = ctx;
    bt_endpoint *inner = subject->endpoint->inner;
    inner->may_not_attach = subject->endpoint->base.may_not_attach;
    return inner->worker->transport->ops->import(inner, subject->bytes, subject->n_bytes,
                                                 &subject->remote->inner);
}

static baton_status lane_import(bt_endpoint *base, const void *rkey, size_t rkey_bytes,
                                bt_remote **remote_p)
{
    lane_remote *remote = bt_calloc(1, sizeof(*remote));
    if (remote == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "lane: no memory for a remote key");
    lane_subject subject = {
        .endpoint = (lane_endpoint *)base, .bytes = rkey, .n_bytes = rkey_bytes, .remote = remote};
    baton_status status = bt_lane_ask(lane_of(base), import_inner, &subject);
    if (status != BATON_OK) {
        bt_free(remote);
        return status;
    }
    remote->base = *remote->inner;
    remote->base.endpoint = base;
    *remote_p = &remote->base;
    return BATON_OK;
}

static void run_release(lane_call *call)
{
    lane_remote *remote = REMOTE_OF_RELEASE(call);
    inner_ops(remote->base.endpoint)->release(remote->inner);
    bt_free(remote);
}

/* Behind the puts that name it. */
static void lane_release(bt_remote *base)
{
    lane_remote *remote = (lane_remote *)base;
    remote->release_call.run = run_release;
    bt_lane_post(lane_of(base->endpoint), &remote->release_call);
}

static baton_status map_inner(void *ctx)
{
    lane_subject *subject = ctx;
    return inner_ops(subject->remote->base.endpoint)
        ->map(subject->remote->inner, subject->remote_addr, subject->local_p);
}

static baton_status lane_map(bt_remote *base, uint64_t remote_addr, void **local_p)
{
    lane_subject subject = {
        .remote = (lane_remote *)base, .remote_addr = remote_addr, .local_p = local_p};
    return bt_lane_ask(lane_of(base->endpoint), map_inner, &subject);
}

static baton_status populate_inner(void *ctx)
{
    lane_subject *subject = ctx;
    bool is_done =
        inner_ops(subject->remote->base.endpoint)
            ->populate(subject->remote->inner, subject->remote_addr, subject->range_bytes);
    return is_done ? BATON_OK : BATON_IN_PROGRESS;
}

static bool lane_populate(bt_remote *base, uint64_t remote_addr, uint64_t bytes)
{
    lane_subject subject = {
        .remote = (lane_remote *)base, .remote_addr = remote_addr, .range_bytes = bytes};
    return bt_lane_ask(lane_of(base->endpoint), populate_inner, &subject) == BATON_OK;
}

/* kind and user_data: of the event that tells of its failure. */
static baton_status make_op(bt_endpoint *base, size_t extra_bytes, bt_event_kind kind,
                            uint64_t user_data, void (*run)(lane_call *), lane_op **op_p)
{
    lane_op *op = bt_calloc(1, sizeof(*op) + extra_bytes);
    if (op == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "lane: no memory for an operation");
    op->base.run = run;
    op->endpoint = (lane_endpoint *)base;
    op->event = (bt_event){.kind = kind, .user_data = user_data};
    *op_p = op;
    return BATON_OK;
}

static void run_put(lane_call *call)
{
    lane_op *op = (lane_op *)call;
    bt_lane_op_end(op, inner_ops(&op->endpoint->base)
                           ->put(op->endpoint->inner, op->local, op->remote, op->runs,
                                 (uint32_t)op->n, op->event.user_data));
}

static baton_status lane_put(bt_endpoint *base, bt_memory *local, bt_remote *remote,
                             const bt_run *runs, uint32_t n_runs, uint64_t user_data)
{
    lane_op *op = NULL;
    BATON_TRY(make_op(base, n_runs * sizeof(*runs), BT_EVENT_PUT, user_data, run_put, &op));
    op->local = local;
    op->remote = ((lane_remote *)remote)->inner;
    op->n = n_runs;
    memcpy(op->runs, runs, n_runs * sizeof(*runs));
    bt_lane_post(lane_of(base), &op->base);
    return BATON_OK;
}

static void run_flush(lane_call *call)
{
    lane_op *op = (lane_op *)call;
    bt_lane_op_end(op,
                   inner_ops(&op->endpoint->base)->flush(op->endpoint->inner, op->event.user_data));
}

static baton_status lane_flush(bt_endpoint *base, uint64_t user_data)
{
    lane_op *op = NULL;
    BATON_TRY(make_op(base, 0, BT_EVENT_FLUSH, user_data, run_flush, &op));
    bt_lane_post(lane_of(base), &op->base);
    return BATON_OK;
}

static void run_send(lane_call *call)
{
    lane_op *op = (lane_op *)call;
    bt_lane_op_end(op, inner_ops(&op->endpoint->base)->send(op->endpoint->inner, op->runs, op->n));
}

static baton_status lane_send(bt_endpoint *base, const void *bytes, size_t n_bytes)
{
    lane_op *op = NULL;
    BATON_TRY(make_op(base, n_bytes, BT_EVENT_FAILED, ((lane_endpoint *)base)->connect_user_data,
                      run_send, &op));
    op->n = n_bytes;
    memcpy(op->runs, bytes, n_bytes);
    bt_lane_post(lane_of(base), &op->base);
    return BATON_OK;
}

static void lane_destroy(bt_transport *base)
{
    lane_transport *lane = (lane_transport *)base;
    bt_lane_thread_stop(lane);
    lane->inner->ops->destroy(lane->inner);
    pthread_cond_destroy(&lane->answered);
    pthread_mutex_destroy(&lane->lock);
    bt_free(lane);
}

static const bt_transport_ops lane_ops = {
    .name = "lane",
    .destroy = lane_destroy,
    .memory_alloc = lane_memory_alloc,
    .memory_register = lane_memory_register,
    .worker_create = lane_worker_create,
    .worker_destroy = lane_worker_destroy,
    .worker_fd = lane_worker_fd,
    .worker_arm = lane_worker_arm,
    .worker_progress = lane_worker_progress,
    .worker_observe = lane_worker_observe,
    .connect = lane_connect,
    .close = lane_close,
    .path = lane_path,
    .import = lane_import,
    .release = lane_release,
    .map = lane_map,
    .populate = lane_populate,
    .put = lane_put,
    .flush = lane_flush,
    .send = lane_send,
};

baton_status bt_lane_create(bt_transport *inner, bt_transport **transport_p)
{
    lane_transport *lane = bt_calloc(1, sizeof(*lane));
    if (lane == NULL) {
        inner->ops->destroy(inner);
        return bt_fail(BATON_ERR_NO_MEMORY, "lane: no memory for a transport");
    }
    lane->base.ops = &lane_ops;
    lane->base.reaches_device = inner->reaches_device;
    lane->base.seam = &lane->base;
    lane->inner = inner;
    lane->fd = -1;
    pthread_mutex_init(&lane->lock, NULL);
    pthread_cond_init(&lane->answered, NULL);
    baton_status status = bt_lane_thread_start(lane);
    if (status == BATON_OK)
        *transport_p = &lane->base;
    else
        lane_destroy(&lane->base);
    return status;
}
