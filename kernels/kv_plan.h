/* SPDX-License-Identifier: Apache-2.0 */
/* A gather or scatter as the GPU's kernel takes it: everything that can be resolved beforehand is.
 *
 *   page, cut into tiles of 16 KiB, one thread block each:
 *   byte `at` -> head number at / head_bytes -> row / n_heads -> plane / n_tokens
 *   table      [n_planes] addresses of the planes, [n_tokens] offsets of the tokens in each
 *
 * Thread rule: any thread. */
#ifndef BT_KERNELS_KV_PLAN_H
#define BT_KERNELS_KV_PLAN_H
#include <baton/kv.h>

#include <stdbool.h>
BATON_BEGIN_DECLS

/* A quotient by multiplication: n / divisor == n * multiplier >> shift for every n < 2^31. */
typedef struct {
    uint32_t multiplier;
    uint32_t shift;
} bt_gpu_divider;

enum {
    BT_GPU_SMALL_TABLE = 448, /* entries that travel with the launch, whose arguments are 4 KiB */
    BT_GPU_MAX_UNIT = 16,
};
#define BT_GPU_SKIPPED UINT64_MAX /* in the table: a token of which nothing is touched */

typedef struct {
    uint8_t *page;
    uint64_t page_bytes; /* used */
    uint64_t head_bytes, head_stride_bytes;
    uint32_t n_heads, n_tokens, n_planes; /* heads that lie in one piece count as one */
    bool to_page;
    bool is_small; /* page_bytes < 2^31: the dividers may be used */
    bt_gpu_divider by_head_bytes, by_heads, by_tokens;
    /* Device pointers; both NULL: no digest is wanted; digest NULL: only those of tiles are. */
    uint64_t *digest;
    uint64_t *tiles;       /* [tiles of the page] their digests */
    uint32_t *n_done;      /* with digest: 0; counts tiles that are digested */
    const uint64_t *table; /* device pointer, or NULL: small_table */
    uint64_t small_table[BT_GPU_SMALL_TABLE];
} bt_gpu_copy;

static inline uint64_t bt_gpu_table_entries(const bt_gpu_copy *copy)
{
    return (uint64_t)copy->n_planes + copy->n_tokens;
}

/* Everything but digest, tiles, n_done and table; arguments have been checked (kv_check.h), and
 * there is something to move. Errors: TOO_LARGE. */
baton_status bt_gpu_plan(const baton_kv_view *view, const baton_kv_tokens *tokens,
                         uint32_t n_layers, void *page, bool to_page, bt_gpu_copy *copy);
/* Fills table[bt_gpu_table_entries], and says which unit (16, 8, 4, 2 or 1 bytes) every address and
 * step of the copy is a multiple of. */
void bt_gpu_fill_table(const baton_kv_view *view, const baton_kv_tokens *tokens,
                       uint32_t first_layer, const bt_gpu_copy *copy, uint64_t *table,
                       uint32_t *unit);
/* A copy that moves nothing, for the digest of bytes[n], n > 0: its small table is filled. */
void bt_gpu_plan_digest(const void *bytes, uint64_t n, bt_gpu_copy *copy, uint32_t *unit);
bt_gpu_divider bt_gpu_divider_of(uint32_t divisor); /* 0 < divisor < 2^31 */

BATON_END_DECLS
#endif
