/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/load/load_options.h"

#include "core/fail.h"
#include "http/httpmsg.h"

#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DEFAULT_CONCURRENCY = 8 };

#define OPTION(name, field)                                  \
    .key = name, .offset = offsetof(bt_load_options, field), \
    .size = sizeof(((bt_load_options *)0)->field)
#define LIST(name, field, n_field) \
    OPTION(name, field), .count_offset = offsetof(bt_load_options, n_field)

static const char *const backends[] = {"openai", "openai-chat", NULL};
static const char *const ramps[] = {"none", "linear", "exponential", NULL};

static const bt_config_entry server_entries[] = {
    {OPTION("base_url", url), .type = BT_CONFIG_STRING, .fallback = "http://127.0.0.1:8000",
     .help = "The server."},
    {OPTION("backend", backend), .type = BT_CONFIG_ENUM, .fallback = "openai", .names = backends,
     .help = "/v1/completions, or /v1/chat/completions."},
    {OPTION("endpoint", endpoint), .type = BT_CONFIG_STRING, .help = "Another path."},
    {OPTION("model", model), .type = BT_CONFIG_STRING,
     .help = "Default: the first one that the server lists."},
    {OPTION("api_key", api_key), .type = BT_CONFIG_STRING,
     .help = "Sent as Authorization: Bearer."},
    {LIST("header", headers, n_headers), .type = BT_CONFIG_STRINGS,
     .help = "NAME=VALUE,... sent as headers with every request."},
    {OPTION("timeout", timeout_ms), .type = BT_CONFIG_DURATION, .min = 1, .max = 86400000,
     .fallback = "300s", .help = "A request that takes longer has failed."},
    {OPTION("connect_timeout", connect_timeout_ms), .type = BT_CONFIG_DURATION, .min = 1,
     .max = 86400000, .fallback = "5s", .help = "The same for connecting."},
};

static const bt_config_entry load_entries[] = {
    {OPTION("num_prompts", n_requests), .type = BT_CONFIG_UINT32, .min = 1,
     .max = BT_LOAD_MAX_REQUESTS, .fallback = "100", .help = "Requests to measure."},
    {OPTION("num_warmups", n_warmups), .type = BT_CONFIG_UINT32, .max = BT_LOAD_MAX_REQUESTS,
     .fallback = "0", .help = "Requests before them, with other prompts, not measured."},
    {OPTION("max_concurrency", concurrency), .type = BT_CONFIG_UINT32, .max = BT_LOAD_MAX_REQUESTS,
     .fallback = "0",
     .help = "Requests at the same time. 0: 8, or with --request-rate no limit. A request that is "
             "due and has to wait for a place is measured from when it was due."},
    {OPTION("request_rate", rate_text), .type = BT_CONFIG_STRING, .fallback = "inf",
     .help = "Requests a second. inf: the next one starts when one ends."},
    {OPTION("burstiness", burst_text), .type = BT_CONFIG_STRING, .fallback = "1",
     .help =
         "Gaps between arrivals: 1 Poisson, inf constant, below 1 in clusters (shape of a gamma "
         "distribution)."},
    {OPTION("burst_size", burst_size), .type = BT_CONFIG_UINT32, .min = 1,
     .max = BT_LOAD_MAX_REQUESTS, .fallback = "1",
     .help = "So many arrive at the same moment; the rate stays what it is."},
    {OPTION("ramp_up_strategy", ramp), .type = BT_CONFIG_ENUM, .fallback = "none", .names = ramps,
     .help = "The rate goes from --ramp-up-start-rps to --ramp-up-end-rps instead."},
    {OPTION("ramp_up_start_rps", ramp_start), .type = BT_CONFIG_DOUBLE, .max = 1e6, .fallback = "0",
     .help = "Requests a second at the start."},
    {OPTION("ramp_up_end_rps", ramp_end), .type = BT_CONFIG_DOUBLE, .max = 1e6, .fallback = "0",
     .help = "Requests a second at the end."},
    {OPTION("turns", n_turns), .type = BT_CONFIG_UINT32, .min = 1, .max = 1000, .fallback = "1",
     .help = "Requests of a conversation: each begins with all that was said before. The rate is "
             "that of conversations then."},
    {OPTION("turn_delay", turn_delay_ms), .type = BT_CONFIG_DURATION, .max = 86400000,
     .fallback = "0s", .help = "From the end of an answer to the next turn."},
    {OPTION("seed", seed), .type = BT_CONFIG_UINT64, .fallback = "0",
     .help = "Prompts, lengths and arrivals are the same for the same seed."},
};

static const bt_config_entry prompt_entries[] = {
    {OPTION("random_input_len", input_len), .type = BT_CONFIG_STRING, .fallback = "256",
     .help = "Tokens of made-up prompts: N, or MIN:MAX."},
    {OPTION("random_output_len", output_len), .type = BT_CONFIG_STRING, .fallback = "64",
     .help = "max_tokens: N, or MIN:MAX."},
    {OPTION("random_range_ratio", range_ratio), .type = BT_CONFIG_DOUBLE, .max = 0.999999,
     .fallback = "0", .help = "N stands for N*(1-R) to N*(1+R)."},
    {OPTION("random_prefix_len", prefix_tokens), .type = BT_CONFIG_UINT32,
     .max = BT_LOAD_MAX_TOKENS, .fallback = "0",
     .help = "Tokens in front of them that are the same in all prompts."},
    {OPTION("num_prefixes", n_prefixes), .type = BT_CONFIG_UINT32, .min = 1,
     .max = BT_LOAD_MAX_REQUESTS, .fallback = "1", .help = "So many such prefixes, in turns."},
    {OPTION("dataset_path", dataset_path), .type = BT_CONFIG_STRING,
     .help = "Prompts from a file, over and over: one a line; in a .jsonl, a JSON string or "
             "{\"prompt\" or \"messages\", \"max_tokens\"} a line; a .json has conversations as "
             "ShareGPT."},
    {OPTION("chars_per_token", chars_per_token), .type = BT_CONFIG_UINT32, .min = 1, .max = 64,
     .fallback = "1", .help = "Letters for a made-up token: about 4 for most models."},
    {OPTION("token_ids", token_ids), .type = BT_CONFIG_BOOL, .fallback = "false",
     .help = "Make prompts of token ids, exact in length, instead of text."},
    {OPTION("vocab", vocab), .type = BT_CONFIG_UINT32, .min = 1, .max = 1 << 24, .fallback = "256",
     .help = "Token ids lie below this."},
    {OPTION("ignore_eos", ignore_eos), .type = BT_CONFIG_BOOL, .fallback = "false",
     .help = "Ask for exactly max_tokens tokens."},
    {OPTION("temperature", temperature), .type = BT_CONFIG_DOUBLE, .min = 0, .max = 10,
     .fallback = "0", .help = "Above 0, each request has a seed of its own."},
    {OPTION("stream", stream), .type = BT_CONFIG_BOOL, .fallback = "true",
     .help = "With --no-stream there is no TTFT, TPOT or ITL."},
};

static const bt_config_entry measure_entries[] = {
    {LIST("goodput", goodput, n_goodput), .type = BT_CONFIG_STRINGS,
     .help = "Objectives in ms, as ttft:200 tpot:50 e2el:9000. Goodput is the rate of requests "
             "that meet all."},
    {OPTION("find_rate", find_rate), .type = BT_CONFIG_BOOL, .fallback = "false",
     .help = "Look for the highest rate at which requests meet --goodput, from --request-rate (1) "
             "on, in steps of at least --num-prompts requests."},
    {OPTION("goodput_share", goodput_share), .type = BT_CONFIG_DOUBLE, .min = 0.01, .max = 1,
     .fallback = "0.9", .help = "So large a part of them has to."},
    {OPTION("step_time", step_ms), .type = BT_CONFIG_DURATION, .min = 1, .max = 86400000,
     .fallback = "10s", .help = "Requests arrive for at least so long in each step."},
    {LIST("percentile_metrics", metric_names, n_metric_names), .type = BT_CONFIG_STRINGS,
     .fallback = "ttft,tpot,itl,e2el", .help = "What is told; client_queue_time may be added."},
    {LIST("metric_percentiles", percentile_texts, n_percentile_texts), .type = BT_CONFIG_STRINGS,
     .fallback = "50,90,99", .help = "Of these."},
};

static const bt_config_entry result_entries[] = {
    {OPTION("json", json), .type = BT_CONFIG_BOOL, .fallback = "false",
     .help = "Print the result as JSON instead of a table."},
    {OPTION("save_result", save_result), .type = BT_CONFIG_BOOL, .fallback = "false",
     .help = "Write it to a file, with vLLM's names."},
    {OPTION("save_detailed", save_detailed), .type = BT_CONFIG_BOOL, .fallback = "false",
     .help = "With every request's times, text and error."},
    {OPTION("result_dir", result_dir), .type = BT_CONFIG_STRING, .help = "Folder of the file."},
    {OPTION("result_filename", result_filename), .type = BT_CONFIG_STRING,
     .help = "Its name; also saves. Default: label, rate, model and time."},
    {OPTION("label", label), .type = BT_CONFIG_STRING, .help = "What the run is called."},
    {LIST("metadata", metadata, n_metadata), .type = BT_CONFIG_STRINGS,
     .help = "KEY=VALUE,... that the file shall hold."},
    {OPTION("chart", chart_path), .type = BT_CONFIG_STRING,
     .help = "Draw distributions and what happened over time into this SVG file."},
    {OPTION("save_answers", answers_path), .type = BT_CONFIG_STRING,
     .help = "Write every answer to this file, a line each, without times: equal files mean equal "
             "answers."},
    {OPTION("quiet", quiet), .type = BT_CONFIG_BOOL, .fallback = "false",
     .help = "No progress bar. There is none either when stderr is no terminal."},
};

#define TABLE(title, entries)                                           \
    (bt_config_table)                                                   \
    {                                                                   \
        title, entries, sizeof(entries) / sizeof((entries)[0]), options \
    }

static void set_tables(bt_load_options *options)
{
    *options = (bt_load_options){0};
    options->tables[0] = TABLE("Server", server_entries);
    options->tables[1] = TABLE("Load", load_entries);
    options->tables[2] = TABLE("Prompts and answers", prompt_entries);
    options->tables[3] = TABLE("What is measured", measure_entries);
    options->tables[4] = TABLE("Result", result_entries);
}

/* ---- values with a grammar of their own ---- */

/* "256" or "100:400". Errors: INVALID_ARG. */
static baton_status parse_range(const char *name, const char *text, bt_load_range *range)
{
    uint32_t bounds[2];
    const char *at = text;
    for (int i = 0; i < 2; i++) {
        char *end;
        errno = 0;
        unsigned long value = strtoul(at, &end, 10);
        bool is_number = *at >= '0' && *at <= '9' && errno == 0;
        bool is_last = *end == '\0';
        if (!is_number || value == 0 || value > BT_LOAD_MAX_TOKENS ||
            (!is_last && (i == 1 || *end != ':')))
            return bt_fail(BATON_ERR_INVALID_ARG,
                           "--%s: wanted N or MIN:MAX, each from 1 to %d, found %.80s", name,
                           BT_LOAD_MAX_TOKENS, text);
        bounds[i] = (uint32_t)value;
        if (is_last && i == 0)
            bounds[++i] = (uint32_t)value;
        at = is_last ? end : end + 1;
    }
    if (bounds[0] > bounds[1])
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "--%s: wanted MIN:MAX with MIN below MAX, found %.80s", name, text);
    *range = (bt_load_range){bounds[0], bounds[1]};
    return BATON_OK;
}

/* vLLM's --random-range-ratio, which says the same for input and output. */
static void widen(bt_load_range *range, double ratio)
{
    double low = floor(range->min * (1 - ratio)), high = ceil(range->max * (1 + ratio));
    range->min = low < 1 ? 1 : (uint32_t)low;
    range->max = high > BT_LOAD_MAX_TOKENS ? BT_LOAD_MAX_TOKENS : (uint32_t)high;
}

/* A number above 0, or "inf". Errors: INVALID_ARG. */
static baton_status parse_number(const char *name, const char *text, double *value)
{
    char *end;
    *value = strcmp(text, "inf") == 0 ? INFINITY : strtod(text, &end);
    if (isinf(*value) && text[0] == 'i')
        return BATON_OK;
    if (strspn(text, "0123456789.eE-+") != strlen(text) || *end != '\0' || !(*value > 0) ||
        *value > 1e6)
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "--%s: wanted a number above 0 and at most 1e6, or inf, found %.80s", name,
                       text);
    return BATON_OK;
}

static baton_status parse_arrivals(bt_load_options *o)
{
    BATON_TRY(parse_number("request-rate", o->rate_text, &o->rate));
    BATON_TRY(parse_number("burstiness", o->burst_text, &o->burstiness));
    bool has_rate = !isinf(o->rate);
    if (!has_rate)
        o->rate = 0;
    if (o->ramp == BT_LOAD_NO_RAMP && o->ramp_start == 0 && o->ramp_end == 0)
        return BATON_OK;
    if (o->ramp == BT_LOAD_NO_RAMP || !(o->ramp_start > 0) || !(o->ramp_end > 0) || has_rate)
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "--ramp-up-strategy: wanted it with --ramp-up-start-rps and "
                       "--ramp-up-end-rps, both above 0, and without --request-rate");
    o->rate = (o->ramp_start + o->ramp_end) / 2;
    return BATON_OK;
}

/* "a=b" of texts[n]. Errors: INVALID_ARG. */
static baton_status check_pairs(const char *name, const char *const *texts, uint32_t n,
                                uint32_t most)
{
    if (n > most)
        return bt_fail(BATON_ERR_INVALID_ARG, "--%s: wanted at most %u, found %u", name, most, n);
    for (uint32_t i = 0; i < n; i++) {
        const char *equals = strchr(texts[i], '=');
        if (equals == NULL || equals == texts[i] || equals - texts[i] >= BT_LOAD_HEADER_BYTES)
            return bt_fail(BATON_ERR_INVALID_ARG, "--%s: wanted KEY=VALUE, found %.80s", name,
                           texts[i]);
    }
    return BATON_OK;
}

static baton_status parse_measures(bt_load_options *o)
{
    BATON_TRY(bt_load_goals_parse(o->goodput, o->n_goodput, &o->goals));
    BATON_TRY(bt_load_metrics_parse(o->metric_names, o->n_metric_names, o->shown));
    BATON_TRY(
        bt_load_percentiles_parse(o->percentile_texts, o->n_percentile_texts, &o->percentiles));
    if (!o->stream && (o->goals.limit_ms[BT_LOAD_TTFT] > 0 || o->goals.limit_ms[BT_LOAD_TPOT] > 0))
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "--goodput: wanted e2el only, as --no-stream has no TTFT or TPOT");
    if (o->find_rate && (!o->goals.is_set || o->ramp != BT_LOAD_NO_RAMP))
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "--find-rate: wanted --goodput with it, and no --ramp-up-strategy");
    return BATON_OK;
}

/* What no single option can know. */
static baton_status check_together(bt_load_options *o)
{
    BATON_TRY(parse_range("random-input-len", o->input_len, &o->input_tokens));
    BATON_TRY(parse_range("random-output-len", o->output_len, &o->output_tokens));
    widen(&o->input_tokens, o->range_ratio);
    widen(&o->output_tokens, o->range_ratio);
    BATON_TRY(parse_arrivals(o));
    BATON_TRY(parse_measures(o));
    BATON_TRY(check_pairs("metadata", o->metadata, o->n_metadata, BT_CONFIG_MAX_ITEMS));
    BATON_TRY(check_pairs("header", o->headers, o->n_headers, BT_LOAD_MAX_HEADERS));
    BATON_TRY(bt_http_parse_origin(o->url, 80, o->host, sizeof(o->host), &o->port, NULL));
    if (o->concurrency == 0)
        o->concurrency = o->rate > 0 || o->find_rate ? BT_LOAD_NO_LIMIT : DEFAULT_CONCURRENCY;
    if (o->endpoint != NULL && o->endpoint[0] != '/')
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "--endpoint: wanted a path that begins with /, "
                       "found %.80s",
                       o->endpoint);
    if (o->token_ids && o->backend == BT_LOAD_CHAT)
        return bt_fail(BATON_ERR_INVALID_ARG, "--token-ids: wanted without --backend openai-chat, "
                                              "whose messages are text");
    if (o->token_ids && o->n_turns > 1)
        return bt_fail(BATON_ERR_INVALID_ARG, "--token-ids: wanted without --turns, as answers are "
                                              "text");
    if (o->token_ids && o->dataset_path != NULL)
        return bt_fail(BATON_ERR_INVALID_ARG, "--token-ids: wanted without --dataset-path; a "
                                              ".jsonl file may hold token ids itself");
    o->save_result = o->save_result || o->result_filename != NULL || o->result_dir != NULL;
    return BATON_OK;
}

/* ---- the command line ---- */

/* `--goodput ttft:200 tpot:50`: arguments behind the option's own value are objectives too. */
static baton_status add_goals(const bt_args *args, bt_load_goals *goals)
{
    for (size_t i = 0; i < bt_args_n_positional(args); i++) {
        const char *text = bt_args_positional(args, i);
        BATON_TRY(bt_load_goals_parse(&text, 1, goals));
    }
    return BATON_OK;
}

static baton_status configure(const bt_args *args, bt_load_options *options)
{
    const bt_config_options config = {.tables = options->tables, .n_tables = BT_LOAD_N_TABLES};
    BATON_TRY(bt_config_create(&config, &options->config));
    BATON_TRY(bt_args_configure(args, options->config));
    BATON_TRY(add_goals(args, &options->goals));
    return check_together(options);
}

baton_status bt_load_options_parse(int argc, char *const *argv, bt_load_options *options,
                                   bt_strbuf *info)
{
    set_tables(options);
    const bt_args_spec spec = {
        .program = "baton-load",
        .summary =
            "Sends completion requests to an OpenAI-compatible server and measures its answers: "
            "time to first token (TTFT), time per output token (TPOT), gaps between tokens (ITL), "
            "end-to-end time, throughput, goodput and errors. Options have the names that `vllm "
            "bench serve` gives them. Exit status: 0, 1 when any request failed, 2 when nothing "
            "could be sent. `baton-load compare BEFORE AFTER` puts two saved results side by "
            "side.",
        .tables = options->tables,
        .n_tables = BT_LOAD_N_TABLES,
        .positional = "[OBJECTIVE...]",
        .max_positional = BT_LOAD_N_METRICS,
    };
    bt_args *args = NULL;
    BATON_TRY(bt_args_parse(&spec, argc, argv, &args));
    baton_status status =
        bt_args_info(args, info) ? bt_strbuf_status(info) : configure(args, options);
    bt_args_destroy(args);
    return status;
}

void bt_load_options_free(bt_load_options *options)
{
    bt_config_destroy(options->config);
    options->config = NULL;
}
