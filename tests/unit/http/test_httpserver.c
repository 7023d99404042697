/* SPDX-License-Identifier: Apache-2.0 */
/* The server in a thread of its own, against blocking sockets that speak raw HTTP. */
#include "support/test.h"

#include "core/alloc.h"
#include "http/httpserver.h"
#include "rawsocket.h"

#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BIG_BYTES = 3 << 20, OUT_BYTES = 4 << 20 };

/* What a test's server is and has seen. Only the loop's thread touches the fields while it runs. */
typedef struct {
    loop_thread runner;
    bt_http_server *server;
    uint16_t port;
    bt_http_request *held; /* answered later */
    sem_t arrived, gone;
    unsigned n_gone, n_drained, n_freed;
    size_t sent_bytes;
    char *out; /* [OUT_BYTES], for the test's thread */
} world;

static void on_gone(void *arg)
{
    world *w = arg;
    w->n_gone++;
    assert_true(bt_http_is_gone(w->held));
    assert_fails(bt_http_write(w->held, "x", 1), BATON_ERR_CLOSED, "gone");
    bt_http_abort(w->held);
    w->held = NULL;
    sem_post(&w->gone);
}

static void count_free(void *arg)
{
    ((world *)arg)->n_freed++;
}

/* Streams BIG_BYTES with backpressure. */
static void stream_on(void *arg)
{
    static char block[64 * 1024];
    world *w = arg;
    w->n_drained++;
    while (w->sent_bytes < BIG_BYTES) {
        baton_status status = bt_http_write_owned(w->held, block, sizeof(block), count_free, w);
        if (status == BATON_ERR_BUSY) {
            bt_http_on_drain(w->held, 16 * 1024, stream_on, w);
            return;
        }
        assert_ok(status);
        w->sent_bytes += sizeof(block);
    }
    bt_http_request *request = w->held;
    w->held = NULL;
    assert_ok(bt_http_end(request));
}

static void echo(bt_http_request *request)
{
    char head[256];
    snprintf(head, sizeof(head), "%s %s q=%s n=%zu x=%s", request->method, request->path,
             request->query, request->body_bytes,
             bt_http_header_get(request->headers, "x-test") != NULL
                 ? bt_http_header_get(request->headers, "x-test")
                 : "-");
    const bt_http_header type = {"X-Echo", head};
    assert_ok(bt_http_respond(request, 200, &type, 1, request->body, request->body_bytes));
}

static void stream(bt_http_request *request, uint64_t length)
{
    assert_ok(bt_http_begin(request, 200, NULL, 0, length));
    assert_fails(bt_http_begin(request, 200, NULL, 0, length), BATON_ERR_STATE, "already");
    assert_ok(bt_http_write(request, "hello ", 6));
    assert_ok(bt_http_write(request, "", 0));
    assert_ok(bt_http_write(request, "world", 5));
    if (length != BT_HTTP_CHUNKED)
        assert_fails(bt_http_write(request, "x", 1), BATON_ERR_TOO_LARGE, "announced");
    assert_ok(bt_http_end(request));
}

static void answer_badly(bt_http_request *request)
{
    const bt_http_header bad = {"X", "a\r\nY: b"};
    assert_fails(bt_http_begin(request, 200, &bad, 1, 0), BATON_ERR_INVALID_ARG, "malformed");
    const bt_http_header length = {"content-length", "7"};
    assert_fails(bt_http_respond(request, 200, &length, 1, "x", 1), BATON_ERR_INVALID_ARG,
                 "set by");
}

static void on_request(void *ctx, bt_http_request *request)
{
    world *w = ctx;
    if (strcmp(request->path, "/echo") == 0) {
        echo(request);
    } else if (strcmp(request->path, "/chunked") == 0) {
        stream(request, BT_HTTP_CHUNKED);
    } else if (strcmp(request->path, "/sized") == 0) {
        stream(request, 11);
    } else if (strcmp(request->path, "/bad") == 0) {
        answer_badly(request);
    } else if (strcmp(request->path, "/abort") == 0) {
        assert_ok(bt_http_begin(request, 200, NULL, 0, BT_HTTP_CHUNKED));
        assert_ok(bt_http_write(request, "part", 4));
        bt_http_abort(request);
    } else if (strcmp(request->path, "/short") == 0) {
        assert_ok(bt_http_begin(request, 200, NULL, 0, 10));
        assert_ok(bt_http_write(request, "part", 4));
        assert_fails(bt_http_end(request), BATON_ERR_STATE, "6 announced");
    } else if (strcmp(request->path, "/hold") == 0) {
        w->held = request;
        bt_http_on_gone(request, on_gone, w);
        sem_post(&w->arrived);
    } else if (strcmp(request->path, "/late") == 0) {
        w->held = request; /* on_gone is set only once the client has left */
        sem_post(&w->arrived);
    } else if (strcmp(request->path, "/stall") == 0) {
        w->held = request;
        bt_http_on_gone(request, on_gone, w);
        assert_ok(bt_http_begin(request, 200, NULL, 0, OUT_BYTES));
        assert_ok(bt_http_write(request, w->out, OUT_BYTES));
    } else if (strcmp(request->path, "/big") == 0) {
        w->held = request;
        assert_ok(bt_http_begin(request, 200, NULL, 0, BT_HTTP_CHUNKED));
        stream_on(w);
    } else if (strcmp(request->path, "/post") == 0 && strcmp(request->method, "POST") != 0) {
        assert_ok(bt_http_respond_not_allowed(request, "POST"));
    } else {
        assert_ok(bt_http_respond_not_found(request));
    }
}

static void world_start(world *w, bt_http_server_options options)
{
    *w = (world){0};
    bt_loop *loop;
    sem_init(&w->arrived, 0, 0);
    sem_init(&w->gone, 0, 0);
    w->out = bt_calloc(OUT_BYTES, 1);
    options.on_request = on_request;
    options.ctx = w;
    assert_ok(bt_loop_create(&loop));
    assert_ok(bt_http_server_create(loop, &options, &w->server));
    w->port = bt_http_server_port(w->server);
    loop_thread_start(&w->runner, loop);
}

static void world_stop(world *w)
{
    loop_thread_stop(&w->runner);
    bt_http_server_destroy(w->server);
    bt_loop_destroy(w->runner.loop);
    sem_destroy(&w->arrived);
    sem_destroy(&w->gone);
    bt_free(w->out);
}

typedef struct {
    world *world;
    bt_http_server_stats stats;
} stats_call;

static void get_stats(void *arg)
{
    stats_call *call = arg;
    bt_http_server_stats_get(call->world->server, &call->stats);
}

/* In the loop's thread, as the server wants it. */
static bt_http_server_stats world_stats(world *w)
{
    stats_call call = {.world = w};
    loop_thread_call(&w->runner, get_stats, &call);
    return call.stats;
}

/* Sends text on a new connection and reads until the server closes. */
static const char *exchange(world *w, const char *text)
{
    int fd = raw_connect(w->port);
    raw_send_text(fd, text);
    raw_read_all(fd, w->out, OUT_BYTES);
    close(fd);
    return w->out;
}

static void assert_has(const char *text, const char *wanted)
{
    if (strstr(text, wanted) == NULL)
        fail_msg("wanted '%s' in '%s'", wanted, text);
}

static void a_request_is_handed_over_whole_and_answered(void **state)
{
    (void)state;
    world w;
    world_start(&w, (bt_http_server_options){0});
    const char *answer = exchange(&w, "POST /echo?a=b HTTP/1.1\r\nHost: h\r\nX-Test:  v \r\n"
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

static void release_held(void *arg)
{
    world *w = arg;
    bt_http_request *request = w->held;
    w->held = NULL;
    assert_ok(bt_http_respond_json(request, 200, "{}", 2));
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
    loop_thread_call(&w.runner, release_held, &w);
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
        exchange(&w, "GET /chunked HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert_has(answer, "Transfer-Encoding: chunked\r\n");
    assert_has(answer, "\r\n\r\n6\r\nhello \r\n5\r\nworld\r\n0\r\n\r\n");
    answer = exchange(&w, "GET /sized HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert_has(answer, "Content-Length: 11\r\n");
    assert_has(answer, "\r\n\r\nhello world");
    answer = exchange(&w, "GET /chunked HTTP/1.0\r\n\r\n");
    assert_null(strstr(answer, "chunked"));
    assert_has(answer, "\r\n\r\nhello world");
    answer = exchange(&w, "HEAD /sized HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert_has(answer, "Content-Length: 11\r\n");
    assert_null(strstr(answer, "hello"));
    answer = exchange(&w, "HEAD /chunked HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert_null(strstr(answer, "\r\n0\r\n"));
    world_stop(&w);
}

static void a_broken_answer_looks_broken(void **state)
{
    (void)state;
    world w;
    world_start(&w, (bt_http_server_options){0});
    const char *answer = exchange(&w, "GET /abort HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_has(answer, "4\r\npart\r\n");
    assert_null(strstr(answer, "\r\n0\r\n"));
    answer = exchange(&w, "GET /short HTTP/1.1\r\nHost: h\r\n\r\n");
    assert_has(answer, "Content-Length: 10\r\n");
    assert_has(answer, "\r\n\r\npart");
    answer = exchange(&w, "GET /bad HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert_has(answer, "HTTP/1.1 500 ");
    assert_null(strstr(answer, "\r\nY: b"));
    world_stop(&w);
}

static void unknown_paths_and_methods_get_openai_errors(void **state)
{
    (void)state;
    world w;
    world_start(&w, (bt_http_server_options){0});
    const char *answer = exchange(&w, "GET /no HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert_has(answer, "HTTP/1.1 404 Not Found\r\n");
    assert_has(answer, "{\"error\":{\"message\":\"no such path\",\"type\":\"not_found_error\","
                       "\"param\":null,\"code\":\"not_found\"}}");
    answer = exchange(&w, "GET /post HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    assert_has(answer, "HTTP/1.1 405 Method Not Allowed\r\n");
    assert_has(answer, "\r\nAllow: POST\r\n");
    world_stop(&w);
}

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
        const char *answer = exchange(&w, text);
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
    assert_has(exchange(&w, strcat(text, "\r\n\r\n")), "HTTP/1.1 431 ");
    assert_has(
        exchange(&w, "GET /echo HTTP/1.1\r\nHost: h\r\nA: 1\r\nB: 1\r\nC: 1\r\nD: 1\r\n\r\n"),
        "HTTP/1.1 431 ");
    assert_has(exchange(&w, "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n"),
               "HTTP/1.1 413 ");
    assert_has(exchange(&w, "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n"
                            "5\r\nabcde\r\n4\r\nabcd\r\n0\r\n\r\n"),
               "HTTP/1.1 413 ");
    assert_has(exchange(&w, "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 8\r\n"
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
    assert_has(exchange(&w, text), "HTTP/1.1 400 ");
    strcpy(text, "POST /echo HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n");
    memset(text + strlen(text), '0', 8000);
    strcat(text, "3\r\nabc\r\n0\r\n\r\n");
    assert_has(exchange(&w, text), "HTTP/1.1 400 ");
    strcpy(text, "POST /echo HTTP/1.1\r\nHost: h\r\nConnection: close\r\n"
                 "Transfer-Encoding: chunked\r\n\r\n");
    for (int i = 0; i < 900; i++) /* many tiny chunks are fine */
        strcat(text, "00000001\r\nx\r\n");
    strcat(text, "0\r\n\r\n");
    assert_has(exchange(&w, text), "n=900 ");
    world_stop(&w);
}

static void slow_requests_time_out(void **state)
{
    (void)state;
    world w;
    world_start(&w, (bt_http_server_options){
                        .header_timeout_ms = 250, .body_timeout_ms = 250, .idle_timeout_ms = 250});
    assert_has(exchange(&w, "GET /echo HT"), "HTTP/1.1 408 ");
    assert_has(exchange(&w, "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\nabc"),
               "HTTP/1.1 408 ");
    assert_string_equal(exchange(&w, ""), ""); /* idle: closed without a word */
    const char *answer = exchange(&w, "GET /echo HTTP/1.1\r\nHost: h\r\n\r\n");
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
    assert_has(exchange(&w, "POST /echo HTTP/1.1\r\nHost: h\r\nContent-Length: 101\r\n"
                            "Expect: 100-continue\r\n\r\n"),
               "HTTP/1.1 413 ");
    world_stop(&w);
}

static void a_client_that_leaves_is_noticed_once(void **state)
{
    (void)state;
    world w;
    world_start(&w, (bt_http_server_options){0});
    for (unsigned round = 1; round <= 3; round++) {
        int fd = raw_connect(w.port);
        raw_send_text(fd, "GET /hold HTTP/1.1\r\nHost: h\r\n\r\n");
        sem_wait(&w.arrived);
        if (round == 2)
            shutdown(fd, SHUT_WR);
        if (round == 3) {
            struct linger reset = {.l_onoff = 1};
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
        }
        if (round != 2)
            close(fd);
        sem_wait(&w.gone);
        if (round == 2)
            close(fd);
        assert_int_equal(w.n_gone, round);
    }
    bt_http_server_stats stats = world_stats(&w);
    assert_int_equal(stats.n_requests, 0);
    assert_int_equal(stats.gone_total, 3);
    world_stop(&w);
}

static void set_gone_late(void *arg)
{
    world *w = arg;
    bt_http_on_gone(w->held, on_gone, w);
    assert_int_equal(w->n_gone, 0); /* never inside the call */
}

static void leaving_is_told_to_who_asks_late(void **state)
{
    (void)state;
    world w;
    world_start(&w, (bt_http_server_options){0});
    int fd = raw_connect(w.port);
    raw_send_text(fd, "GET /late HTTP/1.1\r\nHost: h\r\n\r\n");
    sem_wait(&w.arrived);
    close(fd);
    while (world_stats(&w).gone_total == 0)
        sched_yield();
    loop_thread_call(&w.runner, set_gone_late, &w);
    sem_wait(&w.gone);
    world_stop(&w);
}

static void a_slow_reader_holds_the_stream_back_and_gets_all(void **state)
{
    (void)state;
    world w;
    world_start(&w, (bt_http_server_options){.max_queued_bytes = 256 * 1024});
    int fd = raw_connect(w.port);
    raw_send_text(fd, "GET /big HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    size_t n = raw_read_all(fd, w.out, OUT_BYTES);
    assert_true(n > BIG_BYTES);
    assert_memory_equal(w.out + n - 7, "\r\n0\r\n\r\n", 7);
    close(fd);
    loop_thread_stop(&w.runner);
    assert_true(w.n_drained > 1);
    assert_true(w.n_freed >= BIG_BYTES / (64 * 1024));
    loop_thread_start(&w.runner, w.runner.loop);
    world_stop(&w);
}

static void a_reader_that_takes_nothing_is_cut_off(void **state)
{
    (void)state;
    world w;
    world_start(&w, (bt_http_server_options){.max_queued_bytes = 8 << 20, .write_timeout_ms = 50});
    int fd = raw_connect(w.port);
    int small = 4096;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    raw_send_text(fd, "GET /stall HTTP/1.1\r\nHost: h\r\n\r\n");
    sem_wait(&w.gone); /* the answer is queued whole and never read */
    assert_int_equal(w.n_gone, 1);
    close(fd);
    world_stop(&w);
}

static void connections_above_the_limit_get_503(void **state)
{
    (void)state;
    world w;
    world_start(&w, (bt_http_server_options){.max_connections = 1});
    int fd = raw_connect(w.port);
    raw_send_text(fd, "GET /echo HTTP/1.1\r\nHost: h\r\n\r\n");
    raw_read_until(fd, "\r\n\r\n", w.out, OUT_BYTES);
    assert_has(exchange(&w, ""), "HTTP/1.1 503 ");
    close(fd);
    world_stop(&w);
}

static void a_port_in_use_is_named(void **state)
{
    (void)state;
    world w;
    world_start(&w, (bt_http_server_options){0});
    bt_loop *loop;
    bt_http_server *second;
    assert_ok(bt_loop_create(&loop));
    bt_http_server_options options = {.port = w.port, .on_request = on_request};
    assert_fails(bt_http_server_create(loop, &options, &second), BATON_ERR_ADDRESS_IN_USE,
                 "choose another port");
    options.host = "localhost";
    assert_fails(bt_http_server_create(loop, &options, &second), BATON_ERR_INVALID_ARG, "numeric");
    options.on_request = NULL;
    assert_fails(bt_http_server_create(loop, &options, &second), BATON_ERR_INVALID_ARG,
                 "on_request");
    bt_loop_destroy(loop);
    world_stop(&w);
}

static void loops_share_a_port_with_reuse_port(void **state)
{
    (void)state;
    world w;
    world_start(&w, (bt_http_server_options){.reuse_port = true});
    bt_loop *loop;
    bt_http_server *second;
    assert_ok(bt_loop_create(&loop));
    bt_http_server_options options = {.port = w.port, .reuse_port = true, .on_request = on_request};
    assert_ok(bt_http_server_create(loop, &options, &second));
    bt_http_server_destroy(second);
    bt_loop_destroy(loop);
    world_stop(&w);
}

static void stop_loop(void *arg)
{
    bt_loop_stop(arg);
}

static void begin_drain(void *arg)
{
    world *w = arg;
    bt_http_server_drain(w->server, stop_loop, w->runner.loop);
}

static void draining_finishes_what_runs_and_closes_what_idles(void **state)
{
    (void)state;
    world w;
    world_start(&w, (bt_http_server_options){0});
    int idle = raw_connect(w.port), busy = raw_connect(w.port);
    raw_send_text(idle, "GET /echo HTTP/1.1\r\nHost: h\r\n\r\n");
    raw_read_until(idle, "\r\n\r\n", w.out, OUT_BYTES);
    raw_send_text(busy, "GET /hold HTTP/1.1\r\nHost: h\r\n\r\n");
    sem_wait(&w.arrived);
    loop_thread_call(&w.runner, begin_drain, &w);
    assert_int_equal(raw_read_all(idle, w.out, OUT_BYTES), 0);
    close(idle);
    loop_thread_call(&w.runner, release_held, &w);
    raw_read_all(busy, w.out, OUT_BYTES);
    assert_has(w.out, "Connection: close\r\n");
    assert_has(w.out, "{}");
    close(busy);
    pthread_join(w.runner.thread, NULL); /* the drain's end has stopped the loop */
    loop_thread_start(&w.runner, w.runner.loop);
    world_stop(&w);
}

static void destroying_the_server_tells_requests_in_flight(void **state)
{
    (void)state;
    world w;
    world_start(&w, (bt_http_server_options){0});
    int fd = raw_connect(w.port);
    raw_send_text(fd, "GET /hold HTTP/1.1\r\nHost: h\r\n\r\n");
    sem_wait(&w.arrived);
    world_stop(&w);
    assert_int_equal(w.n_gone, 1);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(a_request_is_handed_over_whole_and_answered),
        bt_test(a_request_may_come_in_any_pieces),
        bt_test(pipelined_requests_are_answered_in_order_on_one_connection),
        bt_test(a_pipelined_request_waits_for_the_one_before_it),
        bt_test(streams_are_chunked_or_sized_and_head_has_no_body),
        bt_test(a_broken_answer_looks_broken),
        bt_test(unknown_paths_and_methods_get_openai_errors),
        bt_test(requests_that_can_be_read_in_two_ways_are_refused),
        bt_test(limits_are_kept),
        bt_test(long_chunk_framing_is_refused),
        bt_test(slow_requests_time_out),
        bt_test(expect_continue_is_answered_before_the_body),
        bt_test(a_client_that_leaves_is_noticed_once),
        bt_test(leaving_is_told_to_who_asks_late),
        bt_test(a_slow_reader_holds_the_stream_back_and_gets_all),
        bt_test(a_reader_that_takes_nothing_is_cut_off),
        bt_test(connections_above_the_limit_get_503),
        bt_test(a_port_in_use_is_named),
        bt_test(loops_share_a_port_with_reuse_port),
        bt_test(draining_finishes_what_runs_and_closes_what_idles),
        bt_test(destroying_the_server_tells_requests_in_flight),
    };
    return bt_run_tests(tests);
}
