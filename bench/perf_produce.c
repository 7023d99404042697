/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/perf_produce.h"

#include "bench/perf_quantiles.h"
#include "core/clock.h"
#include "core/fail.h"
#include "wire/notice.h"
#include "wire/zmqsocket.h"

#include <stdio.h>

enum { NOTICE_WAIT_S = 30 };

typedef struct {
    bt_perf_pair pair;
    void *context, *pull; /* where the proxy would listen */
    int pull_fd;
    char notice[64];
    bt_perf_values exposed, bulk_page;
} bench;

static uint64_t now(void)
{
    return bt_now_ns(&bt_clock_monotonic);
}

static baton_status listen_for_notices(bench *b)
{
    uint16_t port;
    BATON_TRY(bt_zmq_context_create(&b->context));
    BATON_TRY(bt_zmq_open(b->context, &(bt_zmq_options){.type = ZMQ_PULL}, &b->pull));
    BATON_TRY(bt_zmq_bind(b->pull, "127.0.0.1", 0, &port));
    snprintf(b->notice, sizeof(b->notice), "tcp://127.0.0.1:%u", port);
    b->pair.notice = b->notice;
    return bt_zmq_fd(b->pull, &b->pull_fd);
}

/* The next notice, of whatever request: there is one under way at a time. */
static baton_status wait_notice(bench *b)
{
    bt_zmq_message message;
    baton_status status;
    uint64_t until_ns = now() + NOTICE_WAIT_S * BT_NS_PER_S;
    while ((status = bt_zmq_recv(b->pull, &message)) == BATON_IN_PROGRESS) {
        if (now() >= until_ns)
            return bt_fail(BATON_ERR_DEADLINE, "perf: no notice within %d s", NOTICE_WAIT_S);
        bt_perf_pair_wait(&b->pair, true, until_ns, b->pull_fd);
    }
    BATON_TRY(status);
    bt_notice notice;
    bt_blob frame = bt_zmq_part(&message, 0);
    status = bt_notice_decode(frame.data, frame.bytes, &notice);
    if (status == BATON_OK && notice.kind != BT_NOTICE_READY)
        status = bt_fail((baton_status)notice.status, "perf: the request failed: %.*s",
                         (int)notice.text.bytes, (const char *)notice.text.data);
    bt_zmq_message_close(&message);
    return status;
}

/* produce_ms 0: all pages at once. *exposed_ns: last push to notice; *move_ns: granted to done. */
static baton_status move(bench *b, uint32_t number, uint32_t produce_ms, uint64_t *exposed_ns,
                         uint64_t *move_ns)
{
    bt_perf_pair *pair = &b->pair;
    uint32_t n_pages = pair->work.n_pages;
    baton_transfer transfer;
    baton_sender_event end;
    BATON_TRY(bt_perf_pair_prepare(pair, number));
    BATON_TRY(bt_perf_pair_begin(pair, number, &transfer));
    uint64_t start_ns = now(), pushed_ns = start_ns;
    for (uint32_t page = 0; page < n_pages; page++) {
        uint64_t due_ns = start_ns + (uint64_t)(page + 1) * produce_ms * BT_NS_PER_MS;
        while (now() < due_ns)
            bt_perf_pair_wait(pair, true, due_ns, -1);
        pushed_ns = now();
        BATON_TRY(bt_perf_pair_push(pair, transfer, page));
    }
    BATON_TRY(baton_transfer_finish(pair->sender, transfer));
    BATON_TRY(wait_notice(b));
    *exposed_ns = now() - pushed_ns;
    BATON_TRY(bt_perf_pair_end(pair, true, n_pages, &end));
    *move_ns = end.move_ns;
    return bt_perf_pair_check(pair, number, number, NULL);
}

/* In turns: as prefill has it, and all at once, which says what one page's transfer takes. */
static baton_status sample(bench *b)
{
    const bt_perf_options *o = b->pair.options;
    for (uint32_t i = 0; i < o->n_warmup + o->n_samples; i++) {
        uint64_t exposed_ns, bulk_ns, unused_ns;
        BATON_TRY(move(b, 2 * i, 0, &unused_ns, &bulk_ns));
        /* The first ones connect; prefill's pace tells nothing about them. */
        BATON_TRY(move(b, 2 * i + 1, i < o->n_warmup ? 0 : o->produce_ms, &exposed_ns, &unused_ns));
        if (i < o->n_warmup)
            continue;
        bt_perf_values_add(&b->exposed, exposed_ns);
        bt_perf_values_add(&b->bulk_page, bulk_ns / o->n_pages);
    }
    return BATON_OK;
}

static void report(bench *b, bt_strbuf *out)
{
    const bt_perf_options *o = b->pair.options;
    bt_perf_quantiles exposed = bt_perf_quantiles_of(&b->exposed);
    bt_perf_quantiles page = bt_perf_quantiles_of(&b->bulk_page);
    double excess = exposed.median - page.median;
    if (o->json) {
        bt_perf_json_head(out, "produce", &b->pair);
        bt_strbuf_printf(out, "  \"produce_ms\": %u,\n  \"samples\": %u,\n", o->produce_ms,
                         b->exposed.n);
        bt_perf_json_row(out, "us", &exposed, ",");
        bt_perf_json_row(out, "page_us", &page, ",");
        bt_strbuf_printf(out, "  \"excess_us\": %.3f\n}\n", excess);
        return;
    }
    bt_perf_put_head(out, &b->pair);
    bt_strbuf_printf(out, "%-28s %u, a page every %u ms\n", "samples", b->exposed.n, o->produce_ms);
    bt_perf_put_columns(out);
    bt_perf_put_row(out, "last push to notice", &exposed);
    bt_perf_put_row(out, "one page, of all at once", &page);
    bt_strbuf_printf(out, "%-28s %11s %11.1f\n", "exposed beyond one page", "", excess);
}

static baton_status run(const bt_perf_options *options, const char *program, bench *b)
{
    BATON_TRY(bt_perf_values_create(options->n_samples, &b->exposed));
    BATON_TRY(bt_perf_values_create(options->n_samples, &b->bulk_page));
    BATON_TRY(bt_perf_pair_open(options, program, &b->pair));
    BATON_TRY(listen_for_notices(b));
    return sample(b);
}

baton_status bt_perf_produce(const bt_perf_options *options, const char *program, bt_strbuf *out)
{
    bench b = {.pull_fd = -1};
    baton_status status = run(options, program, &b);
    if (status == BATON_OK)
        report(&b, out);
    if (b.pair.options != NULL)
        status = bt_perf_pair_close(&b.pair, status);
    bt_zmq_close(b.pull);
    bt_zmq_context_destroy(b.context);
    bt_perf_values_free(&b.exposed);
    bt_perf_values_free(&b.bulk_page);
    return status;
}
