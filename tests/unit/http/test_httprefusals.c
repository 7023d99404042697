/* SPDX-License-Identifier: Apache-2.0 */
/* Requests that the server refuses, or does not wait for. */
#include "serverkit.h"
#include "support/test.h"

#include <stdio.h>
#include <unistd.h>

static void requests_that_can_be_read_in_two_ways_are_refused(void **state)
{
    (void)state;
    static const struct {
        const char *text, *status;
    } cases[] = {
        {"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
         "0\r\n\r\n",
         "400"},
        {"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n"
         "0\r\n\r\n",
         "400"},
        {"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
         "400"},
        {"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 3, 3\r\n\r\nabc", "400"},
        {"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: +3\r\n\r\nabc", "400"},
        {"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999999999999\r\n\r\n", "400"},
        {"POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length : 3\r\n\r\nabc", "400"},
        {"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
         "400"},
        {"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
         "501"},
        {"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n"
         "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
         "400"},
        {"POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", "400"},
        {"GET /echo HTTP/1.1\r\nHost: h\r\nX: a\r\n b\r\n\r\n", "400"},
        {"GET /echo HTTP/1.1\r\n Host: h\r\n\r\n", "400"},
        {"GET /echo HTTP/1.1\nHost: h\n\n", "400"},
        {"GET /echo HTTP/1.1\r\nHost: h\nX: y\r\n\r\n", "400"},
        {"GET /echo HTTP/1.1\r\nHost: h\rX: y\r\n\r\n", "400"},
        {"GET /echo HTTP/1.1\r\nHost: h\r\nX: y\r\r\n\r\n", "400"},
        {"GET /echo HTTP/1.1\r\nHost: h\r\nHost: i\r\n\r\n", "400"},
        {"GET /echo HTTP/1.1\r\n\r\n", "400"},
        {"GET /echo HTTP/1.1\r\nHost: h\r\nX\001: y\r\n\r\n", "400"},
        {"GET /echo HTTP/1.1\r\nHost: h\r\n: y\r\n\r\n", "400"},
        {"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n",
         "400"},
        {"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: "
         "chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
         "400"},
        {"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0x3\r\nabc\r\n",
         "400"},
        {"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n-3\r\nabc\r\n",
         "400"},
        {"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
         "FFFFFFFFFFFFFFFFF\r\nabc\r\n",
         "400"},
        {"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
         "FFFFFFFFFFFFFFFF\r\nabc\r\n",
         "413"},
        {"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\nX: y\n\r\n",
         "400"},
        {"POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n X\r\n\r\n",
         "400"},
        {"GET /echo HTTP/2.0\r\nHost: h\r\n\r\n", "505"},
        {"GET /echo\r\n\r\n", "505"},
        {"BREW /echo HTTP/1.1\r\nHost: h\r\n\r\n", "501"},
        {"CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n", "501"},
        {"\x16\x03\x01\x02", "400"},
        {"GET /echo HTTP/1.1\r\nHost: h\r\nExpect: tea\r\n\r\n", "417"},
    };
    world w;
    world_start(&w, (bt_http_server_options){0});
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        /* A request hidden behind the bad one must not be answered. */
        char text[512], wanted[32];
        snprintf(text, sizeof(text), "%sGET /echo?hidden HTTP/1.1\r\nHost: h\r\n\r\n",
                 cases[i].text);
        snprintf(wanted, sizeof(wanted), "HTTP/1.1 %s ", cases[i].status);
        const char *answer = world_exchange(&w, text);
        if (strncmp(answer, wanted, strlen(wanted)) != 0)
            fail_msg("case %zu: wanted %s, found '%s'", i, wanted, answer);
        assert_has(answer, "{\"error\":{\"message\":\"");
        assert_null(strstr(answer, "hidden"));
    }
    bt_http_server_stats stats = world_stats(&w);
    assert_int_equal(stats.refused_total, sizeof(cases) / sizeof(cases[0]));
    assert_int_equal(stats.requests_total, 0);
    world_stop(&w);
}

static void limits_are_kept(void **state)
{
    (void)state;
    world w;
    world_start(
        &w, (bt_http_server_options){.max_head_bytes = 300, .max_headers = 4, .max_body_bytes = 8});
    char text[1024] = "GET /echo HTTP/1.1\r\nHost: h\r\nX: ";
    memset(text + strlen(text), 'a', 400);
    assert_has(world_exchange(&w, strcat(text, "\r\n\r\n")), "HTTP/1.1 431 ");
    assert_has(
        world_exchange(&w, "GET /echo HTTP/1.1\r\nHost: h\r\nA: 1\r\nB: 1\r\nC: 1\r\nD: 1\r\n\r\n"),
        "HTTP/1.1 431 ");
    assert_has(world_exchange(&w, "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n"),
               "HTTP/1.1 413 ");
    assert_has(world_exchange(&w,
                              "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
                              "5\r\nabcde\r\n4\r\nabcd\r\n0\r\n\r\n"),
               "HTTP/1.1 413 ");
    assert_has(world_exchange(&w, "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 8\r\n"
                                  "Connection: close\r\n\r\n12345678"),
               "HTTP/1.1 200 ");
    world_stop(&w);
}

static void long_chunk_framing_is_refused(void **state)
{
    (void)state;
    static char text[20000];
    world w;
    world_start(&w, (bt_http_server_options){0});
    strcpy(text, "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3;");
    memset(text + strlen(text), 'x', 8000);
    strcat(text, "\r\nabc\r\n0\r\n\r\n");
    assert_has(world_exchange(&w, text), "HTTP/1.1 400 ");
    strcpy(text, "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
    memset(text + strlen(text), '0', 8000);
    strcat(text, "3\r\nabc\r\n0\r\n\r\n");
    assert_has(world_exchange(&w, text), "HTTP/1.1 400 ");
    strcpy(text, "POST /echo HTTP/1.1\r\nHost: h\r\nConnection: close\r\n"
                 "Transfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 900; i++) /* many tiny chunks are fine */
        strcat(text, "00000001\r\nx\r\n");
    strcat(text, "0\r\n\r\n");
    assert_has(world_exchange(&w, text), "n=900 ");
    world_stop(&w);
}

static void slow_requests_time_out(void **state)
{
    (void)state;
    world w;
    world_start(&w, (bt_http_server_options){
                        .header_timeout_ms = 250, .body_timeout_ms = 250, .idle_timeout_ms = 250});
    assert_has(world_exchange(&w, "GET /echo HT"), "HTTP/1.1 408 ");
    assert_has(world_exchange(&w, "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc"),
               "HTTP/1.1 408 ");
    assert_string_equal(world_exchange(&w, ""), ""); /* idle: closed without a word */
    const char *answer = world_exchange(&w, "GET /echo HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_has(answer, "HTTP/1.1 200 ");
    assert_null(strstr(answer, "408"));
    world_stop(&w);
}

static void expect_continue_is_answered_before_the_body(void **state)
{
    (void)state;
    world w;
    world_start(&w, (bt_http_server_options){.max_body_bytes = 100});
    int fd = raw_connect(w.port);
    raw_send_text(fd, "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n"
                      "Expect: 100-continue\r\n\r\n");
    raw_read_until(fd, "\r\n\r\n", w.out, OUT_BYTES);
    assert_string_equal(w.out, "HTTP/1.1 100 Continue\r\n\r\n");
    raw_send_text(fd, "abc");
    raw_read_until(fd, "abc", w.out, OUT_BYTES);
    assert_has(w.out, "HTTP/1.1 200 OK");
    close(fd);
    assert_has(world_exchange(&w, "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 101\r\n"
                                  "Expect: 100-continue\r\n\r\n"),
               "HTTP/1.1 413 ");
    world_stop(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(requests_that_can_be_read_in_two_ways_are_refused),
        bt_test(limits_are_kept),
        bt_test(long_chunk_framing_is_refused),
        bt_test(slow_requests_time_out),
        bt_test(expect_continue_is_answered_before_the_body),
    };
    return bt_run_tests(tests);
}
