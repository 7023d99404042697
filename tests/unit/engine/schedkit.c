/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/schedkit.h"

#include "core/alloc.h"
#include "core/fail.h"

static void emit(void *ctx, bt_gen_event *event)
{
    (void)ctx;
    answer *a = event->user_data;
    assert_int_equal(a->n_finished, 0);
    if (event->has_token) {
        assert_true(a->n_output < MAX_OUTPUT);
        a->output[a->n_output++] = event->token.id;
        bt_strbuf_append(&a->text, bt_strbuf_text(&event->text), event->text.length);
    }
    assert_int_equal(event->n_output, a->n_output);
    a->n_cached = event->n_cached;
    if (event->finish != BT_FINISH_NONE) {
        a->finish = event->finish;
        a->status = event->status;
        memcpy(a->error, event->error, sizeof(a->error));
        a->n_finished++;
    }
    bt_gen_event_destroy(event);
}

static baton_status fake_begin(void *ctx, const bt_handoff_target *target, const uint32_t *tokens,
                               uint32_t n_tokens, void *user_data, void **transfer_p)
{
    bench *b = ctx;
    assert_string_equal(target->request, "req-1");
    if (b->begin_fails < 0)
        return bt_fail(b->begin_fails, "fake hand-off: no");
    fake_transfer *t = &b->transfers[b->n_transfers++];
    t->user_data = user_data;
    t->n_tokens = n_tokens;
    t->live = true;
    memcpy(t->tokens, tokens, n_tokens * sizeof(*tokens));
    *transfer_p = t;
    return BATON_OK;
}

static void fake_layers_ready(void *ctx, void *transfer, uint32_t chunk, uint32_t first_layer,
                              uint32_t n_layers, const uint32_t *blocks, uint32_t n_blocks)
{
    bench *b = ctx;
    fake_transfer *t = transfer;
    uint32_t end = first_layer + n_layers;
    b->n_groups++;
    assert_true(n_layers <= b->layer_group);
    assert_true(chunk >= t->n_ready && end <= FAKE_LAYERS);
    assert_int_equal(first_layer, t->n_layers[chunk]);
    t->n_layers[chunk] = end;
    memcpy(t->chunks[chunk], blocks, n_blocks * sizeof(*blocks));
    if (end < FAKE_LAYERS)
        return;
    assert_int_equal(chunk, t->n_ready);
    t->n_ready++;
}

static void fake_chunk_ready(void *ctx, void *transfer, uint32_t chunk, const uint32_t *blocks,
                             uint32_t n_blocks)
{
    bench *b = ctx;
    fake_transfer *t = transfer;
    b->n_whole++;
    assert_int_equal(chunk, t->n_ready);
    memcpy(t->chunks[chunk], blocks, n_blocks * sizeof(*blocks));
    t->n_ready++;
}

static uint32_t fake_layer_group(void *ctx, uint32_t n_tokens)
{
    const bench *b = ctx;
    (void)n_tokens;
    return b->layer_group != 0 ? b->layer_group : FAKE_LAYERS;
}

static void fake_finish(void *ctx, void *transfer)
{
    (void)ctx;
    fake_transfer *t = transfer;
    assert_false(t->finished);
    assert_int_equal(t->n_ready, (t->n_tokens + CHUNK - 1) / CHUNK);
    t->finished = true;
}

static void fake_cancel(void *ctx, void *transfer)
{
    (void)ctx;
    ((fake_transfer *)transfer)->canceled = true;
}

static void fake_progress(void *ctx, bt_handoff_ended_fn ended, void *sink)
{
    bench *b = ctx;
    for (uint32_t i = 0; i < b->n_transfers; i++) {
        fake_transfer *t = &b->transfers[i];
        bool over = b->may_read && (t->finished || t->canceled);
        if (!t->live || (!over && t->fail == 0))
            continue;
        t->live = false;
        if (t->fail < 0 || t->canceled) {
            ended(sink, t->user_data, t->canceled ? BATON_ERR_CANCELED : t->fail, "fake failure");
            continue;
        }
        for (uint32_t p = 0; p < t->n_tokens; p++)
            b->landed[p] = *bt_fake_kv(&b->model, t->chunks[p / CHUNK], p);
        memcpy(b->landed_tokens, t->tokens, sizeof(b->landed_tokens));
        b->n_landed = t->n_tokens;
        ended(sink, t->user_data, BATON_OK, "");
    }
}

static baton_status fake_load(void *ctx, const uint32_t *tokens, uint32_t n_tokens, uint32_t first,
                              const uint32_t *blocks, uint32_t n_blocks, uint32_t *n_loaded)
{
    bench *b = ctx;
    uint32_t n = 0;
    while (n < n_tokens && n < b->n_landed && tokens[n] == b->landed_tokens[n])
        n++;
    assert_true(n <= n_blocks * FAKE_BLOCK_TOKENS);
    for (uint32_t p = first; p < n; p++)
        *bt_fake_kv(&b->model, blocks, p) = b->landed[p];
    *n_loaded = n > first ? n : first;
    return BATON_OK;
}

void sched_start(bench *b, uint32_t n_blocks, uint32_t chunk_tokens)
{
    bt_scheduler_options options = {
        .forward = bt_fake_forward,
        .forward_ctx = &b->model,
        .watch = bt_fake_watch,
        .n_vocab = FAKE_VOCAB,
        .n_blocks = n_blocks,
        .block_tokens = FAKE_BLOCK_TOKENS,
        .max_running = 8,
        .step_tokens = 32,
        .chunk_tokens = chunk_tokens,
        .ends = {.tokenizer = b->tokenizer},
        .handoff = b->ops.ctx != NULL ? &b->ops : NULL,
        .emit = emit,
    };
    b->options = options;
    bt_fake_model_open(&b->model, n_blocks);
    assert_ok(bt_scheduler_create(&options, &b->scheduler));
}

bench *sched_open(uint32_t n_blocks, bool prefill, bool decode)
{
    bench *b = bt_calloc(1, sizeof(*b));
    assert_ok(bt_tokenizer_create_bytes(&b->tokenizer));
    b->may_read = true;
    if (prefill || decode)
        b->ops = (bt_handoff_ops){.ctx = b, .chunk_tokens = CHUNK, .progress = fake_progress};
    if (prefill) {
        b->ops.begin = fake_begin;
        b->ops.chunk_ready = fake_chunk_ready;
        b->ops.layer_group = fake_layer_group;
        b->ops.n_layers = FAKE_LAYERS;
        b->ops.layers_ready = fake_layers_ready;
        b->ops.finish = fake_finish;
        b->ops.cancel = fake_cancel;
    }
    if (decode)
        b->ops.load = fake_load;
    sched_start(b, n_blocks, 16);
    return b;
}

void sched_close(bench *b)
{
    bt_scheduler_stats stats;
    bt_scheduler_get_stats(b->scheduler, &stats);
    if (bt_scheduler_is_empty(b->scheduler))
        assert_int_equal(stats.blocks_available, stats.blocks_total);
    bt_scheduler_destroy(b->scheduler);
    bt_fake_model_close(&b->model);
    bt_tokenizer_destroy(b->tokenizer);
    bt_free(b);
}

void make_prompt(answer *a, uint64_t seed, uint32_t n)
{
    bt_rng rng = {seed};
    *a = (answer){.n_prompt = n};
    for (uint32_t i = 0; i < n; i++)
        a->prompt[i] = (uint32_t)bt_rng_below(&rng, 250);
}

bt_generate request_of(answer *a, uint32_t max_tokens)
{
    return (bt_generate){
        .prompt = a->prompt,
        .n_prompt = a->n_prompt,
        .max_tokens = max_tokens,
        .sampling = {.top_p = 1},
        .user_data = a,
    };
}

void sched_add(bench *b, const bt_generate *request)
{
    bt_sequence *sequence;
    assert_ok(bt_sequence_create(request, FAKE_BLOCK_TOKENS, b->tokenizer, &sequence));
    bt_scheduler_add(b->scheduler, sequence);
}

void sched_run(bench *b)
{
    while (bt_scheduler_step(b->scheduler)) {
    }
}

void check_answer(const answer *a, uint32_t n_output, bt_finish finish)
{
    uint32_t wanted[MAX_OUTPUT];
    assert_int_equal(a->n_finished, 1);
    assert_int_equal(a->finish, finish);
    assert_int_equal(a->n_output, n_output);
    bt_fake_continue(a->prompt, a->n_prompt, n_output, wanted);
    assert_memory_equal(a->output, wanted, n_output * sizeof(*wanted));
}

void clear_answer(answer *a)
{
    bt_strbuf_free(&a->text);
}
