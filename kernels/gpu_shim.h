/* SPDX-License-Identifier: Apache-2.0 */
/* What a kernel's body is written in, so that nvcc and the C compiler take the same text: on the
 * GPU a block's threads run at once and meet at barriers; on the host, in tests, a loop plays them
 * one after the other, in an order that the test chooses.
 *
 *   BT_GPU_FOR_EACH_THREAD(move(args, shared, block, thread));   all threads, then a barrier
 *
 * A body keeps nothing in variables between two of these but what all its threads agree on; the
 * rest is in shared memory.
 * Thread rule: on the host, one thread. */
#ifndef BT_KERNELS_GPU_SHIM_H
#define BT_KERNELS_GPU_SHIM_H
#include <stdint.h>

#ifdef __CUDACC__

#define BT_GPU_INLINE static inline __device__
#define BT_GPU_ALIAS
#define BT_GPU_FOR_EACH_THREAD(call)         \
    do {                                     \
        const uint32_t thread = threadIdx.x; \
        call;                                \
        __syncthreads();                     \
    } while (0)

/* Adds 1; what this thread wrote before is visible to whoever sees the new count. */
BT_GPU_INLINE uint32_t bt_gpu_count_up(uint32_t *count)
{
    __threadfence();
    uint32_t before = atomicAdd(count, 1u);
    __threadfence();
    return before;
}

#else

#define BT_GPU_INLINE static inline
#define BT_GPU_ALIAS __attribute__((may_alias)) /* bytes are read as larger units */
#define BT_GPU_FOR_EACH_THREAD(call)                                                     \
    do {                                                                                 \
        for (uint32_t turn = 0; turn < BT_GPU_THREADS; turn++) {                         \
            const uint32_t thread =                                                      \
                (turn * bt_gpu_shim_step + 7 * (bt_gpu_shim_step / 2)) % BT_GPU_THREADS; \
            call;                                                                        \
        }                                                                                \
    } while (0)

/* Odd: 1 is ascending order, BT_GPU_THREADS - 1 descending, others hop about. */
static uint32_t bt_gpu_shim_step = 1;

BT_GPU_INLINE uint32_t bt_gpu_count_up(uint32_t *count)
{
    return (*count)++;
}

#endif

enum { BT_GPU_THREADS = 256, BT_GPU_WARP = 32 };

#endif
