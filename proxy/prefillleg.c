/* SPDX-License-Identifier: Apache-2.0 */
/* The first half of an attempt: tokens, the prefill engine, and the wait for its KV to land. */
#include "core/log.h"
#include "proxy/proxyrequest.h"
#include "proxy/watch.h"

#include <stdio.h>
#include <string.h>

/* Which attempt's prompt: as the prefill leg has it, or with the first token at its end. The buffer
 * is changed in place, between legs, when no call borrows it. */
static bt_slice ids_with(bt_req *req, bool has_first)
{
    bt_strbuf *ids = &req->ids;
    if (ids->length > 0 && req->n_open_ids == 0)
        req->n_open_ids = ids->length - 1; /* all but the closing bracket */
    ids->length = req->n_open_ids;
    if (has_first)
        bt_strbuf_printf(ids, ",%llu", (unsigned long long)req->first.first_token);
    bt_strbuf_putc(ids, ']');
    return (bt_slice){bt_strbuf_text(ids), ids->length};
}

bt_slice bt_req_ids_with_first(bt_req *req)
{
    return ids_with(req, true);
}

static void take_later(bt_req *req, bt_later_reason reason)
{
    bt_count(&req->pl->metrics.later[reason]);
    req->is_early = false;
}

static void on_head(void *ctx, bt_http_call *call, unsigned status, bt_http_headers headers)
{
    bt_req *req = ctx;
    if (req->call == call)
        bt_req_note_head(req, status, headers);
}

static void on_data(void *ctx, bt_http_call *call, const char *bytes, size_t n)
{
    bt_req *req = ctx;
    if (req->call != call)
        return;
    bt_watch_heard(req->pl->watch, req);
    bt_req_collect(req, bytes, n);
}

/* Tokens. */

static void to_decode_first(bt_req *req, bt_later_reason reason)
{
    take_later(req, reason);
    req->dialect =
        bt_dialect_find(req->dialect->id, BT_MODE_DECODE_FIRST, req->pl->proxy->options.engines);
    bt_req_attempt(req);
}

/* How many tokens may follow, as the engine would decide it; false: better not go early. */
static bool settle_limit(bt_req *req, const bt_tokenize_answer *answer)
{
    uint64_t max = answer->max_model_tokens;
    bool is_chat = req->plan->route == BT_ROUTE_CHAT;
    if (req->limit == 0 && is_chat) {
        if (max <= answer->n_ids + 1)
            return false;
        req->limit = max - answer->n_ids;
    }
    /* Too much for the model: the decode engine says so before anything has been sent. */
    return max == 0 || (answer->n_ids < max && req->limit <= max - answer->n_ids);
}

static void on_tokens(bt_req *req)
{
    bt_tokenize_answer answer;
    const char *json = bt_strbuf_text(&req->collected);
    if (req->call_status != 200 && (req->call_status >= 500 || req->call_status == 429)) {
        bt_req_bad_answer(req, BT_LEG_PREFILL);
        return;
    }
    bt_req_leave_worker(req, BT_LEG_PREFILL);
    bool is_usable = req->call_status == 200 && !req->is_cut &&
                     bt_tokenize_answer_read(json, req->collected.length, &answer) == BATON_OK &&
                     settle_limit(req, &answer);
    if (!is_usable) {
        to_decode_first(req, BT_LATER_TOKENIZE);
        return;
    }
    bt_strbuf_append(&req->ids, answer.ids.at, answer.ids.n);
    req->plan->n_prompt_tokens = answer.n_ids;
    bt_req_attempt(req);
}

static void on_tokens_done(void *ctx, bt_http_call *call, const bt_http_result *result)
{
    bt_req *req = ctx;
    if (req->call != call)
        return;
    req->call = NULL;
    if (result->status == BATON_OK) {
        on_tokens(req);
        return;
    }
    bt_req_failure failure = bt_req_failure_of(req, BT_LEG_PREFILL, result);
    bt_req_fail(req, &failure);
}

void bt_req_tokenize(bt_req *req)
{
    static const bt_http_call_ops ops = {on_head, on_data, on_tokens_done};
    if (req->plan->form == BT_PROMPT_IDS) {
        bt_strbuf_append(&req->ids, req->plan->prompt.text.at, req->plan->prompt.text.n);
        bt_req_attempt(req);
        return;
    }
    bt_req_set_state(req, BT_REQ_TOKENIZE);
    if (!bt_req_enter_worker(req, BT_LEG_PREFILL))
        return;
    bt_leg_tokenize(req->plan, req->leg);
    uint32_t ms = req->pl->proxy->options.ms.tokenize;
    bt_req_call_start(req, &(bt_req_call){.leg = BT_LEG_PREFILL,
                                          .path = "/tokenize",
                                          .body = req->leg->slices,
                                          .n_body = req->leg->n_slices,
                                          .first_byte_ms = ms,
                                          .gap_ms = ms,
                                          .total_ms = ms,
                                          .ops = &ops});
}

/* The prefill engine. */

/* The answer ends with the first token: the decode engine is never asked. */
static void answer_from_prefill(bt_req *req)
{
    bt_count(&req->pl->metrics.answered_by_prefill);
    bt_strbuf_clear(&req->out);
    baton_status status = req->plan->stream ? bt_merge_first_events(&req->merge, true, &req->out)
                                            : bt_merge_whole(&req->merge, NULL, 0, &req->out);
    if (status != BATON_OK) {
        bt_req_failure failure = {.status = 502,
                                  .code = "prefill_failed",
                                  .text = baton_last_error(),
                                  .leg = BT_LEG_PREFILL};
        bt_req_fail(req, &failure);
        return;
    }
    if (!req->plan->stream) {
        bt_req_note_begun(req);
        bt_http_respond_json(req->http, 200, bt_strbuf_text(&req->out), req->out.length);
    } else if (!bt_req_begin_events(req) ||
               !bt_req_write(req, bt_strbuf_text(&req->out), req->out.length)) {
        return;
    } else {
        bt_http_end(req->http);
    }
    bt_req_finish(req, 200);
}

static bool may_begin_stop(const bt_req *req)
{
    char text[1024];
    size_t n;
    if (bt_json_string(req->first.text, text, sizeof(text), &n) != BATON_OK)
        return true;
    return bt_plan_may_begin_stop(req->plan, text, n);
}

/* Sends the first token on its way. False: the request has ended. */
static bool emit_first(bt_req *req)
{
    if (!req->plan->stream || req->has_emitted)
        return true;
    bt_strbuf_clear(&req->out);
    if (bt_merge_first_events(&req->merge, false, &req->out) != BATON_OK) {
        bt_req_failure failure = {.status = 502,
                                  .code = "prefill_failed",
                                  .text = baton_last_error(),
                                  .leg = BT_LEG_PREFILL};
        bt_req_fail(req, &failure);
        return false;
    }
    if (!bt_req_begin_events(req))
        return false;
    req->has_emitted = true;
    return bt_req_write(req, bt_strbuf_text(&req->out), req->out.length);
}

/* Looks at the first token. False: the request has ended. */
static bool take_first(bt_req *req)
{
    if (req->has_emitted)
        return true; /* a former attempt's token has gone out and counts */
    bt_strbuf_clear(&req->first_json);
    bt_strbuf_append(&req->first_json, bt_strbuf_text(&req->collected), req->collected.length);
    bool is_readable =
        !req->is_cut && bt_prefill_answer_read(bt_strbuf_text(&req->first_json),
                                               req->first_json.length, &req->first) == BATON_OK;
    if (!is_readable) {
        take_later(req, BT_LATER_TOKEN);
        return true;
    }
    bt_merge_init(&req->merge, req->plan, &req->first);
    if (req->first.has_ended || req->limit == 1) {
        answer_from_prefill(req);
        return false;
    }
    if (!req->first.has_first_token || !req->first.is_text_whole)
        take_later(req, BT_LATER_TOKEN);
    else if (may_begin_stop(req))
        take_later(req, BT_LATER_STOP);
    else
        return emit_first(req);
    return true;
}

static void fail_without_memory(bt_req *req)
{
    bt_req_failure failure = {
        .status = 503, .code = "no_memory", .text = "no memory for the hand-off's parameters"};
    bt_req_fail(req, &failure);
}

static void on_prefill_done(void *ctx, bt_http_call *call, const bt_http_result *result)
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
    if (req->call_status != 200) {
        bt_req_bad_answer(req, BT_LEG_PREFILL);
        return;
    }
    bt_req_reached(req, BT_AT_PREFILL_ANSWERED);
    bt_worker_answered(bt_req_worker(req, BT_LEG_PREFILL));
    if (bt_req_take_answer(req) != BATON_OK) {
        fail_without_memory(req);
        return;
    }
    bt_req_leave_worker(req, BT_LEG_PREFILL);
    if (!req->is_early || take_first(req))
        bt_req_await_kv(req);
}

void bt_req_attempt(bt_req *req)
{
    if (!bt_req_has_room(req))
        return;
    bt_req_set_state(req, BT_REQ_PREFILL);
    /* Decode first: a hand-off needs a place to go before any work is done. */
    if (!bt_req_enter_worker(req, BT_LEG_DECODE) || !bt_req_enter_worker(req, BT_LEG_PREFILL))
        return;
    if (bt_req_learn(req))
        bt_req_attempt_legs(req);
}

static void start_together(bt_req *req)
{
    if (bt_req_beside_start(req) == BATON_OK) {
        bt_req_decode(req);
        return;
    }
    bt_req_failure failure = {
        .status = 500, .code = "internal_error", .text = baton_last_error(), .leg = BT_LEG_PREFILL};
    bt_req_fail(req, &failure);
}

void bt_req_attempt_legs(bt_req *req)
{
    static const bt_http_call_ops ops = {on_head, on_data, on_prefill_done};
    if (bt_req_name_attempt(req) != BATON_OK) {
        fail_without_memory(req);
        return;
    }
    if (req->is_together) {
        start_together(req);
        return;
    }
    bool is_ids = req->ids.length > 0 && req->dialect->mode == BT_MODE_EARLY_FIRST_TOKEN;
    baton_status status =
        is_ids ? bt_leg_prefill_early(req->plan, ids_with(req, false), &req->members, req->leg)
               : bt_leg_prefill_plain(req->plan, &req->members, req->leg);
    if (status != BATON_OK) {
        bt_req_failure failure = {.status = 400, .code = "bad_request", .text = baton_last_error()};
        bt_req_fail(req, &failure);
        return;
    }
    bt_debug("prefill request=%s attempt=%s prefill=%s decode=%s", req->request_id, req->kv.id,
             bt_req_worker(req, BT_LEG_PREFILL)->name, bt_req_worker(req, BT_LEG_DECODE)->name);
    uint32_t ms = req->pl->proxy->options.ms.prefill;
    bt_req_reached(req, BT_AT_PREFILL_SENT);
    bt_req_call_start(req, &(bt_req_call){.leg = BT_LEG_PREFILL,
                                          .path = is_ids ? "/v1/completions" : req->path,
                                          .body = req->leg->slices,
                                          .n_body = req->leg->n_slices,
                                          .first_byte_ms = ms,
                                          .gap_ms = ms,
                                          .total_ms = ms,
                                          .ops = &ops});
}

/* The wait for the KV. */

/* The prefill engine could not reach the decode engine's receiver. */
static bool is_receiver_gone(int status)
{
    static const baton_status gone[] = {BATON_ERR_UNREACHABLE,    BATON_ERR_CONNECT_TIMEOUT,
                                        BATON_ERR_INIT_TIMEOUT,   BATON_ERR_ALLOC_TIMEOUT,
                                        BATON_ERR_COMMIT_TIMEOUT, BATON_ERR_PEER_GONE,
                                        BATON_ERR_PEER_SILENT};
    for (size_t i = 0; i < sizeof(gone) / sizeof(gone[0]); i++) {
        if ((int)gone[i] == status)
            return true;
    }
    return false;
}

/* The decode engine's receiver is full: another one may have room, and the client is told when to
 * come back. The same one is not asked again by us: it said no a moment ago. */
static void fail_full(bt_req *req)
{
    enum { MS_MAX = 60000 }; /* a peer's word, within reason */
    uint32_t ms = req->kv.retry_ms < MS_MAX ? req->kv.retry_ms : MS_MAX;
    bt_req_failure failure = {
        .status = 503,
        .code = "overloaded",
        .text = req->kv.text,
        .leg = BT_LEG_DECODE,
        .may_retry = true,
        .retry_after = ms > 1000 ? (ms + 999) / 1000 : 1,
    };
    bt_req_fail(req, &failure);
}

/* That engine is not asked again, but another one's pool may be larger: each is asked once, which
 * costs little, because the receiver says no before anything is computed for long. Only when all
 * have said so it is the client's to mend. */
void bt_req_fail_too_large(bt_req *req, const char *text)
{
    uint32_t n_decode = (uint32_t)__builtin_popcountll(req->allowed[BT_LEG_DECODE]);
    char whole[400];
    req->too_small |= UINT64_C(1) << req->decode_idx;
    bool is_everywhere = (uint32_t)__builtin_popcountll(req->too_small) == n_decode;
    snprintf(whole, sizeof(whole),
             "the prompt's KV does not fit into %s (%.200s); send a shorter prompt, or give %s a "
             "larger pool (pool_bytes)",
             n_decode == 1   ? "the decode engine's pool"
             : is_everywhere ? "the pool of any decode engine"
                             : "the pool of a decode engine, and others cannot be asked now",
             text, n_decode == 1 ? "its receiver" : "a receiver");
    bt_req_failure failure = {
        .status = is_everywhere ? 413 : 503,
        .code = "kv_too_large",
        .text = whole,
        .leg = BT_LEG_DECODE,
        .may_retry = true,
        .is_free = true,
        .retry_after = is_everywhere ? 0 : 1,
    };
    bt_req_fail(req, &failure);
}

static void fail_kv(bt_req *req, bool is_timeout)
{
    if (!is_timeout && req->kv.status == BATON_ERR_OVERLOADED) {
        fail_full(req);
        return;
    }
    if (!is_timeout && req->kv.status == BATON_ERR_TOO_LARGE) {
        bt_req_fail_too_large(req, req->kv.text);
        return;
    }
    bool is_gone = !is_timeout && is_receiver_gone(req->kv.status);
    bt_req_failure failure = {
        .status = is_timeout ? 504 : 502,
        .code = is_timeout ? "kv_timeout" : "kv_failed",
        .text = is_timeout ? "the prompt's KV was not handed over in time" : req->kv.text,
        .leg = BT_LEG_DECODE,
        .may_retry = !is_timeout,
        .is_kv = true,
        .is_engine_fault = is_gone,
        .is_unreachable = is_gone,
    };
    bt_req_fail(req, &failure);
}

static void arm_timer(bt_req *req, uint64_t now_ms)
{
    uint64_t left_ms = req->kv_deadline_ms - now_ms;
    uint64_t ask_ms = req->pl->proxy->options.ms.status_after;
    bt_timer_start(req->timer, ask_ms < left_ms ? ask_ms : left_ms, 0);
}

/* The notice is late: it may be lost, so the receivers are asked. With both legs under way, the
 * decode engine is late. */
static void on_late(void *arg)
{
    bt_req *req = arg;
    bt_proxy_loop *pl = req->pl;
    uint64_t now_ms = bt_loop_now_ms(pl->loop);
    if (req->state == BT_REQ_DECODE) {
        bt_req_fail_first_byte(req);
        return;
    }
    if (now_ms >= req->kv_deadline_ms) {
        fail_kv(req, true);
        return;
    }
    if (req->dialect->answers_questions) {
        bt_kvcontrol_ask(pl->proxy->control, BT_ASK_STATUS, (uint32_t)req->decode_idx, req->kv.id);
        bt_count(&pl->metrics.status_asked);
    }
    arm_timer(req, now_ms);
}

/* False: the request has ended. */
static bool make_timer(bt_req *req)
{
    if (req->timer != NULL || bt_timer_create(req->pl->loop, on_late, req, &req->timer) == BATON_OK)
        return true;
    bt_req_failure failure = {.status = 500, .code = "internal_error", .text = baton_last_error()};
    bt_req_fail(req, &failure);
    return false;
}

void bt_req_await_first_byte(bt_req *req)
{
    if (make_timer(req))
        bt_timer_start(req->timer, req->pl->proxy->options.ms.first_byte, 0);
}

void bt_req_await_kv(bt_req *req)
{
    if (req->kv.ready) {
        bt_req_decode(req);
        return;
    }
    bt_req_set_state(req, BT_REQ_KV_WAIT);
    if (!make_timer(req))
        return;
    uint32_t wait_ms = req->pl->proxy->options.ms.kv_wait;
    uint32_t left_ms = bt_req_left_ms(req);
    uint64_t now_ms = bt_loop_now_ms(req->pl->loop);
    req->kv_deadline_ms = now_ms + (wait_ms < left_ms ? wait_ms : left_ms);
    arm_timer(req, now_ms);
}

void bt_req_on_notice(bt_kv_entry *entry, bt_heard result)
{
    bt_req *req = (bt_req *)((char *)entry - offsetof(bt_req, kv));
    if (result == BT_HEARD_EXPIRED)
        bt_info("receivers gave up waiting for decode request=%s attempt=%s trace=%s",
                req->request_id, entry->id, req->trace.trace);
    if (result == BT_HEARD_READY)
        bt_req_reached(req, BT_AT_KV_READY);
    if (result == BT_HEARD_READY && req->state == BT_REQ_KV_WAIT) {
        bt_timer_stop(req->timer);
        bt_req_decode(req);
    } else if (result == BT_HEARD_FAILED &&
               (req->state == BT_REQ_PREFILL || req->state == BT_REQ_KV_WAIT)) {
        fail_kv(req, false);
    }
}
