/* SPDX-License-Identifier: Apache-2.0 */
#include "http/httpout.h"

#include "core/alloc.h"
#include "core/fail.h"

#include <string.h>

enum { COPY_BYTES = 4000, BATCH_BUFFERS = 64, ENCRYPT_BYTES = 64 * 1024 };

struct bt_out_node {
    bt_out_node *next;
    const char *at; /* what is left: at[n] */
    size_t n;
    size_t room; /* free bytes behind at[n]; copies only */
    bt_loop_fn free_fn;
    void *arg;
    char copy[];
};

void bt_out_init(bt_out *out, uv_stream_t *stream, void (*on_written)(void *ctx, int err),
                 void *ctx)
{
    *out = (bt_out){.stream = stream, .on_written = on_written, .ctx = ctx};
    out->write.data = out;
}

static bt_out_node *add_node(bt_out_queue *queue, size_t room)
{
    bt_out_node *node = bt_realloc(NULL, sizeof(*node) + room, 1);
    if (node == NULL) {
        bt_fail(BATON_ERR_NO_MEMORY, "http: %zu bytes of output", room);
        return NULL;
    }
    *node = (bt_out_node){.at = node->copy, .room = room};
    if (queue->last != NULL)
        queue->last->next = node;
    else
        queue->first = node;
    queue->last = node;
    return node;
}

static baton_status add_copy(bt_out *out, bt_out_queue *queue, const void *bytes, size_t n)
{
    bt_out_node *node = queue->last;
    if (n == 0)
        return BATON_OK;
    if (node == NULL || node->room < n) {
        node = add_node(queue, n > COPY_BYTES ? n : COPY_BYTES);
        if (node == NULL)
            return BATON_ERR_NO_MEMORY;
    }
    /* A batch being written has its own lengths, so that its last node may still grow. */
    memcpy((char *)node->at + node->n, bytes, n);
    node->n += n;
    node->room -= n;
    out->bytes += n;
    return BATON_OK;
}

/* What is encrypted goes on to the wire. */
static bool take_encrypted(void *ctx, const char *bytes, size_t n)
{
    bt_out *out = ctx;
    return add_copy(out, &out->wire, bytes, n) == BATON_OK;
}

baton_status bt_out_use_tls(bt_out *out, bt_tls_context *context, const char *host)
{
    return bt_tls_create(context, host, take_encrypted, out, &out->tls);
}

static bt_out_queue *entrance(bt_out *out)
{
    return out->tls != NULL ? &out->plain : &out->wire;
}

baton_status bt_out_copy(bt_out *out, const void *bytes, size_t n)
{
    return add_copy(out, entrance(out), bytes, n);
}

baton_status bt_out_own(bt_out *out, const void *bytes, size_t n, bt_loop_fn free_fn, void *arg)
{
    bt_out_node *node = n > 0 ? add_node(entrance(out), 0) : NULL;
    if (node == NULL) {
        if (free_fn != NULL)
            free_fn(arg);
        return n > 0 ? BATON_ERR_NO_MEMORY : BATON_OK;
    }
    node->at = bytes;
    node->n = n;
    node->free_fn = free_fn;
    node->arg = arg;
    out->bytes += n;
    return BATON_OK;
}

static void pop(bt_out_queue *queue)
{
    bt_out_node *node = queue->first;
    queue->first = node->next;
    if (queue->first == NULL)
        queue->last = NULL;
    if (node->free_fn != NULL)
        node->free_fn(node->arg);
    bt_free(node);
}

static void consume(bt_out *out, bt_out_queue *queue, size_t n)
{
    out->bytes -= n;
    while (n > 0) {
        bt_out_node *node = queue->first;
        size_t part = n < node->n ? n : node->n;
        node->at += part;
        node->n -= part;
        n -= part;
        if (node->n == 0)
            pop(queue);
    }
}

static void consume_written(bt_out *out, size_t n)
{
    out->written_bytes_total += n;
    consume(out, &out->wire, n);
}

/* Some more for the wire, which is empty. 0, or a libuv error. */
static int encrypt_some(bt_out *out)
{
    size_t done = 0;
    if (out->tls == NULL || bt_tls_state_of(out->tls) == BT_TLS_HANDSHAKE)
        return 0;
    while (out->plain.first != NULL && done < ENCRYPT_BYTES) {
        const bt_out_node *node = out->plain.first;
        size_t part = node->n < ENCRYPT_BYTES ? node->n : ENCRYPT_BYTES;
        if (bt_tls_send(out->tls, node->at, part) != BATON_OK)
            return UV_EPROTO;
        consume(out, &out->plain, part);
        done += part;
    }
    return 0;
}

static void on_write_done(uv_write_t *write, int err)
{
    bt_out *out = write->data;
    out->writing = false;
    if (err == UV_ECANCELED) /* closing: bt_out_clear has freed the nodes, or will */
        return;
    if (err == 0) {
        consume_written(out, out->batch_bytes);
        err = bt_out_flush(out);
    }
    out->on_written(out->ctx, err);
}

static unsigned gather(const bt_out *out, uv_buf_t *buffers, size_t *bytes)
{
    unsigned n = 0;
    *bytes = 0;
    for (bt_out_node *node = out->wire.first; node != NULL && n < BATCH_BUFFERS;
         node = node->next) {
        buffers[n].base = (char *)node->at;
        buffers[n++].len = node->n;
        *bytes += node->n;
    }
    return n;
}

int bt_out_flush(bt_out *out)
{
    while (!out->writing) {
        uv_buf_t buffers[BATCH_BUFFERS];
        size_t bytes;
        int failed = out->wire.first == NULL ? encrypt_some(out) : 0;
        if (failed != 0 || out->wire.first == NULL)
            return failed;
        unsigned n = gather(out, buffers, &bytes);
        int taken = uv_try_write(out->stream, buffers, n);
        if (taken < 0 && taken != UV_EAGAIN)
            return taken;
        if (taken > 0) {
            consume_written(out, (size_t)taken);
            if ((size_t)taken == bytes)
                continue;
            n = gather(out, buffers, &bytes);
        }
        int err = uv_write(&out->write, out->stream, buffers, n, on_write_done);
        if (err != 0)
            return err;
        out->writing = true;
        out->batch_bytes = bytes;
    }
    return 0;
}

size_t bt_out_queued(const bt_out *out)
{
    if (!out->writing)
        return out->bytes;
    return out->bytes - out->batch_bytes + uv_stream_get_write_queue_size(out->stream);
}

static void clear_queue(bt_out *out, bt_out_queue *queue)
{
    while (queue->first != NULL) {
        out->bytes -= queue->first->n;
        pop(queue);
    }
}

void bt_out_drop_tls(bt_out *out)
{
    bt_tls_destroy(out->tls);
    out->tls = NULL;
    clear_queue(out, &out->wire);
}

void bt_out_clear(bt_out *out)
{
    clear_queue(out, &out->plain);
    bt_out_drop_tls(out);
}
