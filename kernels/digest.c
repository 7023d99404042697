/* SPDX-License-Identifier: Apache-2.0 */
/* Tiles are folded from registers, on their way where they are copied. What does not come in whole
 * stripes, or on a CPU without such a version, is hashed by libxxhash as soon as its tile is there
 * and still in the cache. */
#include "kernels/digest.h"

#include <assert.h>
#include <string.h>
#include <xxhash.h>

enum { FEW_TILES = BT_XXH3_SHORT_BYTES / 8, RING = 8 };

static void set_first_acc(uint64_t acc[BT_XXH3_LANES])
{
    memcpy(acc, bt_xxh3_words + BT_XXH3_FIRST_ACC, sizeof(uint64_t) * BT_XXH3_LANES);
}

static void add_word(uint64_t acc[BT_XXH3_LANES], uint32_t lane, uint64_t word, uint32_t secret)
{
    acc[lane] += bt_xxh3_product(word, bt_xxh3_secret(secret + 8 * lane));
    acc[lane ^ 1] += word;
}

/* The digest of tile `tile`. Of many, every eighth one ends a stripe; the last stripe, which may
 * overlap the one before, is left to outer_digest. */
static void outer_add(bt_digester *d, uint64_t digest)
{
    if (d->n_tiles <= FEW_TILES) {
        d->tiles[d->tile] = digest;
        return;
    }
    uint64_t stripe = d->tile / RING;
    d->tiles[d->tile % RING] = digest;
    if (d->tile % RING != RING - 1 || d->tile + 1 == d->n_tiles)
        return;
    uint32_t in_block = (uint32_t)(stripe % BT_XXH3_BLOCK_STRIPES);
    for (uint32_t i = 0; i < RING; i++)
        add_word(d->outer, i, d->tiles[i], 8 * in_block);
    if (in_block == BT_XXH3_BLOCK_STRIPES - 1) {
        for (uint32_t i = 0; i < RING; i++)
            d->outer[i] = bt_xxh3_scramble(d->outer[i], i);
    }
}

static uint64_t outer_digest(bt_digester *d)
{
    if (d->n_tiles <= FEW_TILES) {
        uint8_t bytes[BT_XXH3_SHORT_BYTES];
        for (size_t i = 0; i < 8 * d->n_tiles; i++)
            bytes[i] = (uint8_t)(d->tiles[i / 8] >> (8 * (i % 8)));
        return bt_xxh3_short(bytes, (uint32_t)(8 * d->n_tiles));
    }
    for (uint32_t i = 0; i < RING; i++)
        add_word(d->outer, i, d->tiles[(d->n_tiles + i) % RING], BT_XXH3_SECRET_LAST);
    return bt_xxh3_merge(d->outer, 8 * d->n_tiles);
}

void bt_digester_begin(bt_digester *d, uint8_t *page, uint64_t bytes, bool whole_stripes,
                       bool streams)
{
    *d = (bt_digester){
        .page = page,
        .bytes = bytes,
        .n_tiles = bytes / BT_DIGEST_TILE_BYTES + (bytes % BT_DIGEST_TILE_BYTES != 0),
        .fold = whole_stripes ? bt_fold_best() : NULL,
        .kind = BT_FOLD_COPY,
    };
    if (streams && (uintptr_t)page % BT_XXH3_STRIPE_BYTES == 0)
        d->kind = BT_FOLD_STREAM;
    set_first_acc(d->acc);
    set_first_acc(d->outer);
}

static uint64_t tile_start(const bt_digester *d)
{
    return d->tile * BT_DIGEST_TILE_BYTES;
}

static uint64_t tile_bytes(const bt_digester *d)
{
    uint64_t left = d->bytes - tile_start(d);
    return left < BT_DIGEST_TILE_BYTES ? left : BT_DIGEST_TILE_BYTES;
}

static bool is_folded(const bt_digester *d)
{
    uint64_t bytes = tile_bytes(d);
    return d->fold != NULL && bytes > BT_XXH3_SHORT_BYTES && bytes % BT_XXH3_STRIPE_BYTES == 0;
}

static void end_tile(bt_digester *d)
{
    uint64_t digest;
    if (is_folded(d)) {
        digest = bt_xxh3_merge(d->acc, tile_bytes(d));
        set_first_acc(d->acc);
    } else {
        digest = XXH3_64bits(d->page + tile_start(d), (size_t)tile_bytes(d));
    }
    outer_add(d, digest);
    d->tile++;
}

/* n bytes of the tile under way, whole stripes. */
static void fold_piece(bt_digester *d, const uint8_t *from, uint64_t n, bt_fold_kind kind)
{
    uint8_t *to = d->page + d->at;
    uint32_t stripe = (uint32_t)((d->at - tile_start(d)) / BT_XXH3_STRIPE_BYTES);
    uint32_t last = (uint32_t)(tile_bytes(d) / BT_XXH3_STRIPE_BYTES - 1);
    uint32_t n_stripes = (uint32_t)(n / BT_XXH3_STRIPE_BYTES);
    bool has_last = stripe + n_stripes > last;
    assert(n % BT_XXH3_STRIPE_BYTES == 0);
    d->fold->stripes(d->acc, to, from, n_stripes - has_last, stripe, kind);
    if (has_last)
        d->fold->last(d->acc, to + n - BT_XXH3_STRIPE_BYTES, from + n - BT_XXH3_STRIPE_BYTES, kind);
}

/* The next n bytes: copied, or with BT_FOLD_READ there already. */
static void add_bytes(bt_digester *d, const uint8_t *from, uint64_t n, bt_fold_kind kind)
{
    assert(n <= d->bytes - d->at);
    while (n > 0) {
        uint64_t left = tile_start(d) + tile_bytes(d) - d->at;
        uint64_t piece = n < left ? n : left;
        if (is_folded(d))
            fold_piece(d, from, piece, kind);
        else if (kind != BT_FOLD_READ)
            memcpy(d->page + d->at, from, (size_t)piece);
        d->at += piece;
        from += piece;
        n -= piece;
        if (piece == left)
            end_tile(d);
    }
}

void bt_digester_copy(bt_digester *d, const uint8_t *from, uint64_t from_step, uint64_t row_bytes,
                      uint64_t n_rows)
{
    for (uint64_t i = 0; i < n_rows; i++)
        add_bytes(d, from + i * from_step, row_bytes, d->kind);
}

void bt_digester_pass(bt_digester *d, uint64_t n)
{
    if (n > 0)
        add_bytes(d, d->page + d->at, n, BT_FOLD_READ);
}

uint64_t bt_digester_end(bt_digester *d)
{
    assert(d->at == d->bytes);
    if (d->kind == BT_FOLD_STREAM && d->fold != NULL)
        d->fold->finish();
    return outer_digest(d);
}

uint64_t bt_digest(const void *bytes, size_t n)
{
    bt_digester d;
    /* The page is only read: nothing is copied. */
    bt_digester_begin(&d, (uint8_t *)bytes, n, true, false);
    bt_digester_pass(&d, n);
    return bt_digester_end(&d);
}

uint64_t bt_digest_copy(void *to, const void *from, size_t n, bool streams)
{
    bt_digester d;
    bt_digester_begin(&d, to, n, true, streams);
    bt_digester_copy(&d, from, 0, n, n > 0);
    return bt_digester_end(&d);
}
