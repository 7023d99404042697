/* SPDX-License-Identifier: Apache-2.0 */
/* COMMIT: chunks that have landed become visible, and a complete ticket becomes a hold. */
#include "receiver/rxadmin.h"
#include "receiver/rxdevice.h"

#include "core/log.h"

#include <inttypes.h>
#include <stdio.h>

enum { CHECKS_AT_ONCE = 64 };

static uint64_t load_u64(const uint8_t *bytes)
{
    uint64_t value = 0;
    for (int i = 7; i >= 0; i--)
        value = value << 8 | bytes[i];
    return value;
}

/* Every range within the ticket, and as many digests as chunks, before anything is published. */
static baton_status check_commit(const bt_rx_ticket *ticket, const bt_msg_commit *commit,
                                 uint32_t *n_chunks)
{
    bt_list_cursor cursor = {0};
    bt_chunk_range range;
    uint64_t n = 0;
    while (bt_message_next_range(commit, &cursor, &range)) {
        if (range.first > ticket->n_chunks || range.count > ticket->n_chunks - range.first)
            return bt_fail(BATON_ERR_OUT_OF_RANGE, "commit: chunks %u + %u of %u", range.first,
                           range.count, ticket->n_chunks);
        n += range.count;
    }
    bool has_digests = commit->digests.bytes > 0 || n == 0;
    if (n > ticket->n_chunks || (commit->digests.bytes > 0 && commit->digests.bytes != 8 * n))
        return bt_fail(BATON_ERR_OUT_OF_RANGE,
                       "commit: wanted 8 bytes of digest for each of %" PRIu64
                       " chunks, found %zu bytes",
                       n, commit->digests.bytes);
    if (ticket->peer->digests != BT_DIGESTS_OFF && !has_digests)
        return bt_fail(BATON_ERR_DIGEST_MISMATCH, "commit: wanted digests, found none");
    *n_chunks = (uint32_t)n;
    return BATON_OK;
}

static baton_status commit_chunk(bt_rx *rx, bt_rx_ticket *ticket, uint32_t chunk)
{
    bt_page_ref page;
    if (!bt_grant_page(ticket->grant, chunk, &page))
        return BATON_OK; /* present, or committed before: nothing to do again */
    bool duplicate;
    BATON_TRY(bt_store_commit(rx->store, ticket->grant, chunk, &duplicate));
    uint64_t bytes = bt_grant_tokens_of(rx->store, ticket->grant, chunk) * rx->token_bytes;
    ticket->sent_chunks++;
    ticket->sent_bytes += bytes;
    rx->stats.bytes_landed_total += bytes;
    return BATON_OK;
}

/* Chunks whose digests are checked with the lock released: a reserved page belongs to its ticket,
 * which only this thread changes. */
typedef struct {
    uint32_t n;
    struct {
        uint32_t chunk;
        size_t bytes;
        uint64_t wanted, found;
        const bt_sample *sample; /* NULL: of all bytes */
        bt_page_ref page;
    } checks[CHECKS_AT_ONCE];
} check_batch;

static baton_status take_digests(bt_rx *rx, check_batch *batch)
{
    for (uint32_t i = 0; i < batch->n; i++) {
        if (i + 1 < batch->n)
            bt_rx_device_expect(rx, batch->checks[i + 1].page, batch->checks[i + 1].sample);
        BATON_TRY(bt_rx_device_digest(rx, batch->checks[i].page, batch->checks[i].bytes,
                                      batch->checks[i].sample, &batch->checks[i].found));
    }
    return BATON_OK;
}

/* Those that match are published, up to the first that does not. */
static baton_status run_checks(bt_rx *rx, bt_rx_ticket *ticket, check_batch *batch)
{
    pthread_mutex_unlock(&rx->lock);
    baton_status status = take_digests(rx, batch);
    pthread_mutex_lock(&rx->lock);
    BATON_TRY(status);
    uint32_t n = batch->n;
    batch->n = 0;
    for (uint32_t i = 0; i < n; i++) {
        rx->stats.digests_checked_total++;
        if (batch->checks[i].found == batch->checks[i].wanted) {
            BATON_TRY(commit_chunk(rx, ticket, batch->checks[i].chunk));
            continue;
        }
        rx->stats.digests_failed_total++;
        return bt_fail(BATON_ERR_DIGEST_MISMATCH,
                       "commit: digest of chunk %u: wanted %016" PRIx64 ", found %016" PRIx64
                       " peer=%s",
                       batch->checks[i].chunk, batch->checks[i].wanted, batch->checks[i].found,
                       ticket->peer->name);
    }
    return BATON_OK;
}

static baton_status add_check(bt_rx *rx, bt_rx_ticket *ticket, uint32_t chunk, uint64_t wanted,
                              check_batch *batch)
{
    bt_page_ref page;
    const bt_sample *sample;
    if (!bt_grant_page(ticket->grant, chunk, &page))
        return BATON_OK; /* committed before, or present: checked then */
    BATON_TRY(bt_rx_ticket_sample(rx, ticket, chunk, &sample));
    size_t bytes = (size_t)(bt_grant_tokens_of(rx->store, ticket->grant, chunk) * rx->token_bytes);
    batch->checks[batch->n].chunk = chunk;
    batch->checks[batch->n].page = page;
    batch->checks[batch->n].bytes = bytes;
    batch->checks[batch->n].sample = sample;
    batch->checks[batch->n].wanted = wanted;
    return ++batch->n == CHECKS_AT_ONCE ? run_checks(rx, ticket, batch) : BATON_OK;
}

static baton_status commit_digested(bt_rx *rx, bt_rx_ticket *ticket, const bt_msg_commit *commit)
{
    const uint8_t *digest = commit->digests.data;
    bt_list_cursor cursor = {0};
    bt_chunk_range range;
    check_batch batch;
    batch.n = 0;
    while (bt_message_next_range(commit, &cursor, &range)) {
        for (uint32_t i = 0; i < range.count; i++, digest += 8)
            BATON_TRY(add_check(rx, ticket, range.first + i, load_u64(digest), &batch));
    }
    return batch.n > 0 ? run_checks(rx, ticket, &batch) : BATON_OK;
}

baton_status bt_rx_ticket_sample(const bt_rx *rx, bt_rx_ticket *ticket, uint32_t chunk,
                                 const bt_sample **sample_p)
{
    *sample_p = NULL;
    if (ticket->peer->digests != BT_DIGESTS_SAMPLED)
        return BATON_OK;
    bool is_last = chunk + 1 == ticket->n_chunks;
    *sample_p = bt_samples_find(&ticket->samples, is_last);
    if (*sample_p != NULL)
        return BATON_OK;
    const baton_layout *layout = &rx->options.layout;
    return bt_samples_get(&ticket->samples, is_last, layout->n_layers, layout->n_planes,
                          bt_grant_tokens_of(rx->store, ticket->grant, chunk) * rx->token_bytes,
                          bt_sample_seed(ticket->nonce, ticket->id, ticket->generation), sample_p);
}

static baton_status commit_ranges(bt_rx *rx, bt_rx_ticket *ticket, const bt_msg_commit *commit)
{
    bt_list_cursor cursor = {0};
    bt_chunk_range range;
    if (commit->digests.bytes > 0)
        return commit_digested(rx, ticket, commit);
    while (bt_message_next_range(commit, &cursor, &range)) {
        for (uint32_t i = 0; i < range.count; i++)
            BATON_TRY(commit_chunk(rx, ticket, range.first + i));
    }
    return BATON_OK;
}

static baton_status finish(bt_rx *rx, bt_rx_ticket *ticket)
{
    uint32_t held = bt_grant_held(ticket->grant);
    if (held < ticket->n_chunks)
        return bt_fail(BATON_ERR_STATE, "commit: final, but %u of %u chunks have not landed",
                       ticket->n_chunks - held, ticket->n_chunks);
    uint64_t now_ns = bt_now_ns(rx->clock);
    if (!bt_rx_ticket_move(rx, ticket, BT_TICKET_ON_FINAL))
        return bt_fail(BATON_ERR_STATE, "commit: final of a ticket that cannot be complete");
    ticket->lease_ns = bt_deadline_ns(now_ns, rx->options.timeouts.lease_ms * BT_NS_PER_MS);
    rx->stats.requests_ready_total++;
    baton_receiver_event event = {.kind = BATON_RECEIVER_READY,
                                  .n_chunks = ticket->n_chunks,
                                  .sent_chunks = ticket->sent_chunks,
                                  .sent_bytes = ticket->sent_bytes,
                                  .move_ns = now_ns - ticket->granted_ns};
    snprintf(event.request, sizeof(event.request), "%s", ticket->request);
    rx->out.event(rx->out.ctx, &event);
    return BATON_OK;
}

static baton_status commit_granted(bt_rx *rx, bt_rx_ticket *ticket, const bt_msg_commit *commit)
{
    uint32_t n_chunks;
    BATON_TRY(check_commit(ticket, commit, &n_chunks));
    bt_worker_observe(ticket->peer->worker);
    baton_status status = bt_rx_device_land(rx, ticket, commit);
    if (status != BATON_OK)
        return status;
    if (!bt_rx_ticket_move(rx, ticket, BT_TICKET_ON_COMMIT))
        return bt_fail(BATON_ERR_STATE, "commit: of a ticket that takes none");
    status = commit_ranges(rx, ticket, commit);
    if (status == BATON_OK && commit->final)
        status = finish(rx, ticket);
    return status;
}

void bt_rx_on_commit(bt_rx *rx, bt_rx_peer *peer, const bt_message *message)
{
    const bt_rx_route *route = &peer->routes[BT_RX_ALLOC_PORT];
    const bt_msg_commit *commit = &message->u.commit;
    uint32_t landed;
    /* What has ended is looked at only when the ticket is not live: it is a long list. */
    if (bt_rx_ticket_find(rx, commit->name.ticket) == NULL &&
        bt_rx_was_complete(rx, &commit->name, &landed)) {
        bt_message again = {.u.commit_answer = {.landed = landed, .final = 1}};
        bt_rx_answer(rx, BT_RX_ALLOC_PORT, route, message, &again);
        return;
    }
    bt_rx_ticket *ticket = bt_rx_ticket_named(rx, peer, &commit->name);
    baton_status status = BATON_OK;
    if (ticket == NULL)
        status = BATON_ERR_STALE;
    else if (ticket->state == BT_TICKET_REVOKED)
        status = bt_fail(BATON_ERR_REVOKED, "commit: ticket revoked: %s", ticket->reason_text);
    else if (ticket->state == BT_TICKET_QUEUED)
        status = bt_fail(BATON_ERR_STATE, "commit: ticket is still queued");
    else if (ticket->state == BT_TICKET_GRANTED)
        status = commit_granted(rx, ticket, commit);
    if (status == BATON_IN_PROGRESS) {
        status = bt_rx_device_keep(rx, peer, message);
        if (status == BATON_OK)
            return; /* answered when its bytes are where decode reads them */
    }
    if (status != BATON_OK) {
        char text[BT_ERROR_TEXT_BYTES];
        snprintf(text, sizeof(text), "%s", baton_last_error());
        bt_rx_answer_failure(rx, BT_RX_ALLOC_PORT, route, message, status);
        if (status == BATON_ERR_DIGEST_MISMATCH) {
            bt_error("receiver: %s request=%s trace=%s", text, ticket->request,
                     ticket->trace.trace);
            bt_rx_ticket_fail(rx, ticket, status, text);
        }
        return;
    }
    bt_rx_note_commit(rx, ticket);
    bt_message answer = {.u.commit_answer = {.landed = bt_grant_held(ticket->grant),
                                             .final = ticket->state == BT_TICKET_HELD}};
    bt_rx_answer(rx, BT_RX_ALLOC_PORT, route, message, &answer);
}
