/* SPDX-License-Identifier: Apache-2.0 */
/* The decoder against Hugging Face transformers: tests/data/llama, made by
 * scripts/make_fixture.py. */
#include "modelrun.h"

#include <math.h>

#include "engine/safetensors.h"

/* Of logits whose size is about 10, f32 on both sides, sums in different order. */
#define LOGIT_TOLERANCE 2e-4
/* With KV rounded to bf16, which transformers did not do: 8 bits of each key and value. */
#define BF16_KV_TOLERANCE 0.2
/* 11 bits. */
#define F16_KV_TOLERANCE 0.03

typedef struct {
    const char *name;
    bt_safetensors *file;
    bt_model *model;
    uint32_t n_tokens, n_greedy, vocab;
    uint32_t *tokens; /* [n_tokens + n_greedy] */
    float *logits;    /* [n_tokens][vocab], of transformers */
} fixture;

static const bt_tensor *tensor(const fixture *f, const char *name)
{
    const bt_tensor *found = bt_safetensors_find(f->file, name);
    assert_non_null(found);
    return found;
}

static fixture open_fixture(const char *name)
{
    fixture f = {.name = name};
    char dir[1024], path[1100];
    snprintf(dir, sizeof(dir), "%s/llama/%s", getenv("BATON_TEST_DATA"), name);
    snprintf(path, sizeof(path), "%s/expected.safetensors", dir);
    assert_ok(bt_safetensors_open(path, &f.file));
    assert_ok(bt_model_load(dir, &f.model));
    const bt_tensor *tokens = tensor(&f, "tokens"), *greedy = tensor(&f, "greedy");
    const bt_tensor *logits = tensor(&f, "logits");
    f.n_tokens = (uint32_t)tokens->shape[0];
    f.n_greedy = (uint32_t)greedy->shape[0];
    f.vocab = bt_model_get_config(f.model)->vocab_size;
    assert_int_equal(logits->shape[1], f.vocab);
    f.tokens = bt_calloc(f.n_tokens + f.n_greedy, sizeof(*f.tokens));
    f.logits = bt_calloc(f.n_tokens * (size_t)f.vocab, sizeof(*f.logits));
    assert_true(f.tokens != NULL && f.logits != NULL);
    memcpy(f.tokens, tokens->data, tokens->n_bytes);
    memcpy(f.tokens + f.n_tokens, greedy->data, greedy->n_bytes);
    memcpy(f.logits, logits->data, logits->n_bytes);
    return f;
}

static void close_fixture(fixture *f)
{
    bt_safetensors_close(f->file);
    bt_model_destroy(f->model);
    bt_free(f->tokens);
    bt_free(f->logits);
}

static double worst_difference(const float *a, const float *b, uint32_t n)
{
    double worst = 0;
    for (uint32_t i = 0; i < n; i++) {
        double difference = fabs((double)a[i] - (double)b[i]);
        if (!(difference <= worst)) /* a NaN too */
            worst = difference;
    }
    return worst;
}

static model_run start(const fixture *f, baton_dtype dtype)
{
    bt_kv_options kv = {
        .n_blocks = (f->n_tokens + f->n_greedy + 15) / 16, .block_tokens = 16, .dtype = dtype};
    bt_compute_options options = {.max_batch_tokens = 64};
    return start_run(f->model, &kv, &options);
}

/* Every position's logits, computed token by token after a first chunk. */
static void check_logits(const fixture *f, baton_dtype dtype, double tolerance)
{
    model_run run = start(f, dtype);
    float *logits = bt_calloc(f->vocab, sizeof(*logits));
    assert_non_null(logits);
    double worst = 0;
    uint32_t first = f->n_tokens / 2;
    run_chunks(&run, f->tokens, 0, first, 17, logits);
    for (uint32_t p = first; p <= f->n_tokens; p++) {
        double difference =
            worst_difference(logits, f->logits + (size_t)(p - 1) * f->vocab, f->vocab);
        worst = difference > worst || isnan(difference) ? difference : worst;
        if (p < f->n_tokens)
            run_chunks(&run, f->tokens, p, p + 1, 1, logits);
    }
    print_message("%s, KV of %zu bytes: logits differ by at most %g\n", f->name,
                  run.cache->element_bytes, worst);
    assert_true(worst <= tolerance);
    bt_free(logits);
    end_run(&run);
}

static void check_greedy(const fixture *f)
{
    model_run run = start(f, BATON_DTYPE_F32);
    float *logits = bt_calloc(f->vocab, sizeof(*logits));
    assert_non_null(logits);
    run_chunks(&run, f->tokens, 0, f->n_tokens, 64, logits);
    for (uint32_t i = 0; i < f->n_greedy; i++) {
        uint32_t p = f->n_tokens + i;
        assert_int_equal(run_argmax(logits, f->vocab), f->tokens[p]);
        run_chunks(&run, f->tokens, p, p + 1, 1, logits);
    }
    bt_free(logits);
    end_run(&run);
}

static void check(const char *name)
{
    fixture f = open_fixture(name);
    check_logits(&f, BATON_DTYPE_F32, LOGIT_TOLERANCE);
    check_logits(&f, BATON_DTYPE_BF16, BF16_KV_TOLERANCE);
    check_logits(&f, BATON_DTYPE_F16, F16_KV_TOLERANCE);
    check_greedy(&f);
    close_fixture(&f);
}

static void grouped_queries_in_f32(void **state)
{
    (void)state;
    check("gqa_f32");
}

static void llama3_rope_tied_embeddings_own_head_dim_in_bf16(void **state)
{
    (void)state;
    check("llama3_tied_bf16");
}

static void linear_rope_biases_odd_sizes_in_f16(void **state)
{
    (void)state;
    check("linear_bias_f16");
}

static void mistral_with_wide_heads(void **state)
{
    (void)state;
    check("mistral_bf16");
}

static void qwen2_from_three_shards(void **state)
{
    (void)state;
    check("qwen2_sharded_bf16");
}

static void two_models_have_two_fingerprints_and_one_model_has_one(void **state)
{
    (void)state;
    fixture a = open_fixture("gqa_f32"), b = open_fixture("gqa_f32");
    fixture c = open_fixture("mistral_bf16");
    assert_true(bt_model_fingerprint(a.model) == bt_model_fingerprint(b.model));
    assert_true(bt_model_fingerprint(a.model) != bt_model_fingerprint(c.model));
    close_fixture(&a);
    close_fixture(&b);
    close_fixture(&c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(grouped_queries_in_f32),
        bt_test(llama3_rope_tied_embeddings_own_head_dim_in_bf16),
        bt_test(linear_rope_biases_odd_sizes_in_f16),
        bt_test(mistral_with_wide_heads),
        bt_test(qwen2_from_three_shards),
        bt_test(two_models_have_two_fingerprints_and_one_model_has_one),
    };
    return bt_run_tests(tests);
}
