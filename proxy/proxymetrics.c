/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/proxymetrics.h"
#include "core/promtext.h"

#include <stdio.h>
#include <string.h>
#include <sys/resource.h>

#define P "baton_proxy_"

static const unsigned codes[BT_N_CODES] = {200, 400, 401, 403, 404, 405, 408, 409,
                                           413, 422, 429, 499, 500, 502, 503, 504};
static const char *const route_names[BT_N_ROUTE_IDS] = {"completions", "chat",   "tokenize",
                                                        "detokenize",  "models", "other"};
static const char *const phase_names[BT_N_PHASES] = {"tokenize", "room_wait",    "prefill",
                                                     "kv_wait",  "decode_first", "decode"};
static const char *const bypass_names[BT_N_BYPASS] = {"several", "short", "prefix", "front_end"};
static const char *const later_names[BT_N_LATER] = {"body", "tokenize", "token", "stop"};

void bt_count_request(bt_proxy_metrics *metrics, bt_route_id route, unsigned code)
{
    size_t i = 0;
    while (i < BT_N_CODES && codes[i] != code)
        i++;
    if (i < BT_N_CODES)
        bt_count(&metrics->requests[route][i]);
    else /* an unlisted 2xx counts as 200, 4xx as 400, the rest as 500 */
        bt_count_request(metrics, route, code < 300 ? 200 : code < 500 ? 400 : 500);
}

const char *bt_phase_name(bt_phase phase)
{
    return phase < BT_N_PHASES ? phase_names[phase] : "?";
}

/* Sum over the loops of the counter at the same place as `at` in the first loop's struct. */
static uint64_t sum(const bt_metrics_view *view, const bt_counter *at)
{
    size_t offset = (size_t)((const char *)at - (const char *)view->loops[0]);
    uint64_t total = 0;
    for (uint32_t i = 0; i < view->n_loops; i++)
        total += bt_counted((const bt_counter *)((const char *)view->loops[i] + offset));
    return total;
}

static void print_histogram(const bt_metrics_view *view, const bt_histogram *at, const char *name,
                            const bt_prom_label *labels, size_t n_labels, bt_strbuf *out)
{
    size_t offset = (size_t)((const char *)at - (const char *)view->loops[0]);
    bt_histogram total = {0};
    for (uint32_t i = 0; i < view->n_loops; i++) {
        bt_histogram one;
        bt_histogram_snapshot((const bt_histogram *)((const char *)view->loops[i] + offset), &one);
        bt_histogram_merge(&total, &one);
    }
    bt_prom_histogram(out, name, labels, n_labels, &total, &bt_prom_seconds);
}

static void print_requests(const bt_metrics_view *view, bt_strbuf *out)
{
    const bt_proxy_metrics *m = view->loops[0];
    bt_prom_family(out, P "requests_total", BT_PROM_COUNTER, "Requests answered.");
    for (size_t route = 0; route < BT_N_ROUTE_IDS; route++) {
        for (size_t i = 0; i < BT_N_CODES; i++) {
            uint64_t n = sum(view, &m->requests[route][i]);
            char code[8];
            snprintf(code, sizeof(code), "%u", codes[i]);
            bt_prom_label labels[] = {{"route", route_names[route]}, {"code", code}};
            if (n > 0)
                bt_prom_u64(out, P "requests_total", labels, 2, n);
        }
    }
}

/* One family with one label that takes n values. */
static void print_labelled(const bt_metrics_view *view, const bt_counter *counters,
                           const char *const *values, size_t n, const char *label, const char *name,
                           const char *help, bt_strbuf *out)
{
    bt_prom_family(out, name, BT_PROM_COUNTER, help);
    for (size_t i = 0; i < n; i++) {
        bt_prom_label labels[] = {{label, values[i]}};
        bt_prom_u64(out, name, labels, 1, sum(view, &counters[i]));
    }
}

static void print_plain(bt_strbuf *out, const char *name, const char *help, uint64_t value)
{
    bt_prom_family(out, name, BT_PROM_COUNTER, help);
    bt_prom_u64(out, name, NULL, 0, value);
}

static void print_legs(const bt_metrics_view *view, bt_strbuf *out)
{
    const bt_proxy_metrics *m = view->loops[0];
    const char *const legs[] = {"prefill", "decode"};
    const char *results[BT_N_HEARD];
    for (int i = 0; i < BT_N_HEARD; i++)
        results[i] = bt_heard_name((bt_heard)i);
    print_labelled(view, m->retries, legs, 2, "leg", P "retries_total",
                   "Attempts made again, by the leg that failed.", out);
    print_labelled(view, m->cancels, phase_names, BT_N_PHASES, "phase", P "cancels_total",
                   "Requests whose client left, by phase.", out);
    print_labelled(view, m->notices, results, BT_N_HEARD, "result", P "kv_notices_total",
                   "Notices about attempts of this process.", out);
    print_labelled(view, m->later, later_names, BT_N_LATER, "reason", P "first_token_later_total",
                   "Requests whose first token was left to the decode engine.", out);
    print_labelled(view, m->prefix_asked, legs, 2, "leg", P "prefix_prompt_tokens_total",
                   "Tokens of prompts for which prefix_aware chose an engine.", out);
    print_labelled(view, m->prefix_matched, legs, 2, "leg", P "prefix_matched_tokens_total",
                   "Of these, tokens that the chosen engine had seen before.", out);
    print_labelled(view, m->bypasses, bypass_names, BT_N_BYPASS, "reason", P "bypass_total",
                   "Requests sent to a decode engine alone.", out);
    print_plain(out, P "room_waits_total",
                "Times a request waited for a decode engine to have room for its KV.",
                sum(view, &m->room_waits));
    print_plain(out, P "cold_pairs_total",
                "Hand-offs between engines that had not handed over to each other before.",
                sum(view, &m->cold_pairs));
    print_plain(out, P "local_queue_full_total",
                "Requests handed over only because decode's own queue was full.",
                sum(view, &m->local_queue_full));
    print_plain(out, P "answered_by_prefill_total", "Answers that ended with the first token.",
                sum(view, &m->answered_by_prefill));
    print_plain(out, P "kv_params_missing_total",
                "Answers of prefill engines without the hand-off that they were asked for.",
                sum(view, &m->params_missing));
    print_plain(out, P "engine_aborts_total", "Engines told that a leg of theirs has ended.",
                sum(view, &m->aborts));
    print_plain(out, P "kv_status_asked_total", "Late notices asked for.",
                sum(view, &m->status_asked));
    print_plain(out, P "kv_released_total", "Hand-offs given back unused.",
                sum(view, &m->released));
    print_plain(out, P "relay_bytes_total", "Bytes of answers sent to clients.",
                sum(view, &m->relay_bytes));
    print_plain(out, P "relay_events_total", "Events of answers that were merged.",
                sum(view, &m->relay_events));
    print_plain(out, P "shed_total", "Requests refused because of max-inflight.",
                sum(view, &m->shed));
}

static void print_times(const bt_metrics_view *view, bt_strbuf *out)
{
    const bt_proxy_metrics *m = view->loops[0];
    bt_prom_family(out, P "ttft_seconds", BT_PROM_HISTOGRAM, "Arrival to the first byte out.");
    print_histogram(view, &m->ttft, P "ttft_seconds", NULL, 0, out);
    bt_prom_family(out, P "duration_seconds", BT_PROM_HISTOGRAM, "Arrival to the end.");
    print_histogram(view, &m->duration, P "duration_seconds", NULL, 0, out);
    bt_prom_family(out, P "phase_seconds", BT_PROM_HISTOGRAM, "Time in each phase.");
    for (size_t i = 0; i < BT_N_PHASES; i++) {
        bt_prom_label labels[] = {{"phase", phase_names[i]}};
        print_histogram(view, &m->phases[i], P "phase_seconds", labels, 1, out);
    }
}

typedef enum {
    WORKER_INFLIGHT,
    WORKER_QUEUED_TOKENS,
    WORKER_HELD_TOKENS,
    WORKER_REQUESTS,
    WORKER_FAILURES,
    WORKER_UP
} worker_figure;

static uint64_t figure_of(const bt_worker *worker, worker_figure figure)
{
    switch (figure) {
    case WORKER_INFLIGHT:
        return atomic_load_explicit(&worker->load->legs, memory_order_relaxed);
    case WORKER_QUEUED_TOKENS:
        return atomic_load_explicit(&worker->load->queued_tokens, memory_order_relaxed);
    case WORKER_HELD_TOKENS:
        return atomic_load_explicit(&worker->load->held_tokens, memory_order_relaxed);
    case WORKER_REQUESTS:
        return bt_counted(&worker->requests);
    case WORKER_FAILURES:
        return bt_counted(&worker->failures);
    case WORKER_UP:
        return !atomic_load_explicit(&worker->load->is_down, memory_order_relaxed);
    }
    return 0;
}

static void print_worker_figure(const bt_metrics_view *view, worker_figure figure, const char *name,
                                bt_prom_type type, const char *help, bt_strbuf *out)
{
    const bt_worker_pool *pools[] = {view->prefill, view->decode};
    bt_prom_family(out, name, type, help);
    for (size_t p = 0; p < 2; p++) {
        for (uint32_t i = 0; i < pools[p]->n_workers; i++) {
            const bt_worker *worker = &pools[p]->workers[i];
            bt_prom_label labels[] = {{"worker", worker->name},
                                      {"role", p == 0 ? "prefill" : "decode"}};
            bt_prom_u64(out, name, labels, 2, figure_of(worker, figure));
        }
    }
}

static void print_workers(const bt_metrics_view *view, bt_strbuf *out)
{
    print_worker_figure(view, WORKER_INFLIGHT, P "worker_inflight", BT_PROM_GAUGE,
                        "Legs an engine is working on.", out);
    print_worker_figure(view, WORKER_QUEUED_TOKENS, P "worker_queued_tokens", BT_PROM_GAUGE,
                        "Prompt tokens of those legs that the engine is to compute.", out);
    print_worker_figure(view, WORKER_HELD_TOKENS, P "worker_held_tokens", BT_PROM_GAUGE,
                        "Tokens whose KV those legs keep, or will keep, in the engine.", out);
    print_worker_figure(view, WORKER_REQUESTS, P "worker_requests_total", BT_PROM_COUNTER,
                        "Legs sent to an engine.", out);
    print_worker_figure(view, WORKER_FAILURES, P "worker_failures_total", BT_PROM_COUNTER,
                        "Legs that an engine failed.", out);
    print_worker_figure(view, WORKER_UP, P "worker_up", BT_PROM_GAUGE,
                        "0 while an engine cannot be reached.", out);
}

static void print_control(const bt_kvcontrol_metrics *control, bt_strbuf *out)
{
    print_plain(out, P "notice_frames_total", "Frames on the notice socket.",
                bt_counted(&control->frames));
    print_plain(out, P "notice_malformed_total", "Frames that could not be read.",
                bt_counted(&control->malformed));
    print_plain(out, P "notice_foreign_total", "Notices for other or former proxies.",
                bt_counted(&control->foreign));
    print_plain(out, P "kv_former_released_total",
                "Hand-offs of a former life of this proxy that were ready, and released.",
                bt_counted(&control->former));
    print_plain(out, P "notice_dropped_total", "Notices or questions a full queue refused.",
                bt_counted(&control->dropped));
    print_plain(out, P "receiver_questions_total", "STATUS and RELEASE sent to receivers.",
                bt_counted(&control->questions));
    print_plain(out, P "receiver_answers_total", "Answers to them.",
                bt_counted(&control->status_answers));
}

static double cpu_seconds(void)
{
    struct rusage usage;
    if (getrusage(RUSAGE_SELF, &usage) != 0)
        return 0.0;
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

void bt_proxy_metrics_print(const bt_metrics_view *view, bt_strbuf *out)
{
    print_requests(view, out);
    print_times(view, out);
    print_legs(view, out);
    print_workers(view, out);
    print_control(view->control, out);
    print_plain(out, P "notice_connections_cut_total",
                "Connections cut: they sent notices that do not end, or that we had no room for.",
                view->connections_cut);
    bt_prom_family(out, P "inflight", BT_PROM_GAUGE, "Requests being worked on.");
    bt_prom_u64(out, P "inflight", NULL, 0, view->inflight);
    bt_prom_family(out, P "waiting_for_room", BT_PROM_GAUGE,
                   "Requests that wait for a decode engine to have room for their KV.");
    bt_prom_u64(out, P "waiting_for_room", NULL, 0, view->waiting);
    bt_prom_family(out, P "cpu_seconds_total", BT_PROM_COUNTER, "CPU time of the process.");
    bt_prom_double(out, P "cpu_seconds_total", NULL, 0, cpu_seconds());
}
