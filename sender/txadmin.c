/* SPDX-License-Identifier: Apache-2.0 */
#include "sender/txadmin.h"

#include "core/adminreply.h"
#include "sender/txshell.h"

#include <stdio.h>
#include <string.h>

static const char *const stage_names[BT_TX_N_STAGES] = {
    [BT_TX_AT_OPENED] = "opened",
    [BT_TX_AT_ALLOC_SENT] = "alloc sent",
    [BT_TX_AT_GRANTED] = "granted",
    [BT_TX_AT_FIRST_PUSH] = "first chunk pushed",
    [BT_TX_AT_LAST_PUSH] = "last chunk pushed",
    [BT_TX_AT_LAST_OUT] = "last byte out",
    [BT_TX_AT_FINAL_SENT] = "final commit sent",
    [BT_TX_AT_COMMITTED] = "committed",
    [BT_TX_AT_FAILED] = "failed",
    [BT_TX_AT_NOTIFIED] = "notified",
};
_Static_assert((int)BT_TX_N_STAGES <= (int)BT_TRACE_STAGES_MAX, "room for every stage");

static const char *state_name(const bt_tx_transfer *transfer)
{
    return bt_state_name(&bt_transfer_states, transfer->state);
}

static const char *peer_state_name(const bt_tx_peer *peer)
{
    return bt_state_name(&bt_peer_states, peer->state);
}

static const char *const path_names[] = {"auto", "mapped", "put", "staged"};
static const char *const memory_names[] = {"host", "cuda", "cuda_host"};

/* Traces. */

static void fill_record(const bt_tx_transfer *transfer, bt_trace_record *record)
{
    *record = (bt_trace_record){.status = BATON_IN_PROGRESS,
                                .bytes = transfer->sent_bytes,
                                .n_chunks = transfer->n_chunks,
                                .n_sent = transfer->n_landed,
                                .n_present = transfer->n_present};
    memcpy(record->trace, transfer->trace.trace, sizeof(record->trace));
    memcpy(record->at_ns, transfer->at_ns, sizeof(transfer->at_ns));
    snprintf(record->request, sizeof(record->request), "%s", transfer->request);
    snprintf(record->with, sizeof(record->with), "%.100s:%u", transfer->host, transfer->init_port);
}

void bt_tx_trace_end(bt_tx *tx, const bt_tx_transfer *transfer, baton_status status,
                     const char *text)
{
    bt_trace_record record;
    if (tx->traces == NULL)
        return;
    fill_record(transfer, &record);
    record.status = status;
    snprintf(record.text, sizeof(record.text), "%s", text);
    bt_tracelog_add(tx->traces, &record);
}

static void put_trace(bt_jsonwriter *json, bt_tx *tx, const bt_admin_query *query)
{
    bt_admin_rows rows;
    bt_admin_rows_begin(json, &rows, query, "traces");
    for (const bt_tx_transfer *t = tx->first; t != NULL; t = t->next) {
        bt_trace_record record;
        fill_record(t, &record);
        if (!bt_tx_transfer_is_told(t) && (query->id[0] == 0 || bt_trace_is(&record, query->id)) &&
            bt_admin_rows_next(&rows, "LIVE") == BT_ROW_WRITE)
            bt_trace_put(json, &record, stage_names, BT_TX_N_STAGES);
        if (rows.n_written == query->limit)
            break;
    }
    bt_admin_write_traces(json, &rows, tx->traces, stage_names, BT_TX_N_STAGES);
    bt_admin_rows_end(json, &rows);
}

/* Transfers. */

static uint64_t stage_since_ns(const bt_tx_transfer *transfer)
{
    static const bt_tx_stage begins[BT_TX_N_STATES] = {
        [BT_TX_WAIT_PEER] = BT_TX_AT_OPENED, [BT_TX_WAIT_GRANT] = BT_TX_AT_ALLOC_SENT,
        [BT_TX_MOVING] = BT_TX_AT_GRANTED,   [BT_TX_COMMITTING] = BT_TX_AT_FINAL_SENT,
        [BT_TX_DRAINING] = BT_TX_AT_FAILED,
    };
    return transfer->at_ns[begins[transfer->state]];
}

static const char *moving_waits_for(const bt_tx_transfer *transfer)
{
    if (transfer->n_puts_out > 0)
        return "puts to leave";
    if (transfer->n_pushed > transfer->n_posted)
        return "its turn to be copied or put";
    if (transfer->commit != NULL)
        return "the answer to COMMIT";
    if (transfer->flush_out)
        return "a flush";
    if (transfer->n_pushed + transfer->n_present < transfer->n_chunks)
        return "chunks of the engine";
    return transfer->finish_seen ? "its turn" : "finish of the engine";
}

static const char *waits_for(const bt_tx_transfer *transfer)
{
    switch (transfer->state) {
    case BT_TX_WAIT_PEER:
        return "a connection";
    case BT_TX_WAIT_GRANT:
        return transfer->has_ticket ? "pages, in the receiver's queue" : "the answer to ALLOC";
    case BT_TX_MOVING:
        return moving_waits_for(transfer);
    case BT_TX_COMMITTING:
        return transfer->is_answered ? "late events of its puts" : "the answer to the last COMMIT";
    case BT_TX_DRAINING:
        return transfer->peer->state == BT_TX_PEER_CLOSING ? "the endpoint to close"
                                                           : "puts and flush to end";
    default:
        return "";
    }
}

static void put_transfer(bt_jsonwriter *json, const bt_tx_transfer *t, uint64_t now_ns)
{
    char peer[BT_TX_HOST_BYTES + 8];
    snprintf(peer, sizeof(peer), "%s:%u", t->host, t->init_port);
    bt_jw_open(json, NULL, '{');
    bt_jw_text(json, "request", t->request);
    bt_jw_text(json, "trace", t->trace.trace[0] != 0 ? t->trace.trace : NULL);
    bt_jw_text(json, "state", state_name(t));
    bt_jw_text(json, "waits_for", waits_for(t));
    bt_admin_put_age(json, "stage_ms", now_ns, stage_since_ns(t));
    bt_admin_put_age(json, "age_ms", now_ns, t->at_ns[BT_TX_AT_OPENED]);
    bt_admin_put_age(json, "idle_ms", now_ns, t->progress_ns);
    bt_admin_put_left(json, "deadline_ms", now_ns, t->deadline_ns);
    bt_jw_text(json, "peer", peer);
    bt_jw_u64(json, "ticket", t->has_ticket ? t->ticket : 0);
    bt_jw_u64(json, "chunks", t->n_chunks);
    bt_jw_u64(json, "present", t->n_present);
    bt_jw_u64(json, "pushed", t->n_pushed);
    bt_jw_u64(json, "posted", t->n_posted);
    bt_jw_u64(json, "landed", t->n_landed);
    bt_jw_u64(json, "committed", t->n_committed);
    bt_jw_u64(json, "bytes", t->sent_bytes);
    bt_jw_text(json, "reason", t->reason != BATON_OK ? t->reason_text : NULL);
    bt_jw_close(json);
}

static void put_transfers(bt_jsonwriter *json, const bt_tx *tx, const bt_admin_query *query,
                          uint64_t now_ns)
{
    bt_admin_rows rows;
    bt_admin_row row = BT_ROW_SKIP;
    bt_admin_rows_begin(json, &rows, query, "transfers");
    for (const bt_tx_transfer *t = tx->first; t != NULL && row != BT_ROW_STOP; t = t->next) {
        row = bt_admin_rows_next(&rows, state_name(t));
        if (row == BT_ROW_WRITE)
            put_transfer(json, t, now_ns);
    }
    bt_admin_rows_end(json, &rows);
}

/* Peers. */

static uint32_t count_transfers(const bt_tx *tx, const bt_tx_peer *peer)
{
    uint32_t n = 0;
    for (const bt_tx_transfer *t = tx->first; t != NULL; t = t->next)
        n += t->peer == peer;
    return n;
}

static void put_peer(bt_jsonwriter *json, const bt_tx *tx, const bt_tx_peer *peer, uint64_t now_ns)
{
    char address[BT_TX_HOST_BYTES + 8];
    const baton_sender_peer *shown = &peer->shown; /* ours: others only read it */
    bool is_ready = peer->state == BT_TX_PEER_READY;
    snprintf(address, sizeof(address), "%s:%u", peer->host, peer->init_port);
    bt_jw_open(json, NULL, '{');
    bt_jw_text(json, "peer", address);
    bt_jw_text(json, "name", peer->name);
    bt_jw_text(json, "state", peer_state_name(peer));
    bt_jw_hex64(json, "epoch", peer->epoch);
    bt_jw_u64(json, "pid", peer->process.pid);
    bt_jw_text(json, "watched", peer->pidfd >= 0 ? "pidfd" : "heartbeats");
    bt_admin_put_age(json, "heard_ms", now_ns, peer->last_heard_ns);
    bt_jw_u64(json, "connection", peer->connection);
    bt_jw_u64(json, "transfers", count_transfers(tx, peer));
    bt_jw_text(json, "path", is_ready ? path_names[peer->path] : NULL);
    bt_jw_text(json, "memory", is_ready ? memory_names[peer->memory] : NULL);
    bt_jw_text(json, "transport", shown->transport);
    bt_jw_text(json, "device", shown->device);
    bt_jw_u64(json, "rails", shown->n_rails);
    bt_jw_double(json, "copy_gbps", shown->copy_gbps, 2);
    bt_jw_double(json, "stage_gbps", shown->stage_gbps, 2);
    bt_jw_double(json, "wire_gbps", shown->wire_gbps, 2);
    bt_jw_u64(json, "puts_out_bytes", peer->puts_out_bytes);
    bt_jw_bool(json, "control_ring", peer->ring_remote != NULL);
    bt_jw_u64(json, "failures", peer->n_failures);
    bt_jw_text(json, "why_not_mapped", peer->why_not_mapped[0] != 0 ? peer->why_not_mapped : NULL);
    bt_jw_text(json, "text", shown->text[0] != 0 ? shown->text : NULL);
    bt_jw_close(json);
}

static void put_peers(bt_jsonwriter *json, const bt_tx *tx, const bt_admin_query *query,
                      uint64_t now_ns)
{
    bt_admin_rows rows;
    bt_admin_row row = BT_ROW_SKIP;
    bt_admin_rows_begin(json, &rows, query, "peers");
    for (const bt_tx_peer *p = tx->peers; p != NULL && row != BT_ROW_STOP; p = p->next) {
        row = bt_admin_rows_next(&rows, peer_state_name(p));
        if (row == BT_ROW_WRITE)
            put_peer(json, tx, p, now_ns);
    }
    bt_admin_rows_end(json, &rows);
}

/* Pages of a sender are its staging pages; leases it has none. */
static void put_no_rows(bt_jsonwriter *json, const bt_admin_query *query)
{
    bt_admin_rows rows;
    bt_admin_rows_begin(json, &rows, query, query->name);
    bt_admin_rows_end(json, &rows);
}

static void put_pages(bt_jsonwriter *json, const bt_tx *tx, const bt_admin_query *query)
{
    uint32_t n_all = tx->staging != NULL ? tx->options.staging_chunks : 0;
    bt_jw_open(json, "counts", '{');
    bt_jw_u64(json, "staging", n_all);
    bt_jw_u64(json, "staging_free", tx->n_free_slots);
    bt_jw_close(json);
    put_no_rows(json, query);
}

#define COUNTER(field)                              \
    {                                               \
#field, offsetof(baton_sender_stats, field) \
    }
static const bt_admin_counter counters[] = {
    COUNTER(transfers_begun_total),
    COUNTER(transfers_done_total),
    COUNTER(transfers_failed_total),
    COUNTER(transfers_live),
    COUNTER(tickets_granted_total),
    COUNTER(chunks_sent_total),
    COUNTER(chunks_present_total),
    COUNTER(bytes_sent_total),
    COUNTER(bytes_mapped_total),
    COUNTER(bytes_staged_total),
    COUNTER(notices_sent_total),
    COUNTER(notices_dropped_total),
    COUNTER(messages_dropped_total),
    COUNTER(messages_stale_total),
    COUNTER(peers_ready),
    COUNTER(peers_mapped),
    COUNTER(peers_put),
    COUNTER(peers_staged),
    COUNTER(peers_lost_total),
    COUNTER(peers_refused_total),
    COUNTER(moves_refused_total),
};

static void put_answer(bt_jsonwriter *json, bt_tx *tx, const baton_sender_stats *stats,
                       const bt_admin_query *query, uint64_t now_ns)
{
    bt_admin_rows rows;
    const char *name = query->name;
    if (strcmp(name, "transfers") == 0)
        put_transfers(json, tx, query, now_ns);
    else if (strcmp(name, "peers") == 0)
        put_peers(json, tx, query, now_ns);
    else if (strcmp(name, "pages") == 0)
        put_pages(json, tx, query);
    else if (strcmp(name, "leases") == 0)
        put_no_rows(json, query);
    else if (strcmp(name, "counters") == 0)
        bt_admin_put_counters(json, counters, sizeof(counters) / sizeof(counters[0]), stats);
    else if (strcmp(name, "trace") == 0)
        put_trace(json, tx, query);
    else if (strcmp(name, "slow") == 0) {
        bt_admin_rows_begin(json, &rows, query, "traces");
        bt_admin_write_slowest(json, &rows, tx->traces, stage_names, BT_TX_N_STAGES);
        bt_admin_rows_end(json, &rows);
    }
}

unsigned bt_tx_admin_answer(bt_tx *tx, const baton_sender_stats *stats, const bt_admin_query *query,
                            bt_strbuf *out)
{
    bt_jsonwriter json;
    const bt_admin_head head = {.role = "sender",
                                .name = tx->options.name,
                                .rank = tx->options.rank,
                                .world = tx->options.world,
                                .epoch = tx->epoch,
                                .now_ns = bt_now_ns(tx->clock)};
    if (!bt_admin_is_known(query))
        return bt_admin_put_unknown(out, query);
    bt_admin_begin(&json, out, &head);
    put_answer(&json, tx, stats, query, head.now_ns);
    bt_admin_end(&json);
    return 200;
}

void bt_txshell_answer_admin(baton_sender *sender)
{
    baton_sender_stats stats;
    const bt_admin_query *query = bt_admin_pending(sender->admin);
    baton_sender_get_stats(sender, &stats);
    unsigned status = bt_tx_admin_answer(sender->tx, &stats, query, bt_admin_text(sender->admin));
    bt_admin_answered(sender->admin, status);
}
