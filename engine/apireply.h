/* SPDX-License-Identifier: Apache-2.0 */
/* From the engine's events to OpenAI's answers: one JSON object at the end, or one per token.
 *
 * Thread rule: owner thread. */
#ifndef BT_ENGINE_APIREPLY_H
#define BT_ENGINE_APIREPLY_H
#include <jansson.h>

#include "engine/apirequest.h"

enum { BT_API_ID_BYTES = 48 };

typedef struct {
    const bt_tokenizer *tokenizer; /* borrowed, as model and params */
    const char *model;
    const bt_api_params *params;
    char id[BT_API_ID_BYTES]; /* "cmpl-..." */
    int64_t created;          /* seconds since 1970 */
    bool is_begun;            /* the first chunk was made */
    bt_strbuf text;           /* so far; not in streams */
    bt_token_list tokens;     /* so far; in streams: not given out yet */
    json_t *logprobs;         /* as tokens; NULL when not wanted */
    uint32_t n_characters;    /* of the tokens so far */
    uint32_t first_token;     /* valid when an event had a token */
    bool failed;              /* no memory on the way */
} bt_api_reply;

/* Takes an event's token and text. */
void bt_api_reply_add(bt_api_reply *reply, const bt_gen_event *event);
/* The whole answer, after the last event; freed with free(). NULL: no memory. */
char *bt_api_reply_body(const bt_api_reply *reply, const bt_gen_event *last);
/* What was added since the last chunk, as one stream chunk; event is the one added last. Freed with
 * free(). NULL: no memory. */
char *bt_api_reply_chunk(bt_api_reply *reply, const bt_gen_event *event);
/* The chunk with the usage and no choices. */
char *bt_api_reply_usage(const bt_api_reply *reply, const bt_gen_event *last);
/* Frees what reply owns. */
void bt_api_reply_clear(bt_api_reply *reply);

#endif
