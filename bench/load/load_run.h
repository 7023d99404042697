/* SPDX-License-Identifier: Apache-2.0 */
/* A load run: sends the workload's requests at their rate or as many at once as wanted, and keeps a
 * record of each.
 *
 *   closed loop   `concurrency` requests at any time, the next one when one ends
 *   open loop     requests fall due at Poisson times; those beyond `concurrency` wait, and their
 *                 clock runs meanwhile
 *
 * Thread rule: owner thread. */
#ifndef BT_BENCH_LOAD_RUN_H
#define BT_BENCH_LOAD_RUN_H
#include "bench/load/load_options.h"
#include "bench/load/load_record.h"

enum { BT_LOAD_MODEL_BYTES = 256 };

typedef struct {
    bt_load_record *records; /* [n_requests], owned; those never sent have start_ns 0 */
    uint32_t n_requests;
    bt_load_samples itl;
    uint64_t duration_ns; /* first start to last end */
    char model[BT_LOAD_MODEL_BYTES];
    bool interrupted; /* SIGINT or SIGTERM: the rest was not sent */
} bt_load_result;

/* Runs it all, with a progress bar on stderr when that is a terminal. *result is to be freed also
 * after a failure. Errors: those of the workload; UNREACHABLE and the like when the model's name
 * was to be asked for; NO_MEMORY, IO. A failed request is no error here. */
baton_status bt_load_run(const bt_load_options *options, bt_load_result *result);
void bt_load_result_free(bt_load_result *result);

#endif
