/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/worker.h"
#include "core/fail.h"

#include <stdio.h>
#include <string.h>
#include <xxhash.h>

baton_status bt_worker_add(bt_worker_pool *pool, bt_role role, const bt_worker_address *at,
                           bt_tls_context *tls)
{
    if (at->host[0] == 0 || at->port == 0)
        return bt_fail(BATON_ERR_INVALID_ARG, "worker: wanted host and port, found \"%s\":%u",
                       at->host, at->port);
    if (at->dialect >= BT_MAX_DIALECTS)
        return bt_fail(BATON_ERR_INVALID_ARG, "worker: no dialect %u", at->dialect);
    if (pool->n_workers == BT_MAX_WORKERS)
        return bt_fail(BATON_ERR_TOO_LARGE, "worker: at most %d engines of one role",
                       BT_MAX_WORKERS);
    bt_worker *worker = &pool->workers[pool->n_workers];
    worker->load = &pool->loads[pool->n_workers++];
    worker->at = *at;
    pool->of_dialect[at->dialect] |= UINT64_C(1) << (pool->n_workers - 1);
    worker->tls = at->is_tls ? tls : NULL;
    worker->role = role;
    /* Pools of equal size are not to marry their members to each other. */
    pool->policy.shifts = role == BT_ROLE_PREFILL;
    bool ipv6 = strchr(at->host, ':') != NULL;
    snprintf(worker->name, sizeof(worker->name), ipv6 ? "[%.240s]:%u" : "%.240s:%u", at->host,
             at->port);
    worker->load->id = XXH3_64bits(worker->name, strlen(worker->name));
    return BATON_OK;
}

bt_choice bt_worker_pick(bt_worker_pool *pool, uint64_t tried, const bt_policy_request *request)
{
    bt_policy_ask ask = {
        .loads = pool->loads, .n = pool->n_workers, .tried = &tried, .request = request};
    return bt_policy_pick(&pool->policy, &ask);
}

unsigned bt_worker_pick_dialect(bt_worker_pool *pool)
{
    uint32_t n = pool->n_workers;
    uint64_t turn = atomic_fetch_add_explicit(&pool->dialect_turn, 1, memory_order_relaxed);
    for (uint32_t i = 0; i < n; i++) {
        uint32_t idx = (uint32_t)((turn + i) % n);
        if (!atomic_load_explicit(&pool->loads[idx].is_down, memory_order_relaxed))
            return pool->workers[idx].at.dialect;
    }
    return pool->workers[turn % n].at.dialect;
}

void bt_worker_begin(bt_worker *worker, bt_burden burden)
{
    bt_load_add(worker->load, burden);
    atomic_fetch_add_explicit(&worker->requests, 1, memory_order_relaxed);
}

void bt_worker_end(bt_worker *worker, bt_burden burden)
{
    bt_load_remove(worker->load, burden);
}

void bt_worker_failed(bt_worker *worker, bool is_down)
{
    atomic_fetch_add_explicit(&worker->failures, 1, memory_order_relaxed);
    if (!is_down)
        return;
    /* It may have been started again when it answers: with an empty cache. */
    if (!atomic_exchange_explicit(&worker->load->is_down, true, memory_order_relaxed))
        atomic_fetch_add_explicit(&worker->load->life, 1, memory_order_relaxed);
}

void bt_worker_answered(bt_worker *worker)
{
    /* Read first: while all is well, loops do not fight for the line. */
    if (atomic_load_explicit(&worker->load->is_down, memory_order_relaxed))
        atomic_store_explicit(&worker->load->is_down, false, memory_order_relaxed);
}
