/* SPDX-License-Identifier: Apache-2.0 */
#include "support/httpask.h"

#include <errno.h>
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static int connect_to(uint16_t port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    struct timeval guard = {.tv_sec = 300};
    (void)setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &guard, sizeof(guard));
    if (fd >= 0 && connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0)
        return fd;
    if (fd >= 0)
        close(fd);
    return -1;
}

static bool send_all(int fd, const char *bytes, size_t n)
{
    while (n > 0) {
        ssize_t sent = TEMP_FAILURE_RETRY(send(fd, bytes, n, MSG_NOSIGNAL));
        if (sent <= 0)
            return false;
        bytes += sent;
        n -= (size_t)sent;
    }
    return true;
}

int bt_http_open(uint16_t port, const char *method, const char *path, const char *body,
                 const char *text)
{
    bt_strbuf request = {0}, seen = {0};
    size_t n = body != NULL ? strlen(body) : 0;
    bt_strbuf_printf(&request, "%s %s HTTP/1.1\r\nHost: test\r\nConnection: close\r\n", method,
                     path);
    if (body != NULL)
        bt_strbuf_printf(&request, "Content-Type: application/json\r\nContent-Length: %zu\r\n", n);
    bt_strbuf_puts(&request, "\r\n");
    bt_strbuf_append(&request, body != NULL ? body : "", n);
    int fd = connect_to(port);
    bool ok = fd >= 0 && send_all(fd, request.data, request.length);
    while (ok && text != NULL && strstr(bt_strbuf_text(&seen), text) == NULL) {
        char bytes[4096];
        ssize_t got = TEMP_FAILURE_RETRY(recv(fd, bytes, sizeof(bytes), 0));
        ok = got > 0;
        bt_strbuf_append(&seen, bytes, ok ? (size_t)got : 0);
    }
    bt_strbuf_free(&request);
    bt_strbuf_free(&seen);
    if (!ok && fd >= 0) {
        close(fd);
        fd = -1;
    }
    return fd;
}

static void join_chunks(bt_http_answer *answer, const char *at, const char *end)
{
    while (at < end) {
        char *after;
        size_t n = strtoul(at, &after, 16);
        if (after + 2 > end || (size_t)(end - after) < n + 4)
            return;
        if (n == 0) {
            answer->complete = true;
            return;
        }
        bt_strbuf_append(&answer->body, after + 2, n);
        at = after + 2 + n + 2;
    }
}

static void split_answer(const bt_strbuf *all, bt_http_answer *answer)
{
    const char *text = bt_strbuf_text(all), *end = text + all->length;
    const char *body = strstr(text, "\r\n\r\n");
    if (body == NULL || strncmp(text, "HTTP/1.1 ", 9) != 0)
        return;
    answer->status = (unsigned)strtoul(text + 9, NULL, 10);
    bt_strbuf_append(&answer->head, text, (size_t)(body - text));
    body += 4;
    if (strcasestr(answer->head.data, "transfer-encoding: chunked") != NULL) {
        join_chunks(answer, body, end);
        return;
    }
    const char *length = strcasestr(answer->head.data, "content-length:");
    bt_strbuf_append(&answer->body, body, (size_t)(end - body));
    answer->complete = length != NULL && strtoul(length + 15, NULL, 10) == (size_t)(end - body);
}

void bt_http_finish(int fd, bt_http_answer *answer)
{
    bt_strbuf all = {0};
    char bytes[16384];
    *answer = (bt_http_answer){0};
    for (ssize_t got; (got = TEMP_FAILURE_RETRY(recv(fd, bytes, sizeof(bytes), 0))) > 0;)
        bt_strbuf_append(&all, bytes, (size_t)got);
    close(fd);
    split_answer(&all, answer);
    bt_strbuf_free(&all);
}

void bt_http_call(uint16_t port, const char *method, const char *path, const char *body,
                  bt_http_answer *answer)
{
    *answer = (bt_http_answer){0};
    int fd = bt_http_open(port, method, path, body, NULL);
    if (fd >= 0)
        bt_http_finish(fd, answer);
}

int bt_http_send(uint16_t port, const void *bytes, size_t n)
{
    int fd = connect_to(port);
    if (fd >= 0)
        (void)send_all(fd, bytes, n);
    return fd;
}

void bt_http_raw(uint16_t port, const void *bytes, size_t n, bt_http_answer *answer)
{
    *answer = (bt_http_answer){0};
    int fd = bt_http_send(port, bytes, n);
    if (fd < 0)
        return;
    (void)shutdown(fd, SHUT_WR);
    bt_http_finish(fd, answer);
}

void bt_http_answer_clear(bt_http_answer *answer)
{
    bt_strbuf_free(&answer->head);
    bt_strbuf_free(&answer->body);
    *answer = (bt_http_answer){0};
}
