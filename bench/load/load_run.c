/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/load/load_run.h"

#include "bench/load/load_call.h"
#include "bench/load/load_model.h"
#include "bench/load/load_progress.h"
#include "bench/load/load_workload.h"
#include "core/alloc.h"
#include "core/fail.h"

#include <signal.h>
#include <stdio.h>

enum {
    PROGRESS_MS = 200,
    /* The loop's timers count milliseconds: lateness within this is ours, not the server's. */
    TIMER_SLACK_NS = 2000000,
};

typedef struct {
    const bt_load_options *options;
    bt_load_result *result;
    bt_load_workload *workload;
    bt_loop *loop;
    bt_http_client *client;
    bt_timer *arrival_timer;
    bt_timer *progress_timer;
    bt_deferred refill;
    bt_load_caller caller;
    bt_load_call **calls; /* [concurrency]; NULL: a free place */
    uint64_t start_ns;
    uint64_t due_ns; /* of the next arrival; 0 in a closed loop: at once */
    bt_load_progress progress;
    uint32_t next; /* request to be sent next */
    bool stopping;
} load_run;

static bool is_over(const load_run *run)
{
    return run->progress.n_running == 0 && (run->stopping || run->next == run->options->n_requests);
}

static void fail_unsent(bt_load_record *record)
{
    snprintf(record->kind, sizeof(record->kind), "not sent");
    snprintf(record->detail, sizeof(record->detail), "%s", baton_last_error());
    record->end_ns = record->start_ns;
    record->ended = true;
}

static bt_load_call **free_place(const load_run *run)
{
    bt_load_call **place = run->calls;
    while (*place != NULL)
        place++;
    return place;
}

/* Sends the next request; due_ns is when it should have been. */
static void send_next(load_run *run, uint64_t due_ns)
{
    uint32_t i = run->next++;
    bt_load_record *record = &run->result->records[i];
    bt_strbuf body = {0};
    record->start_ns = due_ns;
    baton_status status = bt_load_workload_body(run->workload, i, run->result->model, &body);
    if (status == BATON_OK)
        status = bt_load_call_start(&run->caller, &body, record, free_place(run));
    bt_strbuf_free(&body);
    if (status == BATON_OK) {
        run->progress.n_running++;
    } else {
        fail_unsent(record);
        run->progress.n_ended++;
        run->progress.n_failed++;
    }
}

/* Sends what is due and has a place, and sleeps until the next is. */
static void refill(void *arg)
{
    load_run *run = arg;
    const bt_load_options *o = run->options;
    uint64_t now_ns = bt_now_ns(&bt_clock_monotonic);
    while (!run->stopping && run->next < o->n_requests &&
           run->progress.n_running < o->concurrency) {
        if (o->rate > 0 && run->due_ns > now_ns) {
            /* Whole milliseconds, rounded up: never early. */
            bt_timer_start(run->arrival_timer,
                           (run->due_ns - now_ns + BT_NS_PER_MS - 1) / BT_NS_PER_MS, 0);
            break;
        }
        uint64_t due_ns = bt_now_ns(&bt_clock_monotonic);
        if (o->rate > 0 && due_ns - run->due_ns > TIMER_SLACK_NS)
            due_ns = run->due_ns;
        if (o->rate > 0)
            run->due_ns += bt_load_workload_gap_ns(run->workload, run->next);
        send_next(run, due_ns);
    }
    if (is_over(run))
        bt_loop_stop(run->loop);
}

static void on_end(void *ctx, bt_load_call *call)
{
    load_run *run = ctx;
    const bt_load_record *record = bt_load_call_record(call);
    bt_load_call **place = run->calls;
    while (*place != call)
        place++;
    *place = NULL;
    run->progress.n_running--;
    run->progress.n_ended++;
    run->progress.n_failed += !record->ok;
    run->progress.n_output_tokens += record->output_tokens;
    bt_loop_defer(run->loop, &run->refill);
}

static void on_progress(void *arg)
{
    load_run *run = arg;
    run->progress.elapsed_ns = bt_now_ns(&bt_clock_monotonic) - run->start_ns;
    bt_load_progress_draw(&run->progress);
}

/* The first signal stops sending and ends what runs; the report is still printed. */
static void on_signal(void *arg)
{
    load_run *run = arg;
    run->stopping = true;
    run->result->interrupted = true;
    for (uint32_t i = 0; i < run->options->concurrency; i++) {
        if (run->calls[i] != NULL)
            bt_load_call_cancel(run->calls[i]);
    }
    bt_loop_defer(run->loop, &run->refill);
}

static baton_status create_parts(load_run *run)
{
    const bt_load_options *o = run->options;
    run->calls = bt_calloc(o->concurrency, sizeof(*run->calls));
    run->result->records = bt_calloc(o->n_requests, sizeof(*run->result->records));
    if (run->calls == NULL || run->result->records == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "load: records of %u requests", o->n_requests);
    run->result->n_requests = o->n_requests;
    BATON_TRY(bt_load_workload_create(o, &run->workload));
    BATON_TRY(bt_loop_create(&run->loop));
    bt_http_client_options client = {.max_idle_per_origin = o->concurrency};
    BATON_TRY(bt_http_client_create(run->loop, &client, &run->client));
    BATON_TRY(bt_timer_create(run->loop, refill, run, &run->arrival_timer));
    BATON_TRY(bt_timer_create(run->loop, on_progress, run, &run->progress_timer));
    BATON_TRY(bt_loop_on_signal(run->loop, SIGINT, on_signal, run));
    return bt_loop_on_signal(run->loop, SIGTERM, on_signal, run);
}

static void destroy_parts(load_run *run)
{
    bt_timer_destroy(run->progress_timer);
    bt_timer_destroy(run->arrival_timer);
    bt_http_client_destroy(run->client);
    bt_loop_destroy(run->loop);
    bt_load_workload_destroy(run->workload);
    bt_free(run->calls);
}

static baton_status find_model(load_run *run)
{
    const bt_load_options *o = run->options;
    if (o->model == NULL)
        return bt_load_model_ask(run->loop, run->client, o, run->result->model,
                                 sizeof(run->result->model));
    snprintf(run->result->model, sizeof(run->result->model), "%s", o->model);
    return BATON_OK;
}

static void send_all(load_run *run)
{
    run->progress.n_requests = run->options->n_requests;
    run->caller = (bt_load_caller){.options = run->options,
                                   .clock = &bt_clock_monotonic,
                                   .client = run->client,
                                   .itl = &run->result->itl,
                                   .on_end = on_end,
                                   .ctx = run};
    run->start_ns = run->due_ns = bt_now_ns(&bt_clock_monotonic);
    bool shows_progress = !run->options->quiet && bt_load_progress_is_wanted();
    if (shows_progress)
        bt_timer_start(run->progress_timer, PROGRESS_MS, PROGRESS_MS);
    bt_timer_start(run->arrival_timer, 0, 0);
    bt_loop_run(run->loop);
    run->result->duration_ns = bt_now_ns(&bt_clock_monotonic) - run->start_ns;
    if (shows_progress)
        bt_load_progress_clear();
}

baton_status bt_load_run(const bt_load_options *options, bt_load_result *result)
{
    *result = (bt_load_result){0};
    load_run run = {.options = options, .result = result, .refill = {.fn = refill, .arg = &run}};
    baton_status status = create_parts(&run);
    if (status == BATON_OK)
        status = find_model(&run);
    if (status == BATON_OK && !result->interrupted)
        send_all(&run);
    destroy_parts(&run);
    return status;
}

void bt_load_result_free(bt_load_result *result)
{
    for (uint32_t i = 0; result->records != NULL && i < result->n_requests; i++)
        bt_strbuf_free(&result->records[i].text);
    bt_free(result->records);
    bt_load_samples_free(&result->itl);
    *result = (bt_load_result){0};
}
