/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>

#include "core/alloc.h"
#include "engine/enginethread.h"
#include "engine/fakemodel.h"

typedef struct {
    bt_fake_model model;
    bt_tokenizer *tokenizer;
    bt_engine_thread *engine;
    pthread_mutex_t lock;
    pthread_cond_t opened;
    bool held;
    atomic_uint n_wakes;
    atomic_bool deaf; /* wake fails */
} bench;

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

static void hold(bench *b, bool held)
{
    pthread_mutex_lock(&b->lock);
    b->held = held;
    pthread_cond_broadcast(&b->opened);
    pthread_mutex_unlock(&b->lock);
}

static bool wake(void *ctx)
{
    bench *b = ctx;
    if (atomic_load(&b->deaf))
        return false;
    atomic_fetch_add(&b->n_wakes, 1);
    return true;
}

static bench *open_bench(uint32_t max_queued)
{
    bench *b = bt_calloc(1, sizeof(*b));
    pthread_mutex_init(&b->lock, NULL);
    pthread_cond_init(&b->opened, NULL);
    bt_fake_model_open(&b->model, 1000);
    assert_ok(bt_tokenizer_create_bytes(&b->tokenizer));
    bt_engine_thread_options options = {
        .scheduler = {.forward = held_forward,
                      .forward_ctx = b,
                      .n_vocab = FAKE_VOCAB,
                      .n_blocks = 1000,
                      .block_tokens = FAKE_BLOCK_TOKENS,
                      .max_running = 4,
                      .step_tokens = 32,
                      .chunk_tokens = 16,
                      .ends = {.tokenizer = b->tokenizer}},
        .max_queued = max_queued,
        .wake = wake,
        .wake_ctx = b,
    };
    assert_ok(bt_engine_thread_create(&options, &b->engine));
    return b;
}

static void close_bench(bench *b)
{
    hold(b, false);
    bt_engine_thread_destroy(b->engine);
    bt_tokenizer_destroy(b->tokenizer);
    bt_fake_model_close(&b->model);
    pthread_cond_destroy(&b->opened);
    pthread_mutex_destroy(&b->lock);
    bt_free(b);
}

static const uint32_t prompt[] = {1, 2, 3};

static baton_status submit(bench *b, uint32_t max_tokens, void *user_data)
{
    bt_generate request = {.prompt = prompt,
                           .n_prompt = 3,
                           .max_tokens = max_tokens,
                           .sampling = {.top_p = 1},
                           .user_data = user_data};
    return bt_engine_thread_submit(b->engine, &request);
}

/* Takes events until n requests have ended; the number of tokens, and the last status. */
static uint32_t take_until(bench *b, uint32_t n, baton_status *status)
{
    uint32_t n_tokens = 0;
    while (n > 0) {
        bt_gen_event *event = bt_engine_thread_take(b->engine);
        if (event == NULL)
            sched_yield();
        while (event != NULL) {
            bt_gen_event *next = event->next;
            n_tokens += event->has_token;
            if (event->finish != BT_FINISH_NONE) {
                *status = event->status;
                n--;
            }
            bt_gen_event_destroy(event);
            event = next;
        }
    }
    return n_tokens;
}

static void requests_from_another_thread_are_answered(void **state)
{
    (void)state;
    bench *b = open_bench(0);
    baton_status status;
    int users[5];
    for (int i = 0; i < 5; i++)
        assert_ok(submit(b, 10, &users[i]));
    assert_int_equal(take_until(b, 5, &status), 50);
    assert_int_equal(status, BATON_OK);
    assert_true(atomic_load(&b->n_wakes) >= 1);
    close_bench(b);
}

static void a_wake_that_fails_is_tried_again(void **state)
{
    (void)state;
    bench *b = open_bench(0);
    atomic_store(&b->deaf, true);
    assert_ok(submit(b, 3, b));
    bt_scheduler_stats stats;
    do
        bt_engine_thread_stats(b->engine, &stats);
    while (stats.finished_length_total == 0);
    atomic_store(&b->deaf, false);
    while (atomic_load(&b->n_wakes) == 0) /* the hang guard is ctest's */
        sched_yield();
    baton_status status;
    assert_int_equal(take_until(b, 1, &status), 3);
    close_bench(b);
}

static void a_full_queue_refuses(void **state)
{
    (void)state;
    bench *b = open_bench(2);
    hold(b, true);
    int users[4];
    assert_ok(submit(b, 3, &users[0]));
    bt_scheduler_stats stats;
    do
        bt_engine_thread_stats(b->engine, &stats);
    while (stats.n_waiting != 1);
    assert_ok(submit(b, 3, &users[1])); /* the first, in the held step, still counts as waiting */
    assert_fails(submit(b, 3, &users[2]), BATON_ERR_OVERLOADED, "2 requests are waiting");
    hold(b, false);
    baton_status status;
    take_until(b, 2, &status);
    close_bench(b);
}

static void *stop_engine(void *arg)
{
    bt_engine_thread_stop(((bench *)arg)->engine, 0);
    return NULL;
}

static void stop_ends_what_runs_and_refuses_what_comes(void **state)
{
    (void)state;
    bench *b = open_bench(0);
    hold(b, true);
    int users[2];
    assert_ok(submit(b, 100, &users[0]));
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, stop_engine, b), 0);
    uint32_t n_accepted = 1;
    for (baton_status status = BATON_OK; status != BATON_ERR_CLOSED;) {
        status = submit(b, 1, &users[1]);
        n_accepted += status == BATON_OK;
        sched_yield();
    }
    assert_fails(submit(b, 1, &users[1]), BATON_ERR_CLOSED, "shutting down");
    hold(b, false);
    pthread_join(thread, NULL);
    baton_status status = BATON_OK;
    take_until(b, n_accepted, &status);
    assert_int_equal(status, BATON_ERR_CANCELED);
    close_bench(b);
}

static void a_cancelled_request_ends_once(void **state)
{
    (void)state;
    bench *b = open_bench(0);
    hold(b, true);
    assert_ok(submit(b, 1000, b));
    assert_ok(bt_engine_thread_cancel(b->engine, b));
    assert_ok(bt_engine_thread_cancel(b->engine, b));
    hold(b, false);
    baton_status status;
    take_until(b, 1, &status);
    assert_int_equal(status, BATON_ERR_CANCELED);
    close_bench(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(requests_from_another_thread_are_answered),
        bt_test(a_wake_that_fails_is_tried_again),
        bt_test(a_full_queue_refuses),
        bt_test(stop_ends_what_runs_and_refuses_what_comes),
        bt_test(a_cancelled_request_ends_once),
    };
    return bt_run_tests(tests);
}
