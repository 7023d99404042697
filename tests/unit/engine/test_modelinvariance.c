/* SPDX-License-Identifier: Apache-2.0 */
/* A token's KV bits and logits depend on its prefix alone. Everything here compares bytes. */
#include "modelrun.h"

enum { N_TOKENS = 300, N_BLOCKS = 20, BLOCK_TOKENS = 16 };

static uint32_t tokens[N_TOKENS];
static bt_model *model;

/* Not a multiple of a panel anywhere, three query heads to a KV head, a tied odd vocabulary. */
static int make_model(void **state)
{
    (void)state;
    bt_model_config config;
    bt_model_config_small(&config);
    config.n_layers = 2;
    config.hidden_size = 72;
    config.ffn_size = 100;
    config.n_heads = 6;
    config.n_kv_heads = 2;
    config.head_dim = 20;
    config.vocab_size = 301;
    bt_rng rng = {.state = 7};
    for (uint32_t i = 0; i < N_TOKENS; i++)
        tokens[i] = (uint32_t)bt_rng_below(&rng, config.vocab_size);
    return bt_model_create_random(&config, 42, &model) == BATON_OK ? 0 : -1;
}

static int drop_model(void **state)
{
    (void)state;
    bt_model_destroy(model);
    return 0;
}

typedef struct {
    uint8_t *kv;
    size_t kv_bytes;
    float *logits; /* [vocab], of the last token */
} result;

static const bt_kv_options paged = {.n_blocks = N_BLOCKS, .block_tokens = BLOCK_TOKENS};

static float *new_logits(uint32_t n_rows)
{
    float *logits = bt_calloc(n_rows * (size_t)bt_model_get_config(model)->vocab_size, 4);
    assert_non_null(logits);
    return logits;
}

static result take(model_run *run, float *logits)
{
    result r = {.logits = logits};
    r.kv = run_kv(run, N_TOKENS, &r.kv_bytes);
    return r;
}

static void drop(result *r)
{
    bt_free(r->kv);
    bt_free(r->logits);
}

/* All tokens in chunks, by these options. */
static result compute(const bt_compute_options *options, const bt_kv_options *kv, uint32_t chunk)
{
    model_run run = start_run(model, kv, options);
    float *logits = new_logits(1);
    run_chunks(&run, tokens, 0, N_TOKENS, chunk, logits);
    result r = take(&run, logits);
    end_run(&run);
    return r;
}

/* What everything else is compared with: one thread, all tokens at once, blocks in order. */
static result reference(void)
{
    return compute(&(bt_compute_options){.max_batch_tokens = N_TOKENS}, &paged, N_TOKENS);
}

static void assert_same(const result *a, const result *b)
{
    assert_int_equal(a->kv_bytes, b->kv_bytes);
    assert_memory_equal(a->kv, b->kv, a->kv_bytes);
    assert_memory_equal(a->logits, b->logits, bt_model_get_config(model)->vocab_size * 4);
}

static void chunk_size_does_not_show(void **state)
{
    (void)state;
    static const uint32_t chunks[] = {1, 2, 5, 13, 16, 31, 32, 48, 63, 64, 65, 100, 256, 299};
    result wanted = reference();
    for (size_t i = 0; i < sizeof(chunks) / sizeof(chunks[0]); i++) {
        result r = compute(&(bt_compute_options){.max_batch_tokens = N_TOKENS}, &paged, chunks[i]);
        assert_same(&r, &wanted);
        drop(&r);
    }
    drop(&wanted);
}

static void number_of_threads_does_not_show(void **state)
{
    (void)state;
    result wanted = reference();
    for (uint32_t n = 2; n <= 7; n++) {
        bt_compute_options options = {.n_threads = n, .max_batch_tokens = N_TOKENS};
        result r = compute(&options, &paged, 97);
        assert_same(&r, &wanted);
        drop(&r);
    }
    drop(&wanted);
}

static void simd_level_does_not_show(void **state)
{
    (void)state;
    static const char *const levels[] = {"generic", "avx2", "avx512"};
    result wanted = reference();
    unsigned compared = 0;
    for (size_t i = 0; i < 3; i++) {
        bt_compute_options options = {.max_batch_tokens = N_TOKENS, .simd = levels[i]};
        bt_compute *probe;
        if (bt_compute_create(model, &options, &probe) == BATON_ERR_UNSUPPORTED) {
            print_message("this CPU has no %s\n", levels[i]);
            continue;
        }
        bt_compute_destroy(probe);
        result r = compute(&options, &paged, 60);
        assert_same(&r, &wanted);
        drop(&r);
        compared++;
    }
    assert_true(compared >= 1);
    drop(&wanted);
}

static void block_table_does_not_show(void **state)
{
    (void)state;
    result wanted = reference();
    for (unsigned order = 0; order < 2; order++) { /* descending, shuffled */
        bt_kv_options kv = {.n_blocks = 2 * N_BLOCKS, .block_tokens = BLOCK_TOKENS};
        bt_compute_options options = {.max_batch_tokens = 64};
        model_run run = start_run(model, &kv, &options);
        memset(run.cache->memory, 0xff, run.cache->memory_bytes); /* NaNs in what is not ours */
        bt_rng rng = {.state = 3};
        for (uint32_t i = kv.n_blocks; i-- > 1;) {
            uint32_t j = order == 0 ? kv.n_blocks - 1 - i : (uint32_t)bt_rng_below(&rng, i + 1);
            uint32_t swapped = run.blocks[i];
            if (order == 0 && j >= i)
                break;
            run.blocks[i] = run.blocks[j];
            run.blocks[j] = swapped;
        }
        float *logits = new_logits(1);
        run_chunks(&run, tokens, 0, N_TOKENS, 50, logits);
        result r = take(&run, logits);
        assert_same(&r, &wanted);
        drop(&r);
        end_run(&run);
    }
    drop(&wanted);
}

static void block_size_does_not_show(void **state)
{
    (void)state;
    static const uint32_t sizes[] = {1, 3, 64, 300};
    result wanted = reference();
    for (size_t i = 0; i < 4; i++) {
        bt_kv_options kv = {.n_blocks = (N_TOKENS + sizes[i] - 1) / sizes[i],
                            .block_tokens = sizes[i]};
        result r = compute(&(bt_compute_options){.max_batch_tokens = 64}, &kv, 64);
        assert_same(&r, &wanted);
        drop(&r);
    }
    drop(&wanted);
}

/* Three sequences of other lengths and positions in one call with ours, on either side of it. */
static void company_in_the_batch_does_not_show(void **state)
{
    (void)state;
    enum { OTHERS = 3 };
    result wanted = reference();
    bt_kv_options kv = {.n_blocks = (OTHERS + 1) * N_BLOCKS, .block_tokens = BLOCK_TOKENS};
    bt_compute_options options = {.n_threads = 3, .max_batch_tokens = 256};
    model_run run = start_run(model, &kv, &options);
    uint32_t other[N_TOKENS], at = 0, vocab = bt_model_get_config(model)->vocab_size;
    for (uint32_t i = 0; i < N_TOKENS; i++)
        other[i] = (tokens[i] * 7 + 1) % vocab;
    float *logits = new_logits(OTHERS + 1), *last = new_logits(1);
    for (uint32_t step = 0; at < N_TOKENS; step++) {
        uint32_t n = step % 3 == 0 ? 1 : 40;
        n = N_TOKENS - at < n ? N_TOKENS - at : n;
        bt_batch_item items[OTHERS + 1];
        uint32_t ours = step % (OTHERS + 1);
        for (uint32_t i = 0; i <= OTHERS; i++) {
            items[i] = run_item(&run, i == ours ? tokens : other, at, n);
            uint32_t place = i == ours ? 0 : i < ours ? i + 1 : i;
            items[i].blocks = run.blocks + (size_t)place * N_BLOCKS;
            items[i].n_blocks = N_BLOCKS;
            items[i].want_logits = i >= ours; /* so ours is the first row */
        }
        assert_ok(bt_compute_forward(run.compute, run.cache, items, OTHERS + 1, logits));
        memcpy(last, logits, vocab * sizeof(float));
        at += n;
    }
    result r = take(&run, last);
    assert_same(&r, &wanted);
    drop(&r);
    bt_free(logits);
    end_run(&run);
    drop(&wanted);
}

/* KV of a prefix computed elsewhere, copied byte by byte, and continued here by other means. */
static void moved_kv_continues_as_if_computed_here(void **state)
{
    (void)state;
    enum { MOVED = 16 * BLOCK_TOKENS };
    result wanted = reference();
    bt_compute_options options = {.max_batch_tokens = 64};
    model_run from = start_run(model, &paged, &options), to = start_run(model, &paged, &options);
    float *logits = new_logits(1);
    run_chunks(&from, tokens, 0, MOVED, 64, logits);
    for (uint32_t i = 0; i < N_BLOCKS; i++)
        to.blocks[i] = N_BLOCKS - 1 - i;
    size_t block_bytes = BLOCK_TOKENS * bt_kv_cache_token_bytes(from.cache);
    for (uint32_t plane = 0; plane < 2 * from.cache->n_layers; plane++)
        for (uint32_t i = 0; i < MOVED / BLOCK_TOKENS; i++)
            memcpy(bt_kv_cache_plane(to.cache, plane / 2, plane % 2) + to.blocks[i] * block_bytes,
                   bt_kv_cache_plane(from.cache, plane / 2, plane % 2) +
                       from.blocks[i] * block_bytes,
                   block_bytes);
    run_chunks(&to, tokens, MOVED, N_TOKENS, 1, logits);
    result r = take(&to, logits);
    assert_same(&r, &wanted);
    drop(&r);
    end_run(&from);
    end_run(&to);
    drop(&wanted);
}

/* The tests above would pass if KV did not matter: it does. */
static void another_prefix_gives_other_logits(void **state)
{
    (void)state;
    result wanted = reference();
    uint32_t kept = tokens[3];
    tokens[3] = (kept + 1) % bt_model_get_config(model)->vocab_size;
    result r = reference();
    tokens[3] = kept;
    assert_memory_not_equal(r.logits, wanted.logits, bt_model_get_config(model)->vocab_size * 4);
    drop(&r);
    drop(&wanted);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(chunk_size_does_not_show),
        bt_test(number_of_threads_does_not_show),
        bt_test(simd_level_does_not_show),
        bt_test(block_table_does_not_show),
        bt_test(block_size_does_not_show),
        bt_test(company_in_the_batch_does_not_show),
        bt_test(moved_kv_continues_as_if_computed_here),
        bt_test(another_prefix_gives_other_logits),
    };
    return cmocka_run_group_tests(tests, make_model, drop_model);
}
