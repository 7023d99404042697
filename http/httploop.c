/* SPDX-License-Identifier: Apache-2.0 */
#include "http/httploop.h"

#include "core/alloc.h"
#include "core/fail.h"
#include "core/fdroom.h"

#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <uv.h>

typedef struct post {
    bt_loop_fn fn;
    void *arg;
    struct post *next;
    bool is_bell; /* its own, and kept: of a bt_bell */
} post;

struct bt_bell {
    post closure;
    bt_loop *loop;
    bool is_waiting; /* in the queue; the loop's lock */
};

typedef struct loop_signal {
    uv_signal_t handle;
    bt_loop_fn fn;
    void *arg;
    bt_loop *loop;
    struct loop_signal *next;
} loop_signal;

struct bt_timer {
    uv_timer_t handle;
    bt_loop_fn fn;
    void *arg;
    bt_loop *loop;
    bt_timer *prev, *next;
};

struct bt_loop {
    uv_loop_t uv;
    uv_async_t wakeup;
    uv_prepare_t before_sleep;
    uv_check_t after_poll;
    bt_deferred deferred; /* head of a circular list */
    bt_timer *timers;     /* those not destroyed */
    loop_signal *signals;

    pthread_mutex_t lock; /* guards what follows */
    post *first, *last;
    uint32_t n_posts;
    bool stop;
};

static baton_status fail_uv(int err, const char *what)
{
    return bt_fail(bt_status_from_errno(-err), "loop: %s: %s", what, uv_strerror(err));
}

static void run_deferred(bt_loop *loop)
{
    while (loop->deferred.next != &loop->deferred) {
        bt_deferred *node = loop->deferred.next;
        bt_loop_undefer(node);
        node->fn(node->arg);
    }
}

static void on_before_sleep(uv_prepare_t *handle)
{
    run_deferred(handle->data);
}

static void on_after_poll(uv_check_t *handle)
{
    run_deferred(handle->data);
}

/* Lock held. True: whoever adds to an empty queue wakes the loop. */
static bool queue_add(bt_loop *loop, post *item)
{
    bool was_empty = loop->first == NULL;
    item->next = NULL;
    *(was_empty ? &loop->first : &loop->last->next) = item;
    loop->last = item;
    loop->n_posts++;
    return was_empty;
}

/* Lock held. Takes out the one behind `before` (NULL: the first). */
static post *queue_take(bt_loop *loop, post *before)
{
    post **link = before != NULL ? &before->next : &loop->first;
    post *item = *link;
    *link = item->next;
    if (loop->last == item)
        loop->last = before;
    loop->n_posts--;
    return item;
}

/* The oldest closure, out of the queue. */
static bool next_post(bt_loop *loop, post *closure)
{
    pthread_mutex_lock(&loop->lock);
    post *item = loop->first != NULL ? queue_take(loop, NULL) : NULL;
    if (item != NULL)
        *closure = *item;
    if (item != NULL && item->is_bell)
        ((bt_bell *)item)->is_waiting = false;
    else
        bt_free(item);
    pthread_mutex_unlock(&loop->lock);
    return item != NULL;
}

/* As many as there are now, so that closures that post again cannot keep the loop here. */
static void run_posts(bt_loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    uint32_t n = loop->n_posts;
    bool stop = loop->stop;
    loop->stop = false;
    pthread_mutex_unlock(&loop->lock);

    post closure;
    for (; n > 0 && next_post(loop, &closure); n--)
        closure.fn(closure.arg);
    pthread_mutex_lock(&loop->lock);
    bool has_more = loop->first != NULL;
    pthread_mutex_unlock(&loop->lock);
    if (has_more) /* whoever found others before it did not wake us */
        uv_async_send(&loop->wakeup);
    if (stop)
        uv_stop(&loop->uv);
}

static void on_wakeup(uv_async_t *handle)
{
    run_posts(handle->data);
}

static baton_status init_handles(bt_loop *loop)
{
    int err = uv_async_init(&loop->uv, &loop->wakeup, on_wakeup);
    if (err != 0)
        return fail_uv(err, "wakeup");
    loop->wakeup.data = loop;
    uv_prepare_init(&loop->uv, &loop->before_sleep);
    uv_check_init(&loop->uv, &loop->after_poll);
    loop->before_sleep.data = loop->after_poll.data = loop;
    uv_prepare_start(&loop->before_sleep, on_before_sleep);
    uv_check_start(&loop->after_poll, on_after_poll);
    return BATON_OK;
}

/* libuv writes with write(2): a peer that has gone must be an error, not the end of the process. */
static void ignore_broken_pipes(void)
{
    struct sigaction action;
    if (sigaction(SIGPIPE, NULL, &action) == 0 && action.sa_handler == SIG_DFL)
        signal(SIGPIPE, SIG_IGN);
}

baton_status bt_loop_create(bt_loop **loop_p)
{
    enum { LOOP_FDS = 6 }; /* it takes 4, the first one more; libuv 1.44 keeps what it got so far */
    ignore_broken_pipes();
    BATON_TRY(bt_fdroom_require(LOOP_FDS, "loop"));
    bt_loop *loop = bt_calloc(1, sizeof(*loop));
    if (loop == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "loop: %zu bytes", sizeof(*loop));
    loop->deferred.next = loop->deferred.prev = &loop->deferred;
    baton_status status;
    int err = uv_loop_init(&loop->uv);
    if (err != 0) {
        status = fail_uv(err, "init");
        goto free_loop;
    }
    status = init_handles(loop);
    if (status != BATON_OK)
        goto close_uv;
    pthread_mutex_init(&loop->lock, NULL);
    *loop_p = loop;
    return BATON_OK;

close_uv:
    uv_loop_close(&loop->uv);
free_loop:
    bt_free(loop);
    return status;
}

void bt_loop_destroy(bt_loop *loop)
{
    if (loop == NULL)
        return;
    while (loop->timers != NULL)
        bt_timer_destroy(loop->timers);
    for (loop_signal *signal = loop->signals; signal != NULL; signal = signal->next)
        uv_close((uv_handle_t *)&signal->handle, NULL);
    uv_close((uv_handle_t *)&loop->wakeup, NULL);
    uv_close((uv_handle_t *)&loop->before_sleep, NULL);
    uv_close((uv_handle_t *)&loop->after_poll, NULL);
    uv_run(&loop->uv, UV_RUN_DEFAULT); /* close callbacks; also ends look-ups under way */
    int err = uv_loop_close(&loop->uv);
    assert(err == 0);
    (void)err;
    while (loop->signals != NULL) {
        loop_signal *next = loop->signals->next;
        bt_free(loop->signals);
        loop->signals = next;
    }
    while (loop->first != NULL) {
        post *item = queue_take(loop, NULL);
        assert(!item->is_bell);
        bt_free(item);
    }
    pthread_mutex_destroy(&loop->lock);
    bt_free(loop);
}

void bt_loop_run(bt_loop *loop)
{
    uv_run(&loop->uv, UV_RUN_DEFAULT);
    run_deferred(loop);
}

void bt_loop_stop(bt_loop *loop)
{
    pthread_mutex_lock(&loop->lock);
    loop->stop = true;
    pthread_mutex_unlock(&loop->lock);
    uv_async_send(&loop->wakeup);
}

baton_status bt_loop_post(bt_loop *loop, bt_loop_fn fn, void *arg)
{
    post *item = bt_calloc(1, sizeof(*item));
    if (item == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "loop: a posted closure");
    item->fn = fn;
    item->arg = arg;
    pthread_mutex_lock(&loop->lock);
    bool full = loop->n_posts >= BT_LOOP_MAX_POSTS;
    bool was_empty = !full && queue_add(loop, item);
    pthread_mutex_unlock(&loop->lock);
    if (full) {
        bt_free(item);
        return bt_fail(BATON_ERR_BUSY, "loop: %d closures are waiting already", BT_LOOP_MAX_POSTS);
    }
    if (was_empty) /* otherwise whoever found it empty wakes the loop */
        uv_async_send(&loop->wakeup);
    return BATON_OK;
}

baton_status bt_bell_create(bt_loop *loop, bt_loop_fn fn, void *arg, bt_bell **bell_p)
{
    bt_bell *bell = bt_calloc(1, sizeof(*bell));
    if (bell == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "loop: a bell");
    bell->closure = (post){.fn = fn, .arg = arg, .is_bell = true};
    bell->loop = loop;
    *bell_p = bell;
    return BATON_OK;
}

void bt_bell_ring(bt_bell *bell)
{
    bt_loop *loop = bell->loop;
    pthread_mutex_lock(&loop->lock);
    bool was_empty = !bell->is_waiting && queue_add(loop, &bell->closure);
    bell->is_waiting = true;
    pthread_mutex_unlock(&loop->lock);
    if (was_empty)
        uv_async_send(&loop->wakeup);
}

void bt_bell_destroy(bt_bell *bell)
{
    if (bell == NULL)
        return;
    bt_loop *loop = bell->loop;
    pthread_mutex_lock(&loop->lock);
    post *before = NULL;
    for (post *item = loop->first; bell->is_waiting && item != &bell->closure; item = item->next)
        before = item;
    if (bell->is_waiting)
        queue_take(loop, before);
    pthread_mutex_unlock(&loop->lock);
    bt_free(bell);
}

uint64_t bt_loop_now_ms(const bt_loop *loop)
{
    return uv_now(&loop->uv);
}

struct uv_loop_s *bt_loop_uv(bt_loop *loop)
{
    return &loop->uv;
}

void bt_loop_defer(bt_loop *loop, bt_deferred *node)
{
    if (node->next != NULL)
        return;
    node->prev = loop->deferred.prev;
    node->next = &loop->deferred;
    node->prev->next = node;
    loop->deferred.prev = node;
}

void bt_loop_undefer(bt_deferred *node)
{
    if (node->next == NULL)
        return;
    node->prev->next = node->next;
    node->next->prev = node->prev;
    node->prev = node->next = NULL;
}

static void on_timer(uv_timer_t *handle)
{
    bt_timer *timer = handle->data;
    timer->fn(timer->arg);
}

baton_status bt_timer_create(bt_loop *loop, bt_loop_fn fn, void *arg, bt_timer **timer_p)
{
    bt_timer *timer = bt_calloc(1, sizeof(*timer));
    if (timer == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "loop: a timer");
    uv_timer_init(&loop->uv, &timer->handle);
    timer->handle.data = timer;
    timer->fn = fn;
    timer->arg = arg;
    timer->loop = loop;
    timer->next = loop->timers;
    if (timer->next != NULL)
        timer->next->prev = timer;
    loop->timers = timer;
    *timer_p = timer;
    return BATON_OK;
}

void bt_timer_start(bt_timer *timer, uint64_t delay_ms, uint64_t repeat_ms)
{
    /* libuv counts from its cached time, which a long callback leaves behind. */
    uv_update_time(&timer->loop->uv);
    uv_timer_start(&timer->handle, on_timer, delay_ms, repeat_ms);
}

void bt_timer_stop(bt_timer *timer)
{
    uv_timer_stop(&timer->handle);
}

static void on_timer_closed(uv_handle_t *handle)
{
    bt_free(handle->data);
}

void bt_timer_destroy(bt_timer *timer)
{
    if (timer == NULL)
        return;
    if (timer->prev != NULL)
        timer->prev->next = timer->next;
    else
        timer->loop->timers = timer->next;
    if (timer->next != NULL)
        timer->next->prev = timer->prev;
    uv_close((uv_handle_t *)&timer->handle, on_timer_closed);
}

static void on_signal(uv_signal_t *handle, int signum)
{
    (void)signum;
    loop_signal *signal = handle->data;
    signal->fn(signal->arg);
}

baton_status bt_loop_on_signal(bt_loop *loop, int signum, bt_loop_fn fn, void *arg)
{
    loop_signal *signal = bt_calloc(1, sizeof(*signal));
    if (signal == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "loop: a signal handler");
    int err = uv_signal_init(&loop->uv, &signal->handle);
    if (err != 0) {
        bt_free(signal);
        return fail_uv(err, "signal handler");
    }
    signal->handle.data = signal;
    signal->fn = fn;
    signal->arg = arg;
    signal->loop = loop;
    signal->next = loop->signals; /* from here on it is closed with the loop */
    loop->signals = signal;
    err = uv_signal_start(&signal->handle, on_signal, signum);
    if (err != 0)
        return fail_uv(err, "signal handler");
    return BATON_OK;
}
