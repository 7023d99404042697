/* SPDX-License-Identifier: Apache-2.0 */
/* One loop thread of the proxy, and what all of them share.
 * Thread rule: bt_proxy_loop: its own thread. bt_proxy: constant once started, but for atomics. */
#ifndef BT_PROXY_PROXYLOOP_H
#define BT_PROXY_PROXYLOOP_H
#include "http/httpclient.h"
#include "http/httpserver.h"
#include "proxy/kvcontrol.h"
#include "core/tracelog.h"
#include "proxy/proxy.h"
#include "proxy/proxyadmin.h"
#include "proxy/proxymetrics.h"

#include <pthread.h>

typedef struct bt_proxy_loop {
    bt_proxy *proxy;
    uint32_t index;
    bt_loop *loop;
    bt_http_server *server;
    bt_http_client *client;
    bt_kvwait *kvwait;
    struct bt_req *requests;               /* all that live on this loop */
    struct bt_fanout *fanouts;             /* likewise */
    struct bt_probe *probes;               /* likewise */
    struct bt_farewell *farewells;         /* likewise */
    struct bt_req *line_first, *line_last; /* those that wait for room (room.c) */
    _Atomic uint64_t line_number;          /* of the first; 0: nobody waits */
    _Atomic bool is_woken;                 /* ... and are to look for it */
    struct bt_watch *watch;
    bt_strbuf learnt[BT_MAX_WORKERS];   /* of prefill engine i, JSON; empty: nothing (learn.c) */
    uint32_t rank_turn[BT_MAX_WORKERS]; /* its next data-parallel rank */
    bt_proxy_metrics metrics;
    bt_tracelog *traces; /* of attempts that have ended; NULL: nobody asks */
    pthread_t thread;
    bool is_running; /* owner's: the thread exists */
} bt_proxy_loop;

struct bt_proxy {
    bt_proxy_options options; /* defaults filled in */
    uint64_t epoch;
    uint16_t port;
    char notice_address[BT_HOST_BYTES + 32];
    bt_doors doors;
    bt_worker_pool prefill, decode;
    bt_pair pairs[BT_MAX_WORKERS][BT_MAX_WORKERS]; /* [decode][prefill] */
    bt_kvcontrol *control;
    bt_proxy_admin *admin; /* NULL: off */
    bt_proxy_loop *loops;  /* [n_loops] */
    uint32_t n_loops;
    _Atomic uint32_t n_waiting;    /* requests in the loops' lines */
    _Atomic uint64_t line_numbers; /* given out */
    _Atomic uint32_t inflight;     /* completion requests, all loops */
    _Atomic bool is_draining;
};

/* Handlers of the loop's server; ctx is the bt_proxy_loop. */
void bt_surface_on_request(void *ctx, bt_http_request *http);
bool bt_surface_on_head(void *ctx, const char *target, bt_http_headers headers,
                        bt_http_refusal *refusal);
/* Ends what fan-outs of the loop are under way. */
void bt_fanout_end_all(bt_proxy_loop *pl);

#endif
