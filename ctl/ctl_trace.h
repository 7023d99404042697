/* SPDX-License-Identifier: Apache-2.0 */
/* One request's whole way, put together from what all endpoints know of it, and the slowest ones.
 * Thread rule: owner thread. */
#ifndef BT_CTL_TRACE_H
#define BT_CTL_TRACE_H
#include "ctl/ctl_ask.h"

/* Asks for the id, and, when it turns out to be a part of a trace, for all of that. Errors: as
 * bt_ctl_ask. */
baton_status bt_ctl_trace_ask(const bt_ctl_options *options, const bt_ctl_endpoints *endpoints,
                              bt_ctl_answers *answers);
/* All stages of the answers' traces, oldest first:
 * [{"wall_ns","after_ms","since_ms","who","request", "stage"}, ...]. Processes of one host are put
 * on one clock, their monotonic one; others are as exact as their wall clocks. Owned by the caller;
 * an empty array when nobody knows the request. */
json_t *bt_ctl_timeline(const bt_ctl_answers *answers);
void bt_ctl_put_trace(const bt_ctl_answers *answers, json_t *timeline, bt_strbuf *out);
/* The n slowest of all. */
void bt_ctl_put_slow(const bt_ctl_answers *answers, size_t n, bt_strbuf *out);

#endif
