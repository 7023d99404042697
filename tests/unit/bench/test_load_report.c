/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "bench/load/load_progress.h"
#include "bench/load/load_report.h"
#include "bench/load/load_result.h"
#include "core/alloc.h"
#include "http/jsonscan.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

enum { MS = 1000000, N = 20 };

static const bt_load_options options = {
    .url = "http://h:1",
    .n_requests = N,
    .concurrency = BT_LOAD_NO_LIMIT,
    .shown = {true, true, true, true, true},
    .percentiles = {{50, 90, 99}, 3},
    .goals = {.limit_ms = {[BT_LOAD_TTFT] = 10.5, [BT_LOAD_E2EL] = 70}, .is_set = true},
    .n_metadata = 1,
    .metadata = (const char *const[]){"tp=2=x"},
};

static bool near(double a, double b)
{
    return a > b - 1e-9 && a < b + 1e-9;
}

static void percentiles_interpolate(void **state)
{
    (void)state;
    uint64_t ns[] = {4 * MS, 1 * MS, 2 * MS, 3 * MS, 5 * MS};
    bt_load_spread spread = bt_load_spread_of(ns, 5, &options.percentiles);
    assert_int_equal(spread.n, 5);
    assert_true(near(spread.min, 1) && near(spread.max, 5) && near(spread.mean, 3));
    assert_true(near(spread.std * spread.std, 2));
    assert_true(near(spread.at[0], 3) && near(spread.at[1], 4.6) && near(spread.at[2], 4.96));
    uint64_t one = 7 * MS;
    spread = bt_load_spread_of(&one, 1, &options.percentiles);
    assert_true(near(spread.median, 7) && near(spread.at[2], 7) && near(spread.std, 0));
    assert_int_equal(bt_load_spread_of(NULL, 0, &options.percentiles).n, 0);
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
        record->start_ns = record->sent_ns = UINT64_C(1000) * MS * (i + 1);
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
        bt_load_samples_add(&result.records[2].itl, 10 * MS);
    return result;
}

static void a_run_is_summed_up(void **state)
{
    (void)state;
    bt_load_result result = make_result();
    bt_load_summary summary;
    assert_ok(bt_load_summarize(&options, &result, &summary));
    assert_int_equal(summary.n_requests, 20);
    assert_int_equal(summary.n_sent, 19);
    assert_int_equal(summary.n_ok, 17);
    assert_int_equal(summary.prompt_tokens, 1700);
    assert_int_equal(summary.cached_tokens, 17 * 64);
    assert_int_equal(summary.output_tokens, 85);
    const bt_load_spread *spread = summary.spread;
    assert_true(near(spread[BT_LOAD_TTFT].median, 10) && near(spread[BT_LOAD_TPOT].max, 10));
    assert_true(near(spread[BT_LOAD_E2EL].mean, 60) && near(spread[BT_LOAD_ITL].min, 10));
    assert_true(near(spread[BT_LOAD_QUEUE].max, 0));
    assert_int_equal(summary.peak_running, 1);
    assert_int_equal(summary.peak_tokens_per_s, 5);
    assert_int_equal(summary.n_good, 17);
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
    assert_ok(bt_load_summarize(&options, &result, &summary));
    assert_int_equal(summary.n_errors, BT_LOAD_MAX_KINDS);
    assert_string_equal(summary.errors[0].kind, "other");
    assert_int_equal(summary.errors[0].n, 19 - (BT_LOAD_MAX_KINDS - 1));
    bt_load_result_free(&result);
}

static void goodput_counts_what_met_every_objective(void **state)
{
    (void)state;
    bt_load_result result = make_result();
    result.records[5].first_ns += 2 * MS; /* too late a beginning */
    result.records[6].end_ns += 20 * MS;  /* too long */
    result.records[7].output_tokens = 1;  /* no TPOT: meets that objective */
    bt_load_summary summary;
    assert_ok(bt_load_summarize(&options, &result, &summary));
    assert_int_equal(summary.n_ok, 17);
    assert_int_equal(summary.n_good, 15);
    assert_int_equal(summary.spread[BT_LOAD_TPOT].n, 16);
    bt_load_result_free(&result);
}

static void requests_that_overlap_are_counted(void **state)
{
    (void)state;
    bt_load_result result = make_result();
    for (unsigned i = 3; i < 6; i++) /* three at once; a fourth begins as they end */
        result.records[i].start_ns = result.records[i].sent_ns = result.records[2].sent_ns;
    result.records[6].sent_ns = result.records[2].end_ns;
    for (unsigned i = 2; i < 6; i++)
        result.records[i].end_ns = result.records[2].end_ns;
    bt_load_summary summary;
    assert_ok(bt_load_summarize(&options, &result, &summary));
    assert_int_equal(summary.peak_running, 4);
    bt_load_result_free(&result);
}

static bt_json_value member(bt_json_value root, const char *name)
{
    bt_json_value value;
    assert_ok(bt_json_get(root, name, &value));
    return value;
}

static void json_says_what_the_table_says(void **state)
{
    (void)state;
    bt_load_result result = make_result();
    bt_load_summary summary;
    bt_strbuf text = {0};
    result.records[7].end_ns += 30 * MS;
    result.records[8].sent_ns += 6 * MS;
    assert_ok(bt_load_summarize(&options, &result, &summary));
    bt_load_result_json(&options, &result, &summary, 0, "", &text);
    bt_json_value root;
    assert_ok(bt_json_check(text.data, text.length, &root));
    assert_true(bt_json_string_equals(member(root, "date"), "19700101-000000"));
    assert_true(bt_slice_equals(member(root, "failed").text, "2"));
    assert_true(bt_slice_equals(member(root, "not_sent").text, "1"));
    assert_true(bt_slice_equals(member(root, "request_throughput").text, "1.7"));
    assert_true(bt_slice_equals(member(root, "request_goodput").text, "1.6"));
    assert_true(bt_slice_equals(member(root, "p90_ttft_ms").text, "10"));
    assert_true(bt_slice_equals(member(root, "median_tpot_ms").text, "10"));
    assert_true(bt_slice_equals(member(root, "goodput").text, "{\"ttft\": 10.5, \"e2el\": 70}"));
    assert_true(bt_json_string_equals(member(root, "request_rate"), "inf"));
    assert_int_equal(member(root, "max_concurrency").type, BT_JSON_NULL);
    assert_true(bt_json_string_equals(member(root, "tp"), "2=x"));
    assert_true(
        bt_slice_equals(member(root, "slowest").text, "{\"ms\": 90.0000, \"trace\": \"trace7\"}"));
    bt_strbuf_clear(&text);
    bt_load_report_table(&options, &result, &summary, &text);
    assert_non_null(strstr(bt_strbuf_text(&text), "90.00 ms; its stages: baton-ctl trace trace7"));
    assert_non_null(strstr(bt_strbuf_text(&text), "17 ok, 2 failed, 1 not sent"));
    assert_non_null(strstr(bt_strbuf_text(&text), "1.70 req/s"));
    assert_non_null(strstr(bt_strbuf_text(&text), "1.60 req/s: 16 of 19 within ttft:10.5 e2el:70"));
    assert_non_null(strstr(bt_strbuf_text(&text), "sent up to 6.0 ms after"));
    assert_non_null(strstr(bt_strbuf_text(&text), "http 503"));
    assert_null(strchr(bt_strbuf_text(&text), '\x1b')); /* a server's text on our terminal */
    bt_strbuf_free(&text);
    bt_load_result_free(&result);
}

static void details_hold_every_request(void **state)
{
    (void)state;
    bt_load_options detailed = options;
    detailed.save_detailed = true;
    bt_load_result result = make_result();
    bt_load_summary summary;
    bt_strbuf text = {0};
    assert_ok(bt_load_summarize(&detailed, &result, &summary));
    bt_load_result_json(&detailed, &result, &summary, 0, ",\n  \"more\": 1", &text);
    bt_json_value root, value;
    assert_ok(bt_json_check(text.data, text.length, &root));
    assert_true(bt_slice_equals(member(root, "more").text, "1"));
    static const char *const lists[] = {
        "input_lens", "output_lens", "start_times",     "ttfts", "itls",
        "latencies",  "queue_times", "generated_texts", "errors"};
    for (size_t i = 0; i < sizeof(lists) / sizeof(lists[0]); i++)
        assert_int_equal(bt_json_length(member(root, lists[i])), N);
    bt_json_iter iter = bt_json_begin(member(root, "itls"));
    for (unsigned i = 0; i < 3; i++)
        assert_true(bt_json_next(&iter, &value));
    assert_true(
        bt_slice_equals(value.text, "[0.010000000, 0.010000000, 0.010000000, 0.010000000]"));
    iter = bt_json_begin(member(root, "errors"));
    assert_true(bt_json_next(&iter, &value));
    assert_true(bt_slice_equals(value.text, "\"http 503: busy\\u001b[2J\""));
    bt_strbuf_free(&text);
    bt_load_result_free(&result);
}

static void a_saved_result_is_named_after_its_run(void **state)
{
    (void)state;
    bt_load_options named = options;
    bt_load_result result = {0};
    bt_strbuf path = {0}, text = {0};
    char folder[] = "/tmp/baton-result-XXXXXX";
    assert_non_null(mkdtemp(folder));
    strcpy(result.model, "org/m");
    named.result_dir = folder;
    result.rate = 2.5;
    assert_ok(bt_load_result_path(&named, &result, 0, &path));
    assert_non_null(strstr(bt_strbuf_text(&path), "/openai-2.5qps-m-19700101-000000.json"));
    bt_strbuf_puts(&text, "{}");
    assert_ok(bt_load_result_save(&named, bt_strbuf_text(&path), &text));
    assert_int_equal(unlink(bt_strbuf_text(&path)), 0);
    rmdir(folder);
    assert_fails(bt_load_result_save(&options, "/nonexistent/x", &text), BATON_ERR_NOT_FOUND,
                 "--save-result: ");
    bt_strbuf_free(&path);
    bt_strbuf_free(&text);
}

static void answers_are_saved_in_order_without_times(void **state)
{
    (void)state;
    bt_load_result result = make_result();
    char path[] = "/tmp/baton-save-XXXXXX";
    close(mkstemp(path));
    assert_ok(bt_load_report_answers(path, &result));
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
    assert_fails(bt_load_report_answers("/nonexistent/x", &result), BATON_ERR_NOT_FOUND,
                 "--save-answers: ");
    bt_load_result_free(&result);
}

static void the_progress_line_shows_shares(void **state)
{
    (void)state;
    bt_load_progress progress = {"", 100, 4, 50, 1, 1000, UINT64_C(10000) * MS};
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
        bt_test(goodput_counts_what_met_every_objective),
        bt_test(requests_that_overlap_are_counted),
        bt_test(json_says_what_the_table_says),
        bt_test(details_hold_every_request),
        bt_test(a_saved_result_is_named_after_its_run),
        bt_test(answers_are_saved_in_order_without_times),
        bt_test(the_progress_line_shows_shares),
    };
    return bt_run_tests(tests);
}
