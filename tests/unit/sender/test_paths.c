/* SPDX-License-Identifier: Apache-2.0 */
/* How a sender chooses the way to a peer: figures, floors, and answers that make no sense. */
#include "handoffkit.h"

#include "core/alloc.h"

static bt_tx_peer *peer_of(uint32_t sender)
{
    return kit.senders[sender].tx->peers;
}

/* Lets what is in flight arrive when it is due, and no later: what is measured is the link. */
static void run_in_time(uint64_t limit_ns)
{
    pair_run(&kit);
    for (uint64_t due_ns; (due_ns = bt_loop_next_due_ns(kit.net)) <= limit_ns;) {
        if (due_ns > kit.manual.now_ns)
            kit.manual.now_ns = due_ns;
        pair_run(&kit);
    }
}

static uint64_t in_ms(uint64_t ms)
{
    return kit.manual.now_ns + ms * BT_NS_PER_MS;
}

static void set_wire(uint64_t bytes_per_s, uint64_t delay_ns)
{
    const bt_loop_faults faults = {.bytes_per_s = bytes_per_s, .delay_ns = delay_ns};
    assert_ok(bt_loop_set_faults(kit.net, BT_LOOP_ALL_LINKS, &faults));
}

/* Copies of 4 GB/s, by the test's clock. */
static void slow_copy(bt_tx *tx, void *to, const void *from, size_t bytes)
{
    (void)tx;
    memcpy(to, from, bytes);
    kit.manual.now_ns += bytes / 4;
}

/* 26 ms for a slice. */
static void very_slow_copy(bt_tx *tx, void *to, const void *from, size_t bytes)
{
    (void)tx;
    memcpy(to, from, bytes);
    kit.manual.now_ns += bytes * 100;
}

static void connect_sender(void)
{
    assert_ok(bt_tx_connect(kit.senders[0].tx, "127.0.0.1", 1, 2));
}

static void assert_near(double found, double wanted)
{
    if (found < wanted * 0.97 || found > wanted * 1.03)
        fail_msg("wanted about %g, found %g", wanted, found);
}

static void figures_are_those_of_the_link(void **state)
{
    (void)state;
    pair_create(&kit, &(pair_options){.n_pages = 4, .mapped = true, .measure = true});
    set_wire(2000000000, 30000);
    kit.senders[0].tx->measure_copy = slow_copy;
    connect_sender();
    run_in_time(in_ms(1000));
    baton_sender_peer shown[2];
    assert_int_equal(bt_tx_peers_shown(kit.senders[0].tx, shown, 2), 1);
    assert_true(shown[0].connected);
    assert_int_equal(shown[0].path, BATON_PATH_MAPPED);
    assert_string_equal(shown[0].host, "127.0.0.1");
    assert_string_equal(shown[0].transport, "loop");
    assert_near(shown[0].copy_gbps, 4);
    assert_near(shown[0].stage_gbps, 4);
    assert_near(shown[0].wire_gbps, 2);
    assert_near(shown[0].flush_us, 30);
    baton_sender_stats stats;
    bt_tx_get_stats(kit.senders[0].tx, &stats);
    assert_int_equal(stats.peers_mapped, 1);
    assert_int_equal(stats.peers_put + stats.peers_staged, 0);
    pair_destroy(&kit);
}

static bool count_alloc_port(pair *k, const pair_frame *frame, const bt_message *message)
{
    (void)message;
    k->filter_count += frame->to_receiver && frame->port == BT_TX_ALLOC_PORT;
    return true;
}

static void a_probe_measures_a_receiver_of_any_layout(void **state)
{
    (void)state;
    pair_create(&kit,
                &(pair_options){.n_pages = 4, .mapped = true, .measure = true, .probe = true});
    bt_tx *tx = kit.senders[0].tx;
    set_wire(2000000000, 80 * 1000 * 1000); /* more than a connection that is in a hurry waits */
    tx->measure_copy = slow_copy;
    kit.filter = count_alloc_port;
    assert_ok(bt_tx_connect(tx, "127.0.0.1", 1, 1));
    run_in_time(in_ms(3000));
    baton_sender_peer shown;
    assert_int_equal(bt_tx_peers_shown(tx, &shown, 1), 1);
    assert_true(shown.connected);
    assert_int_equal(shown.path, BATON_PATH_MAPPED);
    assert_near(shown.copy_gbps, 4);
    assert_true(shown.wire_gbps > 0);
    /* It has nothing to say any more, and takes no pages. */
    pair_advance(&kit, 2000);
    assert_int_equal(bt_tx_peers_shown(tx, &shown, 1), 1);
    assert_true(shown.connected);
    assert_int_equal(kit.filter_count, 0);
    const baton_key key = {{1}};
    const baton_transfer_options wanted = {.request = "r",
                                           .host = "127.0.0.1",
                                           .init_port = 1,
                                           .alloc_port = 2,
                                           .keys = &key,
                                           .n_chunks = 1,
                                           .last_tokens = 1};
    baton_transfer transfer;
    assert_fails(bt_tx_begin(tx, &wanted, &transfer), BATON_ERR_STATE, "probe");
    pair_destroy(&kit);
}

static void puts_are_chosen_where_they_are_clearly_faster(void **state)
{
    (void)state;
    static const uint64_t wires[] = {1000000000, UINT64_C(4200000000)};
    for (size_t i = 0; i < 2; i++) { /* gathering for a put is no faster than into the page */
        pair_create(&kit, &(pair_options){.n_pages = 4, .mapped = true, .measure = true});
        set_wire(wires[i], 0);
        kit.senders[0].tx->measure_copy = slow_copy;
        pair_tokens(1, 0, PAIR_CHUNK, tokens);
        hand_off(0, "r", PAIR_CHUNK);
        run_in_time(in_ms(1000));
        assert_int_equal(peer_of(0)->path, BATON_PATH_MAPPED);
        assert_int_equal(kit.senders[0].n_done, 1);
        assert_int_equal(pair_check(&kit, tokens, PAIR_CHUNK), PAIR_CHUNK);
        pair_destroy(&kit);
    }
    const bt_tx_figures figures = {.copy_gbps = 4, .stage_gbps = 4, .wire_gbps = 9, .post_us = 1};
    bt_tx_path_question question = {.can_map = true, .page_bytes = 1 << 20};
    assert_int_equal(bt_tx_path_choose(&question, &figures), BATON_PATH_MAPPED);
    question.has_registered = true; /* no copy at all */
    assert_int_equal(bt_tx_path_choose(&question, &figures), BATON_PATH_PUT);
    question.page_bytes = 2048; /* a put costs more than the copy */
    assert_int_equal(bt_tx_path_choose(&question, &figures), BATON_PATH_MAPPED);
    question.can_map = false;
    assert_int_equal(bt_tx_path_choose(&question, &figures), BATON_PATH_PUT);
    question.page_bytes = 1024; /* posting one costs four times its copy, and is still faster */
    assert_int_equal(bt_tx_path_choose(&question, &figures), BATON_PATH_PUT);
    question.has_registered = false;
    assert_int_equal(bt_tx_path_choose(&question, &figures), BATON_PATH_STAGED);
    question.wanted = BATON_PATH_PUT;
    assert_int_equal(bt_tx_path_choose(&question, &figures), BATON_PATH_PUT);
    question = (bt_tx_path_question){.can_map = true, .page_bytes = 2048};
    assert_int_equal(bt_tx_path_choose(&question, &(bt_tx_figures){0}), BATON_PATH_MAPPED);
    question.require_rdma = true;
    assert_int_equal(bt_tx_path_choose(&question, &figures), BATON_PATH_STAGED);
}

static void a_chosen_put_writes_no_mapped_page(void **state)
{
    (void)state;
    pair_create(&kit, &(pair_options){.n_pages = 4, .mapped = true, .measure = true});
    bt_tx *tx = kit.senders[0].tx;
    tx->measure_copy = slow_copy; /* and puts take no time at all */
    assert_ok(bt_tx_register(tx, data[0], sizeof(data[0]), BATON_MEMORY_HOST));
    pair_tokens(1, 0, 3 * PAIR_CHUNK, tokens);
    hand_off(0, "r", 3 * PAIR_CHUNK);
    assert_int_equal(kit.senders[0].n_done, 1);
    assert_int_equal(peer_of(0)->path, BATON_PATH_PUT);
    assert_int_equal(tx->stats.bytes_mapped_total, 0);
    assert_int_equal(tx->stats.peers_put, 1);
    assert_int_equal(pair_check(&kit, tokens, 3 * PAIR_CHUNK), 3 * PAIR_CHUNK);
    pair_destroy(&kit);
}

static void every_forced_path_moves_the_right_bytes(void **state)
{
    (void)state;
    static const baton_path_choice paths[] = {BATON_PATH_MAPPED, BATON_PATH_PUT, BATON_PATH_STAGED};
    for (size_t p = 0; p < 3; p++) {
        pair_create(
            &kit, &(pair_options){.n_pages = 8, .mapped = true, .measure = true, .path = paths[p]});
        assert_ok(bt_tx_register(kit.senders[0].tx, data[0], sizeof(data[0]), BATON_MEMORY_HOST));
        for (uint32_t n = 1; n <= 3 * PAIR_CHUNK; n += 5) {
            pair_tokens(n, 0, n, tokens);
            hand_off(0, "r", n);
            assert_int_equal(pair_check(&kit, tokens, n), n);
        }
        pair_run(&kit);
        baton_sender_stats stats;
        bt_tx_get_stats(kit.senders[0].tx, &stats);
        assert_int_equal(peer_of(0)->path, paths[p]);
        assert_true((stats.bytes_mapped_total > 0) == (paths[p] == BATON_PATH_MAPPED));
        assert_true((kit.senders[0].tx->staging != NULL) == (paths[p] == BATON_PATH_STAGED));
        pair_check_clean(&kit);
        pair_destroy(&kit);
    }
}

/* Neither for the connection that the first put makes, nor for the figures behind it. */
static void a_slow_measurement_is_not_waited_for(void **state)
{
    (void)state;
    pair_create(&kit, &(pair_options){.n_pages = 4, .path = BATON_PATH_PUT, .measure = true});
    set_wire(0, 1900 * BT_NS_PER_MS);
    pair_tokens(1, 0, PAIR_CHUNK, tokens);
    hand_off(0, "r", PAIR_CHUNK);
    pair_advance(&kit, 1950);
    assert_int_equal(peer_of(0)->state, BT_TX_PEER_MEASURE);
    assert_int_equal(peer_of(0)->measure.state, BT_TX_MEASURE_POST);
    pair_advance(&kit, 500);
    assert_int_equal(peer_of(0)->state, BT_TX_PEER_READY);
    run_in_time(in_ms(5000)); /* its events come late, and change nothing */
    assert_int_equal(kit.senders[0].n_done, 1);
    assert_int_equal(pair_check(&kit, tokens, PAIR_CHUNK), PAIR_CHUNK);
    pair_run(&kit);
    pair_check_clean(&kit);
    pair_destroy(&kit);
}

/* A connection that takes its time to be made, and wires that need 50 ms and more for the whole
 * area: 64 KiB are put, and 256 KiB where that fits into 20 ms. */
static void a_slow_wire_is_measured_too(void **state)
{
    (void)state;
    static const double wires[] = {0.02, 0.002};
    static const uint64_t wanted_ms[] = {60, 100};
    for (size_t i = 0; i < 2; i++) {
        pair_create(&kit, &(pair_options){.n_pages = 4, .path = BATON_PATH_PUT, .measure = true});
        set_wire((uint64_t)(wires[i] * 1e9), 500 * BT_NS_PER_MS);
        connect_sender();
        pair_advance(&kit, 400);
        assert_int_equal(peer_of(0)->state, BT_TX_PEER_MEASURE);
        set_wire((uint64_t)(wires[i] * 1e9), 10000);
        uint64_t began_ns = kit.manual.now_ns;
        run_in_time(in_ms(1000));
        assert_int_equal(peer_of(0)->state, BT_TX_PEER_READY);
        assert_near(peer_of(0)->figures.wire_gbps, wires[i]);
        assert_true(kit.manual.now_ns - began_ns < (100 + wanted_ms[i]) * BT_NS_PER_MS);
        pair_destroy(&kit);
    }
}

/* The time is over with the first slice, which is better than no figure. */
static void one_slow_copy_is_a_figure_too(void **state)
{
    (void)state;
    pair_create(&kit, &(pair_options){.n_pages = 4, .mapped = true, .measure = true});
    kit.senders[0].tx->measure_copy = very_slow_copy;
    connect_sender();
    run_in_time(in_ms(1000));
    assert_int_equal(peer_of(0)->state, BT_TX_PEER_READY);
    assert_near(peer_of(0)->figures.copy_gbps, 0.01);
    assert_true(peer_of(0)->figures.stage_gbps == 0);
    pair_destroy(&kit);
}

/* A key must outlive the puts that use it. */
static void what_is_measured_into_stays_while_puts_are_under_way(void **state)
{
    (void)state;
    pair_create(&kit, &(pair_options){.n_pages = 4, .mapped = true, .measure = true});
    set_wire(2000000000, 100 * BT_NS_PER_MS);
    connect_sender();
    pair_run(&kit);
    uint64_t n_remotes = bt_transport_live().remotes;
    pair_advance(&kit, 50);
    assert_int_equal(peer_of(0)->state, BT_TX_PEER_READY);
    assert_true(peer_of(0)->measure.n_out > 0);
    assert_int_equal(bt_transport_live().remotes, n_remotes);
    pair_advance(&kit, 1000);
    pair_tokens(1, 0, PAIR_CHUNK, tokens);
    hand_off(0, "r", PAIR_CHUNK);
    assert_int_equal(pair_check(&kit, tokens, PAIR_CHUNK), PAIR_CHUNK);
    pair_destroy(&kit);
    assert_int_equal(bt_transport_live().remotes, 0);
}

static void a_lost_measurement_ends_in_time(void **state)
{
    (void)state;
    for (uint64_t nth = 1; nth <= 20; nth++) {
        pair_create(&kit, &(pair_options){.n_pages = 4, .path = BATON_PATH_PUT, .measure = true});
        assert_ok(
            bt_loop_set_faults(kit.net, BT_LOOP_ALL_LINKS, &(bt_loop_faults){.drop_nth_put = nth}));
        connect_sender();
        pair_advance(&kit, 2100);
        assert_int_equal(peer_of(0)->state, BT_TX_PEER_READY);
        pair_destroy(&kit);
    }
}

static void a_put_that_fails_takes_the_connection_only_where_puts_are_needed(void **state)
{
    (void)state;
    for (uint64_t nth = 1; nth <= 20; nth++) {
        for (int mapped = 0; mapped < 2; mapped++) {
            bt_expect_log("connection ended");
            pair_create(&kit, &(pair_options){.n_pages = 4,
                                              .mapped = mapped != 0,
                                              .path = mapped ? BATON_PATH_AUTO : BATON_PATH_PUT,
                                              .measure = true});
            assert_ok(bt_loop_set_faults(
                kit.net, BT_LOOP_ALL_LINKS,
                &(bt_loop_faults){.fail_nth_put = nth, .fail_in_call = nth % 2 == 0}));
            pair_tokens(1, 0, PAIR_CHUNK, tokens);
            hand_off(0, "r", PAIR_CHUNK);
            pair_advance(&kit, 200);
            if (mapped)
                assert_int_equal(kit.senders[0].n_done, 1);
            assert_int_equal(kit.senders[0].n_done + kit.senders[0].n_failed, 1);
            pair_destroy(&kit);
        }
    }
}

/* What the receiver says of its scratch area is changed on the way. */
static bt_msg_scratch forged;
static bool forge_scratch(pair *k, const pair_frame *frame, const bt_message *message)
{
    if (frame->to_receiver || message->type != BT_MSG_MEMREG_ANSWER || k->filter_count > 0)
        return true;
    k->filter_count++;
    bt_message changed = *message;
    bt_blob rkey = changed.u.memreg_answer.scratch.rkey;
    changed.u.memreg_answer.scratch = forged;
    if (forged.rkey.bytes == 0 && forged.bytes != 0)
        changed.u.memreg_answer.scratch.rkey = rkey;
    bt_packwriter writer;
    bt_pack_init(&writer, BT_FRAME_BYTES_MAX);
    assert_ok(bt_message_encode(&changed, &writer));
    bt_tx *tx = k->senders[frame->sender].tx;
    bt_tx_handle(tx, tx->peers, (bt_tx_port)frame->port, writer.bytes, writer.n);
    bt_pack_release(&writer);
    return false;
}

static void connect_with(bt_msg_scratch scratch)
{
    forged = scratch;
    kit.filter = forge_scratch;
    kit.filter_count = 0;
    connect_sender();
    pair_run(&kit);
}

static void scratch_areas_that_make_no_sense_are_refused(void **state)
{
    (void)state;
    bt_expect_log("connection ended");
    static const uint8_t garbage[24] = {1};
    pair_create(&kit, &(pair_options){.n_pages = 4, .mapped = true, .measure = true});
    uint64_t base = (uint64_t)(uintptr_t)kit.rx->scratch->base, bytes = kit.rx->scratch->bytes;
    const bt_msg_scratch wrong[] = {
        {.base = base - 1, .bytes = bytes},
        {.base = base + 1, .bytes = bytes},
        {.base = base, .bytes = bytes + 1},
        {.base = (uint64_t)(uintptr_t)kit.rx->regions[0].memory->base, .bytes = 8192},
        {.base = base, .bytes = bytes, .rkey = bt_blob_of(garbage, sizeof(garbage))},
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        connect_with(wrong[i]);
        assert_int_equal(peer_of(0)->state, BT_TX_PEER_DOWN);
        baton_sender_peer shown;
        bt_tx_peers_shown(kit.senders[0].tx, &shown, 1);
        assert_false(shown.connected);
        assert_true(shown.status < 0);
        pair_advance(&kit, 7000); /* and then the real one is taken */
        assert_int_equal(peer_of(0)->state, BT_TX_PEER_READY);
        kit.filter = NULL;
        bt_tx_peer_down(kit.senders[0].tx, peer_of(0), BATON_ERR_PEER_RESTARTED, "by the test");
        pair_run(&kit);
        kit.manual.now_ns = peer_of(0)->next_attempt_ns;
    }
    pair_destroy(&kit);
}

static void without_a_scratch_area_the_path_is_taken_unmeasured(void **state)
{
    (void)state;
    for (uint64_t bytes = 0; bytes < 8192; bytes += 4095) {
        pair_create(&kit, &(pair_options){.n_pages = 4, .mapped = true, .measure = true});
        connect_with(
            (bt_msg_scratch){.base = (uint64_t)(uintptr_t)kit.rx->scratch->base, .bytes = bytes});
        assert_int_equal(peer_of(0)->state, BT_TX_PEER_READY);
        assert_int_equal(peer_of(0)->path, BATON_PATH_MAPPED);
        assert_true((peer_of(0)->figures.copy_gbps > 0) == (bytes >= 4096));
        pair_destroy(&kit);
    }
}

static void pages_keep_their_bytes_while_others_measure(void **state)
{
    (void)state;
    pair_create(&kit, &(pair_options){
                          .n_senders = 4, .n_pages = 4, .path = BATON_PATH_PUT, .measure = true});
    pair_tokens(1, 0, 4 * PAIR_CHUNK, tokens);
    hand_off(0, "a", 4 * PAIR_CHUNK);
    for (uint32_t i = 1; i < 4; i++)
        assert_ok(bt_tx_connect(kit.senders[i].tx, "127.0.0.1", 1, 2));
    pair_run(&kit);
    assert_int_equal(peer_of(3)->state, BT_TX_PEER_READY);
    assert_int_equal(pair_check(&kit, tokens, 4 * PAIR_CHUNK), 4 * PAIR_CHUNK);
    pair_destroy(&kit);
}

/* Floors. */

static void assert_refused(const pair_options *options, const char *const *words)
{
    bt_expect_log("connection ended");
    pair_create(&kit, options);
    set_wire(1000000000, 0);
    pair_tokens(1, 0, PAIR_CHUNK, tokens);
    hand_off(0, "r", PAIR_CHUNK);
    run_in_time(in_ms(5000));
    pair_advance(&kit, 3000);
    assert_int_equal(kit.senders[0].n_failed, 1);
    assert_int_equal(kit.senders[0].end.status, BATON_ERR_PATH);
    for (; *words != NULL; words++) {
        if (strstr(kit.senders[0].end.text, *words) == NULL)
            fail_msg("\"%s\" is not in \"%s\"", *words, kit.senders[0].end.text);
    }
}

static void a_path_below_the_floor_is_refused(void **state)
{
    (void)state;
    static const char *const ours[] = {"at least 2 GB/s", "min_gbps, ours", "measured 1 GB/s",
                                       "loop", NULL};
    static const char *const theirs[] = {"at least 2 GB/s", "min_gbps, the receiver's",
                                         "measured 1 GB/s", NULL};
    pair_options options = {.n_pages = 4, .path = BATON_PATH_PUT, .measure = true};
    options.sender_floor.min_gbps = 2;
    assert_refused(&options, ours);
    pair_destroy(&kit);
    options.receiver_floor.min_gbps = 2;
    options.sender_floor.min_gbps = 0.5;
    assert_refused(&options, theirs);
    pair_destroy(&kit);
    options.measure = false;
    static const char *const unknown[] = {"nothing could be measured", NULL};
    assert_refused(&options, unknown);
    pair_destroy(&kit);
}

static void a_path_above_the_floor_is_taken(void **state)
{
    (void)state;
    pair_options options = {.n_pages = 4, .path = BATON_PATH_PUT, .measure = true};
    options.sender_floor.min_gbps = 0.9;
    options.receiver_floor.min_gbps = 0.95;
    pair_create(&kit, &options);
    set_wire(1000000000, 100000);
    pair_tokens(1, 0, PAIR_CHUNK, tokens);
    hand_off(0, "r", PAIR_CHUNK);
    run_in_time(in_ms(5000));
    assert_int_equal(kit.senders[0].n_done, 1);
    pair_destroy(&kit);
}

static bool count_inits(pair *k, const pair_frame *frame, const bt_message *message)
{
    k->filter_count += frame->to_receiver && message->type == BT_MSG_INIT;
    return true;
}

static void a_refused_peer_is_left_alone_and_its_transfers_fail_with_the_reason(void **state)
{
    (void)state;
    static const char *const words[] = {"require_rdma, ours", "found transport loop", NULL};
    pair_options options = {.n_pages = 4, .path = BATON_PATH_PUT, .measure = true};
    options.sender_floor.require_rdma = true;
    assert_refused(&options, words);
    kit.filter = count_inits;
    for (uint32_t i = 0; i < 10; i++) { /* all within the 5 s that a refusal lasts */
        hand_off(0, "again", PAIR_CHUNK);
        assert_int_equal(kit.senders[0].n_failed, 2 + i);
        assert_int_equal(kit.senders[0].end.status, BATON_ERR_PATH);
        assert_non_null(strstr(kit.senders[0].end.text, "require_rdma"));
    }
    assert_int_equal(kit.filter_count, 0);
    baton_sender_stats stats;
    bt_tx_get_stats(kit.senders[0].tx, &stats);
    assert_int_equal(stats.peers_refused_total, 1);
    pair_advance(&kit, 6000);
    hand_off(0, "late", PAIR_CHUNK); /* looked at again, once */
    run_in_time(in_ms(1000));
    assert_int_equal(kit.filter_count, 1);
    assert_int_equal(kit.senders[0].n_failed, 12);
    pair_destroy(&kit);
}

static void require_rdma_does_not_take_mapped_memory(void **state)
{
    (void)state;
    static const char *const words[] = {"require_rdma, the receiver's", "found transport loop",
                                        NULL};
    pair_options options = {.n_pages = 4, .mapped = true, .measure = true};
    options.receiver_floor.require_rdma = true;
    assert_refused(&options, words);
    pair_destroy(&kit);
    static const char *const mapped[] = {"found mapped memory", NULL};
    options.path = BATON_PATH_MAPPED;
    assert_refused(&options, mapped);
    pair_destroy(&kit);
}

static void rdma_is_told_from_what_only_looks_like_it(void **state)
{
    (void)state;
    static const struct {
        const char *transport;
        bool host, device;
    } cases[] = {
        {"rc_verbs", true, true},    {"rc_mlx5,tcp", true, true},    {"tcp,dc_mlx5", true, true},
        {"ud_verbs", true, true},    {"tcp", false, false},          {"posix,cma", false, false},
        {"cuda_ipc", false, true},   {"tcp,cuda_ipc", false, true},  {"cuda_copy", false, false},
        {"", false, false},          {"sockcm,src_x", false, false}, {"srd", true, true},
        {"cuda_ipc2", false, false},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        bt_path path = {0};
        strcpy(path.transport, cases[i].transport);
        assert_int_equal(bt_tx_path_is_rdma(&path, BATON_MEMORY_HOST), cases[i].host);
        assert_int_equal(bt_tx_path_is_rdma(&path, BATON_MEMORY_CUDA_DEVICE), cases[i].device);
    }
}

static void only_the_same_user_and_root_attach(void **state)
{
    (void)state;
    const bt_process root = {.boot = "b", .ipc_ns = 1, .user_ns = 2, .uid = 0};
    const bt_process user = {.boot = "b", .ipc_ns = 1, .user_ns = 2, .uid = 7};
    const bt_process other = {.boot = "b", .ipc_ns = 1, .user_ns = 2, .uid = 8};
    const bt_process root_of_another = {.boot = "b", .ipc_ns = 1, .user_ns = 3, .uid = 0};
    const bt_process older = {.boot = "b"}, far = {.boot = "c", .ipc_ns = 1, .uid = 7};
    assert_true(bt_tx_path_may_attach(&user, &user));
    assert_true(bt_tx_path_may_attach(&root, &user));
    assert_false(bt_tx_path_may_attach(&user, &root));
    assert_false(bt_tx_path_may_attach(&user, &other));
    assert_false(bt_tx_path_may_attach(&root_of_another, &root));
    assert_true(bt_tx_path_may_attach(&user, &older));
    assert_true(bt_tx_path_may_attach(&user, &far));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(figures_are_those_of_the_link),
        bt_test(a_probe_measures_a_receiver_of_any_layout),
        bt_test(puts_are_chosen_where_they_are_clearly_faster),
        bt_test(a_chosen_put_writes_no_mapped_page),
        bt_test(every_forced_path_moves_the_right_bytes),
        bt_test(a_slow_measurement_is_not_waited_for),
        bt_test(a_slow_wire_is_measured_too),
        bt_test(one_slow_copy_is_a_figure_too),
        bt_test(what_is_measured_into_stays_while_puts_are_under_way),
        bt_test(a_lost_measurement_ends_in_time),
        bt_test(a_put_that_fails_takes_the_connection_only_where_puts_are_needed),
        bt_test(scratch_areas_that_make_no_sense_are_refused),
        bt_test(without_a_scratch_area_the_path_is_taken_unmeasured),
        bt_test(pages_keep_their_bytes_while_others_measure),
        bt_test(a_path_below_the_floor_is_refused),
        bt_test(a_path_above_the_floor_is_taken),
        bt_test(a_refused_peer_is_left_alone_and_its_transfers_fail_with_the_reason),
        bt_test(require_rdma_does_not_take_mapped_memory),
        bt_test(rdma_is_told_from_what_only_looks_like_it),
        bt_test(only_the_same_user_and_root_attach),
    };
    return bt_run_tests(tests);
}
