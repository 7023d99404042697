/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/threadpool.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

#include "core/alloc.h"
#include "core/fail.h"
#include "core/thread.h"

enum {
    MAX_THREADS = 1024,
    SPINS = 2000,                /* some tens of microseconds */
    COST_WORTH_A_THREAD = 50000, /* a wake-up costs about as much as this many multiply-adds */
};

typedef struct {
    bt_threadpool *pool;
    uint32_t thread; /* its number, from 1 on; 0 is the caller */
    pthread_t handle;
} worker;

struct bt_threadpool {
    uint32_t n_threads, n_started;
    worker *workers; /* [n_threads - 1] */
    pthread_mutex_t lock;
    pthread_cond_t wake, finished;
    /* The current loop: written by the caller before it raises `loops`, read by workers after. */
    bt_units_fn *fn;
    void *ctx;
    uint32_t n_units;
    bool stop;
    atomic_uint loops;     /* raised once per loop, under the lock */
    atomic_uint n_working; /* workers that have not finished the current loop */
};

static void relax(void)
{
#ifdef __x86_64__
    __builtin_ia32_pause();
#else
    atomic_signal_fence(memory_order_seq_cst);
#endif
}

static void run_share(const bt_threadpool *pool, uint32_t thread)
{
    uint64_t n = pool->n_units, parts = pool->n_threads;
    uint32_t first = (uint32_t)(n * thread / parts), end = (uint32_t)(n * (thread + 1) / parts);
    if (first < end)
        pool->fn(pool->ctx, thread, first, end);
}

/* Returns once `loops` differs from seen. Acquire pairs with the release in bt_parallel_for. */
static void wait_for_loop(bt_threadpool *pool, unsigned seen)
{
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(&pool->loops, memory_order_acquire) != seen)
            return;
        relax();
    }
    pthread_mutex_lock(&pool->lock);
    while (atomic_load_explicit(&pool->loops, memory_order_acquire) == seen)
        pthread_cond_wait(&pool->wake, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
}

static void *worker_main(void *arg)
{
    const worker *self = arg;
    bt_threadpool *pool = self->pool;
    for (unsigned seen = 0;; seen++) {
        wait_for_loop(pool, seen);
        if (pool->stop)
            return NULL;
        run_share(pool, self->thread);
        /* Release: what this worker wrote is there when the caller reads 0 (wait_for_workers). */
        if (atomic_fetch_sub_explicit(&pool->n_working, 1, memory_order_acq_rel) == 1) {
            pthread_mutex_lock(&pool->lock);
            pthread_cond_signal(&pool->finished);
            pthread_mutex_unlock(&pool->lock);
        }
    }
}

static void start_loop(bt_threadpool *pool)
{
    pthread_mutex_lock(&pool->lock);
    atomic_store_explicit(&pool->n_working, pool->n_started, memory_order_relaxed);
    atomic_fetch_add_explicit(&pool->loops, 1, memory_order_release);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
}

static void wait_for_workers(bt_threadpool *pool)
{
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(&pool->n_working, memory_order_acquire) == 0)
            return;
        relax();
    }
    pthread_mutex_lock(&pool->lock);
    while (atomic_load_explicit(&pool->n_working, memory_order_acquire) != 0)
        pthread_cond_wait(&pool->finished, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
}

void bt_parallel_for(bt_threadpool *pool, uint32_t n_units, uint64_t unit_cost, bt_units_fn *fn,
                     void *ctx)
{
    if (n_units == 0)
        return;
    if (pool->n_threads == 1 || n_units == 1 || unit_cost * n_units < COST_WORTH_A_THREAD) {
        fn(ctx, 0, 0, n_units);
        return;
    }
    pool->fn = fn;
    pool->ctx = ctx;
    pool->n_units = n_units;
    start_loop(pool);
    run_share(pool, 0);
    wait_for_workers(pool);
}

static baton_status start_workers(bt_threadpool *pool)
{
    for (uint32_t i = 0; i + 1 < pool->n_threads; i++) {
        worker *w = &pool->workers[i];
        w->pool = pool;
        w->thread = i + 1;
        BATON_TRY(bt_thread_start(&w->handle, "baton-compute", worker_main, w));
        pool->n_started++;
    }
    return BATON_OK;
}

baton_status bt_threadpool_create(uint32_t n_threads, bt_threadpool **pool_p)
{
    if (n_threads == 0 || n_threads > MAX_THREADS)
        return bt_fail(BATON_ERR_INVALID_ARG, "threads: wanted 1 to %d, found %u", MAX_THREADS,
                       n_threads);
    bt_threadpool *pool = bt_calloc(1, sizeof(*pool));
    if (pool == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "threads: pool of %u", n_threads);
    pool->n_threads = n_threads;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pthread_cond_init(&pool->finished, NULL);
    baton_status status = BATON_OK;
    pool->workers = bt_calloc(n_threads, sizeof(*pool->workers));
    if (pool->workers == NULL)
        status = bt_fail(BATON_ERR_NO_MEMORY, "threads: pool of %u", n_threads);
    else
        status = start_workers(pool);
    if (status < 0) {
        bt_threadpool_destroy(pool);
        return status;
    }
    *pool_p = pool;
    return BATON_OK;
}

void bt_threadpool_destroy(bt_threadpool *pool)
{
    if (pool == NULL)
        return;
    pool->stop = true;
    start_loop(pool);
    for (uint32_t i = 0; i < pool->n_started; i++)
        pthread_join(pool->workers[i].handle, NULL);
    pthread_cond_destroy(&pool->finished);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->lock);
    bt_free(pool->workers);
    bt_free(pool);
}
