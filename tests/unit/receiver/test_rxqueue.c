/* SPDX-License-Identifier: Apache-2.0 */
/* The queue in front of a full pool: its order, its bounds, who leaves it and who is refused. */
#include "rxkit.h"

#include "support/test.h"

static rx_kit kit;
static rx_kit_sender alice, bob;
static rx_kit_request a, b, c;

static void open_kit(uint32_t n_pages)
{
    const baton_receiver_options options = rx_kit_options(n_pages);
    rx_kit_open(&kit, &options);
    alice = rx_kit_sender_make(1);
    bob = rx_kit_sender_make(2);
    rx_kit_init(&kit, &alice, BATON_OK);
    rx_kit_init(&kit, &bob, BATON_OK);
}

static baton_receiver_stats stats_now(void)
{
    baton_receiver_stats stats;
    rx_kit_stats(&kit, &stats);
    return stats;
}

static void a_full_pool_queues_first_come_first_served(void **state)
{
    (void)state;
    open_kit(4);
    rx_kit_prompt(&a, 1, 0, 3 * KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &alice, &a);
    rx_kit_prompt(&b, 2, 0, 4 * KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &alice, &b);
    assert_int_equal(b.outcome, BT_ALLOC_QUEUED);
    assert_int_equal(b.place, 1);
    /* One page is free, and this one would fit: it must not overtake. */
    rx_kit_prompt(&c, 3, 0, KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &bob, &c);
    assert_int_equal(c.outcome, BT_ALLOC_QUEUED);
    assert_int_equal(c.place, 2);
    assert_int_equal(stats_now().pages_reserved, 3);

    bt_message answer;
    assert_int_equal(rx_kit_cancel(&kit, &alice, &a, true), BATON_OK);
    rx_kit_expect(&kit, BT_MSG_ALLOC_ANSWER, &answer);
    rx_kit_read_alloc_answer(&b, &answer);
    assert_int_equal(b.outcome, BT_ALLOC_GRANTED);
    assert_int_equal(kit.taken.route, alice.route);
    rx_kit_expect_nothing(&kit);
    assert_int_equal(rx_kit_cancel(&kit, &alice, &b, true), BATON_OK);
    rx_kit_expect(&kit, BT_MSG_ALLOC_ANSWER, &answer);
    rx_kit_read_alloc_answer(&c, &answer);
    assert_int_equal(c.outcome, BT_ALLOC_GRANTED);
    assert_int_equal(kit.taken.route, bob.route);
    rx_kit_close(&kit);
}

static void what_never_fits_is_refused_with_both_numbers(void **state)
{
    (void)state;
    open_kit(4);
    rx_kit_prompt(&a, 1, 0, 5 * KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &alice, &a);
    assert_int_equal(a.outcome, BT_ALLOC_REFUSED);
    assert_int_equal(a.status, BATON_ERR_TOO_LARGE);
    assert_int_equal(a.pages_wanted, 5);
    assert_int_equal(a.pages_total, 4);
    /* Also behind others. */
    rx_kit_prompt(&b, 2, 0, 4 * KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &alice, &b);
    rx_kit_prompt(&c, 3, 0, KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &alice, &c);
    assert_int_equal(c.outcome, BT_ALLOC_QUEUED);
    rx_kit_prompt(&a, 4, 0, 5 * KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &alice, &a);
    assert_int_equal(a.status, BATON_ERR_TOO_LARGE);
    assert_int_equal(stats_now().tickets_refused_total, 2);
    rx_kit_close(&kit);
}

static void who_may_not_queue_or_finds_the_queue_full_is_refused(void **state)
{
    (void)state;
    baton_receiver_options options = rx_kit_options(2);
    options.max_queued = 1;
    rx_kit_open(&kit, &options);
    alice = rx_kit_sender_make(1);
    rx_kit_init(&kit, &alice, BATON_OK);
    rx_kit_prompt(&a, 1, 0, 2 * KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &alice, &a);
    rx_kit_prompt(&b, 2, 0, KIT_CHUNK_TOKENS);
    b.may_not_queue = true;
    rx_kit_alloc(&kit, &alice, &b);
    assert_int_equal(b.status, BATON_ERR_OVERLOADED);
    b.may_not_queue = false;
    rx_kit_alloc(&kit, &alice, &b);
    assert_int_equal(b.outcome, BT_ALLOC_QUEUED);
    rx_kit_prompt(&c, 3, 0, KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &alice, &c);
    assert_int_equal(c.status, BATON_ERR_OVERLOADED);
    rx_kit_close(&kit);
}

/* What alice has last goes first, until nobody has more than the other and one. */
static void who_fills_the_queue_gives_places_to_others(void **state)
{
    (void)state;
    rx_kit_request queued[4];
    bt_message answer;
    baton_receiver_options options = rx_kit_options(2);
    options.max_queued = 4;
    rx_kit_open(&kit, &options);
    alice = rx_kit_sender_make(1);
    bob = rx_kit_sender_make(2);
    bob.next_id = 100;
    rx_kit_init(&kit, &alice, BATON_OK);
    rx_kit_init(&kit, &bob, BATON_OK);
    rx_kit_prompt(&a, 1, 0, 2 * KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &alice, &a);
    for (uint32_t i = 0; i < 4; i++) {
        rx_kit_prompt(&queued[i], 2 + i, 0, KIT_CHUNK_TOKENS);
        rx_kit_alloc(&kit, &alice, &queued[i]);
        assert_int_equal(queued[i].place, i + 1);
    }
    for (uint32_t i = 0; i < 2; i++) {
        rx_kit_prompt(&b, 10 + i, 0, KIT_CHUNK_TOKENS);
        rx_kit_send_alloc(&kit, &bob, &b);
        rx_kit_expect(&kit, BT_MSG_ALLOC_ANSWER, &answer);
        rx_kit_read_alloc_answer(&queued[3 - i], &answer);
        assert_int_equal(queued[3 - i].status, BATON_ERR_OVERLOADED);
        rx_kit_expect(&kit, BT_MSG_ALLOC_ANSWER, &answer);
        rx_kit_read_alloc_answer(&b, &answer);
        assert_int_equal(b.outcome, BT_ALLOC_QUEUED);
        assert_int_equal(b.place, 4);
    }
    rx_kit_prompt(&b, 12, 0, KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &bob, &b);
    assert_int_equal(b.status, BATON_ERR_OVERLOADED);
    rx_kit_close(&kit);
}

static void the_keys_that_wait_are_bounded(void **state)
{
    (void)state;
    open_kit(2);
    rx_kit_prompt(&a, 1, 0, 2 * KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &alice, &a);
    rx_kit_prompt(&b, 2, 0, 2 * KIT_CHUNK_TOKENS);
    kit.rx->n_queued_chunks = BT_RX_QUEUED_CHUNKS_MAX - 1;
    rx_kit_alloc(&kit, &alice, &b);
    assert_int_equal(b.status, BATON_ERR_OVERLOADED);
    kit.rx->n_queued_chunks = BT_RX_QUEUED_CHUNKS_MAX - 2;
    rx_kit_alloc(&kit, &alice, &b);
    assert_int_equal(b.outcome, BT_ALLOC_QUEUED);
    assert_int_equal(kit.rx->n_queued_chunks, BT_RX_QUEUED_CHUNKS_MAX);
    rx_kit_close(&kit);
}

static void a_queued_ticket_is_canceled_by_its_number_alone(void **state)
{
    (void)state;
    open_kit(2);
    rx_kit_prompt(&a, 1, 0, 2 * KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &alice, &a);
    rx_kit_prompt(&b, 2, 0, KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &alice, &b);
    assert_int_equal(rx_kit_cancel(&kit, &bob, &b, true), BATON_ERR_STALE); /* not its sender */
    assert_int_equal(stats_now().tickets_queued, 1);
    assert_int_equal(rx_kit_cancel(&kit, &alice, &b, true), BATON_OK);
    assert_int_equal(stats_now().tickets_queued, 0);
    assert_int_equal(rx_kit_status(&kit, &alice, b.request).state, BT_REQUEST_FAILED);
    rx_kit_close(&kit);
}

static void a_queued_request_is_refused_at_its_deadline(void **state)
{
    (void)state;
    open_kit(1);
    rx_kit_prompt(&a, 1, 0, KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &alice, &a);
    rx_kit_prompt(&b, 2, 0, KIT_CHUNK_TOKENS);
    b.deadline_ms = 200;
    rx_kit_alloc(&kit, &alice, &b);
    rx_kit_advance_ms(&kit, 200);
    bt_message answer;
    rx_kit_expect(&kit, BT_MSG_ALLOC_ANSWER, &answer);
    rx_kit_read_alloc_answer(&b, &answer);
    assert_int_equal(b.outcome, BT_ALLOC_REFUSED);
    assert_int_equal(b.status, BATON_ERR_DEADLINE);
    rx_kit_close(&kit);
}

static void heartbeat(rx_kit_sender *sender, const rx_kit_request *first,
                      const rx_kit_request *second)
{
    bt_ticket_progress tickets[2];
    uint32_t n = 0;
    if (first != NULL)
        tickets[n++] = (bt_ticket_progress){.ticket = first->name.ticket};
    if (second != NULL)
        tickets[n++] = (bt_ticket_progress){.ticket = second->name.ticket};
    bt_message message = rx_kit_message(sender, BT_MSG_HEARTBEAT), unused;
    message.u.heartbeat = (bt_msg_heartbeat){.tickets = tickets, .n_tickets = n};
    rx_kit_send(&kit, sender, BT_RX_ALLOC_PORT, &message);
    rx_kit_expect(&kit, BT_MSG_HEARTBEAT_ANSWER, &unused);
}

/* Its sender gave it up, and the word of that got lost: it is in the way of whoever comes next. */
static void a_queued_ticket_that_nobody_names_leaves_the_queue(void **state)
{
    (void)state;
    open_kit(2);
    rx_kit_prompt(&a, 1, 0, 2 * KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &alice, &a);
    rx_kit_prompt(&b, 2, 0, 2 * KIT_CHUNK_TOKENS);
    b.deadline_ms = 300000;
    rx_kit_alloc(&kit, &bob, &b);
    rx_kit_prompt(&c, 3, 0, KIT_CHUNK_TOKENS);
    c.deadline_ms = 300000;
    rx_kit_alloc(&kit, &bob, &c);
    assert_int_equal(b.outcome, BT_ALLOC_QUEUED);
    assert_int_equal(c.outcome, BT_ALLOC_QUEUED);
    for (int i = 0; i < 9; i++) {
        rx_kit_advance_ms(&kit, 1000);
        heartbeat(&alice, &a, NULL);
        heartbeat(&bob, &c, NULL);
        assert_int_equal(stats_now().tickets_queued, 2);
    }
    rx_kit_advance_ms(&kit, 1000);
    bt_message answer;
    rx_kit_expect(&kit, BT_MSG_ALLOC_ANSWER, &answer);
    rx_kit_read_alloc_answer(&b, &answer);
    assert_int_equal(b.status, BATON_ERR_LEASE_EXPIRED);
    assert_int_equal(kit.notice.status, BATON_ERR_LEASE_EXPIRED);
    assert_int_equal(stats_now().tickets_queued, 1);
    rx_kit_close(&kit);
}

/* A sender whose ALLOC_ANSWER got lost does not know the ticket's number: it asks again. */
static void a_queued_ticket_that_is_asked_for_again_stays(void **state)
{
    (void)state;
    open_kit(1);
    rx_kit_prompt(&a, 1, 0, KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &alice, &a);
    rx_kit_prompt(&b, 2, 0, KIT_CHUNK_TOKENS);
    b.deadline_ms = 300000;
    rx_kit_alloc(&kit, &bob, &b);
    for (int i = 0; i < 20; i++) {
        rx_kit_advance_ms(&kit, 1600);
        heartbeat(&alice, &a, NULL);
        bt_message again = rx_kit_message(&bob, BT_MSG_ALLOC), answer;
        again.id = b.alloc_id;
        again.u.alloc = (bt_msg_alloc){.request = bt_blob_of_text(b.request),
                                       .keys = bt_blob_of(b.keys, BATON_KEY_BYTES),
                                       .last_tokens = b.last_tokens,
                                       .deadline_ms = 300000,
                                       .may_queue = 1};
        rx_kit_send(&kit, &bob, BT_RX_ALLOC_PORT, &again);
        rx_kit_expect(&kit, BT_MSG_ALLOC_ANSWER, &answer);
        assert_int_equal(answer.u.alloc_answer.outcome, BT_ALLOC_QUEUED);
    }
    rx_kit_close(&kit);
}

/* Who may come back is told when, and not all at the same time. */
static void refusals_say_when_to_come_back(void **state)
{
    (void)state;
    open_kit(2);
    rx_kit_prompt(&a, 1, 0, 2 * KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &alice, &a);
    uint32_t least = UINT32_MAX, most = 0;
    for (uint32_t i = 0; i < 200; i++) {
        rx_kit_prompt(&b, 2, 0, KIT_CHUNK_TOKENS);
        bt_message alloc = rx_kit_message(&bob, BT_MSG_ALLOC), answer;
        alloc.u.alloc = (bt_msg_alloc){.request = bt_blob_of_text(b.request),
                                       .keys = bt_blob_of(b.keys, BATON_KEY_BYTES),
                                       .last_tokens = b.last_tokens,
                                       .deadline_ms = 1000};
        rx_kit_send(&kit, &bob, BT_RX_ALLOC_PORT, &alloc);
        rx_kit_expect(&kit, BT_MSG_ALLOC_ANSWER, &answer);
        assert_int_equal(answer.status, BATON_ERR_OVERLOADED);
        uint32_t ms = answer.u.alloc_answer.retry_ms;
        least = ms < least ? ms : least;
        most = ms > most ? ms : most;
    }
    assert_true(least >= 500 && most <= 2000 && most - least > 500);
    /* Too large for ever: no word of coming back. */
    rx_kit_prompt(&b, 3, 0, 3 * KIT_CHUNK_TOKENS);
    bt_message alloc = rx_kit_message(&bob, BT_MSG_ALLOC), answer;
    alloc.u.alloc = (bt_msg_alloc){.request = bt_blob_of_text(b.request),
                                   .keys = bt_blob_of(b.keys, 3 * BATON_KEY_BYTES),
                                   .last_tokens = b.last_tokens,
                                   .deadline_ms = 1000,
                                   .may_queue = 1};
    rx_kit_send(&kit, &bob, BT_RX_ALLOC_PORT, &alloc);
    rx_kit_expect(&kit, BT_MSG_ALLOC_ANSWER, &answer);
    assert_int_equal(answer.status, BATON_ERR_TOO_LARGE);
    assert_int_equal(answer.u.alloc_answer.retry_ms, 0);
    rx_kit_close(&kit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(a_full_pool_queues_first_come_first_served),
        bt_test(what_never_fits_is_refused_with_both_numbers),
        bt_test(who_may_not_queue_or_finds_the_queue_full_is_refused),
        bt_test(who_fills_the_queue_gives_places_to_others),
        bt_test(the_keys_that_wait_are_bounded),
        bt_test(a_queued_ticket_is_canceled_by_its_number_alone),
        bt_test(a_queued_request_is_refused_at_its_deadline),
        bt_test(a_queued_ticket_that_nobody_names_leaves_the_queue),
        bt_test(a_queued_ticket_that_is_asked_for_again_stays),
        bt_test(refusals_say_when_to_come_back),
    };
    return bt_run_tests(tests);
}
