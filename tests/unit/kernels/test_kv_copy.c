/* SPDX-License-Identifier: Apache-2.0 */
/* Every version of gather and scatter against the layout's own index formula, byte by byte, on
 * memory that ends at an unreadable page. */
#include "kv_case.h"

#include "core/alloc.h"
#include "kernels/kv_copy.h"
#include "kernels/kv_index.h"
#include "kernels/kv_reference.h"

enum { ROUNDS = 300, EXTRA_BYTES = 7 };

/* Calls visit(page offset, arena offset) for every head that must move. */
typedef void (*visit_fn)(void *ctx, uint64_t page_at, uint64_t arena_at);
static void each_head(const kv_case *c, visit_fn visit, void *ctx)
{
    uint32_t n_planes = c->view.n_planes;
    uint32_t heads = c->shape.n_kv_heads;
    for (uint32_t l = 0; l < c->n_layers; l++) {
        for (uint32_t p = 0; p < n_planes; p++) {
            for (uint32_t t = 0; t < c->tokens.n_tokens; t++) {
                for (uint32_t h = 0; h < heads && c->slots[t] >= 0; h++) {
                    uint64_t row = ((uint64_t)l * n_planes + p) * c->tokens.n_tokens + t;
                    visit(ctx, (row * heads + h) * c->shape.head_bytes,
                          kv_case_offset(c, c->first_layer + l, p, (uint64_t)c->slots[t], h));
                }
            }
        }
    }
}

typedef struct {
    uint8_t *page;
    uint8_t *arena;
    uint64_t head_bytes;
} two_sides;

static void expect_in_page(void *ctx, uint64_t page_at, uint64_t arena_at)
{
    two_sides *sides = ctx;
    memcpy(sides->page + page_at, sides->arena + arena_at, sides->head_bytes);
}

static void expect_in_arena(void *ctx, uint64_t page_at, uint64_t arena_at)
{
    two_sides *sides = ctx;
    memcpy(sides->arena + arena_at, sides->page + page_at, sides->head_bytes);
}

/* Random bytes at the end of readable memory. */
static uint8_t *random_page(bt_rng *rng, uint64_t bytes)
{
    uint8_t *plain = bt_calloc(bytes, 1);
    assert_non_null(plain);
    bt_rng_fill(rng, plain, bytes);
    uint8_t *page = bt_guarded_copy(plain, bytes);
    bt_free(plain);
    return page;
}

/* ops NULL: the reference. */
static void check_gather(const kv_case *c, const bt_rows_ops *ops, bt_rng *rng, uint64_t extra)
{
    uint64_t bytes = c->page_bytes + extra;
    uint8_t *page = random_page(rng, bytes);
    uint8_t *wanted = bt_guarded_copy(page, bytes);
    uint8_t *before = bt_guarded_copy(c->arena, c->arena_bytes);
    two_sides sides = {wanted, c->arena, c->shape.head_bytes};
    each_head(c, expect_in_page, &sides);
    if (ops == NULL)
        assert_ok(
            bt_kv_gather_reference(&c->view, &c->tokens, c->first_layer, c->n_layers, page, bytes));
    else
        assert_ok(
            bt_kv_gather_with(ops, &c->view, &c->tokens, c->first_layer, c->n_layers, page, bytes));
    assert_memory_equal(page, wanted, bytes);
    assert_memory_equal(c->arena, before, c->arena_bytes);
    bt_guarded_free(before, c->arena_bytes);
    bt_guarded_free(wanted, bytes);
    bt_guarded_free(page, bytes);
}

static void check_scatter(const kv_case *c, const bt_rows_ops *ops, bt_rng *rng)
{
    kv_case changed;
    kv_case_clone(c, &changed);
    uint8_t *page = random_page(rng, c->page_bytes);
    uint8_t *wanted = bt_guarded_copy(c->arena, c->arena_bytes);
    two_sides sides = {page, wanted, c->shape.head_bytes};
    each_head(c, expect_in_arena, &sides);
    if (ops == NULL)
        assert_ok(bt_kv_scatter_reference(&changed.view, &changed.tokens, c->first_layer,
                                          c->n_layers, page, c->page_bytes));
    else
        assert_ok(bt_kv_scatter_with(ops, &changed.view, &changed.tokens, c->first_layer,
                                     c->n_layers, page, c->page_bytes));
    assert_memory_equal(changed.arena, wanted, c->arena_bytes);
    bt_guarded_free(wanted, c->arena_bytes);
    bt_guarded_free(page, c->page_bytes);
    kv_case_free(&changed);
}

static void every_version_moves_exactly_the_mapped_bytes(void **state)
{
    (void)state;
    bt_rng rng = {.state = 20240607};
    size_t n_versions;
    const bt_rows_ops *versions = bt_rows_versions(&n_versions);
    for (unsigned round = 0; round < ROUNDS; round++) {
        kv_case c;
        kv_case_create(&c, &rng);
        uint64_t extra = bt_rng_below(&rng, EXTRA_BYTES);
        check_gather(&c, NULL, &rng, extra);
        check_scatter(&c, NULL, &rng);
        for (size_t i = 0; i < n_versions; i++) {
            if (!versions[i].is_supported())
                continue;
            check_gather(&c, &versions[i], &rng, extra);
            check_scatter(&c, &versions[i], &rng);
        }
        kv_case_free(&c);
    }
}

/* More single-token runs than one batch holds: 300 descending slots. */
static void long_descending_lists_take_several_batches(void **state)
{
    (void)state;
    enum { N = 600, HEAD = 3 };
    static uint8_t cache[2][N][HEAD], page[2][N][HEAD], back[2][N][HEAD];
    static int64_t slots[N];
    bt_rng rng = {.state = 7};
    bt_rng_fill(&rng, cache, sizeof(cache));
    for (int t = 0; t < N; t++)
        slots[t] = N - 1 - t;
    baton_kv_shape shape = {1, N, 1, 1, HEAD, BATON_MEMORY_HOST};
    baton_kv_plane plane;
    baton_kv_view view;
    void *layers[] = {cache};
    assert_ok(baton_kv_view_flash(&shape, layers, &plane, &view));
    baton_kv_tokens tokens = {.slots = slots, .n_tokens = N};
    assert_ok(baton_kv_gather(&view, &tokens, 0, 1, page, sizeof(page)));
    for (int t = 0; t < N; t++)
        assert_memory_equal(page[1][t], cache[1][N - 1 - t], HEAD);

    layers[0] = back;
    assert_ok(baton_kv_view_flash(&shape, layers, &plane, &view));
    assert_ok(baton_kv_scatter(&view, &tokens, 0, 1, page, sizeof(page)));
    assert_memory_equal(back, cache, sizeof(cache));
}

static void the_later_of_two_tokens_in_one_slot_stays(void **state)
{
    (void)state;
    uint8_t cache[2][4] = {{0}};
    const uint8_t page[2][3] = {{1, 2, 3}, {4, 5, 6}};
    const int64_t slots[] = {2, 0, 2};
    baton_kv_shape shape = {1, 1, 4, 1, 1, BATON_MEMORY_HOST};
    baton_kv_plane plane;
    baton_kv_view view;
    void *layers[] = {cache};
    assert_ok(baton_kv_view_flash(&shape, layers, &plane, &view));
    baton_kv_tokens tokens = {.slots = slots, .n_tokens = 3};
    assert_ok(baton_kv_scatter(&view, &tokens, 0, 1, page, sizeof(page)));
    const uint8_t wanted[2][4] = {{2, 0, 3, 0}, {5, 0, 6, 0}};
    assert_memory_equal(cache, wanted, sizeof(wanted));
}

static void the_streaming_gather_gives_the_same_page(void **state)
{
    (void)state;
    bt_rng rng = {.state = 99};
    kv_case c;
    kv_case_create(&c, &rng);
    uint8_t *one = random_page(&rng, c.page_bytes);
    uint8_t *two = bt_guarded_copy(one, c.page_bytes);
    assert_ok(baton_kv_gather(&c.view, &c.tokens, c.first_layer, c.n_layers, one, c.page_bytes));
    assert_ok(
        baton_kv_gather_stream(&c.view, &c.tokens, c.first_layer, c.n_layers, two, c.page_bytes));
    assert_memory_equal(one, two, c.page_bytes);
    bt_guarded_free(two, c.page_bytes);
    bt_guarded_free(one, c.page_bytes);
    kv_case_free(&c);
}

/* Large enough for the public functions to choose streaming stores. */
static void a_chunk_larger_than_the_caches_comes_back(void **state)
{
    (void)state;
    enum { TOKENS = 4096, ROW = 1024, BLOCK = 16 };
    uint64_t bytes = UINT64_C(2) * TOKENS * ROW;
    uint64_t *cache = bt_calloc(bytes, 1), *page = bt_calloc(bytes, 1), *back = bt_calloc(bytes, 1);
    uint32_t *blocks = bt_calloc(TOKENS / BLOCK, sizeof(*blocks));
    assert_true(cache != NULL && page != NULL && back != NULL && blocks != NULL);
    for (uint64_t i = 0; i < bytes / 8; i++)
        cache[i] = i * UINT64_C(0x9e3779b97f4a7c15);
    for (uint32_t i = 0; i < TOKENS / BLOCK; i++)
        blocks[i] = i ^ 5;
    baton_kv_shape shape = {1, TOKENS / BLOCK, BLOCK, 4, ROW / 4, BATON_MEMORY_HOST};
    baton_kv_plane plane;
    baton_kv_view view;
    void *layers[] = {cache};
    assert_ok(baton_kv_view_flash(&shape, layers, &plane, &view));
    baton_kv_tokens tokens = {.blocks = blocks, .n_blocks = TOKENS / BLOCK, .n_tokens = TOKENS};
    assert_ok(baton_kv_gather(&view, &tokens, 0, 1, page, bytes));
    assert_memory_equal((uint8_t *)page, (uint8_t *)cache + UINT64_C(5) * BLOCK * ROW, BLOCK * ROW);
    plane = (baton_kv_plane){back, (uint8_t *)back + bytes / 2};
    assert_ok(baton_kv_scatter(&view, &tokens, 0, 1, page, bytes));
    assert_int_equal(memcmp(back, cache, bytes), 0);
    bt_free(blocks);
    bt_free(back);
    bt_free(page);
    bt_free(cache);
}

/* Index products beyond 32 bit, without the memory they name. */
/* Both sides end at an unreadable page, which is asked for ahead of its use no further than that.
 */
static void rows_of_several_pages_are_copied_whole(void **state)
{
    (void)state;
    enum { PAGE = BT_ROWS_PAGE_BYTES, SHIFT_MAX = 65 };
    static const uint32_t sizes[] = {PAGE - 1,     PAGE,          2 * PAGE - 1,  2 * PAGE,
                                     2 * PAGE + 1, 3 * PAGE + 64, 5 * PAGE + 100};
    static const uint32_t shifts[] = {0, 1, 63, 64, SHIFT_MAX};
    bt_rng rng = {.state = 11};
    size_t n_versions;
    const bt_rows_ops *versions = bt_rows_versions(&n_versions);
    for (size_t i = 0; i < n_versions * sizeof(sizes) / sizeof(sizes[0]); i++) {
        const bt_rows_ops *ops = &versions[i % n_versions];
        uint32_t bytes = sizes[i / n_versions];
        if (!ops->is_supported())
            continue;
        for (size_t s = 0; s < sizeof(shifts) / sizeof(shifts[0]); s++) {
            uint32_t shift = shifts[s], step = bytes + SHIFT_MAX;
            uint8_t *from = random_page(&rng, 2 * step), *to = random_page(&rng, 2 * step);
            uint8_t *wanted = bt_guarded_copy(to, 2 * step);
            for (uint32_t row = 0; row < 2; row++)
                memcpy(wanted + row * step + shift, from + row * step, bytes);
            ops->copy(to + shift, step, from, step, bytes, 2);
            ops->finish();
            assert_memory_equal(to, wanted, 2 * step);
            bt_guarded_free(wanted, 2 * step);
            bt_guarded_free(to, 2 * step);
            bt_guarded_free(from, 2 * step);
        }
    }
}

static void indices_do_not_wrap_at_32_bit(void **state)
{
    (void)state;
    baton_kv_view view = {
        .n_layers = 128,
        .n_planes = 2,
        .n_blocks = 4000000000u,
        .block_tokens = 64,
        .n_kv_heads = 128,
        .head_bytes = 512,
        .block_stride_bytes = UINT64_C(64) * 128 * 512,
        .token_stride_bytes = 128 * 512,
        .head_stride_bytes = 512,
    };
    assert_int_equal(bt_kv_n_slots(&view), UINT64_C(256000000000));
    uint64_t slot = UINT64_C(255999999999);
    assert_int_equal(bt_kv_slot_offset(&view, slot), slot * 65536);
    /* The last row of a page of 4e9 tokens. */
    uint64_t row = (UINT64_C(127) * 2 + 1) * 4000000000u + 3999999999u;
    assert_int_equal(bt_kv_page_offset(&view, 4000000000u, 127, 1, 3999999999u), row * 65536);

    const uint32_t blocks[] = {5, 3999999999u};
    baton_kv_tokens tokens = {.blocks = blocks, .n_blocks = 2, .first_token = 64, .n_tokens = 64};
    assert_int_equal(bt_kv_token_slot(&view, &tokens, 63), INT64_C(3999999999) * 64 + 63);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(every_version_moves_exactly_the_mapped_bytes),
        bt_test(long_descending_lists_take_several_batches),
        bt_test(the_later_of_two_tokens_in_one_slot_stays),
        bt_test(the_streaming_gather_gives_the_same_page),
        bt_test(a_chunk_larger_than_the_caches_comes_back),
        bt_test(rows_of_several_pages_are_copied_whole),
        bt_test(indices_do_not_wrap_at_32_bit),
    };
    return bt_run_tests(tests);
}
