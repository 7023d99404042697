/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/demo_run.h"

#include "core/alloc.h"
#include "core/clock.h"
#include "core/fail.h"
#include "http/httpclient.h"
#include "http/jsonscan.h"
#include "http/sse.h"

#include <stdio.h>
#include <string.h>

enum { TIMEOUT_MS = 120000, MAX_EVENT_BYTES = 4 << 20 };

typedef struct run run;

/* One request on its way. */
typedef struct {
    run *run;
    bt_demo_answer *answer;
    bt_strbuf body, document; /* document: an answer that is no stream, an error */
    bt_sse *sse;
    bool said_done;
} call;

struct run {
    bt_loop *loop;
    bt_http_client *client;
    char host[128];
    uint16_t port;
    const bt_demo_request *requests;
    bt_demo_answer *answers;
    uint32_t n, n_started, n_ended;
    call *calls; /* [n] */
};

static void fail_answer(bt_demo_answer *answer, const char *text)
{
    if (answer->error[0] == '\0')
        snprintf(answer->error, sizeof(answer->error), "%s", text);
}

static void take_tokens(bt_demo_answer *answer, bt_json_value ids)
{
    bt_json_iter iter = bt_json_begin(ids);
    bt_json_value id;
    while (bt_json_next(&iter, &id)) {
        uint64_t value;
        if (answer->n_tokens == BT_DEMO_MAX_TOKENS || bt_json_uint64(id, &value) != BATON_OK) {
            fail_answer(answer, "token_ids: too many, or no numbers");
            return;
        }
        if (answer->n_tokens == 0)
            answer->first_ns = bt_now_ns(&bt_clock_monotonic);
        answer->tokens[answer->n_tokens++] = (uint32_t)value;
    }
}

static void take_choice(bt_demo_answer *answer, bt_json_value root)
{
    bt_json_value choices, choice, value;
    if (bt_json_get(root, "choices", &choices) != BATON_OK)
        return;
    bt_json_iter iter = bt_json_begin(choices);
    if (!bt_json_next(&iter, &choice))
        return;
    if (bt_json_get(choice, "token_ids", &value) == BATON_OK)
        take_tokens(answer, value);
    if (bt_json_get(choice, "finish_reason", &value) == BATON_OK && value.type == BT_JSON_STRING)
        (void)bt_json_string(value, answer->finish, sizeof(answer->finish), NULL);
}

static void take_usage(bt_demo_answer *answer, bt_json_value root)
{
    bt_json_value usage, value;
    uint64_t n;
    if (bt_json_get(root, "usage", &usage) == BATON_OK && usage.type == BT_JSON_OBJECT &&
        bt_json_get(usage, "prompt_tokens", &value) == BATON_OK &&
        bt_json_uint64(value, &n) == BATON_OK)
        answer->prompt_tokens = (uint32_t)n;
}

/* A document is an event, the answer to a request that was not streamed, or an error. */
static void take_document(bt_demo_answer *answer, const char *text, size_t n)
{
    bt_json_value root, error, message;
    if (bt_json_check(text, n, &root) != BATON_OK) {
        fail_answer(answer, baton_last_error());
        return;
    }
    if (bt_json_get(root, "error", &error) == BATON_OK && error.type == BT_JSON_OBJECT) {
        char said[BT_DEMO_ERROR_BYTES] = "error without a message";
        if (bt_json_get(error, "message", &message) == BATON_OK)
            (void)bt_json_string(message, said, sizeof(said), NULL);
        fail_answer(answer, said);
        return;
    }
    take_choice(answer, root);
    take_usage(answer, root);
}

static void on_event(void *ctx, const bt_sse_event *event)
{
    call *c = ctx;
    if (bt_slice_equals(event->data, "[DONE]"))
        c->said_done = true;
    else if (event->data.n > 0)
        take_document(c->answer, event->data.at, event->data.n);
}

static void on_head(void *ctx, bt_http_call *http, unsigned status, bt_http_headers headers)
{
    (void)http, (void)headers;
    call *c = ctx;
    if (status == 200 && bt_sse_create(MAX_EVENT_BYTES, on_event, c, &c->sse) != BATON_OK)
        fail_answer(c->answer, baton_last_error());
}

static void on_data(void *ctx, bt_http_call *http, const char *bytes, size_t n)
{
    (void)http;
    call *c = ctx;
    if (c->sse == NULL)
        bt_strbuf_append(&c->document, bytes, n);
    else if (bt_sse_feed(c->sse, bytes, n) != BATON_OK)
        fail_answer(c->answer, baton_last_error());
}

static void start_next(run *r);

static void on_done(void *ctx, bt_http_call *http, const bt_http_result *result)
{
    (void)http;
    call *c = ctx;
    c->answer->end_ns = bt_now_ns(&bt_clock_monotonic);
    if (result->status != BATON_OK)
        fail_answer(c->answer, result->text);
    else if (c->sse == NULL)
        take_document(c->answer, bt_strbuf_text(&c->document), c->document.length);
    if (!c->said_done)
        fail_answer(c->answer, "the stream ended without [DONE]");
    c->run->n_ended++;
    if (c->run->n_ended == c->run->n)
        bt_loop_stop(c->run->loop);
    else
        start_next(c->run);
}

static void write_body(const bt_demo_request *request, bt_strbuf *body)
{
    bt_strbuf_puts(body, "{\"prompt\": ");
    bt_json_append_string(body, request->prompt.data, request->prompt.length);
    bt_strbuf_printf(body,
                     ", \"max_tokens\": %u, \"stream\": true, \"return_token_ids\": true, "
                     "\"ignore_eos\": true, \"stream_options\": {\"include_usage\": true}, ",
                     request->max_tokens);
    if (request->seed == 0)
        bt_strbuf_puts(body, "\"temperature\": 0}");
    else
        bt_strbuf_printf(body, "\"temperature\": 0.8, \"top_p\": 0.95, \"seed\": %u}",
                         request->seed);
}

static baton_status start(run *r, uint32_t i)
{
    static const bt_http_call_ops ops = {
        .on_head = on_head, .on_data = on_data, .on_done = on_done};
    call *c = &r->calls[i];
    *c = (call){.run = r, .answer = &r->answers[i]};
    write_body(&r->requests[i], &c->body);
    BATON_TRY(bt_strbuf_status(&c->body));
    const bt_http_header headers[] = {{"Content-Type", "application/json"},
                                      {"X-Request-Id", r->requests[i].id}};
    const bt_slice body = {c->body.data, c->body.length};
    c->answer->start_ns = bt_now_ns(&bt_clock_monotonic);
    return bt_http_client_start(r->client,
                                &(bt_http_client_request){.host = r->host,
                                                          .port = r->port,
                                                          .method = "POST",
                                                          .path = "/v1/completions",
                                                          .headers = headers,
                                                          .n_headers = 2,
                                                          .body = &body,
                                                          .n_body = 1,
                                                          .first_byte_ms = TIMEOUT_MS,
                                                          .gap_ms = TIMEOUT_MS,
                                                          .total_ms = TIMEOUT_MS,
                                                          .ops = &ops,
                                                          .ctx = c},
                                NULL);
}

/* A request that cannot even start has ended. */
static void start_next(run *r)
{
    while (r->n_started < r->n) {
        uint32_t i = r->n_started++;
        if (start(r, i) == BATON_OK)
            return;
        fail_answer(&r->answers[i], baton_last_error());
        if (++r->n_ended == r->n)
            bt_loop_stop(r->loop);
    }
}

static baton_status parse_url(run *r, const char *url)
{
    unsigned port;
    char end;
    if (sscanf(url, "http://%127[^:/]:%5u%c", r->host, &port, &end) != 2 || port > UINT16_MAX)
        return bt_fail(BATON_ERR_INVALID_ARG, "demo: wanted http://host:port, found '%s'", url);
    r->port = (uint16_t)port;
    return BATON_OK;
}

baton_status bt_demo_run(const char *url, const bt_demo_request *requests, uint32_t n,
                         uint32_t concurrency, bt_demo_answer *answers)
{
    run r = {.requests = requests, .answers = answers, .n = n};
    BATON_TRY(parse_url(&r, url));
    BATON_TRY(bt_loop_create(&r.loop));
    r.calls = bt_calloc(n, sizeof(*r.calls));
    baton_status status = r.calls == NULL ? bt_fail(BATON_ERR_NO_MEMORY, "demo: %u calls", n)
                                          : bt_http_client_create(r.loop, NULL, &r.client);
    if (status == BATON_OK) {
        for (uint32_t i = 0; i < concurrency; i++)
            start_next(&r);
        bt_loop_run(r.loop);
    }
    bt_http_client_destroy(r.client);
    for (uint32_t i = 0; r.calls != NULL && i < n; i++) {
        bt_sse_destroy(r.calls[i].sse);
        bt_strbuf_free(&r.calls[i].body);
        bt_strbuf_free(&r.calls[i].document);
    }
    bt_free(r.calls);
    bt_loop_destroy(r.loop);
    return status;
}

bool bt_demo_same(const bt_demo_answer *a, const bt_demo_answer *b)
{
    return a->error[0] == '\0' && b->error[0] == '\0' && a->n_tokens > 0 &&
           a->n_tokens == b->n_tokens && strcmp(a->finish, b->finish) == 0 &&
           memcmp(a->tokens, b->tokens, a->n_tokens * sizeof(*a->tokens)) == 0;
}
