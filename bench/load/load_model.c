/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/load/load_model.h"

#include "core/fail.h"
#include "core/strbuf.h"
#include "http/jsonscan.h"

#include <stdio.h>

enum { MAX_LIST_BYTES = 1 << 20 };

typedef struct {
    bt_loop *loop;
    const char *url;
    bt_strbuf body;
    char *name;
    size_t cap;
    bt_http_call *call; /* NULL once it has ended */
    baton_status status;
} question;

static void on_data(void *ctx, bt_http_call *call, const char *bytes, size_t n)
{
    (void)call;
    question *q = ctx;
    if (n <= MAX_LIST_BYTES - q->body.length)
        bt_strbuf_append(&q->body, bytes, n);
}

static baton_status take_name(question *q)
{
    bt_json_value root, data, model, id;
    if (bt_json_check(bt_strbuf_text(&q->body), q->body.length, &root) != BATON_OK ||
        bt_json_get(root, "data", &data) != BATON_OK)
        return bt_fail(BATON_ERR_BAD_MESSAGE,
                       "%s/v1/models: wanted a list of models, found "
                       "something else; name one with --model",
                       q->url);
    bt_json_iter iter = bt_json_begin(data);
    if (!bt_json_next(&iter, &model) || bt_json_get(model, "id", &id) != BATON_OK)
        return bt_fail(BATON_ERR_BAD_MESSAGE,
                       "%s/v1/models: no model in the list; name one with --model", q->url);
    return bt_json_string(id, q->name, q->cap, NULL);
}

static void on_done(void *ctx, bt_http_call *call, const bt_http_result *result)
{
    (void)call;
    question *q = ctx;
    q->call = NULL;
    if (result->status != BATON_OK)
        q->status = bt_fail(result->status, "%s/v1/models: %s", q->url, result->text);
    else if (result->http_status != 200)
        q->status = bt_fail(BATON_ERR_BAD_MESSAGE,
                            "%s/v1/models: wanted status 200, found %u; name a model with --model",
                            q->url, result->http_status);
    else
        q->status = take_name(q);
    bt_loop_stop(q->loop);
}

baton_status bt_load_model_ask(bt_loop *loop, bt_http_client *client,
                               const bt_load_options *options, char *name, size_t cap)
{
    static const bt_http_call_ops ops = {.on_data = on_data, .on_done = on_done};
    question q = {.loop = loop, .url = options->url, .name = name, .cap = cap};
    char authorization[512];
    snprintf(authorization, sizeof(authorization), "Bearer %s",
             options->api_key != NULL ? options->api_key : "");
    bt_http_header header = {"Authorization", authorization};
    bt_http_client_request request = {
        .host = options->host,
        .port = options->port,
        .path = "/v1/models",
        .headers = &header,
        .n_headers = options->api_key != NULL,
        .connect_ms = options->connect_timeout_ms,
        .total_ms = options->timeout_ms,
        .ops = &ops,
        .ctx = &q,
    };
    BATON_TRY(bt_http_client_start(client, &request, &q.call));
    bt_loop_run(loop);
    if (q.call != NULL) /* somebody else stopped the loop */
        bt_http_call_cancel(q.call);
    bt_strbuf_free(&q.body);
    return q.status;
}
