/* SPDX-License-Identifier: Apache-2.0 */
/* Bounded queue of fixed-size records from many threads to one, with a doorbell (an eventfd) for a
 * consumer that sleeps in poll. It keeps the order of each producer.
 *
 *   slot 0            slot 1                  capacity is a power of two;
 *   | turn | record | | turn | record | ...   turn == position      free, for the push at position
 *                                             turn == position + 1  filled, for the pop at position
 *
 * Sleeping, so that idle costs nothing and a push to a busy consumer costs no system call:
 *
 *   while (bt_ring_pop(ring, &record))
 *       use(&record);
 *   if (bt_ring_announce_sleep(ring)) {   nothing came in between: pushes from now on ring
 *       poll(bt_ring_fd(ring), ...);
 *       bt_ring_end_sleep(ring);
 *   }
 *
 * Thread rule: push from any thread; pop and sleep from one consumer thread; create before and
 * destroy after all of them. */
#ifndef BT_CORE_RING_H
#define BT_CORE_RING_H
#include <baton/status.h>
#include <stdbool.h>

typedef struct bt_ring bt_ring;

/* A ring for up to capacity records (a power of two from 2 to 2^30) of record_bytes each (1 to
 * 64 KiB). *ring_p is set only on success. Errors: INVALID_ARG, NO_MEMORY, IO (no eventfd). */
baton_status bt_ring_create(uint32_t capacity, size_t record_bytes, bt_ring **ring_p);
/* Copies record[record_bytes] in, and rings when the consumer has announced sleep. Never blocks and
 * never allocates. Errors: BUSY (full; nothing was taken). */
baton_status bt_ring_push(bt_ring *ring, const void *record);
/* Copies the oldest record out; false when there is none. */
bool bt_ring_pop(bt_ring *ring, void *record);
/* The eventfd: readable after a push that found the consumer announced. It may also be readable for
 * no reason. Borrowed until destroy. */
int bt_ring_fd(const bt_ring *ring);
/* True: the ring is empty and the next push rings. False: there is something to pop; do not sleep.
 * After true, end the sleep before the next pop. */
bool bt_ring_announce_sleep(bt_ring *ring);
/* Takes the announcement back and silences the doorbell. */
void bt_ring_end_sleep(bt_ring *ring);
void bt_ring_destroy(bt_ring *ring); /* NULL is allowed. */

#endif
