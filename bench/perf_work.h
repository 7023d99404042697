/* SPDX-License-Identifier: Apache-2.0 */
/* The work of a transfer, which both ends derive from the same few numbers: KV layout, tokens, and
 * the bytes of every page.
 * Thread rule: any thread. */
#ifndef BT_BENCH_PERF_WORK_H
#define BT_BENCH_PERF_WORK_H
#include <baton/keys.h>
#include <stdbool.h>

/* Of an engine's paged KV, bf16. All 0: 4 layers, 4 heads of 64, blocks of 16 tokens. */
typedef struct {
    uint32_t n_layers, n_heads, head_dim, block_tokens;
} bt_perf_shape;

typedef struct {
    uint32_t n_pages;
    uint64_t page_bytes;
    bool paged;
    bt_perf_shape shape; /* of a paged source */
    uint64_t seed;
    baton_layout layout; /* in which a page is a chunk */
} bt_perf_work;

/* Fills work->layout from the rest. Errors: INVALID_ARG (no layout has such pages; the text says
 * what is needed). */
baton_status bt_perf_work_init(bt_perf_work *work);
/* Tokens of a whole transfer. */
uint32_t bt_perf_work_tokens(const bt_perf_work *work);
/* tokens[bt_perf_work_tokens] of an iteration: no two iterations share a prefix, so nothing is ever
 * there already. */
void bt_perf_fill_tokens(const bt_perf_work *work, uint32_t iteration, uint32_t *tokens);
/* Bytes of a page; no two pages of a run share them. */
void bt_perf_fill_page(const bt_perf_work *work, uint32_t iteration, uint32_t page, void *bytes);
/* The offset of the first wrong byte, or page_bytes when all are right. */
uint64_t bt_perf_check_page(const bt_perf_work *work, uint32_t iteration, uint32_t page,
                            const void *bytes);
/* A transfer's request id, "perf-7". */
enum { BT_PERF_REQUEST_BYTES = 32 };
void bt_perf_request_name(uint32_t iteration, char name[BT_PERF_REQUEST_BYTES]);

/* splitmix64's finaliser: spreads x over all bits. */
uint64_t bt_perf_mix(uint64_t x);

#endif
