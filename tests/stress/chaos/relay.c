/* SPDX-License-Identifier: Apache-2.0 */
#include "relay.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#include "core/strbuf.h"
#include "support/test.h"

enum {
    MAX_LINKS = 64,
    GREETING = 64,
    FLAG_MORE = 1,
    FLAG_LONG = 2,
    FLAG_COMMAND = 4,
    MAX_QUEUED = 8 << 20, /* bytes towards a reader that does not read; the link is cut above */
};

/* One direction of a connection. */
typedef struct {
    int from, to;
    bt_strbuf in;   /* read, not yet whole messages */
    bt_strbuf out;  /* to be written */
    bt_strbuf held; /* a message that changes places with the next one */
    size_t n_greeted;
} flow;

typedef struct {
    bool is_open;
    flow flows[2];
} link_pair;

struct bt_relay {
    pthread_t thread;
    int listener, wake;
    uint16_t to_port;
    bt_rng rng;
    atomic_uint per_mille;
    atomic_bool cut, stop;
    _Atomic uint64_t n_passed, n_lost, n_repeated, n_swapped, n_cut;
    link_pair links[MAX_LINKS];
};

static void set_up(int fd)
{
    int one = 1;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
    (void)fcntl(fd, F_SETFL, fcntl(fd, F_GETFL) | O_NONBLOCK);
}

static struct sockaddr_in loopback(uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

static void close_link(link_pair *link)
{
    close(link->flows[0].from);
    close(link->flows[1].from);
    for (int i = 0; i < 2; i++) {
        bt_strbuf_free(&link->flows[i].in);
        bt_strbuf_free(&link->flows[i].out);
        bt_strbuf_free(&link->flows[i].held);
    }
    *link = (link_pair){0};
}

static void accept_link(bt_relay *relay)
{
    int fd = accept4(relay->listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0)
        return;
    int to = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = loopback(relay->to_port);
    link_pair *link = NULL;
    for (int i = 0; i < MAX_LINKS && link == NULL; i++)
        link = relay->links[i].is_open ? NULL : &relay->links[i];
    /* On loopback connecting does not take time: it is accepted by the kernel, or refused. */
    if (link == NULL || to < 0 || connect(to, (struct sockaddr *)&address, sizeof(address)) != 0) {
        close(fd);
        if (to >= 0)
            close(to);
        return;
    }
    set_up(fd);
    set_up(to);
    *link = (link_pair){.is_open = true, .flows = {{.from = fd, .to = to}, {.from = to, .to = fd}}};
}

/* Bytes of the message at the start of in; 0: not whole yet. *is_command: it is one frame that
 * belongs to the connection. */
static size_t whole_message(const bt_strbuf *in, bool *is_command)
{
    size_t at = 0;
    for (;;) {
        const uint8_t *bytes = (const uint8_t *)in->data + at;
        size_t left = in->length - at, head = 2, size;
        if (left < head)
            return 0;
        head = (bytes[0] & FLAG_LONG) != 0 ? 9 : 2;
        if (left < head)
            return 0;
        size = bytes[1];
        for (size_t i = 2; i < head; i++)
            size = size << 8 | bytes[i];
        if (size > MAX_QUEUED || left - head < size)
            return 0;
        at += head + size;
        *is_command = (bytes[0] & FLAG_COMMAND) != 0;
        if (*is_command || (bytes[0] & FLAG_MORE) == 0)
            return at;
    }
}

static void pass_message(bt_relay *relay, flow *f, size_t n, bool is_command)
{
    unsigned per_mille = is_command ? 0 : atomic_load(&relay->per_mille);
    uint64_t dice = bt_rng_below(&relay->rng, 1000);
    bool had_held = f->held.length > 0;
    if (dice < per_mille) {
        atomic_fetch_add(&relay->n_lost, 1);
        return;
    }
    if (!had_held && dice >= 2 * per_mille && dice < 3 * per_mille) {
        bt_strbuf_append(&f->held, f->in.data, n);
        atomic_fetch_add(&relay->n_swapped, 1);
        return;
    }
    bt_strbuf_append(&f->out, f->in.data, n);
    if (dice >= per_mille && dice < 2 * per_mille) {
        bt_strbuf_append(&f->out, f->in.data, n);
        atomic_fetch_add(&relay->n_repeated, 1);
    }
    if (had_held) {
        bt_strbuf_append(&f->out, f->held.data, f->held.length);
        f->held.length = 0;
    }
    atomic_fetch_add(&relay->n_passed, 1);
}

static void drop_front(bt_strbuf *buf, size_t n)
{
    if (n > 0)
        memmove(buf->data, buf->data + n, buf->length - n);
    buf->length -= n;
}

static void pass_whole(bt_relay *relay, flow *f)
{
    bool is_command = false;
    /* Piece by piece: each end sends the rest of its greeting only after the other's first bytes.
     */
    size_t n_greeting = GREETING - f->n_greeted;
    n_greeting = n_greeting < f->in.length ? n_greeting : f->in.length;
    bt_strbuf_append(&f->out, f->in.data, n_greeting);
    drop_front(&f->in, n_greeting);
    f->n_greeted += n_greeting;
    for (size_t n; f->n_greeted == GREETING && (n = whole_message(&f->in, &is_command)) > 0;) {
        pass_message(relay, f, n, is_command);
        drop_front(&f->in, n);
    }
}

/* false: the connection is over. */
static bool read_some(bt_relay *relay, flow *f)
{
    char bytes[65536];
    ssize_t got = recv(f->from, bytes, sizeof(bytes), 0);
    if (got <= 0)
        return got < 0 && (errno == EAGAIN || errno == EINTR);
    bt_strbuf_append(&f->in, bytes, (size_t)got);
    pass_whole(relay, f);
    return f->in.length <= MAX_QUEUED && f->out.length <= MAX_QUEUED;
}

static bool write_some(flow *f)
{
    ssize_t sent = f->out.length > 0 ? send(f->to, f->out.data, f->out.length, MSG_NOSIGNAL) : 0;
    if (sent < 0)
        return errno == EAGAIN || errno == EINTR;
    drop_front(&f->out, (size_t)sent);
    return true;
}

static bool serve_flow(bt_relay *relay, flow *f, short from_events)
{
    if ((from_events & (POLLIN | POLLHUP | POLLERR)) != 0 && !read_some(relay, f))
        return false;
    return write_some(f);
}

static void cut_links(bt_relay *relay)
{
    for (int i = 0; i < MAX_LINKS; i++)
        if (relay->links[i].is_open) {
            close_link(&relay->links[i]);
            atomic_fetch_add(&relay->n_cut, 1);
        }
}

static void *run(void *ctx)
{
    bt_relay *relay = ctx;
    while (!atomic_load(&relay->stop)) {
        struct pollfd fds[2 + 2 * MAX_LINKS] = {{.fd = relay->listener, .events = POLLIN},
                                                {.fd = relay->wake, .events = POLLIN}};
        for (int i = 0; i < 2 * MAX_LINKS; i++) {
            const link_pair *link = &relay->links[i / 2];
            fds[2 + i].fd = link->is_open ? link->flows[i % 2].from : -1;
            fds[2 + i].events = POLLIN;
            if (link->is_open && link->flows[1 - i % 2].out.length > 0)
                fds[2 + i].events |= POLLOUT; /* the other direction writes here */
        }
        (void)poll(fds, 2 + 2 * MAX_LINKS, -1);
        uint64_t rung;
        if ((fds[1].revents & POLLIN) != 0)
            (void)!read(relay->wake, &rung, sizeof(rung));
        if (atomic_exchange(&relay->cut, false)) {
            cut_links(relay);
            continue;
        }
        for (int i = 0; i < MAX_LINKS; i++) {
            link_pair *link = &relay->links[i];
            if (link->is_open && (!serve_flow(relay, &link->flows[0], fds[2 + 2 * i].revents) ||
                                  !serve_flow(relay, &link->flows[1], fds[3 + 2 * i].revents)))
                close_link(link);
        }
        if ((fds[0].revents & POLLIN) != 0)
            accept_link(relay);
    }
    return NULL;
}

bt_relay *bt_relay_start(uint16_t port, uint16_t to_port, uint64_t seed)
{
    int one = 1;
    struct sockaddr_in address = loopback(port);
    bt_relay *relay = calloc(1, sizeof(*relay));
    if (relay == NULL)
        return NULL;
    relay->to_port = to_port;
    relay->rng = (bt_rng){seed};
    relay->wake = eventfd(0, EFD_CLOEXEC);
    relay->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    (void)setsockopt(relay->listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
    if (bind(relay->listener, (struct sockaddr *)&address, sizeof(address)) == 0 &&
        listen(relay->listener, MAX_LINKS) == 0 &&
        pthread_create(&relay->thread, NULL, run, relay) == 0)
        return relay;
    close(relay->listener);
    close(relay->wake);
    free(relay);
    return NULL;
}

static void wake_up(bt_relay *relay)
{
    uint64_t one = 1;
    (void)!write(relay->wake, &one, sizeof(one));
}

void bt_relay_disturb(bt_relay *relay, unsigned per_mille)
{
    atomic_store(&relay->per_mille, per_mille);
}

void bt_relay_cut(bt_relay *relay)
{
    atomic_store(&relay->cut, true);
    wake_up(relay);
}

void bt_relay_count(bt_relay *relay, bt_relay_counts *out)
{
    *out = (bt_relay_counts){.passed = relay->n_passed,
                             .lost = relay->n_lost,
                             .repeated = relay->n_repeated,
                             .swapped = relay->n_swapped,
                             .cut = relay->n_cut};
}

void bt_relay_stop(bt_relay *relay)
{
    atomic_store(&relay->stop, true);
    wake_up(relay);
    pthread_join(relay->thread, NULL);
    cut_links(relay);
    close(relay->listener);
    close(relay->wake);
    free(relay);
}
