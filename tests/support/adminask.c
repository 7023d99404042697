/* SPDX-License-Identifier: Apache-2.0 */
#include "support/adminask.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

int bt_admin_connect(const char *address)
{
    struct sockaddr_un local = {.sun_family = AF_UNIX};
    struct sockaddr_in loopback = {.sin_family = AF_INET,
                                   .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    bool is_unix = strncmp(address, "unix:", 5) == 0;
    const char *colon = strrchr(address, ':');
    assert_non_null(colon);
    loopback.sin_port = htons((uint16_t)atoi(colon + 1));
    if (is_unix)
        snprintf(local.sun_path, sizeof(local.sun_path), "%s", address + 5);
    int fd = socket(is_unix ? AF_UNIX : AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    const struct sockaddr *to =
        is_unix ? (const struct sockaddr *)&local : (const struct sockaddr *)&loopback;
    if (connect(fd, to, is_unix ? sizeof(local) : sizeof(loopback)) != 0)
        fail_msg("connect %s: %s", address, strerror(errno));
    return fd;
}

void bt_admin_send(int fd, const char *text)
{
    size_t n = strlen(text);
    assert_int_equal(send(fd, text, n, MSG_NOSIGNAL), n);
}

char *bt_admin_receive(int fd)
{
    size_t n = 0, cap = 1 << 16;
    char *text = malloc(cap);
    assert_non_null(text);
    for (ssize_t got; (got = recv(fd, text + n, cap - n - 1, 0)) > 0;) {
        n += (size_t)got;
        if (n + 1 < cap)
            continue;
        cap *= 2;
        text = realloc(text, cap);
        assert_non_null(text);
    }
    text[n] = 0;
    close(fd);
    return text;
}

char *bt_admin_ask(const char *address, const char *target, unsigned status)
{
    char head[1024];
    int fd = bt_admin_connect(address);
    snprintf(head, sizeof(head), "GET %s HTTP/1.1\r\nHost: localhost\r\n\r\n", target);
    bt_admin_send(fd, head);
    char *answer = bt_admin_receive(fd);
    char *body = strstr(answer, "\r\n\r\n");
    unsigned found = 0;
    if (body == NULL || sscanf(answer, "HTTP/1.1 %u ", &found) != 1 || found != status)
        fail_msg("%s %s: wanted status %u, found:\n%s", address, target, status, answer);
    memmove(answer, body + 4, strlen(body + 4) + 1);
    return answer;
}

static char folder[] = "/tmp/baton-test-XXXXXX";

void bt_admin_own_folder(void)
{
    assert_non_null(mkdtemp(folder));
    setenv("XDG_RUNTIME_DIR", folder, 1);
}

void bt_admin_remove_folder(void)
{
    char path[64];
    snprintf(path, sizeof(path), "%s/baton", folder);
    DIR *dir = opendir(path);
    const struct dirent *entry;
    while (dir != NULL && (entry = readdir(dir)) != NULL) /* of processes that were killed */
        (void)unlinkat(dirfd(dir), entry->d_name, 0);
    if (dir != NULL)
        closedir(dir);
    (void)rmdir(path);
    if (rmdir(folder) != 0)
        fail_msg("%s: %s", folder, strerror(errno));
}
