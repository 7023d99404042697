/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/watch.h"
#include "core/alloc.h"
#include "core/fail.h"
#include "proxy/probe.h"

/* One engine, as this loop sees it. */
typedef struct {
    bt_watch *watch;
    bt_leg leg;
    const bt_worker *worker;
    bool is_owing;       /* during a look: some leg has heard nothing for long */
    uint64_t heard_ms;   /* when bytes came last, for whichever request; 0: never */
    uint64_t asked_ms;   /* the question under way */
    bt_http_call *asked; /* NULL: none */
} seat;

struct bt_watch {
    bt_proxy_loop *pl;
    bt_timer *timer;
    bool is_running;
    seat seats[BT_N_LEGS][BT_MAX_WORKERS];
};

static seat *seat_of(bt_watch *watch, const bt_req *req)
{
    int idx = req->call_leg == BT_LEG_PREFILL ? req->prefill_idx : req->decode_idx;
    return &watch->seats[req->call_leg][idx];
}

/* Waits for bytes that the engine owes; a client that does not read holds them back itself. */
static bool is_waiting(const bt_req *req)
{
    return req->call != NULL && !req->is_paused;
}

static seat *beside_seat_of(bt_watch *watch, const bt_req *req)
{
    return &watch->seats[BT_LEG_PREFILL][req->prefill_idx];
}

static bool is_beside_of(const seat *s, const bt_req *req)
{
    return req->beside.call != NULL && beside_seat_of(s->watch, req) == s;
}

/* One of the request's legs waits for that engine, and has heard nothing since then. */
static bool is_owed_by(const seat *s, const bt_req *req, uint64_t since_ms)
{
    bool is_main = is_waiting(req) && seat_of(s->watch, req) == s && req->heard_ms <= since_ms;
    bool is_beside = is_beside_of(s, req) && req->beside.heard_ms <= since_ms;
    return is_main || is_beside;
}

/* Fails what has heard nothing since before the question. */
static void fail_legs(const seat *quiet)
{
    bt_proxy_loop *pl = quiet->watch->pl;
    bool is_prefill = quiet->leg == BT_LEG_PREFILL;
    const bt_req_failure failure = {
        .status = 504,
        .code = is_prefill ? "prefill_silent" : "decode_silent",
        .text = "the engine has gone quiet, and does not even answer /health",
        .leg = quiet->leg,
        .may_retry = true,
        .is_engine_fault = true,
        .is_unreachable = true,
    };
    for (bt_req *req = pl->requests, *next; req != NULL; req = next) {
        next = req->next;
        if (!is_owed_by(quiet, req, quiet->asked_ms))
            continue;
        if (is_beside_of(quiet, req) && req->has_relayed) {
            /* The decode engine answers, so it has what it needs. */
            bt_req_beside_drop(req);
            bt_req_leave_worker(req, BT_LEG_PREFILL);
            bt_worker_failed(bt_req_worker(req, BT_LEG_PREFILL), true);
            bt_probe_start(pl, bt_req_worker(req, BT_LEG_PREFILL));
        } else {
            bt_req_fail(req, &failure);
        }
    }
}

static void on_done(void *ctx, bt_http_call *call, const bt_http_result *result)
{
    seat *asked = ctx;
    if (asked->asked != call)
        return;
    asked->asked = NULL;
    bool is_silent =
        result->status == BATON_ERR_DEADLINE || result->status == BATON_ERR_CONNECT_TIMEOUT;
    if (is_silent && asked->heard_ms <= asked->asked_ms)
        fail_legs(asked);
}

static void ask(seat *quiet)
{
    static const bt_http_call_ops ops = {.on_done = on_done};
    bt_proxy_loop *pl = quiet->watch->pl;
    uint32_t silent_ms = pl->proxy->options.ms.silent;
    bt_http_client_request request = {.host = quiet->worker->at.host,
                                      .port = quiet->worker->at.port,
                                      .tls = quiet->worker->tls,
                                      .path = "/health",
                                      .connect_ms = silent_ms,
                                      .total_ms = silent_ms,
                                      .fresh = true,
                                      .ops = &ops,
                                      .ctx = quiet};
    quiet->asked_ms = bt_loop_now_ms(pl->loop);
    if (bt_http_client_start(pl->client, &request, &quiet->asked) != BATON_OK)
        quiet->asked = NULL; /* at the next look again */
}

static void look(void *arg)
{
    bt_watch *watch = arg;
    bt_proxy_loop *pl = watch->pl;
    uint64_t now_ms = bt_loop_now_ms(pl->loop), wait_ms = pl->proxy->options.ms.probe;
    if (pl->requests == NULL) {
        bt_timer_stop(watch->timer);
        watch->is_running = false;
        return;
    }
    for (const bt_req *req = pl->requests; req != NULL; req = req->next) {
        if (is_waiting(req) && now_ms - req->heard_ms >= wait_ms)
            seat_of(watch, req)->is_owing = true;
        if (req->beside.call != NULL && now_ms - req->beside.heard_ms >= wait_ms)
            beside_seat_of(watch, req)->is_owing = true;
    }
    for (int leg = 0; leg < BT_N_LEGS; leg++) {
        for (int i = 0; i < BT_MAX_WORKERS; i++) {
            seat *s = &watch->seats[leg][i];
            if (s->is_owing && s->asked == NULL && now_ms - s->heard_ms >= wait_ms)
                ask(s);
            s->is_owing = false;
        }
    }
}

static void start_looking(bt_watch *watch)
{
    uint64_t wait_ms = watch->pl->proxy->options.ms.probe;
    if (!watch->is_running)
        bt_timer_start(watch->timer, wait_ms, wait_ms);
    watch->is_running = true;
}

void bt_watch_begin(bt_watch *watch, bt_req *req)
{
    req->heard_ms = bt_loop_now_ms(watch->pl->loop);
    start_looking(watch);
}

void bt_watch_heard(bt_watch *watch, bt_req *req)
{
    req->heard_ms = seat_of(watch, req)->heard_ms = bt_loop_now_ms(watch->pl->loop);
}

void bt_watch_begin_beside(bt_watch *watch, bt_req *req)
{
    req->beside.heard_ms = bt_loop_now_ms(watch->pl->loop);
    start_looking(watch);
}

void bt_watch_heard_beside(bt_watch *watch, bt_req *req)
{
    req->beside.heard_ms = beside_seat_of(watch, req)->heard_ms = bt_loop_now_ms(watch->pl->loop);
}

baton_status bt_watch_create(bt_proxy_loop *pl, bt_watch **watch_p)
{
    bt_watch *watch = bt_calloc(1, sizeof(*watch));
    if (watch == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "proxy: watch of engines");
    watch->pl = pl;
    const bt_worker_pool *pools[BT_N_LEGS] = {&pl->proxy->prefill, &pl->proxy->decode};
    for (int leg = 0; leg < BT_N_LEGS; leg++) {
        for (int i = 0; i < BT_MAX_WORKERS; i++)
            watch->seats[leg][i] =
                (seat){.watch = watch, .leg = (bt_leg)leg, .worker = &pools[leg]->workers[i]};
    }
    baton_status status = bt_timer_create(pl->loop, look, watch, &watch->timer);
    if (status != BATON_OK) {
        bt_free(watch);
        return status;
    }
    *watch_p = watch;
    return BATON_OK;
}

void bt_watch_destroy(bt_watch *watch)
{
    if (watch == NULL)
        return;
    for (int leg = 0; leg < BT_N_LEGS; leg++) {
        for (int i = 0; i < BT_MAX_WORKERS; i++) {
            bt_http_call *call = watch->seats[leg][i].asked;
            watch->seats[leg][i].asked = NULL; /* on_done finds that it is not ours any more */
            if (call != NULL)
                bt_http_call_cancel(call);
        }
    }
    bt_timer_destroy(watch->timer);
    bt_free(watch);
}
