/* SPDX-License-Identifier: Apache-2.0 */
/* What the proxy counts. One struct per loop thread, so that counting never contends; /metrics adds
 * them up. docs/proxy.md lists the names.
 *
 * Thread rule: one thread counts (bt_count, bt_histogram_record); any thread reads. */
#ifndef BT_PROXY_PROXYMETRICS_H
#define BT_PROXY_PROXYMETRICS_H
#include "core/histogram.h"
#include "core/strbuf.h"
#include "proxy/kvwait.h"
#include "proxy/worker.h"

#include <stdatomic.h>

typedef enum {
    BT_ROUTE_ID_COMPLETIONS,
    BT_ROUTE_ID_CHAT,
    BT_ROUTE_ID_TOKENIZE,
    BT_ROUTE_ID_DETOKENIZE,
    BT_ROUTE_ID_MODELS,
    BT_ROUTE_ID_OTHER,
    BT_N_ROUTE_IDS
} bt_route_id;

typedef enum {
    BT_PHASE_TOKENIZE,
    BT_PHASE_ROOM_WAIT,
    BT_PHASE_PREFILL,
    BT_PHASE_KV_WAIT,
    BT_PHASE_DECODE_FIRST, /* until the decode engine's first byte */
    BT_PHASE_DECODE,       /* from then on */
    BT_N_PHASES
} bt_phase;

/* Why a request's first token is the decode engine's although the mode is early-first-token. */
typedef enum {
    BT_LATER_BODY,     /* a key of the body makes it unsafe */
    BT_LATER_TOKENIZE, /* the engine does not tokenise this, or does not say how long it may be */
    BT_LATER_TOKEN,    /* no first_tok, or its text cannot stand alone */
    BT_LATER_STOP,     /* its text may be the beginning of a stop string */
    BT_N_LATER
} bt_later_reason;

/* Why a decode engine computes a prompt itself. */
typedef enum {
    BT_BYPASS_SEVERAL, /* more than one hand-off can name */
    BT_BYPASS_SHORT,   /* handing it over is not worth it */
    BT_BYPASS_PREFIX,  /* nor what the engine has not seen of it */
    BT_BYPASS_FRONT,   /* a front end says so */
    BT_N_BYPASS
} bt_bypass_reason;

enum { BT_N_CODES = 16 };
typedef _Atomic uint64_t bt_counter;

typedef struct {
    bt_counter requests[BT_N_ROUTE_IDS][BT_N_CODES];
    bt_counter retries[2]; /* [leg]: prefill, decode */
    bt_counter cancels[BT_N_PHASES];
    bt_counter notices[BT_N_HEARD];
    bt_counter later[BT_N_LATER];
    bt_counter bypasses[BT_N_BYPASS];
    bt_counter room_waits, cold_pairs, local_queue_full, answered_by_prefill, status_asked,
        released, params_missing, aborts;
    bt_counter prefix_asked[2], prefix_matched[2]; /* [leg]: tokens of prompts */
    bt_counter relay_bytes, relay_events, shed;
    bt_histogram ttft, duration, phases[BT_N_PHASES];
} bt_proxy_metrics;

/* What the control thread counts. */
typedef struct {
    bt_counter frames, malformed, foreign, former, status_answers, questions, dropped;
} bt_kvcontrol_metrics;

/* Relaxed: a counter orders nothing; the load and store are apart because one thread writes. */
static inline void bt_count_n(bt_counter *counter, uint64_t n)
{
    uint64_t old = atomic_load_explicit(counter, memory_order_relaxed);
    atomic_store_explicit(counter, old + n, memory_order_relaxed);
}
static inline void bt_count(bt_counter *counter)
{
    bt_count_n(counter, 1);
}
static inline uint64_t bt_counted(const bt_counter *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

/* One finished request of that route, by its HTTP status. */
void bt_count_request(bt_proxy_metrics *metrics, bt_route_id route, unsigned code);
const char *bt_phase_name(bt_phase phase);

typedef struct {
    const bt_proxy_metrics *const *loops; /* [n_loops] */
    uint32_t n_loops;
    const bt_kvcontrol_metrics *control;
    uint64_t connections_cut; /* to the notice port */
    const bt_worker_pool *prefill, *decode;
    uint64_t inflight, waiting; /* waiting: for room at a decode engine */
} bt_metrics_view;

/* Prometheus text of everything. */
void bt_proxy_metrics_print(const bt_metrics_view *view, bt_strbuf *out);

#endif
