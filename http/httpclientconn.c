/* SPDX-License-Identifier: Apache-2.0 */
#include "http/httpclientconn.h"

#include "core/alloc.h"
#include "core/fail.h"

#include <stdio.h>

enum {
    MAX_INFORMATIONAL = 16, /* 1xx answers before the real one */
    KEEPALIVE_S = 5,        /* of silence, before the kernel asks */
};

static void on_closed(uv_handle_t *handle)
{
    bt_client_conn *conn = handle->data;
    bt_http_client *client = conn->client;
    bt_out_clear(&conn->out);
    bt_http_parser_free(&conn->parser);
    bt_free(conn);
    bt_client_release(client);
}

void bt_client_conn_close(bt_client_conn *conn)
{
    if (conn->state == BT_CLIENT_CLOSED)
        return;
    if (conn->state == BT_CLIENT_IDLE)
        bt_client_forget_idle(conn);
    conn->state = BT_CLIENT_CLOSED;
    conn->call = NULL;
    uv_close((uv_handle_t *)&conn->tcp, on_closed);
}

static void on_alloc(uv_handle_t *handle, size_t suggested, uv_buf_t *buffer)
{
    (void)suggested;
    bt_client_conn *conn = handle->data;
    *buffer = uv_buf_init(conn->client->read_buffer, sizeof(conn->client->read_buffer));
}

static bool on_head(void *ctx)
{
    bt_client_conn *conn = ctx;
    bt_http_call *call = conn->call;
    unsigned status = conn->parser.status;
    if (status / 100 == 1)
        return true;
    call->result.http_status = status;
    bt_call_enter(call, BT_HTTP_BODY);
    if (call->ops->on_head != NULL)
        call->ops->on_head(call->ctx, call, status, bt_http_head_list(&conn->parser.head));
    return conn->call != NULL;
}

static bool on_body(void *ctx, const char *bytes, size_t n)
{
    bt_client_conn *conn = ctx;
    bt_http_call *call = conn->call;
    call->result.body_bytes += n;
    if (call->ops->on_data != NULL)
        call->ops->on_data(call->ctx, call, bytes, n);
    return conn->call != NULL;
}

static const bt_http_parser_ops parser_ops = {.on_head = on_head, .on_body = on_body};

/* The answer is whole. The connection is kept if the next answer cannot be mistaken. */
static void complete(bt_client_conn *conn, bool clean)
{
    bt_http_call *call = conn->call;
    bool keep = clean && conn->parser.keep_alive && conn->out.bytes == 0;
    if (keep) {
        conn->call = NULL;
        call->conn = NULL;
        bt_http_parser_reset(&conn->parser);
        bt_client_keep(conn);
    }
    call->result.phase = BT_HTTP_DONE;
    bt_call_finish(call, BATON_OK, "");
}

static void fail_parse(bt_client_conn *conn)
{
    const bt_http_parser *parser = &conn->parser;
    char text[256];
    snprintf(text, sizeof(text), "http: answer of %s port %u: %s", conn->origin->host,
             conn->origin->port, parser->text);
    bool bad = parser->error != BATON_ERR_TOO_LARGE && parser->error != BATON_ERR_NO_MEMORY;
    bt_call_finish(conn->call, bad ? BATON_ERR_BAD_MESSAGE : parser->error, text);
}

static void feed(bt_client_conn *conn, const char *bytes, size_t n)
{
    while (n > 0) {
        size_t used = bt_http_parser_feed(&conn->parser, bytes, n);
        bytes += used;
        n -= used;
        if (conn->call == NULL) /* ended by the user, who was called back */
            return;
        if (conn->parser.phase == BT_HTTP_PARSE_FAILED) {
            fail_parse(conn);
            return;
        }
        if (conn->parser.phase != BT_HTTP_PARSE_DONE)
            return;
        if (conn->parser.status / 100 != 1) {
            complete(conn, n == 0);
            return;
        }
        if (++conn->n_informational > MAX_INFORMATIONAL) {
            bt_call_finish(conn->call, BATON_ERR_BAD_MESSAGE, "http: too many 1xx answers");
            return;
        }
        bt_http_parser_reset(&conn->parser);
    }
}

static void on_end(bt_client_conn *conn, int err)
{
    if (conn->call == NULL) {
        bt_client_conn_close(conn);
        return;
    }
    bool is_whole = conn->out.tls == NULL || bt_tls_state_of(conn->out.tls) == BT_TLS_ENDED;
    if (err == UV_EOF && is_whole)
        bt_http_parser_finish(&conn->parser);
    if (conn->parser.phase == BT_HTTP_PARSE_DONE && conn->parser.status / 100 != 1) {
        conn->parser.keep_alive = false;
        complete(conn, false);
        return;
    }
    char text[256];
    snprintf(text, sizeof(text), "http: %s port %u closed the connection %s: %s",
             conn->origin->host, conn->origin->port,
             conn->answered ? "in the middle of its answer" : "without an answer",
             uv_strerror(err));
    if (conn->answered)
        bt_call_finish(conn->call, BATON_ERR_CLOSED, text);
    else
        bt_call_broken(conn->call, text);
}

/* The connection never came to be. */
static void fail_connecting(bt_client_conn *conn, baton_status status, const char *reason)
{
    char copy[BT_ERROR_TEXT_BYTES]; /* the connection's, which goes */
    bt_http_call *call = conn->call;
    snprintf(copy, sizeof(copy), "%s", reason);
    call->conn = NULL;
    bt_client_conn_close(conn);
    bt_call_connect_failed(call, status, copy);
}

static bool take(void *ctx, const char *bytes, size_t n)
{
    bt_client_conn *conn = ctx;
    if (conn->call == NULL) { /* idle, and the server speaks unasked */
        bt_client_conn_close(conn);
        return false;
    }
    if (conn->state == BT_CLIENT_CONNECTING) {
        fail_connecting(conn, BATON_ERR_BAD_MESSAGE, "an answer before anything was asked");
        return false;
    }
    if (!conn->answered)
        bt_call_enter(conn->call, BT_HTTP_HEAD);
    conn->answered = true;
    bt_call_touch(conn->call);
    feed(conn, bytes, n);
    return conn->state != BT_CLIENT_CLOSED;
}

static void on_tls_failed(bt_client_conn *conn)
{
    const char *text = bt_tls_error_text(conn->out.tls);
    bt_out_flush(&conn->out); /* what is said in the protocol's own words */
    if (conn->call == NULL)
        bt_client_conn_close(conn);
    else if (conn->state == BT_CLIENT_CONNECTING)
        fail_connecting(conn, BATON_ERR_AUTH, text);
    else
        bt_call_finish(conn->call, BATON_ERR_AUTH, text);
}

static void take_encrypted(bt_client_conn *conn, const char *bytes, size_t n)
{
    bt_tls_state state = bt_tls_receive(conn->out.tls, bytes, n, take, conn);
    if (conn->state == BT_CLIENT_CLOSED)
        return;
    if (state == BT_TLS_FAILED) {
        on_tls_failed(conn);
        return;
    }
    bt_out_flush(&conn->out); /* errors: see on_written */
    if (state == BT_TLS_OPEN && conn->state == BT_CLIENT_CONNECTING)
        bt_call_connected(conn->call, conn);
    else if (state == BT_TLS_ENDED)
        on_end(conn, UV_EOF);
}

static void on_read(uv_stream_t *stream, ssize_t n, const uv_buf_t *buffer)
{
    bt_client_conn *conn = stream->data;
    if (n == 0)
        return;
    if (n < 0 && conn->state == BT_CLIENT_CONNECTING)
        fail_connecting(conn, BATON_ERR_UNREACHABLE, uv_strerror((int)n));
    else if (n < 0)
        on_end(conn, (int)n);
    else if (conn->out.tls != NULL)
        take_encrypted(conn, buffer->base, (size_t)n);
    else
        take(conn, buffer->base, (size_t)n);
}

void bt_client_read_start(bt_client_conn *conn)
{
    if (!conn->reading)
        uv_read_start((uv_stream_t *)&conn->tcp, on_alloc, on_read);
    conn->reading = true;
}

void bt_client_read_stop(bt_client_conn *conn)
{
    if (conn->reading)
        uv_read_stop((uv_stream_t *)&conn->tcp);
    conn->reading = false;
}

/* A failed write shows itself on the reading side too, behind an early answer if there is one; but
 * nothing does when it is our side of TLS that has failed. */
static void look_after_write(bt_client_conn *conn, int err)
{
    if (err == UV_EPROTO && conn->call != NULL && conn->state == BT_CLIENT_BUSY)
        bt_call_finish(conn->call, BATON_ERR_NO_MEMORY, bt_tls_error_text(conn->out.tls));
}

static void on_written(void *ctx, int err)
{
    look_after_write(ctx, err);
}

static void on_connected(uv_connect_t *connect, int err)
{
    bt_client_conn *conn = connect->data;
    bt_http_call *call = conn->call;
    if (call == NULL) /* canceled */
        return;
    if (err != 0) {
        fail_connecting(conn,
                        err == UV_ETIMEDOUT ? BATON_ERR_CONNECT_TIMEOUT : BATON_ERR_UNREACHABLE,
                        uv_strerror(err));
        return;
    }
    uv_tcp_nodelay(&conn->tcp, 1);
    uv_tcp_keepalive(&conn->tcp, 1, KEEPALIVE_S); /* a machine that is gone says nothing */
    if (conn->origin->tls == NULL) {
        bt_call_connected(call, conn);
        return;
    }
    baton_status status = bt_out_use_tls(&conn->out, conn->origin->tls, conn->origin->host);
    if (status != BATON_OK) {
        fail_connecting(conn, status, baton_last_error());
        return;
    }
    bt_out_flush(&conn->out); /* errors: see on_written */
    bt_client_read_start(conn);
}

baton_status bt_client_connect(bt_http_call *call)
{
    bt_http_client *client = call->client;
    bt_client_conn *conn = bt_calloc(1, sizeof(*conn));
    if (conn == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "http: a connection");
    conn->client = client;
    conn->origin = call->origin;
    uv_tcp_init(bt_loop_uv(client->loop), &conn->tcp);
    conn->tcp.data = conn->connect.data = conn;
    bt_out_init(&conn->out, (uv_stream_t *)&conn->tcp, on_written, conn);
    bt_http_parser_init(&conn->parser, true, &parser_ops, conn);
    conn->parser.max_head_bytes = client->options.max_head_bytes;
    conn->parser.max_headers = client->options.max_headers;
    client->n_open++;
    client->stats.connects_total++;
    const bt_client_address *address = &call->addresses[call->next_address++];
    int err = uv_tcp_connect(&conn->connect, &conn->tcp, &address->any, on_connected);
    if (err != 0) {
        bt_client_conn_close(conn);
        return bt_fail(BATON_ERR_UNREACHABLE, "http: connecting to %s port %u: %s",
                       call->origin->host, call->origin->port, uv_strerror(err));
    }
    conn->call = call;
    call->conn = conn;
    return BATON_OK;
}

void bt_client_send(bt_client_conn *conn, bt_http_call *call)
{
    conn->state = BT_CLIENT_BUSY;
    conn->call = call;
    call->conn = conn;
    conn->answered = false;
    conn->n_informational = 0;
    conn->parser.skip_body = call->is_head;
    bool queued =
        bt_out_own(&conn->out, call->head.data, call->head.length, NULL, NULL) == BATON_OK;
    for (size_t i = 0; queued && i < call->n_body; i++)
        queued = bt_out_own(&conn->out, call->body[i].at, call->body[i].n, NULL, NULL) == BATON_OK;
    if (!queued) {
        bt_call_finish(call, BATON_ERR_NO_MEMORY, "http: out of memory for a request");
        return;
    }
    int err = bt_out_flush(&conn->out);
    if (err == UV_EPROTO) {
        look_after_write(conn, err);
        return;
    }
    if (call->paused)
        bt_client_read_stop(conn);
    else
        bt_client_read_start(conn);
}
