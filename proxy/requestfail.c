/* SPDX-License-Identifier: Apache-2.0 */
/* How an attempt fails, and what the client is told. */
#include "core/log.h"
#include "proxy/probe.h"
#include "proxy/proxyrequest.h"

#include <stdio.h>
#include <string.h>

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
    if (leg == BT_LEG_PREFILL && req->dialect != NULL)
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
    bt_req_unlearn(req);
    bt_req_leave_attempt(req);
    bool can_retry = failure->may_retry && (failure->is_free || req->retries_left > 0) &&
                     !req->has_relayed && bt_req_left_ms(req) > 1 &&
                     (failure->is_kv || bt_req_has_untried(req, failure->leg));
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
