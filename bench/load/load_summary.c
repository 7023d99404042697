/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/load/load_summary.h"

#include "core/alloc.h"
#include "core/clock.h"
#include "core/fail.h"

#include <stdlib.h>
#include <string.h>

/* ---- one request ---- */

bool bt_load_value_ns(const bt_load_record *record, bt_load_metric metric, uint64_t *ns)
{
    if (metric == BT_LOAD_ITL || (metric <= BT_LOAD_TPOT && record->first_ns == 0) ||
        (metric == BT_LOAD_TPOT && record->output_tokens < 2))
        return false;
    if (metric == BT_LOAD_TTFT)
        *ns = record->first_ns - record->start_ns;
    else if (metric == BT_LOAD_TPOT)
        *ns = (record->last_ns - record->first_ns) / (record->output_tokens - 1);
    else if (metric == BT_LOAD_E2EL)
        *ns = record->end_ns - record->start_ns;
    else
        *ns = record->sent_ns - record->start_ns;
    return true;
}

bool bt_load_is_good(const bt_load_goals *goals, const bt_load_record *record)
{
    uint64_t ns;
    for (bt_load_metric m = 0; m < BT_LOAD_N_METRICS; m++) {
        if (goals->limit_ms[m] > 0 && bt_load_value_ns(record, m, &ns) &&
            (double)ns > goals->limit_ms[m] * 1e6)
            return false;
    }
    return record->ok;
}

/* ---- all of them ---- */

void bt_load_collect(const bt_load_result *result, bt_load_metric metric, bt_load_samples *samples)
{
    for (uint32_t i = 0; i < result->n_requests; i++) {
        const bt_load_record *record = &result->records[i];
        uint64_t ns;
        if (record->ok && bt_load_value_ns(record, metric, &ns))
            bt_load_samples_add(samples, ns);
        samples->failed = samples->failed || record->itl.failed;
        for (size_t k = 0; record->ok && metric == BT_LOAD_ITL && k < record->itl.n; k++)
            bt_load_samples_add(samples, record->itl.ns[k]);
    }
}

static void count_error(const bt_load_record *record, bt_load_summary *summary)
{
    size_t i = 0;
    while (i < summary->n_errors && strcmp(summary->errors[i].kind, record->kind) != 0)
        i++;
    if (i == BT_LOAD_MAX_KINDS) {
        i = BT_LOAD_MAX_KINDS - 1;
        summary->errors[i].kind = "other";
    } else if (i == summary->n_errors) {
        summary->errors[summary->n_errors++] = (bt_load_error){record->kind, record->detail, 0};
    }
    summary->errors[i].n++;
}

static int by_count(const void *a, const void *b)
{
    uint32_t x = ((const bt_load_error *)a)->n, y = ((const bt_load_error *)b)->n;
    return (x < y) - (x > y);
}

static void add_record(const bt_load_goals *goals, const bt_load_record *record, bt_load_summary *s)
{
    s->n_sent += record->start_ns != 0;
    if (record->ended && (s->slowest == NULL || record->end_ns - record->start_ns >
                                                    s->slowest->end_ns - s->slowest->start_ns))
        s->slowest = record;
    if (record->ended && !record->ok)
        count_error(record, s);
    if (!record->ok)
        return;
    s->n_ok++;
    s->n_good += goals->is_set && bt_load_is_good(goals, record);
    s->prompt_tokens += record->prompt_tokens;
    s->cached_tokens += record->cached_tokens;
    s->output_tokens += record->output_tokens;
}

/* ---- over time ---- */

typedef struct {
    uint64_t at_ns;
    int change;
} edge;

/* Ends before beginnings: a request that begins as another ends does not run beside it. */
static int by_time(const void *a, const void *b)
{
    const edge *x = a, *y = b;
    if (x->at_ns != y->at_ns)
        return x->at_ns < y->at_ns ? -1 : 1;
    return x->change - y->change;
}

static baton_status find_peak_running(const bt_load_result *result, uint32_t n_ok, uint32_t *peak)
{
    if (n_ok == 0)
        return BATON_OK;
    edge *edges = bt_calloc(n_ok, 2 * sizeof(*edges));
    if (edges == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "load: when %u requests ran", n_ok);
    size_t n = 0;
    for (uint32_t i = 0; i < result->n_requests; i++) {
        if (!result->records[i].ok)
            continue;
        edges[n++] = (edge){result->records[i].sent_ns, 1};
        edges[n++] = (edge){result->records[i].end_ns, -1};
    }
    qsort(edges, n, sizeof(*edges), by_time);
    int running = 0;
    for (size_t i = 0; i < n; i++) {
        running += edges[i].change;
        if (running > (int)*peak)
            *peak = (uint32_t)running;
    }
    bt_free(edges);
    return BATON_OK;
}

static void count_token(const bt_load_result *result, bt_load_timeline *t, uint64_t at_ns)
{
    uint64_t second = bt_elapsed_ns(at_ns, result->began_ns) / BT_NS_PER_S;
    if (second < t->n)
        t->tokens[second]++;
}

static void add_to_timeline(const bt_load_result *result, const bt_load_record *record,
                            bt_load_timeline *t)
{
    const uint64_t half = BT_NS_PER_S / 2;
    uint64_t from_ns = bt_elapsed_ns(record->sent_ns, result->began_ns);
    uint64_t until_ns = bt_elapsed_ns(record->end_ns, result->began_ns);
    for (uint64_t i = (from_ns + half) / BT_NS_PER_S; i < t->n; i++) {
        if (i * BT_NS_PER_S + half > until_ns)
            break;
        t->running[i]++;
    }
    if (record->first_ns == 0)
        return;
    uint64_t at_ns = record->first_ns;
    count_token(result, t, at_ns);
    for (size_t k = 0; k < record->itl.n; k++)
        count_token(result, t, at_ns += record->itl.ns[k]);
}

baton_status bt_load_timeline_make(const bt_load_result *result, bt_load_timeline *t)
{
    *t = (bt_load_timeline){.n = (uint32_t)(result->duration_ns / BT_NS_PER_S) + 1};
    t->tokens = bt_calloc(t->n, sizeof(*t->tokens));
    t->running = bt_calloc(t->n, sizeof(*t->running));
    if (t->tokens == NULL || t->running == NULL) {
        bt_load_timeline_free(t);
        return bt_fail(BATON_ERR_NO_MEMORY, "load: the seconds of the run");
    }
    for (uint32_t i = 0; i < result->n_requests; i++) {
        if (result->records[i].ok)
            add_to_timeline(result, &result->records[i], t);
    }
    return BATON_OK;
}

void bt_load_timeline_free(bt_load_timeline *t)
{
    bt_free(t->tokens);
    bt_free(t->running);
    *t = (bt_load_timeline){0};
}

static baton_status find_peaks(const bt_load_result *result, bt_load_summary *s)
{
    bt_load_timeline timeline;
    BATON_TRY(find_peak_running(result, s->n_ok, &s->peak_running));
    BATON_TRY(bt_load_timeline_make(result, &timeline));
    for (uint32_t i = 0; i < timeline.n; i++) {
        if (timeline.tokens[i] > s->peak_tokens_per_s)
            s->peak_tokens_per_s = (uint32_t)timeline.tokens[i];
    }
    bt_load_timeline_free(&timeline);
    return BATON_OK;
}

/* ---- the whole ---- */

baton_status bt_load_summarize(const bt_load_options *options, const bt_load_result *result,
                               bt_load_summary *s)
{
    *s = (bt_load_summary){.n_requests = result->n_requests,
                           .seconds = (double)result->duration_ns / 1e9};
    for (uint32_t i = 0; i < result->n_requests; i++)
        add_record(&options->goals, &result->records[i], s);
    qsort(s->errors, s->n_errors, sizeof(s->errors[0]), by_count);
    for (bt_load_metric m = 0; m < BT_LOAD_N_METRICS; m++) {
        bt_load_samples samples = {0};
        bt_load_collect(result, m, &samples);
        bool is_short = samples.failed;
        s->spread[m] = bt_load_spread_of(samples.ns, samples.n, &options->percentiles);
        bt_load_samples_free(&samples);
        if (is_short)
            return bt_fail(BATON_ERR_NO_MEMORY, "load: durations of %u requests",
                           result->n_requests);
    }
    return find_peaks(result, s);
}

double bt_load_per_second(const bt_load_summary *s, uint64_t n)
{
    return s->seconds > 0 ? (double)n / s->seconds : 0;
}
