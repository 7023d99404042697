/* SPDX-License-Identifier: Apache-2.0 */
/* What a copy refuses, and that nothing has moved when it does. */
#include "support/test.h"

#include "kernels/kv_reference.h"

enum {
    LAYERS = 2,
    BLOCKS = 3,
    TOKENS = 4,
    HEADS = 2,
    HEAD = 8,
    PAGE = LAYERS * 2 * 5 * HEADS * HEAD
};

static uint8_t cache[LAYERS][2][BLOCKS][TOKENS][HEADS][HEAD];
static uint8_t page[PAGE];
static baton_kv_plane planes[LAYERS];
static baton_kv_view view;

static int make_view(void **state)
{
    void *layers[LAYERS] = {cache[0], cache[1]};
    baton_kv_shape shape = {LAYERS, BLOCKS, TOKENS, HEADS, HEAD, BATON_MEMORY_HOST};
    memset(cache, 0x11, sizeof(cache));
    memset(page, 0x22, sizeof(page));
    bt_test_setup(state);
    assert_ok(baton_kv_view_flash(&shape, layers, planes, &view));
    return 0;
}

static bool is_all(const void *bytes, size_t n, uint8_t value)
{
    const uint8_t *at = bytes;
    for (size_t i = 0; i < n; i++) {
        if (at[i] != value)
            return false;
    }
    return true;
}

typedef struct {
    uint32_t first_layer, n_layers;
    uint8_t *page;
    uint64_t page_bytes;
} target;

/* All copies refuse with the same status, and neither side has changed. */
static void assert_refused(const baton_kv_tokens *tokens, target to, baton_status wanted,
                           const char *text)
{
    assert_fails(
        baton_kv_gather(&view, tokens, to.first_layer, to.n_layers, to.page, to.page_bytes), wanted,
        text);
    assert_fails(
        baton_kv_gather_stream(&view, tokens, to.first_layer, to.n_layers, to.page, to.page_bytes),
        wanted, text);
    assert_fails(
        baton_kv_scatter(&view, tokens, to.first_layer, to.n_layers, to.page, to.page_bytes),
        wanted, text);
    assert_fails(
        bt_kv_gather_reference(&view, tokens, to.first_layer, to.n_layers, to.page, to.page_bytes),
        wanted, text);
    assert_fails(
        bt_kv_scatter_reference(&view, tokens, to.first_layer, to.n_layers, to.page, to.page_bytes),
        wanted, text);
    assert_true(is_all(cache, sizeof(cache), 0x11));
    assert_true(is_all(page, sizeof(page), 0x22));
}

static const target whole = {0, LAYERS, page, PAGE};

static void a_slot_outside_the_cache_is_refused_before_any_byte_moves(void **state)
{
    (void)state;
    int64_t slots[] = {0, 1, 2, 3, 12}; /* the last one is one too far */
    baton_kv_tokens tokens = {.slots = slots, .n_tokens = 5};
    assert_refused(&tokens, whole, BATON_ERR_OUT_OF_RANGE, "token 4: wanted a slot below 12");
    slots[4] = INT64_MAX;
    assert_refused(&tokens, whole, BATON_ERR_OUT_OF_RANGE, "9223372036854775807");
    slots[4] = 11;
    assert_ok(baton_kv_gather(&view, &tokens, 0, LAYERS, page, PAGE));
    assert_true(is_all(page, sizeof(page), 0x11));
}

static void a_block_outside_the_cache_is_refused(void **state)
{
    (void)state;
    const uint32_t blocks[] = {0, 3};
    baton_kv_tokens tokens = {.blocks = blocks, .n_blocks = 2, .first_token = 0, .n_tokens = 5};
    assert_refused(&tokens, whole, BATON_ERR_OUT_OF_RANGE, "entry 1: wanted a block below 3");
    tokens.n_tokens = 4; /* the bad block is not used */
    assert_ok(baton_kv_gather(&view, &tokens, 0, LAYERS, page, PAGE));
}

static void tokens_past_the_block_table_are_refused(void **state)
{
    (void)state;
    const uint32_t blocks[] = {0, 1};
    baton_kv_tokens tokens = {.blocks = blocks, .n_blocks = 2, .first_token = 4, .n_tokens = 5};
    assert_refused(&tokens, whole, BATON_ERR_OUT_OF_RANGE, "wanted within the 8 tokens");
    tokens.first_token = UINT64_MAX - 2;
    assert_refused(&tokens, whole, BATON_ERR_OUT_OF_RANGE, "wanted within the 8 tokens");
    tokens.blocks = NULL;
    assert_refused(&tokens, whole, BATON_ERR_INVALID_ARG, "found neither");
}

static void layers_outside_the_view_are_refused(void **state)
{
    (void)state;
    const int64_t slots[] = {0};
    baton_kv_tokens tokens = {.slots = slots, .n_tokens = 1};
    assert_refused(&tokens, (target){1, 2, page, PAGE}, BATON_ERR_OUT_OF_RANGE, "layers 1 + 2");
    assert_refused(&tokens, (target){UINT32_MAX, 2, page, PAGE}, BATON_ERR_OUT_OF_RANGE, "layers");
    assert_refused(&tokens, (target){2, UINT32_MAX, page, PAGE}, BATON_ERR_OUT_OF_RANGE, "layers");
}

static void a_page_that_is_too_small_or_missing_is_refused(void **state)
{
    (void)state;
    const int64_t slots[] = {0, -1, -1, -1, 1};
    baton_kv_tokens tokens = {.slots = slots, .n_tokens = 5};
    assert_refused(&tokens, (target){0, LAYERS, page, PAGE - 1}, BATON_ERR_TOO_LARGE,
                   "wanted a page of 320 bytes");
    assert_refused(&tokens, (target){0, LAYERS, NULL, PAGE}, BATON_ERR_INVALID_ARG, "page");
    assert_refused(NULL, whole, BATON_ERR_INVALID_ARG, "token list");
}

static void nothing_to_move_is_fine(void **state)
{
    (void)state;
    baton_kv_tokens tokens = {.n_tokens = 0};
    assert_ok(baton_kv_gather(&view, &tokens, 0, LAYERS, NULL, 0));
    assert_ok(baton_kv_scatter(&view, &tokens, 0, LAYERS, NULL, 0));
}

static void device_memory_is_refused_by_the_cpu(void **state)
{
    (void)state;
    const int64_t slots[] = {0};
    baton_kv_tokens tokens = {.slots = slots, .n_tokens = 1};
    view.memory = BATON_MEMORY_CUDA_DEVICE;
    assert_refused(&tokens, whole, BATON_ERR_UNSUPPORTED, "device memory");
    view.memory = BATON_MEMORY_CUDA_HOST; /* pinned memory is ordinary to the CPU */
    assert_ok(baton_kv_gather(&view, &tokens, 0, LAYERS, page, PAGE));
}

static void page_sizes_are_products_that_may_not_wrap(void **state)
{
    (void)state;
    uint64_t bytes;
    assert_ok(baton_kv_chunk_bytes(&view, 5, &bytes));
    assert_int_equal(bytes, PAGE);
    assert_ok(baton_kv_chunk_bytes(&view, 0, &bytes));
    assert_int_equal(bytes, 0);
    assert_ok(baton_kv_layers_bytes(&view, 1, 256, &bytes));
    assert_int_equal(bytes, 2 * 256 * HEADS * HEAD);
    view.head_bytes = UINT64_C(1) << 40;
    assert_fails(baton_kv_chunk_bytes(&view, 1 << 22, &bytes), BATON_ERR_TOO_LARGE, "64 bit");
    assert_ok(baton_kv_chunk_bytes(&view, 1 << 20, &bytes));
    assert_int_equal(bytes, UINT64_C(8) << 60);
}

#ifndef BATON_CUDA
static void a_build_without_cuda_says_so(void **state)
{
    (void)state;
    baton_kv_tokens tokens = {.n_tokens = 0};
    assert_fails(baton_kv_gather_cuda(&view, &tokens, 0, 1, page, PAGE, NULL),
                 BATON_ERR_UNSUPPORTED, "no CUDA kernels");
    assert_fails(baton_kv_scatter_cuda(&view, &tokens, 0, 1, page, PAGE, NULL),
                 BATON_ERR_UNSUPPORTED, "no CUDA kernels");
    uint64_t digest;
    assert_fails(baton_kv_gather_digest_cuda(&view, &tokens, 0, 1, page, PAGE, &digest, NULL),
                 BATON_ERR_UNSUPPORTED, "no CUDA kernels");
    assert_fails(baton_kv_scatter_digest_cuda(&view, &tokens, 0, 1, page, PAGE, &digest, NULL),
                 BATON_ERR_UNSUPPORTED, "no CUDA kernels");
}
#endif

#define view_test(fn) cmocka_unit_test_setup_teardown(fn, make_view, bt_test_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        view_test(a_slot_outside_the_cache_is_refused_before_any_byte_moves),
        view_test(a_block_outside_the_cache_is_refused),
        view_test(tokens_past_the_block_table_are_refused),
        view_test(layers_outside_the_view_are_refused),
        view_test(a_page_that_is_too_small_or_missing_is_refused),
        view_test(nothing_to_move_is_fine),
        view_test(device_memory_is_refused_by_the_cpu),
        view_test(page_sizes_are_products_that_may_not_wrap),
#ifndef BATON_CUDA
        view_test(a_build_without_cuda_says_so),
#endif
    };
    return bt_run_tests(tests);
}
