/* SPDX-License-Identifier: Apache-2.0 */
#include "core/wakesocket.h"

#include "core/alloc.h"
#include "core/fail.h"

#include <errno.h>
#include <sodium.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

enum {
    RANDOM_BYTES = 16,
    SILENCE_MAX = 16, /* datagrams taken at once; the kernel queues about ten */
};

struct bt_wakesocket {
    int fd;
    size_t name_bytes;
    char name[BT_WAKE_NAME_BYTES_MAX + 1];
};

/* An abstract name begins with a zero byte and has no end but the address's length. */
static socklen_t fill_address(struct sockaddr_un *address, const char *name, size_t bytes)
{
    *address = (struct sockaddr_un){.sun_family = AF_UNIX};
    memcpy(address->sun_path + 1, name, bytes);
    return (socklen_t)(offsetof(struct sockaddr_un, sun_path) + 1 + bytes);
}

static void make_name(bt_wakesocket *wake)
{
    uint8_t random[RANDOM_BYTES];
    char hex[2 * RANDOM_BYTES + 1];
    randombytes_buf(random, sizeof(random));
    sodium_bin2hex(hex, sizeof(hex), random, sizeof(random));
    wake->name_bytes = (size_t)snprintf(wake->name, sizeof(wake->name), "baton-wake-%s", hex);
}

baton_status bt_wakesocket_create(bt_wakesocket **socket_p)
{
    bt_wakesocket *wake = bt_calloc(1, sizeof(*wake));
    if (wake == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "wake socket");
    struct sockaddr_un address;
    make_name(wake);
    socklen_t address_bytes = fill_address(&address, wake->name, wake->name_bytes);
    wake->fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    if (wake->fd < 0 || bind(wake->fd, (struct sockaddr *)&address, address_bytes) != 0) {
        int err = errno;
        bt_wakesocket_destroy(wake);
        return bt_fail_errno(bt_status_from_errno(err), err, "wake socket");
    }
    *socket_p = wake;
    return BATON_OK;
}

void bt_wakesocket_destroy(bt_wakesocket *wake)
{
    if (wake == NULL)
        return;
    if (wake->fd >= 0)
        close(wake->fd);
    bt_free(wake);
}

const char *bt_wakesocket_name(const bt_wakesocket *wake, size_t *bytes)
{
    *bytes = wake->name_bytes;
    return wake->name;
}

int bt_wakesocket_fd(const bt_wakesocket *wake)
{
    return wake->fd;
}

void bt_wakesocket_silence(bt_wakesocket *wake)
{
    struct mmsghdr unread[SILENCE_MAX] = {0}; /* without room for a byte: datagrams are cut */
    recvmmsg(wake->fd, unread, SILENCE_MAX, 0, NULL);
}

bool bt_wakesocket_ring(bt_wakesocket *wake, const char *name, size_t bytes)
{
    struct sockaddr_un address;
    if (bytes == 0 || bytes > BT_WAKE_NAME_BYTES_MAX)
        return false;
    socklen_t address_bytes = fill_address(&address, name, bytes);
    ssize_t sent =
        sendto(wake->fd, "", 1, MSG_NOSIGNAL, (struct sockaddr *)&address, address_bytes);
    return sent == 1 || errno == EAGAIN; /* full: it is ringing already */
}
