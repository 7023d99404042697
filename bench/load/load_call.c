/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/load/load_call.h"

#include "core/alloc.h"
#include "core/fail.h"
#include "http/jsonscan.h"
#include "http/sse.h"

#include <stdio.h>
#include <string.h>

/* An answer larger than this is no answer. */
enum { MAX_ANSWER_BYTES = 64 << 20, MAX_EVENT_BYTES = 4 << 20 };

struct bt_load_call {
    const bt_load_caller *caller;
    bt_load_record *record;
    bt_http_call *http;
    bt_strbuf body;   /* of the request */
    bt_strbuf answer; /* of everything that is no stream */
    bt_sse *sse;      /* NULL: the answer is no stream */
    bool done;        /* [DONE] was there */
};

/* The first failure is the one that counts. */
__attribute__((format(printf, 3, 4))) static void fail_call(bt_load_call *call, const char *kind,
                                                            const char *format, ...)
{
    bt_load_record *record = call->record;
    if (record->kind[0] != '\0')
        return;
    snprintf(record->kind, sizeof(record->kind), "%s", kind);
    va_list args;
    va_start(args, format);
    vsnprintf(record->detail, sizeof(record->detail), format, args);
    va_end(args);
}

/* ---- the answer's JSON ---- */

static uint32_t count_of(bt_json_value object, const char *name)
{
    bt_json_value value;
    uint64_t n;
    if (bt_json_get(object, name, &value) != BATON_OK || bt_json_uint64(value, &n) != BATON_OK)
        return 0;
    return n < UINT32_MAX ? (uint32_t)n : UINT32_MAX;
}

static void take_usage(bt_load_record *record, bt_json_value root)
{
    bt_json_value usage, details;
    if (bt_json_get(root, "usage", &usage) != BATON_OK || usage.type != BT_JSON_OBJECT)
        return;
    record->has_usage = true;
    record->prompt_tokens = count_of(usage, "prompt_tokens");
    record->output_tokens = count_of(usage, "completion_tokens");
    if (bt_json_get(usage, "prompt_tokens_details", &details) == BATON_OK)
        record->cached_tokens = count_of(details, "cached_tokens");
}

/* OpenAI's {"error":{"message":..}}. True when there is one. */
static bool take_error(bt_load_call *call, bt_json_value root, const char *kind)
{
    bt_json_value error, message;
    if (bt_json_get(root, "error", &error) != BATON_OK || error.type == BT_JSON_NULL)
        return false;
    char text[BT_LOAD_DETAIL_BYTES] = "no message";
    if (bt_json_get(error, "message", &message) == BATON_OK && message.type == BT_JSON_STRING)
        snprintf(text, sizeof(text), "%.*s", (int)(message.text.n - 2), message.text.at + 1);
    fail_call(call, kind, "%s", text);
    return true;
}

/* Where a chat's choice has what was said. */
static const char *holder_of(const bt_load_call *call)
{
    return call->sse != NULL ? "delta" : "message";
}

/* The text of the first choice: completions have `text`, chat `message` or, in streams, `delta`
 * with `content`. Type ABSENT when there is none. */
static bt_json_value choice_text(const bt_load_call *call, bt_json_value choice)
{
    bt_json_value value = {.type = BT_JSON_ABSENT};
    const bt_json_value none = value;
    if (call->caller->options->backend != BT_LOAD_CHAT)
        return bt_json_get(choice, "text", &value) == BATON_OK ? value : none;
    bt_json_value holder;
    if (bt_json_get(choice, holder_of(call), &holder) != BATON_OK)
        return none;
    return bt_json_get(holder, "content", &value) == BATON_OK ? value : none;
}

static void keep_text(bt_load_call *call, bt_json_value text)
{
    if (!bt_load_keeps_text(call->caller->options) || text.type != BT_JSON_STRING)
        return;
    char *decoded = bt_calloc(text.text.n, 1);
    size_t n;
    if (decoded == NULL)
        call->record->text.failed = true;
    else if (bt_json_string(text, decoded, text.text.n, &n) == BATON_OK)
        bt_strbuf_append(&call->record->text, decoded, n);
    bt_free(decoded);
}

/* False when the document has no choice, as the last one of a stream, with the usage. */
static bool first_choice(bt_json_value root, bt_json_value *choice)
{
    bt_json_value choices;
    if (bt_json_get(root, "choices", &choices) != BATON_OK || choices.type != BT_JSON_ARRAY)
        return false;
    bt_json_iter iter = bt_json_begin(choices);
    return bt_json_next(&iter, choice);
}

static bool is_empty_text(bt_json_value value)
{
    return value.type != BT_JSON_STRING || value.text.n <= 2;
}

/* A chat's token may also be one of its reasoning, or part of a call of a tool. */
static bool thinks_or_calls(const bt_load_call *call, bt_json_value choice)
{
    bt_json_value said, value;
    if (call->caller->options->backend != BT_LOAD_CHAT ||
        bt_json_get(choice, holder_of(call), &said) != BATON_OK)
        return false;
    return (bt_json_get(said, "reasoning_content", &value) == BATON_OK && !is_empty_text(value)) ||
           (bt_json_get(said, "reasoning", &value) == BATON_OK && !is_empty_text(value)) ||
           (bt_json_get(said, "tool_calls", &value) == BATON_OK && bt_json_length(value) > 0);
}

/* ---- streams ---- */

static void take_token(bt_load_call *call)
{
    bt_load_record *record = call->record;
    uint64_t now_ns = bt_now_ns(call->caller->clock);
    if (record->n_token_events++ == 0)
        record->first_ns = now_ns;
    else
        bt_load_samples_add(&record->itl, now_ns - record->last_ns);
    record->last_ns = now_ns;
}

static void take_choice(bt_load_call *call, bt_json_value choice)
{
    bt_json_value text = choice_text(call, choice);
    bt_json_value finish;
    bool chat = call->caller->options->backend == BT_LOAD_CHAT;
    bool is_last =
        bt_json_get(choice, "finish_reason", &finish) == BATON_OK && finish.type == BT_JSON_STRING;
    bool is_empty = is_empty_text(text) && !thinks_or_calls(call, choice);
    /* Half a character is an empty text and a token all the same; but chat's first event, with the
     * role, and a last one with nothing but the reason, are none. */
    if (!is_empty || (!is_last && !chat))
        take_token(call);
    keep_text(call, text);
}

static void on_event(void *ctx, const bt_sse_event *event)
{
    bt_load_call *call = ctx;
    if (event->data.n == 0 || call->done)
        return;
    if (bt_slice_equals(event->data, "[DONE]")) {
        call->done = true;
        return;
    }
    bt_json_value root, choice;
    if (bt_json_check(event->data.at, event->data.n, &root) != BATON_OK) {
        fail_call(call, "bad event", "%s", baton_last_error());
        return;
    }
    if (take_error(call, root, "error in stream"))
        return;
    take_usage(call->record, root);
    if (first_choice(root, &choice))
        take_choice(call, choice);
}

/* ---- HTTP ---- */

static void on_head(void *ctx, bt_http_call *http, unsigned status, bt_http_headers headers)
{
    (void)http;
    bt_load_call *call = ctx;
    call->record->http_status = status;
    const char *type = bt_http_header_get(headers, "content-type");
    if (status != 200 || type == NULL || strncmp(type, "text/event-stream", 17) != 0)
        return;
    if (bt_sse_create(MAX_EVENT_BYTES, on_event, call, &call->sse) != BATON_OK)
        fail_call(call, "no memory", "%s", baton_last_error());
}

static void on_data(void *ctx, bt_http_call *http, const char *bytes, size_t n)
{
    (void)http;
    bt_load_call *call = ctx;
    if (call->sse != NULL) {
        if (bt_sse_feed(call->sse, bytes, n) != BATON_OK)
            fail_call(call, "bad event", "%s", baton_last_error());
    } else if (n <= MAX_ANSWER_BYTES - call->answer.length) {
        bt_strbuf_append(&call->answer, bytes, n);
    } else {
        fail_call(call, "answer too large", "more than %d bytes", MAX_ANSWER_BYTES);
    }
}

static void judge_document(bt_load_call *call)
{
    bt_json_value root, choice;
    const char *text = bt_strbuf_text(&call->answer);
    bool is_json = bt_json_check(text, call->answer.length, &root) == BATON_OK;
    if (call->record->http_status != 200) {
        char kind[BT_LOAD_KIND_BYTES];
        snprintf(kind, sizeof(kind), "http %u", call->record->http_status);
        if (!is_json || !take_error(call, root, kind))
            fail_call(call, kind, "%.100s", text);
    } else if (!is_json) {
        fail_call(call, "bad answer", "%s", baton_last_error());
    } else if (!take_error(call, root, "error in answer")) {
        take_usage(call->record, root);
        bt_json_value answer = {.type = BT_JSON_ABSENT};
        bool has_choice = first_choice(root, &choice);
        if (has_choice)
            answer = choice_text(call, choice);
        if (answer.type != BT_JSON_STRING && !(has_choice && thinks_or_calls(call, choice)))
            fail_call(call, "bad answer", "no choice with a text in it");
        keep_text(call, answer);
    }
}

static void judge_stream(bt_load_call *call)
{
    if (!call->done)
        fail_call(call, "stream cut", "ended without [DONE], %u token events",
                  call->record->n_token_events);
    else if (call->record->n_token_events == 0)
        fail_call(call, "no tokens", "stream without a token");
}

static void free_call(bt_load_call *call)
{
    bt_sse_destroy(call->sse);
    bt_strbuf_free(&call->answer);
    bt_strbuf_free(&call->body);
    bt_free(call);
}

static void on_done(void *ctx, bt_http_call *http, const bt_http_result *result)
{
    (void)http;
    bt_load_call *call = ctx;
    bt_load_record *record = call->record;
    record->end_ns = bt_now_ns(call->caller->clock);
    record->ended = true;
    if (result->status == BATON_ERR_CANCELED) {
        fail_call(call, baton_strerror(result->status), "%s", result->text);
    } else if (result->status != BATON_OK) {
        char kind[BT_LOAD_KIND_BYTES];
        snprintf(kind, sizeof(kind), "%s: %s", bt_http_phase_name(result->phase),
                 baton_strerror(result->status));
        fail_call(call, kind, "%s", result->text);
    } else if (call->sse != NULL) {
        judge_stream(call);
    } else {
        judge_document(call);
    }
    record->ok = record->kind[0] == '\0';
    if (!record->has_usage)
        record->output_tokens = record->n_token_events;
    call->caller->on_end(call->caller->ctx, call);
    free_call(call);
}

static const bt_http_call_ops ops = {.on_head = on_head, .on_data = on_data, .on_done = on_done};

static const char *path_of(const bt_load_options *options)
{
    if (options->endpoint != NULL)
        return options->endpoint;
    return options->backend == BT_LOAD_CHAT ? "/v1/chat/completions" : "/v1/completions";
}

static baton_status start_http(bt_load_call *call)
{
    const bt_load_options *options = call->caller->options;
    char authorization[512], traceparent[BT_TRACEPARENT_CHARS + 1];
    bt_traceparent_make(&call->record->trace);
    bt_traceparent_write(&call->record->trace, traceparent);
    char names[BT_LOAD_MAX_HEADERS][BT_LOAD_HEADER_BYTES];
    bt_http_header headers[4 + BT_LOAD_MAX_HEADERS] = {
        {"Content-Type", "application/json"},
        {"Accept", options->stream ? "text/event-stream" : "application/json"},
        {"traceparent", traceparent}};
    size_t n_headers = 3;
    if (options->api_key != NULL) {
        snprintf(authorization, sizeof(authorization), "Bearer %s", options->api_key);
        headers[n_headers++] = (bt_http_header){"Authorization", authorization};
    }
    for (uint32_t i = 0; i < options->n_headers; i++) {
        size_t n = strcspn(options->headers[i], "=");
        snprintf(names[i], sizeof(names[i]), "%.*s", (int)n, options->headers[i]);
        headers[n_headers++] = (bt_http_header){names[i], options->headers[i] + n + 1};
    }
    bt_slice body = {call->body.data, call->body.length};
    bt_http_client_request request = {
        .host = options->host,
        .port = options->port,
        .method = "POST",
        .path = path_of(options),
        .headers = headers,
        .n_headers = n_headers,
        .body = &body,
        .n_body = 1,
        .connect_ms = options->connect_timeout_ms,
        .first_byte_ms = options->timeout_ms,
        .gap_ms = options->timeout_ms,
        .total_ms = options->timeout_ms,
        .ops = &ops,
        .ctx = call,
    };
    return bt_http_client_start(call->caller->client, &request, &call->http);
}

baton_status bt_load_call_start(const bt_load_caller *caller, bt_strbuf *body,
                                bt_load_record *record, bt_load_call **call_p)
{
    bt_load_call *call = bt_calloc(1, sizeof(*call));
    if (call == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "load: a request");
    call->caller = caller;
    call->record = record;
    call->body = *body;
    *body = (bt_strbuf){0};
    baton_status status = start_http(call);
    if (status != BATON_OK) {
        free_call(call);
        return status;
    }
    *call_p = call;
    return BATON_OK;
}

void bt_load_call_cancel(bt_load_call *call)
{
    bt_http_call_cancel(call->http);
}

bt_load_record *bt_load_call_record(const bt_load_call *call)
{
    return call->record;
}
