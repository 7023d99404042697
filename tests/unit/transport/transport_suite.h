/* SPDX-License-Identifier: Apache-2.0 */
/* What every transport must do, whatever carries the bytes: one suite, run over each backend by a
 * small main that says how to open it.
 *
 * Thread rule: the test's thread. */
#ifndef BT_TESTS_TRANSPORT_SUITE_H
#define BT_TESTS_TRANSPORT_SUITE_H
#include "transport/transport.h"

typedef struct {
    const char *name;
    /* Opens a transport; both ends of a test call it. Owned by the caller. */
    baton_status (*open)(bt_transport **transport_p);
    bool can_map; /* whether bt_remote_map must succeed */
    /* Puts write the target's memory themselves, and a worker that goes away while its process
     * lives on is not noticed: shared memory. */
    bool puts_are_mapped;
} bt_suite_backend;

/* Runs the suite; the exit status of the program. */
int bt_transport_suite(const bt_suite_backend *backend);

/* A writer and a target with a region each, for tests of one backend too. */
typedef struct {
    bt_transport *transport_a, *transport_b;
    bt_worker *writer, *target;
    bt_memory *source, *pool;
    bt_endpoint *endpoint;
    bt_remote *remote;
} bt_pair;

void bt_pair_open(bt_pair *pair, baton_status (*open)(bt_transport **), size_t bytes);
/* Closes whatever is still there. */
void bt_pair_close(bt_pair *pair);
bt_run bt_pair_run(const bt_pair *pair, size_t source_offset, size_t pool_offset, size_t bytes);
/* Fills the source with bytes of the seed and clears the pool. */
void bt_pair_fill(bt_pair *pair, uint64_t seed);
/* Progresses both workers, sleeping on their fds between, until the writer reports an event. */
bt_event bt_pair_next_event(bt_pair *pair);
/* As above, for an event of that kind and user_data, which must be OK. */
void bt_pair_wait(bt_pair *pair, bt_event_kind kind, uint64_t user_data);
/* Progresses worker, and others[n], until worker reports an event. */
bt_event bt_next_event(bt_worker *worker, bt_worker *const *others, uint32_t n);

#endif
