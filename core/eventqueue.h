/* SPDX-License-Identifier: Apache-2.0 */
/* Completions for the user: a queue of fixed-size records with an eventfd that is readable exactly
 * while records wait (hold puts that off). Room is reserved when an operation starts, so that
 * reporting its end cannot fail for want of memory.
 *
 * Thread rule: any thread. */
#ifndef BT_CORE_EVENTQUEUE_H
#define BT_CORE_EVENTQUEUE_H
#include <baton/status.h>
#include <stdbool.h>

typedef struct bt_eventqueue bt_eventqueue;

/* Errors: NO_MEMORY, IO (no eventfd). */
baton_status bt_eventqueue_create(size_t record_bytes, bt_eventqueue **queue_p);
/* Room for n more records than are reserved or waiting now. Errors: NO_MEMORY. */
baton_status bt_eventqueue_reserve(bt_eventqueue *queue, uint32_t n);
/* Gives back room that will not be used. */
void bt_eventqueue_unreserve(bt_eventqueue *queue, uint32_t n);
/* Appends a record into reserved room, of which there must be some. */
void bt_eventqueue_push(bt_eventqueue *queue, const void *record);
/* As push, n records of record_bytes each. */
void bt_eventqueue_push_many(bt_eventqueue *queue, const void *records, uint32_t n);
/* Takes up to max of the oldest records; returns how many. */
uint32_t bt_eventqueue_pop(bt_eventqueue *queue, void *records, uint32_t max);
/* Between hold and release pushes do not make the fd readable, so that a burst wakes its reader
 * once; records can be taken all the while. One holder at a time. */
void bt_eventqueue_hold(bt_eventqueue *queue);
void bt_eventqueue_release(bt_eventqueue *queue);
int bt_eventqueue_fd(const bt_eventqueue *queue); /* Borrowed until destroy. */
void bt_eventqueue_destroy(bt_eventqueue *queue); /* NULL is allowed. */

#endif
