/* SPDX-License-Identifier: Apache-2.0 */
/* Binds a ZeroMQ socket such that connections that this process has no descriptors for are turned
 * away. Left to itself, libzmq's thread tries to accept them over and over, with all of a CPU,
 * until a descriptor is free.
 *
 *   peers ──connect──▶ listener (ours) ─┬─ accept ──▶ libzmq            while there are descriptors
 *                                       └─ turn ──▶ accepted with one of the reserve, and closed
 *
 * Thread rule: owner thread. */
#ifndef BT_WIRE_ZMQGATE_H
#define BT_WIRE_ZMQGATE_H
#include "core/fdroom.h"
#include "wire/zmqsocket.h"

typedef struct {
    bool is_open;
    int fd; /* the listener: readable when somebody waits to be accepted */
    bt_fdreserve reserve;
    uint64_t refused_total;
} bt_zmq_gate;

/* As bt_zmq_bind. With a host that is no literal address (a device's name) the gate stays closed.
 * Errors: those of bt_zmq_bind. */
baton_status bt_zmq_gate_bind(void *socket, const char *host, uint16_t port, uint16_t *bound_port,
                              bt_zmq_gate *gate);
/* gate->fd is readable. True: whoever waits is accepted by libzmq, or was turned away and counted.
 * False: nothing can be done now; look again in a while. */
bool bt_zmq_gate_turn(bt_zmq_gate *gate);
/* Before the socket is closed. A zeroed one is allowed. */
void bt_zmq_gate_close(bt_zmq_gate *gate);

#endif
