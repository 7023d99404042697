/* SPDX-License-Identifier: Apache-2.0 */
/* Copies of evenly spaced rows, in the versions that CPUs run; the inside of kv_copy.c.
 * Thread rule: any thread. */
#ifndef BT_KERNELS_KV_ROWS_H
#define BT_KERNELS_KV_ROWS_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* Where n_rows rows of row_bytes come from and go to; steps in bytes. No overlap. */
typedef struct {
    uint8_t *to;
    const uint8_t *from;
    uint64_t to_step;
    uint64_t from_step;
    uint64_t row_bytes;
    uint64_t n_rows;
} bt_rows;

typedef struct {
    const char *name;
    bool (*is_supported)(void); /* by this CPU */
    bool streams;               /* stores bypass the cache */
    void (*copy)(const bt_rows *rows);
    void (*finish)(void); /* after the last copy: makes its stores visible to every reader */
} bt_rows_ops;

/* All versions in this build, *n of them, best first; supported or not. */
const bt_rows_ops *bt_rows_versions(size_t *n);
/* The best one that this CPU runs. streams asks for a streaming one; there may be none. */
const bt_rows_ops *bt_rows_best(bool streams);

#endif
