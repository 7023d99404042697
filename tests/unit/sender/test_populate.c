/* SPDX-License-Identifier: Apache-2.0 */
/* Mapped pages are faulted in ahead, in slices, while nothing else is to be done. */
#include "handoffkit.h"

enum {
    PAGES = 80000, /* 19.5 MiB, in nine slices and a bit */
    SLICE = 2 << 20,
};
static const uint64_t region_bytes = (uint64_t)PAGES * PAIR_PAGE_BYTES;

static uint64_t populated(void)
{
    bt_loop_stats stats;
    bt_loop_get_stats(kit.net, &stats);
    return stats.bytes_populated_total;
}

static const bt_tx_peer *peer(void)
{
    return kit.senders[0].tx->peers;
}

static void connect_sender(void)
{
    assert_ok(bt_tx_connect(kit.senders[0].tx, "127.0.0.1", 1, 2));
}

/* Turns of 10 ms until the peer is used: each of them faults in a slice at most. */
static void run_until_ready(void)
{
    uint64_t before = 0;
    for (int turn = 0; turn < 20; turn++, before = populated()) {
        pair_turn(&kit);
        assert_true(populated() - before <= SLICE);
        kit.manual.now_ns += 10 * BT_NS_PER_MS;
        if (peer() != NULL && peer()->state == BT_TX_PEER_READY)
            return;
    }
    fail_msg("the peer is not ready");
}

static uint32_t n_heartbeats;
static bool count_heartbeats(pair *k, const pair_frame *frame, const bt_message *message)
{
    (void)k;
    n_heartbeats += frame->to_receiver && message->type == BT_MSG_HEARTBEAT;
    return true;
}

static void a_large_region_takes_many_turns_and_work_goes_on_between(void **state)
{
    (void)state;
    pair_create(&kit, &(pair_options){.n_pages = PAGES, .mapped = true});
    bt_tx *tx = kit.senders[0].tx;
    connect_sender();
    run_until_ready();
    uint64_t ahead = populated();
    assert_true(ahead >= SLICE && ahead <= region_bytes - 3 * SLICE);
    /* A request is served first, and for a while after it the next one is expected. */
    pair_tokens(1, 0, 3 * PAIR_CHUNK, tokens);
    hand_off(0, "r", 3 * PAIR_CHUNK);
    assert_int_equal(kit.senders[0].n_done, 1);
    assert_int_equal(pair_check(&kit, tokens, 3 * PAIR_CHUNK), 3 * PAIR_CHUNK);
    assert_int_equal(populated(), ahead);
    /* Then the rest, with heartbeats between slices. */
    kit.filter = count_heartbeats;
    n_heartbeats = 0;
    uint32_t n_turns = 0;
    for (uint64_t before = ahead; before < region_bytes && n_turns < 100; n_turns++) {
        kit.manual.now_ns += 600 * BT_NS_PER_MS;
        uint64_t wake_ns = bt_tx_progress(tx);
        assert_true(populated() - before <= SLICE);
        if (populated() > before && populated() < region_bytes) /* and again at once */
            assert_true(wake_ns <= kit.manual.now_ns);
        pair_turn(&kit);
        before = populated();
    }
    assert_int_equal(populated(), region_bytes);
    assert_true(n_turns >= 3);
    assert_true(n_heartbeats >= n_turns);
    /* Nothing is left to do. */
    pair_advance(&kit, 100);
    assert_true(bt_tx_progress(tx) > kit.manual.now_ns);
    assert_int_equal(populated(), region_bytes);
    pair_destroy(&kit);
}

static void what_is_not_mapped_is_left_alone(void **state)
{
    (void)state;
    bt_expect_log("cannot be mapped");
    static const pair_options options[] = {
        {.n_pages = PAGES, .mapped = true, .path = BATON_PATH_PUT},
        {.n_pages = PAGES},
        {.n_pages = PAGES, .mapped = true, .probe = true}, /* it moves nothing */
    };
    for (size_t i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
        pair_create(&kit, &options[i]);
        connect_sender();
        pair_advance(&kit, 200);
        assert_int_equal(peer()->state, BT_TX_PEER_READY);
        assert_int_equal(populated(), 0);
        pair_destroy(&kit);
    }
}

static void a_new_connection_begins_anew(void **state)
{
    (void)state;
    bt_expect_log("connection ended");
    pair_create(&kit, &(pair_options){.n_pages = PAGES, .mapped = true});
    connect_sender();
    pair_advance(&kit, 200);
    assert_int_equal(populated(), region_bytes);
    bt_tx_peer_down(kit.senders[0].tx, kit.senders[0].tx->peers, BATON_ERR_TRANSPORT,
                    "by the test");
    pair_advance(&kit, 7000);
    assert_int_equal(peer()->state, BT_TX_PEER_READY);
    assert_int_equal(populated(), 2 * region_bytes);
    pair_destroy(&kit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(a_large_region_takes_many_turns_and_work_goes_on_between),
        bt_test(what_is_not_mapped_is_left_alone),
        bt_test(a_new_connection_begins_anew),
    };
    return bt_run_tests(tests);
}
