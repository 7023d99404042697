/* SPDX-License-Identifier: Apache-2.0 */
/* Transfers: from ALLOC to DONE or FAILED. Their moves: core/states.def.
 *
 *   WAIT_PEER ◀─▶ WAIT_GRANT ──▶ MOVING ──▶ COMMITTING ──▶ ENDED
 *       │             │            └────┬──────┘
 *       └─────────────┴──▶ ENDED     DRAINING ──▶ ENDED */
#include "sender/txadmin.h"
#include "sender/txdevice.h"
#include "sender/txlayers.h"

#include "core/alloc.h"
#include "core/log.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum {
    QUEUED_AGAIN_MS = 1600,
    /* With their digests they fit one message behind the data, beside everything else. */
    COMMIT_BEHIND_CHUNKS = (BT_SEND_BYTES_MAX - 2048) / 8,
};

static bool is_complete(const bt_tx_transfer *transfer)
{
    return transfer->n_committed + transfer->n_present == transfer->n_chunks;
}

static bool guard_holds(bt_tx *tx, bt_tx_transfer *transfer, bt_tx_guard guard)
{
    switch (guard) {
    case BT_TX_IF_COMPLETE:
        return is_complete(transfer);
    case BT_TX_IF_QUIET:
        return transfer->n_puts_out == 0 && !transfer->flush_out &&
               !bt_tx_device_is_busy(tx, transfer);
    default:
        return true;
    }
}

bool bt_tx_transfer_move(bt_tx *tx, bt_tx_transfer *transfer, bt_tx_change event)
{
    const bt_move *move = bt_state_next(&bt_transfer_states, transfer->state, event);
    if (move != NULL && guard_holds(tx, transfer, move->guard)) {
        transfer->state = move->to;
        return true;
    }
    bt_tx_stat(tx, &tx->stats.moves_refused_total, 1);
    bt_error("sender: refused: %s of a transfer that is %s request=%s",
             bt_state_event_name(&bt_transfer_states, event),
             bt_state_name(&bt_transfer_states, transfer->state), transfer->request);
    return false;
}

/* While it is queued a ticket has neither generation nor nonce: they come with the grant. */
static bt_ticket_name name_of(const bt_tx_transfer *transfer)
{
    if (transfer->state == BT_TX_WAIT_GRANT)
        return (bt_ticket_name){.ticket = transfer->ticket};
    return (bt_ticket_name){.ticket = transfer->ticket,
                            .generation = transfer->generation,
                            .nonce = bt_blob_of(transfer->nonce, BT_NONCE_BYTES)};
}

static void unlink_transfer(bt_tx *tx, bt_tx_transfer *transfer)
{
    *(transfer->prev != NULL ? &transfer->prev->next : &tx->first) = transfer->next;
    *(transfer->next != NULL ? &transfer->next->prev : &tx->last) = transfer->prev;
}

static void free_chunks(bt_tx *tx, bt_tx_transfer *transfer)
{
    bt_tx_layers_drop(tx, transfer);
    for (uint32_t i = 0; i < transfer->n_chunks; i++) {
        bt_tx_chunk *chunk = &transfer->chunks[i];
        if (chunk->source_busy)
            bt_tx_source_free(tx, transfer, i, &chunk->source);
        chunk->source_busy = false;
        bt_tx_give_slot(tx, transfer, chunk);
    }
}

/* To the proxy, and to the user, who may have been waiting for nothing else. Whoever has his DONE
 * or FAILED has no more room for one. */
static void tell_end(bt_tx *tx, bt_tx_transfer *transfer, baton_status status, const char *text)
{
    baton_sender_event event = {
        .kind = status == BATON_OK ? BATON_SENDER_DONE : BATON_SENDER_FAILED,
        .status = status,
        .transfer = transfer->id,
        .user_data = transfer->user_data,
        .sent_chunks = transfer->n_landed,
        .present_chunks = transfer->n_present,
        .sent_bytes = transfer->sent_bytes,
        .retry_ms = transfer->retry_ms,
        .move_ns = status == BATON_OK ? bt_now_ns(tx->clock) - transfer->granted_ns : 0,
    };
    snprintf(event.text, sizeof(event.text), "%s", text);
    if (transfer->notice[0] != 0) {
        bt_tx_reached(tx, transfer, BT_TX_AT_NOTIFIED);
        tx->out.notice(tx->out.ctx, transfer->notice, transfer->request, status, text,
                       transfer->retry_ms);
    }
    bt_tx_stat(tx,
               status == BATON_OK ? &tx->stats.transfers_done_total
                                  : &tx->stats.transfers_failed_total,
               1);
    bt_debug("sender: transfer ended: %s request=%s sent=%u present=%u trace=%s",
             status == BATON_OK ? "done" : text, transfer->request, transfer->n_landed,
             transfer->n_present, transfer->trace.trace);
    bt_tx_trace_end(tx, transfer, status, text);
    bt_tx_event_end(tx, transfer, &event);
}

/* Reports, and forgets. Sources are free by now: nothing of the transfer is under way. */
static void end_transfer(bt_tx *tx, bt_tx_transfer *transfer, bt_tx_change change,
                         baton_status status, const char *text)
{
    if (!bt_tx_transfer_move(tx, transfer, change))
        return;
    bt_tx_retract(tx, transfer);
    bt_tx_unlist(tx, transfer);
    free_chunks(tx, transfer);
    unlink_transfer(tx, transfer);
    transfer->hash_next = tx->dead;
    tx->dead = transfer;
    if (!bt_tx_transfer_is_told(transfer))
        tell_end(tx, transfer, status, text);
}

void bt_tx_transfer_overdue(bt_tx *tx, bt_tx_transfer *transfer)
{
    if (bt_tx_transfer_is_told(transfer) || !bt_tx_transfer_move(tx, transfer, BT_TX_ON_OVERDUE))
        return;
    bt_tx_retract(tx, transfer);
    if (!bt_tx_device_is_busy(tx, transfer)) /* else a GPU fills groups in */
        bt_tx_layers_drop(tx, transfer);
    for (uint32_t i = 0; i < transfer->n_chunks; i++) {
        bt_tx_chunk *chunk = &transfer->chunks[i];
        if (chunk->state != BT_TX_CHUNK_PUSHED || !chunk->source_busy)
            continue;
        chunk->source_busy = false; /* nothing has begun to read it */
        bt_tx_source_free(tx, transfer, i, &chunk->source);
    }
    tell_end(tx, transfer, transfer->reason, transfer->reason_text);
}

static void send_alloc(bt_tx *tx, bt_tx_transfer *transfer)
{
    if (!transfer->may_ask) /* it is another rank's turn */
        return;
    uint64_t now_ns = bt_now_ns(tx->clock);
    uint64_t left_ms =
        transfer->deadline_ns > now_ns ? (transfer->deadline_ns - now_ns) / BT_NS_PER_MS + 1 : 1;
    char trace[BT_TRACEPARENT_CHARS + 1];
    bt_traceparent_write(&transfer->trace, trace);
    bt_message message = {
        .type = BT_MSG_ALLOC,
        .u.alloc = {
            .request = bt_blob_of_text(transfer->request),
            .keys = bt_blob_of(transfer->keys, transfer->n_chunks * sizeof(*transfer->keys)),
            .last_tokens = transfer->last_tokens,
            .deadline_ms = left_ms < UINT32_MAX ? (uint32_t)left_ms : UINT32_MAX,
            .may_queue = 1,
            .notice = bt_blob_of_text(transfer->notice),
            .trace = bt_blob_of_text(trace),
        }};
    bt_tx_reached(tx, transfer, BT_TX_AT_ALLOC_SENT);
    bt_tx_transfer_move(tx, transfer, BT_TX_ON_ALLOC);
    baton_status status = bt_tx_request(tx, transfer->peer, transfer, BT_TX_ALLOC_PORT, &message,
                                        tx->options.timeouts.alloc_ms, &transfer->alloc);
    if (status != BATON_OK)
        bt_tx_transfer_fail(tx, transfer, status, baton_last_error());
}

void bt_tx_transfer_start(bt_tx *tx, bt_tx_transfer *transfer)
{
    transfer->prev = tx->last;
    *(tx->last != NULL ? &tx->last->next : &tx->first) = transfer;
    tx->last = transfer;
    bt_tx_stat(tx, &tx->stats.transfers_begun_total, 1);
    baton_status status = bt_tx_peer_get(tx, transfer->host, transfer->init_port,
                                         transfer->alloc_port, &transfer->peer);
    bool is_ours = status == BATON_ERR_NO_MEMORY || status == BATON_ERR_OVERLOADED;
    if (status != BATON_OK)
        bt_tx_transfer_fail(tx, transfer, is_ours ? status : BATON_ERR_UNREACHABLE,
                            baton_last_error());
    else if (transfer->peer->state == BT_TX_PEER_READY)
        send_alloc(tx, transfer);
    else if (transfer->peer->refusal != BATON_OK &&
             bt_now_ns(tx->clock) < transfer->peer->next_attempt_ns)
        bt_tx_transfer_fail(tx, transfer, transfer->peer->refusal, transfer->peer->refusal_text);
}

void bt_tx_transfer_ask(bt_tx *tx, bt_tx_transfer *transfer)
{
    transfer->may_ask = true;
    if (transfer->state == BT_TX_WAIT_PEER && transfer->peer->state == BT_TX_PEER_READY)
        send_alloc(tx, transfer);
}

void bt_tx_peer_is_ready(bt_tx *tx, bt_tx_peer *peer)
{
    for (bt_tx_transfer *transfer = tx->first, *next; transfer != NULL; transfer = next) {
        next = transfer->next;
        if (transfer->peer == peer && transfer->state == BT_TX_WAIT_PEER)
            send_alloc(tx, transfer);
    }
}

/* The receiver may have set something aside for this request: it need not wait for a timeout. */
static void say_farewell(bt_tx *tx, bt_tx_transfer *transfer, bool drained)
{
    if (transfer->peer->state != BT_TX_PEER_READY)
        return;
    bt_tx_pending *pending;
    bt_message message;
    if (transfer->has_ticket)
        message = (bt_message){
            .type = BT_MSG_CANCEL,
            .text = bt_blob_of_text(transfer->reason_text),
            .u.end = {.name = name_of(transfer), .drained = drained, .reason = transfer->reason}};
    else
        message =
            (bt_message){.type = BT_MSG_RELEASE, .u.request = bt_blob_of_text(transfer->request)};
    bt_tx_request(tx, transfer->peer, NULL, BT_TX_ALLOC_PORT, &message,
                  tx->options.timeouts.alloc_ms, &pending);
}

static void set_reason(bt_tx_transfer *transfer, baton_status reason, const char *text)
{
    char copy[BATON_EVENT_TEXT_BYTES]; /* text may be this thread's last error, or our own */
    snprintf(copy, sizeof(copy), "%s", text);
    memcpy(transfer->reason_text, copy, sizeof(copy));
    transfer->reason = reason;
}

void bt_tx_transfer_fail(bt_tx *tx, bt_tx_transfer *transfer, baton_status reason, const char *text)
{
    if (transfer->state >= BT_TX_DRAINING)
        return;
    set_reason(transfer, reason, text);
    bt_tx_reached(tx, transfer, BT_TX_AT_FAILED);
    bt_tx_pending_drop(tx, transfer->alloc);
    bt_tx_pending_drop(tx, transfer->commit);
    if (transfer->state == BT_TX_WAIT_PEER || transfer->state == BT_TX_WAIT_GRANT) {
        if (transfer->state == BT_TX_WAIT_GRANT && reason != BATON_ERR_REFUSED)
            say_farewell(tx, transfer, true);
        end_transfer(tx, transfer, BT_TX_ON_FAIL, reason, transfer->reason_text);
        return;
    }
    transfer->progress_ns = bt_now_ns(tx->clock);
    bt_tx_transfer_move(tx, transfer, BT_TX_ON_FAIL);
    bt_tx_transfer_settle(tx, transfer);
}

void bt_tx_transfer_hangs(bt_tx *tx, bt_tx_transfer *transfer, uint32_t chunk)
{
    char text[BATON_EVENT_TEXT_BYTES];
    bool is_failing = transfer->state == BT_TX_DRAINING;
    snprintf(text, sizeof(text),
             "gpu: the copy of chunk %u has not ended in %" PRIu32 " ms: what has had no "
             "SOURCE_FREE may still be read%s%.300s",
             chunk, tx->options.timeouts.put_ms, is_failing ? "; failed before: " : "",
             is_failing ? transfer->reason_text : "");
    bt_error("sender: %s request=%s", text, transfer->request);
    if (!is_failing) {
        bt_tx_transfer_fail(tx, transfer, BATON_ERR_GPU_TIMEOUT, text);
        return;
    }
    set_reason(transfer, BATON_ERR_GPU_TIMEOUT, text);
    bt_tx_transfer_settle(tx, transfer);
}

/* Chunks that a COMMIT may name, in the order in which they got there: those that have landed, and,
 * where it goes behind the data, those that were posted. NULL: none is left. */
static bt_tx_list *next_ready(const bt_tx *tx, bt_tx_transfer *transfer)
{
    if (transfer->landed.n > 0)
        return &transfer->landed;
    bool is_behind = bt_tx_commit_port(tx, transfer->peer) == BT_TX_DATA_PORT;
    return is_behind && transfer->posted.n > 0 ? &transfer->posted : NULL;
}

static uint32_t count_ready(const bt_tx *tx, const bt_tx_transfer *transfer)
{
    bool is_behind = bt_tx_commit_port(tx, transfer->peer) == BT_TX_DATA_PORT;
    return transfer->landed.n + (is_behind ? transfer->posted.n : 0);
}

/* Ready chunks as at most BT_TX_COMMIT_RANGES ranges; their state becomes COMMITTED. digests: room
 * for 8 bytes of each of max. */
static uint32_t take_ready(const bt_tx *tx, bt_tx_transfer *transfer, uint32_t max,
                           bt_chunk_range *ranges, uint8_t *digests, uint32_t *n_chunks)
{
    uint32_t n = 0;
    bt_tx_list *list;
    transfer->n_told = 0;
    transfer->told_bytes = 0;
    for (*n_chunks = 0; *n_chunks < max && (list = next_ready(tx, transfer)) != NULL;
         (*n_chunks)++) {
        uint32_t i = list->first;
        bt_tx_chunk *chunk = &transfer->chunks[i];
        if (n > 0 && ranges[n - 1].first + ranges[n - 1].count == i)
            ranges[n - 1].count++;
        else if (n == BT_TX_COMMIT_RANGES)
            break;
        else
            ranges[n++] = (bt_chunk_range){.first = i, .count = 1};
        for (int b = 0; b < 8; b++)
            *digests++ = (uint8_t)(chunk->digest >> (8 * b));
        if (chunk->state == BT_TX_CHUNK_POSTED) {
            transfer->n_told++;
            transfer->told_bytes += bt_tx_chunk_bytes(tx, transfer, i);
        }
        chunk->state = BT_TX_CHUNK_COMMITTED;
        bt_tx_list_pop(transfer, list);
    }
    transfer->n_committed += *n_chunks;
    return n;
}

/* COMMIT of up to n_ready chunks; *final: and it says so. owner: who waits for the answer; NULL:
 * nobody. */
static baton_status send_commit(bt_tx *tx, bt_tx_transfer *transfer, bt_tx_transfer *owner,
                                bt_tx_port port, uint32_t n_ready, bool *final,
                                bt_tx_pending **pending)
{
    bt_chunk_range ranges[BT_TX_COMMIT_RANGES];
    uint8_t *digests = bt_calloc(n_ready, 8);
    if (digests == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "commit: digests");
    uint32_t n_chunks;
    uint32_t n_ranges = take_ready(tx, transfer, n_ready, ranges, digests, &n_chunks);
    *final = transfer->finish_seen && is_complete(transfer) && owner != NULL;
    if (*final)
        bt_tx_reached(tx, transfer, BT_TX_AT_FINAL_SENT);
    size_t digest_bytes = transfer->peer->digests != 0 ? 8 * (size_t)n_chunks : 0;
    bt_message message = {.type = BT_MSG_COMMIT,
                          .u.commit = {.name = name_of(transfer),
                                       .ranges = ranges,
                                       .n_ranges = n_ranges,
                                       .digests = bt_blob_of(digests, digest_bytes),
                                       .final = *final}};
    baton_status status = bt_tx_request(tx, transfer->peer, owner, port, &message,
                                        tx->options.timeouts.commit_ms, pending);
    bt_free(digests);
    return status;
}

/* The request has failed, but these bytes have landed: as a cache they spare the next attempt, of
 * whatever prefiller, to send them again. Said ahead of CANCEL, which ends the ticket; best effort.
 */
static void leave_landed(bt_tx *tx, bt_tx_transfer *transfer)
{
    bt_tx_pending *pending;
    bool final;
    while (transfer->landed.n > 0 && send_commit(tx, transfer, NULL, BT_TX_ALLOC_PORT,
                                                 transfer->landed.n, &final, &pending) == BATON_OK)
        ;
}

/* Puts that have left are not puts that have arrived: before DRAINED may be said, a flush must have
 * covered all of them, or the endpoint must be gone (and then the INIT to come says so). */
void bt_tx_transfer_settle(bt_tx *tx, bt_tx_transfer *transfer)
{
    assert(transfer->state == BT_TX_DRAINING);
    bt_tx_peer *peer = transfer->peer;
    if (peer->state == BT_TX_PEER_READY && bt_tx_flush(transfer) != BATON_OK) {
        bt_tx_peer_down(tx, peer, BATON_ERR_TRANSPORT, baton_last_error());
        return; /* settled again when the endpoint is closed */
    }
    bool gpu_is_busy = bt_tx_device_is_busy(tx, transfer);
    if (transfer->n_puts_out > 0 || transfer->flush_out || gpu_is_busy ||
        peer->state == BT_TX_PEER_CLOSING)
        return;
    bt_tx_change change = transfer->force_closed || peer->state != BT_TX_PEER_READY
                              ? BT_TX_ON_CUT /* INIT with a new connection number is the proof */
                              : BT_TX_ON_DRAINED;
    if (change == BT_TX_ON_DRAINED && transfer->revoked) {
        bt_message message = {.type = BT_MSG_DRAINED, .u.drained = name_of(transfer)};
        bt_tx_send(tx, peer, BT_TX_ALLOC_PORT, &message);
    } else if (change == BT_TX_ON_DRAINED) {
        leave_landed(tx, transfer);
        say_farewell(tx, transfer, true);
    }
    end_transfer(tx, transfer, change, transfer->reason, transfer->reason_text);
}

void bt_tx_finish_seen(bt_tx *tx, bt_tx_transfer *transfer)
{
    transfer->finish_seen = true;
    if (transfer->wait_ns == 0)
        return;
    uint64_t until_ns = bt_deadline_ns(bt_now_ns(tx->clock), transfer->wait_ns);
    transfer->deadline_ns = until_ns < transfer->deadline_ns ? until_ns : transfer->deadline_ns;
}

static baton_status take_runs(bt_tx_transfer *transfer, const bt_msg_alloc_answer *answer)
{
    bt_list_cursor cursor = {0};
    bt_page_run run;
    uint32_t next = 0; /* runs come in order of chunks and do not overlap */
    for (uint32_t i = 0; i < transfer->n_chunks; i++)
        transfer->chunks[i].generation = 0;
    while (bt_message_next_run(answer, &cursor, &run)) {
        if (run.first < next || run.first > transfer->n_chunks ||
            run.count > transfer->n_chunks - run.first || run.generation == 0)
            return bt_fail(BATON_ERR_BAD_MESSAGE, "alloc: run of chunks %u + %u of %u", run.first,
                           run.count, transfer->n_chunks);
        for (uint32_t i = 0; i < run.count; i++) {
            bt_tx_chunk *chunk = &transfer->chunks[run.first + i];
            chunk->region = run.region;
            chunk->generation = run.generation;
            chunk->page = run.page + i;
        }
        next = run.first + run.count;
    }
    return BATON_OK;
}

static void on_granted(bt_tx *tx, bt_tx_transfer *transfer, const bt_msg_alloc_answer *answer)
{
    transfer->ticket = answer->ticket;
    transfer->generation = answer->generation;
    transfer->has_ticket = true;
    memcpy(transfer->nonce, answer->nonce.data, BT_NONCE_BYTES);
    baton_status status = BATON_OK;
    if (answer->n_chunks != transfer->n_chunks)
        status = bt_fail(BATON_ERR_BAD_MESSAGE, "alloc: wanted %u chunks, found %u",
                         transfer->n_chunks, answer->n_chunks);
    if (status == BATON_OK)
        status = take_runs(transfer, answer);
    if (status != BATON_OK) {
        bt_tx_transfer_fail(tx, transfer, status, baton_last_error());
        return;
    }
    transfer->granted_ns = transfer->progress_ns = bt_now_ns(tx->clock);
    transfer->at_ns[BT_TX_AT_GRANTED] = transfer->granted_ns;
    bt_tx_transfer_move(tx, transfer, BT_TX_ON_GRANTED);
    if (transfer->granted != NULL)
        transfer->granted(transfer->granted_ctx);
    for (uint32_t i = 0; i < transfer->n_chunks; i++) {
        bt_tx_chunk *chunk = &transfer->chunks[i];
        if (chunk->generation != 0)
            continue;
        transfer->n_pushed -=
            chunk->state == BT_TX_CHUNK_PUSHED || chunk->state == BT_TX_CHUNK_LAYERED;
        bt_tx_layers_drop_chunk(tx, transfer, i);
        chunk->state = BT_TX_CHUNK_PRESENT;
        transfer->n_present++;
        if (chunk->source_busy)
            bt_tx_source_free(tx, transfer, i, &chunk->source);
        chunk->source_busy = false;
    }
    bt_tx_stat(tx, &tx->stats.tickets_granted_total, 1);
    bt_tx_stat(tx, &tx->stats.chunks_present_total, transfer->n_present);
    bt_tx_commit(tx, transfer);
}

void bt_tx_on_alloc_answer(bt_tx *tx, bt_tx_transfer *transfer, const bt_message *message)
{
    const bt_msg_alloc_answer *answer = &message->u.alloc_answer;
    if (transfer->state != BT_TX_WAIT_GRANT)
        return;
    if (message->status == BATON_ERR_STALE) {
        bt_tx_peer_down(tx, transfer->peer, BATON_ERR_PEER_RESTARTED,
                        "the receiver does not know this sender any more");
        return;
    }
    if (message->status != BATON_OK) {
        char text[BATON_EVENT_TEXT_BYTES];
        bt_blob_to_text(message->text, text, sizeof(text));
        set_reason(transfer, (baton_status)message->status, text);
        transfer->retry_ms = answer->retry_ms;
        bt_tx_pending_drop(tx, transfer->alloc);
        end_transfer(tx, transfer, BT_TX_ON_REFUSED, (baton_status)message->status,
                     transfer->reason_text);
        return;
    }
    if (answer->outcome == BT_ALLOC_QUEUED) {
        transfer->ticket = answer->ticket;
        transfer->generation = answer->generation;
        transfer->has_ticket = true;
        transfer->alloc->deadline_ns = transfer->deadline_ns;
        transfer->alloc->interval_ms = QUEUED_AGAIN_MS;
        return;
    }
    bt_tx_pending_drop(tx, transfer->alloc);
    on_granted(tx, transfer, answer);
}

static void fail_unpushed(bt_tx *tx, bt_tx_transfer *transfer)
{
    for (uint32_t i = 0; i < transfer->n_chunks; i++) {
        if (transfer->chunks[i].state != BT_TX_CHUNK_IDLE)
            continue;
        char text[96];
        if (!bt_tx_layers_missing(tx, transfer, i, text, sizeof(text)))
            snprintf(text, sizeof(text), "finish: chunk %u of %u was never pushed", i,
                     transfer->n_chunks);
        bt_tx_transfer_fail(tx, transfer, BATON_ERR_STATE, text);
        return;
    }
}

/* More of what was pushed lands by itself, and what a user is pushing right now soon will, so a few
 * chunks can wait for it: every COMMIT wakes the receiver. */
static bool waits_for_more(bt_tx *tx, const bt_tx_transfer *transfer)
{
    uint32_t n_ready = count_ready(tx, transfer);
    bool has_digests = transfer->peer->digests != BT_DIGESTS_OFF;
    uint64_t most_bytes = has_digests ? BT_TX_COMMIT_DIGEST_BYTES : BT_TX_COMMIT_BYTES;
    if (n_ready >= BT_TX_COMMIT_CHUNKS || n_ready * tx->page_bytes >= most_bytes)
        return false;
    return transfer->n_pushed > transfer->n_committed + n_ready ||
           (!transfer->finish_seen && bt_tx_has_commands(tx));
}

void bt_tx_commit(bt_tx *tx, bt_tx_transfer *transfer)
{
    bt_tx_note_chunks(tx, transfer);
    if (transfer->state != BT_TX_MOVING || transfer->commit != NULL || waits_for_more(tx, transfer))
        return;
    uint32_t n_ready = count_ready(tx, transfer);
    bool may_be_last = transfer->finish_seen &&
                       transfer->n_committed + n_ready + transfer->n_present == transfer->n_chunks;
    if (n_ready == 0 && !may_be_last) {
        if (transfer->finish_seen && transfer->n_pushed + transfer->n_present < transfer->n_chunks)
            fail_unpushed(tx, transfer);
        return;
    }
    bt_tx_port port = bt_tx_commit_port(tx, transfer->peer);
    if (port == BT_TX_DATA_PORT && n_ready > COMMIT_BEHIND_CHUNKS)
        n_ready = COMMIT_BEHIND_CHUNKS;
    bool final;
    baton_status status =
        send_commit(tx, transfer, transfer, port, n_ready, &final, &transfer->commit);
    if (status != BATON_OK)
        bt_tx_transfer_fail(tx, transfer, status, baton_last_error());
    else if (final)
        bt_tx_transfer_move(tx, transfer, BT_TX_ON_FINAL);
}

void bt_tx_transfer_finish(bt_tx *tx, bt_tx_transfer *transfer)
{
    if (transfer->n_puts_out == 0 && !transfer->flush_out)
        end_transfer(tx, transfer, BT_TX_ON_DONE, BATON_OK, "");
}

/* A COMMIT behind the data was taken, so the data was there. */
static void count_told(bt_tx *tx, bt_tx_transfer *transfer)
{
    bt_tx_count_landed(tx, transfer, transfer->n_told, transfer->told_bytes);
    transfer->n_told = 0;
    transfer->told_bytes = 0;
    transfer->unflushed =
        transfer->unflushed && (transfer->n_landed < transfer->n_posted || transfer->n_partial > 0);
}

void bt_tx_on_commit_answer(bt_tx *tx, bt_tx_transfer *transfer, const bt_message *message)
{
    bt_tx_pending_drop(tx, transfer->commit);
    if (message->status != BATON_OK) {
        char text[BATON_EVENT_TEXT_BYTES];
        bt_blob_to_text(message->text, text, sizeof(text));
        transfer->revoked |=
            message->status == BATON_ERR_DIGEST_MISMATCH || message->status == BATON_ERR_REVOKED;
        bt_tx_transfer_fail(tx, transfer, (baton_status)message->status, text);
        return;
    }
    count_told(tx, transfer);
    if (transfer->state != BT_TX_COMMITTING) {
        bt_tx_commit(tx, transfer);
    } else if (message->u.commit_answer.final) {
        transfer->is_answered = true;
        bt_tx_reached(tx, transfer, BT_TX_AT_COMMITTED);
        bt_tx_transfer_finish(tx, transfer);
    } else {
        bt_tx_transfer_fail(tx, transfer, BATON_ERR_BAD_MESSAGE,
                            "commit: the receiver did not take it as final");
    }
}

/* The transfer whose ticket this is: by its name, or, when its grant has not come, by the id of its
 * ALLOC. */
static bt_tx_transfer *find_revoked(bt_tx *tx, const bt_tx_peer *peer, const bt_message *message)
{
    const bt_ticket_name *name = &message->u.end.name;
    for (bt_tx_transfer *transfer = tx->first; transfer != NULL; transfer = transfer->next) {
        if (transfer->peer != peer || !transfer->has_ticket || transfer->ticket != name->ticket ||
            transfer->generation != name->generation)
            continue;
        return transfer;
    }
    const bt_tx_pending *pending = bt_tx_pending_find(tx, peer, message->id);
    return pending != NULL && pending->type == BT_MSG_ALLOC ? pending->transfer : NULL;
}

void bt_tx_on_revoke(bt_tx *tx, bt_tx_peer *peer, const bt_message *message)
{
    const bt_ticket_name *name = &message->u.end.name;
    bt_tx_transfer *transfer = find_revoked(tx, peer, message);
    bool is_granted = transfer != NULL && transfer->state != BT_TX_WAIT_GRANT;
    if (transfer != NULL) {
        int32_t reason = message->u.end.reason;
        char text[BATON_EVENT_TEXT_BYTES];
        bt_blob_to_text(message->text, text, sizeof(text));
        transfer->revoked = true;
        /* A grant that is still on its way finds nobody any more: it would be written too late. */
        bt_tx_transfer_fail(tx, transfer, reason < 0 ? (baton_status)reason : BATON_ERR_REVOKED,
                            text);
    }
    if (is_granted)
        return;
    /* Not ours any more, or never seen: no write of it is under way, and none will come. */
    bt_message drained = {.type = BT_MSG_DRAINED,
                          .u.drained = {.ticket = name->ticket, .generation = name->generation}};
    bt_tx_send(tx, peer, BT_TX_ALLOC_PORT, &drained);
}

void bt_tx_on_heartbeat_answer(bt_tx *tx, bt_tx_peer *peer, const bt_message *message)
{
    if (message->id == 0) /* unasked: the receiver looks whether somebody is there */
        return;
    if (message->id < peer->first_id) { /* said to an earlier life, or from an earlier connection */
        bt_tx_stat(tx, &tx->stats.messages_stale_total, 1);
        return;
    }
    if (message->status == BATON_ERR_STALE) {
        bt_tx_peer_down(tx, peer, BATON_ERR_PEER_RESTARTED,
                        "the receiver does not know this sender any more");
        return;
    }
    peer->alloc_port_works = true;
    bt_list_cursor cursor = {0};
    bt_ticket_progress unknown;
    while (message->status == BATON_OK &&
           bt_message_next_ticket(&message->u.heartbeat, &cursor, &unknown)) {
        for (bt_tx_transfer *transfer = tx->first, *next; transfer != NULL; transfer = next) {
            next = transfer->next;
            /* One that is COMMITTING may be done there: the answer to COMMIT knows. */
            if (transfer->peer == peer && transfer->has_ticket &&
                transfer->ticket == unknown.ticket && transfer->state != BT_TX_COMMITTING)
                bt_tx_transfer_fail(tx, transfer, BATON_ERR_STALE,
                                    "the receiver does not have this ticket any more");
        }
    }
}

static void moving_tick(bt_tx *tx, bt_tx_transfer *transfer, uint64_t now_ns)
{
    uint64_t still_ns = bt_elapsed_ns(now_ns, transfer->progress_ns);
    /* A flush is under way behind every put: what has not even left is the put's delay. */
    if (transfer->n_puts_out > 0 && still_ns >= tx->options.timeouts.put_ms * BT_NS_PER_MS)
        bt_tx_peer_down(tx, transfer->peer, BATON_ERR_PUT_TIMEOUT, "put: no progress");
    else if (transfer->n_puts_out == 0 && (transfer->flush_out || transfer->n_told > 0) &&
             still_ns >= tx->options.timeouts.flush_ms * BT_NS_PER_MS)
        bt_tx_peer_down(tx, transfer->peer, BATON_ERR_FLUSH_TIMEOUT, "flush: no progress");
}

static bt_tx_transfer *first_due(const bt_tx *tx, uint64_t now_ns)
{
    bt_tx_transfer *transfer = tx->first;
    while (transfer != NULL &&
           (now_ns < transfer->deadline_ns || transfer->state >= BT_TX_DRAINING))
        transfer = transfer->next;
    return transfer;
}

void bt_tx_transfers_tick(bt_tx *tx, uint64_t now_ns)
{
    for (bt_tx_transfer *transfer; (transfer = first_due(tx, now_ns)) != NULL;)
        bt_tx_transfer_fail(tx, transfer, BATON_ERR_DEADLINE,
                            "the deadline of the request has passed");
    for (bt_tx_transfer *transfer = tx->first; transfer != NULL; transfer = transfer->next) {
        if (transfer->peer->state == BT_TX_PEER_READY && transfer->state >= BT_TX_MOVING)
            moving_tick(tx, transfer, now_ns);
    }
    /* A transfer whose last chunk landed before finish was called has nothing else to wake it. */
    for (bt_tx_transfer *transfer = tx->first, *next; transfer != NULL; transfer = next) {
        next = transfer->next;
        bt_tx_commit(tx, transfer);
    }
}
