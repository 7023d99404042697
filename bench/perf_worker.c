/* SPDX-License-Identifier: Apache-2.0 */
/* The sending end of a traffic matrix. It answers:
 *   setup ...                      ready init=1 alloc=1
 *   peer index=J init=.. alloc=..  added
 *   prepare to=J iteration=I       prepared
 *   go                             moved start_ns=.. end_ns=.. cpu_ns=..   (CLOCK_MONOTONIC) */
#include "bench/perf_matrix.h"
#include "bench/perf_pair.h"
#include "bench/perf_setup.h"
#include "bench/perf_usage.h"
#include "core/clock.h"
#include "core/fail.h"

#include <inttypes.h>

typedef struct {
    bt_perf_options options;
    bt_perf_control *control;
    bt_perf_pair pair;
    struct {
        uint16_t init_port, alloc_port;
    } peers[BT_PERF_MAX_ENDS];
    uint32_t iteration;
} worker;

static baton_status on_setup(worker *w, const char *line)
{
    if (w->pair.options != NULL)
        return bt_fail(BATON_ERR_STATE, "perf: set up before");
    BATON_TRY(bt_perf_setup_parse(line, &w->options));
    BATON_TRY(bt_perf_pair_open_alone(&w->options, &w->pair));
    return bt_perf_send(w->control, "ready init=1 alloc=1");
}

static baton_status on_peer(worker *w, const char *line)
{
    uint64_t index, init, alloc;
    BATON_TRY(bt_perf_field(line, "index", 0, BT_PERF_MAX_ENDS - 1, &index));
    BATON_TRY(bt_perf_field(line, "init", 1, UINT16_MAX, &init));
    BATON_TRY(bt_perf_field(line, "alloc", 1, UINT16_MAX, &alloc));
    w->peers[index].init_port = (uint16_t)init;
    w->peers[index].alloc_port = (uint16_t)alloc;
    return bt_perf_send(w->control, "added");
}

static baton_status on_prepare(worker *w, const char *line)
{
    uint64_t to, iteration;
    BATON_TRY(bt_perf_field(line, "to", 0, BT_PERF_MAX_ENDS - 1, &to));
    BATON_TRY(bt_perf_field(line, "iteration", 0, UINT32_MAX, &iteration));
    if (w->pair.sender == NULL || w->peers[to].init_port == 0)
        return bt_fail(BATON_ERR_STATE, "perf: not set up");
    w->pair.init_port = w->peers[to].init_port;
    w->pair.alloc_port = w->peers[to].alloc_port;
    w->iteration = (uint32_t)iteration;
    BATON_TRY(bt_perf_pair_prepare(&w->pair, w->iteration));
    return bt_perf_send(w->control, "prepared");
}

static baton_status on_go(worker *w)
{
    bt_perf_pair *pair = &w->pair;
    baton_transfer transfer;
    baton_sender_event end;
    if (pair->n_pages == 0)
        return bt_fail(BATON_ERR_STATE, "perf: nothing was prepared");
    uint64_t cpu_ns = bt_perf_cpu_ns(), start_ns = bt_now_ns(&bt_clock_monotonic);
    BATON_TRY(bt_perf_pair_begin(pair, w->iteration, &transfer));
    for (uint32_t page = 0; page < pair->n_pages; page++)
        BATON_TRY(bt_perf_pair_push(pair, transfer, page));
    BATON_TRY(baton_transfer_finish(pair->sender, transfer));
    BATON_TRY(bt_perf_pair_end(pair, true, pair->n_pages, &end));
    return bt_perf_send(w->control, "moved start_ns=%" PRIu64 " end_ns=%" PRIu64 " cpu_ns=%" PRIu64,
                        start_ns, bt_now_ns(&bt_clock_monotonic), bt_perf_cpu_ns() - cpu_ns);
}

static baton_status answer(worker *w, const char *line)
{
    if (bt_perf_line_is(line, "setup"))
        return on_setup(w, line);
    if (bt_perf_line_is(line, "peer"))
        return on_peer(w, line);
    if (bt_perf_line_is(line, "prepare"))
        return on_prepare(w, line);
    if (bt_perf_line_is(line, "go"))
        return on_go(w);
    return bt_fail(BATON_ERR_BAD_MESSAGE, "perf: unknown line: %s", line);
}

/* With --progress manual the sender is moved on while nothing is asked: it has heartbeats. */
static baton_status next_line(worker *w, char line[BT_PERF_LINE_BYTES])
{
    baton_status status;
    if (w->pair.sender == NULL)
        return bt_perf_receive(w->control, true, line);
    while ((status = bt_perf_receive(w->control, false, line)) == BATON_IN_PROGRESS)
        bt_perf_pair_wait(&w->pair, true, BT_NEVER_NS, w->control->fd);
    return status;
}

baton_status bt_perf_work_for(const bt_perf_options *options, bt_perf_control *control)
{
    worker w = {.options = *options, .control = control};
    char line[BT_PERF_LINE_BYTES];
    baton_status status;
    while ((status = next_line(&w, line)) == BATON_OK) {
        baton_status answered = answer(&w, line);
        if (answered < 0)
            status = bt_perf_send(control, "error status=%d %s", -answered, baton_last_error());
        if (status != BATON_OK)
            break;
    }
    if (w.pair.options != NULL)
        status = bt_perf_pair_close(&w.pair, status);
    return status == BATON_ERR_PEER_GONE ? BATON_OK : status;
}
