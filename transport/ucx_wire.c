/* SPDX-License-Identifier: Apache-2.0 */
/* Nothing of ours is posted on a queue pair, or behind a greeting (ucx_greet.h), before the peer
 * has answered: it waits here. UCX may choose the lanes of an endpoint anew while it connects, and
 * before 1.16 a put that it has queued by then ends the process (rma_basic.c,
 * "rkey->cache.ep_cfg_index == ep->cfg_index"). What waits here can also be dropped when the
 * endpoint is closed by force, so that it never arrives late.
 *
 *   connect: a flush of nothing is posted -> done: is_wired, what was held is posted in order
 *   tcp before 1.14: the same, from the first that is held on, and a greeting behind the flush
 */
#include <string.h>

#include "core/alloc.h"
#include "transport/ucx_greet.h"

struct ucx_held {
    ucx_held *next;
    bt_op *op;      /* this is one of its parts; NULL: a note */
    ucx_note *note; /* owned */
    bt_memory *local;
    bt_remote *remote; /* NULL: a flush, or a note */
    bool is_whole;     /* a flush of messages too */
    uint32_t n_runs;
    bt_run runs[];
};

bool bt_ucx_must_hold(const ucx_endpoint *endpoint)
{
    return (endpoint->uses_verbs || endpoint->greets) && !endpoint->is_wired;
}

/* The first that is held has a greeting sent. */
static void append(ucx_endpoint *endpoint, ucx_held *held)
{
    ucx_held **at = &endpoint->held;
    while (*at != NULL)
        at = &(*at)->next;
    *at = held;
    if (held->op != NULL)
        held->op->n_pending++;
    if (!endpoint->greets || endpoint->is_greeting)
        return;
    endpoint->is_greeting = true;
    ucs_status_t status = bt_ucx_wire(endpoint);
    if (status != UCS_OK)
        bt_ucx_fail(endpoint, bt_status_from_ucs(status), ucs_status_string(status));
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
    if (remote != NULL)
        ((ucx_remote *)remote)->n_held++;
    append(endpoint, held);
    return UCS_OK;
}

ucs_status_t bt_ucx_hold_flush(bt_op *op, bool is_whole)
{
    ucx_held *held = bt_calloc(1, sizeof(*held));
    if (held == NULL)
        return UCS_ERR_NO_MEMORY;
    *held = (ucx_held){.op = op, .is_whole = is_whole};
    append(op->owner, held);
    return UCS_OK;
}

ucs_status_t bt_ucx_hold_note(ucx_endpoint *endpoint, ucx_note *note)
{
    ucx_held *held = bt_calloc(1, sizeof(*held));
    if (held == NULL) {
        bt_free(note);
        return UCS_ERR_NO_MEMORY;
    }
    *held = (ucx_held){.note = note};
    append(endpoint, held);
    return UCS_OK;
}

/* The held part has ended: its operation, and a remote that was released meanwhile, may too. */
static void finish_held(ucx_held *held)
{
    ucx_remote *remote = (ucx_remote *)held->remote;
    if (held->op != NULL)
        bt_ucx_finish_part(held->op);
    bt_free(held->note);
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

static ucs_status_t post(ucx_endpoint *endpoint, ucx_held *held)
{
    if (held->op == NULL) {
        ucx_note *note = held->note;
        held->note = NULL;
        return bt_ucx_send_note(endpoint, note);
    }
    if (held->remote != NULL && endpoint->parked != NULL)
        bt_ucx_unpark(endpoint, NULL); /* its own operation says how that went */
    if (held->remote != NULL)
        return bt_ucx_post_runs(held->op, held->local, held->remote, held->runs, held->n_runs);
    return held->is_whole ? bt_ucx_post_whole_flush(held->op) : bt_ucx_post_flush(held->op);
}

void bt_ucx_wired(ucx_endpoint *endpoint)
{
    endpoint->is_wired = true;
    for (ucx_held *held; (held = pop(endpoint)) != NULL;) {
        ucs_status_t status = post(endpoint, held);
        if (status != UCS_OK && held->op != NULL)
            bt_ucx_record_failure(held->op, status);
        else if (status != UCS_OK)
            bt_ucx_fail(endpoint, bt_status_from_ucs(status), ucs_status_string(status));
        finish_held(held);
    }
}

void bt_ucx_drop_held(ucx_endpoint *endpoint, baton_status status, const char *detail)
{
    for (ucx_held *held; (held = pop(endpoint)) != NULL;) {
        if (held->op != NULL)
            bt_op_set_failure(held->op, status, detail);
        finish_held(held);
    }
}

static void on_wired(bt_op *op)
{
    ucx_endpoint *endpoint = op->owner;
    ucs_status_t status = UCS_OK;
    if (op->status < 0)
        bt_ucx_drop_held(endpoint, op->status, op->detail);
    else if (!endpoint->greets)
        bt_ucx_wired(endpoint);
    else if (!endpoint->is_handed_back && !endpoint->has_failed)
        status = bt_ucx_greet(endpoint);
    if (status != UCS_OK)
        bt_ucx_fail(endpoint, bt_status_from_ucs(status), ucs_status_string(status));
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
