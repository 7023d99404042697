/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "http/httpmsg.h"

static void headers_are_found_without_regard_to_case(void **state)
{
    (void)state;
    const bt_http_header items[] = {
        {"Content-Type", "text/plain"}, {"X-A", "1"}, {"x-a", "2"}, {"Connection", "close, X-Foo"}};
    bt_http_headers list = {items, 4};
    assert_string_equal(bt_http_header_get(list, "content-type"), "text/plain");
    assert_string_equal(bt_http_header_get(list, "X-a"), "1");
    assert_int_equal(bt_http_header_count(list, "X-A"), 2);
    assert_null(bt_http_header_get(list, "X-B"));
    assert_true(bt_http_is_hop_by_hop(list, "Transfer-Encoding"));
    assert_true(bt_http_is_hop_by_hop(list, "x-foo"));
    assert_false(bt_http_is_hop_by_hop(list, "Content-Type"));
    assert_true(bt_http_has_token(" close ,X", "CLOSE"));
    assert_false(bt_http_has_token("closed", "close"));
    assert_false(bt_http_has_token(NULL, "close"));
}

static void headers_that_would_split_a_message_are_not_clean(void **state)
{
    (void)state;
    assert_true(bt_http_header_is_clean("X-A", "v \t\xc3\xa4"));
    assert_false(bt_http_header_is_clean("X-A", "v\r\nY: z"));
    assert_false(bt_http_header_is_clean("X A", "v"));
    assert_false(bt_http_header_is_clean("", "v"));
}

static void origins_are_split(void **state)
{
    (void)state;
    static const struct {
        const char *text, *host;
        uint16_t port;
        bool is_tls;
    } good[] = {
        {"http://a:1", "a", 1, false},      {"http://a:1/", "a", 1, false},
        {"a.b:65535", "a.b", 65535, false}, {"a", "a", 80, false},
        {"[::1]:7", "::1", 7, false},       {"http://[::1]", "::1", 80, false},
        {"https://a", "a", 443, true},      {"HTTPS://[::1]:8443/", "::1", 8443, true},
    };
    char host[16];
    uint16_t port;
    bool is_tls;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_ok(bt_http_parse_origin(good[i].text, 80, host, sizeof(host), &port, &is_tls));
        assert_int_equal(is_tls, good[i].is_tls);
        assert_string_equal(host, good[i].host);
        assert_int_equal(port, good[i].port);
    }
    static const char *const bad[] = {"",     "https://a", "a:0", "a:65536", "a:x",  "a:",
                                      "[::1", "a/path",    ":80", "[::1]x",  "a:1x", "a:-1"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_fails(bt_http_parse_origin(bad[i], 80, host, sizeof(host), &port, NULL),
                     BATON_ERR_INVALID_ARG, "origin");
    assert_fails(bt_http_parse_origin("0123456789abcdef:1", 80, host, sizeof(host), &port, NULL),
                 BATON_ERR_TOO_LARGE, "longer");
}

static void error_bodies_are_openais(void **state)
{
    (void)state;
    char out[256];
    const char *wanted = "{\"error\":{\"message\":\"no \\\"x\\\"\\n\",\"type\":"
                         "\"invalid_request_error\",\"param\":\"model\",\"code\":null}}";
    size_t n = bt_http_error_body(out, sizeof(out), 400, NULL, "no \"x\"\n", "model", NULL);
    assert_string_equal(out, wanted);
    assert_int_equal(n, strlen(wanted));
    for (size_t cap = 0; cap <= n; cap++) {
        char small[256];
        memset(small, 'x', sizeof(small));
        assert_int_equal(bt_http_error_body(small, cap, 400, NULL, "no \"x\"\n", "model", NULL), n);
        assert_int_equal(small[cap], 'x');
        if (cap > 0)
            assert_int_equal(strlen(small), cap - 1);
    }
    bt_http_error_body(out, sizeof(out), 500, NULL, "m", NULL, "c");
    assert_non_null(strstr(out, "\"server_error\",\"param\":null,\"code\":\"c\""));
}

static void statuses_have_texts_and_failures_have_statuses(void **state)
{
    (void)state;
    assert_string_equal(bt_http_status_text(431), "Request Header Fields Too Large");
    assert_string_equal(bt_http_status_text(299), "Unknown");
    assert_int_equal(bt_http_status_of(BATON_ERR_UNREACHABLE), 502);
    assert_int_equal(bt_http_status_of(BATON_ERR_DEADLINE), 504);
    assert_int_equal(bt_http_status_of(BATON_ERR_OVERLOADED), 503);
    assert_int_equal(bt_http_status_of(BATON_ERR_NO_MEMORY), 503); /* nothing is wrong with it */
    assert_int_equal(bt_http_status_of(BATON_ERR_CORRUPT), 500);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(headers_are_found_without_regard_to_case),
        bt_test(headers_that_would_split_a_message_are_not_clean),
        bt_test(origins_are_split),
        bt_test(error_bodies_are_openais),
        bt_test(statuses_have_texts_and_failures_have_statuses),
    };
    return bt_run_tests(tests);
}
