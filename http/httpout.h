/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes on their way to a socket: copies (small ones packed together) and borrowed or owned
 * buffers, written with as few calls as possible; what the kernel does not take waits in libuv.
 * With TLS they are encrypted on the way, a little ahead of what the kernel takes.
 *
 *   bt_out_copy, bt_out_own --> [plain] --TLS, once it is open--> [wire] --> socket
 *                           --without TLS-----------------------> [wire]
 *
 * Thread rule: owner thread. For use inside the http folder. */
#ifndef BT_HTTP_HTTPOUT_H
#define BT_HTTP_HTTPOUT_H
#include "http/httploop.h"
#include "http/httptls.h"

#include <uv.h>

typedef struct bt_out_node bt_out_node;

typedef struct {
    bt_out_node *first, *last;
} bt_out_queue;

/* Embedded in the owner of the stream, which is freed only in the stream's close callback. */
typedef struct {
    uv_stream_t *stream;
    bt_tls *tls; /* NULL: none */
    bt_out_queue plain, wire;
    size_t bytes; /* in all nodes, those being written included */
    size_t batch_bytes;
    bool writing;
    uv_write_t write;
    uint64_t written_bytes_total;
    /* After libuv wrote what had been waiting: the status of that write, 0 or a libuv error. */
    void (*on_written)(void *ctx, int err);
    void *ctx;
} bt_out;

void bt_out_init(bt_out *out, uv_stream_t *stream, void (*on_written)(void *ctx, int err),
                 void *ctx);
/* What is queued from now on goes through a session of context; host as in bt_tls_create.
 * Errors: NO_MEMORY, INVALID_ARG. */
baton_status bt_out_use_tls(bt_out *out, bt_tls_context *context, const char *host);
/* The session is over before anything went out: what it wanted to send is dropped, and what follows
 * goes as it is. */
void bt_out_drop_tls(bt_out *out);
/* Errors: NO_MEMORY. */
baton_status bt_out_copy(bt_out *out, const void *bytes, size_t n);
/* free_fn (may be NULL) is called once the bytes are not needed any more, also on failure.
 * Errors: NO_MEMORY. */
baton_status bt_out_own(bt_out *out, const void *bytes, size_t n, bt_loop_fn free_fn, void *arg);
/* Hands the kernel what it takes. 0, or a libuv error: the stream is broken, or TLS has failed. */
int bt_out_flush(bt_out *out);
/* Bytes the kernel has not taken yet. */
size_t bt_out_queued(const bt_out *out);
/* Frees everything; the stream is closed or closing, so that libuv reads no buffer any more. */
void bt_out_clear(bt_out *out);

#endif
