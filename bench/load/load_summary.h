/* SPDX-License-Identifier: Apache-2.0 */
/* What a phase comes to: distributions, throughput, goodput, peaks, errors by kind.
 * Thread rule: any thread (no state). */
#ifndef BT_BENCH_LOAD_SUMMARY_H
#define BT_BENCH_LOAD_SUMMARY_H
#include "bench/load/load_run.h"

enum { BT_LOAD_MAX_KINDS = 16 };

typedef struct {
    const char *kind;   /* borrowed from a record; "other" for what the table does not hold */
    const char *detail; /* of the first one */
    uint32_t n;
} bt_load_error;

typedef struct {
    uint32_t n_requests, n_sent, n_ok;
    uint32_t n_good;                                      /* ok and within all objectives */
    uint64_t prompt_tokens, cached_tokens, output_tokens; /* of requests that were ok */
    double seconds;
    bt_load_spread spread[BT_LOAD_N_METRICS]; /* of requests that were ok */
    uint32_t peak_running;                    /* requests that were ok, at the same time */
    uint32_t peak_tokens_per_s;               /* token events of the fullest second */
    bt_load_error errors[BT_LOAD_MAX_KINDS];  /* [n_errors], most frequent first */
    size_t n_errors;
    const bt_load_record *slowest; /* of those that have ended, borrowed; NULL: none has */
} bt_load_summary;

/* summary borrows texts of result. Errors: NO_MEMORY. */
baton_status bt_load_summarize(const bt_load_options *options, const bt_load_result *result,
                               bt_load_summary *summary);
double bt_load_per_second(const bt_load_summary *summary, uint64_t n);

/* One metric of a request that was ok. False when it has none: ITL, of which there are many; TTFT
 * of what was no stream, TPOT of a single token. */
bool bt_load_value_ns(const bt_load_record *record, bt_load_metric metric, uint64_t *ns);
/* Whether a request met all objectives; of what it has no figure for it meets them. */
bool bt_load_is_good(const bt_load_goals *goals, const bt_load_record *record);
/* All values of a metric, unsorted, appended. A lack of memory is in samples->failed. */
void bt_load_collect(const bt_load_result *result, bt_load_metric metric, bt_load_samples *samples);

/* Per second of the phase. */
typedef struct {
    double *tokens;  /* [n] token events in it; owned */
    double *running; /* [n] requests that ran at its middle; owned */
    uint32_t n;
} bt_load_timeline;

/* Of requests that were ok. Errors: NO_MEMORY. */
baton_status bt_load_timeline_make(const bt_load_result *result, bt_load_timeline *timeline);
void bt_load_timeline_free(bt_load_timeline *timeline);

#endif
