/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "kernels/digest.h"

static void known_values_stay(void **state)
{
    (void)state;
    /* XXH3_64bits of the empty input, as xxHash's specification gives it. */
    assert_int_equal(bt_digest(NULL, 0), UINT64_C(0x2d06800538d394c2));
    assert_int_equal(bt_digest("a", 1), UINT64_C(0xe6c632b61e964e1f));
}

static void one_changed_bit_shows(void **state)
{
    (void)state;
    uint8_t bytes[300] = {0};
    uint64_t before = bt_digest(bytes, sizeof(bytes));
    for (size_t i = 0; i < sizeof(bytes); i++) {
        bytes[i] ^= 1;
        assert_int_not_equal(bt_digest(bytes, sizeof(bytes)), before);
        bytes[i] ^= 1;
    }
}

static void nothing_is_read_past_the_end(void **state)
{
    (void)state;
    uint8_t bytes[257] = {1, 2, 3};
    for (size_t n = 0; n <= sizeof(bytes); n++) {
        uint8_t *guarded = bt_guarded_copy(bytes, n);
        assert_int_equal(bt_digest(guarded, n), bt_digest(bytes, n));
        bt_guarded_free(guarded, n);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(known_values_stay),
        bt_test(one_changed_bit_shows),
        bt_test(nothing_is_read_past_the_end),
    };
    return bt_run_tests(tests);
}
