/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/noticepush.h"

#include "core/alloc.h"
#include "core/fail.h"
#include "core/fdroom.h"
#include "core/log.h"
#include "wire/control.h"

#include <stdatomic.h>
#include <string.h>

enum { EVICTED_LINGER_MS = 1000, RESERVED_FDS = 3 };

typedef struct {
    void *socket;  /* NULL: free */
    uint64_t used; /* `turn` when it was last used */
    char address[BT_ZMQ_HOST_BYTES + 16];
} notice_socket;

struct bt_noticepush {
    void *context;
    const bt_security *security; /* NULL: no keys */
    bool has_warned;             /* that there is no key of the proxy */
    uint64_t turn;
    bt_fdreserve reserve;           /* a failure for want of descriptors is told with these */
    _Atomic uint64_t sent, dropped; /* relaxed: counters, published for nobody */
    notice_socket sockets[BT_NOTICE_SOCKETS_MAX];
};

baton_status bt_noticepush_create(void *context, const bt_security *security,
                                  bt_noticepush **push_p)
{
    bt_noticepush *push = bt_calloc(1, sizeof(*push));
    if (push == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "notices");
    push->context = context;
    bt_fdreserve_fill(&push->reserve, RESERVED_FDS);
    push->security = security;
    *push_p = push;
    return BATON_OK;
}

void bt_noticepush_destroy(bt_noticepush *push, uint32_t flush_ms)
{
    if (push == NULL)
        return;
    for (int i = 0; i < BT_NOTICE_SOCKETS_MAX; i++)
        bt_control_socket_close(push->sockets[i].socket, flush_ms);
    bt_fdreserve_spend(&push->reserve, RESERVED_FDS);
    bt_free(push);
}

void bt_noticepush_get_stats(const bt_noticepush *push, uint64_t *sent, uint64_t *dropped)
{
    *sent = atomic_load_explicit(&push->sent, memory_order_relaxed);
    *dropped = atomic_load_explicit(&push->dropped, memory_order_relaxed);
}

/* A free slot, or the one that was used longest ago, emptied. */
static notice_socket *free_slot(bt_noticepush *push)
{
    notice_socket *oldest = &push->sockets[0];
    for (int i = 0; i < BT_NOTICE_SOCKETS_MAX; i++) {
        notice_socket *slot = &push->sockets[i];
        if (slot->socket == NULL)
            return slot;
        if (slot->used < oldest->used)
            oldest = slot;
    }
    bt_control_socket_close(oldest->socket, EVICTED_LINGER_MS);
    *oldest = (notice_socket){0};
    return oldest;
}

/* Once is enough: every notice would say it. */
static baton_status apply_keys(bt_noticepush *push, bt_zmq_options *options)
{
    if (push->security == NULL)
        return BATON_OK;
    baton_status status = bt_security_apply_notices(push->security, options);
    if (status != BATON_OK && !push->has_warned)
        bt_warn("no notices to proxies, which have to ask: %s", baton_last_error());
    push->has_warned |= status != BATON_OK;
    return status;
}

static baton_status open_slot(bt_noticepush *push, const char *address, notice_socket **slot_p)
{
    char host[BT_ZMQ_HOST_BYTES];
    uint16_t port;
    BATON_TRY(bt_zmq_parse_url(address, host, &port));
    bt_zmq_options options = {
        .type = ZMQ_PUSH, .send_messages = BT_NOTICES_WAITING_MAX, .queue_unconnected = true};
    BATON_TRY(apply_keys(push, &options));
    notice_socket *slot = free_slot(push);
    void *socket;
    bt_fdreserve_fill(&push->reserve, RESERVED_FDS);
    baton_status status = bt_zmq_open(push->context, &options, &socket);
    if (status == BATON_ERR_OVERLOADED && bt_fdreserve_spend(&push->reserve, RESERVED_FDS))
        status = bt_zmq_open(push->context, &options, &socket);
    if (status != BATON_OK)
        return status;
    status = bt_zmq_connect(socket, host, port);
    if (status != BATON_OK) {
        bt_zmq_close(socket);
        return status;
    }
    slot->socket = socket;
    strncpy(slot->address, address, sizeof(slot->address) - 1);
    *slot_p = slot;
    return BATON_OK;
}

static baton_status find_slot(bt_noticepush *push, const char *address, notice_socket **slot_p)
{
    for (int i = 0; i < BT_NOTICE_SOCKETS_MAX; i++) {
        notice_socket *slot = &push->sockets[i];
        if (slot->socket != NULL && strcmp(slot->address, address) == 0) {
            *slot_p = slot;
            return BATON_OK;
        }
    }
    return open_slot(push, address, slot_p);
}

static baton_status send_notice(bt_noticepush *push, const char *address, const bt_notice *notice)
{
    uint8_t frame[BT_NOTICE_BYTES_MAX];
    bt_packwriter writer;
    notice_socket *slot;
    bt_pack_init_fixed(&writer, frame, sizeof(frame));
    BATON_TRY(bt_notice_encode(notice, &writer));
    BATON_TRY(find_slot(push, address, &slot));
    slot->used = ++push->turn;
    const bt_blob part = bt_blob_of(writer.bytes, writer.n);
    baton_status status = bt_zmq_send(slot->socket, &part, 1);
    if (status == BATON_IN_PROGRESS)
        return bt_fail(BATON_ERR_BUSY, "notice: %d wait for %s already", BT_NOTICES_WAITING_MAX,
                       address);
    return status;
}

void bt_noticepush_send(bt_noticepush *push, const char *address, const bt_notice *notice)
{
    baton_status status = send_notice(push, address, notice);
    if (status != BATON_OK)
        bt_debug("notice dropped: %s", baton_last_error());
    atomic_fetch_add_explicit(status == BATON_OK ? &push->sent : &push->dropped, 1,
                              memory_order_relaxed);
}
