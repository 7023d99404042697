/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "core/promtext.h"

#include <math.h>

static void counters_and_gauges_read_as_the_format_wants(void **state)
{
    (void)state;
    bt_strbuf out = {0};
    const bt_prom_label labels[] = {{"role", "decode"}, {"url", "a\"b\\c\nd"}};
    bt_prom_family(&out, "baton_chunks_total", BT_PROM_COUNTER, "Chunks\nlanded \\ \"all\".");
    bt_prom_u64(&out, "baton_chunks_total", labels, 2, UINT64_MAX);
    bt_prom_family(&out, "baton_load", BT_PROM_GAUGE, "Load.");
    bt_prom_double(&out, "baton_load", NULL, 0, 0.25);
    bt_prom_double(&out, "baton_load", NULL, 0, -INFINITY);
    assert_string_equal(bt_strbuf_text(&out),
                        "# HELP baton_chunks_total Chunks\\nlanded \\\\ \"all\".\n"
                        "# TYPE baton_chunks_total counter\n"
                        "baton_chunks_total{role=\"decode\",url=\"a\\\"b\\\\c\\nd\"} "
                        "18446744073709551615\n"
                        "# HELP baton_load Load.\n"
                        "# TYPE baton_load gauge\n"
                        "baton_load 0.25\n"
                        "baton_load -Inf\n");
    bt_strbuf_free(&out);
}

static void histograms_are_cumulative_and_end_at_their_count(void **state)
{
    (void)state;
    bt_histogram histogram = {0};
    bt_histogram_record(&histogram, 1);    /* below the first bucket shown */
    bt_histogram_record(&histogram, 5);    /* up to 8 */
    bt_histogram_record(&histogram, 1000); /* above the last */
    const bt_prom_scale scale = {.per_unit = 2, .first = 2, .last = 4};
    const bt_prom_label label = {"leg", "p"};
    bt_strbuf out = {0};
    bt_prom_family(&out, "x", BT_PROM_HISTOGRAM, "X.");
    bt_prom_histogram(&out, "x", &label, 1, &histogram, &scale);
    assert_string_equal(bt_strbuf_text(&out), "# HELP x X.\n# TYPE x histogram\n"
                                              "x_bucket{leg=\"p\",le=\"2\"} 1\n"
                                              "x_bucket{leg=\"p\",le=\"4\"} 2\n"
                                              "x_bucket{leg=\"p\",le=\"8\"} 2\n"
                                              "x_bucket{leg=\"p\",le=\"+Inf\"} 3\n"
                                              "x_sum{leg=\"p\"} 503\n"
                                              "x_count{leg=\"p\"} 3\n");
    bt_strbuf_clear(&out);
    bt_prom_histogram(&out, "y", NULL, 0, &histogram, &bt_prom_seconds);
    assert_non_null(strstr(bt_strbuf_text(&out), "y_bucket{le=\"1.024e-06\"} 3\n"));
    bt_strbuf_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(counters_and_gauges_read_as_the_format_wants),
        bt_test(histograms_are_cumulative_and_end_at_their_count),
    };
    return bt_run_tests(tests);
}
