/* SPDX-License-Identifier: Apache-2.0 */
/* The engine's HTTP side: OpenAI's routes on one loop, the engine's thread behind them.
 *
 *   POST /v1/completions, /v1/chat/completions     GET /v1/models, /v1/models/NAME
 *   POST /tokenize, /detokenize                    GET /health, /metrics
 *
 * Thread rule: owner thread (the loop's). */
#ifndef BT_ENGINE_ENGINEAPI_H
#define BT_ENGINE_ENGINEAPI_H
#include "engine/apirequest.h"
#include "engine/enginethread.h"
#include "http/httpserver.h"

typedef struct bt_api bt_api;

typedef struct {
    bt_loop *loop; /* borrowed, as all that follows */
    const char *host;
    uint16_t port;                   /* 0: any free one */
    bt_api_limits limits;            /* fresh_seed is filled per request */
    bt_engine_thread_options engine; /* wake is filled here */
    const char *role;                /* a label of the metrics */
    /* Appends the hand-off's own metrics; NULL: none. */
    void (*more_metrics)(void *ctx, bt_strbuf *out);
    void *more_metrics_ctx;
} bt_api_options;

/* Starts the engine's thread and listens. Errors: those of bt_http_server_create and
 * bt_engine_thread_create. */
baton_status bt_api_create(const bt_api_options *options, bt_api **api_p);
uint16_t bt_api_port(const bt_api *api);
/* Stops listening and lets running requests finish; on_done(arg) once no connection is left. */
void bt_api_drain(bt_api *api, bt_loop_fn on_done, void *arg);
/* Ends every request with an error and lets the transfers of answered ones go on for up to
 * drain_ms. Blocks; afterwards no engine thread runs, and only destroy is left. */
void bt_api_stop(bt_api *api, uint32_t drain_ms);
void bt_api_engine_stats(bt_api *api, bt_scheduler_stats *stats);
/* Stopped, and the hand-off's threads are gone. NULL is allowed. */
void bt_api_destroy(bt_api *api);

#endif
