/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "core/alloc.h"

static void the_nth_allocation_fails_and_only_that(void **state)
{
    (void)state;
    bt_alloc_fail_at(2);
    void *first = bt_calloc(1, 8);
    void *second = bt_calloc(1, 8);
    void *third = bt_strdup("abc");
    assert_non_null(first);
    assert_null(second);
    assert_string_equal(third, "abc");
    bt_free(first);
    bt_free(third);
    assert_int_equal(bt_alloc_count(), 3);
}

static void an_overflowing_product_is_refused(void **state)
{
    (void)state;
    assert_null(bt_calloc(SIZE_MAX / 2, 3));
    assert_null(bt_realloc(NULL, SIZE_MAX / 2, 3));
    size_t out;
    assert_false(bt_mul_size(SIZE_MAX, 2, &out));
    assert_true(bt_add_size(1, 2, &out));
    assert_int_equal(out, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(the_nth_allocation_fails_and_only_that),
        bt_test(an_overflowing_product_is_refused),
    };
    return bt_run_tests(tests);
}
