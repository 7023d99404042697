/* SPDX-License-Identifier: Apache-2.0 */
/* The body of the GPU's copies, played on the host (kernels/gpu_shim.h): every index, under the
 * sanitizers, in several orders of threads and of tiles, against the reference. */
#include "kernels/kv_gpu.h"

#include "kv_case.h"

#include "core/alloc.h"
#include "kernels/digest.h"
#include "kernels/digest_tiles.h"
#include "kernels/kv_index.h"
#include "kernels/kv_reference.h"

#include <sys/mman.h>

enum { ROUNDS = 250 };

static const uint32_t steps[] = {1, BT_GPU_THREADS - 1, 37, 101};

/* What a launch needs besides its arguments, and how it is to be played. */
typedef struct {
    bt_gpu_copy copy;
    uint32_t unit;
    uint64_t *table; /* [entries], owned */
    uint64_t *tiles; /* [n_tiles], owned */
    uint32_t n_done;
    uint64_t digest;
    bool digests;
} launch;

static void plan(launch *l, const baton_kv_view *view, const baton_kv_tokens *tokens,
                 uint32_t first_layer, uint32_t n_layers, uint8_t *page, bool to_page)
{
    *l = (launch){.digest = 1};
    assert_ok(bt_gpu_plan(view, tokens, n_layers, page, to_page, &l->copy));
    l->table = bt_calloc(bt_gpu_table_entries(&l->copy), sizeof(*l->table));
    l->tiles = bt_calloc(bt_gpu_n_tiles(&l->copy), sizeof(*l->tiles));
    assert_true(l->table != NULL && l->tiles != NULL);
    bt_gpu_fill_table(view, tokens, first_layer, &l->copy, l->table, &l->unit);
    l->copy.tiles = l->tiles;
    l->copy.n_done = &l->n_done;
    l->copy.digest = &l->digest;
    l->copy.table = l->table;
}

static void forget(launch *l)
{
    bt_free(l->table);
    bt_free(l->tiles);
}

static void run_tile(launch *l, uint64_t tile)
{
    bt_gpu_shared *shared = bt_aligned_alloc(16, sizeof(*shared));
    assert_non_null(shared);
    memset(shared, 0xa5, sizeof(*shared)); /* shared memory begins with anything */
    bt_gpu_run_tile(&l->copy, shared, tile, l->unit, l->digests);
    bt_free(shared);
}

static void run(launch *l)
{
    uint64_t n = bt_gpu_n_tiles(&l->copy), first = l->digest % n;
    for (uint64_t i = 0; i < n; i++)
        run_tile(l, bt_gpu_shim_step == 1 ? i : (first + n - i) % n);
}

/* All that a launch may choose, turned at random: where the table is, narrower units than possible,
 * division without multipliers, the order of threads. */
static void vary(launch *l, bt_rng *rng)
{
    if (bt_gpu_table_entries(&l->copy) <= BT_GPU_SMALL_TABLE && bt_rng_below(rng, 2) == 0) {
        memcpy(l->copy.small_table, l->table, 8 * bt_gpu_table_entries(&l->copy));
        l->copy.table = NULL;
    }
    l->copy.is_small = bt_rng_below(rng, 4) != 0;
    l->unit >>= bt_rng_below(rng, 4) == 0 && l->unit > 1;
    l->digests = bt_rng_below(rng, 3) > 0;
    if (l->digests && bt_rng_below(rng, 2) == 0) { /* of tiles alone */
        l->copy.digest = NULL;
        l->copy.n_done = NULL;
    }
    bt_gpu_shim_step = steps[bt_rng_below(rng, sizeof(steps) / sizeof(steps[0]))];
}

/* What the launch has made of the page's bytes is their digest, if it was to. */
static void check_digest(const launch *l, const uint8_t *page, uint64_t bytes)
{
    uint64_t found =
        l->copy.digest != NULL ? l->digest : bt_digest_of_tiles(l->tiles, bt_digest_n_tiles(bytes));
    assert_int_equal(l->digest == 1, l->copy.digest == NULL || !l->digests);
    if (l->digests)
        assert_int_equal(found, bt_digest(page, bytes));
}

static uint8_t *random_page(bt_rng *rng, uint64_t bytes)
{
    uint8_t *plain = bt_calloc(bytes, 1);
    assert_non_null(plain);
    bt_rng_fill(rng, plain, bytes);
    uint8_t *page = bt_guarded_copy(plain, bytes);
    bt_free(plain);
    return page;
}

static void check_gather(const kv_case *c, bt_rng *rng)
{
    uint8_t *page = random_page(rng, c->page_bytes);
    uint8_t *wanted = bt_guarded_copy(page, c->page_bytes);
    uint8_t *before = bt_guarded_copy(c->arena, c->arena_bytes);
    launch l;
    plan(&l, &c->view, &c->tokens, c->first_layer, c->n_layers, page, true);
    vary(&l, rng);
    run(&l);
    assert_ok(bt_kv_gather_reference(&c->view, &c->tokens, c->first_layer, c->n_layers, wanted,
                                     c->page_bytes));
    assert_memory_equal(page, wanted, c->page_bytes);
    assert_memory_equal(c->arena, before, c->arena_bytes);
    check_digest(&l, wanted, c->page_bytes);
    forget(&l);
    bt_guarded_free(before, c->arena_bytes);
    bt_guarded_free(wanted, c->page_bytes);
    bt_guarded_free(page, c->page_bytes);
}

static uint32_t check_scatter(const kv_case *c, bt_rng *rng)
{
    kv_case wanted, found;
    kv_case_clone(c, &wanted);
    kv_case_clone(c, &found);
    uint8_t *page = random_page(rng, c->page_bytes);
    uint8_t *before = bt_guarded_copy(page, c->page_bytes);
    launch l;
    plan(&l, &found.view, &c->tokens, c->first_layer, c->n_layers, page, false);
    vary(&l, rng);
    run(&l);
    assert_ok(bt_kv_scatter_reference(&wanted.view, &c->tokens, c->first_layer, c->n_layers, page,
                                      c->page_bytes));
    assert_memory_equal(found.arena, wanted.arena, c->arena_bytes);
    assert_memory_equal(page, before, c->page_bytes);
    check_digest(&l, page, c->page_bytes);
    forget(&l);
    bt_guarded_free(before, c->page_bytes);
    bt_guarded_free(page, c->page_bytes);
    kv_case_free(&wanted);
    kv_case_free(&found);
    return l.unit;
}

static void every_layout_moves_exactly_the_mapped_bytes(void **state)
{
    (void)state;
    bt_rng rng = {.state = 77};
    bool seen[BT_GPU_MAX_UNIT + 1] = {false};
    for (unsigned round = 0; round < ROUNDS; round++) {
        kv_case c;
        kv_case_create(&c, &rng);
        if (c.page_bytes > 0) {
            check_gather(&c, &rng);
            seen[check_scatter(&c, &rng)] = true;
        }
        kv_case_free(&c);
    }
    assert_true(seen[16] && seen[8] && seen[4] && seen[2] && seen[1]);
}

/* Of one plane of rows, in descending order. */
static baton_kv_view rows_view(uint8_t *arena, uint32_t n_rows, uint64_t row_bytes,
                               baton_kv_plane *plane)
{
    baton_kv_shape shape = {1, n_rows, 1, 1, row_bytes, BATON_MEMORY_HOST};
    baton_kv_view view;
    void *layers[] = {arena};
    assert_ok(baton_kv_view_mla(&shape, layers, plane, &view));
    return view;
}

static void check_digest_of(uint32_t n_rows, uint64_t row_bytes)
{
    uint64_t bytes = n_rows * row_bytes;
    uint8_t *arena = bt_aligned_alloc(64, bytes), *page = bt_aligned_alloc(64, bytes);
    uint32_t *blocks = bt_calloc(n_rows, sizeof(*blocks));
    bt_rng rng = {.state = bytes};
    assert_true(arena != NULL && page != NULL && blocks != NULL);
    bt_rng_fill(&rng, arena, bytes);
    for (uint32_t i = 0; i < n_rows; i++)
        blocks[i] = n_rows - 1 - i;
    baton_kv_plane plane;
    baton_kv_view view = rows_view(arena, n_rows, row_bytes, &plane);
    baton_kv_tokens tokens = {.blocks = blocks, .n_blocks = n_rows, .n_tokens = n_rows};
    launch l;
    plan(&l, &view, &tokens, 0, 1, page, true);
    l.digests = true;
    run(&l);
    for (uint32_t i = 0; i < n_rows; i++)
        assert_int_equal(memcmp(page + i * row_bytes, arena + blocks[i] * row_bytes, row_bytes), 0);
    assert_int_equal(l.digest, bt_digest(page, bytes));
    forget(&l);
    bt_free(blocks);
    bt_free(page);
    bt_free(arena);
}

static void pages_of_every_size_have_the_cpus_digest(void **state)
{
    (void)state;
    enum { TILE = BT_GPU_TILE_BYTES };
    /* Below: inputs that XXH3 hashes without stripes; around a stripe, a block, a tile. */
    static const uint64_t sizes[] = {
        1,    3,    4,    8,    9,     16,        17,       64,   128,      129,      192,
        240,  241,  256,  257,  320,   1008,      1024,     1025, 1040,     1088,     2048,
        2064, 8000, 9216, 9280, 16320, TILE - 16, TILE - 1, TILE, TILE + 1, TILE + 64};
    bt_gpu_shim_step = 37;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        check_digest_of(1, sizes[i]);
    /* Around 30 digests, which XXH3 hashes without stripes; a block; 16 blocks, one round of the
     * last thread block. */
    static const uint32_t tiles[] = {2,   29,  30,  31,  32,   33,   127,
                                     128, 129, 136, 137, 2047, 2048, 2049};
    for (size_t i = 0; i < sizeof(tiles) / sizeof(tiles[0]); i++)
        check_digest_of(tiles[i], TILE);
    bt_gpu_shim_step = 1;
}

/* Address space without memory: only what is touched gets some. */
static uint8_t *reserve(uint64_t bytes)
{
    void *base = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_ptr_not_equal(base, MAP_FAILED);
    return base;
}

/* Nothing moves, also where the bytes lie at an odd address. */
static void bytes_of_every_size_have_the_cpus_digest(void **state)
{
    (void)state;
    bt_rng rng = {.state = 80};
    for (uint32_t round = 0; round < 200; round++) {
        uint64_t n = 1 + bt_rng_below(&rng, round % 4 == 0 ? 40 * BT_GPU_TILE_BYTES : 600);
        uint64_t at = bt_rng_below(&rng, 17);
        uint8_t *bytes = random_page(&rng, at + n);
        uint8_t *before = bt_guarded_copy(bytes, at + n);
        launch l = {.digests = true};
        bt_gpu_plan_digest(bytes + at, n, &l.copy, &l.unit);
        assert_int_equal(((uintptr_t)(bytes + at) | n) % l.unit, 0);
        l.tiles = bt_calloc(bt_gpu_n_tiles(&l.copy), sizeof(*l.tiles));
        assert_non_null(l.tiles);
        l.copy.tiles = l.tiles;
        l.copy.n_done = &l.n_done;
        l.copy.digest = &l.digest;
        bt_gpu_shim_step = steps[round % (sizeof(steps) / sizeof(steps[0]))];
        run(&l);
        assert_int_equal(l.digest, bt_digest(bytes + at, n));
        assert_memory_equal(bytes, before, at + n);
        forget(&l);
        bt_guarded_free(before, at + n);
        bt_guarded_free(bytes, at + n);
    }
    bt_gpu_shim_step = 1;
}

static void paged_kv_may_be_larger_than_4_gib(void **state)
{
    (void)state;
    enum { BLOCKS = 3 << 14, TOKENS = 16, HEADS = 8, HEAD = 1024, N = 20 };
    const uint64_t bytes = UINT64_C(2) * BLOCKS * TOKENS * HEADS * HEAD; /* 12 GiB, K is 6 */
    uint8_t *arena = reserve(bytes);
    static uint8_t page[2 * N * HEADS * HEAD] __attribute__((aligned(16)));
    baton_kv_shape shape = {1, BLOCKS, TOKENS, HEADS, HEAD, BATON_MEMORY_HOST};
    baton_kv_plane plane;
    baton_kv_view view;
    void *layers[] = {arena};
    static const uint32_t blocks[] = {BLOCKS - 1, 5, BLOCKS / 2 + 1};
    baton_kv_tokens tokens = {.blocks = blocks, .n_blocks = 3, .n_tokens = N, .first_token = 9};
    for (unsigned heads_first = 0; heads_first < 2; heads_first++) {
        assert_ok(heads_first ? baton_kv_view_hnd(&shape, layers, NULL, &plane, &view)
                              : baton_kv_view_flash(&shape, layers, &plane, &view));
        bt_rng rng = {.state = heads_first};
        bt_rng_fill(&rng, page, sizeof(page));
        launch l;
        plan(&l, &view, &tokens, 0, 1, page, false);
        assert_int_equal(l.unit, 16);
        run(&l);
        forget(&l);
        static uint8_t back[sizeof(page)] __attribute__((aligned(16)));
        assert_ok(bt_kv_gather_reference(&view, &tokens, 0, 1, back, sizeof(back)));
        assert_memory_equal(back, page, sizeof(page));
        memset(back, 0, sizeof(back));
        plan(&l, &view, &tokens, 0, 1, back, true);
        run(&l);
        forget(&l);
        assert_memory_equal(back, page, sizeof(page));
    }
    munmap(arena, bytes);
}

/* A page of 6 GiB, of which a few tiles are moved. */
static void pages_may_be_larger_than_4_gib(void **state)
{
    (void)state;
    enum { ROW = 1 << 20, ROWS = 6 << 10 };
    const uint64_t bytes = (uint64_t)ROW * ROWS;
    uint8_t *arena = reserve(bytes), *page = reserve(bytes);
    baton_kv_plane plane;
    baton_kv_view view = rows_view(arena, ROWS, ROW, &plane);
    uint32_t *blocks = bt_calloc(ROWS, sizeof(*blocks));
    assert_non_null(blocks);
    for (uint32_t i = 0; i < ROWS; i++)
        blocks[i] = ROWS - 1 - i;
    baton_kv_tokens tokens = {.blocks = blocks, .n_blocks = ROWS, .n_tokens = ROWS};
    launch l;
    plan(&l, &view, &tokens, 0, 1, page, true);
    assert_false(l.copy.is_small);
    static const uint32_t rows[] = {0, 2047, 2048, 4095, 4096, ROWS - 1};
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        uint64_t tile_at = (uint64_t)rows[i] * ROW + BT_GPU_TILE_BYTES;
        uint8_t *from = arena + (uint64_t)blocks[rows[i]] * ROW + BT_GPU_TILE_BYTES;
        bt_rng rng = {.state = i};
        bt_rng_fill(&rng, from, BT_GPU_TILE_BYTES);
        run_tile(&l, tile_at / BT_GPU_TILE_BYTES);
        assert_memory_equal(page + tile_at, from, BT_GPU_TILE_BYTES);
    }
    forget(&l);
    bt_free(blocks);
    munmap(page, bytes);
    munmap(arena, bytes);
}

static void multiplying_divides(void **state)
{
    (void)state;
    bt_rng rng = {.state = 3};
    for (unsigned i = 0; i < 200000; i++) {
        uint32_t bits = 1 + (uint32_t)bt_rng_below(&rng, 31);
        uint32_t divisor = 1 + (uint32_t)bt_rng_below(&rng, (UINT64_C(1) << bits) - 1);
        uint64_t times = bt_rng_below(&rng, INT32_MAX / divisor + 1);
        const uint64_t n[] = {times * divisor, times * divisor + divisor - 1, INT32_MAX,
                              bt_rng_below(&rng, UINT64_C(1) << 31)};
        for (size_t k = 0; k < sizeof(n) / sizeof(n[0]); k++) {
            if (n[k] <= INT32_MAX)
                assert_int_equal(bt_gpu_divide(n[k], bt_gpu_divider_of(divisor)), n[k] / divisor);
        }
    }
}

static void the_unit_fits_every_address_and_step(void **state)
{
    (void)state;
    enum { ROW = 48 };
    static uint8_t arena[8 * ROW + 16] __attribute__((aligned(16)));
    static uint8_t page[4 * ROW + 16] __attribute__((aligned(16)));
    static const uint32_t shifts[] = {0, 8, 4, 2, 1}, units[] = {16, 8, 4, 2, 1};
    static const int64_t slots[] = {7, -1, 0, 3};
    baton_kv_tokens tokens = {.slots = slots, .n_tokens = 4};
    for (size_t i = 0; i < 5; i++) {
        baton_kv_plane plane;
        baton_kv_view view = rows_view(arena + shifts[i], 8, ROW, &plane);
        launch l;
        plan(&l, &view, &tokens, 0, 1, page, true);
        assert_int_equal(l.unit, units[i]);
        forget(&l);
        view = rows_view(arena, 8, ROW, &plane);
        plan(&l, &view, &tokens, 0, 1, page + shifts[i], true);
        assert_int_equal(l.unit, units[i]);
        forget(&l);
        view = rows_view(arena, 8, ROW - shifts[i], &plane);
        plan(&l, &view, &tokens, 0, 1, page, true);
        assert_int_equal(l.unit, units[i]);
        assert_int_equal(l.table[1 + 1], BT_GPU_SKIPPED);
        forget(&l);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(every_layout_moves_exactly_the_mapped_bytes),
        bt_test(pages_of_every_size_have_the_cpus_digest),
        bt_test(bytes_of_every_size_have_the_cpus_digest),
        bt_test(paged_kv_may_be_larger_than_4_gib),
        bt_test(pages_may_be_larger_than_4_gib),
        bt_test(multiplying_divides),
        bt_test(the_unit_fits_every_address_and_step),
    };
    return bt_run_tests(tests);
}
