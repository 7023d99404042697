/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "bench/load/load_progress.h"
#include "bench/load/load_report.h"
#include "core/alloc.h"
#include "http/jsonscan.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { MS = 1000000, N = 20 };

static bool near(double a, double b)
{
    return a > b - 1e-9 && a < b + 1e-9;
}

static void percentiles_interpolate(void **state)
{
    (void)state;
    uint64_t ns[] = {4 * MS, 1 * MS, 2 * MS, 3 * MS, 5 * MS};
    bt_load_spread spread = bt_load_spread_of(ns, 5);
    assert_int_equal(spread.n, 5);
    assert_true(near(spread.min, 1) && near(spread.max, 5) && near(spread.mean, 3));
    assert_true(near(spread.p50, 3) && near(spread.p90, 4.6) && near(spread.p99, 4.96));
    uint64_t one = 7 * MS;
    spread = bt_load_spread_of(&one, 1);
    assert_true(near(spread.p50, 7) && near(spread.p99, 7));
    assert_int_equal(bt_load_spread_of(NULL, 0).n, 0);
}

/* Twenty requests, a second apart: 17 streamed well, 2 failed alike, 1 never sent. */
static bt_load_result make_result(void)
{
    bt_load_result result = {.n_requests = N, .duration_ns = UINT64_C(10000) * MS};
    strcpy(result.model, "m");
    result.records = bt_calloc(N, sizeof(*result.records));
    assert_non_null(result.records);
    for (unsigned i = 0; i < N - 1; i++) {
        bt_load_record *record = &result.records[i];
        record->start_ns = UINT64_C(1000) * MS * (i + 1);
        record->ended = true;
        if (i < 2) {
            strcpy(record->kind, "http 503");
            strcpy(record->detail, "busy\x1b[2J");
            record->end_ns = record->start_ns + 5 * MS;
            continue;
        }
        record->ok = true;
        record->first_ns = record->start_ns + 10 * MS;
        record->last_ns = record->start_ns + 50 * MS;
        record->end_ns = record->start_ns + 60 * MS;
        record->prompt_tokens = 100;
        record->cached_tokens = 64;
        record->output_tokens = 5;
        snprintf(record->trace.trace, sizeof(record->trace.trace), "trace%u", i);
        bt_strbuf_printf(&record->text, "answer \"%u\"", i);
    }
    for (unsigned i = 0; i < 4; i++)
        bt_load_samples_add(&result.itl, 10 * MS);
    return result;
}

static void a_run_is_summed_up(void **state)
{
    (void)state;
    bt_load_result result = make_result();
    bt_load_summary summary;
    assert_ok(bt_load_summarize(&result, &summary));
    assert_int_equal(summary.n_requests, 20);
    assert_int_equal(summary.n_sent, 19);
    assert_int_equal(summary.n_ok, 17);
    assert_int_equal(summary.prompt_tokens, 1700);
    assert_int_equal(summary.cached_tokens, 17 * 64);
    assert_int_equal(summary.output_tokens, 85);
    assert_true(near(summary.ttft.p50, 10) && near(summary.tpot.max, 10));
    assert_true(near(summary.e2e.mean, 60) && near(summary.itl.min, 10));
    assert_int_equal(summary.n_errors, 1);
    assert_int_equal(summary.errors[0].n, 2);
    assert_string_equal(summary.errors[0].kind, "http 503");
    bt_load_result_free(&result);
}

static void more_kinds_of_errors_than_places_are_other(void **state)
{
    (void)state;
    bt_load_result result = make_result();
    for (unsigned i = 0; i < N - 1; i++) {
        result.records[i].ok = false;
        snprintf(result.records[i].kind, BT_LOAD_KIND_BYTES, "kind %u", i);
    }
    bt_load_summary summary;
    assert_ok(bt_load_summarize(&result, &summary));
    assert_int_equal(summary.n_errors, BT_LOAD_MAX_KINDS);
    assert_string_equal(summary.errors[0].kind, "other");
    assert_int_equal(summary.errors[0].n, 19 - (BT_LOAD_MAX_KINDS - 1));
    bt_load_result_free(&result);
}

static void json_says_what_the_table_says(void **state)
{
    (void)state;
    bt_load_options options = {.url = "http://h:1"};
    bt_load_result result = make_result();
    bt_load_summary summary;
    bt_strbuf text = {0};
    result.records[7].end_ns += 30 * MS;
    assert_ok(bt_load_summarize(&result, &summary));
    bt_load_report_json(&options, &result, &summary, &text);
    bt_json_value root, value, p90;
    assert_ok(bt_json_check(text.data, text.length, &root));
    assert_ok(bt_json_get(root, "failed", &value));
    assert_true(bt_slice_equals(value.text, "2"));
    assert_ok(bt_json_get(root, "requests_per_s", &value));
    assert_true(bt_slice_equals(value.text, "1.7000"));
    assert_ok(bt_json_get(root, "ttft_ms", &value));
    assert_ok(bt_json_get(value, "p90", &p90));
    assert_true(bt_slice_equals(p90.text, "10.0000"));

    assert_ok(bt_json_get(root, "slowest", &value));
    assert_true(bt_slice_equals(value.text, "{\"ms\": 90.0000, \"trace\": \"trace7\"}"));

    bt_strbuf_clear(&text);
    bt_load_report_table(&options, &result, &summary, &text);
    assert_non_null(strstr(bt_strbuf_text(&text), "90.00 ms; its stages: baton-ctl trace trace7"));
    assert_non_null(strstr(bt_strbuf_text(&text), "17 ok, 2 failed, 1 not sent"));
    assert_non_null(strstr(bt_strbuf_text(&text), "1.70 req/s"));
    assert_non_null(strstr(bt_strbuf_text(&text), "http 503"));
    assert_null(strchr(bt_strbuf_text(&text), '\x1b')); /* a server's text on our terminal */
    bt_strbuf_free(&text);
    bt_load_result_free(&result);
}

static void answers_are_saved_in_order_without_times(void **state)
{
    (void)state;
    bt_load_result result = make_result();
    char path[] = "/tmp/baton-save-XXXXXX";
    close(mkstemp(path));
    assert_ok(bt_load_report_save(path, &result));
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    char line[512];
    unsigned n = 0;
    for (; fgets(line, sizeof(line), file) != NULL; n++) {
        bt_json_value root, value;
        assert_ok(bt_json_check(line, strlen(line), &root));
        if (n == 2) {
            assert_ok(bt_json_get(root, "text", &value));
            assert_true(bt_json_string_equals(value, "answer \"2\""));
        }
    }
    assert_int_equal(n, 20);
    fclose(file);
    unlink(path);
    assert_fails(bt_load_report_save("/nonexistent/x", &result), BATON_ERR_NOT_FOUND, "save: ");
    bt_load_result_free(&result);
}

static void the_progress_line_shows_shares(void **state)
{
    (void)state;
    bt_load_progress progress = {100, 4, 50, 1, 1000, UINT64_C(10000) * MS};
    char line[200];
    bt_load_progress_format(&progress, line, sizeof(line));
    assert_string_equal(line, "[############............] 50/100  4 running  1 failed  5.0 req/s  "
                              "100 tok/s  10 s");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(percentiles_interpolate),
        bt_test(a_run_is_summed_up),
        bt_test(more_kinds_of_errors_than_places_are_other),
        bt_test(json_says_what_the_table_says),
        bt_test(answers_are_saved_in_order_without_times),
        bt_test(the_progress_line_shows_shares),
    };
    return bt_run_tests(tests);
}
