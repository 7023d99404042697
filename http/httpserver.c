/* SPDX-License-Identifier: Apache-2.0 */
#include "http/httpserverconn.h"

#include "core/alloc.h"
#include "core/fail.h"
#include "core/log.h"

#include <sys/socket.h>

static void set_default_u32(uint32_t *field, uint32_t value)
{
    if (*field == 0)
        *field = value;
}

static void set_default_size(size_t *field, size_t value)
{
    if (*field == 0)
        *field = value;
}

static void fill_defaults(bt_http_server_options *options)
{
    if (options->host == NULL)
        options->host = "127.0.0.1";
    if (options->backlog == 0)
        options->backlog = 1024;
    set_default_u32(&options->max_connections, 16384);
    set_default_size(&options->max_head_bytes, 64 << 10);
    set_default_u32(&options->max_headers, 128);
    set_default_size(&options->max_body_bytes, 64 << 20);
    set_default_u32(&options->header_timeout_ms, 10 * 1000);
    set_default_u32(&options->body_timeout_ms, 30 * 1000);
    set_default_u32(&options->idle_timeout_ms, 75 * 1000);
    set_default_u32(&options->write_timeout_ms, 30 * 1000);
    set_default_size(&options->max_queued_bytes, 8 << 20);
}

static void release(bt_http_server *server)
{
    bool closed = server->listener_closed && !server->spare_busy;
    if (server->destroyed && closed && server->n_open == 0)
        bt_free(server);
}

static void on_listener_closed(uv_handle_t *handle)
{
    bt_http_server *server = handle->data;
    server->listener_closed = true;
    release(server);
}

static void close_listener(bt_http_server *server)
{
    if (!uv_is_closing((uv_handle_t *)&server->listener))
        uv_close((uv_handle_t *)&server->listener, on_listener_closed);
}

static void drop_connection(bt_http_server *server);

static void on_spare_closed(uv_handle_t *handle)
{
    bt_http_server *server = handle->data;
    server->spare_busy = false;
    if (server->drop_pending && !server->listener_closed)
        drop_connection(server);
    release(server);
}

/* libuv accepts nothing more until the connection it has at hand is taken. */
static void drop_connection(bt_http_server *server)
{
    server->drop_pending = server->spare_busy;
    if (server->spare_busy)
        return;
    server->spare_busy = true;
    uv_tcp_init(bt_loop_uv(server->loop), &server->spare);
    server->spare.data = server;
    uv_accept((uv_stream_t *)&server->listener, (uv_stream_t *)&server->spare);
    uv_close((uv_handle_t *)&server->spare, on_spare_closed);
}

static void on_connection(uv_stream_t *listener, int err)
{
    bt_http_server *server = listener->data;
    if (err != 0) {
        bt_warn("http: cannot accept: %s port=%u", uv_strerror(err), server->port);
        return;
    }
    baton_status status = bt_conn_accept(server);
    if (status == BATON_OK)
        return;
    bt_warn("http: connection dropped: %s port=%u", baton_last_error(), server->port);
    if (status == BATON_ERR_NO_MEMORY)
        drop_connection(server);
}

static baton_status parse_address(const bt_http_server_options *options,
                                  struct sockaddr_storage *address)
{
    if (uv_ip4_addr(options->host, options->port, (struct sockaddr_in *)address) == 0)
        return BATON_OK;
    if (uv_ip6_addr(options->host, options->port, (struct sockaddr_in6 *)address) == 0)
        return BATON_OK;
    return bt_fail(BATON_ERR_INVALID_ARG, "http: wanted a numeric address to listen on, found '%s'",
                   options->host);
}

/* The socket exists from uv_tcp_init_ex on, so that options can be set before it is bound. */
static int bind_listener(bt_http_server *server, const struct sockaddr_storage *address)
{
    int err, fd, on = 1;
    if ((err = uv_fileno((uv_handle_t *)&server->listener, &fd)) != 0)
        return err;
    if (server->options.reuse_port &&
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) != 0)
        return uv_translate_sys_error(errno);
    if ((err = uv_tcp_bind(&server->listener, (const struct sockaddr *)address, 0)) != 0)
        return err;
    return uv_listen((uv_stream_t *)&server->listener, server->options.backlog, on_connection);
}

static baton_status fail_listen(const bt_http_server *server, int err)
{
    return bt_fail(bt_status_from_errno(-err), "http: listening on %s port %u: %s%s",
                   server->options.host, server->options.port, uv_strerror(err),
                   err == UV_EADDRINUSE ? "; stop the other process or choose another port" : "");
}

static void read_port(bt_http_server *server)
{
    struct sockaddr_storage bound;
    int bytes = sizeof(bound);
    if (uv_tcp_getsockname(&server->listener, (struct sockaddr *)&bound, &bytes) != 0)
        return;
    server->port = bound.ss_family == AF_INET ? ntohs(((struct sockaddr_in *)&bound)->sin_port)
                                              : ntohs(((struct sockaddr_in6 *)&bound)->sin6_port);
}

static void on_drained(void *arg)
{
    bt_http_server *server = arg;
    bt_loop_fn fn = server->drained_fn;
    server->drained_fn = NULL;
    if (fn != NULL)
        fn(server->drained_arg);
}

baton_status bt_http_server_create(bt_loop *loop, const bt_http_server_options *options,
                                   bt_http_server **server_p)
{
    if (options->on_request == NULL)
        return bt_fail(BATON_ERR_INVALID_ARG, "http: a server needs on_request");
    bt_http_server *server = bt_calloc(1, sizeof(*server));
    if (server == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "http: a server");
    server->loop = loop;
    server->options = *options;
    server->drained = (bt_deferred){.fn = on_drained, .arg = server};
    fill_defaults(&server->options);

    struct sockaddr_storage address = {0};
    baton_status status = parse_address(&server->options, &address);
    if (status != BATON_OK)
        goto free_server;
    int err = uv_tcp_init_ex(bt_loop_uv(loop), &server->listener, address.ss_family);
    if (err != 0) {
        status = fail_listen(server, err);
        goto free_server;
    }
    server->listener.data = server;
    err = bind_listener(server, &address);
    if (err != 0) {
        status = fail_listen(server, err);
        bt_http_server_destroy(server);
        return status;
    }
    read_port(server);
    server->options.host = NULL; /* borrowed during create only */
    *server_p = server;
    return BATON_OK;

free_server:
    bt_free(server);
    return status;
}

uint16_t bt_http_server_port(const bt_http_server *server)
{
    return server->port;
}

void bt_http_server_stats_get(const bt_http_server *server, bt_http_server_stats *stats)
{
    *stats = server->stats;
    for (const bt_conn *conn = server->conns; conn != NULL; conn = conn->next)
        stats->written_bytes_total += conn->out.written_bytes_total;
}

static void check_drained(bt_http_server *server)
{
    if (server->draining && !server->destroyed && server->conns == NULL)
        bt_loop_defer(server->loop, &server->drained);
}

void bt_server_conn_freed(bt_http_server *server)
{
    server->n_open--;
    check_drained(server);
    release(server);
}

void bt_http_server_drain(bt_http_server *server, bt_loop_fn on_done, void *arg)
{
    server->draining = true;
    server->drained_fn = on_done;
    server->drained_arg = arg;
    close_listener(server);
    for (bt_conn *conn = server->conns, *next; conn != NULL; conn = next) {
        next = conn->next;
        bt_conn_drain(conn);
    }
    check_drained(server);
}

void bt_http_server_destroy(bt_http_server *server)
{
    if (server == NULL || server->destroyed)
        return;
    server->destroyed = true;
    bt_loop_undefer(&server->drained);
    close_listener(server);
    while (server->conns != NULL)
        bt_conn_close(server->conns);
    release(server);
}
