/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/perf_soak.h"

#include "bench/perf_quantiles.h"
#include "core/alloc.h"
#include "core/clock.h"
#include "core/fail.h"

#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    SLOTS = 8,
    PAGES_MAX = 32,
    PAGE_BYTES = 8192,
    POOL_PAGES = SLOTS * PAGES_MAX + 64,
    RESTS = 40,
    REST_WAIT_S = 60, /* longer than a lease: a hold that nobody comes for ends with it */
    EVENTS_AT_ONCE = 64,
    RSS_SLACK_KB = 4096,
    MAPS_SLACK = 8, /* the C library's arenas come and go */
};

typedef struct {
    bool is_busy;
    baton_transfer transfer;
    uint32_t name, content; /* iteration whose bytes it has */
    uint32_t n_pages, last_tokens;
    uint32_t n_pushed, n_free;
    bool canceled;
    uint8_t *memory; /* [PAGES_MAX][PAGE_BYTES] */
} slot;

typedef struct {
    bt_perf_options options; /* with the work of a soak */
    bt_perf_pair pair;
    uint8_t *memory; /* of all slots */
    slot slots[SLOTS];
    uint32_t n_begun, n_ended, n_done, n_canceled;
    uint64_t random;
    bt_perf_rest rests[RESTS];
    uint32_t n_rests;
    uint64_t start_ns, bytes;
} soak;

static uint32_t draw(soak *s, uint32_t below)
{
    s->random += UINT64_C(0x9e3779b97f4a7c15);
    return (uint32_t)(bt_perf_mix(s->random) % below);
}

/* order[n]: as is, reversed or shuffled. */
static void draw_order(soak *s, uint32_t *order, uint32_t n)
{
    uint32_t kind = draw(s, 3);
    for (uint32_t i = 0; i < n; i++)
        order[i] = kind == 1 ? n - 1 - i : i;
    for (uint32_t i = n; kind == 2 && i > 1; i--) {
        uint32_t j = draw(s, i), taken = order[j];
        order[j] = order[i - 1];
        order[i - 1] = taken;
    }
}

static uint64_t page_bytes_of(const soak *s, const slot *t, uint32_t page)
{
    uint64_t token_bytes = PAGE_BYTES / s->pair.work.layout.chunk_tokens;
    return page + 1 < t->n_pages ? PAGE_BYTES : t->last_tokens * token_bytes;
}

static void draw_shape(soak *s, slot *t)
{
    t->name = s->n_begun++;
    t->content = t->name;
    if (t->name > 16 && draw(s, 8) == 0)
        t->content -= 1 + draw(s, 16);
    t->n_pages = 1 + draw(s, PAGES_MAX);
    t->last_tokens = 1 + draw(s, s->pair.work.layout.chunk_tokens);
    t->n_pushed = t->n_free = 0;
    t->canceled = draw(s, 10) == 0;
}

static baton_status push_pages(soak *s, slot *t, uint32_t n)
{
    uint32_t order[PAGES_MAX];
    draw_order(s, order, t->n_pages);
    for (uint32_t i = 0; i < n; i++) {
        const uint8_t *page = t->memory + (size_t)order[i] * PAGE_BYTES;
        BATON_TRY(baton_transfer_push_bytes(s->pair.sender, t->transfer, order[i], page,
                                            (size_t)page_bytes_of(s, t, order[i])));
        t->n_pushed++;
    }
    return BATON_OK;
}

static baton_status begin(soak *s, slot *t)
{
    draw_shape(s, t);
    BATON_TRY(bt_perf_pair_hash(&s->pair, t->content, t->n_pages, t->last_tokens));
    for (uint32_t page = 0; page < t->n_pages; page++)
        bt_perf_fill_page(&s->pair.work, t->content, page, t->memory + (size_t)page * PAGE_BYTES);
    BATON_TRY(bt_perf_pair_begin(&s->pair, t->name, &t->transfer));
    t->is_busy = true;
    if (!t->canceled) {
        BATON_TRY(push_pages(s, t, t->n_pages));
        return baton_transfer_finish(s->pair.sender, t->transfer);
    }
    uint32_t n_pushes = draw(s, t->n_pages + 1);
    BATON_TRY(push_pages(s, t, n_pushes));
    if (n_pushes == t->n_pages)
        BATON_TRY(baton_transfer_finish(s->pair.sender, t->transfer));
    return baton_transfer_cancel(s->pair.sender, t->transfer);
}

static baton_status on_end(soak *s, slot *t, const baton_sender_event *event)
{
    t->is_busy = false;
    s->n_ended++;
    if (t->n_free != t->n_pushed)
        return bt_fail(BATON_ERR_STATE, "soak: transfer %u: %u pages pushed, %u free again",
                       t->name, t->n_pushed, t->n_free);
    if (event->kind == BATON_SENDER_FAILED) {
        s->n_canceled++;
        return t->canceled && event->status == BATON_ERR_CANCELED
                   ? BATON_OK
                   : bt_fail(event->status, "soak: transfer %u: %s", t->name, event->text);
    }
    s->n_done++;
    s->bytes += event->sent_bytes;
    s->pair.n_pages = t->n_pages;
    s->pair.last_tokens = t->last_tokens;
    return bt_perf_pair_check(&s->pair, t->name, t->content, NULL);
}

static baton_status on_event(soak *s, const baton_sender_event *event)
{
    for (uint32_t i = 0; i < SLOTS; i++) {
        slot *t = &s->slots[i];
        if (!t->is_busy || t->transfer != event->transfer)
            continue;
        if (event->kind != BATON_SENDER_SOURCE_FREE)
            return on_end(s, t, event);
        t->n_free++;
        return BATON_OK;
    }
    return bt_fail(BATON_ERR_STATE, "soak: an event of no transfer that is under way");
}

static baton_status take_events(soak *s)
{
    static baton_sender_event events[EVENTS_AT_ONCE];
    uint32_t n = baton_sender_poll(s->pair.sender, events, EVENTS_AT_ONCE);
    for (uint32_t i = 0; i < n; i++)
        BATON_TRY(on_event(s, &events[i]));
    if (n == 0)
        bt_perf_pair_wait(&s->pair, true, BT_NEVER_NS, -1);
    return BATON_OK;
}

static bool is_idle(const soak *s)
{
    for (uint32_t i = 0; i < SLOTS; i++) {
        if (s->slots[i].is_busy)
            return false;
    }
    return true;
}

static baton_status ask_usage(soak *s, bt_perf_rest *rest)
{
    char line[BT_PERF_LINE_BYTES];
    const struct {
        const char *key;
        uint64_t *value;
    } fields[] = {{"rss_kb", &rest->receiver.rss_kb},   {"fds", &rest->receiver.fds},
                  {"maps", &rest->receiver.maps},       {"registered", &rest->receiver.registered},
                  {"remotes", &rest->receiver.remotes}, {"total", &rest->pages_total},
                  {"usable", &rest->pages_usable},      {"live", &rest->live}};
    BATON_TRY(bt_perf_send(&s->pair.control, "usage"));
    BATON_TRY(bt_perf_expect(&s->pair.control, "usage", line));
    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++)
        BATON_TRY(bt_perf_field(line, fields[i].key, 0, UINT64_MAX, fields[i].value));
    return BATON_OK;
}

/* Lets everything end, at both sides, and samples. */
static baton_status take_rest(soak *s)
{
    while (!is_idle(s))
        BATON_TRY(take_events(s));
    bt_perf_rest rest = {.n_transfers = s->n_ended};
    uint64_t until_ns = bt_now_ns(&bt_clock_monotonic) + REST_WAIT_S * BT_NS_PER_S;
    do {
        BATON_TRY(ask_usage(s, &rest));
        bool is_at_rest = rest.live == 0 && rest.pages_usable == rest.pages_total;
        if (is_at_rest || bt_now_ns(&bt_clock_monotonic) >= until_ns)
            break;
        /* The answer to a cancel is on its way, or a lease has to run out. */
        bt_perf_pair_wait(&s->pair, true, bt_now_ns(&bt_clock_monotonic) + 5 * BT_NS_PER_MS, -1);
    } while (true);
    BATON_TRY(bt_perf_usage_now(&rest.sender));
    s->rests[s->n_rests++] = rest;
    if (isatty(STDERR_FILENO) == 1)
        fprintf(stderr, "\r\033[K%u of %u transfers%s", s->n_ended, s->options.soak,
                s->n_rests == RESTS ? "\r\033[K" : "");
    return BATON_OK;
}

static baton_status run_all(soak *s)
{
    while (s->n_rests < RESTS) {
        uint32_t until = (uint32_t)((uint64_t)s->options.soak * (s->n_rests + 1) / RESTS);
        while (s->n_begun < until) {
            for (uint32_t i = 0; i < SLOTS && s->n_begun < until; i++) {
                if (!s->slots[i].is_busy)
                    BATON_TRY(begin(s, &s->slots[i]));
            }
            BATON_TRY(take_events(s));
        }
        BATON_TRY(take_rest(s));
    }
    return BATON_OK;
}

static baton_status judge_one(const bt_perf_rest *rests, uint32_t n, const char *name,
                              size_t offset, uint64_t slack)
{
    uint64_t before = 0, after = 0;
    for (uint32_t i = n / 4; i < n; i++) {
        uint64_t value;
        memcpy(&value, (const char *)&rests[i] + offset, sizeof(value));
        uint64_t *most = i < n / 2 ? &before : &after;
        *most = value > *most ? value : *most;
    }
    if (after > before + slack)
        return bt_fail(BATON_ERR_STATE, "soak: %s grew from %" PRIu64 " to %" PRIu64, name, before,
                       after);
    return BATON_OK;
}

baton_status bt_perf_soak_judge(const bt_perf_rest *rests, uint32_t n)
{
#define BOTH(name, field, slack)                                              \
    {"the sender's " name, offsetof(bt_perf_rest, sender.field), slack},      \
    {                                                                         \
        "the receiver's " name, offsetof(bt_perf_rest, receiver.field), slack \
    }
    static const struct {
        const char *name;
        size_t offset;
        uint64_t slack;
    } figures[] = {BOTH("RSS (KiB)", rss_kb, RSS_SLACK_KB), BOTH("descriptors", fds, 0),
                   BOTH("mappings", maps, MAPS_SLACK), BOTH("UCX registrations", registered, 0),
                   BOTH("unpacked keys", remotes, 0)};
#undef BOTH
    for (size_t i = 0; i < sizeof(figures) / sizeof(figures[0]); i++)
        BATON_TRY(judge_one(rests, n, figures[i].name, figures[i].offset, figures[i].slack));
    for (uint32_t i = 0; i < n; i++) {
        if (rests[i].live != 0 || rests[i].pages_usable != rests[i].pages_total)
            return bt_fail(BATON_ERR_STATE,
                           "soak: at rest after %u transfers, %" PRIu64 " of %" PRIu64
                           " pages were usable, and %" PRIu64 " tickets, holds and pins live",
                           rests[i].n_transfers, rests[i].pages_usable, rests[i].pages_total,
                           rests[i].live);
    }
    return BATON_OK;
}

static void put_table(const soak *s, double seconds, bt_strbuf *out)
{
    bt_strbuf_printf(out,
                     "%u transfers in %.1f s: %u done, %u canceled; %.2f GB sent, every byte of "
                     "what was done verified\npath %s\n\n"
                     "%10s  %23s  %11s  %11s  %11s  %11s  %13s\n",
                     s->n_ended, seconds, s->n_done, s->n_canceled, (double)s->bytes / 1e9,
                     bt_perf_pair_path(&s->pair), "transfers", "RSS KiB, both", "fds", "mappings",
                     "registered", "keys", "pages usable");
    for (uint32_t i = 0; i < s->n_rests; i++) {
        const bt_perf_rest *r = &s->rests[i];
        if (i % 4 != 3)
            continue;
        bt_strbuf_printf(
            out,
            "%10u  %11" PRIu64 " %11" PRIu64 "  %5" PRIu64 " %5" PRIu64 "  %5" PRIu64 " %5" PRIu64
            "  %5" PRIu64 " %5" PRIu64 "  %5" PRIu64 " %5" PRIu64 "  %6" PRIu64 "/%" PRIu64 "\n",
            r->n_transfers, r->sender.rss_kb, r->receiver.rss_kb, r->sender.fds, r->receiver.fds,
            r->sender.maps, r->receiver.maps, r->sender.registered, r->receiver.registered,
            r->sender.remotes, r->receiver.remotes, r->pages_usable, r->pages_total);
    }
}

static void json_usage(const char *name, const bt_perf_usage *u, bt_strbuf *out)
{
    bt_strbuf_printf(out,
                     "\"%s\": {\"rss_kb\": %" PRIu64 ", \"fds\": %" PRIu64 ", \"maps\": %" PRIu64
                     ", \"registered\": %" PRIu64 ", \"remotes\": %" PRIu64 "}, ",
                     name, u->rss_kb, u->fds, u->maps, u->registered, u->remotes);
}

static void put_json(const soak *s, double seconds, bool is_flat, bt_strbuf *out)
{
    bt_perf_json_head(out, "soak", &s->pair);
    bt_strbuf_printf(out,
                     "  \"transfers\": %u,\n  \"done\": %u,\n  \"canceled\": %u,\n"
                     "  \"bytes\": %" PRIu64 ",\n  \"seconds\": %.3f,\n  \"flat\": %s,\n"
                     "  \"rests\": [",
                     s->n_ended, s->n_done, s->n_canceled, s->bytes, seconds,
                     is_flat ? "true" : "false");
    for (uint32_t i = 0; i < s->n_rests; i++) {
        const bt_perf_rest *r = &s->rests[i];
        bt_strbuf_printf(out, "%s\n    {\"transfers\": %u, ", i > 0 ? "," : "", r->n_transfers);
        json_usage("sender", &r->sender, out);
        json_usage("receiver", &r->receiver, out);
        bt_strbuf_printf(out, "\"pages_total\": %" PRIu64 ", \"pages_usable\": %" PRIu64 "}",
                         r->pages_total, r->pages_usable);
    }
    bt_strbuf_puts(out, "\n  ]\n}\n");
}

static baton_status prepare(const bt_perf_options *options, const char *program, soak *s)
{
    s->options = *options;
    s->options.n_pages = PAGES_MAX;
    s->options.page_bytes = PAGE_BYTES;
    s->options.pool_pages = POOL_PAGES;
    s->options.paged = true; /* for chunks of several tokens; they are pushed in page layout */
    s->options.shape =
        (bt_perf_shape){.n_layers = 1, .n_heads = 1, .head_dim = 64, .block_tokens = 16};
    s->random = options->seed;
    s->start_ns = bt_now_ns(&bt_clock_monotonic);
    s->memory = bt_calloc(SLOTS * PAGES_MAX, PAGE_BYTES);
    if (s->memory == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "soak: %d pages", SLOTS * PAGES_MAX);
    for (size_t i = 0; i < SLOTS; i++)
        s->slots[i].memory = s->memory + i * PAGES_MAX * PAGE_BYTES;
    BATON_TRY(bt_perf_pair_open(&s->options, program, &s->pair));
    return baton_sender_register(s->pair.sender, s->memory, (size_t)SLOTS * PAGES_MAX * PAGE_BYTES,
                                 BATON_MEMORY_HOST);
}

baton_status bt_perf_soak(const bt_perf_options *options, const char *program, bt_strbuf *out)
{
    static soak s; /* its samples are too large for a stack */
    s = (soak){0};
    baton_status status = prepare(options, program, &s);
    if (status == BATON_OK)
        status = run_all(&s);
    if (status == BATON_OK) {
        double seconds = (double)(bt_now_ns(&bt_clock_monotonic) - s.start_ns) / 1e9;
        status = bt_perf_soak_judge(s.rests, s.n_rests);
        if (options->json)
            put_json(&s, seconds, status == BATON_OK, out);
        else
            put_table(&s, seconds, out);
    }
    if (s.pair.options != NULL)
        status = bt_perf_pair_close(&s.pair, status);
    bt_free(s.memory);
    return status;
}
