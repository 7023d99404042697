/* SPDX-License-Identifier: Apache-2.0 */
/* Digest of a chunk page: 64 bits, the same on every machine, defined so that many threads can
 * share the work and a copy can do it on its way (docs/protocol.md, Digests).
 *
 *   page | tile 0: 16 KiB | tile 1: 16 KiB | ... | last tile: the rest |
 *            XXH3-64          XXH3-64                XXH3-64            8 bytes each, little-endian
 *          '--------------------- XXH3-64 of all these ----------------'  = the digest
 *
 * XXH3-64 is xxHash's, seed 0. An empty page has no tile: its digest is that of no bytes. It finds
 * bytes that were lost or damaged on the way; it is no defence against somebody who forges them.
 * Thread rule: any thread. */
#ifndef BT_KERNELS_DIGEST_H
#define BT_KERNELS_DIGEST_H
#include <stdalign.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/digest_fold.h"

enum { BT_DIGEST_TILE_BYTES = 16 << 10 };

/* bytes NULL is allowed when n is 0. */
uint64_t bt_digest(const void *bytes, size_t n);
/* Copies n bytes and returns their digest, in one pass. streams: with stores that bypass the cache,
 * globally visible on return. The two sides must not overlap. */
uint64_t bt_digest_copy(void *to, const void *from, size_t n, bool streams);

/* The same in pieces: they come in the page's order and fill it to the last byte. */
typedef struct {
    alignas(64) uint64_t acc[BT_XXH3_LANES];   /* of the tile under way */
    alignas(64) uint64_t outer[BT_XXH3_LANES]; /* of the digests of finished tiles */
    uint64_t tiles[BT_XXH3_SHORT_BYTES / 8];   /* few: all of them; many: the last 8, by i % 8 */
    uint64_t n_tiles, tile;                    /* in all; the one under way */
    uint8_t *page;
    uint64_t bytes, at;
    const bt_fold_ops *fold; /* NULL: a tile is hashed when it is there, not on its way */
    bt_fold_kind kind;       /* how bytes are stored in the page */
    bool has_streamed;       /* stores are to be fenced */
} bt_digester;

/* page is only read when nothing is copied. whole_stripes: every piece but the last is a multiple
 * of 64 bytes. */
void bt_digester_begin(bt_digester *digester, uint8_t *page, uint64_t bytes, bool whole_stripes,
                       bool streams);
/* The page's next n_rows * row_bytes bytes are these rows: copied. */
void bt_digester_copy(bt_digester *digester, const uint8_t *from, uint64_t from_step,
                      uint64_t row_bytes, uint32_t n_rows);
/* The way back: these rows are the page's next bytes. kind: BT_FOLD_COPY or BT_FOLD_STREAM. */
void bt_digester_give(bt_digester *digester, uint8_t *to, uint64_t to_step, uint64_t row_bytes,
                      uint32_t n_rows, bt_fold_kind kind);
/* The page's next n bytes are there already. */
void bt_digester_pass(bt_digester *digester, uint64_t n);
uint64_t bt_digester_end(bt_digester *digester);

#endif
