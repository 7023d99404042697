/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/zmqsocket.h"

#include "core/fail.h"
#include "core/fdroom.h"
#include "wire/zmqheld.h"

#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    DEFAULT_MESSAGES = 1000,
    DEFAULT_PART_BYTES = 4 << 20,
    URL_BYTES = BT_ZMQ_HOST_BYTES + 32,
    RECONNECT_MS = 100,
    RECONNECT_MAX_MS = 5000,
    HANDSHAKE_MS = 5000, /* a peer that says nothing holds a connection no longer */
    KEEPALIVE_IDLE_S = 30,
    KEEPALIVE_INTERVAL_S = 10,
    KEEPALIVE_COUNT = 3,
    CONTEXT_FDS = 16,    /* libzmq's threads take 8, and abort where there are none */
    ZERO_COPY_RECV = 10, /* ZMQ_ZERO_COPY_RECV, which headers without drafts may lack */
    MAX_SOCKETS = 4095,  /* a sender has up to four per receiver; libzmq's own limit is 1,023 */
    SOCKET_FDS = 3,      /* its mailbox, and a listener or a connection */
};

static baton_status status_from_zmq(int err)
{
    switch (err) {
    case ETERM:
    case ENOTSOCK:
        return BATON_ERR_CLOSED;
    case EFSM:
        return BATON_ERR_STATE;
    case EMFILE:
        return BATON_ERR_BUSY;
    case ENODEV: /* bind: no such device or address */
        return BATON_ERR_UNREACHABLE;
    default:
        return bt_status_from_errno(err);
    }
}

baton_status bt_zmq_fail(int err, const char *format, ...)
{
    char detail[384];
    va_list args;
    va_start(args, format);
    vsnprintf(detail, sizeof(detail), format, args);
    va_end(args);
    return bt_fail(status_from_zmq(err), "%s: %s", detail, zmq_strerror(err));
}

/* The first socket starts libzmq's threads: now, while there are descriptors for them. */
static baton_status start_threads(void *context)
{
    void *first = zmq_socket(context, ZMQ_PAIR);
    if (first == NULL)
        return bt_zmq_fail(errno, "zmq: context");
    zmq_close(first);
    return BATON_OK;
}

baton_status bt_zmq_context_create(void **context_p)
{
    BATON_TRY(bt_fdroom_require(CONTEXT_FDS, "zmq: context"));
    void *context = zmq_ctx_new();
    if (context == NULL)
        return bt_zmq_fail(errno, "zmq: context");
    zmq_ctx_set(context, ZMQ_BLOCKY, 0);
    zmq_ctx_set(context, ZMQ_MAX_SOCKETS, MAX_SOCKETS);
    /* Else a frame of 34 bytes may keep the 18 KiB that it was read into. An older libzmq copies
     * anyway. */
    zmq_ctx_set(context, ZERO_COPY_RECV, 0);
    baton_status status = start_threads(context);
    if (status != BATON_OK) {
        bt_zmq_context_destroy(context);
        return status;
    }
    *context_p = context;
    return BATON_OK;
}

void bt_zmq_context_destroy(void *context)
{
    if (context == NULL)
        return;
    while (zmq_ctx_term(context) != 0 && errno == EINTR) {
    }
}

static baton_status set_int(void *socket, int option, int value, const char *name)
{
    if (zmq_setsockopt(socket, option, &value, sizeof(value)) == 0)
        return BATON_OK;
    return bt_zmq_fail(errno, "zmq: option %s = %d", name, value);
}
#define SET(socket, option, value) BATON_TRY(set_int(socket, ZMQ_##option, (value), #option))

static baton_status set_limits(void *socket, const bt_zmq_options *options)
{
    uint32_t send = options->send_messages != 0 ? options->send_messages : DEFAULT_MESSAGES;
    uint32_t recv = options->recv_messages != 0 ? options->recv_messages : DEFAULT_MESSAGES;
    int64_t part = options->max_part_bytes != 0 ? options->max_part_bytes : DEFAULT_PART_BYTES;
    if (send > INT32_MAX || recv > INT32_MAX)
        return bt_fail(BATON_ERR_INVALID_ARG, "zmq: high-water mark above %d", INT32_MAX);
    SET(socket, LINGER, 0);
    SET(socket, SNDHWM, (int)send);
    SET(socket, RCVHWM, (int)recv);
    if (zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &part, sizeof(part)) != 0)
        return bt_zmq_fail(errno, "zmq: option MAXMSGSIZE");
    return BATON_OK;
}

static baton_status set_connection(void *socket, const bt_zmq_options *options)
{
    bool sends = options->type == ZMQ_DEALER || options->type == ZMQ_PUSH;
    SET(socket, RECONNECT_IVL, RECONNECT_MS);
    SET(socket, RECONNECT_IVL_MAX, RECONNECT_MAX_MS);
    SET(socket, HANDSHAKE_IVL, HANDSHAKE_MS);
    SET(socket, TCP_KEEPALIVE, 1);
    SET(socket, TCP_KEEPALIVE_IDLE, KEEPALIVE_IDLE_S);
    SET(socket, TCP_KEEPALIVE_INTVL, KEEPALIVE_INTERVAL_S);
    SET(socket, TCP_KEEPALIVE_CNT, KEEPALIVE_COUNT);
    if (sends)
        SET(socket, IMMEDIATE, options->queue_unconnected ? 0 : 1);
    /* No ROUTER_HANDOVER: a peer that names itself like another one would get what is meant for
     * that one. Ours have no names. */
    if (options->type == ZMQ_ROUTER)
        SET(socket, ROUTER_MANDATORY, 1);
    return BATON_OK;
}

static baton_status set_options(void *socket, const bt_zmq_options *options)
{
    BATON_TRY(set_limits(socket, options));
    BATON_TRY(set_connection(socket, options));
    if (options->server_keys != NULL)
        return bt_curve_apply_server(socket, options->server_keys, options->zap);
    if (options->client_keys != NULL)
        return bt_curve_apply_client(socket, options->client_keys, options->server_public);
    return BATON_OK;
}

baton_status bt_zmq_open(void *context, const bt_zmq_options *options, void **socket_p)
{
    BATON_TRY(bt_fdroom_require(SOCKET_FDS, "zmq: socket"));
    void *socket = zmq_socket(context, options->type);
    if (socket == NULL)
        return bt_zmq_fail(errno, "zmq: socket of type %d", options->type);
    baton_status status = set_options(socket, options);
    if (status < 0) {
        bt_zmq_close(socket);
        return status;
    }
    *socket_p = socket;
    return BATON_OK;
}

void bt_zmq_close(void *socket)
{
    if (socket != NULL)
        zmq_close(socket);
}

/* zmq reads more into an endpoint than an address (source addresses behind ';', wildcards), so
 * only what a host can consist of gets there. */
static bool is_host(const char *host, bool may_be_any)
{
    size_t n = strlen(host);
    if (may_be_any && strcmp(host, "*") == 0)
        return true;
    if (n == 0 || n >= BT_ZMQ_HOST_BYTES)
        return false;
    return strspn(host, "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.:_-%") == n;
}

/* IPv6 is switched on for its literal addresses only: with it, zmq would resolve names to IPv6
 * first and never try IPv4. */
static baton_status make_url(void *socket, const char *host, uint16_t port, bool may_be_any,
                             char url[URL_BYTES])
{
    if (!is_host(host, may_be_any))
        return bt_fail(BATON_ERR_INVALID_ARG, "address: wanted a host name or an IP address");
    bool is_ipv6 = strchr(host, ':') != NULL;
    if (strcmp(host, "localhost") == 0)
        host = "127.0.0.1"; /* zmq binds to no names, and both ends must mean the same */
    SET(socket, IPV6, is_ipv6);
    if (port == 0)
        snprintf(url, URL_BYTES, is_ipv6 ? "tcp://[%s]:*" : "tcp://%s:*", host);
    else
        snprintf(url, URL_BYTES, is_ipv6 ? "tcp://[%s]:%u" : "tcp://%s:%u", host, port);
    return BATON_OK;
}

static baton_status bound_port_of(void *socket, uint16_t *port)
{
    char url[512];
    size_t n = sizeof(url);
    if (zmq_getsockopt(socket, ZMQ_LAST_ENDPOINT, url, &n) != 0)
        return bt_zmq_fail(errno, "zmq: last endpoint");
    const char *colon = strrchr(url, ':');
    unsigned long number = colon != NULL ? strtoul(colon + 1, NULL, 10) : 0;
    if (number == 0 || number > UINT16_MAX)
        return bt_fail(BATON_ERR_IO, "zmq: no port in endpoint %s", url);
    *port = (uint16_t)number;
    return BATON_OK;
}

baton_status bt_zmq_fail_bind(int err, const char *host, uint16_t port)
{
    return bt_zmq_fail(err, "bind: wanted %s port %u%s", host, port,
                       err == EADDRINUSE ? ", which another socket has; choose another port" : "");
}

baton_status bt_zmq_bind(void *socket, const char *host, uint16_t port, uint16_t *bound_port)
{
    char url[URL_BYTES];
    BATON_TRY(make_url(socket, host, port, true, url));
    if (zmq_bind(socket, url) != 0)
        return bt_zmq_fail_bind(errno, host, port);
    return bound_port != NULL ? bound_port_of(socket, bound_port) : BATON_OK;
}

baton_status bt_zmq_connect(void *socket, const char *host, uint16_t port)
{
    char url[URL_BYTES];
    if (port == 0)
        return bt_fail(BATON_ERR_INVALID_ARG, "connect: port 0");
    BATON_TRY(make_url(socket, host, port, false, url));
    if (zmq_connect(socket, url) != 0)
        return bt_zmq_fail(errno, "connect: wanted %s port %u", host, port);
    return BATON_OK;
}

baton_status bt_zmq_parse_url(const char *url, char host[BT_ZMQ_HOST_BYTES], uint16_t *port)
{
    const char *colon = strrchr(url, ':');
    if (strncmp(url, "tcp://", 6) != 0 || colon == NULL || colon < url + 6)
        return bt_fail(BATON_ERR_INVALID_ARG, "address: wanted tcp://host:port");
    const char *start = url + 6;
    size_t n = (size_t)(colon - start);
    bool bracketed = n >= 2 && start[0] == '[' && start[n - 1] == ']';
    if (bracketed) {
        start++;
        n -= 2;
    }
    size_t digits = strspn(colon + 1, "0123456789");
    unsigned long number = strtoul(colon + 1, NULL, 10);
    char name[BT_ZMQ_HOST_BYTES] = "";
    if (n < sizeof(name))
        memcpy(name, start, n);
    bool is_ipv6 = strchr(name, ':') != NULL;
    if (digits == 0 || digits > 5 || colon[1 + digits] != 0 || number == 0 || number > UINT16_MAX ||
        !is_host(name, false) || is_ipv6 != bracketed)
        return bt_fail(BATON_ERR_INVALID_ARG, "address: wanted tcp://host:port");
    memcpy(host, name, sizeof(name));
    *port = (uint16_t)number;
    return BATON_OK;
}

baton_status bt_zmq_connect_url(void *socket, const char *url)
{
    char host[BT_ZMQ_HOST_BYTES];
    uint16_t port = 0;
    BATON_TRY(bt_zmq_parse_url(url, host, &port));
    return bt_zmq_connect(socket, host, port);
}

static baton_status send_failure(int err)
{
    if (err == EAGAIN || err == EINTR)
        return BATON_IN_PROGRESS;
    return bt_zmq_fail(err, "send");
}

baton_status bt_zmq_send(void *socket, const bt_blob *parts, uint32_t n_parts)
{
    if (n_parts == 0 || n_parts > BT_ZMQ_PARTS_MAX)
        return bt_fail(BATON_ERR_INVALID_ARG, "send: %u parts, at most %d", n_parts,
                       BT_ZMQ_PARTS_MAX);
    for (uint32_t i = 0; i < n_parts; i++) {
        int more = i + 1 < n_parts ? ZMQ_SNDMORE : 0;
        const void *data = parts[i].bytes != 0 ? (const void *)parts[i].data : "";
        /* Room is decided at the first part: zmq counts messages, not parts. A signal cannot
         * interrupt the rest, since none of it waits. */
        if (zmq_send(socket, data, parts[i].bytes, ZMQ_DONTWAIT | more) >= 0)
            continue;
        int err = errno;
        return i == 0 ? send_failure(err) : bt_zmq_fail(err, "send: part %u", i);
    }
    return BATON_OK;
}

static int has_more(void *socket)
{
    int more = 0;
    size_t n = sizeof(more);
    zmq_getsockopt(socket, ZMQ_RCVMORE, &more, &n);
    return more;
}

/* A router's first part is of its own making. */
static void count_part(bt_zmq_arrival *arrival, zmq_msg_t *part, uint32_t i)
{
    arrival->fd = zmq_msg_get(part, ZMQ_SRCFD);
    if (i > 0 || !arrival->is_router)
        arrival->wire_bytes += bt_zmq_wire_bytes(zmq_msg_size(part), arrival->is_curve);
}

/* Takes the parts that did not fit, one after the other. */
static baton_status drop_rest(void *socket, bt_zmq_message *message, bt_zmq_arrival *arrival)
{
    bt_zmq_message_close(message);
    uint32_t n = BT_ZMQ_PARTS_MAX;
    while (has_more(socket)) {
        zmq_msg_t part;
        zmq_msg_init(&part);
        int rc = zmq_msg_recv(&part, socket, ZMQ_DONTWAIT);
        if (rc >= 0 && arrival != NULL)
            count_part(arrival, &part, n);
        zmq_msg_close(&part);
        if (rc < 0)
            break;
        n++;
    }
    return bt_fail(BATON_ERR_BAD_MESSAGE, "recv: wanted at most %d parts, found %u",
                   BT_ZMQ_PARTS_MAX, n);
}

static baton_status receive(void *socket, bt_zmq_message *message, bt_zmq_arrival *arrival)
{
    message->n_parts = 0;
    do {
        if (message->n_parts == BT_ZMQ_PARTS_MAX)
            return drop_rest(socket, message, arrival);
        zmq_msg_t *part = &message->parts[message->n_parts];
        zmq_msg_init(part);
        if (zmq_msg_recv(part, socket, ZMQ_DONTWAIT) < 0) {
            int err = errno;
            zmq_msg_close(part);
            bt_zmq_message_close(message);
            if (arrival != NULL)
                arrival->was_empty = err == EAGAIN;
            if (err == EAGAIN || err == EINTR)
                return BATON_IN_PROGRESS;
            return bt_zmq_fail(err, "recv");
        }
        if (arrival != NULL)
            count_part(arrival, part, message->n_parts);
        message->n_parts++;
    } while (has_more(socket));
    return BATON_OK;
}

baton_status bt_zmq_recv(void *socket, bt_zmq_message *message)
{
    return receive(socket, message, NULL);
}

baton_status bt_zmq_recv_from(void *socket, bt_zmq_message *message, bt_zmq_arrival *arrival)
{
    arrival->fd = -1;
    arrival->wire_bytes = 0;
    arrival->was_empty = false;
    return receive(socket, message, arrival);
}

bt_blob bt_zmq_part(bt_zmq_message *message, uint32_t i)
{
    return bt_blob_of(zmq_msg_data(&message->parts[i]), zmq_msg_size(&message->parts[i]));
}

const char *bt_zmq_user(bt_zmq_message *message, uint32_t i)
{
    const char *user = zmq_msg_gets(&message->parts[i], "User-Id");
    return user != NULL ? user : "";
}

void bt_zmq_message_close(bt_zmq_message *message)
{
    for (uint32_t i = 0; i < message->n_parts; i++)
        zmq_msg_close(&message->parts[i]);
    message->n_parts = 0;
}

baton_status bt_zmq_fd(void *socket, int *fd)
{
    size_t n = sizeof(*fd);
    if (zmq_getsockopt(socket, ZMQ_FD, fd, &n) != 0)
        return bt_zmq_fail(errno, "zmq: descriptor");
    return BATON_OK;
}

baton_status bt_zmq_events(void *socket, bool *readable, bool *writable)
{
    int events = 0;
    size_t n = sizeof(events);
    if (zmq_getsockopt(socket, ZMQ_EVENTS, &events, &n) != 0)
        return bt_zmq_fail(errno, "zmq: events");
    *readable = (events & ZMQ_POLLIN) != 0;
    *writable = (events & ZMQ_POLLOUT) != 0;
    return BATON_OK;
}

static baton_status open_monitor(void *context, void *socket, int events, void **monitor_p)
{
    static _Atomic uint64_t n_monitors; /* a name per monitor; relaxed: only its value matters */
    char url[64];
    uint64_t number = atomic_fetch_add_explicit(&n_monitors, 1, memory_order_relaxed);
    snprintf(url, sizeof(url), "inproc://baton-monitor-%" PRIu64, number);
    BATON_TRY(bt_fdroom_require(2 * SOCKET_FDS, "zmq: monitor"));
    if (zmq_socket_monitor(socket, url, events) != 0)
        return bt_zmq_fail(errno, "zmq: monitor");
    const int no_limit = 0; /* libzmq's thread would wait for room */
    void *monitor = zmq_socket(context, ZMQ_PAIR);
    if (monitor == NULL || zmq_setsockopt(monitor, ZMQ_RCVHWM, &no_limit, sizeof(no_limit)) != 0 ||
        zmq_connect(monitor, url) != 0) {
        int err = errno;
        bt_zmq_monitor_close(monitor, socket);
        return bt_zmq_fail(err, "zmq: monitor");
    }
    *monitor_p = monitor;
    return BATON_OK;
}

baton_status bt_zmq_monitor_open(void *context, void *socket, void **monitor_p)
{
    const int events = ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_DISCONNECTED |
                       ZMQ_EVENT_HANDSHAKE_FAILED_NO_DETAIL | ZMQ_EVENT_HANDSHAKE_FAILED_PROTOCOL |
                       ZMQ_EVENT_HANDSHAKE_FAILED_AUTH;
    return open_monitor(context, socket, events, monitor_p);
}

baton_status bt_zmq_monitor_open_listener(void *context, void *socket, void **monitor_p)
{
    return open_monitor(context, socket, ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_DISCONNECTED, monitor_p);
}

void bt_zmq_monitor_close(void *monitor, void *socket)
{
    zmq_socket_monitor(socket, NULL, 0);
    bt_zmq_close(monitor);
}

static bt_zmq_event event_of(uint16_t code)
{
    switch (code) {
    case ZMQ_EVENT_ACCEPTED:
        return BT_ZMQ_ACCEPTED;
    case ZMQ_EVENT_HANDSHAKE_SUCCEEDED:
        return BT_ZMQ_CONNECTED;
    case ZMQ_EVENT_DISCONNECTED:
        return BT_ZMQ_DISCONNECTED;
    default:
        return BT_ZMQ_REFUSED;
    }
}

/* An event's first part: 16 bits that say what, 32 of a value, as this machine has them. */
baton_status bt_zmq_monitor_next_fd(void *monitor, bt_zmq_event *event, int *fd)
{
    bt_zmq_message message;
    uint16_t code = 0;
    int32_t value = -1;
    do {
        baton_status status = bt_zmq_recv(monitor, &message);
        if (status != BATON_OK)
            return status;
        bt_blob head = bt_zmq_part(&message, 0);
        if (head.bytes >= sizeof(code) + sizeof(value)) {
            memcpy(&code, head.data, sizeof(code));
            memcpy(&value, head.data + sizeof(code), sizeof(value));
        }
        bt_zmq_message_close(&message);
    } while (code == ZMQ_EVENT_MONITOR_STOPPED);
    *event = event_of(code);
    *fd = value;
    return BATON_OK;
}

baton_status bt_zmq_monitor_next(void *monitor, bt_zmq_event *event)
{
    int fd;
    return bt_zmq_monitor_next_fd(monitor, event, &fd);
}

bool bt_zmq_is_loopback(const char *host)
{
    unsigned a = 0, b = 0, c = 0, d = 0;
    char rest = 0;
    if (strcmp(host, "localhost") == 0 || strcmp(host, "::1") == 0 || strcmp(host, "lo") == 0)
        return true;
    return sscanf(host, "%3u.%3u.%3u.%3u%c", &a, &b, &c, &d, &rest) == 4 && a == 127 && b < 256 &&
           c < 256 && d < 256;
}

baton_status bt_zmq_check_bind_allowed(const char *host, bool has_keys, bool allow_unauthenticated)
{
    if (has_keys || allow_unauthenticated || bt_zmq_is_loopback(host))
        return BATON_OK;
    return bt_fail(BATON_ERR_PERMISSION,
                   "bind: %s can be reached by others and no keys are set; set curve keys "
                   "(baton-keygen makes them), bind to 127.0.0.1, or set allow_unauthenticated",
                   host);
}
