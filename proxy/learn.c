/* SPDX-License-Identifier: Apache-2.0 */
/* What must be known of a prefill engine before a leg can name it. Each loop learns for itself, by
 * the first request that needs it, and forgets when an attempt fails: an engine that has been
 * restarted has other names. */
#include "core/fail.h"
#include "proxy/proxyrequest.h"

#include <stdio.h>
#include <string.h>

enum { BOOTSTRAP_PORT = 8998 };

static bt_strbuf *place_of(const bt_req *req)
{
    return &req->pl->learnt[req->prefill_idx];
}

bt_json_value bt_req_learnt(const bt_req *req)
{
    bt_json_value value = {.type = BT_JSON_ABSENT};
    const bt_strbuf *known = req->prefill_idx < 0 ? NULL : place_of(req);
    if (known != NULL && known->length > 0)
        value = (bt_json_value){BT_JSON_OBJECT, {bt_strbuf_text(known), known->length}};
    return value;
}

void bt_req_unlearn(bt_req *req)
{
    if (req->prefill_idx >= 0)
        bt_strbuf_clear(place_of(req));
}

/* Asking. */

static void on_head(void *ctx, bt_http_call *call, unsigned status, bt_http_headers headers)
{
    bt_req *req = ctx;
    if (req->call == call)
        bt_req_note_head(req, status, headers);
}

static void on_data(void *ctx, bt_http_call *call, const char *bytes, size_t n)
{
    bt_req *req = ctx;
    if (req->call == call)
        bt_req_collect(req, bytes, n);
}

static void fail_to_learn(bt_req *req, const char *text)
{
    bt_req_failure failure = {.status = 502,
                              .code = "prefill_failed",
                              .text = text,
                              .leg = BT_LEG_PREFILL,
                              .may_retry = true,
                              .is_engine_fault = true};
    bt_req_fail(req, &failure);
}

static void on_done(void *ctx, bt_http_call *call, const bt_http_result *result)
{
    bt_req *req = ctx;
    if (req->call != call)
        return;
    req->call = NULL;
    if (result->status != BATON_OK) {
        bt_req_failure failure = bt_req_failure_of(req, BT_LEG_PREFILL, result);
        bt_req_fail(req, &failure);
        return;
    }
    const bt_strbuf *answer = &req->collected;
    bt_json_value ranks;
    bool is_good =
        req->call_status == 200 && !req->is_cut &&
        bt_dialect_check_query(bt_strbuf_text(answer), answer->length, &ranks) == BATON_OK;
    if (!is_good) {
        fail_to_learn(req, "its bootstrap server does not say who it is");
        return;
    }
    bt_strbuf *known = place_of(req);
    bt_strbuf_clear(known);
    bt_strbuf_append(known, ranks.text.at, ranks.text.n); /* without white space around it */
    if (bt_strbuf_status(known) != BATON_OK) {
        bt_strbuf_free(known);
        fail_to_learn(req, "no memory for what it says of itself");
        return;
    }
    bt_req_attempt_legs(req);
}

bool bt_req_learn(bt_req *req)
{
    static const bt_http_call_ops ops = {on_head, on_data, on_done};
    if (req->dialect->learn != BT_LEARN_QUERY || bt_req_learnt(req).type != BT_JSON_ABSENT)
        return true;
    uint16_t port = bt_req_worker(req, BT_LEG_PREFILL)->at.bootstrap_port;
    uint32_t ms = req->pl->proxy->options.ms.tokenize;
    bt_req_call_start(req, &(bt_req_call){.leg = BT_LEG_PREFILL,
                                          .method = "GET",
                                          .port = port == 0 ? BOOTSTRAP_PORT : port,
                                          .path = "/query",
                                          .first_byte_ms = ms,
                                          .gap_ms = ms,
                                          .total_ms = ms,
                                          .ops = &ops});
    return false;
}

/* From an answer. */

static bool is_same(bt_json_value known, bt_json_value found)
{
    bt_json_value a, b;
    return bt_json_get(known, "remote_engine_id", &a) == BATON_OK &&
           bt_json_get(found, "remote_engine_id", &b) == BATON_OK && a.text.n == b.text.n &&
           memcmp(a.text.at, b.text.at, a.text.n) == 0;
}

bool bt_req_learn_from_answer(bt_req *req, const bt_strbuf *answer, bool is_cut)
{
    bt_json_value found;
    if (req->dialect->learn != BT_LEARN_ANSWER)
        return true;
    const char *kv_host = bt_req_worker(req, BT_LEG_PREFILL)->at.kv_host;
    bool is_good =
        !is_cut && bt_dialect_take_answer(req->dialect, bt_strbuf_text(answer), answer->length,
                                          kv_host, &req->answer_json, &found);
    if (!is_good || found.type == BT_JSON_ABSENT) {
        bt_count_n(&req->pl->metrics.params_missing, is_good ? 0 : 1);
        return true;
    }
    bt_json_value known = bt_req_learnt(req);
    if (known.type != BT_JSON_ABSENT)
        return is_same(known, found);
    bt_strbuf *place = place_of(req);
    bt_strbuf_append(place, found.text.at, found.text.n);
    if (bt_strbuf_status(place) != BATON_OK)
        bt_strbuf_free(place); /* the next answer teaches it */
    return true;
}

/* Ranks. */

void bt_req_pick_rank(bt_req *req)
{
    const bt_worker_address *at = &bt_req_worker(req, BT_LEG_PREFILL)->at;
    bt_json_value ranks = bt_req_learnt(req), entry;
    uint32_t turn = req->pl->rank_turn[req->prefill_idx]++;
    req->rank[0] = 0;
    req->rank_number = 0;
    if (req->dialect->learn != BT_LEARN_QUERY) {
        if (at->dp > 1) {
            req->rank_number = turn % at->dp;
            snprintf(req->rank, sizeof(req->rank), "%u", req->rank_number);
        }
        return;
    }
    size_t nth = turn % bt_json_length(ranks);
    bt_json_iter it = bt_json_begin(ranks);
    while (bt_json_next(&it, &entry) && nth-- > 0) {
    }
    snprintf(req->rank, sizeof(req->rank), "%.*s", (int)(it.key.text.n - 2), it.key.text.at + 1);
}
