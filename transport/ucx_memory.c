/* SPDX-License-Identifier: Apache-2.0 */
/* Regions: allocated by UCX, as shared memory where it can, so that a peer on this host can map
 * them; or the caller's own, registered. */
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "core/alloc.h"
#include "core/log.h"
#include "transport/hostlimits.h"
#include "transport/seal.h"
#include "transport/sysfsread.h"
#include "transport/ucx_state.h"

/* Pinned host memory is host memory to UCX. */
static ucs_memory_type_t type_of(baton_memory_kind kind)
{
    return kind == BATON_MEMORY_CUDA_DEVICE ? UCS_MEMORY_TYPE_CUDA : UCS_MEMORY_TYPE_HOST;
}

static baton_status seal_key(ucx_memory *memory)
{
    ucx_transport *transport = (ucx_transport *)memory->base.transport;
    void *packed;
    size_t packed_bytes;
    ucs_status_t status = ucp_rkey_pack(transport->context, memory->handle, &packed, &packed_bytes);
    if (status != UCS_OK)
        return bt_fail_ucs(status, "packing the key of %zu bytes", memory->base.bytes);
    bt_seal seal = {.kind = BT_SEAL_KEY,
                    .backend = BT_SEAL_UCX,
                    .base = (uint64_t)(uintptr_t)memory->base.base,
                    .bytes = memory->base.bytes,
                    .memory = memory->base.kind,
                    .payload = packed,
                    .payload_bytes = packed_bytes};
    bt_ucx_version(&seal.major, &seal.minor);
    uint8_t *rkey;
    baton_status sealed = bt_seal_pack(&seal, BT_RKEY_BYTES_MAX, &rkey, &memory->base.rkey_bytes);
    ucp_rkey_buffer_release(packed);
    if (sealed >= 0)
        memory->base.rkey = rkey;
    return sealed;
}

static void add_memory(ucx_transport *transport, ucx_memory *memory)
{
    pthread_mutex_lock(&transport->lock);
    memory->next = transport->memories;
    transport->memories = memory;
    pthread_mutex_unlock(&transport->lock);
}

/* Late puts in messages find nothing from here on. */
static void remove_memory(ucx_transport *transport, ucx_memory *memory)
{
    pthread_mutex_lock(&transport->lock);
    ucx_memory **at = &transport->memories;
    while (*at != NULL && *at != memory)
        at = &(*at)->next;
    if (*at != NULL)
        *at = memory->next;
    pthread_mutex_unlock(&transport->lock);
}

void bt_ucx_memory_free(bt_memory *base)
{
    ucx_memory *memory = (ucx_memory *)base;
    ucx_transport *transport = (ucx_transport *)base->transport;
    remove_memory(transport, memory);
    if (memory->handle != NULL)
        ucp_mem_unmap(transport->context, memory->handle);
    bt_free((void *)(uintptr_t)base->rkey);
    bt_free(memory);
    pthread_mutex_lock(&transport->lock);
    transport->n_users--;
    pthread_mutex_unlock(&transport->lock);
}

/* RDMA devices need memory that stays where it is, and users may not lock much of it. */
static baton_status fail_to_register(const ucx_transport *transport, size_t bytes,
                                     ucs_status_t status)
{
    bt_host_limits limits;
    bt_host_limits_read(BT_SYSFS_ROOT, &limits);
    if (transport->has_verbs && limits.has_memlock && !limits.may_lock_all &&
        limits.memlock_bytes != BT_NO_LIMIT)
        return bt_fail(BATON_ERR_NO_MEMORY,
                       "ucx: wanted to lock %zu KiB for RDMA, found a limit of %llu KiB (ulimit "
                       "-l): raise it (LimitMEMLOCK=infinity, docker --ulimit memlock=-1): %s",
                       bytes / 1024, (unsigned long long)limits.memlock_bytes / 1024,
                       ucs_status_string(status));
    return bt_fail_ucs(status, "registering %zu bytes", bytes);
}

static baton_status map_memory(bt_transport *base, const ucp_mem_map_params_t *params,
                               baton_memory_kind kind, bt_memory **memory_p)
{
    ucx_transport *transport = (ucx_transport *)base;
    ucx_memory *memory = bt_calloc(1, sizeof(*memory));
    if (memory == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "ucx: no memory for a region");
    pthread_mutex_lock(&transport->lock);
    transport->n_users++;
    pthread_mutex_unlock(&transport->lock);
    memory->base = (bt_memory){
        .transport = base, .base = params->address, .bytes = params->length, .kind = kind};
    baton_status status;
    ucs_status_t mapped = ucp_mem_map(transport->context, params, &memory->handle);
    if (mapped != UCS_OK) {
        memory->handle = NULL;
        status = fail_to_register(transport, params->length, mapped);
        goto fail;
    }
    ucp_mem_attr_t attr = {.field_mask = UCP_MEM_ATTR_FIELD_ADDRESS | UCP_MEM_ATTR_FIELD_LENGTH};
    mapped = ucp_mem_query(memory->handle, &attr);
    if (mapped != UCS_OK) {
        status = bt_fail_ucs(mapped, "asking where %zu bytes are", params->length);
        goto fail;
    }
    if (params->address == NULL)
        memory->base.base = attr.address;
    status = seal_key(memory);
    if (status < 0)
        goto fail;
    add_memory(transport, memory);
    *memory_p = &memory->base;
    return BATON_OK;

fail:
    bt_ucx_memory_free(&memory->base);
    return status;
}

enum { HUGE_PAGE_BYTES = 2 << 20 };

/* Before the first touch: where the system gives shared memory huge pages on request
 * (transparent_hugepage/shmem_enabled), a pool has them, and a copy of 2 MiB needs one translation
 * instead of 512 on either side. UCX has taken reserved ones before, if there are any. Elsewhere
 * the pool has small pages, as it had without asking. */
static void ask_huge_pages(void *base, size_t bytes)
{
    uintptr_t page_bytes = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t at = ((uintptr_t)base + page_bytes - 1) / page_bytes * page_bytes;
    uintptr_t end = (uintptr_t)base + bytes;
    if (bytes >= HUGE_PAGE_BYTES && madvise((void *)at, end - at, MADV_HUGEPAGE) != 0)
        bt_debug("ucx: huge pages not asked for: %s bytes=%zu", strerror(errno), bytes);
}

baton_status bt_ucx_memory_alloc(bt_transport *base, size_t bytes, baton_memory_kind kind,
                                 bt_memory **memory_p)
{
    const ucp_mem_map_params_t params = {
        .field_mask = UCP_MEM_MAP_PARAM_FIELD_ADDRESS | UCP_MEM_MAP_PARAM_FIELD_LENGTH |
                      UCP_MEM_MAP_PARAM_FIELD_FLAGS | UCP_MEM_MAP_PARAM_FIELD_MEMORY_TYPE,
        .length = bytes,
        .flags = UCP_MEM_MAP_ALLOCATE,
        .memory_type = type_of(kind)};
    BATON_TRY(map_memory(base, &params, kind, memory_p));
    ask_huge_pages((*memory_p)->base, bytes);
    memset((*memory_p)->base, 0, bytes); /* first touch is paid here */
    return BATON_OK;
}

baton_status bt_ucx_memory_register(bt_transport *base, void *block, size_t bytes,
                                    baton_memory_kind kind, bt_memory **memory_p)
{
    const ucp_mem_map_params_t params = {.field_mask = UCP_MEM_MAP_PARAM_FIELD_ADDRESS |
                                                       UCP_MEM_MAP_PARAM_FIELD_LENGTH |
                                                       UCP_MEM_MAP_PARAM_FIELD_MEMORY_TYPE,
                                         .address = block,
                                         .length = bytes,
                                         .memory_type = type_of(kind)};
    return map_memory(base, &params, kind, memory_p);
}
