/* SPDX-License-Identifier: Apache-2.0 */
/* What a client's JSON body asks for, and the bodies of the two legs made from it. The body is
 * scanned once and never printed again: a leg is a list of slices of it and small patches, so that
 * all that is not named here reaches the engines byte for byte.
 *
 * The rules per key are one table in bodyplan.c. They answer two questions: what the prefill leg
 * must not see (it makes one token and does not stream), and whether the answer may begin with the
 * prefill engine's token ("early"). Early is only allowed when every key is known to be safe: with
 * a penalty, a grammar, n > 1, tools or a key never heard of, the decode engine must make the first
 * token itself, so that it knows it as its own output.
 *
 * Thread rule: owner thread. */
#ifndef BT_PROXY_BODYPLAN_H
#define BT_PROXY_BODYPLAN_H
#include "http/jsonscan.h"
#include "proxy/dialect.h"

typedef enum { BT_ROUTE_COMPLETIONS, BT_ROUTE_CHAT } bt_route;
typedef enum {
    BT_PROMPT_TEXT,     /* one text: must be tokenised to go early */
    BT_PROMPT_IDS,      /* one list of token ids */
    BT_PROMPT_MESSAGES, /* chat */
    BT_PROMPT_BATCH,    /* several prompts in one body */
} bt_prompt_form;

enum { BT_PLAN_MAX_STOPS = 16, BT_PLAN_MAX_SLICES = 160, BT_PLAN_MAX_SEQUENCES = 4096 };

typedef struct {
    bt_json_object scan; /* borrows the client's body */
    bt_route route;
    bt_prompt_form form;
    bt_json_value prompt; /* the text or ids of one prompt, or the messages */
    bool stream;
    bool include_usage;    /* stream_options.include_usage */
    bool continuous_usage; /* stream_options.continuous_usage_stats */
    bool has_limit;        /* the body or the API's default limits the tokens */
    uint64_t limit;        /* tokens to make, at least 1 */
    uint32_t n_sequences;  /* named in a list; 0: one, by itself. Counted no further than
                              BT_PLAN_MAX_SEQUENCES + 1 */
    bool has_choices;      /* several answers are made of one prompt (n, best_of, a beam) */
    bool is_early_safe;
    const char *unsafe_key;   /* the first key that made it unsafe; "" for an unknown one */
    bt_json_value stop;       /* a string or an array of strings, or ABSENT */
    uint64_t n_prompt_tokens; /* exact for ids, else guessed from the bytes */
} bt_body_plan;

/* Scans body[n], which must live as long as the plan. On failure *param is the key that is wrong,
 * or NULL. Errors: BAD_MESSAGE (no JSON object), TOO_LARGE, INVALID_ARG (a value). */
baton_status bt_body_plan_make(bt_route route, const char *body, size_t n, bt_body_plan *plan,
                               const char **param);

/* What besides the prompt decides its tokens, model and tools: n 0 where there is none. */
enum { BT_PLAN_SCOPES = 2 };
void bt_plan_prompt_scope(const bt_body_plan *plan, bt_slice scope[BT_PLAN_SCOPES]);

/* Token ids in a checked array, or 0 when it holds anything else. */
uint64_t bt_token_ids_count(bt_json_value value);

/* Slices of one leg's body, and room for the small patches that they point to. */
typedef struct {
    bt_slice slices[BT_PLAN_MAX_SLICES];
    size_t n_slices;
    char limit[24];
} bt_leg_body;

/* The /tokenize body for a TEXT or MESSAGES prompt. Errors: TOO_LARGE. */
baton_status bt_leg_tokenize(const bt_body_plan *plan, bt_leg_body *leg);
/* The legs. members are what the dialect adds (NULL: nothing); they and ids are borrowed by leg.
 * Errors: TOO_LARGE. */

/* Prefill leg, early: ids is a JSON array. */
baton_status bt_leg_prefill_early(const bt_body_plan *plan, bt_slice ids,
                                  const bt_leg_members *members, bt_leg_body *leg);
/* Prefill leg, decode-first: the client's body, made to end after one token. */
baton_status bt_leg_prefill_plain(const bt_body_plan *plan, const bt_leg_members *members,
                                  bt_leg_body *leg);
/* Decode leg, early: ids with the first token at their end; limit is what is left to make, or 0
 * when the body has none. */
baton_status bt_leg_decode_early(const bt_body_plan *plan, bt_slice ids, uint64_t limit,
                                 const bt_leg_members *members, bt_leg_body *leg);
/* The client's body, without its own words to engines: the decode leg, decode-first. */
baton_status bt_leg_plain(const bt_body_plan *plan, const bt_leg_members *members,
                          bt_leg_body *leg);

/* The end of text (decoded UTF-8) may be the beginning of a stop string, so that only an engine
 * that knows the text as its own output would find the whole of it. */
bool bt_plan_may_begin_stop(const bt_body_plan *plan, const char *text, size_t n);

#endif
