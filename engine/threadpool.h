/* SPDX-License-Identifier: Apache-2.0 */
/* A fixed set of threads that share loops of independent units. Unit ranges are cut statically, and
 * units do not depend on each other, so results cannot depend on the number of threads.
 *
 * Between loops a worker spins for some microseconds (a forward pass is many short loops), then
 * sleeps: an idle pool costs no CPU.
 *
 * Thread rule: one thread at a time calls bt_parallel_for; it works on its share itself. */
#ifndef BT_ENGINE_THREADPOOL_H
#define BT_ENGINE_THREADPOOL_H
#include <baton/status.h>

typedef struct bt_threadpool bt_threadpool;

/* Works on units [first, end) as thread number thread, below the pool's n_threads: the index of
 * scratch memory that nobody else uses meanwhile. */
typedef void bt_units_fn(void *ctx, uint32_t thread, uint32_t first, uint32_t end);

/* n_threads counts the caller: 1 makes no thread. Errors: INVALID_ARG, NO_MEMORY, IO. */
baton_status bt_threadpool_create(uint32_t n_threads, bt_threadpool **pool_p);
/* Calls fn on disjoint ranges that cover [0, n_units), and returns when all are done. unit_cost is
 * about the multiply-adds of a unit: small loops are not worth a wake-up and stay on the caller. */
void bt_parallel_for(bt_threadpool *pool, uint32_t n_units, uint64_t unit_cost, bt_units_fn *fn,
                     void *ctx);
void bt_threadpool_destroy(bt_threadpool *pool); /* NULL is allowed. */

#endif
