/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/load/load_report.h"

#include "bench/load/load_chart.h"
#include "core/fail.h"
#include "http/jsonscan.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static void put_head(bt_strbuf *out, const bt_load_percentiles *percentiles)
{
    bt_strbuf_printf(out, "\n%-10s %10s %10s %10s", "ms", "mean", "std", "min");
    for (uint32_t i = 0; i < percentiles->n; i++) {
        char name[BT_LOAD_PERCENTILE_CHARS];
        bt_load_percentile_name(percentiles->percent[i], name);
        bt_strbuf_printf(out, " %10s", name);
    }
    bt_strbuf_printf(out, " %10s\n", "max");
}

static void put_row(bt_strbuf *out, const char *name, const bt_load_spread *spread,
                    const bt_load_percentiles *percentiles)
{
    if (spread->n == 0)
        return;
    bt_strbuf_printf(out, "%-10s %10.2f %10.2f %10.2f", name, spread->mean, spread->std,
                     spread->min);
    for (uint32_t i = 0; i < percentiles->n; i++)
        bt_strbuf_printf(out, " %10.2f", spread->at[i]);
    bt_strbuf_printf(out, " %10.2f\n", spread->max);
}

static void put_spreads(bt_strbuf *out, const bt_load_options *o, const bt_load_summary *s)
{
    put_head(out, &o->percentiles);
    for (bt_load_metric m = 0; m < BT_LOAD_N_METRICS; m++) {
        if (o->shown[m])
            put_row(out, bt_load_metric_title(m), &s->spread[m], &o->percentiles);
    }
}

static void put_goodput(bt_strbuf *out, const bt_load_goals *goals, const bt_load_summary *s)
{
    if (!goals->is_set)
        return;
    bt_strbuf_printf(out, "%-10s %.2f req/s: %u of %u within", "goodput",
                     bt_load_per_second(s, s->n_good), s->n_good, s->n_sent);
    for (bt_load_metric m = 0; m < BT_LOAD_N_METRICS; m++) {
        if (goals->limit_ms[m] > 0)
            bt_strbuf_printf(out, " %s:%g", bt_load_metric_name(m), goals->limit_ms[m]);
    }
    bt_strbuf_putc(out, '\n');
}

/* What the run looked like, second by second. */
static void put_over_time(bt_strbuf *out, const bt_load_result *result, const bt_load_summary *s)
{
    enum { WIDTH = 72 };
    bt_load_timeline timeline;
    if (bt_load_timeline_make(result, &timeline) != BATON_OK) {
        out->failed = true;
        return;
    }
    if (timeline.n >= 4 && s->peak_tokens_per_s > 0) {
        bt_strbuf_printf(out, "\n%-10s ", "tok/s");
        bt_load_sparkline(timeline.tokens, timeline.n, WIDTH, out);
        bt_strbuf_printf(out, "\n%-10s ", "running");
        bt_load_sparkline(timeline.running, timeline.n, WIDTH, out);
        bt_strbuf_putc(out, '\n');
    }
    bt_load_timeline_free(&timeline);
}

/* Without a limit nothing has to wait: what was sent late, this program sent late. */
static void put_lateness(bt_strbuf *out, const bt_load_options *o, const bt_load_summary *s)
{
    const bt_load_spread *late = &s->spread[BT_LOAD_QUEUE];
    if (o->concurrency == BT_LOAD_NO_LIMIT && late->max > 0)
        bt_strbuf_printf(out,
                         "%-10s baton-load sent up to %.1f ms after requests were due (mean %.2f), "
                         "which is in the figures\n",
                         "late", late->max, late->mean);
}

static void put_errors(bt_strbuf *out, const bt_load_summary *s)
{
    if (s->n_errors == 0)
        return;
    bt_strbuf_puts(out, "\nerrors\n");
    for (size_t i = 0; i < s->n_errors; i++) {
        bt_strbuf_printf(out, "%7u  %-40s  ", s->errors[i].n, s->errors[i].kind);
        /* Texts of a server are foreign: no control characters on somebody's terminal. */
        bt_strbuf_escape(out, s->errors[i].detail);
        bt_strbuf_putc(out, '\n');
    }
}

void bt_load_report_table(const bt_load_options *options, const bt_load_result *result,
                          const bt_load_summary *s, bt_strbuf *out)
{
    bt_strbuf_printf(out, "%s  model ", options->url);
    bt_strbuf_escape(out, result->model);
    bt_strbuf_printf(out, "\n%-10s %u ok, %u failed, %u not sent%s\n", "requests", s->n_ok,
                     s->n_sent - s->n_ok, s->n_requests - s->n_sent,
                     result->interrupted ? " (interrupted)" : "");
    bt_strbuf_printf(out, "%-10s %" PRIu64 " prompt (%" PRIu64 " cached), %" PRIu64 " output\n",
                     "tokens", s->prompt_tokens, s->cached_tokens, s->output_tokens);
    bt_strbuf_printf(out, "%-10s %.2f s\n", "duration", s->seconds);
    bt_strbuf_printf(out, "%-10s %.2f req/s, %.1f prompt tok/s, %.1f output tok/s\n", "throughput",
                     bt_load_per_second(s, s->n_ok), bt_load_per_second(s, s->prompt_tokens),
                     bt_load_per_second(s, s->output_tokens));
    bt_strbuf_printf(out, "%-10s %u requests at once, %u output tok/s\n", "peak", s->peak_running,
                     s->peak_tokens_per_s);
    put_goodput(out, &options->goals, s);
    put_lateness(out, options, s);
    put_spreads(out, options, s);
    put_over_time(out, result, s);
    if (s->slowest != NULL)
        bt_strbuf_printf(out, "\n%-10s %.2f ms; its stages: baton-ctl trace %s\n", "slowest",
                         (double)(s->slowest->end_ns - s->slowest->start_ns) / 1e6,
                         s->slowest->trace.trace);
    put_errors(out, s);
}

/* ---- answers ---- */

static void put_answer(bt_strbuf *out, uint32_t i, const bt_load_record *record)
{
    bt_strbuf_printf(out,
                     "{\"request\": %u, \"ok\": %s, \"prompt_tokens\": %u, "
                     "\"output_tokens\": %u, \"text\": ",
                     i, record->ok ? "true" : "false", record->prompt_tokens,
                     record->output_tokens);
    bt_json_append_string(out, bt_strbuf_text(&record->text), record->text.length);
    if (!record->ok) {
        bt_strbuf_puts(out, ", \"error\": ");
        bt_json_append_string(out, record->kind, strlen(record->kind));
    }
    bt_strbuf_puts(out, "}\n");
}

baton_status bt_load_report_answers(const char *path, const bt_load_result *result)
{
    FILE *file = fopen(path, "wb");
    if (file == NULL)
        return bt_fail_errno(bt_status_from_errno(errno), errno, "--save-answers: %s", path);
    bt_strbuf line = {0};
    baton_status status = BATON_OK;
    for (uint32_t i = 0; i < result->n_requests && status == BATON_OK; i++) {
        bt_strbuf_clear(&line);
        put_answer(&line, i, &result->records[i]);
        status = bt_strbuf_status(&line);
        if (status == BATON_OK)
            status = bt_strbuf_status(&result->records[i].text);
        fwrite(bt_strbuf_text(&line), 1, line.length, file);
    }
    bt_strbuf_free(&line);
    bool is_broken = ferror(file) != 0;
    is_broken = fclose(file) != 0 || is_broken;
    if (status == BATON_OK && is_broken)
        status = bt_fail(BATON_ERR_IO, "--save-answers: %s: cannot be written in full", path);
    return status;
}
