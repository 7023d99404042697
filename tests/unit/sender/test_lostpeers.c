/* SPDX-License-Identifier: Apache-2.0 */
/* Connections, receivers and senders that go silent, restart or never come back. */
#include "handoffkit.h"

#include "core/alloc.h"

static void a_receiver_that_goes_silent_fails_the_transfer_in_time(void **state)
{
    (void)state;
    pair_create(&kit, &(pair_options){.n_pages = 4, .path = BATON_PATH_PUT});
    bt_expect_log("nothing heard");
    bt_expect_log("no answer to INIT");
    pair_tokens(1, 0, 2 * PAIR_CHUNK, tokens);
    pair_begin(&kit, 0, "r", tokens, 2 * PAIR_CHUNK, 0);
    pair_run(&kit);
    kit.receiver_is_cut = true;
    pair_advance(&kit, 5100);
    assert_int_equal(kit.senders[0].n_failed, 1);
    assert_int_equal(kit.senders[0].end.status, BATON_ERR_PEER_SILENT);
    /* the receiver finds out too; this host's sender could still write mapped: quarantine */
    baton_receiver_stats stats;
    bt_rx_get_stats(kit.rx, &stats);
    assert_int_equal(stats.pages_quarantined, 2);
    kit.receiver_is_cut = false;
    baton_transfer again = pair_begin(&kit, 0, "again", tokens, 2 * PAIR_CHUNK, 0);
    pair_push_all(&kit, 0, again, tokens, 2 * PAIR_CHUNK, data[0]);
    pair_advance(&kit, 6000);
    assert_int_equal(kit.senders[0].n_done, 1);
    assert_int_equal(pair_check(&kit, tokens, 2 * PAIR_CHUNK), 2 * PAIR_CHUNK);
    pair_run(&kit);
    pair_check_clean(&kit);
    pair_destroy(&kit);
}

/* A sender that was stopped goes on after both sides have given each other up. It wrote nothing at
 * the time, wants nothing more from this receiver, and still owes it the proof. */
static void a_sender_that_was_silent_gives_the_pages_back_unasked(void **state)
{
    (void)state;
    pair_create(&kit, &(pair_options){.n_pages = 4, .path = BATON_PATH_PUT});
    bt_expect_log("nothing heard");
    bt_expect_log("no answer to INIT");
    pair_tokens(1, 0, 2 * PAIR_CHUNK, tokens);
    pair_begin(&kit, 0, "r", tokens, 2 * PAIR_CHUNK, 0);
    pair_run(&kit);
    kit.receiver_is_cut = true;
    pair_advance(&kit, 6000);
    assert_int_equal(kit.senders[0].n_failed, 1);
    baton_receiver_stats stats;
    bt_rx_get_stats(kit.rx, &stats);
    assert_int_equal(stats.pages_quarantined, 2);
    kit.receiver_is_cut = false;
    pair_advance(&kit, 6000);
    pair_check_clean(&kit);
    pair_destroy(&kit);
}

/* But not for ever to one that is not there any more. */
static void a_receiver_that_never_comes_back_is_forgotten(void **state)
{
    (void)state;
    pair_create(&kit, &(pair_options){.n_pages = 4, .path = BATON_PATH_PUT});
    bt_expect_log("nothing heard");
    bt_expect_log("no answer to INIT");
    bt_expect_log("never proven done");
    bt_expect_log("region with retired pages replaced");
    pair_tokens(1, 0, 2 * PAIR_CHUNK, tokens);
    pair_begin(&kit, 0, "r", tokens, 2 * PAIR_CHUNK, 0);
    pair_run(&kit);
    kit.receiver_is_cut = true;
    pair_advance(&kit, 100000);
    assert_null(kit.senders[0].tx->peers);
    pair_destroy(&kit);
}

static void a_sender_may_end_while_a_connection_is_being_closed(void **state)
{
    (void)state;
    pair_create(&kit, &(pair_options){.n_pages = 4, .path = BATON_PATH_PUT});
    bt_expect_log("connection ended");
    pair_tokens(1, 0, 2 * PAIR_CHUNK, tokens);
    pair_begin(&kit, 0, "r", tokens, 2 * PAIR_CHUNK, 0);
    pair_run(&kit);
    bt_tx *tx = kit.senders[0].tx;
    kit.receiver_is_cut = true;
    kit.manual.now_ns += 6 * BT_NS_PER_S; /* silent for too long */
    bt_tx_progress(tx);
    assert_int_equal(tx->peers->state, BT_TX_PEER_CLOSING);
    pair_destroy(&kit);
}

/* Nothing is moving when the two lose sight of each other, and nobody wants anything afterwards:
 * the sender comes back nevertheless, because only its word gives the receiver the pages back. */
static void a_sender_that_was_cut_off_gives_the_pages_back(void **state)
{
    (void)state;
    for (int granted = 0; granted <= 1; granted++) {
        pair_create(&kit, &(pair_options){.n_pages = 2, .path = BATON_PATH_PUT});
        bt_expect_log("connection ended");
        kit.filter = granted ? NULL : hold_the_grant; /* the sender may not even know of them */
        kit.filter_count = 0;
        late_grant.bytes = 0;
        pair_tokens(1, 0, 2 * PAIR_CHUNK, tokens);
        pair_begin(&kit, 0, "r", tokens, 2 * PAIR_CHUNK, 0);
        pair_run(&kit);
        kit.receiver_is_cut = true;
        pair_advance(&kit, 5500);
        assert_int_equal(kit.senders[0].n_failed, 1);
        kit.receiver_is_cut = false;
        pair_advance(&kit, 12000);
        pair_check_clean(&kit);
        assert_int_equal(kit.rx->stats.messages_dropped_total, 0);
        baton_receiver_stats stats;
        bt_rx_get_stats(kit.rx, &stats);
        assert_int_equal(stats.pages_free, 2);
        pair_destroy(&kit);
    }
}

/* The grant gets lost, and so does the sender's word that it does not want it any more: a ticket
 * that no heartbeat names is nobody's, long before the request's own deadline. */
static bool lose_grants_and_releases(pair *k, const pair_frame *frame, const bt_message *message)
{
    (void)k, (void)frame;
    return message->type != BT_MSG_ALLOC_ANSWER && message->type != BT_MSG_RELEASE;
}

static void a_ticket_that_no_heartbeat_names_is_taken_back(void **state)
{
    (void)state;
    pair_create(&kit, &(pair_options){.n_senders = 2, .n_pages = 4, .path = BATON_PATH_PUT});
    uint32_t other[2 * PAIR_CHUNK];
    pair_tokens(1, 0, 2 * PAIR_CHUNK, other);
    baton_transfer named = pair_begin(&kit, 1, "named", other, 2 * PAIR_CHUNK, 0);
    pair_run(&kit);
    kit.filter = lose_grants_and_releases;
    pair_tokens(2, 0, 2 * PAIR_CHUNK, tokens);
    baton_transfer lost = pair_begin(&kit, 0, "lost", tokens, 2 * PAIR_CHUNK, 0);
    pair_run(&kit);
    assert_ok(bt_tx_post(kit.senders[0].tx, BT_TX_CANCEL, lost));
    pair_advance(&kit, 12000);
    baton_receiver_stats stats;
    bt_rx_get_stats(kit.rx, &stats);
    assert_int_equal(stats.pages_reserved, 2); /* of the other one, which waits for its engine */
    assert_int_equal(stats.pages_free, 2);
    kit.filter = NULL;
    pair_push_all(&kit, 1, named, other, 2 * PAIR_CHUNK, data[1]);
    pair_run(&kit);
    assert_int_equal(kit.senders[1].n_done, 1);
    assert_int_equal(pair_check(&kit, other, 2 * PAIR_CHUNK), 2 * PAIR_CHUNK);
    pair_run(&kit);
    pair_check_clean(&kit);
    pair_destroy(&kit);
}

static void a_failed_allocation_while_connecting_is_survived(void **state)
{
    (void)state;
    bool is_over = false;
    for (uint64_t nth = 1; !is_over; nth++) {
        assert_true(nth < 200);
        pair_create(&kit, &(pair_options){.n_pages = 4, .path = BATON_PATH_PUT});
        bt_expect_log("connection ended");
        bt_expect_log("peer refused");
        bt_expect_log("not sent");
        pair_tokens(1, 0, 2 * PAIR_CHUNK, tokens);
        baton_transfer transfer = pair_begin(&kit, 0, "r", tokens, 2 * PAIR_CHUNK, 0);
        pair_push_all(&kit, 0, transfer, tokens, 2 * PAIR_CHUNK, data[0]);
        bt_alloc_fail_at(nth);
        pair_run(&kit);
        is_over = bt_alloc_count() < nth;
        bt_alloc_fail_at(0);
        pair_advance(&kit, 6000);
        assert_int_equal(kit.senders[0].n_done + kit.senders[0].n_failed, 1);
        hand_off(0, "again", 2 * PAIR_CHUNK);
        pair_advance(&kit, 6000);
        assert_int_equal(kit.senders[0].n_done + kit.senders[0].n_failed, 2);
        assert_in_range(kit.senders[0].n_done, 1, 2);
        for (int i = 0; i < 2; i++) {
            assert_int_equal(pair_check(&kit, tokens, 2 * PAIR_CHUNK), 2 * PAIR_CHUNK);
            pair_run(&kit);
        }
        pair_check_clean(&kit);
        pair_destroy(&kit);
    }
}

/* Every ticket is spoken of, also beyond what one HEARTBEAT holds: the one that the receiver has no
 * more is the last of them. */
static void heartbeats_name_every_ticket(void **state)
{
    (void)state;
    enum { N = BT_HEARTBEAT_TICKETS_MAX + 2 };
    pair_create(&kit, &(pair_options){.n_pages = 2, .path = BATON_PATH_PUT});
    kit.rx->options.max_queued = N;
    pair_tokens(1, 0, 2 * PAIR_CHUNK, tokens);
    for (uint32_t i = 0; i < N; i++) {
        pair_begin(&kit, 0, "r", tokens, 2 * PAIR_CHUNK, 0);
        if (i % 50 == 0 || i == N - 1)
            pair_run(&kit);
    }
    assert_int_equal(kit.rx->n_tickets, N);
    for (bt_tx_pending *p = kit.senders[0].tx->pending; p != NULL; p = p->next)
        p->again_ns = BT_NEVER_NS; /* the bus does not hold so many */
    const bt_rx_peer *peer = kit.rx->last_ticket->peer;
    kit.rx->last_ticket->peer = NULL; /* as if it were another's */
    for (int i = 0; i < 12; i++) {
        kit.manual.now_ns += 50 * BT_NS_PER_MS;
        pair_run(&kit);
    }
    assert_int_equal(kit.senders[0].n_failed, 1);
    assert_int_equal(kit.senders[0].end.status, BATON_ERR_STALE);
    kit.rx->last_ticket->peer = (bt_rx_peer *)(uintptr_t)peer;
    pair_destroy(&kit);
}

static void a_receiver_that_restarts_is_connected_again(void **state)
{
    (void)state;
    for (int moving = 0; moving <= 1; moving++) {
        const pair_options options = {.n_pages = 4, .path = BATON_PATH_PUT};
        pair_create(&kit, &options);
        bt_expect_log("connection ended");
        pair_tokens(1, 0, 2 * PAIR_CHUNK, tokens);
        if (moving) {
            pair_begin(&kit, 0, "lost", tokens, 2 * PAIR_CHUNK, 0);
        } else {
            hand_off(0, "done", 2 * PAIR_CHUNK);
            assert_int_equal(kit.senders[0].n_done, 1);
        }
        pair_run(&kit);
        pair_restart_receiver(&kit, &options);
        pair_advance(&kit, 1000);
        hand_off(0, "again", 2 * PAIR_CHUNK);
        pair_advance(&kit, 2000);
        assert_int_equal(kit.senders[0].n_failed, moving);
        assert_int_equal(kit.senders[0].n_done, 2 - moving);
        assert_int_equal(pair_check(&kit, tokens, 2 * PAIR_CHUNK), 2 * PAIR_CHUNK);
        pair_run(&kit);
        pair_check_clean(&kit);
        pair_destroy(&kit);
    }
}

/* One connection, transfers in every state, and it breaks. */
static void a_broken_connection_fails_what_moves_and_nothing_twice(void **state)
{
    (void)state;
    pair_create(&kit, &(pair_options){.n_pages = 4, .path = BATON_PATH_PUT});
    bt_expect_log("connection ended");
    bt_tx *tx = kit.senders[0].tx;
    pair_tokens(1, 0, 2 * PAIR_CHUNK, tokens);
    baton_transfer moving = pair_begin(&kit, 0, "moving", tokens, 2 * PAIR_CHUNK, 0);
    pair_run(&kit);
    assert_ok(bt_loop_set_faults(kit.net, BT_LOOP_ALL_LINKS,
                                 &(bt_loop_faults){.delay_ns = 100 * BT_NS_PER_MS}));
    const bt_tx_source source = {.data = data[0], .bytes = PAIR_PAGE_BYTES};
    assert_ok(bt_tx_push(tx, moving, 0, &source));
    for (uint32_t i = 0; i < 3; i++) { /* these wait for pages */
        pair_tokens(2 + i, 0, 3 * PAIR_CHUNK, tokens);
        pair_begin(&kit, 0, "waiting", tokens, 3 * PAIR_CHUNK, 0);
    }
    pair_run(&kit);
    assert_int_equal(kit.rx->n_queued, 3);
    bt_loop_cut(kit.net, BT_LOOP_ALL_LINKS);
    assert_ok(bt_tx_push(tx, moving, 1, &source));
    pair_advance(&kit, 1000);
    assert_int_equal(kit.senders[0].n_failed, 4);
    assert_int_equal(kit.senders[0].n_source_free, 2);
    assert_ok(bt_loop_set_faults(kit.net, BT_LOOP_ALL_LINKS, NULL));
    hand_off(0, "again", 2 * PAIR_CHUNK);
    pair_advance(&kit, 1000);
    assert_int_equal(kit.senders[0].n_done, 1);
    assert_int_equal(pair_check(&kit, tokens, 2 * PAIR_CHUNK), 2 * PAIR_CHUNK);
    pair_run(&kit);
    pair_check_clean(&kit);
    pair_destroy(&kit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(a_receiver_that_goes_silent_fails_the_transfer_in_time),
        bt_test(a_sender_that_was_silent_gives_the_pages_back_unasked),
        bt_test(a_receiver_that_never_comes_back_is_forgotten),
        bt_test(a_sender_may_end_while_a_connection_is_being_closed),
        bt_test(a_sender_that_was_cut_off_gives_the_pages_back),
        bt_test(a_ticket_that_no_heartbeat_names_is_taken_back),
        bt_test(a_failed_allocation_while_connecting_is_survived),
        bt_test(heartbeats_name_every_ticket),
        bt_test(a_receiver_that_restarts_is_connected_again),
        bt_test(a_broken_connection_fails_what_moves_and_nothing_twice),
    };
    return bt_run_tests(tests);
}
