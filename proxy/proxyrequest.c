/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/proxyrequest.h"
#include "core/alloc.h"
#include "core/clock.h"
#include "core/fail.h"
#include "core/log.h"
#include "proxy/farewell.h"
#include "proxy/watch.h"

#include <assert.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

enum { MAX_HEADERS = 160 };

static uint64_t now_ns(void)
{
    return bt_now_ns(&bt_clock_monotonic);
}

/* Rows: from. A bit per state it may go to. */
enum { BEGIN_ATTEMPT = 1u << BT_REQ_ROOM_WAIT | 1u << BT_REQ_PREFILL };
static const unsigned legal_moves[BT_N_REQ_STATES] = {
    [BT_REQ_NEW] = 1u << BT_REQ_TOKENIZE | BEGIN_ATTEMPT | 1u << BT_REQ_DECODE | 1u << BT_REQ_ENDED,
    [BT_REQ_TOKENIZE] = 1u << BT_REQ_TOKENIZE | BEGIN_ATTEMPT | 1u << BT_REQ_ENDED,
    [BT_REQ_ROOM_WAIT] = BEGIN_ATTEMPT | 1u << BT_REQ_ENDED,
    [BT_REQ_PREFILL] =
        BEGIN_ATTEMPT | 1u << BT_REQ_KV_WAIT | 1u << BT_REQ_DECODE | 1u << BT_REQ_ENDED,
    [BT_REQ_KV_WAIT] = BEGIN_ATTEMPT | 1u << BT_REQ_DECODE | 1u << BT_REQ_ENDED,
    [BT_REQ_DECODE] = BEGIN_ATTEMPT | 1u << BT_REQ_DECODE | 1u << BT_REQ_ENDED,
};

static bt_phase phase_of(const bt_req *req)
{
    switch (req->state) {
    case BT_REQ_TOKENIZE:
        return BT_PHASE_TOKENIZE;
    case BT_REQ_ROOM_WAIT:
        return BT_PHASE_ROOM_WAIT;
    case BT_REQ_KV_WAIT:
        return BT_PHASE_KV_WAIT;
    case BT_REQ_DECODE:
        return req->has_relayed ? BT_PHASE_DECODE : BT_PHASE_DECODE_FIRST;
    default:
        return BT_PHASE_PREFILL;
    }
}

void bt_req_set_state(bt_req *req, bt_req_state state)
{
    uint64_t now = now_ns();
    bool is_legal = legal_moves[req->state] >> state & 1;
    assert(is_legal);
    (void)is_legal; /* without assertions nothing else looks at it */
    if (req->state != BT_REQ_NEW)
        bt_histogram_record(&req->pl->metrics.phases[phase_of(req)], now - req->phase_start_ns);
    req->phase_start_ns = now;
    req->state = state;
}

uint32_t bt_req_left_ms(const bt_req *req)
{
    uint64_t used_ms = (now_ns() - req->arrived_ns) / BT_NS_PER_MS;
    uint32_t total_ms = req->pl->proxy->options.ms.total;
    return used_ms >= total_ms ? 1 : (uint32_t)(total_ms - used_ms);
}

void bt_req_note_begun(bt_req *req)
{
    if (!req->has_begun) {
        bt_histogram_record(&req->pl->metrics.ttft, now_ns() - req->arrived_ns);
        bt_req_reached(req, BT_AT_FIRST_BYTE);
    }
    req->has_begun = true;
}

/* The hand-off will not be used: the receivers need not hold its pages until the lease runs out. */
static void release_kv(bt_req *req)
{
    bt_proxy_loop *pl = req->pl;
    if (req->is_kv_at_risk && req->dialect->answers_questions) {
        bt_kvcontrol_ask(pl->proxy->control, BT_ASK_RELEASE, (uint32_t)req->decode_idx, req->kv.id);
        bt_count(&pl->metrics.released);
    }
    req->is_kv_at_risk = false;
}

void bt_req_tell_engines(const bt_req *req)
{
    if (req->dialect == NULL || req->dialect->abort_path == NULL || req->uuid[0] == 0)
        return;
    if (req->beside.call != NULL)
        bt_farewell_send(req, BT_LEG_PREFILL);
    if (req->call != NULL && req->call_leg == BT_LEG_DECODE)
        bt_farewell_send(req, BT_LEG_DECODE);
}

void bt_req_leave_attempt(bt_req *req)
{
    bt_req_leave_line(req);
    bt_req_tell_engines(req);
    bt_req_beside_drop(req);
    bt_req_call_drop(req);
    if (req->timer != NULL)
        bt_timer_stop(req->timer);
    release_kv(req);
    bt_kvwait_remove(req->pl->kvwait, &req->kv);
    bt_req_leave_worker(req, BT_LEG_PREFILL);
    bt_req_leave_worker(req, BT_LEG_DECODE);
}

/* Life. */

static void destroy(bt_req *req)
{
    bt_timer_destroy(req->timer);
    bt_sse_destroy(req->sse);
    bt_strbuf_free(&req->members.text);
    bt_strbuf_free(&req->decode_members.text);
    bt_req_beside_free(req);
    bt_strbuf_free(&req->leg_id);
    bt_strbuf_free(&req->authorization);
    bt_strbuf_free(&req->answer_json);
    bt_strbuf_free(&req->ids);
    bt_strbuf_free(&req->collected);
    bt_strbuf_free(&req->first_json);
    bt_strbuf_free(&req->out);
    bt_free(req->leg);
    bt_free(req->plan);
    bt_free(req);
}

void bt_req_finish(bt_req *req, unsigned code)
{
    bt_proxy_loop *pl = req->pl;
    bt_req_trace_end(req, code, NULL);
    bt_req_set_state(req, BT_REQ_ENDED);
    bt_req_leave_attempt(req);
    bt_count_request(&pl->metrics, req->route, code);
    bt_histogram_record(&pl->metrics.duration, now_ns() - req->arrived_ns);
    if (req->prev != NULL)
        req->prev->next = req->next;
    else
        pl->requests = req->next;
    if (req->next != NULL)
        req->next->prev = req->prev;
    atomic_fetch_sub_explicit(&pl->proxy->inflight, 1, memory_order_relaxed);
    destroy(req);
}

/* Ends the request without an answer, or without the rest of it. */
static void cut_off(bt_req *req, unsigned code)
{
    bt_http_abort(req->http);
    bt_req_finish(req, code);
}

static void on_gone(void *arg)
{
    bt_req *req = arg;
    bt_count(&req->pl->metrics.cancels[phase_of(req)]);
    bt_debug("client left request=%s phase=%s", req->request_id, bt_phase_name(phase_of(req)));
    cut_off(req, 499);
}

void bt_req_end_all(bt_proxy_loop *pl)
{
    while (pl->requests != NULL)
        cut_off(pl->requests, 503);
}

static bool admit(bt_proxy_loop *pl, bt_http_request *http, bt_route_id route)
{
    bt_proxy *proxy = pl->proxy;
    uint32_t before = atomic_fetch_add_explicit(&proxy->inflight, 1, memory_order_relaxed);
    if (before < proxy->options.max_inflight)
        return true;
    atomic_fetch_sub_explicit(&proxy->inflight, 1, memory_order_relaxed);
    bt_count(&pl->metrics.shed);
    bt_count_request(&pl->metrics, route, 503);
    char body[512];
    size_t n = bt_http_error_body(body, sizeof(body), 503, NULL,
                                  "too many requests at once, try again later", NULL, "overloaded");
    bt_http_header headers[] = {{"Content-Type", "application/json"}, {"Retry-After", "1"}};
    bt_http_respond(http, 503, headers, 2, body, n);
    return false;
}

/* A client's X-Request-Id names the request in both engines' logs; without one we make it. */
static void name_request(bt_req *req)
{
    const char *given = bt_http_header_get(req->http->headers, "X-Request-Id");
    uint64_t random;
    if (given != NULL) {
        snprintf(req->request_id, sizeof(req->request_id), "%s", given);
        return;
    }
    randombytes_buf(&random, sizeof(random));
    snprintf(req->request_id, sizeof(req->request_id), "%016llx", (unsigned long long)random);
}

static bt_req *create(bt_proxy_loop *pl, bt_http_request *http, bt_route_id route)
{
    bt_req *req = bt_calloc(1, sizeof(*req));
    if (req == NULL)
        return NULL;
    req->pl = pl;
    req->http = http;
    req->arrived_ns = http->arrived_ns;
    req->route = route;
    req->path = http->path;
    req->prefill_idx = req->decode_idx = -1;
    req->allowed[BT_LEG_PREFILL] = req->allowed[BT_LEG_DECODE] = UINT64_MAX;
    req->retries_left = pl->proxy->options.retries;
    req->leg = bt_calloc(1, sizeof(*req->leg));
    req->plan = bt_calloc(1, sizeof(*req->plan));
    if (req->leg == NULL || req->plan == NULL) {
        destroy(req);
        return NULL;
    }
    name_request(req);
    bt_req_trace_begin(req);
    req->is_explained = bt_req_wants_explanation(req);
    req->next = pl->requests;
    if (req->next != NULL)
        req->next->prev = req;
    pl->requests = req;
    return req;
}

static bt_req *enter(bt_proxy_loop *pl, bt_http_request *http, bt_route_id route)
{
    if (!admit(pl, http, route))
        return NULL;
    bt_req *req = create(pl, http, route);
    if (req == NULL) {
        atomic_fetch_sub_explicit(&pl->proxy->inflight, 1, memory_order_relaxed);
        bt_http_respond_error(http, 503, NULL, "out of memory", NULL, "no_memory");
        return NULL;
    }
    bt_http_on_gone(http, on_gone, req);
    return req;
}

/* A decode engine computes the prompt itself. */
static void bypass(bt_req *req, bt_bypass_reason reason)
{
    bt_count(&req->pl->metrics.bypasses[reason]);
    req->dialect = NULL;
    bt_req_decode(req);
}

static void refuse(bt_req *req, const char *text, const char *param)
{
    bt_http_respond_error(req->http, 400, NULL, text, param, NULL);
    bt_req_finish(req, 400);
}

/* Which engines may have it, and in what form it is handed over. */
static void choose_dialect(bt_req *req, bt_mode mode, uint64_t named)
{
    bt_proxy *proxy = req->pl->proxy;
    bt_dialect_id id =
        named != 0 ? (bt_dialect_id)proxy->prefill.workers[__builtin_ctzll(named)].at.dialect
                   : (bt_dialect_id)bt_worker_pick_dialect(&proxy->decode);
    const bt_dialect *dialect = bt_dialect_find(id, mode, proxy->options.engines);
    bool can_be_early = dialect->mode == BT_MODE_EARLY_FIRST_TOKEN;
    req->is_early = can_be_early && req->plan->is_early_safe;
    if (can_be_early && !req->is_early) {
        bt_count(&req->pl->metrics.later[BT_LATER_BODY]);
        dialect = bt_dialect_find(id, BT_MODE_DECODE_FIRST, proxy->options.engines);
    }
    req->dialect = dialect;
    req->allowed[BT_LEG_PREFILL] =
        proxy->prefill.of_dialect[id] & (named != 0 ? named : UINT64_MAX);
    req->allowed[BT_LEG_DECODE] = proxy->decode.of_dialect[id];
}

/* One hand-off names one sequence, in most dialects. */
static bool is_for_decode_alone(const bt_req *req)
{
    bool has_prompts = req->plan->form == BT_PROMPT_BATCH;
    switch (req->dialect->several) {
    case BT_SEVERAL_CHOICES:
        return has_prompts;
    case BT_SEVERAL_NEVER:
        return has_prompts || req->plan->has_choices;
    default:
        return false;
    }
}

void bt_req_start(bt_proxy_loop *pl, bt_http_request *http, bt_route_id route)
{
    bt_req *req = enter(pl, http, route);
    if (req == NULL)
        return;
    const bt_proxy_options *options = &pl->proxy->options;
    bool is_chat = route == BT_ROUTE_ID_CHAT;
    const char *param;
    bt_bypass_reason reason;
    if (bt_body_plan_make(is_chat ? BT_ROUTE_CHAT : BT_ROUTE_COMPLETIONS, http->body,
                          http->body_bytes, req->plan, &param) != BATON_OK) {
        refuse(req, baton_last_error(), param);
        return;
    }
    uint64_t named;
    bt_front front = bt_req_front(req, &named);
    if (front == BT_FRONT_UNKNOWN) {
        refuse(req, "names no prefill engine of this proxy", options->prefiller_header);
        return;
    }
    choose_dialect(req, is_chat ? options->chat_mode : options->mode, named);
    req->limit = req->plan->has_limit ? req->plan->limit : 0;
    if (req->plan->n_sequences > BT_PLAN_MAX_SEQUENCES)
        refuse(req, "too many sequences in one body", is_chat ? "n" : "prompt");
    else if (req->dialect->several == BT_SEVERAL_PROMPTS && req->plan->has_choices)
        refuse(req, "these engines hand over one choice of a prompt only", "n");
    else if (is_for_decode_alone(req))
        bypass(req, BT_BYPASS_SEVERAL);
    else if (front == BT_FRONT_DECODE_ALONE && !req->dialect->decode_needs_prefill)
        bypass(req, BT_BYPASS_FRONT);
    else if (front == BT_FRONT_NONE && !req->dialect->decode_needs_prefill &&
             bt_req_is_local(req, &reason))
        bypass(req, reason);
    else if (req->is_early)
        bt_req_tokenize(req);
    else
        bt_req_attempt(req);
}

void bt_req_start_single(bt_proxy_loop *pl, bt_http_request *http, bt_route_id route)
{
    bt_req *req = enter(pl, http, route);
    if (req == NULL)
        return;
    bt_free(req->plan);
    req->plan = NULL;
    bt_req_decode(req);
}

/* Calls. */

#define RANK_HEADER "X-data-parallel-rank"

/* Ours to say, or of no meaning to the engine. The engine must not compress: events are read. */
static bool is_forwarded(const bt_req *req, bt_http_headers headers, const char *name)
{
    const char *front = req->pl->proxy->options.prefiller_header;
    if (front != NULL && bt_slice_equals_nocase(bt_slice_of(name), front))
        return false;
    static const char *const ours[] = {"host",        "content-length",  "content-type",
                                       "expect",      "accept-encoding", "x-request-id",
                                       "traceparent", "x-baton-explain"};
    for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++) {
        if (bt_slice_equals_nocase(bt_slice_of(name), ours[i]))
            return false;
    }
    return !bt_http_is_hop_by_hop(headers, name);
}

static bool names_rank(const bt_req *req, bt_leg leg)
{
    return req->dialect != NULL && req->dialect->legs[leg].names_rank && req->rank[0] != 0;
}

static size_t fill_headers(const bt_req *req, bt_leg leg, bt_http_header *headers)
{
    bt_http_headers client = req->http->headers;
    const char *given = bt_http_header_get(client, "X-Request-Id");
    size_t n = 0;
    headers[n++] = (bt_http_header){"Content-Type", "application/json"};
    if (req->leg_id.length > 0)
        given = bt_strbuf_text(&req->leg_id);
    headers[n++] = (bt_http_header){"X-Request-Id", given != NULL ? given : req->request_id};
    headers[n++] = (bt_http_header){"traceparent", req->traceparent};
    bool has_rank = names_rank(req, leg);
    if (has_rank)
        headers[n++] = (bt_http_header){RANK_HEADER, req->rank};
    for (size_t i = 0; i < client.n && n < MAX_HEADERS; i++) {
        const char *name = client.items[i].name;
        if (has_rank && bt_slice_equals_nocase(bt_slice_of(name), RANK_HEADER))
            continue;
        bool is_orphan = !req->is_trace_given && /* of a trace that we could not read */
                         bt_slice_equals_nocase(bt_slice_of(name), "tracestate");
        if (is_forwarded(req, client, name) && !is_orphan)
            headers[n++] = client.items[i];
    }
    return n;
}

static uint32_t least(uint32_t a, uint32_t b)
{
    return a == 0 || b < a ? b : a;
}

baton_status bt_req_call_open(bt_req *req, const bt_req_call *call, bt_http_call **call_p)
{
    bt_http_header headers[MAX_HEADERS];
    const bt_worker *worker = bt_req_worker(req, call->leg);
    bt_http_client_request request = {
        .host = worker->at.host,
        .port = call->port == 0 ? worker->at.port : call->port,
        .tls = call->port == 0 ? worker->tls : NULL, /* a bootstrap server speaks plain HTTP */
        .method = call->method == NULL ? "POST" : call->method,
        .path = call->path,
        .headers = headers,
        /* Nor does it get what the client says to engines. */
        .n_headers = call->port == 0 ? fill_headers(req, call->leg, headers) : 0,
        .body = call->body,
        .n_body = call->n_body,
        .connect_ms = req->pl->proxy->options.ms.connect,
        .first_byte_ms = call->first_byte_ms,
        .gap_ms = call->gap_ms,
        .total_ms = least(call->total_ms, bt_req_left_ms(req)),
        .ops = call->ops,
        .ctx = req,
    };
    return bt_http_client_start(req->pl->client, &request, call_p);
}

void bt_req_call_start(bt_req *req, const bt_req_call *call)
{
    bt_strbuf_clear(&req->collected);
    req->is_cut = false;
    req->call_status = 0;
    req->call_type[0] = req->retry_after[0] = 0;
    if (bt_req_call_open(req, call, &req->call) != BATON_OK) {
        req->call = NULL;
        bt_req_failure failure = {
            .status = 500, .code = "internal_error", .text = baton_last_error(), .leg = call->leg};
        bt_req_fail(req, &failure);
        return;
    }
    req->call_leg = call->leg;
    bt_watch_begin(req->pl->watch, req);
}

void bt_req_call_drop(bt_req *req)
{
    bt_http_call *call = req->call;
    req->call = NULL; /* on_done comes before cancel returns, and must find it gone */
    req->is_paused = false;
    if (call != NULL)
        bt_http_call_cancel(call);
}

void bt_req_collect(bt_req *req, const char *bytes, size_t n)
{
    if (req->collected.length + n > BT_REQ_MAX_COLLECTED_BYTES)
        req->is_cut = true;
    else
        bt_strbuf_append(&req->collected, bytes, n);
}

void bt_req_note_head(bt_req *req, unsigned status, bt_http_headers headers)
{
    const char *type = bt_http_header_get(headers, "Content-Type");
    const char *retry_after = bt_http_header_get(headers, "Retry-After");
    bt_watch_heard(req->pl->watch, req);
    req->call_status = status;
    snprintf(req->call_type, sizeof(req->call_type), "%s", type == NULL ? "" : type);
    snprintf(req->retry_after, sizeof(req->retry_after), "%s",
             retry_after == NULL ? "" : retry_after);
}

bool bt_req_has_untried(const bt_req *req, bt_leg leg)
{
    uint64_t tried = leg == BT_LEG_PREFILL ? req->tried_prefill : req->tried_decode;
    uint32_t n = bt_req_pool(req, leg)->n_workers;
    uint64_t all = n == 64 ? UINT64_MAX : (UINT64_C(1) << n) - 1;
    return (req->allowed[leg] & all & ~tried) != 0;
}

/* A request of the attempt goes to no engine. */
static void fail_without_worker(bt_req *req, bt_leg leg)
{
    bt_req_failure failure = {.status = 503,
                              .code = "no_worker",
                              .text = "no engine is left to try",
                              .leg = leg,
                              .retry_after = 1};
    bt_req_fail(req, &failure);
}

bool bt_req_enter_worker(bt_req *req, bt_leg leg)
{
    bool has_worker = bt_req_choose_worker(req, leg);
    if (!has_worker)
        fail_without_worker(req, leg);
    return has_worker;
}
