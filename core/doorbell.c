/* SPDX-License-Identifier: Apache-2.0 */
#include "core/doorbell.h"

#include "core/alloc.h"
#include "core/fail.h"

#include <errno.h>
#include <stdatomic.h>
#include <sys/eventfd.h>
#include <unistd.h>

enum { AWAKE, RUNG, ASLEEP };

/* All moves of `state` are read-modify-write with acquire and release: what a thread left before
 * its ring is seen by the owner's next sleep or wake. */
struct bt_doorbell {
    int fd;
    _Atomic int state;
};

baton_status bt_doorbell_create(bt_doorbell **bell_p)
{
    bt_doorbell *bell = bt_calloc(1, sizeof(*bell));
    if (bell == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "doorbell");
    bell->fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (bell->fd < 0) {
        int err = errno;
        bt_free(bell);
        return bt_fail_errno(bt_status_from_errno(err), err, "doorbell: eventfd");
    }
    atomic_init(&bell->state, AWAKE);
    *bell_p = bell;
    return BATON_OK;
}

void bt_doorbell_destroy(bt_doorbell *bell)
{
    if (bell == NULL)
        return;
    close(bell->fd);
    bt_free(bell);
}

int bt_doorbell_fd(const bt_doorbell *bell)
{
    return bell->fd;
}

void bt_doorbell_ring(bt_doorbell *bell)
{
    if (atomic_exchange_explicit(&bell->state, RUNG, memory_order_acq_rel) != ASLEEP)
        return;
    uint64_t one = 1;
    ssize_t done = write(bell->fd, &one, sizeof(one));
    (void)done; /* fails only when the counter is full, and then the fd is readable anyway */
}

bool bt_doorbell_sleep(bt_doorbell *bell)
{
    int awake = AWAKE;
    if (atomic_compare_exchange_strong_explicit(&bell->state, &awake, ASLEEP, memory_order_acq_rel,
                                                memory_order_acquire))
        return true;
    if (awake == ASLEEP)
        return true;
    atomic_exchange_explicit(&bell->state, AWAKE, memory_order_acq_rel);
    return false;
}

bool bt_doorbell_wake(bt_doorbell *bell)
{
    return atomic_exchange_explicit(&bell->state, AWAKE, memory_order_acq_rel) == RUNG;
}

bool bt_doorbell_is_rung(const bt_doorbell *bell)
{
    /* Relaxed: wake looks again. */
    return atomic_load_explicit(&bell->state, memory_order_relaxed) == RUNG;
}

void bt_doorbell_silence(bt_doorbell *bell)
{
    uint64_t n;
    ssize_t done = read(bell->fd, &n, sizeof(n));
    (void)done; /* EAGAIN: silent already */
}
