/* SPDX-License-Identifier: Apache-2.0 */
/* Gather and scatter on the GPU: one launch for all layers, a thread block for each tile of the
 * page (kv_gpu.h). Everything is resolved and checked on the host; what the kernel needs to know
 * travels with the launch, unless a token list is too long for that or a digest is wanted: then
 * with the stream, in memory that is freed behind the kernel.
 * Contracts: baton/kv.h. */
#include "kernels/kv_gpu.h"

#include <cuda_runtime_api.h>

extern "C" {
#include "core/alloc.h"
#include "core/fail.h"
#include "kernels/kv_check.h"
#include "kernels/kv_kernels.h"
}

namespace
{

enum { COUNTER_BYTES = 16, MAX_GRID = INT32_MAX };
static_assert(sizeof(bt_gpu_copy) <= 4096, "launch arguments");

template <uint32_t UNIT, bool DIGESTS>
__global__ void __launch_bounds__(BT_GPU_THREADS)
    move_tiles(const __grid_constant__ bt_gpu_copy copy)
{
    if constexpr (DIGESTS) {
        __shared__ bt_gpu_shared shared;
        bt_gpu_run_tile(&copy, &shared, blockIdx.x, UNIT, true);
    } else {
        bt_gpu_run_tile(&copy, nullptr, blockIdx.x, UNIT, false);
    }
}

baton_status fail_cuda(cudaError_t error, const char *wanted)
{
    baton_status status = BATON_ERR_IO;
    if (error == cudaErrorMemoryAllocation)
        status = BATON_ERR_NO_MEMORY;
    else if (error == cudaErrorNoDevice || error == cudaErrorInsufficientDriver ||
             error == cudaErrorNotSupported || error == cudaErrorNoKernelImageForDevice)
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

template <bool DIGESTS> void launch(const bt_gpu_copy *copy, uint32_t unit, cudaStream_t stream)
{
    uint64_t n_tiles = (copy->page_bytes + BT_GPU_TILE_BYTES - 1) / BT_GPU_TILE_BYTES;
    dim3 grid((uint32_t)n_tiles), block(BT_GPU_THREADS);
    switch (unit) {
    case 16:
        move_tiles<16, DIGESTS><<<grid, block, 0, stream>>>(*copy);
        break;
    case 8:
        move_tiles<8, DIGESTS><<<grid, block, 0, stream>>>(*copy);
        break;
    case 4:
        move_tiles<4, DIGESTS><<<grid, block, 0, stream>>>(*copy);
        break;
    case 2:
        move_tiles<2, DIGESTS><<<grid, block, 0, stream>>>(*copy);
        break;
    default:
        move_tiles<1, DIGESTS><<<grid, block, 0, stream>>>(*copy);
    }
}

bool takes_digests(const bt_gpu_copy *copy)
{
    return copy->digest != nullptr || copy->tiles != nullptr;
}

cudaError_t launch_any(const bt_gpu_copy *copy, uint32_t unit, cudaStream_t stream)
{
    if (takes_digests(copy))
        launch<true>(copy, unit, stream);
    else
        launch<false>(copy, unit, stream);
    return cudaGetLastError();
}

/* What a launch needs in device memory:  | counter, 0 | table, when it is large | tiles | */
struct scratch {
    uint8_t *host; /* counter and table, owned; NULL when the launch carries the table */
    size_t host_bytes;
    size_t tiles_bytes;
};

baton_status plan_scratch(const bt_gpu_copy *copy, scratch *made)
{
    uint64_t n_tiles = (copy->page_bytes + BT_GPU_TILE_BYTES - 1) / BT_GPU_TILE_BYTES;
    if (n_tiles > MAX_GRID)
        return bt_fail(BATON_ERR_TOO_LARGE, "kv: a page of %llu bytes is too large for one launch",
                       (unsigned long long)copy->page_bytes);
    *made = scratch{nullptr, COUNTER_BYTES, copy->digest != nullptr ? 8 * (size_t)n_tiles : 0};
    return BATON_OK;
}

baton_status make_scratch(const baton_kv_view *view, const baton_kv_tokens *tokens,
                          uint32_t first_layer, bt_gpu_copy *copy, uint32_t *unit, scratch *made)
{
    uint64_t entries = bt_gpu_table_entries(copy);
    BATON_TRY(plan_scratch(copy, made));
    uint64_t *table = copy->small_table;
    if (entries > BT_GPU_SMALL_TABLE) {
        made->host_bytes += sizeof(uint64_t) * entries;
        made->host = static_cast<uint8_t *>(bt_calloc(made->host_bytes, 1));
        if (made->host == nullptr)
            return bt_fail(BATON_ERR_NO_MEMORY, "kv: wanted %zu bytes for slots and planes",
                           made->host_bytes);
        table = reinterpret_cast<uint64_t *>(made->host + COUNTER_BYTES);
    }
    bt_gpu_fill_table(view, tokens, first_layer, copy, table, unit);
    return BATON_OK;
}

/* Queues what fills the scratch memory, the kernel, and its free. */
cudaError_t queue_with_scratch(bt_gpu_copy *copy, uint32_t unit, const scratch *made,
                               cudaStream_t stream)
{
    uint8_t *device = nullptr;
    cudaError_t error = cudaMallocAsync(reinterpret_cast<void **>(&device),
                                        made->host_bytes + made->tiles_bytes, stream);
    if (error != cudaSuccess)
        return error;
    if (made->host == nullptr) {
        error = cudaMemsetAsync(device, 0, COUNTER_BYTES, stream);
    } else {
        /* From pageable memory the call returns only after it has read the source. */
        error =
            cudaMemcpyAsync(device, made->host, made->host_bytes, cudaMemcpyHostToDevice, stream);
        copy->table = reinterpret_cast<const uint64_t *>(device + COUNTER_BYTES);
    }
    if (copy->digest != nullptr) {
        copy->n_done = reinterpret_cast<uint32_t *>(device);
        copy->tiles = reinterpret_cast<uint64_t *>(device + made->host_bytes);
    }
    if (error == cudaSuccess)
        error = launch_any(copy, unit, stream);
    cudaError_t freed = cudaFreeAsync(device, stream);
    return error != cudaSuccess ? error : freed;
}

/* Where the digest of what is moved goes, or those of its tiles; NULL: it is not wanted. */
struct outputs {
    uint64_t *digest, *tiles;
};

baton_status copy_layers(const baton_kv_view *view, const baton_kv_tokens *tokens,
                         uint32_t first_layer, uint32_t n_layers, void *page, bool to_page,
                         outputs out, cudaStream_t stream)
{
    bt_gpu_copy copy;
    uint32_t unit = 1;
    scratch made{};
    BATON_TRY(bt_gpu_plan(view, tokens, n_layers, page, to_page, &copy));
    copy.digest = out.digest;
    copy.tiles = out.tiles;
    BATON_TRY(make_scratch(view, tokens, first_layer, &copy, &unit, &made));
    bool needs_scratch = out.digest != nullptr || made.host != nullptr;
    cudaError_t error = needs_scratch ? queue_with_scratch(&copy, unit, &made, stream)
                                      : launch_any(&copy, unit, stream);
    bt_free(made.host);
    return error == cudaSuccess ? BATON_OK : fail_cuda(error, "to copy paged KV");
}

baton_status digest_layers(const baton_kv_view *view, const baton_kv_tokens *tokens,
                           uint32_t first_layer, uint32_t n_layers, void *page, uint64_t page_bytes,
                           bool to_page, outputs out, cudaStream_t stream)
{
    uint64_t *place = out.digest != nullptr ? out.digest : out.tiles;
    BATON_TRY(check_all(view, tokens, first_layer, n_layers, page, page_bytes));
    if (place == nullptr)
        return bt_fail(BATON_ERR_INVALID_ARG, "kv: wanted a place for the digest, found NULL");
    if (tokens->n_tokens == 0 || n_layers == 0)
        return bt_fail(BATON_ERR_INVALID_ARG, "kv: wanted a page with bytes to digest on the GPU");
    BATON_TRY(check_reachable("digest", place));
    return copy_layers(view, tokens, first_layer, n_layers, page, to_page, out, stream);
}

/* A kernel that is not in the binary for this device fails here, not in the middle of a hand-off.
 */
bool can_run(bool digests)
{
    cudaFuncAttributes attributes;
    int device = 0, has_pools = 0;
    bool is_there = cudaFuncGetAttributes(&attributes, move_tiles<16, true>) == cudaSuccess;
    if (is_there && digests)
        is_there = cudaGetDevice(&device) == cudaSuccess &&
                   cudaDeviceGetAttribute(&has_pools, cudaDevAttrMemoryPoolsSupported, device) ==
                       cudaSuccess &&
                   has_pools != 0;
    cudaGetLastError(); /* the answer is no, which is no error of whoever calls CUDA next */
    return is_there;
}

baton_status gather_any(const baton_kv_view *view, const baton_kv_tokens *tokens,
                        uint32_t first_layer, uint32_t n_layers, void *page, uint64_t page_bytes,
                        uint64_t *digest, struct CUstream_st *stream)
{
    if (digest != nullptr)
        return baton_kv_gather_digest_cuda(view, tokens, first_layer, n_layers, page, page_bytes,
                                           digest, stream);
    return baton_kv_gather_cuda(view, tokens, first_layer, n_layers, page, page_bytes, stream);
}

baton_status gather_tiles(const baton_kv_view *view, const baton_kv_tokens *tokens,
                          uint32_t first_layer, uint32_t n_layers, void *page, uint64_t page_bytes,
                          uint64_t *tiles, struct CUstream_st *stream)
{
    return digest_layers(view, tokens, first_layer, n_layers, page, page_bytes, true,
                         {nullptr, tiles}, stream);
}

baton_status digest_any(const void *bytes, uint64_t n, outputs out, cudaStream_t stream)
{
    bt_gpu_copy copy;
    uint32_t unit;
    scratch made{};
    uint64_t *place = out.digest != nullptr ? out.digest : out.tiles;
    if (bytes == nullptr || n == 0 || place == nullptr)
        return bt_fail(BATON_ERR_INVALID_ARG, "kv: wanted bytes to digest, and a place for it");
    BATON_TRY(check_reachable("bytes to digest", bytes));
    BATON_TRY(check_reachable("digest", place));
    bt_gpu_plan_digest(bytes, n, &copy, &unit);
    copy.digest = out.digest;
    copy.tiles = out.tiles;
    BATON_TRY(plan_scratch(&copy, &made));
    cudaError_t error = out.digest != nullptr ? queue_with_scratch(&copy, unit, &made, stream)
                                              : launch_any(&copy, unit, stream);
    return error == cudaSuccess ? BATON_OK : fail_cuda(error, "to digest bytes");
}

baton_status digest_bytes(const void *bytes, uint64_t n, uint64_t *digest,
                          struct CUstream_st *stream)
{
    return digest_any(bytes, n, {digest, nullptr}, stream);
}

baton_status digest_tiles(const void *bytes, uint64_t n, uint64_t *tiles,
                          struct CUstream_st *stream)
{
    return digest_any(bytes, n, {nullptr, tiles}, stream);
}

} /* namespace */

extern "C" const bt_kv_kernels *bt_kv_kernels_built(void)
{
    static const bt_kv_kernels kernels = {can_run, gather_any, gather_tiles, digest_bytes,
                                          digest_tiles};
    return &kernels;
}

extern "C" baton_status baton_kv_gather_cuda(const baton_kv_view *view,
                                             const baton_kv_tokens *tokens, uint32_t first_layer,
                                             uint32_t n_layers, void *page, uint64_t page_bytes,
                                             struct CUstream_st *stream)
{
    BATON_TRY(check_all(view, tokens, first_layer, n_layers, page, page_bytes));
    if (tokens->n_tokens == 0 || n_layers == 0)
        return BATON_OK;
    return copy_layers(view, tokens, first_layer, n_layers, page, true, {nullptr, nullptr}, stream);
}

extern "C" baton_status baton_kv_scatter_cuda(const baton_kv_view *view,
                                              const baton_kv_tokens *tokens, uint32_t first_layer,
                                              uint32_t n_layers, const void *page,
                                              uint64_t page_bytes, struct CUstream_st *stream)
{
    BATON_TRY(check_all(view, tokens, first_layer, n_layers, page, page_bytes));
    if (tokens->n_tokens == 0 || n_layers == 0)
        return BATON_OK;
    /* The page is only read in this direction. */
    return copy_layers(view, tokens, first_layer, n_layers, const_cast<void *>(page), false,
                       {nullptr, nullptr}, stream);
}

extern "C" baton_status baton_kv_gather_digest_cuda(const baton_kv_view *view,
                                                    const baton_kv_tokens *tokens,
                                                    uint32_t first_layer, uint32_t n_layers,
                                                    void *page, uint64_t page_bytes,
                                                    uint64_t *digest, struct CUstream_st *stream)
{
    return digest_layers(view, tokens, first_layer, n_layers, page, page_bytes, true,
                         {digest, nullptr}, stream);
}

extern "C" baton_status baton_kv_scatter_digest_cuda(const baton_kv_view *view,
                                                     const baton_kv_tokens *tokens,
                                                     uint32_t first_layer, uint32_t n_layers,
                                                     const void *page, uint64_t page_bytes,
                                                     uint64_t *digest, struct CUstream_st *stream)
{
    return digest_layers(view, tokens, first_layer, n_layers, const_cast<void *>(page), page_bytes,
                         false, {digest, nullptr}, stream);
}
