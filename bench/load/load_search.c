/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/load/load_search.h"

#include "core/fail.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

/* Met and failed rates this near each other are one. */
static const double near_enough = 1.05;
/* No server is asked for more or less than this. */
static const double highest_rate = 1e6, lowest_share = 1.0 / 128;

const bt_load_step *bt_load_search_best(const bt_load_search *search)
{
    const bt_load_step *best = NULL;
    for (uint32_t i = 0; i < search->n_steps; i++) {
        const bt_load_step *step = &search->steps[i];
        if (step->met && (best == NULL || step->rate > best->rate))
            best = step;
    }
    return best;
}

double bt_load_search_next(const bt_load_search *search, double first)
{
    const bt_load_step *best = bt_load_search_best(search);
    double low = best != NULL ? best->rate : 0, high = INFINITY;
    for (uint32_t i = 0; i < search->n_steps; i++) {
        const bt_load_step *step = &search->steps[i];
        if (!step->met && step->rate > low && step->rate < high)
            high = step->rate;
    }
    if (search->n_steps == 0)
        return first;
    if (search->n_steps == BT_LOAD_MAX_STEPS || low >= highest_rate ||
        (low == 0 && high <= first * lowest_share) || high <= low * near_enough)
        return 0;
    if (isinf(high))
        return fmin(low * 2, highest_rate);
    return low > 0 ? sqrt(low * high) : high / 2;
}

/* ---- making it ---- */

static baton_status judge(const bt_load_options *o, const bt_load_result *result, double rate,
                          bt_load_step *step)
{
    static const bt_load_percentiles wanted = {{50, 99}, 2};
    bt_load_summary summary;
    BATON_TRY(bt_load_summarize(o, result, &summary));
    *step = (bt_load_step){
        .rate = rate,
        .n_requests = result->n_requests,
        .good_share = summary.n_sent > 0 ? (double)summary.n_good / summary.n_sent : 0,
        .good_per_s = bt_load_per_second(&summary, summary.n_good),
        .ok_per_s = bt_load_per_second(&summary, summary.n_ok),
    };
    step->met = step->good_share >= o->goodput_share;
    for (bt_load_metric m = 0; m < BT_LOAD_N_METRICS; m++) {
        bt_load_samples samples = {0};
        bt_load_collect(result, m, &samples);
        bt_load_spread spread = bt_load_spread_of(samples.ns, samples.n, &wanted);
        step->ms[m][0] = spread.at[0];
        step->ms[m][1] = spread.at[1];
        bt_load_samples_free(&samples);
    }
    return BATON_OK;
}

static void put_head(bt_strbuf *out)
{
    bt_strbuf_printf(out, "%13s %9s %8s %6s %9s %9s %9s %9s\n", "rate", "answered", "goodput",
                     "good", "TTFT p50", "p99 ms", "TPOT p50", "p99 ms");
}

static void put_step(const bt_load_step *step, bt_strbuf *out)
{
    bt_strbuf_printf(out, "%13.2f %9.2f %8.2f %5.1f%%", step->rate, step->ok_per_s,
                     step->good_per_s, step->good_share * 100);
    bt_strbuf_printf(out, " %9.1f %9.1f %9.2f %9.2f  %s\n", step->ms[BT_LOAD_TTFT][0],
                     step->ms[BT_LOAD_TTFT][1], step->ms[BT_LOAD_TPOT][0],
                     step->ms[BT_LOAD_TPOT][1], step->met ? "met" : "not met");
}

/* step NULL: the head. */
static void show_step(const bt_load_step *step)
{
    bt_strbuf line = {0};
    if (step != NULL)
        put_step(step, &line);
    else
        put_head(&line);
    fputs(bt_strbuf_text(&line), stderr);
    bt_strbuf_free(&line);
}

/* Enough requests for a share of them to mean something, and enough time for queues to grow. */
static uint32_t requests_of(const bt_load_options *o, double rate)
{
    double n = fmin(rate * o->n_turns * o->step_ms / 1e3, BT_LOAD_MAX_REQUESTS);
    return n > o->n_requests ? (uint32_t)n : o->n_requests;
}

/* One step; it becomes *best when it is better than those before. */
static baton_status make_step(const bt_load_options *o, bt_load_runner *runner, double rate,
                              uint32_t *base, bt_load_search *search, bt_load_result *best)
{
    char title[32];
    snprintf(title, sizeof(title), "%.2f/s ", rate);
    bt_load_phase phase = {
        .title = title, .n_requests = requests_of(o, rate), .base = *base, .rate = rate};
    bt_load_result result;
    baton_status status = bt_load_run(runner, &phase, &result);
    const bt_load_step *before = bt_load_search_best(search);
    bt_load_step step = {0};
    if (status == BATON_OK)
        status = judge(o, &result, rate, &step);
    /* The next step's prompts are others, which no cache knows. */
    *base += (phase.n_requests / o->n_turns + 1) * o->n_turns;
    if (status == BATON_OK && !result.interrupted) {
        search->steps[search->n_steps++] = step;
        if (!o->quiet)
            show_step(&step);
    }
    if (best->records == NULL || before == NULL || (step.met && rate > before->rate)) {
        bt_load_result_free(best);
        *best = result;
    } else {
        bool interrupted = result.interrupted;
        bt_load_result_free(&result);
        best->interrupted = interrupted;
    }
    return status;
}

baton_status bt_load_search_run(const bt_load_options *o, bt_load_runner *runner,
                                bt_load_search *search, bt_load_result *best)
{
    uint32_t base = 0;
    double first = o->rate > 0 ? o->rate : 1, rate;
    *search = (bt_load_search){0};
    *best = (bt_load_result){0};
    if (!o->quiet)
        show_step(NULL);
    while (!best->interrupted && (rate = bt_load_search_next(search, first)) > 0)
        BATON_TRY(make_step(o, runner, rate, &base, search, best));
    return BATON_OK;
}

/* ---- telling it ---- */

static int by_rate(const void *a, const void *b)
{
    double x = ((const bt_load_step *)a)->rate, y = ((const bt_load_step *)b)->rate;
    return (x > y) - (x < y);
}

void bt_load_search_table(const bt_load_search *search, const bt_load_options *o, bt_strbuf *out)
{
    bt_load_search sorted = *search;
    const bt_load_step *best = bt_load_search_best(search);
    qsort(sorted.steps, sorted.n_steps, sizeof(sorted.steps[0]), by_rate);
    put_head(out);
    for (uint32_t i = 0; i < sorted.n_steps; i++)
        put_step(&sorted.steps[i], out);
    if (best == NULL)
        bt_strbuf_printf(out, "\nno rate had %g %% of the requests within the objectives\n\n",
                         o->goodput_share * 100);
    else
        bt_strbuf_printf(out,
                         "\nhighest rate with %g %% within the objectives: %.2f req/s, goodput "
                         "%.2f req/s; that step:\n\n",
                         o->goodput_share * 100, best->rate, best->good_per_s);
}

void bt_load_search_json(const bt_load_search *search, bt_strbuf *out)
{
    const bt_load_step *best = bt_load_search_best(search);
    bt_strbuf_puts(out, ",\n  \"highest_rate\": ");
    if (best != NULL)
        bt_strbuf_printf(out, "%.10g", best->rate);
    else
        bt_strbuf_puts(out, "null");
    bt_strbuf_puts(out, ",\n  \"steps\": [");
    for (uint32_t i = 0; i < search->n_steps; i++) {
        const bt_load_step *step = &search->steps[i];
        bt_strbuf_printf(out,
                         "%s\n    {\"request_rate\": %.10g, \"num_prompts\": %u, "
                         "\"good_share\": %.6g, \"request_goodput\": %.6g, "
                         "\"request_throughput\": %.6g, \"met\": %s",
                         i > 0 ? "," : "", step->rate, step->n_requests, step->good_share,
                         step->good_per_s, step->ok_per_s, step->met ? "true" : "false");
        for (bt_load_metric m = 0; m < BT_LOAD_N_METRICS; m++)
            bt_strbuf_printf(out, ", \"median_%s_ms\": %.6g, \"p99_%s_ms\": %.6g",
                             bt_load_metric_name(m), step->ms[m][0], bt_load_metric_name(m),
                             step->ms[m][1]);
        bt_strbuf_putc(out, '}');
    }
    bt_strbuf_puts(out, "]");
}
