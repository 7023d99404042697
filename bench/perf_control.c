/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/perf_control.h"

#include "core/fail.h"

#include <errno.h>
#include <inttypes.h>
#include <netdb.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

/* In the child, between fork and exec: the socket must survive exec, the child must not survive its
 * parent. */
static _Noreturn void become(const char *program, const char *role, int fd)
{
    char number[16];
    snprintf(number, sizeof(number), "%d", dup(fd));
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    char *argv[] = {(char *)(uintptr_t)program,
                    (char[]){"--role"},
                    (char *)(uintptr_t)role,
                    (char[]){"--control-fd"},
                    number,
                    NULL};
    execv(program, argv);
    _exit(127);
}

baton_status bt_perf_spawn(const char *program, const char *role, bt_perf_control *control,
                           pid_t *child)
{
    int fds[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) != 0)
        return bt_fail_errno(BATON_ERR_IO, errno, "perf: socket pair");
    *child = fork();
    if (*child == 0)
        become(program, role, fds[1]);
    int err = errno;
    close(fds[1]);
    if (*child < 0) {
        close(fds[0]);
        return bt_fail_errno(BATON_ERR_IO, err, "perf: starting a %s", role);
    }
    *control = (bt_perf_control){.fd = fds[0]};
    return BATON_OK;
}

static baton_status resolve(const char *host, uint16_t port, struct addrinfo **found)
{
    char service[8];
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    snprintf(service, sizeof(service), "%u", port);
    int rc = getaddrinfo(host, service, &hints, found);
    if (rc != 0)
        return bt_fail(BATON_ERR_UNREACHABLE, "perf: %s: %s", host, gai_strerror(rc));
    return BATON_OK;
}

baton_status bt_perf_connect(const char *host, uint16_t port, bt_perf_control *control)
{
    struct addrinfo *found;
    BATON_TRY(resolve(host, port, &found));
    int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    int rc = fd >= 0 ? connect(fd, found->ai_addr, found->ai_addrlen) : -1;
    int err = errno;
    freeaddrinfo(found);
    if (rc == 0) {
        *control = (bt_perf_control){.fd = fd};
        return BATON_OK;
    }
    if (fd >= 0)
        close(fd);
    return bt_fail_errno(BATON_ERR_UNREACHABLE, err, "perf: receiver at %s:%u", host, port);
}

static baton_status bind_first(int fd, const struct addrinfo *found, uint16_t *port)
{
    struct sockaddr_storage bound;
    socklen_t bytes = sizeof(bound);
    int yes = 1;
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &yes, sizeof(yes));
    if (bind(fd, found->ai_addr, found->ai_addrlen) != 0 || listen(fd, 4) != 0 ||
        getsockname(fd, (struct sockaddr *)&bound, &bytes) != 0)
        return bt_fail_errno(bt_status_from_errno(errno), errno, "perf: --listen");
    *port = bound.ss_family == AF_INET6 ? ntohs(((struct sockaddr_in6 *)(void *)&bound)->sin6_port)
                                        : ntohs(((struct sockaddr_in *)(void *)&bound)->sin_port);
    return BATON_OK;
}

baton_status bt_perf_listen(const char *host, uint16_t *port, int *fd_p)
{
    struct addrinfo *found;
    BATON_TRY(resolve(host, *port, &found));
    int fd = socket(found->ai_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    baton_status status =
        fd >= 0 ? bind_first(fd, found, port) : bt_fail_errno(BATON_ERR_IO, errno, "perf: socket");
    freeaddrinfo(found);
    if (status == BATON_OK)
        *fd_p = fd;
    else if (fd >= 0)
        close(fd);
    return status;
}

baton_status bt_perf_send(bt_perf_control *control, const char *format, ...)
{
    char line[BT_PERF_LINE_BYTES];
    va_list args;
    va_start(args, format);
    int n = vsnprintf(line, sizeof(line) - 1, format, args);
    va_end(args);
    if (n < 0 || (size_t)n >= sizeof(line) - 1)
        return bt_fail(BATON_ERR_TOO_LARGE, "perf: line of %d bytes", n);
    for (char *at = line; *at != '\0'; at++)
        *at = *at == '\n' ? ' ' : *at; /* texts of errors may have several lines */
    line[n++] = '\n';
    for (int done = 0; done < n;) {
        ssize_t sent = send(control->fd, line + done, (size_t)(n - done), MSG_NOSIGNAL);
        if (sent < 0 && errno == EINTR)
            continue;
        if (sent <= 0)
            return bt_fail_errno(BATON_ERR_PEER_GONE, errno, "perf: the other process");
        done += (int)sent;
    }
    return BATON_OK;
}

static bool take_line(bt_perf_control *control, char line[BT_PERF_LINE_BYTES])
{
    const char *end = memchr(control->bytes, '\n', control->n);
    if (end == NULL)
        return false;
    size_t n = (size_t)(end - control->bytes);
    memcpy(line, control->bytes, n);
    line[n] = '\0';
    control->n -= n + 1;
    memmove(control->bytes, end + 1, control->n);
    return true;
}

baton_status bt_perf_receive(bt_perf_control *control, bool wait, char line[BT_PERF_LINE_BYTES])
{
    while (!take_line(control, line)) {
        size_t room = sizeof(control->bytes) - control->n;
        if (room == 0)
            return bt_fail(BATON_ERR_TOO_LARGE, "perf: wanted lines below %d bytes, found a longer",
                           BT_PERF_LINE_BYTES);
        ssize_t n = recv(control->fd, control->bytes + control->n, room, wait ? 0 : MSG_DONTWAIT);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            return BATON_IN_PROGRESS;
        if (n <= 0)
            return bt_fail(BATON_ERR_PEER_GONE, "perf: the other process has closed its end");
        control->n += (size_t)n;
    }
    return BATON_OK;
}

void bt_perf_close(bt_perf_control *control)
{
    if (control->fd >= 0)
        close(control->fd);
    control->fd = -1;
}

bool bt_perf_line_is(const char *line, const char *word)
{
    size_t n = strlen(word);
    return strncmp(line, word, n) == 0 && (line[n] == ' ' || line[n] == '\0');
}

baton_status bt_perf_field(const char *line, const char *key, uint64_t min, uint64_t max,
                           uint64_t *value)
{
    char pattern[64];
    int n = snprintf(pattern, sizeof(pattern), " %s=", key);
    const char *at = strstr(line, pattern);
    char *end = NULL;
    errno = 0;
    uint64_t found = at != NULL ? strtoull(at + n, &end, 10) : 0;
    if (at == NULL || at[n] < '0' || at[n] > '9' || (*end != ' ' && *end != '\0') || errno != 0 ||
        found < min || found > max)
        return bt_fail(BATON_ERR_BAD_MESSAGE,
                       "perf: wanted %s from %" PRIu64 " to %" PRIu64 " in: %s", key, min, max,
                       line);
    *value = found;
    return BATON_OK;
}

baton_status bt_perf_expect(bt_perf_control *control, const char *word,
                            char line[BT_PERF_LINE_BYTES])
{
    uint64_t code;
    BATON_TRY(bt_perf_receive(control, true, line));
    if (bt_perf_line_is(line, word))
        return BATON_OK;
    if (bt_perf_line_is(line, "bad"))
        return bt_fail(BATON_ERR_CORRUPT, "%s", line + strlen("bad "));
    if (bt_perf_line_is(line, "error") && bt_perf_field(line, "status", 1, 255, &code) == BATON_OK)
        return bt_fail((baton_status) - (int)code, "%s", line + strlen("error "));
    return bt_fail(BATON_ERR_BAD_MESSAGE, "perf: wanted '%s', found: %s", word, line);
}
