/* SPDX-License-Identifier: Apache-2.0 */
/* Control rings: how a receiver on this host is asked and answers without a system call. */
#include "sender/tx.h"

#include "core/alloc.h"
#include "core/log.h"

#include <inttypes.h>
#include <string.h>

static baton_status check_offer(const bt_msg_ring *offer)
{
    if (!bt_framering_capacity_ok(offer->to_receiver_bytes) ||
        !bt_framering_capacity_ok(offer->to_sender_bytes))
        return bt_fail(BATON_ERR_BAD_MESSAGE,
                       "ring: wanted powers of two from %d to %d bytes, found %u and %u",
                       BT_FRAMERING_CAPACITY_MIN, BT_FRAMERING_CAPACITY_MAX,
                       offer->to_receiver_bytes, offer->to_sender_bytes);
    return BATON_OK;
}

/* Where the rings lie here. */
static baton_status map_rings(bt_tx_peer *peer, const bt_msg_ring *offer, uint8_t **memory_p)
{
    uint64_t bytes =
        2 * BT_FRAMERING_HEADER_BYTES + (uint64_t)offer->to_receiver_bytes + offer->to_sender_bytes;
    bt_remote *remote;
    void *memory;
    BATON_TRY(bt_remote_import(peer->endpoint, offer->rkey.data, offer->rkey.bytes, &remote));
    baton_status status = BATON_OK;
    if (remote->base != offer->base || remote->bytes < bytes)
        status = bt_fail(BATON_ERR_BAD_MESSAGE, "ring: wanted %" PRIu64 " bytes, found %" PRIu64,
                         bytes, remote->bytes);
    if (status == BATON_OK)
        status = bt_remote_map(remote, offer->base, &memory);
    if (status == BATON_OK && (uintptr_t)memory % 64 != 0)
        status = bt_fail(BATON_ERR_BAD_MESSAGE, "ring: wanted memory aligned to 64 bytes");
    if (status != BATON_OK) {
        bt_remote_release(remote);
        return status;
    }
    (void)bt_remote_populate(remote, offer->base, bytes); /* else the first frames pay */
    peer->ring_remote = remote;
    *memory_p = memory;
    return BATON_OK;
}

static baton_status make_frame(bt_tx *tx, size_t bytes)
{
    if (bytes <= tx->ring_frame_bytes)
        return BATON_OK;
    uint8_t *frame = bt_calloc(1, bytes);
    if (frame == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "ring: frame of %zu bytes", bytes);
    bt_free(tx->ring_frame);
    tx->ring_frame = frame;
    tx->ring_frame_bytes = bytes;
    return BATON_OK;
}

static baton_status try_open(bt_tx *tx, bt_tx_peer *peer, const bt_msg_ring *offer)
{
    uint8_t *memory;
    BATON_TRY(check_offer(offer));
    BATON_TRY(make_frame(tx, offer->to_sender_bytes));
    if (!tx->out.ring(tx->out.ctx, offer->doorbell))
        return bt_fail(BATON_ERR_UNREACHABLE, "ring: the receiver's doorbell is not heard; do both "
                                              "sides share a network namespace?");
    BATON_TRY(map_rings(peer, offer, &memory));
    memcpy(peer->doorbell, offer->doorbell.data, offer->doorbell.bytes);
    peer->doorbell_bytes = offer->doorbell.bytes;
    bt_framering_open(&peer->to_receiver, memory, offer->to_receiver_bytes);
    bt_framering_open(&peer->from_receiver,
                      memory + BT_FRAMERING_HEADER_BYTES + offer->to_receiver_bytes,
                      offer->to_sender_bytes);
    return BATON_OK;
}

void bt_tx_ring_open(bt_tx *tx, bt_tx_peer *peer, const bt_msg_ring *offer)
{
    if (peer->ring_remote != NULL || offer->to_receiver_bytes == 0 || tx->out.ring == NULL ||
        tx->out.doorbell.bytes == 0)
        return;
    if (try_open(tx, peer, offer) != BATON_OK)
        bt_info("sender: control messages by ZeroMQ: %s peer=%s", baton_last_error(), peer->name);
}

void bt_tx_ring_close(bt_tx_peer *peer)
{
    bt_remote_release(peer->ring_remote);
    peer->ring_remote = NULL;
    peer->to_receiver = peer->from_receiver = (bt_framering){0};
    peer->alloc_port_works = false;
}

bool bt_tx_ring_send(bt_tx *tx, bt_tx_peer *peer, const void *frame, size_t bytes)
{
    bool must_ring = false;
    if (!peer->alloc_port_works)
        return false;
    if (bt_framering_write(&peer->to_receiver, frame, bytes, &must_ring) != BATON_OK)
        return false;
    if (must_ring)
        tx->out.ring(tx->out.ctx, bt_blob_of(peer->doorbell, peer->doorbell_bytes));
    return true;
}

/* Handling a frame may end the connection, and the ring with it. */
static void serve(bt_tx *tx, bt_tx_peer *peer)
{
    size_t bytes;
    baton_status status = BATON_OK;
    for (uint32_t n = 0; n < BT_TX_RING_FRAMES && status == BATON_OK; n++) {
        status = bt_framering_read(&peer->from_receiver, tx->ring_frame, &bytes);
        if (status != BATON_OK)
            break;
        tx->n_ring_frames++;
        bt_tx_handle(tx, peer, BT_TX_ALLOC_PORT, tx->ring_frame, bytes);
    }
    if (status < 0) {
        bt_tx_stat(tx, &tx->stats.messages_dropped_total, 1);
        bt_warn("sender: control ring given up: %s peer=%s:%u", baton_last_error(), peer->host,
                peer->init_port);
    }
}

void bt_tx_rings_serve(bt_tx *tx)
{
    for (bt_tx_peer *peer = tx->peers; peer != NULL; peer = peer->next)
        serve(tx, peer);
}

bool bt_tx_rings_wait(const bt_tx *tx)
{
    const bt_tx_peer *peer = tx->peers;
    while (peer != NULL && !bt_framering_has_frame(&peer->from_receiver))
        peer = peer->next;
    return peer != NULL;
}

bool bt_tx_rings_sleep(bt_tx *tx)
{
    for (bt_tx_peer *peer = tx->peers; peer != NULL; peer = peer->next) {
        if (!bt_framering_announce_sleep(&peer->from_receiver))
            return false;
    }
    return true;
}
