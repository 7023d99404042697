/* SPDX-License-Identifier: Apache-2.0 */
/* How a transfer can end besides DONE, and that it does so once. */
#include "handoffkit.h"

#include "core/alloc.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(a_chunk_that_is_missing_is_noticed_beside_one_that_was_there),
        bt_test(a_deadline_ends_a_transfer_that_waits_for_chunks),
        bt_test(a_deadline_needs_no_word_from_the_receiver),
        bt_test(a_request_that_decode_took_before_its_commit_was_answered_is_done),
        bt_test(a_canceled_request_leaves_the_queue),
        bt_test(a_queued_request_fails_by_its_deadline_and_says_so),
        bt_test(a_request_that_ended_before_its_grant_fails_alone),
        bt_test(a_push_behind_a_cancel_gets_its_source_back),
        bt_test(a_chunk_pushed_too_early_hides_no_missing_one),
        bt_test(a_chunk_that_was_never_pushed_fails_the_transfer),
    };
    return bt_run_tests(tests);
}
