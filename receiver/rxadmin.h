/* SPDX-License-Identifier: Apache-2.0 */
/* What can be asked of a receiver from outside (docs/operations.md), and the stamps that requests
 * get on their way.
 * Thread rule: owner thread, with the lock held, but for bt_rx_admin_answer, which takes it. */
#ifndef BT_RECEIVER_RXADMIN_H
#define BT_RECEIVER_RXADMIN_H
#include "core/adminreply.h"
#include "receiver/rx.h"

/* A COMMIT of the ticket was taken. */
static inline void bt_rx_note_commit(const bt_rx *rx, bt_rx_ticket *ticket)
{
    ticket->last_commit_ns = bt_now_ns(rx->clock);
    if (ticket->first_commit_ns == 0)
        ticket->first_commit_ns = ticket->last_commit_ns;
}
/* The request has ended: what became of it is kept for a while. */
void bt_rx_trace_end(bt_rx *rx, const bt_rx_ticket *ticket, bt_request_state state,
                     baton_status reason);
/* The pin that ended its hold was given back. */
void bt_rx_trace_released(bt_rx *rx, const bt_rx_command *command);

/* A pin from outside (rxlookup.c). */
typedef struct {
    const baton_pin *pin; /* NULL: begin with the youngest */
    uint64_t number, deadline_ns;
    bool is_leaving; /* given back, but a GPU still reads it */
    uint32_t n_chunks;
    bt_chunk *const *chunks; /* [n_chunks]; NULL: expired */
} bt_rx_pin_look;
bool bt_rx_next_pin(const bt_rx *rx, bt_rx_pin_look *look);

/* When the ticket came into its state. */
uint64_t bt_rx_ticket_since_ns(const bt_rx_ticket *ticket);

/* /pages (rxadminpages.c). */
void bt_rx_admin_pages(bt_jsonwriter *json, bt_rx *rx, const bt_admin_query *query,
                       uint64_t now_ns);

/* Writes the answer; returns the HTTP status. stats: as bt_rx_get_stats has them, and more. */
unsigned bt_rx_admin_answer(bt_rx *rx, const baton_receiver_stats *stats,
                            const bt_admin_query *query, bt_strbuf *out);

#endif
