/* SPDX-License-Identifier: Apache-2.0 */
/* Events: short inside, long where the user takes them. */
#include "sender/tx.h"

#include "core/alloc.h"

void bt_tx_events_flush(bt_tx *tx)
{
    if (tx->n_freed > 0)
        bt_eventqueue_push_many(tx->events, tx->freed, tx->n_freed);
    tx->n_freed = 0;
}

void bt_tx_event_source_free(bt_tx *tx, const bt_tx_event *event)
{
    if (tx->n_freed == BT_TX_FREED_MAX)
        bt_tx_events_flush(tx);
    tx->freed[tx->n_freed++] = *event;
}

void bt_tx_event_end(bt_tx *tx, bt_tx_transfer *transfer, const baton_sender_event *event)
{
    bt_tx_events_flush(tx);
    *transfer->end = *event;
    const bt_tx_event record = {.end = transfer->end};
    transfer->end = NULL;
    bt_eventqueue_push(tx->events, &record);
}

/* Field by field: clearing an event's text as well would cost more than all else about it. */
static void fill_source_free(const bt_tx_event *from, baton_sender_event *to)
{
    to->kind = BATON_SENDER_SOURCE_FREE;
    to->status = BATON_OK;
    to->transfer = from->transfer;
    to->user_data = from->user_data;
    to->chunk = from->chunk;
    to->first_layer = from->first_layer;
    to->n_layers = from->n_layers;
    to->sent_chunks = to->present_chunks = 0;
    to->sent_bytes = to->move_ns = 0;
    to->text[0] = 0;
}

uint32_t bt_tx_poll(bt_tx *tx, baton_sender_event *events, uint32_t max)
{
    enum { AT_ONCE = 64 };
    bt_tx_event records[AT_ONCE];
    uint32_t n = 0, taken;
    do {
        uint32_t wanted = max - n < AT_ONCE ? max - n : AT_ONCE;
        taken = bt_eventqueue_pop(tx->events, records, wanted);
        for (uint32_t i = 0; i < taken; i++, n++) {
            if (records[i].end == NULL) {
                fill_source_free(&records[i], &events[n]);
                continue;
            }
            events[n] = *records[i].end;
            bt_free(records[i].end);
        }
    } while (taken == AT_ONCE && n < max);
    return n;
}

void bt_tx_events_destroy(bt_tx *tx)
{
    bt_tx_event record;
    while (tx->events != NULL && bt_eventqueue_pop(tx->events, &record, 1) == 1)
        bt_free(record.end);
    bt_eventqueue_destroy(tx->events);
}
