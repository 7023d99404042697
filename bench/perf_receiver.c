/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/perf_receiver.h"

#include "bench/perf_options.h"
#include "bench/perf_usage.h"
#include "bench/perf_work.h"
#include "core/alloc.h"
#include "core/clock.h"
#include "core/fail.h"

#include <baton/receiver.h>
#include <errno.h>
#include <inttypes.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>

enum { READY_WAIT_MS = 30000, REGIONS = 4 };

typedef struct {
    const bt_perf_place *place;
    bt_perf_control *control;
    bt_perf_work work;
    baton_progress_mode progress;
    baton_receiver *receiver;
    uint32_t *tokens;           /* [bt_perf_work_tokens] */
    uint64_t cpu_start_ns;      /* when the last answer left */
    baton_receiver_event ready; /* of the request that was waited for last */
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

typedef struct {
    uint64_t n_pages, page_bytes, pool_pages, seed, paged, digests, progress, transport;
    uint64_t layers, heads, head_dim, block_tokens;
} setup_fields;

static baton_status parse_setup(const char *line, setup_fields *f)
{
    BATON_TRY(bt_perf_field(line, "pages", 1, BT_PERF_MAX_PAGES, &f->n_pages));
    BATON_TRY(bt_perf_field(line, "page_bytes", 1, BT_PERF_MAX_PAGE_BYTES, &f->page_bytes));
    BATON_TRY(
        bt_perf_field(line, "pool_pages", f->n_pages, BT_PERF_MAX_POOL_PAGES, &f->pool_pages));
    BATON_TRY(bt_perf_field(line, "seed", 0, UINT64_MAX, &f->seed));
    BATON_TRY(bt_perf_field(line, "paged", 0, 1, &f->paged));
    BATON_TRY(bt_perf_field(line, "layers", 1, BT_PERF_MAX_LAYERS, &f->layers));
    BATON_TRY(bt_perf_field(line, "heads", 1, 1024, &f->heads));
    BATON_TRY(bt_perf_field(line, "head_dim", 1, 1024, &f->head_dim));
    BATON_TRY(bt_perf_field(line, "block_tokens", 1, 4096, &f->block_tokens));
    BATON_TRY(bt_perf_field(line, "digests", 0, 1, &f->digests));
    BATON_TRY(bt_perf_field(line, "progress", 0, BATON_PROGRESS_MANUAL, &f->progress));
    BATON_TRY(bt_perf_field(line, "transport", 0, BT_PERF_LOOP, &f->transport));
    return BATON_OK;
}

static baton_status make_receiver(server *s, const setup_fields *f)
{
    if (f->transport == BT_PERF_TCP)
        setenv("UCX_TLS", "tcp", 0); /* before the receiver starts a thread */
    s->progress = (baton_progress_mode)f->progress;
    s->work = (bt_perf_work){.n_pages = (uint32_t)f->n_pages,
                             .page_bytes = f->page_bytes,
                             .paged = f->paged != 0,
                             .shape = {.n_layers = (uint32_t)f->layers,
                                       .n_heads = (uint32_t)f->heads,
                                       .head_dim = (uint32_t)f->head_dim,
                                       .block_tokens = (uint32_t)f->block_tokens},
                             .seed = f->seed};
    BATON_TRY(bt_perf_work_init(&s->work));
    s->tokens = bt_calloc(bt_perf_work_tokens(&s->work), sizeof(*s->tokens));
    if (s->tokens == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "perf: %u tokens", bt_perf_work_tokens(&s->work));
    const baton_receiver_options options = {
        .name = "perf-receiver",
        .layout = s->work.layout,
        .digests = f->digests != 0 ? BATON_DIGESTS_FULL : BATON_DIGESTS_OFF,
        .host = s->place->host,
        .pool_bytes = f->pool_pages * f->page_bytes,
        .n_regions = f->pool_pages >= REGIONS * UINT64_C(16) ? REGIONS : 1,
        .progress = s->progress,
        .security = {.allow_unauthenticated = s->place->allow_unauthenticated},
        .data = {.transport = f->transport == BT_PERF_LOOP ? "loop" : "ucx",
                 .data_devices = s->place->devices,
                 .n_data_devices = s->place->n_devices,
                 .loop_net = s->place->loop_net},
    };
    return baton_receiver_create(&options, &s->receiver);
}

static baton_status on_setup(server *s, const char *line)
{
    setup_fields fields;
    uint16_t init_port, alloc_port;
    if (s->receiver != NULL)
        return bt_fail(BATON_ERR_STATE, "perf: set up before");
    BATON_TRY(parse_setup(line, &fields));
    BATON_TRY(make_receiver(s, &fields));
    baton_receiver_ports(s->receiver, &init_port, &alloc_port);
    return bt_perf_send(s->control, "ready init=%u alloc=%u", init_port, alloc_port);
}

/* Until s->ready is the event of this request, sleeping or polling; those of earlier ones that
 * failed are passed over. */
static baton_status wait_ready(server *s, uint32_t number, bool sleep)
{
    char name[BT_PERF_REQUEST_BYTES];
    bt_perf_request_name(number, name);
    uint64_t until_ns = bt_now_ns(&bt_clock_monotonic) + READY_WAIT_MS * BT_NS_PER_MS;
    while (strcmp(s->ready.request, name) != 0) {
        if (baton_receiver_poll(s->receiver, &s->ready, 1) == 1)
            continue;
        if (bt_now_ns(&bt_clock_monotonic) >= until_ns)
            return bt_fail(BATON_ERR_DEADLINE, "perf: %s was not ready within %d ms", name,
                           READY_WAIT_MS);
        if (sleep)
            wait_for(s, baton_receiver_event_fd(s->receiver), until_ns);
        else if (s->progress == BATON_PROGRESS_MANUAL)
            baton_receiver_progress(s->receiver);
    }
    return s->ready.kind == BATON_RECEIVER_READY
               ? BATON_OK
               : bt_fail(s->ready.status, "receiver: %s", s->ready.text);
}

/* Says when this process saw the request committed. */
static baton_status on_await(server *s, const char *line)
{
    uint64_t number, sleep;
    if (s->receiver == NULL)
        return bt_fail(BATON_ERR_STATE, "perf: not set up");
    BATON_TRY(bt_perf_field(line, "name", 0, UINT32_MAX, &number));
    BATON_TRY(bt_perf_field(line, "sleep", 0, 1, &sleep));
    BATON_TRY(bt_perf_send(s->control, "awaiting"));
    BATON_TRY(wait_ready(s, (uint32_t)number, sleep != 0));
    return bt_perf_send(s->control, "seen at_ns=%" PRIu64, bt_now_ns(&bt_clock_monotonic));
}

/* Result CORRUPT: the text says where. */
static baton_status check_chunks(const server *s, uint32_t iteration, const baton_pin *pin)
{
    for (uint32_t page = 0; page < s->work.n_pages; page++) {
        baton_pinned_chunk chunk;
        BATON_TRY(baton_pin_chunk(pin, page, &chunk));
        if (chunk.bytes != s->work.page_bytes)
            return bt_fail(BATON_ERR_CORRUPT, "page %u has %" PRIu64 " bytes", page, chunk.bytes);
        uint64_t at = bt_perf_check_page(&s->work, iteration, page, chunk.page);
        if (at < s->work.page_bytes)
            return bt_fail(BATON_ERR_CORRUPT, "transfer %u, page %u: wrong byte at offset %" PRIu64,
                           iteration, page, at);
    }
    return BATON_OK;
}

static baton_status check_transfer(const server *s, uint32_t iteration)
{
    uint32_t n_tokens = bt_perf_work_tokens(&s->work), n_matched;
    baton_pin *pin;
    bt_perf_fill_tokens(&s->work, iteration, s->tokens);
    BATON_TRY(baton_receiver_lookup(s->receiver, s->tokens, n_tokens, &pin, &n_matched));
    baton_status status =
        n_matched == n_tokens
            ? check_chunks(s, iteration, pin)
            : bt_fail(BATON_ERR_CORRUPT, "transfer %u: %u of %u tokens can be looked up", iteration,
                      n_matched, n_tokens);
    baton_status unpinned = baton_receiver_unpin(s->receiver, pin);
    return status != BATON_OK ? status : unpinned;
}

static baton_status on_check(server *s, const char *line)
{
    uint64_t cpu_ns = bt_perf_cpu_ns() - s->cpu_start_ns, iteration, number;
    if (s->receiver == NULL)
        return bt_fail(BATON_ERR_STATE, "perf: not set up");
    BATON_TRY(bt_perf_field(line, "iteration", 0, UINT32_MAX, &iteration));
    BATON_TRY(bt_perf_field(line, "name", 0, UINT32_MAX, &number));
    BATON_TRY(wait_ready(s, (uint32_t)number, true));
    baton_status status = check_transfer(s, (uint32_t)iteration);
    if (status == BATON_ERR_CORRUPT)
        return bt_perf_send(s->control, "bad %s", baton_last_error());
    BATON_TRY(status);
    if (s->progress == BATON_PROGRESS_MANUAL)
        baton_receiver_progress(s->receiver); /* the lookup has ended a hold */
    return bt_perf_send(s->control, "good cpu_ns=%" PRIu64 " sent=%u", cpu_ns,
                        s->ready.sent_chunks);
}

static void tidy(server *s)
{
    baton_receiver_destroy(s->receiver);
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
