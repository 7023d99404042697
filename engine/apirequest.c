/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/apirequest.h"

#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "core/fail.h"
#include "engine/apifields.h"
#include "http/jsonscan.h"

enum { MAX_MESSAGES = 4096, DEFAULT_COMPLETION_TOKENS = 16 };

/* Nothing is wrong with the request: another engine, or this one later, may take it. */
static bool refuse_memory(bt_api_reader *r, const char *param, const char *what)
{
    return bt_api_refuse(r, 503, param, baton_status_name(BATON_ERR_NO_MEMORY),
                         "the engine has no memory for the request: %s", what);
}

static bool refuse_status(bt_api_reader *r, baton_status status, const char *param)
{
    if (status == BATON_ERR_NO_MEMORY)
        return refuse_memory(r, param, baton_last_error());
    return bt_api_refuse(r, 400, param, NULL, "%s", baton_last_error());
}

static void check_model(bt_api_reader *r, const bt_api_limits *limits)
{
    const json_t *value = bt_api_get(r, "model");
    const char *name = json_string_value(value);
    if (value == NULL)
        return;
    for (uint32_t i = 0; name != NULL && i < limits->n_model_names; i++)
        if (strcmp(name, limits->model_names[i]) == 0)
            return;
    bt_api_refuse(r, name != NULL ? 404 : 400, "model", "model_not_found",
                  "The model `%.128s` does not exist; this engine serves `%.128s`.",
                  name != NULL ? name : "?", limits->model_names[0]);
}

/* Token ids of an array, each below the vocabulary. */
static void read_ids(bt_api_reader *r, const bt_api_limits *limits, const json_t *array,
                     const char *param, bt_token_list *list)
{
    for (size_t i = 0; i < json_array_size(array) && !r->failed; i++) {
        const json_t *value = json_array_get(array, i);
        json_int_t id = json_integer_value(value);
        if (!json_is_integer(value) || id < 0 || id >= (json_int_t)limits->n_vocab) {
            bt_api_refuse(r, 400, param, NULL, "%s[%zu]: wanted a token id from 0 to %u", param, i,
                          limits->n_vocab - 1);
            return;
        }
        baton_status status = bt_token_list_push(list, (uint32_t)id);
        if (status < 0)
            refuse_status(r, status, param);
    }
}

static void encode_text(bt_api_reader *r, const bt_api_limits *limits, const json_t *text,
                        bt_token_list *list)
{
    bool around = true;
    bt_api_bool(r, "add_special_tokens", &around);
    if (r->failed)
        return;
    unsigned flags = BT_ENCODE_SPECIALS | (around ? BT_ENCODE_AROUND : 0u);
    baton_status status = bt_tokenizer_encode(limits->tokenizer, json_string_value(text),
                                              json_string_length(text), flags, list);
    if (status < 0)
        refuse_status(r, status, "prompt");
}

/* A text, token ids, or an array of one of these. */
static void read_prompt(bt_api_reader *r, const bt_api_limits *limits, bt_token_list *list)
{
    const json_t *prompt = bt_api_get(r, "prompt");
    const json_t *first = json_array_get(prompt, 0);
    if (json_is_string(first) || json_is_array(first)) {
        if (json_array_size(prompt) != 1) {
            bt_api_refuse(r, 400, "prompt", NULL, "prompt: wanted one prompt, found %zu",
                          json_array_size(prompt));
            return;
        }
        prompt = first;
    }
    if (json_is_string(prompt))
        encode_text(r, limits, prompt, list);
    else if (json_is_array(prompt))
        read_ids(r, limits, prompt, "prompt", list);
    else
        bt_api_refuse(r, 400, "prompt", NULL, "prompt: wanted a text or an array of token ids");
}

/* The text of a message: a string, or parts of type text, which are joined. */
static bool read_content(bt_api_reader *r, const json_t *content, bt_strbuf *text)
{
    if (json_is_string(content)) {
        bt_strbuf_append(text, json_string_value(content), json_string_length(content));
        return true;
    }
    if (!json_is_array(content))
        return bt_api_refuse(r, 400, "messages", NULL, "messages: wanted content to be a text");
    for (size_t i = 0; i < json_array_size(content); i++) {
        const json_t *part = json_object_get(json_array_get(content, i), "text");
        if (!json_is_string(part))
            return bt_api_refuse(r, 400, "messages", NULL,
                                 "messages: wanted content parts of type text only");
        bt_strbuf_append(text, json_string_value(part), json_string_length(part));
    }
    return true;
}

/* The texts of all messages, one after another in texts; content pointers are set at the end,
 * because texts moves while it grows. */
static void render_messages(bt_api_reader *r, const bt_api_limits *limits, const json_t *array,
                            bool generation_prompt, bt_chat_message *messages, bt_token_list *list)
{
    bt_strbuf texts = {0};
    size_t n = json_array_size(array);
    for (size_t i = 0; i < n && !r->failed; i++) {
        const json_t *message = json_array_get(array, i);
        size_t begin = texts.length;
        messages[i].role = json_string_value(json_object_get(message, "role"));
        if (messages[i].role == NULL)
            bt_api_refuse(r, 400, "messages", NULL, "messages[%zu]: wanted a role", i);
        else if (read_content(r, json_object_get(message, "content"), &texts))
            messages[i].n_content = texts.length - begin;
    }
    const char *at = bt_strbuf_text(&texts);
    for (size_t i = 0; i < n; i++) {
        messages[i].content = at;
        at += messages[i].n_content;
    }
    baton_status status = r->failed ? BATON_OK : bt_strbuf_status(&texts);
    if (status == BATON_OK && !r->failed)
        status = bt_chat_render(limits->chat_template, limits->tokenizer, messages, n,
                                generation_prompt, list);
    if (status < 0)
        refuse_status(r, status, "messages");
    bt_strbuf_free(&texts);
}

static void read_messages(bt_api_reader *r, const bt_api_limits *limits, bt_token_list *list)
{
    const json_t *array = bt_api_get(r, "messages");
    size_t n = json_array_size(array);
    bool generation_prompt = true;
    bt_api_bool(r, "add_generation_prompt", &generation_prompt);
    if (n == 0 || n > MAX_MESSAGES) {
        bt_api_refuse(r, 400, "messages", NULL, "messages: wanted an array of 1 to %d messages",
                      MAX_MESSAGES);
        return;
    }
    bt_chat_message *messages = bt_calloc(n, sizeof(*messages));
    if (messages == NULL)
        refuse_memory(r, "messages", "its messages");
    else
        render_messages(r, limits, array, generation_prompt, messages, list);
    bt_free(messages);
}

static void read_stops(bt_api_reader *r, bt_stops *stops)
{
    const json_t *value = bt_api_get(r, "stop");
    size_t n = json_is_string(value) ? 1 : json_array_size(value);
    if (value != NULL && !json_is_string(value) && !json_is_array(value))
        bt_api_refuse(r, 400, "stop", NULL, "stop: wanted a text or an array of texts");
    for (size_t i = 0; i < n && !r->failed; i++) {
        const json_t *stop = json_is_string(value) ? value : json_array_get(value, i);
        if (!json_is_string(stop)) {
            bt_api_refuse(r, 400, "stop", NULL, "stop[%zu]: wanted a text", i);
            return;
        }
        baton_status status = bt_stops_add(stops, json_string_value(stop));
        if (status < 0)
            refuse_status(r, status, "stop");
    }
}

static void read_stop_ids(bt_api_reader *r, const bt_api_limits *limits, bt_generate *generate)
{
    const json_t *value = bt_api_get(r, "stop_token_ids");
    bt_token_list list = {0};
    if (value != NULL && (!json_is_array(value) || json_array_size(value) > BT_MAX_STOP_IDS))
        bt_api_refuse(r, 400, "stop_token_ids", NULL,
                      "stop_token_ids: wanted an array of at most %d token ids", BT_MAX_STOP_IDS);
    read_ids(r, limits, value, "stop_token_ids", &list);
    for (size_t i = 0; i < list.n; i++)
        generate->stop_ids[generate->n_stop_ids++] = list.ids[i];
    bt_token_list_clear(&list);
}

static void read_sampling(bt_api_reader *r, const bt_api_limits *limits, bt_sampling *sampling)
{
    double temperature = 1, top_p = 1;
    const json_t *top_k = bt_api_get(r, "top_k"), *seed = bt_api_get(r, "seed");
    bt_api_number(r, "temperature", 0, 100, &temperature);
    bt_api_number(r, "top_p", 0, 1, &top_p);
    if (top_p <= 0)
        bt_api_refuse(r, 400, "top_p", NULL, "top_p: wanted more than 0");
    if (!json_is_integer(top_k) || json_integer_value(top_k) != -1) /* -1: all, as 0 */
        bt_api_uint(r, "top_k", 0, UINT32_MAX, &sampling->top_k);
    if (seed != NULL && !json_is_integer(seed))
        bt_api_refuse(r, 400, "seed", NULL, "seed: wanted an integer");
    sampling->temperature = (float)temperature;
    sampling->top_p = (float)top_p;
    sampling->seed = seed != NULL ? (uint64_t)json_integer_value(seed) : limits->fresh_seed;
}

/* Completions take a count, chat takes a bool and a count. */
static void read_logprobs(bt_api_reader *r, bt_api_params *params)
{
    bt_sampling *sampling = &params->generate.sampling;
    if (params->is_chat) {
        bt_api_bool(r, "logprobs", &params->logprobs);
        bt_api_uint(r, "top_logprobs", 0, BT_MAX_TOP_LOGPROBS, &sampling->n_top);
        if (sampling->n_top != 0 && !params->logprobs)
            bt_api_refuse(r, 400, "top_logprobs", NULL, "top_logprobs: wanted logprobs to be true");
    } else {
        const json_t *value = bt_api_get(r, "logprobs");
        params->logprobs = value != NULL && !json_is_false(value);
        if (params->logprobs)
            bt_api_uint(r, "logprobs", 0, BT_MAX_TOP_LOGPROBS, &sampling->n_top);
    }
    sampling->logprobs = params->logprobs;
}

static void read_ports(bt_api_reader *r, const char *key, uint16_t *ports, uint32_t *n)
{
    const json_t *value = bt_api_get(r, key);
    size_t n_values = json_is_integer(value) ? 1 : json_array_size(value);
    if (n_values == 0 || n_values > BT_HANDOFF_MAX_RANKS) {
        bt_api_refuse(r, 400, "kv_transfer_params", NULL, "disagg_spec.%s: wanted 1 to %d ports",
                      key, BT_HANDOFF_MAX_RANKS);
        return;
    }
    for (size_t i = 0; i < n_values; i++) {
        const json_t *port = json_is_integer(value) ? value : json_array_get(value, i);
        json_int_t number = json_integer_value(port);
        if (number < 1 || number > UINT16_MAX) {
            bt_api_refuse(r, 400, "kv_transfer_params", NULL,
                          "disagg_spec.%s[%zu]: wanted a port from 1 to 65535", key, i);
            return;
        }
        ports[i] = (uint16_t)number;
    }
    *n = (uint32_t)n_values;
}

static void read_target(bt_api_reader *r, const json_t *spec, bt_handoff_target *target)
{
    bt_api_reader inner = {.object = spec, .error = r->error, .failed = r->failed};
    uint32_t n_alloc = 0;
    if (!json_is_object(spec))
        bt_api_refuse(&inner, 400, "kv_transfer_params", NULL, "disagg_spec: wanted an object");
    bt_api_text(&inner, "req_id", target->request, sizeof(target->request));
    bt_api_text(&inner, "receiver_host", target->host, sizeof(target->host));
    bt_api_text(&inner, "notice_addr", target->notice, sizeof(target->notice));
    bt_api_text(&inner, "traceparent", target->traceparent, sizeof(target->traceparent));
    bt_api_uint(&inner, "kv_wait_ms", 0, UINT32_MAX, &target->wait_ms);
    if (target->request[0] == 0 || target->host[0] == 0)
        bt_api_refuse(&inner, 400, "kv_transfer_params", NULL,
                      "disagg_spec: wanted req_id and receiver_host");
    read_ports(&inner, "receiver_init_port", target->init_ports, &target->n_ranks);
    read_ports(&inner, "receiver_alloc_port", target->alloc_ports, &n_alloc);
    if (n_alloc != target->n_ranks)
        bt_api_refuse(&inner, 400, "kv_transfer_params", NULL,
                      "disagg_spec: wanted as many alloc ports as init ports, found %u and %u",
                      n_alloc, target->n_ranks);
    r->failed = inner.failed;
}

static void read_kv_transfer(bt_api_reader *r, const bt_api_limits *limits, bt_api_params *params)
{
    const json_t *value = bt_api_get(r, "kv_transfer_params");
    if (value == NULL)
        return;
    if (!json_is_object(value)) {
        bt_api_refuse(r, 400, "kv_transfer_params", NULL, "kv_transfer_params: wanted an object");
        return;
    }
    bt_api_reader inner = {.object = value, .error = r->error, .failed = r->failed};
    bt_api_bool(&inner, "ret_first_tok", &params->ret_first_tok);
    params->generate.goes_on = params->ret_first_tok;
    const json_t *spec = bt_api_get(&inner, "disagg_spec");
    if (spec != NULL && !limits->sends_kv) {
        bt_api_refuse(&inner, 400, "kv_transfer_params", NULL,
                      "disagg_spec: this engine does not send KV (--role prefill does)");
    } else if (spec != NULL) {
        read_target(&inner, spec, &params->target);
        params->generate.target = &params->target;
    }
    r->failed = inner.failed;
}

/* A tokenizer may know ids that the model does not have. */
static void check_ids(bt_api_reader *r, const bt_api_limits *limits, const bt_api_params *params)
{
    for (size_t i = 0; i < params->prompt.n && !r->failed; i++)
        if (params->prompt.ids[i] >= limits->n_vocab)
            bt_api_refuse(r, 400, params->is_chat ? "messages" : "prompt", NULL,
                          "The prompt has token %u, the model's vocabulary only %u.",
                          params->prompt.ids[i], limits->n_vocab);
}

static void read_lengths(bt_api_reader *r, const bt_api_limits *limits, bt_api_params *params)
{
    uint32_t n_prompt = (uint32_t)params->prompt.n, max_tokens = DEFAULT_COMPLETION_TOKENS;
    if (r->failed)
        return;
    if (params->prompt.n == 0 || params->prompt.n >= limits->max_len) {
        bt_api_refuse(r, 400, params->is_chat ? "messages" : "prompt",
                      n_prompt != 0 ? "context_length_exceeded" : NULL,
                      "This model's maximum context length is %u tokens; the prompt has %zu, and "
                      "wanted is 1 or more, and one of output.",
                      limits->max_len, params->prompt.n);
        return;
    }
    uint32_t room = limits->max_len - n_prompt;
    max_tokens = params->is_chat || max_tokens > room ? room : max_tokens;
    bt_api_uint(r, "max_tokens", 1, UINT32_MAX / 2, &max_tokens);
    bt_api_uint(r, "max_completion_tokens", 1, UINT32_MAX / 2, &max_tokens);
    if (max_tokens > room)
        bt_api_refuse(r, 400, "max_tokens", "context_length_exceeded",
                      "This model's maximum context length is %u tokens; the prompt has %u, and "
                      "max_tokens is %u.",
                      limits->max_len, n_prompt, max_tokens);
    bt_api_uint(r, "min_tokens", 0, UINT32_MAX / 2, &params->generate.min_tokens);
    if (params->generate.min_tokens > max_tokens)
        bt_api_refuse(r, 400, "min_tokens", NULL, "min_tokens: wanted at most max_tokens (%u)",
                      max_tokens);
    params->generate.max_tokens = max_tokens;
}

static void check_unsupported(bt_api_reader *r)
{
    static const char *const keys[] = {"echo",
                                       "suffix",
                                       "logit_bias",
                                       "presence_penalty",
                                       "frequency_penalty",
                                       "min_p",
                                       "use_beam_search",
                                       "tools",
                                       "functions",
                                       "prompt_logprobs",
                                       "guided_json",
                                       "guided_regex",
                                       "guided_choice",
                                       "guided_grammar",
                                       "bad_words",
                                       "prompt_embeds",
                                       "structured_outputs"};
    uint32_t one = 1;
    double penalty = 1;
    bt_api_uint(r, "n", 1, 1, &one);
    bt_api_uint(r, "best_of", 1, 1, &one);
    bt_api_number(r, "repetition_penalty", 1, 1, &penalty);
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        bt_api_unsupported(r, keys[i]);
    const json_t *format = json_object_get(bt_api_get(r, "response_format"), "type");
    if (format != NULL && (!json_is_string(format) || strcmp(json_string_value(format), "text")))
        bt_api_refuse(r, 400, "response_format", NULL, "response_format: wanted type text");
}

static void read_flags(bt_api_reader *r, bt_api_params *params)
{
    bool skip_specials = true;
    bt_api_bool(r, "stream", &params->stream);
    bt_api_bool(r, "return_token_ids", &params->return_token_ids);
    bt_api_bool(r, "ignore_eos", &params->generate.ignore_eos);
    bt_api_bool(r, "skip_special_tokens", &skip_specials);
    params->generate.with_specials = !skip_specials;
    const json_t *options = bt_api_get(r, "stream_options");
    if (options != NULL && !json_is_object(options))
        bt_api_refuse(r, 400, "stream_options", NULL, "stream_options: wanted an object");
    bt_api_reader inner = {.object = options, .error = r->error, .failed = r->failed};
    bt_api_bool(&inner, "include_usage", &params->include_usage);
    r->failed = inner.failed;
}

/* jansson has refused a text, and says the same of one that is wrong and of one that it had no
 * memory for. Our own scanner allocates nothing, and accepts what jansson does; more than that are
 * only lone values and what jansson has codes for. */
static bool ran_out_of_memory(const char *body, size_t n, const json_error_t *error)
{
    enum json_error_code code = json_error_code(error);
    bool is_its_limit = code == json_error_numeric_overflow || code == json_error_null_byte_in_key;
    bt_json_value value;
    return !is_its_limit && bt_json_check(body, n, &value) == BATON_OK &&
           (value.type == BT_JSON_OBJECT || value.type == BT_JSON_ARRAY);
}

/* The body as an object, owned by the caller; NULL with the error filled. */
static json_t *parse_body(bt_api_reader *r, const char *body, size_t n)
{
    json_error_t error;
    json_t *root = json_loadb(body, n, JSON_ALLOW_NUL, &error);
    if (root == NULL && ran_out_of_memory(body, n, &error)) {
        refuse_memory(r, NULL, "its JSON");
    } else if (root == NULL) {
        bt_api_refuse(r, 400, NULL, NULL, "The body is not valid JSON: line %d, column %d: %s",
                      error.line, error.column, error.text);
    } else if (!json_is_object(root)) {
        bt_api_refuse(r, 400, NULL, NULL, "The body is not a JSON object.");
        json_decref(root);
        root = NULL;
    }
    r->object = root;
    return root;
}

bool bt_api_parse(const bt_api_limits *limits, bool is_chat, const char *body, size_t n,
                  bt_api_params *params, bt_api_error *error)
{
    bt_api_reader r = {.error = error};
    json_t *root = parse_body(&r, body, n);
    if (root == NULL)
        return false;
    params->is_chat = is_chat;
    check_model(&r, limits);
    check_unsupported(&r);
    read_flags(&r, params);
    read_sampling(&r, limits, &params->generate.sampling);
    read_logprobs(&r, params);
    read_stops(&r, &params->stops);
    read_stop_ids(&r, limits, &params->generate);
    read_kv_transfer(&r, limits, params);
    if (!r.failed && is_chat)
        read_messages(&r, limits, &params->prompt);
    else if (!r.failed)
        read_prompt(&r, limits, &params->prompt);
    check_ids(&r, limits, params);
    read_lengths(&r, limits, params);
    params->generate.prompt = params->prompt.ids;
    params->generate.n_prompt = (uint32_t)params->prompt.n;
    params->generate.stops = &params->stops;
    json_decref(root);
    return !r.failed;
}

bool bt_api_parse_tokenize(const bt_api_limits *limits, const char *body, size_t n,
                           bt_api_params *params, bt_api_error *error)
{
    bt_api_reader r = {.error = error};
    json_t *root = parse_body(&r, body, n);
    if (root == NULL)
        return false;
    check_model(&r, limits);
    bt_api_unsupported(&r, "tools");
    if (!r.failed && bt_api_get(&r, "messages") != NULL)
        read_messages(&r, limits, &params->prompt);
    else if (!r.failed && json_is_string(bt_api_get(&r, "prompt")))
        encode_text(&r, limits, bt_api_get(&r, "prompt"), &params->prompt);
    else
        bt_api_refuse(&r, 400, "prompt", NULL, "wanted prompt, a text, or messages");
    json_decref(root);
    return !r.failed;
}

bool bt_api_parse_detokenize(const bt_api_limits *limits, const char *body, size_t n,
                             bt_api_params *params, bt_api_error *error)
{
    bt_api_reader r = {.error = error};
    json_t *root = parse_body(&r, body, n);
    if (root == NULL)
        return false;
    check_model(&r, limits);
    const json_t *tokens = bt_api_get(&r, "tokens");
    if (!json_is_array(tokens))
        bt_api_refuse(&r, 400, "tokens", NULL, "tokens: wanted an array of token ids");
    read_ids(&r, limits, tokens, "tokens", &params->prompt);
    json_decref(root);
    return !r.failed;
}

void bt_api_params_clear(bt_api_params *params)
{
    bt_token_list_clear(&params->prompt);
    bt_stops_clear(&params->stops);
}
