/* SPDX-License-Identifier: Apache-2.0 */
#include "support/oom.h"

#include "core/alloc.h"
#include "core/thread.h"
#include "support/test.h"

#include <dirent.h>
#include <fcntl.h>
#include <sys/resource.h>
#include <unistd.h>

enum { TRIES_MAX = 20000, DESCRIPTORS = 256 };

static int taken[DESCRIPTORS], n_taken;
static struct rlimit usual;

static unsigned count_descriptors(void)
{
    unsigned n = 0;
    DIR *folder = opendir("/proc/self/fd");
    assert_non_null(folder);
    while (readdir(folder) != NULL)
        n++;
    closedir(folder);
    return n;
}

/* After a try that lacked something. */
static void check_try(bt_attempt attempt, void *ctx, baton_status status, unsigned n_descriptors)
{
    if (status == BATON_OK)
        return;
    assert_true(status < 0);
    assert_string_not_equal(baton_last_error(), "");
    assert_int_equal(count_descriptors(), n_descriptors);
    assert_ok(attempt(ctx));
    assert_int_equal(count_descriptors(), n_descriptors);
}

void bt_check_scarce_memory(bt_attempt attempt, void *ctx)
{
    assert_ok(attempt(ctx)); /* what is made once and kept */
    unsigned n_descriptors = count_descriptors();
    for (uint64_t nth = 1; nth < TRIES_MAX; nth++) {
        bt_alloc_fail_at(nth);
        baton_status status = attempt(ctx);
        uint64_t n_allocs = bt_alloc_count();
        bt_alloc_fail_at(0);
        if (status != BATON_OK)
            assert_fails(status, BATON_ERR_NO_MEMORY, "");
        check_try(attempt, ctx, status, n_descriptors);
        if (n_allocs < nth)
            return;
    }
    fail_msg("still allocates after %d allocations", TRIES_MAX);
}

/* Takes descriptors until so many are left. */
static void leave_descriptors(int n_left)
{
    int fd;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &usual), 0);
    setrlimit(RLIMIT_NOFILE, &(struct rlimit){DESCRIPTORS, usual.rlim_max});
    for (n_taken = 0; (fd = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0;)
        taken[n_taken++] = fd;
    for (; n_left > 0 && n_taken > 0; n_left--)
        close(taken[--n_taken]);
}

static void give_descriptors_back(void)
{
    while (n_taken > 0)
        close(taken[--n_taken]);
    setrlimit(RLIMIT_NOFILE, &usual);
}

void bt_check_scarce_descriptors(bt_attempt attempt, void *ctx)
{
    assert_ok(attempt(ctx));
    unsigned n_descriptors = count_descriptors();
    for (int n_left = 0; n_left < DESCRIPTORS / 2; n_left++) {
        leave_descriptors(n_left);
        baton_status status = attempt(ctx);
        give_descriptors_back();
        check_try(attempt, ctx, status, n_descriptors);
        if (status == BATON_OK)
            return;
    }
    fail_msg("wants more than %d descriptors", DESCRIPTORS / 2);
}

void bt_check_scarce_threads(bt_attempt attempt, void *ctx)
{
    unsigned n_descriptors = count_descriptors();
    for (uint32_t nth = 1; nth < TRIES_MAX; nth++) {
        bt_thread_fail_at(nth);
        baton_status status = attempt(ctx);
        uint32_t n_starts = bt_thread_count();
        bt_thread_fail_at(0);
        check_try(attempt, ctx, status, n_descriptors);
        if (n_starts < nth) {
            assert_ok(status);
            assert_true(nth > 1); /* it starts some */
            return;
        }
    }
}
