/* SPDX-License-Identifier: Apache-2.0 */
/* The client against the server on one loop, and against a peer that plays a script. */
#include "support/test.h"

#include "core/alloc.h"
#include "http/httpclient.h"
#include "http/httpserver.h"
#include "rawsocket.h"
#include "scriptpeer.h"
#include "support/tlskit.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BIG_BYTES = 2 << 20, GUARD_MS = 60 * 1000 };

/* What a call has brought. */
typedef struct seen {
    struct world *world;
    bt_http_call *call;
    unsigned n_head, n_done, status, n_data;
    char *body; /* [body_bytes] and a 0 */
    size_t body_bytes;
    bt_http_result result;
    char text[256], header[64];
    size_t cancel_at;   /* body bytes; 0: never */
    uint64_t resume_ms; /* paused in on_head and resumed after so long; 0: never paused */
    bool cancel_in_head, destroy_in_data;
    void (*next)(struct seen *seen); /* in on_done */
} seen;

typedef struct world {
    bt_loop *loop;
    bt_http_server *server;
    bt_http_client *client;
    uint16_t port;
    unsigned n_open, n_server_gone; /* calls not done */
    bt_timer *guard;
    bt_http_request *held;
    char *big;
    bool may_fail; /* allocations fail on purpose */
} world;

static void resume_call(void *seen_p);

static void on_head(void *ctx, bt_http_call *call, unsigned status, bt_http_headers headers)
{
    seen *s = ctx;
    s->n_head++;
    s->status = status;
    const char *value = bt_http_header_get(headers, "x-echo");
    snprintf(s->header, sizeof(s->header), "%s", value != NULL ? value : "");
    if (s->cancel_in_head)
        bt_http_call_cancel(call);
    if (s->resume_ms != 0) {
        bt_timer *timer; /* the loop's end destroys it */
        bt_http_call_pause(call);
        assert_ok(bt_timer_create(s->world->loop, resume_call, s, &timer));
        bt_timer_start(timer, s->resume_ms, 0);
    }
}

static void on_data(void *ctx, bt_http_call *call, const char *bytes, size_t n)
{
    seen *s = ctx;
    assert_int_equal(s->n_head, 1);
    s->body = realloc(s->body, s->body_bytes + n + 1); /* not bt_: never made to fail */
    memcpy(s->body + s->body_bytes, bytes, n);
    s->body_bytes += n;
    s->body[s->body_bytes] = '\0';
    s->n_data++;
    if (s->cancel_at != 0 && s->body_bytes >= s->cancel_at)
        bt_http_call_cancel(call);
    else if (s->destroy_in_data) {
        bt_http_client *client = s->world->client;
        s->world->client = NULL;
        bt_http_client_destroy(client);
    }
}

static void on_done(void *ctx, bt_http_call *call, const bt_http_result *result)
{
    seen *s = ctx;
    assert_ptr_equal(call, s->call);
    s->n_done++;
    s->result = *result;
    snprintf(s->text, sizeof(s->text), "%s", result->text);
    s->result.text = s->text;
    s->call = NULL;
    if (s->next != NULL)
        s->next(s);
    if (--s->world->n_open == 0)
        bt_loop_stop(s->world->loop);
}

static const bt_http_call_ops ops = {on_head, on_data, on_done};

static void server_gone(void *arg)
{
    world *w = arg;
    w->n_server_gone++;
    bt_http_abort(w->held);
    w->held = NULL;
    if (w->n_open == 0)
        bt_loop_stop(w->loop);
}

static void on_request(void *ctx, bt_http_request *request)
{
    world *w = ctx;
    char line[128];
    snprintf(line, sizeof(line), "%s %s %zu %s", request->method, request->target,
             request->body_bytes, bt_http_header_get(request->headers, "x-a") != NULL ? "a" : "-");
    const bt_http_header echo = {"X-Echo", line};
    if (strcmp(request->path, "/hold") == 0) {
        w->held = request;
        bt_http_on_gone(request, server_gone, w);
        assert_ok(bt_http_begin(request, 200, NULL, 0, BT_HTTP_CHUNKED));
        assert_ok(bt_http_write(request, "first", 5));
    } else if (strcmp(request->path, "/silent") == 0) {
        w->held = request;
        bt_http_on_gone(request, server_gone, w);
    } else if (strcmp(request->path, "/big") == 0) {
        assert_ok(bt_http_begin(request, 200, &echo, 1, BT_HTTP_CHUNKED));
        assert_ok(bt_http_write_owned(request, w->big, BIG_BYTES, NULL, NULL));
        assert_ok(bt_http_end(request));
    } else {
        baton_status status =
            bt_http_respond(request, 200, &echo, 1, request->body, request->body_bytes);
        assert_true(status == BATON_OK || w->may_fail);
    }
}

static void on_guard(void *arg)
{
    (void)arg;
    fail_msg("hang guard: calls still open");
}

static void world_start(world *w, bt_http_client_options options)
{
    *w = (world){0};
    w->big = bt_calloc(BIG_BYTES, 1);
    for (size_t i = 0; i < BIG_BYTES; i++)
        w->big[i] = (char)(i * 31 >> 3);
    assert_ok(bt_loop_create(&w->loop));
    bt_http_server_options server = {.on_request = on_request, .ctx = w, .tls = tlskit_server()};
    assert_ok(bt_http_server_create(w->loop, &server, &w->server));
    w->port = bt_http_server_port(w->server);
    assert_ok(bt_http_client_create(w->loop, &options, &w->client));
    assert_ok(bt_timer_create(w->loop, on_guard, w, &w->guard));
    bt_timer_start(w->guard, GUARD_MS, 0);
}

static void world_stop(world *w)
{
    bt_http_client_destroy(w->client);
    bt_http_server_destroy(w->server);
    bt_loop_destroy(w->loop);
    bt_free(w->big);
}

static void start(world *w, seen *s, bt_http_client_request request)
{
    s->world = w;
    request.host = request.host != NULL ? request.host : "127.0.0.1";
    request.tls = request.port == 0 ? tlskit_client() : NULL;
    request.port = request.port != 0 ? request.port : w->port;
    request.ops = &ops;
    request.ctx = s;
    assert_ok(bt_http_client_start(w->client, &request, &s->call));
    assert_int_equal(s->n_done, 0);
    w->n_open++;
}

static void run(world *w)
{
    bt_loop_run(w->loop);
    assert_int_equal(w->n_open, 0);
}

/* One call from start to end. */
static seen call(world *w, bt_http_client_request request)
{
    seen s = {0};
    start(w, &s, request);
    run(w);
    assert_int_equal(s.n_done, 1);
    return s;
}

static void free_seen(seen *s)
{
    free(s->body);
    *s = (seen){0};
}

static void a_body_in_slices_arrives_whole(void **state)
{
    (void)state;
    world w;
    world_start(&w, (bt_http_client_options){0});
    const bt_slice body[] = {{"{\"a\":", 5}, {"", 0}, {"17", 2}, {"}", 1}};
    const bt_http_header headers[] = {{"X-A", "1"}, {"Content-Length", "999"}, {"Host", "evil"}};
    seen s = call(&w, (bt_http_client_request){.method = "POST",
                                               .path = "/p?q=1",
                                               .headers = headers,
                                               .n_headers = 3,
                                               .body = body,
                                               .n_body = 4});
    assert_int_equal(s.result.status, BATON_OK);
    assert_int_equal(s.result.phase, BT_HTTP_DONE);
    assert_int_equal(s.result.body_bytes, 8);
    assert_int_equal(s.status, 200);
    assert_string_equal(s.header, "POST /p?q=1 8 a");
    assert_string_equal(s.body, "{\"a\":17}");
    free_seen(&s);
    world_stop(&w);
}

static void big_bodies_go_both_ways(void **state)
{
    (void)state;
    world w;
    world_start(&w, (bt_http_client_options){0});
    seen s = call(&w, (bt_http_client_request){.path = "/big"});
    assert_int_equal(s.body_bytes, BIG_BYTES);
    assert_memory_equal(s.body, w.big, BIG_BYTES);
    free_seen(&s);
    bt_slice body[100];
    for (size_t i = 0; i < 100; i++)
        body[i] = (bt_slice){w.big + i * (BIG_BYTES / 100), BIG_BYTES / 100};
    s = call(&w, (bt_http_client_request){
                     .method = "POST", .path = "/echo", .body = body, .n_body = 100});
    assert_int_equal(s.body_bytes, BIG_BYTES / 100 * 100);
    assert_memory_equal(s.body, w.big, s.body_bytes);
    free_seen(&s);
    world_stop(&w);
}

static void connections_are_reused_last_first(void **state)
{
    (void)state;
    world w;
    bt_http_client_stats stats;
    world_start(&w, (bt_http_client_options){0});
    for (unsigned i = 0; i < 5; i++) {
        seen s = call(&w, (bt_http_client_request){.path = "/"});
        assert_int_equal(s.result.reused, i > 0);
        free_seen(&s);
    }
    seen many[4] = {0};
    for (unsigned i = 0; i < 4; i++)
        start(&w, &many[i], (bt_http_client_request){.path = "/"});
    run(&w);
    bt_http_client_stats_get(w.client, &stats);
    assert_int_equal(stats.connects_total, 4);
    assert_int_equal(stats.n_idle, 4);
    seen s = call(&w, (bt_http_client_request){.path = "/", .fresh = true});
    assert_false(s.result.reused);
    world_stop(&w);
}

/* Result: connections that idle after four calls at once. */
static uint32_t make_four_calls(world *w)
{
    seen many[4] = {0};
    bt_http_client_stats stats;
    for (unsigned i = 0; i < 4; i++)
        start(w, &many[i], (bt_http_client_request){.path = "/"});
    run(w);
    bt_http_client_stats_get(w->client, &stats);
    return stats.n_idle;
}

static void the_pool_has_a_cap(void **state)
{
    (void)state;
    world w;
    world_start(&w, (bt_http_client_options){.max_idle_per_origin = 2});
    assert_int_equal(make_four_calls(&w), 2);
    world_stop(&w);
}

static void the_pool_has_an_age(void **state)
{
    (void)state;
    world w;
    bt_http_client_stats stats;
    world_start(&w, (bt_http_client_options){.idle_max_age_ms = 30});
    make_four_calls(&w);
    do { /* until the reaper has closed them; the guard ends it otherwise */
        bt_timer *pause;
        assert_ok(bt_timer_create(w.loop, (bt_loop_fn)bt_loop_stop, w.loop, &pause));
        bt_timer_start(pause, 10, 0);
        bt_loop_run(w.loop);
        bt_timer_destroy(pause);
        bt_http_client_stats_get(w.client, &stats);
    } while (stats.n_idle != 0);
    world_stop(&w);
}

static void head_and_empty_answers_end_at_once(void **state)
{
    (void)state;
    world w;
    world_start(&w, (bt_http_client_options){0});
    seen s = call(&w, (bt_http_client_request){.method = "HEAD", .path = "/big"});
    assert_int_equal(s.result.status, BATON_OK);
    assert_int_equal(s.body_bytes, 0);
    s = call(&w, (bt_http_client_request){.path = "/"});
    assert_int_equal(s.result.status, BATON_OK);
    assert_true(s.result.reused);
    world_stop(&w);
}

static void canceling_closes_the_socket_and_the_server_notices(void **state)
{
    (void)state;
    for (unsigned round = 0; round < 3; round++) {
        world w;
        world_start(&w, (bt_http_client_options){0});
        seen s = {
            .cancel_in_head = round == 0, .cancel_at = round == 1, .destroy_in_data = round == 2};
        start(&w, &s, (bt_http_client_request){.path = "/hold"});
        bt_loop_run(w.loop);
        if (w.n_server_gone == 0) /* stopped by on_done; the server hears of it a little later */
            bt_loop_run(w.loop);
        assert_int_equal(s.n_done, 1);
        assert_int_equal(s.result.status, BATON_ERR_CANCELED);
        assert_int_equal(w.n_server_gone, 1);
        free_seen(&s);
        world_stop(&w);
    }
}

static void canceling_before_anything_happened_is_fine(void **state)
{
    (void)state;
    world w;
    world_start(&w, (bt_http_client_options){0});
    seen s = {0}, t = {0}, u = {0};
    start(&w, &s, (bt_http_client_request){.path = "/"});
    bt_http_call_cancel(s.call);
    assert_int_equal(s.n_done, 1);
    assert_int_equal(s.result.phase, BT_HTTP_RESOLVE);
    start(&w, &t, (bt_http_client_request){.host = "localhost", .path = "/"});
    start(&w, &u, (bt_http_client_request){.path = "/silent"});
    bt_http_client_destroy(w.client); /* ends both */
    w.client = NULL;
    assert_int_equal(t.n_done, 1);
    assert_int_equal(u.n_done, 1);
    assert_int_equal(u.result.status, BATON_ERR_CANCELED);
    world_stop(&w);
}

static void names_are_resolved(void **state)
{
    (void)state;
    world w;
    world_start(&w, (bt_http_client_options){0});
    seen s = call(&w, (bt_http_client_request){.host = "localhost", .path = "/"});
    assert_int_equal(s.result.status, BATON_OK);
    s = call(&w, (bt_http_client_request){.host = "no-such-host.invalid", .path = "/"});
    assert_int_equal(s.result.status, BATON_ERR_UNREACHABLE);
    assert_int_equal(s.result.phase, BT_HTTP_RESOLVE);
    world_stop(&w);
}

static void nobody_listening_is_unreachable(void **state)
{
    (void)state;
    world w;
    uint16_t port;
    close(raw_listen(&port));
    world_start(&w, (bt_http_client_options){0});
    seen s = call(&w, (bt_http_client_request){.port = port, .path = "/"});
    assert_int_equal(s.result.status, BATON_ERR_UNREACHABLE);
    assert_int_equal(s.result.phase, BT_HTTP_CONNECT);
    assert_non_null(strstr(s.text, "refused"));
    world_stop(&w);
}

static void every_phase_has_its_deadline(void **state)
{
    (void)state;
    world w;
    world_start(&w, (bt_http_client_options){0});
    seen s = call(&w, (bt_http_client_request){.path = "/silent", .first_byte_ms = 30});
    assert_int_equal(s.result.status, BATON_ERR_DEADLINE);
    assert_int_equal(s.result.phase, BT_HTTP_SEND);
    assert_non_null(strstr(s.text, "first byte"));
    s = call(&w, (bt_http_client_request){.path = "/hold", .gap_ms = 30});
    assert_int_equal(s.result.status, BATON_ERR_DEADLINE);
    assert_int_equal(s.result.phase, BT_HTTP_BODY);
    assert_string_equal(s.body, "first");
    free_seen(&s);
    s = call(&w, (bt_http_client_request){.path = "/hold", .total_ms = 50});
    assert_int_equal(s.result.status, BATON_ERR_DEADLINE);
    assert_non_null(strstr(s.text, "whole call"));
    free_seen(&s);
    world_stop(&w);
}

static void resume_call(void *arg)
{
    seen *s = arg;
    assert_int_equal(s->n_done, 0);
    assert_true(s->body_bytes < BIG_BYTES);
    s->resume_ms = 0;
    bt_http_call_resume(s->call);
}

static void a_paused_call_holds_the_server_back(void **state)
{
    (void)state;
    world w;
    world_start(&w, (bt_http_client_options){0});
    seen s = {.resume_ms = 10};
    start(&w, &s, (bt_http_client_request){.path = "/big"});
    run(&w);
    assert_int_equal(s.result.status, BATON_OK);
    assert_memory_equal(s.body, w.big, BIG_BYTES);
    free_seen(&s);
    world_stop(&w);
}

/* The pause is longer than the gap's deadline, and one loop runs both timers in order. Nothing
 * comes behind it, so what ends the call is the gap that began anew. */
static void the_gap_stands_still_while_paused(void **state)
{
    (void)state;
    world w;
    world_start(&w, (bt_http_client_options){0});
    seen s = {.resume_ms = 60};
    start(&w, &s, (bt_http_client_request){.path = "/hold", .gap_ms = 30});
    run(&w);
    assert_int_equal(s.resume_ms, 0); /* it lived until it was resumed */
    assert_int_equal(s.result.status, BATON_ERR_DEADLINE);
    assert_int_equal(s.result.phase, BT_HTTP_BODY);
    free_seen(&s);
    world_stop(&w);
}

static void answers_of_every_framing_are_read(void **state)
{
    (void)state;
    static const struct {
        const char *answer, *body;
    } cases[] = {
        {"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", "abc"},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n2;x=y\r\nbc\r\n0\r\nT: "
         "u\r\n"
         "\r\n",
         "abc"},
        {"HTTP/1.1 200 OK\r\n\r\nabc until the end", "abc until the end"},
        {"HTTP/1.0 200 OK\r\nContent-Type: x\r\n\r\nabc", "abc"},
        {"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nX: y\r\n\r\n"
         "HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\nx",
         "x"},
        {"HTTP/1.1 204 No Content\r\n\r\n", NULL},
        {"HTTP/1.1 304 Not Modified\r\nContent-Length: 100\r\n\r\n", NULL},
        {"HTTP/1.1 500 Oh\r\nContent-Length: 0\r\n\r\n", NULL},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        script peer;
        world w;
        step one = {cases[i].answer, false};
        uint16_t port = script_start(&peer, &one, 1);
        world_start(&w, (bt_http_client_options){0});
        seen s = call(&w, (bt_http_client_request){.port = port, .path = "/"});
        if (s.result.status != BATON_OK || s.n_head != 1 ||
            (cases[i].body == NULL) != (s.body == NULL) ||
            (s.body != NULL && strcmp(s.body, cases[i].body) != 0))
            fail_msg("case %zu: %s '%s'", i, s.text, s.body != NULL ? s.body : "");
        free_seen(&s);
        world_stop(&w);
        script_stop(&peer);
    }
}

static void broken_answers_fail_with_what_is_wrong(void **state)
{
    (void)state;
    static const struct {
        const char *answer;
        baton_status status;
        bt_http_phase phase;
    } cases[] = {
        {NULL, BATON_ERR_CLOSED, BT_HTTP_SEND},
        {"HTTP/1.1 200 O", BATON_ERR_CLOSED, BT_HTTP_HEAD},
        {"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc", BATON_ERR_CLOSED, BT_HTTP_BODY},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", BATON_ERR_CLOSED,
         BT_HTTP_BODY},
        {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n",
         BATON_ERR_BAD_MESSAGE, BT_HTTP_BODY},
        {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
         BATON_ERR_BAD_MESSAGE, BT_HTTP_HEAD},
        {"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", BATON_ERR_BAD_MESSAGE,
         BT_HTTP_HEAD},
        {"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n", BATON_ERR_BAD_MESSAGE, BT_HTTP_HEAD},
        {"HTTP/1.1 200 OK\nX: a\n\n", BATON_ERR_BAD_MESSAGE, BT_HTTP_HEAD},
        {"HTTP/1.1 101 Switch\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", BATON_ERR_BAD_MESSAGE,
         BT_HTTP_HEAD},
        {"SSH-2.0-OpenSSH\r\n", BATON_ERR_BAD_MESSAGE, BT_HTTP_HEAD},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        script peer;
        world w;
        step one = {cases[i].answer, false};
        uint16_t port = script_start(&peer, &one, 1);
        world_start(&w, (bt_http_client_options){0});
        seen s = call(&w, (bt_http_client_request){.port = port, .path = "/"});
        if (s.result.status != cases[i].status || s.result.phase != cases[i].phase)
            fail_msg("case %zu: %s in phase %s, '%s'", i, baton_status_name(s.result.status),
                     bt_http_phase_name(s.result.phase), s.text);
        assert_true(strlen(s.text) > 0);
        free_seen(&s);
        world_stop(&w);
        script_stop(&peer);
    }
}

static void a_stale_connection_is_replaced_once(void **state)
{
    (void)state;
    static const char ok[] = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
    /* The second request on the kept connection is read and then dropped without a byte. */
    static const step steps[] = {{ok, true}, {NULL, false}, {ok, false}};
    script peer;
    world w;
    uint16_t port = script_start(&peer, steps, 3);
    world_start(&w, (bt_http_client_options){0});
    seen s = call(&w, (bt_http_client_request){.port = port, .path = "/"});
    free_seen(&s);
    const bt_slice body = {"x", 1};
    s = call(&w, (bt_http_client_request){
                     .port = port, .method = "PUT", .path = "/", .body = &body, .n_body = 1});
    assert_int_equal(s.result.status, BATON_OK);
    assert_true(s.result.retried);
    assert_string_equal(s.body, "ok");
    free_seen(&s);
    world_stop(&w);
    script_stop(&peer);
    assert_int_equal(peer.n_requests, 3);
}

static void an_answer_that_began_is_not_asked_for_twice(void **state)
{
    (void)state;
    static const step steps[] = {{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok", true},
                                 {"HTTP/1.1 2", false}};
    script peer;
    world w;
    uint16_t port = script_start(&peer, steps, 2);
    world_start(&w, (bt_http_client_options){0});
    seen s = call(&w, (bt_http_client_request){.port = port, .path = "/"});
    free_seen(&s);
    s = call(&w, (bt_http_client_request){.port = port, .path = "/"});
    assert_int_equal(s.result.status, BATON_ERR_CLOSED);
    assert_false(s.result.retried);
    world_stop(&w);
    script_stop(&peer);
}

static void bytes_behind_an_answer_are_never_anothers_answer(void **state)
{
    (void)state;
    static const step steps[] = {{"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nokHTTP/1.1 200 "
                                  "OK\r\nContent-Length: 4\r\n\r\n"
                                  "evil",
                                  false},
                                 {"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood", false}};
    script peer;
    world w;
    uint16_t port = script_start(&peer, steps, 2);
    world_start(&w, (bt_http_client_options){0});
    seen s = call(&w, (bt_http_client_request){.port = port, .path = "/"});
    assert_string_equal(s.body, "ok");
    free_seen(&s);
    s = call(&w, (bt_http_client_request){.port = port, .path = "/"});
    assert_string_equal(s.body, "good");
    free_seen(&s);
    world_stop(&w);
    script_stop(&peer);
}

static void an_early_answer_is_heard_while_the_body_still_goes_out(void **state)
{
    (void)state;
    static const step steps[] = {
        {"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno", false}};
    script peer;
    world w;
    uint16_t port = script_start(&peer, steps, 1);
    world_start(&w, (bt_http_client_options){0});
    bt_slice body[16];
    for (size_t i = 0; i < 16; i++)
        body[i] = (bt_slice){w.big, BIG_BYTES};
    seen s = call(&w, (bt_http_client_request){
                          .port = port, .method = "POST", .path = "/", .body = body, .n_body = 16});
    assert_int_equal(s.result.status, BATON_OK);
    assert_int_equal(s.status, 413);
    free_seen(&s);
    world_stop(&w);
    script_stop(&peer);
}

static void requests_that_must_not_be_sent_are_refused(void **state)
{
    (void)state;
    world w;
    world_start(&w, (bt_http_client_options){0});
    const bt_http_header bad = {"X", "a\r\nY: b"};
    const bt_http_client_request good = {
        .host = "127.0.0.1", .port = w.port, .path = "/", .ops = &ops};
    bt_http_client_request r = good;
    r.headers = &bad;
    r.n_headers = 1;
    assert_fails(bt_http_client_start(w.client, &r, NULL), BATON_ERR_INVALID_ARG, "header 0");
    r = good;
    r.path = "/a b";
    assert_fails(bt_http_client_start(w.client, &r, NULL), BATON_ERR_INVALID_ARG, "path");
    r.path = "x";
    assert_fails(bt_http_client_start(w.client, &r, NULL), BATON_ERR_INVALID_ARG, "path");
    r = good;
    r.method = "GET /";
    assert_fails(bt_http_client_start(w.client, &r, NULL), BATON_ERR_INVALID_ARG, "method");
    r = good;
    r.host = "";
    assert_fails(bt_http_client_start(w.client, &r, NULL), BATON_ERR_INVALID_ARG, "host");
    world_stop(&w);
}

static void a_call_survives_every_failed_allocation(void **state)
{
    (void)state;
    const bt_slice body[] = {{"abc", 3}};
    unsigned n_ok = 0;
    bt_expect_log("connection dropped");
    for (uint64_t nth = 1; n_ok == 0 || nth < 3; nth++) {
        assert_true(nth < 200);
        world w;
        seen s = {0};
        world_start(&w, (bt_http_client_options){0});
        bt_http_client_request r = {.host = "127.0.0.1",
                                    .port = w.port,
                                    .tls = tlskit_client(),
                                    .method = "POST",
                                    .path = "/",
                                    .body = body,
                                    .n_body = 1,
                                    .ops = &ops,
                                    .ctx = &s};
        s.world = &w;
        w.may_fail = true;
        bt_alloc_fail_at(nth);
        baton_status status = bt_http_client_start(w.client, &r, &s.call);
        if (status == BATON_OK) {
            w.n_open = 1;
            run(&w);
            n_ok += s.result.status == BATON_OK && s.status == 200 && bt_alloc_count() < nth;
        } else {
            assert_int_equal(status, BATON_ERR_NO_MEMORY);
        }
        bt_alloc_fail_at(0);
        free_seen(&s);
        world_stop(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(a_body_in_slices_arrives_whole),
        bt_test(big_bodies_go_both_ways),
        bt_test(connections_are_reused_last_first),
        bt_test(the_pool_has_a_cap),
        bt_test(the_pool_has_an_age),
        bt_test(head_and_empty_answers_end_at_once),
        bt_test(canceling_closes_the_socket_and_the_server_notices),
        bt_test(canceling_before_anything_happened_is_fine),
        bt_test(names_are_resolved),
        bt_test(nobody_listening_is_unreachable),
        bt_test(every_phase_has_its_deadline),
        bt_test(a_paused_call_holds_the_server_back),
        bt_test(the_gap_stands_still_while_paused),
        bt_test(answers_of_every_framing_are_read),
        bt_test(broken_answers_fail_with_what_is_wrong),
        bt_test(a_stale_connection_is_replaced_once),
        bt_test(an_answer_that_began_is_not_asked_for_twice),
        bt_test(bytes_behind_an_answer_are_never_anothers_answer),
        bt_test(an_early_answer_is_heard_while_the_body_still_goes_out),
        bt_test(requests_that_must_not_be_sent_are_refused),
        bt_test(a_call_survives_every_failed_allocation),
    };
    return bt_run_tests(tests);
}
