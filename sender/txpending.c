/* SPDX-License-Identifier: Apache-2.0 */
/* Requests on their way: sent again until an answer comes or the stage's deadline has passed. */
#include "sender/tx.h"

#include "core/alloc.h"
#include "core/log.h"

#include <assert.h>
#include <string.h>

enum { FIRST_INTERVAL_MS = 200, MAX_INTERVAL_MS = 1600 };

baton_status bt_tx_request(bt_tx *tx, bt_tx_peer *peer, bt_tx_transfer *transfer, bt_tx_port port,
                           bt_message *message, uint64_t deadline_ms, bt_tx_pending **pending_p)
{
    message->id = tx->next_id++;
    message->peer_epoch = peer->epoch;
    BATON_TRY(bt_tx_encode(tx, message));
    bt_tx_pending *pending = bt_calloc(1, sizeof(*pending) + tx->writer.n);
    if (pending == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "sender: request of %zu bytes", tx->writer.n);
    uint64_t now_ns = bt_now_ns(tx->clock);
    pending->id = message->id;
    pending->type = message->type;
    pending->peer = peer;
    pending->transfer = transfer;
    pending->port = port;
    pending->interval_ms = FIRST_INTERVAL_MS;
    pending->again_ns = now_ns + FIRST_INTERVAL_MS * BT_NS_PER_MS;
    pending->deadline_ns = bt_deadline_ns(now_ns, deadline_ms * BT_NS_PER_MS);
    pending->bytes = tx->writer.n;
    memcpy(pending->frame, tx->writer.bytes, tx->writer.n);
    pending->next = tx->pending;
    if (tx->pending != NULL)
        tx->pending->prev = pending;
    tx->pending = pending;
    *pending_p = pending;
    if (port != BT_TX_ALLOC_PORT || !bt_tx_ring_send(tx, peer, pending->frame, pending->bytes))
        bt_tx_transmit(tx, peer, port, pending->frame, pending->bytes);
    return BATON_OK;
}

bt_tx_pending *bt_tx_pending_find(bt_tx *tx, const bt_tx_peer *peer, uint64_t id)
{
    bt_tx_pending *pending = tx->pending;
    while (pending != NULL && (pending->id != id || pending->peer != peer))
        pending = pending->next;
    return pending;
}

void bt_tx_pending_drop(bt_tx *tx, bt_tx_pending *pending)
{
    if (pending == NULL)
        return;
    *(pending->prev != NULL ? &pending->prev->next : &tx->pending) = pending->next;
    if (pending->next != NULL)
        pending->next->prev = pending->prev;
    if (pending->peer->hello == pending)
        pending->peer->hello = NULL;
    if (pending->transfer != NULL && pending->transfer->alloc == pending)
        pending->transfer->alloc = NULL;
    if (pending->transfer != NULL && pending->transfer->commit == pending)
        pending->transfer->commit = NULL;
    bt_free(pending);
}

void bt_tx_pending_drop_peer(bt_tx *tx, const bt_tx_peer *peer)
{
    for (bt_tx_pending *pending = tx->pending, *next; pending != NULL; pending = next) {
        next = pending->next;
        if (pending->peer == peer)
            bt_tx_pending_drop(tx, pending);
    }
}

/* The name of the wait that took too long. */
static void expired(bt_tx *tx, bt_tx_pending *pending)
{
    bt_tx_peer *peer = pending->peer;
    bt_tx_transfer *transfer = pending->transfer;
    switch (pending->type) {
    case BT_MSG_INIT:
        bt_tx_peer_down(tx, peer, BATON_ERR_CONNECT_TIMEOUT,
                        "connect: no answer to INIT; is the receiver up, are host and ports its "
                        "own, and do both sides have each other's keys, or none?");
        break;
    case BT_MSG_MEMREG:
        bt_tx_peer_down(tx, peer, BATON_ERR_INIT_TIMEOUT, "init: no answer to MEMREG");
        break;
    case BT_MSG_ALLOC:
        if (transfer->has_ticket) /* queued: it waited as long as the request may */
            bt_tx_transfer_fail(tx, transfer, BATON_ERR_DEADLINE, "no pages within the deadline");
        else
            bt_tx_transfer_fail(tx, transfer, BATON_ERR_ALLOC_TIMEOUT, "alloc: no answer");
        break;
    case BT_MSG_COMMIT:
        if (transfer == NULL) { /* what a failed request left behind: only a cache */
            bt_tx_pending_drop(tx, pending);
            break;
        }
        if (transfer->n_told > 0) { /* the data before it does not get there */
            bt_tx_peer_down(tx, peer, BATON_ERR_FLUSH_TIMEOUT, "flush: no progress");
            break;
        }
        bt_tx_transfer_fail(tx, transfer, BATON_ERR_COMMIT_TIMEOUT, "commit: no answer");
        break;
    default: /* CANCEL: the receiver finds out by itself */
        bt_tx_pending_drop(tx, pending);
    }
}

static bt_tx_pending *first_expired(const bt_tx *tx, uint64_t now_ns)
{
    bt_tx_pending *pending = tx->pending;
    while (pending != NULL && now_ns < pending->deadline_ns)
        pending = pending->next;
    return pending;
}

void bt_tx_pending_tick(bt_tx *tx, uint64_t now_ns)
{
    /* From the start after each: ending one may drop others. Each pass drops at least one. */
    for (bt_tx_pending *pending; (pending = first_expired(tx, now_ns)) != NULL;)
        expired(tx, pending);
    for (bt_tx_pending *pending = tx->pending; pending != NULL; pending = pending->next) {
        if (now_ns < pending->again_ns)
            continue;
        bt_tx_transmit(tx, pending->peer, pending->port, pending->frame, pending->bytes);
        if (pending->interval_ms < MAX_INTERVAL_MS)
            pending->interval_ms *= 2;
        pending->again_ns = now_ns + pending->interval_ms * BT_NS_PER_MS;
    }
}
