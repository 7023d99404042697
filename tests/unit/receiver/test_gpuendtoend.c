/* SPDX-License-Identifier: Apache-2.0 */
/* KV from the memory of a GPU to the memory of a GPU through the public API, with the libraries'
 * own threads: pushed behind the stream that computes it, read on a stream by decode, unpinned
 * behind that. On a fake GPU that works on a thread of its own, or, with the argument `gpu`, on a
 * real one (skipped where there is none). */
#include <baton/receiver.h>
#include <baton/sender.h>

#include "core/alloc.h"
#include "support/fakekernels.h"
#include "support/test.h"
#include "transport/loop.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>

enum {
    CHUNK_TOKENS = 16,
    N_TOKENS = 5 * CHUNK_TOKENS + 3,
    N_CHUNKS = 6,
    N_REQUESTS = 8,
    PAGE_BYTES = CHUNK_TOKENS * 256, /* of the layout below */
    N_LAYERS = 2,
    ROW_BYTES = 64, /* K or V of a token in a layer */
    BLOCK_TOKENS = 8,
    BLOCKS_OF_CHUNK = CHUNK_TOKENS / BLOCK_TOKENS,
    REQUEST_BYTES = N_CHUNKS * PAGE_BYTES,
    HANG_GUARD_MS = 60000,
};

typedef enum {
    SOURCE_FLAT,   /* a chunk in one piece */
    SOURCE_PAGED,  /* blocks of a cache */
    SOURCE_LAYERS, /* the same, pushed layer by layer */
} source_kind;

typedef struct {
    const char *transport;
    bool reaches_device; /* loop only */
    bool can_map;        /* loop only */
    source_kind source;
    baton_memory_kind pool;
    baton_digests digests;
} flavour;

static bool is_real;

static struct {
    const fakecuda *gpu; /* NULL: a real one */
    bt_cuda *cuda;
    bt_cu_stream prefill, decode;
    uint8_t *source, *target; /* device, [N_REQUESTS][REQUEST_BYTES] */
    uint8_t *pinned;          /* what prefill computes */
    bt_loop_net *net;
    baton_sender *sender;
    baton_receiver *receiver;
    uint32_t tokens[N_REQUESTS][N_TOKENS];
    uint32_t n_free, n_done;
    source_kind kind;
    baton_kv_plane planes[N_REQUESTS][N_LAYERS];
    baton_kv_view views[N_REQUESTS];
} rig;

static const baton_layout layout = {.model = "gpuendtoend",
                                    .dtype = BATON_DTYPE_F32,
                                    .n_layers = N_LAYERS,
                                    .n_planes = 2,
                                    .n_kv_heads = 2,
                                    .head_dim = 8,
                                    .chunk_tokens = CHUNK_TOKENS,
                                    .block_tokens = BLOCK_TOKENS,
                                    .tp_size = 1,
                                    .pp_size = 1};

static void open_gpu(void)
{
    if (!is_real) {
        rig.gpu = bt_fakecuda_open();
        bt_fakekernels_use(rig.gpu);
        rig.gpu->set_mode(FAKECUDA_THREAD);
    }
    assert_ok(bt_cuda_open(&rig.cuda));
    assert_ok(bt_cuda_alloc(rig.cuda, N_REQUESTS * REQUEST_BYTES, (void **)&rig.source));
    assert_ok(bt_cuda_alloc(rig.cuda, N_REQUESTS * REQUEST_BYTES, (void **)&rig.target));
    rig.pinned = bt_aligned_alloc(4096, N_REQUESTS * REQUEST_BYTES);
    assert_ok(bt_cuda_pin(rig.cuda, rig.pinned, N_REQUESTS * REQUEST_BYTES));
    assert_ok(bt_cuda_enter(rig.cuda));
    assert_int_equal(rig.cuda->driver->stream_create(&rig.prefill, BT_CU_STREAM_NON_BLOCKING), 0);
    assert_int_equal(rig.cuda->driver->stream_create(&rig.decode, BT_CU_STREAM_NON_BLOCKING), 0);
    bt_cuda_leave(rig.cuda);
}

static void close_gpu(void)
{
    assert_ok(bt_cuda_enter(rig.cuda));
    rig.cuda->driver->stream_destroy(rig.prefill);
    rig.cuda->driver->stream_destroy(rig.decode);
    bt_cuda_leave(rig.cuda);
    bt_cuda_unpin(rig.cuda, rig.pinned);
    bt_free(rig.pinned);
    bt_cuda_free(rig.cuda, rig.source);
    bt_cuda_free(rig.cuda, rig.target);
    bt_cuda_close(rig.cuda);
    if (rig.gpu == NULL)
        return;
    rig.gpu->set_mode(FAKECUDA_AT_ONCE); /* wakers of streams that are gone find nobody */
    fakecuda_counts counts;
    rig.gpu->counts(&counts);
    assert_int_equal(counts.pageable_total, 0);
    assert_int_equal(counts.contexts + counts.allocations + counts.pins, 0);
    assert_int_equal(counts.streams + counts.events + counts.queued, 0);
}

static void open_rig(const flavour *how)
{
    memset(&rig, 0, sizeof(rig));
    rig.kind = how->source;
    open_gpu();
    if (strcmp(how->transport, "loop") == 0 && !how->can_map)
        bt_expect_log("cannot be mapped");
    assert_ok(bt_loop_net_create(1, NULL, &rig.net));
    bt_loop_set_mapping(rig.net, how->can_map, false);
    bt_loop_set_device(rig.net, how->reaches_device);
    const baton_data_path data = {.transport = how->transport, .loop_net = rig.net};
    const baton_receiver_options receiver = {.layout = layout,
                                             .digests = how->digests,
                                             .pool_bytes = N_REQUESTS * REQUEST_BYTES,
                                             .memory = how->pool,
                                             .data = data};
    const baton_sender_options sender = {.layout = layout, .staging_chunks = 3, .data = data};
    assert_ok(baton_receiver_create(&receiver, &rig.receiver));
    assert_ok(baton_sender_create(&sender, &rig.sender));
}

static void close_rig(void)
{
    baton_sender_destroy(rig.sender);
    baton_receiver_destroy(rig.receiver);
    bt_loop_net_destroy(rig.net);
    close_gpu();
}

static size_t chunk_bytes(uint32_t chunk)
{
    uint32_t n_tokens = chunk + 1 < N_CHUNKS ? CHUNK_TOKENS : N_TOKENS % CHUNK_TOKENS;
    return (size_t)n_tokens * 256;
}

/* Request r's cache as blocks: the source memory, [layer][plane][block][token][head]. */
static void view_of(uint32_t r)
{
    const baton_kv_shape shape = {.n_layers = N_LAYERS,
                                  .n_blocks = N_CHUNKS * BLOCKS_OF_CHUNK,
                                  .block_tokens = BLOCK_TOKENS,
                                  .n_kv_heads = 2,
                                  .head_bytes = ROW_BYTES / 2,
                                  .memory = BATON_MEMORY_CUDA_DEVICE};
    void *layers[N_LAYERS];
    for (uint32_t i = 0; i < N_LAYERS; i++)
        layers[i] = rig.source + (size_t)r * REQUEST_BYTES + i * (REQUEST_BYTES / N_LAYERS);
    assert_ok(baton_kv_view_flash(&shape, layers, rig.planes[r], &rig.views[r]));
}

/* Blocks of a request lie in descending order. */
static void compute_paged(uint32_t r, uint32_t chunk, uint32_t layer)
{
    uint32_t n_tokens = (uint32_t)(chunk_bytes(chunk) / (2 * N_LAYERS * ROW_BYTES));
    const uint8_t *page = rig.pinned + (size_t)r * REQUEST_BYTES + chunk * PAGE_BYTES;
    for (uint32_t row = 0; row < 2 * n_tokens; row++) {
        uint32_t token = chunk * CHUNK_TOKENS + row % n_tokens;
        uint32_t block = N_CHUNKS * BLOCKS_OF_CHUNK - 1 - token / BLOCK_TOKENS;
        const baton_kv_plane *plane = &rig.planes[r][layer];
        uint8_t *to = (uint8_t *)(row < n_tokens ? plane->k : plane->v) +
                      (size_t)(block * BLOCK_TOKENS + token % BLOCK_TOKENS) * ROW_BYTES;
        rig.cuda->driver->copy_async((uintptr_t)to,
                                     (uintptr_t)page + (layer * 2 * n_tokens + row) * ROW_BYTES,
                                     ROW_BYTES, rig.prefill);
    }
}

static void push_paged(uint32_t r, uint32_t chunk, baton_transfer transfer)
{
    uint32_t blocks[N_CHUNKS * BLOCKS_OF_CHUNK];
    for (uint32_t i = 0; i < N_CHUNKS * BLOCKS_OF_CHUNK; i++)
        blocks[i] = N_CHUNKS * BLOCKS_OF_CHUNK - 1 - i;
    const baton_kv_tokens list = {.blocks = blocks,
                                  .n_blocks = N_CHUNKS * BLOCKS_OF_CHUNK,
                                  .n_tokens =
                                      (uint32_t)(chunk_bytes(chunk) / (2 * N_LAYERS * ROW_BYTES)),
                                  .first_token = chunk * CHUNK_TOKENS};
    const baton_source source = {.view = &rig.views[r],
                                 .tokens = &list,
                                 .order = BATON_SOURCE_AFTER_STREAM,
                                 .stream = rig.prefill};
    for (uint32_t layer = 0; layer < N_LAYERS; layer++) {
        assert_ok(bt_cuda_enter(rig.cuda));
        compute_paged(r, chunk, layer);
        bt_cuda_leave(rig.cuda);
        if (rig.kind == SOURCE_LAYERS)
            assert_ok(baton_transfer_push_layers(rig.sender, transfer, chunk, layer, 1, &source));
    }
    if (rig.kind == SOURCE_PAGED)
        assert_ok(baton_transfer_push_source(rig.sender, transfer, chunk, &source));
}

/* Queues what computes a chunk and pushes it behind that. */
static void compute_and_push(uint32_t r, uint32_t chunk, baton_transfer transfer)
{
    size_t at = (size_t)r * REQUEST_BYTES + chunk * PAGE_BYTES;
    if (rig.kind != SOURCE_FLAT) {
        push_paged(r, chunk, transfer);
        return;
    }
    assert_ok(bt_cuda_enter(rig.cuda));
    rig.cuda->driver->copy_async((uintptr_t)rig.source + at, (uintptr_t)rig.pinned + at,
                                 chunk_bytes(chunk), rig.prefill);
    bt_cuda_leave(rig.cuda);
    const baton_source source = {.data = rig.source + at,
                                 .bytes = chunk_bytes(chunk),
                                 .memory = BATON_MEMORY_CUDA_DEVICE,
                                 .order = BATON_SOURCE_AFTER_STREAM,
                                 .stream = rig.prefill};
    assert_ok(baton_transfer_push_source(rig.sender, transfer, chunk, &source));
}

static void begin(uint32_t r)
{
    char name[32];
    uint16_t init_port, alloc_port;
    baton_key_chain chain;
    baton_key keys[N_CHUNKS];
    uint32_t n_keys, last;
    bt_rng rng = {r + 1};
    for (uint32_t t = 0; t < N_TOKENS; t++)
        rig.tokens[r][t] = 1000 * r + t;
    bt_rng_fill(&rng, rig.pinned + (size_t)r * REQUEST_BYTES, REQUEST_BYTES);
    view_of(r);
    assert_ok(baton_key_chain_init(&layout, 1, 0, NULL, &chain));
    assert_ok(
        baton_keys_of_tokens(&chain, rig.tokens[r], N_TOKENS, keys, N_CHUNKS, &n_keys, &last));
    snprintf(name, sizeof(name), "gpu-%u", r);
    baton_receiver_ports(rig.receiver, &init_port, &alloc_port);
    const baton_transfer_options options = {.request = name,
                                            .host = "127.0.0.1",
                                            .init_port = init_port,
                                            .alloc_port = alloc_port,
                                            .keys = keys,
                                            .n_chunks = n_keys,
                                            .last_tokens = last,
                                            .user_data = r};
    baton_transfer transfer;
    assert_ok(baton_transfer_begin(rig.sender, &options, &transfer));
    for (uint32_t chunk = 0; chunk < N_CHUNKS; chunk++)
        compute_and_push(r, chunk, transfer);
    assert_ok(baton_transfer_finish(rig.sender, transfer));
}

/* Decode: queues copies of what has landed, and leaves. */
static void read_request(uint32_t r)
{
    baton_pin *pin;
    uint32_t n_matched;
    assert_ok(baton_receiver_lookup(rig.receiver, rig.tokens[r], N_TOKENS, &pin, &n_matched));
    assert_int_equal(n_matched, N_TOKENS);
    for (uint32_t i = 0; i < N_CHUNKS; i++) {
        baton_pinned_chunk chunk;
        assert_ok(baton_pin_chunk(pin, i, &chunk));
        size_t at = (size_t)r * REQUEST_BYTES + i * PAGE_BYTES;
        assert_ok(bt_cuda_enter(rig.cuda));
        rig.cuda->driver->copy_async((uintptr_t)rig.target + at, (uintptr_t)chunk.page, chunk.bytes,
                                     rig.decode);
        bt_cuda_leave(rig.cuda);
    }
    assert_ok(baton_receiver_unpin_after(rig.receiver, pin, rig.decode));
}

static void wait_for_all(void)
{
    while (rig.n_done < N_REQUESTS) {
        baton_sender_event event;
        struct pollfd fd = {.fd = baton_sender_event_fd(rig.sender), .events = POLLIN};
        if (poll(&fd, 1, HANG_GUARD_MS) != 1)
            fail_msg("%u of %d requests are done", rig.n_done, N_REQUESTS);
        while (baton_sender_poll(rig.sender, &event, 1) == 1) {
            if (event.kind == BATON_SENDER_FAILED)
                fail_msg("request %u failed: %s", (unsigned)event.user_data, event.text);
            rig.n_free += event.kind == BATON_SENDER_SOURCE_FREE;
            rig.n_done += event.kind == BATON_SENDER_DONE;
            if (event.kind == BATON_SENDER_DONE)
                read_request((uint32_t)event.user_data);
        }
    }
}

static void check_targets(void)
{
    static uint8_t found[N_REQUESTS * REQUEST_BYTES];
    assert_ok(bt_cuda_enter(rig.cuda));
    assert_int_equal(rig.cuda->driver->stream_synchronize(rig.decode), BT_CU_SUCCESS);
    bt_cuda_leave(rig.cuda);
    assert_ok(bt_cuda_copy(rig.cuda, found, rig.target, sizeof(found)));
    for (uint32_t r = 0; r < N_REQUESTS; r++) {
        for (uint32_t i = 0; i < N_CHUNKS; i++) {
            size_t at = (size_t)r * REQUEST_BYTES + i * PAGE_BYTES;
            assert_memory_equal(found + at, rig.pinned + at, chunk_bytes(i));
        }
    }
}

static void run(const flavour *how)
{
    open_rig(how);
    for (uint32_t r = 0; r < N_REQUESTS; r++)
        begin(r);
    wait_for_all();
    uint32_t n_pushes = how->source == SOURCE_LAYERS ? N_LAYERS : 1;
    assert_int_equal(rig.n_free, N_REQUESTS * N_CHUNKS * n_pushes);
    check_targets();
    close_rig();
}

static void over_loop(void **state)
{
    (void)state;
    static const flavour flavours[] = {
        {"loop", false, false, SOURCE_FLAT, BATON_MEMORY_CUDA_DEVICE, BATON_DIGESTS_OFF},
        {"loop", false, true, SOURCE_FLAT, BATON_MEMORY_CUDA_DEVICE, BATON_DIGESTS_FULL},
        {"loop", true, false, SOURCE_FLAT, BATON_MEMORY_CUDA_DEVICE, BATON_DIGESTS_FULL},
        {"loop", true, true, SOURCE_FLAT, BATON_MEMORY_CUDA_HOST, BATON_DIGESTS_OFF},
        {"loop", true, false, SOURCE_PAGED, BATON_MEMORY_CUDA_DEVICE, BATON_DIGESTS_FULL},
        {"loop", false, true, SOURCE_PAGED, BATON_MEMORY_CUDA_DEVICE, BATON_DIGESTS_OFF},
        {"loop", true, false, SOURCE_LAYERS, BATON_MEMORY_CUDA_DEVICE, BATON_DIGESTS_OFF},
        {"loop", true, false, SOURCE_LAYERS, BATON_MEMORY_CUDA_DEVICE, BATON_DIGESTS_FULL},
        {"loop", true, false, SOURCE_FLAT, BATON_MEMORY_CUDA_DEVICE, BATON_DIGESTS_SAMPLED},
        {"loop", true, false, SOURCE_PAGED, BATON_MEMORY_CUDA_DEVICE, BATON_DIGESTS_SAMPLED},
        {"loop", true, false, SOURCE_LAYERS, BATON_MEMORY_CUDA_DEVICE, BATON_DIGESTS_SAMPLED},
    };
    for (size_t i = 0; i < sizeof(flavours) / sizeof(flavours[0]); i++)
        run(&flavours[i]);
}

static void over_ucx(void **state)
{
    (void)state;
    static const flavour flavours[] = {
        {.transport = "ucx", .pool = BATON_MEMORY_CUDA_DEVICE},
        {.transport = "ucx", .pool = BATON_MEMORY_CUDA_DEVICE, .digests = BATON_DIGESTS_FULL},
        {.transport = "ucx",
         .source = SOURCE_PAGED,
         .pool = BATON_MEMORY_CUDA_DEVICE,
         .digests = BATON_DIGESTS_FULL},
        {.transport = "ucx", .source = SOURCE_LAYERS, .pool = BATON_MEMORY_CUDA_DEVICE},
        {.transport = "ucx", .pool = BATON_MEMORY_CUDA_HOST},
    };
    for (size_t i = 0; i < sizeof(flavours) / sizeof(flavours[0]); i++)
        run(&flavours[i]);
}

static void skip_without_gpu(void)
{
    bt_cuda *cuda;
    char why[BT_ERROR_TEXT_BYTES + 16];
    if (bt_cuda_open(&cuda) != BATON_OK) {
        snprintf(why, sizeof(why), "no GPU: %s", baton_last_error());
        bt_test_skip(why);
    }
    bt_cuda_close(cuda);
}

int main(int argc, char **argv)
{
    is_real = argc > 1 && strcmp(argv[1], "gpu") == 0;
    if (is_real)
        skip_without_gpu();
    const struct CMUnitTest tests[] = {bt_test(over_loop), bt_test(over_ucx)};
    return bt_run_tests(tests);
}
