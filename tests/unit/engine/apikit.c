/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/apikit.h"

#include <sched.h>

#include "core/alloc.h"
#include "core/fail.h"

static baton_status held_forward(void *ctx, const bt_batch_item *items, uint32_t n_items,
                                 float *logits)
{
    bench *b = ctx;
    pthread_mutex_lock(&b->lock);
    while (b->held)
        pthread_cond_wait(&b->opened, &b->lock);
    pthread_mutex_unlock(&b->lock);
    return bt_fake_forward(&b->model, items, n_items, logits);
}

void api_hold(bench *b, bool held)
{
    pthread_mutex_lock(&b->lock);
    b->held = held;
    pthread_cond_broadcast(&b->opened);
    pthread_mutex_unlock(&b->lock);
}

static baton_status fake_begin(void *ctx, const bt_handoff_target *target, const uint32_t *tokens,
                               uint32_t n_tokens, void *user_data, void **transfer_p)
{
    (void)tokens;
    bench *b = ctx;
    pthread_mutex_lock(&b->lock);
    baton_status fails = b->fails;
    pthread_mutex_unlock(&b->lock);
    if (fails < 0)
        return bt_fail(fails, "fake hand-off: no");
    b->target = *target;
    b->n_tokens = n_tokens;
    b->transfer_user = user_data;
    *transfer_p = b;
    return BATON_OK;
}

static void fake_chunk_ready(void *ctx, void *transfer, uint32_t chunk, const uint32_t *blocks,
                             uint32_t n_blocks)
{
    (void)transfer, (void)chunk, (void)blocks, (void)n_blocks;
    ((bench *)ctx)->n_chunks++;
}

static void fake_finish(void *ctx, void *transfer)
{
    (void)transfer;
    ((bench *)ctx)->finished = true;
}

static void fake_cancel(void *ctx, void *transfer)
{
    (void)transfer;
    ((bench *)ctx)->finished = true;
}

static void fake_progress(void *ctx, bt_handoff_ended_fn ended, void *sink)
{
    bench *b = ctx;
    if (!b->finished || b->told)
        return;
    b->told = true;
    ended(sink, b->transfer_user, BATON_OK, "");
}

void *api_run_loop(void *arg)
{
    bt_loop_run(((bench *)arg)->loop);
    return NULL;
}

const char *const api_names[2] = {"fake", "alias"};
static const uint32_t eos_ids[] = {BT_BYTES_EOS};

static bt_api_options make_options(bench *b, uint32_t max_running, uint32_t max_queued)
{
    return (bt_api_options){
        .loop = b->loop,
        .role = "both",
        .limits = {.tokenizer = b->tokenizer,
                   .chat_template = BT_CHAT_CHATML,
                   .model_names = api_names,
                   .n_model_names = 2,
                   .n_vocab = FAKE_VOCAB,
                   .max_len = MAX_LEN,
                   .sends_kv = b->ops.begin != NULL},
        .engine = {.scheduler = {.forward = held_forward,
                                 .forward_ctx = b,
                                 .n_vocab = FAKE_VOCAB,
                                 .n_blocks = N_BLOCKS,
                                 .block_tokens = FAKE_BLOCK_TOKENS,
                                 .max_running = max_running,
                                 .step_tokens = 64,
                                 .chunk_tokens = 32,
                                 .ends = {b->tokenizer, eos_ids, 1},
                                 .handoff = b->ops.begin != NULL ? &b->ops : NULL},
                   .max_queued = max_queued},
    };
}

bench *api_open(bool sends, uint32_t max_running, uint32_t max_queued)
{
    bench *b = bt_calloc(1, sizeof(*b));
    pthread_mutex_init(&b->lock, NULL);
    pthread_cond_init(&b->opened, NULL);
    bt_fake_model_open(&b->model, N_BLOCKS);
    assert_ok(bt_tokenizer_create_bytes(&b->tokenizer));
    assert_ok(bt_loop_create(&b->loop));
    if (sends)
        b->ops = (bt_handoff_ops){.ctx = b,
                                  .chunk_tokens = 8,
                                  .begin = fake_begin,
                                  .chunk_ready = fake_chunk_ready,
                                  .finish = fake_finish,
                                  .cancel = fake_cancel,
                                  .progress = fake_progress};
    bt_api_options options = make_options(b, max_running, max_queued);
    assert_ok(bt_api_create(&options, &b->api));
    b->port = bt_api_port(b->api);
    assert_int_equal(pthread_create(&b->thread, NULL, api_run_loop, b), 0);
    return b;
}

void api_close(bench *b)
{
    api_hold(b, false);
    bt_loop_stop(b->loop);
    pthread_join(b->thread, NULL);
    bt_api_stop(b->api, 0);
    bt_scheduler_stats stats;
    bt_api_engine_stats(b->api, &stats);
    assert_int_equal(stats.blocks_available, stats.blocks_total);
    bt_api_destroy(b->api);
    bt_loop_destroy(b->loop);
    bt_tokenizer_destroy(b->tokenizer);
    bt_fake_model_close(&b->model);
    pthread_cond_destroy(&b->opened);
    pthread_mutex_destroy(&b->lock);
    bt_free(b);
}

void api_wait_for(bench *b, size_t offset, uint64_t wanted, bool is_u64)
{
    for (;;) {
        bt_scheduler_stats stats;
        bt_api_engine_stats(b->api, &stats);
        const char *at = (const char *)&stats + offset;
        uint64_t value =
            is_u64 ? *(const uint64_t *)(const void *)at : *(const uint32_t *)(const void *)at;
        if (value == wanted)
            return;
        sched_yield();
    }
}
json_t *api_call(bench *b, const char *path, const char *body, unsigned status)
{
    bt_http_answer answer;
    bt_http_call(b->port, body != NULL ? "POST" : "GET", path, body, &answer);
    if (answer.status != status || !answer.complete)
        fail_msg("%s %s: status %u, wanted %u: %s", path, body, answer.status, status,
                 bt_strbuf_text(&answer.body));
    json_t *root = json_loads(bt_strbuf_text(&answer.body), JSON_ALLOW_NUL, NULL);
    assert_non_null(root);
    bt_http_answer_clear(&answer);
    return root;
}

json_t *first_choice(const json_t *root)
{
    return json_array_get(json_object_get(root, "choices"), 0);
}

const char *text_of(const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    return text != NULL ? text : "(none)";
}
