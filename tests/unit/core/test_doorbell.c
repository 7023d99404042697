/* SPDX-License-Identifier: Apache-2.0 */
#include "core/alloc.h"
#include "core/clock.h"
#include "core/doorbell.h"
#include "core/pollset.h"
#include "support/test.h"

#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <unistd.h>

enum { N_THREADS = 3, N_RINGS = 20000, HANG_GUARD_MS = 60000 };

static bool is_readable(int fd)
{
    struct pollfd item = {.fd = fd, .events = POLLIN};
    return poll(&item, 1, 0) == 1;
}

static void a_ring_before_sleep_keeps_the_owner_awake(void **state)
{
    (void)state;
    bt_doorbell *bell;
    assert_ok(bt_doorbell_create(&bell));
    bt_doorbell_ring(bell);
    assert_false(is_readable(bt_doorbell_fd(bell))); /* no system call for a busy owner */
    assert_false(bt_doorbell_sleep(bell));
    assert_true(bt_doorbell_sleep(bell));
    assert_true(bt_doorbell_sleep(bell)); /* still */
    bt_doorbell_destroy(bell);
}

static void a_ring_during_sleep_wakes(void **state)
{
    (void)state;
    bt_doorbell *bell;
    assert_ok(bt_doorbell_create(&bell));
    assert_true(bt_doorbell_sleep(bell));
    bt_doorbell_ring(bell);
    bt_doorbell_ring(bell);
    assert_true(is_readable(bt_doorbell_fd(bell)));
    assert_true(bt_doorbell_is_rung(bell));
    assert_true(bt_doorbell_wake(bell));
    bt_doorbell_silence(bell);
    assert_false(bt_doorbell_is_rung(bell));
    assert_false(is_readable(bt_doorbell_fd(bell)));
    assert_true(bt_doorbell_sleep(bell));
    assert_false(bt_doorbell_wake(bell));
    bt_doorbell_destroy(bell);
}

typedef struct {
    bt_doorbell *bell;
    _Atomic uint64_t left; /* work */
} ringers;

static void *ring_often(void *ctx)
{
    ringers *r = ctx;
    for (int i = 0; i < N_RINGS; i++) {
        atomic_fetch_add_explicit(&r->left, 1, memory_order_relaxed);
        bt_doorbell_ring(r->bell);
    }
    return NULL;
}

/* The owner only looks for work when the bell lets it: a lost ring would hang the test. */
static void no_ring_is_lost(void **state)
{
    (void)state;
    ringers r = {0};
    pthread_t threads[N_THREADS];
    uint64_t taken = 0;
    assert_ok(bt_doorbell_create(&r.bell));
    for (int i = 0; i < N_THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, ring_often, &r), 0);
    while (taken < N_THREADS * N_RINGS) {
        taken += atomic_exchange_explicit(&r.left, 0, memory_order_relaxed);
        if (taken == N_THREADS * N_RINGS || !bt_doorbell_sleep(r.bell))
            continue;
        struct pollfd item = {.fd = bt_doorbell_fd(r.bell), .events = POLLIN};
        if (poll(&item, 1, HANG_GUARD_MS) == 0)
            fail_msg("a ring was lost after %llu", (unsigned long long)taken);
        bt_doorbell_wake(r.bell);
        bt_doorbell_silence(r.bell);
    }
    for (int i = 0; i < N_THREADS; i++)
        pthread_join(threads[i], NULL);
    bt_doorbell_destroy(r.bell);
}

static void a_poll_set_names_what_is_readable(void **state)
{
    (void)state;
    bt_pollset *set;
    bool one_has = false, two_has = false;
    int one[2], two[2];
    assert_int_equal(pipe(one), 0);
    assert_int_equal(pipe(two), 0);
    assert_ok(bt_pollset_create(&set));
    assert_ok(bt_pollset_add(set, one[0], &one_has));
    assert_ok(bt_pollset_add(set, two[0], &two_has));
    assert_int_equal(bt_pollset_wait(set, 5, 5), 0);
    assert_false(is_readable(bt_pollset_fd(set)));
    assert_int_equal(write(one[1], "x", 1), 1);
    assert_int_equal(bt_pollset_wait(set, 5, BT_NEVER_NS), 1);
    assert_true(one_has && !two_has);
    assert_true(is_readable(bt_pollset_fd(set)));
    bt_pollset_remove(set, one[0]);
    assert_int_equal(write(two[1], "x", 1), 1);
    assert_int_equal(bt_pollset_wait(set, 5, 6), 1);
    assert_true(two_has);
    assert_fails(bt_pollset_add(set, -1, &one_has), BATON_ERR_IO, "descriptor -1");
    bt_pollset_destroy(set);
    for (int i = 0; i < 2; i++) {
        close(one[i]);
        close(two[i]);
    }
}

static void waits_are_rounded_up(void **state)
{
    (void)state;
    assert_int_equal(bt_wait_ms(0, BT_NEVER_NS), -1);
    assert_int_equal(bt_wait_ms(7, 7), 0);
    assert_int_equal(bt_wait_ms(8, 7), 0);
    assert_int_equal(bt_wait_ms(0, 1), 1);
    assert_int_equal(bt_wait_ms(0, BT_NS_PER_MS), 1);
    assert_int_equal(bt_wait_ms(0, BT_NS_PER_MS + 1), 2);
    assert_int_equal(bt_wait_ms(0, BT_NEVER_NS - 1), INT32_MAX);
}

static void failing_allocations_leave_nothing(void **state)
{
    (void)state;
    bt_doorbell *bell = NULL;
    bt_pollset *set = NULL;
    bt_alloc_fail_at(1);
    assert_fails(bt_doorbell_create(&bell), BATON_ERR_NO_MEMORY, NULL);
    bt_alloc_fail_at(1);
    assert_fails(bt_pollset_create(&set), BATON_ERR_NO_MEMORY, NULL);
    assert_true(bell == NULL && set == NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(a_ring_before_sleep_keeps_the_owner_awake),
        bt_test(a_ring_during_sleep_wakes),
        bt_test(no_ring_is_lost),
        bt_test(a_poll_set_names_what_is_readable),
        bt_test(waits_are_rounded_up),
        bt_test(failing_allocations_leave_nothing),
    };
    return bt_run_tests(tests);
}
