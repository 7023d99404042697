/* SPDX-License-Identifier: Apache-2.0 */
/* Threads of the library. Signals are the program's: its handlers must not run on a thread that it
 * does not know, so all are blocked there from its first instruction on. */
#ifndef BT_CORE_THREAD_H
#define BT_CORE_THREAD_H
#include <baton/status.h>
#include <pthread.h>

/* name: at most 15 characters, also of the failure's text. To be joined or detached by the caller.
 * Errors: what pthread_create's errno means. */
baton_status bt_thread_start(pthread_t *thread, const char *name, void *(*run)(void *), void *ctx);

/* Tests: the nth start from now on fails, and only that (1 = the next); 0 turns it off. */
void bt_thread_fail_at(uint32_t nth);
/* Starts since the last bt_thread_fail_at call. */
uint32_t bt_thread_count(void);

#endif
