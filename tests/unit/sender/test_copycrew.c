/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "core/alloc.h"
#include "core/fail.h"
#include "sender/copycrew.h"

#include <pthread.h>
#include <signal.h>
#include <stdio.h>

enum { MAX_JOBS = 1000 };

/* What a job does is plain memory, so that ThreadSanitizer sees what is not ordered. */
typedef struct {
    uint32_t n_done[MAX_JOBS];
    uint32_t fails_at, fails_too; /* UINT32_MAX: none does */
} work;

static baton_status do_job(void *ctx, uint32_t job)
{
    work *w = ctx;
    w->n_done[job]++;
    if (job == w->fails_at || job == w->fails_too)
        return bt_fail(BATON_ERR_INVALID_ARG, "job %u of a test", job);
    return BATON_OK;
}

static void every_job_runs_once_in_every_run(void **state)
{
    (void)state;
    static const uint32_t counts[] = {0, 1, 2, 3, 7, MAX_JOBS};
    for (uint32_t n_threads = 1; n_threads <= 5; n_threads += 2) {
        bt_copycrew *crew;
        assert_ok(bt_copycrew_create(n_threads, &crew));
        for (uint32_t run = 0; run < 600; run++) {
            static work w;
            uint32_t n = counts[run % 6];
            w = (work){.fails_at = UINT32_MAX, .fails_too = UINT32_MAX};
            assert_ok(bt_copycrew_run(crew, do_job, &w, n));
            for (uint32_t i = 0; i < MAX_JOBS; i++)
                assert_int_equal(w.n_done[i], i < n);
        }
        bt_copycrew_destroy(crew);
    }
}

/* No job ends before all three have begun: each has a thread of its own. */
typedef struct {
    pthread_barrier_t all;
    pthread_t who[3];
    sigset_t blocked[3];
} meeting;

static baton_status meet(void *ctx, uint32_t job)
{
    meeting *m = ctx;
    m->who[job] = pthread_self();
    pthread_sigmask(SIG_SETMASK, NULL, &m->blocked[job]);
    pthread_barrier_wait(&m->all);
    return BATON_OK;
}

static void jobs_run_on_all_threads_at_once(void **state)
{
    (void)state;
    bt_copycrew *crew;
    meeting m = {0};
    assert_int_equal(pthread_barrier_init(&m.all, NULL, 3), 0);
    assert_ok(bt_copycrew_create(3, &crew));
    for (int run = 0; run < 100; run++) {
        assert_ok(bt_copycrew_run(crew, meet, &m, 3));
        for (int i = 0; i < 3; i++) /* signals are for the program's own threads */
            assert_int_equal(sigismember(&m.blocked[i], SIGUSR1),
                             !pthread_equal(m.who[i], pthread_self()));
        assert_false(pthread_equal(m.who[0], m.who[1]));
        assert_false(pthread_equal(m.who[0], m.who[2]));
        assert_false(pthread_equal(m.who[1], m.who[2]));
    }
    bt_copycrew_destroy(crew);
    pthread_barrier_destroy(&m.all);
}

static void the_first_failed_job_is_told_with_its_text(void **state)
{
    (void)state;
    bt_copycrew *crew;
    assert_ok(bt_copycrew_create(3, &crew));
    for (uint32_t run = 0; run < 100; run++) {
        static work w;
        char text[64];
        w = (work){.fails_at = run, .fails_too = run + 1 + run % 3};
        snprintf(text, sizeof(text), "job %u of a test", run);
        assert_fails(bt_copycrew_run(crew, do_job, &w, 200), BATON_ERR_INVALID_ARG, text);
        for (uint32_t i = 0; i < 200; i++)
            assert_int_equal(w.n_done[i], 1);
        w.fails_at = w.fails_too = UINT32_MAX;
        assert_ok(bt_copycrew_run(crew, do_job, &w, 200));
    }
    bt_copycrew_destroy(crew);
}

static void crews_come_and_go(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 100; i++) {
        bt_copycrew *crew;
        static work w;
        w = (work){.fails_at = UINT32_MAX, .fails_too = UINT32_MAX};
        assert_ok(bt_copycrew_create(1 + i % 4, &crew));
        if (i % 2 == 0)
            assert_ok(bt_copycrew_run(crew, do_job, &w, 2));
        bt_copycrew_destroy(crew);
    }
    bt_copycrew_destroy(NULL);
}

static void numbers_of_threads_that_make_no_sense_are_refused(void **state)
{
    (void)state;
    bt_copycrew *crew;
    assert_fails(bt_copycrew_create(0, &crew), BATON_ERR_INVALID_ARG, "wanted 1 to 64");
    assert_fails(bt_copycrew_create(65, &crew), BATON_ERR_INVALID_ARG, "found 65");
    for (uint64_t nth = 1; nth <= 2; nth++) {
        bt_alloc_fail_at(nth);
        baton_status status = bt_copycrew_create(2, &crew);
        bt_alloc_fail_at(0);
        assert_int_equal(status, BATON_ERR_NO_MEMORY);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(every_job_runs_once_in_every_run),
        bt_test(jobs_run_on_all_threads_at_once),
        bt_test(the_first_failed_job_is_told_with_its_text),
        bt_test(crews_come_and_go),
        bt_test(numbers_of_threads_that_make_no_sense_are_refused),
    };
    return bt_run_tests(tests);
}
