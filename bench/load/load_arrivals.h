/* SPDX-License-Identifier: Apache-2.0 */
/* When requests arrive: gaps from a gamma distribution, constant ones, bursts, and rates that
 * change on the way, as vLLM's benchmark makes them.
 *
 *   burstiness 1    |  | |     |   ||   |      burst_size 3    |||     |||  |||
 *   burstiness inf  |   |   |   |   |   |      linear ramp     |    |   |  | | |||
 *
 * Thread rule: any thread (no state). */
#ifndef BT_BENCH_LOAD_ARRIVALS_H
#define BT_BENCH_LOAD_ARRIVALS_H
#include "bench/load/load_options.h"

/* Nanoseconds from the start of the run to each of n arrivals, never falling. rate > 0; it
 * does not count in a ramp. Without one the last one comes at n / rate exactly, so that seeds
 * differ in when, not in how many a second. */
void bt_load_arrivals(const bt_load_options *options, double rate, uint32_t n, uint64_t *due_ns);

#endif
