/* SPDX-License-Identifier: Apache-2.0 */
/* Chunks whose KV is in the memory of a (fake) GPU, or is there only after an event of it: what
 * arrives, what is waited for, and when the source and our pages are free again. */
#include "handoffkit.h"

#include "core/alloc.h"
#include "support/fakekernels.h"

#include <sys/wait.h>
#include <unistd.h>

enum {
    N_BLOCKS = 2 * PAIR_MAX_CHUNKS + 3,
    BLOCK = 4, /* tokens */
    ROW = PAIR_TOKEN_BYTES / 2,
    PLANE = N_BLOCKS * BLOCK * ROW,
    CACHE = 2 * PLANE,
};

static const fakecuda *gpu;

/* An engine: its KV cache on the GPU, [2][N_BLOCKS][BLOCK][1][ROW], and its stream. */
static struct {
    bt_cuda *cuda;
    uint8_t *cache; /* device */
    bt_cu_stream stream;
    baton_kv_plane plane;
    baton_kv_view view;
    uint32_t blocks[N_BLOCKS]; /* of the prompt, in no order */
    uint8_t *pinned; /* [PAIR_MAX_CHUNKS][PAIR_PAGE_BYTES] pages that the engine computes */
} engine;

static void open_engine(const pair_options *options)
{
    gpu = bt_fakecuda_open();
    bt_fakekernels_use(NULL);
    pair_create(&kit, options);
    assert_ok(bt_cuda_open(&engine.cuda));
    assert_ok(bt_cuda_alloc(engine.cuda, CACHE, (void **)&engine.cache));
    engine.pinned = bt_aligned_alloc(64, PAIR_MAX_CHUNKS * PAIR_PAGE_BYTES);
    assert_ok(bt_cuda_pin(engine.cuda, engine.pinned, PAIR_MAX_CHUNKS * PAIR_PAGE_BYTES));
    assert_ok(bt_cuda_enter(engine.cuda));
    engine.cuda->driver->stream_create(&engine.stream, 0);
    bt_cuda_leave(engine.cuda);
    const baton_kv_shape shape = {.n_layers = 1,
                                  .n_blocks = N_BLOCKS,
                                  .block_tokens = BLOCK,
                                  .n_kv_heads = 1,
                                  .head_bytes = ROW,
                                  .memory = BATON_MEMORY_CUDA_DEVICE};
    void *layer = engine.cache;
    assert_ok(baton_kv_view_flash(&shape, &layer, &engine.plane, &engine.view));
    for (uint32_t i = 0; i < N_BLOCKS; i++)
        engine.blocks[i] = (5 * i + 3) % N_BLOCKS;
}

static void close_engine(void)
{
    fakecuda_counts counts;
    while (gpu->step(1) > 0) /* what nobody waited for */
        ;
    gpu->counts(&counts);
    assert_int_equal(counts.pageable_total, 0);
    assert_ok(bt_cuda_enter(engine.cuda));
    engine.cuda->driver->stream_destroy(engine.stream);
    bt_cuda_leave(engine.cuda);
    pair_destroy(&kit);
    bt_cuda_unpin(engine.cuda, engine.pinned);
    bt_free(engine.pinned);
    bt_cuda_free(engine.cuda, engine.cache);
    bt_cuda_close(engine.cuda);
    gpu->counts(&counts);
    assert_int_equal(counts.contexts + counts.allocations + counts.pins, 0);
    assert_int_equal(counts.streams + counts.events, 0);
}

static uint8_t *slot_of(uint32_t token, uint32_t plane)
{
    return engine.cache + plane * PLANE +
           (engine.blocks[token / BLOCK] * BLOCK + token % BLOCK) * ROW;
}

static uint32_t chunk_tokens(uint32_t n, uint32_t i)
{
    return n - i * PAIR_CHUNK < PAIR_CHUNK ? n - i * PAIR_CHUNK : PAIR_CHUNK;
}

/* Queues on the engine's stream what computes chunk i of tokens[n]. */
static void compute(uint32_t n, uint32_t i)
{
    uint8_t *page = engine.pinned + i * PAIR_PAGE_BYTES;
    uint32_t n_tokens = chunk_tokens(n, i);
    pair_chunk(tokens, n, i, page);
    assert_ok(bt_cuda_enter(engine.cuda));
    for (uint32_t plane = 0; plane < 2; plane++) {
        for (uint32_t t = 0; t < n_tokens; t++)
            assert_int_equal(
                engine.cuda->driver->copy_async((uintptr_t)slot_of(i * PAIR_CHUNK + t, plane),
                                                (uintptr_t)page + (plane * n_tokens + t) * ROW, ROW,
                                                engine.stream),
                BT_CU_SUCCESS);
    }
    bt_cuda_leave(engine.cuda);
}

static baton_status push(baton_transfer transfer, uint32_t n, uint32_t i, baton_source_order order,
                         bt_cu_event event)
{
    bt_tx *tx = kit.senders[0].tx;
    const baton_kv_tokens list = {.blocks = engine.blocks,
                                  .n_blocks = N_BLOCKS,
                                  .n_tokens = chunk_tokens(n, i),
                                  .first_token = i * PAIR_CHUNK};
    const baton_source from = {.order = order, .stream = engine.stream, .event = event};
    bt_tx_source source = {
        .view = &engine.view, .tokens = list, .memory = BATON_MEMORY_CUDA_DEVICE};
    BATON_TRY(bt_tx_source_order(tx, &from, &source));
    return bt_tx_push(tx, transfer, i, &source);
}

/* Begins, computes and pushes all of tokens[n], and finishes. */
static baton_transfer start(const char *request, uint32_t n)
{
    baton_transfer transfer = pair_begin(&kit, 0, request, tokens, n, 0);
    for (uint32_t i = 0; i * PAIR_CHUNK < n; i++) {
        compute(n, i);
        assert_ok(push(transfer, n, i, BATON_SOURCE_AFTER_STREAM, NULL));
    }
    assert_ok(bt_tx_post(kit.senders[0].tx, BT_TX_FINISH, transfer));
    return transfer;
}

/* The GPU works a little, in any order of streams, and so do we, until nothing is left. */
static void run_dry(bt_rng *rng)
{
    fakecuda_counts counts;
    do {
        gpu->step((uint32_t)bt_rng_below(rng, 6));
        pair_advance(&kit, bt_rng_below(rng, 3));
        pair_run(&kit);
        gpu->counts(&counts);
    } while (counts.queued > 0);
    pair_advance(&kit, 5);
}

static const pair_options paths[] = {
    {.n_pages = 8, .path = BATON_PATH_PUT, .reaches_device = true},
    {.n_pages = 8, .path = BATON_PATH_PUT},
    {.n_pages = 8, .mapped = true},
    {.n_pages = 8, .mapped = true, .reaches_device = true, .digests = BATON_DIGESTS_FULL},
    {.n_pages = 8, .path = BATON_PATH_PUT, .reaches_device = true, .digests = BATON_DIGESTS_FULL},
    {.n_pages = 8, .path = BATON_PATH_STAGED, .reaches_device = true},
    {.n_pages = 8, .mapped = true, .reaches_device = true, .digests = BATON_DIGESTS_SAMPLED},
    {.n_pages = 8,
     .path = BATON_PATH_PUT,
     .reaches_device = true,
     .digests = BATON_DIGESTS_SAMPLED},
};
enum { N_PATHS = sizeof(paths) / sizeof(paths[0]), N_VARIANTS = 2 * N_PATHS };

/* Every path without kernels, then with. */
static const pair_options *open_variant(size_t v)
{
    open_engine(&paths[v % N_PATHS]);
    bt_fakekernels_use(v < N_PATHS ? NULL : gpu);
    return &paths[v % N_PATHS];
}

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

static void cancel_waits_for_a_copy_in_flight_but_not_for_an_event(void **state)
{
    (void)state;
    for (size_t p = 0; p < 3; p++) {
        open_engine(&paths[p]);
        pair_sender *sender = &kit.senders[0];
        pair_tokens(1, 0, 4 * PAIR_CHUNK, tokens);
        baton_transfer transfer = start("r", 4 * PAIR_CHUNK);
        gpu->set_mode(FAKECUDA_HELD); /* computed; two gathers start, two chunks wait for pages */
        pair_run(&kit);
        assert_ok(bt_tx_post(sender->tx, BT_TX_CANCEL, transfer));
        pair_advance(&kit, 100);
        assert_int_equal(sender->n_source_free + sender->n_failed, 0);
        while (gpu->step(1) > 0)
            ;
        pair_advance(&kit, 2);
        assert_int_equal(sender->n_failed, 1);
        assert_int_equal(sender->end.status, BATON_ERR_CANCELED);
        assert_int_equal(sender->n_source_free, 4);
        pair_check_clean(&kit);

        pair_tokens(2, 0, PAIR_CHUNK, tokens); /* never computed: only the event is waited for */
        transfer = start("s", PAIR_CHUNK);
        pair_advance(&kit, 10);
        assert_ok(bt_tx_post(sender->tx, BT_TX_CANCEL, transfer));
        pair_run(&kit);
        assert_int_equal(sender->n_failed, 2);
        assert_int_equal(sender->n_source_free, 5);
        pair_check_clean(&kit);
        close_engine();
    }
}

static bool count_drained(pair *k, const pair_frame *frame, const bt_message *message)
{
    k->filter_count +=
        frame->to_receiver && message->type == BT_MSG_CANCEL && message->u.end.drained != 0;
    return true;
}

static void step_all(void)
{
    while (gpu->step(1) > 0)
        ;
}

/* Given up: the transfer ends, the source is not free, and the page is not used again. */
static void a_copy_that_never_ends_is_given_up(void **state)
{
    (void)state;
    bt_expect_log("has not ended in 10000 ms");
    for (uint32_t is_canceled = 0; is_canceled < 2; is_canceled++) {
        open_engine(&paths[1]); /* of 2 pages */
        pair_sender *sender = &kit.senders[0];
        kit.filter = count_drained;
        pair_tokens(1, 0, 2 * PAIR_CHUNK, tokens);
        baton_transfer transfer = start("r", 2 * PAIR_CHUNK);
        gpu->set_mode(FAKECUDA_HELD);
        pair_advance(&kit, 1000);
        if (is_canceled)
            assert_ok(bt_tx_post(sender->tx, BT_TX_CANCEL, transfer));
        pair_advance(&kit, 8500);
        assert_int_equal(sender->n_failed + sender->n_source_free, 0);
        pair_advance(&kit, 1500);
        assert_int_equal(sender->n_failed, 1);
        assert_int_equal(sender->end.status, BATON_ERR_GPU_TIMEOUT);
        assert_non_null(strstr(sender->end.text, "has not ended in 10000 ms"));
        assert_int_equal(strstr(sender->end.text, "canceled") != NULL, is_canceled);
        assert_int_equal(sender->n_source_free, 0);
        /* The receiver's pages were out of the GPU's reach: they come back. */
        assert_int_equal(kit.filter_count, 1);
        pair_check_clean(&kit);

        gpu->set_mode(FAKECUDA_HELD);
        pair_tokens(2, 0, PAIR_CHUNK, tokens);
        start("s", PAIR_CHUNK); /* finds no page of ours */
        pair_advance(&kit, 100);
        assert_int_equal(sender->n_done, 0);
        step_all(); /* the GPU is back */
        pair_advance(&kit, 200);
        assert_int_equal(sender->n_source_free, 2);
        assert_int_equal(sender->events[sender->n_events - 1].kind, BATON_SENDER_SOURCE_FREE);
        assert_int_equal(sender->events[sender->n_events - 1].transfer, transfer);
        step_all();
        pair_advance(&kit, 5);
        step_all();
        pair_advance(&kit, 5);
        assert_int_equal(sender->n_done, 1);
        assert_int_equal(pair_check(&kit, tokens, PAIR_CHUNK), PAIR_CHUNK);
        close_engine();
    }
}

/* In a process of its own, which leaves to the GPU what the GPU may still write. is_young: nobody
 * has given the copies up yet. */
static void destroy_while_the_gpu_hangs(bool is_young)
{
    pid_t child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        bt_expect_log("");
        open_engine(&paths[1]);
        fakecuda_counts before, after;
        pair_tokens(1, 0, PAIR_CHUNK, tokens);
        start("r", PAIR_CHUNK);
        gpu->set_mode(FAKECUDA_HELD);
        kit.senders[0].tx->options.timeouts.put_ms = is_young ? 50 : 10000;
        pair_advance(&kit, is_young ? 0 : 11000);
        gpu->counts(&before);
        bool is_failed = kit.senders[0].n_failed == !is_young;
        bt_transport *transport = kit.senders[0].tx->transport;
        bt_tx_destroy(kit.senders[0].tx);
        bt_transport_destroy(transport);
        gpu->counts(&after);
        bool is_left = after.allocations == before.allocations && after.pins == before.pins &&
                       after.streams == before.streams && after.contexts == before.contexts;
        _exit(is_failed && is_left && after.queued == before.queued ? 0 : 1);
    }
    int status = 0;
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_int_equal(status, 0);
}

static void a_sender_whose_gpu_hangs_can_still_be_destroyed(void **state)
{
    (void)state;
    destroy_while_the_gpu_hangs(false);
    destroy_while_the_gpu_hangs(true);
}

static void a_sender_that_is_destroyed_waits_for_a_gpu_that_works(void **state)
{
    (void)state;
    for (size_t v = 0; v < N_VARIANTS; v++) {
        open_variant(v);
        pair_tokens(1, 0, 4 * PAIR_CHUNK, tokens);
        gpu->set_mode(FAKECUDA_HELD);
        start("r", 4 * PAIR_CHUNK);
        pair_run(&kit);
        gpu->set_mode(FAKECUDA_THREAD); /* from here on, beside us */
        bt_tx_destroy(kit.senders[0].tx);
        kit.senders[0].tx = NULL;
        close_engine();
    }
}

/* What was queued before the driver refused the rest still reads the source and writes our page. */
static void a_copy_that_is_queued_half_way_fails_when_that_half_is_done(void **state)
{
    (void)state;
    bt_expect_log("has not ended in 10000 ms");
    for (uint32_t is_late = 0; is_late < 2; is_late++) {
        open_engine(&paths[1]);
        pair_sender *sender = &kit.senders[0];
        pair_tokens(1, 0, PAIR_CHUNK, tokens);
        start("r", PAIR_CHUNK);
        pair_turn(&kit); /* its kernels, and its pages, are there before */
        gpu->set_mode(FAKECUDA_HELD);
        bt_fakekernels_use(NULL);
        gpu->fail_call(FAKECUDA_COPY_ASYNC, 2, BT_CU_OUT_OF_MEMORY); /* the second row's */
        pair_advance(&kit, 100);
        assert_int_equal(sender->n_failed + sender->n_source_free, 0);
        if (is_late)
            pair_advance(&kit, 10000);
        step_all();
        pair_advance(&kit, 200);
        assert_int_equal(sender->n_failed, 1);
        assert_int_equal(sender->end.status, is_late ? BATON_ERR_GPU_TIMEOUT : BATON_ERR_NO_MEMORY);
        assert_int_equal(sender->n_source_free, 1);
        pair_check_clean(&kit);
        gpu->set_mode(FAKECUDA_AT_ONCE);
        pair_tokens(2, 0, PAIR_CHUNK, tokens);
        start("again", PAIR_CHUNK);
        pair_advance(&kit, 5);
        assert_int_equal(sender->n_done, 1);
        close_engine();
    }
}

static void a_gpu_that_fails_fails_its_transfers_and_nothing_else(void **state)
{
    (void)state;
    for (uint32_t n_steps = 0; n_steps < 60; n_steps += 7) {
        open_engine(&paths[1]);
        pair_sender *sender = &kit.senders[0];
        gpu->set_mode(FAKECUDA_HELD);
        pair_tokens(1, 0, 3 * PAIR_CHUNK, tokens);
        start("r", 3 * PAIR_CHUNK);
        pair_run(&kit);
        for (uint32_t i = 0; i < n_steps; i++) {
            gpu->step(1);
            pair_run(&kit);
        }
        gpu->break_context(BT_CU_ILLEGAL_ADDRESS);
        pair_advance(&kit, 10);
        assert_int_equal(sender->n_failed, 1);
        assert_int_equal(sender->end.status, BATON_ERR_IO);
        assert_non_null(strstr(sender->end.text, "illegal memory access"));
        assert_int_equal(sender->n_source_free, 3);
        pair_tokens(2, 0, PAIR_CHUNK, tokens);
        hand_off(0, "host", PAIR_CHUNK);
        assert_int_equal(sender->n_done, 1);
        pair_check(&kit, tokens, PAIR_CHUNK);
        close_engine();
    }
}

static void whatever_cannot_be_had_fails_one_transfer_and_leaks_nothing(void **state)
{
    (void)state;
    static const fakecuda_call calls[] = {
        FAKECUDA_ALLOC,        FAKECUDA_PIN,          FAKECUDA_COPY_ASYNC, FAKECUDA_STREAM_CREATE,
        FAKECUDA_EVENT_CREATE, FAKECUDA_EVENT_RECORD, FAKECUDA_LAUNCH_HOST};
    for (size_t c = 0; c < sizeof(calls) / sizeof(calls[0]); c++) {
        bool was_fine = false;
        for (uint32_t nth = 1; !was_fine; nth++) {
            open_engine(&paths[1]);
            pair_tokens(1, 0, 2 * PAIR_CHUNK, tokens);
            baton_transfer transfer = pair_begin(&kit, 0, "r", tokens, 2 * PAIR_CHUNK, 0);
            compute(2 * PAIR_CHUNK, 0);
            compute(2 * PAIR_CHUNK, 1);
            gpu->fail_call(calls[c], nth, BT_CU_OUT_OF_MEMORY);
            baton_status status = BATON_OK;
            for (uint32_t i = 0; i < 2 && status == BATON_OK; i++)
                status = push(transfer, 2 * PAIR_CHUNK, i, BATON_SOURCE_AFTER_STREAM, NULL);
            if (status == BATON_OK)
                assert_ok(bt_tx_post(kit.senders[0].tx, BT_TX_FINISH, transfer));
            else
                assert_ok(bt_tx_post(kit.senders[0].tx, BT_TX_CANCEL, transfer));
            pair_advance(&kit, 5);
            gpu->fail_call(calls[c], 0, 0);
            assert_int_equal(kit.senders[0].n_done + kit.senders[0].n_failed, 1);
            was_fine = nth > 12;
            pair_tokens(2, 0, PAIR_CHUNK, tokens);
            start("again", PAIR_CHUNK);
            pair_advance(&kit, 5);
            assert_int_equal(kit.senders[0].end.status, BATON_OK);
            pair_check(&kit, tokens, PAIR_CHUNK);
            close_engine();
        }
    }
}

static void without_a_driver_a_push_says_what_is_missing(void **state)
{
    (void)state;
    open_engine(&paths[1]);
    pair_tokens(1, 0, PAIR_CHUNK, tokens);
    baton_transfer transfer = pair_begin(&kit, 0, "r", tokens, PAIR_CHUNK, 0);
    bt_cuda_driver_use("/nowhere/libcuda.so.1");
    assert_fails(push(transfer, PAIR_CHUNK, 0, BATON_SOURCE_NOW, NULL), BATON_ERR_UNSUPPORTED,
                 "wanted NVIDIA's driver");
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
        bt_test(cancel_waits_for_a_copy_in_flight_but_not_for_an_event),
        bt_test(a_copy_that_never_ends_is_given_up),
        bt_test(a_sender_whose_gpu_hangs_can_still_be_destroyed),
        bt_test(a_sender_that_is_destroyed_waits_for_a_gpu_that_works),
        bt_test(a_copy_that_is_queued_half_way_fails_when_that_half_is_done),
        bt_test(a_gpu_that_fails_fails_its_transfers_and_nothing_else),
        bt_test(whatever_cannot_be_had_fails_one_transfer_and_leaks_nothing),
        bt_test(without_a_driver_a_push_says_what_is_missing),
        bt_test(a_storm_leaves_nothing_behind),
    };
    return bt_run_tests(tests);
}
