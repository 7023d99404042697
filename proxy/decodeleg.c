/* SPDX-License-Identifier: Apache-2.0 */
/* The second half of an attempt: the decode engine's answer, merged behind the first token or
 * relayed as it arrives. Requests with one leg only use the relay alone. */
#include "core/log.h"
#include "proxy/proxyrequest.h"
#include "proxy/watch.h"

#include <stdio.h>
#include <string.h>

enum { HIGH_WATER_BYTES = 256 << 10, LOW_WATER_BYTES = 64 << 10, MAX_EVENT_BYTES = 4 << 20 };

static bt_leg leg_of(const bt_req *req)
{
    return req->plan == NULL ? BT_LEG_PREFILL : BT_LEG_DECODE;
}

static void on_drained(void *arg)
{
    bt_req *req = arg;
    if (req->is_paused && req->call != NULL)
        bt_http_call_resume(req->call);
    req->is_paused = false;
}

bool bt_req_write(bt_req *req, const char *bytes, size_t n)
{
    baton_status status = bt_http_write(req->http, bytes, n);
    if (status == BATON_ERR_CLOSED)
        return true; /* the loop calls on_gone next */
    if (status != BATON_OK) {
        bt_warn("answer cut off request=%s: %s", req->request_id, baton_last_error());
        bt_http_abort(req->http);
        bt_req_finish(req, 500);
        return false;
    }
    bt_count_n(&req->pl->metrics.relay_bytes, n);
    if (req->call != NULL && !req->is_paused &&
        bt_http_queued_bytes(req->http) > HIGH_WATER_BYTES) {
        req->is_paused = true;
        bt_http_call_pause(req->call);
        bt_http_on_drain(req->http, LOW_WATER_BYTES, on_drained, req);
    }
    return true;
}

/* Ends the request because the client cannot be answered at all. */
static bool begun(bt_req *req, baton_status status)
{
    if (status == BATON_OK || status == BATON_ERR_CLOSED) {
        bt_req_note_begun(req);
        return true;
    }
    bt_warn("answer not begun request=%s: %s", req->request_id, baton_last_error());
    bt_http_abort(req->http);
    bt_req_finish(req, 500);
    return false;
}

bool bt_req_begin_events(bt_req *req)
{
    static const bt_http_header headers[] = {{"Content-Type", "text/event-stream; charset=utf-8"},
                                             {"Cache-Control", "no-cache"}};
    req->is_sse = true;
    return begun(req, bt_http_begin(req->http, 200, headers, 2, BT_HTTP_CHUNKED));
}

/* Merging. */

static void on_event(void *ctx, const bt_sse_event *event)
{
    bt_req *req = ctx;
    bool is_done, is_error;
    bt_count(&req->pl->metrics.relay_events);
    if (bt_merge_event(&req->merge, event, &req->out, &is_done, &is_error) != BATON_OK)
        req->out.failed = true;
    req->is_done_seen |= is_done || is_error;
}

static void fail_decode(bt_req *req, const char *text)
{
    bt_req_failure failure = {.status = 502,
                              .code = "decode_failed",
                              .text = text,
                              .leg = BT_LEG_DECODE,
                              .may_retry = true,
                              .is_engine_fault = true};
    bt_req_fail(req, &failure);
}

static void merge_events(bt_req *req, const char *bytes, size_t n)
{
    bt_strbuf_clear(&req->out);
    if (bt_sse_feed(req->sse, bytes, n) != BATON_OK || req->out.failed) {
        fail_decode(req, "its events cannot be read");
        return;
    }
    if (req->out.length == 0)
        return;
    req->has_relayed = true;
    bt_req_write(req, bt_strbuf_text(&req->out), req->out.length);
}

static void answer_merged(bt_req *req)
{
    bt_strbuf_clear(&req->out);
    if (req->is_cut || bt_merge_whole(&req->merge, bt_strbuf_text(&req->collected),
                                      req->collected.length, &req->out) != BATON_OK) {
        fail_decode(req, "its answer cannot be read");
        return;
    }
    bt_req_note_begun(req);
    bt_count_n(&req->pl->metrics.relay_bytes, req->out.length);
    bt_http_respond_json(req->http, 200, bt_strbuf_text(&req->out), req->out.length);
    bt_req_finish(req, 200);
}

/* Relaying. */

static uint64_t length_of(bt_http_headers headers)
{
    const char *length = bt_http_header_get(headers, "Content-Length");
    unsigned long long n;
    return length != NULL && sscanf(length, "%19llu", &n) == 1 ? n : BT_HTTP_CHUNKED;
}

static bool is_stream_of_events(const bt_req *req)
{
    return strncmp(req->call_type, "text/event-stream", 17) == 0;
}

/* Begins the client's answer with the engine's own status and headers. */
static void begin_relay(bt_req *req, unsigned status, bt_http_headers headers)
{
    bt_http_header kept[160];
    size_t n = 0;
    for (size_t i = 0; i < headers.n && n < sizeof(kept) / sizeof(kept[0]); i++) {
        const char *name = headers.items[i].name;
        bool is_ours = bt_slice_equals_nocase(bt_slice_of(name), "content-length") ||
                       bt_slice_equals_nocase(bt_slice_of(name), "date") ||
                       bt_http_is_hop_by_hop(headers, name);
        if (!is_ours)
            kept[n++] = headers.items[i];
    }
    req->is_sse = is_stream_of_events(req);
    req->has_relayed = true;
    begun(req, bt_http_begin(req->http, status, kept, n, length_of(headers)));
}

static void keep_tail(bt_req *req, const char *bytes, size_t n)
{
    size_t cap = sizeof(req->tail);
    if (n >= cap) {
        memcpy(req->tail, bytes + n - cap, cap);
        req->n_tail = cap;
        return;
    }
    size_t keep = req->n_tail + n > cap ? cap - n : req->n_tail;
    memmove(req->tail, req->tail + req->n_tail - keep, keep);
    memcpy(req->tail + keep, bytes, n);
    req->n_tail = keep + n;
}

/* The first bytes of an answer whose head was held back. False: the request has ended. */
static bool begin_held(bt_req *req)
{
    req->is_head_held = false;
    req->has_relayed = true;
    return bt_req_begin_events(req);
}

/* The engines have met. */
static void note_met(bt_req *req)
{
    if (req->timer != NULL)
        bt_timer_stop(req->timer);
    if (req->call != NULL)
        bt_http_call_lower_gap(req->call, req->pl->proxy->options.ms.gap);
}

static void relay(bt_req *req, const char *bytes, size_t n)
{
    if (req->is_head_held && !begin_held(req))
        return;
    if (req->is_sse) {
        keep_tail(req, bytes, n);
        req->is_done_seen = memmem(req->tail, req->n_tail, "[DONE]", 6) != NULL;
    }
    bt_req_write(req, bytes, n);
}

/* The call. */

static bool is_good(unsigned status)
{
    return status >= 200 && status < 300;
}

/* 4xx of a request that nothing has been sent for are relayed too, unless they may be retried. */
static bool is_relayed(const bt_req *req)
{
    return !req->is_merging && is_good(req->call_status);
}

static void on_head(void *ctx, bt_http_call *call, unsigned status, bt_http_headers headers)
{
    bt_req *req = ctx;
    if (req->call != call)
        return;
    bt_req_note_head(req, status, headers);
    if (!is_good(status))
        return;
    bt_worker_answered(bt_req_worker(req, leg_of(req)));
    bt_req_note_answers(req, leg_of(req));
    req->is_kv_at_risk = false; /* the engine has the request, and looks the KV up itself */
    if (!is_relayed(req))
        return;
    /* An engine that has only taken the request says so at once; it may still fail, or the other
     * one may, and then another attempt can be made, as long as nothing has gone out. */
    req->is_head_held = req->is_together && status == 200 && is_stream_of_events(req);
    if (!req->is_head_held)
        begin_relay(req, status, headers);
}

static void on_data(void *ctx, bt_http_call *call, const char *bytes, size_t n)
{
    bt_req *req = ctx;
    if (req->call != call)
        return;
    bt_watch_heard(req->pl->watch, req);
    if (req->is_together && is_good(req->call_status))
        note_met(req);
    if (is_relayed(req))
        relay(req, bytes, n);
    else if (is_good(req->call_status) && req->plan->stream)
        merge_events(req, bytes, n);
    else
        bt_req_collect(req, bytes, n);
}

/* The engine's answer is complete as HTTP; is it as a stream of events? */
static void end_stream(bt_req *req)
{
    if (req->is_head_held || (req->is_sse && !req->is_done_seen)) {
        fail_decode(req, "its stream ended without [DONE]");
        return;
    }
    bt_http_end(req->http);
    bt_req_finish(req, req->is_merging ? 200 : req->call_status);
}

static void on_done(void *ctx, bt_http_call *call, const bt_http_result *result)
{
    bt_req *req = ctx;
    if (req->call != call)
        return;
    req->call = NULL;
    bool is_complete = result->status == BATON_OK || (req->is_sse && req->is_done_seen);
    if (!is_complete) {
        bt_req_failure failure = bt_req_failure_of(req, leg_of(req), result);
        bt_req_fail(req, &failure);
    } else if (!is_good(req->call_status)) {
        bt_req_bad_answer(req, leg_of(req));
    } else if (req->is_merging && !req->plan->stream) {
        answer_merged(req);
    } else {
        end_stream(req);
    }
}

/* Plans the body of the leg; *path is where it goes. */
static baton_status plan_leg(bt_req *req, const char **path)
{
    *path = req->path;
    if (req->plan == NULL) {
        req->leg->slices[0] = (bt_slice){req->http->body, req->http->body_bytes};
        req->leg->n_slices = 1;
        return BATON_OK;
    }
    const bt_leg_members *members = req->dialect == NULL ? NULL : &req->decode_members;
    if (!req->is_merging)
        return bt_leg_plain(req->plan, members, req->leg);
    *path = "/v1/completions";
    uint64_t left = req->limit == 0 ? 0 : req->limit - 1;
    return bt_leg_decode_early(req->plan, bt_req_ids_with_first(req), left, members, req->leg);
}

static baton_status prepare_merge(bt_req *req)
{
    bt_sse_destroy(req->sse);
    req->sse = NULL;
    req->is_done_seen = false;
    if (!req->is_merging || !req->plan->stream)
        return BATON_OK;
    return bt_sse_create(MAX_EVENT_BYTES, on_event, req, &req->sse);
}

void bt_req_decode(bt_req *req)
{
    static const bt_http_call_ops ops = {on_head, on_data, on_done};
    const bt_proxy_deadlines *ms = &req->pl->proxy->options.ms;
    const char *path;
    bt_req_set_state(req, BT_REQ_DECODE);
    /* With two legs the engine was chosen, and told to the prefill engine, when the attempt began.
     */
    if (req->dialect == NULL && !bt_req_enter_worker(req, leg_of(req)))
        return;
    req->is_merging = req->dialect != NULL && req->is_early;
    if (prepare_merge(req) != BATON_OK || plan_leg(req, &path) != BATON_OK) {
        bt_req_failure failure = {
            .status = 500, .code = "internal_error", .text = baton_last_error()};
        bt_req_fail(req, &failure);
        return;
    }
    /* Beside the prefill leg, what that may take is waited for too. */
    uint32_t more_ms = req->is_together ? ms->prefill : 0;
    bt_req_reached(req, BT_AT_DECODE_SENT);
    bt_req_call_start(req, &(bt_req_call){.leg = leg_of(req),
                                          .path = path,
                                          .body = req->leg->slices,
                                          .n_body = req->leg->n_slices,
                                          .first_byte_ms = ms->first_byte + more_ms,
                                          .gap_ms = ms->gap + more_ms,
                                          .ops = &ops});
}

void bt_req_fail_first_byte(bt_req *req)
{
    bt_req_failure failure = {.status = 504,
                              .code = "first_byte_timeout",
                              .text = "the decode engine says nothing, though the prefill engine "
                                      "has answered: does it get the KV?",
                              .leg = BT_LEG_DECODE,
                              .is_engine_fault = true};
    bt_req_fail(req, &failure);
}
