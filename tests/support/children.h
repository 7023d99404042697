/* SPDX-License-Identifier: Apache-2.0 */
/* Programs of ours as child processes: started, watched, signalled by pid, and never left behind.
 * A child dies with the test that started it.
 *
 *   static void a_test(void **state)
 *   {
 *       bt_child *child = bt_child_start("baton-engine", (const char *const[]){"--help", NULL});
 *       ...
 *       assert_int_equal(bt_child_wait(child), 0);
 *   }
 *   ... bt_child_test(a_test) ...
 *
 * What goes wrong fails the test and prints what the children said. The folder of the programs is
 * in BATON_BIN. Thread rule: the test's thread. */
#ifndef BT_TESTS_CHILDREN_H
#define BT_TESTS_CHILDREN_H
#include <sys/types.h>

#include "support/test.h"

enum { BT_CHILDREN_MAX = 16, BT_CHILD_ARGS_MAX = 64, BT_GUARD_SECONDS = 300 };

typedef struct {
    pid_t pid; /* 0: ended */
    int out;   /* file with what it wrote to stdout */
    int log;   /* the same of stderr */
    char name[64];
    char ready[1024]; /* its ready line */
} bt_child;

/* Borrowed until the end of the test. args ends with NULL. */
bt_child *bt_child_start(const char *program, const char *const *args);
/* Until it has printed a line with "ready". */
void bt_child_wait_ready(bt_child *child);
/* The nth of the numbers behind `key` in the ready line ("port=1", "init_ports=1,2"); 0: none. */
uint16_t bt_child_port(const bt_child *child, const char *key, unsigned nth);
void bt_child_signal(const bt_child *child, int signal);
/* SIGSTOP, and waits until it has stopped. */
void bt_child_freeze(const bt_child *child);
/* SIGKILL, and waits for the end. */
void bt_child_kill(bt_child *child);
/* Whether it has ended; bt_child_wait then does not wait. */
bool bt_child_has_ended(const bt_child *child);
/* Waits for its end: the exit status, or 128 and the signal. */
int bt_child_wait(bt_child *child);
/* SIGTERM; it must end with 0. */
void bt_child_stop(bt_child *child);

/* What it holds now: resident memory in KiB, open descriptors. */
long bt_child_rss_kib(const bt_child *child);
long bt_child_n_fds(const bt_child *child);

/* Gives up what is kept of a child that bt_child_wait or bt_child_kill has ended, so that a long
 * test can start any number, one after the other. */
void bt_child_forget(bt_child *child);
/* The end of its log, for a failure's message. */
void bt_child_print_tail(const bt_child *child);

/* What it has written so far, 0-terminated; freed with free. */
char *bt_child_text(int file);
bool bt_child_has_logged(const bt_child *child, const char *text);
void bt_child_wait_log(const bt_child *child, const char *text);

/* One look at a condition; bt_wait_until looks until it is true, and fails the test with `what`
 * after BT_GUARD_SECONDS. */
typedef bool (*bt_condition)(void *ctx);
void bt_wait_until(bt_condition is_true, void *ctx, const char *what);

int bt_children_teardown(void **state);
#define bt_child_test(fn) cmocka_unit_test_setup_teardown(fn, bt_test_setup, bt_children_teardown)

#endif
