/* SPDX-License-Identifier: Apache-2.0 */
/* The scheduler on a thread of its own. Requests and cancels go in through a list and an eventfd;
 * events come out through a list that `wake` announces. With nothing to compute the thread sleeps
 * in poll, on its eventfd and the hand-off's, and uses no CPU.
 *
 *   submit, cancel ─▶ [inbox] ─eventfd─▶ engine thread ─▶ [events] ─wake─▶ bt_engine_thread_take
 *
 * Thread rule: any thread, except create, stop and destroy (one owner). */
#ifndef BT_ENGINE_ENGINETHREAD_H
#define BT_ENGINE_ENGINETHREAD_H
#include "engine/scheduler.h"

typedef struct bt_engine_thread bt_engine_thread;

typedef struct {
    bt_scheduler_options scheduler; /* emit and emit_ctx are filled here */
    uint32_t max_queued;            /* requests that are not admitted yet; 0: 256 */
    /* Called on the engine thread when events wait, once until the next take. False: it could not
     * be told; it is called again soon. */
    bool (*wake)(void *ctx);
    void *wake_ctx; /* borrowed */
} bt_engine_thread_options;

/* Errors: INVALID_ARG, NO_MEMORY, IO. */
baton_status bt_engine_thread_create(const bt_engine_thread_options *options,
                                     bt_engine_thread **thread_p);
/* Errors: OVERLOADED (the queue is full), CLOSED (stopping), INVALID_ARG, TOO_LARGE, NO_MEMORY: no
 * event will come. request->stops is moved from in every case. */
baton_status bt_engine_thread_submit(bt_engine_thread *thread, const bt_generate *request);
/* The request named by user_data ends with CANCELED, if it has not ended yet; its last event comes
 * either way. Errors: NO_MEMORY (it goes on). */
baton_status bt_engine_thread_cancel(bt_engine_thread *thread, const void *user_data);
/* All events so far, oldest first, as a list by ->next; each is freed with bt_gen_event_destroy. */
bt_gen_event *bt_engine_thread_take(bt_engine_thread *thread);
/* As of the last step, with n_waiting as of now. */
void bt_engine_thread_stats(bt_engine_thread *thread, bt_scheduler_stats *stats);
/* Refuses new requests, cancels what is there, lets transfers of answered requests go on for up to
 * drain_ms, ends the thread. Events can still be taken. */
void bt_engine_thread_stop(bt_engine_thread *thread, uint32_t drain_ms);
/* Stopped, and the hand-off's threads do not read KV any more. NULL is allowed. */
void bt_engine_thread_destroy(bt_engine_thread *thread);

#endif
