/* SPDX-License-Identifier: Apache-2.0 */
/* Nothing of ours is posted on a queue pair before the peer has answered: it waits here. UCX may
 * choose the lanes of an endpoint anew while it connects, and before 1.16 a put that it has queued
 * by then ends the process (rma_basic.c, "rkey->cache.ep_cfg_index == ep->cfg_index"). What waits
 * here can also be dropped when the endpoint is closed by force, so that it never arrives late.
 *
 *   connect: a flush of nothing is posted -> done: is_wired, what was held is posted in order
 */
#include <string.h>

#include "core/alloc.h"
#include "transport/ucx_state.h"

struct ucx_held {
    ucx_held *next;
    bt_op *op; /* this is one of its parts */
    bt_memory *local;
    bt_remote *remote; /* NULL: a flush */
    uint32_t n_runs;
    bt_run runs[];
};

bool bt_ucx_must_hold(const ucx_endpoint *endpoint)
{
    return endpoint->uses_verbs && !endpoint->is_wired;
}

ucs_status_t bt_ucx_hold(bt_op *op, bt_memory *local, bt_remote *remote, const bt_run *runs,
                         uint32_t n_runs)
{
    ucx_endpoint *endpoint = op->owner;
    ucx_held *held = bt_calloc(1, sizeof(*held) + n_runs * sizeof(*runs));
    if (held == NULL)
        return UCS_ERR_NO_MEMORY;
    *held = (ucx_held){.op = op, .local = local, .remote = remote, .n_runs = n_runs};
    if (n_runs > 0)
        memcpy(held->runs, runs, n_runs * sizeof(*runs));
    op->n_pending++;
    if (remote != NULL)
        ((ucx_remote *)remote)->n_held++;
    ucx_held **at = &endpoint->held;
    while (*at != NULL)
        at = &(*at)->next;
    *at = held;
    return UCS_OK;
}

/* The held part has ended: its operation, and a remote that was released meanwhile, may too. */
static void finish_held(ucx_held *held)
{
    ucx_remote *remote = (ucx_remote *)held->remote;
    bt_ucx_finish_part(held->op);
    if (remote != NULL && --remote->n_held == 0 && remote->is_released)
        bt_ucx_remote_free(remote);
    bt_free(held);
}

static ucx_held *pop(ucx_endpoint *endpoint)
{
    ucx_held *held = endpoint->held;
    if (held != NULL)
        endpoint->held = held->next;
    return held;
}

static void post_held(ucx_endpoint *endpoint)
{
    for (ucx_held *held; (held = pop(endpoint)) != NULL;) {
        ucs_status_t status =
            held->remote != NULL
                ? bt_ucx_post_runs(held->op, held->local, held->remote, held->runs, held->n_runs)
                : bt_ucx_post_flush(held->op);
        if (status != UCS_OK)
            bt_ucx_record_failure(held->op, status);
        finish_held(held);
    }
}

void bt_ucx_drop_held(ucx_endpoint *endpoint, baton_status status, const char *detail)
{
    for (ucx_held *held; (held = pop(endpoint)) != NULL;) {
        bt_op_set_failure(held->op, status, detail);
        finish_held(held);
    }
}

static void on_wired(bt_op *op)
{
    ucx_endpoint *endpoint = op->owner;
    endpoint->is_wired = op->status >= 0;
    if (endpoint->is_wired)
        post_held(endpoint);
    else
        bt_ucx_drop_held(endpoint, op->status, op->detail);
}

ucs_status_t bt_ucx_wire(ucx_endpoint *endpoint)
{
    endpoint->hello =
        (bt_op){.kind = BT_EVENT_FLUSH, .owner = endpoint, .n_pending = 1, .then = on_wired};
    endpoint->n_ops++;
    ucs_status_t status = bt_ucx_post_flush(&endpoint->hello);
    if (status == UCS_OK)
        bt_ucx_finish_part(&endpoint->hello);
    else
        endpoint->n_ops--;
    return status;
}
