/* SPDX-License-Identifier: Apache-2.0 */
#include "storekit.h"

#include "store/storeparts.h"

#include "core/alloc.h"

static void a_grant_is_all_or_nothing(void **state)
{
    (void)state;
    bt_store *store = kit_store(4);
    uint32_t tokens[6 * KIT_CHUNK];
    bt_grant *a, *b;
    kit_tokens(1, 0, 3 * KIT_CHUNK, tokens);
    assert_ok(kit_grant(store, tokens, 3 * KIT_CHUNK, &a));
    kit_tokens(2, 0, 2 * KIT_CHUNK, tokens);
    assert_fails(kit_grant(store, tokens, 2 * KIT_CHUNK, &b), BATON_ERR_NO_PAGES,
                 "wanted 2 pages, 1 free and 0 evictable");
    assert_int_equal(kit_pages(store, BT_PAGE_RESERVED), 3);
    assert_true(bt_grant_end(store, a, true));
    assert_int_equal(kit_pages(store, BT_PAGE_FREE), 4);
    kit_tokens(3, 0, 5 * KIT_CHUNK, tokens);
    assert_fails(kit_grant(store, tokens, 5 * KIT_CHUNK, &b), BATON_ERR_TOO_LARGE,
                 "wanted 5 pages, the whole pool has 4");
    bt_store_destroy(store);
}

static void a_landed_chunk_is_held_and_not_granted_again(void **state)
{
    (void)state;
    bt_store *store = kit_store(4);
    uint32_t tokens[3 * KIT_CHUNK];
    kit_tokens(1, 0, 2 * KIT_CHUNK + 3, tokens);
    kit_land(store, tokens, 2 * KIT_CHUNK + 3);
    bt_grant *grant;
    assert_ok(kit_grant(store, tokens, 2 * KIT_CHUNK + 3, &grant));
    assert_int_equal(bt_grant_held(grant), 3);
    bt_page_ref page;
    assert_false(bt_grant_page(grant, 0, &page));
    assert_true(bt_grant_end(store, grant, false));
    bt_store_destroy(store);
}

/* What was found before the pages ran out is not kept: otherwise two requests that wait for each
 * other's holds would wait for ever. */
static void a_grant_that_fails_for_lack_of_pages_holds_nothing(void **state)
{
    (void)state;
    bt_store *store = kit_store(4);
    uint32_t shared[3 * KIT_CHUNK], other[2 * KIT_CHUNK], all[4 * KIT_CHUNK];
    bt_grant *first, *grant;
    kit_tokens(1, 0, 3 * KIT_CHUNK, shared);
    kit_tokens(2, 0, 2 * KIT_CHUNK, other);
    kit_tokens(3, 0, 4 * KIT_CHUNK, all);
    kit_land(store, shared, 2 * KIT_CHUNK);
    assert_ok(kit_grant(store, other, 2 * KIT_CHUNK, &first));
    assert_fails(kit_grant(store, shared, 3 * KIT_CHUNK, &grant), BATON_ERR_NO_PAGES, NULL);
    assert_true(bt_grant_end(store, first, true));
    assert_ok(kit_grant(store, all, 4 * KIT_CHUNK, &grant));
    assert_true(bt_grant_end(store, grant, true));
    bt_store_destroy(store);
}

static void making_room_never_evicts_what_the_request_itself_found(void **state)
{
    (void)state;
    bt_store *store = kit_store(4);
    uint32_t tokens[4 * KIT_CHUNK];
    kit_tokens(1, 2 * KIT_CHUNK, 2 * KIT_CHUNK, tokens); /* the oldest, and shared */
    kit_land(store, tokens, 2 * KIT_CHUNK);
    kit_tokens(2, 0, 2 * KIT_CHUNK, tokens);
    kit_land(store, tokens, 2 * KIT_CHUNK);
    bt_grant *grant;
    kit_tokens(3, 2 * KIT_CHUNK, 4 * KIT_CHUNK, tokens);
    assert_ok(kit_grant(store, tokens, 4 * KIT_CHUNK, &grant));
    assert_int_equal(bt_grant_held(grant), 2);
    assert_int_equal(kit_pages(store, BT_PAGE_LANDED), 2);
    assert_true(bt_grant_end(store, grant, true));
    bt_store_destroy(store);
}

static void the_first_to_commit_is_published_and_the_other_page_goes_back(void **state)
{
    (void)state;
    bt_store *store = kit_store(4);
    uint32_t tokens[KIT_CHUNK];
    kit_tokens(1, 0, KIT_CHUNK, tokens);
    bt_grant *a, *b;
    assert_ok(kit_grant(store, tokens, KIT_CHUNK, &a));
    assert_ok(kit_grant(store, tokens, KIT_CHUNK, &b));
    assert_int_equal(kit_pages(store, BT_PAGE_RESERVED), 2);
    bool duplicate;
    assert_ok(bt_store_commit(store, a, 0, &duplicate));
    assert_false(duplicate);
    assert_ok(bt_store_commit(store, b, 0, &duplicate));
    assert_true(duplicate);
    assert_ok(bt_store_commit(store, b, 0, &duplicate)); /* again is no error */
    assert_false(duplicate);
    assert_int_equal(kit_pages(store, BT_PAGE_LANDED), 1);
    assert_int_equal(kit_pages(store, BT_PAGE_RESERVED), 0);
    assert_true(bt_grant_end(store, a, false));
    bt_chunk *chunk[1];
    uint32_t n;
    baton_key_chain root = kit_root();
    assert_int_equal(bt_store_match(store, &root, tokens, KIT_CHUNK, chunk, 1, &n), 1);
    assert_true(bt_grant_end(store, b, false));
    bt_store_destroy(store);
}

static void an_abort_without_drain_keeps_pages_from_everybody_until_proof(void **state)
{
    (void)state;
    bt_store *store = kit_store(2);
    uint32_t tokens[2 * KIT_CHUNK];
    kit_tokens(1, 0, 2 * KIT_CHUNK, tokens);
    bt_grant *grant, *other;
    assert_ok(kit_grant(store, tokens, 2 * KIT_CHUNK, &grant));
    assert_false(bt_grant_end(store, grant, false));
    assert_int_equal(kit_pages(store, BT_PAGE_QUARANTINED), 2);
    bool duplicate;
    assert_fails(bt_store_commit(store, grant, 0, &duplicate), BATON_ERR_STATE, "ended");
    assert_fails(kit_grant(store, tokens, KIT_CHUNK, &other), BATON_ERR_NO_PAGES, NULL);
    bt_grant_prove(store, grant);
    assert_int_equal(kit_pages(store, BT_PAGE_FREE), 2);
    bt_store_destroy(store);
}

static void retired_pages_come_back_with_a_fresh_region(void **state)
{
    (void)state;
    bt_store *store = kit_store(2);
    uint32_t tokens[3 * KIT_CHUNK];
    kit_tokens(1, 0, KIT_CHUNK, tokens);
    bt_grant *grant;
    assert_ok(kit_grant(store, tokens, KIT_CHUNK, &grant));
    assert_false(bt_grant_end(store, grant, false));
    bt_grant_retire(store, grant);
    assert_int_equal(kit_pages(store, BT_PAGE_RETIRED), 1);
    assert_int_equal(bt_store_region_retired(store, 0), 1);
    kit_land(store, tokens, KIT_CHUNK);
    assert_fails(bt_store_region_remove(store, 0), BATON_ERR_STATE, NULL);
    bt_store_region_close(store, 0);
    assert_true(bt_store_region_is_idle(store, 0));
    assert_ok(bt_store_region_remove(store, 0));
    assert_ok(bt_store_region_add(store, 0, 2));
    assert_int_equal(kit_pages(store, BT_PAGE_FREE), 2);
    bt_store_destroy(store);
}

static void a_closed_region_lets_held_chunks_live_until_they_are_let_go(void **state)
{
    (void)state;
    bt_store *store = kit_store(2);
    uint32_t tokens[KIT_CHUNK];
    kit_tokens(1, 0, KIT_CHUNK, tokens);
    bt_grant *grant;
    assert_ok(kit_grant(store, tokens, KIT_CHUNK, &grant));
    kit_commit_all(store, grant);
    bt_store_region_close(store, 0);
    assert_false(bt_store_region_is_idle(store, 0));
    assert_true(bt_grant_end(store, grant, true));
    assert_true(bt_store_region_is_idle(store, 0));
    bt_store_destroy(store);
}

static void a_key_with_another_token_count_is_refused(void **state)
{
    (void)state;
    bt_store *store = kit_store(2);
    uint32_t tokens[KIT_CHUNK];
    kit_tokens(1, 0, 3, tokens);
    kit_land(store, tokens, 3);
    baton_key_chain root = kit_root();
    baton_key key;
    uint32_t n, last;
    assert_ok(baton_keys_of_tokens(&root, tokens, 3, &key, 1, &n, &last));
    bt_grant *grant;
    assert_fails(bt_store_grant(store, &root.last, &key, 1, 5, &grant), BATON_ERR_INVALID_ARG,
                 "landed with 3 tokens, the request says 5");
    assert_int_equal(kit_pages(store, BT_PAGE_LANDED), 1);
    bt_store_destroy(store);
}

static void a_failing_allocation_leaves_nothing_behind(void **state)
{
    (void)state;
    for (uint64_t nth = 1;; nth++) {
        bt_alloc_fail_at(nth);
        bt_store *store = NULL;
        baton_status status = bt_store_create(KIT_CHUNK, 4, &store);
        if (status == BATON_OK)
            status = bt_store_region_add(store, 0, 4);
        bt_grant *grant = NULL;
        uint32_t tokens[KIT_CHUNK] = {0};
        if (status == BATON_OK)
            status = kit_grant(store, tokens, KIT_CHUNK, &grant);
        bt_alloc_fail_at(0);
        if (grant != NULL)
            assert_true(bt_grant_end(store, grant, true));
        bt_store_destroy(store);
        if (status == BATON_OK)
            break;
        assert_fails(status, BATON_ERR_NO_MEMORY, "store: ");
    }
}

static void a_page_makes_no_move_that_its_table_lacks(void **state)
{
    (void)state;
    bt_expect_log("refused");
    bt_store *store;
    assert_ok(bt_store_create(KIT_CHUNK, 2, &store));
    assert_ok(bt_store_region_add(store, 0, 2));
    const bt_page_ref page = {.region = 0, .page = 1};
    assert_false(bt_page_move(store, page, BT_PAGE_ON_PUBLISH));
    assert_true(bt_page_move(store, page, BT_PAGE_ON_TAKE));
    assert_false(bt_page_move(store, page, BT_PAGE_ON_TAKE));
    assert_true(bt_page_move(store, page, BT_PAGE_ON_ABORT));
    assert_false(bt_page_move(store, page, BT_PAGE_ON_GIVE_BACK));
    assert_true(bt_page_move(store, page, BT_PAGE_ON_PROOF));
    assert_true(bt_page_move(store, page, BT_PAGE_ON_TAKE));
    assert_true(bt_page_move(store, page, BT_PAGE_ON_PUBLISH));
    bt_page_chunk(store, page)->n_pins = 1;
    assert_false(bt_page_move(store, page, BT_PAGE_ON_EVICT));
    bt_store_stats stats;
    bt_store_get_stats(store, &stats);
    assert_int_equal(stats.moves_refused_total, 4);
    assert_int_equal(stats.pages[BT_PAGE_LANDED], 1);
    assert_int_equal(stats.pages[BT_PAGE_FREE], 1);
    bt_store_destroy(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(a_grant_is_all_or_nothing),
        bt_test(a_page_makes_no_move_that_its_table_lacks),
        bt_test(a_landed_chunk_is_held_and_not_granted_again),
        bt_test(a_grant_that_fails_for_lack_of_pages_holds_nothing),
        bt_test(making_room_never_evicts_what_the_request_itself_found),
        bt_test(the_first_to_commit_is_published_and_the_other_page_goes_back),
        bt_test(an_abort_without_drain_keeps_pages_from_everybody_until_proof),
        bt_test(retired_pages_come_back_with_a_fresh_region),
        bt_test(a_closed_region_lets_held_chunks_live_until_they_are_let_go),
        bt_test(a_key_with_another_token_count_is_refused),
        bt_test(a_failing_allocation_leaves_nothing_behind),
    };
    return bt_run_tests(tests);
}
