/* SPDX-License-Identifier: Apache-2.0 */
/* The digest of a page (digest.h) whose parts come in any order: the digests of its tiles, and what
 * is made of them in the end. A part is whole tiles, or the page's rest.
 * Thread rule: any thread. */
#ifndef BT_KERNELS_DIGEST_TILES_H
#define BT_KERNELS_DIGEST_TILES_H
#include <stddef.h>
#include <stdint.h>

/* Tiles of n bytes; the last may be shorter. */
uint64_t bt_digest_n_tiles(uint64_t n);
/* tiles[bt_digest_n_tiles(n)]: the digests of the tiles of bytes[n]. */
void bt_digest_tiles(const void *bytes, size_t n, uint64_t *tiles);
/* Of the page whose tiles have these digests. */
uint64_t bt_digest_of_tiles(const uint64_t *tiles, size_t n_tiles);

#endif
