/* SPDX-License-Identifier: Apache-2.0 */
/* Engines that owe an answer and have gone quiet are asked for their health. A process that is
 * stopped or hangs keeps its connections, so that only the deadline of the whole leg would end the
 * wait, and prefill's is long, because prompts may be.
 *
 *   a leg has heard nothing for ms.probe --> GET /health
 *     --any answer--------> it takes as long as it takes
 *     --none in ms.silent-> the engine's legs fail; it is avoided until it answers (proxy/probe.h)
 *
 * An engine that refuses the question is about to stop and may be finishing what it has. Each loop
 * asks for itself; nothing runs while no leg is under way.
 * Thread rule: owner thread (the loop's). */
#ifndef BT_PROXY_WATCH_H
#define BT_PROXY_WATCH_H
#include "proxy/proxyrequest.h"

typedef struct bt_watch bt_watch;

/* Errors: NO_MEMORY, IO. */
baton_status bt_watch_create(bt_proxy_loop *pl, bt_watch **watch_p);
/* The request's call begins; it is watched until the request has none. */
void bt_watch_begin(bt_watch *watch, bt_req *req);
/* Bytes have come from the engine that the request waits for. */
void bt_watch_heard(bt_watch *watch, bt_req *req);
/* The same for the prefill leg beside it. */
void bt_watch_begin_beside(bt_watch *watch, bt_req *req);
void bt_watch_heard_beside(bt_watch *watch, bt_req *req);
/* Before the loop's HTTP client. NULL is allowed. */
void bt_watch_destroy(bt_watch *watch);

#endif
