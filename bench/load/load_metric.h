/* SPDX-License-Identifier: Apache-2.0 */
/* What is measured of a request, and what is told of many: objectives, percentiles, spreads. Names
 * and meanings are those of vLLM's benchmark.
 * Thread rule: any thread (no state). */
#ifndef BT_BENCH_LOAD_METRIC_H
#define BT_BENCH_LOAD_METRIC_H
#include <baton/status.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum {
    BT_LOAD_TTFT,  /* due to first token */
    BT_LOAD_TPOT,  /* (last - first token) / (output tokens - 1), one a request */
    BT_LOAD_ITL,   /* gaps between token events, all of all requests */
    BT_LOAD_E2EL,  /* due to end of the answer */
    BT_LOAD_QUEUE, /* due to sent: what --max-concurrency made it wait */
    BT_LOAD_N_METRICS,
} bt_load_metric;

/* "ttft", "tpot", "itl", "e2el", "client_queue_time". */
const char *bt_load_metric_name(bt_load_metric metric);
/* As a table shows it: "TTFT". */
const char *bt_load_metric_title(bt_load_metric metric);

/* Objectives of a request, in ms; 0: none. ITL and QUEUE are always 0. */
typedef struct {
    double limit_ms[BT_LOAD_N_METRICS];
    bool is_set;
} bt_load_goals;

enum { BT_LOAD_MAX_PERCENTILES = 8, BT_LOAD_PERCENTILE_CHARS = 8 };
typedef struct {
    double percent[BT_LOAD_MAX_PERCENTILES]; /* [n] */
    uint32_t n;
} bt_load_percentiles;

/* Milliseconds; all 0 when n is 0. Percentiles interpolate between the two nearest values. */
typedef struct {
    size_t n;
    double min, mean, std, median, max;
    double at[BT_LOAD_MAX_PERCENTILES]; /* [percentiles->n] */
} bt_load_spread;

/* Spread of ns[n], which it sorts. */
bt_load_spread bt_load_spread_of(uint64_t *ns, size_t n, const bt_load_percentiles *percentiles);
/* One percentile of sorted values, n > 0, in their unit. */
double bt_load_percentile(const uint64_t *sorted, size_t n, double percent);
/* "p99", "p99.9". */
void bt_load_percentile_name(double percent, char name[BT_LOAD_PERCENTILE_CHARS]);

/* "ttft:200", "tpot:50", "e2el:1000" of texts[n]. Errors: INVALID_ARG. */
baton_status bt_load_goals_parse(const char *const *texts, uint32_t n, bt_load_goals *goals);
/* "50", "99.9". Errors: INVALID_ARG. */
baton_status bt_load_percentiles_parse(const char *const *texts, uint32_t n,
                                       bt_load_percentiles *percentiles);
/* Names of metrics. Errors: INVALID_ARG. */
baton_status bt_load_metrics_parse(const char *const *texts, uint32_t n,
                                   bool shown[BT_LOAD_N_METRICS]);

#endif
