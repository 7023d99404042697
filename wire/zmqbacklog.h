/* SPDX-License-Identifier: Apache-2.0 */
/* What the connections of a ROUTER have not read yet, bounded in bytes: ZeroMQ counts messages, and
 * one of ours may have a hundred bytes or a million.
 *
 *   send ──▶ ZeroMQ's queue of the connection ──▶ kernel ──▶ peer
 *     └─ waiting += bytes           └─ taken: waiting -= bytes     (ZeroMQ's thread)
 *
 * An eighth of what is left of all_bytes, and at most each_bytes, may wait for a connection. So all
 * of them together never have more than all_bytes; and however many do not read, there is room for
 * who does.
 *
 * Thread rule: owner thread, which also has the sockets. */
#ifndef BT_WIRE_ZMQBACKLOG_H
#define BT_WIRE_ZMQBACKLOG_H
#include "wire/zmqsocket.h"

enum { BT_BACKLOG_FRAME_BYTES = 256 }; /* what a frame costs besides its bytes, about */

typedef struct bt_backlog bt_backlog;

typedef struct {
    uint64_t all_bytes, each_bytes;
    uint64_t patience_ns; /* a connection that takes nothing for so long does not read */
} bt_backlog_limits;

/* Errors: NO_MEMORY. */
baton_status bt_backlog_create(const bt_backlog_limits *limits, bt_backlog **backlog_p);
/* After the context of its sockets. NULL is allowed. */
void bt_backlog_destroy(bt_backlog *backlog);

/* Sends a frame to a connection. BATON_IN_PROGRESS: dropped, too much waits for this connection.
 * Errors: BUSY (that too, and it has taken nothing for patience_ns), UNREACHABLE (it has gone),
 * NO_MEMORY, CLOSED. */
baton_status bt_backlog_send(bt_backlog *backlog, void *socket, bt_blob route, bt_blob frame,
                             uint64_t now_ns);
uint64_t bt_backlog_waiting(const bt_backlog *backlog); /* bytes, of all connections */

#endif
