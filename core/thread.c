/* SPDX-License-Identifier: Apache-2.0 */
#include "core/thread.h"

#include <errno.h>
#include <signal.h>
#include <stdatomic.h>

#include "core/fail.h"

static atomic_uint_fast32_t n_starts, fail_at; /* relaxed: they order nothing */

void bt_thread_fail_at(uint32_t nth)
{
    atomic_store_explicit(&n_starts, 0, memory_order_relaxed);
    atomic_store_explicit(&fail_at, nth, memory_order_relaxed);
}

uint32_t bt_thread_count(void)
{
    return (uint32_t)atomic_load_explicit(&n_starts, memory_order_relaxed);
}

static int start(pthread_t *thread, void *(*run)(void *), void *ctx)
{
    uint32_t nth = (uint32_t)atomic_fetch_add_explicit(&n_starts, 1, memory_order_relaxed) + 1;
    if (nth == atomic_load_explicit(&fail_at, memory_order_relaxed))
        return EAGAIN;
    return pthread_create(thread, NULL, run, ctx);
}

baton_status bt_thread_start(pthread_t *thread, const char *name, void *(*run)(void *), void *ctx)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int err = start(thread, run, ctx);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (err != 0)
        return bt_fail_errno(bt_status_from_errno(err), err, "starting the thread %s", name);
    pthread_setname_np(*thread, name);
    return BATON_OK;
}
