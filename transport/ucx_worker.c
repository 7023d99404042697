/* SPDX-License-Identifier: Apache-2.0 */
#include "core/alloc.h"
#include "core/fdroom.h"
#include "core/log.h"
#include "transport/seal.h"
#include "transport/ucx_message.h"
#include "transport/ucx_state.h"

enum {
    PROGRESS_ROUNDS_MAX = 64, /* of one call, so that the owner gets to its other work */
    WORKER_FDS = 48, /* over tcp it takes 18, of which the first three are UCX's own thread's */
    CLOSE_ROUNDS_MAX = 1000 * 10, /* for forced closes in destroy; they do not wait for the peer */
};

static baton_status seal_address(ucx_worker *worker)
{
    ucp_address_t *packed;
    size_t packed_bytes;
    ucs_status_t status = ucp_worker_get_address(worker->handle, &packed, &packed_bytes);
    if (status != UCS_OK)
        return bt_fail_ucs(status, "asking for the worker's address");
    bt_seal seal = {.kind = BT_SEAL_ADDRESS,
                    .backend = BT_SEAL_UCX,
                    .payload = (const uint8_t *)packed,
                    .payload_bytes = packed_bytes};
    bt_ucx_version(&seal.major, &seal.minor);
    uint8_t *address;
    baton_status sealed =
        bt_seal_pack(&seal, BT_ADDRESS_BYTES_MAX, &address, &worker->base.address_bytes);
    ucp_worker_release_address(worker->handle, packed);
    if (sealed >= 0)
        worker->base.address = address;
    return sealed;
}

static baton_status open_worker(ucx_worker *worker)
{
    ucx_transport *transport = (ucx_transport *)worker->base.transport;
    /* UCX 1.13 aborts when its thread cannot have one. */
    BATON_TRY(bt_fdroom_require(WORKER_FDS, "ucx: a worker for a peer"));
    BATON_TRY(bt_memroom_require(BT_UCX_ROOM_BYTES, "ucx: a worker for a peer"));
    /* Made by one thread and used by another, never by two at once. */
    const ucp_worker_params_t params = {.field_mask = UCP_WORKER_PARAM_FIELD_THREAD_MODE,
                                        .thread_mode = UCS_THREAD_MODE_SERIALIZED};
    ucs_status_t status = ucp_worker_create(transport->context, &params, &worker->handle);
    if (status != UCS_OK) {
        worker->handle = NULL;
        return bt_fail_ucs(status, "making a worker");
    }
    status = ucp_worker_get_efd(worker->handle, &worker->fd);
    if (status != UCS_OK)
        return bt_fail_ucs(status, "asking for the worker's event fd");
    BATON_TRY(bt_ucx_messages_open(worker));
    return seal_address(worker);
}

static void count_user(ucx_transport *transport, bool is_new)
{
    pthread_mutex_lock(&transport->lock);
    transport->n_users += is_new ? 1u : -1u;
    pthread_mutex_unlock(&transport->lock);
}

baton_status bt_ucx_worker_create(bt_transport *base, bt_worker **worker_p)
{
    ucx_worker *worker = bt_calloc(1, sizeof(*worker));
    if (worker == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "ucx: no memory for a worker");
    worker->base.transport = base;
    count_user((ucx_transport *)base, true);
    baton_status status = open_worker(worker);
    if (status < 0) {
        bt_ucx_worker_destroy(&worker->base);
        return status;
    }
    *worker_p = &worker->base;
    return BATON_OK;
}

static bool is_closing_something(const ucx_worker *worker)
{
    for (const ucx_endpoint *endpoint = worker->endpoints; endpoint != NULL;
         endpoint = endpoint->next)
        if (!endpoint->ucx_is_done || endpoint->n_ops != 0)
            return true;
    return false;
}

/* Lets go of every endpoint. What does not end within the rounds ends with the worker. */
static void force_endpoints(ucx_worker *worker)
{
    for (ucx_endpoint *endpoint = worker->endpoints; endpoint != NULL; endpoint = endpoint->next)
        bt_ucx_force(endpoint);
    for (uint32_t round = 0; round < CLOSE_ROUNDS_MAX && is_closing_something(worker); round++) {
        ucp_worker_progress(worker->handle);
        bt_ucx_close_waiting(worker);
    }
}

/* A worker whose endpoint's peer never answered: before 1.14 UCX ends the process when it destroys
 * that. It is left as it is, with its context; nothing of ours was ever posted on the endpoint. */
static bool must_be_left(ucx_worker *worker)
{
    bool is_stuck = false;
    for (const ucx_endpoint *endpoint = worker->endpoints; endpoint != NULL && !is_stuck;
         endpoint = endpoint->next)
        is_stuck = bt_ucx_is_stuck(endpoint);
    if (is_stuck) {
        bt_info(
            "ucx: a worker is left open: its peer never answered, and this UCX cannot close it");
        ((ucx_transport *)worker->base.transport)->has_left_workers = true;
    }
    return is_stuck;
}

void bt_ucx_worker_destroy(bt_worker *base)
{
    ucx_worker *worker = (ucx_worker *)base;
    if (worker->handle != NULL) {
        force_endpoints(worker);
        if (must_be_left(worker)) {
            count_user((ucx_transport *)base->transport, false);
            return;
        }
        ucp_worker_destroy(worker->handle); /* may still call back: the pool is alive */
    }
    while (worker->endpoints != NULL) {
        ucx_endpoint *endpoint = worker->endpoints;
        worker->endpoints = endpoint->next;
        bt_ucx_notes_clear(&endpoint->notes);
        bt_free(endpoint);
    }
    bt_op_pool_clear(&worker->pool);
    bt_ucx_messages_close(worker);
    bt_free((void *)(uintptr_t)base->address);
    count_user((ucx_transport *)base->transport, false);
    bt_free(worker);
}

int bt_ucx_worker_fd(bt_worker *worker)
{
    return ((ucx_worker *)worker)->fd;
}

baton_status bt_ucx_worker_arm(bt_worker *base)
{
    ucx_worker *worker = (ucx_worker *)base;
    if (worker->done.first != NULL || worker->received.first != NULL || worker->n_parked != 0)
        return BATON_ERR_BUSY;
    ucs_status_t status = ucp_worker_arm(worker->handle);
    if (status == UCS_ERR_BUSY)
        return BATON_ERR_BUSY;
    return status == UCS_OK ? BATON_OK : bt_fail_ucs(status, "arming the worker's event fd");
}

static void free_endpoint(ucx_endpoint *endpoint)
{
    ucx_endpoint **at = &((ucx_worker *)endpoint->base.worker)->endpoints;
    while (*at != endpoint)
        at = &(*at)->next;
    *at = endpoint->next;
    bt_ucx_notes_clear(&endpoint->notes);
    bt_free(endpoint);
}

static uint32_t report_messages(ucx_worker *worker, bt_event *events, uint32_t max)
{
    uint32_t n = 0;
    while (n < max && worker->received.first != NULL) {
        ucx_note *note = bt_ucx_note_pop(&worker->received);
        bt_ucx_note_append(&worker->reported, note);
        events[n++] =
            (bt_event){.kind = BT_EVENT_MESSAGE, .bytes = note->bytes, .n_bytes = note->n_bytes};
    }
    return n;
}

uint32_t bt_ucx_worker_progress(bt_worker *base, bt_event *events, uint32_t max)
{
    ucx_worker *worker = (ucx_worker *)base;
    bt_ucx_notes_clear(&worker->reported);
    if (worker->n_parked != 0)
        bt_ucx_unpark_all(worker);
    for (uint32_t round = 0; round < PROGRESS_ROUNDS_MAX && worker->received.first == NULL; round++)
        if (ucp_worker_progress(worker->handle) == 0)
            break;
    if (worker->n_closing != 0)
        bt_ucx_close_waiting(worker);
    uint32_t n = report_messages(worker, events, max);
    while (n < max && worker->done.first != NULL) {
        bt_op *op = bt_op_pop(&worker->done);
        bt_op_report(op, &events[n++]);
        if (op->kind == BT_EVENT_CLOSED)
            free_endpoint(op->owner);
        else if (op->kind != BT_EVENT_FAILED)
            bt_op_give(&worker->pool, op);
    }
    return n;
}
