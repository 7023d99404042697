/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/perf_memory.h"

#include "core/fail.h"

#include <errno.h>
#include <sys/mman.h>

baton_status bt_perf_memory_open(baton_memory_kind kind, size_t bytes, bool huge,
                                 bt_perf_memory *memory)
{
    *memory = (bt_perf_memory){.kind = kind, .bytes = bytes};
    void *image = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (image == MAP_FAILED)
        return bt_fail(BATON_ERR_NO_MEMORY, "perf: %zu bytes", bytes);
    memory->image = image;
    if (huge && madvise(image, bytes, MADV_HUGEPAGE) != 0)
        return bt_fail_errno(BATON_ERR_UNSUPPORTED, errno, "perf: huge pages of %zu bytes", bytes);
    if (kind != BATON_MEMORY_HOST) {
        BATON_TRY(bt_cuda_open(&memory->cuda));
        BATON_TRY(bt_cuda_pin(memory->cuda, image, bytes));
    }
    void *base = image;
    if (kind == BATON_MEMORY_CUDA_DEVICE)
        BATON_TRY(bt_cuda_alloc(memory->cuda, bytes, &base));
    memory->base = base;
    return BATON_OK;
}

void bt_perf_memory_close(bt_perf_memory *memory)
{
    if (memory->cuda != NULL && memory->base != memory->image)
        bt_cuda_free(memory->cuda, memory->base);
    if (memory->cuda != NULL)
        bt_cuda_unpin(memory->cuda, memory->image);
    bt_cuda_close(memory->cuda);
    if (memory->image != NULL)
        munmap(memory->image, memory->bytes);
    *memory = (bt_perf_memory){0};
}

baton_status bt_perf_memory_upload(const bt_perf_memory *memory)
{
    if (memory->base == memory->image)
        return BATON_OK;
    return bt_cuda_copy(memory->cuda, memory->base, memory->image, memory->bytes);
}

baton_status bt_perf_memory_peek(const bt_perf_memory *memory, const void *from, size_t n,
                                 const void **image_p)
{
    *image_p = from;
    if (memory->kind != BATON_MEMORY_CUDA_DEVICE)
        return BATON_OK;
    *image_p = memory->image;
    return bt_cuda_copy(memory->cuda, memory->image, from, n);
}
