/* SPDX-License-Identifier: Apache-2.0 */
/* ZeroMQ sockets the way this project wants them: no lingering, bounded queues and frames, nothing
 * that blocks, foreign errors mapped at this border.
 *
 * Thread rule: a context from any thread; a socket, and what is opened on it, from its owner
 * thread. */
#ifndef BT_WIRE_ZMQSOCKET_H
#define BT_WIRE_ZMQSOCKET_H
#include <baton/status.h>
#include <stdbool.h>
#include <zmq.h>

#include "wire/blob.h"
#include "wire/curve.h"

enum {
    BT_ZMQ_PARTS_MAX = 4, /* frames of a message */
    BT_ZMQ_HOST_BYTES = 256
};

/* A context with one I/O thread. Destroy closes nothing: every socket must have been closed. */
baton_status bt_zmq_context_create(void **context_p);
void bt_zmq_context_destroy(void *context); /* NULL is allowed. */

typedef struct {
    int type;                /* ZMQ_DEALER, ZMQ_ROUTER, ZMQ_PUSH, ZMQ_PULL, ... */
    uint32_t send_messages;  /* high-water mark; 0: 1,000 */
    uint32_t recv_messages;  /* 0: 1,000 */
    uint32_t max_part_bytes; /* a peer that sends more is cut off; 0: 4 MiB */
    bool
        queue_unconnected; /* DEALER, PUSH: queue before a connection stands, instead of refusing */
    /* All NULL: no encryption. A server: its keys and its context's handler. A client: its keys and
     * the server's public key (40 characters of Z85). Borrowed for the call, but zap. */
    const bt_curve_keys *server_keys;
    const bt_zap *zap;
    const bt_curve_keys *client_keys;
    const char *server_public;
} bt_zmq_options;

/* ROUTER: unroutable messages fail with UNREACHABLE instead of being dropped, and a routing id
 * belongs to the connection that has it. Errors: INVALID_ARG, NO_MEMORY, IO. */
baton_status bt_zmq_open(void *context, const bt_zmq_options *options, void **socket_p);
void bt_zmq_close(void *socket); /* NULL is allowed. Unsent messages are dropped. */

/* Listens on tcp host:port; port 0 takes a free one. host: an IP address ("127.0.0.1", "::1"),
 * "localhost", a network device, or "*". *bound_port may be NULL. Errors: ADDRESS_IN_USE (with the
 * port), INVALID_ARG, UNREACHABLE (no such address here), PERMISSION. */
baton_status bt_zmq_bind(void *socket, const char *host, uint16_t port, uint16_t *bound_port);
/* Begins to connect, again and again in the background (100 ms to 5 s apart). host: an IP address
 * or a name. Errors: INVALID_ARG. */
baton_status bt_zmq_connect(void *socket, const char *host, uint16_t port);
/* As bt_zmq_connect, from "tcp://host:port". Errors: INVALID_ARG. */
baton_status bt_zmq_connect_url(void *socket, const char *url);
/* Takes "tcp://host:port" apart; host without brackets. Errors: INVALID_ARG. */
baton_status bt_zmq_parse_url(const char *url, char host[BT_ZMQ_HOST_BYTES], uint16_t *port);

/* Sends one message of n_parts frames, all or none, copied, without blocking. Returns
 * BATON_IN_PROGRESS when the queue is full or nobody is connected: try again when writable. Errors:
 * UNREACHABLE (ROUTER: no such peer), CLOSED. */
baton_status bt_zmq_send(void *socket, const bt_blob *parts, uint32_t n_parts);

typedef struct {
    zmq_msg_t parts[BT_ZMQ_PARTS_MAX];
    uint32_t n_parts;
} bt_zmq_message;

/* Takes one message, if there is one; BATON_IN_PROGRESS otherwise. On OK it must be closed. One
 * with too many parts is dropped whole. Errors: BAD_MESSAGE (too many parts), CLOSED. */
baton_status bt_zmq_recv(void *socket, bt_zmq_message *message);
/* What a call took from the socket, be it a message that is dropped. */
typedef struct {
    bool is_router, is_curve; /* of the socket, set by the caller */
    int fd;                   /* of the connection; -1: nothing was taken */
    uint64_t wire_bytes;      /* at least */
    bool was_empty;           /* there was nothing to take */
} bt_zmq_arrival;
/* As bt_zmq_recv. */
baton_status bt_zmq_recv_from(void *socket, bt_zmq_message *message, bt_zmq_arrival *arrival);
/* Part i, borrowed until the message is closed. */
bt_blob bt_zmq_part(bt_zmq_message *message, uint32_t i);
/* The public key (Z85) that the connection of part i was let in with; "": none. Borrowed until the
 * message is closed. */
const char *bt_zmq_user(bt_zmq_message *message, uint32_t i);
void bt_zmq_message_close(bt_zmq_message *message);

/* The descriptor to poll for POLLIN. It is edge-triggered for both directions: after a wake-up, and
 * after every send or recv, ask bt_zmq_events before sleeping. */
baton_status bt_zmq_fd(void *socket, int *fd);
baton_status bt_zmq_events(void *socket, bool *readable, bool *writable);

/* What happens to a socket's connections. */
typedef enum {
    BT_ZMQ_ACCEPTED,     /* a listener's; told to bt_zmq_monitor_open_listener only */
    BT_ZMQ_CONNECTED,    /* the handshake succeeded */
    BT_ZMQ_DISCONNECTED, /* a connection broke */
    BT_ZMQ_REFUSED,      /* a handshake failed: keys, or another protocol */
} bt_zmq_event;

/* A socket of its own, on which the events of `socket` arrive, however many they are until somebody
 * asks. Errors: OVERLOADED (no descriptors), NO_MEMORY. */
baton_status bt_zmq_monitor_open(void *context, void *socket, void **monitor_p);
/* The same for a socket that listens: BT_ZMQ_ACCEPTED and BT_ZMQ_DISCONNECTED. */
baton_status bt_zmq_monitor_open_listener(void *context, void *socket, void **monitor_p);
/* While `socket` is open: libzmq's thread would wait for ever to tell a monitor that is gone of
 * what happens to `socket` at its end. NULL is allowed for the monitor. */
void bt_zmq_monitor_close(void *monitor, void *socket);
/* The next event, if there is one; BATON_IN_PROGRESS otherwise. */
baton_status bt_zmq_monitor_next(void *monitor, bt_zmq_event *event);
/* The same with the connection's descriptor, of those that were accepted or disconnected. */
baton_status bt_zmq_monitor_next_fd(void *monitor, bt_zmq_event *event, int *fd);

/* Without keys only loopback may be bound, unless allow_unauthenticated. Errors: PERMISSION; the
 * text says what to set. */
baton_status bt_zmq_check_bind_allowed(const char *host, bool has_keys, bool allow_unauthenticated);
bool bt_zmq_is_loopback(const char *host);

/* The status that zmq's errno stands for, with the text of both. */
__attribute__((format(printf, 2, 3))) baton_status bt_zmq_fail(int err, const char *format, ...);
baton_status bt_zmq_fail_bind(int err, const char *host, uint16_t port);

#endif
