/* SPDX-License-Identifier: Apache-2.0 */
/* What baton-load is asked to do, from its command line.
 * Thread rule: set up before threads start; read-only after that. */
#ifndef BT_BENCH_LOAD_OPTIONS_H
#define BT_BENCH_LOAD_OPTIONS_H
#include "core/args.h"

typedef struct {
    uint32_t min;
    uint32_t max; /* inclusive */
} bt_load_range;

enum { BT_LOAD_HOST_BYTES = 256, BT_LOAD_MAX_REQUESTS = 10000000, BT_LOAD_MAX_TOKENS = 1 << 24 };

enum { BT_LOAD_N_TABLES = 4 };

/* Texts belong to config, which points back here: not to be moved. */
typedef struct {
    bt_config_table tables[BT_LOAD_N_TABLES];
    bt_config *config; /* owned */

    const char *url; /* "http://host:port" */
    char host[BT_LOAD_HOST_BYTES];
    uint16_t port;
    const char *model; /* NULL: the first that /v1/models lists */
    const char *api_key;

    uint32_t n_requests;
    uint32_t concurrency;
    double rate; /* requests a second, Poisson; 0: as many at once as concurrency says */
    uint64_t seed;

    const char *prompt_file;     /* NULL: made-up prompts */
    const char *prompt_len;      /* as given; and what it means: */
    bt_load_range prompt_tokens; /* of made-up prompts */
    const char *output_len;
    bt_load_range output_tokens; /* max_tokens */
    uint32_t prefix_tokens;      /* the same for all made-up prompts, part of prompt_tokens */
    uint32_t chars_per_token;
    uint32_t vocab; /* made-up token ids lie below it */
    bool token_ids; /* prompts are arrays of ids instead of text */
    bool chat;      /* /v1/chat/completions */
    bool stream;
    bool ignore_eos;
    double temperature;

    uint32_t timeout_ms; /* of a whole request */
    uint32_t connect_timeout_ms;

    const char *save_path; /* NULL: answers are not kept */
    bool json;
    bool quiet; /* no progress bar */
} bt_load_options;

/* Parses argv[argc]. When the user asked for --help
 * or --version, *info holds the text and nothing else is set. *options is to be freed also after a
 * failure. Errors: INVALID_ARG, CONFIG, NO_MEMORY. */
baton_status bt_load_options_parse(int argc, char *const *argv, bt_load_options *options,
                                   bt_strbuf *info);
void bt_load_options_free(bt_load_options *options);

#endif
