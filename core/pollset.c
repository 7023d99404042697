/* SPDX-License-Identifier: Apache-2.0 */
#include "core/pollset.h"

#include "core/alloc.h"
#include "core/clock.h"
#include "core/fail.h"

#include <errno.h>
#include <limits.h>
#include <sys/epoll.h>
#include <unistd.h>

enum { MAX_EVENTS = 64 };

struct bt_pollset {
    int fd;
};

baton_status bt_pollset_create(bt_pollset **set_p)
{
    bt_pollset *set = bt_calloc(1, sizeof(*set));
    if (set == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "poll set");
    set->fd = epoll_create1(EPOLL_CLOEXEC);
    if (set->fd < 0) {
        int err = errno;
        bt_free(set);
        return bt_fail_errno(bt_status_from_errno(err), err, "poll set: epoll");
    }
    *set_p = set;
    return BATON_OK;
}

void bt_pollset_destroy(bt_pollset *set)
{
    if (set == NULL)
        return;
    close(set->fd);
    bt_free(set);
}

int bt_pollset_fd(const bt_pollset *set)
{
    return set->fd;
}

baton_status bt_pollset_add(bt_pollset *set, int fd, bool *is_readable)
{
    struct epoll_event event = {.events = EPOLLIN, .data.ptr = is_readable};
    if (epoll_ctl(set->fd, EPOLL_CTL_ADD, fd, &event) == 0)
        return BATON_OK;
    int err = errno;
    return bt_fail_errno(bt_status_from_errno(err), err, "poll set: descriptor %d", fd);
}

void bt_pollset_remove(bt_pollset *set, int fd)
{
    struct epoll_event unused = {0}; /* kernels before 2.6.9 want one */
    epoll_ctl(set->fd, EPOLL_CTL_DEL, fd, &unused);
}

int bt_wait_ms(uint64_t now_ns, uint64_t until_ns)
{
    if (until_ns == BT_NEVER_NS)
        return -1;
    if (until_ns <= now_ns)
        return 0;
    uint64_t ms = (until_ns - now_ns - 1) / BT_NS_PER_MS + 1;
    return ms < INT_MAX ? (int)ms : INT_MAX;
}

uint32_t bt_pollset_wait(bt_pollset *set, uint64_t now_ns, uint64_t until_ns)
{
    struct epoll_event events[MAX_EVENTS];
    int n = epoll_wait(set->fd, events, MAX_EVENTS, bt_wait_ms(now_ns, until_ns));
    for (int i = 0; i < n; i++)
        *(bool *)events[i].data.ptr = true;
    return n > 0 ? (uint32_t)n : 0; /* EINTR is a wake-up without events */
}
