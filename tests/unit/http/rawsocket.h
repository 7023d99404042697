/* SPDX-License-Identifier: Apache-2.0 */
/* Blocking loopback sockets for tests, and a loop in a thread of its own. Every read has a hang
 * guard; where that strikes, the test fails. */
#ifndef BT_TESTS_RAWSOCKET_H
#define BT_TESTS_RAWSOCKET_H
#include "http/httploop.h"

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

/* A loop that runs in another thread. */
typedef struct {
    bt_loop *loop;
    pthread_t thread;
} loop_thread;
void loop_thread_start(loop_thread *runner, bt_loop *loop);
/* Stops the loop and waits for the thread. */
void loop_thread_stop(loop_thread *runner);
/* Runs fn(arg) in the loop's thread and waits for its end. */
void loop_thread_call(loop_thread *runner, bt_loop_fn fn, void *arg);

int raw_connect(uint16_t port);
void raw_send(int fd, const void *bytes, size_t n);
void raw_send_text(int fd, const char *text);
/* Reads until the text ends with `end`, or until the peer closes (then it need not). Result: bytes,
 * 0-terminated in out[cap]. */
size_t raw_read_until(int fd, const char *end, char *out, size_t cap);
/* Reads to the end of the connection, which may also be a reset. */
size_t raw_read_all(int fd, char *out, size_t cap);
/* A listening socket on a free port. */
int raw_listen(uint16_t *port);
int raw_accept(int listener);

#endif
