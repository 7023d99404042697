/* SPDX-License-Identifier: Apache-2.0 */
/* A request's way from begin to decode, and everything that can go wrong on it. */
#include "pairkit.h"

#include "core/alloc.h"

static pair kit;
static uint8_t data[PAIR_MAX_SENDERS][PAIR_MAX_CHUNKS * PAIR_PAGE_BYTES];
static uint32_t tokens[PAIR_MAX_CHUNKS * PAIR_CHUNK];

static void hand_off(uint32_t sender, const char *request, uint32_t n)
{
    baton_transfer transfer = pair_begin(&kit, sender, request, tokens, n, 0);
    pair_push_all(&kit, sender, transfer, tokens, n, data[sender]);
    pair_run(&kit);
}

static void every_length_arrives_on_every_path(void **state)
{
    (void)state;
    static const pair_options paths[] = {
        {.n_pages = 8, .path = BATON_PATH_PUT},
        {.n_pages = 8, .mapped = true},
        {.n_pages = 8, .path = BATON_PATH_PUT, .digests = BATON_DIGESTS_FULL, .n_regions = 3},
        {.n_pages = 8, .mapped = true, .digests = BATON_DIGESTS_FULL},
    };
    for (size_t p = 0; p < sizeof(paths) / sizeof(paths[0]); p++) {
        pair_create(&kit, &paths[p]);
        pair_sender *sender = &kit.senders[0];
        uint32_t n_chunks = 0;
        for (uint32_t n = 1; n <= 5 * PAIR_CHUNK; n++) {
            pair_tokens(n, 0, n + 1, tokens);
            hand_off(0, "r", n);
            n_chunks += (n - 1) / PAIR_CHUNK + 1;
            assert_int_equal(sender->n_done, n);
            assert_int_equal(sender->n_source_free, n_chunks);
            assert_int_equal(kit.n_ready, n);
            assert_int_equal(kit.rx->n_held, 1);
            /* decode-first asks with n tokens, early first token with n + 1 */
            assert_int_equal(pair_check(&kit, tokens, n + n % 2), n);
            pair_run(&kit);
            pair_check_clean(&kit);
        }
        assert_int_equal(sender->n_notices, 5 * PAIR_CHUNK);
        assert_int_equal(sender->last_notice, BATON_OK);
        pair_destroy(&kit);
    }
}

static void chunks_that_are_there_are_not_sent_again(void **state)
{
    (void)state;
    pair_create(&kit, &(pair_options){.n_pages = 8, .path = BATON_PATH_PUT});
    pair_tokens(1, 2 * PAIR_CHUNK, 3 * PAIR_CHUNK, tokens);
    hand_off(0, "a", 3 * PAIR_CHUNK);
    assert_int_equal(kit.senders[0].end.sent_chunks, 3);
    pair_tokens(2, 2 * PAIR_CHUNK, 3 * PAIR_CHUNK, tokens);
    hand_off(0, "b", 3 * PAIR_CHUNK);
    assert_int_equal(kit.senders[0].end.sent_chunks, 1);
    assert_int_equal(kit.senders[0].end.present_chunks, 2);
    hand_off(0, "c", 3 * PAIR_CHUNK); /* all there */
    assert_int_equal(kit.senders[0].end.sent_chunks, 0);
    assert_int_equal(kit.senders[0].n_source_free, 9);
    /* b and c hold the same prompt: each lookup ends one */
    assert_int_equal(kit.rx->n_held, 3);
    assert_int_equal(pair_check(&kit, tokens, 3 * PAIR_CHUNK), 3 * PAIR_CHUNK);
    pair_run(&kit);
    assert_int_equal(kit.rx->n_held, 2);
    assert_int_equal(pair_check(&kit, tokens, 3 * PAIR_CHUNK), 3 * PAIR_CHUNK);
    pair_tokens(1, 2 * PAIR_CHUNK, 3 * PAIR_CHUNK, tokens);
    assert_int_equal(pair_check(&kit, tokens, 3 * PAIR_CHUNK), 3 * PAIR_CHUNK);
    pair_run(&kit);
    pair_check_clean(&kit);
    pair_destroy(&kit);
}

static void repeated_frames_change_nothing(void **state)
{
    (void)state;
    pair_create(&kit, &(pair_options){.n_pages = 4, .path = BATON_PATH_PUT});
    kit.n_duplicates = 2;
    for (uint32_t n = 1; n <= 3 * PAIR_CHUNK; n++) {
        pair_tokens(n, 0, n, tokens);
        hand_off(0, "r", n);
        assert_int_equal(kit.senders[0].n_done, n);
        assert_int_equal(kit.n_ready, n);
        assert_int_equal(pair_check(&kit, tokens, n), n);
    }
    pair_run(&kit);
    pair_check_clean(&kit);
    pair_destroy(&kit);
}

static bool lose_first_of_each_type(pair *k, const pair_frame *frame, const bt_message *message)
{
    (void)frame;
    uint32_t bit = 1u << message->type;
    bool pass = (k->filter_count & bit) != 0;
    k->filter_count |= bit;
    return pass;
}

static void every_lost_message_is_said_again(void **state)
{
    (void)state;
    pair_create(&kit, &(pair_options){.n_pages = 4, .path = BATON_PATH_PUT});
    kit.filter = lose_first_of_each_type;
    pair_tokens(1, 0, 2 * PAIR_CHUNK, tokens);
    hand_off(0, "r", 2 * PAIR_CHUNK);
    pair_advance(&kit, 4000);
    assert_int_equal(kit.senders[0].n_done, 1);
    assert_int_equal(kit.n_ready, 1);
    assert_int_equal(kit.rx->stats.tickets_granted_total, 1);
    assert_int_equal(pair_check(&kit, tokens, 2 * PAIR_CHUNK), 2 * PAIR_CHUNK);
    pair_run(&kit);
    pair_check_clean(&kit);
    pair_destroy(&kit);
}

static void requests_wait_for_pages_in_order(void **state)
{
    (void)state;
    pair_create(&kit, &(pair_options){.n_senders = 3, .n_pages = 4, .path = BATON_PATH_PUT});
    uint32_t prompts[3][4 * PAIR_CHUNK], sizes[3] = {3 * PAIR_CHUNK, 4 * PAIR_CHUNK, PAIR_CHUNK};
    baton_transfer transfers[3];
    for (uint32_t i = 0; i < 3; i++) {
        pair_tokens(i, 0, sizes[i], prompts[i]);
        transfers[i] = pair_begin(&kit, i, "r", prompts[i], sizes[i], 0);
        pair_run(&kit);
    }
    /* The second is large and waits; the third would fit but must not overtake it. */
    assert_int_equal(kit.rx->n_queued, 2);
    for (uint32_t i = 0; i < 3; i++) {
        pair_push_all(&kit, i, transfers[i], prompts[i], sizes[i], data[i]);
        pair_run(&kit);
        assert_int_equal(kit.senders[i].n_done, 1);
        assert_int_equal(pair_check(&kit, prompts[i], sizes[i]), sizes[i]);
        pair_run(&kit);
    }
    pair_check_clean(&kit);
    pair_destroy(&kit);
}

static void a_request_larger_than_the_pool_is_refused_with_both_numbers(void **state)
{
    (void)state;
    pair_create(&kit, &(pair_options){.n_pages = 2, .path = BATON_PATH_PUT});
    pair_tokens(1, 0, 3 * PAIR_CHUNK, tokens);
    hand_off(0, "r", 3 * PAIR_CHUNK);
    assert_int_equal(kit.senders[0].n_failed, 1);
    assert_int_equal(kit.senders[0].end.status, BATON_ERR_TOO_LARGE);
    assert_non_null(strstr(kit.senders[0].end.text, "wanted 3 pages, the whole pool has 2"));
    assert_int_equal(kit.senders[0].n_source_free, 3);
    assert_int_equal(kit.senders[0].last_notice, BATON_ERR_TOO_LARGE);
    pair_check_clean(&kit);
    pair_destroy(&kit);
}

static void a_cancel_at_any_point_leaves_nothing(void **state)
{
    (void)state;
    for (uint32_t when = 0; when < 5; when++) {
        pair_create(&kit, &(pair_options){.n_pages = 4, .path = BATON_PATH_PUT});
        if (when == 3)
            assert_ok(bt_loop_set_faults(kit.net, BT_LOOP_ALL_LINKS,
                                         &(bt_loop_faults){.delay_ns = 30 * BT_NS_PER_MS}));
        pair_tokens(1, 0, 3 * PAIR_CHUNK, tokens);
        baton_transfer transfer = pair_begin(&kit, 0, "r", tokens, 3 * PAIR_CHUNK, 0);
        if (when >= 1)
            pair_run(&kit);
        const bt_tx_source source = {.data = data[0], .bytes = PAIR_PAGE_BYTES};
        if (when >= 2)
            assert_ok(bt_tx_push(kit.senders[0].tx, transfer, 0, &source));
        if (when >= 3)
            pair_run(&kit);
        if (when == 4)
            assert_ok(bt_tx_push(kit.senders[0].tx, transfer, 1, &source));
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
    assert_int_equal(transfer->state, BT_TX_MOVING);
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

static void a_deadline_ends_a_transfer_that_waits_for_chunks(void **state)
{
    (void)state;
    pair_create(&kit, &(pair_options){.n_pages = 4, .path = BATON_PATH_PUT});
    pair_tokens(1, 0, 2 * PAIR_CHUNK, tokens);
    pair_begin(&kit, 0, "r", tokens, 2 * PAIR_CHUNK, 2000);
    pair_advance(&kit, 3000);
    assert_int_equal(kit.senders[0].n_failed, 1);
    assert_int_equal(kit.senders[0].end.status, BATON_ERR_DEADLINE);
    pair_check_clean(&kit);
    pair_destroy(&kit);
}

static bool lose_what_says_it_is_over(pair *k, const pair_frame *frame, const bt_message *message)
{
    (void)frame;
    return message->type != (k->filter_count == 0 ? BT_MSG_REVOKE : BT_MSG_INIT);
}

/* While its chunks are awaited, and while there is no connection: nobody has to tell the sender. */
static void a_deadline_needs_no_word_from_the_receiver(void **state)
{
    (void)state;
    for (uint32_t lost = 0; lost <= 1; lost++) {
        pair_create(&kit, &(pair_options){.n_pages = 4, .path = BATON_PATH_PUT});
        kit.filter = lose_what_says_it_is_over;
        kit.filter_count = lost;
        pair_tokens(1, 0, 2 * PAIR_CHUNK, tokens);
        pair_begin(&kit, 0, "r", tokens, 2 * PAIR_CHUNK, 2000);
        pair_advance(&kit, 1900);
        assert_int_equal(kit.senders[0].n_failed, 0);
        pair_advance(&kit, 300);
        assert_int_equal(kit.senders[0].n_failed, 1);
        assert_int_equal(kit.senders[0].end.status, BATON_ERR_DEADLINE);
        pair_destroy(&kit);
    }
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
        bt_loop_release(kit.net, BT_LOOP_ALL_LINKS);
        pair_advance(&kit, 1000);
        assert_int_equal(kit.senders[0].n_done, is_over);
        assert_int_equal(kit.senders[0].n_failed, !is_over);
        assert_int_equal(kit.senders[0].n_source_free, 2);
        assert_int_equal(pair_check(&kit, tokens, 2 * PAIR_CHUNK), is_over ? 2 * PAIR_CHUNK : 0);
        pair_run(&kit);
        pair_check_clean(&kit);
        pair_destroy(&kit);
    }
    assert_true(was_in_flight);
}

static pair_frame late_grant;
static bool hold_the_grant(pair *k, const pair_frame *frame, const bt_message *message)
{
    if (message->type == BT_MSG_ALLOC_ANSWER && k->filter_count == 0) {
        late_grant = *frame;
        return false;
    }
    return !frame->to_receiver || message->type != BT_MSG_ALLOC || late_grant.bytes == 0;
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

/* The answer to the final COMMIT is lost, decode has come and gone, and a heartbeat learns that the
 * ticket is no more: that is no failure. */
static bool lose_commit_answers(pair *k, const pair_frame *frame, const bt_message *message)
{
    (void)frame;
    return message->type != BT_MSG_COMMIT_ANSWER || k->filter_count == 0;
}

static void a_request_that_decode_took_before_its_commit_was_answered_is_done(void **state)
{
    (void)state;
    pair_create(&kit, &(pair_options){.n_pages = 4, .path = BATON_PATH_PUT});
    kit.filter = lose_commit_answers;
    kit.filter_count = 1;
    pair_tokens(1, 0, 2 * PAIR_CHUNK, tokens);
    hand_off(0, "r", 2 * PAIR_CHUNK);
    assert_int_equal(kit.n_ready, 1);
    assert_int_equal(pair_check(&kit, tokens, 2 * PAIR_CHUNK), 2 * PAIR_CHUNK);
    pair_advance(&kit, 1200); /* heartbeats */
    assert_int_equal(kit.senders[0].n_failed, 0);
    kit.filter_count = 0;
    pair_advance(&kit, 2000);
    assert_int_equal(kit.senders[0].n_done, 1);
    pair_check_clean(&kit);
    pair_destroy(&kit);
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

/* A queued request that is canceled leaves the queue at once: the next gets its turn. */
static void a_canceled_request_leaves_the_queue(void **state)
{
    (void)state;
    pair_create(&kit, &(pair_options){.n_senders = 2, .n_pages = 2, .path = BATON_PATH_PUT});
    uint32_t other[2 * PAIR_CHUNK];
    pair_tokens(1, 0, 2 * PAIR_CHUNK, tokens);
    baton_transfer first = pair_begin(&kit, 0, "first", tokens, 2 * PAIR_CHUNK, 0);
    pair_run(&kit);
    pair_tokens(2, 0, 2 * PAIR_CHUNK, other);
    baton_transfer waiting = pair_begin(&kit, 1, "waiting", other, 2 * PAIR_CHUNK, 0);
    pair_run(&kit);
    assert_int_equal(kit.rx->n_queued, 1);
    assert_ok(bt_tx_post(kit.senders[1].tx, BT_TX_CANCEL, waiting));
    pair_run(&kit);
    assert_int_equal(kit.senders[1].n_failed, 1);
    assert_int_equal(kit.rx->n_queued, 0);
    assert_int_equal(kit.rx->stats.messages_stale_total, 0);
    assert_ok(bt_tx_post(kit.senders[0].tx, BT_TX_CANCEL, first));
    pair_run(&kit);
    pair_check_clean(&kit);
    pair_destroy(&kit);
}

static void a_queued_request_fails_by_its_deadline_and_says_so(void **state)
{
    (void)state;
    pair_create(&kit, &(pair_options){.n_senders = 2, .n_pages = 2, .path = BATON_PATH_PUT});
    pair_tokens(1, 0, 2 * PAIR_CHUNK, tokens);
    pair_begin(&kit, 0, "first", tokens, 2 * PAIR_CHUNK, 0);
    pair_run(&kit);
    pair_tokens(2, 0, 2 * PAIR_CHUNK, tokens);
    pair_begin(&kit, 1, "waiting", tokens, 2 * PAIR_CHUNK, 6000);
    pair_advance(&kit, 7000);
    assert_int_equal(kit.senders[1].n_failed, 1);
    assert_int_equal(kit.senders[1].end.status, BATON_ERR_DEADLINE);
    assert_int_equal(kit.rx->n_queued, 0);
    pair_destroy(&kit);
}

/* The grant is lost and the proxy gives the request up: what fails is that request, and not the
 * connection with all that moves on it. */
static bool lose_grants_of_the_second(pair *k, const pair_frame *frame, const bt_message *message)
{
    (void)frame;
    bool is_grant = message->type == BT_MSG_ALLOC_ANSWER && message->status == BATON_OK;
    return !is_grant || message->u.alloc_answer.ticket != k->filter_count;
}

static void a_request_that_ended_before_its_grant_fails_alone(void **state)
{
    (void)state;
    pair_create(&kit, &(pair_options){.n_pages = 4, .path = BATON_PATH_PUT});
    kit.filter = lose_grants_of_the_second;
    kit.filter_count = 2; /* the ticket */
    uint32_t other[2 * PAIR_CHUNK];
    pair_tokens(1, 0, 2 * PAIR_CHUNK, tokens);
    baton_transfer first = pair_begin(&kit, 0, "first", tokens, 2 * PAIR_CHUNK, 0);
    pair_run(&kit);
    pair_tokens(2, 0, 2 * PAIR_CHUNK, other);
    pair_begin(&kit, 0, "second", other, 2 * PAIR_CHUNK, 0);
    pair_run(&kit);
    assert_ok(bt_rx_post_release(kit.rx, "second"));
    pair_advance(&kit, 3000);
    assert_int_equal(kit.senders[0].n_failed, 1);
    assert_int_equal(kit.senders[0].end.status, BATON_ERR_CANCELED);
    pair_push_all(&kit, 0, first, tokens, 2 * PAIR_CHUNK, data[0]);
    pair_run(&kit);
    assert_int_equal(kit.senders[0].n_done, 1);
    assert_int_equal(kit.senders[0].tx->stats.peers_lost_total, 0);
    assert_int_equal(pair_check(&kit, tokens, 2 * PAIR_CHUNK), 2 * PAIR_CHUNK);
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

/* The transfer ends while the push of a chunk is still waiting to be seen. */
static void a_push_behind_a_cancel_gets_its_source_back(void **state)
{
    (void)state;
    pair_create(&kit, &(pair_options){.n_pages = 2, .path = BATON_PATH_PUT});
    pair_tokens(1, 0, 2 * PAIR_CHUNK, tokens);
    baton_transfer transfer = pair_begin(&kit, 0, "r", tokens, 2 * PAIR_CHUNK, 0);
    pair_run(&kit);
    const bt_tx_source source = {.data = data[0], .bytes = PAIR_PAGE_BYTES};
    assert_ok(bt_tx_post(kit.senders[0].tx, BT_TX_CANCEL, transfer));
    for (uint32_t i = 0; i < 2; i++)
        assert_ok(bt_tx_push(kit.senders[0].tx, transfer, i, &source));
    pair_run(&kit);
    assert_int_equal(kit.senders[0].n_failed, 1);
    assert_int_equal(kit.senders[0].n_source_free, 2);
    assert_int_equal(kit.senders[0].events[0].kind, BATON_SENDER_SOURCE_FREE); /* not after */
    assert_int_equal(kit.senders[0].events[2].kind, BATON_SENDER_FAILED);
    pair_check_clean(&kit);
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
        pair_create(&kit, &(pair_options){.n_pages = 2, .mapped = i % 2 != 0});
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

/* A chunk that turns out to be present counts once, pushed before or not. */
static void a_chunk_pushed_too_early_hides_no_missing_one(void **state)
{
    (void)state;
    pair_create(&kit, &(pair_options){.n_pages = 8, .path = BATON_PATH_PUT});
    pair_tokens(1, 2 * PAIR_CHUNK, 2 * PAIR_CHUNK, tokens);
    hand_off(0, "before", 2 * PAIR_CHUNK);
    pair_tokens(2, 2 * PAIR_CHUNK, 4 * PAIR_CHUNK, tokens);
    baton_transfer transfer = pair_begin(&kit, 0, "r", tokens, 4 * PAIR_CHUNK, 0);
    const bt_tx_source source = {.data = data[1], .bytes = PAIR_PAGE_BYTES};
    for (uint32_t i = 0; i < 2; i++)
        assert_ok(bt_tx_push(kit.senders[0].tx, transfer, i, &source));
    assert_ok(bt_tx_post(kit.senders[0].tx, BT_TX_FINISH, transfer));
    pair_advance(&kit, 200);
    assert_int_equal(kit.senders[0].n_failed, 1);
    assert_int_equal(kit.senders[0].end.status, BATON_ERR_STATE);
    assert_non_null(strstr(kit.senders[0].end.text, "chunk 2 of 4 was never pushed"));
    pair_destroy(&kit);
}

static void a_chunk_that_was_never_pushed_fails_the_transfer(void **state)
{
    (void)state;
    pair_create(&kit, &(pair_options){.n_pages = 4, .path = BATON_PATH_PUT});
    pair_tokens(1, 0, 3 * PAIR_CHUNK, tokens);
    baton_transfer transfer = pair_begin(&kit, 0, "r", tokens, 3 * PAIR_CHUNK, 0);
    const bt_tx_source source = {.data = data[0], .bytes = PAIR_PAGE_BYTES};
    assert_ok(bt_tx_push(kit.senders[0].tx, transfer, 2, &source));
    assert_ok(bt_tx_post(kit.senders[0].tx, BT_TX_FINISH, transfer));
    pair_advance(&kit, 200);
    assert_int_equal(kit.senders[0].n_failed, 1);
    assert_int_equal(kit.senders[0].end.status, BATON_ERR_STATE);
    assert_non_null(strstr(kit.senders[0].end.text, "chunk 0 of 3 was never pushed"));
    pair_run(&kit);
    pair_check_clean(&kit);
    pair_destroy(&kit);
}

/* A chunk that was pushed and then turned out to be there is no excuse for one that was not. */
static void a_chunk_that_is_missing_is_noticed_beside_one_that_was_there(void **state)
{
    (void)state;
    pair_create(&kit, &(pair_options){.n_pages = 8, .path = BATON_PATH_PUT});
    pair_tokens(1, PAIR_CHUNK, 3 * PAIR_CHUNK, tokens);
    hand_off(0, "a", 3 * PAIR_CHUNK);
    pair_tokens(2, PAIR_CHUNK, 3 * PAIR_CHUNK, tokens);
    baton_transfer transfer = pair_begin(&kit, 0, "b", tokens, 3 * PAIR_CHUNK, 0);
    const bt_tx_source source = {.data = data[0], .bytes = PAIR_PAGE_BYTES};
    for (uint32_t i = 0; i < 2; i++)
        assert_ok(bt_tx_push(kit.senders[0].tx, transfer, i, &source));
    assert_ok(bt_tx_post(kit.senders[0].tx, BT_TX_FINISH, transfer));
    pair_advance(&kit, 200);
    assert_int_equal(kit.senders[0].n_failed, 1);
    assert_int_equal(kit.senders[0].end.status, BATON_ERR_STATE);
    assert_int_equal(kit.senders[0].n_source_free, 3 + 2);
    pair_destroy(&kit);
}

static void a_hold_that_nobody_wants_expires_and_is_told(void **state)
{
    (void)state;
    pair_create(&kit, &(pair_options){.n_pages = 4, .path = BATON_PATH_PUT});
    pair_tokens(1, 0, 2 * PAIR_CHUNK, tokens);
    hand_off(0, "r", 2 * PAIR_CHUNK);
    pair_advance(&kit, 29000);
    assert_int_equal(kit.n_expired, 0);
    pair_advance(&kit, 1100);
    assert_int_equal(kit.n_expired, 1);
    assert_int_equal(kit.receiver_notice, BATON_ERR_LEASE_EXPIRED);
    pair_check_clean(&kit);
    pair_destroy(&kit);
}

/* Damages page 1 after it has landed and before its COMMIT is looked at. */
static bool damage_before_commit(pair *k, const pair_frame *frame, const bt_message *message)
{
    if (frame->to_receiver && message->type == BT_MSG_COMMIT && k->filter_count++ == 0)
        ((uint8_t *)k->rx->regions[0].memory->base)[5] ^= 1;
    return true;
}

static void a_damaged_chunk_is_refused_with_digests_and_served_without(void **state)
{
    (void)state;
    for (int digests = BATON_DIGESTS_OFF; digests <= BATON_DIGESTS_FULL; digests++) {
        pair_create(&kit, &(pair_options){.n_pages = 4,
                                          .path = BATON_PATH_PUT,
                                          .digests = (baton_digests)digests});
        kit.filter = damage_before_commit;
        if (digests)
            bt_expect_log("digest of chunk 0");
        pair_tokens(1, 0, 2 * PAIR_CHUNK, tokens);
        hand_off(0, "r", 2 * PAIR_CHUNK);
        pair_advance(&kit, 1000);
        uint32_t n_matched;
        assert_ok(bt_rx_peek(kit.rx, tokens, 2 * PAIR_CHUNK, &n_matched));
        if (digests) {
            assert_int_equal(kit.senders[0].n_failed, 1);
            assert_int_equal(kit.senders[0].end.status, BATON_ERR_DIGEST_MISMATCH);
            assert_int_equal(kit.last_event.status, BATON_ERR_DIGEST_MISMATCH);
            assert_int_equal(n_matched, 0);
            pair_check_clean(&kit);
        } else { /* the negative control: nothing else would have noticed */
            assert_int_equal(kit.senders[0].n_done, 1);
            assert_int_equal(n_matched, 2 * PAIR_CHUNK);
        }
        pair_destroy(&kit);
    }
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

/* Everything at once, seeded: lost and repeated frames, delays, cancels, small pool. Whatever is
 * done arrived right, every transfer ends once, nothing is left. */
static bool lose_some(pair *k, const pair_frame *frame, const bt_message *message)
{
    (void)frame, (void)message;
    bt_rng rng = {.state = 1000 + k->filter_count++};
    return bt_rng_below(&rng, 10) != 0;
}

static void a_storm_leaves_nothing_behind(void **state)
{
    (void)state;
    enum { STEPS = 150, SLOTS = 12 };
    static uint32_t prompts[SLOTS][PAIR_MAX_CHUNKS * PAIR_CHUNK];
    static uint8_t sources[SLOTS][PAIR_MAX_CHUNKS * PAIR_PAGE_BYTES];
    bt_expect_log("connection ended");
    bt_expect_log("expired");
    for (uint64_t seed = 1; seed <= 3; seed++) {
        bt_rng rng = {.state = seed};
        pair_create(&kit, &(pair_options){.n_senders = 3,
                                          .n_pages = 6,
                                          .n_regions = 2,
                                          .digests = BATON_DIGESTS_FULL,
                                          .path = BATON_PATH_PUT});
        kit.filter = lose_some;
        kit.filter_count = (uint32_t)seed << 16;
        assert_ok(
            bt_loop_set_faults(kit.net, BT_LOOP_ALL_LINKS,
                               &(bt_loop_faults){.jitter_ns = 20 * BT_NS_PER_MS, .reorder = true}));
        uint32_t n_begun = 0;
        for (uint32_t step = 0; step < STEPS; step++) {
            uint32_t slot = step % SLOTS, sender = (uint32_t)bt_rng_below(&rng, 3);
            uint32_t n = 1 + (uint32_t)bt_rng_below(&rng, 5 * PAIR_CHUNK);
            /* a slot's buffers are used again only after everything of it has ended */
            if (slot == 0)
                pair_advance(&kit, 8000);
            pair_tokens((uint32_t)bt_rng_below(&rng, 6), 2 * PAIR_CHUNK, n, prompts[slot]);
            baton_transfer transfer = pair_begin(&kit, sender, "storm", prompts[slot], n, 5000);
            n_begun++;
            pair_push_all(&kit, sender, transfer, prompts[slot], n, sources[slot]);
            if (bt_rng_below(&rng, 5) == 0)
                assert_ok(bt_tx_post(kit.senders[sender].tx, BT_TX_CANCEL, transfer));
            pair_advance(&kit, bt_rng_below(&rng, 60));
            pair_check(&kit, prompts[bt_rng_below(&rng, slot + 1)], 1);
            pair_check(&kit, prompts[slot], n);
        }
        pair_advance(&kit, 40000);
        uint32_t n_ended = 0;
        for (uint32_t i = 0; i < 3; i++)
            n_ended += kit.senders[i].n_done + kit.senders[i].n_failed;
        assert_int_equal(n_ended, n_begun);
        pair_check_clean(&kit);
        pair_destroy(&kit);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(every_length_arrives_on_every_path),
        bt_test(chunks_that_are_there_are_not_sent_again),
        bt_test(a_chunk_that_is_missing_is_noticed_beside_one_that_was_there),
        bt_test(repeated_frames_change_nothing),
        bt_test(every_lost_message_is_said_again),
        bt_test(requests_wait_for_pages_in_order),
        bt_test(a_request_larger_than_the_pool_is_refused_with_both_numbers),
        bt_test(a_cancel_at_any_point_leaves_nothing),
        bt_test(a_page_with_a_late_writer_is_not_used_again),
        bt_test(a_put_that_never_ends_costs_its_connection_and_no_page),
        bt_test(a_put_that_does_not_leave_fails_by_its_own_deadline),
        bt_test(a_receiver_that_goes_silent_fails_the_transfer_in_time),
        bt_test(a_sender_that_was_silent_gives_the_pages_back_unasked),
        bt_test(a_receiver_that_never_comes_back_is_forgotten),
        bt_test(a_sender_may_end_while_a_connection_is_being_closed),
        bt_test(a_deadline_ends_a_transfer_that_waits_for_chunks),
        bt_test(a_deadline_needs_no_word_from_the_receiver),
        bt_test(a_deadline_in_the_middle_of_a_put_costs_no_connection),
        bt_test(no_failed_allocation_frees_a_page_that_is_written),
        bt_test(a_sender_that_was_cut_off_gives_the_pages_back),
        bt_test(a_ticket_that_no_heartbeat_names_is_taken_back),
        bt_test(an_endpoint_number_is_never_used_twice),
        bt_test(a_failed_allocation_while_connecting_is_survived),
        bt_test(a_request_that_decode_took_before_its_commit_was_answered_is_done),
        bt_test(heartbeats_name_every_ticket),
        bt_test(a_canceled_request_leaves_the_queue),
        bt_test(a_queued_request_fails_by_its_deadline_and_says_so),
        bt_test(a_request_that_ended_before_its_grant_fails_alone),
        bt_test(a_grant_behind_its_revoke_is_not_written),
        bt_test(a_revoke_without_a_reason_is_no_success),
        bt_test(a_revoke_of_another_epoch_changes_nothing),
        bt_test(a_push_behind_a_cancel_gets_its_source_back),
        bt_test(a_grant_that_cannot_be_is_not_written),
        bt_test(a_chunk_pushed_too_early_hides_no_missing_one),
        bt_test(a_chunk_that_was_never_pushed_fails_the_transfer),
        bt_test(a_hold_that_nobody_wants_expires_and_is_told),
        bt_test(a_receiver_that_restarts_is_connected_again),
        bt_test(a_broken_connection_fails_what_moves_and_nothing_twice),
        bt_test(a_storm_leaves_nothing_behind),
        bt_test(a_damaged_chunk_is_refused_with_digests_and_served_without),
    };
    return bt_run_tests(tests);
}
