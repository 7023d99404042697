/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/perf_pair.h"

#include "bench/perf_setup.h"
#include "bench/perf_usage.h"
#include "core/alloc.h"
#include "core/clock.h"
#include "core/fail.h"
#include "transport/loop.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

enum { EVENTS_AT_ONCE = 64, LONGEST_SLEEP_MS = 60000 };

static void *serve_thread(void *ctx)
{
    bt_perf_pair *p = ctx;
    bt_perf_serve(&p->place, &p->away);
    bt_perf_close(&p->away);
    return NULL;
}

static baton_status start_thread(bt_perf_pair *p)
{
    int fds[2];
    BATON_TRY(bt_loop_net_create(p->options->seed, NULL, &p->loop_net));
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0)
        return bt_fail_errno(BATON_ERR_IO, errno, "perf: socket pair");
    p->control.fd = fds[0];
    p->away.fd = fds[1];
    p->place = (bt_perf_place){.loop_net = p->loop_net};
    int err = pthread_create(&p->thread, NULL, serve_thread, p);
    if (err != 0)
        return bt_fail_errno(bt_status_from_errno(err), err, "perf: receiver's thread");
    p->has_thread = true;
    return BATON_OK;
}

static baton_status reach_receiver(bt_perf_pair *p, const char *program)
{
    const bt_perf_options *o = p->options;
    if (o->transport == BT_PERF_LOOP)
        return start_thread(p);
    if (o->role == BT_PERF_SENDER)
        return bt_perf_connect(o->host, o->port, &p->control);
    return bt_perf_spawn(program, "receiver", &p->control, &p->child);
}

static baton_status set_up_receiver(bt_perf_pair *p)
{
    char line[BT_PERF_LINE_BYTES];
    uint64_t init_port, alloc_port;
    BATON_TRY(bt_perf_setup_send(&p->control, p->options));
    BATON_TRY(bt_perf_expect(&p->control, "ready", line));
    BATON_TRY(bt_perf_field(line, "init", 1, UINT16_MAX, &init_port));
    BATON_TRY(bt_perf_field(line, "alloc", 1, UINT16_MAX, &alloc_port));
    p->init_port = (uint16_t)init_port;
    p->alloc_port = (uint16_t)alloc_port;
    return BATON_OK;
}

static baton_path_choice path_of(bt_perf_transport transport)
{
    if (transport == BT_PERF_MAPPED || transport == BT_PERF_STAGED)
        return transport == BT_PERF_MAPPED ? BATON_PATH_MAPPED : BATON_PATH_STAGED;
    return transport == BT_PERF_PUT || transport == BT_PERF_TCP ? BATON_PATH_PUT : BATON_PATH_AUTO;
}

static baton_status make_sender(bt_perf_pair *p)
{
    const bt_perf_options *o = p->options;
    if (o->transport == BT_PERF_TCP && getenv("UCX_TLS") == NULL) {
        setenv("UCX_TLS", "tcp", 0); /* there is no other thread now */
        p->set_tls = true;
    }
    const baton_sender_options options = {
        .name = "perf-sender",
        .layout = p->work.layout,
        .digests = o->digests,
        .path = path_of(o->transport),
        .memory = o->memory,
        .progress = o->progress,
        .copy_threads = o->copy_threads,
        .data = {.transport = o->transport == BT_PERF_LOOP ? "loop" : "ucx",
                 .data_devices = o->devices,
                 .n_data_devices = o->n_devices,
                 .data_lanes = o->data_lanes,
                 .loop_net = p->loop_net},
    };
    BATON_TRY(baton_sender_create(&options, &p->sender));
    return bt_perf_source_register(p->source, p->sender);
}

static baton_status make_source(bt_perf_pair *p)
{
    const bt_perf_options *o = p->options;
    p->work = (bt_perf_work){.n_pages = o->n_pages,
                             .page_bytes = o->page_bytes,
                             .paged = o->paged,
                             .shape = o->shape,
                             .seed = o->seed};
    BATON_TRY(bt_perf_work_init(&p->work));
    p->tokens = bt_calloc(bt_perf_work_tokens(&p->work), sizeof(*p->tokens));
    p->keys = bt_calloc(o->n_pages, sizeof(*p->keys));
    if (p->tokens == NULL || p->keys == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "perf: %u pages", o->n_pages);
    if (o->huge_pages == BT_PERF_HUGE_OFF)
        BATON_TRY(bt_perf_refuse_huge());
    return bt_perf_source_create(&p->work, o->order, o->memory, o->huge_pages == BT_PERF_HUGE_ON,
                                 &p->source);
}

/* The sender says in one line of its log what carries the bytes; reports repeat it. */
static void keep_path(void *ctx, baton_log_level level, const char *line)
{
    bt_perf_pair *p = ctx;
    static const char start[] = "sender: connected ";
    if (strncmp(line, start, sizeof(start) - 1) == 0)
        snprintf(p->path, sizeof(p->path), "%s", line + sizeof(start) - 1);
    if (level <= BATON_LOG_WARN || p->options->verbose)
        fprintf(stderr, "%s\n", line);
}

static baton_status open_source(const bt_perf_options *options, bt_perf_pair *pair)
{
    *pair = (bt_perf_pair){.options = options,
                           .control = {.fd = -1},
                           .away = {.fd = -1},
                           .child = -1,
                           .level = baton_log_get_level()};
    baton_log_set_sink(keep_path, pair);
    baton_log_set_level(BATON_LOG_INFO);
    return make_source(pair);
}

baton_status bt_perf_pair_open_alone(const bt_perf_options *options, bt_perf_pair *pair)
{
    BATON_TRY(open_source(options, pair));
    return make_sender(pair);
}

baton_status bt_perf_pair_open(const bt_perf_options *options, const char *program,
                               bt_perf_pair *pair)
{
    BATON_TRY(open_source(options, pair));
    BATON_TRY(reach_receiver(pair, program));
    BATON_TRY(set_up_receiver(pair));
    return make_sender(pair);
}

baton_status bt_perf_pair_close(bt_perf_pair *p, baton_status status)
{
    char text[BT_ERROR_TEXT_BYTES];
    snprintf(text, sizeof(text), "%s", baton_last_error());
    baton_sender_destroy(p->sender);
    bt_perf_close(&p->control); /* the receiving end leaves */
    if (p->has_thread)
        pthread_join(p->thread, NULL);
    else
        bt_perf_close(&p->away);
    if (p->child > 0)
        waitpid(p->child, NULL, 0);
    bt_loop_net_destroy(p->loop_net);
    bt_perf_source_destroy(p->source);
    bt_free(p->tokens);
    bt_free(p->keys);
    if (p->set_tls)
        unsetenv("UCX_TLS");
    baton_log_set_sink(NULL, NULL);
    baton_log_set_level(p->level);
    return status < 0 ? bt_fail(status, "%s", text) : status;
}

baton_status bt_perf_pair_hash(bt_perf_pair *p, uint32_t iteration, uint32_t n_pages,
                               uint32_t last_tokens)
{
    baton_key_chain chain;
    uint32_t n_tokens = (n_pages - 1) * p->work.layout.chunk_tokens + last_tokens;
    bt_perf_fill_tokens(&p->work, iteration, p->tokens);
    BATON_TRY(baton_key_chain_init(&p->work.layout, 1, 0, NULL, &chain));
    return baton_keys_of_tokens(&chain, p->tokens, n_tokens, p->keys, p->work.n_pages, &p->n_pages,
                                &p->last_tokens);
}

baton_status bt_perf_pair_prepare(bt_perf_pair *p, uint32_t iteration)
{
    BATON_TRY(bt_perf_pair_hash(p, iteration, p->work.n_pages, p->work.layout.chunk_tokens));
    return bt_perf_source_fill(p->source, iteration, p->options->flip_byte);
}

baton_status bt_perf_pair_begin(bt_perf_pair *p, uint32_t name, baton_transfer *transfer)
{
    char request[BT_PERF_REQUEST_BYTES];
    bt_perf_request_name(name, request);
    const baton_transfer_options options = {
        .request = request,
        .host = p->options->role == BT_PERF_SENDER ? p->options->host : "127.0.0.1",
        .init_port = p->init_port,
        .alloc_port = p->alloc_port,
        .keys = p->keys,
        .n_chunks = p->n_pages,
        .last_tokens = p->last_tokens,
        .notice = p->notice,
    };
    return baton_transfer_begin(p->sender, &options, transfer);
}

baton_status bt_perf_pair_push(bt_perf_pair *p, baton_transfer transfer, uint32_t page)
{
    return bt_perf_source_push(p->source, p->sender, transfer, page);
}

void bt_perf_pair_wait(bt_perf_pair *p, bool sleep, uint64_t until_ns, int fd)
{
    bool manual = p->options->progress == BATON_PROGRESS_MANUAL;
    uint32_t most_ms = manual ? baton_sender_progress(p->sender) : LONGEST_SLEEP_MS;
    if (!sleep || most_ms == 0)
        return;
    uint64_t now_ns = bt_now_ns(&bt_clock_monotonic);
    uint64_t left_ns = until_ns > now_ns ? until_ns - now_ns : 0;
    uint64_t most_ns = (most_ms < LONGEST_SLEEP_MS ? most_ms : LONGEST_SLEEP_MS) * BT_NS_PER_MS;
    left_ns = left_ns < most_ns ? left_ns : most_ns;
    struct timespec left = {(time_t)(left_ns / BT_NS_PER_S), (long)(left_ns % BT_NS_PER_S)};
    struct pollfd fds[] = {
        {.fd = baton_sender_event_fd(p->sender), .events = POLLIN},
        {.fd = manual ? baton_sender_progress_fd(p->sender) : -1, .events = POLLIN},
        {.fd = fd, .events = POLLIN}};
    ppoll(fds, 3, &left, NULL);
}

baton_status bt_perf_pair_end(bt_perf_pair *p, bool sleep, uint32_t n_sent, baton_sender_event *end)
{
    static baton_sender_event events[EVENTS_AT_ONCE];
    uint32_t n_free = 0;
    for (;;) {
        uint32_t n = baton_sender_poll(p->sender, events, EVENTS_AT_ONCE);
        for (uint32_t i = 0; i < n; i++) {
            if (events[i].kind == BATON_SENDER_SOURCE_FREE) {
                n_free++;
                continue;
            }
            *end = events[i];
            if (end->kind == BATON_SENDER_FAILED)
                return bt_fail(end->status, "%s: %s", baton_status_name(end->status), end->text);
            if (n_free != n_sent || end->sent_chunks != n_sent)
                return bt_fail(BATON_ERR_STATE, "perf: %u of %u pages sent, %u free again",
                               end->sent_chunks, n_sent, n_free);
            return BATON_OK;
        }
        if (n == 0)
            bt_perf_pair_wait(p, sleep, BT_NEVER_NS, -1);
    }
}

baton_status bt_perf_pair_check(bt_perf_pair *p, uint32_t name, uint32_t iteration,
                                uint64_t *cpu_ns)
{
    char line[BT_PERF_LINE_BYTES];
    uint64_t used_ns;
    BATON_TRY(bt_perf_send(&p->control, "check iteration=%u name=%u pages=%u last_tokens=%u",
                           iteration, name, p->n_pages, p->last_tokens));
    BATON_TRY(bt_perf_expect(&p->control, "good", line));
    BATON_TRY(bt_perf_field(line, "cpu_ns", 0, UINT64_MAX, &used_ns));
    if (cpu_ns != NULL)
        *cpu_ns = p->has_thread ? 0 : used_ns; /* a thread's is counted already */
    p->n_verified++;
    return BATON_OK;
}

const char *bt_perf_way(uint64_t bytes_sent, uint64_t bytes_mapped)
{
    if (bytes_mapped == 0)
        return "put";
    return bytes_mapped == bytes_sent ? "mapped" : "mixed";
}

const char *bt_perf_pair_path(const bt_perf_pair *p)
{
    baton_sender_stats stats;
    baton_sender_get_stats(p->sender, &stats);
    return bt_perf_way(stats.bytes_sent_total, stats.bytes_mapped_total);
}
