/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/proxyrequest.h"
#include "core/alloc.h"
#include "core/clock.h"
#include "core/fail.h"
#include "core/log.h"
#include "proxy/probe.h"
#include "proxy/watch.h"

#include <assert.h>
#include <sodium.h>
#include <stdio.h>
#include <string.h>

enum { MAX_COLLECTED_BYTES = 16 << 20, MAX_HEADERS = 160 };

static uint64_t now_ns(void)
{
    return bt_now_ns(&bt_clock_monotonic);
}

/* Rows: from. A bit per state it may go to. */
static const unsigned legal_moves[BT_N_REQ_STATES] = {
    [BT_REQ_NEW] =
        1u << BT_REQ_TOKENIZE | 1u << BT_REQ_PREFILL | 1u << BT_REQ_DECODE | 1u << BT_REQ_ENDED,
    [BT_REQ_TOKENIZE] = 1u << BT_REQ_TOKENIZE | 1u << BT_REQ_PREFILL | 1u << BT_REQ_ENDED,
    [BT_REQ_PREFILL] =
        1u << BT_REQ_PREFILL | 1u << BT_REQ_KV_WAIT | 1u << BT_REQ_DECODE | 1u << BT_REQ_ENDED,
    [BT_REQ_KV_WAIT] = 1u << BT_REQ_PREFILL | 1u << BT_REQ_DECODE | 1u << BT_REQ_ENDED,
    [BT_REQ_DECODE] = 1u << BT_REQ_PREFILL | 1u << BT_REQ_DECODE | 1u << BT_REQ_ENDED,
};

static bt_phase phase_of(const bt_req *req)
{
    switch (req->state) {
    case BT_REQ_TOKENIZE:
        return BT_PHASE_TOKENIZE;
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

static void leave_attempt(bt_req *req)
{
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
    bt_strbuf_free(&req->params);
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
    leave_attempt(req);
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

/* Several prompts in one body are several sequences, and one hand-off id cannot name them: a decode
 * engine computes them itself. */
static void bypass(bt_req *req)
{
    bt_count(&req->pl->metrics.bypasses);
    req->dialect = NULL;
    bt_req_decode(req);
}

void bt_req_start(bt_proxy_loop *pl, bt_http_request *http, bt_route_id route)
{
    bt_req *req = enter(pl, http, route);
    if (req == NULL)
        return;
    const bt_proxy_options *options = &pl->proxy->options;
    bool is_chat = route == BT_ROUTE_ID_CHAT;
    const char *param;
    if (bt_body_plan_make(is_chat ? BT_ROUTE_CHAT : BT_ROUTE_COMPLETIONS, http->body,
                          http->body_bytes, req->plan, &param) != BATON_OK) {
        bt_http_respond_error(http, 400, NULL, baton_last_error(), param, NULL);
        bt_req_finish(req, 400);
        return;
    }
    bt_mode mode = is_chat ? options->chat_mode : options->mode;
    req->is_early = mode == BT_MODE_EARLY_FIRST_TOKEN && req->plan->is_early_safe;
    if (mode == BT_MODE_EARLY_FIRST_TOKEN && !req->is_early)
        bt_count(&pl->metrics.later[BT_LATER_BODY]);
    req->dialect = bt_dialect_find(req->is_early ? BT_MODE_EARLY_FIRST_TOKEN : BT_MODE_DECODE_FIRST,
                                   options->engines);
    req->limit = req->plan->has_limit ? req->plan->limit : 0;
    if (req->plan->form == BT_PROMPT_BATCH)
        bypass(req);
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

/* Ours to say, or of no meaning to the engine. The engine must not compress: events are read. */
static bool is_forwarded(bt_http_headers headers, const char *name)
{
    static const char *const ours[] = {"host",        "content-length",  "content-type",
                                       "expect",      "accept-encoding", "x-request-id",
                                       "traceparent", "x-baton-explain"};
    for (size_t i = 0; i < sizeof(ours) / sizeof(ours[0]); i++) {
        if (bt_slice_equals_nocase(bt_slice_of(name), ours[i]))
            return false;
    }
    return !bt_http_is_hop_by_hop(headers, name);
}

static size_t fill_headers(const bt_req *req, bt_http_header *headers)
{
    bt_http_headers client = req->http->headers;
    const char *given = bt_http_header_get(client, "X-Request-Id");
    size_t n = 0;
    headers[n++] = (bt_http_header){"Content-Type", "application/json"};
    headers[n++] = (bt_http_header){"X-Request-Id", given != NULL ? given : req->request_id};
    headers[n++] = (bt_http_header){"traceparent", req->traceparent};
    for (size_t i = 0; i < client.n && n < MAX_HEADERS; i++) {
        const char *name = client.items[i].name;
        bool is_orphan = !req->is_trace_given && /* of a trace that we could not read */
                         bt_slice_equals_nocase(bt_slice_of(name), "tracestate");
        if (is_forwarded(client, name) && !is_orphan)
            headers[n++] = client.items[i];
    }
    return n;
}

static uint32_t least(uint32_t a, uint32_t b)
{
    return a == 0 || b < a ? b : a;
}

void bt_req_call_start(bt_req *req, const bt_req_call *call)
{
    bt_http_header headers[MAX_HEADERS];
    const bt_worker *worker = bt_req_worker(req, call->leg);
    bt_http_client_request request = {
        .host = worker->at.host,
        .port = worker->at.port,
        .method = "POST",
        .path = call->path,
        .headers = headers,
        .n_headers = fill_headers(req, headers),
        .body = call->body,
        .n_body = call->n_body,
        .connect_ms = req->pl->proxy->options.ms.connect,
        .first_byte_ms = call->first_byte_ms,
        .gap_ms = call->gap_ms,
        .total_ms = least(call->total_ms, bt_req_left_ms(req)),
        .ops = call->ops,
        .ctx = req,
    };
    bt_strbuf_clear(&req->collected);
    req->is_cut = false;
    req->call_status = 0;
    req->call_type[0] = req->retry_after[0] = 0;
    baton_status status = bt_http_client_start(req->pl->client, &request, &req->call);
    if (status != BATON_OK) {
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
    if (req->collected.length + n > MAX_COLLECTED_BYTES)
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

/* Failing. */

static const char *leg_name(const bt_req *req, bt_leg leg)
{
    return req->state == BT_REQ_TOKENIZE ? "tokenize"
           : leg == BT_LEG_PREFILL       ? "prefill"
                                         : "decode";
}

static const char *timeout_code(const bt_req *req, bt_leg leg, const bt_http_result *result)
{
    if (result->status == BATON_ERR_CONNECT_TIMEOUT)
        return "connect_timeout";
    if (bt_req_left_ms(req) <= 1)
        return "total_timeout";
    if (req->state == BT_REQ_TOKENIZE)
        return "tokenize_timeout";
    if (leg == BT_LEG_PREFILL && req->state == BT_REQ_PREFILL)
        return "prefill_timeout";
    return result->phase < BT_HTTP_HEAD ? "first_byte_timeout" : "gap_timeout";
}

bt_req_failure bt_req_failure_of(const bt_req *req, bt_leg leg, const bt_http_result *result)
{
    bool is_connect = result->phase <= BT_HTTP_CONNECT;
    bt_req_failure failure = {
        .status = 502,
        .text = baton_strerror(result->status),
        .leg = leg,
        .may_retry = true,
        .is_engine_fault = true,
        .is_unreachable = is_connect,
    };
    bool is_timeout =
        result->status == BATON_ERR_CONNECT_TIMEOUT || result->status == BATON_ERR_DEADLINE;
    const char *name = leg_name(req, leg);
    if (is_timeout) {
        failure.status = 504;
        failure.code = timeout_code(req, leg, result);
        /* A slow engine has done the work once; doing it elsewhere too makes overload worse. */
        failure.may_retry = is_connect;
    } else if (is_connect) {
        failure.code = strcmp(name, "decode") == 0 ? "decode_unreachable" : "prefill_unreachable";
    } else {
        failure.code = strcmp(name, "tokenize") == 0 ? "tokenize_failed"
                       : leg == BT_LEG_PREFILL       ? "prefill_failed"
                                                     : "decode_failed";
    }
    bt_info("%s leg failed request=%s worker=%s code=%s trace=%s: %s", name, req->request_id,
            bt_req_worker(req, leg)->name, failure.code, req->trace.trace, result->text);
    return failure;
}

/* Tells the client in whatever form its answer has by now. */
static void tell_client(bt_req *req, const bt_req_failure *failure)
{
    char text[512], body[1024];
    snprintf(text, sizeof(text), "%s: %s", failure->code, failure->text);
    size_t n =
        bt_http_error_body(body, sizeof(body), failure->status, NULL, text, NULL, failure->code);
    if (n >= sizeof(body))
        n = sizeof(body) - 1;
    if (!req->has_begun) {
        char seconds[16];
        snprintf(seconds, sizeof(seconds), "%u", failure->retry_after);
        bt_http_header headers[] = {{"Content-Type", "application/json"}, {"Retry-After", seconds}};
        bt_http_respond(req->http, failure->status, headers, failure->retry_after > 0 ? 2 : 1, body,
                        n);
        return;
    }
    if (!req->is_sse) {
        bt_http_abort(req->http);
        return;
    }
    bool is_open = req->n_tail >= 2 && memcmp(req->tail + req->n_tail - 2, "\n\n", 2) != 0;
    char event[1200];
    int bytes = snprintf(event, sizeof(event), "%sdata: %.*s\n\ndata: [DONE]\n\n",
                         is_open ? "\n\n" : "", (int)n, body);
    bt_http_write(req->http, event, (size_t)bytes);
    bt_http_end(req->http);
}

static bool has_untried(const bt_req *req, bt_leg leg)
{
    uint64_t tried = leg == BT_LEG_PREFILL ? req->tried_prefill : req->tried_decode;
    return (uint32_t)__builtin_popcountll(tried) < bt_req_pool(req, leg)->n_workers;
}

/* Marks the engines of the failed attempt, so that the next one tries others. */
static void blame(bt_req *req, const bt_req_failure *failure)
{
    bool is_prefill = failure->leg == BT_LEG_PREFILL;
    bt_worker *worker = bt_req_worker(req, failure->leg);
    if ((is_prefill || failure->is_kv) && req->prefill_idx >= 0)
        req->tried_prefill |= UINT64_C(1) << req->prefill_idx;
    if ((!is_prefill || failure->is_kv) && req->decode_idx >= 0)
        req->tried_decode |= UINT64_C(1) << req->decode_idx;
    if (worker == NULL || !failure->is_engine_fault)
        return;
    bt_worker_failed(worker, failure->is_unreachable);
    if (failure->is_unreachable)
        bt_probe_start(req->pl, worker);
}

static void retry(bt_req *req, const bt_req_failure *failure)
{
    req->retries_left -= failure->is_free ? 0 : 1;
    req->is_trace_ended = false;
    req->is_retry_of_kv = failure->is_kv;
    bt_count(&req->pl->metrics.retries[failure->leg]);
    bt_info("trying again request=%s after=%s trace=%s", req->request_id, failure->code,
            req->trace.trace);
    if (req->dialect == NULL)
        bt_req_decode(req);
    else if (req->state == BT_REQ_TOKENIZE)
        bt_req_tokenize(req);
    else
        bt_req_attempt(req);
}

void bt_req_fail(bt_req *req, const bt_req_failure *failure)
{
    blame(req, failure);
    bt_req_trace_end(req, failure->status, failure->code);
    leave_attempt(req);
    bool can_retry = failure->may_retry && (failure->is_free || req->retries_left > 0) &&
                     !req->has_relayed && bt_req_left_ms(req) > 1 &&
                     (failure->is_kv || has_untried(req, failure->leg));
    if (can_retry) {
        retry(req, failure);
        return;
    }
    bt_warn("request failed request=%s code=%s status=%u trace=%s: %s", req->request_id,
            failure->code, failure->status, req->trace.trace, failure->text);
    tell_client(req, failure);
    bt_req_finish(req, failure->status);
}

/* A 4xx is the client's to mend: it gets the engine's own words. */
static bool is_clients_fault(unsigned status)
{
    return status >= 400 && status < 500 && status != 408 && status != 429;
}

static void pass_on(bt_req *req)
{
    const char *type = req->call_type[0] != 0 ? req->call_type : "application/json";
    bt_http_header header = {"Content-Type", type};
    unsigned status = req->call_status;
    bt_http_respond(req->http, status, &header, 1, bt_strbuf_text(&req->collected),
                    req->collected.length);
    bt_req_finish(req, status);
}

/* The same in a stream that has begun: the engine's error object is the event. False: it sent none,
 * or one that does not fit into a line. */
static bool tell_in_engines_words(bt_req *req)
{
    const bt_strbuf *words = &req->collected;
    bt_json_value object, error;
    bool is_error = !req->is_cut &&
                    bt_json_check(bt_strbuf_text(words), words->length, &object) == BATON_OK &&
                    bt_json_get(object, "error", &error) == BATON_OK &&
                    memchr(words->data, '\n', words->length) == NULL;
    if (!is_error)
        return false;
    unsigned status = req->call_status;
    bt_strbuf_clear(&req->out);
    bt_strbuf_puts(&req->out, "data: ");
    bt_strbuf_append(&req->out, words->data, words->length);
    bt_strbuf_puts(&req->out, "\n\ndata: [DONE]\n\n");
    if (bt_req_write(req, bt_strbuf_text(&req->out), req->out.length)) {
        bt_http_end(req->http);
        bt_req_finish(req, status);
    }
    return true;
}

/* The prefill engine's answer may come before the notice that says the same. */
static bool is_too_large_for_decode(const bt_req *req, bt_leg leg)
{
    bt_json_value object, error, code;
    const bt_strbuf *words = &req->collected;
    return leg == BT_LEG_PREFILL && req->state == BT_REQ_PREFILL && req->call_status == 413 &&
           req->dialect->signal == BT_SIGNAL_NOTICES && !req->is_cut &&
           bt_json_check(bt_strbuf_text(words), words->length, &object) == BATON_OK &&
           bt_json_get(object, "error", &error) == BATON_OK &&
           bt_json_get(error, "code", &code) == BATON_OK &&
           bt_json_string_equals(code, baton_status_name(BATON_ERR_TOO_LARGE));
}

static void fail_in_engines_words(bt_req *req)
{
    bt_json_value object, error, message;
    char text[256] = "the engine did not say how large it is";
    size_t n;
    const bt_strbuf *words = &req->collected;
    if (bt_json_check(bt_strbuf_text(words), words->length, &object) == BATON_OK &&
        bt_json_get(object, "error", &error) == BATON_OK &&
        bt_json_get(error, "message", &message) == BATON_OK)
        (void)bt_json_string(message, text, sizeof(text), &n);
    bt_req_fail_too_large(req, text);
}

void bt_req_bad_answer(bt_req *req, bt_leg leg)
{
    unsigned status = req->call_status;
    if (is_too_large_for_decode(req, leg)) {
        fail_in_engines_words(req);
        return;
    }
    if (is_clients_fault(status) && !req->has_begun && !req->is_cut) {
        pass_on(req);
        return;
    }
    if (is_clients_fault(status) && req->is_sse && tell_in_engines_words(req))
        return;
    bool is_busy = status == 429 || status == 503;
    char text[96];
    snprintf(text, sizeof(text), "the %s engine answered with status %u", leg_name(req, leg),
             status);
    unsigned retry_after = 0;
    if (is_busy && sscanf(req->retry_after, "%5u", &retry_after) != 1)
        retry_after = 1;
    bt_req_failure failure = {
        .status = is_busy         ? 503
                  : status == 504 ? 504
                                  : 502,
        .code = is_busy                         ? "overloaded"
                : req->state == BT_REQ_TOKENIZE ? "tokenize_failed"
                : leg == BT_LEG_PREFILL         ? "prefill_failed"
                                                : "decode_failed",
        .text = text,
        .leg = leg,
        .may_retry = !is_clients_fault(status),
        .is_engine_fault = status >= 500,
        .retry_after = retry_after,
    };
    bt_req_fail(req, &failure);
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
