/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/load/load_options.h"

#include "core/fail.h"
#include "http/httpmsg.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

enum { DEFAULT_CONCURRENCY = 8 };

#define OPTION(name, field)                                  \
    .key = name, .offset = offsetof(bt_load_options, field), \
    .size = sizeof(((bt_load_options *)0)->field)

static const bt_config_entry server_entries[] = {
    {OPTION("url", url), .type = BT_CONFIG_STRING, .fallback = "http://127.0.0.1:8000",
     .help = "The server: http://host:port."},
    {OPTION("model", model), .type = BT_CONFIG_STRING,
     .help = "Name of the model. Default: the first one that the server lists."},
    {OPTION("api_key", api_key), .type = BT_CONFIG_STRING,
     .help = "Sent as Authorization: Bearer."},
    {OPTION("chat", chat), .type = BT_CONFIG_BOOL, .fallback = "false",
     .help = "Use /v1/chat/completions instead of /v1/completions."},
    {OPTION("stream", stream), .type = BT_CONFIG_BOOL, .fallback = "true",
     .help =
         "Ask for a stream of events. With --no-stream an answer comes as one document, and there "
         "is no TTFT, TPOT or ITL."},
    {OPTION("timeout", timeout_ms), .type = BT_CONFIG_DURATION, .min = 1, .max = 86400000,
     .fallback = "300s", .help = "A request that takes longer has failed."},
    {OPTION("connect_timeout", connect_timeout_ms), .type = BT_CONFIG_DURATION, .min = 1,
     .max = 86400000, .fallback = "5s", .help = "The same for connecting."},
};

static const bt_config_entry load_entries[] = {
    {OPTION("requests", n_requests), .type = BT_CONFIG_UINT32, .min = 1,
     .max = BT_LOAD_MAX_REQUESTS, .fallback = "100", .help = "How many requests to send."},
    {OPTION("concurrency", concurrency), .type = BT_CONFIG_UINT32, .max = BT_LOAD_MAX_REQUESTS,
     .fallback = "0",
     .help = "Requests at the same time. 0: 8, or with --rate no limit. Where there is one, a "
             "request that is due and has to wait is measured from when it was due."},
    {OPTION("rate", rate), .type = BT_CONFIG_DOUBLE, .min = 0, .max = 1e6, .fallback = "0",
     .help = "Requests a second, at Poisson times. 0: the next one starts when one ends."},
    {OPTION("seed", seed), .type = BT_CONFIG_UINT64, .fallback = "0",
     .help = "Prompts, lengths and arrivals are the same for the same seed."},
};

static const bt_config_entry prompt_entries[] = {
    {OPTION("prompt_len", prompt_len), .type = BT_CONFIG_STRING, .fallback = "256",
     .help = "Tokens of made-up prompts: N, or MIN:MAX."},
    {OPTION("prefix_len", prefix_tokens), .type = BT_CONFIG_UINT32, .max = BT_LOAD_MAX_TOKENS,
     .fallback = "0", .help = "How many of them are the same in all prompts."},
    {OPTION("chars_per_token", chars_per_token), .type = BT_CONFIG_UINT32, .min = 1, .max = 64,
     .fallback = "1",
     .help = "Letters that make a token of text; about 4 for most models, 1 for byte-level ones."},
    {OPTION("token_ids", token_ids), .type = BT_CONFIG_BOOL, .fallback = "false",
     .help = "Make prompts of token ids, exact in length, instead of text."},
    {OPTION("vocab", vocab), .type = BT_CONFIG_UINT32, .min = 1, .max = 1 << 24, .fallback = "256",
     .help = "Token ids lie below this."},
    {OPTION("prompt_file", prompt_file), .type = BT_CONFIG_STRING,
     .help = "Take prompts from a file, over and over: one a line; or, when it is called "
             "something.jsonl, a JSON string or an object with \"prompt\" or \"messages\" and, if "
             "wanted, \"max_tokens\" a line."},
    {OPTION("output_len", output_len), .type = BT_CONFIG_STRING, .fallback = "64",
     .help = "max_tokens of a request: N, or MIN:MAX."},
    {OPTION("ignore_eos", ignore_eos), .type = BT_CONFIG_BOOL, .fallback = "false",
     .help = "Ask for exactly max_tokens tokens."},
    {OPTION("temperature", temperature), .type = BT_CONFIG_DOUBLE, .min = 0, .max = 10,
     .fallback = "0", .help = "0 is greedy; above it, each request has a seed of its own."},
};

static const bt_config_entry report_entries[] = {
    {OPTION("json", json), .type = BT_CONFIG_BOOL, .fallback = "false",
     .help = "Print the report as JSON."},
    {OPTION("save", save_path), .type = BT_CONFIG_STRING,
     .help = "Write every answer to a file, one JSON object a line, in the order of the workload: "
             "equal files mean equal answers."},
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
    options->tables[3] = TABLE("Report", report_entries);
}

/* "256" or "100:400". Errors: INVALID_ARG. */
static baton_status parse_range(const char *text, bt_load_range *range)
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
                           "wanted N or MIN:MAX, each from 1 to %d, found %s", BT_LOAD_MAX_TOKENS,
                           text);
        bounds[i] = (uint32_t)value;
        if (is_last && i == 0)
            bounds[++i] = (uint32_t)value;
        at = is_last ? end : end + 1;
    }
    if (bounds[0] > bounds[1])
        return bt_fail(BATON_ERR_INVALID_ARG, "wanted MIN:MAX with MIN below MAX, found %s", text);
    *range = (bt_load_range){bounds[0], bounds[1]};
    return BATON_OK;
}

static baton_status parse_length(const char *name, const char *text, bt_load_range *range)
{
    baton_status status = parse_range(text, range);
    if (status == BATON_OK)
        return BATON_OK;
    char why[256];
    snprintf(why, sizeof(why), "%s", baton_last_error());
    return bt_fail(status, "--%s: %s", name, why);
}

/* What no single option can know. */
static baton_status check_together(bt_load_options *o)
{
    BATON_TRY(parse_length("prompt-len", o->prompt_len, &o->prompt_tokens));
    BATON_TRY(parse_length("output-len", o->output_len, &o->output_tokens));
    BATON_TRY(bt_http_parse_origin(o->url, 80, o->host, sizeof(o->host), &o->port));
    if (o->concurrency == 0)
        o->concurrency = o->rate > 0 ? o->n_requests : DEFAULT_CONCURRENCY;
    if (o->concurrency > o->n_requests)
        o->concurrency = o->n_requests;
    if (o->token_ids && o->chat)
        return bt_fail(BATON_ERR_INVALID_ARG, "--token-ids: wanted without --chat, whose messages "
                                              "are text");
    if (o->token_ids && o->prompt_file != NULL)
        return bt_fail(BATON_ERR_INVALID_ARG, "--token-ids: wanted without --prompt-file; a .jsonl "
                                              "file may hold token ids itself");
    if (o->prompt_file == NULL && o->prefix_tokens > o->prompt_tokens.min)
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "--prefix-len: wanted at most the shortest prompt's %u tokens, found %u",
                       o->prompt_tokens.min, o->prefix_tokens);
    return BATON_OK;
}

static baton_status configure(const bt_args *args, bt_load_options *options)
{
    const bt_config_options config = {.tables = options->tables, .n_tables = BT_LOAD_N_TABLES};
    BATON_TRY(bt_config_create(&config, &options->config));
    BATON_TRY(bt_args_configure(args, options->config));
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
            "end-to-end time, throughput and errors. Exit status: 0, 1 when any request failed, 2 "
            "when nothing could be sent.",
        .tables = options->tables,
        .n_tables = BT_LOAD_N_TABLES,
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
