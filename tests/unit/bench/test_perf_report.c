/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "bench/perf_report.h"

#include <jansson.h>

static bt_perf_sample samples[] = {
    {.wall_ns = 3000, .move_ns = 30, .sender_cpu_ns = 300, .receiver_cpu_ns = 9},
    {.wall_ns = 1000, .move_ns = 10, .sender_cpu_ns = 100, .receiver_cpu_ns = 7},
    {.wall_ns = 2000, .move_ns = 20, .sender_cpu_ns = 200, .receiver_cpu_ns = 8},
    {.wall_ns = 9000, .move_ns = 90, .sender_cpu_ns = 900, .receiver_cpu_ns = 1},
};
static const bt_perf_options options = {.n_pages = 4, .page_bytes = 250, .n_iterations = 4};
static bt_perf_result result = {
    .samples = samples, .n_samples = 4, .n_verified = 6, .way = "mapped", .path = "peer=\"x\"\033"};

static void the_median_is_in_the_middle(void **state)
{
    (void)state;
    bt_perf_spread spread;
    assert_ok(bt_perf_spread_us(samples, 4, offsetof(bt_perf_sample, wall_ns), &spread));
    assert_true(spread.min == 1.0 && spread.median == 2.5 && spread.max == 9.0);
    assert_ok(bt_perf_spread_us(samples, 3, offsetof(bt_perf_sample, move_ns), &spread));
    assert_true(spread.min == 0.01 && spread.median == 0.02 && spread.max == 0.03);
}

static double number(json_t *root, const char *object, const char *key)
{
    return json_number_value(json_object_get(json_object_get(root, object), key));
}

static void json_has_every_figure(void **state)
{
    (void)state;
    bt_strbuf text = {0};
    bt_perf_options json_options = options;
    json_options.json = true;
    assert_ok(bt_perf_report(&json_options, &result, &text));
    json_error_t error;
    json_t *root = json_loads(bt_strbuf_text(&text), 0, &error);
    if (root == NULL)
        fail_msg("%s: %s", error.text, bt_strbuf_text(&text));
    /* 1000 bytes in 1, 2.5 and 9 us */
    assert_true(number(root, "gb_per_s", "max") == 1.0);
    assert_true(number(root, "gb_per_s", "median") == 0.4);
    assert_true(number(root, "us", "max") == 9.0);
    assert_true(number(root, "move_us", "min") == 0.01);
    assert_true(number(root, "sender_cpu_us", "median") == 0.25);
    assert_true(number(root, "receiver_cpu_us", "max") == 0.009);
    assert_int_equal(json_integer_value(json_object_get(root, "verified")), 6);
    assert_string_equal(json_string_value(json_object_get(root, "path")), "mapped");
    assert_string_equal(json_string_value(json_object_get(root, "connection")), result.path);
    json_decref(root);
    bt_strbuf_free(&text);
}

static void the_table_names_the_path(void **state)
{
    (void)state;
    static const struct {
        uint64_t mapped;
        const char *name;
    } cases[] = {{6000, "path                   mapped"},
                 {0, "path                   put"},
                 {1, "path                   mixed"}};
    for (size_t i = 0; i < 3; i++) {
        bt_strbuf text = {0};
        bt_perf_result some = result;
        some.way = bt_perf_way(6000, cases[i].mapped);
        assert_ok(bt_perf_report(&options, &some, &text));
        assert_non_null(strstr(bt_strbuf_text(&text), cases[i].name));
        assert_null(strchr(bt_strbuf_text(&text), '\033')); /* a peer's name is foreign */
        bt_strbuf_free(&text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(the_median_is_in_the_middle),
        bt_test(json_has_every_figure),
        bt_test(the_table_names_the_path),
    };
    return bt_run_tests(tests);
}
