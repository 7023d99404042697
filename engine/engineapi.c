/* SPDX-License-Identifier: Apache-2.0 */
/* A call is one generation request on its way. It belongs to two sides: HTTP's request, until it is
 * answered or its client is gone, and the engine's, until its last event has come. It is freed when
 * both have let go; the engine always lets go last. */
#include "engine/engineapi.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#include "core/alloc.h"
#include "core/fail.h"
#include "core/log.h"
#include "core/promtext.h"
#include "core/traceparent.h"
#include "engine/apireply.h"
#include "engine/enginemetrics.h"

typedef struct {
    bt_api *api;
    bt_http_request *http; /* NULL: finished */
    bool streams;          /* the head of a stream has been sent */
    bt_traceparent trace;  /* the request's header; none: it had none that is valid */
    bt_api_params params;
    bt_api_reply reply;
} call;

struct bt_api {
    bt_api_options options;
    bt_http_server *server;
    bt_engine_thread *engine;
    bt_bell *bell; /* the engine's: it has events */
    bool stopped;
    uint64_t random; /* of ids and seeds */
    int64_t started;
};

static uint64_t next_random(bt_api *api)
{
    uint64_t z = api->random += UINT64_C(0x9e3779b97f4a7c15);
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static void free_call(call *c)
{
    bt_api_reply_clear(&c->reply);
    bt_api_params_clear(&c->params);
    bt_free(c);
}

static void respond_refusal(bt_http_request *http, const bt_api_error *error)
{
    const char *code = error->code;
    (void)bt_http_respond_error(http, error->status, NULL, error->message, error->param, code);
}

static void respond_no_memory(bt_http_request *http, const char *what)
{
    char text[64];
    snprintf(text, sizeof(text), "the engine has no memory for the %s", what);
    (void)bt_http_respond_error(http, 503, NULL, text, NULL,
                                baton_status_name(BATON_ERR_NO_MEMORY));
}

/* ---- answering ---- */

/* Ends a call for HTTP's side; the engine's events are then only counted. */
static void give_up_http(call *c)
{
    bt_http_request *http = c->http;
    c->http = NULL;
    bt_http_abort(http);
}

static void on_client_gone(void *arg)
{
    call *c = arg;
    give_up_http(c);
    if (bt_engine_thread_cancel(c->api->engine, c) < 0)
        bt_warn("engine: a request whose client is gone goes on: %s", baton_last_error());
}

static void begin_stream(call *c)
{
    static const bt_http_header headers[] = {{"Content-Type", "text/event-stream; charset=utf-8"},
                                             {"Cache-Control", "no-cache"}};
    c->streams = true;
    (void)bt_http_begin(c->http, 200, headers, sizeof(headers) / sizeof(headers[0]),
                        BT_HTTP_CHUNKED);
}

/* Writes "data: json\n\n". False: the client cannot be served any more. */
static bool write_event(call *c, const char *json)
{
    bt_strbuf text = {0};
    bt_strbuf_printf(&text, "data: %s\n\n", json);
    bool ok = bt_strbuf_status(&text) == BATON_OK &&
              bt_http_write(c->http, text.data, text.length) == BATON_OK;
    bt_strbuf_free(&text);
    return ok;
}

/* As above; json is jansson's, and freed. NULL: there was no memory for it. */
static bool write_chunk(call *c, char *json)
{
    bool ok = json != NULL && write_event(c, json);
    free(json);
    return ok;
}

static void end_stream(call *c)
{
    bool ok = write_event(c, "[DONE]");
    bt_http_request *http = c->http;
    c->http = NULL;
    if (ok)
        (void)bt_http_end(http);
    else
        bt_http_abort(http);
}

static void stream_event(call *c, const bt_gen_event *event)
{
    if (!c->streams)
        begin_stream(c);
    bool is_last = event->finish != BT_FINISH_NONE;
    bool ok = write_chunk(c, bt_api_reply_chunk(&c->reply, event));
    if (ok && is_last && c->params.include_usage)
        ok = write_chunk(c, bt_api_reply_usage(&c->reply, event));
    if (ok && is_last) {
        end_stream(c);
    } else if (!ok) {
        give_up_http(c);
        if (!is_last)
            (void)bt_engine_thread_cancel(c->api->engine, c);
    }
}

static void respond_body(call *c, const bt_gen_event *last)
{
    char *body = bt_api_reply_body(&c->reply, last);
    bt_http_request *http = c->http;
    c->http = NULL;
    if (body != NULL)
        (void)bt_http_respond_json(http, 200, body, strlen(body));
    else
        respond_no_memory(http, "answer");
    free(body);
}

/* Before the first byte: an honest status. After it: an error event. */
static void respond_failure(call *c, const bt_gen_event *event)
{
    bool is_long = event->status == BATON_ERR_TOO_LARGE && !event->is_transfers;
    unsigned status = event->status == BATON_ERR_CANCELED ? 503
                      : is_long                           ? 400
                                                          : bt_http_status_of(event->status);
    bt_http_request *http = c->http;
    bt_info("engine: request failed status=%s id=%s trace=%s: %s", baton_status_name(event->status),
            c->reply.id, c->trace.trace, event->error);
    if (!c->streams) {
        c->http = NULL;
        (void)bt_http_respond_error(http, status, NULL, event->error, NULL,
                                    baton_status_name(event->status));
        return;
    }
    char body[1024];
    bt_http_error_body(body, sizeof(body), status, NULL, event->error, NULL,
                       baton_status_name(event->status));
    if (write_event(c, body))
        end_stream(c);
    else
        give_up_http(c);
}

static void on_engine_event(const bt_gen_event *event)
{
    call *c = event->user_data;
    if (c->http != NULL) {
        bt_api_reply_add(&c->reply, event);
        if (event->finish == BT_FINISH_ERROR)
            respond_failure(c, event);
        else if (c->params.stream)
            stream_event(c, event);
        else if (event->finish != BT_FINISH_NONE)
            respond_body(c, event);
    }
    if (event->finish != BT_FINISH_NONE) {
        assert(c->http == NULL);
        free_call(c);
    }
}

static void take_events(void *arg)
{
    bt_api *api = arg;
    bt_gen_event *event = bt_engine_thread_take(api->engine);
    while (event != NULL) {
        bt_gen_event *next = event->next;
        on_engine_event(event);
        bt_gen_event_destroy(event);
        event = next;
    }
}

static bool wake_loop(void *ctx)
{
    bt_api *api = ctx;
    bt_bell_ring(api->bell);
    return true;
}

/* ---- routes ---- */

static void respond_overloaded(bt_http_request *http, baton_status status)
{
    char body[1024], message[BT_ERROR_TEXT_BYTES];
    unsigned code = status == BATON_ERR_OVERLOADED ? 429 : 503;
    static const bt_http_header headers[] = {{"Content-Type", "application/json"},
                                             {"Retry-After", "1"}};
    snprintf(message, sizeof(message), "%s", baton_last_error());
    size_t n = bt_http_error_body(body, sizeof(body), code, NULL, message, NULL,
                                  baton_status_name(status));
    (void)bt_http_respond(http, code, headers, 2, body, n < sizeof(body) ? n : sizeof(body) - 1);
}

static void submit(bt_api *api, call *c)
{
    bt_http_request *http = c->http;
    c->params.generate.user_data = c;
    baton_status status = bt_engine_thread_submit(api->engine, &c->params.generate);
    if (status == BATON_OK) {
        bt_http_on_gone(http, on_client_gone, c);
        return;
    }
    if (status == BATON_ERR_OVERLOADED || status == BATON_ERR_CLOSED)
        respond_overloaded(http, status);
    else
        (void)bt_http_respond_error(http, bt_http_status_of(status), NULL, baton_last_error(), NULL,
                                    baton_status_name(status));
    free_call(c);
}

/* A hand-off whose target names no trace of its own goes on with the request's. */
static void read_trace(call *c)
{
    const char *text = bt_http_header_get(c->http->headers, "traceparent");
    bt_handoff_target *target = &c->params.target;
    if (text == NULL || !bt_traceparent_read(text, strlen(text), &c->trace))
        return;
    if (target->traceparent[0] == 0)
        bt_traceparent_write(&c->trace, target->traceparent);
}

static void generate(bt_api *api, bt_http_request *http, bool is_chat)
{
    call *c = bt_calloc(1, sizeof(*c));
    if (c == NULL) {
        respond_no_memory(http, "request");
        return;
    }
    c->api = api;
    c->http = http;
    bt_api_limits limits = api->options.limits;
    limits.fresh_seed = next_random(api);
    bt_api_error error;
    if (!bt_api_parse(&limits, is_chat, http->body, http->body_bytes, &c->params, &error)) {
        respond_refusal(http, &error);
        free_call(c);
        return;
    }
    read_trace(c);
    c->reply.tokenizer = limits.tokenizer;
    c->reply.model = limits.model_names[0];
    c->reply.params = &c->params;
    c->reply.created = (int64_t)time(NULL);
    snprintf(c->reply.id, sizeof(c->reply.id), "%s-%016llx%016llx", is_chat ? "chatcmpl" : "cmpl",
             (unsigned long long)next_random(api), (unsigned long long)next_random(api));
    submit(api, c);
}

static void respond_object(bt_http_request *http, json_t *root)
{
    char *text = root != NULL ? json_dumps(root, JSON_COMPACT) : NULL;
    json_decref(root);
    if (text != NULL)
        (void)bt_http_respond_json(http, 200, text, strlen(text));
    else
        respond_no_memory(http, "answer");
    free(text);
}

static void tokenize(bt_api *api, bt_http_request *http)
{
    bt_api_params params = {0};
    bt_api_error error;
    if (!bt_api_parse_tokenize(&api->options.limits, http->body, http->body_bytes, &params,
                               &error)) {
        respond_refusal(http, &error);
    } else {
        json_t *tokens = json_array();
        for (size_t i = 0; i < params.prompt.n; i++)
            json_array_append_new(tokens, json_integer(params.prompt.ids[i]));
        respond_object(http,
                       json_pack("{s:i, s:i, s:o}", "count", (int)params.prompt.n, "max_model_len",
                                 (int)api->options.limits.max_len, "tokens", tokens));
    }
    bt_api_params_clear(&params);
}

static void detokenize(bt_api *api, bt_http_request *http)
{
    bt_api_params params = {0};
    bt_api_error error;
    if (!bt_api_parse_detokenize(&api->options.limits, http->body, http->body_bytes, &params,
                                 &error)) {
        respond_refusal(http, &error);
    } else {
        bt_decoder decoder = {0};
        bt_strbuf text = {0};
        for (size_t i = 0; i < params.prompt.n; i++)
            bt_decoder_push(&decoder, api->options.limits.tokenizer, params.prompt.ids[i], true,
                            &text);
        bt_decoder_finish(&decoder, &text);
        respond_object(http, text.failed
                                 ? NULL
                                 : json_pack("{s:o}", "prompt",
                                             json_stringn(bt_strbuf_text(&text), text.length)));
        bt_strbuf_free(&text);
    }
    bt_api_params_clear(&params);
}

static json_t *model_object(const bt_api *api, uint32_t i)
{
    const bt_api_limits *limits = &api->options.limits;
    return json_pack("{s:s, s:s, s:I, s:s, s:s, s:n, s:i}", "id", limits->model_names[i], "object",
                     "model", "created", (json_int_t)api->started, "owned_by", "baton", "root",
                     limits->model_names[0], "parent", "max_model_len", (int)limits->max_len);
}

static void models(bt_api *api, bt_http_request *http)
{
    json_t *data = json_array();
    for (uint32_t i = 0; i < api->options.limits.n_model_names; i++)
        json_array_append_new(data, model_object(api, i));
    respond_object(http, json_pack("{s:s, s:o}", "object", "list", "data", data));
}

static void one_model(bt_api *api, bt_http_request *http)
{
    const char *name = http->path + strlen("/v1/models/");
    for (uint32_t i = 0; i < api->options.limits.n_model_names; i++)
        if (strcmp(name, api->options.limits.model_names[i]) == 0) {
            respond_object(http, model_object(api, i));
            return;
        }
    (void)bt_http_respond_error(http, 404, NULL, "The model does not exist.", "model",
                                "model_not_found");
}

static void health(bt_api *api, bt_http_request *http)
{
    (void)api;
    (void)bt_http_respond(http, 200, NULL, 0, "", 0);
}

static void metrics(bt_api *api, bt_http_request *http)
{
    static const bt_http_header headers[] = {{"Content-Type", BT_PROM_CONTENT_TYPE}};
    bt_strbuf out = {0};
    bt_scheduler_stats stats;
    bt_http_server_stats http_stats;
    bt_engine_thread_stats(api->engine, &stats);
    bt_http_server_stats_get(api->server, &http_stats);
    bt_engine_metrics(&out, api->options.role, &stats, &http_stats);
    if (api->options.more_metrics != NULL)
        api->options.more_metrics(api->options.more_metrics_ctx, &out);
    if (bt_strbuf_status(&out) == BATON_OK)
        (void)bt_http_respond(http, 200, headers, 1, out.data, out.length);
    else
        respond_no_memory(http, "metrics");
    bt_strbuf_free(&out);
}

static void completions(bt_api *api, bt_http_request *http)
{
    generate(api, http, false);
}

static void chat_completions(bt_api *api, bt_http_request *http)
{
    generate(api, http, true);
}

static const struct {
    const char *path;
    bool is_post;
    void (*handle)(bt_api *api, bt_http_request *http);
} routes[] = {
    {"/v1/completions", true, completions}, {"/v1/chat/completions", true, chat_completions},
    {"/v1/models", false, models},          {"/tokenize", true, tokenize},
    {"/detokenize", true, detokenize},      {"/health", false, health},
    {"/metrics", false, metrics},
};

static void on_request(void *ctx, bt_http_request *http)
{
    bt_api *api = ctx;
    bool is_get = strcmp(http->method, "GET") == 0 || strcmp(http->method, "HEAD") == 0;
    bool is_post = strcmp(http->method, "POST") == 0;
    for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
        if (strcmp(http->path, routes[i].path) != 0)
            continue;
        if (routes[i].is_post ? is_post : is_get)
            routes[i].handle(api, http);
        else
            (void)bt_http_respond_not_allowed(http, routes[i].is_post ? "POST" : "GET, HEAD");
        return;
    }
    if (strncmp(http->path, "/v1/models/", strlen("/v1/models/")) == 0 && is_get)
        one_model(api, http);
    else
        (void)bt_http_respond_not_found(http);
}

/* ---- life ---- */

static baton_status start_engine(bt_api *api)
{
    bt_engine_thread_options engine = api->options.engine;
    engine.wake = wake_loop;
    engine.wake_ctx = api;
    return bt_engine_thread_create(&engine, &api->engine);
}

static baton_status start_server(bt_api *api)
{
    bt_http_server_options http = {
        .host = api->options.host,
        .port = api->options.port,
        /* A token takes at most a dozen bytes as an id; text has fewer tokens than bytes, and
         * JSON escapes a byte with at most six. */
        .max_body_bytes = (1u << 20) + (size_t)api->options.limits.max_len * 64,
        .on_request = on_request,
        .ctx = api,
    };
    return bt_http_server_create(api->options.loop, &http, &api->server);
}

baton_status bt_api_create(const bt_api_options *options, bt_api **api_p)
{
    bt_api *api = bt_calloc(1, sizeof(*api));
    if (api == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "api: %zu bytes", sizeof(*api));
    api->options = *options;
    api->started = (int64_t)time(NULL);
    baton_status status = BATON_OK;
    if (getrandom(&api->random, sizeof(api->random), 0) != (ssize_t)sizeof(api->random))
        status = bt_fail_errno(BATON_ERR_IO, errno, "api: random numbers");
    if (status == BATON_OK)
        status = bt_bell_create(api->options.loop, take_events, api, &api->bell);
    if (status == BATON_OK)
        status = start_engine(api);
    if (status == BATON_OK)
        status = start_server(api);
    if (status < 0) {
        bt_api_destroy(api);
        return status;
    }
    *api_p = api;
    return BATON_OK;
}

uint16_t bt_api_port(const bt_api *api)
{
    return bt_http_server_port(api->server);
}

void bt_api_drain(bt_api *api, bt_loop_fn on_done, void *arg)
{
    bt_http_server_drain(api->server, on_done, arg);
}

void bt_api_stop(bt_api *api, uint32_t drain_ms)
{
    if (api->stopped)
        return;
    api->stopped = true;
    if (api->engine != NULL) {
        bt_engine_thread_stop(api->engine, drain_ms);
        take_events(api); /* every call gets its last event here */
    }
    bt_http_server_destroy(api->server);
    api->server = NULL;
}

void bt_api_engine_stats(bt_api *api, bt_scheduler_stats *stats)
{
    bt_engine_thread_stats(api->engine, stats);
}

void bt_api_destroy(bt_api *api)
{
    if (api == NULL)
        return;
    bt_api_stop(api, 0);
    bt_engine_thread_destroy(api->engine);
    bt_bell_destroy(api->bell);
    bt_free(api);
}
