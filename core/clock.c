/* SPDX-License-Identifier: Apache-2.0 */
#include "core/clock.h"

#include <time.h>

static uint64_t monotonic_now_ns(void *ctx)
{
    (void)ctx;
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * BT_NS_PER_S + (uint64_t)now.tv_nsec;
}

const bt_clock bt_clock_monotonic = {.now_ns = monotonic_now_ns};

static uint64_t manual_now_ns(void *ctx)
{
    bt_manual_clock *clock = ctx;
    return clock->now_ns += clock->tick_ns;
}

bt_clock bt_manual_clock_ops(bt_manual_clock *clock)
{
    return (bt_clock){.now_ns = manual_now_ns, .ctx = clock};
}
