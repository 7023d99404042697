/* SPDX-License-Identifier: Apache-2.0 */
#include "serverkit.h"

#include "core/alloc.h"
#include "support/test.h"
#include "support/tlskit.h"

#include <stdio.h>
#include <unistd.h>

void world_on_gone(void *arg)
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

void world_on_request(void *ctx, bt_http_request *request)
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
        bt_http_on_gone(request, world_on_gone, w);
        sem_post(&w->arrived);
    } else if (strcmp(request->path, "/late") == 0) {
        w->held = request; /* world_on_gone is set only once the client has left */
        sem_post(&w->arrived);
    } else if (strcmp(request->path, "/stall") == 0) {
        w->held = request;
        bt_http_on_gone(request, world_on_gone, w);
        assert_ok(bt_http_begin(request, 200, NULL, 0, OUT_BYTES));
        assert_ok(bt_http_write(request, w->out, OUT_BYTES));
    } else if (strcmp(request->path, "/big") == 0) {
        w->held = request;
        assert_ok(bt_http_begin(request, 200, NULL, 0, BT_HTTP_CHUNKED));
        stream_on(w);
    } else if (strcmp(request->path, "/extra") == 0) {
        const bt_http_header two_lines = {"X", "a\r\nY: b"}, length = {"Content-Length", "1"};
        assert_ok(bt_http_set_extra(request, &(bt_http_header){"X-Extra", "first"}));
        assert_ok(bt_http_set_extra(request, &(bt_http_header){"X-Extra", "second"}));
        assert_fails(bt_http_set_extra(request, &two_lines), BATON_ERR_INVALID_ARG, "malformed");
        assert_fails(bt_http_set_extra(request, &length), BATON_ERR_INVALID_ARG, "set by");
        assert_ok(bt_http_respond_not_found(request));
    } else if (strcmp(request->path, "/post") == 0 && strcmp(request->method, "POST") != 0) {
        assert_ok(bt_http_respond_not_allowed(request, "POST"));
    } else {
        assert_ok(bt_http_respond_not_found(request));
    }
}

void world_start(world *w, bt_http_server_options options)
{
    *w = (world){0};
    bt_loop *loop;
    sem_init(&w->arrived, 0, 0);
    sem_init(&w->gone, 0, 0);
    w->out = bt_calloc(OUT_BYTES, 1);
    options.tls = tlskit_server();
    options.on_request = world_on_request;
    options.ctx = w;
    assert_ok(bt_loop_create(&loop));
    assert_ok(bt_http_server_create(loop, &options, &w->server));
    w->port = bt_http_server_port(w->server);
    loop_thread_start(&w->runner, loop);
}

void world_stop(world *w)
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
bt_http_server_stats world_stats(world *w)
{
    stats_call call = {.world = w};
    loop_thread_call(&w->runner, get_stats, &call);
    return call.stats;
}

/* Sends text on a new connection and reads until the server closes. */
const char *world_exchange(world *w, const char *text)
{
    int fd = raw_connect(w->port);
    raw_send_text(fd, text);
    raw_read_all(fd, w->out, OUT_BYTES);
    close(fd);
    return w->out;
}

void assert_has(const char *text, const char *wanted)
{
    if (strstr(text, wanted) == NULL)
        fail_msg("wanted '%s' in '%s'", wanted, text);
}

void world_release_held(void *arg)
{
    world *w = arg;
    bt_http_request *request = w->held;
    w->held = NULL;
    assert_ok(bt_http_respond_json(request, 200, "{}", 2));
}
