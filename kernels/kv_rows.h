/* SPDX-License-Identifier: Apache-2.0 */
/* Copies of evenly spaced rows, in the versions that CPUs run; the inside of kv_copy.c.
 * Thread rule: any thread. */
#ifndef BT_KERNELS_KV_ROWS_H
#define BT_KERNELS_KV_ROWS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Copies n_rows rows of row_bytes; steps in bytes; the two sides must not overlap. Six arguments,
 * because six travel in registers: a struct in memory here makes copies of one small row wait for
 * each other. */
typedef void (*bt_rows_fn)(uint8_t *to, uint64_t to_step, const uint8_t *from, uint64_t from_step,
                           uint64_t row_bytes, uint64_t n_rows);

typedef struct {
    const char *name;
    bool (*is_supported)(void); /* by this CPU */
    bool streams;               /* stores bypass the cache */
    bt_rows_fn copy;
    void (*finish)(void); /* after the last copy: makes its stores visible to every reader */
} bt_rows_ops;

enum { BT_ROWS_PAGE_BYTES = 4096, BT_ROWS_EXPECT_LINES = 8 };

/* What is copied next starts here, or a page further on. Streaming waits most where a page of
 * memory begins: for the walk of the page tables on both sides (in a virtual machine: of two sets
 * of tables), and for the first lines, because the processor's own prefetching ends with each page.
 * One line of the target is fetched to have its translation, the stores replace it. Never faults.
 */
static inline void bt_rows_expect(const uint8_t *to, const uint8_t *from)
{
    __builtin_prefetch(to, 0, 3);
    for (int line = 0; line < BT_ROWS_EXPECT_LINES; line++)
        __builtin_prefetch(from + 64 * line, 0, 3);
}

/* All versions in this build, *n of them, best first; supported or not. */
const bt_rows_ops *bt_rows_versions(size_t *n);
/* The best one that this CPU runs. streams asks for a streaming one; there may be none. */
const bt_rows_ops *bt_rows_best(bool streams);

#endif
