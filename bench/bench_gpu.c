/* SPDX-License-Identifier: Apache-2.0 */
/* The CUDA kernels beside the card's own copy of as many bytes from device to device; times are the
 * device's (events), chunks are queued one behind the other, as a transfer has them. */
#include "bench_kernels.h"

#include "core/alloc.h"
#include "kernels/digest.h"

#include <cuda_runtime_api.h>
#include <stdio.h>

typedef struct {
    const bench_shape *shape;
    baton_kv_view view;
    baton_kv_plane planes[BENCH_LAYERS_MAX];
    uint32_t blocks[BENCH_BLOCKS_MAX];
    uint8_t *cache, *pages; /* device; [n_chunks][chunk_bytes] */
    uint64_t *digests;      /* device, [n_chunks] */
    uint64_t bytes, chunk_bytes;
    cudaStream_t stream;
    cudaEvent_t from, to;
} bench;

enum { MOVE_COPY, MOVE_GATHER, MOVE_SCATTER, MOVE_GATHER_DIGEST, MOVE_SCATTER_DIGEST, N_MOVES };
static const char *const move_names[N_MOVES] = {"device-to-device copy", "gather", "scatter",
                                                "gather + digest", "scatter + digest"};

static baton_status queue_chunk(bench *b, int move, uint32_t chunk)
{
    uint8_t *page = b->pages + chunk * b->chunk_bytes;
    uint32_t n = b->shape->n_layers;
    baton_kv_tokens tokens = {.n_tokens = BENCH_CHUNK_TOKENS,
                              .blocks = b->blocks,
                              .n_blocks = b->shape->n_blocks,
                              .first_token = (uint64_t)chunk * BENCH_CHUNK_TOKENS};
    switch (move) {
    case MOVE_GATHER:
        return baton_kv_gather_cuda(&b->view, &tokens, 0, n, page, b->chunk_bytes, b->stream);
    case MOVE_SCATTER:
        return baton_kv_scatter_cuda(&b->view, &tokens, 0, n, page, b->chunk_bytes, b->stream);
    case MOVE_GATHER_DIGEST:
        return baton_kv_gather_digest_cuda(&b->view, &tokens, 0, n, page, b->chunk_bytes,
                                           b->digests + chunk, b->stream);
    default:
        return baton_kv_scatter_digest_cuda(&b->view, &tokens, 0, n, page, b->chunk_bytes,
                                            b->digests + chunk, b->stream);
    }
}

/* Milliseconds of the device for the whole cache; negative: something failed, and was printed. */
static float time_move(bench *b, int move)
{
    float ms = -1;
    baton_status status = BATON_OK;
    cudaEventRecord(b->from, b->stream);
    if (move == MOVE_COPY)
        cudaMemcpyAsync(b->pages, b->cache, b->bytes, cudaMemcpyDeviceToDevice, b->stream);
    for (uint32_t c = 0; move != MOVE_COPY && status == BATON_OK && c < bench_n_chunks(b->shape);
         c++)
        status = queue_chunk(b, move, c);
    cudaEventRecord(b->to, b->stream);
    cudaError_t error = cudaStreamSynchronize(b->stream);
    if (status != BATON_OK || error != cudaSuccess ||
        cudaEventElapsedTime(&ms, b->from, b->to) != cudaSuccess) {
        printf("%s: %s\n", move_names[move],
               status != BATON_OK ? baton_last_error() : cudaGetErrorString(error));
        return -1;
    }
    return ms;
}

/* The last gather's first page, against the CPU's digest of the same bytes. */
static bool is_right(bench *b)
{
    uint8_t *page = bt_calloc(b->chunk_bytes, 1);
    uint64_t digest = 0;
    bool right =
        page != NULL &&
        cudaMemcpy(page, b->pages, b->chunk_bytes, cudaMemcpyDeviceToHost) == cudaSuccess &&
        cudaMemcpy(&digest, b->digests, sizeof(digest), cudaMemcpyDeviceToHost) == cudaSuccess &&
        digest == bt_digest(page, b->chunk_bytes);
    bt_free(page);
    if (!right)
        printf("%s: the GPU's digest is not the CPU's\n", b->shape->name);
    return right;
}

static bool run_rounds(bench *b, uint32_t n_rounds)
{
    double *gbps = bt_calloc((size_t)N_MOVES * n_rounds, sizeof(*gbps)), copy = 0;
    bool ok = gbps != NULL;
    for (uint32_t r = 0; ok && r <= n_rounds; r++) { /* the first is for warming up */
        for (int move = 0; ok && move < N_MOVES; move++) {
            float ms = time_move(b, move);
            ok = ms > 0;
            if (r > 0)
                gbps[(uint32_t)move * n_rounds + r - 1] = (double)b->bytes / (double)ms / 1e6;
        }
    }
    ok = ok && is_right(b);
    for (uint32_t move = 0; ok && move < N_MOVES; move++) {
        double median = bench_median(gbps + move * n_rounds, n_rounds);
        copy = move == MOVE_COPY ? median : copy;
        printf("%-15s %-22s %8.0f %6.2f\n", b->shape->name, move_names[move], median,
               median / copy);
    }
    bt_free(gbps);
    return ok;
}

static bool run_shape(bench *b, const bench_shape *shape, uint32_t n_rounds)
{
    b->shape = shape;
    b->bytes = bench_bytes(shape);
    bench_blocks(shape, b->blocks);
    bool ok = cudaMalloc((void **)&b->cache, b->bytes) == cudaSuccess &&
              cudaMalloc((void **)&b->pages, b->bytes) == cudaSuccess &&
              cudaMalloc((void **)&b->digests, 8 * (size_t)bench_n_chunks(shape)) == cudaSuccess &&
              cudaMemset(b->cache, 1, b->bytes) == cudaSuccess;
    if (!ok)
        printf("%s: no memory on the GPU\n", shape->name);
    ok = ok &&
         bench_view(shape, b->cache, BATON_MEMORY_CUDA_DEVICE, b->planes, &b->view) == BATON_OK &&
         baton_kv_chunk_bytes(&b->view, BENCH_CHUNK_TOKENS, &b->chunk_bytes) == BATON_OK &&
         run_rounds(b, n_rounds);
    cudaFree(b->digests);
    cudaFree(b->pages);
    cudaFree(b->cache);
    b->cache = b->pages = NULL;
    b->digests = NULL;
    return ok;
}

int bench_gpu(uint32_t n_rounds)
{
    static bench b;
    uint32_t n_shapes;
    const bench_shape *shapes = bench_shapes(&n_shapes);
    struct cudaDeviceProp properties;
    if (cudaGetDeviceProperties(&properties, 0) != cudaSuccess) {
        printf("skipped: no CUDA device\n");
        return 77;
    }
    printf("%-38s %8s %6s\n", properties.name, "GB/s", "copy");
    bool ok = cudaStreamCreate(&b.stream) == cudaSuccess &&
              cudaEventCreate(&b.from) == cudaSuccess && cudaEventCreate(&b.to) == cudaSuccess;
    for (uint32_t i = 0; ok && i < n_shapes; i++)
        ok = run_shape(&b, &shapes[i], n_rounds);
    return ok ? 0 : 1;
}
