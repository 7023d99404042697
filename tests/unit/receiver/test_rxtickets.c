/* SPDX-License-Identifier: Apache-2.0 */
/* Tickets: granted, canceled, revoked, released; docs/protocol.md, "States". */
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

static void alloc_is_granted_with_a_page_for_each_chunk(void **state)
{
    (void)state;
    open_kit(8);
    rx_kit_prompt(&a, 1, 0, 3 * KIT_CHUNK_TOKENS + 1);
    rx_kit_alloc(&kit, &alice, &a);
    assert_int_equal(a.outcome, BT_ALLOC_GRANTED);
    assert_int_equal(a.n_to_send, 4);
    assert_int_equal(stats_now().pages_reserved, 4);
    rx_kit_close(&kit);
}

static void chunks_that_are_there_are_not_sent_again(void **state)
{
    (void)state;
    open_kit(8);
    rx_kit_prompt(&a, 1, 2 * KIT_CHUNK_TOKENS, 3 * KIT_CHUNK_TOKENS);
    rx_kit_land(&kit, &alice, &a);
    rx_kit_prompt(&b, 2, 2 * KIT_CHUNK_TOKENS, 3 * KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &bob, &b);
    assert_int_equal(b.outcome, BT_ALLOC_GRANTED);
    assert_int_equal(b.n_to_send, 1);
    assert_int_equal(b.runs[0].first, 2);
    assert_int_equal(stats_now().chunks_present_total, 2);
    rx_kit_close(&kit);
}

static void the_same_alloc_is_answered_again_and_not_carried_out_twice(void **state)
{
    (void)state;
    open_kit(8);
    rx_kit_prompt(&a, 1, 0, 2 * KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &alice, &a);
    const uint64_t ticket = a.name.ticket;
    alice.next_id = a.alloc_id;
    rx_kit_alloc(&kit, &alice, &a);
    assert_int_equal(a.name.ticket, ticket);
    assert_int_equal(stats_now().pages_reserved, 2);
    assert_int_equal(stats_now().tickets_granted_total, 1);
    /* Once it has ended, the id stays used up. */
    assert_int_equal(rx_kit_cancel(&kit, &alice, &a, true), BATON_OK);
    alice.next_id = a.alloc_id;
    rx_kit_alloc(&kit, &alice, &a);
    assert_int_equal(a.status, BATON_ERR_CANCELED); /* STALE would cost the whole connection */
    assert_int_equal(stats_now().pages_reserved, 0);
    rx_kit_close(&kit);
}

static void the_same_id_of_another_sender_is_another_request(void **state)
{
    (void)state;
    open_kit(8);
    rx_kit_prompt(&a, 1, 0, KIT_CHUNK_TOKENS);
    rx_kit_prompt(&b, 2, 0, KIT_CHUNK_TOKENS);
    alice.next_id = bob.next_id = 50;
    rx_kit_alloc(&kit, &alice, &a);
    rx_kit_alloc(&kit, &bob, &b);
    assert_int_not_equal(a.name.ticket, b.name.ticket);
    assert_int_equal(stats_now().pages_reserved, 2);
    rx_kit_close(&kit);
}

static void ids_may_come_in_any_order(void **state)
{
    (void)state;
    static bt_rx_peer peer;
    bt_rng rng = {7};
    static uint8_t seen[3 * BT_RX_ID_WINDOW];
    memset(seen, 0, sizeof(seen));
    uint64_t newest = 0;
    for (int i = 0; i < 20000; i++) {
        uint64_t base = newest > BT_RX_ID_WINDOW / 2 ? newest - BT_RX_ID_WINDOW / 2 : 0;
        uint64_t id = base + bt_rng_below(&rng, BT_RX_ID_WINDOW / 2 + 64);
        if (id >= sizeof(seen))
            break;
        assert_int_equal(bt_rx_seen_before(&peer, id), seen[id]);
        seen[id] = 1;
        newest = id > newest ? id : newest;
    }
    assert_true(newest > 2 * BT_RX_ID_WINDOW);
    assert_true(bt_rx_seen_before(&peer, 1)); /* too old to tell */
    /* The ends of the number range, as only a hostile peer has them. */
    assert_false(bt_rx_seen_before(&peer, UINT64_MAX - 1));
    assert_false(bt_rx_seen_before(&peer, UINT64_MAX));
    assert_true(bt_rx_seen_before(&peer, UINT64_MAX));
    assert_true(bt_rx_seen_before(&peer, 0));
}

/* CANCEL of a queued ticket crosses its grant on the way. */
static void a_grant_that_the_sender_never_saw_is_canceled_by_number(void **state)
{
    (void)state;
    open_kit(2);
    rx_kit_prompt(&a, 1, 0, 2 * KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &alice, &a);
    a.name = (bt_ticket_name){.ticket = a.name.ticket};
    assert_int_equal(rx_kit_cancel(&kit, &alice, &a, true), BATON_OK);
    assert_int_equal(stats_now().pages_free, 2);
    rx_kit_close(&kit);
}

static void canceled_and_drained_pages_are_free_at_once(void **state)
{
    (void)state;
    open_kit(4);
    rx_kit_prompt(&a, 1, 0, 3 * KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &alice, &a);
    rx_kit_write(&kit, &a, 0);
    assert_int_equal(rx_kit_commit(&kit, &alice, &a, 0, 1, false, NULL), BATON_OK);
    assert_int_equal(rx_kit_cancel(&kit, &alice, &a, true), BATON_OK);
    assert_int_equal(stats_now().pages_landed, 1); /* stays as prefix cache */
    assert_int_equal(stats_now().pages_free, 3);
    assert_int_equal(stats_now().tickets_live, 0);
    assert_int_equal(kit.event.kind, BATON_RECEIVER_FAILED);
    assert_int_equal(kit.event.status, BATON_ERR_CANCELED);
    assert_int_equal(kit.n_events, 1);
    assert_int_equal(kit.n_notices, 0);
    /* Once more: nothing is there. */
    assert_int_equal(rx_kit_cancel(&kit, &alice, &a, true), BATON_ERR_STALE);
    rx_kit_close(&kit);
}

static void expect_revoke(const rx_kit_request *request, baton_status reason)
{
    bt_message revoke;
    rx_kit_expect(&kit, BT_MSG_REVOKE, &revoke);
    assert_int_equal(revoke.u.end.name.ticket, request->name.ticket);
    assert_int_equal(revoke.u.end.name.generation, request->name.generation);
    assert_int_equal(revoke.u.end.reason, reason);
}

static void canceled_but_not_drained_pages_wait_in_quarantine(void **state)
{
    (void)state;
    open_kit(4);
    rx_kit_prompt(&a, 1, 0, 4 * KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &alice, &a);
    assert_int_equal(rx_kit_cancel(&kit, &alice, &a, false), BATON_OK);
    assert_int_equal(stats_now().pages_quarantined, 4);
    assert_int_equal(rx_kit_commit(&kit, &alice, &a, 0, 1, false, NULL), BATON_ERR_REVOKED);
    rx_kit_prompt(&b, 2, 0, KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &bob, &b);
    assert_int_equal(b.outcome, BT_ALLOC_QUEUED);

    rx_kit_advance_ms(&kit, 1);
    expect_revoke(&a, BATON_ERR_CANCELED);
    rx_kit_drained(&kit, &bob, &a); /* not its writer: no proof */
    assert_int_equal(stats_now().pages_quarantined, 4);
    rx_kit_drained(&kit, &alice, &a);
    assert_int_equal(stats_now().pages_quarantined, 0);
    assert_int_equal(stats_now().pages_reserved, 1); /* the queued one got its page */
    bt_message answer;
    rx_kit_expect(&kit, BT_MSG_ALLOC_ANSWER, &answer);
    rx_kit_drained(&kit, &alice, &a); /* again: nothing happens */
    rx_kit_close(&kit);
}

/* It would hold its pages, or its place, for 49 days. */
static void a_deadline_without_end_is_the_receivers(void **state)
{
    (void)state;
    baton_receiver_options options = rx_kit_options(4);
    options.max_deadline_ms = 3000;
    rx_kit_open(&kit, &options);
    alice = rx_kit_sender_make(1);
    rx_kit_init(&kit, &alice, BATON_OK);
    rx_kit_prompt(&a, 1, 0, 4 * KIT_CHUNK_TOKENS);
    rx_kit_prompt(&b, 2, 0, KIT_CHUNK_TOKENS);
    a.deadline_ms = b.deadline_ms = UINT32_MAX;
    rx_kit_alloc(&kit, &alice, &a);
    rx_kit_alloc(&kit, &alice, &b);
    assert_int_equal(b.outcome, BT_ALLOC_QUEUED);
    rx_kit_advance_ms(&kit, 2999);
    rx_kit_expect_nothing(&kit);
    rx_kit_advance_ms(&kit, 1);
    bt_message answer;
    rx_kit_expect(&kit, BT_MSG_ALLOC_ANSWER, &answer);
    assert_int_equal(answer.status, BATON_ERR_DEADLINE);
    expect_revoke(&a, BATON_ERR_DEADLINE);
    rx_kit_close(&kit);
}

static void revoke_is_repeated_until_drained(void **state)
{
    (void)state;
    open_kit(4);
    rx_kit_prompt(&a, 1, 0, 2 * KIT_CHUNK_TOKENS);
    a.deadline_ms = 1000;
    rx_kit_alloc(&kit, &alice, &a);
    rx_kit_advance_ms(&kit, 999);
    rx_kit_expect_nothing(&kit);
    rx_kit_advance_ms(&kit, 1);
    expect_revoke(&a, BATON_ERR_DEADLINE);
    assert_int_equal(kit.notice.status, BATON_ERR_DEADLINE);
    assert_string_equal(kit.notice.request, a.request);
    assert_string_equal(kit.notice.address, "tcp://127.0.0.1:5555");
    rx_kit_advance_ms(&kit, 499);
    rx_kit_expect_nothing(&kit);
    for (int i = 0; i < 3; i++) {
        rx_kit_advance_ms(&kit, i == 0 ? 1 : 500);
        expect_revoke(&a, BATON_ERR_DEADLINE);
        rx_kit_expect_nothing(&kit);
    }
    /* The sender knows the ticket from REVOKE alone, and has no nonce. */
    a.name.nonce = (bt_blob){0};
    rx_kit_drained(&kit, &alice, &a);
    assert_int_equal(stats_now().pages_free, 4);
    rx_kit_advance_ms(&kit, 500);
    rx_kit_expect_nothing(&kit);
    assert_int_equal(kit.n_events, 1);
    assert_int_equal(kit.n_notices, 1);
    rx_kit_close(&kit);
}

/* Its sender has said ready and heard no more of it: only the receiver can tell the proxy. */
static void a_closing_receiver_tells_the_proxy_of_what_it_held(void **state)
{
    (void)state;
    open_kit(2);
    rx_kit_prompt(&a, 1, 0, 2 * KIT_CHUNK_TOKENS);
    rx_kit_land(&kit, &alice, &a);
    assert_int_equal(kit.n_notices, 0);
    bt_rx_ticket_fail(kit.rx, kit.rx->first_ticket, BATON_ERR_CLOSED, "the receiver is closing");
    assert_int_equal(kit.n_notices, 1);
    assert_int_equal(kit.notice.status, BATON_ERR_CLOSED);
    rx_kit_close(&kit);
}

static void release_ends_what_it_names_in_every_state(void **state)
{
    (void)state;
    open_kit(4);
    rx_kit_prompt(&a, 1, 0, 2 * KIT_CHUNK_TOKENS);
    rx_kit_land(&kit, &alice, &a);
    rx_kit_prompt(&b, 2, 0, 2 * KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &alice, &b);
    rx_kit_prompt(&c, 3, 0, 3 * KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &alice, &c);
    assert_int_equal(c.outcome, BT_ALLOC_QUEUED);
    /* From a proxy: no INIT, no epoch of ours. */
    rx_kit_sender proxy = rx_kit_sender_make(9);
    assert_int_equal(rx_kit_release(&kit, &proxy, c.request), 1);
    assert_int_equal(stats_now().tickets_queued, 0);
    assert_int_equal(rx_kit_release(&kit, &proxy, a.request), 1);
    assert_int_equal(stats_now().holds_live, 0);
    assert_int_equal(rx_kit_release(&kit, &proxy, b.request), 1);
    assert_int_equal(stats_now().pages_quarantined, 2);
    assert_int_equal(rx_kit_release(&kit, &proxy, "nobody"), 0);
    assert_int_equal(kit.n_notices, 0); /* the proxy knows */
    rx_kit_close(&kit);
}

static void status_tells_the_state_of_live_and_ended_requests(void **state)
{
    (void)state;
    open_kit(4);
    rx_kit_sender proxy = rx_kit_sender_make(9);
    assert_int_equal(rx_kit_status(&kit, &proxy, "request-1").state, BT_REQUEST_UNKNOWN);
    rx_kit_prompt(&a, 1, 0, 2 * KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &alice, &a);
    bt_msg_status_answer answer = rx_kit_status(&kit, &proxy, a.request);
    assert_int_equal(answer.state, BT_REQUEST_MOVING);
    assert_int_equal(answer.n_chunks, 2);
    assert_int_equal(answer.world, 1);
    rx_kit_prompt(&b, 2, 0, 3 * KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &alice, &b);
    assert_int_equal(rx_kit_status(&kit, &proxy, b.request).state, BT_REQUEST_QUEUED);
    assert_int_equal(rx_kit_commit(&kit, &alice, &a, 0, 2, true, NULL), BATON_OK);
    answer = rx_kit_status(&kit, &proxy, a.request);
    assert_int_equal(answer.state, BT_REQUEST_READY);
    assert_int_equal(answer.landed, 2);
    rx_kit_release(&kit, &proxy, a.request);
    assert_int_equal(rx_kit_status(&kit, &proxy, a.request).state, BT_REQUEST_PINNED);
    bt_message heartbeat = rx_kit_message(&alice, BT_MSG_HEARTBEAT), unused;
    for (int i = 0; i < 15; i++) { /* remembered for 60 s, while the peers live */
        rx_kit_advance_ms(&kit, 4000);
        heartbeat.id = alice.next_id++;
        rx_kit_send(&kit, &alice, BT_RX_ALLOC_PORT, &heartbeat);
        while (rx_kit_take(&kit, &unused))
            ;
    }
    assert_int_equal(rx_kit_status(&kit, &proxy, a.request).state, BT_REQUEST_PINNED);
    rx_kit_advance_ms(&kit, 1);
    while (rx_kit_take(&kit, &unused))
        ;
    assert_int_equal(rx_kit_status(&kit, &proxy, a.request).state, BT_REQUEST_UNKNOWN);
    rx_kit_close(&kit);
}

static void notice_addresses_that_are_not_allowed_are_refused(void **state)
{
    (void)state;
    open_kit(4);
    const char *const addresses[] = {"tcp://10.1.2.3:5", "tcp://127.0.0.1:9", "", "ipc:///tmp/x"};
    const baton_status wanted[] = {BATON_ERR_PERMISSION, BATON_OK, BATON_OK, BATON_ERR_PERMISSION};
    rx_kit_prompt(&a, 1, 0, KIT_CHUNK_TOKENS);
    for (int i = 0; i < 4; i++) {
        bt_message alloc = rx_kit_message(&alice, BT_MSG_ALLOC), answer;
        alloc.u.alloc = (bt_msg_alloc){.request = bt_blob_of_text("r"),
                                       .keys = bt_blob_of(a.keys, BATON_KEY_BYTES),
                                       .last_tokens = 8,
                                       .deadline_ms = 1000,
                                       .notice = bt_blob_of_text(addresses[i])};
        rx_kit_send(&kit, &alice, BT_RX_ALLOC_PORT, &alloc);
        rx_kit_expect(&kit, BT_MSG_ALLOC_ANSWER, &answer);
        assert_int_equal(answer.status, wanted[i]);
    }
    rx_kit_close(&kit);
}

static void last_tokens_beyond_a_chunk_are_refused(void **state)
{
    (void)state;
    open_kit(4);
    rx_kit_prompt(&a, 1, 0, KIT_CHUNK_TOKENS);
    a.last_tokens = KIT_CHUNK_TOKENS + 1;
    rx_kit_alloc(&kit, &alice, &a);
    assert_int_equal(a.status, BATON_ERR_INVALID_ARG);
    assert_int_equal(stats_now().tickets_live, 0);
    rx_kit_close(&kit);
}

static void closing_revokes_what_is_live(void **state)
{
    (void)state;
    open_kit(2);
    rx_kit_prompt(&a, 1, 0, 2 * KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &alice, &a);
    rx_kit_prompt(&b, 2, 0, KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &bob, &b);
    bt_rx_destroy(kit.rx);
    assert_int_equal(kit.n_watched, 0);
    bool revoked = false, refused = false;
    for (uint32_t i = 0; i < kit.n_frames; i++) {
        bt_message message;
        assert_ok(bt_message_decode(kit.frames[i].bytes, kit.frames[i].n, &message));
        revoked |= message.type == BT_MSG_REVOKE && message.u.end.reason == BATON_ERR_CLOSED;
        refused |= message.type == BT_MSG_ALLOC_ANSWER && message.status == BATON_ERR_CLOSED;
    }
    assert_true(revoked && refused);
    assert_int_equal(kit.n_events, 2);
    bt_transport_destroy(kit.transport);
    bt_loop_net_destroy(kit.net);
    for (uint32_t i = 0; i < kit.n_frames; i++)
        test_free(kit.frames[i].bytes);
    test_free(kit.taken.bytes);
}

/* None of our own code asks for these; were it to, nothing may follow but a count. */
static void moves_that_are_not_in_the_table_change_nothing(void **state)
{
    (void)state;
    bt_expect_log("refused");
    open_kit(4);
    rx_kit_prompt(&a, 1, 0, 2 * KIT_CHUNK_TOKENS);
    rx_kit_alloc(&kit, &alice, &a);
    bt_rx_ticket *ticket = kit.rx->first_ticket;
    assert_false(bt_rx_ticket_move(kit.rx, ticket, BT_TICKET_ON_DRAINED));
    assert_false(bt_rx_ticket_move(kit.rx, ticket, BT_TICKET_ON_CONSUMED));
    assert_false(bt_rx_ticket_move(kit.rx, ticket, BT_N_TICKET_CHANGES));
    assert_false(bt_rx_ticket_move(kit.rx, ticket, BT_TICKET_ON_FINAL)); /* nothing has landed */
    assert_int_equal(ticket->state, BT_TICKET_GRANTED);
    assert_int_equal(stats_now().moves_refused_total, 4);
    assert_int_equal(stats_now().pages_reserved, 2);
    rx_kit_close(&kit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(alloc_is_granted_with_a_page_for_each_chunk),
        bt_test(moves_that_are_not_in_the_table_change_nothing),
        bt_test(chunks_that_are_there_are_not_sent_again),
        bt_test(the_same_alloc_is_answered_again_and_not_carried_out_twice),
        bt_test(the_same_id_of_another_sender_is_another_request),
        bt_test(ids_may_come_in_any_order),
        bt_test(a_grant_that_the_sender_never_saw_is_canceled_by_number),
        bt_test(canceled_and_drained_pages_are_free_at_once),
        bt_test(canceled_but_not_drained_pages_wait_in_quarantine),
        bt_test(a_deadline_without_end_is_the_receivers),
        bt_test(revoke_is_repeated_until_drained),
        bt_test(a_closing_receiver_tells_the_proxy_of_what_it_held),
        bt_test(release_ends_what_it_names_in_every_state),
        bt_test(status_tells_the_state_of_live_and_ended_requests),
        bt_test(notice_addresses_that_are_not_allowed_are_refused),
        bt_test(last_tokens_beyond_a_chunk_are_refused),
        bt_test(closing_revokes_what_is_live),
    };
    return bt_run_tests(tests);
}
