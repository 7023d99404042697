/* SPDX-License-Identifier: Apache-2.0 */
/* COMMIT behind the data: it never overtakes what it speaks of, and what comes that way is not
 * trusted more than what comes through a socket. */
#include "handoffkit.h"

enum { N_TOKENS = 3 * PAIR_CHUNK + 3 };

static void begin_kit(void)
{
    pair_create(&kit, &(pair_options){.n_pages = 8, .path = BATON_PATH_PUT});
    pair_tokens(1, 0, N_TOKENS, tokens);
}

/* A connected pair, so that the next put is the first of its link. */
static bt_tx_peer *connect_kit(void)
{
    begin_kit();
    assert_ok(bt_tx_connect(kit.senders[0].tx, "127.0.0.1", 1, 2));
    pair_run(&kit);
    return kit.senders[0].tx->peers;
}

static void check_done(void)
{
    assert_int_equal(kit.senders[0].n_done, 1);
    assert_int_equal(kit.senders[0].n_failed, 0);
    assert_int_equal(kit.senders[0].end.sent_chunks, 4);
    assert_int_equal(kit.senders[0].end.sent_bytes, N_TOKENS * PAIR_TOKEN_BYTES);
    assert_int_equal(pair_check(&kit, tokens, N_TOKENS), N_TOKENS);
    pair_run(&kit);
    pair_check_clean(&kit);
}

/* pair_check compares every byte of what can be looked up, at every moment. */
static void nothing_is_readable_before_its_bytes(void **state)
{
    (void)state;
    for (uint64_t round = 0; round < 30; round++) {
        bt_tx_peer *peer = connect_kit();
        const bt_loop_faults faults = {.delay_ns = round % 3 * BT_NS_PER_MS,
                                       .jitter_ns = 20 * BT_NS_PER_MS,
                                       .duplicate_percent = 20,
                                       .reorder = round % 2 == 0};
        assert_ok(bt_loop_set_faults(kit.net, BT_LOOP_ALL_LINKS, &faults));
        baton_transfer transfer = pair_begin(&kit, 0, "r", tokens, N_TOKENS, 0);
        pair_run(&kit);
        pair_push_all(&kit, 0, transfer, tokens, N_TOKENS, data[0]);
        uint32_t n_before = 0;
        for (uint32_t step = 0; step < 60 && kit.senders[0].n_done == 0; step++) {
            kit.manual.now_ns += BT_NS_PER_MS;
            pair_run(&kit);
            baton_pin *pin;
            uint32_t n_matched;
            assert_ok(bt_rx_lookup(kit.rx, tokens, N_TOKENS, &pin, &n_matched));
            n_before += n_matched == 0;
            for (uint32_t i = 0; pin != NULL && i < baton_pin_chunks(pin); i++) {
                uint8_t wanted[PAIR_PAGE_BYTES];
                baton_pinned_chunk chunk;
                assert_ok(baton_pin_chunk(pin, i, &chunk));
                assert_int_equal(pair_chunk(tokens, n_matched, i, wanted), chunk.bytes);
                assert_memory_equal(chunk.page, wanted, chunk.bytes);
            }
            if (pin != NULL)
                assert_ok(bt_rx_unpin(kit.rx, pin));
        }
        assert_true(n_before > 0);
        assert_int_equal(peer->state, BT_TX_PEER_READY);
        check_done();
        pair_destroy(&kit);
    }
}

static uint32_t n_commits;
static bool count_commits(pair *k, const pair_frame *frame, const bt_message *message)
{
    (void)k, (void)frame;
    n_commits += message->type == BT_MSG_COMMIT;
    return true;
}

static void puts_are_committed_behind_them_unless_told_otherwise(void **state)
{
    (void)state;
    for (int socket = 0; socket <= 1; socket++) {
        pair_create(&kit,
                    &(pair_options){.n_pages = 8,
                                    .path = BATON_PATH_PUT,
                                    .commit = socket ? BATON_COMMIT_SOCKET : BATON_COMMIT_AUTO});
        pair_tokens(1, 0, N_TOKENS, tokens);
        kit.filter = count_commits;
        n_commits = 0;
        hand_off(0, "r", N_TOKENS);
        assert_int_equal(n_commits > 0, socket);
        check_done();
        pair_destroy(&kit);
    }
}

static void mapped_pages_are_committed_through_the_socket(void **state)
{
    (void)state;
    pair_create(&kit, &(pair_options){.n_pages = 8, .mapped = true});
    pair_tokens(1, 0, N_TOKENS, tokens);
    kit.filter = count_commits;
    n_commits = 0;
    hand_off(0, "r", N_TOKENS);
    assert_true(n_commits > 0);
    check_done();
    pair_destroy(&kit);
}

static void a_lost_commit_is_sent_again_and_a_repeated_one_does_nothing(void **state)
{
    (void)state;
    static const bt_loop_faults faults[] = {{.drop_nth_message = 1}, {.duplicate_percent = 100}};
    for (size_t i = 0; i < 2; i++) {
        connect_kit();
        assert_ok(bt_loop_set_faults(kit.net, BT_LOOP_ALL_LINKS, &faults[i]));
        hand_off(0, "r", N_TOKENS);
        assert_int_equal(kit.senders[0].n_done, i == 1);
        pair_advance(&kit, 250);
        check_done();
        pair_destroy(&kit);
    }
}

/* The commit answer says that the data is there, so nothing needs a flush. */
static void a_put_that_fails_in_the_middle_is_never_committed(void **state)
{
    (void)state;
    for (int in_call = 0; in_call <= 1; in_call++) {
        connect_kit();
        if (!in_call)
            bt_expect_log("connection ended");
        const bt_loop_faults faults = {.fail_nth_put = 1, .fail_in_call = in_call != 0};
        assert_ok(bt_loop_set_faults(kit.net, BT_LOOP_ALL_LINKS, &faults));
        hand_off(0, "r", N_TOKENS);
        pair_advance(&kit, 1000);
        assert_int_equal(kit.senders[0].n_failed, 1);
        assert_int_equal(kit.senders[0].end.status, BATON_ERR_TRANSPORT);
        assert_int_equal(kit.senders[0].n_source_free, 4);
        assert_int_equal(pair_check(&kit, tokens, N_TOKENS), 0);
        pair_check_clean(&kit);
        assert_ok(bt_loop_set_faults(kit.net, BT_LOOP_ALL_LINKS, NULL));
        hand_off(0, "again", N_TOKENS);
        assert_int_equal(kit.senders[0].n_done, 1);
        pair_destroy(&kit);
    }
}

static size_t encode(bt_message *message, uint64_t epoch, uint8_t *frame, size_t room)
{
    bt_packwriter writer;
    bt_pack_init(&writer, BT_FRAME_BYTES_MAX);
    message->v = BT_PROTOCOL_VERSION;
    message->epoch = epoch;
    message->peer_epoch = kit.rx->epoch;
    assert_ok(bt_message_encode(message, &writer));
    assert_true(writer.n <= room);
    memcpy(frame, writer.bytes, writer.n);
    size_t n = writer.n;
    bt_pack_release(&writer);
    return n;
}

/* Whoever can reach the data port can send there. */
static void what_comes_behind_the_data_is_not_trusted(void **state)
{
    (void)state;
    bt_tx_peer *peer = connect_kit();
    bt_tx *tx = kit.senders[0].tx;
    pair_begin(&kit, 0, "r", tokens, N_TOKENS, 0);
    pair_run(&kit);
    const bt_tx_transfer *transfer = tx->first;
    assert_int_equal(transfer->state, BT_TX_MOVING);
    uint8_t frame[1024], wrong[BT_NONCE_BYTES] = {0};
    const bt_chunk_range all = {.first = 0, .count = 4};
    bt_message commit = {.type = BT_MSG_COMMIT,
                         .id = 1000,
                         .u.commit = {.name = {.ticket = transfer->ticket,
                                               .generation = transfer->generation,
                                               .nonce = bt_blob_of(wrong, sizeof(wrong))},
                                      .ranges = &all,
                                      .n_ranges = 1,
                                      .final = 1}};
    uint64_t n_stale = kit.rx->stats.messages_stale_total;
    uint64_t n_dropped = kit.rx->stats.messages_dropped_total;
    size_t n = encode(&commit, tx->epoch, frame, sizeof(frame));
    assert_ok(bt_endpoint_send(peer->endpoint, frame, n)); /* no nonce */
    n = encode(&commit, tx->epoch + 1, frame, sizeof(frame));
    assert_ok(bt_endpoint_send(peer->endpoint, frame, n)); /* somebody else's */
    bt_message cancel = {.type = BT_MSG_CANCEL,
                         .id = 1001,
                         .u.end = {.name = {.ticket = transfer->ticket,
                                            .generation = transfer->generation,
                                            .nonce = bt_blob_of(transfer->nonce, BT_NONCE_BYTES)},
                                   .drained = 1}};
    n = encode(&cancel, tx->epoch, frame, sizeof(frame));
    assert_ok(bt_endpoint_send(peer->endpoint, frame, n)); /* no COMMIT */
    assert_ok(bt_endpoint_send(peer->endpoint, frame, n / 2));
    pair_run(&kit);
    assert_int_equal(kit.rx->stats.messages_stale_total, n_stale + 2);
    assert_int_equal(kit.rx->stats.messages_dropped_total, n_dropped + 2);
    assert_int_equal(pair_check(&kit, tokens, N_TOKENS), 0);
    pair_push_all(&kit, 0, transfer->id, tokens, N_TOKENS, data[0]);
    pair_run(&kit);
    check_done();
    pair_destroy(&kit);
}

enum { FLOOD = 5000 };

static void flood(bt_endpoint *endpoint)
{
    for (uint32_t i = 0; i < FLOOD; i++)
        assert_ok(bt_endpoint_send(endpoint, "garbage", 7));
}

/* However much a peer says, others and the timers have their turn. */
static void a_flood_of_messages_takes_many_turns(void **state)
{
    (void)state;
    bt_tx_peer *peer = connect_kit();
    uint64_t n_before = kit.rx->stats.messages_dropped_total;
    flood(peer->endpoint);
    bt_rx_progress(kit.rx);
    assert_in_range(kit.rx->stats.messages_dropped_total - n_before, 1, FLOOD / 2);
    assert_false(bt_rx_arm(kit.rx));
    for (uint32_t i = 0; i < FLOOD; i++)
        bt_rx_progress(kit.rx);
    assert_int_equal(kit.rx->stats.messages_dropped_total - n_before, FLOOD);

    bt_tx *tx = kit.senders[0].tx;
    bt_endpoint *back;
    assert_ok(bt_endpoint_connect(kit.rx->peers->worker, tx->worker->address,
                                  tx->worker->address_bytes, 0, &back));
    n_before = tx->stats.messages_dropped_total;
    flood(back);
    bt_tx_progress(tx);
    assert_in_range(tx->stats.messages_dropped_total - n_before, 1, FLOOD / 2);
    assert_false(bt_tx_arm(tx));
    for (uint32_t i = 0; i < FLOOD; i++)
        bt_tx_progress(tx);
    assert_int_equal(tx->stats.messages_dropped_total - n_before, FLOOD);
    hand_off(0, "r", N_TOKENS);
    check_done();
    pair_destroy(&kit);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(nothing_is_readable_before_its_bytes),
        bt_test(puts_are_committed_behind_them_unless_told_otherwise),
        bt_test(mapped_pages_are_committed_through_the_socket),
        bt_test(a_lost_commit_is_sent_again_and_a_repeated_one_does_nothing),
        bt_test(a_put_that_fails_in_the_middle_is_never_committed),
        bt_test(what_comes_behind_the_data_is_not_trusted),
        bt_test(a_flood_of_messages_takes_many_turns),
    };
    return bt_run_tests(tests);
}
