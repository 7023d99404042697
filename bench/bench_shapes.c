/* SPDX-License-Identifier: Apache-2.0 */
#include "bench_kernels.h"

#include <stdlib.h>

/* Far larger than the CPU's caches together with their pages, as a running engine's are. */
static const bench_shape shapes[] = {
    {"llama-8b nhd", 32, 2, 8, 256, 16, 256, false},
    {"llama-8b hnd", 32, 2, 8, 256, 16, 256, true},
    /* vLLM on CPUs: K and V of a head side by side, [blocks][4 heads][32 tokens][K 64 | V 64]; the
     * same with tokens first is one piece of 32 KiB a block and layer. */
    {"32 KiB x 8 nhd", 8, 1, 4, 256, 32, 256, false},
    {"32 KiB x 8 hnd", 8, 1, 4, 256, 32, 256, true},
};

const bench_shape *bench_shapes(uint32_t *n)
{
    *n = sizeof(shapes) / sizeof(shapes[0]);
    return shapes;
}

static uint64_t layer_bytes(const bench_shape *shape)
{
    return shape->head_bytes * shape->n_heads * shape->block_tokens * shape->n_blocks *
           shape->n_planes;
}

uint64_t bench_bytes(const bench_shape *shape)
{
    return layer_bytes(shape) * shape->n_layers;
}

uint32_t bench_n_chunks(const bench_shape *shape)
{
    return shape->n_blocks * shape->block_tokens / BENCH_CHUNK_TOKENS;
}

baton_status bench_view(const bench_shape *shape, void *base, baton_memory_kind memory,
                        baton_kv_plane planes[BENCH_LAYERS_MAX], baton_kv_view *view)
{
    void *layers[BENCH_LAYERS_MAX];
    for (uint32_t i = 0; i < shape->n_layers; i++)
        layers[i] = (uint8_t *)base + i * layer_bytes(shape);
    baton_kv_shape of = {
        .n_layers = shape->n_layers,
        .n_blocks = shape->n_blocks,
        .block_tokens = shape->block_tokens,
        .n_kv_heads = shape->n_heads,
        .head_bytes = shape->head_bytes,
        .memory = memory,
    };
    if (shape->n_planes == 2)
        return shape->heads_first ? baton_kv_view_hnd(&of, layers, NULL, planes, view)
                                  : baton_kv_view_flash(&of, layers, planes, view);
    /* One plane with several heads has no initialiser: MLA's, cut into heads. */
    of.n_kv_heads = 1;
    of.head_bytes *= shape->n_heads;
    baton_status status = baton_kv_view_mla(&of, layers, planes, view);
    view->n_kv_heads = shape->n_heads;
    view->head_bytes = view->head_stride_bytes = shape->head_bytes;
    if (shape->heads_first) {
        view->token_stride_bytes = shape->head_bytes;
        view->head_stride_bytes = shape->head_bytes * shape->block_tokens;
    }
    return status;
}

void bench_blocks(const bench_shape *shape, uint32_t blocks[BENCH_BLOCKS_MAX])
{
    uint64_t seed = 1;
    for (uint32_t i = 0; i < shape->n_blocks; i++) {
        seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        uint32_t j = (uint32_t)((seed >> 33) % (i + 1));
        blocks[i] = blocks[j];
        blocks[j] = i;
    }
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_median(double *values, uint32_t n)
{
    qsort(values, n, sizeof(*values), by_value);
    return values[n / 2];
}
