/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/proxyadmin.h"

#include "core/adminreply.h"
#include "core/adminserver.h"
#include "core/alloc.h"
#include "core/clock.h"
#include "core/fail.h"
#include "proxy/proxyrequest.h"

#include <string.h>

struct bt_proxy_admin {
    bt_proxy *proxy;
    bt_admin *server;
    /* Of the question under way: they go from thread to thread with it. */
    uint32_t loop; /* whose turn it is */
    bt_jsonwriter json;
    bt_admin_rows rows;
    uint64_t now_ns;
};

static bool is_asked(const bt_proxy_admin *admin, const char *name)
{
    return strcmp(admin->rows.query->name, name) == 0;
}

/* Requests. */

static const char *state_name(const bt_req *req)
{
    static const char *const names[BT_N_REQ_STATES] = {
        [BT_REQ_NEW] = "NEW",         [BT_REQ_TOKENIZE] = "TOKENIZE",
        [BT_REQ_PREFILL] = "PREFILL", [BT_REQ_ROOM_WAIT] = "ROOM_WAIT",
        [BT_REQ_KV_WAIT] = "KV_WAIT", [BT_REQ_DECODE] = "DECODE",
        [BT_REQ_ENDED] = "ENDED",
    };
    return names[req->state];
}

static const char *waits_for(const bt_req *req)
{
    switch (req->state) {
    case BT_REQ_TOKENIZE:
        return "tokens of the prefill engine";
    case BT_REQ_PREFILL:
        return "the prefill engine's answer";
    case BT_REQ_ROOM_WAIT:
        return "room for its KV at a decode engine";
    case BT_REQ_KV_WAIT:
        return "notices of all ranks";
    case BT_REQ_DECODE:
        return req->is_paused     ? "the client, who is slow"
               : req->has_relayed ? "more of the decode engine"
                                  : "the decode engine's first byte";
    default:
        return "";
    }
}

static void put_request(bt_proxy_admin *admin, const bt_req *req)
{
    bt_jsonwriter *json = &admin->json;
    bt_trace_record record;
    uint64_t total_ns = req->pl->proxy->options.ms.total * BT_NS_PER_MS;
    bt_req_trace_fill(req, &record);
    bt_jw_open(json, NULL, '{');
    bt_jw_text(json, "request", record.request);
    bt_jw_text(json, "alias", record.alias);
    bt_jw_text(json, "trace", record.trace);
    bt_jw_text(json, "state", state_name(req));
    bt_jw_text(json, "waits_for", waits_for(req));
    bt_admin_put_age(json, "stage_ms", admin->now_ns, req->phase_start_ns);
    bt_admin_put_age(json, "age_ms", admin->now_ns, req->arrived_ns);
    bt_admin_put_left(json, "deadline_ms", admin->now_ns, req->arrived_ns + total_ns);
    bt_jw_text(json, "peer", record.with);
    bt_jw_u64(json, "retries_left", req->retries_left);
    bt_jw_u64(json, "ranks_ready", (uint64_t)__builtin_popcountll(req->kv.ranks));
    bt_jw_u64(json, "ranks_needed", req->kv.n_needed);
    bt_jw_close(json);
}

static void put_requests(bt_proxy_admin *admin, const bt_proxy_loop *pl)
{
    for (const bt_req *req = pl->requests; req != NULL; req = req->next) {
        bt_admin_row row = bt_admin_rows_next(&admin->rows, state_name(req));
        if (row == BT_ROW_STOP)
            return;
        if (row == BT_ROW_WRITE)
            put_request(admin, req);
    }
}

/* Traces. */

static void put_live_traces(bt_proxy_admin *admin, const bt_proxy_loop *pl)
{
    const bt_admin_query *query = admin->rows.query;
    for (const bt_req *req = pl->requests; req != NULL; req = req->next) {
        bt_trace_record record;
        bt_req_trace_fill(req, &record);
        if (query->id[0] != 0 && !bt_trace_is(&record, query->id))
            continue;
        bt_admin_row row = bt_admin_rows_next(&admin->rows, "LIVE");
        if (row == BT_ROW_STOP)
            return;
        if (row == BT_ROW_WRITE)
            bt_trace_put(&admin->json, &record, bt_req_stage_names, BT_N_AT);
    }
}

/* Engines. */

static void put_pool(bt_proxy_admin *admin, const bt_worker_pool *pool, const char *role)
{
    bt_jsonwriter *json = &admin->json;
    for (uint32_t i = 0; i < pool->n_workers; i++) {
        const bt_worker *worker = &pool->workers[i];
        bool is_down = atomic_load_explicit(&worker->load->is_down, memory_order_relaxed);
        const char *state = is_down ? "DOWN" : "UP";
        if (bt_admin_rows_next(&admin->rows, state) != BT_ROW_WRITE)
            continue;
        bt_jw_open(json, NULL, '{');
        bt_jw_text(json, "peer", worker->name);
        bt_jw_text(json, "name", role);
        bt_jw_text(json, "state", state);
        bt_jw_text(json, "text", role);
        bt_jw_u64(json, "ranks", worker->at.n_ranks);
        bt_jw_u64(json, "transfers",
                  atomic_load_explicit(&worker->load->legs, memory_order_relaxed));
        bt_jw_u64(json, "queued_tokens",
                  atomic_load_explicit(&worker->load->queued_tokens, memory_order_relaxed));
        bt_jw_u64(json, "held_tokens",
                  atomic_load_explicit(&worker->load->held_tokens, memory_order_relaxed));
        bt_jw_u64(json, "requests", atomic_load_explicit(&worker->requests, memory_order_relaxed));
        bt_jw_u64(json, "failures", atomic_load_explicit(&worker->failures, memory_order_relaxed));
        bt_jw_close(json);
    }
}

/* Counters: what /metrics has, without its histograms. */

static void put_sum(bt_proxy_admin *admin, const char *name, size_t offset)
{
    const bt_proxy *proxy = admin->proxy;
    uint64_t sum = 0;
    for (uint32_t i = 0; i < proxy->n_loops; i++)
        sum += bt_counted((const bt_counter *)((const char *)&proxy->loops[i].metrics + offset));
    bt_jw_u64(&admin->json, name, sum);
}

static void put_counters(bt_proxy_admin *admin)
{
    static const bt_admin_counter counters[] = {
        {"retries_prefill_total", offsetof(bt_proxy_metrics, retries[BT_LEG_PREFILL])},
        {"retries_decode_total", offsetof(bt_proxy_metrics, retries[BT_LEG_DECODE])},
        {"notices_ready_total", offsetof(bt_proxy_metrics, notices[BT_HEARD_READY])},
        {"notices_failed_total", offsetof(bt_proxy_metrics, notices[BT_HEARD_FAILED])},
        {"notices_expired_total", offsetof(bt_proxy_metrics, notices[BT_HEARD_EXPIRED])},
        {"notices_late_total", offsetof(bt_proxy_metrics, notices[BT_HEARD_LATE])},
        {"notices_unknown_total", offsetof(bt_proxy_metrics, notices[BT_HEARD_UNKNOWN])},
        {"bypasses_several_total", offsetof(bt_proxy_metrics, bypasses[BT_BYPASS_SEVERAL])},
        {"bypasses_short_total", offsetof(bt_proxy_metrics, bypasses[BT_BYPASS_SHORT])},
        {"bypasses_prefix_total", offsetof(bt_proxy_metrics, bypasses[BT_BYPASS_PREFIX])},
        {"bypasses_front_end_total", offsetof(bt_proxy_metrics, bypasses[BT_BYPASS_FRONT])},
        {"answered_by_prefill_total", offsetof(bt_proxy_metrics, answered_by_prefill)},
        {"status_asked_total", offsetof(bt_proxy_metrics, status_asked)},
        {"released_total", offsetof(bt_proxy_metrics, released)},
        {"relay_bytes_total", offsetof(bt_proxy_metrics, relay_bytes)},
        {"relay_events_total", offsetof(bt_proxy_metrics, relay_events)},
        {"shed_total", offsetof(bt_proxy_metrics, shed)},
    };
    bt_jw_open(&admin->json, "counters", '{');
    bt_jw_u64(&admin->json, "inflight", bt_proxy_inflight(admin->proxy));
    for (size_t i = 0; i < sizeof(counters) / sizeof(counters[0]); i++)
        put_sum(admin, counters[i].name, counters[i].offset);
    bt_jw_close(&admin->json);
}

/* A question's way. */

static void begin(bt_proxy_admin *admin, const bt_admin_query *query)
{
    const bt_admin_head head = {.role = "proxy",
                                .name = "proxy",
                                .world = 1,
                                .epoch = admin->proxy->epoch,
                                .now_ns = bt_now_ns(&bt_clock_monotonic)};
    admin->now_ns = head.now_ns;
    bt_admin_begin(&admin->json, bt_admin_text(admin->server), &head);
    admin->rows = (bt_admin_rows){.query = query};
    if (is_asked(admin, "counters"))
        put_counters(admin);
    else if (query->name[0] != 0)
        bt_admin_rows_begin(&admin->json, &admin->rows, query,
                            is_asked(admin, "slow") || is_asked(admin, "trace") ? "traces"
                                                                                : query->name);
    if (is_asked(admin, "peers")) {
        put_pool(admin, &admin->proxy->prefill, "prefill");
        put_pool(admin, &admin->proxy->decode, "decode");
    }
}

static void end(bt_proxy_admin *admin)
{
    if (!is_asked(admin, "counters") && !is_asked(admin, ""))
        bt_admin_rows_end(&admin->json, &admin->rows);
    bt_admin_end(&admin->json);
    bt_admin_answered(admin->server, 200);
}

static void put_loop(bt_proxy_admin *admin, const bt_proxy_loop *pl)
{
    if (is_asked(admin, "transfers")) {
        put_requests(admin, pl);
    } else if (is_asked(admin, "trace")) {
        put_live_traces(admin, pl);
        bt_admin_write_traces(&admin->json, &admin->rows, pl->traces, bt_req_stage_names, BT_N_AT);
    } else if (is_asked(admin, "slow")) {
        bt_admin_write_slowest(&admin->json, &admin->rows, pl->traces, bt_req_stage_names, BT_N_AT);
    }
}

/* On the loop whose turn it is. What a loop cannot be asked for, because its queue is full, is left
 * out. */
static void on_turn(void *arg)
{
    bt_proxy_admin *admin = arg;
    bt_proxy *proxy = admin->proxy;
    const bt_admin_query *query = bt_admin_pending(admin->server);
    if (admin->loop == 0 && !bt_admin_is_known(query)) {
        bt_admin_answered(admin->server, bt_admin_put_unknown(bt_admin_text(admin->server), query));
        return;
    }
    if (admin->loop == 0)
        begin(admin, query);
    put_loop(admin, &proxy->loops[admin->loop]);
    bool is_passed_on = false;
    while (!is_passed_on && ++admin->loop < proxy->n_loops)
        is_passed_on = bt_loop_post(proxy->loops[admin->loop].loop, on_turn, admin) == BATON_OK;
    if (!is_passed_on)
        end(admin);
}

/* On the admin thread. */
static void ring(void *ctx)
{
    bt_proxy_admin *admin = ctx;
    admin->loop = 0;
    if (bt_loop_post(admin->proxy->loops[0].loop, on_turn, admin) == BATON_OK)
        return;
    bt_strbuf_puts(bt_admin_text(admin->server),
                   "{\"error\":\"the proxy's first loop is too far behind to be asked\"}\n");
    bt_admin_answered(admin->server, 503);
}

baton_status bt_proxy_admin_open(bt_proxy *proxy, bt_proxy_admin **admin_p)
{
    bt_proxy_admin *admin = bt_calloc(1, sizeof(*admin));
    if (admin == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "proxy: admin");
    admin->proxy = proxy;
    const bt_admin_options options = {.where = proxy->options.admin,
                                      .role = "proxy",
                                      .name = "proxy",
                                      .ring = ring,
                                      .ctx = admin};
    baton_status status = bt_admin_open(&options, &admin->server);
    for (uint32_t i = 0; status == BATON_OK && admin->server != NULL && i < proxy->n_loops; i++)
        status = bt_tracelog_create(&proxy->loops[i].traces);
    if (status != BATON_OK || admin->server == NULL) {
        bt_proxy_admin_close(admin);
        return status;
    }
    *admin_p = admin;
    return BATON_OK;
}

void bt_proxy_admin_close(bt_proxy_admin *admin)
{
    if (admin == NULL)
        return;
    bt_admin_close(admin->server);
    bt_free(admin);
}

const char *bt_proxy_admin_address(const bt_proxy_admin *admin)
{
    return bt_admin_address(admin != NULL ? admin->server : NULL);
}
