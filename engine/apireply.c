/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/apireply.h"

#include <math.h>
#include <string.h>

/* JSON has no infinity; vLLM's figure for it. */
static json_t *logprob_value(float logprob)
{
    return json_real(isfinite(logprob) ? (double)logprob : -9999.0);
}

/* A token alone as text, made well-formed. */
static json_t *token_text(const bt_api_reply *reply, uint32_t id, size_t *n_characters)
{
    bt_decoder decoder = {0};
    bt_strbuf text = {0};
    bt_decoder_push(&decoder, reply->tokenizer, id, true, &text);
    bt_decoder_finish(&decoder, &text);
    json_t *value = json_stringn(bt_strbuf_text(&text), text.length);
    for (size_t i = 0; n_characters != NULL && i < text.length; i++)
        *n_characters += (text.data[i] & 0xc0) != 0x80;
    bt_strbuf_free(&text);
    return value;
}

static json_t *token_bytes(const bt_api_reply *reply, uint32_t id)
{
    size_t n;
    const uint8_t *piece = bt_tokenizer_piece(reply->tokenizer, id, &n);
    json_t *array = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(array, json_integer(piece[i]));
    return array;
}

static json_t *chat_logprob(const bt_api_reply *reply, uint32_t id, float logprob)
{
    return json_pack("{s:o, s:o, s:o}", "token", token_text(reply, id, NULL), "logprob",
                     logprob_value(logprob), "bytes", token_bytes(reply, id));
}

static void add_chat_logprob(bt_api_reply *reply, const bt_sampled *token)
{
    json_t *entry = chat_logprob(reply, token->id, token->logprob), *top = json_array();
    for (uint32_t i = 0; i < token->n_top; i++)
        json_array_append_new(top, chat_logprob(reply, token->top[i].id, token->top[i].logprob));
    json_object_set_new(entry, "top_logprobs", top);
    json_array_append_new(json_object_get(reply->logprobs, "content"), entry);
}

static void add_completion_logprob(bt_api_reply *reply, const bt_sampled *token)
{
    size_t n_characters = 0;
    json_t *top = json_object();
    json_array_append_new(json_object_get(reply->logprobs, "tokens"),
                          token_text(reply, token->id, &n_characters));
    json_array_append_new(json_object_get(reply->logprobs, "token_logprobs"),
                          logprob_value(token->logprob));
    json_array_append_new(json_object_get(reply->logprobs, "text_offset"),
                          json_integer(reply->n_characters));
    for (uint32_t i = 0; i < token->n_top; i++) {
        json_t *name = token_text(reply, token->top[i].id, NULL);
        if (json_object_get(top, json_string_value(name)) == NULL) /* the likelier one stays */
            json_object_set_new(top, json_string_value(name), logprob_value(token->top[i].logprob));
        json_decref(name);
    }
    json_array_append_new(json_object_get(reply->logprobs, "top_logprobs"), top);
    reply->n_characters += (uint32_t)n_characters;
}

static void add_logprob(bt_api_reply *reply, const bt_sampled *token)
{
    bool is_chat = reply->params->is_chat;
    if (reply->logprobs == NULL)
        reply->logprobs = is_chat ? json_pack("{s:[]}", "content")
                                  : json_pack("{s:[], s:[], s:[], s:[]}", "text_offset",
                                              "token_logprobs", "tokens", "top_logprobs");
    if (is_chat)
        add_chat_logprob(reply, token);
    else
        add_completion_logprob(reply, token);
}

void bt_api_reply_add(bt_api_reply *reply, const bt_gen_event *event)
{
    bt_strbuf_append(&reply->text, bt_strbuf_text(&event->text), event->text.length);
    if (!event->has_token)
        return;
    if (event->n_output == 1)
        reply->first_token = event->token.id;
    if (reply->params->return_token_ids)
        reply->failed |= bt_token_list_push(&reply->tokens, event->token.id) < 0;
    if (reply->params->logprobs)
        add_logprob(reply, &event->token);
}

static json_t *id_array(const uint32_t *ids, size_t n)
{
    json_t *array = json_array();
    for (size_t i = 0; i < n; i++)
        json_array_append_new(array, json_integer(ids[i]));
    return array;
}

static json_t *usage_of(const bt_api_reply *reply, const bt_gen_event *event)
{
    uint32_t n_prompt = reply->params->generate.n_prompt;
    return json_pack("{s:i, s:i, s:i, s:{s:i}}", "prompt_tokens", n_prompt, "completion_tokens",
                     event->n_output, "total_tokens", n_prompt + event->n_output,
                     "prompt_tokens_details", "cached_tokens", event->n_cached);
}

static json_t *finish_reason(const bt_gen_event *event)
{
    if (event->finish == BT_FINISH_NONE)
        return json_null();
    return json_string(event->finish == BT_FINISH_LENGTH ? "length" : "stop");
}

/* What every answer and chunk has around its choices. */
static json_t *envelope(const bt_api_reply *reply, const char *object, json_t *choices)
{
    return json_pack("{s:s, s:s, s:I, s:s, s:o}", "id", reply->id, "object", object, "created",
                     (json_int_t)reply->created, "model", reply->model, "choices", choices);
}

/* A choice without its text. Takes the tokens and logprobs that reply holds. */
static json_t *choice_of(const bt_api_reply *reply, const bt_gen_event *event)
{
    json_t *logprobs = reply->logprobs != NULL ? json_incref(reply->logprobs) : json_null();
    json_t *choice = json_pack("{s:i, s:o, s:o}", "index", 0, "logprobs", logprobs, "finish_reason",
                               finish_reason(event));
    json_object_set_new(choice, "stop_reason", json_null());
    if (reply->params->return_token_ids)
        json_object_set_new(choice, "token_ids", id_array(reply->tokens.ids, reply->tokens.n));
    return choice;
}

static json_t *prompt_ids(const bt_api_reply *reply)
{
    return id_array(reply->params->prompt.ids, reply->params->prompt.n);
}

static void add_first_token(const bt_api_reply *reply, json_t *root)
{
    if (reply->params->ret_first_tok)
        json_object_set_new(root, "kv_transfer_params",
                            json_pack("{s:i}", "first_tok", (int)reply->first_token));
}

static char *dump(const bt_api_reply *reply, json_t *root)
{
    char *text = NULL;
    if (root != NULL && !reply->failed && !reply->text.failed)
        text = json_dumps(root, JSON_COMPACT | JSON_REAL_PRECISION(9));
    json_decref(root);
    return text;
}

char *bt_api_reply_body(const bt_api_reply *reply, const bt_gen_event *last)
{
    bool is_chat = reply->params->is_chat;
    json_t *choice = choice_of(reply, last);
    json_t *text = json_stringn(bt_strbuf_text(&reply->text), reply->text.length);
    if (is_chat)
        json_object_set_new(choice, "message",
                            json_pack("{s:s, s:o}", "role", "assistant", "content", text));
    else
        json_object_set_new(choice, "text", text);
    json_t *root =
        envelope(reply, is_chat ? "chat.completion" : "text_completion", json_pack("[o]", choice));
    json_object_set_new(root, "usage", usage_of(reply, last));
    if (reply->params->return_token_ids)
        json_object_set_new(is_chat ? root : choice, "prompt_token_ids", prompt_ids(reply));
    add_first_token(reply, root);
    return dump(reply, root);
}

static json_t *delta_of(const bt_api_reply *reply, json_t *text)
{
    json_t *delta = json_pack("{s:o}", "content", text);
    if (!reply->is_begun)
        json_object_set_new(delta, "role", json_string("assistant"));
    return delta;
}

char *bt_api_reply_chunk(bt_api_reply *reply, const bt_gen_event *event)
{
    bool is_chat = reply->params->is_chat;
    json_t *choice = choice_of(reply, event);
    json_t *text = json_stringn(bt_strbuf_text(&reply->text), reply->text.length);
    if (is_chat)
        json_object_set_new(choice, "delta", delta_of(reply, text));
    else
        json_object_set_new(choice, "text", text);
    json_t *root = envelope(reply, is_chat ? "chat.completion.chunk" : "text_completion",
                            json_pack("[o]", choice));
    if (reply->params->return_token_ids && !reply->is_begun)
        json_object_set_new(is_chat ? root : choice, "prompt_token_ids", prompt_ids(reply));
    if (event->finish != BT_FINISH_NONE)
        add_first_token(reply, root);
    char *chunk = dump(reply, root);
    reply->is_begun = true;
    bt_strbuf_clear(&reply->text);
    reply->tokens.n = 0;
    json_decref(reply->logprobs);
    reply->logprobs = NULL;
    return chunk;
}

char *bt_api_reply_usage(const bt_api_reply *reply, const bt_gen_event *last)
{
    bool is_chat = reply->params->is_chat;
    json_t *root =
        envelope(reply, is_chat ? "chat.completion.chunk" : "text_completion", json_array());
    json_object_set_new(root, "usage", usage_of(reply, last));
    return dump(reply, root);
}

void bt_api_reply_clear(bt_api_reply *reply)
{
    bt_strbuf_free(&reply->text);
    bt_token_list_clear(&reply->tokens);
    json_decref(reply->logprobs);
    reply->logprobs = NULL;
}
