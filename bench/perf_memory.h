/* SPDX-License-Identifier: Apache-2.0 */
/* Memory of any kind for the two ends of a transfer, with an image that the CPU fills and checks:
 * the memory itself, or, for device memory, a copy on the host.
 * Thread rule: owner thread. */
#ifndef BT_BENCH_PERF_MEMORY_H
#define BT_BENCH_PERF_MEMORY_H
#include <baton/kv.h>

#include "core/cudadevice.h"

typedef struct {
    baton_memory_kind kind;
    bt_cuda *cuda;  /* NULL for host memory */
    uint8_t *image; /* [bytes] */
    uint8_t *base;  /* [bytes] of the kind; image, unless on a device */
    size_t bytes;
} bt_perf_memory;

/* huge: host memory asks for huge pages. *memory is to be closed also after a failure. Errors:
 * NO_MEMORY, UNSUPPORTED (no driver or GPU), IO. */
baton_status bt_perf_memory_open(baton_memory_kind kind, size_t bytes, bool huge,
                                 bt_perf_memory *memory);
void bt_perf_memory_close(bt_perf_memory *memory); /* A zeroed one is allowed. */
/* The image goes to where it belongs. Errors: IO. */
baton_status bt_perf_memory_upload(const bt_perf_memory *memory);
/* Reads n bytes of another's memory of this kind, at most [bytes]: *image_p points to them, until
 * the next call. Errors: IO. */
baton_status bt_perf_memory_peek(const bt_perf_memory *memory, const void *from, size_t n,
                                 const void **image_p);

#endif
