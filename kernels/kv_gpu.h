/* SPDX-License-Identifier: Apache-2.0 */
/* The body of the GPU's gather and scatter: one thread block moves one tile of the page, in groups
 * of 16 bytes, and where a digest is wanted sums XXH3's products of the groups it has in registers.
 *
 *   tile, 16 KiB = 16 blocks of 16 stripes of 64 bytes (xxh3.h) = 8 warps of 2 KiB
 *   warp w, turn k, lane l: group 128 w + 32 k + l      a turn of a warp is 512 bytes in a row
 *     stripe of the block: 8 (k % 2) + l / 4,  lanes 2 (l % 4) and 2 (l % 4) + 1 of the stripe
 *
 *   move   every thread: 4 groups; its sums of the warp's two blocks to shared memory
 *   add    128 threads: block and lane each: the sum of 8 threads' sums
 *   chain  8 threads, a lane each: 16 sums with 15 scrambles between, then the last stripe
 *   end    the tile's digest; where the page's is wanted, whoever finishes last digests the digests
 *
 * The page is never read where it is written. All products of indices are 64 bit. Bytes behind the
 * page are not touched. Compiled by nvcc, and by tests for the host (gpu_shim.h).
 * Contracts: baton/kv.h; the digest: digest.h. */
#ifndef BT_KERNELS_KV_GPU_H
#define BT_KERNELS_KV_GPU_H
#include "kernels/gpu_shim.h"
#include "kernels/kv_plan.h"
#include "kernels/xxh3.h"

enum {
    BT_GPU_TILE_BYTES = 16 << 10, /* BT_DIGEST_TILE_BYTES */
    BT_GPU_GROUP_BYTES = 16,
    BT_GPU_TURNS = BT_GPU_TILE_BYTES / BT_GPU_GROUP_BYTES / BT_GPU_THREADS,
    BT_GPU_BLOCK_BYTES = BT_XXH3_BLOCK_STRIPES * BT_XXH3_STRIPE_BYTES,
    BT_GPU_TILE_BLOCKS = BT_GPU_TILE_BYTES / BT_GPU_BLOCK_BYTES,
};

typedef struct BT_GPU_ALIAS {
    uint64_t low __attribute__((aligned(16))); /* one 16-byte access */
    uint64_t high;
} bt_gpu_group;
typedef uint64_t BT_GPU_ALIAS bt_gpu_u64;
typedef uint32_t BT_GPU_ALIAS bt_gpu_u32;
typedef uint16_t BT_GPU_ALIAS bt_gpu_u16;

/* Of one thread block, 9.4 KiB. */
typedef struct {
    bt_gpu_group partial[BT_GPU_TILE_BLOCKS][BT_GPU_WARP];
    uint64_t sums[BT_GPU_TILE_BLOCKS][BT_XXH3_LANES];
    uint64_t acc[BT_XXH3_LANES];
    uint8_t tail[BT_XXH3_SHORT_BYTES]; /* the tile's last bytes, all of it when it is that short */
    uint32_t is_last;                  /* of all blocks to finish */
} bt_gpu_shared;

BT_GPU_INLINE uint64_t bt_gpu_n_tiles(const bt_gpu_copy *copy)
{
    return (copy->page_bytes + BT_GPU_TILE_BYTES - 1) / BT_GPU_TILE_BYTES;
}

BT_GPU_INLINE uint32_t bt_gpu_tile_bytes(const bt_gpu_copy *copy, uint64_t tile)
{
    uint64_t left = copy->page_bytes - tile * BT_GPU_TILE_BYTES;
    return left < BT_GPU_TILE_BYTES ? (uint32_t)left : (uint32_t)BT_GPU_TILE_BYTES;
}

BT_GPU_INLINE uint32_t bt_gpu_divide(uint64_t n, bt_gpu_divider by)
{
    return (uint32_t)(n * by.multiplier >> by.shift);
}

/* Where byte `at` of the page lies in paged KV; NULL when its token is skipped. */
BT_GPU_INLINE uint8_t *bt_gpu_locate(const bt_gpu_copy *copy, uint64_t at)
{
    const uint64_t *table = copy->table != NULL ? copy->table : copy->small_table;
    uint64_t number, row, plane; /* of the head, counted from the page's first; of its row */
    if (copy->is_small) {
        number = bt_gpu_divide(at, copy->by_head_bytes);
        row = bt_gpu_divide(number, copy->by_heads);
        plane = bt_gpu_divide(row, copy->by_tokens);
    } else {
        number = at / copy->head_bytes;
        row = number / copy->n_heads;
        plane = row / copy->n_tokens;
    }
    uint64_t offset = table[copy->n_planes + (row - plane * copy->n_tokens)];
    if (offset == BT_GPU_SKIPPED)
        return NULL;
    uint64_t head = number - row * copy->n_heads;
    return (uint8_t *)(uintptr_t)table[plane] + offset + head * copy->head_stride_bytes +
           (at - number * copy->head_bytes);
}

BT_GPU_INLINE uint64_t bt_gpu_load(const uint8_t *from, uint32_t unit)
{
    switch (unit) {
    case 8:
        return *(const bt_gpu_u64 *)from;
    case 4:
        return *(const bt_gpu_u32 *)from;
    case 2:
        return *(const bt_gpu_u16 *)from;
    default:
        return *from;
    }
}

BT_GPU_INLINE void bt_gpu_store(uint8_t *to, uint64_t value, uint32_t unit)
{
    switch (unit) {
    case 8:
        *(bt_gpu_u64 *)to = value;
        break;
    case 4:
        *(bt_gpu_u32 *)to = (uint32_t)value;
        break;
    case 2:
        *(bt_gpu_u16 *)to = (uint16_t)value;
        break;
    default:
        *to = (uint8_t)value;
    }
}

/* n bytes of the page from `at` on, in units below 16; read: those of skipped tokens are wanted
 * too. Returns them, with zeros behind. */
BT_GPU_INLINE bt_gpu_group bt_gpu_move_units(const bt_gpu_copy *copy, uint64_t at, uint32_t n,
                                             uint32_t unit, bool read)
{
    bt_gpu_group group;
    group.low = group.high = 0;
    for (uint32_t i = 0; i < n; i += unit) {
        uint8_t *paged = bt_gpu_locate(copy, at + i);
        uint8_t *dense = copy->page + at + i;
        if (paged == NULL && !read)
            continue;
        uint64_t value = bt_gpu_load(paged != NULL && copy->to_page ? paged : dense, unit);
        if (paged != NULL)
            bt_gpu_store(copy->to_page ? dense : paged, value, unit);
        if (i < 8)
            group.low |= value << (i * 8);
        else
            group.high |= value << ((i - 8) * 8);
    }
    return group;
}

BT_GPU_INLINE uint32_t bt_gpu_group_at(uint32_t thread, uint32_t turn)
{
    uint32_t warp = thread / BT_GPU_WARP, lane = thread % BT_GPU_WARP;
    return ((warp * BT_GPU_TURNS + turn) * BT_GPU_WARP + lane) * BT_GPU_GROUP_BYTES;
}

/* A thread's groups: all loads are under way before the first store needs one. */
BT_GPU_INLINE void bt_gpu_move_groups(const bt_gpu_copy *copy, uint64_t tile, uint32_t thread,
                                      bool read, bt_gpu_group groups[BT_GPU_TURNS])
{
    uint32_t bytes = bt_gpu_tile_bytes(copy, tile);
    uint8_t *to[BT_GPU_TURNS];
    for (uint32_t k = 0; k < BT_GPU_TURNS; k++) {
        uint32_t at = bt_gpu_group_at(thread, k);
        to[k] = NULL;
        groups[k].low = groups[k].high = 0;
        if (at >= bytes)
            continue;
        uint8_t *dense = copy->page + tile * BT_GPU_TILE_BYTES + at;
        uint8_t *paged = bt_gpu_locate(copy, tile * BT_GPU_TILE_BYTES + at);
        if (paged != NULL)
            to[k] = copy->to_page ? dense : paged;
        if (paged != NULL || read)
            groups[k] = *(const bt_gpu_group *)(paged != NULL && copy->to_page ? paged : dense);
    }
    for (uint32_t k = 0; k < BT_GPU_TURNS; k++) {
        if (to[k] != NULL)
            *(bt_gpu_group *)to[k] = groups[k];
    }
}

/* Keeps those bytes of a group that are among the tile's last. */
BT_GPU_INLINE void bt_gpu_keep_tail(bt_gpu_shared *shared, bt_gpu_group group, uint32_t at,
                                    uint32_t bytes)
{
    uint32_t start = bytes > BT_XXH3_SHORT_BYTES ? bytes - BT_XXH3_SHORT_BYTES : 0;
    for (uint32_t i = 0; i < BT_GPU_GROUP_BYTES; i++) {
        uint64_t word = i < 8 ? group.low : group.high;
        if (at + i >= start && at + i < bytes)
            shared->tail[at + i - start] = (uint8_t)(word >> (i % 8 * 8));
    }
}

/* A thread's sums of its warp's two blocks, of all stripes but the tile's last. */
BT_GPU_INLINE void bt_gpu_sum_groups(bt_gpu_shared *shared, uint32_t bytes, uint32_t thread,
                                     const bt_gpu_group groups[BT_GPU_TURNS])
{
    enum { TURNS_PER_BLOCK = BT_GPU_BLOCK_BYTES / BT_GPU_GROUP_BYTES / BT_GPU_WARP };
    uint32_t lane = thread % BT_GPU_WARP;
    uint32_t last = (bytes - 1) / BT_XXH3_STRIPE_BYTES;
    bt_gpu_group sum;
    sum.low = sum.high = 0;
    for (uint32_t k = 0; k < BT_GPU_TURNS; k++) {
        uint32_t at = bt_gpu_group_at(thread, k);
        uint32_t stripe = at / BT_XXH3_STRIPE_BYTES;
        /* The secret begins a word later with every stripe. */
        uint32_t word = stripe % BT_XXH3_BLOCK_STRIPES + at % BT_XXH3_STRIPE_BYTES / 8;
        if (stripe < last) {
            sum.low += bt_xxh3_product(groups[k].low, bt_xxh3_word(word)) + groups[k].high;
            sum.high += bt_xxh3_product(groups[k].high, bt_xxh3_word(word + 1)) + groups[k].low;
        }
        if (at + BT_GPU_GROUP_BYTES + BT_XXH3_SHORT_BYTES > bytes)
            bt_gpu_keep_tail(shared, groups[k], at, bytes);
        if (k % TURNS_PER_BLOCK == TURNS_PER_BLOCK - 1) {
            shared->partial[at / BT_GPU_BLOCK_BYTES][lane] = sum;
            sum.low = sum.high = 0;
        }
    }
}

/* unit: what bt_gpu_fill_table said; constant where this is compiled for the GPU, like digests. */
BT_GPU_INLINE void bt_gpu_move(const bt_gpu_copy *copy, bt_gpu_shared *shared, uint64_t tile,
                               uint32_t thread, uint32_t unit, bool digests)
{
    uint32_t bytes = bt_gpu_tile_bytes(copy, tile);
    bt_gpu_group groups[BT_GPU_TURNS];
    if (unit == BT_GPU_GROUP_BYTES) {
        bt_gpu_move_groups(copy, tile, thread, digests, groups);
    } else {
        for (uint32_t k = 0; k < BT_GPU_TURNS; k++) {
            uint32_t at = bt_gpu_group_at(thread, k);
            uint32_t left = at < bytes ? bytes - at : 0;
            groups[k] = bt_gpu_move_units(copy, tile * BT_GPU_TILE_BYTES + at,
                                          left < BT_GPU_GROUP_BYTES ? left : BT_GPU_GROUP_BYTES,
                                          unit, digests);
        }
    }
    if (digests)
        bt_gpu_sum_groups(shared, bytes, thread, groups);
}

BT_GPU_INLINE void bt_gpu_add(bt_gpu_shared *shared, uint32_t thread)
{
    uint32_t block = thread / BT_XXH3_LANES, lane = thread % BT_XXH3_LANES;
    if (block >= BT_GPU_TILE_BLOCKS)
        return;
    uint64_t sum = 0;
    for (uint32_t i = lane / 2; i < BT_GPU_WARP; i += BT_XXH3_LANES / 2) {
        const bt_gpu_group *partial = &shared->partial[block][i];
        sum += lane % 2 == 0 ? partial->low : partial->high;
    }
    shared->sums[block][lane] = sum;
}

/* One lane through n_blocks sums, each but the last followed by a scramble; is_end: there is
 * nothing behind them, and the last stripe, `data` and its neighbour's, comes on top. */
BT_GPU_INLINE void bt_gpu_chain(bt_gpu_shared *shared, uint32_t lane, uint32_t n_blocks,
                                bool is_end, uint64_t data, uint64_t neighbour)
{
    uint64_t acc = shared->acc[lane];
    for (uint32_t block = 0; block < n_blocks; block++) {
        acc += shared->sums[block][lane];
        if (!is_end || block + 1 < n_blocks)
            acc = bt_xxh3_scramble(acc, lane);
    }
    if (is_end)
        acc += bt_xxh3_product(data, bt_xxh3_secret(BT_XXH3_SECRET_LAST + 8 * lane)) + neighbour;
    shared->acc[lane] = acc;
}

BT_GPU_INLINE void bt_gpu_chain_tile(bt_gpu_shared *shared, uint32_t bytes, uint32_t thread)
{
    if (thread >= BT_XXH3_LANES || bytes <= BT_XXH3_SHORT_BYTES)
        return;
    const uint8_t *stripe = shared->tail + BT_XXH3_SHORT_BYTES - BT_XXH3_STRIPE_BYTES;
    shared->acc[thread] = bt_xxh3_first_acc(thread);
    bt_gpu_chain(shared, thread, (bytes - 1) / BT_GPU_BLOCK_BYTES + 1, true,
                 bt_xxh3_load(stripe + 8 * thread, 8), bt_xxh3_load(stripe + 8 * (thread ^ 1), 8));
}

BT_GPU_INLINE void bt_gpu_end_tile(const bt_gpu_copy *copy, bt_gpu_shared *shared, uint64_t tile,
                                   uint32_t thread)
{
    uint32_t bytes = bt_gpu_tile_bytes(copy, tile);
    if (thread != 0)
        return;
    copy->tiles[tile] = bytes <= BT_XXH3_SHORT_BYTES ? bt_xxh3_short(shared->tail, bytes)
                                                     : bt_xxh3_merge(shared->acc, bytes);
    shared->is_last =
        copy->digest != NULL && bt_gpu_count_up(copy->n_done) + 1 == bt_gpu_n_tiles(copy);
}

/* Other blocks wrote it: past this one's cache. */
BT_GPU_INLINE uint64_t bt_gpu_tile_digest(const bt_gpu_copy *copy, uint64_t tile)
{
    return *(const volatile uint64_t *)&copy->tiles[tile];
}

/* Sums of up to 16 blocks of tile digests, as bt_gpu_add leaves them. */
BT_GPU_INLINE void bt_gpu_sum_digests(const bt_gpu_copy *copy, bt_gpu_shared *shared,
                                      uint64_t first_block, uint32_t thread)
{
    uint32_t block = thread / BT_XXH3_LANES, lane = thread % BT_XXH3_LANES;
    uint64_t n_tiles = bt_gpu_n_tiles(copy);
    uint64_t last = (n_tiles - 1) / BT_XXH3_LANES; /* stripe */
    if (block >= BT_GPU_TILE_BLOCKS)
        return;
    uint64_t sum = 0;
    for (uint32_t i = 0; i < BT_XXH3_BLOCK_STRIPES; i++) {
        uint64_t stripe = (first_block + block) * BT_XXH3_BLOCK_STRIPES + i;
        if (stripe < last)
            sum += bt_xxh3_product(bt_gpu_tile_digest(copy, stripe * BT_XXH3_LANES + lane),
                                   bt_xxh3_secret(8 * i + 8 * lane)) +
                   bt_gpu_tile_digest(copy, stripe * BT_XXH3_LANES + (lane ^ 1));
    }
    shared->sums[block][lane] = sum;
}

/* first_block 0 begins. n_blocks of digests in all. */
BT_GPU_INLINE void bt_gpu_chain_digests(const bt_gpu_copy *copy, bt_gpu_shared *shared,
                                        uint64_t first_block, uint64_t n_blocks, uint32_t thread)
{
    if (thread >= BT_XXH3_LANES)
        return;
    if (first_block == 0)
        shared->acc[thread] = bt_xxh3_first_acc(thread);
    uint64_t left = n_blocks - first_block, stripe = bt_gpu_n_tiles(copy) - BT_XXH3_LANES;
    bool is_end = left <= BT_GPU_TILE_BLOCKS;
    bt_gpu_chain(shared, thread, is_end ? (uint32_t)left : (uint32_t)BT_GPU_TILE_BLOCKS, is_end,
                 bt_gpu_tile_digest(copy, stripe + thread),
                 bt_gpu_tile_digest(copy, stripe + (thread ^ 1)));
}

BT_GPU_INLINE void bt_gpu_end_page(const bt_gpu_copy *copy, bt_gpu_shared *shared, uint32_t thread)
{
    uint64_t n_bytes = 8 * bt_gpu_n_tiles(copy);
    if (thread != 0)
        return;
    if (n_bytes > BT_XXH3_SHORT_BYTES) {
        *copy->digest = bt_xxh3_merge(shared->acc, n_bytes);
        return;
    }
    for (uint32_t i = 0; i < n_bytes; i++)
        shared->tail[i] = (uint8_t)(bt_gpu_tile_digest(copy, i / 8) >> (i % 8 * 8));
    *copy->digest = bt_xxh3_short(shared->tail, (uint32_t)n_bytes);
}

/* All that one thread block does. */
BT_GPU_INLINE void bt_gpu_run_tile(const bt_gpu_copy *copy, bt_gpu_shared *shared, uint64_t tile,
                                   uint32_t unit, bool digests)
{
    BT_GPU_FOR_EACH_THREAD(bt_gpu_move(copy, shared, tile, thread, unit, digests));
    if (!digests)
        return;
    BT_GPU_FOR_EACH_THREAD(bt_gpu_add(shared, thread));
    BT_GPU_FOR_EACH_THREAD(bt_gpu_chain_tile(shared, bt_gpu_tile_bytes(copy, tile), thread));
    BT_GPU_FOR_EACH_THREAD(bt_gpu_end_tile(copy, shared, tile, thread));
    if (!shared->is_last)
        return;
    uint64_t n_bytes = 8 * bt_gpu_n_tiles(copy);
    uint64_t n_blocks = (n_bytes - 1) / BT_GPU_BLOCK_BYTES + 1;
    for (uint64_t first = 0; n_bytes > BT_XXH3_SHORT_BYTES && first < n_blocks;
         first += BT_GPU_TILE_BLOCKS) {
        BT_GPU_FOR_EACH_THREAD(bt_gpu_sum_digests(copy, shared, first, thread));
        BT_GPU_FOR_EACH_THREAD(bt_gpu_chain_digests(copy, shared, first, n_blocks, thread));
    }
    BT_GPU_FOR_EACH_THREAD(bt_gpu_end_page(copy, shared, thread));
}

#endif
