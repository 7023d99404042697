/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "core/alloc.h"
#include "http/sse.h"

#include <stdio.h>

/* Events as text: "name|data|id|raw;" each, "~" for data that is not there. */
typedef struct {
    char text[8192];
    size_t used;
} record;

static void on_event(void *ctx, const bt_sse_event *event)
{
    record *r = ctx;
    r->used += (size_t)snprintf(r->text + r->used, sizeof(r->text) - r->used,
                                "%.*s|%.*s|%.*s|%.*s;", (int)event->name.n, event->name.at,
                                (int)event->data.n, event->data.at != NULL ? event->data.at : "",
                                (int)event->id.n, event->id.at, (int)event->raw.n, event->raw.at);
    if (event->data.at == NULL)
        r->text[r->used++] = '~';
    assert_true(r->used < sizeof(r->text));
}

static const struct {
    const char *stream, *events;
} cases[] = {
    {"data: a\n\n", "|a||data: a\n\n;"},
    {"data:a\ndata: b\ndata\ndata:  c\n\n", "|a\nb\n\n c||data:a\ndata: b\ndata\ndata:  c\n\n;"},
    {"event: e\nid: 7\ndata: x\n\n", "e|x|7|event: e\nid: 7\ndata: x\n\n;"},
    {"data: a\r\n\r\ndata: b\r\n\r\n", "|a||data: a\r\n\r\n;|b||data: b\r\n\r\n;"},
    {"data: a\r\rdata: b\r\r", "|a||data: a\r\r;|b||data: b\r\r;"},
    {"data: a\n\r\ndata: b\n\n", "|a||data: a\n\r;|b||data: b\n\n;"},
    {": ping\n\ndata: a\n\n", "|||: ping\n\n;~|a||data: a\n\n;"},
    {"\n\n\ndata: a\n\n\n\n", "|a||data: a\n\n;"},
    {"retry: 1\nfoo\n\n", "|||retry: 1\nfoo\n\n;~"},
    {"data: [DONE]\n\n", "|[DONE]||data: [DONE]\n\n;"},
    {"data:\n\n", "|||data:\n\n;"},
    {"\xef\xbb\xbf"
     "data: a\n\ndata: b\n\n",
     "|a||\xef\xbb\xbf"
     "data: a\n\n;|b||data: b\n\n;"},
};

static void events_come_out_the_same_wherever_reads_cut_them(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        size_t n = strlen(cases[i].stream);
        for (size_t piece = 1; piece <= n; piece++) {
            record r = {.used = 0};
            bt_sse *sse;
            assert_ok(bt_sse_create(64, on_event, &r, &sse));
            for (size_t at = 0; at < n; at += piece) {
                size_t part = n - at < piece ? n - at : piece;
                uint8_t *bytes = bt_guarded_copy(cases[i].stream + at, part);
                assert_ok(bt_sse_feed(sse, (char *)bytes, part));
                bt_guarded_free(bytes, part);
            }
            assert_int_equal(bt_sse_pending_bytes(sse), 0);
            r.text[r.used] = '\0';
            assert_string_equal(r.text, cases[i].events);
            bt_sse_destroy(sse);
        }
    }
}

static void an_event_is_there_as_soon_as_its_last_byte_is(void **state)
{
    (void)state;
    static const char *const ends[] = {"\n\n", "\r\r", "\r\n\r\n"};
    for (size_t i = 0; i < 3; i++) {
        record r = {.used = 0};
        bt_sse *sse;
        assert_ok(bt_sse_create(64, on_event, &r, &sse));
        assert_ok(bt_sse_feed(sse, "data: a", 7));
        for (size_t k = 0; ends[i][k] != '\0'; k++) {
            assert_int_equal(r.used, 0);
            assert_true(bt_sse_pending_bytes(sse) > 0);
            assert_ok(bt_sse_feed(sse, ends[i] + k, 1));
        }
        assert_true(r.used > 0);
        bt_sse_destroy(sse);
    }
}

static void an_event_that_is_too_large_ends_the_stream(void **state)
{
    (void)state;
    record r = {.used = 0};
    bt_sse *sse;
    assert_ok(bt_sse_create(10, on_event, &r, &sse));
    assert_ok(bt_sse_feed(sse, "data: ab\n\n", 10));
    assert_ok(bt_sse_feed(sse, "data: abc\n", 10));
    assert_fails(bt_sse_feed(sse, "\n", 1), BATON_ERR_TOO_LARGE, "more than 10 bytes");
    assert_fails(bt_sse_feed(sse, "x", 1), BATON_ERR_TOO_LARGE, "failed before");
    bt_sse_reset(sse);
    assert_ok(bt_sse_feed(sse, "data: ab\n\n", 10));
    assert_string_equal(r.text, "|ab||data: ab\n\n;|ab||data: ab\n\n;");
    bt_sse_destroy(sse);
    assert_fails(bt_sse_create(0, on_event, &r, &sse), BATON_ERR_INVALID_ARG, "limit");
}

static void failed_allocations_are_told(void **state)
{
    (void)state;
    for (uint64_t nth = 1; nth <= 3; nth++) {
        record r = {.used = 0};
        bt_sse *sse;
        bt_alloc_fail_at(nth);
        baton_status status = bt_sse_create(100, on_event, &r, &sse);
        if (status == BATON_OK) {
            assert_int_equal(bt_sse_feed(sse, "data: a\ndata: b\n\n", 17), BATON_ERR_NO_MEMORY);
            bt_sse_destroy(sse);
        } else {
            assert_int_equal(nth, 1);
        }
        bt_alloc_fail_at(0);
    }
}

static void formatted_events_read_back(void **state)
{
    (void)state;
    char out[64];
    size_t n = bt_sse_format(out, sizeof(out), "error", "a\nb\r\nc", 6);
    assert_int_equal(n, 38);
    assert_memory_equal(out, "event: error\ndata: a\ndata: b\ndata: c\n\n", 38);
    record r = {.used = 0};
    bt_sse *sse;
    assert_ok(bt_sse_create(64, on_event, &r, &sse));
    assert_ok(bt_sse_feed(sse, out, n));
    assert_non_null(strstr(r.text, "error|a\nb\nc||"));
    bt_sse_destroy(sse);
    n = bt_sse_format(out, 4, NULL, "[DONE]", 6);
    assert_int_equal(n, 14);
    assert_memory_equal(out, "data", 4);
    assert_int_equal(bt_sse_format(NULL, 0, NULL, NULL, 0), 8);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(events_come_out_the_same_wherever_reads_cut_them),
        bt_test(an_event_is_there_as_soon_as_its_last_byte_is),
        bt_test(an_event_that_is_too_large_ends_the_stream),
        bt_test(failed_allocations_are_told),
        bt_test(formatted_events_read_back),
    };
    return bt_run_tests(tests);
}
