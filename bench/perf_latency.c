/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/perf_latency.h"

#include "bench/perf_plot.h"
#include "bench/perf_quantiles.h"
#include "bench/perf_usage.h"
#include "core/alloc.h"
#include "core/clock.h"
#include "core/fail.h"

#include <inttypes.h>
#include <sched.h>
#include <stdio.h>

/* Long enough for a thread that spins after activity to have gone to sleep. */
enum { SETTLE_NS = 1000 * 1000, GRANT_WAIT_S = 10 };

typedef struct {
    bt_perf_pair pair;
    bool sleep; /* between looks, as --progress thread has it; else poll */
    bt_perf_values first, second;
} bench;

static uint64_t now(void)
{
    return bt_now_ns(&bt_clock_monotonic);
}

static uint64_t grants(const bench *b)
{
    baton_sender_stats stats;
    baton_sender_get_stats(b->pair.sender, &stats);
    return stats.tickets_granted_total;
}

/* No event says so: the sender's counter is watched. A thread of the library needs the core that
 * this one would spin on. */
static baton_status wait_grant(bench *b, uint64_t before)
{
    uint64_t until_ns = now() + GRANT_WAIT_S * BT_NS_PER_S;
    while (grants(b) == before) {
        if (now() >= until_ns)
            return bt_fail(BATON_ERR_ALLOC_TIMEOUT, "perf: nothing was granted within %d s",
                           GRANT_WAIT_S);
        bt_perf_pair_wait(&b->pair, false, 0, -1);
        if (b->sleep)
            sched_yield();
    }
    return BATON_OK;
}

/* Until then nothing is to do; who drives the sender goes on doing so. */
static void settle(bench *b)
{
    for (uint64_t until_ns = now() + SETTLE_NS; now() < until_ns;)
        bt_perf_pair_wait(&b->pair, b->sleep, until_ns, -1);
}

static baton_status push_one(bench *b, uint32_t number, uint64_t *seen_ns, uint64_t *done_ns)
{
    bt_perf_pair *pair = &b->pair;
    char line[BT_PERF_LINE_BYTES];
    baton_transfer transfer;
    baton_sender_event end;
    uint64_t before = grants(b), at_ns;
    BATON_TRY(bt_perf_pair_prepare(pair, number));
    BATON_TRY(bt_perf_pair_begin(pair, number, &transfer));
    BATON_TRY(wait_grant(b, before));
    BATON_TRY(bt_perf_send(&pair->control, "await name=%u sleep=%d", number, b->sleep));
    BATON_TRY(bt_perf_expect(&pair->control, "awaiting", line));
    settle(b);
    uint64_t start_ns = now();
    BATON_TRY(bt_perf_pair_push(pair, transfer, 0));
    BATON_TRY(baton_transfer_finish(pair->sender, transfer));
    BATON_TRY(bt_perf_pair_end(pair, b->sleep, 1, &end));
    *done_ns = now() - start_ns;
    BATON_TRY(bt_perf_expect(&pair->control, "seen", line));
    BATON_TRY(bt_perf_field(line, "at_ns", start_ns, UINT64_MAX, &at_ns));
    *seen_ns = at_ns - start_ns;
    return bt_perf_pair_check(pair, number, number, NULL);
}

static baton_status sample_latency(bench *b)
{
    const bt_perf_options *o = b->pair.options;
    if (!b->sleep)
        bt_perf_pin(0);
    for (uint32_t i = 0; i < o->n_warmup + o->n_samples; i++) {
        uint64_t seen_ns, done_ns;
        BATON_TRY(push_one(b, i, &seen_ns, &done_ns));
        if (i < o->n_warmup)
            continue;
        bt_perf_values_add(&b->first, seen_ns);
        bt_perf_values_add(&b->second, done_ns);
    }
    return BATON_OK;
}

/* A transfer of what was prepared; *granted_ns: from begin until its pages were granted. */
static baton_status grant_one(bench *b, uint32_t name, uint32_t iteration, uint32_t n_sent,
                              uint64_t *granted_ns)
{
    bt_perf_pair *pair = &b->pair;
    baton_transfer transfer;
    baton_sender_event end;
    uint64_t before = grants(b), start_ns = now();
    BATON_TRY(bt_perf_pair_begin(pair, name, &transfer));
    BATON_TRY(wait_grant(b, before));
    *granted_ns = now() - start_ns;
    for (uint32_t page = 0; page < n_sent; page++)
        BATON_TRY(bt_perf_pair_push(pair, transfer, page));
    BATON_TRY(baton_transfer_finish(pair->sender, transfer));
    BATON_TRY(bt_perf_pair_end(pair, true, n_sent, &end));
    return bt_perf_pair_check(pair, name, iteration, NULL);
}

/* Each iteration's keys twice: nothing of them is there, then all of it. */
static baton_status sample_alloc(bench *b)
{
    const bt_perf_options *o = b->pair.options;
    for (uint32_t i = 0; i < o->n_warmup + o->n_samples; i++) {
        uint64_t new_ns, present_ns;
        BATON_TRY(bt_perf_pair_prepare(&b->pair, i));
        BATON_TRY(grant_one(b, 2 * i, i, o->n_pages, &new_ns));
        BATON_TRY(grant_one(b, 2 * i + 1, i, 0, &present_ns));
        if (i < o->n_warmup)
            continue;
        bt_perf_values_add(&b->first, new_ns);
        bt_perf_values_add(&b->second, present_ns);
    }
    return BATON_OK;
}

static void report(bench *b, const char *mode, const char *const names[2],
                   const char *const keys[2], bt_strbuf *out)
{
    bt_perf_quantiles first = bt_perf_quantiles_of(&b->first),
                      second = bt_perf_quantiles_of(&b->second);
    if (b->pair.options->json) {
        bt_perf_json_head(out, mode, &b->pair);
        bt_strbuf_printf(out, "  \"samples\": %u,\n", b->first.n);
        bt_perf_json_row(out, keys[0], &first, ",");
        bt_perf_json_row(out, keys[1], &second, "");
        bt_strbuf_puts(out, "}\n");
        return;
    }
    bt_perf_put_head(out, &b->pair);
    bt_strbuf_printf(out, "%-28s %u\n", "samples", b->first.n);
    bt_perf_put_columns(out);
    bt_perf_put_row(out, names[0], &first);
    bt_perf_put_row(out, names[1], &second);
}

static baton_status run(const bt_perf_options *options, const char *program, bench *b,
                        baton_status (*sample)(bench *b))
{
    *b = (bench){.sleep = options->progress != BATON_PROGRESS_MANUAL};
    BATON_TRY(bt_perf_values_create(options->n_samples, &b->first));
    BATON_TRY(bt_perf_values_create(options->n_samples, &b->second));
    baton_status status = bt_perf_pair_open(options, program, &b->pair);
    return status == BATON_OK ? sample(b) : status;
}

static baton_status finish(bench *b, baton_status status)
{
    bt_perf_values_free(&b->first);
    bt_perf_values_free(&b->second);
    return b->pair.options != NULL ? bt_perf_pair_close(&b->pair, status) : status;
}

/* How many of all samples took at most so long. The values are sorted by now. */
static baton_status draw(const bench *b)
{
    const bt_perf_options *o = b->pair.options;
    char title[160];
    double *shares = bt_calloc(b->first.n, sizeof(*shares));
    if (shares == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "perf: %u samples", b->first.n);
    for (uint32_t i = 0; i < b->first.n; i++)
        shares[i] = 100.0 * (i + 1) / b->first.n;
    const bt_perf_series series[] = {{"seen by receiver", b->first.values, shares, b->first.n},
                                     {"done at sender", b->second.values, shares, b->second.n}};
    snprintf(title, sizeof(title), "baton-perf: one page of %" PRIu64 " bytes, %s, both %s",
             o->page_bytes, bt_perf_pair_path(&b->pair), b->sleep ? "sleep" : "poll");
    const bt_perf_chart chart = {.title = title,
                                 .x_label = "us since the push",
                                 .y_label = "% of samples that took at most so long",
                                 .x_scale = BT_PERF_LOG,
                                 .y_scale = BT_PERF_LINEAR,
                                 .series = series,
                                 .n_series = 2};
    baton_status status = bt_perf_plot_file(&chart, 1, o->plot);
    bt_free(shares);
    return status;
}

baton_status bt_perf_latency(const bt_perf_options *options, const char *program, bt_strbuf *out)
{
    bench b;
    baton_status status = run(options, program, &b, sample_latency);
    if (status == BATON_OK)
        report(&b, "latency",
               (const char *const[]){"push to seen by receiver", "push to done at sender"},
               (const char *const[]){"us", "done_us"}, out);
    if (status == BATON_OK && options->plot != NULL)
        status = draw(&b);
    return finish(&b, status);
}

baton_status bt_perf_alloc(const bt_perf_options *options, const char *program, bt_strbuf *out)
{
    bench b;
    baton_status status = run(options, program, &b, sample_alloc);
    if (status == BATON_OK)
        report(&b, "alloc",
               (const char *const[]){"begin to granted, all new", "begin to granted, all there"},
               (const char *const[]){"us", "present_us"}, out);
    return finish(&b, status);
}
