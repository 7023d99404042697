/* SPDX-License-Identifier: Apache-2.0 */
#include "storekit.h"

static uint32_t match(bt_store *store, const uint32_t *tokens, uint32_t n)
{
    bt_chunk *chunks[KIT_MAX_CHUNKS];
    baton_key_chain root = kit_root();
    uint32_t n_tokens;
    bt_store_match(store, &root, tokens, n, chunks, KIT_MAX_CHUNKS, &n_tokens);
    return n_tokens;
}

/* A prompt of n tokens has landed; decode asks with n tokens (decode-first) and with n + 1
 * (early first token). */
static void both_dialect_forms_find_a_tail_of_any_length(void **state)
{
    (void)state;
    for (uint32_t n = 1; n <= 3 * KIT_CHUNK; n++) {
        bt_store *store = kit_store(8);
        uint32_t tokens[3 * KIT_CHUNK + 1];
        kit_tokens(1, 0, n + 1, tokens);
        assert_int_equal(match(store, tokens, n), 0);
        kit_land(store, tokens, n);
        assert_int_equal(match(store, tokens, n), n);
        assert_int_equal(match(store, tokens, n + 1), n);
        assert_int_equal(match(store, tokens, n - 1), (n - 1) / KIT_CHUNK * KIT_CHUNK);
        bt_store_destroy(store);
    }
}

static void the_longest_of_several_tails_wins(void **state)
{
    (void)state;
    bt_store *store = kit_store(8);
    uint32_t tokens[2 * KIT_CHUNK];
    kit_tokens(1, 0, 2 * KIT_CHUNK, tokens);
    kit_land(store, tokens, KIT_CHUNK + 2);
    kit_land(store, tokens, KIT_CHUNK + 5);
    assert_int_equal(match(store, tokens, 2 * KIT_CHUNK), KIT_CHUNK + 5);
    assert_int_equal(match(store, tokens, KIT_CHUNK + 4), KIT_CHUNK + 2);
    tokens[KIT_CHUNK + 3] ^= 1; /* differs inside the longer tail only */
    assert_int_equal(match(store, tokens, 2 * KIT_CHUNK), KIT_CHUNK + 2);
    bt_store_destroy(store);
}

static void a_prompt_is_evicted_from_its_end(void **state)
{
    (void)state;
    bt_store *store = kit_store(4);
    uint32_t a[3 * KIT_CHUNK], b[2 * KIT_CHUNK];
    kit_tokens(1, 0, 3 * KIT_CHUNK, a);
    kit_tokens(2, 0, 2 * KIT_CHUNK, b);
    kit_land(store, a, 3 * KIT_CHUNK);
    kit_land(store, b, 2 * KIT_CHUNK); /* one page too few: the last chunk of a goes */
    assert_int_equal(match(store, a, 3 * KIT_CHUNK), 2 * KIT_CHUNK);
    assert_int_equal(match(store, b, 2 * KIT_CHUNK), 2 * KIT_CHUNK);
    bt_store_destroy(store);
}

static void a_pinned_chunk_is_not_evicted(void **state)
{
    (void)state;
    bt_store *store = kit_store(2);
    uint32_t a[KIT_CHUNK], b[2 * KIT_CHUNK], n;
    kit_tokens(1, 0, KIT_CHUNK, a);
    kit_tokens(2, 0, 2 * KIT_CHUNK, b);
    kit_land(store, a, KIT_CHUNK);
    bt_chunk *chunk[1];
    baton_key_chain root = kit_root();
    assert_int_equal(bt_store_match(store, &root, a, KIT_CHUNK, chunk, 1, &n), 1);
    bt_chunk_pin(store, chunk[0]);
    bt_grant *grant;
    assert_fails(kit_grant(store, b, 2 * KIT_CHUNK, &grant), BATON_ERR_NO_PAGES, NULL);
    bt_chunk_unpin(store, chunk[0]);
    kit_land(store, b, 2 * KIT_CHUNK);
    assert_int_equal(match(store, a, KIT_CHUNK), 0);
    bt_store_destroy(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(both_dialect_forms_find_a_tail_of_any_length),
        bt_test(the_longest_of_several_tails_wins),
        bt_test(a_prompt_is_evicted_from_its_end),
        bt_test(a_pinned_chunk_is_not_evicted),
    };
    return bt_run_tests(tests);
}
