/* SPDX-License-Identifier: Apache-2.0 */
/* Very many transfers of random shape between two processes: 1 to 32 pages of 8 KiB, the last one
 * of any length, pushed in any order, eight at a time, a tenth of them canceled somewhere on the
 * way, an eighth of contents that the receiver may have already; the pool is small, so that every
 * transfer evicts. All that end well are verified. Now and then everything is let come to rest, and
 * what both processes use is sampled: it must not grow.
 *
 * Thread rule: owner thread. */
#ifndef BT_BENCH_PERF_SOAK_H
#define BT_BENCH_PERF_SOAK_H
#include "bench/perf_options.h"
#include "bench/perf_usage.h"

typedef struct {
    uint32_t n_transfers; /* ended by then */
    bt_perf_usage sender, receiver;
    uint64_t pages_total, pages_usable; /* usable: free, or landed and to be evicted */
    uint64_t live;                      /* tickets, holds and pins at the receiver */
} bt_perf_rest;

/* OK, or STATE: what grew (its most in the second half of rests[n], n >= 4, against its most in the
 * quarter before), or which pages did not come back. */
baton_status bt_perf_soak_judge(const bt_perf_rest *rests, uint32_t n);
/* --soak. As bt_perf_latency; STATE also when something grew, after the report. */
baton_status bt_perf_soak(const bt_perf_options *options, const char *program, bt_strbuf *out);

#endif
