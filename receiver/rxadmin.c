/* SPDX-License-Identifier: Apache-2.0 */
#include "receiver/rxadmin.h"

#include "receiver/rxshell.h"

#include <stdio.h>
#include <string.h>

typedef enum {
    AT_ALLOC,
    AT_GRANTED,
    AT_FIRST_COMMIT,
    AT_LAST_COMMIT,
    AT_LOOKED_UP,
    AT_PINNED,
    AT_RELEASED,
    AT_REVOKED,
    AT_ENDED,
    N_STAGES,
} stage;

static const char *const stage_names[N_STAGES] = {
    [AT_ALLOC] = "alloc",
    [AT_GRANTED] = "granted",
    [AT_FIRST_COMMIT] = "first commit",
    [AT_LAST_COMMIT] = "last commit",
    [AT_LOOKED_UP] = "looked up",
    [AT_PINNED] = "pinned",
    [AT_RELEASED] = "released",
    [AT_REVOKED] = "revoked",
    [AT_ENDED] = "ended",
};

/* Traces. */

static void fill_record(const bt_rx_ticket *ticket, bt_trace_record *record)
{
    *record = (bt_trace_record){.status = BATON_IN_PROGRESS,
                                .bytes = ticket->sent_bytes,
                                .n_chunks = ticket->n_chunks,
                                .n_sent = ticket->sent_chunks,
                                .n_present = ticket->present_chunks,
                                .at_ns = {[AT_ALLOC] = ticket->alloc_ns,
                                          [AT_GRANTED] = ticket->granted_ns,
                                          [AT_FIRST_COMMIT] = ticket->first_commit_ns,
                                          [AT_LAST_COMMIT] = ticket->last_commit_ns,
                                          [AT_LOOKED_UP] = ticket->looked_up_ns,
                                          [AT_PINNED] = ticket->pinned_ns,
                                          [AT_REVOKED] = ticket->revoked_ns},
                                .tag = ticket->pin};
    memcpy(record->trace, ticket->trace.trace, sizeof(record->trace));
    snprintf(record->request, sizeof(record->request), "%s", ticket->request);
    snprintf(record->with, sizeof(record->with), "%s",
             ticket->peer != NULL ? ticket->peer->name : "");
}

void bt_rx_trace_end(bt_rx *rx, const bt_rx_ticket *ticket, bt_request_state state,
                     baton_status reason)
{
    bt_trace_record record;
    if (rx->traces == NULL)
        return;
    fill_record(ticket, &record);
    record.status = reason;
    if (state != BT_REQUEST_PINNED)
        record.at_ns[AT_ENDED] = bt_now_ns(rx->clock);
    snprintf(record.text, sizeof(record.text), "%s", ticket->reason_text);
    bt_tracelog_add(rx->traces, &record);
}

void bt_rx_trace_released(bt_rx *rx, const bt_rx_command *command)
{
    bt_tracelog_stamp(rx->traces, command->pin, AT_RELEASED, command->at_ns);
}

static void put_trace(bt_jsonwriter *json, bt_rx *rx, const bt_admin_query *query)
{
    bt_admin_rows rows;
    bt_admin_rows_begin(json, &rows, query, "traces");
    for (const bt_rx_ticket *t = rx->first_ticket; t != NULL; t = t->next) {
        bt_trace_record record;
        fill_record(t, &record);
        if ((query->id[0] == 0 || bt_trace_is(&record, query->id)) &&
            bt_admin_rows_next(&rows, "LIVE") == BT_ROW_WRITE)
            bt_trace_put(json, &record, stage_names, N_STAGES);
        if (rows.n_written == query->limit)
            break;
    }
    bt_admin_write_traces(json, &rows, rx->traces, stage_names, N_STAGES);
    bt_admin_rows_end(json, &rows);
}

/* Transfers: tickets, as their requests see them. */

uint64_t bt_rx_ticket_since_ns(const bt_rx_ticket *ticket)
{
    switch (ticket->state) {
    case BT_TICKET_GRANTED:
        return ticket->granted_ns;
    case BT_TICKET_HELD:
        return ticket->last_commit_ns;
    case BT_TICKET_REVOKED:
        return ticket->revoked_ns;
    default:
        return ticket->alloc_ns;
    }
}

static const char *waits_for(const bt_rx_ticket *ticket)
{
    switch (ticket->state) {
    case BT_TICKET_QUEUED:
        return "free pages";
    case BT_TICKET_GRANTED:
        return "COMMIT of the sender";
    case BT_TICKET_HELD:
        return "a lookup of decode";
    case BT_TICKET_REVOKED:
        return "proof that its writer is done";
    default:
        return "";
    }
}

static void put_ticket(bt_jsonwriter *json, const bt_rx_ticket *t, uint64_t now_ns)
{
    bool is_moving = t->state == BT_TICKET_QUEUED || t->state == BT_TICKET_GRANTED;
    bt_jw_open(json, NULL, '{');
    bt_jw_text(json, "request", t->request);
    bt_jw_text(json, "trace", t->trace.trace[0] != 0 ? t->trace.trace : NULL);
    bt_jw_text(json, "state", bt_state_name(&bt_ticket_states, t->state));
    bt_jw_text(json, "waits_for", waits_for(t));
    bt_admin_put_age(json, "stage_ms", now_ns, bt_rx_ticket_since_ns(t));
    bt_admin_put_age(json, "age_ms", now_ns, t->alloc_ns);
    bt_admin_put_age(json, "idle_ms", now_ns, t->last_commit_ns);
    bt_admin_put_left(json, "deadline_ms", now_ns,
                      is_moving                    ? t->deadline_ns
                      : t->state == BT_TICKET_HELD ? t->lease_ns
                                                   : 0);
    bt_jw_text(json, "peer", t->peer != NULL ? t->peer->name : "(gone)");
    bt_jw_u64(json, "ticket", t->id);
    bt_jw_u64(json, "chunks", t->n_chunks);
    bt_jw_u64(json, "present", t->present_chunks);
    bt_jw_u64(json, "landed", t->present_chunks + t->sent_chunks);
    bt_jw_u64(json, "tokens", t->n_tokens);
    bt_jw_u64(json, "bytes", t->sent_bytes);
    bt_jw_text(json, "reason", t->reason != BATON_OK ? t->reason_text : NULL);
    bt_jw_close(json);
}

static void put_transfers(bt_jsonwriter *json, const bt_rx *rx, const bt_admin_query *query,
                          uint64_t now_ns)
{
    bt_admin_rows rows;
    bt_admin_row row = BT_ROW_SKIP;
    bt_admin_rows_begin(json, &rows, query, "transfers");
    for (const bt_rx_ticket *t = rx->first_ticket; t != NULL && row != BT_ROW_STOP; t = t->next) {
        row = bt_admin_rows_next(&rows, bt_state_name(&bt_ticket_states, t->state));
        if (row == BT_ROW_WRITE)
            put_ticket(json, t, now_ns);
    }
    bt_admin_rows_end(json, &rows);
}

/* Peers. */

static void put_peer(bt_jsonwriter *json, const bt_rx *rx, const bt_rx_peer *peer,
                     const char *state, uint64_t now_ns)
{
    uint32_t n_tickets = 0;
    for (const bt_rx_ticket *t = rx->first_ticket; t != NULL; t = t->next)
        n_tickets += t->peer == peer;
    bt_jw_open(json, NULL, '{');
    bt_jw_text(json, "peer", peer->name);
    bt_jw_text(json, "name", peer->name);
    bt_jw_text(json, "state", state);
    bt_jw_hex64(json, "epoch", peer->epoch);
    bt_jw_u64(json, "pid", peer->process.pid);
    bt_jw_bool(json, "same_host", peer->same_host);
    bt_jw_text(json, "watched", peer->pidfd >= 0 ? "pidfd" : "heartbeats");
    bt_admin_put_age(json, "heard_ms", now_ns, peer->last_heard_ns);
    bt_jw_u64(json, "connection", peer->connection);
    bt_jw_u64(json, "transfers", n_tickets);
    bt_jw_u64(json, "quarantined", peer->n_revoked);
    bt_jw_bool(json, "control_ring", peer->ring_memory != NULL);
    bt_jw_close(json);
}

static const char *peer_state(const bt_rx_peer *peer)
{
    return peer->is_silent ? "SILENT" : peer->is_probe ? "PROBE" : "CONNECTED";
}

static void put_peers(bt_jsonwriter *json, const bt_rx *rx, const bt_admin_query *query,
                      uint64_t now_ns)
{
    bt_admin_rows rows;
    bt_admin_row row = BT_ROW_SKIP;
    bt_admin_rows_begin(json, &rows, query, "peers");
    for (const bt_rx_peer *p = rx->peers; p != NULL && row != BT_ROW_STOP; p = p->next) {
        row = bt_admin_rows_next(&rows, peer_state(p));
        if (row == BT_ROW_WRITE)
            put_peer(json, rx, p, peer_state(p), now_ns);
    }
    bt_admin_rows_end(json, &rows);
}

/* Leases: whatever has a time limit and keeps pages. */

static void put_awaited(bt_jsonwriter *json, const bt_rx_ticket *t)
{
    char text[256];
    const bt_rx_peer *peer = t->peer;
    if (peer == NULL)
        snprintf(text, sizeof(text), "nothing any more");
    else if (!peer->same_host)
        snprintf(text, sizeof(text), "DRAINED of %s, or the end of its connection", peer->name);
    else if (peer->pidfd >= 0)
        snprintf(text, sizeof(text), "DRAINED of %s, or the exit of its process %u", peer->name,
                 peer->process.pid);
    else
        snprintf(text, sizeof(text), "DRAINED of %s, whose process cannot be watched from here",
                 peer->name);
    bt_jw_text(json, "awaits", text);
}

/* When its writer is given up at the latest: it may have older ones. */
static uint64_t patience_ns(const bt_rx_ticket *t)
{
    return bt_deadline_ns(t->revoked_ns, BT_RX_RETIRE_NS);
}

static const char *lease_kind(const bt_rx_ticket *t)
{
    return t->state == BT_TICKET_HELD      ? "hold"
           : t->state == BT_TICKET_REVOKED ? "quarantine"
                                           : "ticket";
}

static void put_ticket_lease(bt_jsonwriter *json, const bt_rx *rx, const bt_rx_ticket *t,
                             uint64_t now_ns)
{
    uint64_t named_ns = 2 * (uint64_t)rx->options.timeouts.silent_ms * BT_NS_PER_MS;
    uint64_t until_ns = t->state == BT_TICKET_HELD      ? t->lease_ns
                        : t->state == BT_TICKET_REVOKED ? patience_ns(t)
                                                        : bt_deadline_ns(t->named_ns, named_ns);
    bt_jw_open(json, NULL, '{');
    bt_jw_text(json, "kind", lease_kind(t));
    bt_jw_text(json, "request", t->request);
    bt_jw_text(json, "trace", t->trace.trace[0] != 0 ? t->trace.trace : NULL);
    bt_jw_u64(json, "ticket", t->id);
    bt_jw_text(json, "peer", t->peer != NULL ? t->peer->name : "(gone)");
    bt_jw_u64(json, "pages", t->grant != NULL ? bt_grant_chunks(t->grant) : 0);
    bt_admin_put_age(json, "age_ms", now_ns, bt_rx_ticket_since_ns(t));
    bt_admin_put_left(json, "left_ms", now_ns, until_ns);
    if (t->state == BT_TICKET_REVOKED)
        put_awaited(json, t);
    else
        bt_jw_text(json, "awaits",
                   t->state == BT_TICKET_HELD ? "a lookup of decode"
                                              : "the sender's next heartbeat");
    bt_jw_close(json);
}

static void put_pin_lease(bt_jsonwriter *json, const bt_rx *rx, const bt_rx_pin_look *pin,
                          uint64_t now_ns)
{
    uint64_t limit_ns = rx->options.timeouts.pin_ms * BT_NS_PER_MS;
    char name[32];
    snprintf(name, sizeof(name), "pin %llu", (unsigned long long)pin->number);
    bt_jw_open(json, NULL, '{');
    bt_jw_text(json, "kind", "pin");
    bt_jw_text(json, "request", name);
    bt_jw_text(json, "peer", "decode");
    bt_jw_u64(json, "pages", pin->chunks != NULL ? pin->n_chunks : 0);
    bt_admin_put_age(json, "age_ms", now_ns,
                     pin->deadline_ns > limit_ns ? pin->deadline_ns - limit_ns : 0);
    bt_admin_put_left(json, "left_ms", now_ns, pin->is_leaving ? 0 : pin->deadline_ns);
    bt_jw_text(json, "awaits", pin->is_leaving ? "a GPU's stream" : "unpin of decode");
    bt_jw_close(json);
}

static void put_leases(bt_jsonwriter *json, const bt_rx *rx, const bt_admin_query *query,
                       uint64_t now_ns)
{
    bt_admin_rows rows;
    bt_admin_row row = BT_ROW_SKIP;
    bt_rx_pin_look pin = {0};
    bt_admin_rows_begin(json, &rows, query, "leases");
    for (const bt_rx_ticket *t = rx->first_ticket; t != NULL && row != BT_ROW_STOP; t = t->next) {
        if (t->state == BT_TICKET_QUEUED) /* it has nothing */
            continue;
        row = bt_admin_rows_next(&rows, lease_kind(t));
        if (row == BT_ROW_WRITE)
            put_ticket_lease(json, rx, t, now_ns);
    }
    while (row != BT_ROW_STOP && bt_rx_next_pin(rx, &pin)) {
        row = bt_admin_rows_next(&rows, "pin");
        if (row == BT_ROW_WRITE)
            put_pin_lease(json, rx, &pin, now_ns);
    }
    bt_admin_rows_end(json, &rows);
}

#define COUNTER(field)                                \
    {                                                 \
#field, offsetof(baton_receiver_stats, field) \
    }
static const bt_admin_counter counters[] = {
    COUNTER(pages_total),
    COUNTER(pages_free),
    COUNTER(pages_reserved),
    COUNTER(pages_landed),
    COUNTER(pages_quarantined),
    COUNTER(pages_retired),
    COUNTER(page_bytes),
    COUNTER(chunks_landed_total),
    COUNTER(chunks_present_total),
    COUNTER(chunks_evicted_total),
    COUNTER(chunks_duplicate_total),
    COUNTER(bytes_landed_total),
    COUNTER(tickets_granted_total),
    COUNTER(tickets_queued_total),
    COUNTER(tickets_refused_total),
    COUNTER(requests_ready_total),
    COUNTER(requests_failed_total),
    COUNTER(holds_expired_total),
    COUNTER(digests_checked_total),
    COUNTER(digests_failed_total),
    COUNTER(lookups_total),
    COUNTER(lookup_tokens_total),
    COUNTER(lookup_hit_tokens_total),
    COUNTER(pins_expired_total),
    COUNTER(messages_total),
    COUNTER(messages_dropped_total),
    COUNTER(messages_stale_total),
    COUNTER(ring_messages_total),
    COUNTER(notices_sent_total),
    COUNTER(notices_dropped_total),
    COUNTER(events_dropped_total),
    COUNTER(answers_dropped_total),
    COUNTER(connections_cut_total),
    COUNTER(peers),
    COUNTER(peers_lost_total),
    COUNTER(peers_deaf_total),
    COUNTER(tickets_live),
    COUNTER(tickets_queued),
    COUNTER(holds_live),
    COUNTER(pins_live),
    COUNTER(moves_refused_total),
};

static void put_answer(bt_jsonwriter *json, bt_rx *rx, const baton_receiver_stats *stats,
                       const bt_admin_query *query, uint64_t now_ns)
{
    bt_admin_rows rows;
    const char *name = query->name;
    if (strcmp(name, "transfers") == 0)
        put_transfers(json, rx, query, now_ns);
    else if (strcmp(name, "peers") == 0)
        put_peers(json, rx, query, now_ns);
    else if (strcmp(name, "pages") == 0)
        bt_rx_admin_pages(json, rx, query, now_ns);
    else if (strcmp(name, "leases") == 0)
        put_leases(json, rx, query, now_ns);
    else if (strcmp(name, "counters") == 0)
        bt_admin_put_counters(json, counters, sizeof(counters) / sizeof(counters[0]), stats);
    else if (strcmp(name, "trace") == 0)
        put_trace(json, rx, query);
    else if (strcmp(name, "slow") == 0) {
        bt_admin_rows_begin(json, &rows, query, "traces");
        bt_admin_write_slowest(json, &rows, rx->traces, stage_names, N_STAGES);
        bt_admin_rows_end(json, &rows);
    }
}

unsigned bt_rx_admin_answer(bt_rx *rx, const baton_receiver_stats *stats,
                            const bt_admin_query *query, bt_strbuf *out)
{
    bt_jsonwriter json;
    const bt_admin_head head = {.role = "receiver",
                                .name = rx->options.name,
                                .rank = rx->options.rank,
                                .world = rx->options.world,
                                .epoch = rx->epoch,
                                .now_ns = bt_now_ns(rx->clock)};
    if (!bt_admin_is_known(query))
        return bt_admin_put_unknown(out, query);
    bt_admin_begin(&json, out, &head);
    pthread_mutex_lock(&rx->lock);
    put_answer(&json, rx, stats, query, head.now_ns);
    pthread_mutex_unlock(&rx->lock);
    bt_admin_end(&json);
    return 200;
}

void bt_rxshell_answer_admin(baton_receiver *receiver)
{
    baton_receiver_stats stats;
    const bt_admin_query *query = bt_admin_pending(receiver->admin);
    baton_receiver_get_stats(receiver, &stats);
    unsigned status =
        bt_rx_admin_answer(receiver->rx, &stats, query, bt_admin_text(receiver->admin));
    bt_admin_answered(receiver->admin, status);
}
