/* SPDX-License-Identifier: Apache-2.0 */
/* Tells a user who polls from one who sleeps, by his calls alone. Both are told to sleep when
 * nothing is left to do; who comes back at once again and again polls, and for a while nobody needs
 * to wake him: that saves system calls of his and of those who would.
 *
 * Thread rule: owner thread. */
#ifndef BT_CORE_POLLHABIT_H
#define BT_CORE_POLLHABIT_H
#include <stdbool.h>
#include <stdint.h>

enum {
    BT_POLLHABIT_GAP_NS = 10 * 1000, /* between two calls: nobody sleeps and wakes in less */
    BT_POLLHABIT_CALLS = 64,         /* in a row make a habit */
    BT_POLLHABIT_NS = 1000 * 1000,   /* it is relied on, before sleep is offered again */
};

typedef struct {
    uint64_t called_ns;
    uint64_t until_ns; /* it is relied on */
    uint32_t n_calls;  /* in a row */
} bt_pollhabit;

/* A call that found nothing to do, by a user who was told to sleep (or not to, until until_ns).
 * True: he polls. */
bool bt_pollhabit_idle(bt_pollhabit *habit, uint64_t now_ns);
/* He is not told to sleep for a while. */
void bt_pollhabit_rely(bt_pollhabit *habit, uint64_t now_ns);
/* That while is not over. */
bool bt_pollhabit_is_relied(const bt_pollhabit *habit, uint64_t now_ns);

#endif
