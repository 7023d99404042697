/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "core/alloc.h"
#include "core/jsonwriter.h"

#include <math.h>

static void values_and_brackets_come_out_as_json(void **state)
{
    (void)state;
    bt_strbuf text = {0};
    bt_jsonwriter json = {.out = &text};
    bt_jw_open(&json, NULL, '{');
    bt_jw_u64(&json, "n", UINT64_MAX);
    bt_jw_i64(&json, "i", -7);
    bt_jw_open(&json, "list", '[');
    bt_jw_open(&json, NULL, '{');
    bt_jw_close(&json);
    bt_jw_open(&json, NULL, '[');
    bt_jw_bool(&json, NULL, true);
    bt_jw_bool(&json, NULL, false);
    bt_jw_close(&json);
    bt_jw_text(&json, NULL, NULL);
    bt_jw_close(&json);
    bt_jw_double(&json, "d", 1.25, 2);
    bt_jw_double(&json, "none", NAN, 2);
    bt_jw_hex64(&json, "epoch", 0xab);
    bt_jw_ms(&json, "ms", 1500000);
    bt_jw_close(&json);
    assert_string_equal(bt_strbuf_text(&text),
                        "{\"n\":18446744073709551615,\"i\":-7,\"list\":[{},[true,false],null],"
                        "\"d\":1.25,\"none\":null,\"epoch\":\"00000000000000ab\",\"ms\":1.500}");
    bt_strbuf_free(&text);
}

static void texts_of_strangers_cannot_leave_their_quotes(void **state)
{
    (void)state;
    bt_strbuf text = {0};
    bt_jsonwriter json = {.out = &text};
    bt_jw_text(&json, NULL, "a\"b\\c\n\x01\x7f\xff\xc3\xa4\xed\xa0\x80");
    assert_string_equal(bt_strbuf_text(&text),
                        "\"a\\\"b\\\\c\\u000a\\u0001\\u007f\\ufffd\xc3\xa4\\ufffd\\ufffd\\ufffd\"");
    bt_strbuf_free(&text);
}

static void without_memory_the_text_says_so(void **state)
{
    (void)state;
    bt_strbuf text = {0};
    bt_jsonwriter json = {.out = &text};
    bt_alloc_fail_at(1);
    bt_jw_text(&json, NULL, "lost");
    bt_alloc_fail_at(0);
    assert_fails(bt_strbuf_status(&text), BATON_ERR_NO_MEMORY, NULL);
    bt_strbuf_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(values_and_brackets_come_out_as_json),
        bt_test(texts_of_strangers_cannot_leave_their_quotes),
        bt_test(without_memory_the_text_says_so),
    };
    return bt_run_tests(tests);
}
