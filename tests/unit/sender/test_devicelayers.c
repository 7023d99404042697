/* SPDX-License-Identifier: Apache-2.0 */
/* Chunks pushed in groups of layers whose KV is in the memory of a (fake) GPU: each group is
 * awaited, gathered and moved by itself. */
#include "kernels/digest.h"

#include "handoffkit.h"

#include "sender/txdevice.h"
#include "support/fakekernels.h"

enum {
    N_BLOCKS = 2 * PAIR_MAX_CHUNKS + 3,
    BLOCK = 4,                                /* tokens */
    ROW = PAIR_TOKEN_BYTES / PAIR_LAYERS / 2, /* K or V of a token in a layer */
    PLANE = N_BLOCKS * BLOCK * ROW,
    LAYER = 2 * PLANE,
};

#define LAYERED .is_layered = true, .n_pages = 8
static const pair_options paths[] = {
    {LAYERED, .path = BATON_PATH_PUT, .reaches_device = true},
    {LAYERED, .path = BATON_PATH_PUT},
    {LAYERED, .mapped = true},
    {LAYERED, .mapped = true, .reaches_device = true, .digests = BATON_DIGESTS_FULL},
    {LAYERED, .path = BATON_PATH_PUT, .reaches_device = true, .digests = BATON_DIGESTS_FULL},
    {LAYERED, .mapped = true, .reaches_device = true, .digests = BATON_DIGESTS_SAMPLED},
    {LAYERED, .path = BATON_PATH_PUT, .reaches_device = true, .digests = BATON_DIGESTS_SAMPLED},
    {LAYERED, .path = BATON_PATH_STAGED, .reaches_device = true},
};
enum { N_PATHS = sizeof(paths) / sizeof(paths[0]), N_VARIANTS = 2 * N_PATHS };

static const fakecuda *gpu;

/* An engine: a cache of [2][N_BLOCKS][BLOCK][1][ROW] on the GPU for each layer, and its stream. */
static struct {
    bt_cuda *cuda;
    uint8_t *cache; /* [PAIR_LAYERS][LAYER] device */
    bt_cu_stream stream;
    baton_kv_plane planes[PAIR_LAYERS];
    baton_kv_view view;
    uint32_t blocks[N_BLOCKS]; /* of the prompt, in no order */
    uint8_t *pinned;           /* [PAIR_MAX_CHUNKS][PAIR_PAGE_BYTES] what it computes */
} engine;

/* Every path without kernels, then with. */
static void open_engine(size_t variant)
{
    gpu = bt_fakecuda_open();
    bt_fakekernels_use(variant < N_PATHS ? NULL : gpu);
    pair_create(&kit, &paths[variant % N_PATHS]);
    assert_ok(bt_cuda_open(&engine.cuda));
    assert_ok(bt_cuda_alloc(engine.cuda, PAIR_LAYERS * LAYER, (void **)&engine.cache));
    assert_ok(bt_cuda_alloc_pinned(engine.cuda, PAIR_MAX_CHUNKS * PAIR_PAGE_BYTES,
                                   (void **)&engine.pinned));
    assert_ok(bt_cuda_enter(engine.cuda));
    engine.cuda->driver->stream_create(&engine.stream, 0);
    bt_cuda_leave(engine.cuda);
    const baton_kv_shape shape = {.n_layers = PAIR_LAYERS,
                                  .n_blocks = N_BLOCKS,
                                  .block_tokens = BLOCK,
                                  .n_kv_heads = 1,
                                  .head_bytes = ROW,
                                  .memory = BATON_MEMORY_CUDA_DEVICE};
    void *layers[PAIR_LAYERS];
    for (uint32_t i = 0; i < PAIR_LAYERS; i++)
        layers[i] = engine.cache + i * LAYER;
    assert_ok(baton_kv_view_flash(&shape, layers, engine.planes, &engine.view));
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
    bt_cuda_free_pinned(engine.cuda, engine.pinned);
    bt_cuda_free(engine.cuda, engine.cache);
    bt_cuda_close(engine.cuda);
    gpu->counts(&counts);
    assert_int_equal(counts.contexts + counts.allocations + counts.pins, 0);
    assert_int_equal(counts.streams + counts.events, 0);
}

static uint32_t tokens_of(uint32_t n, uint32_t i)
{
    return n - i * PAIR_CHUNK < PAIR_CHUNK ? n - i * PAIR_CHUNK : PAIR_CHUNK;
}

static uint8_t *slot_of(uint32_t layer, uint32_t plane, uint32_t token)
{
    return engine.cache + layer * LAYER + plane * PLANE +
           (engine.blocks[token / BLOCK] * BLOCK + token % BLOCK) * ROW;
}

/* Queues on the engine's stream what computes a layer of chunk i of tokens[n]. */
static void compute(uint32_t n, uint32_t i, uint32_t layer)
{
    uint8_t *page = engine.pinned + i * PAIR_PAGE_BYTES;
    uint32_t n_tokens = tokens_of(n, i);
    pair_chunk(tokens, n, i, page);
    assert_ok(bt_cuda_enter(engine.cuda));
    for (uint32_t row = 0; row < 2 * n_tokens; row++)
        assert_int_equal(
            engine.cuda->driver->copy_async(
                (uintptr_t)slot_of(layer, row / n_tokens, i * PAIR_CHUNK + row % n_tokens),
                (uintptr_t)page + (layer * 2 * n_tokens + row) * ROW, ROW, engine.stream),
            BT_CU_SUCCESS);
    bt_cuda_leave(engine.cuda);
}

static void push(baton_transfer transfer, uint32_t n, uint32_t i, uint32_t first, uint32_t n_layers)
{
    bt_tx *tx = kit.senders[0].tx;
    const baton_source from = {.order = BATON_SOURCE_AFTER_STREAM, .stream = engine.stream};
    bt_tx_source source = {.view = &engine.view,
                           .tokens = {.blocks = engine.blocks,
                                      .n_blocks = N_BLOCKS,
                                      .n_tokens = tokens_of(n, i),
                                      .first_token = i * PAIR_CHUNK},
                           .first_layer = first,
                           .n_layers = n_layers,
                           .memory = BATON_MEMORY_CUDA_DEVICE};
    for (uint32_t layer = first; layer < first + n_layers; layer++)
        compute(n, i, layer);
    assert_ok(bt_tx_source_order(tx, &from, &source));
    assert_ok(bt_tx_push(tx, transfer, i, &source));
}

static void finish(baton_transfer transfer)
{
    assert_ok(bt_tx_post(kit.senders[0].tx, BT_TX_FINISH, transfer));
}

/* As every engine does: what SOURCE_FREE gave back is written at once. */
static void overwrite_free(uint32_t n, uint32_t *n_seen)
{
    const pair_sender *sender = &kit.senders[0];
    for (; *n_seen < sender->n_events; (*n_seen)++) {
        const baton_sender_event *event = &sender->events[*n_seen];
        if (event->kind != BATON_SENDER_SOURCE_FREE)
            continue;
        uint32_t n_tokens = tokens_of(n, event->chunk);
        for (uint32_t row = 0; row < event->n_layers * 2 * n_tokens; row++)
            memset(gpu->host(slot_of(event->first_layer + row / (2 * n_tokens), row / n_tokens % 2,
                                     event->chunk * PAIR_CHUNK + row % n_tokens)),
                   0xee, ROW);
    }
}

/* The GPU works a little, in any order of streams, and so do we, until nothing is left. */
static void run_dry(bt_rng *rng, uint32_t n, uint32_t *n_seen)
{
    fakecuda_counts counts;
    do {
        gpu->step((uint32_t)bt_rng_below(rng, 6));
        pair_advance(&kit, bt_rng_below(rng, 3));
        pair_run(&kit);
        overwrite_free(n, n_seen);
        gpu->counts(&counts);
    } while (counts.queued > 0);
    pair_advance(&kit, 5);
}

/* Layers of all chunks in a random order and random groups, as the forward pass never would. */
static uint32_t push_at_random(bt_rng *rng, baton_transfer transfer, uint32_t n, uint32_t *n_seen,
                               uint32_t max_groups)
{
    uint32_t left[PAIR_MAX_CHUNKS * 2], n_left = 0, n_groups = 0;
    uint32_t first[PAIR_MAX_CHUNKS * 2], count[PAIR_MAX_CHUNKS * 2];
    for (uint32_t i = 0; i * PAIR_CHUNK < n; i++) {
        uint32_t cut = 1 + (uint32_t)bt_rng_below(rng, PAIR_LAYERS - 1);
        for (uint32_t half = 0; half < 2; half++) {
            first[n_left] = half == 0 ? 0 : cut;
            count[n_left] = half == 0 ? cut : PAIR_LAYERS - cut;
            left[n_left] = n_left;
            n_left++;
        }
    }
    for (; n_left > 0 && n_groups < max_groups; n_groups++) {
        uint32_t at = (uint32_t)bt_rng_below(rng, n_left), group = left[at];
        left[at] = left[--n_left];
        push(transfer, n, group / 2, first[group], count[group]);
        if (bt_rng_below(rng, 3) == 0) {
            gpu->step((uint32_t)bt_rng_below(rng, 40));
            pair_advance(&kit, bt_rng_below(rng, 3));
            overwrite_free(n, n_seen);
        }
    }
    return n_groups;
}

/* Groups of n tokens have their part of the chunk's digest from the GPU, or none is wanted. */
static bool is_left_to_gpu(size_t v, uint32_t n)
{
    switch (paths[v % N_PATHS].digests) {
    case BATON_DIGESTS_FULL:
        return v >= N_PATHS && 2 * n * ROW % BT_DIGEST_TILE_BYTES == 0;
    case BATON_DIGESTS_SAMPLED:
        return v >= N_PATHS && n * ROW % BT_SAMPLE_LINE_BYTES == 0;
    default:
        return true;
    }
}

/* What of a hand-off of n tokens must pass through pinned memory. */
static uint64_t staged_bytes(size_t v, uint32_t n)
{
    const pair_options *path = &paths[v % N_PATHS];
    uint64_t bytes = 0;
    for (uint32_t i = 0; i * PAIR_CHUNK < n; i++) {
        bool is_direct = path->reaches_device && path->path == BATON_PATH_PUT &&
                         is_left_to_gpu(v, tokens_of(n, i));
        bytes += is_direct ? 0 : tokens_of(n, i) * PAIR_TOKEN_BYTES;
    }
    return bytes;
}

static uint32_t groups_with_tiles(size_t v, uint32_t n)
{
    uint32_t n_groups = 0;
    for (uint32_t i = 0; i * PAIR_CHUNK < n; i++)
        n_groups += is_left_to_gpu(v, tokens_of(n, i)) ? 2 : 0;
    return paths[v % N_PATHS].digests == BATON_DIGESTS_FULL ? n_groups : 0;
}

static void groups_in_any_order_arrive_on_every_path(void **state)
{
    (void)state;
    for (size_t v = 0; v < N_VARIANTS; v++) {
        open_engine(v);
        gpu->set_mode(FAKECUDA_HELD);
        pair_sender *sender = &kit.senders[0];
        uint64_t staged = 0, digests = 0;
        for (uint32_t round = 0; round < 5; round++) {
            bt_rng rng = {100 * v + round};
            uint32_t n = 1 + (uint32_t)bt_rng_below(&rng, 6 * PAIR_CHUNK), n_seen = 0;
            sender->n_events = sender->n_source_free = 0;
            pair_tokens((uint32_t)(100 * v) + round, 0, n, tokens);
            baton_transfer transfer = pair_begin(&kit, 0, "r", tokens, n, 0);
            uint32_t n_groups = push_at_random(&rng, transfer, n, &n_seen, UINT32_MAX);
            finish(transfer);
            run_dry(&rng, n, &n_seen);
            assert_int_equal(sender->n_done, round + 1);
            assert_int_equal(sender->n_source_free, n_groups);
            assert_int_equal(pair_check(&kit, tokens, n), n);
            pair_run(&kit);
            pair_check_clean(&kit);
            staged += staged_bytes(v, n);
            digests += groups_with_tiles(v, n);
        }
        baton_sender_stats stats;
        bt_tx_get_stats(sender->tx, &stats);
        assert_int_equal(stats.bytes_staged_total, staged);
        assert_int_equal(bt_fakekernels_digests(), digests);
        close_engine();
    }
}

static void a_group_moves_while_the_next_is_still_computed(void **state)
{
    (void)state;
    for (size_t v = 0; v < N_VARIANTS; v++) {
        open_engine(v);
        pair_sender *sender = &kit.senders[0];
        pair_tokens(1, 0, PAIR_CHUNK, tokens);
        baton_transfer transfer = pair_begin(&kit, 0, "r", tokens, PAIR_CHUNK, 0);
        push(transfer, PAIR_CHUNK, 0, 0, 3);
        pair_advance(&kit, 5);
        gpu->set_mode(FAKECUDA_HELD);
        push(transfer, PAIR_CHUNK, 0, 3, 1); /* its event does not come */
        finish(transfer);
        pair_advance(&kit, 5);
        assert_int_equal(sender->n_source_free, 1);
        const bt_tx_chunk *chunk = &sender->tx->first->chunks[0];
        const bt_page_ref page = {.region = chunk->region, .page = chunk->page};
        assert_memory_equal(bt_rx_page_address(kit.rx, page), engine.pinned,
                            PAIR_PAGE_BYTES / PAIR_LAYERS * 3);
        assert_int_equal(pair_check(&kit, tokens, PAIR_CHUNK), 0);
        uint32_t n_seen = 0;
        run_dry(&(bt_rng){v}, PAIR_CHUNK, &n_seen);
        assert_int_equal(sender->n_done, 1);
        assert_int_equal(pair_check(&kit, tokens, PAIR_CHUNK), PAIR_CHUNK);
        close_engine();
    }
}

static void a_cancel_in_the_middle_waits_for_what_runs(void **state)
{
    (void)state;
    for (size_t v = 0; v < N_VARIANTS; v++) {
        for (uint32_t n_steps = 0; n_steps < 100; n_steps += 19) {
            open_engine(v);
            pair_sender *sender = &kit.senders[0];
            uint32_t n = 2 * PAIR_CHUNK, n_seen = 0;
            pair_tokens(1, 0, n, tokens);
            baton_transfer transfer = pair_begin(&kit, 0, "r", tokens, n, 0);
            gpu->set_mode(FAKECUDA_HELD);
            for (uint32_t layer = 0; layer < PAIR_LAYERS; layer += 2)
                push(transfer, n, 0, layer, 2);
            push(transfer, n, 1, 1, 1);
            for (uint32_t i = 0; i < n_steps; i++) {
                gpu->step(1);
                pair_run(&kit);
            }
            assert_ok(bt_tx_post(sender->tx, BT_TX_CANCEL, transfer));
            pair_run(&kit);
            run_dry(&(bt_rng){n_steps}, n, &n_seen);
            assert_int_equal(sender->n_failed, 1);
            assert_int_equal(sender->end.status, BATON_ERR_CANCELED);
            assert_int_equal(sender->n_source_free, 3);
            pair_check_clean(&kit);
            close_engine();
        }
    }
}

static void a_gpu_that_fails_in_the_middle_fails_the_transfer(void **state)
{
    (void)state;
    for (uint32_t n_steps = 0; n_steps < 90; n_steps += 8) {
        open_engine(1);
        pair_sender *sender = &kit.senders[0];
        pair_tokens(1, 0, PAIR_CHUNK, tokens);
        baton_transfer transfer = pair_begin(&kit, 0, "r", tokens, PAIR_CHUNK, 0);
        gpu->set_mode(FAKECUDA_HELD);
        for (uint32_t layer = 0; layer < PAIR_LAYERS; layer++)
            push(transfer, PAIR_CHUNK, 0, layer, 1);
        for (uint32_t i = 0; i < n_steps; i++) {
            gpu->step(1);
            pair_run(&kit);
        }
        gpu->break_context(BT_CU_ILLEGAL_ADDRESS);
        finish(transfer);
        pair_advance(&kit, 300);
        assert_int_equal(sender->n_done + sender->n_failed, 1);
        assert_true(sender->n_done == 1 || sender->end.status == BATON_ERR_IO);
        assert_int_equal(sender->n_source_free, PAIR_LAYERS);
        pair_check_clean(&kit);
        close_engine();
    }
}

/* Until all that the groups want of the GPU is done, and their puts are out. */
static void move_groups(bt_tx *tx)
{
    bt_tx_progress(tx); /* takes the groups, which wait for their events */
    for (uint32_t i = 0; i < PAIR_LAYERS; i++) {
        bt_tx_device_progress(tx);
        bt_tx_move_all(tx);
    }
}

/* In one piece, registered, and where puts reach it: read where it is, its digest too, and free
 * behind the put. */
static void put_from_where_they_are(size_t v)
{
    open_engine(v);
    pair_sender *sender = &kit.senders[0];
    uint8_t *on_gpu, page[PAIR_PAGE_BYTES];
    assert_ok(bt_cuda_alloc(engine.cuda, PAIR_PAGE_BYTES, (void **)&on_gpu));
    assert_ok(bt_tx_register(sender->tx, on_gpu, PAIR_PAGE_BYTES, BATON_MEMORY_CUDA_DEVICE));
    pair_tokens(1, 0, PAIR_CHUNK, tokens);
    pair_chunk(tokens, PAIR_CHUNK, 0, page);
    assert_ok(bt_cuda_copy(engine.cuda, on_gpu, page, PAIR_PAGE_BYTES));
    fakecuda_counts before, after;
    gpu->counts(&before);
    baton_transfer transfer = pair_begin(&kit, 0, "r", tokens, PAIR_CHUNK, 0);
    pair_run(&kit); /* granted */
    for (uint32_t layer = PAIR_LAYERS; layer-- > 0;) {
        bt_tx_source source = {.data = on_gpu + PAIR_PAGE_BYTES / PAIR_LAYERS * layer,
                               .bytes = PAIR_PAGE_BYTES / PAIR_LAYERS,
                               .first_layer = layer,
                               .n_layers = 1,
                               .memory = BATON_MEMORY_CUDA_DEVICE};
        const baton_source from = {.order = BATON_SOURCE_AFTER_STREAM, .stream = engine.stream};
        assert_ok(bt_tx_source_order(sender->tx, &from, &source));
        assert_ok(bt_tx_push(sender->tx, transfer, 0, &source));
    }
    finish(transfer);
    move_groups(sender->tx);
    assert_int_equal(sender->tx->first->n_puts_out, PAIR_LAYERS);
    bt_tx_events_flush(sender->tx);
    baton_sender_event event;
    assert_int_equal(bt_tx_poll(sender->tx, &event, 1), 0); /* puts still read it */
    pair_advance(&kit, 5);
    gpu->counts(&after);
    assert_int_equal(sender->n_done, 1);
    assert_int_equal(sender->n_source_free, PAIR_LAYERS);
    assert_int_equal(after.allocations, before.allocations); /* no pages were made */
    bool has_digest = paths[v % N_PATHS].digests != BATON_DIGESTS_OFF;
    assert_int_equal(after.kernels_total, has_digest ? PAIR_LAYERS : 0);
    assert_int_equal(kit.rx->stats.digests_checked_total, has_digest);
    assert_int_equal(pair_check(&kit, tokens, PAIR_CHUNK), PAIR_CHUNK);
    bt_tx_destroy(sender->tx);
    sender->tx = NULL;
    bt_cuda_free(engine.cuda, on_gpu);
    close_engine();
}

static void registered_groups_are_put_from_where_they_are(void **state)
{
    (void)state;
    for (size_t v = 0; v < N_VARIANTS; v++) {
        const pair_options *path = &paths[v % N_PATHS];
        if (path->reaches_device && path->path == BATON_PATH_PUT && is_left_to_gpu(v, PAIR_CHUNK))
            put_from_where_they_are(v);
    }
}

static void a_storm_of_groups_leaves_nothing_behind(void **state)
{
    (void)state;
    for (size_t v = 0; v < N_VARIANTS; v++) {
        bt_rng rng = {1000 + v};
        open_engine(v);
        gpu->set_mode(FAKECUDA_HELD);
        pair_sender *sender = &kit.senders[0];
        for (uint32_t round = 0; round < 8; round++) {
            uint32_t n = 1 + (uint32_t)bt_rng_below(&rng, 5 * PAIR_CHUNK), n_seen = 0;
            bool is_canceled = bt_rng_below(&rng, 3) == 0;
            pair_tokens(round, 0, n, tokens);
            sender->n_events = sender->n_source_free = 0;
            baton_transfer transfer = pair_begin(&kit, 0, "storm", tokens, n, 0);
            uint32_t max = is_canceled ? (uint32_t)bt_rng_below(&rng, 6) : UINT32_MAX;
            uint32_t n_groups = push_at_random(&rng, transfer, n, &n_seen, max);
            if (is_canceled)
                assert_ok(bt_tx_post(sender->tx, BT_TX_CANCEL, transfer));
            else
                finish(transfer);
            run_dry(&rng, n, &n_seen);
            assert_int_equal(sender->n_done + sender->n_failed, round + 1);
            assert_int_equal(sender->n_source_free, n_groups);
            assert_int_equal(pair_check(&kit, tokens, n), is_canceled ? 0 : n);
            pair_run(&kit);
        }
        assert_true(sender->n_done > 0 && sender->n_failed > 0);
        pair_check_clean(&kit);
        close_engine();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(groups_in_any_order_arrive_on_every_path),
        bt_test(a_group_moves_while_the_next_is_still_computed),
        bt_test(a_cancel_in_the_middle_waits_for_what_runs),
        bt_test(a_gpu_that_fails_in_the_middle_fails_the_transfer),
        bt_test(registered_groups_are_put_from_where_they_are),
        bt_test(a_storm_of_groups_leaves_nothing_behind),
    };
    return bt_run_tests(tests);
}
