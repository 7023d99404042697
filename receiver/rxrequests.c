/* SPDX-License-Identifier: Apache-2.0 */
/* Requests by the name that the proxy gave them: RELEASE, STATUS, what decode has consumed, and
 * what has ended and is remembered for a while. */
#include "receiver/rxadmin.h"

#include "core/log.h"

#include <stdio.h>
#include <string.h>

static bool is_named(const char *request, bt_blob name)
{
    return bt_blob_is_text(name, request);
}

void bt_rx_remember(bt_rx *rx, const bt_rx_ticket *ticket, bt_request_state state,
                    baton_status reason)
{
    bt_rx_trace_end(rx, ticket, state, reason);
    bt_rx_ended *ended = &rx->ended[rx->ended_next++ % BT_RX_ENDED_MAX];
    *ended = (bt_rx_ended){
        .state = state,
        .reason = reason,
        .n_chunks = ticket->n_chunks,
        .landed = ticket->present_chunks + ticket->sent_chunks,
        .ended_ns = bt_now_ns(rx->clock),
        .peer_epoch = ticket->peer != NULL ? ticket->peer->epoch : 0,
        .alloc_id = ticket->alloc_id,
        .ticket = ticket->id,
        .generation = ticket->generation,
    };
    memcpy(ended->nonce, ticket->nonce, sizeof(ended->nonce));
    memcpy(ended->request, ticket->request, sizeof(ended->request));
}

bool bt_rx_was_complete(const bt_rx *rx, const bt_ticket_name *name, uint32_t *landed)
{
    for (uint32_t i = 0; i < BT_RX_ENDED_MAX; i++) {
        const bt_rx_ended *ended = &rx->ended[i];
        bool is_complete = ended->state == BT_REQUEST_PINNED || ended->state == BT_REQUEST_EXPIRED;
        if (!is_complete || ended->ticket != name->ticket || ended->generation != name->generation)
            continue;
        *landed = ended->n_chunks;
        return bt_blob_equals(name->nonce, bt_blob_of(ended->nonce, BT_NONCE_BYTES));
    }
    return false;
}

baton_status bt_rx_reason_of(const bt_rx *rx, uint64_t peer_epoch, uint64_t alloc_id)
{
    for (uint32_t i = 0; i < BT_RX_ENDED_MAX; i++) {
        if (rx->ended[i].peer_epoch == peer_epoch && rx->ended[i].alloc_id == alloc_id)
            return rx->ended[i].reason;
    }
    return BATON_OK;
}

uint32_t bt_rx_release_request(bt_rx *rx, const char *request, size_t bytes)
{
    uint32_t n = 0;
    bt_blob name = bt_blob_of(request, bytes);
    for (bt_rx_ticket *ticket = rx->first_ticket, *next; ticket != NULL; ticket = next) {
        next = ticket->next;
        if (!is_named(ticket->request, name))
            continue;
        n++;
        if (ticket->state == BT_TICKET_HELD) {
            bt_rx_ticket_end(rx, ticket, BT_TICKET_ON_CONSUMED, BT_REQUEST_PINNED, BATON_OK);
        } else if (ticket->state != BT_TICKET_REVOKED) {
            bt_rx_ticket_fail(rx, ticket, BATON_ERR_CANCELED, "released by the proxy");
        }
    }
    if (n > 0)
        bt_rx_pump_queue(rx);
    return n;
}

void bt_rx_on_release(bt_rx *rx, const bt_rx_route *route, const bt_message *message)
{
    bt_message answer = {0};
    answer.u.released =
        bt_rx_release_request(rx, (const char *)message->u.request.data, message->u.request.bytes);
    bt_rx_answer(rx, BT_RX_ALLOC_PORT, route, message, &answer);
}

static bt_request_state live_state(const bt_rx_ticket *ticket)
{
    switch (ticket->state) {
    case BT_TICKET_QUEUED:
        return BT_REQUEST_QUEUED;
    case BT_TICKET_GRANTED:
        return BT_REQUEST_MOVING;
    case BT_TICKET_HELD:
        return BT_REQUEST_READY;
    default:
        return BT_REQUEST_FAILED;
    }
}

static bool status_of_ticket(const bt_rx *rx, bt_blob name, bt_msg_status_answer *answer)
{
    for (const bt_rx_ticket *ticket = rx->last_ticket; ticket != NULL; ticket = ticket->prev) {
        if (!is_named(ticket->request, name))
            continue;
        answer->state = live_state(ticket);
        answer->reason = ticket->reason;
        answer->n_chunks = ticket->n_chunks;
        answer->landed = ticket->present_chunks + ticket->sent_chunks;
        return true;
    }
    return false;
}

static void status_of_ended(const bt_rx *rx, bt_blob name, bt_msg_status_answer *answer)
{
    uint64_t now_ns = bt_now_ns(rx->clock);
    for (uint32_t back = 1; back <= BT_RX_ENDED_MAX; back++) {
        const bt_rx_ended *ended = &rx->ended[(rx->ended_next - back) % BT_RX_ENDED_MAX];
        if (ended->ended_ns == 0 || bt_elapsed_ns(now_ns, ended->ended_ns) > BT_RX_ENDED_NS)
            return;
        if (!is_named(ended->request, name))
            continue;
        answer->state = ended->state;
        answer->reason = ended->reason;
        answer->n_chunks = ended->n_chunks;
        answer->landed = ended->landed;
        return;
    }
}

void bt_rx_on_status(bt_rx *rx, const bt_rx_route *route, const bt_message *message)
{
    bt_message answer = {.u.status_answer = {.rank = rx->options.rank, .world = rx->options.world}};
    if (!status_of_ticket(rx, message->u.request, &answer.u.status_answer))
        status_of_ended(rx, message->u.request, &answer.u.status_answer);
    bt_rx_answer(rx, BT_RX_ALLOC_PORT, route, message, &answer);
}

/* Decode has pinned these keys: the oldest hold of a prompt that ends there is no longer needed.
 * The length tells whose it is: another prompt's beginning may be the same. */
void bt_rx_consume(bt_rx *rx, const bt_rx_command *command)
{
    for (int i = 0; i < 2; i++) {
        if (command->n_tokens[i] == 0)
            continue;
        for (bt_rx_ticket *ticket = rx->first_ticket; ticket != NULL; ticket = ticket->next) {
            if (ticket->state != BT_TICKET_HELD || ticket->n_tokens != command->n_tokens[i] ||
                memcmp(&ticket->last_key, &command->keys[i], sizeof(ticket->last_key)) != 0)
                continue;
            ticket->pin = command->pin;
            ticket->looked_up_ns = command->looked_up_ns;
            ticket->pinned_ns = command->at_ns;
            bt_rx_ticket_end(rx, ticket, BT_TICKET_ON_CONSUMED, BT_REQUEST_PINNED, BATON_OK);
            return;
        }
    }
}
