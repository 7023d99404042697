/* SPDX-License-Identifier: Apache-2.0 */
/* A transfer fails in the middle: whoever tries again sends what has not landed, and no more. */
#include "handoffkit.h"

enum { CHUNKS = 6, LANDED = 3 };

static const pair_options paths[] = {
    {.n_senders = 2, .n_pages = 8, .path = BATON_PATH_PUT},
    {.n_senders = 2, .n_pages = 8, .path = BATON_PATH_PUT, .digests = BATON_DIGESTS_FULL},
    {.n_senders = 2, .n_pages = 8, .path = BATON_PATH_PUT, .commit = BATON_COMMIT_SOCKET},
    {.n_senders = 2, .n_pages = 8, .mapped = true},
    {.n_senders = 2, .n_pages = 8, .mapped = true, .digests = BATON_DIGESTS_FULL},
};
enum { N_PATHS = sizeof(paths) / sizeof(paths[0]), LAST_PUT = 2 };

static void push(baton_transfer transfer, uint32_t chunk)
{
    uint8_t *at = data[0] + chunk * PAIR_PAGE_BYTES;
    const bt_tx_source source = {.data = at,
                                 .bytes = pair_chunk(tokens, CHUNKS * PAIR_CHUNK, chunk, at)};
    assert_ok(bt_tx_push(kit.senders[0].tx, transfer, chunk, &source));
}

static baton_transfer begin(const pair_options *options)
{
    pair_create(&kit, options);
    pair_tokens(1, 0, CHUNKS * PAIR_CHUNK, tokens);
    baton_transfer transfer = pair_begin(&kit, 0, "first", tokens, CHUNKS * PAIR_CHUNK, 0);
    pair_run(&kit);
    return transfer;
}

/* The retry of this sender has n chunks there already, and its prompt is whole afterwards. */
static void check_retry(uint32_t sender, uint32_t n)
{
    assert_int_equal(kit.senders[0].n_done, 0);
    hand_off(sender, "again", CHUNKS * PAIR_CHUNK);
    assert_int_equal(kit.senders[sender].n_done, 1);
    assert_int_equal(kit.senders[sender].end.present_chunks, n);
    assert_int_equal(kit.senders[sender].end.sent_chunks, CHUNKS - n);
    assert_int_equal(pair_check(&kit, tokens, CHUNKS * PAIR_CHUNK), CHUNKS * PAIR_CHUNK);
    pair_run(&kit);
    pair_check_clean(&kit);
    pair_destroy(&kit);
}

static void a_canceled_transfer_is_resumed_by_the_same_and_by_another_sender(void **state)
{
    (void)state;
    for (size_t p = 0; p < N_PATHS; p++) {
        for (uint32_t again = 0; again < 2; again++) {
            baton_transfer transfer = begin(&paths[p]);
            for (uint32_t i = 0; i < LANDED; i++)
                push(transfer, i);
            pair_run(&kit);
            assert_ok(bt_tx_post(kit.senders[0].tx, BT_TX_CANCEL, transfer));
            pair_run(&kit);
            assert_int_equal(kit.senders[0].n_failed, 1);
            check_retry(again, LANDED);
        }
    }
}

/* COMMIT waits for more chunks when there are some on their way: those that had landed by then are
 * told of when the transfer fails, before its pages are given back. */
static void what_landed_just_before_the_failure_is_not_lost(void **state)
{
    (void)state;
    for (size_t p = LAST_PUT + 1; p < N_PATHS; p++) {
        baton_transfer transfer = begin(&paths[p]);
        const baton_kv_shape shape = {
            .n_layers = 1, .n_blocks = 4, .block_tokens = 4, .n_kv_heads = 1, .head_bytes = 16};
        void *layer = data[1];
        baton_kv_plane plane;
        baton_kv_view view;
        static const uint32_t blocks[] = {3, 4}; /* of 0 to 3 */
        assert_ok(baton_kv_view_flash(&shape, &layer, &plane, &view));
        for (uint32_t i = 0; i < LANDED; i++)
            push(transfer, i);
        const bt_tx_source bad = {
            .view = &view, .tokens = {.blocks = blocks, .n_blocks = 2, .n_tokens = PAIR_CHUNK}};
        assert_ok(bt_tx_push(kit.senders[0].tx, transfer, LANDED, &bad));
        pair_run(&kit);
        assert_int_equal(kit.senders[0].n_failed, 1);
        assert_int_equal(kit.senders[0].end.status, BATON_ERR_OUT_OF_RANGE);
        check_retry(1, LANDED);
    }
}

/* Puts that were under way when the transfer failed have landed when it ends. */
static void puts_that_land_after_the_failure_are_kept(void **state)
{
    (void)state;
    for (size_t p = 0; p <= LAST_PUT; p++) {
        baton_transfer transfer = begin(&paths[p]);
        assert_ok(bt_loop_set_faults(kit.net, BT_LOOP_ALL_LINKS, &(bt_loop_faults){.stuck = true}));
        for (uint32_t i = 0; i < LANDED; i++)
            push(transfer, i);
        pair_run(&kit);
        assert_ok(bt_tx_post(kit.senders[0].tx, BT_TX_CANCEL, transfer));
        pair_run(&kit);
        assert_int_equal(kit.senders[0].n_failed, 0); /* its bytes are on their way */
        assert_int_equal(pair_check(&kit, tokens, CHUNKS * PAIR_CHUNK), 0);
        assert_ok(bt_loop_set_faults(kit.net, BT_LOOP_ALL_LINKS, NULL));
        bt_loop_release(kit.net, BT_LOOP_ALL_LINKS);
        pair_run(&kit);
        assert_int_equal(kit.senders[0].n_failed, 1);
        check_retry(1, LANDED);
    }
}

static bool first_sender_is_gone(pair *k, const pair_frame *frame, const bt_message *message)
{
    (void)k, (void)message;
    return frame->sender != 0;
}

/* It was killed: what it had committed stays, and another one goes on. */
static void a_sender_that_has_exited_is_replaced_by_another(void **state)
{
    (void)state;
    for (size_t p = 0; p < N_PATHS; p++) {
        bt_expect_log("the peer's worker is gone");
        baton_transfer transfer = begin(&paths[p]);
        for (uint32_t i = 0; i < LANDED; i++)
            push(transfer, i);
        pair_run(&kit);
        kit.filter = first_sender_is_gone;
        bt_rx_peer_exited(kit.rx, kit.rx->first_ticket->peer);
        pair_run(&kit);
        check_retry(1, LANDED);
    }
}

/* A page whose digest was wrong is no cache. */
static void a_damaged_chunk_is_sent_again(void **state)
{
    (void)state;
    for (size_t p = 1; p < N_PATHS; p += 3) { /* with digests */
        bt_expect_log("digest of chunk 0");
        baton_transfer transfer = begin(&paths[p]);
        kit.senders[0].tx->options.spoil_byte = true;
        for (uint32_t i = 0; i < LANDED; i++)
            push(transfer, i);
        pair_run(&kit);
        assert_int_equal(kit.senders[0].n_failed, 1);
        assert_int_equal(kit.senders[0].end.status, BATON_ERR_DIGEST_MISMATCH);
        pair_advance(&kit, 1000);
        check_retry(1, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(a_canceled_transfer_is_resumed_by_the_same_and_by_another_sender),
        bt_test(what_landed_just_before_the_failure_is_not_lost),
        bt_test(puts_that_land_after_the_failure_are_kept),
        bt_test(a_sender_that_has_exited_is_replaced_by_another),
        bt_test(a_damaged_chunk_is_sent_again),
    };
    return bt_run_tests(tests);
}
