/* SPDX-License-Identifier: Apache-2.0 */
/* Threads that help with copying: jobs 0 to n - 1 of a run are taken one by one by the caller and
 * its helpers, and the run is over when all of them are done.
 *
 *   caller   publish n jobs ── take, do ── take, do ── none left ── wait for n_left == 0
 *   helper   (spins, then sleeps) ── take, do ── take, do ── none left ── (spins, then sleeps)
 *
 * A helper that sleeps or is not scheduled holds nobody up: only jobs that were taken are waited
 * for. Idle helpers sleep. Thread rule: owner thread. */
#ifndef BT_SENDER_COPYCREW_H
#define BT_SENDER_COPYCREW_H
#include <baton/status.h>

enum { BT_COPYCREW_THREADS_MAX = 64 };

typedef struct bt_copycrew bt_copycrew;

/* Runs on any of the crew's threads, at the same time as other jobs; what it stores past the cache
 * it fences itself. */
typedef baton_status bt_copycrew_fn(void *ctx, uint32_t job);

/* n_threads: the caller's included, 1 to BT_COPYCREW_THREADS_MAX. Errors: INVALID_ARG, NO_MEMORY,
 * IO. */
baton_status bt_copycrew_create(uint32_t n_threads, bt_copycrew **crew_p);
/* Returns when every job has ended, and what they wrote is there for the caller. All of them run,
 * also when one fails. Errors: the failed job's of the lowest number, with its text. */
baton_status bt_copycrew_run(bt_copycrew *crew, bt_copycrew_fn *fn, void *ctx, uint32_t n_jobs);
void bt_copycrew_destroy(bt_copycrew *crew); /* NULL is allowed. */

#endif
