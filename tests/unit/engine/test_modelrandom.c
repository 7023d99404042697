/* SPDX-License-Identifier: Apache-2.0 */
#include "modelrun.h"

enum { N_PROMPT = 40, N_OUTPUT = 64, N_BLOCKS = (N_PROMPT + N_OUTPUT) / 16 + 1 };

/* Greedy output of the small random model after a prompt of English text. */
static void generate(uint64_t seed, const char *prompt, uint32_t output[N_OUTPUT])
{
    bt_model_config config;
    bt_model *model;
    bt_model_config_small(&config);
    assert_ok(bt_model_create_random(&config, seed, &model));
    bt_compute_options options = {.max_batch_tokens = N_PROMPT};
    bt_kv_options kv = {.n_blocks = N_BLOCKS};
    model_run run = start_run(model, &kv, &options);
    uint32_t tokens[N_PROMPT + N_OUTPUT] = {0}, n = 0;
    for (; n < N_PROMPT && prompt[n] != 0; n++)
        tokens[n] = (uint8_t)prompt[n];
    float *logits = bt_calloc(config.vocab_size, sizeof(*logits));
    assert_non_null(logits);
    run_chunks(&run, tokens, 0, n, N_PROMPT, logits);
    for (uint32_t i = 0; i < N_OUTPUT; i++, n++) {
        tokens[n] = output[i] = run_argmax(logits, config.vocab_size);
        run_chunks(&run, tokens, n, n + 1, 1, logits);
    }
    bt_free(logits);
    end_run(&run);
    bt_model_destroy(model);
}

static uint32_t count_distinct(const uint32_t output[N_OUTPUT])
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < N_OUTPUT; i++) {
        bool seen = false;
        for (uint32_t j = 0; j < i; j++)
            seen = seen || output[j] == output[i];
        n += !seen;
    }
    return n;
}

static const char *const prompts[] = {"The quick brown fox jumps over the lazy dog.",
                                      "a",
                                      "Once upon a time there was a",
                                      "1234567890 1234567890",
                                      "                              ",
                                      "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};

static void greedy_output_varies_and_is_printable(void **state)
{
    (void)state;
    static const uint64_t seeds[] = {0, 1, 2, 3, 7, 42, 1234, UINT64_MAX};
    uint32_t least = N_OUTPUT;
    for (size_t s = 0; s < sizeof(seeds) / sizeof(seeds[0]); s++)
        for (size_t p = 0; p < sizeof(prompts) / sizeof(prompts[0]); p++) {
            uint32_t output[N_OUTPUT];
            generate(seeds[s], prompts[p], output);
            uint32_t n = count_distinct(output);
            least = n < least ? n : least;
            for (uint32_t i = 0; i < N_OUTPUT; i++)
                assert_in_range(output[i], 0x20, 0x7e);
        }
    print_message("at least %u distinct tokens of %u\n", least, N_OUTPUT);
    assert_true(least >= 20);
}

static void a_seed_decides_everything(void **state)
{
    (void)state;
    uint32_t a[N_OUTPUT], b[N_OUTPUT], c[N_OUTPUT];
    generate(5, prompts[0], a);
    generate(5, prompts[0], b);
    generate(6, prompts[0], c);
    assert_memory_equal(a, b, sizeof(a));
    assert_memory_not_equal(a, c, sizeof(a));
}

/* On every machine: a change of the weights would show here first. */
static void the_fingerprint_of_a_seed_is_pinned(void **state)
{
    (void)state;
    bt_model_config config;
    bt_model *model;
    bt_model_config_small(&config);
    assert_ok(bt_model_create_random(&config, 1, &model));
    assert_true(bt_model_fingerprint(model) == UINT64_C(0xcf581af3ba0e6ba8));
    assert_true(bt_model_weight_bytes(model) > 1000000);
    bt_model_destroy(model);
}

static void impossible_shapes_are_refused(void **state)
{
    (void)state;
    bt_model_config config;
    bt_model *model;
    bt_model_config_small(&config);
    config.n_kv_heads = 3;
    assert_fails(bt_model_create_random(&config, 1, &model), BATON_ERR_CONFIG,
                 "num_key_value_heads");
}

static void failed_allocations_leave_nothing_behind(void **state)
{
    (void)state;
    bt_model_config config;
    bt_model_config_small(&config);
    config.n_layers = 1;
    for (uint64_t nth = 1;; nth++) {
        bt_model *model;
        bt_alloc_fail_at(nth);
        baton_status status = bt_model_create_random(&config, 1, &model);
        bool reached = bt_alloc_count() >= nth;
        bt_alloc_fail_at(0);
        if (!reached) {
            assert_ok(status);
            bt_model_destroy(model);
            assert_true(nth > 8);
            return;
        }
        assert_fails(status, BATON_ERR_NO_MEMORY, NULL);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(greedy_output_varies_and_is_printable),   bt_test(a_seed_decides_everything),
        bt_test(the_fingerprint_of_a_seed_is_pinned),     bt_test(impossible_shapes_are_refused),
        bt_test(failed_allocations_leave_nothing_behind),
    };
    return bt_run_tests(tests);
}
