/* SPDX-License-Identifier: Apache-2.0 */
/* HTTP/1.1 server on one loop. Connections are kept alive; pipelined requests are handled one after
 * the other. The handler is called once a request is complete, its body included, and answers when
 * it likes: in full, or as a stream with backpressure.
 *
 *   head -> body -> on_request -> bt_http_respond                               -> next request
 *                              -> bt_http_begin -> bt_http_write ... -> bt_http_end
 *
 * Every request handed to on_request must be finished exactly once by bt_http_respond*, bt_http_end
 * or bt_http_abort, also after its client is gone; that call frees it, whatever it returns. When
 * the client closes its socket before that, on_gone is called once; from then on responding and
 * writing return ERR_CLOSED. A client that only shuts down its sending side counts as gone.
 *
 * The parser is strict: whatever could be read in two ways (Content-Length beside
 * Transfer-Encoding, two lengths, folded headers, bare LF or CR, bad chunk sizes) is refused with
 * 400, and the connection is closed. Refusals the handler never sees: 400, 408, 413, 431, 501, 503,
 * 505. Whoever speaks plain HTTP to a server with TLS gets 400, in plain HTTP.
 *
 * Thread rule: owner thread (the loop's). Other threads answer through bt_loop_post. */
#ifndef BT_HTTP_HTTPSERVER_H
#define BT_HTTP_HTTPSERVER_H
#include "http/httploop.h"
#include "http/httpmsg.h"
#include "http/httptls.h"

typedef struct bt_http_server bt_http_server;

/* One request and its answer. The fields are read-only and valid until the request is finished. */
typedef struct bt_http_request {
    const char *method; /* "GET" */
    const char *target; /* as sent, "/v1/models?x=1" */
    const char *path;   /* "/v1/models", not percent-decoded */
    const char *query;  /* "x=1"; "" when there is none */
    bt_http_headers headers;
    const char *body; /* [body_bytes], and a 0 behind it; never NULL */
    size_t body_bytes;
    const char *peer;    /* "127.0.0.1:4711" */
    uint64_t arrived_ns; /* CLOCK_MONOTONIC, when the request's first byte was read */
    void *user_data;     /* the handler's own */
} bt_http_request;

/* Why a request is refused. The texts are borrowed until the next request. */
typedef struct {
    unsigned status; /* 401 also asks for a bearer token, as it must */
    const char *code;
    const char *text;
} bt_http_refusal;

/* Zero means the default in brackets. */
typedef struct {
    const char *host;           /* numeric address ["127.0.0.1"]; borrowed during create */
    uint16_t port;              /* 0: any free one, see bt_http_server_port */
    bool reuse_port;            /* SO_REUSEPORT, so that several loops listen on one port */
    bt_tls_context *tls;        /* a server's; borrowed. NULL: plain HTTP */
    int backlog;                /* [1024] */
    uint32_t max_connections;   /* [16384]; above, a connection gets 503 */
    size_t max_head_bytes;      /* request line and headers [64 KiB]; above: 431 */
    uint32_t max_headers;       /* [128]; above: 431 */
    size_t max_body_bytes;      /* [64 MiB]; above: 413 */
    uint32_t header_timeout_ms; /* first byte to end of head [10 s]: 408 */
    uint32_t body_timeout_ms;   /* between two reads of a body [30 s]: 408 */
    uint32_t idle_timeout_ms;   /* between requests, and before the first [75 s] */
    uint32_t write_timeout_ms;  /* a client that takes no byte for this long is cut off [30 s] */
    size_t max_queued_bytes;    /* unsent bytes of a response that are accepted [8 MiB] */
    /* Before a request's body is read: false refuses it, and closes. NULL: none is refused. */
    bool (*on_head)(void *ctx, const char *target, bt_http_headers headers,
                    bt_http_refusal *refusal);
    void (*on_request)(void *ctx, bt_http_request *request); /* required */
    void *ctx;                                               /* borrowed */
} bt_http_server_options;

/* All growing but n_connections and n_requests, which say what is there now. */
typedef struct {
    uint64_t connections_total, requests_total, refused_total, gone_total, timeouts_total;
    uint64_t tls_failed_total; /* handshakes and sessions that were broken off */
    uint64_t read_bytes_total, written_bytes_total;
    uint32_t n_connections, n_requests;
} bt_http_server_stats;

/* Listens. Errors: INVALID_ARG, ADDRESS_IN_USE, PERMISSION, NO_MEMORY, IO. */
baton_status bt_http_server_create(bt_loop *loop, const bt_http_server_options *options,
                                   bt_http_server **server_p);
/* The port listened on. */
uint16_t bt_http_server_port(const bt_http_server *server);
/* Stops listening, closes idle connections, and lets running requests finish (their connections
 * then close). on_done(arg) is called once no connection is left, from the loop; NULL is allowed.
 */
void bt_http_server_drain(bt_http_server *server, bt_loop_fn on_done, void *arg);
/* Closes everything at once; requests in flight hear on_gone, and are still to be finished. Allowed
 * in callbacks of the server. NULL is allowed. */
void bt_http_server_destroy(bt_http_server *server);
void bt_http_server_stats_get(const bt_http_server *server, bt_http_server_stats *stats);

/* fn(arg) is called once, at once, when the client goes away before the request is finished (closed
 * socket, write error, write timeout, server destroyed). Not called inside the functions below. If
 * the client has left already, it is called before the next sleep of the loop. */
void bt_http_on_gone(bt_http_request *request, bt_loop_fn fn, void *arg);
bool bt_http_is_gone(const bt_http_request *request);

/* The whole answer; everything is copied. Content-Length and, where needed, Connection are added;
 * the caller gives the rest. Errors: CLOSED (client gone), STATE (begun before), INVALID_ARG (a
 * header that must not be sent), NO_MEMORY; the request is finished in every case. */
baton_status bt_http_respond(bt_http_request *request, unsigned status,
                             const bt_http_header *headers, size_t n_headers, const void *body,
                             size_t body_bytes);
/* As above with Content-Type: application/json and no further header. */
baton_status bt_http_respond_json(bt_http_request *request, unsigned status, const char *json,
                                  size_t json_bytes);
/* OpenAI error JSON; type, param and code as in bt_http_error_body. */
baton_status bt_http_respond_error(bt_http_request *request, unsigned status, const char *type,
                                   const char *message, const char *param, const char *code);
/* 404 with OpenAI error JSON, and 405 with Allow: `allow` ("GET, HEAD"). */
baton_status bt_http_respond_not_found(bt_http_request *request);
baton_status bt_http_respond_not_allowed(bt_http_request *request, const char *allow);

/* One more header for the answer, however and whenever it begins, also when it is an error; copied,
 * and a later call replaces it. Of no effect once the answer has begun. Errors: INVALID_ARG (a
 * header that must not be sent), NO_MEMORY. */
baton_status bt_http_set_extra(bt_http_request *request, const bt_http_header *header);

/* Starts a streamed answer. content_length: its exact size, or BT_HTTP_CHUNKED (to an HTTP/1.0
 * client: until close). Nothing is sent before this wakeup's callbacks are done.
 * Errors: CLOSED, STATE, INVALID_ARG, NO_MEMORY. */
#define BT_HTTP_CHUNKED UINT64_MAX
baton_status bt_http_begin(bt_http_request *request, unsigned status, const bt_http_header *headers,
                           size_t n_headers, uint64_t content_length);
/* Queues n more bytes, copied; all or nothing. For HEAD requests they are counted and dropped.
 * Errors: CLOSED, STATE (not begun), TOO_LARGE (beyond content_length), BUSY (max_queued_bytes
 * would be exceeded: wait for on_drain, or abort), NO_MEMORY. */
baton_status bt_http_write(bt_http_request *request, const void *bytes, size_t n);
/* As above without a copy: free_fn(arg) is called once when the bytes are no longer needed, also
 * when this fails. */
baton_status bt_http_write_owned(bt_http_request *request, const void *bytes, size_t n,
                                 bt_loop_fn free_fn, void *arg);
/* Bytes queued and not yet taken by the kernel. */
size_t bt_http_queued_bytes(const bt_http_request *request);
/* fn(arg) is called once, from the loop, when at most low_water bytes are queued; setting it again
 * replaces it, NULL takes it back. */
void bt_http_on_drain(bt_http_request *request, size_t low_water, bt_loop_fn fn, void *arg);
/* Finishes a streamed answer. Errors: CLOSED, STATE (not begun; or fewer bytes than content_length
 * were written: the connection is then cut). */
baton_status bt_http_end(bt_http_request *request);
/* Finishes by closing the connection without a proper end, so that the client sees the answer as
 * broken: what was queued is still sent when possible. */
void bt_http_abort(bt_http_request *request);

#endif
