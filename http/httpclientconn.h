/* SPDX-License-Identifier: Apache-2.0 */
/* The client's insides: origins with their idle connections, connections, calls.
 *
 *   bt_client_conn: CONNECTING -> BUSY (has a call) <-> IDLE (in its origin's list) -> CLOSED
 *
 * A call and its connection point at each other until the call ends. Whoever calls out to the user
 * looks at conn->call (or the connection's state) afterwards, since the user may have canceled the
 * call or destroyed the client; a connection's memory outlives all of that until libuv is done with
 * it, and the client's memory outlives its connections.
 *
 * Thread rule: owner thread. For use inside the http folder. */
#ifndef BT_HTTP_HTTPCLIENTCONN_H
#define BT_HTTP_HTTPCLIENTCONN_H
#include "core/strbuf.h"
#include "http/httpclient.h"
#include "http/httpout.h"
#include "http/httpparse.h"

#include <netinet/in.h>

enum { BT_CLIENT_MAX_ADDRESSES = 8 };

typedef union {
    struct sockaddr any;
    struct sockaddr_in v4;
    struct sockaddr_in6 v6;
} bt_client_address;

typedef struct bt_client_conn bt_client_conn;
typedef struct bt_client_lookup bt_client_lookup;

typedef struct bt_client_origin {
    struct bt_client_origin *next;
    bt_client_conn *idle; /* the one used last is first */
    uint32_t n_idle;
    uint16_t port;
    bt_tls_context *tls; /* NULL: plain HTTP */
    char host[];         /* 0-terminated */
} bt_client_origin;

struct bt_http_client {
    bt_loop *loop;
    bt_http_client_options options;
    bt_client_origin *origins;
    bt_http_call *calls;
    bt_timer *idle_timer; /* runs while there are idle connections */
    bool idle_timer_on, destroyed;
    uint32_t n_open; /* connections and lookups that libuv still has */
    bt_http_client_stats stats;
    char read_buffer[64 * 1024]; /* shared by all connections: reads are taken at once */
};

typedef enum {
    BT_CLIENT_CONNECTING, /* the handshake of TLS included */
    BT_CLIENT_BUSY,
    BT_CLIENT_IDLE,
    BT_CLIENT_CLOSED,
} bt_client_conn_state;

struct bt_client_conn {
    uv_tcp_t tcp;
    uv_connect_t connect;
    bt_http_client *client;
    bt_client_origin *origin;
    bt_client_conn_state state;
    bt_http_call *call;          /* CONNECTING, BUSY */
    bt_client_conn *prev, *next; /* IDLE */
    uint64_t idle_since_ms;
    bool reading, answered; /* answered: bytes of this call's answer have come */
    unsigned n_informational;
    bt_http_parser parser;
    bt_out out;
};

struct bt_http_call {
    bt_http_client *client;
    bt_http_call *prev, *next;
    bt_client_origin *origin;
    const bt_http_call_ops *ops;
    void *ctx;
    bt_strbuf head; /* request line and headers */
    bt_slice *body; /* [n_body]; the bytes are the caller's */
    size_t n_body;
    bool is_head, fresh, paused, finished;

    bt_deferred start;
    bt_client_lookup *lookup; /* resolving */
    bt_client_address addresses[BT_CLIENT_MAX_ADDRESSES];
    unsigned n_addresses, next_address;
    bt_client_conn *conn;

    bt_timer *timer; /* of whichever deadline comes first */
    uint64_t timer_at_ms, stage_start_ms, total_at_ms;
    uint32_t connect_ms, first_byte_ms, gap_ms;
    bt_http_result result;
};

/* httpclient.c */
void bt_client_release(bt_http_client *client); /* one of n_open has gone */
void bt_client_keep(bt_client_conn *conn);      /* into the pool, or closed if that is full */
/* A live idle connection, or NULL. */
bt_client_conn *bt_client_take_idle(bt_http_client *client, bt_client_origin *origin);
void bt_client_forget_idle(bt_client_conn *conn);

/* httpclientconn.c */
/* Connects to the call's next address. Errors: NO_MEMORY, IO, UNREACHABLE. */
baton_status bt_client_connect(bt_http_call *call);
/* Sends the call on a connected connection. */
void bt_client_send(bt_client_conn *conn, bt_http_call *call);
void bt_client_conn_close(bt_client_conn *conn);
void bt_client_read_start(bt_client_conn *conn);
void bt_client_read_stop(bt_client_conn *conn);

/* httpcall.c */
/* Starts the call's next stage: from now on its deadline counts. */
void bt_call_enter(bt_http_call *call, bt_http_phase phase);
void bt_call_touch(bt_http_call *call); /* bytes have come */
void bt_call_connected(bt_http_call *call, bt_client_conn *conn);
void bt_call_connect_failed(bt_http_call *call, baton_status status, const char *reason);
/* Ends the call: detaches it, closes its connection unless that was kept, tells the user, frees. */
void bt_call_finish(bt_http_call *call, baton_status status, const char *text);
/* Sends it again on a fresh connection, if that is allowed; otherwise ends it. */
void bt_call_broken(bt_http_call *call, const char *text);
void bt_call_free(bt_http_call *call);
void bt_call_begin(void *call); /* bt_loop_fn */
void bt_call_on_timer(void *call);

#endif
