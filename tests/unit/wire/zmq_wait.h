/* SPDX-License-Identifier: Apache-2.0 */
/* Waiting for a socket in tests; the limit only keeps a broken test from hanging.
 *
 * Thread rule: the test's thread. */
#ifndef BT_TESTS_WIRE_ZMQ_WAIT_H
#define BT_TESTS_WIRE_ZMQ_WAIT_H
#include "wire/zmqsocket.h"

enum { HANG_GUARD_MS = 30000 };

static inline bool wait_for(void *socket, short events)
{
    zmq_pollitem_t item = {.socket = socket, .events = events};
    return zmq_poll(&item, 1, HANG_GUARD_MS) == 1;
}

#endif
