/* SPDX-License-Identifier: Apache-2.0 */
/* A request's trace through the proxy: the traceparent that both engines get, and when the request
 * was where.
 * Thread rule: owner thread (the loop's). */
#ifndef BT_PROXY_PROXYTRACE_H
#define BT_PROXY_PROXYTRACE_H
#include "core/tracelog.h"
#include "http/httpmsg.h"

typedef enum {
    BT_AT_RECEIVED,
    BT_AT_PREFILL_SENT,
    BT_AT_PREFILL_ANSWERED,
    BT_AT_KV_READY,
    BT_AT_DECODE_SENT,
    BT_AT_FIRST_BYTE, /* to the client */
    BT_AT_DONE,
    BT_AT_FAILED, /* the attempt */
    BT_N_AT
} bt_req_stage;

/* The stages' names, [BT_N_AT]. */
extern const char *const bt_req_stage_names[];

struct bt_req;

/* Takes the client's traceparent over, as one that goes through us, or makes one. */
void bt_req_trace_begin(struct bt_req *req);
/* The request is there now. */
void bt_req_reached(struct bt_req *req, bt_req_stage stage);
/* The attempt has ended, with this HTTP status or for that reason (code; NULL: it went well): what
 * became of it is kept for a while. */
void bt_req_trace_end(struct bt_req *req, unsigned status, const char *code);
/* What is known of a request under way, or of one that ends. */
void bt_req_trace_fill(const struct bt_req *req, bt_trace_record *record);

#endif
