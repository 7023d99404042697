/* SPDX-License-Identifier: Apache-2.0 */
/* What can be asked of a sender from outside (docs/operations.md), and the stamps that its
 * transfers get on their way. Thread rule: owner thread. */
#ifndef BT_SENDER_TXADMIN_H
#define BT_SENDER_TXADMIN_H
#include "core/adminquery.h"
#include "sender/tx.h"

/* The transfer is there now. */
static inline void bt_tx_reached(const bt_tx *tx, bt_tx_transfer *transfer, bt_tx_stage stage)
{
    transfer->at_ns[stage] = bt_now_ns(tx->clock);
}

/* Stamps the stages that are counted in chunks, when they are reached. */
static inline void bt_tx_note_chunks(const bt_tx *tx, bt_tx_transfer *transfer)
{
    uint64_t *at_ns = transfer->at_ns;
    if (at_ns[BT_TX_AT_FIRST_PUSH] == 0 && (transfer->n_pushed | transfer->n_partial) > 0)
        bt_tx_reached(tx, transfer, BT_TX_AT_FIRST_PUSH);
    if (at_ns[BT_TX_AT_LAST_PUSH] == 0 && transfer->n_pushed > 0 &&
        transfer->n_pushed + transfer->n_present >= transfer->n_chunks)
        bt_tx_reached(tx, transfer, BT_TX_AT_LAST_PUSH);
    if (at_ns[BT_TX_AT_LAST_OUT] == 0 && transfer->n_posted > 0 &&
        transfer->n_posted + transfer->n_present >= transfer->n_chunks)
        bt_tx_reached(tx, transfer, BT_TX_AT_LAST_OUT);
}

/* It has ended: what became of it is kept for a while. */
void bt_tx_trace_end(bt_tx *tx, const bt_tx_transfer *transfer, baton_status status,
                     const char *text);

/* Writes the answer; returns the HTTP status. */
unsigned bt_tx_admin_answer(bt_tx *tx, const baton_sender_stats *stats, const bt_admin_query *query,
                            bt_strbuf *out);

#endif
