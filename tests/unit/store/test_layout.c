/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include <baton/layout.h>

static baton_layout llama(void)
{
    return (baton_layout){
        .model = "llama",
        .dtype = BATON_DTYPE_BF16,
        .n_layers = 4,
        .n_planes = 2,
        .n_kv_heads = 2,
        .head_dim = 32,
        .chunk_tokens = 256,
        .block_tokens = 16,
        .tp_size = 1,
        .pp_size = 1,
    };
}

static void a_difference_is_named_with_both_values(void **state)
{
    (void)state;
    baton_layout ours = llama(), theirs = llama();
    assert_ok(baton_layout_match(&ours, &theirs));
    theirs.n_layers = 8;
    theirs.dtype = BATON_DTYPE_F16;
    assert_fails(baton_layout_match(&ours, &theirs), BATON_ERR_LAYOUT_MISMATCH,
                 "dtype ours bf16 theirs f16, n_layers ours 4 theirs 8");
    strcpy(theirs.model, "other");
    assert_fails(baton_layout_match(&ours, &theirs), BATON_ERR_LAYOUT_MISMATCH,
                 "model ours 'llama' theirs 'other'");
}

static void block_sizes_may_differ(void **state)
{
    (void)state;
    baton_layout ours = llama(), theirs = llama();
    theirs.block_tokens = 64;
    assert_ok(baton_layout_match(&ours, &theirs));
}

static void bytes_of_a_token(void **state)
{
    (void)state;
    baton_layout layout = llama();
    uint64_t bytes;
    assert_ok(baton_layout_token_bytes(&layout, &bytes));
    assert_int_equal(bytes, 2 * 4 * 2 * 2 * 32);
}

static void every_bad_field_is_refused_by_name(void **state)
{
    (void)state;
    baton_layout layout = llama();
    assert_ok(baton_layout_check(&layout));
    layout.n_planes = 3;
    assert_fails(baton_layout_check(&layout), BATON_ERR_INVALID_ARG, "n_planes");
    layout = llama();
    layout.head_dim = 0;
    assert_fails(baton_layout_check(&layout), BATON_ERR_INVALID_ARG, "head_dim");
    layout = llama();
    layout.dtype = (baton_dtype)99;
    assert_fails(baton_layout_check(&layout), BATON_ERR_INVALID_ARG, "dtype");
    layout = llama();
    memset(layout.model, 'x', sizeof(layout.model));
    assert_fails(baton_layout_check(&layout), BATON_ERR_INVALID_ARG, "model");
    layout = llama();
    layout.n_layers = layout.n_kv_heads = layout.head_dim = UINT32_MAX;
    assert_fails(baton_layout_check(&layout), BATON_ERR_INVALID_ARG, "too large");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(a_difference_is_named_with_both_values),
        bt_test(block_sizes_may_differ),
        bt_test(bytes_of_a_token),
        bt_test(every_bad_field_is_refused_by_name),
    };
    return bt_run_tests(tests);
}
