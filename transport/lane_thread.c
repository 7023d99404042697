/* SPDX-License-Identifier: Apache-2.0 */
/* The lane's thread: runs what is posted, gives its workers turns, sleeps. */
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/thread.h"
#include "transport/lane_state.h"

/* While a worker's events find no room, or an error keeps it from being armed: when to look again
 * without being rung. */
enum { RETRY_MS = 10 };

typedef struct {
    lane_call base;
    lane_transport *lane;
    baton_status (*fn)(void *ctx);
    void *ctx;
    bool is_answered; /* under the lane's lock */
    baton_status status;
    char text[BT_ERROR_TEXT_BYTES];
} lane_question;

static void append(lane_calls *calls, lane_call *call)
{
    call->next = NULL;
    if (calls->last != NULL)
        calls->last->next = call;
    else
        calls->first = call;
    calls->last = call;
}

static lane_call *pop(lane_calls *calls)
{
    lane_call *call = calls->first;
    if (call == NULL)
        return NULL;
    calls->first = call->next;
    if (calls->first == NULL)
        calls->last = NULL;
    return call;
}

void bt_lane_post(lane_transport *lane, lane_call *call)
{
    pthread_mutex_lock(&lane->lock);
    append(&lane->calls, call);
    pthread_mutex_unlock(&lane->lock);
    bt_doorbell_ring(lane->bell);
}

static void answer(lane_call *call)
{
    lane_question *question = (lane_question *)call;
    lane_transport *lane = question->lane;
    question->status = question->fn(question->ctx);
    if (question->status < 0)
        snprintf(question->text, sizeof(question->text), "%s", baton_last_error());
    pthread_mutex_lock(&lane->lock);
    question->is_answered = true; /* from here on it is the asker's again */
    pthread_cond_broadcast(&lane->answered);
    pthread_mutex_unlock(&lane->lock);
}

baton_status bt_lane_ask(lane_transport *lane, baton_status (*fn)(void *ctx), void *ctx)
{
    lane_question question = {.base = {.run = answer}, .lane = lane, .fn = fn, .ctx = ctx};
    bt_lane_post(lane, &question.base);
    pthread_mutex_lock(&lane->lock);
    while (!question.is_answered)
        pthread_cond_wait(&lane->answered, &lane->lock);
    pthread_mutex_unlock(&lane->lock);
    return question.status < 0 ? bt_fail(question.status, "%s", question.text) : question.status;
}

/* The seam is there from the first call on, and only then looked at. */
static void run_calls(lane_transport *lane)
{
    for (;;) {
        pthread_mutex_lock(&lane->lock);
        lane_call *call = pop(&lane->calls);
        pthread_mutex_unlock(&lane->lock);
        if (call == NULL)
            return;
        const bt_cuda *entered = bt_transport_enter(lane->base.seam);
        call->run(call);
        bt_transport_leave(entered);
    }
}

static lane_transport *lane_of(const lane_worker *worker)
{
    return (lane_transport *)worker->base.transport;
}

baton_status bt_lane_worker_enter(lane_worker *worker)
{
    lane_transport *lane = lane_of(worker);
    struct epoll_event event = {.events = EPOLLIN, .data = {.ptr = worker}};
    int fd = worker->inner->transport->ops->worker_fd(worker->inner);
    if (epoll_ctl(lane->fd, EPOLL_CTL_ADD, fd, &event) != 0)
        return bt_fail_errno(BATON_ERR_IO, errno, "lane: watching a worker's events");
    worker->next = lane->workers;
    lane->workers = worker;
    return BATON_OK;
}

void bt_lane_worker_leave(lane_worker *worker)
{
    lane_transport *lane = lane_of(worker);
    lane_worker **at = &lane->workers;
    while (*at != NULL && *at != worker)
        at = &(*at)->next;
    if (*at != NULL) {
        *at = worker->next;
        epoll_ctl(lane->fd, EPOLL_CTL_DEL, worker->inner->transport->ops->worker_fd(worker->inner),
                  NULL);
    }
    for (lane_call *call; (call = pop(&worker->failed)) != NULL;)
        bt_free(call);
}

void bt_lane_op_end(lane_op *op, baton_status status)
{
    lane_endpoint *endpoint = op->endpoint;
    bool is_send = op->event.kind == BT_EVENT_FAILED;
    bool is_known = endpoint->has_failed || status == BATON_ERR_CLOSED; /* it says FAILED itself */
    if (status >= 0 || (is_send && is_known)) {
        bt_free(op);
        return;
    }
    endpoint->has_failed = endpoint->has_failed || is_send;
    op->event.status = status;
    snprintf(op->event.text, sizeof(op->event.text), "%s", baton_last_error());
    append(&((lane_worker *)endpoint->base.worker)->failed, &op->base);
}

/* False: the ring is full. */
static bool push(lane_worker *worker, const lane_report *report)
{
    pthread_mutex_lock(&worker->lock);
    bool has_room = worker->n < BT_LANE_RING_EVENTS;
    if (has_room)
        worker->ring[(worker->first + worker->n++) % BT_LANE_RING_EVENTS] = *report;
    worker->is_stalled = !has_room;
    pthread_mutex_unlock(&worker->lock);
    if (has_room)
        bt_doorbell_ring(worker->bell);
    return has_room;
}

static lane_copy *copy_message(const bt_event *event)
{
    lane_copy *copy = bt_calloc(1, sizeof(*copy) + event->n_bytes);
    if (copy != NULL)
        memcpy(copy->bytes, event->bytes, event->n_bytes);
    return copy;
}

/* Passes on an event of the inner worker's. False: not yet, there is no room or no memory. */
static bool tell(lane_worker *worker, const bt_event *event)
{
    lane_report report = {.event = *event};
    lane_endpoint *endpoint = NULL;
    if (event->kind == BT_EVENT_FAILED || event->kind == BT_EVENT_CLOSED)
        endpoint = (lane_endpoint *)(uintptr_t)event->user_data;
    if (event->kind == BT_EVENT_FAILED && endpoint->has_failed)
        return true;
    if (event->kind == BT_EVENT_FAILED) {
        report.event.user_data = endpoint->connect_user_data;
    } else if (event->kind == BT_EVENT_CLOSED) {
        report.event.user_data = endpoint->close_user_data;
        report.closed = endpoint;
    } else if (event->kind == BT_EVENT_MESSAGE) {
        report.copy = copy_message(event);
        if (report.copy == NULL)
            return false;
        report.event.bytes = report.copy->bytes;
    }
    if (!push(worker, &report)) {
        bt_free(report.copy);
        return false;
    }
    if (event->kind == BT_EVENT_FAILED)
        endpoint->has_failed = true;
    return true;
}

/* A call that found its endpoint failed is told of behind FAILED, which says why: the inner worker
 * reports that in one of its next turns. */
static bool is_due(const lane_op *op)
{
    return op->event.status != BATON_ERR_CLOSED || op->endpoint->has_failed;
}

/* False: the ring is full. */
static bool tell_failures(lane_worker *worker)
{
    lane_calls calls = worker->failed;
    bool has_room = true;
    worker->failed = (lane_calls){0};
    for (lane_call *call; (call = pop(&calls)) != NULL;) {
        const lane_op *op = (lane_op *)call;
        const lane_report report = {.event = op->event};
        bool is_told = has_room && is_due(op) && (has_room = push(worker, &report));
        if (is_told)
            bt_free(call);
        else
            append(&worker->failed, call);
    }
    return has_room;
}

/* Failures of an endpoint's calls come before its CLOSED, even where that comes without FAILED.
 * False: not all of what was found has been told. */
static bool tell_all(lane_worker *worker)
{
    for (; worker->n_told < worker->n_found; worker->n_told++) {
        const bt_event *event = &worker->found[worker->n_told];
        if (event->kind == BT_EVENT_CLOSED)
            ((lane_endpoint *)(uintptr_t)event->user_data)->has_failed = true;
        if (!tell_failures(worker) || !tell(worker, event))
            return false;
    }
    return tell_failures(worker);
}

/* What a turn finds is told before the next one: a message is valid until then. True: something was
 * found, and there may be more. */
static bool take_turn(lane_worker *worker)
{
    if (!tell_all(worker))
        return false;
    worker->n_told = 0;
    worker->n_found = worker->inner->transport->ops->worker_progress(worker->inner, worker->found,
                                                                     BT_LANE_EVENTS_AT_ONCE);
    return tell_all(worker) && worker->n_found > 0;
}

static bool take_turns(lane_transport *lane)
{
    bool is_any = false;
    if (lane->workers == NULL)
        return false;
    const bt_cuda *entered = bt_transport_enter(lane->base.seam);
    for (lane_worker *worker = lane->workers; worker != NULL; worker = worker->next)
        is_any |= take_turn(worker);
    bt_transport_leave(entered);
    return is_any;
}

typedef enum { ARMED, BUSY, STALLED } readiness;

static readiness arm_workers(lane_transport *lane)
{
    readiness found = ARMED;
    for (lane_worker *worker = lane->workers; worker != NULL; worker = worker->next) {
        baton_status status = BATON_OK;
        if (worker->failed.first != NULL || worker->n_told < worker->n_found)
            found = STALLED;
        else
            status = worker->inner->transport->ops->worker_arm(worker->inner);
        if (status == BATON_ERR_BUSY)
            return BUSY;
        if (status < 0)
            found = STALLED;
    }
    return found;
}

/* A stalled worker's fd may stay readable: then only the bell, which the owner rings when there is
 * room, is waited for. */
static void sleep_until_rung(lane_transport *lane)
{
    if (!bt_doorbell_sleep(lane->bell))
        return;
    readiness found = arm_workers(lane);
    struct pollfd bell = {.fd = bt_doorbell_fd(lane->bell), .events = POLLIN};
    struct epoll_event event;
    if (found == ARMED)
        epoll_wait(lane->fd, &event, 1, -1);
    else if (found == STALLED)
        poll(&bell, 1, RETRY_MS);
    bt_doorbell_wake(lane->bell);
    if (found != BUSY)
        bt_doorbell_silence(lane->bell);
}

static void *lane_main(void *ctx)
{
    lane_transport *lane = ctx;
    for (;;) {
        run_calls(lane);
        bool is_busy = take_turns(lane);
        if (lane->must_stop)
            return NULL;
        if (!is_busy)
            sleep_until_rung(lane);
    }
}

baton_status bt_lane_thread_start(lane_transport *lane)
{
    BATON_TRY(bt_doorbell_create(&lane->bell));
    lane->fd = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event event = {.events = EPOLLIN};
    if (lane->fd < 0 || epoll_ctl(lane->fd, EPOLL_CTL_ADD, bt_doorbell_fd(lane->bell), &event) != 0)
        return bt_fail_errno(BATON_ERR_IO, errno, "lane: a descriptor for events");
    BATON_TRY(bt_thread_start(&lane->thread, "baton-lane", lane_main, lane));
    lane->has_thread = true;
    return BATON_OK;
}

typedef struct {
    lane_call base;
    lane_transport *lane;
} stop_call;

static void stop(lane_call *call)
{
    ((stop_call *)call)->lane->must_stop = true;
}

void bt_lane_thread_stop(lane_transport *lane)
{
    stop_call call = {.base = {.run = stop}, .lane = lane};
    if (lane->has_thread) {
        bt_lane_post(lane, &call.base);
        pthread_join(lane->thread, NULL);
        assert(lane->workers == NULL && "workers of the lane are still alive");
    }
    if (lane->fd >= 0)
        close(lane->fd);
    bt_doorbell_destroy(lane->bell);
}
