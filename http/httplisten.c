/* SPDX-License-Identifier: Apache-2.0 */
#include "http/httplisten.h"

#include "core/fail.h"
#include "core/log.h"

#include <errno.h>
#include <inttypes.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TURN_MAX = 64, QUIET_MS = 1000 };

/* At most one line a second. */
static void log_turned_away(bt_listener *l, int err)
{
    uint64_t now_ms = bt_loop_now_ms(l->loop);
    if (now_ms < l->quiet_until_ms)
        return;
    l->quiet_until_ms = now_ms + QUIET_MS;
    bt_warn("http: connections turned away, or left waiting: %s port=%u turned_away=%" PRIu64,
            strerror(err), l->port, l->turned_away_total);
}

/* With a descriptor that was kept for it. False: not even that was left. */
static bool turn_one_away(bt_listener *l)
{
    if (!bt_fdreserve_spend(&l->reserve, 1))
        return false;
    int fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC);
    if (fd >= 0) { /* else somebody else took what was freed, or nobody waits any more */
        close(fd);
        l->turned_away_total++;
        l->options.on_turned_away(l->options.ctx);
    }
    bt_fdreserve_fill(&l->reserve, 1);
    return true;
}

static void on_readable(uv_poll_t *poll, int err, int events);

static void on_pause_over(uv_timer_t *timer)
{
    bt_listener *l = timer->data;
    uv_poll_start(&l->poll, UV_READABLE, on_readable);
}

static void pause_listening(bt_listener *l)
{
    uv_poll_stop(&l->poll);
    uv_timer_start(&l->pause, on_pause_over, BT_LISTEN_PAUSE_MS, 0);
}

/* Errors of the connection at hand, which accept reports; the next one is not concerned. */
static bool is_of_one_connection(int err)
{
    static const int errors[] = {EINTR,       ECONNABORTED, EPROTO,    ENETDOWN,
                                 ENOPROTOOPT, EHOSTDOWN,    ENONET,    EOPNOTSUPP,
                                 ENETUNREACH, EHOSTUNREACH, ETIMEDOUT, EPERM};
    for (size_t i = 0; i < sizeof(errors) / sizeof(errors[0]); i++) {
        if (err == errors[i])
            return true;
    }
    return false;
}

/* False: nobody is accepted before the next wakeup. */
static bool accept_one(bt_listener *l)
{
    bt_fdreserve_fill(&l->reserve, 1);
    int fd = accept4(l->fd, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK), err = errno;
    if (fd >= 0) {
        l->options.on_connection(l->options.ctx, fd);
        return true;
    }
    if (err == EAGAIN || err == EWOULDBLOCK)
        return false;
    if (is_of_one_connection(err))
        return true;
    bool goes_on = (err == EMFILE || err == ENFILE) && turn_one_away(l);
    log_turned_away(l, err);
    if (!goes_on)
        pause_listening(l);
    return goes_on;
}

/* Whoever is served already has its turn after so many. */
static void on_readable(uv_poll_t *poll, int err, int events)
{
    bt_listener *l = poll->data;
    (void)events;
    if (err < 0) /* epoll's error: libuv has stopped looking */
        pause_listening(l);
    for (int i = 0; i < TURN_MAX && l->fd >= 0 && accept_one(l); i++)
        ;
}

static baton_status parse_address(const bt_listener_options *options,
                                  struct sockaddr_storage *address)
{
    if (uv_ip4_addr(options->host, options->port, (struct sockaddr_in *)address) == 0)
        return BATON_OK;
    if (uv_ip6_addr(options->host, options->port, (struct sockaddr_in6 *)address) == 0)
        return BATON_OK;
    return bt_fail(BATON_ERR_INVALID_ARG, "http: wanted a numeric address to listen on, found '%s'",
                   options->host);
}

/* 0, or an errno. */
static int bind_and_listen(bt_listener *l, const struct sockaddr_storage *address)
{
    int on = 1;
    socklen_t bytes =
        address->ss_family == AF_INET ? sizeof(struct sockaddr_in) : sizeof(struct sockaddr_in6);
    if (setsockopt(l->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on)) != 0 ||
        (l->options.reuse_port &&
         setsockopt(l->fd, SOL_SOCKET, SO_REUSEPORT, &on, sizeof(on)) != 0) ||
        bind(l->fd, (const struct sockaddr *)address, bytes) != 0 ||
        listen(l->fd, l->options.backlog) != 0)
        return errno;
    return -uv_poll_init(bt_loop_uv(l->loop), &l->poll, l->fd);
}

static void read_port(bt_listener *l)
{
    struct sockaddr_storage bound = {0};
    socklen_t bytes = sizeof(bound);
    if (getsockname(l->fd, (struct sockaddr *)&bound, &bytes) == 0)
        l->port = ntohs(bound.ss_family == AF_INET ? ((struct sockaddr_in *)&bound)->sin_port
                                                   : ((struct sockaddr_in6 *)&bound)->sin6_port);
}

baton_status bt_listener_open(bt_loop *loop, const bt_listener_options *options,
                              bt_listener *listener)
{
    struct sockaddr_storage address = {0};
    BATON_TRY(parse_address(options, &address));
    *listener = (bt_listener){.options = *options, .loop = loop};
    bt_listener *l = listener;
    l->fd = socket(address.ss_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    int err = l->fd >= 0 ? bind_and_listen(l, &address) : errno;
    if (err != 0) {
        if (l->fd >= 0)
            close(l->fd);
        l->fd = -1;
        return bt_fail(bt_status_from_errno(err), "http: listening on %s port %u: %s%s",
                       options->host, options->port, strerror(err),
                       err == EADDRINUSE ? "; stop the other process or choose another port" : "");
    }
    l->options.host = NULL;
    read_port(l);
    bt_fdreserve_fill(&l->reserve, 1);
    uv_timer_init(bt_loop_uv(loop), &l->pause);
    l->poll.data = l->pause.data = l;
    l->n_handles = 2;
    uv_poll_start(&l->poll, UV_READABLE, on_readable);
    return BATON_OK;
}

static void on_handle_closed(uv_handle_t *handle)
{
    bt_listener *l = handle->data;
    if (--l->n_handles == 0)
        l->options.on_closed(l->options.ctx);
}

void bt_listener_close(bt_listener *l)
{
    if (l->fd < 0)
        return;
    uv_close((uv_handle_t *)&l->poll, on_handle_closed);
    uv_close((uv_handle_t *)&l->pause, on_handle_closed);
    bt_fdreserve_spend(&l->reserve, BT_FDRESERVE_MAX);
    close(l->fd);
    l->fd = -1;
}
