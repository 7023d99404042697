/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/proxytrace.h"

#include "core/clock.h"
#include "proxy/proxyrequest.h"

#include <stdio.h>
#include <string.h>

const char *const bt_req_stage_names[] = {
    [BT_AT_RECEIVED] = "received",
    [BT_AT_PREFILL_SENT] = "prefill sent",
    [BT_AT_PREFILL_ANSWERED] = "prefill answered",
    [BT_AT_KV_READY] = "KV ready",
    [BT_AT_DECODE_SENT] = "decode sent",
    [BT_AT_FIRST_BYTE] = "first byte",
    [BT_AT_DONE] = "done",
    [BT_AT_FAILED] = "failed",
};
_Static_assert((int)BT_N_AT <= (int)BT_TRACE_STAGES_MAX, "room for every stage");

void bt_req_trace_begin(bt_req *req)
{
    const char *given = bt_http_header_get(req->http->headers, "traceparent");
    req->at_ns[BT_AT_RECEIVED] = req->arrived_ns;
    req->is_trace_given = given != NULL && bt_traceparent_read(given, strlen(given), &req->trace);
    if (req->is_trace_given)
        bt_traceparent_step(&req->trace);
    else
        bt_traceparent_make(&req->trace);
    bt_traceparent_write(&req->trace, req->traceparent);
}

void bt_req_reached(bt_req *req, bt_req_stage stage)
{
    req->at_ns[stage] = bt_now_ns(&bt_clock_monotonic);
}

void bt_req_trace_fill(const bt_req *req, bt_trace_record *record)
{
    const bt_worker *prefill = bt_req_worker(req, BT_LEG_PREFILL);
    const bt_worker *decode = bt_req_worker(req, BT_LEG_DECODE);
    *record = (bt_trace_record){.status = BATON_IN_PROGRESS};
    memcpy(record->trace, req->trace.trace, sizeof(record->trace));
    memcpy(record->at_ns, req->at_ns, sizeof(req->at_ns));
    snprintf(record->request, sizeof(record->request), "%s",
             req->kv.id[0] != 0 ? req->kv.id : req->request_id);
    snprintf(record->alias, sizeof(record->alias), "%s", req->request_id);
    snprintf(record->with, sizeof(record->with), "%.60s > %.60s",
             prefill != NULL ? prefill->name : "-", decode != NULL ? decode->name : "-");
}

void bt_req_trace_end(bt_req *req, unsigned status, const char *code)
{
    bt_trace_record record;
    if (req->is_trace_ended || req->plan == NULL) /* once; and only what makes tokens */
        return;
    req->is_trace_ended = true;
    bool is_failed = code != NULL || status >= 400;
    bt_req_reached(req, is_failed ? BT_AT_FAILED : BT_AT_DONE);
    bt_req_trace_fill(req, &record);
    record.status = is_failed ? BATON_ERR_REFUSED : BATON_OK;
    if (code != NULL)
        snprintf(record.text, sizeof(record.text), "%s", code);
    else if (is_failed)
        snprintf(record.text, sizeof(record.text), "status %u", status);
    bt_tracelog_add(req->pl->traces, &record);
    memset(req->at_ns, 0, sizeof(req->at_ns)); /* of the next attempt */
    req->at_ns[BT_AT_RECEIVED] = req->arrived_ns;
}
