/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/prefixindex.h"
#include "core/alloc.h"
#include "support/oom.h"
#include "support/test.h"

#include <stdio.h>

static bt_prefix_blocks blocks;
static bt_prefix_match matches[BT_PREFIX_MATCHES];

/* A prompt that differs from all others from its first block on. */
static const bt_prefix_blocks *prompt(uint32_t number, size_t n_blocks)
{
    static char text[BT_PREFIX_BLOCK_BYTES * 32];
    memset(text, 'x', sizeof(text));
    memcpy(text, &number, sizeof(number));
    bt_prefix_blocks_of(text, n_blocks * BT_PREFIX_BLOCK_BYTES, 7, &blocks);
    return &blocks;
}

static const bt_prefix_match *match_of(uint32_t engine, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        if (matches[i].engine == engine)
            return &matches[i];
    }
    return NULL;
}

static void blocks_stand_for_all_that_is_before_them(void **state)
{
    (void)state;
    static char one[1024], other[1024];
    static bt_prefix_blocks a, b;
    memset(one, 'p', sizeof(one));
    memset(other, 'p', sizeof(other));
    other[255] = 'q';
    bt_prefix_blocks_of(one, 1023, 0, &a); /* the last is not whole */
    assert_int_equal(a.n, 3);
    assert_int_not_equal(a.hashes[0], a.hashes[1]);
    bt_prefix_blocks_of(other, 1024, 0, &b);
    assert_int_equal(b.n, 4);
    assert_int_not_equal(a.hashes[0], b.hashes[0]);
    assert_int_not_equal(a.hashes[2], b.hashes[2]);
    bt_prefix_blocks_of(one, 1024, 1, &b); /* another model */
    assert_int_not_equal(a.hashes[0], b.hashes[0]);
    bt_prefix_blocks_of(one, 255, 0, &b);
    assert_int_equal(b.n, 0);
}

static void what_an_engine_got_is_found_as_far_as_it_is_the_same(void **state)
{
    (void)state;
    bt_prefix_index *index;
    assert_ok(bt_prefix_index_create(1 << 20, &index));
    assert_int_equal(bt_prefix_index_find(index, prompt(1, 8), matches), 0);
    bt_prefix_index_note(index, prompt(1, 8), 5, 2);
    bt_prefix_index_note(index, prompt(1, 4), 65534, 0);
    uint32_t n = bt_prefix_index_find(index, prompt(1, 20), matches);
    assert_int_equal(n, 2);
    const bt_prefix_match *deep = match_of(5, n), *shallow = match_of(65534, n);
    assert_true(deep != NULL && shallow != NULL);
    assert_int_equal(deep->n_blocks, 8);
    assert_int_equal(deep->life, 2);
    assert_int_equal(shallow->n_blocks, 4);
    assert_int_equal(bt_prefix_index_find(index, prompt(2, 20), matches), 0);
    /* In a new life it is one engine still. */
    bt_prefix_index_note(index, prompt(1, 8), 5, 3);
    n = bt_prefix_index_find(index, prompt(1, 8), matches);
    assert_int_equal(n, 2);
    assert_int_equal(match_of(5, n)->life, 3);
    bt_prefix_index_destroy(index);
    bt_prefix_index_destroy(NULL);
}

static void memory_is_what_was_allowed_whatever_comes(void **state)
{
    (void)state;
    bt_prefix_index *index;
    assert_ok(bt_prefix_index_create(100000, &index));
    assert_int_equal(bt_prefix_index_bytes(index), 65536);
    uint64_t before = bt_alloc_count();
    for (uint32_t i = 0; i < 20000; i++)
        bt_prefix_index_note(index, prompt(i, 16), i % 64, 0);
    assert_int_equal(bt_alloc_count(), before);
    assert_int_equal(bt_prefix_index_bytes(index), 65536);
    /* 8192 entries: at most 512 prompts of 16 blocks can still be there. */
    uint32_t n_whole = 0;
    for (uint32_t i = 0; i < 20000; i++) {
        uint32_t n = bt_prefix_index_find(index, prompt(i, 16), matches);
        n_whole += n > 0 && matches[0].n_blocks == 16;
    }
    assert_true(n_whole <= 512);
    bt_prefix_index_destroy(index);
}

/* What is asked for again and again stays, while prompts that come once flood the index. */
static void a_flood_of_single_prompts_does_not_push_out_what_is_used(void **state)
{
    (void)state;
    bt_prefix_index *index;
    uint32_t n_kept = 0, n_finds = 0;
    assert_ok(bt_prefix_index_create(65536, &index));
    bt_prefix_index_note(index, prompt(0, 16), 3, 0);
    bt_prefix_index_find(index, prompt(0, 16), matches);
    for (uint32_t i = 1; i < 20000; i++) {
        bt_prefix_index_note(index, prompt(i, 16), i % 64, 0);
        if (i % 100 != 0)
            continue;
        uint32_t n = bt_prefix_index_find(index, prompt(0, 16), matches);
        const bt_prefix_match *match = match_of(3, n);
        n_finds++;
        n_kept += match != NULL && match->n_blocks == 16;
    }
    assert_int_equal(n_kept, n_finds);
    bt_prefix_index_destroy(index);
}

static void a_block_that_many_engines_know_keeps_to_its_bucket(void **state)
{
    (void)state;
    bt_prefix_index *index;
    assert_ok(bt_prefix_index_create(1 << 20, &index));
    for (uint32_t engine = 0; engine < 100; engine++)
        bt_prefix_index_note(index, prompt(1, 3), engine, 0);
    uint32_t n = bt_prefix_index_find(index, prompt(1, 3), matches);
    assert_in_range(n, 1, BT_PREFIX_MATCHES);
    assert_non_null(match_of(99, n)); /* the newest is known */
    bt_prefix_index_destroy(index);
}

static baton_status make(void *ctx)
{
    bt_prefix_index *index = NULL;
    (void)ctx;
    baton_status status = bt_prefix_index_create(4096, &index);
    bt_prefix_index_destroy(index);
    return status;
}

static void without_memory_there_is_no_index(void **state)
{
    (void)state;
    bt_check_scarce_memory(make, NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(blocks_stand_for_all_that_is_before_them),
        bt_test(what_an_engine_got_is_found_as_far_as_it_is_the_same),
        bt_test(memory_is_what_was_allowed_whatever_comes),
        bt_test(a_flood_of_single_prompts_does_not_push_out_what_is_used),
        bt_test(a_block_that_many_engines_know_keeps_to_its_bucket),
        bt_test(without_memory_there_is_no_index),
    };
    return bt_run_tests(tests);
}
