/* SPDX-License-Identifier: Apache-2.0 */
/* The client itself: options, origins and their idle connections, and the start of calls. */
#include "http/httpclientconn.h"

#include "core/alloc.h"
#include "core/fail.h"

#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>

static void set_default(uint32_t *field, uint32_t value)
{
    if (*field == 0)
        *field = value;
}

static void fill_defaults(bt_http_client_options *options)
{
    set_default(&options->max_idle_per_origin, 64);
    set_default(&options->idle_max_age_ms, 30 * 1000);
    if (options->max_head_bytes == 0)
        options->max_head_bytes = 64 << 10;
    set_default(&options->max_headers, 128);
    set_default(&options->connect_ms, 5 * 1000);
    set_default(&options->first_byte_ms, 300 * 1000);
    set_default(&options->gap_ms, 60 * 1000);
    set_default(&options->total_ms, BT_HTTP_NO_TIMEOUT);
}

static void close_old(bt_http_client *client, uint64_t min_age_ms)
{
    uint64_t now = bt_loop_now_ms(client->loop);
    for (bt_client_origin *origin = client->origins; origin != NULL; origin = origin->next) {
        for (bt_client_conn *conn = origin->idle, *next; conn != NULL; conn = next) {
            next = conn->next;
            if (now - conn->idle_since_ms >= min_age_ms)
                bt_client_conn_close(conn);
        }
    }
}

static void start_idle_timer(bt_http_client *client)
{
    if (client->idle_timer_on || client->stats.n_idle == 0)
        return;
    client->idle_timer_on = true;
    bt_timer_start(client->idle_timer, client->options.idle_max_age_ms, 0);
}

static void on_idle_timer(void *arg)
{
    bt_http_client *client = arg;
    client->idle_timer_on = false;
    close_old(client, client->options.idle_max_age_ms);
    start_idle_timer(client);
}

baton_status bt_http_client_create(bt_loop *loop, const bt_http_client_options *options,
                                   bt_http_client **client_p)
{
    bt_http_client *client = bt_calloc(1, sizeof(*client));
    if (client == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "http: a client");
    client->loop = loop;
    if (options != NULL)
        client->options = *options;
    fill_defaults(&client->options);
    baton_status status = bt_timer_create(loop, on_idle_timer, client, &client->idle_timer);
    if (status != BATON_OK) {
        bt_free(client);
        return status;
    }
    *client_p = client;
    return BATON_OK;
}

static void free_client(bt_http_client *client)
{
    while (client->origins != NULL) {
        bt_client_origin *next = client->origins->next;
        bt_free(client->origins);
        client->origins = next;
    }
    bt_free(client);
}

void bt_client_release(bt_http_client *client)
{
    if (--client->n_open == 0 && client->destroyed)
        free_client(client);
}

void bt_http_client_destroy(bt_http_client *client)
{
    if (client == NULL || client->destroyed)
        return;
    client->destroyed = true;
    client->n_open++; /* it must outlive the callbacks below */
    while (client->calls != NULL)
        bt_http_call_cancel(client->calls);
    close_old(client, 0);
    bt_timer_destroy(client->idle_timer);
    bt_client_release(client);
}

void bt_http_client_stats_get(const bt_http_client *client, bt_http_client_stats *stats)
{
    *stats = client->stats;
}

static bt_client_origin *find_origin(bt_http_client *client, const bt_http_client_request *request)
{
    for (bt_client_origin *origin = client->origins; origin != NULL; origin = origin->next) {
        if (origin->port == request->port && origin->tls == request->tls &&
            strcasecmp(origin->host, request->host) == 0)
            return origin;
    }
    return NULL;
}

static bt_client_origin *get_origin(bt_http_client *client, const bt_http_client_request *request)
{
    bt_client_origin *origin = find_origin(client, request);
    if (origin != NULL)
        return origin;
    size_t bytes = strlen(request->host) + 1;
    origin = bt_calloc(1, sizeof(*origin) + bytes);
    if (origin == NULL) {
        bt_fail(BATON_ERR_NO_MEMORY, "http: an origin");
        return NULL;
    }
    memcpy(origin->host, request->host, bytes);
    origin->port = request->port;
    origin->tls = request->tls;
    origin->next = client->origins;
    client->origins = origin;
    return origin;
}

void bt_client_keep(bt_client_conn *conn)
{
    bt_http_client *client = conn->client;
    bt_client_origin *origin = conn->origin;
    if (client->destroyed || origin->n_idle >= client->options.max_idle_per_origin) {
        bt_client_conn_close(conn);
        return;
    }
    conn->state = BT_CLIENT_IDLE;
    conn->idle_since_ms = bt_loop_now_ms(client->loop);
    conn->prev = NULL;
    conn->next = origin->idle;
    if (conn->next != NULL)
        conn->next->prev = conn;
    origin->idle = conn;
    origin->n_idle++;
    client->stats.n_idle++;
    bt_client_read_start(conn); /* so that a close by the server is seen at once */
    start_idle_timer(client);
}

void bt_client_forget_idle(bt_client_conn *conn)
{
    if (conn->prev != NULL)
        conn->prev->next = conn->next;
    else
        conn->origin->idle = conn->next;
    if (conn->next != NULL)
        conn->next->prev = conn->prev;
    conn->prev = conn->next = NULL;
    conn->origin->n_idle--;
    conn->client->stats.n_idle--;
}

/* The server has not closed it, and says nothing that nobody asked for. */
static bool is_live(bt_client_conn *conn)
{
    int fd;
    char byte;
    if (uv_fileno((uv_handle_t *)&conn->tcp, &fd) != 0)
        return false;
    ssize_t n = recv(fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT);
    return n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK);
}

bt_client_conn *bt_client_take_idle(bt_http_client *client, bt_client_origin *origin)
{
    uint64_t now = bt_loop_now_ms(client->loop);
    while (origin->idle != NULL) {
        bt_client_conn *conn = origin->idle;
        bool young = now - conn->idle_since_ms < client->options.idle_max_age_ms;
        if (young && is_live(conn)) {
            bt_client_forget_idle(conn);
            return conn;
        }
        client->stats.stale_total++;
        bt_client_conn_close(conn);
    }
    return NULL;
}

static bool is_ours(const char *name)
{
    static const char *const names[] = {"host", "content-length", "transfer-encoding",
                                        "connection"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        if (strcasecmp(name, names[i]) == 0)
            return true;
    }
    return false;
}

static baton_status check_request(const bt_http_client_request *request)
{
    if (request->host == NULL || *request->host == '\0' || strlen(request->host) > 255 ||
        !bt_http_header_is_clean("h", request->host) || request->port == 0)
        return bt_fail(BATON_ERR_INVALID_ARG, "http: wanted a host and a port");
    if (request->ops == NULL || request->ops->on_done == NULL)
        return bt_fail(BATON_ERR_INVALID_ARG, "http: a call needs on_done");
    if (request->method != NULL && !bt_http_header_is_clean(request->method, ""))
        return bt_fail(BATON_ERR_INVALID_ARG, "http: wanted a method, found '%s'", request->method);
    if (request->path == NULL || *request->path != '/')
        return bt_fail(BATON_ERR_INVALID_ARG, "http: wanted a path that begins with '/'");
    for (const char *at = request->path; *at != '\0'; at++) {
        if ((unsigned char)*at <= ' ' || *at == 0x7f)
            return bt_fail(BATON_ERR_INVALID_ARG, "http: white space or control in the path");
    }
    for (size_t i = 0; i < request->n_headers; i++) {
        if (!bt_http_header_is_clean(request->headers[i].name, request->headers[i].value))
            return bt_fail(BATON_ERR_INVALID_ARG, "http: header %zu of the request is malformed",
                           i);
    }
    return BATON_OK;
}

static void format_head(bt_strbuf *head, const bt_http_client_request *request)
{
    const char *method = request->method != NULL ? request->method : "GET";
    bool v6 = strchr(request->host, ':') != NULL;
    size_t body_bytes = bt_slices_bytes(request->body, request->n_body);
    bt_strbuf_printf(head, "%s %s HTTP/1.1\r\nHost: %s%s%s:%u\r\n", method, request->path,
                     v6 ? "[" : "", request->host, v6 ? "]" : "", request->port);
    for (size_t i = 0; i < request->n_headers; i++) {
        if (!is_ours(request->headers[i].name))
            bt_strbuf_printf(head, "%s: %s\r\n", request->headers[i].name,
                             request->headers[i].value);
    }
    bool has_length = body_bytes > 0 || strcmp(method, "POST") == 0 || strcmp(method, "PUT") == 0 ||
                      strcmp(method, "PATCH") == 0;
    if (has_length)
        bt_strbuf_printf(head, "Content-Length: %zu\r\n", body_bytes);
    bt_strbuf_puts(head, "\r\n");
}

static baton_status copy_request(bt_http_call *call, const bt_http_client_request *request)
{
    format_head(&call->head, request);
    call->body = bt_calloc(request->n_body, sizeof(*call->body));
    call->origin = get_origin(call->client, request);
    if (call->head.failed || call->body == NULL || call->origin == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "http: a call");
    if (request->n_body > 0)
        memcpy(call->body, request->body, request->n_body * sizeof(*call->body));
    call->n_body = request->n_body;
    call->ops = request->ops;
    call->ctx = request->ctx;
    call->is_head = request->method != NULL && strcmp(request->method, "HEAD") == 0;
    call->fresh = request->fresh;
    return BATON_OK;
}

static uint32_t pick(uint32_t wanted, uint32_t otherwise)
{
    return wanted != 0 ? wanted : otherwise;
}

static void set_deadlines(bt_http_call *call, const bt_http_client_request *request)
{
    const bt_http_client_options *options = &call->client->options;
    call->connect_ms = pick(request->connect_ms, options->connect_ms);
    call->first_byte_ms = pick(request->first_byte_ms, options->first_byte_ms);
    call->gap_ms = pick(request->gap_ms, options->gap_ms);
    uint32_t total = pick(request->total_ms, options->total_ms);
    call->total_at_ms =
        total == BT_HTTP_NO_TIMEOUT ? UINT64_MAX : bt_loop_now_ms(call->client->loop) + total;
}

static void link_call(bt_http_client *client, bt_http_call *call)
{
    call->next = client->calls;
    if (call->next != NULL)
        call->next->prev = call;
    client->calls = call;
    client->stats.calls_total++;
    client->stats.n_calls++;
}

baton_status bt_http_client_start(bt_http_client *client, const bt_http_client_request *request,
                                  bt_http_call **call_p)
{
    if (client->destroyed)
        return bt_fail(BATON_ERR_INVALID_ARG, "http: the client is being destroyed");
    BATON_TRY(check_request(request));
    bt_http_call *call = bt_calloc(1, sizeof(*call));
    if (call == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "http: a call");
    call->client = client;
    baton_status status = copy_request(call, request);
    if (status == BATON_OK)
        status = bt_timer_create(client->loop, bt_call_on_timer, call, &call->timer);
    if (status != BATON_OK) {
        bt_call_free(call);
        return status;
    }
    set_deadlines(call, request);
    link_call(client, call);
    bt_call_enter(call, BT_HTTP_RESOLVE);
    call->start = (bt_deferred){.fn = bt_call_begin, .arg = call};
    bt_loop_defer(client->loop, &call->start);
    if (call_p != NULL)
        *call_p = call;
    return BATON_OK;
}
