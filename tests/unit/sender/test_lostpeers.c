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

/* Where its process cannot be watched, a receiver whose connections are closed and not made anew is
 * gone after two heartbeats; one that answers, or is merely slow, is not. */
static void a_receiver_elsewhere_that_hangs_up_is_gone(void **state)
{
    (void)state;
    for (int is_elsewhere = 0; is_elsewhere <= 1; is_elsewhere++) {
        pair_create(&kit, &(pair_options){.n_pages = 4, .path = BATON_PATH_PUT});
        bt_expect_log("connection ended");
        bt_expect_log("no answer to INIT");
        kit.rx->self.boot[0] ^= (char)is_elsewhere;
        pair_tokens(1, 0, 2 * PAIR_CHUNK, tokens);
        pair_begin(&kit, 0, "r", tokens, 2 * PAIR_CHUNK, 0);
        pair_run(&kit);
        kit.receiver_has_hung_up = true; /* and is heard over new connections */
        pair_advance(&kit, 3000);
        assert_int_equal(kit.senders[0].n_failed, 0);
        kit.receiver_has_hung_up = false;
        kit.receiver_is_cut = true;
        uint64_t heard_ns = kit.senders[0].tx->peers->last_heard_ns;
        pair_advance(&kit, 950 - (kit.manual.now_ns - heard_ns) / BT_NS_PER_MS);
        kit.receiver_has_hung_up = true; /* two heartbeats are not missing yet */
        pair_run(&kit);
        assert_int_equal(kit.senders[0].n_failed, 0);
        kit.receiver_has_hung_up = false; /* stopped */
        pair_advance(&kit, 1000);
        assert_int_equal(kit.senders[0].n_failed, 0);
        kit.receiver_has_hung_up = true;
        pair_advance(&kit, 50);
        assert_int_equal(kit.senders[0].n_failed, is_elsewhere);
        pair_advance(&kit, 5000); /* where its process is watched, silence decides */
        assert_int_equal(kit.senders[0].n_failed, 1);
        assert_int_equal(kit.senders[0].end.status,
                         is_elsewhere ? BATON_ERR_UNREACHABLE : BATON_ERR_PEER_SILENT);
        kit.receiver_has_hung_up = kit.receiver_is_cut = false;
        pair_advance(&kit, 12000); /* its word that nothing is written any more is still owed */
        pair_check_clean(&kit);
        pair_destroy(&kit);
    }
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

/* 50 ms, doubling to 5 s, a quarter more or less; and no two senders wait equally long. */
static void attempts_back_off_up_to_a_limit(void **state)
{
    (void)state;
    enum { ATTEMPTS = 12, LIMIT_MS = 5000 };
    pair_create(&kit, &(pair_options){.n_senders = 2, .n_pages = 4, .path = BATON_PATH_PUT});
    bt_expect_log("no answer to INIT");
    kit.receiver_is_cut = true;
    uint64_t waits_ms[2][ATTEMPTS] = {{0}};
    for (uint32_t i = 0; i < 2; i++)
        assert_ok(bt_tx_connect(kit.senders[i].tx, "127.0.0.1", 1, 2));
    for (uint32_t attempt = 0; attempt < ATTEMPTS;) {
        pair_advance(&kit, 50);
        attempt = ATTEMPTS;
        for (uint32_t i = 0; i < 2; i++) {
            const bt_tx_peer *peer = kit.senders[i].tx->peers;
            uint32_t n = peer->n_failures;
            if (n > 0 && n <= ATTEMPTS && waits_ms[i][n - 1] == 0)
                waits_ms[i][n - 1] = (peer->next_attempt_ns - kit.manual.now_ns) / BT_NS_PER_MS + 1;
            attempt = n < attempt ? n : attempt;
        }
    }
    uint32_t n_equal = 0;
    for (uint32_t attempt = 0; attempt < ATTEMPTS; attempt++) {
        uint64_t base_ms = UINT64_C(50) << attempt;
        base_ms = base_ms < LIMIT_MS ? base_ms : LIMIT_MS;
        for (uint32_t i = 0; i < 2; i++)
            assert_in_range(waits_ms[i][attempt], base_ms * 3 / 4, base_ms * 5 / 4 + 1);
        n_equal += waits_ms[0][attempt] == waits_ms[1][attempt];
    }
    assert_in_range(n_equal, 0, ATTEMPTS / 2);
    pair_destroy(&kit);
}

/* The first frame of each type in either direction, of a life that is over. */
static struct {
    pair_frame frames[2][BT_MSG_HEARTBEAT_ANSWER + 1];
} old;

static bool keep_a_copy(pair *k, const pair_frame *frame, const bt_message *message)
{
    (void)k;
    pair_frame *copy = &old.frames[frame->to_receiver][message->type];
    if (copy->bytes == 0)
        *copy = *frame;
    return true;
}

/* Says everything of the old life again; returns how much of it has an epoch that is over. */
static uint32_t say_again(pair *k)
{
    uint32_t n = 0;
    for (uint32_t way = 0; way < 2; way++) {
        for (uint32_t type = 0; type <= BT_MSG_HEARTBEAT_ANSWER; type++) {
            bool names_nobody = type == BT_MSG_INIT; /* the sender lives, and may ask again */
            if (old.frames[way][type].bytes == 0 || names_nobody)
                continue;
            k->frames[k->n_frames++] = old.frames[way][type];
            n++;
        }
    }
    return n;
}

static void what_an_earlier_life_said_changes_nothing(void **state)
{
    (void)state;
    enum { RESTARTS = 1000 };
    const pair_options options = {
        .n_pages = 4, .path = BATON_PATH_PUT, .commit = BATON_COMMIT_SOCKET};
    pair_create(&kit, &options);
    bt_expect_log("connection ended");
    for (uint32_t life = 0; life < RESTARTS; life++) {
        memset(&old, 0, sizeof(old));
        kit.filter = keep_a_copy;
        pair_tokens(life, 0, 2 * PAIR_CHUNK, tokens);
        hand_off(0, "r", 2 * PAIR_CHUNK);
        assert_int_equal(kit.senders[0].n_done, life + 1);
        pair_begin(&kit, 0, "lost", tokens, 2 * PAIR_CHUNK, 0);
        pair_advance(&kit, 550); /* heartbeats name it */
        kit.filter = NULL;
        pair_restart_receiver(&kit, &options);
        pair_advance(&kit, 700); /* a heartbeat tells, and the first back-off is over */
        pair_tokens(life + RESTARTS, 0, 2 * PAIR_CHUNK, tokens);
        pair_begin(&kit, 0, "next", tokens, 2 * PAIR_CHUNK, 0);
        pair_advance(&kit, 100);
        uint64_t before =
            kit.rx->stats.messages_stale_total + kit.senders[0].tx->stats.messages_stale_total;
        uint64_t n_granted = kit.rx->stats.tickets_granted_total;
        uint32_t n_tickets = kit.rx->n_tickets;
        assert_true(n_granted > 0);
        uint32_t n = say_again(&kit), n_failed = kit.senders[0].n_failed;
        assert_in_range(n, 6, 20);
        pair_run(&kit);
        uint64_t after =
            kit.rx->stats.messages_stale_total + kit.senders[0].tx->stats.messages_stale_total;
        assert_in_range(after - before, n, 2 * n); /* and those that answer are as old */
        assert_int_equal(kit.senders[0].n_failed, n_failed);
        assert_int_equal(kit.rx->stats.tickets_granted_total, n_granted);
        assert_int_equal(kit.rx->n_tickets, n_tickets);
    }
    pair_destroy(&kit);
}

static bool lose_allocs(pair *k, const pair_frame *frame, const bt_message *message)
{
    (void)k, (void)frame;
    return message->type != BT_MSG_ALLOC;
}

/* Its ticket went with the old receiver: heartbeats must not speak of it to the new one, which
 * would not know it, while the new ALLOC is on its way. */
/* "Is anybody there?": no answer to anything, and no word of a former life. */
static void an_answer_that_nobody_asked_for_changes_nothing(void **state)
{
    (void)state;
    pair_create(&kit, &(pair_options){.n_pages = 2, .path = BATON_PATH_PUT});
    pair_tokens(1, 0, 2 * PAIR_CHUNK, tokens);
    baton_transfer transfer = pair_begin(&kit, 0, "r", tokens, 2 * PAIR_CHUNK, 0);
    pair_run(&kit);
    bt_tx *tx = kit.senders[0].tx;
    bt_message nothing = {
        .type = BT_MSG_HEARTBEAT_ANSWER, .status = BATON_ERR_STALE, .peer_epoch = tx->epoch};
    bt_rx_send(kit.rx, BT_RX_ALLOC_PORT, &kit.senders[0].routes[BT_RX_ALLOC_PORT], &nothing);
    pair_run(&kit);
    assert_int_equal(tx->stats.messages_stale_total, 0);
    assert_int_equal(tx->stats.peers_lost_total, 0);
    pair_push_all(&kit, 0, transfer, tokens, 2 * PAIR_CHUNK, data[0]);
    pair_run(&kit);
    assert_int_equal(kit.senders[0].n_done, 1);
    pair_destroy(&kit);
}

static void a_queued_request_asks_a_restarted_receiver_again(void **state)
{
    (void)state;
    const pair_options options = {.n_pages = 2, .path = BATON_PATH_PUT};
    pair_create(&kit, &options);
    bt_expect_log("connection ended");
    uint32_t other[2 * PAIR_CHUNK];
    pair_tokens(1, 0, 2 * PAIR_CHUNK, other);
    pair_begin(&kit, 0, "moving", other, 2 * PAIR_CHUNK, 0);
    pair_tokens(2, 0, 2 * PAIR_CHUNK, tokens);
    baton_transfer queued = pair_begin(&kit, 0, "queued", tokens, 2 * PAIR_CHUNK, 0);
    pair_run(&kit);
    assert_int_equal(kit.rx->n_queued, 1);
    kit.filter = lose_allocs;
    bt_tx *tx = kit.senders[0].tx;
    bt_tx_peer_down(tx, tx->peers, BATON_ERR_PEER_RESTARTED, "as if it had answered STALE");
    pair_advance(&kit, 3000);
    assert_int_equal(kit.senders[0].n_failed, 1); /* the one that was moving */
    kit.filter = NULL;
    pair_advance(&kit, 2000);
    pair_push_all(&kit, 0, queued, tokens, 2 * PAIR_CHUNK, data[0]);
    pair_run(&kit);
    assert_int_equal(kit.senders[0].n_done, 1);
    assert_int_equal(kit.senders[0].n_failed, 1);
    assert_int_equal(pair_check(&kit, tokens, 2 * PAIR_CHUNK), 2 * PAIR_CHUNK);
    pair_run(&kit);
    pair_check_clean(&kit);
    pair_destroy(&kit);
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
        bt_test(a_receiver_elsewhere_that_hangs_up_is_gone),
        bt_test(a_sender_that_was_silent_gives_the_pages_back_unasked),
        bt_test(a_receiver_that_never_comes_back_is_forgotten),
        bt_test(a_sender_may_end_while_a_connection_is_being_closed),
        bt_test(a_sender_that_was_cut_off_gives_the_pages_back),
        bt_test(a_ticket_that_no_heartbeat_names_is_taken_back),
        bt_test(a_failed_allocation_while_connecting_is_survived),
        bt_test(heartbeats_name_every_ticket),
        bt_test(a_receiver_that_restarts_is_connected_again),
        bt_test(attempts_back_off_up_to_a_limit),
        bt_test(what_an_earlier_life_said_changes_nothing),
        bt_test(an_answer_that_nobody_asked_for_changes_nothing),
        bt_test(a_queued_request_asks_a_restarted_receiver_again),
        bt_test(a_broken_connection_fails_what_moves_and_nothing_twice),
    };
    return bt_run_tests(tests);
}
