/* SPDX-License-Identifier: Apache-2.0 */
/* Remote keys, puts and flushes. One operation counts the requests of a whole put call; a request
 * that UCX finishes at once costs nothing but the call. */
#include <sys/mman.h>
#include <unistd.h>

#include "core/alloc.h"
#include "transport/seal.h"
#include "transport/ucx_message.h"
#include "transport/ucx_state.h"

/* Larger runs are split: over tcp the ends then work side by side, and endpoints of one worker take
 * turns. Smaller pieces cost more calls than they gain. */
static const uint64_t put_bytes_max = 512 << 10;

/* UCX attaches to shared memory while it unpacks a key, and 1.13 crashes where that is not
 * permitted. A packed key is a bit map of the memory domains that it has parts for, the memory's
 * type, and these parts (ucp_rkey_pack_memh in openucx/ucx src/ucp/core/ucp_rkey.c): one without
 * any is good for puts in messages. */
static ucs_status_t unpack_empty(ucx_endpoint *endpoint, const bt_seal *seal, ucp_rkey_h *handle_p)
{
    enum { MAP_BYTES = 8 };
    uint8_t key[MAP_BYTES + 1] = {0};
    if (seal->payload_bytes <= MAP_BYTES)
        return UCS_ERR_INVALID_PARAM;
    key[MAP_BYTES] = seal->payload[MAP_BYTES];
    return ucp_ep_rkey_unpack(endpoint->handle, key, handle_p);
}

baton_status bt_ucx_import(bt_endpoint *base, const void *rkey, size_t rkey_bytes,
                           bt_remote **remote_p)
{
    ucx_endpoint *endpoint = (ucx_endpoint *)base;
    bt_seal seal = {.kind = BT_SEAL_KEY, .backend = BT_SEAL_UCX};
    bt_ucx_version(&seal.major, &seal.minor);
    BATON_TRY(bt_seal_open(rkey, rkey_bytes, &seal));
    ucx_remote *remote = bt_calloc(1, sizeof(*remote));
    if (remote == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "ucx: no memory for a remote key");
    remote->base =
        (bt_remote){.endpoint = base, .base = seal.base, .bytes = seal.bytes, .kind = seal.memory};
    ucs_status_t status = base->may_not_attach
                              ? unpack_empty(endpoint, &seal, &remote->handle)
                              : ucp_ep_rkey_unpack(endpoint->handle, seal.payload, &remote->handle);
    if (status != UCS_OK) {
        bt_free(remote);
        return bt_fail_ucs(status, "unpacking a remote key of %zu bytes", rkey_bytes);
    }
    endpoint->n_remotes++;
    *remote_p = &remote->base;
    return BATON_OK;
}

void bt_ucx_remote_free(ucx_remote *remote)
{
    ucx_endpoint *endpoint = (ucx_endpoint *)remote->base.endpoint;
    for (size_t i = 0; i < sizeof(endpoint->last_puts) / sizeof(endpoint->last_puts[0]); i++)
        if (endpoint->last_puts[i].key == remote->handle)
            endpoint->last_puts[i] = (ucx_last_put){0};
    ucp_rkey_destroy(remote->handle);
    bt_free(remote);
}

void bt_ucx_release(bt_remote *base)
{
    ucx_remote *remote = (ucx_remote *)base;
    ((ucx_endpoint *)base->endpoint)->n_remotes--;
    remote->is_released = true;
    if (remote->n_held == 0)
        bt_ucx_remote_free(remote);
}

baton_status bt_ucx_map(bt_remote *base, uint64_t remote_addr, void **local_p)
{
    ucx_remote *remote = (ucx_remote *)base;
    void *local;
    if (base->kind == BATON_MEMORY_CUDA_DEVICE)
        return bt_fail(BATON_ERR_UNREACHABLE, "ucx: device memory of a peer cannot be mapped");
    ucs_status_t status = ucp_rkey_ptr(remote->handle, remote_addr, &local);
    if (status != UCS_OK) {
        bt_fail_ucs(status, "mapping a peer's region (same host, same user, allocated by us?)");
        return BATON_ERR_UNREACHABLE;
    }
    *local_p = local;
    return BATON_OK;
}

bool bt_ucx_populate(bt_remote *base, uint64_t remote_addr, uint64_t bytes)
{
#ifdef MADV_POPULATE_WRITE
    void *start;
    if (base->kind == BATON_MEMORY_CUDA_DEVICE ||
        ucp_rkey_ptr(((ucx_remote *)base)->handle, remote_addr, &start) != UCS_OK)
        return false;
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t first = (uintptr_t)start / page * page;
    return madvise((void *)first, (uintptr_t)start + bytes - first, MADV_POPULATE_WRITE) == 0;
#else
    (void)base, (void)remote_addr, (void)bytes;
    return false;
#endif
}

void bt_ucx_finish_part(bt_op *op)
{
    if (--op->n_pending != 0)
        return;
    ucx_endpoint *endpoint = op->owner;
    endpoint->n_ops--;
    if (op->then != NULL)
        op->then(op);
    else if (op != &endpoint->last_flush)
        bt_op_push(&((ucx_worker *)endpoint->base.worker)->done, op);
    bt_ucx_try_close(endpoint);
}

void bt_ucx_record_failure(bt_op *op, ucs_status_t status)
{
    ucx_endpoint *endpoint = op->owner;
    if (endpoint->is_forced)
        bt_op_set_failure(op, BATON_ERR_CANCELED, "the endpoint was closed");
    else
        bt_op_set_failure(op, bt_status_from_ucs(status), ucs_status_string(status));
}

/* Called by UCX when a request of the operation has finished. */
static void on_part_done(void *request, ucs_status_t status, void *user_data)
{
    bt_op *op = user_data;
    ucp_request_free(request);
    if (status != UCS_OK)
        bt_ucx_record_failure(op, status);
    bt_ucx_finish_part(op);
}

baton_status bt_ucx_check_open(const ucx_endpoint *endpoint)
{
    if (endpoint->has_failed)
        return bt_fail(BATON_ERR_CLOSED, "ucx: the endpoint has failed: %s; wanted: close it",
                       endpoint->failed.detail);
    return BATON_OK;
}

static baton_status take_op(ucx_endpoint *endpoint, bt_event_kind kind, uint64_t user_data,
                            bt_op **op_p)
{
    BATON_TRY(bt_ucx_check_open(endpoint));
    bt_op *op = bt_op_take(&((ucx_worker *)endpoint->base.worker)->pool);
    if (op == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "ucx: no memory for an operation");
    op->kind = kind;
    op->owner = endpoint;
    op->user_data = user_data;
    *op_p = op;
    return BATON_OK;
}

/* Posts one piece, in parts, as remote memory access. */
static ucs_status_t post_piece(bt_op *op, ucp_rkey_h rkey, uint64_t local_addr,
                               uint64_t remote_addr, uint64_t n_bytes,
                               const ucp_request_param_t *params)
{
    ucx_endpoint *endpoint = op->owner;
    for (uint64_t done = 0; done < n_bytes;) {
        uint64_t bytes = n_bytes - done < put_bytes_max ? n_bytes - done : put_bytes_max;
        ucs_status_ptr_t request =
            ucp_put_nbx(endpoint->handle, (const void *)(uintptr_t)(local_addr + done), bytes,
                        remote_addr + done, rkey, params);
        if (UCS_PTR_IS_ERR(request))
            return UCS_PTR_STATUS(request);
        op->n_pending += request != NULL;
        done += bytes;
    }
    return UCS_OK;
}

static ucs_status_t post_run(bt_op *op, ucp_rkey_h rkey, const bt_run *run,
                             const ucp_request_param_t *params)
{
    ucs_status_t status = UCS_OK;
    for (uint32_t i = 0; i < bt_run_count(run) && status == UCS_OK; i++)
        status =
            post_piece(op, rkey, bt_run_local(run, i), bt_run_remote(run, i), run->bytes, params);
    return status;
}

static bool goes_in_messages(const ucx_endpoint *endpoint, const bt_remote *remote)
{
    return endpoint->uses_messages && remote->kind != BATON_MEMORY_CUDA_DEVICE;
}

ucs_status_t bt_ucx_post_runs(bt_op *op, bt_memory *local, bt_remote *remote, const bt_run *runs,
                              uint32_t n_runs)
{
    ucx_endpoint *endpoint = op->owner;
    ucp_request_param_t params = {.op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK |
                                                  UCP_OP_ATTR_FIELD_USER_DATA |
                                                  UCP_OP_ATTR_FIELD_MEMORY_TYPE,
                                  .cb = {.send = on_part_done},
                                  .user_data = op,
                                  .memory_type = UCS_MEMORY_TYPE_HOST};
    if (local != NULL) {
        params.op_attr_mask |= UCP_OP_ATTR_FIELD_MEMH;
        params.memh = ((ucx_memory *)local)->handle;
        if (local->kind == BATON_MEMORY_CUDA_DEVICE)
            params.memory_type = UCS_MEMORY_TYPE_CUDA;
    }
    bool in_messages = goes_in_messages(endpoint, remote);
    if (in_messages)
        return bt_ucx_send_runs(op, runs, n_runs, params.memory_type);
    ucs_status_t status = UCS_OK;
    for (uint32_t i = 0; i < n_runs && status == UCS_OK; i++)
        status = post_run(op, ((ucx_remote *)remote)->handle, &runs[i], &params);
    const bt_run *last = &runs[n_runs - 1];
    if (endpoint->uses_verbs)
        endpoint->last_puts[remote->kind == BATON_MEMORY_CUDA_DEVICE] = (ucx_last_put){
            ((ucx_remote *)remote)->handle, bt_run_remote(last, bt_run_count(last) - 1)};
    return status;
}

baton_status bt_ucx_put(bt_endpoint *base, bt_memory *local, bt_remote *remote, const bt_run *runs,
                        uint32_t n_runs, uint64_t user_data)
{
    ucx_endpoint *endpoint = (ucx_endpoint *)base;
    bt_op *op = NULL;
    uint64_t n_messages = endpoint->n_messages;
    if (endpoint->parked != NULL)
        bt_ucx_unpark(endpoint, NULL); /* its own operation says how that went */
    BATON_TRY(take_op(endpoint, BT_EVENT_PUT, user_data, &op));
    op->n_pending = 1; /* ours, so that it cannot finish while it is being posted */
    endpoint->n_ops++;
    endpoint->n_rma_puts += !goes_in_messages(endpoint, remote);
    ucs_status_t status = bt_ucx_must_hold(endpoint)
                              ? bt_ucx_hold(op, local, remote, runs, n_runs)
                              : bt_ucx_post_runs(op, local, remote, runs, n_runs);
    if (status != UCS_OK && op->n_pending == 1 && endpoint->n_messages == n_messages) {
        endpoint->n_ops--;
        bt_op_give(&((ucx_worker *)base->worker)->pool, op);
        return bt_fail_ucs(status, "put of %u runs", n_runs);
    }
    if (status != UCS_OK)
        bt_ucx_record_failure(op, status);
    bt_ucx_finish_part(op);
    return BATON_OK;
}

static ucp_request_param_t part_params(bt_op *op, ucp_send_nbx_callback_t callback)
{
    return (ucp_request_param_t){.op_attr_mask =
                                     UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA,
                                 .cb = {.send = callback},
                                 .user_data = op};
}

/* A flush over queue pairs ends with the peer's acknowledgements, which come from its device and
 * may overtake the bytes on their way through PCIe; a notice that takes another way could then be
 * read before them. The answer of a read on the same queue pair cannot (docs/architecture.md,
 * "Commit is never seen before the data"). */
static ucs_status_t read_back(bt_op *op)
{
    ucx_endpoint *endpoint = op->owner;
    const ucp_request_param_t params = part_params(op, on_part_done);
    for (size_t i = 0; i < sizeof(endpoint->last_puts) / sizeof(endpoint->last_puts[0]); i++) {
        const ucx_last_put *last = &endpoint->last_puts[i];
        if (last->key == NULL)
            continue;
        ucs_status_ptr_t request = ucp_get_nbx(endpoint->handle, &endpoint->read_back, 1,
                                               last->address, last->key, &params);
        if (UCS_PTR_IS_ERR(request))
            return UCS_PTR_STATUS(request);
        op->n_pending += request != NULL;
        endpoint->n_read_backs++;
    }
    return UCS_OK;
}

/* Called by UCX when everything posted before has been acknowledged. */
static void on_rma_flushed(void *request, ucs_status_t status, void *user_data)
{
    bt_op *op = user_data;
    const ucx_endpoint *endpoint = op->owner;
    if (status == UCS_OK && !endpoint->is_handed_back && !endpoint->has_failed)
        status = read_back(op);
    on_part_done(request, status, user_data);
}

ucs_status_t bt_ucx_post_flush(bt_op *op)
{
    ucx_endpoint *endpoint = op->owner;
    const ucp_request_param_t params = part_params(op, on_rma_flushed);
    ucs_status_ptr_t request = ucp_ep_flush_nbx(endpoint->handle, &params);
    if (UCS_PTR_IS_ERR(request))
        return UCS_PTR_STATUS(request);
    op->n_pending += request != NULL;
    return request == NULL ? read_back(op) : UCS_OK;
}

static ucs_status_t flush_rma(bt_op *op)
{
    return bt_ucx_must_hold(op->owner) ? bt_ucx_hold(op, NULL, NULL, NULL, 0)
                                       : bt_ucx_post_flush(op);
}

/* The first part, that of whoever starts a flush, ends. Counts on failure too: parts that were
 * started finish by themselves. */
static baton_status end_of_start(ucx_endpoint *endpoint, bt_op *op, ucs_status_t status)
{
    if (status != UCS_OK && op->n_pending == 1) {
        endpoint->n_ops--;
        return bt_fail_ucs(status, "flush");
    }
    if (status != UCS_OK)
        bt_ucx_record_failure(op, status);
    bt_ucx_finish_part(op);
    return BATON_OK;
}

baton_status bt_ucx_start_flush(ucx_endpoint *endpoint, bt_op *op)
{
    op->n_pending++;
    endpoint->n_ops++;
    ucs_status_t status = UCS_OK;
    if (endpoint->uses_messages)
        status = bt_ucx_ask_landed(op);
    if (status == UCS_OK && (!endpoint->uses_messages || endpoint->n_rma_puts != 0))
        status = flush_rma(op);
    return end_of_start(endpoint, op, status);
}

baton_status bt_ucx_flush_rma(ucx_endpoint *endpoint, bt_op *op)
{
    op->n_pending++;
    endpoint->n_ops++;
    return end_of_start(endpoint, op, flush_rma(op));
}

baton_status bt_ucx_flush(bt_endpoint *base, uint64_t user_data)
{
    ucx_endpoint *endpoint = (ucx_endpoint *)base;
    bt_op *op = NULL;
    BATON_TRY(take_op(endpoint, BT_EVENT_FLUSH, user_data, &op));
    baton_status status = bt_ucx_start_flush(endpoint, op);
    if (status < 0)
        bt_op_give(&((ucx_worker *)base->worker)->pool, op);
    return status;
}
