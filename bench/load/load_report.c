/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/load/load_report.h"

#include "core/alloc.h"
#include "core/fail.h"
#include "http/jsonscan.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- distributions ---- */

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static double percentile_ms(const uint64_t *sorted, size_t n, double percent)
{
    double rank = percent / 100 * (double)(n - 1);
    size_t below = (size_t)rank;
    size_t above = below + 1 < n ? below + 1 : below;
    double share = rank - (double)below;
    double ns = (double)sorted[below] * (1 - share) + (double)sorted[above] * share;
    return ns / 1e6;
}

bt_load_spread bt_load_spread_of(uint64_t *ns, size_t n)
{
    if (n == 0)
        return (bt_load_spread){0};
    qsort(ns, n, sizeof(*ns), by_value);
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)ns[i];
    return (bt_load_spread){
        .n = n,
        .min = (double)ns[0] / 1e6,
        .mean = sum / (double)n / 1e6,
        .p50 = percentile_ms(ns, n, 50),
        .p90 = percentile_ms(ns, n, 90),
        .p99 = percentile_ms(ns, n, 99),
        .max = (double)ns[n - 1] / 1e6,
    };
}

static void count_error(const bt_load_record *record, bt_load_summary *summary)
{
    size_t i = 0;
    while (i < summary->n_errors && strcmp(summary->errors[i].kind, record->kind) != 0)
        i++;
    if (i == BT_LOAD_MAX_KINDS) {
        i = BT_LOAD_MAX_KINDS - 1;
        summary->errors[i].kind = "other";
    } else if (i == summary->n_errors) {
        summary->errors[summary->n_errors++] = (bt_load_error){record->kind, record->detail, 0};
    }
    summary->errors[i].n++;
}

static int by_count(const void *a, const void *b)
{
    uint32_t x = ((const bt_load_error *)a)->n, y = ((const bt_load_error *)b)->n;
    return (x < y) - (x > y);
}

/* Durations of the requests that were ok. */
typedef struct {
    bt_load_samples ttft, tpot, e2e;
} durations;

static void add_ok(const bt_load_record *record, bt_load_summary *summary, durations *all)
{
    summary->n_ok++;
    summary->prompt_tokens += record->prompt_tokens;
    summary->cached_tokens += record->cached_tokens;
    summary->output_tokens += record->output_tokens;
    bt_load_samples_add(&all->e2e, record->end_ns - record->start_ns);
    if (record->first_ns == 0)
        return;
    bt_load_samples_add(&all->ttft, record->first_ns - record->start_ns);
    if (record->output_tokens > 1)
        bt_load_samples_add(&all->tpot,
                            (record->last_ns - record->first_ns) / (record->output_tokens - 1));
}

static double took_ms(const bt_load_record *record)
{
    return (double)(record->end_ns - record->start_ns) / 1e6;
}

baton_status bt_load_summarize(bt_load_result *result, bt_load_summary *summary)
{
    durations all = {0};
    *summary = (bt_load_summary){.n_requests = result->n_requests,
                                 .seconds = (double)result->duration_ns / 1e9};
    for (uint32_t i = 0; i < result->n_requests; i++) {
        const bt_load_record *record = &result->records[i];
        summary->n_sent += record->start_ns != 0;
        if (record->ended &&
            (summary->slowest == NULL || took_ms(record) > took_ms(summary->slowest)))
            summary->slowest = record;
        if (record->ok)
            add_ok(record, summary, &all);
        else if (record->ended)
            count_error(record, summary);
    }
    qsort(summary->errors, summary->n_errors, sizeof(summary->errors[0]), by_count);
    summary->ttft = bt_load_spread_of(all.ttft.ns, all.ttft.n);
    summary->tpot = bt_load_spread_of(all.tpot.ns, all.tpot.n);
    summary->e2e = bt_load_spread_of(all.e2e.ns, all.e2e.n);
    summary->itl = bt_load_spread_of(result->itl.ns, result->itl.n);
    bool is_short = all.ttft.failed || all.tpot.failed || all.e2e.failed || result->itl.failed;
    bt_load_samples_free(&all.ttft);
    bt_load_samples_free(&all.tpot);
    bt_load_samples_free(&all.e2e);
    if (is_short)
        return bt_fail(BATON_ERR_NO_MEMORY, "load: durations of %u requests", result->n_requests);
    return BATON_OK;
}

static double per_second(const bt_load_summary *s, uint64_t n)
{
    return s->seconds > 0 ? (double)n / s->seconds : 0;
}

/* ---- table ---- */

static void put_row(bt_strbuf *out, const char *name, const bt_load_spread *spread)
{
    if (spread->n == 0)
        return;
    bt_strbuf_printf(out, "%-10s %10.2f %10.2f %10.2f %10.2f %10.2f %10.2f\n", name, spread->min,
                     spread->mean, spread->p50, spread->p90, spread->p99, spread->max);
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
                     per_second(s, s->n_ok), per_second(s, s->prompt_tokens),
                     per_second(s, s->output_tokens));
    bt_strbuf_printf(out, "\n%-10s %10s %10s %10s %10s %10s %10s\n", "ms", "min", "mean", "p50",
                     "p90", "p99", "max");
    put_row(out, "TTFT", &s->ttft);
    put_row(out, "TPOT", &s->tpot);
    put_row(out, "ITL", &s->itl);
    put_row(out, "end-to-end", &s->e2e);
    if (s->slowest != NULL)
        bt_strbuf_printf(out, "\n%-10s %.2f ms; its stages: baton-ctl trace %s\n", "slowest",
                         took_ms(s->slowest), s->slowest->trace.trace);
    put_errors(out, s);
}

/* ---- JSON ---- */

static void put_string(bt_strbuf *out, const char *text, size_t n)
{
    size_t needed = bt_json_quote(NULL, 0, text, n);
    char *quoted = bt_calloc(needed + 1, 1);
    if (quoted == NULL) {
        out->failed = true;
        return;
    }
    bt_json_quote(quoted, needed + 1, text, n);
    bt_strbuf_append(out, quoted, needed);
    bt_free(quoted);
}

static void put_spread(bt_strbuf *out, const char *name, const bt_load_spread *s)
{
    bt_strbuf_printf(out, "  \"%s\": ", name);
    if (s->n == 0)
        bt_strbuf_puts(out, "null,\n");
    else
        bt_strbuf_printf(out,
                         "{\"n\": %zu, \"min\": %.4f, \"mean\": %.4f, \"p50\": %.4f, \"p90\": "
                         "%.4f, \"p99\": %.4f, \"max\": %.4f},\n",
                         s->n, s->min, s->mean, s->p50, s->p90, s->p99, s->max);
}

static void put_json_errors(bt_strbuf *out, const bt_load_summary *s)
{
    bt_strbuf_puts(out, "  \"errors\": [");
    for (size_t i = 0; i < s->n_errors; i++) {
        bt_strbuf_puts(out, i > 0 ? ", {\"kind\": " : "{\"kind\": ");
        put_string(out, s->errors[i].kind, strlen(s->errors[i].kind));
        bt_strbuf_printf(out, ", \"count\": %u, \"first\": ", s->errors[i].n);
        put_string(out, s->errors[i].detail, strlen(s->errors[i].detail));
        bt_strbuf_putc(out, '}');
    }
    bt_strbuf_puts(out, "]\n");
}

void bt_load_report_json(const bt_load_options *options, const bt_load_result *result,
                         const bt_load_summary *s, bt_strbuf *out)
{
    bt_strbuf_puts(out, "{\n  \"url\": ");
    put_string(out, options->url, strlen(options->url));
    bt_strbuf_puts(out, ",\n  \"model\": ");
    put_string(out, result->model, strlen(result->model));
    bt_strbuf_printf(out, ",\n  \"concurrency\": %u,\n  \"rate\": %g,\n  \"seed\": %" PRIu64 ",\n",
                     options->concurrency, options->rate, options->seed);
    bt_strbuf_printf(out, "  \"interrupted\": %s,\n", result->interrupted ? "true" : "false");
    bt_strbuf_printf(out,
                     "  \"requests\": %u,\n  \"ok\": %u,\n  \"failed\": %u,\n  \"not_sent\": %u,\n",
                     s->n_requests, s->n_ok, s->n_sent - s->n_ok, s->n_requests - s->n_sent);
    bt_strbuf_printf(out,
                     "  \"prompt_tokens\": %" PRIu64 ",\n  \"cached_tokens\": %" PRIu64
                     ",\n  \"output_tokens\": %" PRIu64 ",\n",
                     s->prompt_tokens, s->cached_tokens, s->output_tokens);
    bt_strbuf_printf(out,
                     "  \"duration_s\": %.6f,\n  \"requests_per_s\": %.4f,\n  "
                     "\"prompt_tokens_per_s\": %.4f,\n  \"output_tokens_per_s\": %.4f,\n",
                     s->seconds, per_second(s, s->n_ok), per_second(s, s->prompt_tokens),
                     per_second(s, s->output_tokens));
    put_spread(out, "ttft_ms", &s->ttft);
    put_spread(out, "tpot_ms", &s->tpot);
    put_spread(out, "itl_ms", &s->itl);
    put_spread(out, "e2e_ms", &s->e2e);
    if (s->slowest != NULL)
        bt_strbuf_printf(out, "  \"slowest\": {\"ms\": %.4f, \"trace\": \"%s\"},\n",
                         took_ms(s->slowest), s->slowest->trace.trace);
    else
        bt_strbuf_puts(out, "  \"slowest\": null,\n");
    put_json_errors(out, s);
    bt_strbuf_puts(out, "}\n");
}

/* ---- answers ---- */

static void put_answer(bt_strbuf *out, uint32_t i, const bt_load_record *record)
{
    bt_strbuf_printf(out,
                     "{\"request\": %u, \"ok\": %s, \"prompt_tokens\": %u, "
                     "\"output_tokens\": %u, \"text\": ",
                     i, record->ok ? "true" : "false", record->prompt_tokens,
                     record->output_tokens);
    put_string(out, bt_strbuf_text(&record->text), record->text.length);
    if (!record->ok) {
        bt_strbuf_puts(out, ", \"error\": ");
        put_string(out, record->kind, strlen(record->kind));
    }
    bt_strbuf_puts(out, "}\n");
}

baton_status bt_load_report_save(const char *path, const bt_load_result *result)
{
    FILE *file = fopen(path, "wb");
    if (file == NULL)
        return bt_fail_errno(bt_status_from_errno(errno), errno, "save: %s", path);
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
        status = bt_fail(BATON_ERR_IO, "save: %s: cannot be written in full", path);
    return status;
}
