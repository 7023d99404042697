/* SPDX-License-Identifier: Apache-2.0 */
/* A transport that moves its bytes on a thread of its own: around one of any backend, whose workers
 * that thread alone calls. Its user, the rails (rails.h), sees a transport like any other; several
 * lanes of one connection then keep several cores busy.
 *
 *   owner                                   lane's thread
 *   put, flush, send, close, release --queue--> runs them in this order, then gives every worker a
 *   connect, import, ... wait for an answer     turn: here bytes are copied into and out of sockets
 *   worker_progress <-- ring of a worker ------ what a turn reports
 *
 * The rule of who may touch what:
 *   - The inner transport's workers, endpoints and remotes: the lane's thread, nobody else. So what
 *     ucx checks and copies when a message comes in is under no other lock than before (that of its
 *     registered memory, which the owner takes to register and to free).
 *   - Memory of the inner transport: the owner, as without a lane. Freed memory is written no more:
 *     ucx looks it up and copies under the lock that freeing takes.
 *   - Destroying a worker is a call that waits for its answer: when it returns, the thread has
 *     destroyed the inner worker, and nothing of that peer is copied any more. This is what proof
 *     of the end of late writes rests on (transport.h).
 *   - What the thread has copied is the owner's to read after bt_worker_observe.
 *   - The queue, and the ring of each worker, have a lock each; no call of a backend's is made
 *     under either. The thread never waits for the owner: a full ring stops only that worker's
 *     turns.
 *
 * An error of put and flush comes as a failed event instead of a status, one of send as FAILED.
 * A thread without work sleeps in epoll over its workers' fds and its doorbell.
 *
 * Thread rule: as transport.h. */
#ifndef BT_TRANSPORT_LANE_H
#define BT_TRANSPORT_LANE_H
#include "transport/transport.h"

/* Takes over inner, also when it fails. Errors: NO_MEMORY, IO, BUSY (no thread could be started).
 */
baton_status bt_lane_create(bt_transport *inner, bt_transport **transport_p);

#endif
