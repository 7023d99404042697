/* SPDX-License-Identifier: Apache-2.0 */
#include "http/httpserverconn.h"

#include "core/alloc.h"
#include "core/fail.h"
#include "core/log.h"

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
    if (server->destroyed && server->listener_closed && server->n_open == 0)
        bt_free(server);
}

static void on_listener_closed(void *ctx)
{
    bt_http_server *server = ctx;
    server->listener_closed = true;
    release(server);
}

static void on_turned_away(void *ctx)
{
    ((bt_http_server *)ctx)->stats.refused_total++;
}

static void on_connection(void *ctx, int fd)
{
    bt_http_server *server = ctx;
    if (bt_conn_accept(server, fd) < 0)
        bt_warn("http: connection dropped: %s port=%u", baton_last_error(), server->listener.port);
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

    const bt_listener_options listener = {.host = server->options.host,
                                          .port = server->options.port,
                                          .reuse_port = server->options.reuse_port,
                                          .backlog = server->options.backlog,
                                          .on_connection = on_connection,
                                          .on_turned_away = on_turned_away,
                                          .on_closed = on_listener_closed,
                                          .ctx = server};
    baton_status status = bt_listener_open(loop, &listener, &server->listener);
    if (status != BATON_OK) {
        bt_free(server);
        return status;
    }
    server->options.host = NULL; /* borrowed during create only */
    *server_p = server;
    return BATON_OK;
}

uint16_t bt_http_server_port(const bt_http_server *server)
{
    return server->listener.port;
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
    bt_listener_close(&server->listener);
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
    bt_listener_close(&server->listener);
    while (server->conns != NULL)
        bt_conn_close(server->conns);
    release(server);
}
