/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "core/alloc.h"
#include "http/httpparse.h"

#include <stdio.h>

typedef struct {
    bt_http_parser parser;
    char body[256];
    size_t body_bytes;
    unsigned n_heads;
} reader;

static bool on_head(void *ctx)
{
    reader *r = ctx;
    r->n_heads++;
    return true;
}

static bool on_body(void *ctx, const char *bytes, size_t n)
{
    reader *r = ctx;
    memcpy(r->body + r->body_bytes, bytes, n);
    r->body_bytes += n;
    r->body[r->body_bytes] = '\0';
    return true;
}

static const bt_http_parser_ops ops = {on_head, on_body};

static void reader_init(reader *r, bool is_response)
{
    *r = (reader){.n_heads = 0};
    bt_http_parser_init(&r->parser, is_response, &ops, r);
    r->parser.max_head_bytes = 1000;
    r->parser.max_headers = 10;
    r->parser.max_body_bytes = 200;
}

/* Feeds text in pieces against an unreadable page; returns how many bytes were used. */
static size_t feed_pieces(reader *r, const char *text, size_t n, size_t first)
{
    size_t used = 0;
    for (size_t part = first; used < n; part = n - used) {
        uint8_t *bytes = bt_guarded_copy(text + used, part);
        size_t taken = bt_http_parser_feed(&r->parser, (char *)bytes, part);
        bt_guarded_free(bytes, part);
        used += taken;
        if (taken < part)
            break;
    }
    return used;
}

static const struct {
    const char *text; /* "#" stands for where the next message begins */
    bool is_response;
    const char *body;
} messages[] = {
    {"GET /a?b HTTP/1.1\r\nHost: h\r\nX-Y:\t v w \t\r\nE:\r\n\r\n#GET /", false, ""},
    {"\r\n\r\nPOST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello#POST", false, "hello"},
    {"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: Chunked\r\n\r\n"
     "5;a=\"d\"\r\nhello\r\n0006\r\n world\r\n0\r\n\r\n#GET / HTTP",
     false, "hello world"},
    {"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
     "1\r\nx\r\n0;z\r\nT1: a\r\nT2: b\r\n\r\n#GET / HTTP",
     false, "x"},
    {"GET / HTTP/1.1\r\nHost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n\r\n#PRI",
     false, ""},
    {"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok#HTTP", true, "ok"},
    {"HTTP/1.1 200 \r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n#HTTP", true, "ok"},
    {"HTTP/1.1 204 No Content\r\n\r\n#HTTP/1.1", true, ""},
};

static void messages_read_the_same_wherever_they_are_cut(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(messages) / sizeof(messages[0]); i++) {
        char text[512];
        size_t end = strcspn(messages[i].text, "#");
        snprintf(text, sizeof(text), "%.*s%s", (int)end, messages[i].text,
                 messages[i].text + end + 1);
        for (size_t cut = 1; cut <= strlen(text); cut++) {
            reader r;
            reader_init(&r, messages[i].is_response);
            size_t used = feed_pieces(&r, text, strlen(text), cut);
            if (r.parser.phase != BT_HTTP_PARSE_DONE || used != end)
                fail_msg("message %zu cut at %zu: phase %d, %zu of %zu used: %s", i, cut,
                         r.parser.phase, used, end, r.parser.text);
            assert_int_equal(r.n_heads, 1);
            assert_string_equal(r.body, messages[i].body);
            assert_true(r.parser.keep_alive);
            bt_http_parser_free(&r.parser);
        }
    }
}

static void a_head_is_taken_apart(void **state)
{
    (void)state;
    reader r;
    reader_init(&r, false);
    feed_pieces(&r, messages[0].text, strcspn(messages[0].text, "#"), 20);
    assert_string_equal(bt_http_parser_method(&r.parser), "GET");
    bt_http_head head = bt_http_parser_take_head(&r.parser);
    bt_http_headers list = bt_http_head_list(&head);
    assert_string_equal(head.bytes, "/a?b");
    assert_int_equal(list.n, 3);
    assert_string_equal(bt_http_header_get(list, "x-y"), "v w");
    assert_string_equal(bt_http_header_get(list, "e"), "");
    bt_http_head_free(&head);
    bt_http_parser_free(&r.parser);
}

static void every_cut_off_message_is_unfinished(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(messages) / sizeof(messages[0]); i++) {
        size_t end = strcspn(messages[i].text, "#");
        for (size_t n = 1; n < end; n++) {
            reader r;
            reader_init(&r, messages[i].is_response);
            assert_int_equal(feed_pieces(&r, messages[i].text, n, n), n);
            assert_true(r.parser.phase < BT_HTTP_PARSE_DONE);
            bt_http_parser_finish(&r.parser);
            assert_int_equal(r.parser.phase, BT_HTTP_PARSE_FAILED);
            assert_int_equal(r.parser.error, BATON_ERR_CLOSED);
            bt_http_parser_free(&r.parser);
        }
    }
}

static void an_answer_without_length_ends_with_the_connection(void **state)
{
    (void)state;
    reader r;
    reader_init(&r, true);
    const char *text = "HTTP/1.1 200 OK\r\n\r\nto the end";
    feed_pieces(&r, text, strlen(text), 5);
    assert_int_equal(r.parser.phase, BT_HTTP_PARSE_BODY);
    assert_false(r.parser.keep_alive);
    bt_http_parser_finish(&r.parser);
    assert_int_equal(r.parser.phase, BT_HTTP_PARSE_DONE);
    assert_string_equal(r.body, "to the end");
    bt_http_parser_free(&r.parser);
}

static void keep_alive_follows_version_and_header(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        bool keep;
    } texts[] = {
        {"GET / HTTP/1.1\r\nHost: h\r\n\r\n", true},
        {"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n", false},
        {"GET / HTTP/1.0\r\n\r\n", false},
        {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", true},
    };
    for (size_t i = 0; i < 4; i++) {
        reader r;
        reader_init(&r, false);
        feed_pieces(&r, texts[i].text, strlen(texts[i].text), 3);
        assert_int_equal(r.parser.phase, BT_HTTP_PARSE_DONE);
        assert_int_equal(r.parser.keep_alive, texts[i].keep);
        bt_http_parser_free(&r.parser);
    }
}

static void a_parser_reads_one_message_after_the_other(void **state)
{
    (void)state;
    const char *text = "POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
                       "1\r\nx\r\n0\r\n\r\n";
    reader r;
    reader_init(&r, false);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(bt_http_parser_feed(&r.parser, text, strlen(text)), strlen(text));
        assert_int_equal(r.parser.phase, BT_HTTP_PARSE_DONE);
        bt_http_parser_reset(&r.parser);
        assert_true(bt_http_parser_is_fresh(&r.parser));
    }
    assert_string_equal(r.body, "xxx");
    bt_http_parser_free(&r.parser);
}

static void failed_allocations_end_in_503(void **state)
{
    (void)state;
    const char *text = messages[0].text;
    for (uint64_t nth = 1; nth <= 3; nth++) {
        reader r;
        reader_init(&r, false);
        bt_alloc_fail_at(nth);
        bt_http_parser_feed(&r.parser, text, strcspn(text, "#"));
        bt_alloc_fail_at(0);
        assert_int_equal(r.parser.phase, BT_HTTP_PARSE_FAILED);
        assert_int_equal(r.parser.error, BATON_ERR_NO_MEMORY);
        assert_int_equal(r.parser.http_status, 503);
        bt_http_parser_free(&r.parser);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(messages_read_the_same_wherever_they_are_cut),
        bt_test(a_head_is_taken_apart),
        bt_test(every_cut_off_message_is_unfinished),
        bt_test(an_answer_without_length_ends_with_the_connection),
        bt_test(keep_alive_follows_version_and_header),
        bt_test(a_parser_reads_one_message_after_the_other),
        bt_test(failed_allocations_end_in_503),
    };
    return bt_run_tests(tests);
}
