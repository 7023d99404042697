/* SPDX-License-Identifier: Apache-2.0 */
/* The digest against its definition, written with libxxhash. */
#include "support/test.h"

#include "core/alloc.h"
#include "kernels/digest.h"
#include "kernels/digest_tiles.h"

#include <xxhash.h>

enum { TILE = BT_DIGEST_TILE_BYTES, MAX_TILES = 140, MAX_BYTES = MAX_TILES * TILE };

static uint8_t *source; /* [MAX_BYTES], random, 64-byte aligned */
static uint8_t *target;

static uint64_t defined(const uint8_t *bytes, size_t n)
{
    static uint8_t tiles[8 * MAX_TILES];
    size_t n_tiles = 0;
    for (size_t at = 0; at < n; at += TILE, n_tiles++) {
        uint64_t tile = XXH3_64bits(bytes + at, n - at < TILE ? n - at : TILE);
        for (size_t i = 0; i < 8; i++)
            tiles[8 * n_tiles + i] = (uint8_t)(tile >> (8 * i));
    }
    return XXH3_64bits(tiles, 8 * n_tiles);
}

static void the_parts_of_xxh3_are_libxxhashs(void **state)
{
    (void)state;
    for (uint32_t n = 0; n <= BT_XXH3_SHORT_BYTES; n++)
        assert_int_equal(bt_xxh3_short(source + n, n), XXH3_64bits(source + n, n));
    for (uint32_t i = 0; i < 192 - 8; i++)
        assert_int_equal(bt_xxh3_secret(i), bt_xxh3_load((const uint8_t *)bt_xxh3_words + i, 8));
}

static const size_t sizes[] = {0,         1,          8,          63,           64,
                               128,       192,        240,        241,          256,
                               300,       1023,       1024,       1025,         1088,
                               4096,      TILE - 64,  TILE - 1,   TILE,         TILE + 1,
                               TILE + 64, TILE + 192, TILE + 256, 3 * TILE - 7, 8 * TILE,
                               30 * TILE, 31 * TILE,  32 * TILE,  33 * TILE,    40 * TILE + 99,
                               64 * TILE, 128 * TILE, 129 * TILE, 130 * TILE,   137 * TILE - 64};
enum { N_SIZES = sizeof(sizes) / sizeof(sizes[0]) };

static void digests_are_what_the_protocol_says(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_SIZES; i++) {
        assert_int_equal(bt_digest(source, sizes[i]), defined(source, sizes[i]));
        assert_int_equal(bt_digest(source + 1, sizes[i]), defined(source + 1, sizes[i]));
    }
}

/* In any order, and in parts of any number of tiles. */
static void tiles_of_parts_make_the_pages_digest(void **state)
{
    (void)state;
    bt_rng rng = {.state = 12};
    for (size_t i = 0; i < N_SIZES; i++) {
        uint64_t tiles[MAX_TILES + 1] = {0}, n = bt_digest_n_tiles(sizes[i]);
        assert_true(n <= MAX_TILES);
        for (uint64_t end = n; end > 0;) { /* the last part first */
            uint64_t first = bt_rng_below(&rng, end);
            size_t to = end * TILE < sizes[i] ? end * TILE : sizes[i];
            bt_digest_tiles(source + first * TILE, to - first * TILE, tiles + first);
            end = first;
        }
        assert_int_equal(tiles[n], 0);
        assert_int_equal(bt_digest_of_tiles(tiles, n), defined(source, sizes[i]));
    }
}

/* docs/protocol.md gives these, for whoever implements it anew. */
static void known_values_stay(void **state)
{
    (void)state;
    assert_int_equal(bt_digest(NULL, 0), UINT64_C(0x2d06800538d394c2));
    for (size_t i = 0; i < 40000; i++)
        target[i] = (uint8_t)(i * 7 + i / 256);
    assert_int_equal(bt_digest(target, 1), UINT64_C(0x113425e2d3c1afc3));
    assert_int_equal(bt_digest(target, 40000), UINT64_C(0xa89d534164323ed0));
}

/* Every version, in pieces of whole stripes: copied past the cache, copied, passed. */
static void every_version_gives_the_same(void **state)
{
    (void)state;
    bt_rng rng = {.state = 11};
    size_t n_versions;
    const bt_fold_ops *versions = bt_fold_versions(&n_versions);
    for (size_t v = 0; v <= n_versions; v++) {
        const bt_fold_ops *fold = v < n_versions ? &versions[v] : NULL; /* NULL: libxxhash */
        if (fold != NULL && !fold->is_supported())
            continue;
        for (size_t i = 0; i < N_SIZES; i++) {
            bt_digester d;
            size_t n = sizes[i];
            memset(target, 0, n);
            bt_digester_begin(&d, target, n, true, i % 2 == 0);
            d.fold = fold;
            while (d.at < n) {
                uint64_t piece = 64 * (1 + bt_rng_below(&rng, 300));
                piece = piece < n - d.at ? piece : n - d.at;
                if (bt_rng_below(&rng, 3) == 0) {
                    memcpy(target + d.at, source + d.at, piece);
                    bt_digester_pass(&d, piece);
                } else {
                    bt_digester_copy(&d, source + d.at, 0, piece, 1);
                }
            }
            assert_int_equal(bt_digester_end(&d), defined(source, n));
            assert_int_equal(memcmp(target, source, n), 0);
        }
    }
}

static void rows_of_any_size_and_step_can_be_copied(void **state)
{
    (void)state;
    enum { ROWS = 500, STEP = 400 };
    static const size_t row_bytes[] = {1, 7, 64, 100, 256, 384};
    for (size_t i = 0; i < sizeof(row_bytes) / sizeof(row_bytes[0]); i++) {
        bt_digester d;
        size_t row = row_bytes[i];
        bt_digester_begin(&d, target, ROWS * row, row % 64 == 0, false);
        bt_digester_copy(&d, source, STEP, row, ROWS);
        uint64_t digest = bt_digester_end(&d);
        for (size_t r = 0; r < ROWS; r++)
            assert_memory_equal(target + r * row, source + r * STEP, row);
        assert_int_equal(digest, defined(target, ROWS * row));
    }
}

static void a_copy_with_digest_is_a_copy_and_the_digest(void **state)
{
    (void)state;
    for (size_t i = 0; i < N_SIZES; i++) {
        for (unsigned shift = 0; shift < 4;
             shift++) { /* to aligned or not, past the cache or not */
            uint8_t *to = target + 3 * (shift % 2);
            size_t n = sizes[i];
            memset(to, 0, n + 1);
            assert_int_equal(bt_digest_copy(to, source, n, shift / 2 == 1), defined(source, n));
            assert_int_equal(memcmp(to, source, n), 0);
            assert_int_equal(to[n], 0);
        }
    }
}

static void one_changed_bit_shows(void **state)
{
    (void)state;
    size_t n = 35 * TILE + 640;
    uint64_t before = bt_digest(source, n);
    for (size_t i = 0; i < n; i += 1021) {
        source[i] ^= 1;
        assert_int_not_equal(bt_digest(source, n), before);
        source[i] ^= 1;
    }
}

static void nothing_is_read_or_written_past_the_end(void **state)
{
    (void)state;
    for (size_t n = 0; n <= 600; n++) {
        uint8_t *guarded = bt_guarded_copy(source, n);
        uint8_t *to = bt_guarded_copy(source + 600, n);
        uint64_t wanted = defined(source, n);
        assert_int_equal(bt_digest(guarded, n), wanted);
        assert_int_equal(bt_digest_copy(to, guarded, n, false), wanted);
        assert_memory_equal(to, source, n);
        bt_guarded_free(to, n);
        bt_guarded_free(guarded, n);
    }
}

static int make_buffers(void **state)
{
    (void)state;
    bt_rng rng = {.state = 5};
    source = bt_aligned_alloc(64, MAX_BYTES + 64);
    target = bt_aligned_alloc(64, MAX_BYTES + 64);
    if (source == NULL || target == NULL)
        return -1;
    bt_rng_fill(&rng, source, MAX_BYTES + 64);
    return 0;
}

static int free_buffers(void **state)
{
    (void)state;
    bt_free(source);
    bt_free(target);
    return 0;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(the_parts_of_xxh3_are_libxxhashs),
        bt_test(digests_are_what_the_protocol_says),
        bt_test(tiles_of_parts_make_the_pages_digest),
        bt_test(known_values_stay),
        bt_test(every_version_gives_the_same),
        bt_test(rows_of_any_size_and_step_can_be_copied),
        bt_test(a_copy_with_digest_is_a_copy_and_the_digest),
        bt_test(one_changed_bit_shows),
        bt_test(nothing_is_read_or_written_past_the_end),
    };
    return cmocka_run_group_tests(tests, make_buffers, free_buffers);
}
