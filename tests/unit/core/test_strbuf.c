/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "core/alloc.h"
#include "core/strbuf.h"

static void an_empty_buffer_is_an_empty_text(void **state)
{
    (void)state;
    bt_strbuf buf = {0};
    assert_string_equal(bt_strbuf_text(&buf), "");
    assert_ok(bt_strbuf_status(&buf));
    bt_strbuf_puts(&buf, "");
    assert_string_equal(bt_strbuf_text(&buf), "");
    bt_strbuf_free(&buf);
}

static void it_grows_with_what_is_written(void **state)
{
    (void)state;
    bt_strbuf buf = {0};
    for (int i = 0; i < 1000; i++)
        bt_strbuf_printf(&buf, "%04d", i);
    assert_ok(bt_strbuf_status(&buf));
    assert_int_equal(buf.length, 4000);
    assert_int_equal(strlen(bt_strbuf_text(&buf)), 4000);
    assert_memory_equal(bt_strbuf_text(&buf) + 4 * 567, "0567", 4);
    bt_strbuf_clear(&buf);
    assert_string_equal(bt_strbuf_text(&buf), "");
    bt_strbuf_fill(&buf, 'x', 3);
    bt_strbuf_putc(&buf, 'y');
    bt_strbuf_append(&buf, "zq", 1);
    assert_string_equal(bt_strbuf_text(&buf), "xxxyz");
    bt_strbuf_free(&buf);
}

static void escaping_leaves_no_quote_and_no_control_character(void **state)
{
    (void)state;
    bt_strbuf buf = {0};
    bt_strbuf_escape(&buf, "a\"b\\c\nd\x01\x7f\xc3\xa9");
    assert_string_equal(bt_strbuf_text(&buf), "a\\\"b\\\\c\\nd\\x01\\x7f\xc3\xa9");
    bt_strbuf_clear(&buf);
    bt_strbuf_escape(&buf,
                     "\xc2\x85\xe2\x80\xa8\xef\xbb\xbf\xf0\x9f\x98\x80"); /* the last is fine */
    assert_string_equal(bt_strbuf_text(&buf), "\\x85\\u2028\\ufeff\xf0\x9f\x98\x80");
    bt_strbuf_clear(&buf);
    /* Not UTF-8: a lone byte, an overlong form, a surrogate, an end in the middle. */
    bt_strbuf_escape(&buf, "\xff\xc0\x80\xed\xa0\x80\xe2\x82");
    assert_string_equal(bt_strbuf_text(&buf), "\\xff\\xc0\\x80\\xed\\xa0\\x80\\xe2\\x82");
    bt_strbuf_free(&buf);
}

static void want_of_memory_is_remembered_until_asked(void **state)
{
    (void)state;
    bt_strbuf buf = {0};
    bt_strbuf_puts(&buf, "kept");
    bt_alloc_fail_at(1);
    bt_strbuf_fill(&buf, 'x', 1000);
    bt_alloc_fail_at(0);
    bt_strbuf_puts(&buf, "dropped");
    assert_fails(bt_strbuf_status(&buf), BATON_ERR_NO_MEMORY, "wanted more than");
    assert_string_equal(bt_strbuf_text(&buf), "kept");
    bt_strbuf_clear(&buf);
    assert_ok(bt_strbuf_status(&buf));
    bt_strbuf_free(&buf);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(an_empty_buffer_is_an_empty_text),
        bt_test(it_grows_with_what_is_written),
        bt_test(escaping_leaves_no_quote_and_no_control_character),
        bt_test(want_of_memory_is_remembered_until_asked),
    };
    return bt_run_tests(tests);
}
