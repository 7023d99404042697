/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/load/load_metric.h"

#include "core/fail.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name, *title;
    bool is_goal;
} metrics[BT_LOAD_N_METRICS] = {
    [BT_LOAD_TTFT] = {"ttft", "TTFT", true},
    [BT_LOAD_TPOT] = {"tpot", "TPOT", true},
    [BT_LOAD_ITL] = {"itl", "ITL", false},
    [BT_LOAD_E2EL] = {"e2el", "end-to-end", true},
    [BT_LOAD_QUEUE] = {"client_queue_time", "queued", false},
};

const char *bt_load_metric_name(bt_load_metric metric)
{
    return metrics[metric].name;
}

const char *bt_load_metric_title(bt_load_metric metric)
{
    return metrics[metric].title;
}

/* ---- spreads ---- */

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

double bt_load_percentile(const uint64_t *sorted, size_t n, double percent)
{
    double rank = percent / 100 * (double)(n - 1);
    size_t below = (size_t)rank;
    size_t above = below + 1 < n ? below + 1 : below;
    double share = rank - (double)below;
    return (double)sorted[below] * (1 - share) + (double)sorted[above] * share;
}

bt_load_spread bt_load_spread_of(uint64_t *ns, size_t n, const bt_load_percentiles *percentiles)
{
    if (n == 0)
        return (bt_load_spread){0};
    qsort(ns, n, sizeof(*ns), by_value);
    double sum = 0, squares = 0;
    for (size_t i = 0; i < n; i++)
        sum += (double)ns[i];
    double mean = sum / (double)n;
    for (size_t i = 0; i < n; i++)
        squares += ((double)ns[i] - mean) * ((double)ns[i] - mean);
    bt_load_spread spread = {
        .n = n,
        .min = (double)ns[0] / 1e6,
        .mean = mean / 1e6,
        .std = sqrt(squares / (double)n) / 1e6,
        .median = bt_load_percentile(ns, n, 50) / 1e6,
        .max = (double)ns[n - 1] / 1e6,
    };
    for (uint32_t i = 0; i < percentiles->n; i++)
        spread.at[i] = bt_load_percentile(ns, n, percentiles->percent[i]) / 1e6;
    return spread;
}

void bt_load_percentile_name(double percent, char name[BT_LOAD_PERCENTILE_CHARS])
{
    snprintf(name, BT_LOAD_PERCENTILE_CHARS, "p%.5g", percent);
}

/* ---- from the command line ---- */

/* BT_LOAD_N_METRICS when there is none of that name. */
static bt_load_metric find_metric(const char *name, size_t n)
{
    bt_load_metric metric = 0;
    while (metric < BT_LOAD_N_METRICS &&
           (strncmp(metrics[metric].name, name, n) != 0 || metrics[metric].name[n] != '\0'))
        metric++;
    return metric;
}

/* A number from low to high and nothing else. */
static bool read_number(const char *text, double low, double high, double *value)
{
    char *end;
    if (strspn(text, "0123456789.") == 0)
        return false;
    *value = strtod(text, &end);
    return *end == '\0' && *value >= low && *value <= high;
}

baton_status bt_load_goals_parse(const char *const *texts, uint32_t n, bt_load_goals *goals)
{
    for (uint32_t i = 0; i < n; i++) {
        size_t n_name = strcspn(texts[i], ":");
        bt_load_metric metric = find_metric(texts[i], n_name);
        double limit = 0;
        if (metric == BT_LOAD_N_METRICS || !metrics[metric].is_goal || texts[i][n_name] != ':' ||
            !read_number(texts[i] + n_name + 1, 1e-6, 1e9, &limit))
            return bt_fail(BATON_ERR_INVALID_ARG,
                           "--goodput: wanted ttft:MS, tpot:MS or e2el:MS, found %.80s", texts[i]);
        goals->limit_ms[metric] = limit;
        goals->is_set = true;
    }
    return BATON_OK;
}

baton_status bt_load_percentiles_parse(const char *const *texts, uint32_t n,
                                       bt_load_percentiles *percentiles)
{
    if (n > BT_LOAD_MAX_PERCENTILES)
        return bt_fail(BATON_ERR_INVALID_ARG, "--metric-percentiles: wanted at most %d, found %u",
                       BT_LOAD_MAX_PERCENTILES, n);
    for (uint32_t i = 0; i < n; i++) {
        if (!read_number(texts[i], 0, 100, &percentiles->percent[i]))
            return bt_fail(BATON_ERR_INVALID_ARG,
                           "--metric-percentiles: wanted numbers from 0 to 100, found %.80s",
                           texts[i]);
    }
    percentiles->n = n;
    return BATON_OK;
}

baton_status bt_load_metrics_parse(const char *const *texts, uint32_t n,
                                   bool shown[BT_LOAD_N_METRICS])
{
    for (uint32_t i = 0; i < n; i++) {
        bt_load_metric metric = find_metric(texts[i], strlen(texts[i]));
        if (metric == BT_LOAD_N_METRICS)
            return bt_fail(BATON_ERR_INVALID_ARG,
                           "--percentile-metrics: wanted some of ttft, tpot, itl, e2el, "
                           "client_queue_time, found %.80s",
                           texts[i]);
        shown[metric] = true;
    }
    return BATON_OK;
}
