/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "core/alloc.h"
#include "http/httploop.h"

#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>

enum { N_THREADS = 4, N_POSTS = 2000 };

typedef struct {
    bt_loop *loop;
    unsigned n_runs;
    unsigned next[N_THREADS];
    bool out_of_order;
} counts;

typedef struct {
    counts *all;
    unsigned thread, number;
} post_arg;

static void count_post(void *arg)
{
    post_arg *post = arg;
    counts *all = post->all;
    all->out_of_order |= all->next[post->thread]++ != post->number;
    if (++all->n_runs == N_THREADS * N_POSTS)
        bt_loop_stop(all->loop);
    bt_free(post);
}

typedef struct {
    counts *all;
    unsigned thread;
} poster;

static void *post_many(void *arg)
{
    poster *self = arg;
    for (unsigned i = 0; i < N_POSTS; i++) {
        post_arg *post = bt_calloc(1, sizeof(*post));
        *post = (post_arg){self->all, self->thread, i};
        while (bt_loop_post(self->all->loop, count_post, post) == BATON_ERR_BUSY)
            ;
    }
    return NULL;
}

static void posts_of_every_thread_run_once_and_in_order(void **state)
{
    (void)state;
    counts all = {0};
    poster posters[N_THREADS];
    pthread_t threads[N_THREADS];
    assert_ok(bt_loop_create(&all.loop));
    for (unsigned i = 0; i < N_THREADS; i++) {
        posters[i] = (poster){&all, i};
        pthread_create(&threads[i], NULL, post_many, &posters[i]);
    }
    bt_loop_run(all.loop);
    for (unsigned i = 0; i < N_THREADS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(all.n_runs, N_THREADS * N_POSTS);
    assert_false(all.out_of_order);
    bt_loop_destroy(all.loop);
}

static void add_one(void *arg)
{
    ++*(unsigned *)arg;
}

static void a_full_queue_says_busy_and_drops_are_not_run(void **state)
{
    (void)state;
    bt_loop *loop;
    unsigned n = 0;
    assert_ok(bt_loop_create(&loop));
    for (unsigned i = 0; i < BT_LOOP_MAX_POSTS; i++)
        assert_ok(bt_loop_post(loop, add_one, &n));
    assert_fails(bt_loop_post(loop, add_one, &n), BATON_ERR_BUSY, "waiting");
    bt_loop_destroy(loop);
    assert_int_equal(n, 0);
}

static void a_stop_before_the_run_ends_it_and_it_can_run_again(void **state)
{
    (void)state;
    bt_loop *loop;
    unsigned n = 0;
    assert_ok(bt_loop_create(&loop));
    for (unsigned round = 1; round <= 2; round++) {
        assert_ok(bt_loop_post(loop, add_one, &n));
        bt_loop_stop(loop);
        bt_loop_run(loop);
        assert_int_equal(n, round);
    }
    bt_loop_destroy(loop);
}

typedef struct {
    bt_loop *loop;
    bt_timer *timer;
    bt_deferred deferred;
    unsigned n_fired, n_deferred;
} ticks;

static void *ring_many(void *arg)
{
    bt_alloc_fail_at(1); /* needs none */
    for (unsigned i = 0; i < N_POSTS; i++)
        bt_bell_ring(arg);
    bt_alloc_fail_at(0);
    return NULL;
}

static void a_bell_needs_no_memory_and_is_heard_after_it_has_rung(void **state)
{
    (void)state;
    bt_loop *loop;
    bt_bell *bells[3];
    pthread_t thread;
    unsigned n[3] = {0};
    assert_ok(bt_loop_create(&loop));
    for (unsigned i = 0; i < 3; i++)
        assert_ok(bt_bell_create(loop, add_one, &n[i], &bells[i]));
    for (unsigned round = 1; round <= 3; round++) {
        assert_ok(bt_loop_post(loop, add_one, &n[0])); /* among closures */
        for (unsigned i = 0; i < 3; i++)
            bt_bell_ring(bells[i]);
        assert_int_equal(pthread_create(&thread, NULL, ring_many, bells[1]), 0);
        pthread_join(thread, NULL);
        bt_loop_stop(loop);
        bt_loop_run(loop);
        assert_int_equal(n[0], 2 * round);
        assert_int_equal(n[1], round); /* once for all that rang before */
        assert_int_equal(n[2], round);
    }
    for (unsigned i = 0; i < 3; i++)
        bt_bell_ring(bells[i]);
    static const unsigned order[] = {1, 2, 0}; /* from the middle, the end, the beginning */
    for (unsigned i = 0; i < 3; i++)
        bt_bell_destroy(bells[order[i]]);
    bt_loop_stop(loop);
    bt_loop_run(loop);
    assert_int_equal(n[0] + n[1] + n[2], 12); /* no more is heard */
    bt_bell_destroy(NULL);
    bt_loop_destroy(loop);
}

static void on_tick(void *arg)
{
    ticks *t = arg;
    bt_loop_defer(t->loop, &t->deferred);
    bt_loop_defer(t->loop, &t->deferred);
    if (++t->n_fired == 3) {
        bt_timer_destroy(t->timer);
        bt_loop_stop(t->loop);
    }
}

static void on_deferred(void *arg)
{
    ((ticks *)arg)->n_deferred++;
}

static void timers_repeat_and_deferred_work_runs_once_per_wakeup(void **state)
{
    (void)state;
    ticks t = {0};
    assert_ok(bt_loop_create(&t.loop));
    t.deferred = (bt_deferred){.fn = on_deferred, .arg = &t};
    assert_ok(bt_timer_create(t.loop, on_tick, &t, &t.timer));
    bt_timer_start(t.timer, 1, 1);
    bt_loop_run(t.loop);
    assert_int_equal(t.n_fired, 3);
    assert_int_equal(t.n_deferred, 3);
    bt_timer *left;
    assert_ok(bt_timer_create(t.loop, on_tick, &t, &left)); /* destroyed with the loop */
    bt_timer_start(left, 0, 0);
    bt_timer_stop(left);
    bt_loop_destroy(t.loop);
    assert_int_equal(t.n_fired, 3);
}

static void stop_loop(void *arg)
{
    bt_loop_stop(arg);
}

static void signals_reach_the_loop(void **state)
{
    (void)state;
    bt_loop *loop;
    assert_ok(bt_loop_create(&loop));
    assert_ok(bt_loop_on_signal(loop, SIGUSR1, stop_loop, loop));
    raise(SIGUSR1);
    bt_loop_run(loop);
    bt_loop_destroy(loop);
}

static void an_idle_loop_sleeps(void **state)
{
    (void)state;
    bt_loop *loop;
    bt_timer *timer;
    struct rusage before, after;
    assert_ok(bt_loop_create(&loop));
    assert_ok(bt_timer_create(loop, stop_loop, loop, &timer));
    bt_timer_start(timer, 300, 0);
    getrusage(RUSAGE_THREAD, &before);
    bt_loop_run(loop);
    getrusage(RUSAGE_THREAD, &after);
    /* Not a matter of time: a loop that polls would be rescheduled thousands of times. */
    assert_true(after.ru_nvcsw - before.ru_nvcsw < 50);
    long used_us = (after.ru_utime.tv_usec - before.ru_utime.tv_usec) +
                   1000000 * (after.ru_utime.tv_sec - before.ru_utime.tv_sec);
    assert_true(used_us < 150000);
    bt_loop_destroy(loop);
}

static void creation_survives_every_failed_allocation(void **state)
{
    (void)state;
    bt_loop *loop;
    bt_timer *timer;
    bt_alloc_fail_at(1);
    assert_fails(bt_loop_create(&loop), BATON_ERR_NO_MEMORY, "loop");
    assert_ok(bt_loop_create(&loop));
    bt_alloc_fail_at(1);
    assert_fails(bt_timer_create(loop, add_one, NULL, &timer), BATON_ERR_NO_MEMORY, "timer");
    bt_alloc_fail_at(1);
    assert_fails(bt_loop_post(loop, add_one, NULL), BATON_ERR_NO_MEMORY, "closure");
    bt_alloc_fail_at(1);
    assert_fails(bt_loop_on_signal(loop, SIGUSR1, add_one, NULL), BATON_ERR_NO_MEMORY, "signal");
    bt_loop_destroy(loop);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(posts_of_every_thread_run_once_and_in_order),
        bt_test(a_full_queue_says_busy_and_drops_are_not_run),
        bt_test(a_bell_needs_no_memory_and_is_heard_after_it_has_rung),
        bt_test(a_stop_before_the_run_ends_it_and_it_can_run_again),
        bt_test(timers_repeat_and_deferred_work_runs_once_per_wakeup),
        bt_test(signals_reach_the_loop),
        bt_test(an_idle_loop_sleeps),
        bt_test(creation_survives_every_failed_allocation),
    };
    return bt_run_tests(tests);
}
