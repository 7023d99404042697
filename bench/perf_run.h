/* SPDX-License-Identifier: Apache-2.0 */
/* Transfers of one size, one after the other, measured from begin to done.
 * Thread rule: owner thread. */
#ifndef BT_BENCH_PERF_RUN_H
#define BT_BENCH_PERF_RUN_H
#include "bench/perf_pair.h"

/* Of one transfer. */
typedef struct {
    uint64_t wall_ns;         /* begin to done */
    uint64_t move_ns;         /* granted to committed */
    uint64_t sender_cpu_ns;   /* of this process during wall_ns */
    uint64_t receiver_cpu_ns; /* of the other one; 0 when there is none */
} bt_perf_sample;

typedef struct {
    bt_perf_sample *samples; /* [n_samples] owned */
    uint32_t n_samples;
    uint64_t connect_ns; /* creating the sender to its first transfer's done */
    uint32_t n_verified; /* transfers, warm-up included, of which every byte was right */
    const char *way;     /* the bytes went: mapped, put or mixed */
    uint64_t sender_huge_kb, receiver_huge_kb; /* in huge pages, of the whole process */
    char path[BT_PERF_PATH_TEXT_BYTES];        /* what the sender said when it connected */
} bt_perf_result;

/* program: this executable, to start the receiver. Result CORRUPT: a byte was wrong. *result is to
 * be freed in any case. Other errors: a transfer failed, or nothing could run. */
baton_status bt_perf_run(const bt_perf_options *options, const char *program,
                         bt_perf_result *result);
void bt_perf_result_free(bt_perf_result *result);

#endif
