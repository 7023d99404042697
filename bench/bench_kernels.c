/* SPDX-License-Identifier: Apache-2.0 */
/* GB/s of gather and scatter beside memcpy, for a Llama-like cache: 32 layers, 8 KV heads of 128
 * bf16, 16-token blocks, chunks of 256 tokens (32 MiB).
 *
 *   bench_kernels [repetitions]
 *
 * Each figure is the median of the repetitions; a byte moved counts once. Pages and cache together
 * are far larger than the CPU's caches, as they are in a running engine. */
#include "core/alloc.h"
#include "core/clock.h"
#include "kernels/digest.h"
#include "kernels/kv_copy.h"
#include "kernels/kv_reference.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    N_LAYERS = 32,
    N_HEADS = 8,
    HEAD_BYTES = 256,
    BLOCK_TOKENS = 16,
    CHUNK_TOKENS = 256,
    N_BLOCKS = 256, /* 16 chunks: 512 MiB of cache */
    N_CHUNKS = N_BLOCKS * BLOCK_TOKENS / CHUNK_TOKENS,
    BLOCKS_PER_CHUNK = CHUNK_TOKENS / BLOCK_TOKENS,
    MAX_REPETITIONS = 1000,
};

typedef struct {
    baton_kv_view view;
    baton_kv_plane planes[N_LAYERS];
    uint8_t *cache;
    uint8_t *pages; /* [N_CHUNKS][chunk_bytes] */
    uint64_t chunk_bytes;
    uint32_t blocks[N_BLOCKS];
    int64_t slots[N_BLOCKS * BLOCK_TOKENS];
    unsigned n_repetitions;
    uint64_t last_digest; /* kept, so that computing it is not optimised away */
} bench;

static bool set_up(bench *b, bool heads_first)
{
    uint64_t layer_bytes = UINT64_C(2) * N_BLOCKS * BLOCK_TOKENS * N_HEADS * HEAD_BYTES;
    void *layers[N_LAYERS];
    for (unsigned l = 0; l < N_LAYERS; l++)
        layers[l] = b->cache + l * layer_bytes;
    baton_kv_shape shape = {N_LAYERS, N_BLOCKS,   BLOCK_TOKENS,
                            N_HEADS,  HEAD_BYTES, BATON_MEMORY_HOST};
    baton_status status = heads_first ? baton_kv_view_hnd(&shape, layers, NULL, b->planes, &b->view)
                                      : baton_kv_view_flash(&shape, layers, b->planes, &b->view);
    return status == BATON_OK &&
           baton_kv_chunk_bytes(&b->view, CHUNK_TOKENS, &b->chunk_bytes) == BATON_OK;
}

/* Blocks in a random order; slots is one token at a time, so that nothing merges. */
static void shuffle(bench *b)
{
    uint64_t seed = 1;
    for (uint32_t i = 0; i < N_BLOCKS; i++) {
        seed = seed * UINT64_C(6364136223846793005) + 1442695040888963407u;
        uint32_t j = (uint32_t)((seed >> 33) % (i + 1));
        b->blocks[i] = b->blocks[j];
        b->blocks[j] = i;
    }
    for (uint32_t t = 0; t < N_BLOCKS * BLOCK_TOKENS; t++)
        b->slots[t] = (int64_t)(t * UINT64_C(2053) % (N_BLOCKS * BLOCK_TOKENS));
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

typedef void (*move_fn)(bench *b, const bt_rows_ops *ops, const baton_kv_tokens *tokens,
                        uint8_t *page);

static void move_memcpy(bench *b, const bt_rows_ops *ops, const baton_kv_tokens *tokens,
                        uint8_t *page)
{
    (void)ops;
    uint64_t at = tokens->first_token / CHUNK_TOKENS % N_CHUNKS * b->chunk_bytes;
    memcpy(page, b->cache + at, b->chunk_bytes);
}

static void move_digest(bench *b, const bt_rows_ops *ops, const baton_kv_tokens *tokens,
                        uint8_t *page)
{
    (void)ops, (void)tokens;
    b->last_digest = bt_digest(page, b->chunk_bytes);
}

static void move_gather(bench *b, const bt_rows_ops *ops, const baton_kv_tokens *tokens,
                        uint8_t *page)
{
    if (ops == NULL)
        bt_kv_gather_reference(&b->view, tokens, 0, N_LAYERS, page, b->chunk_bytes);
    else
        bt_kv_gather_with(ops, &b->view, tokens, 0, N_LAYERS, page, b->chunk_bytes);
}

static void move_scatter(bench *b, const bt_rows_ops *ops, const baton_kv_tokens *tokens,
                         uint8_t *page)
{
    if (ops == NULL)
        bt_kv_scatter_reference(&b->view, tokens, 0, N_LAYERS, page, b->chunk_bytes);
    else
        bt_kv_scatter_with(ops, &b->view, tokens, 0, N_LAYERS, page, b->chunk_bytes);
}

/* Every chunk once per repetition, timed one by one. */
static double median_gbps(bench *b, move_fn move, const bt_rows_ops *ops, bool by_block)
{
    uint64_t *ns = bt_calloc((size_t)b->n_repetitions * N_CHUNKS, sizeof(*ns));
    if (ns == NULL)
        return 0;
    size_t n = 0;
    for (unsigned r = 0; r < b->n_repetitions; r++) {
        for (unsigned c = 0; c < N_CHUNKS; c++) {
            baton_kv_tokens tokens = {.n_tokens = CHUNK_TOKENS,
                                      .blocks = b->blocks,
                                      .n_blocks = N_BLOCKS,
                                      .first_token = (uint64_t)c * CHUNK_TOKENS};
            if (!by_block)
                tokens.slots = b->slots + (size_t)c * CHUNK_TOKENS;
            uint64_t start = bt_now_ns(&bt_clock_monotonic);
            move(b, ops, &tokens, b->pages + c * b->chunk_bytes);
            ns[n++] = bt_now_ns(&bt_clock_monotonic) - start;
        }
    }
    qsort(ns, n, sizeof(*ns), by_value);
    double gbps = (double)b->chunk_bytes / (double)ns[n / 2];
    bt_free(ns);
    return gbps;
}

static void run_versions(bench *b, const char *layout)
{
    size_t n;
    const bt_rows_ops *ops = bt_rows_versions(&n);
    for (size_t i = 0; i <= n; i++) {
        const bt_rows_ops *version = i < n ? &ops[i] : NULL;
        if (version != NULL && !version->is_supported())
            continue;
        printf("%-6s %-14s %10.1f %10.1f %10.1f %10.1f\n", layout,
               version != NULL ? version->name : "reference",
               median_gbps(b, move_gather, version, true),
               median_gbps(b, move_scatter, version, true),
               median_gbps(b, move_gather, version, false),
               median_gbps(b, move_scatter, version, false));
    }
}

int main(int argc, char **argv)
{
    static bench b;
    b.n_repetitions = argc > 1 ? (unsigned)strtoul(argv[1], NULL, 10) : 3;
    if (b.n_repetitions == 0 || b.n_repetitions > MAX_REPETITIONS) {
        fprintf(stderr, "usage: bench_kernels [repetitions, 1 to %d]\n", MAX_REPETITIONS);
        return 2;
    }
    size_t bytes = (size_t)N_LAYERS * 2 * N_BLOCKS * BLOCK_TOKENS * N_HEADS * HEAD_BYTES;
    b.cache = bt_aligned_alloc(4096, bytes);
    b.pages = bt_aligned_alloc(4096, bytes);
    if (b.cache == NULL || b.pages == NULL || !set_up(&b, false)) {
        fprintf(stderr, "bench_kernels: %s\n", baton_last_error());
        return 1;
    }
    memset(b.cache, 1, bytes);
    memset(b.pages, 2, bytes);
    shuffle(&b);
    printf("GB/s, chunk of %.1f MiB; memcpy %.1f, digest %.1f\n", (double)b.chunk_bytes / 1048576,
           median_gbps(&b, move_memcpy, NULL, true), median_gbps(&b, move_digest, NULL, true));
    printf("%-6s %-14s %10s %10s %10s %10s\n", "layout", "version", "gather", "scatter",
           "gather/tok", "scatter/tok");
    run_versions(&b, "nhd");
    set_up(&b, true);
    run_versions(&b, "hnd");
    bt_free(b.pages);
    bt_free(b.cache);
    return 0;
}
