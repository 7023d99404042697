/* SPDX-License-Identifier: Apache-2.0 */
/* The server's insides: connections, and requests in flight (exchanges).
 *
 *              +-------------------- keep-alive ---------------------+
 *              v                                                     |
 *   accept -> READING -- request complete --> HANDLING -- finished --+--> [WAITING for the kernel]
 *              |                                  |
 *              +-- bad request, timeout --+       +-- close wanted
 *                                         v       v
 *                                         LEAVING -- written, shut, peer closed --> CLOSED
 *
 * A connection dies only through conn_close; its memory goes when libuv has closed its handles. An
 * exchange belongs to the handler until it finishes the request, and outlives its connection.
 *
 * Thread rule: owner thread. For use inside the http folder. */
#ifndef BT_HTTP_HTTPSERVERCONN_H
#define BT_HTTP_HTTPSERVERCONN_H
#include "http/httplisten.h"
#include "http/httpout.h"
#include "http/httpparse.h"
#include "http/httpserver.h"

typedef enum {
    BT_CONN_READING,
    BT_CONN_HANDLING,
    BT_CONN_WAITING, /* answered; the next request is not read before the kernel took the answer */
    BT_CONN_LEAVING,
    BT_CONN_CLOSED,
} bt_conn_state;

typedef struct bt_conn bt_conn;
typedef struct bt_exchange bt_exchange;

struct bt_http_server {
    bt_loop *loop;
    bt_http_server_options options;
    bt_listener listener;
    bool draining, destroyed, listener_closed;
    bt_conn *conns;
    uint32_t n_open; /* connections whose memory is not freed yet */
    bt_http_server_stats stats;
    bt_loop_fn drained_fn;
    void *drained_arg;
    bt_deferred drained;
    char date[40]; /* of second date_s */
    int64_t date_s;
    char read_buffer[64 * 1024]; /* shared by all connections: reads are taken at once */
};

struct bt_conn {
    uv_tcp_t tcp;
    uv_timer_t timer;
    bt_http_server *server;
    bt_conn *prev, *next;
    bt_conn_state state;
    unsigned n_handles;                                              /* not closed yet */
    bool stream_reading, in_feed, keep_alive, shut, eof, is_surplus; /* surplus: gets 503 */
    bt_http_parser parser;
    bt_http_refusal refusal; /* the handler's; status 0: none */
    bt_out out;
    uint64_t written_seen; /* write timeout: written bytes when it was looked at last */
    bt_deferred work;      /* flush, and read on */
    bt_exchange *exchange; /* HANDLING */
    char *body;            /* of the request being read; [body_cap] */
    size_t body_bytes, body_cap;
    char *pending; /* read while a request was in flight */
    size_t pending_bytes, discarded_bytes;
    uint64_t arrived_ns;
    char peer[64];
};

struct bt_exchange {
    bt_http_request request; /* first, so that the pointers convert */
    bt_loop *loop;
    bt_conn *conn; /* NULL: gone */
    bt_http_head head;
    char *body, *target;
    char *extra; /* one more line of the answer's head; NULL: none */
    char peer[64];
    bool is_head, is_http10, begun, chunked, no_body;
    uint64_t left_bytes; /* of the announced length */
    bt_loop_fn gone_fn, drain_fn;
    void *gone_arg, *drain_arg;
    size_t drain_low_water;
    bt_deferred notice; /* gone, or drained */
};

/* httpserver.c: the connection's memory has gone. */
void bt_server_conn_freed(bt_http_server *server);

/* httpserverconn.c */
/* fd is its own from here on, and closed when it fails. Errors: NO_MEMORY, IO. */
baton_status bt_conn_accept(bt_http_server *server, int fd);
void bt_conn_close(bt_conn *conn);
/* The answer of the request in flight is queued (cut: break it off instead). */
void bt_conn_finished(bt_conn *conn, bool cut);
/* Has the output written at the end of this wakeup. */
void bt_conn_wants_flush(bt_conn *conn);
/* Closes when idle; otherwise after the request in flight. */
void bt_conn_drain(bt_conn *conn);

/* httprespond.c: writes status line, headers, and whole lines: framing, and extra when not NULL. */
baton_status bt_respond_head(bt_conn *conn, unsigned status, const bt_http_header *headers,
                             size_t n_headers, const char *framing, const char *extra);
/* The client went away: tells the handler, now. */
void bt_exchange_gone(bt_exchange *exchange);
/* The kernel took bytes: calls the drain function if it is due. */
void bt_exchange_progress(bt_exchange *exchange);

#endif
