/* SPDX-License-Identifier: Apache-2.0 */
/* Looks for the highest rate at which enough requests meet their objectives: doubles the rate until
 * a step fails, or halves it until one is met, then goes to the geometric middle of the highest met
 * and the lowest failed rate until they are near each other.
 *
 *   rate 1 ok, 2 ok, 4 ok, 8 no, 5.7 ok, 6.7 no, 6.2 ok, 6.4 no: 6.2
 *
 * Thread rule: owner thread. */
#ifndef BT_BENCH_LOAD_SEARCH_H
#define BT_BENCH_LOAD_SEARCH_H
#include "bench/load/load_summary.h"
#include "core/strbuf.h"

enum { BT_LOAD_MAX_STEPS = 40 };

typedef struct {
    double rate;
    uint32_t n_requests;
    double good_share; /* of the requests sent */
    double good_per_s, ok_per_s;
    double ms[BT_LOAD_N_METRICS][2]; /* p50, p99 */
    bool met;
} bt_load_step;

typedef struct {
    bt_load_step steps[BT_LOAD_MAX_STEPS]; /* [n_steps], in the order they were made */
    uint32_t n_steps;
} bt_load_search;

/* The rate to try next; 0: the search is over. first: the rate it begins with. */
double bt_load_search_next(const bt_load_search *search, double first);
/* The step with the highest rate that was met; NULL: none was. */
const bt_load_step *bt_load_search_best(const bt_load_search *search);

/* Makes the search, with a line on stderr for every step unless options->quiet. *best is the result
 * of the best step, or of the last one when none was met; to be freed also after a failure. Ends
 * early after an interruption. Errors: NO_MEMORY. */
baton_status bt_load_search_run(const bt_load_options *options, bt_load_runner *runner,
                                bt_load_search *search, bt_load_result *best);

/* The steps, lowest rate first, and what was found. */
void bt_load_search_table(const bt_load_search *search, const bt_load_options *options,
                          bt_strbuf *out);
/* The same as members of a result: ",\n  \"highest_rate\": ...". */
void bt_load_search_json(const bt_load_search *search, bt_strbuf *out);

#endif
