/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/enginethread.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/fail.h"
#include "core/thread.h"
#include "core/log.h"

enum { MAX_FDS = 2 * BT_HANDOFF_MAX_RANKS + 1, DEFAULT_MAX_QUEUED = 256, WAKE_RETRY_MS = 5 };

/* One entry of the inbox: a new sequence, or the name of one to cancel. */
typedef struct command {
    struct command *next;
    bt_sequence *sequence;
    const void *cancel;
} command;

struct bt_engine_thread {
    bt_engine_thread_options options;
    bt_scheduler *scheduler; /* the thread's, once it runs */
    pthread_t thread;
    bool started, stopped;
    int wake_fd;
    pthread_mutex_t lock; /* over what follows */
    command *first, *last;
    uint32_t n_inbox; /* sequences in the inbox */
    bt_gen_event *events, **events_end;
    bool woken; /* wake succeeded and nobody has taken since */
    bool stopping;
    uint64_t stop_at_ns;
    bt_scheduler_stats stats;
};

static void ring(bt_engine_thread *t)
{
    uint64_t one = 1;
    while (write(t->wake_fd, &one, sizeof(one)) < 0 && errno == EINTR) {
    }
}

static void collect(void *ctx, bt_gen_event *event)
{
    bt_engine_thread *t = ctx;
    pthread_mutex_lock(&t->lock);
    event->next = NULL;
    *t->events_end = event;
    t->events_end = &event->next;
    pthread_mutex_unlock(&t->lock);
}

/* Announces events, outside the lock; true when nothing is left to announce. */
static bool announce(bt_engine_thread *t)
{
    pthread_mutex_lock(&t->lock);
    bool wanted = t->events != NULL && !t->woken;
    t->woken = t->woken || wanted;
    pthread_mutex_unlock(&t->lock);
    if (!wanted || t->options.wake(t->options.wake_ctx))
        return true;
    pthread_mutex_lock(&t->lock);
    t->woken = false;
    pthread_mutex_unlock(&t->lock);
    return false;
}

/* Takes the inbox, and says whether and until when to stop. */
static bool take_inbox(bt_engine_thread *t, uint64_t *stop_at_ns)
{
    uint64_t rings;
    while (read(t->wake_fd, &rings, sizeof(rings)) < 0 && errno == EINTR) {
    }
    pthread_mutex_lock(&t->lock);
    command *next = t->first;
    t->first = t->last = NULL;
    t->n_inbox = 0;
    bool stopping = t->stopping;
    *stop_at_ns = t->stop_at_ns;
    for (command *c = next; c != NULL; c = c->next)
        t->stats.n_waiting += c->sequence != NULL; /* counted until the next snapshot */
    pthread_mutex_unlock(&t->lock);
    for (command *c = next; c != NULL; c = next) {
        next = c->next;
        if (c->sequence != NULL)
            bt_scheduler_add(t->scheduler, c->sequence);
        else
            bt_scheduler_cancel(t->scheduler, c->cancel);
        bt_free(c);
    }
    return stopping;
}

static void publish_stats(bt_engine_thread *t)
{
    bt_scheduler_stats stats;
    bt_scheduler_get_stats(t->scheduler, &stats);
    pthread_mutex_lock(&t->lock);
    t->stats = stats;
    pthread_mutex_unlock(&t->lock);
}

static void sleep_until(bt_engine_thread *t, int timeout_ms)
{
    int handoff_fds[MAX_FDS - 1];
    struct pollfd fds[MAX_FDS] = {{.fd = t->wake_fd, .events = POLLIN}};
    const bt_handoff_ops *ops = t->options.scheduler.handoff;
    uint32_t n = ops != NULL && ops->fds != NULL ? ops->fds(ops->ctx, handoff_fds, MAX_FDS - 1) : 0;
    for (uint32_t i = 0; i < n; i++)
        fds[i + 1] = (struct pollfd){.fd = handoff_fds[i], .events = POLLIN};
    (void)poll(fds, n + 1, timeout_ms);
}

static int ms_until(uint64_t deadline_ns)
{
    uint64_t now_ns = bt_now_ns(&bt_clock_monotonic);
    if (deadline_ns <= now_ns)
        return 0;
    uint64_t ms = (deadline_ns - now_ns) / BT_NS_PER_MS + 1;
    return ms < 1000 ? (int)ms : 1000;
}

static void *engine_main(void *arg)
{
    bt_engine_thread *t = arg;
    for (;;) {
        uint64_t stop_at_ns;
        bool stopping = take_inbox(t, &stop_at_ns);
        if (stopping)
            bt_scheduler_cancel_all(t->scheduler);
        bool busy = bt_scheduler_step(t->scheduler);
        publish_stats(t);
        bool announced = announce(t);
        if (stopping && (bt_scheduler_is_empty(t->scheduler) || ms_until(stop_at_ns) == 0))
            return NULL;
        if (!busy)
            sleep_until(t, !announced ? WAKE_RETRY_MS : stopping ? ms_until(stop_at_ns) : -1);
    }
}

baton_status bt_engine_thread_create(const bt_engine_thread_options *options,
                                     bt_engine_thread **thread_p)
{
    bt_engine_thread *t = bt_calloc(1, sizeof(*t));
    if (t == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "engine thread: %zu bytes", sizeof(*t));
    pthread_mutex_init(&t->lock, NULL);
    t->options = *options;
    if (t->options.max_queued == 0)
        t->options.max_queued = DEFAULT_MAX_QUEUED;
    t->options.scheduler.emit = collect;
    t->options.scheduler.emit_ctx = t;
    t->events_end = &t->events;
    t->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    baton_status status = BATON_OK;
    if (t->wake_fd < 0)
        status = bt_fail_errno(BATON_ERR_IO, errno, "engine thread: eventfd");
    else
        status = bt_scheduler_create(&t->options.scheduler, &t->scheduler);
    if (status == BATON_OK) {
        bt_scheduler_get_stats(t->scheduler, &t->stats);
        status = bt_thread_start(&t->thread, "baton-engine", engine_main, t);
        t->started = status == BATON_OK;
    }
    if (status < 0) {
        bt_engine_thread_destroy(t);
        return status;
    }
    *thread_p = t;
    return BATON_OK;
}

/* Errors: OVERLOADED, CLOSED; the command is then not taken. */
static baton_status push(bt_engine_thread *t, command *c)
{
    baton_status status = BATON_OK;
    pthread_mutex_lock(&t->lock);
    uint32_t n_queued = t->n_inbox + t->stats.n_waiting;
    if (c->sequence != NULL && t->stopping)
        status = bt_fail(BATON_ERR_CLOSED, "engine: it is shutting down");
    else if (c->sequence != NULL && n_queued >= t->options.max_queued)
        status = bt_fail(BATON_ERR_OVERLOADED, "engine: %u requests are waiting, at most %u may",
                         n_queued, t->options.max_queued);
    if (status == BATON_OK) {
        *(t->last != NULL ? &t->last->next : &t->first) = c;
        t->last = c;
        t->n_inbox += c->sequence != NULL;
    }
    pthread_mutex_unlock(&t->lock);
    if (status == BATON_OK)
        ring(t);
    return status;
}

baton_status bt_engine_thread_submit(bt_engine_thread *t, const bt_generate *request)
{
    bt_sequence *sequence;
    BATON_TRY(bt_sequence_create(request, t->options.scheduler.block_tokens,
                                 t->options.scheduler.ends.tokenizer, &sequence));
    command *c = bt_calloc(1, sizeof(*c));
    if (c == NULL) {
        bt_sequence_destroy(sequence);
        return bt_fail(BATON_ERR_NO_MEMORY, "engine: %zu bytes", sizeof(*c));
    }
    c->sequence = sequence;
    baton_status status = push(t, c);
    if (status < 0) {
        bt_sequence_destroy(sequence);
        bt_free(c);
    }
    return status;
}

baton_status bt_engine_thread_cancel(bt_engine_thread *t, const void *user_data)
{
    command *c = bt_calloc(1, sizeof(*c));
    if (c == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "engine: %zu bytes", sizeof(*c));
    c->cancel = user_data;
    return push(t, c);
}

bt_gen_event *bt_engine_thread_take(bt_engine_thread *t)
{
    pthread_mutex_lock(&t->lock);
    bt_gen_event *events = t->events;
    t->events = NULL;
    t->events_end = &t->events;
    t->woken = false;
    pthread_mutex_unlock(&t->lock);
    return events;
}

void bt_engine_thread_stats(bt_engine_thread *t, bt_scheduler_stats *stats)
{
    pthread_mutex_lock(&t->lock);
    *stats = t->stats;
    stats->n_waiting += t->n_inbox;
    pthread_mutex_unlock(&t->lock);
}

void bt_engine_thread_stop(bt_engine_thread *t, uint32_t drain_ms)
{
    if (!t->started || t->stopped)
        return;
    uint64_t now_ns = bt_now_ns(&bt_clock_monotonic);
    pthread_mutex_lock(&t->lock);
    t->stopping = true;
    t->stop_at_ns = bt_deadline_ns(now_ns, drain_ms * BT_NS_PER_MS);
    pthread_mutex_unlock(&t->lock);
    ring(t);
    pthread_join(t->thread, NULL);
    t->stopped = true;
}

void bt_engine_thread_destroy(bt_engine_thread *t)
{
    if (t == NULL)
        return;
    bt_engine_thread_stop(t, 0);
    for (command *next, *c = t->first; c != NULL; c = next) {
        next = c->next;
        bt_sequence_destroy(c->sequence);
        bt_free(c);
    }
    for (bt_gen_event *next, *event = t->events; event != NULL; event = next) {
        next = event->next;
        bt_gen_event_destroy(event);
    }
    bt_scheduler_destroy(t->scheduler);
    if (t->wake_fd >= 0)
        close(t->wake_fd);
    pthread_mutex_destroy(&t->lock);
    bt_free(t);
}
