/* SPDX-License-Identifier: Apache-2.0 */
/* What the control sockets of a sender or a receiver share: the ZeroMQ context, and the keys that
 * baton_security names.
 *
 * Thread rule: owner thread. */
#ifndef BT_WIRE_CONTROL_H
#define BT_WIRE_CONTROL_H
#include <baton/options.h>

#include "wire/security.h"

typedef struct {
    void *context;
    bt_security security;
} bt_control;

/* Opens the receiver's side, whose sockets bind to host; the sender's, whose sockets connect. On
 * failure nothing is left. Errors: those of wire/security.h, NO_MEMORY. */
baton_status bt_control_open_server(const baton_security *security, const char *host,
                                    bt_control *control);
baton_status bt_control_open_client(const baton_security *security, bt_control *control);
/* A socket with the keys, on which up to send_messages wait per peer, connected or not; a peer that
 * sends a frame of more than max_frame_bytes (0: 4 MiB) is cut off. */
baton_status bt_control_socket(bt_control *control, int type, uint32_t send_messages,
                               uint32_t max_frame_bytes, void **socket_p);
/* Closes a socket; what it has not sent yet has linger_ms before bt_control_close drops it. NULL is
 * allowed. */
void bt_control_socket_close(void *socket, uint32_t linger_ms);
/* After all sockets. A zeroed one is allowed. */
void bt_control_close(bt_control *control);

#endif
