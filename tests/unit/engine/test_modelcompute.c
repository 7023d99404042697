/* SPDX-License-Identifier: Apache-2.0 */
/* What a forward pass refuses, before it has written anything. */
#include "modelrun.h"

enum { N_BLOCKS = 4 };

static bt_model *model;
static model_run run;
static uint32_t tokens[64];
static float *logits;

static int set_up(void **state)
{
    (void)state;
    bt_model_config config;
    bt_model_config_small(&config);
    config.n_layers = 1;
    config.max_positions = 60;
    assert_ok(bt_model_create_random(&config, 1, &model));
    bt_kv_options kv = {.n_blocks = N_BLOCKS};
    bt_compute_options options = {.max_batch_tokens = 20, .max_batch_items = 2};
    run = start_run(model, &kv, &options);
    logits = bt_calloc(2 * (size_t)config.vocab_size, sizeof(*logits));
    return logits == NULL;
}

static int tear_down(void **state)
{
    (void)state;
    end_run(&run);
    bt_model_destroy(model);
    bt_free(logits);
    return 0;
}

static void assert_refused(const bt_batch_item *items, uint32_t n_items, float *to,
                           baton_status status, const char *text)
{
    memset(run.cache->memory, 0x55, run.cache->memory_bytes);
    assert_fails(bt_compute_forward(run.compute, run.cache, items, n_items, to), status, text);
    for (size_t i = 0; i < run.cache->memory_bytes; i++)
        assert_int_equal(run.cache->memory[i], 0x55);
}

static void items_that_cannot_be_computed_are_refused(void **state)
{
    (void)state;
    bt_batch_item good = run_item(&run, tokens, 0, 4), bad = good;
    bad.n_tokens = 0;
    assert_refused(&bad, 1, logits, BATON_ERR_INVALID_ARG, "without tokens");
    bad = good;
    bad.first_position = 57;
    assert_refused(&bad, 1, logits, BATON_ERR_OUT_OF_RANGE, "positions 57 + 4, the model has 60");
    bad.first_position = UINT32_MAX;
    assert_refused(&bad, 1, logits, BATON_ERR_OUT_OF_RANGE, "positions");
    bad = good;
    bad.n_tokens = 17;
    bad.n_blocks = 1;
    assert_refused(&bad, 1, logits, BATON_ERR_OUT_OF_RANGE, "wanted 2 blocks for 17 tokens");
    bt_batch_item two[] = {good, good};
    uint32_t block = N_BLOCKS;
    two[1].blocks = &block;
    assert_refused(two, 2, logits, BATON_ERR_OUT_OF_RANGE, "block 4, the cache has 4");
    uint32_t token = 260;
    two[1] = good;
    two[1].tokens = &token;
    two[1].n_tokens = 1;
    assert_refused(two, 2, logits, BATON_ERR_OUT_OF_RANGE, "token 260, the vocabulary has 260");
    assert_refused(&good, 1, NULL, BATON_ERR_INVALID_ARG, "logits");
}

static void batches_too_large_are_refused(void **state)
{
    (void)state;
    bt_batch_item item = run_item(&run, tokens, 0, 21);
    assert_refused(&item, 1, logits, BATON_ERR_TOO_LARGE, "1 items with 21 tokens");
    bt_batch_item three[3];
    for (int i = 0; i < 3; i++)
        three[i] = run_item(&run, tokens, 0, 1);
    assert_refused(three, 3, logits, BATON_ERR_TOO_LARGE, "at most 2 with 20 fit");
}

static void a_cache_of_another_shape_is_refused(void **state)
{
    (void)state;
    bt_model_config other = *bt_model_get_config(model);
    bt_kv_cache *cache;
    other.n_layers = 2;
    assert_ok(bt_kv_cache_create(&other, &(bt_kv_options){.n_blocks = 1}, &cache));
    bt_batch_item item = run_item(&run, tokens, 0, 1);
    assert_fails(bt_compute_forward(run.compute, cache, &item, 1, logits), BATON_ERR_INVALID_ARG,
                 "the cache has 2 layers");
    bt_kv_cache_destroy(cache);
}

static void an_empty_batch_is_done_at_once(void **state)
{
    (void)state;
    assert_ok(bt_compute_forward(run.compute, run.cache, NULL, 0, NULL));
}

/* Rows of logits belong to the items that want them, in their order. */
static void logits_come_only_for_items_that_want_them(void **state)
{
    (void)state;
    size_t vocab = bt_model_get_config(model)->vocab_size;
    float *alone = bt_calloc(vocab, sizeof(*alone));
    assert_non_null(alone);
    bt_batch_item items[] = {run_item(&run, tokens, 0, 3), run_item(&run, tokens, 0, 5)};
    items[1].blocks = run.blocks + 1;
    items[1].n_blocks = 1;
    assert_ok(bt_compute_forward(run.compute, run.cache, &items[1], 1, alone));
    items[0].want_logits = false;
    logits[vocab] = 77;
    assert_ok(bt_compute_forward(run.compute, run.cache, items, 2, logits));
    assert_memory_equal(logits, alone, vocab * sizeof(*alone));
    assert_true(logits[vocab] == 77);
    bt_free(alone);
}

static void impossible_options_are_refused(void **state)
{
    (void)state;
    bt_compute *compute;
    bt_compute_options many = {.max_batch_tokens = UINT32_MAX};
    assert_fails(bt_compute_create(model, &many, &compute), BATON_ERR_INVALID_ARG, "4294967295");
    bt_compute_options unknown = {.simd = "mmx"};
    assert_fails(bt_compute_create(model, &unknown, &compute), BATON_ERR_INVALID_ARG, "mmx");
}

static void failed_allocations_leave_nothing_behind(void **state)
{
    (void)state;
    for (uint64_t nth = 1;; nth++) {
        bt_compute *compute;
        bt_alloc_fail_at(nth);
        baton_status status =
            bt_compute_create(model, &(bt_compute_options){.n_threads = 2}, &compute);
        bool reached = bt_alloc_count() >= nth;
        bt_alloc_fail_at(0);
        if (!reached) {
            assert_ok(status);
            bt_compute_destroy(compute);
            assert_true(nth > 20);
            return;
        }
        assert_fails(status, BATON_ERR_NO_MEMORY, NULL);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(items_that_cannot_be_computed_are_refused), bt_test(batches_too_large_are_refused),
        bt_test(a_cache_of_another_shape_is_refused),       bt_test(an_empty_batch_is_done_at_once),
        bt_test(logits_come_only_for_items_that_want_them), bt_test(impossible_options_are_refused),
        bt_test(failed_allocations_leave_nothing_behind),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
