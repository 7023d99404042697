/* SPDX-License-Identifier: Apache-2.0 */
/* Control rings: how a sender on this host asks and is answered without a system call. */
#include "receiver/rx.h"

#include "core/alloc.h"
#include "core/log.h"

#include <inttypes.h>
#include <string.h>

enum { IN_AT = 0, OUT_AT = BT_FRAMERING_HEADER_BYTES + BT_RX_RING_IN_BYTES };
enum { RING_BYTES = OUT_AT + BT_FRAMERING_HEADER_BYTES + BT_RX_RING_OUT_BYTES };

static baton_status open_rings(bt_rx *rx, bt_rx_peer *peer)
{
    if (rx->ring_frame == NULL)
        rx->ring_frame = bt_calloc(1, BT_RX_RING_IN_BYTES);
    if (rx->ring_frame == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "receiver: frame of a control ring");
    BATON_TRY(bt_memory_alloc(rx->transport, RING_BYTES, BATON_MEMORY_HOST, &peer->ring_memory));
    uint8_t *base = peer->ring_memory->base;
    bt_framering_open(&peer->from_sender, base + IN_AT, BT_RX_RING_IN_BYTES);
    bt_framering_open(&peer->to_sender, base + OUT_AT, BT_RX_RING_OUT_BYTES);
    return BATON_OK;
}

void bt_rx_ring_close(bt_rx_peer *peer)
{
    bt_memory_free(peer->ring_memory);
    peer->ring_memory = NULL;
    peer->from_sender = peer->to_sender = (bt_framering){0};
}

static bool wants_rings(const bt_rx *rx, const bt_rx_peer *peer, bt_blob doorbell)
{
    return rx->out.ring != NULL && rx->out.doorbell.bytes > 0 && peer->same_host &&
           doorbell.bytes > 0 && doorbell.bytes <= BT_DOORBELL_BYTES_MAX &&
           rx->out.ring(rx->out.ctx, doorbell);
}

void bt_rx_ring_offer(bt_rx *rx, bt_rx_peer *peer, bt_blob doorbell, bt_msg_ring *offer)
{
    if (peer->ring_memory == NULL && wants_rings(rx, peer, doorbell)) {
        memcpy(peer->doorbell, doorbell.data, doorbell.bytes);
        peer->doorbell_bytes = doorbell.bytes;
        if (open_rings(rx, peer) != BATON_OK)
            bt_warn("receiver: no control ring: %s peer=%s", baton_last_error(), peer->name);
    }
    const bt_memory *memory = peer->ring_memory;
    if (memory == NULL)
        return;
    *offer = (bt_msg_ring){.base = (uint64_t)(uintptr_t)memory->base,
                           .to_receiver_bytes = BT_RX_RING_IN_BYTES,
                           .to_sender_bytes = BT_RX_RING_OUT_BYTES,
                           .rkey = bt_blob_of(memory->rkey, memory->rkey_bytes),
                           .doorbell = rx->out.doorbell};
}

bool bt_rx_ring_send(bt_rx *rx, const bt_rx_route *route)
{
    bt_rx_peer *peer = rx->ring_peer;
    bool must_ring = false;
    (void)route;
    if (bt_framering_write(&peer->to_sender, rx->writer.bytes, rx->writer.n, &must_ring) !=
        BATON_OK)
        return false;
    if (must_ring)
        rx->out.ring(rx->out.ctx, bt_blob_of(peer->doorbell, peer->doorbell_bytes));
    return true;
}

bool bt_rx_ring_is_used(const bt_rx_peer *peer)
{
    return peer->from_sender.position != 0;
}

/* First sendings of requests; all else has its place on ZeroMQ. */
static bool comes_by_ring(bt_message_type type)
{
    return type == BT_MSG_ALLOC || type == BT_MSG_COMMIT || type == BT_MSG_CANCEL ||
           type == BT_MSG_RELEASE;
}

static void handle_frame(bt_rx *rx, bt_rx_peer *peer, size_t bytes)
{
    bt_message message;
    rx->stats.messages_total++;
    rx->stats.ring_messages_total++;
    peer->is_fed = false;
    if (bt_message_decode(rx->ring_frame, bytes, &message) != BATON_OK ||
        !comes_by_ring(message.type)) {
        rx->stats.messages_dropped_total++;
        bt_debug("receiver: frame of a ring dropped peer=%s", peer->name);
    } else if (message.epoch != peer->epoch) { /* a ring is one peer's */
        rx->stats.messages_stale_total++;
    } else {
        rx->ring_peer = peer;
        bt_rx_on_alloc_port(rx, &peer->routes[BT_RX_ALLOC_PORT], &message);
        rx->ring_peer = NULL;
    }
}

void bt_rx_ring_serve(bt_rx *rx, bt_rx_peer *peer)
{
    size_t bytes;
    baton_status status = BATON_OK;
    for (uint32_t n = 0; n < BT_RX_RING_FRAMES && status == BATON_OK; n++) {
        status = bt_framering_read(&peer->from_sender, rx->ring_frame, &bytes);
        if (status == BATON_OK)
            handle_frame(rx, peer, bytes);
    }
    if (status < 0) {
        rx->stats.messages_dropped_total++;
        bt_warn("receiver: control ring given up: %s peer=%s epoch=%016" PRIx64, baton_last_error(),
                peer->name, peer->epoch);
    }
}

bool bt_rx_rings_wait(const bt_rx *rx)
{
    const bt_rx_peer *peer = rx->peers;
    while (peer != NULL && !bt_framering_has_frame(&peer->from_sender))
        peer = peer->next;
    return peer != NULL;
}

bool bt_rx_rings_sleep(bt_rx *rx)
{
    for (bt_rx_peer *peer = rx->peers; peer != NULL; peer = peer->next) {
        if (!bt_framering_announce_sleep(&peer->from_sender))
            return false;
    }
    return true;
}
