/* SPDX-License-Identifier: Apache-2.0 */
/* Saved results side by side, and charts. */
#include "support/test.h"

#include "bench/load/load_chart.h"
#include "bench/load/load_compare.h"
#include "core/alloc.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static char path[32];

static void write_file(const char *text)
{
    strcpy(path, "/tmp/baton-compare-XXXXXX");
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, text, strlen(text)), (ssize_t)strlen(text));
    close(fd);
}

static bt_load_saved save(const char *text)
{
    bt_load_saved saved;
    write_file(text);
    assert_ok(bt_load_saved_read(path, &saved));
    saved.path = "file";
    unlink(path);
    return saved;
}

/* The line that begins with a name, without its end. */
static const char *line_of(const bt_strbuf *text, const char *name)
{
    static char line[200];
    char wanted[64];
    snprintf(wanted, sizeof(wanted), "\n%s ", name);
    const char *at = strstr(bt_strbuf_text(text), wanted);
    if (at == NULL)
        return NULL;
    snprintf(line, sizeof(line), "%.*s", (int)strcspn(at + 1, "\n"), at + 1);
    return line;
}

static void figures_have_their_change(void **state)
{
    (void)state;
    bt_load_saved a = save("{\"date\": \"d1\", \"label\": null, \"request_rate\": 10, \"seed\": 7, "
                           "\"request_throughput\": 8.0, \"p99_ttft_ms\": 200, \"failed\": 0, "
                           "\"std_ttft_ms\": 1, \"only_here\": 1, \"ttfts\": [1, 2]}");
    bt_load_saved b =
        save("{\"date\": \"d2\", \"label\": \"new\\u001b\", \"request_rate\": \"inf\", "
             "\"seed\": 7.0, \"request_throughput\": 10, \"p99_ttft_ms\": 250.5, "
             "\"failed\": 0, \"std_ttft_ms\": 9, \"ttfts\": [2, 3]}");
    bt_strbuf text = {0};
    double worst;
    bt_load_compare(&a, &b, &text, &worst);
    assert_true(fabs(worst - 25.25) < 1e-9);
    assert_non_null(strstr(line_of(&text, "request_throughput"), "+25.0 %  better"));
    assert_non_null(strstr(line_of(&text, "p99_ttft_ms"), "+25.2 %  worse"));
    assert_null(strchr(line_of(&text, "failed"), '%'));
    assert_null(strstr(line_of(&text, "std_ttft_ms"), "worse"));
    assert_non_null(strstr(line_of(&text, "request_rate"), "inf"));
    assert_non_null(strstr(line_of(&text, "label"), "new?")); /* no control characters */
    assert_null(line_of(&text, "seed"));                      /* the same */
    assert_null(line_of(&text, "only_here"));
    assert_null(line_of(&text, "ttfts"));
    bt_load_compare(&a, &a, &text, &worst);
    assert_true(worst == 0);
    bt_strbuf_free(&text);
    bt_load_saved_free(&a);
    bt_load_saved_free(&b);
}

static void from_none_to_some_failures_is_worse_than_any_limit(void **state)
{
    (void)state;
    bt_load_saved a = save("{\"request_throughput\": 8, \"failed\": 0}");
    bt_load_saved b = save("{\"request_throughput\": 8, \"failed\": 3}");
    bt_strbuf text = {0};
    double worst;
    bt_load_compare(&a, &b, &text, &worst);
    assert_true(isinf(worst));
    bt_strbuf_free(&text);
    bt_load_saved_free(&a);
    bt_load_saved_free(&b);
}

static void what_is_no_result_is_refused(void **state)
{
    (void)state;
    bt_load_saved saved;
    static const char *const texts[] = {"", "[1]", "{\"request_throughput\": 8", "{\"a\": 1}"};
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++) {
        write_file(texts[i]);
        assert_fails(bt_load_saved_read(path, &saved), BATON_ERR_BAD_MESSAGE, "request_throughput");
        bt_load_saved_free(&saved);
        unlink(path);
    }
    assert_fails(bt_load_saved_read(path, &saved), BATON_ERR_NOT_FOUND, path);
}

static char *read_back(void)
{
    static char text[200000];
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    text[fread(text, 1, sizeof(text) - 1, file)] = '\0';
    fclose(file);
    unlink(path);
    return text;
}

static unsigned count(const char *text, const char *what)
{
    unsigned n = 0;
    while ((text = strstr(text, what)) != NULL) {
        text += strlen(what);
        n++;
    }
    return n;
}

static void two_runs_are_drawn_from_their_details(void **state)
{
    (void)state;
    bt_load_saved plain = save("{\"request_throughput\": 8}");
    bt_load_saved detailed =
        save("{\"request_throughput\": 8, \"ttfts\": [0.1, 0, 0.2], "
             "\"itls\": [[0.01], [], [0.02, 0.03]], \"latencies\": [1, 0, 2]}");
    write_file("");
    assert_fails(bt_load_compare_chart(&detailed, &plain, path), BATON_ERR_INVALID_ARG,
                 "--save-detailed");
    assert_ok(bt_load_compare_chart(&detailed, &detailed, path));
    const char *picture = read_back();
    assert_int_equal(count(picture, "class=\"title\""), 3);
    assert_int_equal(count(picture, ">before<"), 3);
    bt_load_saved_free(&plain);
    bt_load_saved_free(&detailed);
}

static void a_run_is_drawn(void **state)
{
    (void)state;
    bt_load_record records[3] = {0};
    bt_load_result result = {
        .records = records, .n_requests = 3, .began_ns = 1, .duration_ns = UINT64_C(2000000000)};
    for (unsigned i = 0; i < 2; i++) { /* the third was never sent */
        records[i] = (bt_load_record){.start_ns = 1000000 * (i + 1),
                                      .sent_ns = 1000000 * (i + 1),
                                      .first_ns = 5000000,
                                      .last_ns = 9000000,
                                      .end_ns = 9500000,
                                      .output_tokens = 2,
                                      .ok = true,
                                      .ended = true};
        bt_load_samples_add(&records[i].itl, 4000000);
    }
    bt_load_search search = {.steps = {{.rate = 2}, {.rate = 1, .met = true}}, .n_steps = 2};
    write_file("");
    assert_ok(bt_load_chart_run(&result, &search, path));
    assert_int_equal(count(read_back(), "class=\"title\""), 7);
    search.n_steps = 0;
    write_file("");
    assert_ok(bt_load_chart_run(&result, &search, path));
    assert_int_equal(count(read_back(), "class=\"title\""), 5);
    assert_fails(bt_load_chart_run(&result, &search, "/nonexistent/x"), BATON_ERR_IO,
                 "/nonexistent/x");
    bt_load_record_free(&records[0]);
    bt_load_record_free(&records[1]);
}

static void a_line_of_blocks_shows_shares(void **state)
{
    (void)state;
    bt_strbuf text = {0};
    const double values[] = {0, 0, 7, 7, 14, 14};
    bt_load_sparkline(values, 6, 3, &text);
    assert_string_equal(bt_strbuf_text(&text), "▁▅█");
    bt_strbuf_clear(&text);
    bt_load_sparkline(values, 2, 72, &text); /* nothing happened */
    assert_string_equal(bt_strbuf_text(&text), "▁▁");
    bt_strbuf_free(&text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(figures_have_their_change),
        bt_test(from_none_to_some_failures_is_worse_than_any_limit),
        bt_test(what_is_no_result_is_refused),
        bt_test(two_runs_are_drawn_from_their_details),
        bt_test(a_run_is_drawn),
        bt_test(a_line_of_blocks_shows_shares),
    };
    return bt_run_tests(tests);
}
