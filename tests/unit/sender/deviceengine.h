/* SPDX-License-Identifier: Apache-2.0 */
/* An engine whose KV cache is in the memory of a (fake) GPU, in front of a sender. Thread rule: one
 * thread. */
#ifndef BT_TESTS_DEVICEENGINE_H
#define BT_TESTS_DEVICEENGINE_H
#include "handoffkit.h"

#include "core/alloc.h"
#include "support/fakekernels.h"

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

static inline void open_engine(const pair_options *options)
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

static inline void close_engine(void)
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

static inline uint8_t *slot_of(uint32_t token, uint32_t plane)
{
    return engine.cache + plane * PLANE +
           (engine.blocks[token / BLOCK] * BLOCK + token % BLOCK) * ROW;
}

static inline uint32_t chunk_tokens(uint32_t n, uint32_t i)
{
    return n - i * PAIR_CHUNK < PAIR_CHUNK ? n - i * PAIR_CHUNK : PAIR_CHUNK;
}

/* Queues on the engine's stream what computes chunk i of tokens[n]. */
static inline void compute(uint32_t n, uint32_t i)
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

static inline baton_status push(baton_transfer transfer, uint32_t n, uint32_t i,
                                baton_source_order order, bt_cu_event event)
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
static inline baton_transfer start(const char *request, uint32_t n)
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
static inline void run_dry(bt_rng *rng)
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
static inline const pair_options *open_variant(size_t v)
{
    open_engine(&paths[v % N_PATHS]);
    bt_fakekernels_use(v < N_PATHS ? NULL : gpu);
    return &paths[v % N_PATHS];
}

static inline void step_all(void)
{
    while (gpu->step(1) > 0)
        ;
}

#endif
