/* SPDX-License-Identifier: Apache-2.0 */
/* Keeps connections to sockets that listen from making ZeroMQ hold memory without end. A message
 * may have any number of parts, of which ZeroMQ keeps all until the last has come; no limit of its
 * own counts them, and nothing of them is seen before.
 *
 *   peers ──▶ kernel ──▶ ZeroMQ ──▶ bt_zmq_guard_recv ──▶ us
 *               │ TCP_INFO              │ given
 *               └──────▶ guard's thread ┘   too much held (zmqheld.h): the connection is shut down
 *
 * The thread looks at the connections ten times a second, a hundred times while much is held, and
 * sleeps while there are none. A message is known not to have ended when the owner found its socket
 * empty; an owner that is late delays this judgement, and the bound for all that is held remains.
 * What comes between two looks is not bounded but by the speed at which one thread of ZeroMQ can
 * read.
 *
 * Thread rule: owner thread, which also has the sockets. */
#ifndef BT_WIRE_ZMQGUARD_H
#define BT_WIRE_ZMQGUARD_H
#include "wire/zmqsocket.h"

enum { BT_ZMQ_GUARD_SOCKETS_MAX = 2 };

typedef struct bt_zmq_guard bt_zmq_guard;

typedef struct {
    const char *what; /* whose connections they are, for the log; borrowed */
    /* Called by the guard's thread: the owner is to call bt_zmq_guard_recv for each socket soon,
     * until there is nothing more. */
    void (*wake)(void *ctx);
    void *ctx;
    /* Bytes as they were on the wire; 0: the default. */
    uint64_t noise_bytes;      /* of one: besides two of the socket's largest frames; 1 MiB */
    uint64_t unfinished_bytes; /* of all: messages that have not ended; 64 MiB */
    uint64_t held_bytes;       /* of all: those, and what waits for us; 256 MiB */
} bt_zmq_guard_options;

/* Errors: OVERLOADED (no descriptors), NO_MEMORY, IO. */
baton_status bt_zmq_guard_create(const bt_zmq_guard_options *options, bt_zmq_guard **guard_p);
/* Before the socket is bound; what is taken from it then goes through bt_zmq_guard_recv. Errors: as
 * bt_zmq_monitor_open. */
baton_status bt_zmq_guard_watch(bt_zmq_guard *guard, void *context, void *socket);
/* After the last socket. Errors: NO_MEMORY. */
baton_status bt_zmq_guard_start(bt_zmq_guard *guard);
/* As bt_zmq_recv. */
baton_status bt_zmq_guard_recv(bt_zmq_guard *guard, void *socket, bt_zmq_message *message);
/* Wake was called since this was asked last. */
bool bt_zmq_guard_called(bt_zmq_guard *guard);
/* Connections that were shut down. Any thread. */
uint64_t bt_zmq_guard_cut_total(const bt_zmq_guard *guard);
/* Before the sockets are closed. NULL is allowed. */
void bt_zmq_guard_destroy(bt_zmq_guard *guard);

#endif
