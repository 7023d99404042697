/* SPDX-License-Identifier: Apache-2.0 */
/* From an OpenAI request body to what the engine is asked to do. Parameters that would change the
 * answer and that this engine does not have are refused with their name, those that change nothing
 * (user, metadata, priority, ...) are ignored.
 *
 * Thread rule: owner thread. */
#ifndef BT_ENGINE_APIREQUEST_H
#define BT_ENGINE_APIREQUEST_H
#include "engine/chattemplate.h"
#include "engine/generate.h"

/* What a body is checked against; all borrowed. */
typedef struct {
    const bt_tokenizer *tokenizer;
    bt_chat_template chat_template;
    const char *const *model_names; /* [n_model_names]; the first one answers */
    uint32_t n_model_names;
    uint32_t n_vocab;
    uint32_t max_len;    /* prompt and output, tokens */
    bool sends_kv;       /* kv_transfer_params.disagg_spec is allowed */
    uint64_t fresh_seed; /* used when the request has none */
} bt_api_limits;

/* An answer that refuses. */
typedef struct {
    unsigned status;   /* HTTP */
    const char *param; /* static, NULL: none */
    const char *code;  /* likewise */
    char message[512];
} bt_api_error;

/* A parsed request; owns what `generate` points to. */
typedef struct {
    bool is_chat, stream, include_usage, return_token_ids, ret_first_tok;
    bool logprobs;
    bt_token_list prompt;
    bt_stops stops;
    bt_handoff_target target;
    bt_generate generate; /* user_data is left for the caller */
} bt_api_params;

/* body[n]: of /v1/completions or /v1/chat/completions. *params is zeroed memory, to be cleared in
 * every case. False: *error says why. */
bool bt_api_parse(const bt_api_limits *limits, bool is_chat, const char *body, size_t n,
                  bt_api_params *params, bt_api_error *error);
/* Of /tokenize: {"prompt": text} or {"messages": [...]}; only params->prompt is filled. */
bool bt_api_parse_tokenize(const bt_api_limits *limits, const char *body, size_t n,
                           bt_api_params *params, bt_api_error *error);
/* Of /detokenize: {"tokens": [...]}; only params->prompt is filled. */
bool bt_api_parse_detokenize(const bt_api_limits *limits, const char *body, size_t n,
                             bt_api_params *params, bt_api_error *error);
void bt_api_params_clear(bt_api_params *params);

#endif
