/* SPDX-License-Identifier: Apache-2.0 */
/* Random operations against a naive model: who may write which page, and what each page holds. */
#include "storekit.h"

enum { PAGES = 12, GRANTS = 6, PROMPTS = 8, STEPS = 20000, TOKENS = 4 * KIT_CHUNK };

typedef struct {
    bt_grant *grant;
    bool ended; /* in quarantine */
    uint32_t prompt, n_tokens;
} live;

/* The model: per page, how many writers may still write it. A page with a writer must belong to
 * one grant only and must not be readable. */
static void check_exclusive(const live *grants)
{
    uint8_t writers[PAGES] = {0};
    for (int g = 0; g < GRANTS; g++) {
        if (grants[g].grant == NULL)
            continue;
        for (uint32_t i = 0; i < bt_grant_chunks(grants[g].grant); i++) {
            bt_page_ref page;
            if (bt_grant_page(grants[g].grant, i, &page))
                assert_int_equal(writers[page.page]++, 0);
        }
    }
}

static void check_readable(bt_store *store, const live *grants, bt_rng *rng)
{
    uint32_t tokens[TOKENS], n;
    kit_tokens((uint32_t)bt_rng_below(rng, PROMPTS), 2 * KIT_CHUNK, TOKENS, tokens);
    bt_chunk *chunks[KIT_MAX_CHUNKS];
    baton_key_chain root = kit_root();
    uint32_t n_chunks = bt_store_match(store, &root, tokens, TOKENS, chunks, KIT_MAX_CHUNKS, &n);
    for (uint32_t c = 0; c < n_chunks; c++) {
        for (int g = 0; g < GRANTS; g++) {
            for (uint32_t i = 0; grants[g].grant && i < bt_grant_chunks(grants[g].grant); i++) {
                bt_page_ref page;
                if (bt_grant_page(grants[g].grant, i, &page))
                    assert_int_not_equal(page.page, bt_chunk_page(chunks[c]).page);
            }
        }
    }
}

static void begin(bt_store *store, live *slot, bt_rng *rng)
{
    uint32_t tokens[TOKENS];
    slot->prompt = (uint32_t)bt_rng_below(rng, PROMPTS);
    slot->n_tokens = 1 + (uint32_t)bt_rng_below(rng, TOKENS);
    slot->ended = false;
    kit_tokens(slot->prompt, 2 * KIT_CHUNK, slot->n_tokens, tokens);
    baton_status status = kit_grant(store, tokens, slot->n_tokens, &slot->grant);
    if (status != BATON_OK) {
        assert_int_equal(status, BATON_ERR_NO_PAGES);
        slot->grant = NULL;
    }
}

static void step(bt_store *store, live *slot, bt_rng *rng)
{
    bool duplicate;
    if (slot->grant == NULL) {
        begin(store, slot, rng);
    } else if (slot->ended) {
        if (bt_rng_below(rng, 4) == 0) {
            bt_grant_prove(store, slot->grant);
            slot->grant = NULL;
        }
    } else if (bt_rng_below(rng, 4) != 0) {
        uint32_t chunk = (uint32_t)bt_rng_below(rng, bt_grant_chunks(slot->grant));
        assert_ok(bt_store_commit(store, slot->grant, chunk, &duplicate));
    } else if (bt_grant_end(store, slot->grant, bt_rng_below(rng, 2) == 0)) {
        slot->grant = NULL;
    } else {
        slot->ended = true;
    }
}

static void pages_have_one_owner_and_counts_add_up(void **state)
{
    (void)state;
    bt_rng rng = {.state = 42};
    bt_store *store = kit_store(PAGES);
    live grants[GRANTS] = {0};
    for (int i = 0; i < STEPS; i++) {
        step(store, &grants[bt_rng_below(&rng, GRANTS)], &rng);
        kit_pages(store, BT_PAGE_FREE); /* verifies */
        check_exclusive(grants);
        check_readable(store, grants, &rng);
    }
    for (int g = 0; g < GRANTS; g++) {
        if (grants[g].grant == NULL)
            continue;
        if (grants[g].ended)
            bt_grant_prove(store, grants[g].grant);
        else
            assert_true(bt_grant_end(store, grants[g].grant, true));
    }
    assert_int_equal(kit_pages(store, BT_PAGE_RESERVED), 0);
    assert_int_equal(kit_pages(store, BT_PAGE_QUARANTINED), 0);
    bt_store_destroy(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {bt_test(pages_have_one_owner_and_counts_add_up)};
    return bt_run_tests(tests);
}
