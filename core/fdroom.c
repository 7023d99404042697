/* SPDX-License-Identifier: Apache-2.0 */
#include "core/fdroom.h"

#include "core/fail.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <unistd.h>

/* Opens them and closes them again: as exact as it gets, without /proc, and microseconds. */
uint32_t bt_fdroom(uint32_t n)
{
    int fds[BT_FDROOM_MAX], err = errno;
    uint32_t n_open = 0;
    assert(n <= BT_FDROOM_MAX);
    while (n_open < n) {
        int fd = n_open == 0 ? eventfd(0, EFD_CLOEXEC) : fcntl(fds[0], F_DUPFD_CLOEXEC, 0);
        if (fd < 0)
            break;
        fds[n_open++] = fd;
    }
    for (uint32_t i = n_open; i-- > 0;)
        close(fds[i]);
    errno = err;
    return n_open;
}

baton_status bt_fdroom_require(uint32_t n, const char *what)
{
    struct rlimit limit = {0};
    uint32_t found = bt_fdroom(n);
    if (found == n)
        return BATON_OK;
    getrlimit(RLIMIT_NOFILE, &limit);
    return bt_fail(BATON_ERR_OVERLOADED,
                   "%s: wanted %u free descriptors, found %u of RLIMIT_NOFILE %llu; raise it "
                   "(ulimit -n, LimitNOFILE)",
                   what, n, found, (unsigned long long)limit.rlim_cur);
}

baton_status bt_memroom_require(size_t bytes, const char *what)
{
    struct rlimit limit = {0};
    void *probe = mmap(NULL, bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (probe != MAP_FAILED) {
        munmap(probe, bytes);
        return BATON_OK;
    }
    getrlimit(RLIMIT_AS, &limit);
    return bt_fail(BATON_ERR_NO_MEMORY,
                   "%s: wanted %zu MiB of address space, found less (RLIMIT_AS %llu MiB); raise it "
                   "(ulimit -v)",
                   what, bytes >> 20, (unsigned long long)limit.rlim_cur >> 20);
}

void bt_fdreserve_fill(bt_fdreserve *reserve, uint32_t n)
{
    int fd;
    assert(n <= BT_FDRESERVE_MAX);
    while (reserve->n < n && (fd = eventfd(0, EFD_CLOEXEC)) >= 0)
        reserve->fds[reserve->n++] = fd;
}

bool bt_fdreserve_spend(bt_fdreserve *reserve, uint32_t n)
{
    bool has_some = reserve->n > 0;
    for (; n > 0 && reserve->n > 0; n--)
        close(reserve->fds[--reserve->n]);
    return has_some;
}
