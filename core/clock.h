/* SPDX-License-Identifier: Apache-2.0 */
/* Monotonic time, injected: whoever waits or ages something takes a `const bt_clock *`, so that
 * tests advance time by hand and jumps of the wall clock do not matter.
 * Thread rule: any thread; a bt_manual_clock only from the thread that advances it. */
#ifndef BT_CORE_CLOCK_H
#define BT_CORE_CLOCK_H
#include <stdint.h>

#define BT_NS_PER_US UINT64_C(1000)
#define BT_NS_PER_MS UINT64_C(1000000)
#define BT_NS_PER_S UINT64_C(1000000000)
/* A deadline that never comes. */
#define BT_NEVER_NS UINT64_MAX

typedef struct bt_clock {
    uint64_t (*now_ns)(void *ctx);
    void *ctx; /* borrowed */
} bt_clock;

/* CLOCK_MONOTONIC. */
extern const bt_clock bt_clock_monotonic;

static inline uint64_t bt_now_ns(const bt_clock *clock)
{
    return clock->now_ns(clock->ctx);
}

/* now + delta_ns, or BT_NEVER_NS where that would overflow. */
static inline uint64_t bt_deadline_ns(uint64_t now_ns, uint64_t delta_ns)
{
    return delta_ns > UINT64_MAX - now_ns ? BT_NEVER_NS : now_ns + delta_ns;
}

/* How long ago since_ns was: 0 when it is not before now_ns, as when it was noted after now_ns had
 * been read, in the same round of work. */
static inline uint64_t bt_elapsed_ns(uint64_t now_ns, uint64_t since_ns)
{
    return now_ns > since_ns ? now_ns - since_ns : 0;
}

/* A clock that stands still until it is told otherwise, or goes on by tick_ns at every look. */
typedef struct {
    uint64_t now_ns, tick_ns;
} bt_manual_clock;
bt_clock bt_manual_clock_ops(bt_manual_clock *clock);

#endif
