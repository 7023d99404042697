/* SPDX-License-Identifier: Apache-2.0 */
/* What an attempt says to both engines besides the client's words: its id, the members that its
 * dialect adds to the bodies, and what of the prefill engine's answer goes on to the other one. */
#include "core/fail.h"
#include "core/log.h"
#include "proxy/proxyrequest.h"

/* What ends a hand-off whose proxy is gone: RELEASE does it for those that are not. So it is later
 * than any wait of ours, which begins when the prefill engine's answer has come. */
enum { KV_WAIT_SLACK_MS = 5000 };

static bt_dialect_values values_of(const bt_req *req)
{
    const bt_proxy *proxy = req->pl->proxy;
    return (bt_dialect_values){.req_id = req->kv.id,
                               .uuid = req->uuid,
                               .prefill = &bt_req_worker(req, BT_LEG_PREFILL)->at,
                               .decode = &bt_req_worker(req, BT_LEG_DECODE)->at,
                               .notice_addr = proxy->notice_address,
                               .traceparent = req->traceparent,
                               .kv_wait_ms = proxy->options.ms.kv_wait + KV_WAIT_SLACK_MS,
                               .answer = req->answer};
}

/* What the dialect adds to that leg's body. */
static baton_status fill_members(bt_req *req, bt_leg leg)
{
    bt_dialect_values values = values_of(req);
    return bt_dialect_fill(req->dialect, leg, &values, &req->members);
}

/* What the prefill engine hands over goes on to the decode engine. An engine that says nothing of
 * the kind has the other one compute the prompt again: right, slow, and seen by nobody who does not
 * look at the counter. */
baton_status bt_req_take_answer(bt_req *req)
{
    const bt_worker *worker = bt_req_worker(req, BT_LEG_PREFILL);
    bool is_good =
        !req->is_cut &&
        bt_dialect_take_answer(req->dialect, bt_strbuf_text(&req->collected), req->collected.length,
                               worker->at.kv_host, &req->answer_json, &req->answer);
    if (!is_good) {
        bt_count(&req->pl->metrics.params_missing);
        bt_info("no hand-off in the answer, the decode engine computes the prompt request=%s "
                "worker=%s dialect=%s trace=%s",
                req->request_id, worker->name, req->dialect->name, req->trace.trace);
    }
    return fill_members(req, BT_LEG_DECODE);
}

baton_status bt_req_name_attempt(bt_req *req)
{
    bt_proxy *proxy = req->pl->proxy;
    const bt_worker_address *decoder = &bt_req_worker(req, BT_LEG_DECODE)->at;
    int notices = proxy->options.notices;
    bool is_auto = notices == BT_NOTICES_AUTO;
    bool has_signal = req->dialect->signal == BT_SIGNAL_NOTICES && decoder->n_ranks > 0;
    uint32_t n_needed = !has_signal ? 0 : is_auto ? decoder->n_ranks : (uint32_t)notices;
    bt_kvwait_add(req->pl->kvwait, &req->kv, n_needed, is_auto);
    bt_uuid_make(req->uuid);
    req->answer.type = BT_JSON_ABSENT;
    req->is_kv_at_risk = decoder->n_ranks > 0;
    bt_strbuf_clear(&req->leg_id);
    if (req->dialect->request_id != NULL) {
        bt_dialect_values values = values_of(req);
        bt_dialect_put(req->dialect->request_id, &values, &req->leg_id);
    }
    BATON_TRY(bt_strbuf_status(&req->leg_id));
    return fill_members(req, BT_LEG_PREFILL);
}
