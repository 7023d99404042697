/* SPDX-License-Identifier: Apache-2.0 */
/* One GET to every engine at once, and all answers together: /v1/models, /readyz.
 * Thread rule: owner thread (the loop's). */
#ifndef BT_PROXY_FANOUT_H
#define BT_PROXY_FANOUT_H
#include "core/strbuf.h"
#include "proxy/proxyloop.h"

typedef struct {
    const bt_worker *worker;
    unsigned status; /* 0: no answer */
    bt_strbuf body;
    bt_http_call *call;
    struct bt_fanout *fanout;
} bt_fanout_answer;

typedef struct bt_fanout {
    bt_proxy_loop *pl;
    bt_http_request *http; /* the client's; to be answered by on_all */
    struct bt_fanout *prev, *next;
    void (*on_all)(struct bt_fanout *fanout);
    uint32_t n_answers, n_open;
    bool is_ending;
    bt_fanout_answer answers[2 * BT_MAX_WORKERS];
} bt_fanout;

/* Asks all engines for path (borrowed) with the client's Authorization. on_all answers the client,
 * once, unless it leaves before; the fan-out is freed after it. */
void bt_fanout_start(bt_proxy_loop *pl, bt_http_request *http, const char *path,
                     void (*on_all)(bt_fanout *fanout));

#endif
