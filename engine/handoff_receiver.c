/* SPDX-License-Identifier: Apache-2.0 */
/* bt_handoff_ops over baton_receiver: what every rank has of a prompt is copied from its pages into
 * its heads of the paged KV, and unpinned. */
#include "engine/handoffrole.h"

#include <baton/receiver.h>

#include <string.h>

#include "core/alloc.h"
#include "core/fail.h"
#include "core/log.h"

typedef struct {
    baton_receiver *receiver;
    bt_handoff_view view;
    baton_pin *pin; /* during a load */
} receiver_rank;

struct bt_handoff_receiver {
    uint32_t n_ranks;
    receiver_rank *ranks; /* [n_ranks] */
    int64_t *slots;       /* [chunk_tokens] */
    uint32_t chunk_tokens, block_tokens, spoil_layer;
};

static baton_status open_rank(bt_handoff_receiver *r, const bt_handoff_options *options,
                              const baton_layout *layout, uint32_t rank)
{
    baton_receiver_options receiver = {
        .layout = *layout, .rank = rank, .world = options->tp, .key_seed = options->key_seed};
    BATON_TRY(bt_handoff_view_open(options, rank, &r->ranks[rank].view));
    uint32_t n = options->n_overrides;
    const char **overrides = bt_calloc(n + 1, sizeof(*overrides));
    if (overrides == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "hand-off: %u overrides", n);
    for (uint32_t i = 0; i < n; i++)
        overrides[i] = options->overrides[i];
    overrides[n] = "memory_kind=host"; /* the CPU computes, whatever a file for GPUs says */
    baton_status status = baton_receiver_create_from_file(options->config, &receiver, overrides,
                                                          n + 1, &r->ranks[rank].receiver);
    bt_free(overrides);
    return status;
}

baton_status bt_handoff_receiver_create(const bt_handoff_options *options,
                                        bt_handoff_receiver **receiver_p)
{
    baton_layout layout;
    BATON_TRY(bt_handoff_layout(options, &layout));
    if (options->spoil_layer > layout.n_layers)
        return bt_fail(BATON_ERR_INVALID_ARG, "hand-off: spoil_layer: wanted at most %u, found %u",
                       layout.n_layers, options->spoil_layer);
    bt_handoff_receiver *r = bt_calloc(1, sizeof(*r));
    if (r == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "hand-off: %zu bytes", sizeof(*r));
    r->n_ranks = options->tp;
    r->chunk_tokens = options->chunk_tokens;
    r->block_tokens = options->cache->block_tokens;
    r->spoil_layer = options->spoil_layer;
    r->ranks = bt_calloc(r->n_ranks, sizeof(*r->ranks));
    r->slots = bt_calloc(r->chunk_tokens, sizeof(*r->slots));
    baton_status status = r->ranks == NULL || r->slots == NULL
                              ? bt_fail(BATON_ERR_NO_MEMORY, "hand-off: %u ranks", r->n_ranks)
                              : BATON_OK;
    for (uint32_t rank = 0; status == BATON_OK && rank < r->n_ranks; rank++)
        status = open_rank(r, options, &layout, rank);
    if (status < 0) {
        bt_handoff_receiver_destroy(r);
        return status;
    }
    *receiver_p = r;
    return BATON_OK;
}

/* A load in progress: positions [first, end) are wanted in blocks. */
typedef struct {
    uint32_t first, end;
    const uint32_t *blocks;
    uint32_t n_blocks;
} wanted;

/* Copies one chunk, which holds positions from `begin` on, as far as they are wanted. */
static baton_status scatter_chunk(bt_handoff_receiver *r, const receiver_rank *rank,
                                  const baton_pinned_chunk *chunk, uint32_t begin, const wanted *w)
{
    uint32_t end = begin + chunk->n_tokens;
    if (end <= w->first || begin >= w->end)
        return BATON_OK;
    baton_kv_tokens tokens = {.n_tokens = chunk->n_tokens};
    if (begin >= w->first && end <= w->end) {
        tokens.blocks = w->blocks;
        tokens.n_blocks = w->n_blocks;
        tokens.first_token = begin;
    } else {
        for (uint32_t i = 0; i < chunk->n_tokens; i++) {
            uint32_t p = begin + i;
            bool is_wanted = p >= w->first && p < w->end;
            r->slots[i] = is_wanted ? (int64_t)w->blocks[p / r->block_tokens] * r->block_tokens +
                                          p % r->block_tokens
                                    : -1;
        }
        tokens.slots = r->slots;
    }
    return baton_kv_scatter(&rank->view.kv, &tokens, 0, rank->view.kv.n_layers, chunk->page,
                            chunk->bytes);
}

static baton_status scatter_rank(bt_handoff_receiver *r, const receiver_rank *rank, const wanted *w)
{
    uint32_t begin = 0;
    for (uint32_t i = 0; i < baton_pin_chunks(rank->pin) && begin < w->end; i++) {
        baton_pinned_chunk chunk;
        BATON_TRY(baton_pin_chunk(rank->pin, i, &chunk));
        if (chunk.n_tokens > r->chunk_tokens)
            return bt_fail(BATON_ERR_LAYOUT_MISMATCH,
                           "hand-off: wanted chunks of at most %u tokens, found %u",
                           r->chunk_tokens, chunk.n_tokens);
        BATON_TRY(scatter_chunk(r, rank, &chunk, begin, w));
        begin += chunk.n_tokens;
    }
    return BATON_OK;
}

/* Overwrites what was copied into one layer. Heads of a slot lie side by side in this cache. */
static void spoil_rank(const bt_handoff_receiver *r, const receiver_rank *rank, const wanted *w)
{
    const baton_kv_view *kv = &rank->view.kv;
    const baton_kv_plane *plane = &kv->planes[r->spoil_layer - 1];
    for (uint32_t p = w->first; p < w->end; p++) {
        uint64_t at = w->blocks[p / r->block_tokens] * kv->block_stride_bytes +
                      p % r->block_tokens * kv->token_stride_bytes;
        memset((uint8_t *)plane->k + at, 0, kv->n_kv_heads * kv->head_bytes);
        memset((uint8_t *)plane->v + at, 0, kv->n_kv_heads * kv->head_bytes);
    }
}

/* Pins what every rank has; *n_common is what all of them have. */
static baton_status lookup_ranks(bt_handoff_receiver *r, const uint32_t *tokens, uint32_t n_tokens,
                                 uint32_t *n_common)
{
    *n_common = n_tokens;
    for (uint32_t rank = 0; rank < r->n_ranks; rank++) {
        uint32_t n = 0;
        BATON_TRY(baton_receiver_lookup(r->ranks[rank].receiver, tokens, n_tokens,
                                        &r->ranks[rank].pin, &n));
        *n_common = n < *n_common ? n : *n_common;
    }
    return BATON_OK;
}

static baton_status load(void *ctx, const uint32_t *tokens, uint32_t n_tokens, uint32_t first,
                         const uint32_t *blocks, uint32_t n_blocks, uint32_t *n_loaded)
{
    bt_handoff_receiver *r = ctx;
    wanted w = {.first = first, .blocks = blocks, .n_blocks = n_blocks};
    baton_status status = lookup_ranks(r, tokens, n_tokens, &w.end);
    for (uint32_t rank = 0; status == BATON_OK && rank < r->n_ranks && w.end > first; rank++)
        status = scatter_rank(r, &r->ranks[rank], &w);
    for (uint32_t rank = 0; status == BATON_OK && r->spoil_layer != 0 && rank < r->n_ranks; rank++)
        spoil_rank(r, &r->ranks[rank], &w);
    for (uint32_t rank = 0; rank < r->n_ranks; rank++) {
        receiver_rank *each = &r->ranks[rank];
        baton_status unpinned =
            each->pin != NULL ? baton_receiver_unpin(each->receiver, each->pin) : BATON_OK;
        each->pin = NULL;
        if (status == BATON_OK)
            status = unpinned; /* LEASE_EXPIRED: what was copied may be another prompt's */
    }
    BATON_TRY(status);
    *n_loaded = w.end > first ? w.end : first;
    return BATON_OK;
}

static void progress(void *ctx, bt_handoff_ended_fn ended, void *sink)
{
    enum { MAX_EVENTS = 32 };
    (void)ended, (void)sink;
    bt_handoff_receiver *r = ctx;
    baton_receiver_event events[MAX_EVENTS];
    for (uint32_t rank = 0; rank < r->n_ranks; rank++) {
        uint32_t n;
        do {
            n = baton_receiver_poll(r->ranks[rank].receiver, events, MAX_EVENTS);
            for (uint32_t i = 0; i < n; i++)
                bt_debug("engine: receiver event=%d request=%s rank=%u chunks=%u sent=%u bytes=%llu"
                         " move_us=%llu status=%s",
                         events[i].kind, events[i].request, rank, events[i].n_chunks,
                         events[i].sent_chunks, (unsigned long long)events[i].sent_bytes,
                         (unsigned long long)(events[i].move_ns / 1000),
                         baton_status_name(events[i].status));
        } while (n == MAX_EVENTS);
    }
}

static uint32_t fds(void *ctx, int *out, uint32_t max)
{
    bt_handoff_receiver *r = ctx;
    uint32_t n = r->n_ranks < max ? r->n_ranks : max;
    for (uint32_t rank = 0; rank < n; rank++)
        out[rank] = baton_receiver_event_fd(r->ranks[rank].receiver);
    return n;
}

void bt_handoff_receiver_ops(bt_handoff_receiver *receiver, bt_handoff_ops *ops)
{
    *ops = (bt_handoff_ops){
        .ctx = receiver,
        .chunk_tokens = receiver->chunk_tokens,
        .load = load,
        .progress = progress,
        .fds = fds,
    };
}

static const bt_handoff_metric metrics[] = {
#define FIELD(field, type, help)                                                    \
    {                                                                               \
        "baton_receiver_" #field, help, offsetof(baton_receiver_stats, field), type \
    }
    FIELD(pages_total, BT_PROM_GAUGE, "Pages of the pool, over ranks."),
    FIELD(pages_free, BT_PROM_GAUGE, "Pages free."),
    FIELD(pages_reserved, BT_PROM_GAUGE, "Pages that senders may write."),
    FIELD(pages_landed, BT_PROM_GAUGE, "Pages with a chunk that can be looked up."),
    FIELD(pages_quarantined, BT_PROM_GAUGE, "Pages that may still be written after an abort."),
    FIELD(pages_retired, BT_PROM_GAUGE, "Pages that wait for a fresh region."),
    FIELD(chunks_landed_total, BT_PROM_COUNTER, "Chunks landed."),
    FIELD(chunks_present_total, BT_PROM_COUNTER, "Chunks that were there already."),
    FIELD(chunks_evicted_total, BT_PROM_COUNTER, "Chunks evicted."),
    FIELD(chunks_duplicate_total, BT_PROM_COUNTER, "Chunks sent twice at once."),
    FIELD(bytes_landed_total, BT_PROM_COUNTER, "Bytes landed."),
    FIELD(tickets_granted_total, BT_PROM_COUNTER, "Requests granted pages."),
    FIELD(tickets_queued_total, BT_PROM_COUNTER, "Requests that had to wait for pages."),
    FIELD(tickets_refused_total, BT_PROM_COUNTER, "Requests refused."),
    FIELD(requests_ready_total, BT_PROM_COUNTER, "Requests ready."),
    FIELD(requests_failed_total, BT_PROM_COUNTER, "Requests failed."),
    FIELD(holds_expired_total, BT_PROM_COUNTER, "Requests that nobody came for."),
    FIELD(digests_checked_total, BT_PROM_COUNTER, "Chunks whose digest was checked."),
    FIELD(digests_failed_total, BT_PROM_COUNTER, "Chunks whose digest did not match."),
    FIELD(lookups_total, BT_PROM_COUNTER, "Lookups."),
    FIELD(lookup_tokens_total, BT_PROM_COUNTER, "Tokens looked up."),
    FIELD(lookup_hit_tokens_total, BT_PROM_COUNTER, "Tokens found."),
    FIELD(pins_expired_total, BT_PROM_COUNTER, "Pins that ran out."),
    FIELD(messages_total, BT_PROM_COUNTER, "Control messages."),
    FIELD(messages_dropped_total, BT_PROM_COUNTER, "Malformed control messages."),
    FIELD(messages_stale_total, BT_PROM_COUNTER, "Messages of another life or ticket."),
    FIELD(moves_refused_total, BT_PROM_COUNTER, "Moves that a state machine refused: a bug."),
    FIELD(ring_messages_total, BT_PROM_COUNTER, "Messages that came through shared memory."),
    FIELD(notices_sent_total, BT_PROM_COUNTER, "Notices sent to proxies."),
    FIELD(notices_dropped_total, BT_PROM_COUNTER, "Notices that could not be sent."),
    FIELD(answers_dropped_total, BT_PROM_COUNTER, "Answers that nobody read, or was there for."),
    FIELD(connections_cut_total, BT_PROM_COUNTER,
          "Connections cut: they sent messages that do not end, or that we had no room for."),
    FIELD(peers_lost_total, BT_PROM_COUNTER, "Senders lost."),
    FIELD(peers_deaf_total, BT_PROM_COUNTER, "Senders that did not read their answers."),
    FIELD(peers, BT_PROM_GAUGE, "Senders connected."),
    FIELD(tickets_live, BT_PROM_GAUGE, "Requests that are being written."),
    FIELD(tickets_queued, BT_PROM_GAUGE, "Requests that wait for pages."),
    FIELD(holds_live, BT_PROM_GAUGE, "Requests that wait for decode."),
    FIELD(pins_live, BT_PROM_GAUGE, "Pins."),
#undef FIELD
};

void bt_handoff_receiver_metrics(void *receiver, bt_strbuf *out)
{
    bt_handoff_receiver *r = receiver;
    baton_receiver_stats sum = {0}, stats;
    for (uint32_t rank = 0; rank < r->n_ranks; rank++) {
        baton_receiver_get_stats(r->ranks[rank].receiver, &stats);
        bt_handoff_add_stats(&sum, &stats, sizeof(sum));
    }
    bt_handoff_put_metrics(out, metrics, sizeof(metrics) / sizeof(metrics[0]), &sum);
}

void bt_handoff_receiver_describe(bt_handoff_receiver *r, bt_strbuf *out)
{
    for (int is_alloc = 0; is_alloc < 2; is_alloc++) {
        bt_strbuf_puts(out, is_alloc ? " alloc_ports=" : " init_ports=");
        for (uint32_t rank = 0; rank < r->n_ranks; rank++) {
            uint16_t init_port, alloc_port;
            baton_receiver_ports(r->ranks[rank].receiver, &init_port, &alloc_port);
            bt_strbuf_printf(out, "%s%u", rank != 0 ? "," : "", is_alloc ? alloc_port : init_port);
        }
    }
}

void bt_handoff_receiver_destroy(bt_handoff_receiver *r)
{
    if (r == NULL)
        return;
    for (uint32_t rank = 0; r->ranks != NULL && rank < r->n_ranks; rank++) {
        baton_receiver_destroy(r->ranks[rank].receiver);
        bt_handoff_view_close(&r->ranks[rank].view);
    }
    bt_free(r->ranks);
    bt_free(r->slots);
    bt_free(r);
}
