/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/scheduler.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "core/fail.h"
#include "core/log.h"

typedef struct {
    bt_sequence *first, *last;
    uint32_t n;
} sequence_list;

struct bt_scheduler {
    bt_scheduler_options options;
    bt_prefix_cache *cache;
    bt_block_pool *pool; /* the cache's */
    bt_sampler *sampler;
    sequence_list lists[BT_SEQ_DRAINING + 1]; /* by state */
    bt_batch_item *items;                     /* [max_running], the batch */
    bt_sequence **batch;                      /* [max_running], whose item it is */
    uint32_t n_items;
    float *logits;    /* [max_running][n_vocab] */
    uint32_t *banned; /* [n_eos_ids + BT_MAX_STOP_IDS] */
    bt_scheduler_stats stats;
};

static void list_add(bt_scheduler *s, bt_sequence *sequence, bt_seq_state state)
{
    sequence_list *list = &s->lists[state];
    sequence->state = state;
    sequence->prev = list->last;
    sequence->next = NULL;
    *(list->last != NULL ? &list->last->next : &list->first) = sequence;
    list->last = sequence;
    list->n++;
}

static void list_remove(bt_scheduler *s, bt_sequence *sequence)
{
    sequence_list *list = &s->lists[sequence->state];
    *(sequence->prev != NULL ? &sequence->prev->next : &list->first) = sequence->next;
    *(sequence->next != NULL ? &sequence->next->prev : &list->last) = sequence->prev;
    list->n--;
}

static uint64_t now_ns(const bt_scheduler *s)
{
    return bt_now_ns(s->options.clock);
}

static baton_status check_options(const bt_scheduler_options *o)
{
    if (o->forward == NULL || o->emit == NULL || o->ends.tokenizer == NULL || o->n_vocab == 0 ||
        o->chunk_tokens == 0 || o->max_running == 0)
        return bt_fail(BATON_ERR_INVALID_ARG, "scheduler: an option is missing");
    if (o->step_tokens <= o->max_running)
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "scheduler: wanted more tokens per step than sequences, found %u and %u",
                       o->step_tokens, o->max_running);
    if (o->handoff != NULL && o->handoff->begin != NULL && o->handoff->chunk_tokens == 0)
        return bt_fail(BATON_ERR_INVALID_ARG, "scheduler: hand-off chunks of 0 tokens");
    return BATON_OK;
}

static void on_layer_done(void *sink, uint32_t layer);

baton_status bt_scheduler_create(const bt_scheduler_options *options, bt_scheduler **scheduler_p)
{
    BATON_TRY(check_options(options));
    bt_scheduler *s = bt_calloc(1, sizeof(*s));
    if (s == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "scheduler: %zu bytes", sizeof(*s));
    s->options = *options;
    if (s->options.clock == NULL)
        s->options.clock = &bt_clock_monotonic;
    uint32_t n = options->max_running;
    s->items = bt_calloc(n, sizeof(*s->items));
    s->batch = bt_calloc(n, sizeof(bt_sequence *));
    s->banned = bt_calloc(options->ends.n_eos_ids + BT_MAX_STOP_IDS, sizeof(*s->banned));
    s->logits = bt_calloc((size_t)n * options->n_vocab, sizeof(*s->logits));
    baton_status status =
        s->items == NULL || s->batch == NULL || s->banned == NULL || s->logits == NULL
            ? bt_fail(BATON_ERR_NO_MEMORY, "scheduler: batch of %u", n)
            : bt_prefix_cache_create(options->n_blocks, options->block_tokens, options->block_seed,
                                     &s->cache);
    if (status == BATON_OK)
        status = bt_sampler_create(options->n_vocab, &s->sampler);
    if (status < 0) {
        bt_scheduler_destroy(s);
        return status;
    }
    s->pool = bt_prefix_cache_pool(s->cache);
    if (options->watch != NULL)
        options->watch(options->forward_ctx, on_layer_done, s);
    *scheduler_p = s;
    return BATON_OK;
}

/* Blocks go back last first, so that the end of a chain is evicted before its beginning. */
static void release_blocks(bt_scheduler *s, bt_sequence *sequence, uint32_t n)
{
    while (n-- > 0)
        bt_block_pool_put(s->pool, sequence->blocks[n]);
}

/* Out of its list for good. Blocks that a transfer may still read stay taken until it is over. */
static void retire(bt_scheduler *s, bt_sequence *sequence)
{
    bool has_blocks = sequence->state != BT_SEQ_WAITING;
    list_remove(s, sequence);
    if (sequence->transfer != NULL) {
        list_add(s, sequence, BT_SEQ_DRAINING);
        return;
    }
    if (has_blocks)
        release_blocks(s, sequence, sequence->n_blocks);
    bt_sequence_destroy(sequence);
}

static void count_finish(bt_scheduler *s, bt_finish finish, baton_status status)
{
    bt_scheduler_stats *stats = &s->stats;
    if (finish == BT_FINISH_STOP)
        stats->finished_stop_total++;
    else if (finish == BT_FINISH_LENGTH)
        stats->finished_length_total++;
    else if (status == BATON_ERR_CANCELED)
        stats->canceled_total++;
    else
        stats->finished_error_total++;
}

/* Ends a request that has not ended, with the event that was made for it in advance. */
static void end_with_error(bt_scheduler *s, bt_sequence *sequence, baton_status status,
                           const char *text)
{
    bt_gen_event *event = sequence->last_event;
    sequence->last_event = NULL;
    event->finish = BT_FINISH_ERROR;
    event->status = status;
    event->n_output = sequence->n_tokens - sequence->n_prompt;
    event->n_cached = sequence->n_cached;
    snprintf(event->error, sizeof(event->error), "%.*s", (int)sizeof(event->error) - 1, text);
    count_finish(s, BT_FINISH_ERROR, status);
    if (sequence->transfer != NULL)
        s->options.handoff->cancel(s->options.handoff->ctx, sequence->transfer);
    retire(s, sequence);
    s->options.emit(s->options.emit_ctx, event);
}

static void on_transfer_ended(void *sink, void *user_data, baton_status status, const char *text)
{
    bt_scheduler *s = sink;
    bt_sequence *sequence = user_data;
    sequence->transfer = NULL;
    if (status < 0)
        s->stats.transfers_failed_total++;
    else
        s->stats.transfers_done_total++;
    if (sequence->state == BT_SEQ_DRAINING) {
        retire(s, sequence);
    } else if (status < 0) {
        sequence->last_event->is_transfers = true;
        end_with_error(s, sequence, status, text);
    }
}

/* Chunks of the prompt that are complete with n_computed tokens. */
static uint32_t complete_chunks(const bt_scheduler *s, const bt_sequence *sequence,
                                uint32_t n_computed)
{
    uint32_t chunk_tokens = s->options.handoff->chunk_tokens;
    if (n_computed < sequence->n_prompt)
        return n_computed / chunk_tokens;
    return sequence->n_prompt / chunk_tokens + (sequence->n_prompt % chunk_tokens != 0);
}

/* The forward pass has written a layer's KV: chunks that it completes are handed over up to it. */
static void on_layer_done(void *sink, uint32_t layer)
{
    bt_scheduler *s = sink;
    const bt_handoff_ops *ops = s->options.handoff;
    for (uint32_t i = 0; i < s->n_items; i++) {
        bt_sequence *sequence = s->batch[i];
        uint32_t group = sequence->layer_group;
        bool is_last = group > 0 && layer + 1 == ops->n_layers;
        if (sequence->transfer == NULL || group == 0 || ((layer + 1) % group != 0 && !is_last))
            continue;
        uint32_t first = layer - layer % group;
        uint32_t end = complete_chunks(s, sequence, sequence->n_computed + s->items[i].n_tokens);
        for (uint32_t chunk = sequence->n_chunks_ready; chunk < end; chunk++)
            ops->layers_ready(ops->ctx, sequence->transfer, chunk, first, layer + 1 - first,
                              sequence->blocks, sequence->n_blocks);
        if (is_last && end > sequence->n_chunks_ready) {
            s->stats.chunks_layered_total += end - sequence->n_chunks_ready;
            sequence->n_chunks_layered = end;
        }
    }
}

/* Tells the prefix cache about blocks that are full now, and the hand-off about complete chunks. */
static void publish(bt_scheduler *s, bt_sequence *sequence)
{
    uint32_t block_tokens = s->options.block_tokens;
    for (; (sequence->n_known + 1) * block_tokens <= sequence->n_computed; sequence->n_known++)
        bt_prefix_cache_insert(s->cache, &sequence->link,
                               sequence->tokens + (size_t)sequence->n_known * block_tokens,
                               sequence->blocks[sequence->n_known]);
    if (sequence->transfer == NULL)
        return;
    const bt_handoff_ops *ops = s->options.handoff;
    uint32_t n_chunks = complete_chunks(s, sequence, sequence->n_prompt);
    uint32_t n_ready = complete_chunks(s, sequence, sequence->n_computed);
    bool was_finished = sequence->n_chunks_ready == n_chunks;
    for (; sequence->n_chunks_ready < n_ready; sequence->n_chunks_ready++) {
        if (sequence->n_chunks_ready >= sequence->n_chunks_layered)
            ops->chunk_ready(ops->ctx, sequence->transfer, sequence->n_chunks_ready,
                             sequence->blocks, sequence->n_blocks);
        s->stats.chunks_ready_total++;
    }
    if (!was_finished && n_ready == n_chunks)
        ops->finish(ops->ctx, sequence->transfer);
}

/* What a prefill engine has handed over. Whatever it lacks is computed here, and counted. */
static void load(bt_scheduler *s, bt_sequence *sequence)
{
    const bt_handoff_ops *ops = s->options.handoff;
    uint32_t n_loaded = 0, last = sequence->n_prompt - 1;
    baton_status status =
        ops->load(ops->ctx, sequence->tokens, sequence->n_prompt, sequence->n_computed,
                  sequence->blocks, sequence->n_blocks, &n_loaded);
    if (status < 0) {
        bt_warn("engine: the prompt's KV could not be loaded, it is computed: %s",
                baton_last_error());
        n_loaded = 0;
    }
    n_loaded = n_loaded < last ? n_loaded : last; /* the last one's logits are needed */
    s->stats.loads_total++;
    s->stats.load_misses_total += n_loaded < last && sequence->n_computed < last;
    if (n_loaded > sequence->n_computed) {
        s->stats.prompt_tokens_loaded_total += n_loaded - sequence->n_computed;
        sequence->n_computed = n_loaded;
    }
}

/* Takes every block that the sequence can ever need, those of a known prefix among them.
 * Errors: NO_PAGES. */
static baton_status take_blocks(bt_scheduler *s, bt_sequence *sequence)
{
    uint32_t n_found = bt_prefix_cache_match(s->cache, sequence->tokens, sequence->n_prompt - 1,
                                             sequence->blocks, &sequence->link);
    baton_status status =
        bt_block_pool_take(s->pool, sequence->n_blocks - n_found, sequence->blocks + n_found);
    if (status < 0) {
        release_blocks(s, sequence, n_found);
        return status;
    }
    sequence->n_known = n_found;
    sequence->n_computed = n_found * s->options.block_tokens;
    s->stats.prompt_tokens_cached_total += sequence->n_computed;
    return BATON_OK;
}

/* 0: whole chunks. */
static uint32_t layer_group(const bt_scheduler *s, uint32_t n_tokens)
{
    const bt_handoff_ops *ops = s->options.handoff;
    if (s->options.watch == NULL || ops->layer_group == NULL)
        return 0;
    uint32_t group = ops->layer_group(ops->ctx, n_tokens);
    return group < ops->n_layers ? group : 0;
}

static void start(bt_scheduler *s, bt_sequence *sequence)
{
    const bt_handoff_ops *ops = s->options.handoff;
    list_remove(s, sequence);
    list_add(s, sequence, BT_SEQ_RUNNING);
    bt_histogram_record(&s->stats.queue_ns, now_ns(s) - sequence->added_ns);
    if (ops != NULL && ops->load != NULL)
        load(s, sequence);
    sequence->n_cached = sequence->n_computed;
    if (sequence->target != NULL) {
        baton_status status =
            ops == NULL || ops->begin == NULL
                ? bt_fail(BATON_ERR_UNSUPPORTED, "hand-off: this engine does not send KV")
                : ops->begin(ops->ctx, sequence->target, sequence->tokens, sequence->n_prompt,
                             sequence, &sequence->transfer);
        if (status < 0) {
            sequence->transfer = NULL;
            end_with_error(s, sequence, status, baton_last_error());
            return;
        }
        s->stats.transfers_begun_total++;
        sequence->layer_group = layer_group(s, sequence->n_prompt);
    }
    publish(s, sequence);
}

static void admit(bt_scheduler *s)
{
    sequence_list *waiting = &s->lists[BT_SEQ_WAITING];
    while (waiting->first != NULL && s->lists[BT_SEQ_RUNNING].n < s->options.max_running &&
           take_blocks(s, waiting->first) == BATON_OK)
        start(s, waiting->first);
}

static void batch_add(bt_scheduler *s, bt_sequence *sequence, uint32_t n_tokens)
{
    s->items[s->n_items] = (bt_batch_item){
        .tokens = sequence->tokens + sequence->n_computed,
        .n_tokens = n_tokens,
        .first_position = sequence->n_computed,
        .blocks = sequence->blocks,
        .n_blocks = sequence->n_blocks,
        .want_logits = sequence->n_computed + n_tokens == sequence->n_tokens,
    };
    s->batch[s->n_items++] = sequence;
}

/* Sequences that generate go first: a long prompt slows them down, but never stops them. */
static void build_batch(bt_scheduler *s)
{
    uint32_t room = s->options.step_tokens;
    s->n_items = 0;
    for (bt_sequence *q = s->lists[BT_SEQ_RUNNING].first; q != NULL; q = q->next)
        if (q->n_tokens - q->n_computed == 1) {
            batch_add(s, q, 1);
            room--;
        }
    for (bt_sequence *q = s->lists[BT_SEQ_RUNNING].first; q != NULL && room > 0; q = q->next) {
        uint32_t n = q->n_tokens - q->n_computed;
        if (n == 1)
            continue;
        n = n < s->options.chunk_tokens ? n : s->options.chunk_tokens;
        n = n < room ? n : room;
        batch_add(s, q, n);
        room -= n;
    }
}

static void sample(bt_scheduler *s, bt_sequence *sequence, const float *logits)
{
    bt_sampled sampled;
    bt_sampling sampling = sequence->sampling;
    sampling.banned = s->banned;
    sampling.n_banned = bt_sequence_banned(sequence, &s->options.ends, s->banned);
    bt_sampler_pick(s->sampler, logits, &sampling, sequence->n_tokens, &sampled);
    bt_gen_event *event = bt_gen_event_create(sequence->user_data);
    baton_status status = event == NULL
                              ? bt_fail(BATON_ERR_NO_MEMORY, "event: %zu bytes", sizeof(*event))
                              : bt_sequence_accept(sequence, &s->options.ends, &sampled, event);
    if (status < 0) {
        bt_gen_event_destroy(event);
        end_with_error(s, sequence, status, baton_last_error());
        return;
    }
    s->stats.output_tokens_total++;
    if (event->n_output == 1)
        bt_histogram_record(&s->stats.ttft_ns, now_ns(s) - sequence->added_ns);
    if (event->finish != BT_FINISH_NONE) {
        count_finish(s, event->finish, BATON_OK);
        retire(s, sequence);
    }
    s->options.emit(s->options.emit_ctx, event);
}

static void complete_batch(bt_scheduler *s)
{
    const float *row = s->logits;
    for (uint32_t i = 0; i < s->n_items; i++) {
        const bt_batch_item *item = &s->items[i];
        bt_sequence *sequence = s->batch[i];
        uint32_t left = sequence->n_prompt > item->first_position
                            ? sequence->n_prompt - item->first_position
                            : 0;
        s->stats.prompt_tokens_computed_total += left < item->n_tokens ? left : item->n_tokens;
        s->stats.step_tokens_total += item->n_tokens;
        sequence->n_computed += item->n_tokens;
        bool has_row = item->want_logits;
        publish(s, sequence);
        if (has_row) {
            sample(s, sequence, row);
            row += s->options.n_vocab;
        }
    }
}

static void fail_batch(bt_scheduler *s, baton_status status)
{
    char text[BT_ERROR_TEXT_BYTES];
    snprintf(text, sizeof(text), "%s", baton_last_error());
    bt_error("engine: forward pass of %u sequences failed: %s", s->n_items, text);
    for (uint32_t i = 0; i < s->n_items; i++)
        end_with_error(s, s->batch[i], status, text);
}

bool bt_scheduler_step(bt_scheduler *s)
{
    const bt_handoff_ops *ops = s->options.handoff;
    if (ops != NULL && ops->progress != NULL)
        ops->progress(ops->ctx, on_transfer_ended, s);
    admit(s);
    build_batch(s);
    if (s->n_items == 0)
        return false;
    uint64_t begin_ns = now_ns(s);
    baton_status status =
        s->options.forward(s->options.forward_ctx, s->items, s->n_items, s->logits);
    bt_histogram_record(&s->stats.step_ns, now_ns(s) - begin_ns);
    s->stats.steps_total++;
    if (status < 0)
        fail_batch(s, status);
    else
        complete_batch(s);
    return true;
}

void bt_scheduler_add(bt_scheduler *s, bt_sequence *sequence)
{
    s->stats.requests_total++;
    s->stats.prompt_tokens_total += sequence->n_prompt;
    sequence->added_ns = now_ns(s);
    list_add(s, sequence, BT_SEQ_WAITING);
    if (sequence->n_blocks <= s->options.n_blocks)
        return;
    char text[BT_GEN_ERROR_BYTES];
    snprintf(text, sizeof(text),
             "request: prompt and max_tokens need %u blocks of %u tokens, the engine has %u",
             sequence->n_blocks, s->options.block_tokens, s->options.n_blocks);
    end_with_error(s, sequence, BATON_ERR_TOO_LARGE, text);
}

void bt_scheduler_cancel(bt_scheduler *s, const void *user_data)
{
    for (bt_seq_state state = BT_SEQ_WAITING; state <= BT_SEQ_RUNNING; state++)
        for (bt_sequence *q = s->lists[state].first; q != NULL; q = q->next)
            if (q->user_data == user_data) {
                end_with_error(s, q, BATON_ERR_CANCELED, "canceled");
                return;
            }
}

void bt_scheduler_cancel_all(bt_scheduler *s)
{
    for (bt_seq_state state = BT_SEQ_WAITING; state <= BT_SEQ_RUNNING; state++)
        while (s->lists[state].first != NULL)
            end_with_error(s, s->lists[state].first, BATON_ERR_CANCELED,
                           "the engine is shutting down");
}

bool bt_scheduler_is_empty(const bt_scheduler *s)
{
    return s->lists[BT_SEQ_WAITING].n + s->lists[BT_SEQ_RUNNING].n + s->lists[BT_SEQ_DRAINING].n ==
           0;
}

void bt_scheduler_get_stats(const bt_scheduler *s, bt_scheduler_stats *stats)
{
    *stats = s->stats;
    stats->n_waiting = s->lists[BT_SEQ_WAITING].n;
    stats->n_running = s->lists[BT_SEQ_RUNNING].n;
    stats->n_draining = s->lists[BT_SEQ_DRAINING].n;
    stats->blocks_total = bt_block_pool_total(s->pool);
    stats->blocks_available = bt_block_pool_available(s->pool);
    stats->blocks_idle = bt_block_pool_idle(s->pool);
}

void bt_scheduler_destroy(bt_scheduler *s)
{
    if (s == NULL)
        return;
    for (bt_seq_state state = BT_SEQ_WAITING; state <= BT_SEQ_DRAINING; state++)
        for (bt_sequence *next, *q = s->lists[state].first; q != NULL; q = next) {
            next = q->next;
            bt_sequence_destroy(q);
        }
    bt_prefix_cache_destroy(s->cache);
    bt_sampler_destroy(s->sampler);
    bt_free(s->items);
    bt_free(s->batch);
    bt_free(s->logits);
    bt_free(s->banned);
    bt_free(s);
}
