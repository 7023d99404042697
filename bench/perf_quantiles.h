/* SPDX-License-Identifier: Apache-2.0 */
/* Samples of one figure, their quantiles, and how both forms of a report show them.
 * Thread rule: owner thread. */
#ifndef BT_BENCH_PERF_QUANTILES_H
#define BT_BENCH_PERF_QUANTILES_H
#include "bench/perf_pair.h"
#include "core/strbuf.h"

typedef struct {
    double *values; /* [capacity] owned */
    uint32_t n, capacity;
} bt_perf_values;

typedef struct {
    double min, median, p90, p99, max;
} bt_perf_quantiles;

/* Errors: NO_MEMORY. */
baton_status bt_perf_values_create(uint32_t capacity, bt_perf_values *values);
void bt_perf_values_free(bt_perf_values *values);
/* One more, in ns; kept as us. n < capacity. */
void bt_perf_values_add(bt_perf_values *values, uint64_t ns);
/* Sorts the values, n > 0. A quantile is the smallest value that so large a part of all does not
 * exceed; the median of an even number is the middle of two. */
bt_perf_quantiles bt_perf_quantiles_of(bt_perf_values *values);

/* "work", "path" and "connection", as every table begins. */
void bt_perf_put_head(bt_strbuf *out, const bt_perf_pair *pair);
void bt_perf_put_columns(bt_strbuf *out); /* heads of the quantiles' columns */
void bt_perf_put_row(bt_strbuf *out, const char *name, const bt_perf_quantiles *q);

/* The same in JSON: an object that is left open, its members, the last with `end` "". */
void bt_perf_json_head(bt_strbuf *out, const char *mode, const bt_perf_pair *pair);
void bt_perf_json_string(bt_strbuf *out, const char *name, const char *text, const char *end);
void bt_perf_json_row(bt_strbuf *out, const char *name, const bt_perf_quantiles *q,
                      const char *end);

#endif
