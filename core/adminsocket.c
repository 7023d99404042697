/* SPDX-License-Identifier: Apache-2.0 */
#include "core/adminsocket.h"

#include "core/adminserver.h"
#include "core/fail.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

enum { BACKLOG = 16, STALE_LOOKS_MAX = 512, NAME_BYTES = 24 };

baton_status bt_admin_folder(char *path, size_t cap)
{
    const char *runtime = getenv("XDG_RUNTIME_DIR");
    int n = runtime != NULL && runtime[0] == '/'
                ? snprintf(path, cap, "%s/baton", runtime)
                : snprintf(path, cap, "/tmp/baton-%u", (unsigned)geteuid());
    if (n < 0 || (size_t)n >= cap)
        return bt_fail(BATON_ERR_TOO_LARGE,
                       "admin: XDG_RUNTIME_DIR: wanted at most %zu bytes, found %d", cap - 1, n);
    return BATON_OK;
}

/* Whoever else could write the folder could put a socket of theirs in the place of ours. */
static baton_status check_folder(const char *path)
{
    struct stat facts;
    int fd = open(path, O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &facts) != 0) {
        int err = errno;
        if (fd >= 0)
            close(fd);
        return bt_fail_errno(bt_status_from_errno(err), err, "admin: folder %s", path);
    }
    close(fd);
    if (facts.st_uid != geteuid() || (facts.st_mode & 077) != 0)
        return bt_fail(BATON_ERR_PERMISSION,
                       "admin: folder %s: wanted one of uid %u with mode 0700, found uid %u, mode "
                       "%04o",
                       path, (unsigned)geteuid(), (unsigned)facts.st_uid,
                       (unsigned)facts.st_mode & 07777);
    return BATON_OK;
}

static socklen_t unix_address(struct sockaddr_un *address, const char *path)
{
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    size_t n = strlen(path);
    memcpy(address->sun_path, path, n);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + n + 1);
}

/* False for what is no socket: that is left alone. */
static bool nobody_listens(const char *path)
{
    struct stat facts;
    struct sockaddr_un address;
    if (lstat(path, &facts) != 0 || !S_ISSOCK(facts.st_mode))
        return false;
    socklen_t bytes = unix_address(&address, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (fd < 0)
        return false;
    bool is_refused = connect(fd, (struct sockaddr *)&address, bytes) != 0 && errno == ECONNREFUSED;
    close(fd);
    return is_refused;
}

/* The pid in ROLE-NAME-RANK-PID-N.sock; 0: the name is another one. */
static long pid_of(const char *name)
{
    const char *end = strstr(name, ".sock");
    if (end == NULL || end[5] != 0)
        return 0;
    const char *at = end;
    for (int dashes = 0; at > name; at--) {
        if (at[-1] == '-' && ++dashes == 2)
            return strtol(at, NULL, 10);
    }
    return 0;
}

/* Files of processes that were killed. One that listens under another pid namespace looks gone, but
 * takes connections. */
static void remove_stale(const char *folder)
{
    DIR *dir = opendir(folder);
    if (dir == NULL)
        return;
    const struct dirent *entry;
    for (int n = 0; n < STALE_LOOKS_MAX && (entry = readdir(dir)) != NULL; n++) {
        char path[BT_ADMIN_PATH_BYTES];
        long pid = pid_of(entry->d_name);
        if (pid <= 0 || kill((pid_t)pid, 0) == 0 || errno != ESRCH)
            continue;
        int length = snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
        if (length > 0 && (size_t)length < sizeof(path) && nobody_listens(path))
            unlink(path);
    }
    closedir(dir);
}

/* A name of letters, digits and _ only, as part of a file's name. */
static void plain_name(const char *name, char plain[NAME_BYTES + 1])
{
    size_t n = 0;
    for (; name[n] != 0 && n < NAME_BYTES; n++) {
        char c = name[n];
        bool is_plain = (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
        plain[n] = is_plain ? c : '_';
    }
    plain[n] = 0;
}

static baton_status path_in(const char *folder, const char *role, const char *name, uint32_t rank,
                            bt_adminsocket *socket)
{
    static _Atomic uint32_t n_made; /* relaxed: only tells sockets of one process apart */
    char plain[NAME_BYTES + 1];
    plain_name(name, plain);
    uint32_t nth = atomic_fetch_add_explicit(&n_made, 1, memory_order_relaxed);
    int n = snprintf(socket->path, sizeof(socket->path), "%s/%s-%s-%u-%ld-%u.sock", folder, role,
                     plain, rank, (long)getpid(), nth);
    if (n < 0 || (size_t)n >= sizeof(socket->path))
        return bt_fail(BATON_ERR_TOO_LARGE,
                       "admin: wanted a path of at most %zu bytes for a socket in %.200s, found %d",
                       sizeof(socket->path) - 1, folder, n);
    return BATON_OK;
}

static baton_status listening(bt_adminsocket *admin, const struct sockaddr *address,
                              socklen_t bytes, const char *where)
{
    int on = 1;
    admin->fd = socket(address->sa_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (admin->fd >= 0 && !admin->is_unix)
        setsockopt(admin->fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    bool is_bound = admin->fd >= 0 && bind(admin->fd, address, bytes) == 0;
    /* Nobody can connect between the two: a socket that does not listen yet refuses. */
    bool is_ours = is_bound && (!admin->is_unix || chmod(admin->path, 0600) == 0);
    if (is_ours && listen(admin->fd, BACKLOG) == 0)
        return BATON_OK;
    int err = errno;
    if (admin->is_unix && is_bound)
        unlink(admin->path);
    if (admin->fd >= 0)
        close(admin->fd);
    admin->fd = -1;
    return bt_fail_errno(bt_status_from_errno(err), err, "admin: listening on %s", where);
}

static baton_status open_unix(bt_adminsocket *admin)
{
    struct sockaddr_un address;
    admin->is_unix = true;
    if (nobody_listens(admin->path))
        unlink(admin->path); /* left behind by a process that was killed */
    socklen_t bytes = unix_address(&address, admin->path);
    BATON_TRY(listening(admin, (struct sockaddr *)&address, bytes, admin->path));
    snprintf(admin->address, sizeof(admin->address), "unix:%s", admin->path);
    return BATON_OK;
}

static baton_status open_auto(const char *role, const char *name, uint32_t rank,
                              bt_adminsocket *admin)
{
    char folder[BT_ADMIN_PATH_BYTES];
    BATON_TRY(bt_admin_folder(folder, sizeof(folder)));
    if (mkdir(folder, 0700) != 0 && errno != EEXIST) {
        int err = errno;
        return bt_fail_errno(bt_status_from_errno(err), err, "admin: making the folder %s", folder);
    }
    BATON_TRY(check_folder(folder));
    remove_stale(folder);
    BATON_TRY(path_in(folder, role, name, rank, admin));
    return open_unix(admin);
}

static baton_status open_path(const char *path, const char *role, const char *name, uint32_t rank,
                              bt_adminsocket *admin)
{
    struct stat facts;
    if (stat(path, &facts) == 0 && S_ISDIR(facts.st_mode)) {
        BATON_TRY(path_in(path, role, name, rank, admin));
    } else {
        int n = snprintf(admin->path, sizeof(admin->path), "%s", path);
        if (n <= 0 || (size_t)n >= sizeof(admin->path))
            return bt_fail(BATON_ERR_INVALID_ARG,
                           "admin: unix: wanted a path of 1 to %zu bytes, found %d",
                           sizeof(admin->path) - 1, n);
    }
    return open_unix(admin);
}

/* Where loopback is, by number; "localhost" is 127.0.0.1. */
static bool loopback(const char *host, uint16_t port, struct sockaddr_storage *address,
                     socklen_t *bytes)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)address;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)address;
    memset(address, 0, sizeof(*address));
    v4->sin_family = AF_INET;
    v4->sin_port = htons(port);
    *bytes = sizeof(*v4);
    if (inet_pton(AF_INET, strcmp(host, "localhost") == 0 ? "127.0.0.1" : host, &v4->sin_addr) == 1)
        return ntohl(v4->sin_addr.s_addr) >> 24 == 127;
    memset(address, 0, sizeof(*address));
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    *bytes = sizeof(*v6);
    return inet_pton(AF_INET6, host, &v6->sin6_addr) == 1 && IN6_IS_ADDR_LOOPBACK(&v6->sin6_addr);
}

static uint16_t port_of(int fd)
{
    struct sockaddr_storage address;
    socklen_t bytes = sizeof(address);
    if (getsockname(fd, (struct sockaddr *)&address, &bytes) != 0)
        return 0;
    return ntohs(address.ss_family == AF_INET ? ((struct sockaddr_in *)&address)->sin_port
                                              : ((struct sockaddr_in6 *)&address)->sin6_port);
}

static baton_status open_port(const char *where, uint32_t rank, bt_adminsocket *admin)
{
    char host[64] = "";
    struct sockaddr_storage address;
    socklen_t bytes;
    const char *colon = strrchr(where, ':');
    size_t n = colon != NULL ? (size_t)(colon - where) : 0;
    char *end = NULL;
    unsigned long port = colon != NULL ? strtoul(colon + 1, &end, 10) : 0;
    bool is_port = colon != NULL && colon[1] >= '0' && colon[1] <= '9' && *end == 0;
    bool is_bracketed = n >= 2 && where[0] == '[' && where[n - 1] == ']';
    if (n < sizeof(host))
        snprintf(host, sizeof(host), "%.*s", (int)(is_bracketed ? n - 2 : n),
                 is_bracketed ? where + 1 : where);
    if (port != 0)
        port += rank;
    if (!is_port || port > UINT16_MAX || host[0] == 0)
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "admin: wanted auto, off, unix:PATH or 127.0.0.1:PORT, found %.100s", where);
    if (!loopback(host, (uint16_t)port, &address, &bytes))
        return bt_fail(BATON_ERR_PERMISSION,
                       "admin: wanted an address of loopback: nobody who asks has to say who they "
                       "are; found %s",
                       host);
    BATON_TRY(listening(admin, (struct sockaddr *)&address, bytes, where));
    snprintf(admin->address, sizeof(admin->address), "%.*s:%u", (int)n, where, port_of(admin->fd));
    return BATON_OK;
}

baton_status bt_adminsocket_open(const char *where, const char *role, const char *name,
                                 uint32_t rank, bt_adminsocket *admin)
{
    *admin = (bt_adminsocket){.fd = -1};
    if (where == NULL || where[0] == 0 || strcmp(where, "auto") == 0)
        return open_auto(role, name, rank, admin);
    if (strncmp(where, "unix:", 5) == 0)
        return open_path(where + 5, role, name, rank, admin);
    return open_port(where, rank, admin);
}

void bt_adminsocket_close(bt_adminsocket *admin)
{
    if (admin->fd < 0)
        return;
    close(admin->fd);
    if (admin->is_unix)
        unlink(admin->path);
    admin->fd = -1;
}

static bool is_let_in(int fd)
{
    struct ucred peer;
    socklen_t bytes = sizeof(peer);
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) == 0 &&
           (peer.uid == geteuid() || peer.uid == 0);
}

int bt_adminsocket_accept(const bt_adminsocket *admin)
{
    int fd = accept4(admin->fd, NULL, NULL, SOCK_NONBLOCK | SOCK_CLOEXEC);
    if (fd >= 0 && admin->is_unix && !is_let_in(fd)) {
        close(fd);
        return -1;
    }
    return fd;
}
