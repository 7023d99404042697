/* SPDX-License-Identifier: Apache-2.0 */
/* How processes of one host wake each other: a datagram socket whose random name lies in Linux's
 * abstract namespace, so that nothing is left behind in a file system. A datagram says nothing but
 * "look into your rings"; one from a stranger costs a look. Reaching a socket needs the same
 * network namespace, which a first ring finds out.
 *
 * Thread rule: owner thread. */
#ifndef BT_CORE_WAKESOCKET_H
#define BT_CORE_WAKESOCKET_H
#include <baton/status.h>
#include <stdbool.h>
#include <stddef.h>

typedef struct bt_wakesocket bt_wakesocket;

enum { BT_WAKE_NAME_BYTES_MAX = 64 };

/* Errors: NO_MEMORY, IO and others of socket(2) and bind(2). */
baton_status bt_wakesocket_create(bt_wakesocket **socket_p);
void bt_wakesocket_destroy(bt_wakesocket *socket); /* NULL is allowed. */
/* What others ring it by: *bytes of text. Borrowed until destroy. */
const char *bt_wakesocket_name(const bt_wakesocket *socket, size_t *bytes);
/* Readable after it was rung, until it is silenced. Borrowed until destroy. */
int bt_wakesocket_fd(const bt_wakesocket *socket);
void bt_wakesocket_silence(bt_wakesocket *socket);
/* Rings the socket of that name. False: nobody has it, or it cannot be reached from here. */
bool bt_wakesocket_ring(bt_wakesocket *socket, const char *name, size_t bytes);

#endif
