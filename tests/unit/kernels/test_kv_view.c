/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include <baton/kv.h>

static uint8_t memory[4096];
static const baton_kv_shape shape = {2, 4, 8, 2, 16, BATON_MEMORY_HOST};
enum { BLOCK = 8 * 2 * 16, PLANE = 4 * BLOCK };

static void layouts_have_the_strides_of_their_shapes(void **state)
{
    (void)state;
    void *layers[] = {memory, memory + 2 * PLANE};
    baton_kv_plane planes[2];
    baton_kv_view view;
    assert_ok(baton_kv_view_flash(&shape, layers, planes, &view));
    assert_ptr_equal(planes[1].k, memory + 2 * PLANE);
    assert_ptr_equal(planes[1].v, memory + 3 * PLANE);
    assert_int_equal(view.block_stride_bytes, BLOCK);
    assert_int_equal(view.token_stride_bytes, 32);
    assert_int_equal(view.head_stride_bytes, 16);

    assert_ok(baton_kv_view_hnd(&shape, layers, NULL, planes, &view));
    assert_ptr_equal(planes[0].v, memory + PLANE);
    assert_int_equal(view.token_stride_bytes, 16);
    assert_int_equal(view.head_stride_bytes, 8 * 16);

    assert_ok(baton_kv_view_flashinfer(&shape, 0, layers, planes, &view));
    assert_ptr_equal(planes[0].v, memory + BLOCK);
    assert_int_equal(view.block_stride_bytes, 2 * BLOCK);

    baton_kv_shape latent = shape;
    latent.n_kv_heads = 1;
    assert_ok(baton_kv_view_mla(&latent, layers, planes, &view));
    assert_int_equal(view.n_planes, 1);
    assert_null(planes[0].v);
    assert_fails(baton_kv_view_mla(&shape, layers, planes, &view), BATON_ERR_INVALID_ARG,
                 "1 KV head");
}

static baton_kv_view good_view(baton_kv_plane planes[2])
{
    void *layers[] = {memory, memory + 2 * PLANE};
    baton_kv_view view;
    assert_ok(baton_kv_view_flash(&shape, layers, planes, &view));
    return view;
}

static void counts_of_zero_are_refused(void **state)
{
    (void)state;
    baton_kv_plane planes[2];
    const baton_kv_view good = good_view(planes);
    baton_kv_view bad[8];
    for (size_t i = 0; i < 8; i++)
        bad[i] = good;
    bad[0].n_layers = 0;
    bad[1].n_blocks = 0;
    bad[2].block_tokens = 0;
    bad[3].n_kv_heads = 0;
    bad[4].head_bytes = 0;
    bad[5].n_planes = 3;
    bad[6].memory = (baton_memory_kind)7;
    bad[7].planes = NULL;
    for (size_t i = 0; i < 8; i++)
        assert_fails(baton_kv_view_check(&bad[i]), BATON_ERR_INVALID_ARG, "kv view");
    assert_fails(baton_kv_view_check(NULL), BATON_ERR_INVALID_ARG, "kv view");
}

static void planes_must_match_their_number(void **state)
{
    (void)state;
    baton_kv_plane planes[2];
    baton_kv_view view = good_view(planes);
    planes[1].v = NULL;
    assert_fails(baton_kv_view_check(&view), BATON_ERR_INVALID_ARG, "layer 1: wanted k and v");
    view.n_planes = 1;
    assert_fails(baton_kv_view_check(&view), BATON_ERR_INVALID_ARG, "layer 0: wanted k alone");
    planes[0] = (baton_kv_plane){NULL, NULL};
    assert_fails(baton_kv_view_check(&view), BATON_ERR_INVALID_ARG, "layer 0");
}

static void strides_that_share_bytes_are_refused(void **state)
{
    (void)state;
    baton_kv_plane planes[2];
    const baton_kv_view good = good_view(planes);
    baton_kv_view view = good;
    view.head_stride_bytes = 15;
    assert_fails(baton_kv_view_check(&view), BATON_ERR_INVALID_ARG, "strides overlap");
    view = good;
    view.token_stride_bytes = 31;
    assert_fails(baton_kv_view_check(&view), BATON_ERR_INVALID_ARG, "strides overlap");
    view = good;
    view.block_stride_bytes = BLOCK - 1;
    assert_fails(baton_kv_view_check(&view), BATON_ERR_INVALID_ARG, "strides overlap");
    view = good;
    view.block_stride_bytes = 0;
    assert_fails(baton_kv_view_check(&view), BATON_ERR_INVALID_ARG, "strides overlap");
}

static void k_and_v_that_share_bytes_are_refused(void **state)
{
    (void)state;
    baton_kv_plane planes[2];
    baton_kv_view view = good_view(planes);
    planes[1].v = planes[1].k;
    assert_fails(baton_kv_view_check(&view), BATON_ERR_INVALID_ARG, "strides overlap");
    planes[1].v = (uint8_t *)planes[1].k + PLANE - 1;
    assert_fails(baton_kv_view_check(&view), BATON_ERR_INVALID_ARG, "strides overlap");
    planes[1].v = (uint8_t *)planes[1].k - PLANE; /* V before K is as good */
    assert_ok(baton_kv_view_check(&view));
}

static void a_stride_nobody_takes_does_not_matter(void **state)
{
    (void)state;
    baton_kv_shape one = {1, 1, 1, 1, 16, BATON_MEMORY_HOST};
    void *layers[] = {memory};
    baton_kv_plane plane;
    baton_kv_view view;
    assert_ok(baton_kv_view_flash(&one, layers, &plane, &view));
    view.block_stride_bytes = view.token_stride_bytes = view.head_stride_bytes = 0;
    assert_ok(baton_kv_view_check(&view));
}

static void offsets_that_pass_64_bit_are_refused(void **state)
{
    (void)state;
    baton_kv_plane planes[2];
    baton_kv_view view = good_view(planes);
    view.block_stride_bytes = UINT64_MAX / 2;
    planes[0].v = planes[1].v = NULL;
    view.n_planes = 1;
    assert_fails(baton_kv_view_check(&view), BATON_ERR_TOO_LARGE, "64 bit");
    view.block_stride_bytes = UINT64_MAX / 3 - 1000;
    assert_fails(baton_kv_view_check(&view), BATON_ERR_TOO_LARGE, "address space");

    baton_kv_shape huge = {1, UINT32_MAX, UINT32_MAX, 1, 2, BATON_MEMORY_HOST};
    void *layers[] = {memory};
    baton_kv_view kept = view;
    assert_fails(baton_kv_view_flash(&huge, layers, planes, &view), BATON_ERR_TOO_LARGE, "64 bit");
    assert_fails(baton_kv_view_hnd(&huge, layers, NULL, planes, &view), BATON_ERR_TOO_LARGE,
                 "64 bit");
    huge.head_bytes = UINT64_MAX / 2;
    assert_fails(baton_kv_view_split(&huge, layers, layers, planes, &view), BATON_ERR_TOO_LARGE,
                 "64 bit");
    huge = (baton_kv_shape){1, 2, 1, 1, UINT64_MAX / 2 + 2, BATON_MEMORY_HOST};
    assert_fails(baton_kv_view_flashinfer(&huge, 0, layers, planes, &view), BATON_ERR_TOO_LARGE,
                 "64 bit");
    assert_memory_equal(&kept, &view, sizeof(view)); /* outputs only on success */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(layouts_have_the_strides_of_their_shapes),
        bt_test(counts_of_zero_are_refused),
        bt_test(planes_must_match_their_number),
        bt_test(strides_that_share_bytes_are_refused),
        bt_test(k_and_v_that_share_bytes_are_refused),
        bt_test(a_stride_nobody_takes_does_not_matter),
        bt_test(offsets_that_pass_64_bit_are_refused),
    };
    return bt_run_tests(tests);
}
