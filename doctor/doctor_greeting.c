/* SPDX-License-Identifier: Apache-2.0 */
#include "doctor/doctor_greeting.h"

#include "core/alloc.h"
#include "core/clock.h"
#include "core/fail.h"
#include "core/pollset.h"
#include "core/thread.h"

#include <ctype.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    SIGNATURE_BYTES = 10,
    MECHANISM_AT = 12,
    MECHANISM_BYTES = 20,
    GREETING_BYTES = 64,
    VERSION_AT = SIGNATURE_BYTES,
    SHOWN_BYTES = 40,
};

typedef struct {
    const char *host;
    uint16_t port;
    uint32_t timeout_ms;
    uint64_t deadline_ns;
} question;

static uint64_t now_ns(void)
{
    return bt_now_ns(&bt_clock_monotonic);
}

/* Name servers take their time, and getaddrinfo waits for them: it runs on a thread of its own,
 * which outlives us where it is not done in time. Whoever comes last to `left` frees it. */
typedef struct {
    char host[256], port[8];
    int done_fd; /* wakes who waits for `done` */
    int err, system_err;
    struct addrinfo *found;
    atomic_bool done; /* the three above are set; release, read with acquire */
    atomic_bool left; /* one of the two is through with it; acq_rel, both ways */
} lookup;

static void leave_lookup(lookup *l)
{
    if (!atomic_exchange_explicit(&l->left, true, memory_order_acq_rel))
        return;
    if (l->found != NULL)
        freeaddrinfo(l->found);
    close(l->done_fd);
    bt_free(l);
}

static void *run_lookup(void *arg)
{
    lookup *l = arg;
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV};
    l->err = getaddrinfo(l->host, l->port, &hints, &l->found);
    l->system_err = errno;
    atomic_store_explicit(&l->done, true, memory_order_release);
    eventfd_write(l->done_fd, 1);
    leave_lookup(l);
    return NULL;
}

static baton_status start_lookup(lookup *l)
{
    pthread_t thread;
    BATON_TRY(bt_thread_start(&thread, "baton-lookup", run_lookup, l));
    pthread_detach(thread);
    return BATON_OK;
}

/* Until fd is ready for events. Errors: CONNECT_TIMEOUT. */
static baton_status wait_for(const question *q, int fd, short events)
{
    for (;;) {
        uint64_t now = now_ns();
        int ms = now >= q->deadline_ns ? 0 : bt_wait_ms(now, q->deadline_ns);
        struct pollfd poller = {.fd = fd, .events = events};
        int n = poll(&poller, 1, ms);
        if (n > 0)
            return BATON_OK;
        if (n == 0 && now_ns() >= q->deadline_ns)
            return bt_fail(BATON_ERR_CONNECT_TIMEOUT,
                           "peer: wanted a connection to %.200s port %u within %u ms, found no "
                           "answer: is it on, and does a firewall drop this?",
                           q->host, q->port, q->timeout_ms);
    }
}

static baton_status wait_lookup(const question *q, lookup *l, struct addrinfo **found_p)
{
    baton_status waited = wait_for(q, l->done_fd, POLLIN);
    if (waited != BATON_OK || !atomic_load_explicit(&l->done, memory_order_acquire))
        return bt_fail(
            BATON_ERR_CONNECT_TIMEOUT,
            "peer: wanted an address of %.200s within %u ms, found no answer of the name "
            "server",
            q->host, q->timeout_ms);
    if (l->err != 0)
        return bt_fail(BATON_ERR_UNREACHABLE, "peer: wanted an address of %.200s, found none: %s",
                       q->host,
                       l->err == EAI_SYSTEM ? strerror(l->system_err) : gai_strerror(l->err));
    *found_p = l->found;
    l->found = NULL;
    return BATON_OK;
}

static baton_status look_up_name(const question *q, struct addrinfo **found_p)
{
    lookup *l = bt_calloc(1, sizeof(*l));
    if (l == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "peer: looking up a name");
    snprintf(l->host, sizeof(l->host), "%s", q->host);
    snprintf(l->port, sizeof(l->port), "%u", q->port);
    l->done_fd = eventfd(0, EFD_CLOEXEC);
    baton_status status = l->done_fd >= 0
                              ? start_lookup(l)
                              : bt_fail_errno(BATON_ERR_IO, errno, "peer: looking up a name");
    if (status == BATON_OK)
        status = wait_lookup(q, l, found_p);
    else
        leave_lookup(l); /* for the thread that is not there */
    leave_lookup(l);
    return status;
}

static baton_status look_up(const question *q, struct addrinfo **found_p)
{
    const struct addrinfo hints = {.ai_socktype = SOCK_STREAM,
                                   .ai_flags = AI_NUMERICHOST | AI_NUMERICSERV};
    char port[8];
    snprintf(port, sizeof(port), "%u", q->port);
    int err = getaddrinfo(q->host, port, &hints, found_p); /* asks nobody */
    return err == 0 ? BATON_OK : look_up_name(q, found_p);
}

static baton_status connect_one(const question *q, const struct addrinfo *address, int *fd_p)
{
    int fd = socket(address->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int err = fd < 0 ? errno : 0;
    baton_status status = BATON_OK;
    if (fd >= 0 && connect(fd, address->ai_addr, address->ai_addrlen) != 0)
        err = errno;
    if (err == EINPROGRESS) {
        socklen_t bytes = sizeof(err);
        status = wait_for(q, fd, POLLOUT);
        err = 0;
        if (status == BATON_OK && getsockopt(fd, SOL_SOCKET, SO_ERROR, &err, &bytes) != 0)
            err = errno;
    }
    if (status == BATON_OK && err != 0)
        status = bt_fail_errno(BATON_ERR_UNREACHABLE, err,
                               "peer: wanted a connection to %.200s port %u", q->host, q->port);
    if (status != BATON_OK && fd >= 0)
        close(fd);
    if (status == BATON_OK)
        *fd_p = fd;
    return status;
}

static baton_status connect_any(const question *q, const struct addrinfo *addresses, int *fd_p,
                                bt_greeting *greeting)
{
    baton_status status = BATON_ERR_UNREACHABLE;
    for (const struct addrinfo *at = addresses; at != NULL; at = at->ai_next) {
        status = connect_one(q, at, fd_p);
        if (status != BATON_OK)
            continue;
        if (getnameinfo(at->ai_addr, at->ai_addrlen, greeting->host, sizeof(greeting->host), NULL,
                        0, NI_NUMERICHOST) != 0)
            greeting->host[0] = '\0';
        return BATON_OK;
    }
    return status;
}

/* What can be shown of an answer that is none. */
static void show_bytes(const uint8_t *bytes, size_t n, char text[SHOWN_BYTES + 1])
{
    size_t shown = 0;
    for (; shown < n && shown < SHOWN_BYTES && bytes[shown] != '\r' && bytes[shown] != '\n';
         shown++)
        text[shown] = isprint(bytes[shown]) ? (char)bytes[shown] : '.';
    text[shown] = '\0';
}

static baton_status fail_foreign(const uint8_t *bytes, size_t n)
{
    char text[SHOWN_BYTES + 1];
    show_bytes(bytes, n, text);
    return bt_fail(BATON_ERR_BAD_MESSAGE,
                   "peer: wanted a receiver's init port, found a service that does not speak "
                   "ZeroMQ: \"%s\"",
                   text);
}

baton_status bt_greeting_parse(const uint8_t *bytes, size_t n,
                               char mechanism[BT_GREETING_MECHANISM_BYTES])
{
    bool is_foreign = n > 0 && bytes[0] != 0xff;
    is_foreign = is_foreign || (n >= SIGNATURE_BYTES && (bytes[SIGNATURE_BYTES - 1] & 1) == 0);
    if (is_foreign)
        return fail_foreign(bytes, n);
    if (n > VERSION_AT && bytes[VERSION_AT] < 3)
        return bt_fail(BATON_ERR_BAD_MESSAGE,
                       "peer: wanted ZMTP 3 or newer, found version %u: a very old ZeroMQ",
                       bytes[VERSION_AT]);
    if (n < MECHANISM_AT + MECHANISM_BYTES)
        return BATON_IN_PROGRESS;
    size_t used = 0;
    const uint8_t *name = bytes + MECHANISM_AT;
    while (used < MECHANISM_BYTES && (isupper(name[used]) || isdigit(name[used])))
        used++;
    if (used == 0 || (used < MECHANISM_BYTES && name[used] != 0))
        return fail_foreign(bytes, n);
    memcpy(mechanism, name, used);
    mechanism[used] = '\0';
    return BATON_OK;
}

static baton_status fail_silence(const question *q)
{
    return bt_fail(BATON_ERR_INIT_TIMEOUT,
                   "peer: %.200s port %u takes connections, but says nothing within %u ms: it is "
                   "no receiver's init port, or its process is stopped",
                   q->host, q->port, q->timeout_ms);
}

static baton_status read_greeting(const question *q, int fd, bt_greeting *greeting)
{
    uint8_t answer[GREETING_BYTES];
    size_t n = 0;
    for (;;) {
        if (wait_for(q, fd, POLLIN) != BATON_OK)
            return n == 0 ? fail_silence(q) : fail_foreign(answer, n);
        ssize_t got = recv(fd, answer + n, sizeof(answer) - n, 0);
        if (got < 0 && (errno == EAGAIN || errno == EINTR))
            continue;
        if (got <= 0 && n > 0)
            return fail_foreign(answer, n);
        if (got <= 0)
            return bt_fail(BATON_ERR_CLOSED,
                           "peer: %.200s port %u takes connections and closes them at once: it is "
                           "no receiver's init port",
                           q->host, q->port);
        n += (size_t)got;
        baton_status status = bt_greeting_parse(answer, n, greeting->mechanism);
        if (status != BATON_IN_PROGRESS)
            return status;
    }
}

static baton_status greet(const question *q, int fd, bt_greeting *greeting)
{
    const uint8_t ours[MECHANISM_AT] = {[0] = 0xff, [SIGNATURE_BYTES - 1] = 0x7f, [VERSION_AT] = 3};
    if (send(fd, ours, sizeof(ours), MSG_NOSIGNAL) != (ssize_t)sizeof(ours))
        return bt_fail(BATON_ERR_CLOSED, "peer: %.200s port %u closes connections at once", q->host,
                       q->port);
    return read_greeting(q, fd, greeting);
}

baton_status bt_greeting_ask(const char *host, uint16_t port, uint32_t timeout_ms,
                             bt_greeting *greeting)
{
    uint64_t began_ns = now_ns();
    const question q = {.host = host,
                        .port = port,
                        .timeout_ms = timeout_ms,
                        .deadline_ns = bt_deadline_ns(began_ns, timeout_ms * BT_NS_PER_MS)};
    struct addrinfo *addresses;
    int fd;
    *greeting = (bt_greeting){0};
    BATON_TRY(look_up(&q, &addresses));
    uint64_t found_ns = now_ns();
    baton_status status = connect_any(&q, addresses, &fd, greeting);
    freeaddrinfo(addresses);
    BATON_TRY(status);
    greeting->connect_ms = (double)bt_elapsed_ns(now_ns(), found_ns) / (double)BT_NS_PER_MS;
    status = greet(&q, fd, greeting);
    close(fd);
    return status;
}
