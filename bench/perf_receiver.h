/* SPDX-License-Identifier: Apache-2.0 */
/* The receiving end of baton-perf: makes a receiver as the sending end asks for, and checks every
 * byte of every transfer.
 * Thread rule: the calling thread; two calls may run at once. */
#ifndef BT_BENCH_PERF_RECEIVER_H
#define BT_BENCH_PERF_RECEIVER_H
#include "bench/perf_control.h"

#include <baton/options.h>

typedef struct {
    const char *host; /* to bind */
    bool allow_unauthenticated;
    const char *const *devices; /* [n_devices] */
    uint32_t n_devices;
    struct bt_loop_net *loop_net; /* --loop */
} bt_perf_place;

/* Serves one sending end until it closes its channel, which is no error. Errors: of the channel. */
baton_status bt_perf_serve(const bt_perf_place *place, bt_perf_control *control);

#endif
