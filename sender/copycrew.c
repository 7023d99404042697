/* SPDX-License-Identifier: Apache-2.0 */
#include "sender/copycrew.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>

#include <baton/sender.h>

#include "core/alloc.h"
#include "core/fail.h"
#include "core/thread.h"

enum { SPINS = 2000 }; /* some tens of microseconds */

struct bt_copycrew {
    uint32_t n_helpers;
    pthread_t *helpers; /* [n_helpers] */
    /* The run. Written by the caller before it stores n_untaken; read by who has taken a job, which
     * keeps the run from ending. */
    bt_copycrew_fn *fn;
    void *ctx;
    uint32_t n_jobs;
    atomic_uint n_untaken; /* jobs that nobody has taken */
    atomic_uint n_left;    /* jobs that have not ended */
    atomic_uint n_sleeping;
    atomic_bool stop;
    pthread_mutex_t lock;
    pthread_cond_t wake, finished;
    baton_status status;               /* lock: of the run */
    uint32_t failed_job;               /* lock: whose status it is */
    char text[BATON_EVENT_TEXT_BYTES]; /* lock */
};

static void relax(void)
{
#ifdef __x86_64__
    __builtin_ia32_pause();
#else
    atomic_signal_fence(memory_order_seq_cst);
#endif
}

/* Acquire pairs with the store in bt_copycrew_run, through the takes of others in between. */
static bool take(bt_copycrew *crew, uint32_t *job)
{
    unsigned n = atomic_load_explicit(&crew->n_untaken, memory_order_relaxed);
    while (n != 0) {
        if (atomic_compare_exchange_weak_explicit(&crew->n_untaken, &n, n - 1, memory_order_acquire,
                                                  memory_order_relaxed)) {
            *job = crew->n_jobs - n;
            return true;
        }
    }
    return false;
}

static void keep_failure(bt_copycrew *crew, uint32_t job, baton_status status)
{
    pthread_mutex_lock(&crew->lock);
    if (crew->status == BATON_OK || job < crew->failed_job) {
        crew->status = status;
        crew->failed_job = job;
        snprintf(crew->text, sizeof(crew->text), "%s", baton_last_error());
    }
    pthread_mutex_unlock(&crew->lock);
}

static void do_jobs(bt_copycrew *crew)
{
    uint32_t job;
    while (take(crew, &job)) {
        baton_status status = crew->fn(crew->ctx, job);
        if (status != BATON_OK)
            keep_failure(crew, job, status);
        /* Release: the caller reads 0 (wait_for_jobs) and sees what this thread wrote. */
        if (atomic_fetch_sub_explicit(&crew->n_left, 1, memory_order_acq_rel) == 1) {
            pthread_mutex_lock(&crew->lock);
            pthread_cond_signal(&crew->finished);
            pthread_mutex_unlock(&crew->lock);
        }
    }
}

static bool is_called(bt_copycrew *crew)
{
    return atomic_load_explicit(&crew->n_untaken, memory_order_seq_cst) != 0 ||
           atomic_load_explicit(&crew->stop, memory_order_seq_cst);
}

/* Either this thread sees the call, or the caller (call_helpers) sees it asleep: both write first
 * and look then, in one order. */
static void wait_for_call(bt_copycrew *crew)
{
    for (int i = 0; i < SPINS; i++) {
        if (is_called(crew))
            return;
        relax();
    }
    pthread_mutex_lock(&crew->lock);
    atomic_fetch_add_explicit(&crew->n_sleeping, 1, memory_order_seq_cst);
    while (!is_called(crew))
        pthread_cond_wait(&crew->wake, &crew->lock);
    atomic_fetch_sub_explicit(&crew->n_sleeping, 1, memory_order_relaxed);
    pthread_mutex_unlock(&crew->lock);
}

static void *helper_main(void *ctx)
{
    bt_copycrew *crew = ctx;
    while (!atomic_load_explicit(&crew->stop, memory_order_acquire)) {
        do_jobs(crew);
        wait_for_call(crew);
    }
    return NULL;
}

static void call_helpers(bt_copycrew *crew)
{
    if (atomic_load_explicit(&crew->n_sleeping, memory_order_seq_cst) == 0)
        return;
    pthread_mutex_lock(&crew->lock);
    pthread_cond_broadcast(&crew->wake);
    pthread_mutex_unlock(&crew->lock);
}

/* Acquire pairs with the release in do_jobs. */
static void wait_for_jobs(bt_copycrew *crew)
{
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(&crew->n_left, memory_order_acquire) == 0)
            return;
        relax();
    }
    pthread_mutex_lock(&crew->lock);
    while (atomic_load_explicit(&crew->n_left, memory_order_acquire) != 0)
        pthread_cond_wait(&crew->finished, &crew->lock);
    pthread_mutex_unlock(&crew->lock);
}

baton_status bt_copycrew_run(bt_copycrew *crew, bt_copycrew_fn *fn, void *ctx, uint32_t n_jobs)
{
    if (n_jobs == 0)
        return BATON_OK;
    crew->fn = fn;
    crew->ctx = ctx;
    crew->n_jobs = n_jobs;
    crew->status = BATON_OK;
    atomic_store_explicit(&crew->n_left, n_jobs, memory_order_relaxed);
    atomic_store_explicit(&crew->n_untaken, n_jobs, memory_order_seq_cst);
    if (n_jobs > 1)
        call_helpers(crew);
    do_jobs(crew);
    wait_for_jobs(crew);
    return crew->status == BATON_OK ? BATON_OK : bt_fail(crew->status, "%s", crew->text);
}

static baton_status start_helpers(bt_copycrew *crew, uint32_t n)
{
    for (; crew->n_helpers < n; crew->n_helpers++)
        BATON_TRY(
            bt_thread_start(&crew->helpers[crew->n_helpers], "baton-copy", helper_main, crew));
    return BATON_OK;
}

baton_status bt_copycrew_create(uint32_t n_threads, bt_copycrew **crew_p)
{
    if (n_threads == 0 || n_threads > BT_COPYCREW_THREADS_MAX)
        return bt_fail(BATON_ERR_INVALID_ARG, "copying: wanted 1 to %d threads, found %u",
                       BT_COPYCREW_THREADS_MAX, n_threads);
    bt_copycrew *crew = bt_calloc(1, sizeof(*crew));
    if (crew == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "copying: %u threads", n_threads);
    pthread_mutex_init(&crew->lock, NULL);
    pthread_cond_init(&crew->wake, NULL);
    pthread_cond_init(&crew->finished, NULL);
    crew->helpers = bt_calloc(n_threads, sizeof(*crew->helpers));
    baton_status status = crew->helpers != NULL
                              ? start_helpers(crew, n_threads - 1)
                              : bt_fail(BATON_ERR_NO_MEMORY, "copying: %u threads", n_threads);
    if (status != BATON_OK) {
        bt_copycrew_destroy(crew);
        return status;
    }
    *crew_p = crew;
    return BATON_OK;
}

void bt_copycrew_destroy(bt_copycrew *crew)
{
    if (crew == NULL)
        return;
    atomic_store_explicit(&crew->stop, true, memory_order_seq_cst);
    call_helpers(crew);
    for (uint32_t i = 0; i < crew->n_helpers; i++)
        pthread_join(crew->helpers[i], NULL);
    pthread_cond_destroy(&crew->finished);
    pthread_cond_destroy(&crew->wake);
    pthread_mutex_destroy(&crew->lock);
    bt_free(crew->helpers);
    bt_free(crew);
}
