/* SPDX-License-Identifier: Apache-2.0 */
/* Memory kinds, the same for every backend: host memory is the backend's (it may be mappable by
 * peers), pinned memory is that and known to the GPU, device memory is a plain allocation of the
 * driver's, which all of cuda_ipc and GPUDirect can share, that the backend registers. */
#include "transport/transport.h"

#include <pthread.h>

static pthread_mutex_t open_lock = PTHREAD_MUTEX_INITIALIZER;
static bt_transport *abandoned; /* kept in sight; under open_lock */

baton_status bt_transport_cuda(bt_transport *transport, bt_cuda **cuda_p)
{
    baton_status status = BATON_OK;
    pthread_mutex_lock(&open_lock);
    bt_cuda *cuda = atomic_load_explicit(&transport->cuda, memory_order_relaxed);
    if (cuda == NULL) {
        status = bt_cuda_open(&cuda);
        if (status == BATON_OK) /* pairs with enter()'s load: the struct is whole */
            atomic_store_explicit(&transport->cuda, cuda, memory_order_release);
    }
    pthread_mutex_unlock(&open_lock);
    if (status == BATON_OK)
        *cuda_p = cuda;
    return status;
}

void bt_transport_abandon(bt_transport *transport)
{
    pthread_mutex_lock(&open_lock);
    if (!transport->is_abandoned) {
        transport->is_abandoned = true;
        transport->next_abandoned = abandoned;
        abandoned = transport;
    }
    pthread_mutex_unlock(&open_lock);
}

void bt_memory_abandon(bt_memory *memory)
{
    if (memory != NULL)
        bt_transport_count(BT_LIVE_MEMORIES, -1);
}

void bt_transport_destroy(bt_transport *transport)
{
    if (transport == NULL)
        return;
    if (transport->is_abandoned)
        return;
    bt_cuda *cuda = atomic_load_explicit(&transport->cuda, memory_order_acquire);
    bool is_entered = cuda != NULL && bt_cuda_enter(cuda) == BATON_OK;
    transport->ops->destroy(transport); /* may close what it has mapped of other processes' GPUs */
    if (is_entered)
        bt_cuda_leave(cuda);
    bt_cuda_close(cuda);
}

static baton_status alloc_pinned(bt_transport *transport, const bt_cuda *cuda, size_t bytes,
                                 bt_memory **memory_p)
{
    bt_memory *memory;
    BATON_TRY(transport->ops->memory_alloc(transport, bytes, BATON_MEMORY_CUDA_HOST, &memory));
    baton_status status = bt_cuda_pin(cuda, memory->base, memory->bytes);
    if (status < 0) {
        transport->ops->memory_free(memory);
        return status;
    }
    memory->is_pinned = true;
    *memory_p = memory;
    return BATON_OK;
}

/* The backend's own registration, with the device current. */
static baton_status register_device(bt_transport *transport, const bt_cuda *cuda, void *base,
                                    size_t bytes, bt_memory **memory_p)
{
    if (!transport->reaches_device)
        return bt_fail(BATON_ERR_UNSUPPORTED,
                       "%s: wanted CUDA device memory, found a library without it: wanted UCX_ROOT "
                       "of one built with CUDA; without, chunks are staged through pinned memory",
                       transport->ops->name);
    BATON_TRY(bt_cuda_enter(cuda));
    baton_status status =
        transport->ops->memory_register(transport, base, bytes, BATON_MEMORY_CUDA_DEVICE, memory_p);
    bt_cuda_leave(cuda);
    return status;
}

static baton_status alloc_device(bt_transport *transport, const bt_cuda *cuda, size_t bytes,
                                 bt_memory **memory_p)
{
    void *base;
    BATON_TRY(bt_cuda_alloc(cuda, bytes, &base));
    baton_status status = register_device(transport, cuda, base, bytes, memory_p);
    if (status < 0) {
        bt_cuda_free(cuda, base);
        return status;
    }
    (*memory_p)->is_device_own = true;
    return BATON_OK;
}

static baton_status alloc_memory(bt_transport *transport, size_t bytes, baton_memory_kind kind,
                                 bt_memory **memory_p)
{
    if (bytes == 0)
        return bt_fail(BATON_ERR_INVALID_ARG, "transport: wanted memory of at least 1 byte");
    if (kind == BATON_MEMORY_HOST)
        return transport->ops->memory_alloc(transport, bytes, kind, memory_p);
    bt_cuda *cuda;
    BATON_TRY(bt_transport_cuda(transport, &cuda));
    return kind == BATON_MEMORY_CUDA_HOST ? alloc_pinned(transport, cuda, bytes, memory_p)
                                          : alloc_device(transport, cuda, bytes, memory_p);
}

baton_status bt_memory_alloc(bt_transport *transport, size_t bytes, baton_memory_kind kind,
                             bt_memory **memory_p)
{
    baton_status status = alloc_memory(transport, bytes, kind, memory_p);
    bt_transport_count(BT_LIVE_MEMORIES, status == BATON_OK);
    return status;
}

static baton_status register_memory(bt_transport *transport, void *base, size_t bytes,
                                    baton_memory_kind kind, bt_memory **memory_p)
{
    if (base == NULL || bytes == 0 || bytes > UINTPTR_MAX - (uintptr_t)base)
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "transport: cannot register %zu bytes at %p: wanted memory that exists",
                       bytes, base);
    if (kind != BATON_MEMORY_CUDA_DEVICE)
        return transport->ops->memory_register(transport, base, bytes, kind, memory_p);
    bt_cuda *cuda;
    BATON_TRY(bt_transport_cuda(transport, &cuda));
    if (!bt_cuda_is_device_memory(cuda, base))
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "transport: cannot register %p as device memory: the driver knows it as "
                       "something else",
                       base);
    return register_device(transport, cuda, base, bytes, memory_p);
}

baton_status bt_memory_register(bt_transport *transport, void *base, size_t bytes,
                                baton_memory_kind kind, bt_memory **memory_p)
{
    baton_status status = register_memory(transport, base, bytes, kind, memory_p);
    bt_transport_count(BT_LIVE_MEMORIES, status == BATON_OK);
    return status;
}

void bt_memory_free(bt_memory *memory)
{
    if (memory == NULL)
        return;
    bt_transport_count(BT_LIVE_MEMORIES, -1);
    bt_transport *transport = memory->transport;
    bt_cuda *cuda = atomic_load_explicit(&transport->cuda, memory_order_acquire);
    void *device = memory->is_device_own ? memory->base : NULL;
    bool is_entered = cuda != NULL && bt_cuda_enter(cuda) == BATON_OK;
    if (memory->is_pinned)
        bt_cuda_unpin(cuda, memory->base);
    transport->ops->memory_free(memory);
    if (is_entered)
        bt_cuda_leave(cuda);
    if (device != NULL)
        bt_cuda_free(cuda, device);
}
