/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/load/load_result.h"

#include "core/fail.h"
#include "http/jsonscan.h"

#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* Every member but the first of the object begins with a comma. */
static void put_name(bt_strbuf *out, const char *name)
{
    bt_strbuf_puts(out, ",\n  ");
    bt_json_append_string(out, name, strlen(name));
    bt_strbuf_puts(out, ": ");
}

static void put_text(bt_strbuf *out, const char *name, const char *text)
{
    put_name(out, name);
    if (text == NULL)
        bt_strbuf_puts(out, "null");
    else
        bt_json_append_string(out, text, strlen(text));
}

/* JSON has no infinity: "inf", as vLLM writes it. */
static void put_number(bt_strbuf *out, const char *name, double value)
{
    put_name(out, name);
    if (isinf(value))
        bt_strbuf_puts(out, "\"inf\"");
    else
        bt_strbuf_printf(out, "%.10g", value);
}

static void put_count(bt_strbuf *out, const char *name, uint64_t value)
{
    put_name(out, name);
    bt_strbuf_printf(out, "%" PRIu64, value);
}

/* ---- what was asked for ---- */

static void put_goals(bt_strbuf *out, const bt_load_goals *goals)
{
    put_name(out, "goodput");
    if (!goals->is_set) {
        bt_strbuf_puts(out, "null");
        return;
    }
    const char *comma = "{";
    for (bt_load_metric m = 0; m < BT_LOAD_N_METRICS; m++) {
        if (goals->limit_ms[m] > 0) {
            bt_strbuf_printf(out, "%s\"%s\": %g", comma, bt_load_metric_name(m),
                             goals->limit_ms[m]);
            comma = ", ";
        }
    }
    bt_strbuf_putc(out, '}');
}

static void put_load(bt_strbuf *out, const bt_load_options *o, const bt_load_result *result)
{
    static const char *const ramps[] = {NULL, "linear", "exponential"};
    put_count(out, "num_prompts", result->n_requests);
    put_count(out, "num_warmups", o->n_warmups);
    put_number(out, "request_rate", result->rate > 0 ? result->rate : INFINITY);
    put_number(out, "burstiness", o->burstiness);
    put_count(out, "burst_size", o->burst_size);
    if (o->concurrency == BT_LOAD_NO_LIMIT)
        put_text(out, "max_concurrency", NULL);
    else
        put_count(out, "max_concurrency", o->concurrency);
    put_text(out, "ramp_up_strategy", ramps[o->ramp]);
    if (o->ramp != BT_LOAD_NO_RAMP) {
        put_number(out, "ramp_up_start_rps", o->ramp_start);
        put_number(out, "ramp_up_end_rps", o->ramp_end);
    }
    put_count(out, "seed", o->seed);
    put_goals(out, &o->goals);
}

static void put_prompts(bt_strbuf *out, const bt_load_options *o)
{
    char range[32];
    put_text(out, "dataset_path", o->dataset_path);
    if (o->dataset_path == NULL) {
        snprintf(range, sizeof(range), "%u:%u", o->input_tokens.min, o->input_tokens.max);
        put_text(out, "random_input_len", range);
        put_count(out, "random_prefix_len", o->prefix_tokens);
        put_count(out, "num_prefixes", o->n_prefixes);
    }
    snprintf(range, sizeof(range), "%u:%u", o->output_tokens.min, o->output_tokens.max);
    put_text(out, "random_output_len", range);
    put_count(out, "turns", o->n_turns);
    put_number(out, "turn_delay", o->turn_delay_ms / 1e3);
    put_name(out, "ignore_eos");
    bt_strbuf_puts(out, o->ignore_eos ? "true" : "false");
    put_number(out, "temperature", o->temperature);
}

static void put_metadata(bt_strbuf *out, const bt_load_options *o)
{
    for (uint32_t i = 0; i < o->n_metadata; i++) {
        const char *text = o->metadata[i];
        size_t n = strcspn(text, "=");
        bt_strbuf_puts(out, ",\n  ");
        bt_json_append_string(out, text, n);
        bt_strbuf_puts(out, ": ");
        bt_json_append_string(out, text + n + 1, strlen(text + n + 1));
    }
}

/* ---- what came of it ---- */

static void put_totals(bt_strbuf *out, const bt_load_options *o, const bt_load_summary *s)
{
    put_number(out, "duration", s->seconds);
    put_count(out, "completed", s->n_ok);
    put_count(out, "failed", s->n_sent - s->n_ok);
    put_count(out, "not_sent", s->n_requests - s->n_sent);
    put_count(out, "total_input_tokens", s->prompt_tokens);
    put_count(out, "total_cached_tokens", s->cached_tokens);
    put_count(out, "total_output_tokens", s->output_tokens);
    put_number(out, "request_throughput", bt_load_per_second(s, s->n_ok));
    if (o->goals.is_set)
        put_number(out, "request_goodput", bt_load_per_second(s, s->n_good));
    else
        put_text(out, "request_goodput", NULL);
    put_number(out, "output_throughput", bt_load_per_second(s, s->output_tokens));
    put_number(out, "total_token_throughput",
               bt_load_per_second(s, s->prompt_tokens + s->output_tokens));
    put_count(out, "max_output_tokens_per_s", s->peak_tokens_per_s);
    put_count(out, "max_concurrent_requests", s->peak_running);
}

static void put_statistic(bt_strbuf *out, const char *what, bt_load_metric metric, double ms)
{
    char name[64];
    snprintf(name, sizeof(name), "%s_%s_ms", what, bt_load_metric_name(metric));
    put_number(out, name, ms);
}

static void put_spread(bt_strbuf *out, bt_load_metric metric, const bt_load_spread *spread,
                       const bt_load_percentiles *percentiles)
{
    if (spread->n == 0)
        return;
    put_statistic(out, "mean", metric, spread->mean);
    put_statistic(out, "median", metric, spread->median);
    put_statistic(out, "std", metric, spread->std);
    put_statistic(out, "min", metric, spread->min);
    for (uint32_t i = 0; i < percentiles->n; i++) {
        char name[BT_LOAD_PERCENTILE_CHARS];
        bt_load_percentile_name(percentiles->percent[i], name);
        put_statistic(out, name, metric, spread->at[i]);
    }
    put_statistic(out, "max", metric, spread->max);
}

static void put_errors(bt_strbuf *out, const bt_load_summary *s)
{
    put_name(out, "errors_by_kind");
    bt_strbuf_putc(out, '[');
    for (size_t i = 0; i < s->n_errors; i++) {
        bt_strbuf_puts(out, i > 0 ? ", {\"kind\": " : "{\"kind\": ");
        bt_json_append_string(out, s->errors[i].kind, strlen(s->errors[i].kind));
        bt_strbuf_printf(out, ", \"count\": %u, \"first\": ", s->errors[i].n);
        bt_json_append_string(out, s->errors[i].detail, strlen(s->errors[i].detail));
        bt_strbuf_putc(out, '}');
    }
    bt_strbuf_putc(out, ']');
}

/* ---- every request ---- */

typedef void (*put_fn)(bt_strbuf *out, const bt_load_result *result, const bt_load_record *record);

static void put_seconds(bt_strbuf *out, uint64_t ns)
{
    bt_strbuf_printf(out, "%" PRIu64 ".%09" PRIu64, ns / 1000000000, ns % 1000000000);
}

/* A metric of an ok request; 0 where there is none, as in vLLM. */
static void put_value(bt_strbuf *out, const bt_load_record *record, bt_load_metric metric)
{
    uint64_t ns = 0;
    if (record->ok)
        (void)bt_load_value_ns(record, metric, &ns);
    put_seconds(out, ns);
}

static void put_input_len(bt_strbuf *out, const bt_load_result *result,
                          const bt_load_record *record)
{
    (void)result;
    bt_strbuf_printf(out, "%u", record->prompt_tokens);
}

static void put_output_len(bt_strbuf *out, const bt_load_result *result,
                           const bt_load_record *record)
{
    (void)result;
    bt_strbuf_printf(out, "%u", record->ok ? record->output_tokens : 0);
}

static void put_start(bt_strbuf *out, const bt_load_result *result, const bt_load_record *record)
{
    bool was_sent = record->start_ns > result->began_ns;
    put_seconds(out, was_sent ? record->start_ns - result->began_ns : 0);
}

static void put_ttft(bt_strbuf *out, const bt_load_result *result, const bt_load_record *record)
{
    (void)result;
    put_value(out, record, BT_LOAD_TTFT);
}

static void put_latency(bt_strbuf *out, const bt_load_result *result, const bt_load_record *record)
{
    (void)result;
    put_value(out, record, BT_LOAD_E2EL);
}

static void put_queue_time(bt_strbuf *out, const bt_load_result *result,
                           const bt_load_record *record)
{
    (void)result;
    put_value(out, record, BT_LOAD_QUEUE);
}

static void put_itls(bt_strbuf *out, const bt_load_result *result, const bt_load_record *record)
{
    (void)result;
    bt_strbuf_putc(out, '[');
    for (size_t k = 0; k < record->itl.n; k++) {
        bt_strbuf_puts(out, k > 0 ? ", " : "");
        put_seconds(out, record->itl.ns[k]);
    }
    bt_strbuf_putc(out, ']');
}

static void put_answer(bt_strbuf *out, const bt_load_result *result, const bt_load_record *record)
{
    (void)result;
    bt_json_append_string(out, bt_strbuf_text(&record->text), record->text.length);
}

static void put_error(bt_strbuf *out, const bt_load_result *result, const bt_load_record *record)
{
    (void)result;
    char text[BT_LOAD_KIND_BYTES + BT_LOAD_DETAIL_BYTES + 2] = "";
    if (!record->ended)
        snprintf(text, sizeof(text), "not sent");
    else if (!record->ok)
        snprintf(text, sizeof(text), "%s: %s", record->kind, record->detail);
    bt_json_append_string(out, text, strlen(text));
}

static void put_requests(bt_strbuf *out, const bt_load_result *result)
{
    static const struct {
        const char *name;
        put_fn put;
    } lists[] = {
        {"input_lens", put_input_len},
        {"output_lens", put_output_len},
        {"start_times", put_start},
        {"ttfts", put_ttft},
        {"itls", put_itls},
        {"latencies", put_latency},
        {"queue_times", put_queue_time},
        {"generated_texts", put_answer},
        {"errors", put_error},
    };
    for (size_t k = 0; k < sizeof(lists) / sizeof(lists[0]); k++) {
        put_name(out, lists[k].name);
        bt_strbuf_putc(out, '[');
        for (uint32_t i = 0; i < result->n_requests; i++) {
            bt_strbuf_puts(out, i > 0 ? ", " : "");
            lists[k].put(out, result, &result->records[i]);
        }
        bt_strbuf_putc(out, ']');
    }
}

/* ---- the whole ---- */

static const char *backend_name(const bt_load_options *o)
{
    return o->backend == BT_LOAD_CHAT ? "openai-chat" : "openai";
}

void bt_load_result_json(const bt_load_options *o, const bt_load_result *result,
                         const bt_load_summary *s, time_t date, const char *more, bt_strbuf *out)
{
    char when[32];
    struct tm parts;
    strftime(when, sizeof(when), "%Y%m%d-%H%M%S", gmtime_r(&date, &parts));
    bt_strbuf_printf(out, "{\n  \"date\": \"%s\"", when);
    put_text(out, "backend", backend_name(o));
    put_text(out, "label", o->label);
    put_text(out, "model_id", result->model);
    put_text(out, "base_url", o->url);
    put_metadata(out, o);
    put_load(out, o, result);
    put_prompts(out, o);
    put_name(out, "interrupted");
    bt_strbuf_puts(out, result->interrupted ? "true" : "false");
    put_totals(out, o, s);
    for (bt_load_metric m = 0; m < BT_LOAD_N_METRICS; m++) {
        if (o->shown[m])
            put_spread(out, m, &s->spread[m], &o->percentiles);
    }
    put_name(out, "slowest");
    if (s->slowest != NULL)
        bt_strbuf_printf(out, "{\"ms\": %.4f, \"trace\": \"%s\"}",
                         (double)(s->slowest->end_ns - s->slowest->start_ns) / 1e6,
                         s->slowest->trace.trace);
    else
        bt_strbuf_puts(out, "null");
    put_errors(out, s);
    bt_strbuf_puts(out, more);
    if (o->save_detailed)
        put_requests(out, result);
    bt_strbuf_puts(out, "\n}\n");
}

baton_status bt_load_result_path(const bt_load_options *o, const bt_load_result *result,
                                 time_t date, bt_strbuf *path)
{
    if (o->result_dir != NULL)
        bt_strbuf_printf(path, "%s/", o->result_dir);
    if (o->result_filename != NULL) {
        bt_strbuf_puts(path, o->result_filename);
        return bt_strbuf_status(path);
    }
    char when[32];
    struct tm parts;
    const char *slash = strrchr(result->model, '/');
    strftime(when, sizeof(when), "%Y%m%d-%H%M%S", gmtime_r(&date, &parts));
    bt_strbuf_printf(path, "%s-%gqps", o->label != NULL ? o->label : backend_name(o),
                     result->rate > 0 ? result->rate : INFINITY);
    if (o->concurrency != BT_LOAD_NO_LIMIT)
        bt_strbuf_printf(path, "-concurrency%u", o->concurrency);
    bt_strbuf_printf(path, "-%s-%s.json", slash != NULL ? slash + 1 : result->model, when);
    return bt_strbuf_status(path);
}

baton_status bt_load_result_save(const bt_load_options *o, const char *path, const bt_strbuf *text)
{
    if (o->result_dir != NULL && mkdir(o->result_dir, 0777) != 0 && errno != EEXIST)
        return bt_fail_errno(bt_status_from_errno(errno), errno, "--result-dir: %s", o->result_dir);
    FILE *file = fopen(path, "wb");
    if (file == NULL)
        return bt_fail_errno(bt_status_from_errno(errno), errno, "--save-result: %s", path);
    fwrite(bt_strbuf_text(text), 1, text->length, file);
    bool is_broken = ferror(file) != 0;
    is_broken = fclose(file) != 0 || is_broken;
    if (is_broken)
        return bt_fail(BATON_ERR_IO, "--save-result: %s: cannot be written in full", path);
    return BATON_OK;
}
