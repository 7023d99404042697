/* SPDX-License-Identifier: Apache-2.0 */
/* The transport, its memory and workers; rails_endpoint.c has what endpoints do. */
#include "transport/rails.h"

#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "core/alloc.h"
#include "transport/lane.h"
#include "transport/rails_state.h"
#include "transport/seal.h"
#include "transport/verbs.h"

enum { EVENTS_AT_ONCE = 16, PACKED_MAX = BT_RAILS_MAX * (BT_RKEY_BYTES_MAX + 4) + 4 };

static void put_u32(uint8_t *at, uint32_t value)
{
    for (uint32_t i = 0; i < 4; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

static uint32_t get_u32(const uint8_t *at)
{
    return at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
}

/* Seals the parts into a new block, freed with bt_free. */
static baton_status seal_parts(const rails_parts *parts, bool is_key, uint8_t **bytes_p,
                               size_t *n_bytes)
{
    uint8_t *packed = bt_calloc(1, PACKED_MAX);
    if (packed == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "rails: no memory for an address");
    size_t used = 4;
    put_u32(packed, parts->n);
    for (uint32_t i = 0; i < parts->n; i++) {
        put_u32(packed + used, (uint32_t)parts->n_bytes[i]);
        memcpy(packed + used + 4, parts->bytes[i], parts->n_bytes[i]);
        used += 4 + parts->n_bytes[i];
    }
    const bt_seal seal = {.kind = is_key ? BT_SEAL_KEY : BT_SEAL_ADDRESS,
                          .backend = BT_SEAL_RAILS,
                          .base = parts->base,
                          .bytes = parts->region_bytes,
                          .memory = parts->memory,
                          .payload = packed,
                          .payload_bytes = used};
    baton_status status =
        bt_seal_pack(&seal, is_key ? BT_RKEY_BYTES_MAX : BT_ADDRESS_BYTES_MAX, bytes_p, n_bytes);
    bt_free(packed);
    return status;
}

baton_status bt_rails_unseal(const void *bytes, size_t n_bytes, bool is_key, rails_parts *parts)
{
    bt_seal seal = {.kind = is_key ? BT_SEAL_KEY : BT_SEAL_ADDRESS, .backend = BT_SEAL_RAILS};
    if (n_bytes < BT_SEAL_HEADER_BYTES || !bt_seal_is_of(bytes, BT_SEAL_RAILS)) {
        *parts = (rails_parts){.n = 1, .bytes = {bytes}, .n_bytes = {n_bytes}};
        return BATON_OK;
    }
    BATON_TRY(bt_seal_open(bytes, n_bytes, &seal));
    *parts = (rails_parts){.base = seal.base, .region_bytes = seal.bytes, .memory = seal.memory};
    size_t at = 4;
    if (seal.payload_bytes >= 4)
        parts->n = get_u32(seal.payload);
    bool is_good = parts->n >= 1 && parts->n <= BT_RAILS_MAX;
    for (uint32_t i = 0; is_good && i < parts->n; i++) {
        is_good = seal.payload_bytes - at >= 4;
        parts->n_bytes[i] = is_good ? get_u32(seal.payload + at) : 0;
        is_good = is_good && parts->n_bytes[i] <= seal.payload_bytes - at - 4;
        parts->bytes[i] = seal.payload + at + 4;
        at += 4 + parts->n_bytes[i];
    }
    if (!is_good || at != seal.payload_bytes)
        return bt_fail(BATON_ERR_INVALID_ARG, "rails: wanted 1 to %d parts, found others",
                       BT_RAILS_MAX);
    return BATON_OK;
}

static void rails_memory_free(bt_memory *base)
{
    rails_memory *memory = (rails_memory *)base;
    for (uint32_t i = BT_RAILS_MAX; i-- > 0;)
        if (memory->parts[i] != NULL)
            memory->parts[i]->transport->ops->memory_free(memory->parts[i]);
    bt_free((void *)(uintptr_t)base->rkey);
    bt_free(memory);
}

/* The first rail allocates when block is NULL; the others register what it has. */
static baton_status make_memory(rails_transport *transport, void *block, size_t bytes,
                                baton_memory_kind kind, bt_memory **memory_p)
{
    rails_memory *memory = bt_calloc(1, sizeof(*memory));
    if (memory == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "rails: no memory for a region");
    memory->base = (bt_memory){.transport = &transport->base, .bytes = bytes, .kind = kind};
    rails_parts parts = {.n = transport->n, .memory = kind};
    baton_status status = BATON_OK;
    for (uint32_t i = 0; i < transport->n && status == BATON_OK; i++) {
        bt_transport *rail = transport->rails[i];
        status = block == NULL ? rail->ops->memory_alloc(rail, bytes, kind, &memory->parts[i])
                               : rail->ops->memory_register(rail, block, memory->base.bytes, kind,
                                                            &memory->parts[i]);
        if (status != BATON_OK)
            break;
        if (i == 0) {
            block = memory->base.base = memory->parts[0]->base;
            memory->base.bytes = memory->parts[0]->bytes;
        }
        parts.bytes[i] = memory->parts[i]->rkey;
        parts.n_bytes[i] = memory->parts[i]->rkey_bytes;
    }
    parts.base = (uint64_t)(uintptr_t)memory->base.base;
    parts.region_bytes = memory->base.bytes;
    uint8_t *rkey = NULL;
    if (status == BATON_OK)
        status = seal_parts(&parts, true, &rkey, &memory->base.rkey_bytes);
    if (status != BATON_OK) {
        rails_memory_free(&memory->base);
        return status;
    }
    memory->base.rkey = rkey;
    *memory_p = &memory->base;
    return BATON_OK;
}

static baton_status rails_memory_alloc(bt_transport *transport, size_t bytes,
                                       baton_memory_kind kind, bt_memory **memory_p)
{
    return make_memory((rails_transport *)transport, NULL, bytes, kind, memory_p);
}

static baton_status rails_memory_register(bt_transport *transport, void *block, size_t bytes,
                                          baton_memory_kind kind, bt_memory **memory_p)
{
    return make_memory((rails_transport *)transport, block, bytes, kind, memory_p);
}

static void rails_worker_destroy(bt_worker *base)
{
    rails_worker *worker = (rails_worker *)base;
    for (uint32_t i = 0; i < BT_RAILS_MAX; i++)
        if (worker->rails[i] != NULL)
            worker->rails[i]->transport->ops->worker_destroy(worker->rails[i]);
    while (worker->endpoints != NULL)
        bt_rails_endpoint_free(worker->endpoints);
    if (worker->fd >= 0)
        close(worker->fd);
    bt_op_pool_clear(&worker->pool);
    bt_free(worker->runs);
    bt_free((void *)(uintptr_t)base->address);
    bt_free(worker);
}

static baton_status open_rail(rails_worker *worker, bt_transport *rail, uint32_t i)
{
    BATON_TRY(rail->ops->worker_create(rail, &worker->rails[i]));
    struct epoll_event event = {.events = EPOLLIN};
    if (epoll_ctl(worker->fd, EPOLL_CTL_ADD, rail->ops->worker_fd(worker->rails[i]), &event) != 0)
        return bt_fail(BATON_ERR_IO, "rails: watching a rail's events");
    return BATON_OK;
}

static baton_status open_rails(rails_worker *worker)
{
    const rails_transport *transport = (rails_transport *)worker->base.transport;
    rails_parts parts = {.n = transport->n};
    worker->fd = epoll_create1(EPOLL_CLOEXEC);
    if (worker->fd < 0)
        return bt_fail(BATON_ERR_IO, "rails: no descriptor for events");
    for (uint32_t i = 0; i < transport->n; i++) {
        BATON_TRY(open_rail(worker, transport->rails[i], i));
        parts.bytes[i] = worker->rails[i]->address;
        parts.n_bytes[i] = worker->rails[i]->address_bytes;
    }
    uint8_t *address;
    BATON_TRY(seal_parts(&parts, false, &address, &worker->base.address_bytes));
    worker->base.address = address;
    return BATON_OK;
}

static baton_status rails_worker_create(bt_transport *transport, bt_worker **worker_p)
{
    rails_worker *worker = bt_calloc(1, sizeof(*worker));
    if (worker == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "rails: no memory for a worker");
    worker->base.transport = transport;
    worker->fd = -1;
    baton_status status = open_rails(worker);
    if (status == BATON_OK)
        *worker_p = &worker->base;
    else
        rails_worker_destroy(&worker->base);
    return status;
}

static int rails_worker_fd(bt_worker *worker)
{
    return ((rails_worker *)worker)->fd;
}

static baton_status rails_worker_arm(bt_worker *base)
{
    rails_worker *worker = (rails_worker *)base;
    if (worker->done.first != NULL)
        return BATON_ERR_BUSY;
    const rails_transport *transport = (rails_transport *)base->transport;
    for (uint32_t i = 0; i < transport->n; i++) {
        baton_status status = transport->rails[i]->ops->worker_arm(worker->rails[i]);
        if (status != BATON_OK)
            return status;
    }
    return BATON_OK;
}

/* Messages go on at once: they are valid until that rail's next progress, and a rail has one turn
 * a call. */
static uint32_t progress_rail(rails_worker *worker, bt_worker *rail, bt_event *events, uint32_t max)
{
    bt_event found[EVENTS_AT_ONCE];
    uint32_t n = 0;
    uint32_t n_found = rail->transport->ops->worker_progress(
        rail, found, max < EVENTS_AT_ONCE ? max : EVENTS_AT_ONCE);
    for (uint32_t i = 0; i < n_found; i++) {
        if (found[i].kind == BT_EVENT_MESSAGE)
            events[n++] = found[i];
        else
            bt_rails_on_event(worker, &found[i]);
    }
    return n;
}

static void rails_worker_observe(bt_worker *base)
{
    uint32_t n_rails = ((rails_transport *)base->transport)->n;
    for (uint32_t i = 0; i < n_rails; i++)
        bt_worker_observe(((rails_worker *)base)->rails[i]);
}

static uint32_t rails_worker_progress(bt_worker *base, bt_event *events, uint32_t max)
{
    rails_worker *worker = (rails_worker *)base;
    uint32_t n_rails = ((rails_transport *)base->transport)->n, n = 0;
    for (uint32_t i = 0; i < n_rails && n < max; i++)
        n +=
            progress_rail(worker, worker->rails[(worker->turn + i) % n_rails], events + n, max - n);
    worker->turn++;
    while (n < max && worker->done.first != NULL) {
        bt_op *op = bt_op_pop(&worker->done);
        bt_op_report(op, &events[n++]);
        if (op->kind == BT_EVENT_CLOSED)
            bt_rails_endpoint_free(op->owner);
        else if (op->kind != BT_EVENT_FAILED)
            bt_op_give(&worker->pool, op);
    }
    return n;
}

static void rails_destroy(bt_transport *base)
{
    rails_transport *transport = (rails_transport *)base;
    for (uint32_t i = 0; i < transport->n; i++)
        transport->rails[i]->ops->destroy(transport->rails[i]);
    bt_free(transport);
}

static const bt_transport_ops rails_ops = {
    .name = "ucx",
    .destroy = rails_destroy,
    .memory_alloc = rails_memory_alloc,
    .memory_register = rails_memory_register,
    .memory_free = rails_memory_free,
    .worker_create = rails_worker_create,
    .worker_destroy = rails_worker_destroy,
    .worker_fd = rails_worker_fd,
    .worker_arm = rails_worker_arm,
    .worker_progress = rails_worker_progress,
    .worker_observe = rails_worker_observe,
    .connect = bt_rails_connect,
    .close = bt_rails_close,
    .path = bt_rails_path,
    .import = bt_rails_import,
    .release = bt_rails_release,
    .map = bt_rails_map,
    .populate = bt_rails_populate,
    .put = bt_rails_put,
    .flush = bt_rails_flush,
    .send = bt_rails_send,
};

baton_status bt_rails_join(bt_transport *const *rails, uint32_t n, bt_transport **transport_p)
{
    rails_transport *transport = bt_calloc(1, sizeof(*transport));
    if (transport == NULL) {
        for (uint32_t i = 0; i < n; i++)
            rails[i]->ops->destroy(rails[i]);
        return bt_fail(BATON_ERR_NO_MEMORY, "rails: no memory for a transport");
    }
    transport->base.ops = &rails_ops;
    transport->base.reaches_device = true;
    transport->n = n;
    for (uint32_t i = 0; i < n; i++) {
        transport->rails[i] = rails[i];
        rails[i]->seam = &transport->base;
        transport->base.reaches_device = transport->base.reaches_device && rails[i]->reaches_device;
    }
    *transport_p = &transport->base;
    return BATON_OK;
}

baton_status bt_rails_take_first(const bt_transport *transport, bool is_key, const void **bytes_p,
                                 size_t *n_bytes)
{
    rails_parts parts;
    if (transport->ops == &rails_ops)
        return BATON_OK;
    BATON_TRY(bt_rails_unseal(*bytes_p, *n_bytes, is_key, &parts));
    *bytes_p = parts.bytes[0];
    *n_bytes = parts.n_bytes[0];
    return BATON_OK;
}

static uint32_t count_rdma(const bt_transport_options *options)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < options->n_data_devices; i++)
        n += bt_verbs_is_name(options->data_devices[i]);
    return n;
}

bool bt_rails_are_wanted(const bt_transport_options *options)
{
    return count_rdma(options) > 1 || options->n_lanes > 1;
}

/* The options of one rail: devices[n_devices] without RDMA devices other than `rail`. */
static uint32_t devices_of(const bt_transport_options *options, const char *rail,
                           const char **devices, uint32_t max)
{
    uint32_t n = 0;
    devices[n++] = rail;
    for (uint32_t i = 0; i < options->n_data_devices && n < max; i++)
        if (!bt_verbs_is_name(options->data_devices[i]))
            devices[n++] = options->data_devices[i];
    return n;
}

/* With lanes every one of them has a thread. */
static baton_status open_one(const bt_transport_options *options, bt_transport **rails, uint32_t *n)
{
    bt_transport *rail;
    BATON_TRY(bt_ucx_ops.create(options, &rail));
    if (options->n_lanes > 1)
        BATON_TRY(bt_lane_create(rail, &rail));
    rails[(*n)++] = rail;
    return BATON_OK;
}

/* Adds one rail for each RDMA device, or one with all devices when there are not several. */
static baton_status add_lane(const bt_transport_options *options, bt_transport **rails, uint32_t *n)
{
    const char *devices[2 * BT_RAILS_MAX];
    if (count_rdma(options) < 2)
        return open_one(options, rails, n);
    for (uint32_t i = 0; i < options->n_data_devices; i++) {
        if (!bt_verbs_is_name(options->data_devices[i]))
            continue;
        bt_transport_options one = *options;
        one.data_devices = devices;
        one.n_data_devices =
            devices_of(options, options->data_devices[i], devices, 2 * BT_RAILS_MAX);
        BATON_TRY(open_one(&one, rails, n));
    }
    return BATON_OK;
}

/* Lane by lane, so that a peer with fewer lanes still uses every device. */
baton_status bt_rails_create(const bt_transport_options *options, bt_transport **transport_p)
{
    bt_transport *rails[BT_RAILS_MAX];
    uint32_t n = 0, n_lanes = options->n_lanes != 0 ? options->n_lanes : 1;
    uint32_t n_devices = count_rdma(options) > 1 ? count_rdma(options) : 1;
    if (n_devices > BT_RAILS_MAX)
        return bt_fail(BATON_ERR_TOO_LARGE, "data_devices: wanted up to %d RDMA devices, found %u",
                       BT_RAILS_MAX, n_devices);
    if (n_lanes > BT_RAILS_MAX / n_devices)
        return bt_fail(BATON_ERR_TOO_LARGE,
                       "data_lanes: wanted up to %u over %u devices (%d connections to a peer in "
                       "all), found %u",
                       BT_RAILS_MAX / n_devices, n_devices, BT_RAILS_MAX, n_lanes);
    baton_status status = BATON_OK;
    for (uint32_t lane = 0; lane < n_lanes && status == BATON_OK; lane++)
        status = add_lane(options, rails, &n);
    if (status == BATON_OK)
        return bt_rails_join(rails, n, transport_p);
    while (n-- > 0)
        rails[n]->ops->destroy(rails[n]);
    return status;
}
