/* SPDX-License-Identifier: Apache-2.0 */
/* What a load run comes to: distributions, throughput, errors by kind; as a table, as JSON, and the
 * answers as a file.
 * Thread rule: any thread (no state). */
#ifndef BT_BENCH_LOAD_REPORT_H
#define BT_BENCH_LOAD_REPORT_H
#include "bench/load/load_run.h"
#include "core/strbuf.h"

/* Milliseconds; all 0 when n is 0. Percentiles interpolate between the two nearest values. */
typedef struct {
    size_t n;
    double min, mean, p50, p90, p99, max;
} bt_load_spread;

enum { BT_LOAD_MAX_KINDS = 16 };

typedef struct {
    const char *kind;   /* borrowed from a record; "other" for what the table does not hold */
    const char *detail; /* of the first one */
    uint32_t n;
} bt_load_error;

typedef struct {
    uint32_t n_requests, n_sent, n_ok;
    uint64_t prompt_tokens, cached_tokens, output_tokens; /* of requests that were ok */
    double seconds;
    bt_load_spread ttft; /* start to first token; streams only */
    bt_load_spread tpot; /* (last - first token) / (output tokens - 1), per request */
    bt_load_spread itl;  /* gaps between token events */
    bt_load_spread e2e;  /* start to end */
    bt_load_error errors[BT_LOAD_MAX_KINDS]; /* [n_errors], most frequent first */
    size_t n_errors;
    const bt_load_record *slowest; /* of those that have ended, borrowed; NULL: none has */
} bt_load_summary;

/* Spread of ns[n], which it sorts. */
bt_load_spread bt_load_spread_of(uint64_t *ns, size_t n);
/* summary borrows texts of result. Sorts result->itl. Errors: NO_MEMORY. */
baton_status bt_load_summarize(bt_load_result *result, bt_load_summary *summary);

void bt_load_report_table(const bt_load_options *options, const bt_load_result *result,
                          const bt_load_summary *summary, bt_strbuf *out);
void bt_load_report_json(const bt_load_options *options, const bt_load_result *result,
                         const bt_load_summary *summary, bt_strbuf *out);
/* One JSON object a line, in the order of the workload, without times: two runs that got the same
 * answers give the same file. Errors: IO and others of opening and writing. */
baton_status bt_load_report_save(const char *path, const bt_load_result *result);

#endif
