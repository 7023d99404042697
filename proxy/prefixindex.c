/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/prefixindex.h"
#include "core/alloc.h"
#include "core/fail.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <xxhash.h>

enum { WAYS = 8, BUCKET_BYTES = 64, LIFE_SHIFT = 1, ENGINE_SHIFT = 9, TAG_SHIFT = 25 };

/* Entries are single words: whoever reads one has a whole one. Relaxed: nothing hangs on them. */
typedef struct {
    _Atomic uint64_t entries[WAYS];
} bucket;
_Static_assert(sizeof(bucket) == BUCKET_BYTES, "a bucket is a cache line");

struct bt_prefix_index {
    bucket *buckets; /* [mask + 1] */
    uint64_t mask;
};

void bt_prefix_blocks_of(const char *text, size_t n, uint64_t salt, bt_prefix_blocks *blocks)
{
    size_t n_blocks = n / BT_PREFIX_BLOCK_BYTES;
    uint64_t hash = salt;
    blocks->n = (uint32_t)(n_blocks < BT_PREFIX_MAX_BLOCKS ? n_blocks : BT_PREFIX_MAX_BLOCKS);
    for (uint32_t i = 0; i < blocks->n; i++) {
        hash = XXH3_64bits_withSeed(text + (size_t)i * BT_PREFIX_BLOCK_BYTES, BT_PREFIX_BLOCK_BYTES,
                                    hash);
        blocks->hashes[i] = hash;
    }
}

baton_status bt_prefix_index_create(size_t max_bytes, bt_prefix_index **index_p)
{
    bt_prefix_index *index = bt_calloc(1, sizeof(*index));
    uint64_t n_buckets = 1;
    while (n_buckets * 2 * BUCKET_BYTES <= max_bytes)
        n_buckets *= 2;
    if (index != NULL)
        index->buckets = bt_aligned_alloc(BUCKET_BYTES, (size_t)n_buckets * BUCKET_BYTES);
    if (index == NULL || index->buckets == NULL) {
        bt_prefix_index_destroy(index);
        return bt_fail(BATON_ERR_NO_MEMORY, "prefix index: %zu bytes", max_bytes);
    }
    memset(index->buckets, 0, (size_t)n_buckets * BUCKET_BYTES);
    index->mask = n_buckets - 1;
    *index_p = index;
    return BATON_OK;
}

size_t bt_prefix_index_bytes(const bt_prefix_index *index)
{
    return (size_t)(index->mask + 1) * sizeof(*index->buckets);
}

static bucket *bucket_of(bt_prefix_index *index, uint64_t hash)
{
    return &index->buckets[hash & index->mask];
}

static uint64_t entry_of(uint64_t hash, uint32_t engine, uint8_t life)
{
    return hash >> TAG_SHIFT << TAG_SHIFT | (uint64_t)(engine + 1) << ENGINE_SHIFT |
           (uint64_t)life << LIFE_SHIFT;
}

static bool is_of(uint64_t entry, uint64_t hash)
{
    return (entry >> ENGINE_SHIFT & UINT16_MAX) != 0 && entry >> TAG_SHIFT == hash >> TAG_SHIFT;
}

/* Where the pair goes: its own place, or a free one, or that of an entry not found since it came
 * there. Those that were found since are passed over once. */
static _Atomic uint64_t *place_for(bucket *at, uint64_t entry)
{
    enum { PAIR_SHIFT = ENGINE_SHIFT }; /* block and engine, in whatever life */
    _Atomic uint64_t *empty = NULL, *unused = NULL;
    for (int i = 0; i < WAYS; i++) {
        uint64_t old = atomic_load_explicit(&at->entries[i], memory_order_relaxed);
        if (old >> PAIR_SHIFT == entry >> PAIR_SHIFT)
            return &at->entries[i];
        if (empty == NULL && old == 0)
            empty = &at->entries[i];
        if (unused == NULL && (old & 1) == 0)
            unused = &at->entries[i];
    }
    if (empty != NULL || unused != NULL)
        return empty != NULL ? empty : unused;
    for (int i = 0; i < WAYS; i++)
        atomic_fetch_and_explicit(&at->entries[i], ~UINT64_C(1), memory_order_relaxed);
    return &at->entries[(entry >> TAG_SHIFT) % WAYS];
}

void bt_prefix_index_note(bt_prefix_index *index, const bt_prefix_blocks *blocks, uint32_t engine,
                          uint8_t life)
{
    for (uint32_t i = 0; i < blocks->n; i++) {
        uint64_t entry = entry_of(blocks->hashes[i], engine, life);
        _Atomic uint64_t *place = place_for(bucket_of(index, blocks->hashes[i]), entry);
        uint64_t old = atomic_load_explicit(place, memory_order_relaxed);
        if (old >> LIFE_SHIFT != entry >> LIFE_SHIFT) /* else it stays as it is, used or not */
            atomic_store_explicit(place, entry, memory_order_relaxed);
    }
}

/* Keeps the deepest. Blocks come in order, so an engine that is there gets deeper. */
static uint32_t keep(bt_prefix_match *matches, uint32_t n, bt_prefix_match match)
{
    uint32_t shallowest = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (matches[i].engine == match.engine) {
            matches[i] = match;
            return n;
        }
        if (matches[i].n_blocks < matches[shallowest].n_blocks)
            shallowest = i;
    }
    if (n == BT_PREFIX_MATCHES) {
        matches[shallowest] = match;
        return n;
    }
    matches[n] = match;
    return n + 1;
}

uint32_t bt_prefix_index_find(bt_prefix_index *index, const bt_prefix_blocks *blocks,
                              bt_prefix_match matches[BT_PREFIX_MATCHES])
{
    uint32_t n = 0;
    bool is_known = true;
    for (uint32_t i = 0; i < blocks->n && is_known; i++) {
        bucket *at = bucket_of(index, blocks->hashes[i]);
        is_known = false;
        for (int way = 0; way < WAYS; way++) {
            uint64_t entry = atomic_load_explicit(&at->entries[way], memory_order_relaxed);
            if (!is_of(entry, blocks->hashes[i]))
                continue;
            is_known = true;
            if ((entry & 1) == 0)
                atomic_fetch_or_explicit(&at->entries[way], 1, memory_order_relaxed);
            bt_prefix_match match = {.engine = (uint32_t)(entry >> ENGINE_SHIFT & UINT16_MAX) - 1,
                                     .life = (uint8_t)(entry >> LIFE_SHIFT),
                                     .n_blocks = i + 1};
            n = keep(matches, n, match);
        }
    }
    return n;
}

void bt_prefix_index_destroy(bt_prefix_index *index)
{
    if (index == NULL)
        return;
    bt_free(index->buckets);
    bt_free(index);
}
