/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "bench/load/load_search.h"
#include "http/jsonscan.h"

#include <math.h>

/* A server that keeps its objectives up to a rate. */
static bt_load_search search_against(double capacity, double first)
{
    bt_load_search search = {0};
    double rate;
    while ((rate = bt_load_search_next(&search, first)) > 0) {
        assert_true(search.n_steps < BT_LOAD_MAX_STEPS);
        search.steps[search.n_steps++] = (bt_load_step){.rate = rate, .met = rate <= capacity};
    }
    return search;
}

static void the_highest_rate_is_found_from_either_side(void **state)
{
    (void)state;
    static const double capacities[] = {0.3, 1, 3.7, 100, 1234.5};
    static const double firsts[] = {0.5, 1, 20};
    for (size_t i = 0; i < 5; i++) {
        for (size_t k = 0; k < 3; k++) {
            bt_load_search search = search_against(capacities[i], firsts[k]);
            const bt_load_step *best = bt_load_search_best(&search);
            assert_non_null(best);
            assert_true(best->rate <= capacities[i] && best->rate * 1.051 > capacities[i]);
            assert_true(search.n_steps < 20);
        }
    }
}

static void a_server_that_never_keeps_them_ends_the_search(void **state)
{
    (void)state;
    bt_load_search search = search_against(0, 8);
    assert_null(bt_load_search_best(&search));
    assert_int_equal(search.n_steps, 8); /* 8, 4, .. 1/16 */
    search = search_against(INFINITY, 1);
    assert_true(bt_load_search_best(&search)->rate == 1e6);
}

static void a_failure_below_what_was_met_is_noise(void **state)
{
    (void)state;
    bt_load_search search = {
        .steps = {{.rate = 1, .met = true}, {.rate = 2}, {.rate = 1.5}, {.rate = 1.8, .met = true}},
        .n_steps = 4};
    assert_true(fabs(bt_load_search_next(&search, 1) - sqrt(1.8 * 2)) < 1e-9);
}

static void what_was_found_is_told_in_order(void **state)
{
    (void)state;
    const bt_load_options options = {.goodput_share = 0.9};
    bt_load_search search = {.steps = {{.rate = 4, .met = true, .good_share = 1, .good_per_s = 3.9},
                                       {.rate = 8, .good_share = 0.25},
                                       {.rate = 2, .met = true, .good_share = 1}},
                             .n_steps = 3};
    bt_strbuf text = {0};
    bt_load_search_table(&search, &options, &text);
    const char *two = strstr(bt_strbuf_text(&text), " 2.00 ");
    const char *four = strstr(bt_strbuf_text(&text), " 4.00 ");
    const char *eight = strstr(bt_strbuf_text(&text), " 8.00 ");
    assert_true(two != NULL && two < four && four < eight);
    assert_non_null(strstr(eight, "25.0%"));
    assert_non_null(strstr(eight, "90 % within the objectives: 4.00 req/s, goodput 3.90 req/s"));
    bt_strbuf_clear(&text);
    bt_strbuf_puts(&text, "{\"a\": 1");
    bt_load_search_json(&search, &text);
    bt_strbuf_putc(&text, '}');
    bt_json_value root, value;
    assert_ok(bt_json_check(bt_strbuf_text(&text), text.length, &root));
    assert_ok(bt_json_get(root, "highest_rate", &value));
    assert_true(bt_slice_equals(value.text, "4"));
    assert_ok(bt_json_get(root, "steps", &value));
    assert_int_equal(bt_json_length(value), 3);
    search.n_steps = 0;
    bt_strbuf_clear(&text);
    bt_load_search_table(&search, &options, &text);
    assert_non_null(strstr(bt_strbuf_text(&text), "no rate had 90 %"));
    bt_strbuf_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(the_highest_rate_is_found_from_either_side),
        bt_test(a_server_that_never_keeps_them_ends_the_search),
        bt_test(a_failure_below_what_was_met_is_noise),
        bt_test(what_was_found_is_told_in_order),
    };
    return bt_run_tests(tests);
}
