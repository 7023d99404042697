/* SPDX-License-Identifier: Apache-2.0 */
/* Pages that somebody may still write: however a transfer ends, they are used again only after
 * proof. */
#include "handoffkit.h"

#include "core/alloc.h"

static void a_cancel_at_any_point_leaves_nothing(void **state)
{
    (void)state;
    for (uint32_t when = 0; when < 5; when++) {
        pair_create(&kit, &(pair_options){.n_pages = 4, .path = BATON_PATH_PUT});
        if (when == 3)
            assert_ok(bt_loop_set_faults(kit.net, BT_LOOP_ALL_LINKS,
                                         &(bt_loop_faults){.delay_ns = 30 * BT_NS_PER_MS}));
        pair_tokens(1, 0, 3 * PAIR_CHUNK, tokens);
        uint8_t *second = data[0] + PAIR_PAGE_BYTES;
        pair_chunk(tokens, 3 * PAIR_CHUNK, 0, data[0]);
        pair_chunk(tokens, 3 * PAIR_CHUNK, 1, second);
        baton_transfer transfer = pair_begin(&kit, 0, "r", tokens, 3 * PAIR_CHUNK, 0);
        if (when >= 1)
            pair_run(&kit);
        const bt_tx_source source = {.data = data[0], .bytes = PAIR_PAGE_BYTES};
        const bt_tx_source next = {.data = second, .bytes = PAIR_PAGE_BYTES};
        if (when >= 2)
            assert_ok(bt_tx_push(kit.senders[0].tx, transfer, 0, &source));
        if (when >= 3)
            pair_run(&kit);
        if (when == 4)
            assert_ok(bt_tx_push(kit.senders[0].tx, transfer, 1, &next));
        assert_ok(bt_tx_post(kit.senders[0].tx, BT_TX_CANCEL, transfer));
        pair_run(&kit);
        if (when == 3) /* the put is still on its way: no page may be free yet */
            assert_int_equal(kit.senders[0].n_failed, 0);
        pair_advance(&kit, 1000);
        assert_int_equal(kit.senders[0].n_failed, 1);
        assert_int_equal(kit.senders[0].end.status, BATON_ERR_CANCELED);
        assert_int_equal(kit.senders[0].n_source_free, when >= 4 ? 2 : when >= 2);
        assert_fails(bt_tx_push(kit.senders[0].tx, transfer, 2, &source), BATON_ERR_NOT_FOUND,
                     "ended");
        assert_int_equal(pair_check(&kit, tokens, 3 * PAIR_CHUNK) % PAIR_CHUNK, 0);
        pair_run(&kit);
        pair_check_clean(&kit);
        pair_destroy(&kit);
    }
}

/* The classic failure: decode gives up, its pages are used again, and the old prefill still
 * writes. Here the put is stuck on its way when the proxy releases the request. */
static void a_page_with_a_late_writer_is_not_used_again(void **state)
{
    (void)state;
    pair_create(&kit, &(pair_options){.n_senders = 2, .n_pages = 2, .path = BATON_PATH_PUT});
    assert_ok(bt_loop_set_faults(kit.net, BT_LOOP_ALL_LINKS, &(bt_loop_faults){.stuck = true}));
    pair_tokens(1, 0, 2 * PAIR_CHUNK, tokens);
    baton_transfer old = pair_begin(&kit, 0, "old", tokens, 2 * PAIR_CHUNK, 0);
    pair_push_all(&kit, 0, old, tokens, 2 * PAIR_CHUNK, data[0]);
    pair_run(&kit);
    assert_ok(bt_rx_post_release(kit.rx, "old"));
    pair_advance(&kit, 600);
    baton_receiver_stats stats;
    bt_rx_get_stats(kit.rx, &stats);
    assert_int_equal(stats.pages_quarantined, 2);

    uint32_t other[2 * PAIR_CHUNK];
    pair_tokens(2, 0, 2 * PAIR_CHUNK, other);
    assert_ok(bt_loop_set_faults(kit.net, BT_LOOP_ALL_LINKS, NULL));
    baton_transfer new = pair_begin(&kit, 1, "new", other, 2 * PAIR_CHUNK, 0);
    pair_push_all(&kit, 1, new, other, 2 * PAIR_CHUNK, data[1]);
    pair_advance(&kit, 1000);
    assert_int_equal(kit.senders[1].n_done, 0); /* waits: the pages are not safe */
    bt_loop_release(kit.net, BT_LOOP_ALL_LINKS);
    pair_advance(&kit, 1000);
    assert_int_equal(kit.senders[0].n_failed, 1);
    assert_int_equal(kit.senders[0].end.status, BATON_ERR_CANCELED);
    assert_int_equal(kit.senders[1].n_done, 1);
    assert_int_equal(pair_check(&kit, other, 2 * PAIR_CHUNK), 2 * PAIR_CHUNK);
    pair_run(&kit);
    pair_check_clean(&kit);
    pair_destroy(&kit);
}

static void a_put_that_never_ends_costs_its_connection_and_no_page(void **state)
{
    (void)state;
    pair_create(&kit, &(pair_options){.n_pages = 2, .path = BATON_PATH_PUT});
    bt_expect_log("connection ended: flush: no progress");
    assert_ok(bt_loop_set_faults(kit.net, BT_LOOP_ALL_LINKS, &(bt_loop_faults){.stuck = true}));
    pair_tokens(1, 0, 2 * PAIR_CHUNK, tokens);
    hand_off(0, "r", 2 * PAIR_CHUNK);
    pair_advance(&kit, 10500);
    assert_int_equal(kit.senders[0].n_failed, 1);
    assert_int_equal(kit.senders[0].end.status, BATON_ERR_FLUSH_TIMEOUT);
    assert_int_equal(kit.senders[0].n_source_free, 2);
    pair_advance(&kit, 1000); /* INIT with a new connection number is the proof */
    pair_check_clean(&kit);
    bt_loop_release(kit.net, BT_LOOP_ALL_LINKS); /* what was under way reaches nothing */
    assert_ok(bt_loop_set_faults(kit.net, BT_LOOP_ALL_LINKS, NULL));
    hand_off(0, "again", 2 * PAIR_CHUNK);
    pair_run(&kit);
    assert_int_equal(kit.senders[0].n_done, 1);
    assert_int_equal(pair_check(&kit, tokens, 2 * PAIR_CHUNK), 2 * PAIR_CHUNK);
    pair_run(&kit);
    pair_check_clean(&kit);
    pair_destroy(&kit);
}

static void a_put_that_does_not_leave_fails_by_its_own_deadline(void **state)
{
    (void)state;
    pair_create(&kit, &(pair_options){.n_pages = 2, .path = BATON_PATH_PUT});
    bt_expect_log("connection ended: put: no progress");
    kit.senders[0].tx->options.timeouts.put_ms = 3000;
    assert_ok(bt_loop_set_faults(kit.net, BT_LOOP_ALL_LINKS, &(bt_loop_faults){.stuck = true}));
    pair_tokens(1, 0, 2 * PAIR_CHUNK, tokens);
    hand_off(0, "r", 2 * PAIR_CHUNK);
    bt_tx_transfer *transfer = kit.senders[0].tx->first;
    transfer->n_puts_out++; /* the loop's puts leave at once */
    pair_advance(&kit, 2500);
    assert_true(transfer->state < BT_TX_DRAINING);
    pair_advance(&kit, 1000);
    assert_int_equal(transfer->reason, BATON_ERR_PUT_TIMEOUT);
    assert_int_equal(kit.senders[0].n_failed, 0); /* its source may still be read */
    transfer->n_puts_out--;
    bt_tx_transfer_settle(kit.senders[0].tx, transfer);
    pair_advance(&kit, 1000);
    assert_int_equal(kit.senders[0].end.status, BATON_ERR_PUT_TIMEOUT);
    pair_check_clean(&kit);
    pair_destroy(&kit);
}

static void expect_failures(uint32_t n, baton_status last)
{
    const pair_sender *sender = &kit.senders[0];
    assert_int_equal(sender->n_failed, n);
    assert_int_equal(sender->n_notices, n);
    assert_int_equal(sender->last_notice, last);
    assert_int_equal(sender->end.status, last);
}

/* The transport does not let go of an endpoint that was closed by force: the user and the proxy
 * hear of the end in time, and only what may still be read waits for it. */
static void a_connection_that_does_not_close_keeps_nobody_waiting(void **state)
{
    (void)state;
    pair_create(&kit, &(pair_options){.n_pages = 4, .path = BATON_PATH_PUT});
    bt_expect_log("connection ended: put: no progress");
    bt_expect_log("a connection does not close");
    pair_sender *sender = &kit.senders[0];
    bt_tx *tx = sender->tx;
    baton_sender_stats stats;
    assert_ok(bt_tx_register(tx, data[0], PAIR_PAGE_BYTES, BATON_MEMORY_HOST));
    pair_tokens(1, 0, 4 * PAIR_CHUNK, tokens);
    baton_transfer transfer = pair_begin(&kit, 0, "r", tokens, 4 * PAIR_CHUNK, 0);
    pair_run(&kit);
    assert_ok(bt_loop_set_faults(kit.net, BT_LOOP_ALL_LINKS, &(bt_loop_faults){.hangs = true}));
    for (uint32_t i = 0; i < 4; i++) { /* read where it is, staged twice, and waiting for a slot */
        const bt_tx_source source = {.data = data[0] + i * PAIR_PAGE_BYTES,
                                     .bytes = PAIR_PAGE_BYTES};
        assert_ok(bt_tx_push(tx, transfer, i, &source));
    }
    pair_advance(&kit, 9900);
    assert_int_equal(sender->n_source_free, 2);
    pair_advance(&kit, 200);
    assert_int_equal(tx->peers->state, BT_TX_PEER_CLOSING);
    uint32_t other[2 * PAIR_CHUNK];
    pair_tokens(2, 0, 2 * PAIR_CHUNK, other);
    baton_transfer later = pair_begin(&kit, 0, "later", other, 2 * PAIR_CHUNK, 0);
    pair_advance(&kit, 9700);
    assert_int_equal(sender->n_failed, 0);
    pair_advance(&kit, 300);
    bt_tx_get_stats(tx, &stats);
    assert_int_equal(stats.transfers_live, 1);
    expect_failures(2, BATON_ERR_CONNECT_TIMEOUT);
    assert_int_equal(sender->end.transfer, later);
    assert_int_equal(sender->n_source_free, 3);
    const bt_tx_source late = {.data = data[0], .bytes = PAIR_PAGE_BYTES};
    assert_fails(bt_tx_push(tx, transfer, 0, &late), BATON_ERR_NOT_FOUND, "ended");
    assert_fails(bt_tx_post(tx, BT_TX_CANCEL, transfer), BATON_ERR_NOT_FOUND, "ended");

    /* Nobody else waits for it either. */
    pair_begin(&kit, 0, "at once", other, 2 * PAIR_CHUNK, 0);
    pair_run(&kit);
    expect_failures(3, BATON_ERR_CONNECT_TIMEOUT);
    pair_advance(&kit, 20000);
    assert_int_equal(sender->n_source_free, 3);

    assert_ok(bt_loop_set_faults(kit.net, BT_LOOP_ALL_LINKS, NULL));
    pair_advance(&kit, 1000);
    assert_int_equal(sender->n_source_free, 4);
    expect_failures(3, BATON_ERR_CONNECT_TIMEOUT);
    bt_tx_get_stats(tx, &stats);
    assert_int_equal(stats.transfers_live, 0);
    assert_int_equal(stats.transfers_failed_total, 3);
    assert_int_equal(stats.moves_refused_total, 0);
    hand_off(0, "again", 4 * PAIR_CHUNK);
    pair_run(&kit);
    assert_int_equal(sender->n_done, 1);
    assert_int_equal(pair_check(&kit, tokens, 4 * PAIR_CHUNK), 4 * PAIR_CHUNK);
    pair_run(&kit);
    pair_check_clean(&kit);
    pair_destroy(&kit);
}

/* Nor does it hold up the end of the sender for long, or its memory. */
static void a_sender_may_end_while_a_connection_does_not_close(void **state)
{
    (void)state;
    pair_create(&kit, &(pair_options){.n_pages = 4, .path = BATON_PATH_PUT});
    bt_expect_log("connection ended");
    bt_expect_log("a connection does not close");
    pair_tokens(1, 0, 2 * PAIR_CHUNK, tokens);
    baton_transfer transfer = pair_begin(&kit, 0, "r", tokens, 2 * PAIR_CHUNK, 0);
    pair_run(&kit);
    assert_ok(bt_loop_set_faults(kit.net, BT_LOOP_ALL_LINKS, &(bt_loop_faults){.hangs = true}));
    const bt_tx_source source = {.data = data[0], .bytes = PAIR_PAGE_BYTES};
    assert_ok(bt_tx_push(kit.senders[0].tx, transfer, 0, &source));
    pair_advance(&kit, 21000);
    assert_int_equal(kit.senders[0].n_failed, 1);
    pair_destroy(&kit);
}

/* Its bytes are on the way when the deadline passes: it waits for them, and its neighbours on the
 * same connection go on. */
static void a_deadline_in_the_middle_of_a_put_costs_no_connection(void **state)
{
    (void)state;
    pair_create(&kit, &(pair_options){.n_pages = 4, .path = BATON_PATH_PUT});
    assert_ok(bt_loop_set_faults(kit.net, BT_LOOP_ALL_LINKS, &(bt_loop_faults){.stuck = true}));
    uint32_t other[2 * PAIR_CHUNK];
    pair_tokens(2, 0, 2 * PAIR_CHUNK, other);
    baton_transfer neighbour = pair_begin(&kit, 0, "neighbour", other, 2 * PAIR_CHUNK, 0);
    pair_tokens(1, 0, 2 * PAIR_CHUNK, tokens);
    baton_transfer transfer = pair_begin(&kit, 0, "r", tokens, 2 * PAIR_CHUNK, 1000);
    pair_push_all(&kit, 0, transfer, tokens, 2 * PAIR_CHUNK, data[0]);
    pair_advance(&kit, 2000);
    assert_int_equal(kit.senders[0].n_failed, 0); /* the put may still arrive */
    bt_loop_release(kit.net, BT_LOOP_ALL_LINKS);
    assert_ok(bt_loop_set_faults(kit.net, BT_LOOP_ALL_LINKS, NULL));
    pair_push_all(&kit, 0, neighbour, other, 2 * PAIR_CHUNK, data[1]);
    pair_advance(&kit, 1000);
    assert_int_equal(kit.senders[0].n_failed, 1);
    assert_int_equal(kit.senders[0].n_done, 1);
    assert_int_equal(kit.senders[0].tx->stats.peers_lost_total, 0);
    assert_int_equal(pair_check(&kit, other, 2 * PAIR_CHUNK), 2 * PAIR_CHUNK);
    pair_run(&kit);
    pair_check_clean(&kit);
    pair_destroy(&kit);
}

/* Whatever cannot be allocated: while a put is on its way, its page is nobody else's. */
static void no_failed_allocation_frees_a_page_that_is_written(void **state)
{
    (void)state;
    bool was_in_flight = false, is_over = false;
    for (uint64_t nth = 1; !is_over; nth++) {
        assert_true(nth < 100);
        pair_create(&kit, &(pair_options){.n_pages = 2, .path = BATON_PATH_PUT});
        bt_expect_log("connection ended");
        assert_ok(bt_loop_set_faults(kit.net, BT_LOOP_ALL_LINKS, &(bt_loop_faults){.stuck = true}));
        pair_tokens(1, 0, 2 * PAIR_CHUNK, tokens);
        baton_transfer transfer = pair_begin(&kit, 0, "r", tokens, 2 * PAIR_CHUNK, 0);
        pair_run(&kit);
        pair_push_all(&kit, 0, transfer, tokens, 2 * PAIR_CHUNK, data[0]);
        bt_alloc_fail_at(nth);
        bt_tx_progress(kit.senders[0].tx);
        is_over = bt_alloc_count() < nth;
        bt_alloc_fail_at(0);
        pair_run(&kit);
        bt_loop_stats net;
        baton_receiver_stats stats;
        bt_loop_get_stats(kit.net, &net);
        bt_rx_get_stats(kit.rx, &stats);
        was_in_flight |= !is_over && net.n_in_flight > 0;
        if (net.n_in_flight > 0)
            assert_int_equal(stats.pages_free, 0);
        assert_ok(bt_loop_set_faults(kit.net, BT_LOOP_ALL_LINKS, NULL));
        bt_loop_release(kit.net, BT_LOOP_ALL_LINKS);
        pair_advance(&kit, 1000);
        /* A COMMIT that could not be sent is sent again. */
        assert_int_equal(kit.senders[0].n_done + kit.senders[0].n_failed, 1);
        assert_true(kit.senders[0].n_done == 1 || !is_over);
        assert_int_equal(kit.senders[0].n_source_free, 2);
        /* What has landed of a failed one may be found. */
        uint32_t n_found = pair_check(&kit, tokens, 2 * PAIR_CHUNK);
        assert_int_equal(n_found % PAIR_CHUNK, 0);
        assert_true(kit.senders[0].n_done == 0 || n_found == 2 * PAIR_CHUNK);
        pair_run(&kit);
        pair_check_clean(&kit);
        pair_destroy(&kit);
    }
    assert_true(was_in_flight);
}

/* A receiver that the sender has forgotten remembers more than the sender: the numbers of its
 * endpoints must not begin anew, or the proof of the next forced close would be none. */
static void an_endpoint_number_is_never_used_twice(void **state)
{
    (void)state;
    pair_create(&kit, &(pair_options){.n_pages = 4, .path = BATON_PATH_PUT});
    bt_expect_log("connection ended");
    kit.rx->options.timeouts.silent_ms = 60000;
    pair_tokens(1, 0, 2 * PAIR_CHUNK, tokens);
    for (int i = 0; i < 2; i++) {
        hand_off(0, "before", 2 * PAIR_CHUNK);
        pair_advance(&kit, 1000);
        assert_int_equal(pair_check(&kit, tokens, 2 * PAIR_CHUNK), 2 * PAIR_CHUNK);
        bt_loop_cut(kit.net, BT_LOOP_ALL_LINKS);
        pair_run(&kit);
    }
    pair_advance(&kit, 11000);
    assert_null(kit.senders[0].tx->peers);
    assert_int_equal(kit.rx->n_peers, 1);

    assert_ok(bt_loop_set_faults(kit.net, BT_LOOP_ALL_LINKS, &(bt_loop_faults){.stuck = true}));
    pair_tokens(2, 0, 2 * PAIR_CHUNK, tokens);
    baton_transfer transfer = pair_begin(&kit, 0, "r", tokens, 2 * PAIR_CHUNK, 15000);
    pair_push_all(&kit, 0, transfer, tokens, 2 * PAIR_CHUNK, data[0]);
    pair_advance(&kit, 16000);
    assert_int_equal(kit.senders[0].n_failed, 1);
    bt_loop_stats net;
    baton_receiver_stats stats;
    bt_loop_get_stats(kit.net, &net);
    bt_rx_get_stats(kit.rx, &stats);
    assert_int_equal(stats.pages_free, 2);
    assert_int_equal(net.n_in_flight, 0); /* or a late write would hit a free page */
    pair_check_clean(&kit);
    pair_destroy(&kit);
}

/* What one of two lanes carries is stuck: its chunk is not to be found, however complete the other
 * lane is. Then the lane breaks, in mid transfer: the request fails, and no page is free while a
 * byte of either lane may still come. */
static void a_lane_that_breaks_fails_the_request_and_frees_nothing_early(void **state)
{
    (void)state;
    enum { CHUNKS = 4 };
    pair_create(&kit,
                &(pair_options){.n_pages = CHUNKS, .path = BATON_PATH_PUT, .two_lanes = true});
    bt_expect_log("connection ended");
    pair_tokens(1, 0, CHUNKS * PAIR_CHUNK, tokens);
    baton_transfer transfer = pair_begin(&kit, 0, "r", tokens, CHUNKS * PAIR_CHUNK, 0);
    pair_run(&kit);
    assert_ok(
        bt_loop_set_faults(kit.second_lane, BT_LOOP_ALL_LINKS, &(bt_loop_faults){.stuck = true}));
    for (uint32_t i = 0; i < CHUNKS; i++) { /* one by one, so that the lanes take turns */
        uint8_t *chunk = data[0] + i * PAIR_PAGE_BYTES;
        pair_chunk(tokens, CHUNKS * PAIR_CHUNK, i, chunk);
        const bt_tx_source source = {.data = chunk, .bytes = PAIR_PAGE_BYTES};
        assert_ok(bt_tx_push(kit.senders[0].tx, transfer, i, &source));
        pair_run(&kit);
    }
    assert_ok(bt_tx_post(kit.senders[0].tx, BT_TX_FINISH, transfer));
    pair_run(&kit);
    bt_loop_stats first, second;
    bt_loop_get_stats(kit.net, &first);
    bt_loop_get_stats(kit.second_lane, &second);
    assert_true(first.runs_delivered_total > 0 && second.n_in_flight > 0);
    assert_int_equal(kit.n_ready + kit.senders[0].n_done, 0);
    assert_true(pair_check(&kit, tokens, CHUNKS * PAIR_CHUNK) < CHUNKS * PAIR_CHUNK);

    bt_loop_cut(kit.second_lane, BT_LOOP_ALL_LINKS);
    bool was_waited_for = false;
    for (int i = 0; i < 400 && kit.rx->n_tickets > 0; i++) {
        pair_run(&kit);
        baton_receiver_stats stats;
        bt_loop_get_stats(kit.second_lane, &second);
        bt_rx_get_stats(kit.rx, &stats);
        was_waited_for = was_waited_for || second.n_in_flight > 0;
        if (second.n_in_flight > 0)
            assert_int_equal(stats.pages_free, 0);
        kit.manual.now_ns += 50 * BT_NS_PER_MS;
    }
    assert_true(was_waited_for);
    assert_int_equal(kit.senders[0].n_failed, 1);
    assert_true(kit.senders[0].end.status < 0);
    assert_int_equal(second.n_in_flight, 0);
    assert_ok(bt_loop_set_faults(kit.second_lane, BT_LOOP_ALL_LINKS, NULL));
    pair_run(&kit);
    pair_check_clean(&kit);
    pair_destroy(&kit);
}

/* The grant is late, and the ticket has been revoked and given back meanwhile: it must not be
 * written any more, its page may be another's. */
static void a_grant_behind_its_revoke_is_not_written(void **state)
{
    (void)state;
    pair_create(&kit, &(pair_options){.n_pages = 2, .path = BATON_PATH_PUT});
    late_grant.bytes = 0;
    kit.filter = hold_the_grant;
    pair_tokens(1, 0, 2 * PAIR_CHUNK, tokens);
    baton_transfer transfer = pair_begin(&kit, 0, "r", tokens, 2 * PAIR_CHUNK, 0);
    pair_push_all(&kit, 0, transfer, tokens, 2 * PAIR_CHUNK, data[0]);
    pair_run(&kit);
    assert_true(late_grant.bytes > 0);
    assert_ok(bt_rx_post_release(kit.rx, "r"));
    pair_advance(&kit, 600);
    baton_receiver_stats stats;
    bt_rx_get_stats(kit.rx, &stats);
    assert_int_equal(stats.pages_free, 2); /* given back */
    kit.filter_count = 1;
    kit.frames[kit.n_frames++] = late_grant;
    pair_run(&kit);
    bt_loop_stats net;
    bt_loop_get_stats(kit.net, &net);
    assert_int_equal(net.runs_delivered_total, 0);
    assert_int_equal(kit.senders[0].n_failed, 1);
    assert_int_equal(kit.senders[0].end.status, BATON_ERR_CANCELED);
    pair_check_clean(&kit);
    pair_destroy(&kit);
}

/* "Failed, and the reason is success" is not believed. */
static void a_revoke_without_a_reason_is_no_success(void **state)
{
    (void)state;
    pair_create(&kit, &(pair_options){.n_pages = 2, .path = BATON_PATH_PUT});
    pair_tokens(1, 0, 2 * PAIR_CHUNK, tokens);
    pair_begin(&kit, 0, "r", tokens, 2 * PAIR_CHUNK, 0);
    pair_run(&kit);
    const bt_rx_ticket *ticket = kit.rx->first_ticket;
    bt_message revoke = {.type = BT_MSG_REVOKE,
                         .peer_epoch = kit.senders[0].tx->epoch,
                         .u.end.name = {.ticket = ticket->id, .generation = ticket->generation}};
    bt_rx_send(kit.rx, BT_RX_ALLOC_PORT, &kit.senders[0].routes[BT_RX_ALLOC_PORT], &revoke);
    pair_run(&kit);
    assert_int_equal(kit.senders[0].n_done, 0);
    assert_int_equal(kit.senders[0].end.status, BATON_ERR_REVOKED);
    pair_run(&kit);
    assert_int_equal(kit.senders[0].last_notice, BATON_ERR_REVOKED);
    pair_destroy(&kit);
}

/* Of another receiver's life, or meant for another sender's: counted, and nothing else. */
static void a_revoke_of_another_epoch_changes_nothing(void **state)
{
    (void)state;
    pair_create(&kit, &(pair_options){.n_pages = 2, .path = BATON_PATH_PUT});
    pair_tokens(1, 0, 2 * PAIR_CHUNK, tokens);
    baton_transfer transfer = pair_begin(&kit, 0, "r", tokens, 2 * PAIR_CHUNK, 0);
    pair_run(&kit);
    const bt_rx_ticket *ticket = kit.rx->first_ticket;
    const bt_rx_route *route = &kit.senders[0].routes[BT_RX_ALLOC_PORT];
    for (int i = 0; i < 2; i++) {
        uint64_t mine = kit.rx->epoch, theirs = kit.senders[0].tx->epoch;
        bt_message revoke = {
            .type = BT_MSG_REVOKE,
            .peer_epoch = i == 0 ? theirs : theirs ^ 1,
            .u.end = {.name = {.ticket = ticket->id, .generation = ticket->generation},
                      .reason = BATON_ERR_CANCELED}};
        kit.rx->epoch = i == 0 ? mine ^ 1 : mine;
        bt_rx_send(kit.rx, BT_RX_ALLOC_PORT, route, &revoke);
        kit.rx->epoch = mine;
        pair_run(&kit);
        assert_int_equal(kit.senders[0].tx->stats.messages_stale_total, i + 1);
    }
    pair_push_all(&kit, 0, transfer, tokens, 2 * PAIR_CHUNK, data[0]);
    pair_run(&kit);
    assert_int_equal(kit.senders[0].n_done, 1);
    pair_destroy(&kit);
}

/* In place of the real grant, one of a page that its region does not have, or of fewer chunks than
 * were asked for. */
static bool forges_fewer_chunks;
static bool forge_a_grant(pair *k, const pair_frame *frame, const bt_message *message)
{
    (void)frame;
    if (message->type != BT_MSG_ALLOC_ANSWER || k->filter_count++ != 0)
        return true;
    bt_message forged = *message;
    uint32_t count = forges_fewer_chunks ? 1 : 2;
    const bt_page_run run = {.count = count, .generation = k->rx->regions[0].generation, .page = 1};
    forged.u.alloc_answer.n_chunks = count;
    forged.u.alloc_answer.runs = &run;
    forged.u.alloc_answer.n_runs = 1;
    bt_rx_send(k->rx, BT_RX_ALLOC_PORT, &k->senders[0].routes[BT_RX_ALLOC_PORT], &forged);
    return false;
}

static void a_grant_that_cannot_be_is_not_written(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        forges_fewer_chunks = i >= 2;
        pair_create(&kit, &(pair_options){.n_pages = 2,
                                          .mapped = i % 2 != 0,
                                          .path = i % 2 != 0 ? BATON_PATH_AUTO : BATON_PATH_PUT});
        kit.filter = forge_a_grant;
        pair_tokens(1, 0, 2 * PAIR_CHUNK, tokens);
        hand_off(0, "r", 2 * PAIR_CHUNK); /* pages 1 and 2 of 2 */
        assert_int_equal(kit.senders[0].n_failed, 1);
        assert_int_equal(kit.senders[0].end.status, BATON_ERR_BAD_MESSAGE);
        assert_int_equal(kit.senders[0].n_source_free, 2);
        pair_run(&kit);
        pair_check_clean(&kit);
        pair_destroy(&kit);
    }
}

/* More pages than lie where its key is for. */
static bool forge_a_region(pair *k, const pair_frame *frame, const bt_message *message)
{
    (void)frame;
    if (message->type != BT_MSG_MEMREG_ANSWER || k->filter_count++ != 0)
        return true;
    bt_message forged = *message;
    forged.u.memreg_answer.regions[0].n_pages++;
    bt_rx_send(k->rx, BT_RX_INIT_PORT, &k->senders[0].routes[BT_RX_INIT_PORT], &forged);
    return false;
}

static void a_region_beyond_its_key_is_not_used(void **state)
{
    (void)state;
    pair_create(&kit, &(pair_options){.n_pages = 2, .path = BATON_PATH_PUT});
    bt_expect_log("region 0 lies outside of what its key is for");
    kit.filter = forge_a_region;
    pair_tokens(1, 0, 2 * PAIR_CHUNK, tokens);
    hand_off(0, "r", 2 * PAIR_CHUNK);
    assert_int_equal(kit.senders[0].n_failed, 1);
    assert_int_equal(kit.senders[0].end.status, BATON_ERR_BAD_MESSAGE);
    pair_destroy(&kit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(a_cancel_at_any_point_leaves_nothing),
        bt_test(a_page_with_a_late_writer_is_not_used_again),
        bt_test(a_put_that_never_ends_costs_its_connection_and_no_page),
        bt_test(a_put_that_does_not_leave_fails_by_its_own_deadline),
        bt_test(a_connection_that_does_not_close_keeps_nobody_waiting),
        bt_test(a_sender_may_end_while_a_connection_does_not_close),
        bt_test(a_deadline_in_the_middle_of_a_put_costs_no_connection),
        bt_test(no_failed_allocation_frees_a_page_that_is_written),
        bt_test(an_endpoint_number_is_never_used_twice),
        bt_test(a_lane_that_breaks_fails_the_request_and_frees_nothing_early),
        bt_test(a_grant_behind_its_revoke_is_not_written),
        bt_test(a_revoke_without_a_reason_is_no_success),
        bt_test(a_revoke_of_another_epoch_changes_nothing),
        bt_test(a_grant_that_cannot_be_is_not_written),
        bt_test(a_region_beyond_its_key_is_not_used),
    };
    return bt_run_tests(tests);
}
