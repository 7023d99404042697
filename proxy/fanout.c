/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/fanout.h"
#include "core/alloc.h"

enum { MAX_ANSWER_BYTES = 1 << 20, DEADLINE_MS = 2000 };

static void on_head(void *ctx, bt_http_call *call, unsigned status, bt_http_headers headers)
{
    (void)call;
    (void)headers;
    ((bt_fanout_answer *)ctx)->status = status;
}

static void on_data(void *ctx, bt_http_call *call, const char *bytes, size_t n)
{
    (void)call;
    bt_fanout_answer *answer = ctx;
    if (answer->body.length + n <= MAX_ANSWER_BYTES)
        bt_strbuf_append(&answer->body, bytes, n);
    else
        answer->status = 0;
}

static void destroy(bt_fanout *fanout)
{
    if (fanout->prev != NULL)
        fanout->prev->next = fanout->next;
    else
        fanout->pl->fanouts = fanout->next;
    if (fanout->next != NULL)
        fanout->next->prev = fanout->prev;
    for (uint32_t i = 0; i < fanout->n_answers; i++)
        bt_strbuf_free(&fanout->answers[i].body);
    bt_free(fanout);
}

static void on_done(void *ctx, bt_http_call *call, const bt_http_result *result)
{
    (void)call;
    bt_fanout_answer *answer = ctx;
    bt_fanout *fanout = answer->fanout;
    answer->call = NULL;
    if (result->status != BATON_OK)
        answer->status = 0;
    if (--fanout->n_open > 0 || fanout->is_ending)
        return;
    fanout->on_all(fanout);
    destroy(fanout);
}

/* Ends it without an answer. */
static void end(bt_fanout *fanout)
{
    fanout->is_ending = true;
    for (uint32_t i = 0; i < fanout->n_answers; i++) {
        if (fanout->answers[i].call != NULL)
            bt_http_call_cancel(fanout->answers[i].call);
    }
    bt_http_abort(fanout->http);
    destroy(fanout);
}

static void on_gone(void *arg)
{
    end(arg);
}

void bt_fanout_end_all(bt_proxy_loop *pl)
{
    while (pl->fanouts != NULL)
        end(pl->fanouts);
}

static void ask(bt_fanout *fanout, const bt_worker *worker, const char *path)
{
    static const bt_http_call_ops ops = {on_head, on_data, on_done};
    const char *key = bt_http_header_get(fanout->http->headers, "Authorization");
    bt_http_header header = {"Authorization", key};
    bt_fanout_answer *answer = &fanout->answers[fanout->n_answers++];
    answer->worker = worker;
    answer->fanout = fanout;
    bt_http_client_request request = {.host = worker->at.host,
                                      .port = worker->at.port,
                                      .tls = worker->tls,
                                      .path = path,
                                      .headers = &header,
                                      .n_headers = key == NULL ? 0 : 1,
                                      .total_ms = DEADLINE_MS,
                                      .ops = &ops,
                                      .ctx = answer};
    if (bt_http_client_start(fanout->pl->client, &request, &answer->call) == BATON_OK)
        fanout->n_open++;
}

void bt_fanout_start(bt_proxy_loop *pl, bt_http_request *http, const char *path,
                     void (*on_all)(bt_fanout *fanout))
{
    bt_fanout *fanout = bt_calloc(1, sizeof(*fanout));
    if (fanout == NULL) {
        bt_http_respond_error(http, 503, NULL, "out of memory", NULL, "no_memory");
        return;
    }
    fanout->pl = pl;
    fanout->http = http;
    fanout->on_all = on_all;
    fanout->next = pl->fanouts;
    if (fanout->next != NULL)
        fanout->next->prev = fanout;
    pl->fanouts = fanout;
    bt_http_on_gone(http, on_gone, fanout);
    const bt_worker_pool *pools[] = {&pl->proxy->prefill, &pl->proxy->decode};
    for (int p = 0; p < 2; p++) {
        for (uint32_t i = 0; i < pools[p]->n_workers; i++)
            ask(fanout, &pools[p]->workers[i], path);
    }
    if (fanout->n_open == 0) {
        on_all(fanout);
        destroy(fanout);
    }
}
