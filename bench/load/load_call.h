/* SPDX-License-Identifier: Apache-2.0 */
/* One completion request: sends it, reads the answer (one JSON document or a stream of events) and
 * fills its record. A request is ok when the status is 200, the answer is complete and well formed,
 * and a stream has said [DONE] and no error.
 * Thread rule: owner thread (the loop's). */
#ifndef BT_BENCH_LOAD_CALL_H
#define BT_BENCH_LOAD_CALL_H
#include "bench/load/load_options.h"
#include "bench/load/load_record.h"
#include "core/clock.h"
#include "http/httpclient.h"

typedef struct bt_load_call bt_load_call;

/* Borrowed while calls run. */
typedef struct {
    const bt_load_options *options;
    const bt_clock *clock;
    bt_http_client *client;
    void (*on_end)(void *ctx, bt_load_call *call);
    void *ctx;
} bt_load_caller;

/* Starts a request; body moves into the call and is empty afterwards. record is borrowed until
 * on_end, which is called once, later, and after which the call is gone. record->start_ns has been
 * set. Errors: those of bt_http_client_start, NO_MEMORY; then there is no on_end. */
baton_status bt_load_call_start(const bt_load_caller *caller, bt_strbuf *body,
                                bt_load_record *record, bt_load_call **call_p);
/* The one it was started with. */
bt_load_record *bt_load_call_record(const bt_load_call *call);
/* on_end comes with the error "canceled". */
void bt_load_call_cancel(bt_load_call *call);

#endif
