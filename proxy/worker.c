/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/worker.h"
#include "core/fail.h"

#include <stdio.h>
#include <string.h>

baton_status bt_worker_add(bt_worker_pool *pool, bt_role role, const bt_worker_address *at)
{
    if (at->host[0] == 0 || at->port == 0)
        return bt_fail(BATON_ERR_INVALID_ARG, "worker: wanted host and port, found \"%s\":%u",
                       at->host, at->port);
    if (pool->n_workers == BT_MAX_WORKERS)
        return bt_fail(BATON_ERR_TOO_LARGE, "worker: at most %d engines of one role",
                       BT_MAX_WORKERS);
    bt_worker *worker = &pool->workers[pool->n_workers++];
    worker->at = *at;
    worker->role = role;
    bool ipv6 = strchr(at->host, ':') != NULL;
    snprintf(worker->name, sizeof(worker->name), ipv6 ? "[%.240s]:%u" : "%.240s:%u", at->host,
             at->port);
    return BATON_OK;
}

/* The relaxed loads and adds below pair with each other only: a figure that is a moment old makes a
 * choice a little less good, never wrong. */

/* Lower is better. Those that are down come last, whatever their load is: an engine that refuses
 * connections has none. */
static uint64_t cost_of(const bt_worker *worker, bt_policy policy)
{
    uint64_t cost = 0;
    if (policy == BT_POLICY_LEAST_LOADED) {
        uint64_t legs = atomic_load_explicit(&worker->inflight, memory_order_relaxed);
        uint64_t tokens = atomic_load_explicit(&worker->inflight_tokens, memory_order_relaxed);
        /* 256 tokens, a chunk, weigh as much as one more leg. */
        cost = legs + tokens / 256;
    }
    bool is_down = atomic_load_explicit(&worker->is_down, memory_order_relaxed);
    return is_down ? cost + (UINT64_C(1) << 62) : cost;
}

int bt_worker_pick(bt_worker_pool *pool, uint64_t tried)
{
    uint32_t n = pool->n_workers;
    if (n == 0)
        return -1;
    uint64_t turn = atomic_fetch_add_explicit(&pool->turn, 1, memory_order_relaxed);
    bool shifts = pool->workers[0].role == BT_ROLE_PREFILL;
    uint64_t start = turn + (shifts ? turn / n : 0);
    int best = -1;
    uint64_t best_cost = UINT64_MAX;
    for (uint32_t i = 0; i < n; i++) {
        uint32_t idx = (uint32_t)((start + i) % n);
        uint64_t cost = cost_of(&pool->workers[idx], pool->policy);
        if ((tried >> idx & 1) == 0 && cost < best_cost) {
            best = (int)idx;
            best_cost = cost;
        }
    }
    return best;
}

void bt_worker_begin(bt_worker *worker, uint64_t n_tokens)
{
    atomic_fetch_add_explicit(&worker->inflight, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&worker->inflight_tokens, n_tokens, memory_order_relaxed);
    atomic_fetch_add_explicit(&worker->requests, 1, memory_order_relaxed);
}

void bt_worker_end(bt_worker *worker, uint64_t n_tokens)
{
    atomic_fetch_sub_explicit(&worker->inflight, 1, memory_order_relaxed);
    atomic_fetch_sub_explicit(&worker->inflight_tokens, n_tokens, memory_order_relaxed);
}

void bt_worker_failed(bt_worker *worker, bool is_down)
{
    atomic_fetch_add_explicit(&worker->failures, 1, memory_order_relaxed);
    if (is_down)
        atomic_store_explicit(&worker->is_down, true, memory_order_relaxed);
}

void bt_worker_answered(bt_worker *worker)
{
    /* Read first: while all is well, loops do not fight for the line. */
    if (atomic_load_explicit(&worker->is_down, memory_order_relaxed))
        atomic_store_explicit(&worker->is_down, false, memory_order_relaxed);
}
