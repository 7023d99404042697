/* SPDX-License-Identifier: Apache-2.0 */
/* Dispatch to the backend, and every check of arguments that does not depend on it. */
#include "transport/transport.h"

#include <string.h>

#include "core/alloc.h"
#include "core/log.h"
#include "transport/rails.h"
#include "transport/verbs.h"

static const bt_transport_ops *const backends[] = {&bt_loop_ops}; /* besides ucx */
enum { N_BACKENDS = sizeof(backends) / sizeof(backends[0]) };

static baton_status create_ucx(const bt_transport_options *options, bt_transport **transport_p)
{
    return bt_rails_are_wanted(options) ? bt_rails_create(options, transport_p)
                                        : bt_ucx_ops.create(options, transport_p);
}

/* data_devices: auto. */
static baton_status create_auto(const bt_transport_options *options, bt_transport **transport_p)
{
    char names[BT_VERBS_AUTO_MAX][BT_NIC_NAME_BYTES] = {"lo"};
    const char *devices[BT_VERBS_AUTO_MAX];
    uint32_t n = bt_verbs_auto(BT_SYSFS_ROOT, options->memory, names);
    bt_transport_options chosen = *options;
    chosen.data_devices = devices;
    chosen.n_data_devices = n != 0 ? n : 1;
    for (uint32_t i = 0; i < chosen.n_data_devices; i++) {
        devices[i] = names[i];
        bt_info("transport: data_devices is auto: chose device=%s for=%s", devices[i],
                options->memory == BATON_MEMORY_CUDA_DEVICE ? "cuda" : "host");
    }
    return create_ucx(&chosen, transport_p);
}

baton_status bt_transport_create(const bt_transport_options *options, bt_transport **transport_p)
{
    const char *wanted = options->backend != NULL ? options->backend : "(none)";
    if (strcmp(wanted, bt_ucx_ops.name) == 0)
        return options->n_data_devices == 1 && strcmp(options->data_devices[0], "auto") == 0
                   ? create_auto(options, transport_p)
                   : create_ucx(options, transport_p);
    for (size_t i = 0; i < N_BACKENDS; i++)
        if (strcmp(backends[i]->name, wanted) == 0)
            return backends[i]->create(options, transport_p);
    return bt_fail(BATON_ERR_INVALID_ARG, "transport: wanted ucx or loop, found \"%s\"", wanted);
}

static _Atomic(uint64_t) live[BT_LIVE_KINDS];

/* Relaxed: these only count; nothing is read because of them. */
void bt_transport_count(bt_live_kind kind, int64_t change)
{
    atomic_fetch_add_explicit(&live[kind], (uint64_t)change, memory_order_relaxed);
}

bt_transport_counts bt_transport_live(void)
{
    return (bt_transport_counts){
        .workers = atomic_load_explicit(&live[BT_LIVE_WORKERS], memory_order_relaxed),
        .memories = atomic_load_explicit(&live[BT_LIVE_MEMORIES], memory_order_relaxed),
        .remotes = atomic_load_explicit(&live[BT_LIVE_REMOTES], memory_order_relaxed)};
}

baton_status bt_transport_open(const baton_data_path *data, baton_memory_kind memory,
                               bt_transport **transport_p)
{
    const bt_transport_options options = {
        .backend = data->transport != NULL ? data->transport : "ucx",
        .data_devices = data->data_devices,
        .n_data_devices = data->n_data_devices,
        .memory = memory,
        .no_tcp = data->no_tcp,
        .n_lanes = data->data_lanes,
        .clock = data->clock,
        .loop_net = data->loop_net,
    };
    return bt_transport_create(&options, transport_p);
}

bt_cuda *bt_transport_enter(const bt_transport *transport)
{
    bt_cuda *cuda = atomic_load_explicit(&transport->cuda, memory_order_acquire);
    return cuda != NULL && bt_cuda_enter(cuda) == BATON_OK ? cuda : NULL;
}

void bt_transport_leave(const bt_cuda *entered)
{
    if (entered != NULL)
        bt_cuda_leave(entered);
}

baton_status bt_worker_create(bt_transport *transport, bt_worker **worker_p)
{
    const bt_cuda *entered = bt_transport_enter(transport);
    baton_status status = transport->ops->worker_create(transport, worker_p);
    bt_transport_leave(entered);
    bt_transport_count(BT_LIVE_WORKERS, status == BATON_OK);
    return status;
}

void bt_worker_destroy(bt_worker *worker)
{
    if (worker == NULL)
        return;
    const bt_cuda *entered = bt_transport_enter(worker->transport);
    worker->transport->ops->worker_destroy(worker);
    bt_transport_leave(entered);
    bt_transport_count(BT_LIVE_WORKERS, -1);
}

int bt_worker_fd(bt_worker *worker)
{
    return worker->transport->ops->worker_fd(worker);
}

baton_status bt_worker_arm(bt_worker *worker)
{
    return worker->transport->ops->worker_arm(worker);
}

uint32_t bt_worker_progress(bt_worker *worker, bt_event *events, uint32_t max)
{
    const bt_cuda *entered = bt_transport_enter(worker->transport);
    uint32_t n = worker->transport->ops->worker_progress(worker, events, max);
    bt_transport_leave(entered);
    return n;
}

void bt_worker_observe(bt_worker *worker)
{
    if (worker != NULL && worker->transport->ops->worker_observe != NULL)
        worker->transport->ops->worker_observe(worker);
}

baton_status bt_endpoint_connect(bt_worker *worker, const void *address, size_t address_bytes,
                                 uint64_t user_data, bt_endpoint **endpoint_p)
{
    if (address == NULL || address_bytes == 0 || address_bytes > BT_ADDRESS_BYTES_MAX)
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "transport: wanted a worker address of 1 to %d bytes, found %zu",
                       BT_ADDRESS_BYTES_MAX, address_bytes);
    BATON_TRY(bt_rails_take_first(worker->transport, false, &address, &address_bytes));
    const bt_cuda *entered = bt_transport_enter(worker->transport);
    baton_status status =
        worker->transport->ops->connect(worker, address, address_bytes, user_data, endpoint_p);
    bt_transport_leave(entered);
    return status;
}

void bt_endpoint_close(bt_endpoint *endpoint, bt_close_mode mode, uint64_t user_data)
{
    endpoint->worker->transport->ops->close(endpoint, mode, user_data);
}

void bt_endpoint_path(bt_endpoint *endpoint, bt_path *path)
{
    endpoint->worker->transport->ops->path(endpoint, path);
}

baton_status bt_remote_import(bt_endpoint *endpoint, const void *rkey, size_t rkey_bytes,
                              bt_remote **remote_p)
{
    if (rkey == NULL || rkey_bytes == 0 || rkey_bytes > BT_RKEY_BYTES_MAX)
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "transport: wanted a remote key of 1 to %d bytes, found %zu",
                       BT_RKEY_BYTES_MAX, rkey_bytes);
    bt_transport *transport = endpoint->worker->transport;
    BATON_TRY(bt_rails_take_first(transport, true, &rkey, &rkey_bytes));
    const bt_cuda *entered = bt_transport_enter(transport);
    baton_status status = transport->ops->import(endpoint, rkey, rkey_bytes, remote_p);
    bt_transport_leave(entered);
    bt_transport_count(BT_LIVE_REMOTES, status == BATON_OK);
    return status;
}

void bt_remote_release(bt_remote *remote)
{
    if (remote == NULL)
        return;
    const bt_cuda *entered = bt_transport_enter(remote->endpoint->worker->transport);
    remote->endpoint->worker->transport->ops->release(remote);
    bt_transport_leave(entered);
    bt_transport_count(BT_LIVE_REMOTES, -1);
}

/* [addr, addr + bytes) lies in [base, base + size), without trusting any of the four. */
static bool is_inside(uint64_t addr, uint64_t bytes, uint64_t base, uint64_t size)
{
    return addr >= base && addr - base <= size && bytes <= size - (addr - base);
}

baton_status bt_remote_map(bt_remote *remote, uint64_t remote_addr, void **local_p)
{
    if (!is_inside(remote_addr, 1, remote->base, remote->bytes))
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "transport: cannot map 0x%llx: the remote region is %llu bytes at 0x%llx",
                       (unsigned long long)remote_addr, (unsigned long long)remote->bytes,
                       (unsigned long long)remote->base);
    return remote->endpoint->worker->transport->ops->map(remote, remote_addr, local_p);
}

bool bt_remote_populate(bt_remote *remote, uint64_t remote_addr, uint64_t bytes)
{
    return is_inside(remote_addr, bytes, remote->base, remote->bytes) &&
           remote->endpoint->worker->transport->ops->populate(remote, remote_addr, bytes);
}

bool bt_run_join(bt_run *run, const bt_run *next)
{
    uint32_t count = bt_run_count(run);
    if (bt_run_count(next) != 1)
        return false;
    if (count == 1 && next->local_addr == run->local_addr + run->bytes &&
        next->remote_addr == run->remote_addr + run->bytes) {
        run->bytes += next->bytes;
        return true;
    }
    if (next->bytes != run->bytes || count == UINT32_MAX)
        return false;
    if (count == 1) {
        run->local_stride = (int64_t)(next->local_addr - run->local_addr);
        run->remote_stride = (int64_t)(next->remote_addr - run->remote_addr);
    } else if (next->local_addr != bt_run_local(run, count) ||
               next->remote_addr != bt_run_remote(run, count)) {
        return false;
    }
    run->count = count + 1;
    return true;
}

/* Every piece lies in [base, base + size): the first and the last do, and the way between them does
 * not wrap around. */
static bool pieces_are_inside(uint64_t addr, int64_t stride, uint32_t count, uint64_t bytes,
                              uint64_t base, uint64_t size)
{
    int64_t way;
    if (count == 1)
        return is_inside(addr, bytes, base, size);
    return !__builtin_mul_overflow(stride, (int64_t)count - 1, &way) && size <= INT64_MAX &&
           is_inside(addr, bytes, base, size) && is_inside(addr + (uint64_t)way, bytes, base, size);
}

static baton_status check_run(const bt_memory *local, const bt_remote *remote, const bt_run *run)
{
    uint32_t count = bt_run_count(run);
    if (run->bytes == 0)
        return bt_fail(BATON_ERR_INVALID_ARG, "transport: put: wanted runs of at least 1 byte");
    bool local_ok = local != NULL
                        ? pieces_are_inside(run->local_addr, run->local_stride, count, run->bytes,
                                            (uint64_t)(uintptr_t)local->base, local->bytes)
                        : run->bytes <= UINT64_MAX - run->local_addr;
    if (!local_ok)
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "transport: put: %llu bytes at 0x%llx are outside the local memory",
                       (unsigned long long)run->bytes, (unsigned long long)run->local_addr);
    if (!pieces_are_inside(run->remote_addr, run->remote_stride, count, run->bytes, remote->base,
                           remote->bytes))
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "transport: put: %llu bytes at 0x%llx are outside the remote region, %llu "
                       "bytes at 0x%llx",
                       (unsigned long long)run->bytes, (unsigned long long)run->remote_addr,
                       (unsigned long long)remote->bytes, (unsigned long long)remote->base);
    return BATON_OK;
}

baton_status bt_endpoint_put(bt_endpoint *endpoint, bt_memory *local, bt_remote *remote,
                             const bt_run *runs, uint32_t n_runs, uint64_t user_data)
{
    if (n_runs == 0)
        return bt_fail(BATON_ERR_INVALID_ARG, "transport: put: wanted at least 1 run");
    if (remote->endpoint != endpoint)
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "transport: put: the remote key was imported on another endpoint");
    for (uint32_t i = 0; i < n_runs; i++)
        BATON_TRY(check_run(local, remote, &runs[i]));
    const bt_cuda *entered = bt_transport_enter(endpoint->worker->transport);
    baton_status status =
        endpoint->worker->transport->ops->put(endpoint, local, remote, runs, n_runs, user_data);
    bt_transport_leave(entered);
    return status;
}

baton_status bt_endpoint_flush(bt_endpoint *endpoint, uint64_t user_data)
{
    const bt_cuda *entered = bt_transport_enter(endpoint->worker->transport);
    baton_status status = endpoint->worker->transport->ops->flush(endpoint, user_data);
    bt_transport_leave(entered);
    return status;
}

baton_status bt_endpoint_send(bt_endpoint *endpoint, const void *bytes, size_t n_bytes)
{
    if (n_bytes == 0 || n_bytes > BT_SEND_BYTES_MAX)
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "transport: wanted a message of 1 to %d bytes, "
                       "found %zu",
                       BT_SEND_BYTES_MAX, n_bytes);
    return endpoint->worker->transport->ops->send(endpoint, bytes, n_bytes);
}
