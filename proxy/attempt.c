/* SPDX-License-Identifier: Apache-2.0 */
/* What an attempt says to both engines besides the client's words: its id, the members that its
 * dialect adds to the bodies, and what of the prefill engine's answer goes on to the other one. */
#include "core/fail.h"
#include "core/log.h"
#include "proxy/proxyrequest.h"

/* What ends a hand-off whose proxy is gone: RELEASE does it for those that are not. So it is later
 * than any wait of ours, which begins when the prefill engine's answer has come. */
enum { KV_WAIT_SLACK_MS = 5000 };

bt_dialect_values bt_req_values(const bt_req *req)
{
    const bt_proxy *proxy = req->pl->proxy;
    return (bt_dialect_values){.req_id = req->kv.id,
                               .uuid = req->uuid,
                               .prefill = &bt_req_worker(req, BT_LEG_PREFILL)->at,
                               .decode = &bt_req_worker(req, BT_LEG_DECODE)->at,
                               .notice_addr = proxy->notice_address,
                               .traceparent = req->traceparent,
                               .kv_wait_ms = proxy->options.ms.kv_wait + KV_WAIT_SLACK_MS,
                               .answer = req->answer,
                               .learnt = bt_req_learnt(req),
                               .rank = req->rank,
                               .room = req->room,
                               .n_sequences = req->plan->n_sequences};
}

/* What the dialect adds to that leg's body. */
static baton_status fill_members(bt_req *req, bt_leg leg)
{
    bt_dialect_values values = bt_req_values(req);
    bt_leg_members *members = leg == BT_LEG_PREFILL ? &req->members : &req->decode_members;
    return bt_dialect_fill(req->dialect, leg, &values, members);
}

static bool take_handed_on(bt_req *req, const bt_worker *worker)
{
    return !req->is_cut && bt_dialect_take_answer(req->dialect, bt_strbuf_text(&req->collected),
                                                  req->collected.length, worker->at.kv_host,
                                                  &req->answer_json, &req->answer);
}

/* What the prefill engine hands over goes on to the decode engine. An engine that says nothing of
 * the kind has the other one compute the prompt again: right, slow, and seen by nobody who does not
 * look at the counter. */
baton_status bt_req_take_answer(bt_req *req)
{
    const bt_worker *worker = bt_req_worker(req, BT_LEG_PREFILL);
    bool is_good = req->dialect->learn == BT_LEARN_ANSWER
                       ? bt_req_learn_from_answer(req, &req->collected, req->is_cut)
                       : take_handed_on(req, worker);
    if (!is_good) {
        bt_count(&req->pl->metrics.params_missing);
        bt_info("no hand-off in the answer, the decode engine computes the prompt request=%s "
                "worker=%s dialect=%s trace=%s",
                req->request_id, worker->name, req->dialect->name, req->trace.trace);
    }
    return fill_members(req, BT_LEG_DECODE);
}

/* The engines' word that a leg has ended goes out when the client's request may be gone. */
static void keep_authorization(bt_req *req)
{
    const char *given = bt_http_header_get(req->http->headers, "Authorization");
    bt_strbuf_clear(&req->authorization);
    if (req->dialect->abort_path != NULL && given != NULL)
        bt_strbuf_puts(&req->authorization, given);
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
    bt_req_pick_rank(req);
    req->room = bt_room_make(req->rank_number, bt_req_worker(req, BT_LEG_PREFILL)->at.dp);
    bool is_known =
        req->dialect->learn == BT_LEARN_NOTHING || bt_req_learnt(req).type != BT_JSON_ABSENT;
    req->is_together = req->dialect->order == BT_ORDER_TOGETHER && is_known;
    req->is_head_held = false;
    req->answer.type = BT_JSON_ABSENT;
    req->is_kv_at_risk = decoder->n_ranks > 0;
    bt_strbuf_clear(&req->leg_id);
    if (req->dialect->request_id != NULL) {
        bt_dialect_values values = bt_req_values(req);
        bt_dialect_put(req->dialect->request_id, &values, &req->leg_id);
    }
    BATON_TRY(bt_strbuf_status(&req->leg_id));
    keep_authorization(req);
    BATON_TRY(bt_strbuf_status(&req->authorization));
    BATON_TRY(fill_members(req, BT_LEG_PREFILL));
    return req->is_together ? fill_members(req, BT_LEG_DECODE) : BATON_OK;
}
