/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "core/fail.h"

#include <errno.h>

static void every_code_has_its_own_name_and_text(void **state)
{
    (void)state;
    static const baton_status codes[] = {
#define CODE(name, value, text) BATON_##name,
        BATON_STATUS_LIST(CODE)
#undef CODE
    };
    for (size_t i = 0; i < sizeof(codes) / sizeof(codes[0]); i++) {
        for (size_t k = 0; k < i; k++) {
            assert_int_not_equal(codes[i], codes[k]);
            assert_string_not_equal(baton_strerror(codes[i]), baton_strerror(codes[k]));
        }
    }
    assert_string_equal(baton_status_name(BATON_ERR_NO_PAGES), "ERR_NO_PAGES");
    assert_string_equal(baton_strerror((baton_status)-9999), "unknown status");
}

static void fail_keeps_the_text_and_returns_the_code(void **state)
{
    (void)state;
    assert_fails(bt_fail(BATON_ERR_NO_PAGES, "pool: wanted %d pages, %d free", 3, 2),
                 BATON_ERR_NO_PAGES, "pool: wanted 3 pages, 2 free");
    assert_fails(bt_fail_errno(BATON_ERR_IO, ENOENT, "file: open 'x'"), BATON_ERR_IO,
                 "file: open 'x': No such file");
}

static void a_text_may_quote_the_previous_one(void **state)
{
    (void)state;
    bt_fail(BATON_ERR_IO, "inner");
    assert_fails(bt_fail(BATON_ERR_IO, "outer (%s)", baton_last_error()), BATON_ERR_IO,
                 "outer (inner)");
}

static void a_long_text_is_cut(void **state)
{
    (void)state;
    char text[2 * BT_ERROR_TEXT_BYTES];
    memset(text, 'x', sizeof(text));
    text[sizeof(text) - 1] = 0;
    bt_fail(BATON_ERR_IO, "%s", text);
    assert_int_equal(strlen(baton_last_error()), BT_ERROR_TEXT_BYTES - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(every_code_has_its_own_name_and_text),
        bt_test(fail_keeps_the_text_and_returns_the_code),
        bt_test(a_text_may_quote_the_previous_one),
        bt_test(a_long_text_is_cut),
    };
    return bt_run_tests(tests);
}
