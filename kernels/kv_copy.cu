/* SPDX-License-Identifier: Apache-2.0 */
/* Gather and scatter on the GPU: one launch for all layers.
 *
 *   grid  x: groups of tokens   y: (layer, plane)
 *   block x: lanes over one token's row, in the largest unit that everything is aligned to
 *         y: tokens
 *
 * Planes and slots are resolved and checked on the host, and go to the device with the stream.
 * Contracts: baton/kv.h. */
#include "kernels/kv_index.h"

#include <cuda_runtime_api.h>
#include <string.h>

extern "C" {
#include "core/alloc.h"
#include "core/fail.h"
#include "kernels/kv_check.h"
}

namespace
{

constexpr uint32_t BLOCK_THREADS = 256, MAX_LANES = 128, MAX_GRID_Y = 65535;

/* Everything the kernel needs, by value; pointers are the device's. */
struct copy_args {
    baton_kv_view view;   /* planes: [n_layers] of the range being moved */
    const int64_t *slots; /* [n_tokens], negative: skip */
    uint8_t *page;
    uint32_t n_layers;
    uint32_t n_tokens;
    bool to_page;
};

/* Unit: the widest type that bases, strides and head_bytes are multiples of. */
template <typename Unit>
__device__ void copy_row(const copy_args &args, uint8_t *paged, uint8_t *row)
{
    uint64_t head_units = args.view.head_bytes / sizeof(Unit);
    uint64_t n_units = head_units * args.view.n_kv_heads;
    Unit *dense = reinterpret_cast<Unit *>(row);
    for (uint64_t u = threadIdx.x; u < n_units; u += blockDim.x) {
        uint64_t head = u / head_units;
        Unit *strided = reinterpret_cast<Unit *>(paged + head * args.view.head_stride_bytes) +
                        (u - head * head_units);
        if (args.to_page)
            dense[u] = *strided;
        else
            *strided = dense[u];
    }
}

template <typename Unit> __global__ void copy_tokens(copy_args args)
{
    uint64_t t = (uint64_t)blockIdx.x * blockDim.y + threadIdx.y;
    if (t >= args.n_tokens)
        return;
    int64_t slot = args.slots[t];
    if (slot < 0)
        return;
    uint64_t offset = bt_kv_slot_offset(&args.view, (uint64_t)slot);
    uint64_t n_planes = (uint64_t)args.n_layers * args.view.n_planes;
    for (uint64_t i = blockIdx.y; i < n_planes; i += gridDim.y) {
        uint32_t layer = (uint32_t)(i / args.view.n_planes);
        uint32_t plane = (uint32_t)(i % args.view.n_planes);
        uint64_t at = bt_kv_page_offset(&args.view, args.n_tokens, layer, plane, (uint32_t)t);
        copy_row<Unit>(args, bt_kv_plane_base(&args.view, layer, plane) + offset, args.page + at);
    }
}

baton_status fail_cuda(cudaError_t error, const char *wanted)
{
    baton_status status = BATON_ERR_IO;
    if (error == cudaErrorMemoryAllocation)
        status = BATON_ERR_NO_MEMORY;
    else if (error == cudaErrorNoDevice || error == cudaErrorInsufficientDriver)
        status = BATON_ERR_UNSUPPORTED;
    return bt_fail(status, "kv: wanted %s on the GPU, found: %s", wanted,
                   cudaGetErrorString(error));
}

/* The device faults, and takes the context with it, when it touches ordinary host memory. */
baton_status check_reachable(const char *what, const void *pointer)
{
    cudaPointerAttributes attributes;
    cudaError_t error = cudaPointerGetAttributes(&attributes, pointer);
    if (error != cudaSuccess)
        return fail_cuda(error, "to look a pointer up");
    if (attributes.type == cudaMemoryTypeUnregistered)
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "kv: %s: wanted device or pinned memory, found ordinary host memory; "
                       "register it with cudaHostRegister",
                       what);
    return BATON_OK;
}

baton_status check_all(const baton_kv_view *view, const baton_kv_tokens *tokens,
                       uint32_t first_layer, uint32_t n_layers, const void *page,
                       uint64_t page_bytes)
{
    BATON_TRY(bt_kv_copy_check(view, tokens, first_layer, n_layers, page, page_bytes));
    if (view->memory == BATON_MEMORY_HOST)
        return bt_fail(BATON_ERR_UNSUPPORTED,
                       "kv: paged KV is in ordinary host memory, which the GPU cannot touch");
    if (tokens->n_tokens == 0 || n_layers == 0)
        return BATON_OK;
    BATON_TRY(check_reachable("page", page));
    return check_reachable("paged KV", view->planes[first_layer].k);
}

/* Bits that are set in any address or step of the copy: their lowest one is the alignment. */
uint64_t alignment_bits(const copy_args *args, const baton_kv_plane *planes)
{
    const baton_kv_view *view = &args->view;
    uint64_t bits = (uintptr_t)args->page | view->head_bytes;
    bits |= view->n_blocks > 1 ? view->block_stride_bytes : 0;
    bits |= view->block_tokens > 1 ? view->token_stride_bytes : 0;
    bits |= view->n_kv_heads > 1 ? view->head_stride_bytes : 0;
    for (uint32_t layer = 0; layer < args->n_layers; layer++)
        bits |= (uintptr_t)planes[layer].k | (uintptr_t)planes[layer].v;
    return bits;
}

template <typename Unit> void launch(const copy_args *args, cudaStream_t stream)
{
    uint64_t units = bt_kv_row_bytes(&args->view) / sizeof(Unit);
    uint32_t lanes = 1;
    while (lanes < MAX_LANES && lanes < units)
        lanes *= 2;
    uint32_t tokens_per_block = BLOCK_THREADS / lanes;
    uint64_t n_planes = (uint64_t)args->n_layers * args->view.n_planes;
    dim3 block(lanes, tokens_per_block);
    dim3 grid((uint32_t)(((uint64_t)args->n_tokens + tokens_per_block - 1) / tokens_per_block),
              (uint32_t)(n_planes < MAX_GRID_Y ? n_planes : MAX_GRID_Y));
    copy_tokens<Unit><<<grid, block, 0, stream>>>(*args);
}

void launch_aligned(const copy_args *args, uint64_t bits, cudaStream_t stream)
{
    if (bits % 16 == 0)
        launch<uint4>(args, stream);
    else if (bits % 8 == 0)
        launch<uint2>(args, stream);
    else if (bits % 4 == 0)
        launch<uint32_t>(args, stream);
    else
        launch<uint8_t>(args, stream);
}

/* What goes to the device: planes of the range, then slots. */
struct tables {
    uint8_t *bytes; /* owned */
    size_t n_bytes;
    size_t slots_at;
};

baton_status make_tables(const baton_kv_view *view, const baton_kv_tokens *tokens,
                         uint32_t first_layer, uint32_t n_layers, tables *out)
{
    size_t slots_at = n_layers * sizeof(baton_kv_plane);
    size_t n_bytes = slots_at + tokens->n_tokens * sizeof(int64_t);
    uint8_t *bytes = static_cast<uint8_t *>(bt_calloc(n_bytes, 1));
    if (bytes == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "kv: wanted %zu bytes for slots and planes", n_bytes);
    memcpy(bytes, view->planes + first_layer, slots_at);
    int64_t *slots = reinterpret_cast<int64_t *>(bytes + slots_at);
    for (uint32_t t = 0; t < tokens->n_tokens; t++)
        slots[t] = bt_kv_token_slot(view, tokens, t);
    *out = tables{bytes, n_bytes, slots_at};
    return BATON_OK;
}

/* Queues upload, kernel and the upload's free. */
baton_status queue_copy(copy_args *args, const tables *host, cudaStream_t stream)
{
    uint8_t *device = NULL;
    cudaError_t error = cudaMallocAsync(reinterpret_cast<void **>(&device), host->n_bytes, stream);
    if (error != cudaSuccess)
        return fail_cuda(error, "memory for slots and planes");
    /* From pageable memory the call returns only after it has read the source. */
    error = cudaMemcpyAsync(device, host->bytes, host->n_bytes, cudaMemcpyHostToDevice, stream);
    if (error == cudaSuccess) {
        const baton_kv_plane *planes = reinterpret_cast<const baton_kv_plane *>(host->bytes);
        uint64_t bits = alignment_bits(args, planes);
        args->view.planes = reinterpret_cast<const baton_kv_plane *>(device);
        args->slots = reinterpret_cast<const int64_t *>(device + host->slots_at);
        launch_aligned(args, bits, stream);
        error = cudaGetLastError();
    }
    cudaError_t freed = cudaFreeAsync(device, stream);
    if (error == cudaSuccess)
        error = freed;
    return error == cudaSuccess ? BATON_OK : fail_cuda(error, "to copy paged KV");
}

baton_status copy_layers(const baton_kv_view *view, const baton_kv_tokens *tokens,
                         uint32_t first_layer, uint32_t n_layers, uint8_t *page, bool to_page,
                         cudaStream_t stream)
{
    if (tokens->n_tokens == 0 || n_layers == 0)
        return BATON_OK;
    tables host;
    BATON_TRY(make_tables(view, tokens, first_layer, n_layers, &host));
    copy_args args = {*view, NULL, page, n_layers, tokens->n_tokens, to_page};
    baton_status status = queue_copy(&args, &host, stream);
    bt_free(host.bytes);
    return status;
}

} /* namespace */

extern "C" baton_status baton_kv_gather_cuda(const baton_kv_view *view,
                                             const baton_kv_tokens *tokens, uint32_t first_layer,
                                             uint32_t n_layers, void *page, uint64_t page_bytes,
                                             struct CUstream_st *stream)
{
    BATON_TRY(check_all(view, tokens, first_layer, n_layers, page, page_bytes));
    return copy_layers(view, tokens, first_layer, n_layers, static_cast<uint8_t *>(page), true,
                       stream);
}

extern "C" baton_status baton_kv_scatter_cuda(const baton_kv_view *view,
                                              const baton_kv_tokens *tokens, uint32_t first_layer,
                                              uint32_t n_layers, const void *page,
                                              uint64_t page_bytes, struct CUstream_st *stream)
{
    BATON_TRY(check_all(view, tokens, first_layer, n_layers, page, page_bytes));
    /* The page is only read in this direction. */
    return copy_layers(view, tokens, first_layer, n_layers, (uint8_t *)page, false, stream);
}
