/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/probe.h"
#include "core/alloc.h"
#include "core/log.h"

typedef struct bt_probe {
    bt_proxy_loop *pl;
    bt_worker *worker;
    struct bt_probe *prev, *next;
    bt_timer *timer;
    bt_http_call *call; /* the question under way */
} bt_probe;

enum { ANSWER_MS = 2000 };

static void destroy(bt_probe *probe)
{
    if (probe->prev != NULL)
        probe->prev->next = probe->next;
    else
        probe->pl->probes = probe->next;
    if (probe->next != NULL)
        probe->next->prev = probe->prev;
    bt_timer_destroy(probe->timer);
    /* Release pairs with the exchange in bt_probe_start: the next one begins after this one. */
    atomic_store_explicit(&probe->worker->is_probed, false, memory_order_release);
    bt_free(probe);
}

static void wait_again(bt_probe *probe)
{
    bt_timer_start(probe->timer, probe->pl->proxy->options.ms.probe, 0);
}

static void on_done(void *ctx, bt_http_call *call, const bt_http_result *result)
{
    bt_probe *probe = ctx;
    if (probe->call != call)
        return;
    probe->call = NULL;
    /* An engine without this path says 404, and lives. */
    if (result->status != BATON_OK || result->http_status >= 500) {
        wait_again(probe);
        return;
    }
    bt_info("engine answers again worker=%s", probe->worker->name);
    bt_worker_answered(probe->worker);
    destroy(probe);
}

static void ask(void *arg)
{
    static const bt_http_call_ops ops = {.on_done = on_done};
    bt_probe *probe = arg;
    bt_http_client_request request = {.host = probe->worker->at.host,
                                      .port = probe->worker->at.port,
                                      .tls = probe->worker->tls,
                                      .path = "/health",
                                      .total_ms = ANSWER_MS,
                                      .fresh = true,
                                      .ops = &ops,
                                      .ctx = probe};
    if (bt_http_client_start(probe->pl->client, &request, &probe->call) != BATON_OK) {
        probe->call = NULL;
        wait_again(probe);
    }
}

void bt_probe_start(bt_proxy_loop *pl, bt_worker *worker)
{
    if (atomic_exchange_explicit(&worker->is_probed, true, memory_order_acquire))
        return;
    bt_probe *probe = bt_calloc(1, sizeof(*probe));
    if (probe == NULL || bt_timer_create(pl->loop, ask, probe, &probe->timer) != BATON_OK) {
        /* The next failure tries again; until then a request that is let through will tell. */
        bt_free(probe);
        atomic_store_explicit(&worker->is_probed, false, memory_order_release);
        return;
    }
    bt_warn("engine cannot be reached, avoided until it answers worker=%s", worker->name);
    probe->pl = pl;
    probe->worker = worker;
    probe->next = pl->probes;
    if (probe->next != NULL)
        probe->next->prev = probe;
    pl->probes = probe;
    wait_again(probe);
}

void bt_probe_end_all(bt_proxy_loop *pl)
{
    while (pl->probes != NULL) {
        bt_http_call *call = pl->probes->call;
        pl->probes->call = NULL; /* on_done finds that it is not the probe's any more */
        if (call != NULL)
            bt_http_call_cancel(call);
        destroy(pl->probes);
    }
}
