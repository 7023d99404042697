/* SPDX-License-Identifier: Apache-2.0 */
/* Sends requests and collects what becomes of them: warm-up, the measured ones, or one step of a
 * search, each a phase. With conversations, request i + 1 follows request i's answer.
 *
 *   arrivals -> [due] -> [free place?] -> call -> record
 *                 ^                         |
 *                 +---- next turn ----------+
 *
 * Thread rule: owner thread. */
#ifndef BT_BENCH_LOAD_RUN_H
#define BT_BENCH_LOAD_RUN_H
#include "bench/load/load_options.h"
#include "bench/load/load_record.h"

enum { BT_LOAD_MODEL_BYTES = 256 };

typedef struct bt_load_runner bt_load_runner;

typedef struct {
    const char *title; /* of the progress bar; "": none */
    uint32_t n_requests;
    uint32_t base; /* the workload's number of the first one, a multiple of n_turns */
    double rate;   /* 0: as many at once as options->concurrency says */
} bt_load_phase;

typedef struct {
    bt_load_record *records; /* [n_requests], owned; those never sent have start_ns 0 */
    uint32_t n_requests;
    double rate; /* as in the phase */
    uint64_t began_ns;
    uint64_t duration_ns; /* began_ns to the last end */
    char model[BT_LOAD_MODEL_BYTES];
    bool interrupted; /* SIGINT or SIGTERM: the rest was not sent */
} bt_load_result;

/* options are borrowed. Reads the prompt file and asks for the model's name. Errors: those of the
 * workload; UNREACHABLE and the like when the name was to be asked for; NO_MEMORY, IO. */
baton_status bt_load_runner_create(const bt_load_options *options, bt_load_runner **runner_p);
void bt_load_runner_destroy(bt_load_runner *runner); /* NULL is allowed. */

/* Runs a phase, with a progress bar on stderr when that is a terminal. *result is to be freed also
 * after a failure. After an interruption nothing more is sent, also in later phases. A failed
 * request is no error here. Errors: NO_MEMORY. */
baton_status bt_load_run(bt_load_runner *runner, const bt_load_phase *phase,
                         bt_load_result *result);
/* The warm-up that the options ask for, if any. Errors: NO_MEMORY. */
baton_status bt_load_warm_up(bt_load_runner *runner);
void bt_load_result_free(bt_load_result *result);

#endif
