/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes on their way to a socket: copies (small ones packed together) and borrowed or owned
 * buffers, written with as few calls as possible; what the kernel does not take waits in libuv.
 *
 * Thread rule: owner thread. For use inside the http folder. */
#ifndef BT_HTTP_HTTPOUT_H
#define BT_HTTP_HTTPOUT_H
#include "http/httploop.h"

#include <uv.h>

typedef struct bt_out_node bt_out_node;

/* Embedded in the owner of the stream, which is freed only in the stream's close callback. */
typedef struct {
    uv_stream_t *stream;
    bt_out_node *first, *last;
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
/* Errors: NO_MEMORY. */
baton_status bt_out_copy(bt_out *out, const void *bytes, size_t n);
/* free_fn (may be NULL) is called once the bytes are not needed any more, also on failure.
 * Errors: NO_MEMORY. */
baton_status bt_out_own(bt_out *out, const void *bytes, size_t n, bt_loop_fn free_fn, void *arg);
/* Hands the kernel what it takes. 0, or a libuv error: the stream is broken. */
int bt_out_flush(bt_out *out);
/* Bytes the kernel has not taken yet. */
size_t bt_out_queued(const bt_out *out);
/* Frees everything; the stream is closed or closing, so that libuv reads no buffer any more. */
void bt_out_clear(bt_out *out);

#endif
