/* SPDX-License-Identifier: Apache-2.0 */
/* Tiles are folded from registers, on their way where they are copied. What does not come in whole
 * stripes, or on a CPU without such a version, is hashed by libxxhash as soon as its tile is there
 * and still in the cache. */
#include "kernels/digest.h"

#include "kernels/digest_tiles.h"
#include "kernels/kv_rows.h"

#include <assert.h>
#include <string.h>
#include <xxhash.h>

enum {
    FEW_TILES = BT_XXH3_SHORT_BYTES / 8,
    RING = 8,
    SMALL_BYTES = 2 << 10, /* hashed as they are: a digester would take longer to set up */
};

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

static uint64_t digest_of_few(const uint64_t *tiles, uint64_t n)
{
    uint8_t bytes[BT_XXH3_SHORT_BYTES];
    for (size_t i = 0; i < 8 * n; i++)
        bytes[i] = (uint8_t)(tiles[i / 8] >> (8 * (i % 8)));
    return bt_xxh3_short(bytes, (uint32_t)(8 * n));
}

static uint64_t outer_digest(bt_digester *d)
{
    if (d->n_tiles <= FEW_TILES)
        return digest_of_few(d->tiles, d->n_tiles);
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
        .n_tiles = bt_digest_n_tiles(bytes),
        .fold = whole_stripes ? bt_fold_best() : NULL,
        .kind = streams ? BT_FOLD_STREAM : BT_FOLD_COPY,
    };
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

static bt_fold_kind kind_of(bt_digester *d, const bt_fold_rows *rows, bt_fold_kind kind)
{
    uint64_t step = rows->n_rows > 1 ? rows->to_step : 0;
    if (kind == BT_FOLD_STREAM && ((uintptr_t)rows->to | step) % BT_XXH3_STRIPE_BYTES != 0)
        kind = BT_FOLD_COPY;
    d->has_streamed |= kind == BT_FOLD_STREAM;
    return kind;
}

/* Rows of the tile under way, whole stripes, without the tile's last one. */
static void fold_rows(bt_digester *d, const bt_fold_rows *rows, bt_fold_kind kind)
{
    uint32_t stripe = (uint32_t)((d->at - tile_start(d)) / BT_XXH3_STRIPE_BYTES);
    d->fold->rows(d->acc, rows, stripe, kind_of(d, rows, kind));
    d->at += (uint64_t)rows->n_rows * rows->row_stripes * BT_XXH3_STRIPE_BYTES;
}

/* n bytes of the tile under way, whole stripes. */
static void fold_piece(bt_digester *d, uint8_t *to, const uint8_t *from, uint64_t n,
                       bt_fold_kind kind)
{
    bool has_last = d->at + n == tile_start(d) + tile_bytes(d);
    uint64_t before = n - (has_last ? BT_XXH3_STRIPE_BYTES : 0);
    bt_fold_rows rows = {
        .to = to,
        .from = from,
        .row_stripes = (uint32_t)(before / BT_XXH3_STRIPE_BYTES),
        .n_rows = 1,
    };
    assert(n % BT_XXH3_STRIPE_BYTES == 0);
    fold_rows(d, &rows, kind);
    if (!has_last)
        return;
    d->fold->last(d->acc, kind == BT_FOLD_READ ? NULL : to + before, from + before,
                  kind_of(d, &rows, kind));
    d->at += BT_XXH3_STRIPE_BYTES;
}

/* The page of memory behind the one that starts `at` bytes into a row. */
static void expect(const uint8_t *to, const uint8_t *from, uint64_t at, uint64_t row_bytes,
                   bt_fold_kind kind)
{
    uint64_t next = at + BT_ROWS_PAGE_BYTES;
    if (next < row_bytes)
        bt_rows_expect((kind == BT_FOLD_READ ? from : to) + next, from + next);
}

/* The page's next n bytes, copied from one of the two sides, which is the page, to the other; with
 * BT_FOLD_READ, `from` is the page and `to` is not looked at. */
static void add_bytes(bt_digester *d, uint8_t *to, const uint8_t *from, uint64_t n,
                      bt_fold_kind kind)
{
    assert(n <= d->bytes - d->at);
    for (uint64_t done = 0; done < n;) {
        uint64_t left = tile_start(d) + tile_bytes(d) - d->at;
        uint64_t piece = n - done < left ? n - done : left;
        piece = piece < BT_ROWS_PAGE_BYTES ? piece : BT_ROWS_PAGE_BYTES;
        uint8_t *piece_to = kind == BT_FOLD_READ ? NULL : to + done;
        expect(to, from, done, n, kind);
        if (is_folded(d)) {
            fold_piece(d, piece_to, from + done, piece, kind);
        } else {
            if (kind != BT_FOLD_READ)
                memcpy(piece_to, from + done, (size_t)piece);
            d->at += piece;
        }
        done += piece;
        if (piece == left)
            end_tile(d);
    }
}

/* Many small rows at once where no tile ends; the others one by one. */
static void add_rows(bt_digester *d, const bt_fold_rows *all, uint64_t row_bytes, bt_fold_kind kind)
{
    bt_fold_rows rows = *all;
    while (rows.n_rows > 0) {
        uint64_t left = tile_start(d) + tile_bytes(d) - d->at, n = 0;
        if (is_folded(d))
            n = (left - BT_XXH3_STRIPE_BYTES) / row_bytes;
        if (n > 1) {
            bt_fold_rows some = rows;
            some.n_rows = n < rows.n_rows ? (uint32_t)n : rows.n_rows;
            some.row_stripes = (uint32_t)(row_bytes / BT_XXH3_STRIPE_BYTES);
            fold_rows(d, &some, kind);
            n = some.n_rows;
        } else {
            add_bytes(d, rows.to, rows.from, row_bytes, kind);
            n = 1;
        }
        rows.n_rows -= (uint32_t)n;
        rows.to += n * rows.to_step;
        rows.from += n * rows.from_step;
    }
}

void bt_digester_copy(bt_digester *d, const uint8_t *from, uint64_t from_step, uint64_t row_bytes,
                      uint32_t n_rows)
{
    bt_fold_rows rows = {
        .to = d->page + d->at,
        .from = from,
        .to_step = row_bytes,
        .from_step = from_step,
        .n_rows = n_rows,
    };
    add_rows(d, &rows, row_bytes, d->kind);
}

void bt_digester_give(bt_digester *d, uint8_t *to, uint64_t to_step, uint64_t row_bytes,
                      uint32_t n_rows, bt_fold_kind kind)
{
    bt_fold_rows rows = {
        .to = to,
        .from = d->page + d->at,
        .to_step = to_step,
        .from_step = row_bytes,
        .n_rows = n_rows,
    };
    add_rows(d, &rows, row_bytes, kind);
}

void bt_digester_pass(bt_digester *d, uint64_t n)
{
    if (n > 0)
        add_bytes(d, NULL, d->page + d->at, n, BT_FOLD_READ);
}

uint64_t bt_digester_end(bt_digester *d)
{
    assert(d->at == d->bytes);
    if (d->has_streamed)
        d->fold->finish();
    return outer_digest(d);
}

uint64_t bt_digest(const void *bytes, size_t n)
{
    if (n > 0 && n <= SMALL_BYTES) {
        uint64_t tile = XXH3_64bits(bytes, n);
        return digest_of_few(&tile, 1);
    }
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
