/* SPDX-License-Identifier: Apache-2.0 */
/* How other threads wake an owner that sleeps in poll: an eventfd that is only written while the
 * owner sleeps, so that ringing at a busy owner costs no system call and no ring is lost.
 *
 *   owner                                       others
 *   do { work } while (!bt_doorbell_sleep(b))   leave work; bt_doorbell_ring(b)
 *   poll(bt_doorbell_fd(b), ...)
 *   bt_doorbell_wake(b); if the fd is readable: bt_doorbell_silence(b)
 *
 * Thread rule: ring from any thread; sleep and wake from the owner; create before and destroy after
 * all of them. */
#ifndef BT_CORE_DOORBELL_H
#define BT_CORE_DOORBELL_H
#include <baton/status.h>
#include <stdbool.h>

typedef struct bt_doorbell bt_doorbell;

/* Errors: NO_MEMORY, IO (no eventfd). */
baton_status bt_doorbell_create(bt_doorbell **bell_p);
void bt_doorbell_destroy(bt_doorbell *bell); /* NULL is allowed. */
/* Readable when it rang during sleep; sometimes for no reason. Borrowed until destroy. */
int bt_doorbell_fd(const bt_doorbell *bell);
void bt_doorbell_ring(bt_doorbell *bell);
/* True: every ring from now on makes the fd readable. False: it rang since the last wake: look for
 * work, then try again. */
bool bt_doorbell_sleep(bt_doorbell *bell);
/* The owner is awake: rings cost no system call any more. True: it rang. */
bool bt_doorbell_wake(bt_doorbell *bell);
/* The fd is no longer readable. A ring that wake has seen may still write afterwards, and the next
 * sleep then ends at once: silence the fd whenever it is found readable. */
void bt_doorbell_silence(bt_doorbell *bell);
/* It rang since the last wake. */
bool bt_doorbell_is_rung(const bt_doorbell *bell);

#endif
