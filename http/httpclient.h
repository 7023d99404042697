/* SPDX-License-Identifier: Apache-2.0 */
/* HTTP/1.1 client on one loop, with a pool of kept-alive connections per origin (host and port).
 *
 *   start -> [pooled connection | resolve -> connect] -> send -> head -> data ... -> done
 *
 * The connection used last is reused first, after a look whether the server has closed it. A
 * request on a reused connection that breaks before any byte of an answer is sent once more on a
 * fresh connection (servers close idle connections whenever they like). Nothing else is retried
 * here.
 *
 * Every started call ends with exactly one on_done, also when canceled or when the client is
 * destroyed. on_done is never called inside bt_http_client_start.
 *
 * Thread rule: owner thread (the loop's). */
#ifndef BT_HTTP_HTTPCLIENT_H
#define BT_HTTP_HTTPCLIENT_H
#include "http/httploop.h"
#include "http/httpmsg.h"
#include "http/httptls.h"

typedef struct bt_http_client bt_http_client;
typedef struct bt_http_call bt_http_call;

/* How far a call has come. Up to BT_HTTP_CONNECT the server has not seen any of it. */
typedef enum {
    BT_HTTP_RESOLVE, /* also: waiting for its turn to start */
    BT_HTTP_CONNECT,
    BT_HTTP_SEND, /* until the first byte of the answer */
    BT_HTTP_HEAD,
    BT_HTTP_BODY,
    BT_HTTP_DONE,
} bt_http_phase;
/* "resolve", "connect", ... Never NULL. */
const char *bt_http_phase_name(bt_http_phase phase);

/* How a call ended. Borrowed during on_done. */
typedef struct {
    baton_status status;  /* OK: the answer came in full, whatever its HTTP status */
    const char *text;     /* what went wrong; "" when nothing did */
    bt_http_phase phase;  /* where it ended; DONE when status is OK */
    unsigned http_status; /* 0 before the head */
    bool reused;          /* on a kept-alive connection */
    bool retried;         /* sent twice, see above */
    uint64_t body_bytes;  /* of the answer, after de-chunking */
} bt_http_result;

typedef struct {
    /* All optional but on_done. Slices and headers are borrowed for the call. on_head comes once,
     * before on_data. call may be paused or canceled inside on_head and on_data. */
    void (*on_head)(void *ctx, bt_http_call *call, unsigned status, bt_http_headers headers);
    void (*on_data)(void *ctx, bt_http_call *call, const char *bytes, size_t n);
    void (*on_done)(void *ctx, bt_http_call *call, const bt_http_result *result);
} bt_http_call_ops;

/* One request. Everything is copied but the bytes that `body` points to, which are borrowed until
 * on_done. */
typedef struct {
    const char *host; /* name or numeric address, no brackets */
    uint16_t port;
    bt_tls_context *tls; /* a client's; borrowed until the client is destroyed. NULL: plain HTTP */
    const char *method;  /* NULL: "GET" */
    const char *path;    /* "/v1/models?x=1" */
    /* Host and Content-Length are added; Host, Content-Length, Transfer-Encoding and Connection
     * given here are left out. */
    const bt_http_header *headers;
    size_t n_headers;
    const bt_slice *body; /* [n_body], sent one after the other without a copy */
    size_t n_body;
    /* Deadlines; 0: the client's default. */
    uint32_t connect_ms;         /* resolving and connecting */
    uint32_t first_byte_ms;      /* from connected until the first byte of the answer */
    uint32_t gap_ms;             /* between two reads of the answer; stands still while paused */
    uint32_t total_ms;           /* from start to done */
    bool fresh;                  /* always on a new connection */
    const bt_http_call_ops *ops; /* borrowed until on_done */
    void *ctx;                   /* borrowed until on_done */
} bt_http_client_request;

/* Zero means the default in brackets. BT_HTTP_NO_TIMEOUT: none. */
#define BT_HTTP_NO_TIMEOUT UINT32_MAX
typedef struct {
    uint32_t max_idle_per_origin; /* [64] */
    uint32_t idle_max_age_ms;     /* a connection idle for longer is closed [30 s] */
    size_t max_head_bytes;        /* of an answer [64 KiB] */
    uint32_t max_headers;         /* [128] */
    uint32_t connect_ms;          /* [5 s] */
    uint32_t first_byte_ms;       /* [300 s] */
    uint32_t gap_ms;              /* [60 s] */
    uint32_t total_ms;            /* [none] */
} bt_http_client_options;

typedef struct {
    uint64_t calls_total, failed_total, connects_total, reused_total, retried_total, stale_total;
    uint32_t n_idle, n_calls;
} bt_http_client_stats;

/* options may be NULL. Errors: NO_MEMORY, IO. */
baton_status bt_http_client_create(bt_loop *loop, const bt_http_client_options *options,
                                   bt_http_client **client_p);
/* Ends every call with CANCELED and closes all connections. Allowed in its callbacks. NULL is
 * allowed. */
void bt_http_client_destroy(bt_http_client *client);
void bt_http_client_stats_get(const bt_http_client *client, bt_http_client_stats *stats);

/* Starts a call; *call_p (may be NULL) is valid until on_done returns.
 * Errors: INVALID_ARG, NO_MEMORY; then there is no on_done. How a call fails (result->status):
 *   UNREACHABLE (no such host, refused), CONNECT_TIMEOUT, DEADLINE (first byte, gap or total),
 *   AUTH (TLS could not be agreed on, or the certificate is not good),
 *   CLOSED (peer closed early), BAD_MESSAGE (not HTTP), TOO_LARGE (head), CANCELED, NO_MEMORY, IO.
 */
baton_status bt_http_client_start(bt_http_client *client, const bt_http_client_request *request,
                                  bt_http_call **call_p);
/* Closes the call's socket at once; on_done(CANCELED) is called before this returns. */
void bt_http_call_cancel(bt_http_call *call);
/* Stops reading, so that the peer feels backpressure; up to one read (64 KiB) may still arrive. */
void bt_http_call_pause(bt_http_call *call);
void bt_http_call_resume(bt_http_call *call);
/* From now on the time between two reads of the answer is gap_ms at most. It may only be lowered.
 */
void bt_http_call_lower_gap(bt_http_call *call, uint32_t gap_ms);

#endif
