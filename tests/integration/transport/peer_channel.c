/* SPDX-License-Identifier: Apache-2.0 */
#include "peer_channel.h"

#include <sys/socket.h>

bool peer_send(int fd, const void *block, size_t bytes)
{
    for (size_t done = 0; done < bytes;) {
        ssize_t n = send(fd, (const char *)block + done, bytes - done, MSG_NOSIGNAL);
        if (n <= 0)
            return false;
        done += (size_t)n;
    }
    return true;
}

bool peer_receive(int fd, void *block, size_t bytes)
{
    return recv(fd, block, bytes, MSG_WAITALL) == (ssize_t)bytes;
}
