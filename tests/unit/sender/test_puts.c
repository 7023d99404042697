/* SPDX-License-Identifier: Apache-2.0 */
/* How chunks become puts: adjacent ones one run, many one put, staging slots shared. */
#include "handoffkit.h"

/* A registered source, so that chunks are put from where they lie. */
static uint8_t source[PAIR_MAX_CHUNKS * PAIR_PAGE_BYTES];

typedef struct {
    uint32_t n_tokens;
    uint8_t places[PAIR_MAX_CHUNKS]; /* chunk i lies at page places[i] of the source */
    uint32_t n_runs;                 /* wanted */
} shape;

static const shape shapes[] = {
    {1 * PAIR_CHUNK, {0}, 1},
    {3, {2}, 1},                                       /* one short chunk */
    {8 * PAIR_CHUNK, {0, 1, 2, 3, 4, 5, 6, 7}, 1},     /* ascending */
    {7 * PAIR_CHUNK + 3, {0, 1, 2, 3, 4, 5, 6, 7}, 1}, /* its last one is short */
    {8 * PAIR_CHUNK, {7, 6, 5, 4, 3, 2, 1, 0}, 1},     /* descending: regular all the same */
    {7 * PAIR_CHUNK + 3, {7, 6, 5, 4, 3, 2, 1, 0}, 2}, /* but for a short one */
    {8 * PAIR_CHUNK, {0, 2, 4, 6, 1, 3, 5, 7}, 2},     /* two regular halves */
    {8 * PAIR_CHUNK, {3, 0, 6, 1, 7, 2, 5, 4}, 4},     /* scattered */
};

static void chunks_of_a_turn_are_one_put_of_few_runs(void **state)
{
    (void)state;
    for (size_t s = 0; s < sizeof(shapes) / sizeof(shapes[0]); s++) {
        const shape *at = &shapes[s];
        pair_create(&kit, &(pair_options){.n_pages = 8, .path = BATON_PATH_PUT});
        bt_tx *tx = kit.senders[0].tx;
        assert_ok(bt_tx_register(tx, source, sizeof(source), BATON_MEMORY_HOST));
        pair_tokens(1, 0, at->n_tokens, tokens);
        baton_transfer transfer = pair_begin(&kit, 0, "r", tokens, at->n_tokens, 0);
        pair_run(&kit);
        /* A second put would end it. */
        const bt_loop_faults faults = {.fail_nth_put = 2, .fail_in_call = true};
        assert_ok(bt_loop_set_faults(kit.net, BT_LOOP_ALL_LINKS, &faults));
        uint32_t n_chunks = (at->n_tokens - 1) / PAIR_CHUNK + 1;
        for (uint32_t i = 0; i < n_chunks; i++) {
            uint8_t *page = source + (size_t)at->places[i] * PAIR_PAGE_BYTES;
            const bt_tx_source from = {.data = page,
                                       .bytes = pair_chunk(tokens, at->n_tokens, i, page)};
            assert_ok(bt_tx_push(tx, transfer, i, &from));
        }
        assert_ok(bt_tx_post(tx, BT_TX_FINISH, transfer));
        bt_tx_progress(tx);
        assert_int_equal(tx->batch.n_runs, at->n_runs);
        assert_null(tx->staging);
        pair_run(&kit);
        assert_int_equal(kit.senders[0].n_done, 1);
        assert_int_equal(kit.senders[0].n_source_free, n_chunks);
        assert_int_equal(tx->peers->puts_out_bytes, 0);
        assert_int_equal(pair_check(&kit, tokens, at->n_tokens), at->n_tokens);
        pair_run(&kit);
        pair_check_clean(&kit);
        pair_destroy(&kit);
    }
}

/* Two slots, three transfers of eight chunks: nobody gets more than one chunk ahead of another. */
static void staging_slots_are_shared_by_all_that_want_them(void **state)
{
    (void)state;
    enum { N = 3, N_TOKENS = PAIR_MAX_CHUNKS * PAIR_CHUNK };
    static uint32_t prompts[N][N_TOKENS];
    pair_create(&kit, &(pair_options){.n_pages = N * PAIR_MAX_CHUNKS, .path = BATON_PATH_PUT});
    bt_tx *tx = kit.senders[0].tx;
    baton_transfer ids[N];
    for (uint32_t t = 0; t < N; t++) {
        pair_tokens(t, 0, N_TOKENS, prompts[t]);
        ids[t] = pair_begin(&kit, 0, "r", prompts[t], N_TOKENS, 0);
    }
    pair_run(&kit);
    for (uint32_t t = 0; t < N; t++)
        pair_push_all(&kit, 0, ids[t], prompts[t], N_TOKENS, data[t]);
    uint32_t n_shared = 0;
    for (uint32_t turn = 0; turn < 40; turn++) {
        bt_tx_progress(tx);
        uint32_t least = UINT32_MAX, most = 0;
        for (const bt_tx_transfer *t = tx->first; t != NULL; t = t->next) {
            least = t->n_posted < least ? t->n_posted : least;
            most = t->n_posted > most ? t->n_posted : most;
        }
        assert_true(most <= least + 1);
        n_shared += most > 0 && least < PAIR_MAX_CHUNKS;
    }
    assert_true(n_shared >= 8);
    pair_run(&kit);
    assert_int_equal(kit.senders[0].n_done, N);
    for (uint32_t t = 0; t < N; t++)
        assert_int_equal(pair_check(&kit, prompts[t], N_TOKENS), N_TOKENS);
    pair_run(&kit);
    pair_check_clean(&kit);
    pair_destroy(&kit);
}

/* The put's chunks end together: sources come back, slots are free, nothing is committed. */
static void a_failed_put_of_several_chunks_gives_all_of_them_back(void **state)
{
    (void)state;
    for (int in_call = 0; in_call <= 1; in_call++) {
        pair_create(&kit, &(pair_options){.n_pages = 8, .path = BATON_PATH_PUT});
        if (!in_call)
            bt_expect_log("connection ended");
        pair_tokens(1, 0, 5 * PAIR_CHUNK, tokens);
        baton_transfer transfer = pair_begin(&kit, 0, "r", tokens, 5 * PAIR_CHUNK, 0);
        pair_run(&kit);
        const bt_loop_faults faults = {.fail_nth_put = 2, .fail_in_call = in_call != 0};
        assert_ok(bt_loop_set_faults(kit.net, BT_LOOP_ALL_LINKS, &faults));
        pair_push_all(&kit, 0, transfer, tokens, 5 * PAIR_CHUNK, data[0]);
        pair_advance(&kit, 1000);
        assert_int_equal(kit.senders[0].n_failed, 1);
        assert_int_equal(kit.senders[0].n_source_free, 5);
        assert_int_equal(pair_check(&kit, tokens, 5 * PAIR_CHUNK) % PAIR_CHUNK, 0);
        pair_check_clean(&kit);
        pair_destroy(&kit);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(chunks_of_a_turn_are_one_put_of_few_runs),
        bt_test(staging_slots_are_shared_by_all_that_want_them),
        bt_test(a_failed_put_of_several_chunks_gives_all_of_them_back),
    };
    return bt_run_tests(tests);
}
