/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/farewell.h"
#include "core/alloc.h"
#include "core/fail.h"
#include "core/log.h"

typedef struct bt_farewell {
    bt_proxy_loop *pl;
    struct bt_farewell *prev, *next;
    bt_http_call *call;
    bt_strbuf body;
    bt_slice slice; /* of it; the call borrows this too */
} bt_farewell;

enum { ANSWER_MS = 2000 };

static void destroy(bt_farewell *word)
{
    if (word->prev != NULL)
        word->prev->next = word->next;
    else
        word->pl->farewells = word->next;
    if (word->next != NULL)
        word->next->prev = word->prev;
    bt_strbuf_free(&word->body);
    bt_free(word);
}

static void on_done(void *ctx, bt_http_call *call, const bt_http_result *result)
{
    bt_farewell *word = ctx;
    (void)call;
    if (result->status != BATON_OK)
        bt_debug("engine not told that a leg has ended: %s", result->text);
    destroy(word);
}

static baton_status send(bt_farewell *word, const bt_req *req, const bt_worker *worker)
{
    static const bt_http_call_ops ops = {.on_done = on_done};
    bt_dialect_values values = bt_req_values(req);
    bt_dialect_put(req->dialect->abort_body, &values, &word->body);
    BATON_TRY(bt_strbuf_status(&word->body));
    word->slice = (bt_slice){bt_strbuf_text(&word->body), word->body.length};
    const char *key = bt_strbuf_text(&req->authorization);
    bt_http_header headers[] = {{"Content-Type", "application/json"}, {"Authorization", key}};
    bt_http_client_request request = {.host = worker->at.host,
                                      .port = worker->at.port,
                                      .tls = worker->tls,
                                      .method = "POST",
                                      .path = req->dialect->abort_path,
                                      .headers = headers,
                                      .n_headers = key[0] == 0 ? 1 : 2,
                                      .body = &word->slice,
                                      .n_body = 1,
                                      .total_ms = ANSWER_MS,
                                      .ops = &ops,
                                      .ctx = word};
    return bt_http_client_start(word->pl->client, &request, &word->call);
}

void bt_farewell_send(const bt_req *req, bt_leg leg)
{
    bt_proxy_loop *pl = req->pl;
    bt_farewell *word = bt_calloc(1, sizeof(*word));
    if (word == NULL)
        return; /* the engine finds the connection closed, and its own deadline ends the rest */
    word->pl = pl;
    word->next = pl->farewells;
    if (word->next != NULL)
        word->next->prev = word;
    pl->farewells = word;
    if (send(word, req, bt_req_worker(req, leg)) != BATON_OK) {
        bt_debug("engine not told that a leg has ended: %s", baton_last_error());
        destroy(word);
        return;
    }
    bt_count(&pl->metrics.aborts);
}

void bt_farewell_end_all(bt_proxy_loop *pl)
{
    while (pl->farewells != NULL)
        bt_http_call_cancel(pl->farewells->call);
}
