/* SPDX-License-Identifier: Apache-2.0 */
/* Asks an engine that is down for its health, again and again, until it answers, so that no client
 * has to find out. One loop asks one engine; while all engines are up nothing runs.
 * Thread rule: owner thread (the loop's). */
#ifndef BT_PROXY_PROBE_H
#define BT_PROXY_PROBE_H
#include "proxy/proxyloop.h"

/* Begins with the first question after one period, unless some loop asks this engine already. */
void bt_probe_start(bt_proxy_loop *pl, bt_worker *worker);
/* Ends the loop's probes, for shutdown. */
void bt_probe_end_all(bt_proxy_loop *pl);

#endif
