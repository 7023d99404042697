/* SPDX-License-Identifier: Apache-2.0 */
#include "ctl/ctl_client.h"

#include "core/clock.h"
#include "core/fail.h"
#include "core/pollset.h"
#include "core/strbuf.h"

#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum { ANSWER_BYTES_MAX = 64 << 20 };

typedef struct {
    const char *at;
    int fd;
    uint64_t deadline_ns;
} question;

static uint64_t now_ns(void)
{
    return bt_now_ns(&bt_clock_monotonic);
}

static baton_status wait_for(const question *q, short events, const char *what)
{
    struct pollfd fd = {.fd = q->fd, .events = events};
    int n;
    do {
        n = poll(&fd, 1, bt_wait_ms(now_ns(), q->deadline_ns));
    } while (n < 0 && errno == EINTR);
    if (n > 0)
        return BATON_OK;
    return bt_fail(BATON_ERR_DEADLINE,
                   "%s: wanted to %s in time, found no answer; is the process "
                   "stopped?",
                   q->at, what);
}

static baton_status connected(const question *q, const struct sockaddr *to, socklen_t bytes)
{
    int err = 0;
    socklen_t n = sizeof(err);
    if (connect(q->fd, to, bytes) != 0)
        err = errno;
    if (err == EINPROGRESS) {
        BATON_TRY(wait_for(q, POLLOUT, "connect"));
        if (getsockopt(q->fd, SOL_SOCKET, SO_ERROR, &err, &n) != 0)
            err = errno;
    }
    if (err == 0)
        return BATON_OK;
    if (err == EAGAIN) /* a Unix socket whose queue is full */
        return bt_fail(BATON_ERR_DEADLINE, "%s: wanted to connect, found too many others who do",
                       q->at);
    return bt_fail_errno(BATON_ERR_UNREACHABLE, err,
                         "%s: wanted a sender, receiver or proxy that listens there", q->at);
}

static baton_status connect_unix(question *q, const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int n = snprintf(address.sun_path, sizeof(address.sun_path), "%s", path);
    if (n <= 0 || (size_t)n >= sizeof(address.sun_path))
        return bt_fail(BATON_ERR_INVALID_ARG, "%.200s: wanted a path of 1 to %zu bytes, found %d",
                       q->at, sizeof(address.sun_path) - 1, n);
    q->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (q->fd < 0) {
        int err = errno;
        return bt_fail_errno(bt_status_from_errno(err), err, "socket");
    }
    return connected(q, (struct sockaddr *)&address, sizeof(address));
}

static baton_status connect_port(question *q)
{
    char host[256] = "";
    const char *colon = strrchr(q->at, ':'), *from = q->at;
    size_t n = colon != NULL ? (size_t)(colon - q->at) : 0;
    bool is_bracketed = n >= 2 && from[0] == '[' && from[n - 1] == ']';
    if (n > 0 && n < sizeof(host))
        snprintf(host, sizeof(host), "%.*s", (int)(is_bracketed ? n - 2 : n),
                 is_bracketed ? from + 1 : from);
    struct addrinfo *found = NULL, wanted = {.ai_socktype = SOCK_STREAM};
    if (host[0] == 0 || getaddrinfo(host, colon + 1, &wanted, &found) != 0)
        return bt_fail(BATON_ERR_INVALID_ARG, "--at: wanted unix:PATH or HOST:PORT, found %.200s",
                       q->at);
    q->fd = socket(found->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    baton_status status = q->fd >= 0 ? connected(q, found->ai_addr, found->ai_addrlen)
                                     : bt_fail(BATON_ERR_IO, "socket: none");
    freeaddrinfo(found);
    return status;
}

static baton_status send_all(const question *q, const char *text)
{
    for (size_t n = strlen(text), sent = 0; sent < n;) {
        BATON_TRY(wait_for(q, POLLOUT, "ask"));
        ssize_t done = send(q->fd, text + sent, n - sent, MSG_NOSIGNAL);
        if (done < 0 && errno != EAGAIN && errno != EINTR) {
            int err = errno;
            return bt_fail_errno(BATON_ERR_UNREACHABLE, err, "%s: asking", q->at);
        }
        sent += done > 0 ? (size_t)done : 0;
    }
    return BATON_OK;
}

static baton_status receive_all(const question *q, bt_strbuf *answer)
{
    char bytes[16384];
    for (;;) {
        BATON_TRY(wait_for(q, POLLIN, "be answered"));
        ssize_t n = recv(q->fd, bytes, sizeof(bytes), 0);
        if (n == 0)
            return bt_strbuf_status(answer);
        if (n < 0 && errno != EAGAIN && errno != EINTR) {
            int err = errno;
            return bt_fail_errno(BATON_ERR_UNREACHABLE, err, "%s: reading its answer", q->at);
        }
        bt_strbuf_append(answer, bytes, n > 0 ? (size_t)n : 0);
        if (answer->length > ANSWER_BYTES_MAX)
            return bt_fail(BATON_ERR_TOO_LARGE, "%s: wanted an answer of at most %d bytes", q->at,
                           ANSWER_BYTES_MAX);
    }
}

static baton_status read_answer(const char *at, const bt_strbuf *answer, json_t **answer_p)
{
    unsigned status = 0;
    const char *text = bt_strbuf_text(answer), *body = strstr(text, "\r\n\r\n");
    json_t *json = NULL;
    if (body != NULL && sscanf(text, "HTTP/1.1 %3u ", &status) == 1)
        json = json_loads(body + 4, JSON_REJECT_DUPLICATES, NULL);
    if (!json_is_object(json)) {
        json_decref(json);
        return bt_fail(BATON_ERR_BAD_MESSAGE,
                       "%s: wanted JSON of a sender, receiver or proxy, found %zu other bytes", at,
                       answer->length);
    }
    if (status == 200) {
        *answer_p = json;
        return BATON_OK;
    }
    const char *error = json_string_value(json_object_get(json, "error"));
    baton_status failure =
        bt_fail(BATON_ERR_REFUSED, "%s: %.300s", at, error != NULL ? error : "it refuses");
    json_decref(json);
    return failure;
}

baton_status bt_ctl_get(const char *at, const char *target, uint32_t timeout_ms, json_t **answer_p)
{
    char head[1024];
    question q = {
        .at = at, .fd = -1, .deadline_ns = bt_deadline_ns(now_ns(), timeout_ms * BT_NS_PER_MS)};
    bt_strbuf answer = {0};
    bool is_unix = strncmp(at, "unix:", 5) == 0;
    int n = snprintf(head, sizeof(head), "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", target);
    if (n < 0 || (size_t)n >= sizeof(head))
        return bt_fail(BATON_ERR_INVALID_ARG, "wanted a shorter question than %d bytes", n);
    baton_status status = is_unix || strchr(at, '/') != NULL
                              ? connect_unix(&q, is_unix ? at + 5 : at)
                              : connect_port(&q);
    if (status == BATON_OK)
        status = send_all(&q, head);
    if (status == BATON_OK)
        status = receive_all(&q, &answer);
    if (status == BATON_OK)
        status = read_answer(at, &answer, answer_p);
    if (q.fd >= 0)
        close(q.fd);
    bt_strbuf_free(&answer);
    return status;
}
