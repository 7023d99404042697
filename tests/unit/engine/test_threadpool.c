/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "core/alloc.h"
#include "engine/threadpool.h"

enum { MAX_UNITS = 1000, MANY = 1 << 20 };

typedef struct {
    uint32_t done[MAX_UNITS]; /* times that a unit was worked on */
    uint32_t n_threads;
} work;

static void count_units(void *ctx, uint32_t thread, uint32_t first, uint32_t end)
{
    work *w = ctx;
    if (thread >= w->n_threads) /* asserts of cmocka belong to the main thread */
        return;
    for (uint32_t i = first; i < end; i++)
        w->done[i]++;
}

static void every_unit_is_done_exactly_once(void **state)
{
    (void)state;
    for (uint32_t n_threads = 1; n_threads <= 5; n_threads++) {
        bt_threadpool *pool;
        assert_ok(bt_threadpool_create(n_threads, &pool));
        work w = {.n_threads = n_threads};
        uint32_t wanted[MAX_UNITS] = {0};
        for (uint32_t n = 0; n <= MAX_UNITS; n += n < 10 ? 1 : 90) {
            bt_parallel_for(pool, n, MANY, count_units, &w);
            bt_parallel_for(pool, n, 1, count_units, &w); /* stays on the caller */
            for (uint32_t i = 0; i < n; i++)
                wanted[i] += 2;
        }
        assert_memory_equal(w.done, wanted, sizeof(wanted));
        bt_threadpool_destroy(pool);
    }
}

/* Back to back, so that workers meet a new loop while they still spin, sleep or finish. */
static void thousands_of_loops_in_a_row(void **state)
{
    (void)state;
    bt_threadpool *pool;
    assert_ok(bt_threadpool_create(4, &pool));
    work w = {.n_threads = 4};
    for (int i = 0; i < 5000; i++)
        bt_parallel_for(pool, 7, MANY, count_units, &w);
    for (int i = 0; i < 7; i++)
        assert_int_equal(w.done[i], 5000);
    bt_threadpool_destroy(pool);
}

static void no_threads_and_too_many_are_refused(void **state)
{
    (void)state;
    bt_threadpool *pool;
    assert_fails(bt_threadpool_create(0, &pool), BATON_ERR_INVALID_ARG, "found 0");
    assert_fails(bt_threadpool_create(100000, &pool), BATON_ERR_INVALID_ARG, "100000");
    bt_threadpool_destroy(NULL);
}

static void failed_allocations_leave_nothing_behind(void **state)
{
    (void)state;
    for (uint64_t nth = 1; nth <= 2; nth++) {
        bt_threadpool *pool;
        bt_alloc_fail_at(nth);
        baton_status status = bt_threadpool_create(3, &pool);
        bt_alloc_fail_at(0);
        assert_fails(status, BATON_ERR_NO_MEMORY, "threads");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(every_unit_is_done_exactly_once),
        bt_test(thousands_of_loops_in_a_row),
        bt_test(no_threads_and_too_many_are_refused),
        bt_test(failed_allocations_leave_nothing_behind),
    };
    return bt_run_tests(tests);
}
