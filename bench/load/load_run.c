/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/load/load_run.h"

#include "bench/load/load_arrivals.h"
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
    MAX_IDLE_CONNECTIONS = 65536,
};
/* No measured request has such a number. */
static const uint32_t warm_up_base = UINT32_C(0x80000000);

/* A turn that waits for its time. */
typedef struct {
    uint64_t due_ns;
    uint32_t i;
} next_turn;

struct bt_load_runner {
    const bt_load_options *options;
    bt_load_workload *workload;
    bt_loop *loop;
    bt_http_client *client;
    bt_timer *arrival_timer;
    bt_timer *progress_timer;
    bt_deferred refill;
    bt_load_caller caller;
    char model[BT_LOAD_MODEL_BYTES];
    bool stopping;

    /* Of the phase that runs. */
    const bt_load_phase *phase;
    bt_load_result *result;
    bt_load_call **calls; /* [n_requests]; NULL: not running */
    uint64_t *due_ns;     /* [n_conversations], of their first turns; NULL: when there is a place */
    uint32_t n_conversations, n_begun;
    next_turn *turns; /* ring of [n_conversations]; a turn is due after all that are before it */
    uint32_t turns_head, n_turns;
    bt_load_progress progress;
    bool over;
};

/* ---- what is sent when ---- */

static void fail_unsent(bt_load_record *record)
{
    snprintf(record->kind, sizeof(record->kind), "not sent");
    snprintf(record->detail, sizeof(record->detail), "%s", baton_last_error());
    record->end_ns = record->start_ns;
    record->ended = true;
}

static void add_turn(bt_load_runner *run, uint32_t i)
{
    if (i >= run->phase->n_requests || i % run->options->n_turns == 0)
        return;
    uint32_t tail = (uint32_t)(((uint64_t)run->turns_head + run->n_turns++) % run->n_conversations);
    run->turns[tail] = (next_turn){.due_ns = bt_now_ns(&bt_clock_monotonic) +
                                             run->options->turn_delay_ms * BT_NS_PER_MS,
                                   .i = i};
}

static void send_request(bt_load_runner *run, uint32_t i, uint64_t due_ns)
{
    bt_load_record *record = &run->result->records[i];
    bt_strbuf body = {0};
    record->sent_ns = bt_now_ns(&bt_clock_monotonic);
    bool is_late = record->sent_ns > due_ns && record->sent_ns - due_ns > TIMER_SLACK_NS;
    record->start_ns = is_late ? due_ns : record->sent_ns;
    baton_status status = bt_load_workload_body(
        run->workload, run->phase->base + i, record - i % run->options->n_turns, run->model, &body);
    if (status == BATON_OK)
        status = bt_load_call_start(&run->caller, &body, record, &run->calls[i]);
    bt_strbuf_free(&body);
    if (status == BATON_OK) {
        run->progress.n_running++;
    } else {
        fail_unsent(record);
        run->progress.n_ended++;
        run->progress.n_failed++;
        add_turn(run, i + 1);
    }
}

/* When the next request is due: a turn whose time has come goes before a new conversation. NEVER:
 * nothing is left, or waits for answers. */
static uint64_t peek(const bt_load_runner *run, uint64_t now_ns, bool *is_turn)
{
    uint64_t turn_ns = run->n_turns > 0 ? run->turns[run->turns_head].due_ns : BT_NEVER_NS;
    uint64_t fresh_ns = BT_NEVER_NS;
    if (run->n_begun < run->n_conversations)
        fresh_ns = run->due_ns != NULL ? run->result->began_ns + run->due_ns[run->n_begun] : now_ns;
    *is_turn = turn_ns <= fresh_ns || turn_ns <= now_ns;
    return *is_turn ? turn_ns : fresh_ns;
}

static uint32_t take(bt_load_runner *run, bool is_turn)
{
    if (!is_turn)
        return run->n_begun++ * run->options->n_turns;
    uint32_t i = run->turns[run->turns_head].i;
    run->turns_head = (run->turns_head + 1) % run->n_conversations;
    run->n_turns--;
    return i;
}

/* Sends what is due and has a place, and sleeps until the next is. */
static void refill(void *arg)
{
    bt_load_runner *run = arg;
    bool is_turn = false;
    uint64_t due_ns = BT_NEVER_NS;
    if (run->phase == NULL) { /* a signal before or between phases */
        bt_loop_stop(run->loop);
        return;
    }
    while (!run->stopping && run->progress.n_running < run->options->concurrency) {
        uint64_t now_ns = bt_now_ns(&bt_clock_monotonic);
        due_ns = peek(run, now_ns, &is_turn);
        if (due_ns == BT_NEVER_NS)
            break;
        if (due_ns > now_ns) { /* whole milliseconds, rounded up: never early */
            bt_timer_start(run->arrival_timer, (due_ns - now_ns + BT_NS_PER_MS - 1) / BT_NS_PER_MS,
                           0);
            break;
        }
        send_request(run, take(run, is_turn), due_ns);
    }
    run->over = run->progress.n_running == 0 && (run->stopping || due_ns == BT_NEVER_NS);
    if (run->over)
        bt_loop_stop(run->loop);
}

static void on_end(void *ctx, bt_load_call *call)
{
    bt_load_runner *run = ctx;
    const bt_load_record *record = bt_load_call_record(call);
    uint32_t i = (uint32_t)(record - run->result->records);
    run->calls[i] = NULL;
    run->progress.n_running--;
    run->progress.n_ended++;
    run->progress.n_failed += !record->ok;
    run->progress.n_output_tokens += record->output_tokens;
    add_turn(run, i + 1);
    bt_loop_defer(run->loop, &run->refill);
}

static void on_progress(void *arg)
{
    bt_load_runner *run = arg;
    run->progress.elapsed_ns = bt_now_ns(&bt_clock_monotonic) - run->result->began_ns;
    bt_load_progress_draw(&run->progress);
}

/* The first signal stops sending and ends what runs; the report is still printed. */
static void on_signal(void *arg)
{
    bt_load_runner *run = arg;
    run->stopping = true;
    for (uint32_t i = 0; run->phase != NULL && i < run->phase->n_requests; i++) {
        if (run->calls[i] != NULL)
            bt_load_call_cancel(run->calls[i]);
    }
    bt_loop_defer(run->loop, &run->refill);
}

/* ---- phases ---- */

static baton_status prepare(bt_load_runner *run, const bt_load_phase *phase)
{
    uint32_t n = phase->n_requests, n_turns = run->options->n_turns;
    run->n_conversations = n / n_turns + (n % n_turns != 0);
    run->n_begun = run->turns_head = run->n_turns = 0;
    run->calls = bt_calloc(n, sizeof(*run->calls));
    run->turns = bt_calloc(run->n_conversations, sizeof(*run->turns));
    run->result->records = bt_calloc(n, sizeof(*run->result->records));
    if (phase->rate > 0)
        run->due_ns = bt_calloc(run->n_conversations, sizeof(*run->due_ns));
    if (run->calls == NULL || run->turns == NULL || run->result->records == NULL ||
        (phase->rate > 0 && run->due_ns == NULL))
        return bt_fail(BATON_ERR_NO_MEMORY, "load: records of %u requests", n);
    run->result->n_requests = n;
    if (phase->rate > 0)
        bt_load_arrivals(run->options, phase->rate, run->n_conversations, run->due_ns);
    return BATON_OK;
}

static void send_all(bt_load_runner *run)
{
    run->progress =
        (bt_load_progress){.title = run->phase->title, .n_requests = run->phase->n_requests};
    run->result->began_ns = bt_now_ns(&bt_clock_monotonic);
    bool shows_progress = !run->options->quiet && bt_load_progress_is_wanted();
    if (shows_progress)
        bt_timer_start(run->progress_timer, PROGRESS_MS, PROGRESS_MS);
    bt_timer_start(run->arrival_timer, 0, 0);
    /* A stop that came late in the phase before ends a run of the loop at once. */
    for (run->over = false; !run->over;)
        bt_loop_run(run->loop);
    run->result->duration_ns = bt_now_ns(&bt_clock_monotonic) - run->result->began_ns;
    bt_timer_stop(run->arrival_timer);
    bt_timer_stop(run->progress_timer);
    if (shows_progress)
        bt_load_progress_clear();
}

baton_status bt_load_run(bt_load_runner *run, const bt_load_phase *phase, bt_load_result *result)
{
    *result = (bt_load_result){.rate = phase->rate};
    snprintf(result->model, sizeof(result->model), "%s", run->model);
    run->result = result;
    baton_status status = prepare(run, phase);
    run->phase = phase;
    if (status == BATON_OK && !run->stopping)
        send_all(run);
    result->interrupted = run->stopping;
    run->phase = NULL;
    bt_free(run->calls);
    bt_free(run->turns);
    bt_free(run->due_ns);
    run->calls = NULL;
    run->turns = NULL;
    run->due_ns = NULL;
    return status;
}

baton_status bt_load_warm_up(bt_load_runner *run)
{
    const bt_load_options *o = run->options;
    if (o->n_warmups == 0)
        return BATON_OK;
    bt_load_result result;
    const bt_load_phase phase = {.title = "warm-up ",
                                 .n_requests = o->n_warmups,
                                 .base = warm_up_base / o->n_turns * o->n_turns};
    baton_status status = bt_load_run(run, &phase, &result);
    bt_load_result_free(&result);
    return status;
}

void bt_load_result_free(bt_load_result *result)
{
    for (uint32_t i = 0; result->records != NULL && i < result->n_requests; i++)
        bt_load_record_free(&result->records[i]);
    bt_free(result->records);
    *result = (bt_load_result){0};
}

/* ---- the runner ---- */

static baton_status find_model(bt_load_runner *run)
{
    const bt_load_options *o = run->options;
    if (o->model == NULL)
        return bt_load_model_ask(run->loop, run->client, o, run->model, sizeof(run->model));
    snprintf(run->model, sizeof(run->model), "%s", o->model);
    return BATON_OK;
}

static baton_status create_parts(bt_load_runner *run)
{
    const bt_load_options *o = run->options;
    BATON_TRY(bt_load_workload_create(o, &run->workload));
    BATON_TRY(bt_loop_create(&run->loop));
    bt_http_client_options client = {.max_idle_per_origin = o->concurrency < MAX_IDLE_CONNECTIONS
                                                                ? o->concurrency
                                                                : MAX_IDLE_CONNECTIONS};
    BATON_TRY(bt_http_client_create(run->loop, &client, &run->client));
    BATON_TRY(bt_timer_create(run->loop, refill, run, &run->arrival_timer));
    BATON_TRY(bt_timer_create(run->loop, on_progress, run, &run->progress_timer));
    BATON_TRY(bt_loop_on_signal(run->loop, SIGINT, on_signal, run));
    BATON_TRY(bt_loop_on_signal(run->loop, SIGTERM, on_signal, run));
    return find_model(run);
}

baton_status bt_load_runner_create(const bt_load_options *options, bt_load_runner **runner_p)
{
    bt_load_runner *run = bt_calloc(1, sizeof(*run));
    if (run == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "load: a runner");
    run->options = options;
    run->refill = (bt_deferred){.fn = refill, .arg = run};
    baton_status status = create_parts(run);
    if (status != BATON_OK) {
        bt_load_runner_destroy(run);
        return status;
    }
    run->caller = (bt_load_caller){.options = options,
                                   .clock = &bt_clock_monotonic,
                                   .client = run->client,
                                   .on_end = on_end,
                                   .ctx = run};
    *runner_p = run;
    return BATON_OK;
}

void bt_load_runner_destroy(bt_load_runner *run)
{
    if (run == NULL)
        return;
    bt_timer_destroy(run->progress_timer);
    bt_timer_destroy(run->arrival_timer);
    bt_http_client_destroy(run->client);
    bt_loop_destroy(run->loop);
    bt_load_workload_destroy(run->workload);
    bt_free(run);
}
