/* SPDX-License-Identifier: Apache-2.0 */
/* What the prefill engine's answer to its leg, and /tokenize's, say.
 * Thread rule: owner thread. */
#ifndef BT_PROXY_PREFILLANSWER_H
#define BT_PROXY_PREFILLANSWER_H
#include "http/jsonscan.h"

/* A completion of one token. All values borrow the answer's bytes and may be ABSENT. */
typedef struct {
    bt_slice json;
    bt_json_value id, created, model, usage;
    bt_json_value choice; /* choices[0], an object */
    bt_json_value text, logprobs, token_ids, prompt_token_ids, finish_reason, stop_reason;
    bool has_first_token;
    uint64_t first_token;
    bool has_ended;     /* the model ended with this token: EOS, or a stop string */
    bool is_text_whole; /* the token's text can stand alone: not empty, no piece of a character */
    uint64_t n_text_chars;
} bt_prefill_answer;

/* Errors: BAD_MESSAGE (no JSON object with one choice). */
baton_status bt_prefill_answer_read(const char *json, size_t n, bt_prefill_answer *answer);

typedef struct {
    bt_slice ids; /* the JSON array, borrowed */
    uint64_t n_ids;
    uint64_t max_model_tokens; /* 0: not said */
} bt_tokenize_answer;

/* Errors: BAD_MESSAGE (no list of at least one token id). */
baton_status bt_tokenize_answer_read(const char *json, size_t n, bt_tokenize_answer *answer);

#endif
