/* SPDX-License-Identifier: Apache-2.0 */
/* The socket that admin clients connect to.
 * Thread rule: owner thread. */
#ifndef BT_CORE_ADMINSOCKET_H
#define BT_CORE_ADMINSOCKET_H
#include <baton/status.h>
#include <stdbool.h>

enum { BT_ADMIN_PATH_BYTES = 108, BT_ADMIN_ADDRESS_BYTES = 160 };

typedef struct {
    int fd; /* -1: none */
    bool is_unix;
    char path[BT_ADMIN_PATH_BYTES];       /* of a Unix socket */
    char address[BT_ADMIN_ADDRESS_BYTES]; /* as a client wants it */
} bt_adminsocket;

/* where, role, name, rank: as in core/adminserver.h. Listens. */
baton_status bt_adminsocket_open(const char *where, const char *role, const char *name,
                                 uint32_t rank, bt_adminsocket *socket);
/* Removes the file too. */
void bt_adminsocket_close(bt_adminsocket *socket);
/* The next client, non-blocking; -1: none, or one that is not let in. */
int bt_adminsocket_accept(const bt_adminsocket *socket);

#endif
