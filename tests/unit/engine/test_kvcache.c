/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "core/alloc.h"
#include "engine/kvcache.h"

static bt_model_config small(void)
{
    bt_model_config config;
    bt_model_config_small(&config);
    return config;
}

static void layout_is_layers_planes_blocks_tokens_heads(void **state)
{
    (void)state;
    bt_model_config config = small();
    bt_kv_cache *cache;
    bt_kv_options options = {.n_blocks = 5};
    assert_ok(bt_kv_cache_create(&config, &options, &cache));
    assert_int_equal(cache->block_tokens, 16);
    assert_int_equal(cache->dtype, BATON_DTYPE_BF16);
    assert_int_equal(bt_kv_cache_token_bytes(cache), 2 * 32 * 2);
    assert_int_equal(cache->plane_bytes, 5 * 16 * 128);
    assert_int_equal(cache->memory_bytes, 4 * 2 * cache->plane_bytes);
    assert_int_equal((uintptr_t)cache->memory % 4096, 0);
    assert_ptr_equal(bt_kv_cache_plane(cache, 3, 1), cache->memory + 7 * cache->plane_bytes);
    for (size_t i = 0; i < cache->memory_bytes; i++)
        assert_int_equal(cache->memory[i], 0);
    bt_kv_cache_destroy(cache);
    bt_kv_cache_destroy(NULL);
}

static void a_view_of_some_heads_points_at_them(void **state)
{
    (void)state;
    bt_model_config config = small();
    bt_kv_cache *cache;
    bt_kv_options options = {.n_blocks = 3, .block_tokens = 8, .dtype = BATON_DTYPE_F32};
    assert_ok(bt_kv_cache_create(&config, &options, &cache));
    baton_kv_plane planes[4];
    baton_kv_view view;
    assert_ok(bt_kv_cache_view(cache, 1, 1, planes, &view));
    assert_ptr_equal(planes[2].v, bt_kv_cache_plane(cache, 2, 1) + 128);
    assert_int_equal(view.n_layers, 4);
    assert_int_equal(view.n_planes, 2);
    assert_int_equal(view.n_kv_heads, 1);
    assert_int_equal(view.head_bytes, 128);
    assert_int_equal(view.head_stride_bytes, 128);
    assert_int_equal(view.token_stride_bytes, 256);
    assert_int_equal(view.block_stride_bytes, 8 * 256);
    assert_fails(bt_kv_cache_view(cache, 1, 2, planes, &view), BATON_ERR_OUT_OF_RANGE,
                 "heads 1 + 2, there are 2");
    assert_fails(bt_kv_cache_view(cache, 0, 0, planes, &view), BATON_ERR_OUT_OF_RANGE, NULL);
    assert_fails(bt_kv_cache_view(cache, 3, 1, planes, &view), BATON_ERR_OUT_OF_RANGE, NULL);
    bt_kv_cache_destroy(cache);
}

static void impossible_options_are_refused(void **state)
{
    (void)state;
    bt_model_config config = small();
    bt_kv_cache *cache;
    assert_fails(bt_kv_cache_create(&config, &(bt_kv_options){0}, &cache), BATON_ERR_INVALID_ARG,
                 "n_blocks");
    bt_kv_options eight = {.n_blocks = 1, .dtype = BATON_DTYPE_F8_E4M3};
    assert_fails(bt_kv_cache_create(&config, &eight, &cache), BATON_ERR_INVALID_ARG, "dtype");
    bt_kv_options huge = {.n_blocks = UINT32_MAX, .block_tokens = UINT32_MAX};
    assert_fails(bt_kv_cache_create(&config, &huge, &cache), BATON_ERR_TOO_LARGE, "overflow");
}

static void failed_allocations_leave_nothing_behind(void **state)
{
    (void)state;
    bt_model_config config = small();
    for (uint64_t nth = 1; nth <= 2; nth++) {
        bt_kv_cache *cache;
        bt_alloc_fail_at(nth);
        baton_status status = bt_kv_cache_create(&config, &(bt_kv_options){.n_blocks = 2}, &cache);
        bt_alloc_fail_at(0);
        assert_fails(status, BATON_ERR_NO_MEMORY, "kv cache");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(layout_is_layers_planes_blocks_tokens_heads),
        bt_test(a_view_of_some_heads_points_at_them),
        bt_test(impossible_options_are_refused),
        bt_test(failed_allocations_leave_nothing_behind),
    };
    return bt_run_tests(tests);
}
