/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "engine/pretokenize.h"
#include "engine/unicode.h"

static int sequence(const char *bytes)
{
    size_t n = strlen(bytes);
    uint8_t *copy = bt_guarded_copy(bytes, n);
    int length = bt_utf8_sequence(copy, n);
    bt_guarded_free(copy, n);
    return length;
}

static void sequences_are_told_apart(void **state)
{
    (void)state;
    assert_int_equal(sequence("a"), 1);
    assert_int_equal(sequence("\xc3\xa9"), 2);
    assert_int_equal(sequence("\xe2\x82\xac"), 3);
    assert_int_equal(sequence("\xf0\x9f\x98\x80"), 4);
    assert_int_equal(sequence("\xf0\x9f\x98"), 0); /* more may come */
    assert_int_equal(sequence("\xc3"), 0);
    assert_int_equal(sequence("\x80"), -1);         /* nothing begins so */
    assert_int_equal(sequence("\xc0\xaf"), -1);     /* overlong */
    assert_int_equal(sequence("\xe0\x80\x80"), -1); /* overlong */
    assert_int_equal(sequence("\xed\xa0\x80"), -1); /* surrogate */
    assert_int_equal(sequence("\xf4\x90\x80\x80"), -1);
    assert_int_equal(sequence("\xf0\x9f\x41"), -2);
}

static void every_code_point_survives_a_round_trip(void **state)
{
    (void)state;
    for (uint32_t code = 0; code < 0x110000; code++) {
        if (code >= 0xd800 && code < 0xe000)
            continue;
        uint8_t bytes[4];
        size_t n = bt_utf8_put(code, bytes), pos = 0;
        if (!bt_utf8_is_valid(bytes, n) || bt_utf8_next(bytes, n, &pos) != code || pos != n)
            fail_msg("code point U+%04X", code);
    }
}

static void classes_are_unicode_ones(void **state)
{
    (void)state;
    assert_true(bt_unicode_is_letter('z'));
    assert_true(bt_unicode_is_letter(0x65e5));
    assert_false(bt_unicode_is_letter('_'));
    assert_false(bt_unicode_is_letter(0x301)); /* a mark */
    assert_true(bt_unicode_is_number(0xbd));
    assert_true(bt_unicode_is_number(0x2167));
    assert_false(bt_unicode_is_number('a'));
    assert_true(bt_unicode_is_space(0x3000));
    assert_false(bt_unicode_is_space(0x200b));
}

/* Pieces of arbitrary bytes cover them without gap, and no read goes past the end. */
static void splits_cover_any_bytes(void **state)
{
    (void)state;
    bt_rng rng = {7};
    static const uint8_t alphabet[] = " \t\r\n'sStTlLaB09.\xc3\xa9\xe2\x82\xc5\xbf\xff";
    for (int round = 0; round < 20000; round++) {
        uint8_t bytes[24];
        size_t n = 1 + bt_rng_below(&rng, sizeof(bytes));
        for (size_t i = 0; i < n; i++)
            bytes[i] = alphabet[bt_rng_below(&rng, sizeof(alphabet) - 1)];
        uint8_t *copy = bt_guarded_copy(bytes, n);
        for (bt_split split = BT_SPLIT_NONE; split <= BT_SPLIT_QWEN2; split++)
            for (size_t pos = 0; pos < n;) {
                size_t end = bt_split_next(split, copy, n, pos);
                assert_in_range(end, pos + 1, n);
                pos = end;
            }
        bt_guarded_free(copy, n);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(sequences_are_told_apart),
        bt_test(every_code_point_survives_a_round_trip),
        bt_test(classes_are_unicode_ones),
        bt_test(splits_cover_any_bytes),
    };
    return bt_run_tests(tests);
}
