/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include <baton/keys.h>

#include <stdio.h>

enum { CHUNK = 16, MAX = 64 };
#define GOLDEN "9a697a5cad03b62169e4fa1eb7760756d7cb399cb64b73990901c111751ba8f0"

static baton_layout layout_of(const char *model)
{
    baton_layout layout = {
        .dtype = BATON_DTYPE_BF16,
        .n_layers = 1,
        .n_planes = 2,
        .n_kv_heads = 1,
        .head_dim = 8,
        .chunk_tokens = CHUNK,
        .block_tokens = 4,
        .tp_size = 1,
        .pp_size = 1,
    };
    snprintf(layout.model, sizeof(layout.model), "%s", model);
    return layout;
}

static baton_key_chain chain_of(const char *model, uint32_t world, uint32_t rank, const char *seed)
{
    baton_layout layout = layout_of(model);
    baton_key_chain chain;
    assert_ok(baton_key_chain_init(&layout, world, rank, seed, &chain));
    return chain;
}

static uint32_t keys_of(uint32_t n_tokens, baton_key *keys, uint32_t *last_tokens)
{
    uint32_t tokens[MAX * CHUNK], n_keys = 0;
    for (uint32_t i = 0; i < n_tokens; i++)
        tokens[i] = i * 7 + 1;
    baton_key_chain chain = chain_of("m", 1, 0, NULL);
    assert_ok(baton_keys_of_tokens(&chain, tokens, n_tokens, keys, MAX, &n_keys, last_tokens));
    return n_keys;
}

static void windows_and_tail_of_every_length(void **state)
{
    (void)state;
    baton_key all[MAX], keys[MAX];
    uint32_t last;
    keys_of(3 * CHUNK, all, &last);
    for (uint32_t n = 1; n <= 3 * CHUNK; n++) {
        uint32_t n_keys = keys_of(n, keys, &last);
        assert_int_equal(n_keys, (n + CHUNK - 1) / CHUNK);
        assert_int_equal(last, n % CHUNK == 0 ? CHUNK : n % CHUNK);
        for (uint32_t i = 0; i < n / CHUNK; i++)
            assert_memory_equal(keys[i].bytes, all[i].bytes, BATON_KEY_BYTES);
        if (n % CHUNK != 0) /* a short chunk is not the full one that contains it */
            assert_memory_not_equal(keys[n_keys - 1].bytes, all[n_keys - 1].bytes, BATON_KEY_BYTES);
    }
}

static void everything_mixed_in_changes_the_root(void **state)
{
    (void)state;
    baton_key_chain roots[] = {
        chain_of("m", 1, 0, NULL), chain_of("n", 1, 0, NULL), chain_of("m", 2, 0, NULL),
        chain_of("m", 2, 1, NULL), chain_of("m", 1, 0, "x"),
    };
    for (size_t i = 0; i < sizeof(roots) / sizeof(roots[0]); i++) {
        for (size_t k = 0; k < i; k++)
            assert_memory_not_equal(&roots[i].last, &roots[k].last, BATON_KEY_BYTES);
    }
}

static void a_prefix_token_changes_every_later_key(void **state)
{
    (void)state;
    baton_key_chain chain = chain_of("m", 1, 0, NULL);
    uint32_t tokens[3 * CHUNK] = {0}, n, last;
    baton_key a[3], b[3];
    assert_ok(baton_keys_of_tokens(&chain, tokens, 3 * CHUNK, a, 3, &n, &last));
    tokens[0] = 1;
    assert_ok(baton_keys_of_tokens(&chain, tokens, 3 * CHUNK, b, 3, &n, &last));
    for (int i = 0; i < 3; i++)
        assert_memory_not_equal(a[i].bytes, b[i].bytes, BATON_KEY_BYTES);
}

/* Golden: another implementation must come to the same bytes (python: hashlib.blake2b, 32). */
static void golden_key(void **state)
{
    (void)state;
    baton_key keys[1];
    uint32_t last;
    keys_of(3, keys, &last);
    char hex[2 * BATON_KEY_BYTES + 1];
    for (int i = 0; i < BATON_KEY_BYTES; i++)
        snprintf(hex + 2 * i, 3, "%02x", keys[0].bytes[i]);
    assert_string_equal(hex, GOLDEN);
}

static void bad_arguments_are_refused(void **state)
{
    (void)state;
    baton_layout layout = layout_of("m");
    baton_key_chain chain;
    assert_fails(baton_key_chain_init(&layout, 2, 2, NULL, &chain), BATON_ERR_INVALID_ARG,
                 "below world 2, found 2");
    assert_ok(baton_key_chain_init(&layout, 1, 0, NULL, &chain));
    uint32_t tokens[CHUNK + 1] = {0}, n, last;
    baton_key key;
    assert_fails(baton_key_chain_next(&chain, tokens, 0, &key), BATON_ERR_INVALID_ARG, "found 0");
    assert_fails(baton_key_chain_next(&chain, tokens, CHUNK + 1, &key), BATON_ERR_INVALID_ARG,
                 "1 to 16");
    assert_fails(baton_keys_of_tokens(&chain, tokens, CHUNK + 1, &key, 1, &n, &last),
                 BATON_ERR_INVALID_ARG, "room for 2");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(windows_and_tail_of_every_length),
        bt_test(everything_mixed_in_changes_the_root),
        bt_test(a_prefix_token_changes_every_later_key),
        bt_test(golden_key),
        bt_test(bad_arguments_are_refused),
    };
    return bt_run_tests(tests);
}
