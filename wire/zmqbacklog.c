/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/zmqbacklog.h"

#include "core/alloc.h"
#include "core/fail.h"

#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>

enum { N_BUCKETS = 256, SHARE = 8 };

/* What waits for one connection. Kept while something does. */
typedef struct reader reader;
struct reader {
    reader *next; /* same bucket */
    bt_backlog *backlog;
    void *socket;
    uint64_t sent_bytes;
    _Atomic uint64_t taken_bytes; /* ZeroMQ's thread: release, its last access; owner: acquire */
    uint64_t full_ns,
        full_at_taken; /* since when it is full, and has taken no more; 0: it is not */
    size_t n_route;
    uint8_t route[];
};

struct bt_backlog {
    bt_backlog_limits limits;
    uint64_t sent_bytes;
    _Atomic uint64_t taken_bytes; /* as above, relaxed: only a bound */
    reader *buckets[N_BUCKETS];
};

/* A frame that ZeroMQ holds. */
typedef struct {
    reader *_Atomic from; /* release by the owner, acquire by ZeroMQ's thread */
    size_t cost;
    uint8_t bytes[];
} held_frame;

baton_status bt_backlog_create(const bt_backlog_limits *limits, bt_backlog **backlog_p)
{
    bt_backlog *backlog = bt_calloc(1, sizeof(*backlog));
    if (backlog == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "backlog");
    backlog->limits = *limits;
    *backlog_p = backlog;
    return BATON_OK;
}

void bt_backlog_destroy(bt_backlog *backlog)
{
    if (backlog == NULL)
        return;
    for (size_t i = 0; i < N_BUCKETS; i++) {
        for (reader *r = backlog->buckets[i], *next; r != NULL; r = next) {
            next = r->next;
            bt_free(r);
        }
    }
    bt_free(backlog);
}

uint64_t bt_backlog_waiting(const bt_backlog *backlog)
{
    return backlog->sent_bytes - atomic_load_explicit(&backlog->taken_bytes, memory_order_relaxed);
}

static uint64_t taken_of(const reader *r)
{
    return atomic_load_explicit(&r->taken_bytes, memory_order_acquire);
}

static size_t bucket_of(const void *socket, bt_blob route)
{
    size_t hash = (size_t)(uintptr_t)socket >> 4;
    for (size_t i = 0; i < route.bytes; i++)
        hash = (hash ^ route.data[i]) * 0x9e3779b1;
    return (hash >> 16) % N_BUCKETS;
}

/* The connection's; those on the way for whom nothing waits any more go. NULL: no memory. */
static reader *reader_of(bt_backlog *backlog, void *socket, bt_blob route)
{
    reader **bucket = &backlog->buckets[bucket_of(socket, route)], *found = NULL;
    for (reader **link = bucket; *link != NULL;) {
        reader *r = *link;
        if (r->socket == socket && bt_blob_equals(route, bt_blob_of(r->route, r->n_route))) {
            found = r;
        } else if (taken_of(r) == r->sent_bytes) {
            *link = r->next;
            bt_free(r);
            continue;
        }
        link = &r->next;
    }
    if (found != NULL)
        return found;
    found = bt_calloc(1, sizeof(*found) + route.bytes);
    if (found == NULL)
        return NULL;
    found->backlog = backlog;
    found->socket = socket;
    found->n_route = route.bytes;
    memcpy(found->route, route.data, route.bytes);
    found->next = *bucket;
    *bucket = found;
    return found;
}

/* ZeroMQ's thread: the frame is with the kernel, or its connection has gone. */
static void let_go(void *data, void *hint)
{
    held_frame *held = hint;
    (void)data;
    reader *from = atomic_load_explicit(&held->from, memory_order_acquire);
    size_t cost = held->cost;
    bt_free(held);
    atomic_fetch_add_explicit(&from->backlog->taken_bytes, cost, memory_order_relaxed);
    atomic_fetch_add_explicit(&from->taken_bytes, cost, memory_order_release);
}

static bool has_room(const bt_backlog *backlog, const reader *r, size_t cost)
{
    uint64_t left = backlog->limits.all_bytes - bt_backlog_waiting(backlog);
    uint64_t most =
        left / SHARE < backlog->limits.each_bytes ? left / SHARE : backlog->limits.each_bytes;
    return r->sent_bytes - taken_of(r) + cost <= most;
}

static baton_status refuse(const bt_backlog *backlog, reader *r, uint64_t now_ns)
{
    uint64_t taken = taken_of(r);
    if (r->full_ns == 0 || taken != r->full_at_taken) {
        r->full_ns = now_ns;
        r->full_at_taken = taken;
    }
    if (now_ns - r->full_ns < backlog->limits.patience_ns)
        return BATON_IN_PROGRESS;
    return bt_fail(BATON_ERR_BUSY, "send: %llu bytes wait for a peer that does not read",
                   (unsigned long long)(r->sent_bytes - taken));
}

/* A message that owns a copy of the frame and is accounted for; it is let go of however it ends. */
static baton_status wrap(bt_backlog *backlog, reader *r, bt_blob frame, size_t cost,
                         zmq_msg_t *message)
{
    held_frame *held = bt_calloc(1, sizeof(*held) + frame.bytes);
    if (held == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "send: %zu bytes", frame.bytes);
    memcpy(held->bytes, frame.data, frame.bytes);
    held->cost = cost;
    atomic_store_explicit(&held->from, r, memory_order_release);
    if (zmq_msg_init_data(message, held->bytes, frame.bytes, let_go, held) != 0) {
        bt_free(held);
        return bt_fail(BATON_ERR_NO_MEMORY, "send: %zu bytes", frame.bytes);
    }
    r->sent_bytes += cost;
    backlog->sent_bytes += cost;
    return BATON_OK;
}

baton_status bt_backlog_send(bt_backlog *backlog, void *socket, bt_blob route, bt_blob frame,
                             uint64_t now_ns)
{
    zmq_msg_t message;
    size_t cost = frame.bytes + BT_BACKLOG_FRAME_BYTES;
    reader *r = reader_of(backlog, socket, route);
    if (r == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "send: to a new connection");
    if (!has_room(backlog, r, cost))
        return refuse(backlog, r, now_ns);
    BATON_TRY(wrap(backlog, r, frame, cost, &message));
    /* Room is decided at the first part: the second never waits. */
    if (zmq_send(socket, route.data, route.bytes, ZMQ_DONTWAIT | ZMQ_SNDMORE) >= 0 &&
        zmq_msg_send(&message, socket, ZMQ_DONTWAIT) >= 0) {
        r->full_ns = 0;
        return BATON_OK;
    }
    int err = errno;
    zmq_msg_close(&message);
    return err == EAGAIN || err == EINTR ? refuse(backlog, r, now_ns) : bt_zmq_fail(err, "send");
}
