/* SPDX-License-Identifier: Apache-2.0 */
/* Tickets: what an ALLOC is granted, and how that ends. Their moves: core/states.def.
 *
 *   NEW ──▶ QUEUED ──▶ GRANTED ──▶ HELD ──▶ ENDED
 *    │        │           │
 *    └────────┼──▶GRANTED └──▶ REVOKED ──▶ ENDED
 *             └──▶ ENDED */
#include "receiver/rx.h"

#include "core/alloc.h"
#include "core/log.h"
#include "wire/notice.h"

#include <assert.h>
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

static void queue_remove(bt_rx *rx, bt_rx_ticket *ticket)
{
    bt_rx_ticket **link = &rx->queue_first, *before = NULL;
    while (*link != ticket) {
        before = *link;
        link = &(*link)->queue_next;
    }
    *link = ticket->queue_next;
    if (rx->queue_last == ticket)
        rx->queue_last = before;
    ticket->queue_next = NULL;
    rx->n_queued--;
    rx->n_queued_chunks -= ticket->n_chunks;
    ticket->peer->n_queued--;
}

static void queue_append(bt_rx *rx, bt_rx_ticket *ticket)
{
    if (rx->queue_last != NULL)
        rx->queue_last->queue_next = ticket;
    else
        rx->queue_first = ticket;
    rx->queue_last = ticket;
    rx->n_queued++;
    rx->n_queued_chunks += ticket->n_chunks;
    ticket->peer->n_queued++;
}

static bool guard_holds(const bt_rx_ticket *ticket, bt_rx_ticket_guard guard)
{
    switch (guard) {
    case BT_TICKET_IF_SECURED:
        return ticket->grant != NULL && bt_grant_chunks(ticket->grant) == ticket->n_chunks;
    case BT_TICKET_IF_WHOLE:
        return ticket->grant != NULL && bt_grant_held(ticket->grant) == ticket->n_chunks;
    case BT_TICKET_IF_NOTHING:
        return ticket->grant == NULL;
    default:
        return true;
    }
}

/* What the move does to the pages and holds of the ticket. */
static void settle_grant(bt_rx *rx, bt_rx_ticket *ticket, bt_rx_ticket_action action)
{
    bt_grant *grant = ticket->grant;
    ticket->grant = NULL;
    switch (action) {
    case BT_TICKET_DO_QUARANTINE:
        if (!bt_grant_end(rx->store, grant, false)) /* else every chunk had been committed */
            ticket->grant = grant;
        break;
    case BT_TICKET_DO_FREE:
        bt_grant_end(rx->store, grant, true);
        break;
    case BT_TICKET_DO_PROVE:
        bt_grant_prove(rx->store, grant);
        break;
    case BT_TICKET_DO_RETIRE:
        bt_grant_retire(rx->store, grant);
        break;
    default: /* PUBLISH goes chunk by chunk, in rxcommit.c */
        ticket->grant = grant;
    }
}

static void enter_state(bt_rx *rx, bt_rx_ticket *ticket, bt_rx_ticket_state state)
{
    if (ticket->state == state)
        return;
    if (ticket->state == BT_TICKET_QUEUED)
        queue_remove(rx, ticket);
    rx->n_held -= ticket->state == BT_TICKET_HELD;
    if (ticket->peer != NULL) {
        ticket->peer->n_revoked -= ticket->state == BT_TICKET_REVOKED;
        ticket->peer->n_revoked += state == BT_TICKET_REVOKED;
    }
    ticket->state = state;
    if (state == BT_TICKET_QUEUED)
        queue_append(rx, ticket);
    rx->n_held += state == BT_TICKET_HELD;
}

bool bt_rx_ticket_move(bt_rx *rx, bt_rx_ticket *ticket, bt_rx_ticket_change event)
{
    const bt_move *move = bt_state_next(&bt_ticket_states, ticket->state, event);
    if (move != NULL && guard_holds(ticket, move->guard)) {
        enter_state(rx, ticket, move->to);
        settle_grant(rx, ticket, move->action);
        return true;
    }
    rx->stats.moves_refused_total++;
    bt_error("receiver: refused: %s of a ticket that is %s request=%s",
             bt_state_event_name(&bt_ticket_states, event),
             bt_state_name(&bt_ticket_states, ticket->state), ticket->request);
    return false;
}

bt_rx_ticket *bt_rx_ticket_find(bt_rx *rx, uint64_t id)
{
    bt_rx_ticket *ticket = rx->by_id[id % BT_RX_BUCKETS];
    while (ticket != NULL && ticket->id != id)
        ticket = ticket->hash_next;
    return ticket;
}

bt_rx_ticket *bt_rx_ticket_named(bt_rx *rx, const bt_rx_peer *peer, const bt_ticket_name *name)
{
    bt_rx_ticket *ticket = bt_rx_ticket_find(rx, name->ticket);
    if (ticket != NULL && ticket->peer == peer && ticket->generation == name->generation &&
        name->nonce.bytes == BT_NONCE_BYTES &&
        sodium_memcmp(ticket->nonce, name->nonce.data, BT_NONCE_BYTES) == 0)
        return ticket;
    rx->stats.messages_stale_total++;
    bt_fail(BATON_ERR_STALE, "receiver: no ticket %" PRIu64 " of this peer and generation",
            name->ticket);
    return NULL;
}

bt_rx_ticket *bt_rx_ticket_disowned(bt_rx *rx, const bt_rx_peer *peer, const bt_ticket_name *name)
{
    if (name->nonce.bytes == 0) {
        bt_rx_ticket *ticket = bt_rx_ticket_find(rx, name->ticket);
        bool same = name->generation == 0 || (ticket && ticket->generation == name->generation);
        if (ticket != NULL && ticket->peer == peer && same && ticket->state != BT_TICKET_HELD)
            return ticket;
    }
    return bt_rx_ticket_named(rx, peer, name);
}

static void ticket_free(bt_rx_ticket *ticket)
{
    bt_samples_clear(&ticket->samples);
    bt_free(ticket->keys);
    bt_free(ticket);
}

static void unlink_ticket(bt_rx *rx, bt_rx_ticket *ticket)
{
    *(ticket->prev != NULL ? &ticket->prev->next : &rx->first_ticket) = ticket->next;
    *(ticket->next != NULL ? &ticket->next->prev : &rx->last_ticket) = ticket->prev;
    bt_rx_ticket **link = &rx->by_id[ticket->id % BT_RX_BUCKETS];
    while (*link != ticket)
        link = &(*link)->hash_next;
    *link = ticket->hash_next;
    rx->n_tickets--;
}

static void link_ticket(bt_rx *rx, bt_rx_ticket *ticket)
{
    ticket->prev = rx->last_ticket;
    *(rx->last_ticket != NULL ? &rx->last_ticket->next : &rx->first_ticket) = ticket;
    rx->last_ticket = ticket;
    bt_rx_ticket **bucket = &rx->by_id[ticket->id % BT_RX_BUCKETS];
    ticket->hash_next = *bucket;
    *bucket = ticket;
    rx->n_tickets++;
}

/* A peer must not choose whom this process connects to. "" asks for no notice. */
static bool notice_allowed(const baton_receiver_options *options, bt_blob address)
{
    return address.bytes == 0 || bt_notice_allowed(address, options->notice, options->notice_allow,
                                                   options->n_notice_allow);
}

/* What a sender states binds its own patience only: how long pages may be held is said here. */
static uint64_t deadline_ms(const bt_rx *rx, const bt_msg_alloc *alloc)
{
    uint32_t most = rx->options.max_deadline_ms;
    return alloc->deadline_ms < most ? alloc->deadline_ms : most;
}

static baton_status ticket_create(bt_rx *rx, bt_rx_peer *peer, const bt_message *message,
                                  bt_rx_ticket **ticket_p)
{
    const bt_msg_alloc *alloc = &message->u.alloc;
    if (rx->n_tickets >= rx->max_tickets)
        return bt_fail(BATON_ERR_OVERLOADED, "alloc: %u tickets are live, no more are allowed",
                       rx->n_tickets);
    if (alloc->last_tokens == 0 || alloc->last_tokens > rx->options.layout.chunk_tokens)
        return bt_fail(BATON_ERR_INVALID_ARG, "alloc: last_tokens: wanted 1 to %u, found %u",
                       rx->options.layout.chunk_tokens, alloc->last_tokens);
    bt_rx_ticket *ticket = bt_calloc(1, sizeof(*ticket));
    if (ticket == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "alloc: ticket");
    ticket->n_chunks = (uint32_t)(alloc->keys.bytes / BATON_KEY_BYTES);
    ticket->keys = bt_calloc(ticket->n_chunks, sizeof(*ticket->keys));
    if (ticket->keys == NULL) {
        ticket_free(ticket);
        return bt_fail(BATON_ERR_NO_MEMORY, "alloc: %zu bytes of keys", alloc->keys.bytes);
    }
    memcpy(ticket->keys, alloc->keys.data, alloc->keys.bytes);
    ticket->last_key = ticket->keys[ticket->n_chunks - 1];
    ticket->last_tokens = alloc->last_tokens;
    ticket->n_tokens =
        (uint64_t)(ticket->n_chunks - 1) * rx->options.layout.chunk_tokens + alloc->last_tokens;
    ticket->peer = peer;
    ticket->alloc_ns = ticket->named_ns = bt_now_ns(rx->clock);
    bt_traceparent_read((const char *)alloc->trace.data, alloc->trace.bytes, &ticket->trace);
    ticket->alloc_id = message->id;
    ticket->id = rx->next_ticket++;
    randombytes_buf(&ticket->generation, sizeof(ticket->generation));
    randombytes_buf(ticket->nonce, sizeof(ticket->nonce));
    ticket->deadline_ns = bt_deadline_ns(ticket->alloc_ns, deadline_ms(rx, alloc) * BT_NS_PER_MS);
    bt_blob_to_text(alloc->request, ticket->request, sizeof(ticket->request));
    bt_blob_to_text(alloc->notice, ticket->notice, sizeof(ticket->notice));
    link_ticket(rx, ticket);
    *ticket_p = ticket;
    return BATON_OK;
}

/* The grant's reserved pages as runs of neighbours; returns how many. runs has room for n_chunks.
 */
static uint32_t collect_runs(const bt_rx *rx, const bt_rx_ticket *ticket, bt_page_run *runs)
{
    uint32_t n = 0;
    for (uint32_t chunk = 0; chunk < ticket->n_chunks; chunk++) {
        bt_page_ref page;
        if (!bt_grant_page(ticket->grant, chunk, &page))
            continue;
        bt_page_run *last = n > 0 ? &runs[n - 1] : NULL;
        if (last != NULL && last->region == page.region && last->first + last->count == chunk &&
            last->page + last->count == page.page)
            last->count++;
        else
            runs[n++] = (bt_page_run){.first = chunk,
                                      .count = 1,
                                      .region = page.region,
                                      .generation = rx->regions[page.region].generation,
                                      .page = page.page};
    }
    return n;
}

static uint32_t queue_place(const bt_rx *rx, const bt_rx_ticket *ticket)
{
    uint32_t place = 1;
    for (const bt_rx_ticket *t = rx->queue_first; t != NULL && t != ticket; t = t->queue_next)
        place++;
    return place;
}

/* Answers the ALLOC of a QUEUED, GRANTED or HELD ticket; may be said again and again. */
static void answer_alloc(bt_rx *rx, const bt_rx_ticket *ticket)
{
    bt_message answer = {.u.alloc_answer = {.ticket = ticket->id,
                                            .generation = ticket->generation,
                                            .n_chunks = ticket->n_chunks}};
    bt_msg_alloc_answer *body = &answer.u.alloc_answer;
    bt_page_run *runs = NULL;
    if (ticket->state == BT_TICKET_QUEUED) {
        body->outcome = BT_ALLOC_QUEUED;
        body->place = queue_place(rx, ticket);
    } else {
        body->outcome = BT_ALLOC_GRANTED;
        body->nonce = bt_blob_of(ticket->nonce, BT_NONCE_BYTES);
        runs = bt_calloc(ticket->n_chunks, sizeof(*runs));
        if (runs == NULL) /* the sender asks again */
            return;
        body->runs = runs;
        body->n_runs = ticket->grant != NULL ? collect_runs(rx, ticket, runs) : 0;
    }
    const bt_message request = {
        .type = BT_MSG_ALLOC, .id = ticket->alloc_id, .epoch = ticket->peer->epoch};
    bt_rx_answer(rx, BT_RX_ALLOC_PORT, &ticket->peer->routes[BT_RX_ALLOC_PORT], &request, &answer);
    bt_free(runs);
}

/* When a refused request may try again: 0.5 to 2 s, so that those who were refused together do not
 * come back together; 0 where trying again would not help. */
static uint32_t retry_ms_of(baton_status status)
{
    bool may_pass = status == BATON_ERR_OVERLOADED || status == BATON_ERR_NO_MEMORY ||
                    status == BATON_ERR_DEADLINE;
    return may_pass ? 500 + randombytes_uniform(1501) : 0;
}

static void answer_refused(bt_rx *rx, const bt_rx_ticket *ticket, baton_status status)
{
    bt_store_stats stats;
    bt_store_get_stats(rx->store, &stats);
    bt_message answer = {
        .status = status,
        .text = bt_blob_of_text(baton_last_error()),
        .u.alloc_answer = {.outcome = BT_ALLOC_REFUSED,
                           .retry_ms = retry_ms_of(status),
                           .pages_wanted = ticket->n_chunks,
                           .pages_total = (uint32_t)stats.pages_total},
    };
    const bt_message request = {
        .type = BT_MSG_ALLOC, .id = ticket->alloc_id, .epoch = ticket->peer->epoch};
    bt_rx_answer(rx, BT_RX_ALLOC_PORT, &ticket->peer->routes[BT_RX_ALLOC_PORT], &request, &answer);
    rx->stats.tickets_refused_total++;
}

/* A request that can never fit is told so at once: it would block whoever waits behind it. */
static baton_status check_size(const bt_rx *rx, const bt_rx_ticket *ticket)
{
    bt_store_stats stats;
    bt_store_get_stats(rx->store, &stats);
    uint64_t usable_pages = stats.pages_total - stats.pages[BT_PAGE_RETIRED];
    if (ticket->n_chunks > usable_pages)
        return bt_fail(BATON_ERR_TOO_LARGE, "alloc: wanted %u pages, the whole pool has %" PRIu64,
                       ticket->n_chunks, usable_pages);
    return BATON_OK;
}

static baton_status try_grant(bt_rx *rx, bt_rx_ticket *ticket)
{
    BATON_TRY(check_size(rx, ticket));
    BATON_TRY(bt_store_grant(rx->store, &rx->root.last, ticket->keys, ticket->n_chunks,
                             ticket->last_tokens, &ticket->grant));
    ticket->present_chunks = bt_grant_held(ticket->grant);
    ticket->granted_ns = ticket->named_ns = bt_now_ns(rx->clock);
    bt_free(ticket->keys);
    ticket->keys = NULL;
    bt_worker_observe(ticket->peer->worker);
    bt_rx_ticket_move(rx, ticket, BT_TICKET_ON_GRANT);
    rx->stats.tickets_granted_total++;
    rx->stats.chunks_present_total += ticket->present_chunks;
    return BATON_OK;
}

static bool has_room(const bt_rx *rx, const bt_rx_ticket *ticket)
{
    return rx->n_queued < rx->options.max_queued &&
           rx->n_queued_chunks + ticket->n_chunks <= BT_RX_QUEUED_CHUNKS_MAX;
}

/* The last in the queue of the peer that has most there, where that is more than `peer` has with
 * one more; NULL: the queue is shared fairly. */
static bt_rx_ticket *find_greedy(const bt_rx *rx, const bt_rx_peer *peer)
{
    bt_rx_ticket *greedy = NULL;
    uint32_t most = peer->n_queued + 1;
    for (bt_rx_ticket *ticket = rx->queue_first; ticket != NULL; ticket = ticket->queue_next) {
        if (ticket->peer->n_queued > most || (greedy != NULL && ticket->peer == greedy->peer)) {
            most = ticket->peer->n_queued;
            greedy = ticket;
        }
    }
    return greedy;
}

/* One peer that fills the queue must not keep the others out of it: it gives places back. */
static bool make_room(bt_rx *rx, const bt_rx_ticket *ticket)
{
    while (!has_room(rx, ticket)) {
        bt_rx_ticket *greedy = find_greedy(rx, ticket->peer);
        if (greedy == NULL)
            return false;
        bt_fail(BATON_ERR_OVERLOADED,
                "alloc: %u requests wait for pages, most of them of this sender", rx->n_queued);
        answer_refused(rx, greedy, BATON_ERR_OVERLOADED);
        bt_rx_ticket_end(rx, greedy, BT_TICKET_ON_REFUSE, BT_REQUEST_FAILED, BATON_ERR_OVERLOADED);
    }
    return true;
}

/* Grants, queues, or says why not. Whoever comes while others wait, waits behind them. */
static baton_status place_ticket(bt_rx *rx, bt_rx_ticket *ticket, bool may_queue)
{
    bool others_wait = rx->queue_first != NULL;
    baton_status status = others_wait ? check_size(rx, ticket) : try_grant(rx, ticket);
    if (!others_wait && status != BATON_ERR_NO_PAGES)
        return status;
    if (others_wait && status != BATON_OK)
        return status;
    if (!may_queue || !make_room(rx, ticket))
        return bt_fail(BATON_ERR_OVERLOADED,
                       "alloc: wanted %u pages now, %u requests wait for some", ticket->n_chunks,
                       rx->n_queued);
    bt_rx_ticket_move(rx, ticket, BT_TICKET_ON_QUEUE);
    rx->stats.tickets_queued_total++;
    return BATON_OK;
}

static bt_rx_ticket *find_by_alloc(bt_rx *rx, const bt_rx_peer *peer, uint64_t alloc_id)
{
    bt_rx_ticket *ticket = rx->last_ticket;
    while (ticket != NULL && (ticket->peer != peer || ticket->alloc_id != alloc_id))
        ticket = ticket->prev;
    return ticket;
}

/* Why the request of this ALLOC has ended, as the last error; not STALE, which would say that this
 * peer is not known here. */
static baton_status why_ended(const bt_rx *rx, const bt_rx_peer *peer, uint64_t alloc_id,
                              const bt_rx_ticket *ticket)
{
    if (ticket != NULL)
        return bt_fail(ticket->reason, "alloc: %s", ticket->reason_text);
    baton_status reason = bt_rx_reason_of(rx, peer->epoch, alloc_id);
    if (reason >= 0 || reason == BATON_ERR_STALE)
        reason = BATON_ERR_REVOKED;
    return bt_fail(reason, "alloc: this request has ended: %s", baton_strerror(reason));
}

/* The same ALLOC once more: its answer is lost, or late. */
static void answer_again(bt_rx *rx, bt_rx_peer *peer, const bt_message *message)
{
    bt_rx_ticket *ticket = find_by_alloc(rx, peer, message->id);
    if (ticket != NULL && ticket->state != BT_TICKET_REVOKED) {
        ticket->named_ns = bt_now_ns(rx->clock); /* its sender may not have seen its number yet */
        answer_alloc(rx, ticket);
        return;
    }
    bt_rx_answer_failure(rx, BT_RX_ALLOC_PORT, &peer->routes[BT_RX_ALLOC_PORT], message,
                         why_ended(rx, peer, message->id, ticket));
}

void bt_rx_on_alloc(bt_rx *rx, bt_rx_peer *peer, const bt_message *message)
{
    const bt_rx_route *route = &peer->routes[BT_RX_ALLOC_PORT];
    if (bt_rx_seen_before(peer, message->id)) {
        answer_again(rx, peer, message);
        return;
    }
    if (peer->is_probe) {
        bt_fail(BATON_ERR_PERMISSION, "alloc: this peer said in INIT that it only measures");
        bt_rx_answer_failure(rx, BT_RX_ALLOC_PORT, route, message, BATON_ERR_PERMISSION);
        return;
    }
    if (!notice_allowed(&rx->options, message->u.alloc.notice)) {
        bt_fail(BATON_ERR_PERMISSION, "alloc: notice: this address is not in notice_allow");
        bt_rx_answer_failure(rx, BT_RX_ALLOC_PORT, route, message, BATON_ERR_PERMISSION);
        return;
    }
    bt_rx_ticket *ticket;
    baton_status status = ticket_create(rx, peer, message, &ticket);
    if (status != BATON_OK) {
        bt_message answer = {
            .status = status,
            .text = bt_blob_of_text(baton_last_error()),
            .u.alloc_answer = {.outcome = BT_ALLOC_REFUSED, .retry_ms = retry_ms_of(status)}};
        bt_rx_answer(rx, BT_RX_ALLOC_PORT, route, message, &answer);
        return;
    }
    status = place_ticket(rx, ticket, message->u.alloc.may_queue != 0);
    if (status != BATON_OK) {
        answer_refused(rx, ticket, status);
        bt_rx_ticket_end(rx, ticket, BT_TICKET_ON_REFUSE, BT_REQUEST_FAILED, status);
        return;
    }
    answer_alloc(rx, ticket);
}

void bt_rx_pump_queue(bt_rx *rx)
{
    while (rx->queue_first != NULL) {
        bt_rx_ticket *ticket = rx->queue_first;
        baton_status status = try_grant(rx, ticket);
        if (status == BATON_ERR_NO_PAGES || status == BATON_ERR_NO_MEMORY)
            return;
        bt_rx_peer *before = rx->ring_peer;
        rx->ring_peer = bt_rx_ring_is_used(ticket->peer) ? ticket->peer : NULL; /* faster */
        if (status == BATON_OK)
            answer_alloc(rx, ticket);
        else
            answer_refused(rx, ticket, status);
        rx->ring_peer = before;
        if (status != BATON_OK)
            bt_rx_ticket_end(rx, ticket, BT_TICKET_ON_REFUSE, BT_REQUEST_FAILED, status);
    }
}

static void report(bt_rx *rx, const bt_rx_ticket *ticket, baton_receiver_event_kind kind,
                   baton_status status, const char *text)
{
    baton_receiver_event event = {.kind = kind,
                                  .status = status,
                                  .n_chunks = ticket->n_chunks,
                                  .sent_chunks = ticket->sent_chunks,
                                  .sent_bytes = ticket->sent_bytes};
    snprintf(event.request, sizeof(event.request), "%s", ticket->request);
    snprintf(event.text, sizeof(event.text), "%s", text);
    rx->out.event(rx->out.ctx, &event);
}

/* Whoever tells the proxy of a failure that the sender may not live to tell. */
static void tell_proxy(bt_rx *rx, const bt_rx_ticket *ticket, baton_status status, const char *text)
{
    const char *address = ticket->notice[0] != 0 ? ticket->notice : rx->options.notice;
    if (address != NULL && address[0] != 0)
        rx->out.notice(rx->out.ctx, address, ticket->request, status, text);
}

static void revoke(bt_rx *rx, bt_rx_ticket *ticket, baton_status reason, const char *text)
{
    if (!bt_rx_ticket_move(rx, ticket, BT_TICKET_ON_FAIL))
        return;
    ticket->reason = reason;
    ticket->revoked_ns = bt_now_ns(rx->clock);
    snprintf(ticket->reason_text, sizeof(ticket->reason_text), "%s", text);
    if (ticket->peer != NULL)
        ticket->peer->last_revoke_ns = 0; /* the next tick says so */
    if (ticket->grant == NULL) /* every chunk had been committed: nothing is left to write */
        bt_rx_ticket_end(rx, ticket, BT_TICKET_ON_EMPTY, BT_REQUEST_FAILED, reason);
}

void bt_rx_ticket_fail(bt_rx *rx, bt_rx_ticket *ticket, baton_status reason, const char *text)
{
    bt_debug("receiver: request failed: %s request=%s trace=%s", text, ticket->request,
             ticket->trace.trace);
    rx->stats.requests_failed_total++;
    report(rx, ticket, BATON_RECEIVER_FAILED, reason, text);
    bool has_sender = ticket->state != BT_TICKET_HELD; /* who says it of what moves */
    if (reason != BATON_ERR_CANCELED && !(reason == BATON_ERR_CLOSED && has_sender))
        tell_proxy(rx, ticket, reason, text);
    if (ticket->state == BT_TICKET_GRANTED) {
        revoke(rx, ticket, reason, text);
        return;
    }
    if (ticket->state == BT_TICKET_QUEUED && ticket->peer != NULL) {
        bt_fail(reason, "%s", text);
        answer_refused(rx, ticket, reason);
    }
    bt_rx_ticket_end(rx, ticket, BT_TICKET_ON_FAIL, BT_REQUEST_FAILED, reason);
}

void bt_rx_ticket_settle(bt_rx *rx, bt_rx_ticket *ticket, bt_rx_ticket_change proof)
{
    if (proof == BT_TICKET_ON_PATIENCE)
        bt_warn("receiver: pages retired, their writer was never proven done request=%s trace=%s",
                ticket->request, ticket->trace.trace);
    bt_rx_ticket_end(rx, ticket, proof, BT_REQUEST_FAILED, ticket->reason);
}

void bt_rx_ticket_end(bt_rx *rx, bt_rx_ticket *ticket, bt_rx_ticket_change event,
                      bt_request_state state, baton_status reason)
{
    if (!bt_rx_ticket_move(rx, ticket, event))
        return;
    assert(ticket->state == BT_TICKET_ENDED && ticket->grant == NULL);
    bt_rx_remember(rx, ticket, state, reason);
    unlink_ticket(rx, ticket);
    ticket_free(ticket);
}

void bt_rx_on_cancel(bt_rx *rx, bt_rx_peer *peer, const bt_message *message)
{
    const bt_rx_route *route = &peer->routes[BT_RX_ALLOC_PORT];
    const bt_msg_end *cancel = &message->u.end;
    bt_rx_ticket *ticket = bt_rx_ticket_disowned(rx, peer, &cancel->name);
    if (ticket == NULL) {
        bt_rx_answer_failure(rx, BT_RX_ALLOC_PORT, route, message, BATON_ERR_STALE);
        return;
    }
    if (ticket->state == BT_TICKET_REVOKED) {
        if (cancel->drained)
            bt_rx_ticket_settle(rx, ticket, BT_TICKET_ON_DRAINED);
    } else if (ticket->state == BT_TICKET_GRANTED && cancel->drained) {
        report(rx, ticket, BATON_RECEIVER_FAILED, BATON_ERR_CANCELED, "canceled by the sender");
        rx->stats.requests_failed_total++;
        bt_rx_ticket_end(rx, ticket, BT_TICKET_ON_CANCEL, BT_REQUEST_FAILED, BATON_ERR_CANCELED);
    } else {
        bt_rx_ticket_fail(rx, ticket, BATON_ERR_CANCELED, "canceled by the sender");
    }
    bt_message answer = {0};
    bt_rx_answer(rx, BT_RX_ALLOC_PORT, route, message, &answer);
    bt_rx_pump_queue(rx);
}

void bt_rx_on_drained(bt_rx *rx, bt_rx_peer *peer, const bt_message *message)
{
    bt_rx_ticket *ticket = bt_rx_ticket_disowned(rx, peer, &message->u.drained);
    if (ticket == NULL || ticket->state != BT_TICKET_REVOKED)
        return;
    bt_rx_ticket_settle(rx, ticket, BT_TICKET_ON_DRAINED);
    bt_rx_pump_queue(rx);
}

/* A live sender names all its tickets in its heartbeats, and asks again for those whose answer it
 * has not seen: one that is missing there is one that it gave up, and the word of that got lost. A
 * queued one would wait in the way of others, and be granted to nobody. */
static bool is_nobodys(const bt_rx *rx, const bt_rx_ticket *ticket, uint64_t now_ns)
{
    uint64_t lease_ns = 2 * (uint64_t)rx->options.timeouts.silent_ms * BT_NS_PER_MS;
    return (ticket->state == BT_TICKET_GRANTED || ticket->state == BT_TICKET_QUEUED) &&
           bt_elapsed_ns(now_ns, ticket->named_ns) >= lease_ns;
}

/* The reaper: runs on the receiver's own timer, whether messages come or not. */
void bt_rx_tickets_tick(bt_rx *rx, uint64_t now_ns)
{
    for (bt_rx_ticket *ticket = rx->first_ticket, *next; ticket != NULL; ticket = next) {
        next = ticket->next;
        bool is_moving = ticket->state == BT_TICKET_QUEUED || ticket->state == BT_TICKET_GRANTED;
        if (is_moving && now_ns >= ticket->deadline_ns) {
            bt_rx_ticket_fail(rx, ticket, BATON_ERR_DEADLINE, "deadline of the request has passed");
        } else if (is_nobodys(rx, ticket, now_ns)) {
            bt_rx_ticket_fail(rx, ticket, BATON_ERR_LEASE_EXPIRED,
                              "the sender does not speak of this ticket");
        } else if (ticket->state == BT_TICKET_HELD && now_ns >= ticket->lease_ns) {
            const char *text = "ready, but decode did not come within the lease";
            rx->stats.holds_expired_total++;
            report(rx, ticket, BATON_RECEIVER_EXPIRED, BATON_ERR_LEASE_EXPIRED, text);
            tell_proxy(rx, ticket, BATON_ERR_LEASE_EXPIRED, text);
            bt_rx_ticket_end(rx, ticket, BT_TICKET_ON_EXPIRED, BT_REQUEST_EXPIRED,
                             BATON_ERR_LEASE_EXPIRED);
        }
    }
}
