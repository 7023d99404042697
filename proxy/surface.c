/* SPDX-License-Identifier: Apache-2.0 */
/* Which path does what. */
#include "core/promtext.h"
#include "http/jsonscan.h"
#include "proxy/fanout.h"
#include "proxy/proxyrequest.h"

#include <string.h>

static void respond_json(bt_proxy_loop *pl, bt_http_request *http, unsigned code, const char *json)
{
    bt_count_request(&pl->metrics, BT_ROUTE_ID_OTHER, code);
    bt_http_respond_json(http, code, json, strlen(json));
}

static void on_health(bt_proxy_loop *pl, bt_http_request *http)
{
    respond_json(pl, http, 200, "{\"status\":\"ok\"}");
}

static void on_version(bt_proxy_loop *pl, bt_http_request *http)
{
    respond_json(pl, http, 200, "{\"version\":\"" BATON_VERSION "\"}");
}

/* Ready: at least one engine of each role says that it is healthy. */
static void on_all_healthy(bt_fanout *fanout)
{
    uint32_t n_up[2] = {0, 0};
    for (uint32_t i = 0; i < fanout->n_answers; i++)
        n_up[fanout->answers[i].worker->role] += fanout->answers[i].status == 200;
    const bt_proxy *proxy = fanout->pl->proxy;
    bool is_ready = n_up[BT_ROLE_PREFILL] > 0 && n_up[BT_ROLE_DECODE] > 0;
    bt_strbuf body = {0};
    bt_strbuf_printf(&body,
                     "{\"status\":\"%s\",\"prefill\":{\"up\":%u,\"of\":%u},"
                     "\"decode\":{\"up\":%u,\"of\":%u}}",
                     is_ready ? "ready" : "not ready", n_up[BT_ROLE_PREFILL],
                     proxy->prefill.n_workers, n_up[BT_ROLE_DECODE], proxy->decode.n_workers);
    respond_json(fanout->pl, fanout->http, is_ready ? 200 : 503, bt_strbuf_text(&body));
    bt_strbuf_free(&body);
}

static void on_ready(bt_proxy_loop *pl, bt_http_request *http)
{
    /* Relaxed: whoever drains waits for what came before anyway. */
    if (atomic_load_explicit(&pl->proxy->is_draining, memory_order_relaxed))
        respond_json(pl, http, 503, "{\"status\":\"draining\"}");
    else
        bt_fanout_start(pl, http, "/health", on_all_healthy);
}

static void on_metrics(bt_proxy_loop *pl, bt_http_request *http)
{
    bt_proxy *proxy = pl->proxy;
    const bt_proxy_metrics *loops[BT_PROXY_MAX_THREADS];
    for (uint32_t i = 0; i < proxy->n_loops; i++)
        loops[i] = &proxy->loops[i].metrics;
    bt_metrics_view view = {.loops = loops,
                            .n_loops = proxy->n_loops,
                            .control = bt_kvcontrol_counters(proxy->control),
                            .connections_cut = bt_kvcontrol_cut_total(proxy->control),
                            .prefill = &proxy->prefill,
                            .decode = &proxy->decode,
                            .inflight = bt_proxy_inflight(proxy),
                            .waiting =
                                atomic_load_explicit(&proxy->n_waiting, memory_order_relaxed)};
    bt_strbuf text = {0};
    bt_proxy_metrics_print(&view, &text);
    bt_http_header header = {"Content-Type", BT_PROM_CONTENT_TYPE};
    bt_http_respond(http, 200, &header, 1, bt_strbuf_text(&text), text.length);
    bt_strbuf_free(&text);
}

/* Models. */

static bool holds_id(const bt_strbuf *ids, bt_slice id)
{
    return ids->length > 0 && memmem(ids->data, ids->length, id.at, id.n) != NULL;
}

/* Appends the models of one answer that are not there yet; ids keeps their names, with quotes. */
static void merge_models(const bt_fanout_answer *answer, bt_strbuf *out, bt_strbuf *ids)
{
    static const char *const keys[] = {"data"};
    bt_json_object scan;
    bt_json_value model, id;
    if (answer->status != 200 || bt_json_scan(bt_strbuf_text(&answer->body), answer->body.length,
                                              keys, 1, &scan) != BATON_OK)
        return;
    bt_json_iter it = bt_json_begin(bt_json_at(&scan, 0));
    while (bt_json_next(&it, &model)) {
        bool has_id = bt_json_get(model, "id", &id) == BATON_OK && id.type == BT_JSON_STRING;
        if (!has_id || holds_id(ids, id.text))
            continue;
        if (ids->length > 0)
            bt_strbuf_putc(out, ',');
        bt_strbuf_append(out, model.text.at, model.text.n);
        bt_strbuf_append(ids, id.text.at, id.text.n);
    }
}

static void on_all_models(bt_fanout *fanout)
{
    bt_strbuf out = {0}, ids = {0};
    bt_strbuf_puts(&out, "{\"object\":\"list\",\"data\":[");
    for (uint32_t i = 0; i < fanout->n_answers; i++)
        merge_models(&fanout->answers[i], &out, &ids);
    bt_strbuf_puts(&out, "]}");
    unsigned code = ids.length > 0 ? 200 : 503;
    bt_count_request(&fanout->pl->metrics, BT_ROUTE_ID_MODELS, code);
    if (code == 200)
        bt_http_respond_json(fanout->http, code, bt_strbuf_text(&out), out.length);
    else
        bt_http_respond_error(fanout->http, code, NULL, "no engine names its models", NULL,
                              "no_worker");
    bt_strbuf_free(&out);
    bt_strbuf_free(&ids);
}

static void on_models(bt_proxy_loop *pl, bt_http_request *http)
{
    bt_fanout_start(pl, http, "/v1/models", on_all_models);
}

/* Requests. */

static void on_completion(bt_proxy_loop *pl, bt_http_request *http)
{
    bt_req_start(pl, http, BT_ROUTE_ID_COMPLETIONS);
}

static void on_chat(bt_proxy_loop *pl, bt_http_request *http)
{
    bt_req_start(pl, http, BT_ROUTE_ID_CHAT);
}

static void on_tokenize(bt_proxy_loop *pl, bt_http_request *http)
{
    bt_req_start_single(pl, http, BT_ROUTE_ID_TOKENIZE);
}

static void on_detokenize(bt_proxy_loop *pl, bt_http_request *http)
{
    bt_req_start_single(pl, http, BT_ROUTE_ID_DETOKENIZE);
}

/* Open ones answer without a key: they tell of the proxy, not of engines' work. */
static const struct {
    const char *path;
    bool is_post, is_open;
    void (*handle)(bt_proxy_loop *pl, bt_http_request *http);
} routes[] = {
    {"/v1/completions", true, false, on_completion},
    {"/v1/chat/completions", true, false, on_chat},
    {"/tokenize", true, false, on_tokenize},
    {"/detokenize", true, false, on_detokenize},
    {"/v1/models", false, false, on_models},
    {"/health", false, true, on_health},
    {"/healthz", false, true, on_health},
    {"/readyz", false, true, on_ready},
    {"/metrics", false, true, on_metrics},
    {"/version", false, true, on_version},
};

static bool is_open(const char *target)
{
    size_t n = strcspn(target, "?");
    for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
        if (strncmp(routes[i].path, target, n) == 0 && routes[i].path[n] == '\0')
            return routes[i].is_open;
    }
    return false;
}

/* Of what is open, nothing takes one: a stranger is not to leave it here. */
static bool has_body(bt_http_headers headers)
{
    const char *length = bt_http_header_get(headers, "content-length");
    return bt_http_header_count(headers, "transfer-encoding") > 0 ||
           (length != NULL && strspn(length, "0") != strlen(length));
}

bool bt_surface_on_head(void *ctx, const char *target, bt_http_headers headers,
                        bt_http_refusal *refusal)
{
    bt_proxy_loop *pl = ctx;
    const char *shown = bt_http_header_get(headers, "authorization");
    if ((is_open(target) && !has_body(headers)) || bt_apikeys_admit(pl->proxy->doors.keys, shown))
        return true;
    bt_count_request(&pl->metrics, BT_ROUTE_ID_OTHER, 401);
    *refusal = (bt_http_refusal){401, "invalid_api_key",
                                 shown == NULL ? "wanted an API key (Authorization: Bearer KEY), "
                                                 "found none"
                                               : "the API key is not known here"};
    return false;
}

void bt_surface_on_request(void *ctx, bt_http_request *http)
{
    bt_proxy_loop *pl = ctx;
    for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
        if (strcmp(routes[i].path, http->path) != 0)
            continue;
        bool is_allowed = routes[i].is_post ? strcmp(http->method, "POST") == 0
                                            : strcmp(http->method, "GET") == 0 ||
                                                  strcmp(http->method, "HEAD") == 0;
        if (is_allowed) {
            routes[i].handle(pl, http);
            return;
        }
        bt_count_request(&pl->metrics, BT_ROUTE_ID_OTHER, 405);
        bt_http_respond_not_allowed(http, routes[i].is_post ? "POST" : "GET, HEAD");
        return;
    }
    bt_count_request(&pl->metrics, BT_ROUTE_ID_OTHER, 404);
    bt_http_respond_not_found(http);
}
