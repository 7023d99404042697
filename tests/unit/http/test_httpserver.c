/* SPDX-License-Identifier: Apache-2.0 */
/* What the server hands over and answers. */
#include "serverkit.h"
#include "support/test.h"

#include <unistd.h>

static void a_request_is_handed_over_whole_and_answered(void **state)
{
    (void)state;
    world w;
    world_start(&w, (bt_http_server_options){0});
    const char *answer = world_exchange(&w, "POST /echo?a=b HTTP/1.1\r\nHost: h\r\nX-Test:  v \r\n"
                                            "Content-Length: 3\r\nConnection: close\r\n\r\nabc");
    assert_has(answer, "HTTP/1.1 200 OK\r\n");
    assert_has(answer, "\r\nX-Echo: POST /echo q=a=b n=3 x=v\r\n");
    assert_has(answer, "\r\nContent-Length: 3\r\n");
    assert_has(answer, "\r\nConnection: close\r\n");
    assert_has(answer, "\r\nDate: ");
    assert_has(answer, "\r\n\r\nabc");
    world_stop(&w);
}

static void a_request_may_come_in_any_pieces(void **state)
{
    (void)state;
    static const char text[] =
        "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
        "3;x=y\r\nabc\r\n2\r\nde\r\n0\r\nT: u\r\n\r\n";
    world w;
    world_start(&w, (bt_http_server_options){0});
    int fd = raw_connect(w.port);
    for (size_t cut = 1; cut + 1 < sizeof(text); cut += 3) {
        raw_send(fd, text, cut);
        sched_yield();
        raw_send(fd, text + cut, sizeof(text) - 1 - cut);
        raw_read_until(fd, "abcde", w.out, OUT_BYTES);
        assert_has(w.out, "n=5 x=-");
    }
    close(fd);
    world_stop(&w);
}

static void pipelined_requests_are_answered_in_order_on_one_connection(void **state)
{
    (void)state;
    world w;
    world_start(&w, (bt_http_server_options){0});
    int fd = raw_connect(w.port);
    for (int i = 0; i < 50; i++)
        raw_send_text(
            fd, "GET /echo?n HTTP/1.1\r\nHost: h\r\n\r\nGET /chunked HTTP/1.1\r\nHost: h\r\n\r\n");
    raw_send_text(fd, "GET /echo?last HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    raw_read_all(fd, w.out, OUT_BYTES);
    close(fd);
    const char *at = w.out;
    for (int i = 0; i < 50; i++) {
        at = strstr(at, "q=n ");
        assert_non_null(at);
        at = strstr(at, "hello \r\n5\r\nworld\r\n0\r\n\r\n");
        assert_non_null(at);
    }
    assert_non_null(strstr(at, "q=last"));
    bt_http_server_stats stats = world_stats(&w);
    assert_int_equal(stats.connections_total, 1);
    world_stop(&w);
}

static void a_pipelined_request_waits_for_the_one_before_it(void **state)
{
    (void)state;
    world w;
    world_start(&w, (bt_http_server_options){0});
    int fd = raw_connect(w.port);
    raw_send_text(fd, "GET /hold HTTP/1.1\r\nHost: h\r\n\r\n");
    sem_wait(&w.arrived);
    raw_send_text(fd, "GET /echo HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    loop_thread_call(&w.runner, world_release_held, &w);
    raw_read_all(fd, w.out, OUT_BYTES);
    const char *first = strstr(w.out, "application/json");
    assert_non_null(first);
    assert_non_null(strstr(first, "GET /echo"));
    close(fd);
    world_stop(&w);
}

static void streams_are_chunked_or_sized_and_head_has_no_body(void **state)
{
    (void)state;
    world w;
    world_start(&w, (bt_http_server_options){0});
    const char *answer =
        world_exchange(&w, "GET /chunked HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert_has(answer, "Transfer-Encoding: chunked\r\n");
    assert_has(answer, "\r\n\r\n6\r\nhello \r\n5\r\nworld\r\n0\r\n\r\n");
    answer = world_exchange(&w, "GET /sized HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert_has(answer, "Content-Length: 11\r\n");
    assert_has(answer, "\r\n\r\nhello world");
    answer = world_exchange(&w, "GET /chunked HTTP/1.0\r\n\r\n");
    assert_null(strstr(answer, "chunked"));
    assert_has(answer, "\r\n\r\nhello world");
    answer = world_exchange(&w, "HEAD /sized HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert_has(answer, "Content-Length: 11\r\n");
    assert_null(strstr(answer, "hello"));
    answer = world_exchange(&w, "HEAD /chunked HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert_null(strstr(answer, "\r\n0\r\n"));
    world_stop(&w);
}

static void one_more_header_goes_with_whatever_answer_comes(void **state)
{
    (void)state;
    world w;
    world_start(&w, (bt_http_server_options){0});
    const char *answer =
        world_exchange(&w, "GET /extra HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert_has(answer, "HTTP/1.1 404 Not Found\r\n");
    assert_has(answer, "\r\nX-Extra: second\r\n");
    assert_null(strstr(answer, "first"));
    assert_has(answer, "}}");
    world_stop(&w);
}

static void a_broken_answer_looks_broken(void **state)
{
    (void)state;
    world w;
    world_start(&w, (bt_http_server_options){0});
    const char *answer = world_exchange(&w, "GET /abort HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_has(answer, "4\r\npart\r\n");
    assert_null(strstr(answer, "\r\n0\r\n"));
    answer = world_exchange(&w, "GET /short HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_has(answer, "Content-Length: 10\r\n");
    assert_has(answer, "\r\n\r\npart");
    answer = world_exchange(&w, "GET /bad HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert_has(answer, "HTTP/1.1 500 ");
    assert_null(strstr(answer, "\r\nY: b"));
    world_stop(&w);
}

static void unknown_paths_and_methods_get_openai_errors(void **state)
{
    (void)state;
    world w;
    world_start(&w, (bt_http_server_options){0});
    const char *answer =
        world_exchange(&w, "GET /no HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert_has(answer, "HTTP/1.1 404 Not Found\r\n");
    assert_has(answer, "{\"error\":{\"message\":\"no such path\",\"type\":\"not_found_error\","
                       "\"param\":null,\"code\":\"not_found\"}}");
    answer = world_exchange(&w, "GET /post HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert_has(answer, "HTTP/1.1 405 Method Not Allowed\r\n");
    assert_has(answer, "\r\nAllow: POST\r\n");
    world_stop(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(a_request_is_handed_over_whole_and_answered),
        bt_test(a_request_may_come_in_any_pieces),
        bt_test(pipelined_requests_are_answered_in_order_on_one_connection),
        bt_test(a_pipelined_request_waits_for_the_one_before_it),
        bt_test(streams_are_chunked_or_sized_and_head_has_no_body),
        bt_test(one_more_header_goes_with_whatever_answer_comes),
        bt_test(a_broken_answer_looks_broken),
        bt_test(unknown_paths_and_methods_get_openai_errors),
    };
    return bt_run_tests(tests);
}
