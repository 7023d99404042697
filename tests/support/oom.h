/* SPDX-License-Identifier: Apache-2.0 */
/* What a constructor does when there is no memory, no descriptor or no thread for it: it is run
 * with the first, the second, ... of them missing until it succeeds. Every failure must be typed,
 * have a text, and leave no descriptor behind (LeakSanitizer looks after memory), and the next try,
 * with nothing missing, must succeed.
 *
 *   static baton_status make_ring(void *ctx)
 *   {
 *       bt_ring *ring;
 *       BATON_TRY(bt_ring_create(8, 16, &ring));
 *       bt_ring_destroy(ring);
 *       return BATON_OK;
 *   }
 *   ... bt_check_scarce_memory(make_ring, NULL); ...
 *
 * Only bt_calloc and its like can be made to fail: what ZeroMQ, UCX and libuv allocate for
 * themselves is theirs. Thread rule: the test's thread. */
#ifndef BT_TESTS_OOM_H
#define BT_TESTS_OOM_H
#include <baton/status.h>

/* Makes something and destroys it again; destroys what it made before a failure. */
typedef baton_status (*bt_attempt)(void *ctx);

/* Every failure must be NO_MEMORY; success despite a failed allocation is allowed (something was
 * done without). */
void bt_check_scarce_memory(bt_attempt attempt, void *ctx);
/* With 0, 1, 2, ... descriptors left. */
void bt_check_scarce_descriptors(bt_attempt attempt, void *ctx);
/* With the 1st, 2nd, ... thread not starting. */
void bt_check_scarce_threads(bt_attempt attempt, void *ctx);

#endif
