/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/perf_run.h"

#include "bench/perf_control.h"
#include "bench/perf_receiver.h"
#include "bench/perf_source.h"
#include "bench/perf_usage.h"
#include "bench/perf_work.h"
#include "core/alloc.h"
#include "core/clock.h"
#include "core/fail.h"
#include "transport/loop.h"

#include <baton/log.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

enum { EVENTS_AT_ONCE = 64, SAMPLE_LINE_MS = 60000 };

typedef struct {
    const bt_perf_options *options;
    bt_perf_result *result;
    bt_perf_work work;
    bt_perf_source *source;
    bt_perf_control control;
    bt_perf_place place;  /* --loop: of the receiver's thread */
    bt_perf_control away; /* --loop: its end of the channel */
    pthread_t thread;
    bool has_thread;
    pid_t child; /* -1: none */
    struct bt_loop_net *loop_net;
    baton_sender *sender;
    uint16_t init_port, alloc_port;
    uint32_t *tokens;
    baton_key *keys; /* [n_pages] */
    uint64_t start_ns;
} run;

static void *serve_thread(void *ctx)
{
    run *r = ctx;
    bt_perf_serve(&r->place, &r->away);
    bt_perf_close(&r->away);
    return NULL;
}

static baton_status start_thread(run *r)
{
    int fds[2];
    BATON_TRY(bt_loop_net_create(r->options->seed, NULL, &r->loop_net));
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0)
        return bt_fail_errno(BATON_ERR_IO, errno, "perf: socket pair");
    r->control.fd = fds[0];
    r->away.fd = fds[1];
    r->place = (bt_perf_place){.loop_net = r->loop_net};
    int err = pthread_create(&r->thread, NULL, serve_thread, r);
    if (err != 0)
        return bt_fail_errno(bt_status_from_errno(err), err, "perf: receiver's thread");
    r->has_thread = true;
    return BATON_OK;
}

static baton_status reach_receiver(run *r, const char *program)
{
    const bt_perf_options *o = r->options;
    if (o->transport == BT_PERF_LOOP)
        return start_thread(r);
    if (o->role == BT_PERF_SENDER)
        return bt_perf_connect(o->host, o->port, &r->control);
    return bt_perf_spawn(program, &r->control, &r->child);
}

/* Waits for an answer that begins with `word`. "bad" becomes CORRUPT, "error" what it says. */
static baton_status expect(run *r, const char *word, char line[BT_PERF_LINE_BYTES])
{
    uint64_t code;
    BATON_TRY(bt_perf_receive(&r->control, true, line));
    if (bt_perf_line_is(line, word))
        return BATON_OK;
    if (bt_perf_line_is(line, "bad"))
        return bt_fail(BATON_ERR_CORRUPT, "%s", line + strlen("bad "));
    if (bt_perf_line_is(line, "error") && bt_perf_field(line, "status", 1, 255, &code) == BATON_OK)
        return bt_fail((baton_status) - (int)code, "%s", line + strlen("error "));
    return bt_fail(BATON_ERR_BAD_MESSAGE, "perf: wanted '%s', found: %s", word, line);
}

static baton_status set_up_receiver(run *r)
{
    const bt_perf_options *o = r->options;
    char line[BT_PERF_LINE_BYTES];
    uint64_t init_port, alloc_port;
    BATON_TRY(bt_perf_send(&r->control,
                           "setup pages=%u page_bytes=%" PRIu64 " pool_pages=%u seed=%" PRIu64
                           " paged=%d digests=%d progress=%d transport=%d",
                           o->n_pages, o->page_bytes, o->pool_pages, o->seed, o->paged, o->digests,
                           (int)o->progress, (int)o->transport));
    BATON_TRY(expect(r, "ready", line));
    BATON_TRY(bt_perf_field(line, "init", 1, UINT16_MAX, &init_port));
    BATON_TRY(bt_perf_field(line, "alloc", 1, UINT16_MAX, &alloc_port));
    r->init_port = (uint16_t)init_port;
    r->alloc_port = (uint16_t)alloc_port;
    return BATON_OK;
}

static baton_path_choice path_of(bt_perf_transport transport)
{
    if (transport == BT_PERF_MAPPED)
        return BATON_PATH_MAPPED;
    return transport == BT_PERF_PUT || transport == BT_PERF_TCP ? BATON_PATH_PUT : BATON_PATH_AUTO;
}

static baton_status make_sender(run *r)
{
    const bt_perf_options *o = r->options;
    if (o->transport == BT_PERF_TCP)
        setenv("UCX_TLS", "tcp", 0); /* before there are threads */
    const baton_sender_options options = {
        .name = "perf-sender",
        .layout = r->work.layout,
        .digests = o->digests ? BATON_DIGESTS_FULL : BATON_DIGESTS_OFF,
        .path = path_of(o->transport),
        .progress = o->progress,
        .data = {.transport = o->transport == BT_PERF_LOOP ? "loop" : "ucx",
                 .data_devices = o->devices,
                 .n_data_devices = o->n_devices,
                 .loop_net = r->loop_net},
    };
    BATON_TRY(baton_sender_create(&options, &r->sender));
    return bt_perf_source_register(r->source, r->sender);
}

static baton_status prepare(run *r)
{
    const bt_perf_options *o = r->options;
    r->work = (bt_perf_work){
        .n_pages = o->n_pages, .page_bytes = o->page_bytes, .paged = o->paged, .seed = o->seed};
    BATON_TRY(bt_perf_work_init(&r->work));
    r->tokens = bt_calloc(bt_perf_work_tokens(&r->work), sizeof(*r->tokens));
    r->keys = bt_calloc(o->n_pages, sizeof(*r->keys));
    r->result->samples = bt_calloc(o->n_iterations, sizeof(*r->result->samples));
    if (r->tokens == NULL || r->keys == NULL || r->result->samples == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "perf: %u pages, %u iterations", o->n_pages,
                       o->n_iterations);
    return bt_perf_source_create(&r->work, o->order, &r->source);
}

static void wait_sender(run *r)
{
    bool manual = r->options->progress == BATON_PROGRESS_MANUAL;
    uint32_t ms = manual ? baton_sender_progress(r->sender) : SAMPLE_LINE_MS;
    if (ms == 0)
        return;
    struct pollfd fds[] = {
        {.fd = baton_sender_event_fd(r->sender), .events = POLLIN},
        {.fd = manual ? baton_sender_progress_fd(r->sender) : -1, .events = POLLIN}};
    poll(fds, 2, ms < SAMPLE_LINE_MS ? (int)ms : SAMPLE_LINE_MS);
}

/* The transfer's last event; SOURCE_FREEs are counted on the way. */
static baton_status wait_end(run *r, baton_sender_event *end)
{
    static baton_sender_event events[EVENTS_AT_ONCE];
    uint32_t n_free = 0;
    for (;;) {
        uint32_t n = baton_sender_poll(r->sender, events, EVENTS_AT_ONCE);
        for (uint32_t i = 0; i < n; i++) {
            if (events[i].kind == BATON_SENDER_SOURCE_FREE) {
                n_free++;
                continue;
            }
            *end = events[i];
            if (end->kind == BATON_SENDER_FAILED)
                return bt_fail(end->status, "%s: %s", baton_status_name(end->status), end->text);
            if (n_free != r->options->n_pages || end->sent_chunks != r->options->n_pages)
                return bt_fail(BATON_ERR_STATE, "perf: %u of %u pages sent, %u free again",
                               end->sent_chunks, r->options->n_pages, n_free);
            return BATON_OK;
        }
        if (n == 0)
            wait_sender(r);
    }
}

static baton_status hash_keys(run *r, uint32_t iteration, uint32_t *last_tokens)
{
    baton_key_chain chain;
    uint32_t n_keys;
    bt_perf_fill_tokens(&r->work, iteration, r->tokens);
    BATON_TRY(baton_key_chain_init(&r->work.layout, 1, 0, NULL, &chain));
    return baton_keys_of_tokens(&chain, r->tokens, bt_perf_work_tokens(&r->work), r->keys,
                                r->work.n_pages, &n_keys, last_tokens);
}

static baton_status move(run *r, const baton_transfer_options *options, bt_perf_sample *sample)
{
    baton_transfer transfer;
    baton_sender_event end;
    uint64_t cpu_ns = bt_perf_cpu_ns(), start_ns = bt_now_ns(&bt_clock_monotonic);
    BATON_TRY(baton_transfer_begin(r->sender, options, &transfer));
    for (uint32_t page = 0; page < r->work.n_pages; page++)
        BATON_TRY(bt_perf_source_push(r->source, r->sender, transfer, page));
    BATON_TRY(baton_transfer_finish(r->sender, transfer));
    BATON_TRY(wait_end(r, &end));
    *sample = (bt_perf_sample){.wall_ns = bt_now_ns(&bt_clock_monotonic) - start_ns,
                               .move_ns = end.move_ns,
                               .sender_cpu_ns = bt_perf_cpu_ns() - cpu_ns};
    return BATON_OK;
}

static baton_status iterate(run *r, uint32_t iteration, bt_perf_sample *sample)
{
    const bt_perf_options *o = r->options;
    char name[BT_PERF_REQUEST_BYTES], line[BT_PERF_LINE_BYTES];
    bt_perf_request_name(iteration, name);
    baton_transfer_options options = {.request = name,
                                      .host = o->role == BT_PERF_SENDER ? o->host : "127.0.0.1",
                                      .init_port = r->init_port,
                                      .alloc_port = r->alloc_port,
                                      .keys = r->keys,
                                      .n_chunks = o->n_pages};
    BATON_TRY(hash_keys(r, iteration, &options.last_tokens));
    BATON_TRY(bt_perf_source_fill(r->source, iteration, o->flip_byte));
    BATON_TRY(move(r, &options, sample));
    if (iteration == 0)
        r->result->connect_ns = bt_now_ns(&bt_clock_monotonic) - r->start_ns;
    BATON_TRY(bt_perf_send(&r->control, "check iteration=%u", iteration));
    BATON_TRY(expect(r, "good", line));
    BATON_TRY(bt_perf_field(line, "cpu_ns", 0, UINT64_MAX, &sample->receiver_cpu_ns));
    if (r->has_thread)
        sample->receiver_cpu_ns = 0; /* the same process: counted already */
    r->result->n_verified++;
    return BATON_OK;
}

static baton_status iterate_all(run *r)
{
    const bt_perf_options *o = r->options;
    for (uint32_t i = 0; i < o->n_warmup + o->n_iterations; i++) {
        bt_perf_sample sample;
        BATON_TRY(iterate(r, i, &sample));
        if (i >= o->n_warmup)
            r->result->samples[r->result->n_samples++] = sample;
    }
    baton_sender_stats stats;
    baton_sender_get_stats(r->sender, &stats);
    r->result->bytes_sent = stats.bytes_sent_total;
    r->result->bytes_mapped = stats.bytes_mapped_total;
    return BATON_OK;
}

static void tidy(run *r)
{
    baton_sender_destroy(r->sender);
    bt_perf_close(&r->control); /* the receiving end leaves */
    if (r->has_thread)
        pthread_join(r->thread, NULL);
    else
        bt_perf_close(&r->away);
    if (r->child > 0)
        waitpid(r->child, NULL, 0);
    bt_loop_net_destroy(r->loop_net);
    bt_perf_source_destroy(r->source);
    bt_free(r->tokens);
    bt_free(r->keys);
}

/* The sender says in one line of its log what carries the bytes; the report repeats it. */
static void keep_path(void *ctx, baton_log_level level, const char *line)
{
    run *r = ctx;
    static const char start[] = "sender: connected ";
    if (strncmp(line, start, sizeof(start) - 1) == 0)
        snprintf(r->result->path, sizeof(r->result->path), "%s", line + sizeof(start) - 1);
    if (level <= BATON_LOG_WARN || r->options->verbose)
        fprintf(stderr, "%s\n", line);
}

baton_status bt_perf_run(const bt_perf_options *options, const char *program,
                         bt_perf_result *result)
{
    run r = {.options = options,
             .result = result,
             .control = {.fd = -1},
             .away = {.fd = -1},
             .child = -1,
             .start_ns = bt_now_ns(&bt_clock_monotonic)};
    *result = (bt_perf_result){0};
    baton_log_level level = baton_log_get_level();
    baton_log_set_sink(keep_path, &r);
    baton_log_set_level(BATON_LOG_INFO);
    baton_status status = prepare(&r);
    if (status == BATON_OK)
        status = reach_receiver(&r, program);
    if (status == BATON_OK)
        status = set_up_receiver(&r);
    if (status == BATON_OK)
        status = make_sender(&r);
    if (status == BATON_OK)
        status = iterate_all(&r);
    char text[BT_ERROR_TEXT_BYTES];
    snprintf(text, sizeof(text), "%s", baton_last_error());
    tidy(&r);
    baton_log_set_sink(NULL, NULL);
    baton_log_set_level(level);
    return status == BATON_OK ? status : bt_fail(status, "%s", text);
}

void bt_perf_result_free(bt_perf_result *result)
{
    bt_free(result->samples);
    result->samples = NULL;
}
