/* SPDX-License-Identifier: Apache-2.0 */
/* A server's listening socket, of our own and not libuv's: for want of descriptors libuv 1.44
 * spends one that it keeps for that moment, and once another thread has taken that one it tries for
 * ever without coming back to its loop.
 *
 *   OPEN -- no descriptor: who waits is accepted with a reserved one, and closed --> OPEN
 *     |  -- not even that ---> PAUSED -- BT_LISTEN_PAUSE_MS --> OPEN
 *     +-- bt_listener_close --> closed, once libuv has let go of both handles
 *
 * Thread rule: owner thread. For use inside the http folder. */
#ifndef BT_HTTP_HTTPLISTEN_H
#define BT_HTTP_HTTPLISTEN_H
#include "core/fdroom.h"
#include "http/httploop.h"

#include <stdint.h>
#include <uv.h>

enum { BT_LISTEN_PAUSE_MS = 100 };

typedef struct {
    const char *host; /* numeric; borrowed during open */
    uint16_t port;    /* 0: any free one */
    bool reuse_port;
    int backlog;
    void (*on_connection)(void *ctx, int fd); /* fd, non-blocking, is the callee's from here on */
    void (*on_turned_away)(void *ctx);
    void (*on_closed)(void *ctx); /* the listener's memory may go */
    void *ctx;
} bt_listener_options;

typedef struct {
    bt_listener_options options;
    bt_loop *loop;
    uv_poll_t poll;
    uv_timer_t pause;
    int fd; /* -1: closed */
    uint16_t port;
    unsigned n_handles; /* that libuv has not let go of */
    bt_fdreserve reserve;
    uint64_t turned_away_total, quiet_until_ms; /* no line is logged before that */
} bt_listener;

/* Nothing is left behind, nor on_closed called, when it fails. Errors: INVALID_ARG (not a numeric
 * address), ADDRESS_IN_USE, PERMISSION, OVERLOADED (descriptors), IO. */
baton_status bt_listener_open(bt_loop *loop, const bt_listener_options *options,
                              bt_listener *listener);
/* Also inside on_connection, and again. */
void bt_listener_close(bt_listener *listener);

#endif
