/* SPDX-License-Identifier: Apache-2.0 */
/* bt_handoff_ops over baton_sender: a transfer of the engine is one transfer per rank. It is over
 * when every rank has told its end; the first failure decides, and cancels the others.
 *
 * A rank's pages are asked for when the rank before it has its own. Were all asked at once, two
 * requests could each have one rank's pool and wait for the other's, until a lease ends both. */
#include "engine/handoffrole.h"

#include <baton/keys.h>
#include <baton/sender.h>

#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "core/fail.h"
#include "core/log.h"

typedef struct {
    baton_sender *sender;
    bt_handoff_view view;
    baton_key_chain chain; /* before the first token */
} sender_rank;

typedef struct {
    baton_sender *sender;
    baton_transfer id;
} rank_transfer;

typedef struct transfer {
    struct transfer *prev, *next; /* all that have not ended */
    void *user_data;              /* NULL: begin failed, nobody waits */
    uint32_t n_tokens;
    uint32_t n_begun, n_ended; /* ranks; the last one begins first, rank 0 last */
    rank_transfer ranks[BT_HANDOFF_MAX_RANKS];
    char name[BT_HANDOFF_ID_BYTES + 1], traceparent[BT_HANDOFF_TRACE_BYTES]; /* for log lines */
    baton_status status; /* of the first failure */
    char text[BATON_EVENT_TEXT_BYTES];
} transfer;

struct bt_handoff_sender {
    uint32_t n_ranks, chunk_tokens, n_layers, max_keys;
    sender_rank *ranks; /* [n_ranks] */
    baton_key *keys;    /* [max_keys], of the rank that begins */
    transfer *first;
};

static void link_transfer(bt_handoff_sender *s, transfer *t)
{
    t->next = s->first;
    if (t->next != NULL)
        t->next->prev = t;
    s->first = t;
}

static void free_transfer(bt_handoff_sender *s, transfer *t)
{
    *(t->prev != NULL ? &t->prev->next : &s->first) = t->next;
    if (t->next != NULL)
        t->next->prev = t->prev;
    bt_free(t);
}

static baton_status open_rank(bt_handoff_sender *s, const bt_handoff_options *options,
                              const baton_layout *layout, uint32_t rank)
{
    sender_rank *r = &s->ranks[rank];
    baton_sender_options sender = {.layout = *layout,
                                   .rank = rank,
                                   .world = options->tp,
                                   .key_seed = options->key_seed,
                                   .spoil_byte = options->spoil_byte};
    BATON_TRY(bt_handoff_view_open(options, rank, &r->view));
    BATON_TRY(baton_sender_create_from_file(options->config, &sender, options->overrides,
                                            options->n_overrides, &r->sender));
    return baton_key_chain_init(layout, options->tp, rank, options->key_seed, &r->chain);
}

baton_status bt_handoff_sender_create(const bt_handoff_options *options,
                                      bt_handoff_sender **sender_p)
{
    baton_layout layout;
    BATON_TRY(bt_handoff_layout(options, &layout));
    bt_handoff_sender *s = bt_calloc(1, sizeof(*s));
    if (s == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "hand-off: %zu bytes", sizeof(*s));
    s->n_ranks = options->tp;
    s->chunk_tokens = options->chunk_tokens;
    s->n_layers = layout.n_layers;
    s->max_keys = options->max_model_len / options->chunk_tokens + 1;
    s->ranks = bt_calloc(s->n_ranks, sizeof(*s->ranks));
    s->keys = bt_calloc(s->max_keys, sizeof(*s->keys));
    baton_status status = BATON_OK;
    if (s->ranks == NULL || s->keys == NULL)
        status =
            bt_fail(BATON_ERR_NO_MEMORY, "hand-off: %u ranks, %u keys", s->n_ranks, s->max_keys);
    for (uint32_t rank = 0; status == BATON_OK && rank < s->n_ranks; rank++)
        status = open_rank(s, options, &layout, rank);
    if (status < 0) {
        bt_handoff_sender_destroy(s);
        return status;
    }
    *sender_p = s;
    return BATON_OK;
}

static void cancel_ranks(bt_handoff_sender *s, const transfer *t)
{
    for (uint32_t rank = s->n_ranks - t->n_begun; rank < s->n_ranks; rank++)
        (void)baton_transfer_cancel(s->ranks[rank].sender, t->ranks[rank].id); /* or it has ended */
}

static void note_failure(transfer *t, baton_status status, const char *text)
{
    if (t->status < 0)
        return;
    t->status = status;
    snprintf(t->text, sizeof(t->text), "%s", text);
}

/* On the thread of the rank before. */
static void ask_next(void *ctx)
{
    const rank_transfer *next = ctx;
    (void)baton_transfer_ask(next->sender, next->id); /* NOT_FOUND: it has ended */
}

static baton_status begin_rank(bt_handoff_sender *s, const bt_handoff_target *target,
                               const uint32_t *tokens, transfer *t)
{
    uint32_t rank = s->n_ranks - 1 - t->n_begun;
    bool is_last = rank + 1 == s->n_ranks;
    baton_transfer_options options = {
        .request = target->request,
        .host = target->host,
        .init_port = target->init_ports[rank],
        .alloc_port = target->alloc_ports[rank],
        .keys = s->keys,
        .notice = target->notice[0] != 0 ? target->notice : NULL,
        .wait_ms = target->wait_ms,
        .user_data = (uintptr_t)t,
        .traceparent = target->traceparent,
        .asks_later = rank > 0,
        .granted = is_last ? NULL : ask_next,
        .granted_ctx = is_last ? NULL : &t->ranks[rank + 1],
    };
    t->ranks[rank].sender = s->ranks[rank].sender;
    BATON_TRY(baton_keys_of_tokens(&s->ranks[rank].chain, tokens, t->n_tokens, s->keys, s->max_keys,
                                   &options.n_chunks, &options.last_tokens));
    return baton_transfer_begin(s->ranks[rank].sender, &options, &t->ranks[rank].id);
}

static baton_status begin(void *ctx, const bt_handoff_target *target, const uint32_t *tokens,
                          uint32_t n_tokens, void *user_data, void **transfer_p)
{
    bt_handoff_sender *s = ctx;
    if (target->n_ranks != s->n_ranks)
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "hand-off: disagg_spec has %u ports, this engine %u ranks", target->n_ranks,
                       s->n_ranks);
    transfer *t = bt_calloc(1, sizeof(*t));
    if (t == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "hand-off: %zu bytes", sizeof(*t));
    t->n_tokens = n_tokens;
    snprintf(t->name, sizeof(t->name), "%s", target->request);
    snprintf(t->traceparent, sizeof(t->traceparent), "%s", target->traceparent);
    link_transfer(s, t);
    baton_status status = BATON_OK;
    while (t->n_begun < s->n_ranks) {
        status = begin_rank(s, target, tokens, t);
        if (status < 0)
            break;
        t->n_begun++;
    }
    if (status == BATON_OK) {
        t->user_data = user_data;
        *transfer_p = t;
    } else if (t->n_begun == 0) {
        free_transfer(s, t);
    } else { /* it lives on, unknown to the engine, until the ranks that began have ended */
        cancel_ranks(s, t);
    }
    return status;
}

static void layers_ready(void *ctx, void *handle, uint32_t chunk, uint32_t first_layer,
                         uint32_t n_layers, const uint32_t *blocks, uint32_t n_blocks)
{
    bt_handoff_sender *s = ctx;
    transfer *t = handle;
    uint32_t first = chunk * s->chunk_tokens, left = t->n_tokens - first;
    baton_kv_tokens tokens = {
        .blocks = blocks,
        .n_blocks = n_blocks,
        .n_tokens = left < s->chunk_tokens ? left : s->chunk_tokens,
        .first_token = first,
    };
    for (uint32_t rank = 0; rank < s->n_ranks; rank++) {
        sender_rank *r = &s->ranks[rank];
        const baton_source source = {.view = &r->view.kv, .tokens = &tokens};
        baton_status status =
            n_layers == s->n_layers
                ? baton_transfer_push_source(r->sender, t->ranks[rank].id, chunk, &source)
                : baton_transfer_push_layers(r->sender, t->ranks[rank].id, chunk, first_layer,
                                             n_layers, &source);
        if (status < 0 && status != BATON_ERR_NOT_FOUND) { /* NOT_FOUND: its end is on the way */
            note_failure(t, status, baton_last_error());
            cancel_ranks(s, t);
        }
    }
}

static void chunk_ready(void *ctx, void *handle, uint32_t chunk, const uint32_t *blocks,
                        uint32_t n_blocks)
{
    const bt_handoff_sender *s = ctx;
    layers_ready(ctx, handle, chunk, 0, s->n_layers, blocks, n_blocks);
}

static uint32_t layer_group(void *ctx, uint32_t n_tokens)
{
    const bt_handoff_sender *s = ctx;
    return baton_sender_layer_group(s->ranks[0].sender, n_tokens);
}

static void finish(void *ctx, void *handle)
{
    bt_handoff_sender *s = ctx;
    transfer *t = handle;
    for (uint32_t rank = 0; rank < s->n_ranks; rank++) {
        baton_status status = baton_transfer_finish(s->ranks[rank].sender, t->ranks[rank].id);
        if (status < 0 && status != BATON_ERR_NOT_FOUND) {
            note_failure(t, status, baton_last_error());
            cancel_ranks(s, t);
        }
    }
}

static void cancel(void *ctx, void *handle)
{
    cancel_ranks(ctx, handle);
}

static void on_event(bt_handoff_sender *s, const baton_sender_event *event,
                     bt_handoff_ended_fn ended, void *sink)
{
    transfer *t = (transfer *)(uintptr_t)event->user_data;
    if (event->kind == BATON_SENDER_SOURCE_FREE)
        return; /* the end comes after the last of them (no memory of ours is registered, nor a
                   GPU's), and only then blocks are reused */
    t->n_ended++;
    if (event->kind == BATON_SENDER_FAILED) {
        bool is_first = t->status >= 0;
        note_failure(t, event->status, event->text);
        if (is_first)
            cancel_ranks(s, t);
    }
    if (t->n_ended < t->n_begun)
        return;
    if (t->status == BATON_ERR_CANCELED) /* the client is gone, or decode is not needed */
        bt_debug("engine: hand-off canceled %s request=%s", t->text, t->name);
    else if (t->status == BATON_ERR_REVOKED)
        bt_info("engine: hand-off revoked %s request=%s traceparent=%s", t->text, t->name,
                t->traceparent);
    else if (t->status < 0)
        bt_warn("engine: hand-off failed status=%s %s request=%s traceparent=%s",
                baton_status_name(t->status), t->text, t->name, t->traceparent);
    if (t->user_data != NULL)
        ended(sink, t->user_data, t->status, t->text);
    free_transfer(s, t);
}

static void progress(void *ctx, bt_handoff_ended_fn ended, void *sink)
{
    enum { MAX_EVENTS = 32 };
    bt_handoff_sender *s = ctx;
    baton_sender_event events[MAX_EVENTS];
    for (uint32_t rank = 0; rank < s->n_ranks; rank++) {
        uint32_t n;
        do {
            n = baton_sender_poll(s->ranks[rank].sender, events, MAX_EVENTS);
            for (uint32_t i = 0; i < n; i++)
                on_event(s, &events[i], ended, sink);
        } while (n == MAX_EVENTS);
    }
}

static uint32_t fds(void *ctx, int *out, uint32_t max)
{
    bt_handoff_sender *s = ctx;
    uint32_t n = s->n_ranks < max ? s->n_ranks : max;
    for (uint32_t rank = 0; rank < n; rank++)
        out[rank] = baton_sender_event_fd(s->ranks[rank].sender);
    return n;
}

void bt_handoff_sender_ops(bt_handoff_sender *sender, bt_handoff_ops *ops)
{
    *ops = (bt_handoff_ops){
        .ctx = sender,
        .chunk_tokens = sender->chunk_tokens,
        .begin = begin,
        .chunk_ready = chunk_ready,
        .layer_group = layer_group,
        .n_layers = sender->n_layers,
        .layers_ready = layers_ready,
        .finish = finish,
        .cancel = cancel,
        .progress = progress,
        .fds = fds,
    };
}

static const bt_handoff_metric metrics[] = {
#define FIELD(field, type, help)                                                \
    {                                                                           \
        "baton_sender_" #field, help, offsetof(baton_sender_stats, field), type \
    }
    FIELD(transfers_begun_total, BT_PROM_COUNTER, "Transfers begun, over ranks."),
    FIELD(transfers_done_total, BT_PROM_COUNTER, "Transfers done."),
    FIELD(transfers_failed_total, BT_PROM_COUNTER, "Transfers failed."),
    FIELD(chunks_sent_total, BT_PROM_COUNTER, "Chunks written to receivers."),
    FIELD(tickets_granted_total, BT_PROM_COUNTER, "Transfers whose pages were granted."),
    FIELD(chunks_present_total, BT_PROM_COUNTER, "Chunks that receivers had already."),
    FIELD(bytes_sent_total, BT_PROM_COUNTER, "Bytes written to receivers."),
    FIELD(bytes_mapped_total, BT_PROM_COUNTER, "The part written without puts."),
    FIELD(bytes_staged_total, BT_PROM_COUNTER, "The part from GPUs through pinned pages."),
    FIELD(notices_sent_total, BT_PROM_COUNTER, "Notices sent to proxies."),
    FIELD(notices_dropped_total, BT_PROM_COUNTER, "Notices that could not be sent."),
    FIELD(messages_dropped_total, BT_PROM_COUNTER, "Malformed messages."),
    FIELD(messages_stale_total, BT_PROM_COUNTER, "Messages of another life or ticket."),
    FIELD(moves_refused_total, BT_PROM_COUNTER, "Moves that a state machine refused: a bug."),
    FIELD(peers_lost_total, BT_PROM_COUNTER, "Receivers lost."),
    FIELD(peers_ready, BT_PROM_GAUGE, "Receivers connected."),
    FIELD(transfers_live, BT_PROM_GAUGE, "Transfers now."),
    FIELD(peers_mapped, BT_PROM_GAUGE, "Receivers whose pages are written by stores."),
    FIELD(peers_put, BT_PROM_GAUGE, "Receivers whose pages are written by puts."),
    FIELD(peers_staged, BT_PROM_GAUGE, "Receivers that are put to from staging pages."),
    FIELD(peers_refused_total, BT_PROM_COUNTER, "Connections turned down for their path."),
#undef FIELD
};

enum { MAX_PEERS_SHOWN = 32 }; /* of one rank */

static double peer_gbps(const baton_sender_peer *peer)
{
    if (peer->path == BATON_PATH_MAPPED)
        return peer->copy_gbps;
    bool staging_is_slower = peer->stage_gbps > 0 && peer->stage_gbps < peer->wire_gbps;
    return peer->path == BATON_PATH_STAGED && staging_is_slower ? peer->stage_gbps
                                                                : peer->wire_gbps;
}

static double peer_post_us(const baton_sender_peer *peer)
{
    return peer->post_us;
}

static void put_peer_metric(bt_handoff_sender *s, bt_strbuf *out, const char *name,
                            const char *help, double (*value)(const baton_sender_peer *peer))
{
    static const char *const paths[] = {"auto", "mapped", "put", "staged"};
    bt_prom_family(out, name, BT_PROM_GAUGE, help);
    for (uint32_t rank = 0; rank < s->n_ranks; rank++) {
        baton_sender_peer peers[MAX_PEERS_SHOWN];
        uint32_t n = baton_sender_peers(s->ranks[rank].sender, peers, MAX_PEERS_SHOWN);
        for (uint32_t i = 0; i < n && i < MAX_PEERS_SHOWN; i++) {
            if (!peers[i].connected)
                continue;
            char address[300];
            snprintf(address, sizeof(address), "%s:%u", peers[i].host, peers[i].init_port);
            const bt_prom_label labels[] = {{"peer", address},
                                            {"path", paths[peers[i].path]},
                                            {"transport", peers[i].transport},
                                            {"device", peers[i].device}};
            bt_prom_double(out, name, labels, 4, value(&peers[i]));
        }
    }
}

void bt_handoff_sender_metrics(void *sender, bt_strbuf *out)
{
    bt_handoff_sender *s = sender;
    baton_sender_stats sum = {0}, stats;
    for (uint32_t rank = 0; rank < s->n_ranks; rank++) {
        baton_sender_get_stats(s->ranks[rank].sender, &stats);
        bt_handoff_add_stats(&sum, &stats, sizeof(sum));
    }
    bt_handoff_put_metrics(out, metrics, sizeof(metrics) / sizeof(metrics[0]), &sum);
    put_peer_metric(s, out, "baton_sender_peer_gbps",
                    "Measured when connecting, 10^9 bytes a second; 0: not measured.", peer_gbps);
    put_peer_metric(s, out, "baton_sender_peer_post_us",
                    "Microseconds of CPU to post a put; 0: not measured.", peer_post_us);
}

void bt_handoff_sender_destroy(bt_handoff_sender *s)
{
    if (s == NULL)
        return;
    for (uint32_t rank = 0; s->ranks != NULL && rank < s->n_ranks; rank++) {
        baton_sender_destroy(s->ranks[rank].sender);
        bt_handoff_view_close(&s->ranks[rank].view);
    }
    while (s->first != NULL)
        free_transfer(s, s->first);
    bt_free(s->ranks);
    bt_free(s->keys);
    bt_free(s);
}
