/* SPDX-License-Identifier: Apache-2.0 */
/* TLS 1.2 and 1.3 by OpenSSL, as a layer that turns bytes into bytes: it touches no socket. A
 * context holds certificates and is shared by any number of connections; each connection has a
 * session.
 *
 *   from the socket --bt_tls_receive--> on_plain      plain --bt_tls_send--> sink --> to the socket
 *
 * Thread rule: a context by any thread; a session by its owner's. */
#ifndef BT_HTTP_HTTPTLS_H
#define BT_HTTP_HTTPTLS_H
#include <baton/status.h>

#include <stdbool.h>

typedef struct bt_tls_context bt_tls_context;
typedef struct bt_tls bt_tls;

/* PEM files; borrowed during create. */
typedef struct {
    bool is_server;
    const char *certificate_file; /* chain, own one first; a server's is required */
    const char *key_file;         /* its key; NULL: in the same file */
    /* Who may sign the peer's certificate. Client, NULL: the system's authorities. Server, NULL:
     * clients show no certificate; otherwise they must. */
    const char *ca_file;
} bt_tls_options;

/* Errors: CONFIG (a file that cannot be read or does not fit), NO_MEMORY. */
baton_status bt_tls_context_create(const bt_tls_options *options, bt_tls_context **context_p);
/* Reads the files again, for connections from now on; on failure the old ones stay. */
baton_status bt_tls_context_reload(bt_tls_context *context);
/* Sessions may outlive it. NULL is allowed. */
void bt_tls_context_destroy(bt_tls_context *context);

typedef enum {
    BT_TLS_HANDSHAKE, /* nothing can be sent yet */
    BT_TLS_OPEN,
    BT_TLS_ENDED,  /* the peer said that nothing more comes */
    BT_TLS_FAILED, /* bt_tls_error_text says why; what the sink got is still to be sent */
} bt_tls_state;

/* Takes n bytes for the socket, all or none (false: no memory). */
typedef bool (*bt_tls_sink)(void *ctx, const char *bytes, size_t n);
/* Gets n bytes of the peer's; false: no more of them. */
typedef bool (*bt_tls_plain)(void *ctx, const char *bytes, size_t n);

/* host: whom a client calls, name or numeric address, which its certificate must name; NULL for a
 * server. A client's session sends its first message at once. Errors: NO_MEMORY, INVALID_ARG. */
baton_status bt_tls_create(bt_tls_context *context, const char *host, bt_tls_sink sink,
                           void *sink_ctx, bt_tls **tls_p);
bt_tls_state bt_tls_state_of(const bt_tls *tls);
/* Takes all n bytes from the socket. */
bt_tls_state bt_tls_receive(bt_tls *tls, const char *bytes, size_t n, bt_tls_plain on_plain,
                            void *ctx);
/* Encrypts n bytes into the sink. Errors: STATE (not open), NO_MEMORY, TRANSPORT. */
baton_status bt_tls_send(bt_tls *tls, const char *bytes, size_t n);
/* Says that nothing more comes, which tells a whole message from one that was cut off. */
void bt_tls_end(bt_tls *tls);
/* FAILED: what was wanted and found; "" otherwise. */
const char *bt_tls_error_text(const bt_tls *tls);
/* FAILED because a client spoke plain HTTP. */
bool bt_tls_met_plain_http(const bt_tls *tls);
void bt_tls_destroy(bt_tls *tls); /* NULL is allowed */

#endif
