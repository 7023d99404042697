/* SPDX-License-Identifier: Apache-2.0 */
/* Attention over paged KV against a plain softmax in double precision, and what it must not read.
 */
#include "support/test.h"

#include <math.h>

#include "core/alloc.h"
#include "engine/attention.h"

enum { MAX_POSITIONS = 200, MAX_WIDTH = 6 * 40, BLOCK_TOKENS = 16 };

typedef struct {
    uint32_t head_dim, n_kv_heads, group, first_position, n_tokens;
} shape;

typedef struct {
    shape shape;
    bt_kv_cache *cache;
    bt_attention_scratch *scratch;
    uint32_t blocks[MAX_POSITIONS / BLOCK_TOKENS + 1];
    float q[MAX_POSITIONS * MAX_WIDTH], out[MAX_POSITIONS * MAX_WIDTH];
} fixture;

/* An f32 cache of two layers with random KV up to the last token; NaN everywhere else. */
static fixture *make(const shape *s)
{
    fixture *f = bt_calloc(1, sizeof(*f));
    assert_non_null(f);
    f->shape = *s;
    bt_model_config config;
    bt_model_config_small(&config);
    config.n_layers = 2;
    config.n_kv_heads = s->n_kv_heads;
    config.head_dim = s->head_dim;
    uint32_t n_blocks = MAX_POSITIONS / BLOCK_TOKENS + 1, end = s->first_position + s->n_tokens;
    bt_kv_options options = {
        .n_blocks = n_blocks, .block_tokens = BLOCK_TOKENS, .dtype = BATON_DTYPE_F32};
    assert_ok(bt_kv_cache_create(&config, &options, &f->cache));
    assert_ok(bt_attention_scratch_create(s->head_dim, &f->scratch));
    memset(f->cache->memory, 0xff, f->cache->memory_bytes);
    bt_rng rng = {.state = s->head_dim + s->n_tokens};
    for (uint32_t i = 0; i < n_blocks; i++)
        f->blocks[i] = (i * 5 + 3) % n_blocks; /* 13 blocks: a permutation */
    for (uint32_t plane = 0; plane < 2; plane++)
        for (uint32_t p = 0; p < end; p++)
            for (uint32_t i = 0; i < s->n_kv_heads * s->head_dim; i++) {
                size_t slot = f->blocks[p / BLOCK_TOKENS] * BLOCK_TOKENS + p % BLOCK_TOKENS;
                float *to = (float *)(void *)bt_kv_cache_plane(f->cache, 1, plane);
                to[slot * s->n_kv_heads * s->head_dim + i] =
                    (float)bt_rng_below(&rng, 4000) * 1e-3f - 2.0f;
            }
    for (size_t i = 0; i < MAX_POSITIONS * MAX_WIDTH; i++)
        f->q[i] = (float)bt_rng_below(&rng, 4000) * 1e-3f - 2.0f;
    return f;
}

static void drop(fixture *f)
{
    bt_kv_cache_destroy(f->cache);
    bt_attention_scratch_destroy(f->scratch);
    bt_free(f);
}

static float *kv_at(const fixture *f, uint32_t plane, uint32_t position, uint32_t head)
{
    const shape *s = &f->shape;
    size_t slot = f->blocks[position / BLOCK_TOKENS] * BLOCK_TOKENS + position % BLOCK_TOKENS;
    return (float *)(void *)bt_kv_cache_plane(f->cache, 1, plane) +
           (slot * s->n_kv_heads + head) * s->head_dim;
}

static void run(fixture *f, const bt_ops *ops)
{
    const shape *s = &f->shape;
    size_t stride = (size_t)s->n_kv_heads * s->group * s->head_dim;
    memset(f->out, 0x11, sizeof(f->out));
    for (uint32_t head = 0; head < s->n_kv_heads; head++) {
        bt_attention a = {.ops = ops,
                          .cache = f->cache,
                          .layer = 1,
                          .kv_head = head,
                          .blocks = f->blocks,
                          .q = f->q + (size_t)head * s->group * s->head_dim,
                          .out = f->out + (size_t)head * s->group * s->head_dim,
                          .stride = stride,
                          .first_position = s->first_position,
                          .n_tokens = s->n_tokens,
                          .group = s->group};
        bt_attention_run(&a, f->scratch);
    }
}

static double score(const fixture *f, const float *q, uint32_t position, uint32_t head)
{
    double sum = 0;
    for (uint32_t i = 0; i < f->shape.head_dim; i++)
        sum += (double)q[i] * (double)kv_at(f, 0, position, head)[i];
    return sum / sqrt(f->shape.head_dim);
}

/* The plain softmax for one query head of one token, compared with what run() gave. */
static void check_row(const fixture *f, uint32_t token, uint32_t head, uint32_t member)
{
    const shape *s = &f->shape;
    size_t at = (((size_t)token * s->n_kv_heads + head) * s->group + member) * s->head_dim;
    uint32_t n_keys = s->first_position + token + 1;
    double weights[MAX_POSITIONS], max = -INFINITY, sum = 0;
    for (uint32_t p = 0; p < n_keys; p++) {
        weights[p] = score(f, f->q + at, p, head);
        max = fmax(max, weights[p]);
    }
    for (uint32_t p = 0; p < n_keys; p++)
        sum += weights[p] = exp(weights[p] - max);
    for (uint32_t i = 0; i < s->head_dim; i++) {
        double wanted = 0;
        for (uint32_t p = 0; p < n_keys; p++)
            wanted += weights[p] / sum * (double)kv_at(f, 1, p, head)[i];
        assert_true(fabs((double)f->out[at + i] - wanted) < 1e-5);
    }
}

static void check(const shape *s)
{
    fixture *f = make(s);
    run(f, bt_ops_best());
    for (uint32_t token = 0; token < s->n_tokens; token++)
        for (uint32_t head = 0; head < s->n_kv_heads; head++)
            for (uint32_t member = 0; member < s->group; member++)
                check_row(f, token, head, member);
    drop(f);
}

static void results_are_those_of_a_plain_softmax(void **state)
{
    (void)state;
    static const shape shapes[] = {
        {32, 2, 2, 0, 1},  {32, 2, 2, 0, 48},   {32, 2, 2, 63, 2},
        {32, 2, 2, 64, 1}, {32, 1, 1, 100, 96}, {20, 2, 3, 130, 32},
        {2, 1, 6, 5, 16},  {40, 6, 1, 150, 40}, {6, 2, 1, 60, 10},
    };
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
        check(&shapes[i]);
}

/* A token's result must not change by a bit when the keys and values behind it are NaN, although
 * later tokens of the same call read them. */
static void what_comes_later_is_not_read(void **state)
{
    (void)state;
    const shape s = {32, 2, 2, 30, 48};
    enum { GOOD = 40 }; /* tokens; the rest sees NaN */
    size_t n = (size_t)GOOD * s.n_kv_heads * s.group * s.head_dim;
    for (unsigned level = 0; level < BT_N_SIMD; level++) {
        const bt_ops *ops = bt_ops_of((bt_simd)level);
        if (ops == NULL)
            continue;
        static float before[MAX_POSITIONS * MAX_WIDTH];
        fixture *g = make(&s);
        run(g, ops);
        memcpy(before, g->out, sizeof(before));
        for (uint32_t p = s.first_position + GOOD; p < s.first_position + s.n_tokens; p++)
            for (uint32_t plane = 0; plane < 2; plane++)
                memset(kv_at(g, plane, p, 0), 0xff, s.n_kv_heads * s.head_dim * sizeof(float));
        run(g, ops);
        assert_memory_equal(g->out, before, n * sizeof(float));
        assert_true(isnan(g->out[n])); /* the NaNs were in reach */
        drop(g);
    }
}

static void tiles_hold_as_many_tokens_as_rows_allow(void **state)
{
    (void)state;
    assert_int_equal(bt_attention_max_tokens(1), 96);
    assert_int_equal(bt_attention_max_tokens(7), 13);
    assert_int_equal(bt_attention_max_tokens(96), 1);
}

static void failed_allocations_leave_nothing_behind(void **state)
{
    (void)state;
    for (uint64_t nth = 1; nth <= 7; nth++) {
        bt_attention_scratch *scratch;
        bt_alloc_fail_at(nth);
        baton_status status = bt_attention_scratch_create(32, &scratch);
        bt_alloc_fail_at(0);
        assert_fails(status, BATON_ERR_NO_MEMORY, "attention");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(results_are_those_of_a_plain_softmax),
        bt_test(what_comes_later_is_not_read),
        bt_test(tiles_hold_as_many_tokens_as_rows_allow),
        bt_test(failed_allocations_leave_nothing_behind),
    };
    return bt_run_tests(tests);
}
