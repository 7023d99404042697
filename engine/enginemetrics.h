/* SPDX-License-Identifier: Apache-2.0 */
/* The engine's counters for Prometheus. Thread rule: any thread. */
#ifndef BT_ENGINE_ENGINEMETRICS_H
#define BT_ENGINE_ENGINEMETRICS_H
#include "core/strbuf.h"
#include "engine/scheduler.h"
#include "http/httpserver.h"

void bt_engine_metrics(bt_strbuf *out, const char *role, const bt_scheduler_stats *stats,
                       const bt_http_server_stats *http);

#endif
