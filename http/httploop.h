/* SPDX-License-Identifier: Apache-2.0 */
/* One libuv loop for one thread: run and stop, closures posted from other threads, timers, signals,
 * and deferred work that runs once per wakeup. A loop with nothing to do sleeps in epoll.
 *
 *   other threads --bt_loop_post--> [bounded queue] --uv_async--> loop thread
 *   callbacks --bt_loop_defer--> [list] --after polling, before sleeping--> loop thread
 *
 * Thread rule: owner thread (the one that calls bt_loop_run), except bt_loop_post, bt_bell_ring and
 * bt_loop_stop, which any thread may call while the loop exists. */
#ifndef BT_HTTP_HTTPLOOP_H
#define BT_HTTP_HTTPLOOP_H
#include <baton/status.h>

#include <stdbool.h>

struct uv_loop_s;
typedef struct bt_loop bt_loop;
typedef struct bt_timer bt_timer;
typedef struct bt_bell bt_bell;
typedef void (*bt_loop_fn)(void *arg);

/* Ignores SIGPIPE from now on, unless the program has its own handler. Errors: NO_MEMORY, IO. */
baton_status bt_loop_create(bt_loop **loop_p);
/* Closes what is left on the loop (timers, signals; servers and clients are to be destroyed before)
 * and frees it. Not inside one of its callbacks; no other thread may post any more. Closures posted
 * after the last run are dropped, unrun. NULL is allowed. */
void bt_loop_destroy(bt_loop *loop);

/* Runs callbacks until bt_loop_stop. Closures posted before the stop have run when it returns. It
 * may be called again afterwards. */
void bt_loop_run(bt_loop *loop);
/* Makes bt_loop_run return soon; called before the run, that run returns at once. Any thread. */
void bt_loop_stop(bt_loop *loop);
/* Runs fn(arg) once on the loop's thread, in the order of posting. Any thread.
 * Errors: BUSY (BT_LOOP_MAX_POSTS are waiting), NO_MEMORY: fn will then not run. */
baton_status bt_loop_post(bt_loop *loop, bt_loop_fn fn, void *arg);
enum { BT_LOOP_MAX_POSTS = 1 << 16 };
/* A closure that is made once and posted many times, which then needs no memory: for news that must
 * come through when there is none. Before bt_loop_destroy it is destroyed. Errors: NO_MEMORY. */
baton_status bt_bell_create(bt_loop *loop, bt_loop_fn fn, void *arg, bt_bell **bell_p);
/* fn(arg) runs after this, once for all rings that it has not run for. Any thread. */
void bt_bell_ring(bt_bell *bell);
/* It does not run any more, and nobody rings it any more. NULL is allowed. */
void bt_bell_destroy(bt_bell *bell);

/* Milliseconds of a monotonic clock, as of this wakeup. */
uint64_t bt_loop_now_ms(const bt_loop *loop);
/* The libuv loop, for handles of one's own (a uv_poll_t on a foreign file descriptor). Borrowed;
 * such handles are to be closed before bt_loop_destroy. */
struct uv_loop_s *bt_loop_uv(bt_loop *loop);

/* Work put off until this wakeup's callbacks are done: the place to write out what several
 * callbacks queued. The node is embedded in its owner; deferring a node that waits already does
 * nothing. */
typedef struct bt_deferred {
    bt_loop_fn fn; /* set by the owner, as is arg */
    void *arg;
    struct bt_deferred *prev, *next; /* the loop's; NULL: not waiting */
} bt_deferred;
void bt_loop_defer(bt_loop *loop, bt_deferred *node);
/* Takes the node back before its owner is freed. */
void bt_loop_undefer(bt_deferred *node);

/* A stopped timer that calls fn(arg). Errors: NO_MEMORY, IO. */
baton_status bt_timer_create(bt_loop *loop, bt_loop_fn fn, void *arg, bt_timer **timer_p);
/* Fires once after delay_ms (0: at the next wakeup), then every repeat_ms unless that is 0.
 * Starting a running timer sets it anew. */
void bt_timer_start(bt_timer *timer, uint64_t delay_ms, uint64_t repeat_ms);
void bt_timer_stop(bt_timer *timer);
/* fn does not run any more; also allowed inside fn. NULL is allowed. */
void bt_timer_destroy(bt_timer *timer);

/* Calls fn(arg) on the loop's thread whenever the process gets signal signum, until the loop is
 * destroyed. Errors: NO_MEMORY, IO. */
baton_status bt_loop_on_signal(bt_loop *loop, int signum, bt_loop_fn fn, void *arg);

#endif
