/* SPDX-License-Identifier: Apache-2.0 */
/* A word to an engine that a leg has ended, where closing its connection does not say so. Sent once
 * and forgotten; the leg's connection is closed in any case.
 * Thread rule: owner thread (the loop's). */
#ifndef BT_PROXY_FAREWELL_H
#define BT_PROXY_FAREWELL_H
#include "proxy/proxyrequest.h"

/* POSTs the dialect's abort of the request's attempt to the engine of that leg. */
void bt_farewell_send(const bt_req *req, bt_leg leg);
/* Drops those that are under way, before the loop's HTTP client goes. */
void bt_farewell_end_all(bt_proxy_loop *pl);

#endif
