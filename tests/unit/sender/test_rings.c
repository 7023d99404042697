/* SPDX-License-Identifier: Apache-2.0 */
/* Control messages by rings in shared memory: when they are used, and that nothing is lost when
 * they are not, are full, broken, or go with their connection. */
#include "handoffkit.h"

static const pair_options ringed = {.n_pages = 8, .mapped = true, .rings = true};
static uint32_t n_on_bus[32]; /* frames by type */

static bool count_types(pair *k, const pair_frame *frame, const bt_message *message)
{
    (void)k, (void)frame;
    n_on_bus[message->type]++;
    return true;
}

static void open_kit(const pair_options *options)
{
    memset(n_on_bus, 0, sizeof(n_on_bus));
    pair_create(&kit, options);
    kit.filter = count_types;
    assert_ok(bt_tx_connect(kit.senders[0].tx, "127.0.0.1", 1, 2));
    pair_run(&kit);
}

static void close_kit(void)
{
    pair_run(&kit);
    pair_check_clean(&kit);
    pair_destroy(&kit);
}

static void land(uint32_t id, uint32_t n)
{
    uint32_t n_done = kit.senders[0].n_done;
    pair_tokens(id, 0, n, tokens);
    hand_off(0, "r", n);
    assert_int_equal(kit.senders[0].n_done, n_done + 1);
    assert_int_equal(pair_check(&kit, tokens, n), n);
}

static bt_tx_peer *tx_peer(void)
{
    return kit.senders[0].tx->peers;
}

static void requests_and_answers_go_by_the_ring(void **state)
{
    (void)state;
    open_kit(&ringed);
    for (uint32_t n = 1; n <= 5 * PAIR_CHUNK; n += 3)
        land(n, n);
    assert_int_equal(n_on_bus[BT_MSG_INIT], 1);
    assert_int_equal(n_on_bus[BT_MSG_MEMREG_ANSWER], 1);
    assert_int_equal(n_on_bus[BT_MSG_HEARTBEAT], 1); /* at once: the receiver needs a way back */
    assert_int_equal(n_on_bus[BT_MSG_ALLOC], 0);
    assert_int_equal(n_on_bus[BT_MSG_ALLOC_ANSWER], 0);
    assert_int_equal(n_on_bus[BT_MSG_COMMIT], 0);
    assert_int_equal(n_on_bus[BT_MSG_COMMIT_ANSWER], 0);
    baton_receiver_stats stats;
    bt_rx_get_stats(kit.rx, &stats);
    assert_int_equal(stats.ring_messages_total, 2 * kit.senders[0].n_done);
    assert_int_equal(stats.messages_dropped_total, 0);
    close_kit();
}

static void puts_are_allocated_by_the_ring_too(void **state)
{
    (void)state;
    pair_options options = ringed;
    options.path = BATON_PATH_PUT;
    options.digests = BATON_DIGESTS_FULL;
    open_kit(&options);
    land(1, 3 * PAIR_CHUNK);
    assert_int_equal(n_on_bus[BT_MSG_ALLOC], 0);
    close_kit();
}

static void without_mapping_or_doorbells_it_is_zeromq(void **state)
{
    (void)state;
    for (int i = 0; i < 4; i++) {
        pair_options options = ringed;
        options.commit = BATON_COMMIT_SOCKET;
        options.mapped = i != 0;
        if (i == 0)
            bt_expect_log("cannot be mapped");
        options.rings = i != 1;
        memset(n_on_bus, 0, sizeof(n_on_bus));
        pair_create(&kit, &options);
        kit.filter = count_types;
        kit.receiver_is_deaf = i == 2;
        kit.senders_are_deaf = i == 3;
        land(1, 2 * PAIR_CHUNK);
        assert_false(bt_framering_is_up(&tx_peer()->to_receiver));
        assert_int_equal(n_on_bus[BT_MSG_ALLOC], 1);
        assert_int_equal(n_on_bus[BT_MSG_COMMIT_ANSWER], n_on_bus[BT_MSG_COMMIT]);
        assert_int_equal(kit.rx->stats.ring_messages_total, 0);
        close_kit();
    }
}

static void only_a_sleeper_is_rung(void **state)
{
    (void)state;
    open_kit(&ringed);
    land(1, PAIR_CHUNK);
    uint32_t n_receiver = kit.n_rung[0], n_sender = kit.n_rung[1];
    land(2, PAIR_CHUNK);
    assert_int_equal(kit.n_rung[0], n_receiver);
    assert_int_equal(kit.n_rung[1], n_sender);
    pair_run(&kit);
    assert_true(bt_rx_arm(kit.rx));
    assert_true(bt_tx_arm(kit.senders[0].tx));
    land(3, PAIR_CHUNK);
    assert_int_equal(kit.n_rung[0], n_receiver + 1);
    assert_int_equal(kit.n_rung[1], n_sender + 1);
    pair_run(&kit);
    assert_true(bt_rx_arm(kit.rx));
    bt_rx_disarm(kit.rx);
    land(4, PAIR_CHUNK);
    assert_int_equal(kit.n_rung[0], n_receiver + 1);
    close_kit();
}

/* What has come while it looked elsewhere keeps it awake. */
static void nobody_falls_asleep_over_a_frame(void **state)
{
    (void)state;
    open_kit(&ringed);
    land(1, PAIR_CHUNK);
    pair_tokens(2, 0, PAIR_CHUNK, tokens);
    pair_begin(&kit, 0, "r", tokens, PAIR_CHUNK, 50);
    bt_tx_progress(kit.senders[0].tx);
    assert_false(bt_rx_arm(kit.rx));
    bt_rx_progress(kit.rx);
    assert_true(bt_rx_arm(kit.rx));
    assert_false(bt_tx_arm(kit.senders[0].tx));
    pair_advance(&kit, 100);
    assert_int_equal(kit.senders[0].n_failed, 1);
    close_kit();
}

/* A ring that nobody reads fills up; then it is ZeroMQ, and every request is carried out once. */
/* A receiver whose alloc port nobody answers is of no use, ring or not. */
static bool nothing_on_the_alloc_port(pair *k, const pair_frame *frame, const bt_message *message)
{
    (void)k, (void)message;
    return frame->port != BT_RX_ALLOC_PORT;
}

static void an_alloc_port_that_does_not_answer_fails_in_time(void **state)
{
    (void)state;
    pair_create(&kit, &ringed);
    kit.filter = nothing_on_the_alloc_port;
    bt_expect_log("nothing heard");
    pair_tokens(1, 0, PAIR_CHUNK, tokens);
    hand_off(0, "r", PAIR_CHUNK);
    pair_advance(&kit, 6000);
    assert_int_equal(kit.senders[0].n_failed, 1);
    assert_int_equal(kit.rx->stats.ring_messages_total, 0);
    pair_destroy(&kit);
}

static void a_full_ring_is_gone_round(void **state)
{
    (void)state;
    enum { N = 1500 };
    pair_options options = ringed;
    open_kit(&options);
    land(1, PAIR_CHUNK);
    pair_tokens(1, 0, PAIR_CHUNK, tokens);
    bt_tx *tx = kit.senders[0].tx;
    uint32_t n = 0;
    while (n < N && kit.n_frames == 0) { /* the receiver does not progress */
        baton_transfer transfer = pair_begin(&kit, 0, "r", tokens, PAIR_CHUNK, 0);
        assert_ok(bt_tx_post(tx, BT_TX_FINISH, transfer));
        bt_tx_progress(tx);
        n++;
    }
    assert_true(kit.n_frames > 0 && n > 100);
    for (int i = 0; i < 100 && kit.senders[0].n_done < n + 1; i++)
        pair_run(&kit);
    assert_int_equal(kit.senders[0].n_done, n + 1);
    assert_int_equal(n_on_bus[BT_MSG_ALLOC], 1);
    assert_int_equal(kit.rx->stats.tickets_granted_total, n + 1);
    for (uint32_t i = 0; i < n; i++)
        pair_check(&kit, tokens, PAIR_CHUNK), pair_run(&kit);
    close_kit();
}

static void spoil_ring(uint8_t *memory)
{
    memset(memory, 0xff, 8); /* the tail */
}

/* Whichever end notices: it goes on by ZeroMQ, and what the ring has swallowed is said again. */
static void a_broken_ring_costs_time_and_nothing_else(void **state)
{
    (void)state;
    for (int i = 0; i < 2; i++) {
        open_kit(&ringed);
        land(1, PAIR_CHUNK);
        bt_expect_log("control ring given up");
        spoil_ring(i == 0 ? kit.rx->peers->from_sender.memory : kit.rx->peers->to_sender.memory);
        pair_run(&kit); /* it is noticed before the tail's owner writes it anew */
        pair_tokens(2, 0, 2 * PAIR_CHUNK, tokens);
        hand_off(0, "r", 2 * PAIR_CHUNK);
        pair_advance(&kit, 1000);
        assert_int_equal(kit.senders[0].n_done, 2);
        assert_true(n_on_bus[BT_MSG_ALLOC] > 0);
        assert_int_equal(kit.rx->stats.tickets_granted_total, 2);
        assert_int_equal(pair_check(&kit, tokens, 2 * PAIR_CHUNK), 2 * PAIR_CHUNK);
        close_kit();
    }
}

static void write_frame(bt_message *message, uint64_t epoch)
{
    bt_packwriter writer;
    bool must_ring;
    bt_pack_init(&writer, BT_FRAME_BYTES_MAX);
    message->v = BT_PROTOCOL_VERSION;
    message->epoch = epoch;
    message->peer_epoch = kit.rx->epoch;
    assert_ok(bt_message_encode(message, &writer));
    assert_ok(bt_framering_write(&tx_peer()->to_receiver, writer.bytes, writer.n, &must_ring));
    bt_pack_release(&writer);
}

static void a_ring_speaks_for_its_own_peer_and_of_requests_only(void **state)
{
    (void)state;
    bool must_ring;
    open_kit(&ringed);
    land(1, PAIR_CHUNK);
    uint64_t n_stale = kit.rx->stats.messages_stale_total;
    bt_message release = {.type = BT_MSG_RELEASE, .id = 900, .u.request = bt_blob_of_text("r")};
    write_frame(&release, kit.senders[0].tx->epoch + 1);
    bt_rx_progress(kit.rx);
    assert_int_equal(kit.rx->stats.messages_stale_total, n_stale + 1);
    bt_message status = {.type = BT_MSG_STATUS, .id = 901, .u.request = bt_blob_of_text("r")};
    write_frame(&status, kit.senders[0].tx->epoch);
    assert_ok(bt_framering_write(&tx_peer()->to_receiver, "garbage", 7, &must_ring));
    bt_rx_progress(kit.rx);
    assert_int_equal(kit.rx->stats.messages_dropped_total, 2);
    land(2, PAIR_CHUNK);
    close_kit();
}

static void a_receiver_that_restarts_has_a_ring_of_its_own(void **state)
{
    (void)state;
    open_kit(&ringed);
    land(1, 2 * PAIR_CHUNK);
    pair_restart_receiver(&kit, &ringed);
    bt_expect_log("connection ended");
    pair_tokens(2, 0, 2 * PAIR_CHUNK, tokens);
    pair_run(&kit);
    assert_null(tx_peer()->ring_remote);
    hand_off(0, "r", 2 * PAIR_CHUNK);
    pair_advance(&kit, 500);
    assert_int_equal(kit.senders[0].n_done, 2);
    assert_int_equal(pair_check(&kit, tokens, 2 * PAIR_CHUNK), 2 * PAIR_CHUNK);
    uint64_t n_ring = kit.rx->stats.ring_messages_total;
    land(3, PAIR_CHUNK);
    assert_int_equal(kit.rx->stats.ring_messages_total, n_ring + 2);
    close_kit();
}

static void a_new_connection_gets_new_rings(void **state)
{
    (void)state;
    open_kit(&ringed);
    land(1, PAIR_CHUNK);
    const bt_memory *before = kit.rx->peers->ring_memory;
    uint8_t *old = before->base;
    bt_expect_log("connection ended");
    bt_loop_cut(kit.net, 0);
    pair_run(&kit);
    assert_null(tx_peer()->ring_remote);
    pair_advance(&kit, 500);
    pair_tokens(2, 0, 2 * PAIR_CHUNK, tokens);
    hand_off(0, "r", 2 * PAIR_CHUNK);
    assert_int_equal(kit.senders[0].n_done, 2);
    assert_ptr_not_equal(kit.rx->peers->ring_memory->base, old);
    assert_int_equal(n_on_bus[BT_MSG_ALLOC], 0);
    pair_check(&kit, tokens, 2 * PAIR_CHUNK);
    close_kit();
}

/* A sender that says its last word and exits has said it. */
static void what_lies_in_a_ring_is_heard_before_its_writer_is_gone(void **state)
{
    (void)state;
    open_kit(&ringed);
    land(1, PAIR_CHUNK);
    pair_tokens(2, 0, PAIR_CHUNK, tokens);
    baton_transfer transfer = pair_begin(&kit, 0, "r", tokens, PAIR_CHUNK, 0);
    bt_tx_progress(kit.senders[0].tx);
    bt_rx_progress(kit.rx);
    pair_push_all(&kit, 0, transfer, tokens, PAIR_CHUNK, data[0]);
    bt_tx_progress(kit.senders[0].tx); /* takes the grant, writes, commits */
    uint32_t n_ready = kit.n_ready;
    bt_expect_log("connection ended");
    bt_rx_peer_exited(kit.rx, kit.rx->peers);
    assert_int_equal(kit.n_ready, n_ready + 1);
    assert_int_equal(pair_check(&kit, tokens, PAIR_CHUNK), PAIR_CHUNK);
    pair_run(&kit);
    pair_destroy(&kit);
}

static void an_offer_that_cannot_be_is_not_taken(void **state)
{
    (void)state;
    open_kit(&ringed);
    land(1, PAIR_CHUNK);
    bt_tx *tx = kit.senders[0].tx;
    bt_tx_peer *peer = tx_peer();
    const bt_memory *memory = kit.rx->peers->ring_memory;
    const bt_msg_ring good = {.base = (uint64_t)(uintptr_t)memory->base,
                              .to_receiver_bytes = BT_RX_RING_IN_BYTES,
                              .to_sender_bytes = BT_RX_RING_OUT_BYTES,
                              .rkey = bt_blob_of(memory->rkey, memory->rkey_bytes),
                              .doorbell = bt_blob_of_text("r")};
    bt_msg_ring bad[5];
    for (int i = 0; i < 5; i++)
        bad[i] = good;
    bad[0].to_receiver_bytes = 12345;
    bad[1].to_sender_bytes = 1u << 31;
    bad[2].to_sender_bytes *= 2; /* more than the memory has */
    bad[3].base += 64;
    bad[4].rkey.bytes -= 1;
    for (int i = 0; i < 5; i++) {
        bt_tx_ring_close(peer);
        bt_tx_ring_open(tx, peer, &bad[i]);
        assert_false(bt_framering_is_up(&peer->to_receiver));
        assert_null(peer->ring_remote);
    }
    land(2, PAIR_CHUNK); /* by ZeroMQ */
    close_kit();
}

/* The receiver offers a ring, but the memory cannot be mapped here, and nobody reads it. */
static void a_grant_from_the_queue_reaches_a_sender_without_a_ring(void **state)
{
    (void)state;
    bt_expect_log("cannot be mapped");
    pair_options options = ringed;
    options.mapped = false;
    options.n_pages = 1;
    open_kit(&options);
    assert_non_null(kit.rx->peers->ring_memory);
    assert_false(bt_framering_is_up(&tx_peer()->to_receiver));
    pair_tokens(1, 0, PAIR_CHUNK, tokens);
    baton_transfer first = pair_begin(&kit, 0, "a", tokens, PAIR_CHUNK, 0);
    pair_run(&kit);
    pair_tokens(2, 0, PAIR_CHUNK, tokens);
    hand_off(0, "b", PAIR_CHUNK);
    assert_int_equal(kit.rx->n_queued, 1);
    assert_ok(bt_tx_post(kit.senders[0].tx, BT_TX_CANCEL, first));
    pair_run(&kit); /* at once: no clock has moved */
    assert_int_equal(kit.senders[0].n_done, 1);
    assert_int_equal(pair_check(&kit, tokens, PAIR_CHUNK), PAIR_CHUNK);
    close_kit();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(requests_and_answers_go_by_the_ring),
        bt_test(puts_are_allocated_by_the_ring_too),
        bt_test(without_mapping_or_doorbells_it_is_zeromq),
        bt_test(only_a_sleeper_is_rung),
        bt_test(nobody_falls_asleep_over_a_frame),
        bt_test(an_alloc_port_that_does_not_answer_fails_in_time),
        bt_test(a_full_ring_is_gone_round),
        bt_test(a_broken_ring_costs_time_and_nothing_else),
        bt_test(a_ring_speaks_for_its_own_peer_and_of_requests_only),
        bt_test(a_receiver_that_restarts_has_a_ring_of_its_own),
        bt_test(a_new_connection_gets_new_rings),
        bt_test(what_lies_in_a_ring_is_heard_before_its_writer_is_gone),
        bt_test(an_offer_that_cannot_be_is_not_taken),
        bt_test(a_grant_from_the_queue_reaches_a_sender_without_a_ring),
    };
    return bt_run_tests(tests);
}
