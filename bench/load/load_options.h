/* SPDX-License-Identifier: Apache-2.0 */
/* What baton-load is asked to do, from its command line. Names are those of `vllm bench serve`
 * wherever the meaning is the same.
 * Thread rule: set up before threads start; read-only after that. */
#ifndef BT_BENCH_LOAD_OPTIONS_H
#define BT_BENCH_LOAD_OPTIONS_H
#include "bench/load/load_metric.h"
#include "core/args.h"

typedef struct {
    uint32_t min;
    uint32_t max; /* inclusive */
} bt_load_range;

enum { BT_LOAD_HOST_BYTES = 256, BT_LOAD_MAX_REQUESTS = 10000000, BT_LOAD_MAX_TOKENS = 1 << 24 };

enum { BT_LOAD_N_TABLES = 5, BT_LOAD_MAX_HEADERS = 16, BT_LOAD_HEADER_BYTES = 128 };

/* Of concurrency. */
#define BT_LOAD_NO_LIMIT UINT32_MAX

typedef enum { BT_LOAD_COMPLETIONS, BT_LOAD_CHAT } bt_load_backend;
typedef enum { BT_LOAD_NO_RAMP, BT_LOAD_LINEAR, BT_LOAD_EXPONENTIAL } bt_load_ramp;

/* Texts belong to config, which points back here: not to be moved. */
typedef struct {
    bt_config_table tables[BT_LOAD_N_TABLES];
    bt_config *config; /* owned */

    const char *url; /* "http://host:port" */
    char host[BT_LOAD_HOST_BYTES];
    uint16_t port;
    bt_load_backend backend;
    const char *endpoint; /* path; NULL: the backend's */
    const char *model;    /* NULL: the first that /v1/models lists */
    const char *api_key;
    const char *const *headers; /* [n_headers] "NAME=VALUE", names below HEADER_BYTES */
    uint32_t n_headers;
    uint32_t timeout_ms; /* of a whole request */
    uint32_t connect_timeout_ms;

    uint32_t n_requests;    /* measured ones */
    uint32_t n_warmups;     /* before them */
    uint32_t concurrency;   /* at the same time */
    const char *rate_text;  /* as given; and what it means: */
    double rate;            /* requests a second; 0: as many at once as concurrency says */
    const char *burst_text; /* as given; and what it means: */
    double burstiness;      /* shape of gamma-distributed gaps; 1: Poisson, INFINITY: constant */
    uint32_t burst_size;    /* requests that arrive at the same moment */
    bt_load_ramp ramp;      /* the rate goes from ramp_start to ramp_end */
    double ramp_start, ramp_end;
    uint64_t seed;
    uint32_t n_turns; /* of a conversation: requests that follow each other */
    uint32_t turn_delay_ms;

    const char *dataset_path; /* NULL: made-up prompts */
    const char *input_len;    /* as given; and, with range_ratio, what it means: */
    bt_load_range input_tokens;
    const char *output_len;
    bt_load_range output_tokens; /* max_tokens */
    double range_ratio;
    uint32_t prefix_tokens; /* shared beginning of made-up prompts, in front of input_tokens */
    uint32_t n_prefixes;    /* how many different ones there are */
    uint32_t chars_per_token;
    uint32_t vocab; /* made-up token ids lie below it */
    bool token_ids; /* prompts are arrays of ids instead of text */
    bool stream;
    bool ignore_eos;
    double temperature;

    const char *const *goodput; /* [n_goodput] as given, "ttft:200"; and what they mean: */
    uint32_t n_goodput;
    bt_load_goals goals;
    bool find_rate; /* look for the highest rate with goodput_share of the requests good */
    double goodput_share;
    uint32_t step_ms;                /* a step of that takes at least so long */
    const char *const *metric_names; /* [n_metric_names] as given; and what they mean: */
    uint32_t n_metric_names;
    bool shown[BT_LOAD_N_METRICS];
    const char *const *percentile_texts; /* [n_percentile_texts] as given; and what they mean: */
    uint32_t n_percentile_texts;
    bt_load_percentiles percentiles;

    bool save_result; /* to result_path */
    bool save_detailed;
    const char *result_dir;
    const char *result_filename; /* NULL: made from label, rate, model and time */
    const char *label;
    const char *const *metadata; /* [n_metadata] "KEY=VALUE" */
    uint32_t n_metadata;
    const char *chart_path;   /* NULL: none */
    const char *answers_path; /* NULL: answers are not kept */
    bool json;
    bool quiet; /* no progress bar */
} bt_load_options;

/* Parses argv[argc]. When the user asked for --help or --version, *info holds the text and nothing
 * else is set. *options is to be freed also after a failure. Errors: INVALID_ARG, CONFIG,
 * NO_MEMORY. */
baton_status bt_load_options_parse(int argc, char *const *argv, bt_load_options *options,
                                   bt_strbuf *info);
void bt_load_options_free(bt_load_options *options);

/* The answers' texts are wanted by somebody. */
static inline bool bt_load_keeps_text(const bt_load_options *options)
{
    return options->answers_path != NULL || options->save_detailed || options->n_turns > 1;
}

#endif
