/* SPDX-License-Identifier: Apache-2.0 */
#include "http/httpserverconn.h"

#include "core/alloc.h"
#include "core/clock.h"
#include "core/fail.h"
#include "core/log.h"

#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum {
    PENDING_BYTES = 64 * 1024,     /* pipelined bytes kept while a request is in flight */
    EAGER_FLUSH_BYTES = 64 * 1024, /* more than this is written at once */
    LINGER_MS = 2000,              /* how long a leaving client may take to close its side */
    LINGER_BYTES = 4 << 20,        /* and how much of what it still sends is read */
    OVERLOAD_MARGIN = 64,          /* connections above the limit that still get a 503 */
};

static void feed(bt_conn *conn, const char *bytes, size_t n);
static void on_timer(uv_timer_t *timer);

static void set_timer(bt_conn *conn, uint64_t delay_ms)
{
    uv_timer_start(&conn->timer, on_timer, delay_ms, 0);
}

static void on_handle_closed(uv_handle_t *handle)
{
    bt_conn *conn = handle->data;
    if (--conn->n_handles != 0)
        return;
    bt_http_server *server = conn->server;
    bt_out_clear(&conn->out);
    bt_http_parser_free(&conn->parser);
    bt_free(conn->body);
    bt_free(conn->pending);
    bt_free(conn);
    bt_server_conn_freed(server);
}

void bt_conn_close(bt_conn *conn)
{
    if (conn->state == BT_CONN_CLOSED)
        return;
    conn->state = BT_CONN_CLOSED;
    bt_http_server *server = conn->server;
    if (conn->prev != NULL)
        conn->prev->next = conn->next;
    else
        server->conns = conn->next;
    if (conn->next != NULL)
        conn->next->prev = conn->prev;
    server->stats.n_connections--;
    server->stats.written_bytes_total += conn->out.written_bytes_total;
    bt_loop_undefer(&conn->work);
    uv_close((uv_handle_t *)&conn->tcp, on_handle_closed);
    uv_close((uv_handle_t *)&conn->timer, on_handle_closed);

    bt_exchange *exchange = conn->exchange;
    conn->exchange = NULL;
    if (exchange != NULL) {
        server->stats.gone_total++;
        server->stats.n_requests--;
        bt_exchange_gone(exchange);
    }
}

static void stop_reading(bt_conn *conn)
{
    if (conn->stream_reading)
        uv_read_stop((uv_stream_t *)&conn->tcp);
    conn->stream_reading = false;
}

static void on_shutdown(uv_shutdown_t *shutdown, int err)
{
    (void)err; /* a broken connection shows itself as a read error */
    bt_free(shutdown);
}

/* With TLS, the end of a whole message is told from a cut. */
static void say_goodbye(bt_conn *conn)
{
    if (conn->out.tls == NULL)
        return;
    bt_tls_end(conn->out.tls);
    bt_out_flush(&conn->out); /* a broken connection shows itself as a read error */
}

/* Everything is written: closes our side and waits for the peer's, since closing a socket with
 * unread bytes resets it, and the peer might lose the answer. */
static void shut(bt_conn *conn)
{
    uv_shutdown_t *shutdown = bt_calloc(1, sizeof(*shutdown));
    conn->shut = true;
    say_goodbye(conn);
    if (shutdown == NULL || uv_shutdown(shutdown, (uv_stream_t *)&conn->tcp, on_shutdown) != 0) {
        bt_free(shutdown);
        bt_conn_close(conn);
        return;
    }
    set_timer(conn, LINGER_MS);
}

static void flush(bt_conn *conn)
{
    if (conn->state == BT_CONN_CLOSED)
        return;
    if (bt_out_flush(&conn->out) != 0) {
        bt_conn_close(conn);
        return;
    }
    if (conn->out.bytes == 0) {
        if (conn->state == BT_CONN_LEAVING && conn->eof)
            bt_conn_close(conn);
        else if (conn->state == BT_CONN_LEAVING && !conn->shut)
            shut(conn);
        return;
    }
    if (conn->state == BT_CONN_READING)
        return; /* the next request's timer runs; its answer brings the write timer back */
    if (!uv_is_active((uv_handle_t *)&conn->timer)) {
        conn->written_seen = conn->out.written_bytes_total;
        set_timer(conn, conn->server->options.write_timeout_ms);
    }
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer);

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    (void)suggested;
    bt_conn *conn = handle->data;
    *buffer = uv_buf_init(conn->server->read_buffer, sizeof(conn->server->read_buffer));
}

static void start_reading(bt_conn *conn)
{
    if (!conn->stream_reading && !conn->eof)
        uv_read_start((uv_stream_t *)&conn->tcp, on_alloc, on_read);
    conn->stream_reading = true;
}

/* Answered, and nothing more is taken from this client. */
static void leave(bt_conn *conn)
{
    conn->state = BT_CONN_LEAVING;
    uv_timer_stop(&conn->timer);
    start_reading(conn);
    bt_conn_wants_flush(conn);
}

static void take_pending(bt_conn *conn)
{
    char *bytes = conn->pending;
    size_t n = conn->pending_bytes;
    conn->pending = NULL;
    conn->pending_bytes = 0;
    if (n > 0)
        feed(conn, bytes, n);
    bt_free(bytes);
    bool open = conn->state == BT_CONN_READING || conn->state == BT_CONN_HANDLING;
    if (open && conn->pending_bytes < PENDING_BYTES)
        start_reading(conn);
}

/* The end of a wakeup. */
static void on_work(void *arg)
{
    bt_conn *conn = arg;
    flush(conn);
    if (conn->state == BT_CONN_WAITING && conn->out.bytes == 0) {
        conn->state = BT_CONN_READING;
        set_timer(conn, conn->server->options.idle_timeout_ms);
    }
    if (conn->state == BT_CONN_READING && (conn->pending_bytes > 0 || !conn->stream_reading))
        take_pending(conn);
    if (conn->state == BT_CONN_HANDLING)
        bt_exchange_progress(conn->exchange);
}

void bt_conn_wants_flush(bt_conn *conn)
{
    bt_loop_defer(conn->server->loop, &conn->work);
}

static void on_written(void *ctx, int err)
{
    bt_conn *conn = ctx;
    if (conn->state == BT_CONN_CLOSED)
        return;
    if (err != 0)
        bt_conn_close(conn);
    else
        on_work(conn);
}

/* Answers a request that is not handled, and closes. */
static void refuse_as(bt_conn *conn, const bt_http_refusal *refusal)
{
    static const bt_http_header headers[] = {{"Content-Type", "application/json"},
                                             {"WWW-Authenticate", "Bearer"}};
    char json[512], framing[64];
    conn->server->stats.refused_total++;
    conn->keep_alive = false;
    size_t n = bt_http_error_body(json, sizeof(json), refusal->status, NULL, refusal->text, NULL,
                                  refusal->code);
    n = n < sizeof(json) ? n : sizeof(json) - 1;
    snprintf(framing, sizeof(framing), "Content-Length: %zu\r\n", n);
    if (bt_respond_head(conn, refusal->status, headers, refusal->status == 401 ? 2 : 1, framing,
                        NULL) != BATON_OK ||
        bt_out_copy(&conn->out, json, n) != BATON_OK) {
        bt_conn_close(conn);
        return;
    }
    leave(conn);
}

static void refuse(bt_conn *conn, unsigned status, const char *text)
{
    refuse_as(conn, &(bt_http_refusal){.status = status, .text = text});
}

static void on_timer(uv_timer_t *timer)
{
    bt_conn *conn = timer->data;
    bool busy = conn->state == BT_CONN_HANDLING || conn->state == BT_CONN_WAITING;
    if ((busy || (conn->state == BT_CONN_LEAVING && !conn->shut)) && conn->out.bytes > 0) {
        uint64_t written =
            conn->out.written_bytes_total + conn->out.bytes - bt_out_queued(&conn->out);
        if (written != conn->written_seen) {
            conn->written_seen = written;
            set_timer(conn, conn->server->options.write_timeout_ms);
            return;
        }
        conn->server->stats.timeouts_total++;
        bt_debug("http: client takes no bytes peer=%s queued=%zu", conn->peer, conn->out.bytes);
        bt_conn_close(conn);
    } else if (conn->state == BT_CONN_READING && !bt_http_parser_is_fresh(&conn->parser)) {
        conn->server->stats.timeouts_total++;
        refuse(conn, 408, "the request did not arrive in time");
    } else if (!busy) {
        if (conn->state == BT_CONN_READING)
            say_goodbye(conn);
        bt_conn_close(conn);
    }
}

static baton_status grow_body(bt_conn *conn, size_t wanted)
{
    /* What a client announces is believed up to 64 KiB; beyond that memory follows the bytes. */
    size_t cap = conn->body_cap;
    if (cap == 0) {
        uint64_t announced = conn->parser.content_length;
        cap = announced < EAGER_FLUSH_BYTES ? (size_t)announced + 1 : EAGER_FLUSH_BYTES;
    }
    while (cap < wanted)
        cap *= 2;
    char *grown = bt_realloc(conn->body, cap, 1);
    if (grown == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "http: a body of %zu bytes", cap);
    conn->body = grown;
    conn->body_cap = cap;
    return BATON_OK;
}

static bool on_body(void *ctx, const char *bytes, size_t n)
{
    bt_conn *conn = ctx;
    if (conn->body_cap - conn->body_bytes <= n && grow_body(conn, conn->body_bytes + n + 1) != 0)
        return false;
    memcpy(conn->body + conn->body_bytes, bytes, n);
    conn->body_bytes += n;
    conn->body[conn->body_bytes] = '\0';
    return true;
}

static bool on_head(void *ctx)
{
    static const char go_on[] = "HTTP/1.1 100 Continue\r\n\r\n";
    bt_conn *conn = ctx;
    const bt_http_server_options *options = &conn->server->options;
    conn->refusal = (bt_http_refusal){0};
    if (options->on_head != NULL &&
        !options->on_head(options->ctx, conn->parser.head.bytes,
                          bt_http_head_list(&conn->parser.head), &conn->refusal))
        return false;
    if (conn->parser.expects_continue) {
        if (bt_out_copy(&conn->out, go_on, sizeof(go_on) - 1) != BATON_OK)
            return false;
        bt_conn_wants_flush(conn);
    }
    return true;
}

static const bt_http_parser_ops parser_ops = {.on_head = on_head, .on_body = on_body};

static bt_exchange *build_exchange(bt_conn *conn)
{
    bt_http_parser *parser = &conn->parser;
    bt_exchange *exchange = bt_calloc(1, sizeof(*exchange));
    char *target = bt_strdup(parser->head.bytes);
    if (exchange == NULL || target == NULL) {
        bt_free(target);
        bt_free(exchange);
        return NULL;
    }
    exchange->loop = conn->server->loop;
    exchange->is_head = parser->llhttp.method == HTTP_HEAD;
    exchange->is_http10 = parser->llhttp.http_minor == 0;
    exchange->head = bt_http_parser_take_head(parser);
    exchange->body = conn->body;
    exchange->target = target;
    memcpy(exchange->peer, conn->peer, sizeof(exchange->peer));
    bt_http_request *request = &exchange->request;
    request->method = bt_http_parser_method(parser);
    request->target = exchange->head.bytes;
    request->headers = bt_http_head_list(&exchange->head);
    request->path = target;
    char *mark = strchr(target, '?');
    request->query = mark != NULL ? mark + 1 : "";
    if (mark != NULL)
        *mark = '\0';
    request->body = conn->body != NULL ? conn->body : "";
    request->body_bytes = conn->body_bytes;
    request->peer = exchange->peer;
    request->arrived_ns = conn->arrived_ns;
    conn->body = NULL;
    conn->body_bytes = conn->body_cap = 0;
    return exchange;
}

static void dispatch(bt_conn *conn)
{
    bt_http_server *server = conn->server;
    bt_exchange *exchange = build_exchange(conn);
    if (exchange == NULL) {
        refuse(conn, 503, "out of memory");
        return;
    }
    conn->keep_alive = conn->parser.keep_alive && !server->draining;
    bt_http_parser_reset(&conn->parser);
    exchange->conn = conn;
    conn->exchange = exchange;
    conn->state = BT_CONN_HANDLING;
    uv_timer_stop(&conn->timer);
    server->stats.requests_total++;
    server->stats.n_requests++;
    server->options.on_request(server->options.ctx, &exchange->request);
}

static void set_read_timer(bt_conn *conn, bool was_fresh)
{
    const bt_http_server_options *options = &conn->server->options;
    if (bt_http_parser_is_fresh(&conn->parser))
        set_timer(conn, options->idle_timeout_ms);
    else if (conn->parser.phase != BT_HTTP_PARSE_HEAD)
        set_timer(conn, options->body_timeout_ms);
    else if (was_fresh) /* the whole head in one limit, however slowly it drips */
        set_timer(conn, options->header_timeout_ms);
}

/* Keeps bytes until the request in flight is done; a client that pipelines too much waits. */
static void stash(bt_conn *conn, const char *bytes, size_t n)
{
    if (n == 0)
        return;
    char *grown = bt_realloc(conn->pending, conn->pending_bytes + n, 1);
    if (grown == NULL) {
        bt_conn_close(conn);
        return;
    }
    memcpy(grown + conn->pending_bytes, bytes, n);
    conn->pending = grown;
    conn->pending_bytes += n;
    if (conn->pending_bytes >= PENDING_BYTES)
        stop_reading(conn);
}

static void feed(bt_conn *conn, const char *bytes, size_t n)
{
    bool was_fresh = bt_http_parser_is_fresh(&conn->parser);
    conn->in_feed = true;
    while (n > 0 && conn->state == BT_CONN_READING) {
        if (bt_http_parser_is_fresh(&conn->parser)) {
            was_fresh = true;
            conn->arrived_ns = bt_now_ns(&bt_clock_monotonic);
        }
        size_t used = bt_http_parser_feed(&conn->parser, bytes, n);
        bytes += used;
        n -= used;
        if (conn->parser.phase == BT_HTTP_PARSE_DONE)
            dispatch(conn);
        else if (conn->parser.phase == BT_HTTP_PARSE_FAILED && conn->refusal.status != 0)
            refuse_as(conn, &conn->refusal);
        else if (conn->parser.phase == BT_HTTP_PARSE_FAILED)
            refuse(conn, conn->parser.http_status,
                   conn->parser.text[0] != '\0' ? conn->parser.text : "out of memory");
    }
    conn->in_feed = false;
    if (conn->state == BT_CONN_HANDLING || conn->state == BT_CONN_WAITING)
        stash(conn, bytes, n);
    else if (conn->state == BT_CONN_READING)
        set_read_timer(conn, was_fresh);
}

/* The peer has shut its sending side, or the connection is broken. */
static void on_read_end(bt_conn *conn, int err)
{
    bool answered = conn->state != BT_CONN_HANDLING && conn->out.bytes > 0;
    if (err != UV_EOF || !answered) {
        bt_conn_close(conn);
        return;
    }
    conn->eof = true; /* it may still be waiting for the rest of its last answer */
    stop_reading(conn);
    leave(conn);
}

static void take(bt_conn *conn, const char *bytes, size_t n)
{
    if (conn->is_surplus)
        refuse(conn, 503, "too many connections");
    else if (conn->state != BT_CONN_READING || conn->pending_bytes > 0)
        stash(conn, bytes, n);
    else
        feed(conn, bytes, n);
}

static bool on_plain(void *ctx, const char *bytes, size_t n)
{
    bt_conn *conn = ctx;
    take(conn, bytes, n);
    return conn->state != BT_CONN_CLOSED && conn->state != BT_CONN_LEAVING;
}

static void on_tls_failed(bt_conn *conn)
{
    bt_tls *tls = conn->out.tls;
    conn->server->stats.tls_failed_total++;
    bt_debug("http: session broken off peer=%s error='%s'", conn->peer, bt_tls_error_text(tls));
    if (bt_tls_met_plain_http(tls)) {
        bt_out_drop_tls(&conn->out);
        refuse(conn, 400, "this port speaks TLS: ask it with https://");
        return;
    }
    bt_out_flush(&conn->out); /* what is said in the protocol's own words */
    bt_conn_close(conn);
}

static void on_tls_open(bt_conn *conn)
{
    if (conn->is_surplus)
        refuse(conn, 503, "too many connections");
    else if (bt_http_parser_is_fresh(&conn->parser))
        set_timer(conn, conn->server->options.idle_timeout_ms);
}

static void take_encrypted(bt_conn *conn, const char *bytes, size_t n)
{
    bt_tls *tls = conn->out.tls;
    bool was_open = bt_tls_state_of(tls) == BT_TLS_OPEN;
    bt_tls_state state = bt_tls_receive(tls, bytes, n, on_plain, conn);
    if (conn->state == BT_CONN_CLOSED)
        return;
    if (conn->out.wire.first != NULL)
        bt_conn_wants_flush(conn);
    if (state == BT_TLS_FAILED)
        on_tls_failed(conn);
    else if (state == BT_TLS_ENDED && conn->state != BT_CONN_LEAVING)
        on_read_end(conn, UV_EOF);
    else if (state == BT_TLS_OPEN && !was_open && conn->state == BT_CONN_READING)
        on_tls_open(conn);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer)
{
    bt_conn *conn = stream->data;
    if (n == 0)
        return;
    if (n < 0) {
        on_read_end(conn, (int)n);
        return;
    }
    conn->server->stats.read_bytes_total += (uint64_t)n;
    if (conn->state == BT_CONN_LEAVING) {
        conn->discarded_bytes += (size_t)n;
        if (conn->discarded_bytes > LINGER_BYTES)
            bt_conn_close(conn);
    } else if (conn->out.tls != NULL) {
        take_encrypted(conn, buffer->base, (size_t)n);
    } else {
        take(conn, buffer->base, (size_t)n);
    }
}

void bt_conn_finished(bt_conn *conn, bool cut)
{
    conn->exchange = NULL;
    conn->server->stats.n_requests--;
    if (cut) {
        bt_out_flush(&conn->out); /* what fits; the rest is lost with the connection */
        bt_conn_close(conn);
        return;
    }
    if (!conn->keep_alive || conn->server->draining) {
        leave(conn);
        return;
    }
    conn->state = BT_CONN_READING;
    uv_timer_stop(&conn->timer);
    if (conn->out.bytes > EAGER_FLUSH_BYTES) {
        /* Behind by this much, it gets no further request handled before the kernel took it. */
        conn->state = BT_CONN_WAITING;
    }
    bt_conn_wants_flush(conn);
    if (!conn->in_feed && conn->state == BT_CONN_READING)
        set_timer(conn, conn->server->options.idle_timeout_ms);
}

void bt_conn_drain(bt_conn *conn)
{
    conn->keep_alive = false;
    bool idle = conn->state == BT_CONN_READING && bt_http_parser_is_fresh(&conn->parser) &&
                conn->pending_bytes == 0;
    if (idle || conn->state == BT_CONN_WAITING)
        leave(conn);
}

static void describe_peer(bt_conn *conn)
{
    struct sockaddr_storage address;
    int bytes = sizeof(address);
    char host[INET6_ADDRSTRLEN] = "?";
    unsigned port = 0;
    if (uv_tcp_getpeername(&conn->tcp, (struct sockaddr *)&address, &bytes) == 0) {
        const struct sockaddr_in *v4 = (const struct sockaddr_in *)&address;
        const struct sockaddr_in6 *v6 = (const struct sockaddr_in6 *)&address;
        if (address.ss_family == AF_INET)
            uv_ip4_name(v4, host, sizeof(host));
        else
            uv_ip6_name(v6, host, sizeof(host));
        port = ntohs(address.ss_family == AF_INET ? v4->sin_port : v6->sin6_port);
    }
    snprintf(conn->peer, sizeof(conn->peer), "%s:%u", host, port);
}

static void link_conn(bt_http_server *server, bt_conn *conn)
{
    conn->next = server->conns;
    if (conn->next != NULL)
        conn->next->prev = conn;
    server->conns = conn;
    server->stats.n_connections++;
    server->stats.connections_total++;
}

/* A handshake has as much time as a head. */
static void begin(bt_conn *conn)
{
    const bt_http_server_options *options = &conn->server->options;
    if (options->tls != NULL && bt_out_use_tls(&conn->out, options->tls, NULL) != BATON_OK) {
        bt_warn("http: connection dropped: %s peer=%s", baton_last_error(), conn->peer);
        bt_conn_close(conn);
    } else if (options->tls == NULL && conn->is_surplus) {
        refuse(conn, 503, "too many connections");
    } else {
        set_timer(conn,
                  options->tls != NULL ? options->header_timeout_ms : options->idle_timeout_ms);
        start_reading(conn);
    }
}

baton_status bt_conn_accept(bt_http_server *server, int fd)
{
    bt_conn *conn = bt_calloc(1, sizeof(*conn));
    if (conn == NULL) {
        close(fd);
        return bt_fail(BATON_ERR_NO_MEMORY, "http: a connection");
    }
    conn->server = server;
    conn->n_handles = 2;
    uv_tcp_init(bt_loop_uv(server->loop), &conn->tcp);
    uv_timer_init(bt_loop_uv(server->loop), &conn->timer);
    conn->tcp.data = conn->timer.data = conn;
    conn->work = (bt_deferred){.fn = on_work, .arg = conn};
    bt_out_init(&conn->out, (uv_stream_t *)&conn->tcp, on_written, conn);
    bt_http_parser_init(&conn->parser, false, &parser_ops, conn);
    conn->parser.max_head_bytes = server->options.max_head_bytes;
    conn->parser.max_headers = server->options.max_headers;
    conn->parser.max_body_bytes = server->options.max_body_bytes;
    server->n_open++;
    link_conn(server, conn);
    int err = uv_tcp_open(&conn->tcp, fd);
    if (err != 0)
        close(fd);
    if (err != 0 ||
        server->stats.n_connections > server->options.max_connections + OVERLOAD_MARGIN) {
        bt_conn_close(conn);
        return err == 0 ? BATON_OK : bt_fail(BATON_ERR_IO, "http: accept: %s", uv_strerror(err));
    }
    uv_tcp_nodelay(&conn->tcp, 1);
    describe_peer(conn);
    conn->is_surplus = server->stats.n_connections > server->options.max_connections;
    begin(conn);
    return BATON_OK;
}
