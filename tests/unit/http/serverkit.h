/* SPDX-License-Identifier: Apache-2.0 */
/* A server in a thread of its own, whose handler does what the path says, against blocking sockets
 * that speak raw HTTP. Thread rule: the test's thread. */
#ifndef BT_TESTS_SERVERKIT_H
#define BT_TESTS_SERVERKIT_H
#include "http/httpserver.h"
#include "rawsocket.h"

#include <semaphore.h>

enum { BIG_BYTES = 3 << 20, OUT_BYTES = 4 << 20 };

/* What a test's server is and has seen. Only the loop's thread touches the fields while it runs. */
typedef struct {
    loop_thread runner;
    bt_http_server *server;
    uint16_t port;
    bt_http_request *held; /* answered later */
    sem_t arrived, gone;
    unsigned n_gone, n_drained, n_freed;
    size_t sent_bytes;
    char *out; /* [OUT_BYTES], for the test's thread */
} world;

void world_start(world *w, bt_http_server_options options);
void world_stop(world *w);
/* In the loop's thread, as the server wants it. */
bt_http_server_stats world_stats(world *w);
/* Sends text on a new connection and reads until the server closes: w->out. */
const char *world_exchange(world *w, const char *text);
void assert_has(const char *text, const char *wanted);

/* For the loop's thread: the handler, what it is told when the client of the held request leaves,
 * and the held request's answer. */
void world_on_request(void *ctx, bt_http_request *request);
void world_on_gone(void *world_p);
void world_release_held(void *world_p);

#endif
