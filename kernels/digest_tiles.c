/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/digest_tiles.h"

#include "kernels/digest.h"

#include <string.h>
#define XXH_STATIC_LINKING_ONLY /* the state on the stack */
#include <xxhash.h>

uint64_t bt_digest_n_tiles(uint64_t n)
{
    return n / BT_DIGEST_TILE_BYTES + (n % BT_DIGEST_TILE_BYTES != 0);
}

/* A digester of few tiles keeps the digests of all. */
void bt_digest_tiles(const void *bytes, size_t n, uint64_t *tiles)
{
    enum { MOST_BYTES = BT_XXH3_SHORT_BYTES / 8 * BT_DIGEST_TILE_BYTES };
    for (size_t at = 0; at < n; at += MOST_BYTES) {
        size_t some = n - at < MOST_BYTES ? n - at : MOST_BYTES;
        bt_digester d;
        /* They are only read. */
        bt_digester_begin(&d, (uint8_t *)(uintptr_t)bytes + at, some, true, false);
        bt_digester_pass(&d, some);
        memcpy(tiles + at / BT_DIGEST_TILE_BYTES, d.tiles, sizeof(*tiles) * d.n_tiles);
    }
}

uint64_t bt_digest_of_tiles(const uint64_t *tiles, size_t n_tiles)
{
    enum { SOME = 128 };
    XXH3_state_t state;
    XXH3_64bits_reset(&state);
    for (size_t at = 0; at < n_tiles; at += SOME) {
        size_t n = n_tiles - at < SOME ? n_tiles - at : SOME;
        uint8_t little[8 * SOME];
        for (size_t i = 0; i < 8 * n; i++)
            little[i] = (uint8_t)(tiles[at + i / 8] >> (8 * (i % 8)));
        XXH3_64bits_update(&state, little, 8 * n);
    }
    return XXH3_64bits_digest(&state);
}
