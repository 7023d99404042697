/* SPDX-License-Identifier: Apache-2.0 */
/*   connection   READING ──head is complete──▶ WAITING ──its turn──▶ ASKED ──answered──▶ WRITING
 *                   └── bad head ──────────────────────────────────────────────────────▶ WRITING
 *   question     FREE ──admin thread──▶ ASKED ──owner──▶ ANSWERED ──admin thread──▶ FREE */
#include "core/adminserver.h"

#include "core/adminsocket.h"
#include "core/alloc.h"
#include "core/clock.h"
#include "core/fail.h"
#include "core/jsonwriter.h"
#include "core/log.h"
#include "core/thread.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

enum { MAX_CONNS = 16, FD_WAKE = 0, FD_LISTEN = 1, FD_CONNS = 2 };
#define CONN_NS (10 * BT_NS_PER_S)      /* a client has so long for all of it */
#define ANSWER_NS (2 * BT_NS_PER_S)     /* the owner has so long */
#define INTERVAL_NS (10 * BT_NS_PER_MS) /* between two questions to the owner */

typedef enum { CONN_FREE, CONN_READING, CONN_WAITING, CONN_ASKED, CONN_WRITING } conn_state;

typedef struct {
    conn_state state;
    int fd;
    uint64_t since_ns; /* accepted; ASKED: asked */
    bt_admin_query query;
    char head[BT_ADMIN_HEAD_BYTES_MAX];
    size_t n_head;
    bt_strbuf out;
    size_t n_sent;
} conn;

enum { SLOT_FREE, SLOT_ASKED, SLOT_ANSWERED };

struct bt_admin {
    bt_adminsocket socket;
    void (*ring)(void *ctx);
    void *ctx;
    int wake_fd; /* eventfd: answered, or stopping */
    pthread_t thread;
    bool has_thread;
    _Atomic bool stopping; /* release by close, acquire by the thread */
    /* The question. ASKED is stored with release and read with acquire by pending: query and an
     * empty text are there; ANSWERED likewise, the other way: text and status are. */
    _Atomic int slot;
    bt_admin_query query;
    bt_strbuf text;
    unsigned status;
    uint64_t asked_ns; /* the last time */
    uint64_t deaf_ns;  /* nobody is taken until then */
    conn conns[MAX_CONNS];
};

static uint64_t now_ns(void)
{
    return bt_now_ns(&bt_clock_monotonic);
}

static void wake(bt_admin *admin)
{
    uint64_t one = 1;
    ssize_t done = write(admin->wake_fd, &one, sizeof(one));
    (void)done; /* fails only when the counter is full, and then the fd is readable anyway */
}

/* Owner. */

const bt_admin_query *bt_admin_pending(bt_admin *admin)
{
    if (admin == NULL || atomic_load_explicit(&admin->slot, memory_order_acquire) != SLOT_ASKED)
        return NULL;
    return &admin->query;
}

bt_strbuf *bt_admin_text(bt_admin *admin)
{
    return &admin->text;
}

void bt_admin_answered(bt_admin *admin, unsigned http_status)
{
    admin->status = http_status;
    atomic_store_explicit(&admin->slot, SLOT_ANSWERED, memory_order_release);
    wake(admin);
}

/* Connections. */

static void drop(conn *c)
{
    if (c->state == CONN_FREE)
        return;
    close(c->fd);
    bt_strbuf_free(&c->out);
    c->n_head = c->n_sent = 0;
    c->state = CONN_FREE;
}

static const char *reason_of(unsigned status)
{
    return status == 200   ? "OK"
           : status == 400 ? "Bad Request"
           : status == 403 ? "Forbidden"
           : status == 404 ? "Not Found"
           : status == 405 ? "Method Not Allowed"
           : status == 503 ? "Service Unavailable"
                           : "Internal Server Error";
}

static void respond(conn *c, unsigned status, const bt_strbuf *body)
{
    bt_strbuf_printf(&c->out,
                     "HTTP/1.1 %u %s\r\nContent-Type: application/json\r\nContent-Length: %zu\r\n"
                     "Connection: close\r\nX-Content-Type-Options: nosniff\r\n\r\n",
                     status, reason_of(status), body->length);
    bt_strbuf_append(&c->out, bt_strbuf_text(body), body->length);
    if (c->out.failed) {
        drop(c);
        return;
    }
    c->state = CONN_WRITING;
}

static void respond_error(conn *c, unsigned status, const char *error)
{
    bt_strbuf body = {0};
    bt_jsonwriter json = {.out = &body};
    bt_jw_open(&json, NULL, '{');
    bt_jw_text(&json, "error", error);
    bt_jw_close(&json);
    bt_strbuf_putc(&body, '\n');
    respond(c, status, &body);
    bt_strbuf_free(&body);
}

/* Room for one more client: somebody who has not even asked may have to go, the oldest first. */
static conn *room(bt_admin *admin)
{
    conn *oldest = NULL;
    for (int i = 0; i < MAX_CONNS; i++) {
        conn *c = &admin->conns[i];
        if (c->state == CONN_FREE)
            return c;
        bool can_go = c->state == CONN_READING;
        if (can_go && (oldest == NULL || c->since_ns < oldest->since_ns))
            oldest = c;
    }
    if (oldest != NULL)
        drop(oldest);
    return oldest;
}

static void take_client(bt_admin *admin)
{
    conn *c = room(admin);
    int fd = c != NULL ? bt_adminsocket_accept(&admin->socket) : -1;
    if (fd < 0) { /* without descriptors the socket would stay readable, and we awake */
        admin->deaf_ns = now_ns() + INTERVAL_NS;
        return;
    }
    c->state = CONN_READING;
    c->fd = fd;
    c->since_ns = now_ns();
}

static void read_head(bt_admin *admin, conn *c)
{
    ssize_t n = recv(c->fd, c->head + c->n_head, sizeof(c->head) - c->n_head, 0);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    if (n <= 0) {
        drop(c);
        return;
    }
    c->n_head += (size_t)n;
    const char *end = memmem(c->head, c->n_head, "\r\n\r\n", 4);
    const char *error = "wanted a head of at most 4,096 bytes";
    if (end == NULL && c->n_head < sizeof(c->head))
        return;
    unsigned status = 400;
    if (end != NULL)
        status = bt_admin_query_read(c->head, (size_t)(end - c->head) + 2, !admin->socket.is_unix,
                                     &c->query, &error);
    if (status != 200)
        respond_error(c, status, error);
    else
        c->state = CONN_WAITING;
}

static void write_out(conn *c)
{
    ssize_t n = send(c->fd, c->out.data + c->n_sent, c->out.length - c->n_sent, MSG_NOSIGNAL);
    if (n < 0 && (errno == EAGAIN || errno == EINTR))
        return;
    c->n_sent += n > 0 ? (size_t)n : 0;
    if (n < 0 || c->n_sent == c->out.length)
        drop(c);
}

static void serve(bt_admin *admin, conn *c, short events)
{
    if (c->state == CONN_READING)
        read_head(admin, c);
    else if (c->state == CONN_WRITING && (events & (POLLOUT | POLLERR | POLLHUP)) != 0)
        write_out(c);
    else if ((events & (POLLERR | POLLHUP)) != 0)
        drop(c);
}

/* Questions. */

static conn *oldest_in(bt_admin *admin, conn_state state)
{
    conn *oldest = NULL;
    for (int i = 0; i < MAX_CONNS; i++) {
        conn *c = &admin->conns[i];
        if (c->state == state && (oldest == NULL || c->since_ns < oldest->since_ns))
            oldest = c;
    }
    return oldest;
}

static void take_answer(bt_admin *admin)
{
    if (atomic_load_explicit(&admin->slot, memory_order_acquire) != SLOT_ANSWERED)
        return;
    conn *c = oldest_in(admin, CONN_ASKED); /* there is one at most; none when it has gone */
    if (c != NULL && admin->text.failed)
        respond_error(c, 500, "no memory for the answer");
    else if (c != NULL)
        respond(c, admin->status, &admin->text);
    bt_strbuf_free(&admin->text);
    atomic_store_explicit(&admin->slot, SLOT_FREE, memory_order_relaxed); /* our own */
}

static void ask(bt_admin *admin, uint64_t now)
{
    conn *c = oldest_in(admin, CONN_WAITING);
    bool may_ask = c != NULL && bt_elapsed_ns(now, admin->asked_ns) >= INTERVAL_NS &&
                   atomic_load_explicit(&admin->slot, memory_order_relaxed) == SLOT_FREE;
    if (!may_ask)
        return;
    admin->query = c->query;
    admin->asked_ns = now;
    c->state = CONN_ASKED;
    atomic_store_explicit(&admin->slot, SLOT_ASKED, memory_order_release);
    admin->ring(admin->ctx);
}

/* The owner may answer later all the same: until then nobody else's question is asked. */
static void tell_stuck(bt_admin *admin, uint64_t now)
{
    bool is_asked = atomic_load_explicit(&admin->slot, memory_order_relaxed) == SLOT_ASKED;
    if (!is_asked || bt_elapsed_ns(now, admin->asked_ns) < ANSWER_NS)
        return;
    for (int i = 0; i < MAX_CONNS; i++) {
        conn *c = &admin->conns[i];
        if (c->state == CONN_ASKED || c->state == CONN_WAITING)
            respond_error(c, 503,
                          "wanted an answer of the progress thread, found none for 2 s: it is "
                          "stuck, or the program that should call progress does not; look at its "
                          "threads (gdb, /proc/PID/stack)");
    }
}

static void expire(bt_admin *admin, uint64_t now)
{
    for (int i = 0; i < MAX_CONNS; i++) {
        conn *c = &admin->conns[i];
        if (c->state != CONN_FREE && bt_elapsed_ns(now, c->since_ns) >= CONN_NS)
            drop(c);
    }
}

/* Until something of the above is due; for ever when nobody is here. */
static int wait_ms(bt_admin *admin)
{
    bool has_conns = false;
    for (int i = 0; i < MAX_CONNS; i++)
        has_conns |= admin->conns[i].state != CONN_FREE;
    if (oldest_in(admin, CONN_WAITING) != NULL || admin->deaf_ns != 0)
        return INTERVAL_NS / BT_NS_PER_MS;
    return has_conns ? 100 : -1;
}

static void turn(bt_admin *admin)
{
    struct pollfd fds[FD_CONNS + MAX_CONNS];
    fds[FD_WAKE] = (struct pollfd){.fd = admin->wake_fd, .events = POLLIN};
    fds[FD_LISTEN] = (struct pollfd){.fd = admin->socket.fd, .events = POLLIN};
    for (int i = 0; i < MAX_CONNS; i++) {
        const conn *c = &admin->conns[i];
        short events = c->state == CONN_READING ? POLLIN : c->state == CONN_WRITING ? POLLOUT : 0;
        fds[FD_CONNS + i] =
            (struct pollfd){.fd = c->state == CONN_FREE ? -1 : c->fd, .events = events};
    }
    bool has_room = oldest_in(admin, CONN_READING) != NULL || oldest_in(admin, CONN_FREE) != NULL;
    if (now_ns() >= admin->deaf_ns)
        admin->deaf_ns = 0;
    if (!has_room || admin->deaf_ns != 0)
        fds[FD_LISTEN].fd = -1; /* they wait in the socket's queue */
    if (poll(fds, FD_CONNS + MAX_CONNS, wait_ms(admin)) < 0)
        return;
    uint64_t n, now = now_ns();
    ssize_t done = read(admin->wake_fd, &n, sizeof(n));
    (void)done; /* EAGAIN: something else woke us */
    for (int i = 0; i < MAX_CONNS; i++)
        if (fds[FD_CONNS + i].revents != 0)
            serve(admin, &admin->conns[i], fds[FD_CONNS + i].revents);
    take_answer(admin);
    ask(admin, now);
    tell_stuck(admin, now);
    expire(admin, now);
    if (fds[FD_LISTEN].revents != 0)
        take_client(admin);
}

static void *run(void *ctx)
{
    bt_admin *admin = ctx;
    while (!atomic_load_explicit(&admin->stopping, memory_order_acquire))
        turn(admin);
    return NULL;
}

/* Life. */

static baton_status open_all(bt_admin *admin, const bt_admin_options *options)
{
    BATON_TRY(bt_adminsocket_open(options->where, options->role, options->name, options->rank,
                                  &admin->socket));
    admin->wake_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
    if (admin->wake_fd < 0) {
        int err = errno;
        return bt_fail_errno(bt_status_from_errno(err), err, "admin: eventfd");
    }
    BATON_TRY(bt_thread_start(&admin->thread, "baton-admin", run, admin));
    admin->has_thread = true;
    return BATON_OK;
}

baton_status bt_admin_open(const bt_admin_options *options, bt_admin **admin_p)
{
    const char *where = options->where;
    *admin_p = NULL;
    if (where != NULL && strcmp(where, "off") == 0)
        return BATON_OK;
    bt_admin *admin = bt_calloc(1, sizeof(*admin));
    if (admin == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "admin");
    admin->socket.fd = admin->wake_fd = -1;
    admin->ring = options->ring;
    admin->ctx = options->ctx;
    *admin_p = admin; /* before its thread: ring may use it */
    baton_status status = open_all(admin, options);
    if (status == BATON_OK) {
        bt_debug("%s: baton-ctl may ask at=%s", options->role, admin->socket.address);
        return BATON_OK;
    }
    *admin_p = NULL;
    bt_admin_close(admin);
    bool is_auto = where == NULL || where[0] == 0 || strcmp(where, "auto") == 0;
    if (!is_auto || status == BATON_ERR_NO_MEMORY)
        return status;
    bt_info("%s: no admin socket: %s", options->role, baton_last_error());
    return BATON_OK;
}

void bt_admin_close(bt_admin *admin)
{
    if (admin == NULL)
        return;
    if (admin->has_thread) {
        atomic_store_explicit(&admin->stopping, true, memory_order_release);
        wake(admin);
        pthread_join(admin->thread, NULL);
    }
    for (int i = 0; i < MAX_CONNS; i++)
        drop(&admin->conns[i]);
    bt_strbuf_free(&admin->text);
    bt_adminsocket_close(&admin->socket);
    if (admin->wake_fd >= 0)
        close(admin->wake_fd);
    bt_free(admin);
}

const char *bt_admin_address(const bt_admin *admin)
{
    return admin != NULL ? admin->socket.address : "off";
}
