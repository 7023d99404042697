/* SPDX-License-Identifier: Apache-2.0 */
#include "http/httpserverconn.h"

#include "core/alloc.h"
#include "core/fail.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <time.h>

static bt_exchange *exchange_of(const bt_http_request *request)
{
    return (bt_exchange *)request; /* its first member */
}

static void free_exchange(bt_exchange *exchange)
{
    bt_loop_undefer(&exchange->notice);
    bt_http_head_free(&exchange->head);
    bt_free(exchange->target);
    bt_free(exchange->extra);
    bt_free(exchange->body);
    bt_free(exchange);
}

static void tell_gone(void *arg)
{
    bt_exchange *exchange = arg;
    bt_loop_fn fn = exchange->gone_fn;
    exchange->gone_fn = NULL;
    if (fn != NULL)
        fn(exchange->gone_arg); /* may finish, and so free, the request */
}

void bt_exchange_gone(bt_exchange *exchange)
{
    exchange->conn = NULL;
    exchange->drain_fn = NULL;
    bt_loop_undefer(&exchange->notice);
    tell_gone(exchange);
}

void bt_http_on_gone(bt_http_request *request, bt_loop_fn fn, void *arg)
{
    bt_exchange *exchange = exchange_of(request);
    exchange->gone_fn = fn;
    exchange->gone_arg = arg;
    if (exchange->conn == NULL) {
        exchange->notice.fn = tell_gone;
        exchange->notice.arg = exchange;
        bt_loop_defer(exchange->loop, &exchange->notice);
    }
}

bool bt_http_is_gone(const bt_http_request *request)
{
    return exchange_of(request)->conn == NULL;
}

static const char *date_now(bt_http_server *server)
{
    time_t now = time(NULL);
    if (server->date_s != now) {
        struct tm utc;
        gmtime_r(&now, &utc);
        strftime(server->date, sizeof(server->date), "%a, %d %b %Y %H:%M:%S GMT", &utc);
        server->date_s = now;
    }
    return server->date;
}

static baton_status put(bt_conn *conn, const char *text)
{
    return bt_out_copy(&conn->out, text, strlen(text));
}

static baton_status put_header(bt_conn *conn, const char *name, const char *value)
{
    BATON_TRY(put(conn, name));
    BATON_TRY(put(conn, ": "));
    BATON_TRY(put(conn, value));
    return put(conn, "\r\n");
}

/* Framing is ours: a second length would let two readers disagree. */
static baton_status check_headers(bt_http_headers list)
{
    for (size_t i = 0; i < list.n; i++) {
        const bt_http_header *header = &list.items[i];
        if (header->name == NULL || header->value == NULL ||
            !bt_http_header_is_clean(header->name, header->value))
            return bt_fail(BATON_ERR_INVALID_ARG, "http: header %zu of the answer is malformed", i);
        if (strcasecmp(header->name, "content-length") == 0 ||
            strcasecmp(header->name, "transfer-encoding") == 0)
            return bt_fail(BATON_ERR_INVALID_ARG, "http: %s is set by the server", header->name);
    }
    return BATON_OK;
}

baton_status bt_respond_head(bt_conn *conn, unsigned status, const bt_http_header *headers,
                             size_t n_headers, const char *framing, const char *extra)
{
    bt_http_headers list = {headers, n_headers};
    char line[96];
    snprintf(line, sizeof(line), "HTTP/1.1 %u %s\r\n", status, bt_http_status_text(status));
    BATON_TRY(put(conn, line));
    if (bt_http_header_get(list, "date") == NULL)
        BATON_TRY(put_header(conn, "Date", date_now(conn->server)));
    for (size_t i = 0; i < n_headers; i++) {
        if (strcasecmp(headers[i].name, "connection") != 0)
            BATON_TRY(put_header(conn, headers[i].name, headers[i].value));
    }
    if (extra != NULL)
        BATON_TRY(put(conn, extra));
    BATON_TRY(put(conn, framing));
    if (!conn->keep_alive)
        BATON_TRY(put(conn, "Connection: close\r\n"));
    return put(conn, "\r\n");
}

static bool status_has_no_body(unsigned status)
{
    return status / 100 == 1 || status == 204 || status == 304;
}

/* A head or chunk that could not be queued whole: nothing good can follow it, and ending the answer
 * cuts the connection. */
static baton_status check_frame(bt_exchange *exchange, baton_status status)
{
    if (status != BATON_OK) {
        exchange->left_bytes = 1;
        exchange->no_body = false;
    }
    return status;
}

static baton_status begin(bt_exchange *exchange, unsigned status, bt_http_headers list,
                          uint64_t length)
{
    bt_conn *conn = exchange->conn;
    BATON_TRY(check_headers(list));
    if (status < 200 || status > 599)
        return bt_fail(BATON_ERR_INVALID_ARG, "http: wanted a status of 200 to 599, found %u",
                       status);
    char framing[96] = "";
    exchange->no_body = exchange->is_head || status_has_no_body(status);
    exchange->left_bytes = length;
    if (bt_http_has_token(bt_http_header_get(list, "connection"), "close") ||
        conn->server->draining)
        conn->keep_alive = false;
    if (length != BT_HTTP_CHUNKED && !status_has_no_body(status))
        snprintf(framing, sizeof(framing), "Content-Length: %" PRIu64 "\r\n", length);
    if (length == BT_HTTP_CHUNKED && exchange->is_http10)
        conn->keep_alive = false; /* the end of the connection ends the body */
    if (length == BT_HTTP_CHUNKED && !exchange->is_http10 && !status_has_no_body(status)) {
        snprintf(framing, sizeof(framing), "Transfer-Encoding: chunked\r\n");
        exchange->chunked = !exchange->no_body;
    }
    if (exchange->is_http10 && conn->keep_alive)
        strcat(framing, "Connection: keep-alive\r\n");
    exchange->begun = true;
    bt_conn_wants_flush(conn);
    return check_frame(exchange,
                       bt_respond_head(conn, status, list.items, list.n, framing, exchange->extra));
}

static baton_status check_open(const bt_exchange *exchange, bool begun)
{
    if (exchange->conn == NULL)
        return bt_fail(BATON_ERR_CLOSED, "http: the client is gone");
    if (exchange->begun != begun)
        return bt_fail(BATON_ERR_STATE, begun ? "http: the answer has not begun"
                                              : "http: the answer has begun already");
    return BATON_OK;
}

baton_status bt_http_set_extra(bt_http_request *request, const bt_http_header *header)
{
    bt_exchange *exchange = exchange_of(request);
    BATON_TRY(check_headers((bt_http_headers){header, 1}));
    size_t cap = strlen(header->name) + strlen(header->value) + 5;
    char *line = bt_calloc(cap, 1);
    if (line == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "http: a header of %zu bytes", cap);
    snprintf(line, cap, "%s: %s\r\n", header->name, header->value);
    bt_free(exchange->extra);
    exchange->extra = line;
    return BATON_OK;
}

baton_status bt_http_begin(bt_http_request *request, unsigned status, const bt_http_header *headers,
                           size_t n_headers, uint64_t content_length)
{
    bt_exchange *exchange = exchange_of(request);
    BATON_TRY(check_open(exchange, false));
    return begin(exchange, status, (bt_http_headers){headers, n_headers}, content_length);
}

/* Whether n more bytes may be queued. */
static baton_status admit(bt_exchange *exchange, size_t n)
{
    BATON_TRY(check_open(exchange, true));
    if (exchange->left_bytes != BT_HTTP_CHUNKED && n > exchange->left_bytes)
        return bt_fail(BATON_ERR_TOO_LARGE,
                       "http: %zu bytes written, %" PRIu64 " announced and left", n,
                       exchange->left_bytes);
    size_t queued = bt_out_queued(&exchange->conn->out);
    size_t limit = exchange->conn->server->options.max_queued_bytes;
    if (!exchange->no_body && (queued > limit || n > limit - queued))
        return bt_fail(BATON_ERR_BUSY, "http: %zu bytes wait for a slow client, at most %zu may",
                       queued, limit);
    return BATON_OK;
}

static baton_status chunk_start(bt_exchange *exchange, size_t n)
{
    char size[24];
    if (exchange->left_bytes != BT_HTTP_CHUNKED)
        exchange->left_bytes -= n;
    if (!exchange->chunked)
        return BATON_OK;
    snprintf(size, sizeof(size), "%zx\r\n", n);
    return put(exchange->conn, size);
}

static baton_status chunk_stop(bt_exchange *exchange)
{
    bt_conn_wants_flush(exchange->conn);
    return exchange->chunked ? put(exchange->conn, "\r\n") : BATON_OK;
}

static baton_status queue_copy(bt_exchange *exchange, const void *bytes, size_t n)
{
    BATON_TRY(chunk_start(exchange, n));
    BATON_TRY(bt_out_copy(&exchange->conn->out, bytes, n));
    return chunk_stop(exchange);
}

baton_status bt_http_write(bt_http_request *request, const void *bytes, size_t n)
{
    bt_exchange *exchange = exchange_of(request);
    BATON_TRY(admit(exchange, n));
    if (n == 0) /* as a chunk it would end the body */
        return BATON_OK;
    if (exchange->no_body)
        return chunk_start(exchange, n);
    return check_frame(exchange, queue_copy(exchange, bytes, n));
}

static baton_status queue_owned(bt_exchange *exchange, const void *bytes, size_t n,
                                bt_loop_fn free_fn, void *arg)
{
    baton_status status = chunk_start(exchange, n);
    if (status != BATON_OK) {
        if (free_fn != NULL)
            free_fn(arg);
        return status;
    }
    BATON_TRY(bt_out_own(&exchange->conn->out, bytes, n, free_fn, arg));
    return chunk_stop(exchange);
}

baton_status bt_http_write_owned(bt_http_request *request, const void *bytes, size_t n,
                                 bt_loop_fn free_fn, void *arg)
{
    bt_exchange *exchange = exchange_of(request);
    baton_status status = admit(exchange, n);
    if (status == BATON_OK && n > 0 && !exchange->no_body)
        return check_frame(exchange, queue_owned(exchange, bytes, n, free_fn, arg));
    if (status == BATON_OK && n > 0)
        status = chunk_start(exchange, n);
    if (free_fn != NULL)
        free_fn(arg);
    return status;
}

size_t bt_http_queued_bytes(const bt_http_request *request)
{
    const bt_exchange *exchange = exchange_of(request);
    return exchange->conn != NULL ? bt_out_queued(&exchange->conn->out) : 0;
}

void bt_http_on_drain(bt_http_request *request, size_t low_water, bt_loop_fn fn, void *arg)
{
    bt_exchange *exchange = exchange_of(request);
    if (exchange->conn == NULL)
        return;
    exchange->drain_fn = fn;
    exchange->drain_arg = arg;
    exchange->drain_low_water = low_water;
    bt_conn_wants_flush(exchange->conn);
}

void bt_exchange_progress(bt_exchange *exchange)
{
    bt_loop_fn fn = exchange->drain_fn;
    if (fn == NULL || bt_out_queued(&exchange->conn->out) > exchange->drain_low_water)
        return;
    exchange->drain_fn = NULL;
    fn(exchange->drain_arg);
}

/* Frees the exchange; its connection goes on, or is cut. */
static void finish(bt_exchange *exchange, bool cut)
{
    bt_conn *conn = exchange->conn;
    free_exchange(exchange);
    if (conn != NULL)
        bt_conn_finished(conn, cut);
}

baton_status bt_http_end(bt_http_request *request)
{
    bt_exchange *exchange = exchange_of(request);
    baton_status status = check_open(exchange, true);
    bool whole =
        exchange->left_bytes == BT_HTTP_CHUNKED || exchange->left_bytes == 0 || exchange->no_body;
    if (status == BATON_OK && !whole)
        status = bt_fail(BATON_ERR_STATE, "http: answer ended, %" PRIu64 " announced bytes missing",
                         exchange->left_bytes);
    if (status == BATON_OK && exchange->chunked)
        status = put(exchange->conn, "0\r\n\r\n");
    finish(exchange, status != BATON_OK);
    return status;
}

void bt_http_abort(bt_http_request *request)
{
    finish(exchange_of(request), true);
}

baton_status bt_http_respond(bt_http_request *request, unsigned status,
                             const bt_http_header *headers, size_t n_headers, const void *body,
                             size_t body_bytes)
{
    bt_exchange *exchange = exchange_of(request);
    baton_status result = check_open(exchange, false);
    if (result != BATON_OK) {
        finish(exchange, true);
        return result;
    }
    result = begin(exchange, status, (bt_http_headers){headers, n_headers}, body_bytes);
    if (result == BATON_ERR_INVALID_ARG) {
        /* Our own mistake: the client gets an honest answer, the caller the status. */
        static const char text[] = "malformed answer inside the server";
        begin(exchange, 500, (bt_http_headers){NULL, 0}, sizeof(text) - 1);
        bt_out_copy(&exchange->conn->out, text, exchange->is_head ? 0 : sizeof(text) - 1);
        finish(exchange, false);
        return result;
    }
    if (result == BATON_OK && !exchange->no_body)
        result = bt_out_copy(&exchange->conn->out, body, body_bytes);
    finish(exchange, result != BATON_OK);
    return result;
}

baton_status bt_http_respond_json(bt_http_request *request, unsigned status, const char *json,
                                  size_t json_bytes)
{
    const bt_http_header type = {"Content-Type", "application/json"};
    return bt_http_respond(request, status, &type, 1, json, json_bytes);
}

static baton_status respond_error(bt_http_request *request, unsigned status,
                                  const bt_http_header *headers, size_t n_headers, const char *type,
                                  const char *message, const char *param, const char *code)
{
    char local[1024], *json = local;
    size_t n = bt_http_error_body(local, sizeof(local), status, type, message, param, code);
    if (n >= sizeof(local)) {
        json = bt_calloc(n + 1, 1);
        if (json == NULL) {
            bt_http_abort(request);
            return bt_fail(BATON_ERR_NO_MEMORY, "http: an error answer of %zu bytes", n);
        }
        bt_http_error_body(json, n + 1, status, type, message, param, code);
    }
    baton_status result = bt_http_respond(request, status, headers, n_headers, json, n);
    if (json != local)
        bt_free(json);
    return result;
}

baton_status bt_http_respond_error(bt_http_request *request, unsigned status, const char *type,
                                   const char *message, const char *param, const char *code)
{
    const bt_http_header json = {"Content-Type", "application/json"};
    return respond_error(request, status, &json, 1, type, message, param, code);
}

baton_status bt_http_respond_not_found(bt_http_request *request)
{
    return bt_http_respond_error(request, 404, NULL, "no such path", NULL, "not_found");
}

baton_status bt_http_respond_not_allowed(bt_http_request *request, const char *allow)
{
    const bt_http_header headers[] = {{"Content-Type", "application/json"}, {"Allow", allow}};
    return respond_error(request, 405, headers, 2, NULL, "method not allowed for this path", NULL,
                         "method_not_allowed");
}
