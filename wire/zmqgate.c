/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/zmqgate.h"

#include "core/fail.h"

#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BACKLOG = 128, TURN_MAX = 4 * BACKLOG };

/* A literal address; NULL: it is none. Freed with freeaddrinfo. */
static struct addrinfo *parse(const char *host, uint16_t port)
{
    const struct addrinfo hints = {.ai_family = strcmp(host, "*") == 0 ? AF_INET : AF_UNSPEC,
                                   .ai_socktype = SOCK_STREAM,
                                   .ai_flags = AI_PASSIVE | AI_NUMERICHOST | AI_NUMERICSERV};
    struct addrinfo *found = NULL;
    char digits[8];
    snprintf(digits, sizeof(digits), "%u", port);
    if (strcmp(host, "localhost") == 0)
        host = "127.0.0.1";
    if (getaddrinfo(strcmp(host, "*") == 0 ? NULL : host, digits, &hints, &found) != 0)
        return NULL;
    return found;
}

/* Non-blocking: two threads accept from it, and who comes second must not wait. */
static baton_status listen_at(const struct addrinfo *address, const char *host, uint16_t port,
                              int *fd_p)
{
    int on = 1, off = 0;
    int fd = socket(address->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return bt_zmq_fail(errno, "bind: a socket");
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    if (address->ai_family == AF_INET6)
        setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &off, sizeof(off));
    if (bind(fd, address->ai_addr, address->ai_addrlen) == 0 && listen(fd, BACKLOG) == 0) {
        *fd_p = fd;
        return BATON_OK;
    }
    int err = errno;
    close(fd);
    return bt_zmq_fail_bind(err, host, port);
}

/* libzmq owns fd from here on, if it succeeds. */
static baton_status hand_over(void *socket, const char *host, int fd, uint16_t *bound_port)
{
    struct sockaddr_storage bound;
    socklen_t bytes = sizeof(bound);
    if (getsockname(fd, (struct sockaddr *)&bound, &bytes) != 0)
        return bt_zmq_fail(errno, "bind: the port");
    uint16_t port = bound.ss_family == AF_INET6
                        ? ntohs(((const struct sockaddr_in6 *)&bound)->sin6_port)
                        : ntohs(((const struct sockaddr_in *)&bound)->sin_port);
    if (zmq_setsockopt(socket, ZMQ_USE_FD, &fd, sizeof(fd)) != 0)
        return bt_zmq_fail(errno, "zmq: option USE_FD");
    return bt_zmq_bind(socket, host, port, bound_port);
}

baton_status bt_zmq_gate_bind(void *socket, const char *host, uint16_t port, uint16_t *bound_port,
                              bt_zmq_gate *gate)
{
    *gate = (bt_zmq_gate){0};
    struct addrinfo *address = parse(host, port);
    if (address == NULL)
        return bt_zmq_bind(socket, host, port, bound_port);
    int fd = -1;
    baton_status status = listen_at(address, host, port, &fd);
    freeaddrinfo(address);
    if (status != BATON_OK)
        return status;
    int ours = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    status = ours >= 0 ? hand_over(socket, host, fd, bound_port)
                       : bt_zmq_fail(errno, "bind: the listener");
    if (status != BATON_OK) {
        if (ours >= 0)
            close(ours);
        close(fd);
        return status;
    }
    gate->is_open = true;
    gate->fd = ours;
    bt_fdreserve_fill(&gate->reserve, BT_FDRESERVE_MAX);
    return BATON_OK;
}

/* Not even a FIN to wait for: the peer sees that it was refused. */
static void turn_away(int fd)
{
    const struct linger at_once = {.l_onoff = 1};
    setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof(at_once));
    close(fd);
}

bool bt_zmq_gate_turn(bt_zmq_gate *gate)
{
    for (int i = 0; i < TURN_MAX; i++) {
        bt_fdreserve_fill(&gate->reserve, BT_FDRESERVE_MAX);
        if (bt_fdroom(1) == 1)
            return true;
        if (!bt_fdreserve_spend(&gate->reserve, 1))
            return false;
        int fd = accept4(gate->fd, NULL, NULL, SOCK_CLOEXEC);
        int err = errno;
        if (fd >= 0) {
            turn_away(fd);
            gate->refused_total++;
        } else if (err == EAGAIN || err == EWOULDBLOCK) {
            bt_fdreserve_fill(&gate->reserve, BT_FDRESERVE_MAX);
            return true;
        } /* else somebody else took what was freed */
    }
    return true;
}

void bt_zmq_gate_close(bt_zmq_gate *gate)
{
    bt_fdreserve_spend(&gate->reserve, BT_FDRESERVE_MAX);
    if (gate->is_open)
        close(gate->fd);
    gate->is_open = false;
}
