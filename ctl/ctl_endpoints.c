/* SPDX-License-Identifier: Apache-2.0 */
#include "ctl/ctl_endpoints.h"

#include "core/adminserver.h"
#include "core/fail.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

static bool somebody_listens(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (strlen(path) >= sizeof(address.sun_path))
        return false;
    strcpy(address.sun_path, path);
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    /* EAGAIN: its queue is full, which is worth being told. */
    bool listens = fd >= 0 && (connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0 ||
                               errno == EAGAIN);
    if (fd >= 0)
        close(fd);
    return listens;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(a, b);
}

static void look_into(const char *folder, bt_ctl_endpoints *endpoints)
{
    DIR *dir = opendir(folder);
    const struct dirent *entry;
    while (dir != NULL && endpoints->n < BT_CTL_ENDPOINTS_MAX && (entry = readdir(dir)) != NULL) {
        char path[BT_CTL_ADDRESS_BYTES];
        size_t bytes = strlen(entry->d_name);
        int n = snprintf(path, sizeof(path), "%s/%s", folder, entry->d_name);
        bool is_socket = bytes > 5 && strcmp(entry->d_name + bytes - 5, ".sock") == 0;
        if (is_socket && n > 0 && (size_t)n + 5 < sizeof(path) && somebody_listens(path))
            snprintf(endpoints->at[endpoints->n++], BT_CTL_ADDRESS_BYTES, "unix:%.200s", path);
    }
    if (dir != NULL)
        closedir(dir);
    qsort(endpoints->at, endpoints->n, sizeof(endpoints->at[0]), by_name);
}

baton_status bt_ctl_endpoints_find(const bt_ctl_options *options, bt_ctl_endpoints *endpoints)
{
    char folder[BT_CTL_ADDRESS_BYTES];
    endpoints->n = 0;
    for (uint32_t i = 0; i < options->n_at; i++) {
        int n = snprintf(endpoints->at[endpoints->n++], BT_CTL_ADDRESS_BYTES, "%s", options->at[i]);
        if (n <= 0 || n >= BT_CTL_ADDRESS_BYTES)
            return bt_fail(BATON_ERR_INVALID_ARG,
                           "--at: wanted an address of 1 to %d bytes, found "
                           "%d",
                           BT_CTL_ADDRESS_BYTES - 1, n);
    }
    if (endpoints->n > 0)
        return BATON_OK;
    BATON_TRY(bt_admin_folder(folder, sizeof(folder)));
    look_into(folder, endpoints);
    if (endpoints->n == 0)
        return bt_fail(BATON_ERR_NOT_FOUND,
                       "wanted a live sender, receiver or proxy with a socket in %.150s, found "
                       "none: does one run as uid %u, with the same XDG_RUNTIME_DIR and without "
                       "admin: off? else name it with --at",
                       folder, (unsigned)geteuid());
    return BATON_OK;
}
