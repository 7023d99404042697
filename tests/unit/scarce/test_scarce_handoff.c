/* SPDX-License-Identifier: Apache-2.0 */
/* A whole hand-off, from connecting to unpinning, with each of its allocations failing in turn: it
 * is done or fails once, nothing is held in the end, and the next one works. */
#include "pairkit.h"

#include "core/alloc.h"

enum {
    N_TOKENS = 3 * PAIR_CHUNK + 5,
    N_CHUNKS = 4,
    SETTLE_STEPS = 400,
    SETTLE_STEP_MS = 1000,
    MAX_ALLOCS = 5000
};

static pair kit;
static uint8_t data[N_CHUNKS * PAIR_PAGE_BYTES];
static uint32_t n_refused; /* calls of the user's that failed at once */

static baton_status begin(const uint32_t *tokens, baton_transfer *transfer)
{
    bt_tx *tx = kit.senders[0].tx;
    baton_key keys[N_CHUNKS];
    uint32_t n_keys, last;
    assert_ok(baton_keys_of_tokens(&tx->root, tokens, N_TOKENS, keys, N_CHUNKS, &n_keys, &last));
    const baton_transfer_options options = {.request = "r",
                                            .host = "127.0.0.1",
                                            .init_port = 1,
                                            .alloc_port = 2,
                                            .keys = keys,
                                            .n_chunks = n_keys,
                                            .last_tokens = last,
                                            .deadline_ms = 20000};
    return bt_tx_begin(tx, &options, transfer);
}

/* Returns true when a call of ours failed; it must be for want of memory. */
static bool refused(baton_status status)
{
    if (status == BATON_OK || status == BATON_ERR_NOT_FOUND) /* it has ended meanwhile */
        return false;
    assert_int_equal(status, BATON_ERR_NO_MEMORY);
    n_refused++;
    return true;
}

/* As an engine does; what it cannot push, it cancels. Returns the number of pushes. */
static uint32_t hand_off(const uint32_t *tokens)
{
    bt_tx *tx = kit.senders[0].tx;
    baton_transfer transfer;
    uint32_t n_pushed = 0;
    if (refused(begin(tokens, &transfer)))
        return 0;
    pair_run(&kit);
    bool must_cancel = false;
    for (uint32_t i = 0; i < N_CHUNKS && !must_cancel; i++) {
        uint8_t *at = data + (size_t)i * PAIR_PAGE_BYTES;
        const bt_tx_source source = {.data = at, .bytes = pair_chunk(tokens, N_TOKENS, i, at)};
        baton_status status = bt_tx_push(tx, transfer, i, &source);
        n_pushed += status == BATON_OK;
        must_cancel = refused(status);
        pair_run(&kit);
    }
    if (must_cancel || refused(bt_tx_post(tx, BT_TX_FINISH, transfer)))
        (void)refused(bt_tx_post(tx, BT_TX_CANCEL, transfer));
    pair_run(&kit);
    return n_pushed;
}

static void look_up(const uint32_t *tokens)
{
    baton_pin *pin = NULL;
    uint32_t n_matched = 0;
    if (!refused(bt_rx_lookup(kit.rx, tokens, N_TOKENS, &pin, &n_matched)) && pin != NULL)
        assert_ok(bt_rx_unpin(kit.rx, pin));
}

static bool is_settled(void)
{
    baton_receiver_stats rx;
    bt_rx_get_stats(kit.rx, &rx);
    return kit.senders[0].tx->first == NULL && rx.tickets_live == 0 && rx.holds_live == 0 &&
           rx.pages_reserved == 0 && rx.pages_quarantined == 0;
}

/* Deadlines and leases run out, at the latest. */
static void settle(void)
{
    pair_run(&kit);
    for (int i = 0; i < SETTLE_STEPS && !is_settled(); i++)
        pair_advance(&kit, SETTLE_STEP_MS);
}

/* True when the nth allocation was reached. */
static bool try_without(const pair_options *options, uint64_t nth)
{
    uint32_t tokens[N_TOKENS], other[N_TOKENS];
    pair_create(&kit, options);
    pair_sender *sender = &kit.senders[0];
    pair_tokens(1, 0, N_TOKENS, tokens);
    pair_tokens(2, 0, N_TOKENS, other);
    bt_alloc_fail_at(nth);
    (void)refused(bt_tx_connect(sender->tx, "127.0.0.1", 1, 2));
    uint32_t n_begun_before = n_refused, n_pushed = hand_off(tokens);
    bool has_begun = n_pushed > 0 || n_refused == n_begun_before;
    look_up(tokens);
    bool was_reached = bt_alloc_count() >= nth;
    bt_alloc_fail_at(0);

    settle();
    assert_int_equal(sender->n_done + sender->n_failed, has_begun || sender->n_failed > 0);
    assert_int_equal(sender->n_source_free, n_pushed);
    pair_check_clean(&kit);
    uint32_t n_done = sender->n_done;
    assert_int_equal(hand_off(other), N_CHUNKS);
    settle(); /* its connection may have to wait for its turn to be made again */
    assert_int_equal(sender->n_done, n_done + 1);
    assert_int_equal(pair_check(&kit, other, N_TOKENS), N_TOKENS);
    pair_destroy(&kit);
    return was_reached;
}

static void check(const pair_options *options)
{
    uint64_t nth = 1;
    bt_expect_log("");
    while (try_without(options, nth))
        assert_true(++nth < MAX_ALLOCS);
    assert_true(nth > 10);
}

static void over_put(void **state)
{
    (void)state;
    check(&(pair_options){.n_pages = 8, .path = BATON_PATH_PUT});
}

static void into_mapped_pages(void **state)
{
    (void)state;
    check(&(pair_options){.n_pages = 8, .mapped = true});
}

static void with_rings(void **state)
{
    (void)state;
    check(&(pair_options){.n_pages = 8, .mapped = true, .rings = true});
}

static void with_digests_and_flushes(void **state)
{
    (void)state;
    check(&(pair_options){
        .n_pages = 8, .digests = BATON_DIGESTS_FULL, .commit = BATON_COMMIT_SOCKET});
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(over_put),
        bt_test(into_mapped_pages),
        bt_test(with_rings),
        bt_test(with_digests_and_flushes),
    };
    return bt_run_tests(tests);
}
