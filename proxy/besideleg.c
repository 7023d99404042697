/* SPDX-License-Identifier: Apache-2.0 */
/* The prefill leg in dialects whose engines wait for each other: it runs beside the decode leg.
 *
 *   both legs out --P: 200--> D may take ms.first_byte --first bytes--> relay; P matters no more
 *        |  `--P fails or refuses--> D's leg ends, as P's failure
 *        `--D fails or refuses--> P's leg ends, as D's failure
 *
 * So neither engine keeps the other waiting for its own long timeout. */
#include "core/alloc.h"
#include "core/fail.h"
#include "proxy/proxyrequest.h"
#include "proxy/watch.h"

#include <stdio.h>
#include <string.h>

static void on_head(void *ctx, bt_http_call *call, unsigned status, bt_http_headers headers)
{
    bt_req *req = ctx;
    bt_beside *beside = &req->beside;
    if (beside->call != call)
        return;
    const char *type = bt_http_header_get(headers, "Content-Type");
    const char *retry_after = bt_http_header_get(headers, "Retry-After");
    bt_watch_heard_beside(req->pl->watch, req);
    beside->status = status;
    snprintf(beside->type, sizeof(beside->type), "%s", type == NULL ? "" : type);
    snprintf(beside->retry_after, sizeof(beside->retry_after), "%s",
             retry_after == NULL ? "" : retry_after);
}

/* Of an answer that is good only the dialect may want something; a stream is only drained. */
static bool is_kept(const bt_req *req)
{
    return req->beside.status != 200 || req->dialect->answer_key != NULL;
}

static void on_data(void *ctx, bt_http_call *call, const char *bytes, size_t n)
{
    bt_req *req = ctx;
    bt_beside *beside = &req->beside;
    if (beside->call != call)
        return;
    bt_watch_heard_beside(req->pl->watch, req);
    if (!is_kept(req))
        return;
    if (beside->collected.length + n > BT_REQ_MAX_COLLECTED_BYTES)
        beside->is_cut = true;
    else
        bt_strbuf_append(&beside->collected, bytes, n);
}

/* The refusal becomes that of the leg under way, which is dropped. */
static void adopt_refusal(bt_req *req)
{
    bt_beside *beside = &req->beside;
    bt_req_tell_engines(req);
    bt_req_call_drop(req);
    bt_strbuf words = req->collected;
    req->collected = beside->collected;
    beside->collected = words;
    req->is_cut = beside->is_cut;
    req->call_status = beside->status;
    memcpy(req->call_type, beside->type, sizeof(req->call_type));
    memcpy(req->retry_after, beside->retry_after, sizeof(req->retry_after));
    bt_req_bad_answer(req, BT_LEG_PREFILL);
}

/* The prefill engine is another one than it was when its constants were learnt, so that the decode
 * engine waits for somebody who is gone. */
static void fail_as_restarted(bt_req *req)
{
    bt_req_failure failure = {.status = 502,
                              .code = "prefill_failed",
                              .text = "the prefill engine has been restarted",
                              .leg = BT_LEG_PREFILL,
                              .may_retry = true,
                              .is_kv = true};
    bt_req_fail(req, &failure);
}

static void on_answered(bt_req *req)
{
    bt_req_reached(req, BT_AT_PREFILL_ANSWERED);
    bt_worker_answered(bt_req_worker(req, BT_LEG_PREFILL));
    bool is_same = bt_req_learn_from_answer(req, &req->beside.collected, req->beside.is_cut);
    bt_req_leave_worker(req, BT_LEG_PREFILL);
    if (req->has_relayed)
        return;
    if (is_same)
        bt_req_await_first_byte(req);
    else
        fail_as_restarted(req);
}

static void on_done(void *ctx, bt_http_call *call, const bt_http_result *result)
{
    bt_req *req = ctx;
    if (req->beside.call != call)
        return;
    req->beside.call = NULL;
    if (result->status == BATON_OK && req->beside.status == 200) {
        on_answered(req);
        return;
    }
    /* The decode engine's answer has begun, so the KV is there: what became of the rest of this leg
     * is of no matter to the client. */
    if (req->has_relayed) {
        bt_req_leave_worker(req, BT_LEG_PREFILL);
        return;
    }
    if (result->status == BATON_OK) {
        adopt_refusal(req);
        return;
    }
    bt_req_failure failure = bt_req_failure_of(req, BT_LEG_PREFILL, result);
    bt_req_fail(req, &failure);
}

static baton_status plan_leg(bt_req *req)
{
    const bt_leg_members *members = &req->members;
    bt_leg_body *body = req->beside.body;
    return req->dialect->legs[BT_LEG_PREFILL].is_whole
               ? bt_leg_plain(req->plan, members, body)
               : bt_leg_prefill_plain(req->plan, members, body);
}

baton_status bt_req_beside_start(bt_req *req)
{
    static const bt_http_call_ops ops = {on_head, on_data, on_done};
    bt_beside *beside = &req->beside;
    uint32_t ms = req->pl->proxy->options.ms.prefill;
    if (beside->body == NULL)
        beside->body = bt_calloc(1, sizeof(*beside->body));
    if (beside->body == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "proxy: body of a leg");
    BATON_TRY(plan_leg(req));
    bt_strbuf_clear(&beside->collected);
    beside->is_cut = false;
    beside->status = 0;
    beside->type[0] = beside->retry_after[0] = 0;
    bt_req_reached(req, BT_AT_PREFILL_SENT);
    BATON_TRY(bt_req_call_open(req,
                               &(bt_req_call){.leg = BT_LEG_PREFILL,
                                              .path = req->path,
                                              .body = beside->body->slices,
                                              .n_body = beside->body->n_slices,
                                              .first_byte_ms = ms,
                                              .gap_ms = ms,
                                              .total_ms = ms,
                                              .ops = &ops},
                               &beside->call));
    bt_watch_begin_beside(req->pl->watch, req);
    return BATON_OK;
}

void bt_req_beside_drop(bt_req *req)
{
    bt_http_call *call = req->beside.call;
    req->beside.call = NULL; /* on_done comes before cancel returns, and must find it gone */
    if (call != NULL)
        bt_http_call_cancel(call);
}

void bt_req_beside_free(bt_req *req)
{
    bt_strbuf_free(&req->beside.collected);
    bt_free(req->beside.body);
}
