/* SPDX-License-Identifier: Apache-2.0 */
/* Messages behind the data (bt_endpoint_send). Puts in messages count into their order by
 * themselves (ucx_message.h). Others, which write remote memory, are flushed first: that a message
 * behind them is handled after them is nothing that UCX promises for every transport. */
#include <string.h>

#include "core/alloc.h"
#include "transport/ucx_message.h"

ucx_note *bt_ucx_note_create(const void *bytes, size_t n_bytes)
{
    ucx_note *note = bt_calloc(1, sizeof(*note) + n_bytes);
    if (note == NULL)
        return NULL;
    note->n_bytes = n_bytes;
    memcpy(note->bytes, bytes, n_bytes);
    return note;
}

void bt_ucx_note_append(ucx_notes *notes, ucx_note *note)
{
    note->next = NULL;
    if (notes->last != NULL)
        notes->last->next = note;
    else
        notes->first = note;
    notes->last = note;
    notes->n++;
    notes->n_bytes += note->n_bytes;
}

ucx_note *bt_ucx_note_pop(ucx_notes *notes)
{
    ucx_note *note = notes->first;
    if (note == NULL)
        return NULL;
    notes->first = note->next;
    if (notes->first == NULL)
        notes->last = NULL;
    notes->n--;
    notes->n_bytes -= note->n_bytes;
    return note;
}

void bt_ucx_notes_clear(ucx_notes *notes)
{
    for (ucx_note *note; (note = bt_ucx_note_pop(notes)) != NULL;)
        bt_free(note);
}

static baton_status flush_for_notes(ucx_endpoint *endpoint);

/* The puts before some of the notes have been flushed: those leave. A failed flush drops them, as a
 * closed endpoint does; UCX reports its failure by itself. */
static void on_flushed(bt_op *op)
{
    ucx_endpoint *endpoint = op->owner;
    endpoint->is_flushing_for_notes = false;
    if (op->status < 0 || endpoint->has_failed || endpoint->is_closing) {
        bt_ucx_notes_clear(&endpoint->notes);
        return;
    }
    endpoint->n_rma_flushed = op->tag;
    ucs_status_t status = UCS_OK;
    while (status == UCS_OK && endpoint->notes.first != NULL &&
           endpoint->notes.first->n_before <= endpoint->n_rma_flushed)
        status = bt_ucx_send_note(endpoint, bt_ucx_note_pop(&endpoint->notes));
    if (status != UCS_OK)
        bt_ucx_fail(endpoint, bt_status_from_ucs(status), ucs_status_string(status));
    else if (endpoint->notes.first != NULL && flush_for_notes(endpoint) < 0)
        bt_ucx_fail(endpoint, BATON_ERR_TRANSPORT, "a flush could not be started");
}

static baton_status flush_for_notes(ucx_endpoint *endpoint)
{
    endpoint->note_flush = (bt_op){
        .kind = BT_EVENT_FLUSH, .owner = endpoint, .tag = endpoint->n_rma_puts, .then = on_flushed};
    endpoint->is_flushing_for_notes = true;
    baton_status status = bt_ucx_flush_rma(endpoint, &endpoint->note_flush);
    if (status < 0)
        endpoint->is_flushing_for_notes = false;
    return status;
}

baton_status bt_ucx_send(bt_endpoint *base, const void *bytes, size_t n_bytes)
{
    ucx_endpoint *endpoint = (ucx_endpoint *)base;
    BATON_TRY(bt_ucx_check_open(endpoint));
    ucx_note *note = bt_ucx_note_create(bytes, n_bytes);
    if (note == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "ucx: no memory for a message of %zu bytes", n_bytes);
    if (endpoint->notes.first == NULL && endpoint->n_rma_flushed == endpoint->n_rma_puts) {
        ucs_status_t status = bt_ucx_send_note(endpoint, note);
        return status == UCS_OK ? BATON_OK : bt_fail_ucs(status, "sending %zu bytes", n_bytes);
    }
    note->n_before = endpoint->n_rma_puts;
    bt_ucx_note_append(&endpoint->notes, note);
    if (endpoint->is_flushing_for_notes)
        return BATON_OK;
    baton_status status = flush_for_notes(endpoint);
    if (status < 0)
        bt_ucx_notes_clear(&endpoint->notes); /* this one alone */
    return status;
}
