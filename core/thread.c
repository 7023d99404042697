/* SPDX-License-Identifier: Apache-2.0 */
#include "core/thread.h"

#include <signal.h>

#include "core/fail.h"

baton_status bt_thread_start(pthread_t *thread, const char *name, void *(*run)(void *), void *ctx)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    int err = pthread_create(thread, NULL, run, ctx);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (err != 0)
        return bt_fail_errno(bt_status_from_errno(err), err, "starting the thread %s", name);
    pthread_setname_np(*thread, name);
    return BATON_OK;
}
