/* SPDX-License-Identifier: Apache-2.0 */
/* What the CPU's and the GPU's figures of bench_kernels share: the shapes of paged KV.
 * Thread rule: owner thread. */
#ifndef BT_BENCH_KERNELS_H
#define BT_BENCH_KERNELS_H
#include <baton/kv.h>

#include <stdbool.h>

enum { BENCH_LAYERS_MAX = 32, BENCH_BLOCKS_MAX = 256, BENCH_CHUNK_TOKENS = 256 };

/* A paged cache that is moved chunk by chunk, all of it. */
typedef struct {
    const char *name;
    uint32_t n_layers, n_planes, n_heads;
    uint64_t head_bytes;
    uint32_t block_tokens, n_blocks;
    bool heads_first;
} bench_shape;

/* [*n] */
const bench_shape *bench_shapes(uint32_t *n);
uint64_t bench_bytes(const bench_shape *shape);
uint32_t bench_n_chunks(const bench_shape *shape);
/* The shape's view of a cache at base. */
baton_status bench_view(const bench_shape *shape, void *base, baton_memory_kind memory,
                        baton_kv_plane planes[BENCH_LAYERS_MAX], baton_kv_view *view);
/* All its blocks in a shuffled order. */
void bench_blocks(const bench_shape *shape, uint32_t blocks[BENCH_BLOCKS_MAX]);
/* Of n values, which are sorted by it. */
double bench_median(double *values, uint32_t n);

/* Prints the GPU's table, or one line that says why not. Returns the program's exit status. */
int bench_gpu(uint32_t n_rounds);

#endif
