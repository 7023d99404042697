/* SPDX-License-Identifier: Apache-2.0 */
/* Chunks whose KV is in the memory of a (fake) GPU, or is there only after an event of it: what
 * arrives, what is waited for, and when the source and our pages are free again. */
#include "deviceengine.h"

static void every_length_arrives_on_every_path_whatever_the_streams_order(void **state)
{
    (void)state;
    for (size_t v = 0; v < N_VARIANTS; v++) {
        bt_rng rng = {v};
        const pair_options *path = open_variant(v);
        gpu->set_mode(FAKECUDA_HELD);
        for (uint32_t n = 1; n <= 5 * PAIR_CHUNK; n += 3) {
            pair_tokens(n, 0, n, tokens);
            start("r", n);
            run_dry(&rng);
            assert_int_equal(pair_check(&kit, tokens, n), n);
            pair_run(&kit);
            pair_check_clean(&kit);
        }
        assert_int_equal(kit.senders[0].n_failed, 0);
        bool has_kernels = v >= N_PATHS;
        bool is_direct = path->reaches_device && path->path == BATON_PATH_PUT &&
                         (path->digests == BATON_DIGESTS_OFF || has_kernels);
        assert_int_equal(bt_log_seen(is_direct ? "path=direct" : "gpu=\"a fake GPU\"") > 0, 1);
        baton_sender_stats stats;
        fakecuda_counts counts;
        bt_tx_get_stats(kit.senders[0].tx, &stats);
        gpu->counts(&counts);
        if (path->digests == BATON_DIGESTS_SAMPLED) { /* the GPU's where lines are whole */
            assert_true(is_direct == (stats.bytes_staged_total < stats.bytes_sent_total));
            assert_true((counts.kernels_total > stats.chunks_sent_total) == has_kernels);
            close_engine();
            continue;
        }
        assert_int_equal(stats.bytes_staged_total, is_direct ? 0 : stats.bytes_sent_total);
        assert_int_equal(counts.kernels_total, has_kernels ? stats.chunks_sent_total : 0);
        close_engine();
    }
}

static void nothing_is_read_before_the_event_and_free_after_the_gather(void **state)
{
    (void)state;
    for (size_t p = 0; p < 3; p++) {
        open_engine(&paths[p]);
        pair_tokens(1, 0, PAIR_CHUNK, tokens);
        baton_transfer transfer = pair_begin(&kit, 0, "r", tokens, PAIR_CHUNK, 0);
        pair_run(&kit);
        bt_cu_event event;
        assert_ok(bt_cuda_enter(engine.cuda));
        engine.cuda->driver->event_create(&event, 0);
        bt_cuda_leave(engine.cuda);
        gpu->set_mode(FAKECUDA_HELD);
        compute(PAIR_CHUNK, 0);
        assert_ok(bt_cuda_enter(engine.cuda));
        engine.cuda->driver->event_record(event, engine.stream);
        bt_cuda_leave(engine.cuda);
        assert_ok(push(transfer, PAIR_CHUNK, 0, BATON_SOURCE_AFTER_EVENT, event));
        assert_ok(bt_tx_post(kit.senders[0].tx, BT_TX_FINISH, transfer));
        pair_advance(&kit, 20);
        fakecuda_counts before, after;
        gpu->counts(&before);
        pair_advance(&kit, 20);
        gpu->counts(&after);
        assert_int_equal(after.queued, before.queued); /* nothing of ours but the watch */
        while (gpu->step(1) > 0) /* computes, and nothing else can run before it has */
            ;
        assert_int_equal(kit.senders[0].n_source_free, 0);
        pair_run(&kit); /* sees the event, queues the gather */
        gpu->counts(&after);
        assert_true(after.queued > 0);
        assert_int_equal(kit.senders[0].n_source_free, 0);
        while (gpu->step(1) > 0)
            ;
        kit.filter_count = 0;
        pair_advance(&kit, 2);
        assert_int_equal(kit.senders[0].n_source_free, 1);
        assert_int_equal(kit.senders[0].n_done, 1);
        assert_int_equal(pair_check(&kit, tokens, PAIR_CHUNK), PAIR_CHUNK);
        assert_ok(bt_cuda_enter(engine.cuda));
        engine.cuda->driver->event_destroy(event);
        bt_cuda_leave(engine.cuda);
        close_engine();
    }
}

/* As every engine does: what SOURCE_FREE gave back is written at once. */
static void a_source_that_is_free_may_be_overwritten(void **state)
{
    (void)state;
    for (size_t p = 0; p < N_VARIANTS; p++) {
        bt_rng rng = {100 + p};
        open_variant(p);
        gpu->set_mode(FAKECUDA_HELD);
        uint32_t n = 5 * PAIR_CHUNK, n_free = 0;
        pair_tokens(1, 0, n, tokens);
        start("r", n);
        for (uint32_t turn = 0; kit.senders[0].n_done == 0 && turn < 10000; turn++) {
            gpu->step((uint32_t)bt_rng_below(&rng, 4));
            pair_advance(&kit, 1);
            for (; n_free < kit.senders[0].n_source_free; n_free++) {
                uint32_t i = kit.senders[0].events[n_free].chunk;
                for (uint32_t t = 0; t < 2 * PAIR_CHUNK; t++)
                    memset(gpu->host(slot_of(i * PAIR_CHUNK + t % PAIR_CHUNK, t / PAIR_CHUNK)),
                           0xee, ROW);
            }
        }
        assert_int_equal(n_free, 5);
        assert_int_equal(pair_check(&kit, tokens, n), n);
        close_engine();
    }
}

static void put_from_where_it_is(const pair_options *path)
{
    open_engine(path);
    bt_fakekernels_use(gpu);
    bt_tx *tx = kit.senders[0].tx;
    uint8_t *data_on_gpu, page[PAIR_PAGE_BYTES];
    assert_ok(bt_cuda_alloc(engine.cuda, PAIR_PAGE_BYTES, (void **)&data_on_gpu));
    assert_ok(bt_tx_register(tx, data_on_gpu, PAIR_PAGE_BYTES, BATON_MEMORY_CUDA_DEVICE));
    pair_tokens(1, 0, PAIR_CHUNK, tokens);
    pair_chunk(tokens, PAIR_CHUNK, 0, page);
    assert_ok(bt_cuda_copy(engine.cuda, data_on_gpu, page, PAIR_PAGE_BYTES));
    fakecuda_counts before, after;
    gpu->counts(&before);
    baton_transfer transfer = pair_begin(&kit, 0, "r", tokens, PAIR_CHUNK, 0);
    bt_tx_source source = {
        .data = data_on_gpu, .bytes = PAIR_PAGE_BYTES, .memory = BATON_MEMORY_CUDA_DEVICE};
    const baton_source from = {.order = BATON_SOURCE_AFTER_STREAM, .stream = engine.stream};
    assert_ok(bt_tx_source_order(tx, &from, &source));
    assert_ok(bt_tx_push(tx, transfer, 0, &source));
    assert_ok(bt_tx_post(tx, BT_TX_FINISH, transfer));
    pair_advance(&kit, 5);
    gpu->counts(&after);
    assert_int_equal(kit.senders[0].n_done, 1);
    bool has_room = path->digests == BATON_DIGESTS_SAMPLED;             /* of its lines */
    assert_int_equal(after.allocations, before.allocations + has_room); /* no pages were made */
    assert_int_equal(after.kernels_total, path->digests != BATON_DIGESTS_OFF);
    assert_int_equal(kit.rx->stats.digests_checked_total, path->digests != BATON_DIGESTS_OFF);
    assert_int_equal(pair_check(&kit, tokens, PAIR_CHUNK), PAIR_CHUNK);
    bt_tx_destroy(tx);
    kit.senders[0].tx = NULL;
    bt_cuda_free(engine.cuda, data_on_gpu);
    close_engine();
}

static void registered_device_memory_in_one_piece_is_put_from_where_it_is(void **state)
{
    (void)state;
    put_from_where_it_is(&paths[0]);
    put_from_where_it_is(&paths[4]); /* its digest, too, is taken where it is */
    put_from_where_it_is(&paths[7]);
}

static bool lose_commits(pair *k, const pair_frame *frame, const bt_message *message)
{
    (void)frame;
    k->filter_count += message->type == BT_MSG_COMMIT;
    return message->type != BT_MSG_COMMIT;
}

/* The GPU took the digest of what it read: what is spoiled behind it does not pass. */
static void a_byte_that_changes_behind_the_digest_does_not_pass(void **state)
{
    (void)state;
    bt_expect_log("digest of chunk 0");
    static const size_t with_digests[] = {3, 4, 6, 7};
    for (size_t d = 0; d < 4; d++) {
        size_t p = with_digests[d];
        pair_options options = paths[p];
        options.commit = BATON_COMMIT_SOCKET;
        open_engine(&options);
        bt_fakekernels_use(gpu);
        kit.senders[0].tx->options.spoil_byte = paths[p].mapped; /* in the mapped page */
        kit.filter = lose_commits;
        pair_tokens(1, 0, PAIR_CHUNK, tokens);
        start("r", PAIR_CHUNK);
        pair_advance(&kit, 5);
        assert_true(kit.filter_count > 0);
        const bt_tx_chunk *chunk = &kit.senders[0].tx->first->chunks[0];
        if (!paths[p].mapped) { /* put from the device */
            bt_page_ref page = {.region = chunk->region, .page = chunk->page};
            *(uint8_t *)bt_rx_page_address(kit.rx, page) ^= 1;
        }
        kit.filter = NULL;
        pair_advance(&kit, 500);
        assert_int_equal(kit.senders[0].n_failed, 1);
        assert_int_equal(kit.senders[0].end.status, BATON_ERR_DIGEST_MISMATCH);
        assert_int_equal(pair_check(&kit, tokens, PAIR_CHUNK), 0);
        assert_int_equal(kit.rx->stats.digests_failed_total, 1);
        pair_check_clean(&kit);
        close_engine();
    }
}

/* An engine captures a graph on one of its threads, in the strictest mode: what ours does meanwhile
 * neither fails nor spoils the capture. */
static void a_capture_elsewhere_is_left_alone(void **state)
{
    (void)state;
    for (size_t v = 0; v < N_VARIANTS; v++) {
        open_variant(v);
        pair_tokens(1, 0, 3 * PAIR_CHUNK, tokens);
        gpu->capture(true, NULL);
        start("r", 3 * PAIR_CHUNK);
        pair_advance(&kit, 10);
        assert_int_equal(kit.senders[0].n_done, 1);
        gpu->capture(false, NULL);
        assert_int_equal(pair_check(&kit, tokens, 3 * PAIR_CHUNK), 3 * PAIR_CHUNK);
        fakecuda_counts counts;
        gpu->counts(&counts);
        assert_int_equal(counts.spoiled_total, 0);
        close_engine();
    }
}

static void a_push_behind_a_captured_stream_is_refused(void **state)
{
    (void)state;
    open_engine(&paths[0]);
    pair_tokens(1, 0, PAIR_CHUNK, tokens);
    baton_transfer transfer = pair_begin(&kit, 0, "r", tokens, PAIR_CHUNK, 0);
    gpu->capture(true, engine.stream);
    assert_fails(push(transfer, PAIR_CHUNK, 0, BATON_SOURCE_AFTER_STREAM, NULL), BATON_ERR_STATE,
                 "captured into a graph");
    gpu->capture(false, NULL);
    close_engine();
}

/* Everything at once: several transfers on few pages, cancels, and a GPU that takes its time. */
static void a_storm_leaves_nothing_behind(void **state)
{
    (void)state;
    for (size_t p = 0; p < N_VARIANTS; p++) {
        bt_rng rng = {1000 + p};
        open_variant(p);
        gpu->set_mode(FAKECUDA_HELD);
        uint32_t n_begun = 0;
        for (uint32_t round = 0; round < 15; round++) {
            uint32_t n = 1 + (uint32_t)bt_rng_below(&rng, 4 * PAIR_CHUNK);
            pair_tokens(round, 0, n, tokens);
            baton_transfer transfer = start("storm", n);
            n_begun++;
            for (uint32_t i = 0; i < bt_rng_below(&rng, 8); i++) {
                gpu->step((uint32_t)bt_rng_below(&rng, 20));
                pair_advance(&kit, bt_rng_below(&rng, 2));
            }
            if (bt_rng_below(&rng, 3) == 0)
                bt_tx_post(kit.senders[0].tx, BT_TX_CANCEL, transfer); /* or it has ended */
            run_dry(&rng); /* the cache's blocks are used again */
            pair_check(&kit, tokens, n);
            pair_run(&kit);
            assert_int_equal(kit.senders[0].n_done + kit.senders[0].n_failed, n_begun);
            kit.senders[0].n_events = 0;
        }
        assert_true(kit.senders[0].n_done > 0 && kit.senders[0].n_failed > 0);
        pair_check_clean(&kit);
        close_engine();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(every_length_arrives_on_every_path_whatever_the_streams_order),
        bt_test(nothing_is_read_before_the_event_and_free_after_the_gather),
        bt_test(a_source_that_is_free_may_be_overwritten),
        bt_test(registered_device_memory_in_one_piece_is_put_from_where_it_is),
        bt_test(a_byte_that_changes_behind_the_digest_does_not_pass),
        bt_test(a_capture_elsewhere_is_left_alone),
        bt_test(a_push_behind_a_captured_stream_is_refused),
        bt_test(a_storm_leaves_nothing_behind),
    };
    return bt_run_tests(tests);
}
