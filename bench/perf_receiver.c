/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/perf_receiver.h"

#include "bench/perf_memory.h"
#include "bench/perf_options.h"
#include "bench/perf_setup.h"
#include "bench/perf_usage.h"
#include "bench/perf_work.h"
#include "core/alloc.h"
#include "core/clock.h"
#include "core/fail.h"

#include <baton/receiver.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { READY_WAIT_MS = 30000, REGIONS = 4, ENDED_KEPT = 64 };

typedef struct {
    baton_receiver_event_kind kind;
    baton_status status;
    uint32_t sent_chunks;
    char request[BT_PERF_REQUEST_BYTES];
    char text[BATON_EVENT_TEXT_BYTES];
} ended;

typedef struct {
    const bt_perf_place *place;
    bt_perf_control *control;
    bt_perf_work work;
    baton_progress_mode progress;
    baton_receiver *receiver;
    bt_perf_memory page;     /* for pages of a GPU */
    uint32_t *tokens;        /* [bt_perf_work_tokens] */
    uint64_t cpu_start_ns;   /* when the last answer left */
    ended ended[ENDED_KEPT]; /* the latest, a ring */
    uint32_t n_ended;
    bool is_pinned;
} server;

/* Sleeps until fd is readable, or until_ns; a receiver of ours progresses meanwhile. */
static void wait_for(const server *s, int fd, uint64_t until_ns)
{
    bool manual = s->receiver != NULL && s->progress == BATON_PROGRESS_MANUAL;
    uint32_t most_ms = manual ? baton_receiver_progress(s->receiver) : UINT32_MAX;
    uint64_t now_ns = bt_now_ns(&bt_clock_monotonic);
    uint64_t left_ms = until_ns > now_ns ? (until_ns - now_ns) / BT_NS_PER_MS + 1 : 0;
    uint64_t ms = left_ms < most_ms ? left_ms : most_ms;
    struct pollfd fds[] = {
        {.fd = fd, .events = POLLIN},
        {.fd = manual ? baton_receiver_progress_fd(s->receiver) : -1, .events = POLLIN}};
    poll(fds, 2, ms < 60000 ? (int)ms : 60000);
}

static baton_status next_line(const server *s, char line[BT_PERF_LINE_BYTES])
{
    baton_status status;
    while ((status = bt_perf_receive(s->control, false, line)) == BATON_IN_PROGRESS)
        wait_for(s, s->control->fd, BT_NEVER_NS);
    return status;
}

static baton_status make_receiver(server *s, const bt_perf_options *o)
{
    if (o->transport == BT_PERF_TCP)
        setenv("UCX_TLS", "tcp", 0); /* before the receiver starts a thread */
    if (o->huge_pages == BT_PERF_HUGE_OFF)
        BATON_TRY(bt_perf_refuse_huge());
    s->progress = o->progress;
    s->work = (bt_perf_work){.n_pages = o->n_pages,
                             .page_bytes = o->page_bytes,
                             .paged = o->paged,
                             .shape = o->shape,
                             .seed = o->seed};
    BATON_TRY(bt_perf_work_init(&s->work));
    s->tokens = bt_calloc(bt_perf_work_tokens(&s->work), sizeof(*s->tokens));
    if (s->tokens == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "perf: %u tokens", bt_perf_work_tokens(&s->work));
    BATON_TRY(bt_perf_memory_open(o->memory, (size_t)o->page_bytes, false, &s->page));
    const baton_receiver_options options = {
        .name = "perf-receiver",
        .layout = s->work.layout,
        .digests = o->digests,
        .host = s->place->host,
        .pool_bytes = o->pool_pages * o->page_bytes,
        .n_regions = o->pool_pages >= REGIONS * 16 ? REGIONS : 1,
        .memory = o->memory,
        .progress = s->progress,
        .security = {.allow_unauthenticated = s->place->allow_unauthenticated},
        .data = {.transport = o->transport == BT_PERF_LOOP ? "loop" : "ucx",
                 .data_devices = s->place->devices,
                 .n_data_devices = s->place->n_devices,
                 .data_lanes = o->data_lanes,
                 .loop_net = s->place->loop_net},
    };
    return baton_receiver_create(&options, &s->receiver);
}

static baton_status on_setup(server *s, const char *line)
{
    bt_perf_options options = {0};
    uint16_t init_port, alloc_port;
    if (s->receiver != NULL)
        return bt_fail(BATON_ERR_STATE, "perf: set up before");
    BATON_TRY(bt_perf_setup_parse(line, &options));
    BATON_TRY(make_receiver(s, &options));
    baton_receiver_ports(s->receiver, &init_port, &alloc_port);
    return bt_perf_send(s->control, "ready init=%u alloc=%u", init_port, alloc_port);
}

static const ended *find_ended(const server *s, const char *name)
{
    for (uint32_t i = 0; i < ENDED_KEPT; i++) {
        if (strcmp(s->ended[i].request, name) == 0)
            return &s->ended[i];
    }
    return NULL;
}

/* Requests end in any order: what is not asked for yet is kept. */
static bool take_event(server *s)
{
    baton_receiver_event event;
    if (baton_receiver_poll(s->receiver, &event, 1) == 0)
        return false;
    ended *e = &s->ended[s->n_ended++ % ENDED_KEPT];
    *e = (ended){.kind = event.kind, .status = event.status, .sent_chunks = event.sent_chunks};
    snprintf(e->request, sizeof(e->request), "%s", event.request);
    snprintf(e->text, sizeof(e->text), "%s", event.text);
    return true;
}

/* Until the request is ready, sleeping or polling. */
static baton_status wait_ready(server *s, uint32_t number, bool sleep, const ended **ended_p)
{
    char name[BT_PERF_REQUEST_BYTES];
    bt_perf_request_name(number, name);
    uint64_t until_ns = bt_now_ns(&bt_clock_monotonic) + READY_WAIT_MS * BT_NS_PER_MS;
    const ended *found;
    while ((found = find_ended(s, name)) == NULL) {
        if (take_event(s))
            continue;
        if (bt_now_ns(&bt_clock_monotonic) >= until_ns)
            return bt_fail(BATON_ERR_DEADLINE, "perf: %s was not ready within %d ms", name,
                           READY_WAIT_MS);
        if (sleep)
            wait_for(s, baton_receiver_event_fd(s->receiver), until_ns);
        else if (s->progress == BATON_PROGRESS_MANUAL)
            baton_receiver_progress(s->receiver);
    }
    *ended_p = found;
    return found->kind == BATON_RECEIVER_READY
               ? BATON_OK
               : bt_fail(found->status, "receiver: %s", found->text);
}

/* Says when this process saw the request committed. */
static baton_status on_await(server *s, const char *line)
{
    uint64_t number, sleep;
    if (s->receiver == NULL)
        return bt_fail(BATON_ERR_STATE, "perf: not set up");
    BATON_TRY(bt_perf_field(line, "name", 0, UINT32_MAX, &number));
    BATON_TRY(bt_perf_field(line, "sleep", 0, 1, &sleep));
    if (sleep == 0 && !s->is_pinned) {
        bt_perf_pin(1);
        s->is_pinned = true;
    }
    BATON_TRY(bt_perf_send(s->control, "awaiting"));
    const ended *request;
    BATON_TRY(wait_ready(s, (uint32_t)number, sleep != 0, &request));
    return bt_perf_send(s->control, "seen at_ns=%" PRIu64, bt_now_ns(&bt_clock_monotonic));
}

typedef struct {
    uint32_t name, iteration, n_pages, last_tokens;
} asked;

/* Result CORRUPT: the text says where. */
static baton_status check_chunks(const server *s, const asked *a, const baton_pin *pin)
{
    uint64_t token_bytes = s->work.page_bytes / s->work.layout.chunk_tokens;
    bt_perf_work work = s->work;
    for (uint32_t page = 0; page < a->n_pages; page++) {
        baton_pinned_chunk chunk;
        BATON_TRY(baton_pin_chunk(pin, page, &chunk));
        if (page == a->n_pages - 1)
            work.page_bytes = a->last_tokens * token_bytes;
        if (chunk.bytes != work.page_bytes)
            return bt_fail(BATON_ERR_CORRUPT, "page %u has %" PRIu64 " bytes", page, chunk.bytes);
        const void *bytes;
        BATON_TRY(bt_perf_memory_peek(&s->page, chunk.page, chunk.bytes, &bytes));
        uint64_t at = bt_perf_check_page(&work, a->iteration, page, bytes);
        if (at < work.page_bytes)
            return bt_fail(BATON_ERR_CORRUPT, "transfer %u, page %u: wrong byte at offset %" PRIu64,
                           a->name, page, at);
    }
    return BATON_OK;
}

static baton_status check_transfer(const server *s, const asked *a)
{
    uint32_t n_tokens = (a->n_pages - 1) * s->work.layout.chunk_tokens + a->last_tokens, n_matched;
    baton_pin *pin;
    bt_perf_fill_tokens(&s->work, a->iteration, s->tokens);
    BATON_TRY(baton_receiver_lookup(s->receiver, s->tokens, n_tokens, &pin, &n_matched));
    baton_status status =
        n_matched == n_tokens
            ? check_chunks(s, a, pin)
            : bt_fail(BATON_ERR_CORRUPT, "transfer %u: %u of %u tokens can be looked up", a->name,
                      n_matched, n_tokens);
    baton_status unpinned = pin != NULL ? baton_receiver_unpin(s->receiver, pin) : BATON_OK;
    return status != BATON_OK ? status : unpinned;
}

static baton_status parse_asked(const server *s, const char *line, asked *a)
{
    uint64_t name, iteration, pages, last_tokens;
    if (s->receiver == NULL)
        return bt_fail(BATON_ERR_STATE, "perf: not set up");
    BATON_TRY(bt_perf_field(line, "name", 0, UINT32_MAX, &name));
    BATON_TRY(bt_perf_field(line, "iteration", 0, UINT32_MAX, &iteration));
    BATON_TRY(bt_perf_field(line, "pages", 1, s->work.n_pages, &pages));
    BATON_TRY(bt_perf_field(line, "last_tokens", 1, s->work.layout.chunk_tokens, &last_tokens));
    *a = (asked){(uint32_t)name, (uint32_t)iteration, (uint32_t)pages, (uint32_t)last_tokens};
    return BATON_OK;
}

static baton_status on_check(server *s, const char *line)
{
    uint64_t cpu_ns = bt_perf_cpu_ns() - s->cpu_start_ns;
    const ended *request;
    asked a;
    BATON_TRY(parse_asked(s, line, &a));
    BATON_TRY(wait_ready(s, a.name, true, &request));
    baton_status status = check_transfer(s, &a);
    if (status == BATON_ERR_CORRUPT)
        return bt_perf_send(s->control, "bad %s", baton_last_error());
    BATON_TRY(status);
    if (s->progress == BATON_PROGRESS_MANUAL)
        baton_receiver_progress(s->receiver); /* the lookup has ended a hold */
    return bt_perf_send(s->control, "good cpu_ns=%" PRIu64 " sent=%u", cpu_ns,
                        request->sent_chunks);
}

static baton_status on_usage(const server *s)
{
    bt_perf_usage usage;
    baton_receiver_stats stats;
    if (s->receiver == NULL)
        return bt_fail(BATON_ERR_STATE, "perf: not set up");
    BATON_TRY(bt_perf_usage_now(&usage));
    baton_receiver_get_stats(s->receiver, &stats);
    return bt_perf_send(s->control,
                        "usage rss_kb=%" PRIu64 " fds=%" PRIu64 " maps=%" PRIu64
                        " registered=%" PRIu64 " remotes=%" PRIu64 " huge_kb=%" PRIu64
                        " total=%" PRIu64 " usable=%" PRIu64 " live=%" PRIu64,
                        usage.rss_kb, usage.fds, usage.maps, usage.registered, usage.remotes,
                        bt_perf_huge_kb(), stats.pages_total, stats.pages_free + stats.pages_landed,
                        stats.tickets_live + stats.tickets_queued + stats.holds_live +
                            stats.pins_live);
}

static void tidy(server *s)
{
    baton_receiver_destroy(s->receiver);
    bt_perf_memory_close(&s->page);
    bt_free(s->tokens);
}

baton_status bt_perf_serve(const bt_perf_place *place, bt_perf_control *control)
{
    server s = {.place = place, .control = control};
    char line[BT_PERF_LINE_BYTES];
    baton_status status;
    while ((status = next_line(&s, line)) == BATON_OK) {
        baton_status answer = BATON_OK;
        if (bt_perf_line_is(line, "setup"))
            answer = on_setup(&s, line);
        else if (bt_perf_line_is(line, "check"))
            answer = on_check(&s, line);
        else if (bt_perf_line_is(line, "await"))
            answer = on_await(&s, line);
        else if (bt_perf_line_is(line, "usage"))
            answer = on_usage(&s);
        else
            answer = bt_fail(BATON_ERR_BAD_MESSAGE, "perf: unknown line: %s", line);
        if (answer != BATON_OK)
            status = bt_perf_send(control, "error status=%d %s", -answer, baton_last_error());
        if (status != BATON_OK)
            break;
        s.cpu_start_ns = bt_perf_cpu_ns();
    }
    tidy(&s);
    return status == BATON_ERR_PEER_GONE ? BATON_OK : status;
}
