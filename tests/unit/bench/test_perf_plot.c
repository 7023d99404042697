/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "bench/perf_plot.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static const double x[] = {1024, 4096, 1048576}, y[] = {0.01, 0, 20};
static const bt_perf_series series[] = {{"a < b & c", x, y, 3}, {"nothing", x, y, 0}};
static const bt_perf_chart chart = {.title = "a chart",
                                    .x_label = "bytes",
                                    .y_label = "GB/s",
                                    .x_scale = BT_PERF_LOG_BYTES,
                                    .y_scale = BT_PERF_LOG,
                                    .series = series,
                                    .n_series = 2};

static uint32_t occurrences(const char *text, const char *part)
{
    uint32_t n = 0;
    for (; (text = strstr(text, part)) != NULL; text += strlen(part))
        n++;
    return n;
}

static void a_chart_has_axes_points_and_a_legend(void **state)
{
    (void)state;
    bt_strbuf out = {0};
    bt_perf_plot(&chart, 1, &out);
    assert_ok(bt_strbuf_status(&out));
    const char *text = bt_strbuf_text(&out);
    assert_int_equal(occurrences(text, "<circle"), 2); /* 0 has no place on a logarithmic axis */
    assert_int_equal(occurrences(text, "class=\"axis\""), 1);
    assert_int_equal(occurrences(text, ">1 KiB<") + occurrences(text, ">1 MiB<"), 2);
    assert_int_equal(occurrences(text, ">0.01<") + occurrences(text, ">20<"), 2);
    assert_int_equal(occurrences(text, ">0.005<") + occurrences(text, ">50<"), 0);
    assert_non_null(strstr(text, "a &#60; b &#38; c"));
    /* The ends of the data are the ends of both axes. */
    assert_non_null(strstr(text, "M72.0 404.0L710.0 40.0"));
    assert_null(strstr(text, "nan"));
    assert_null(strstr(text, "inf"));
    bt_strbuf_free(&out);
}

static void charts_lie_below_each_other(void **state)
{
    (void)state;
    const double shares[] = {0, 50, 100};
    const bt_perf_series line = {"line", x, shares, 3};
    const bt_perf_chart both[] = {chart,
                                  {"linear", "x", "%", BT_PERF_LINEAR, BT_PERF_LINEAR, &line, 1}};
    bt_strbuf out = {0};
    bt_perf_plot(both, 2, &out);
    assert_non_null(strstr(bt_strbuf_text(&out), "viewBox=\"0 0 860 920\""));
    assert_int_equal(occurrences(bt_strbuf_text(&out), "<svg"), 1);
    assert_non_null(strstr(bt_strbuf_text(&out), ">1e+06<"));
    /* The second one's axis. */
    assert_non_null(strstr(bt_strbuf_text(&out), " 864.0V500.0"));
    bt_strbuf_free(&out);
}

static void a_chart_without_points_is_still_a_picture(void **state)
{
    (void)state;
    bt_perf_chart empty = chart;
    bt_strbuf out = {0};
    empty.n_series = 0;
    bt_perf_plot(&empty, 1, &out);
    assert_non_null(strstr(bt_strbuf_text(&out), "</svg>"));
    assert_null(strstr(bt_strbuf_text(&out), "nan"));
    bt_strbuf_free(&out);
}

static void a_file_that_cannot_be_written_is_named(void **state)
{
    (void)state;
    assert_fails(bt_perf_plot_file(&chart, 1, "/nonexistent/a.svg"), BATON_ERR_IO,
                 "/nonexistent/a.svg");
    char path[] = "/tmp/test_perf_plot_XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_ok(bt_perf_plot_file(&chart, 1, path));
    char start[5] = "";
    assert_int_equal(read(fd, start, 4), 4);
    assert_string_equal(start, "<svg");
    close(fd);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(a_chart_has_axes_points_and_a_legend),
        bt_test(charts_lie_below_each_other),
        bt_test(a_chart_without_points_is_still_a_picture),
        bt_test(a_file_that_cannot_be_written_is_named),
    };
    return bt_run_tests(tests);
}
