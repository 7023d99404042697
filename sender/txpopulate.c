/* SPDX-License-Identifier: Apache-2.0 */
/* Mapped pages are faulted in ahead of their first use: the first store into a page of a fresh
 * mapping costs several times the copy. Never all at once, which takes seconds for a large pool:
 * a slice a turn, for a moment before the peer is used and then while nothing else happens. A page
 * that is written before its turn has come is faulted in by that.
 *
 *   region  |== populated ==|.. next slice ..|            |
 *
 * Thread rule: owner thread of the bt_tx. */
#include "sender/tx.h"

enum {
    SLICE_BYTES = 2 << 20, /* of a turn: one huge page, or half a millisecond of small ones */
    CONNECT_MS = 20,       /* while transfers wait: as long as the measurement may take */
    QUIET_MS = 5,          /* without messages, commands or bytes: nobody is being waited for */
};

static uint64_t populate_region(bt_tx_region *region, uint64_t most)
{
    uint64_t left = region->page_bytes * region->n_pages - region->populated;
    uint64_t bytes = left < most ? left : most;
    bool is_done = bt_remote_populate(region->remote, region->base + region->populated, bytes);
    region->populated += is_done ? bytes : left; /* it will not: requests pay */
    return bytes;
}

static void populate_slice(bt_tx_peer *peer)
{
    uint64_t left = SLICE_BYTES;
    uint32_t i = 0;
    for (; i < peer->n_regions && left > 0; i++) {
        bt_tx_region *region = &peer->regions[i];
        if (region->mapped != NULL && region->populated < region->page_bytes * region->n_pages)
            left -= populate_region(region, left);
    }
    peer->is_populated = left > 0;
}

static bool wants_more(const bt_tx *tx, const bt_tx_peer *peer)
{
    return !peer->is_populated && !tx->options.probe && !tx->is_closing;
}

bool bt_tx_populate_ahead(const bt_tx *tx, bt_tx_peer *peer, uint64_t now_ns)
{
    if (peer->populate_until_ns == 0)
        peer->populate_until_ns = bt_deadline_ns(now_ns, CONNECT_MS * BT_NS_PER_MS);
    if (wants_more(tx, peer) && now_ns < peer->populate_until_ns)
        populate_slice(peer);
    return !wants_more(tx, peer) || now_ns >= peer->populate_until_ns;
}

uint64_t bt_tx_populate_idle(bt_tx *tx, uint64_t now_ns)
{
    bt_tx_peer *peer = tx->peers;
    while (peer != NULL && (peer->state != BT_TX_PEER_READY || !wants_more(tx, peer)))
        peer = peer->next;
    if (peer == NULL)
        return BT_NEVER_NS;
    uint64_t quiet_ns = bt_deadline_ns(tx->active_ns, QUIET_MS * BT_NS_PER_MS);
    if (now_ns < quiet_ns)
        return quiet_ns;
    populate_slice(peer);
    return now_ns;
}
