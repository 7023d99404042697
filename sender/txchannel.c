/* SPDX-License-Identifier: Apache-2.0 */
/* Where a request leaves: through a socket of the peer, or behind the data that it speaks of. */
#include "sender/tx.h"

#include "core/log.h"

/* Puts need a flush before a COMMIT in a socket may speak of them; one behind them does not. What
 * was stored into mapped pages is there before either leaves. */
bt_tx_port bt_tx_commit_port(const bt_tx *tx, const bt_tx_peer *peer)
{
    if (tx->options.commit == BATON_COMMIT_SOCKET)
        return BT_TX_ALLOC_PORT;
    for (uint32_t i = 0; i < peer->n_regions; i++) {
        if (peer->regions[i].mapped == NULL)
            return BT_TX_DATA_PORT;
    }
    return BT_TX_ALLOC_PORT;
}

void bt_tx_transmit(bt_tx *tx, bt_tx_peer *peer, bt_tx_port port, const void *frame, size_t bytes)
{
    if (port != BT_TX_DATA_PORT)
        tx->out.send(tx->out.ctx, peer, port, frame, bytes);
    else if (bt_endpoint_send(peer->endpoint, frame, bytes) != BATON_OK)
        bt_debug("sender: frame not sent now: %s", baton_last_error()); /* again, or the end */
}
