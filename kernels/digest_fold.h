/* SPDX-License-Identifier: Apache-2.0 */
/* XXH3's sums over stripes, in the versions that CPUs run, each able to store the stripes it reads
 * on the way; the inside of digest.c.
 * Thread rule: any thread. */
#ifndef BT_KERNELS_DIGEST_FOLD_H
#define BT_KERNELS_DIGEST_FOLD_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "kernels/xxh3.h"

typedef enum {
    BT_FOLD_READ,   /* to is not looked at */
    BT_FOLD_COPY,   /* stored to `to` */
    BT_FOLD_STREAM, /* the same past the cache; to, and each row of it, is a multiple of 64 */
} bt_fold_kind;

/* Evenly spaced rows of whole stripes; steps in bytes. */
typedef struct {
    uint8_t *to;
    const uint8_t *from;
    uint64_t to_step, from_step;
    uint32_t row_stripes, n_rows;
} bt_fold_rows;

typedef struct {
    const char *name;
    bool (*is_supported)(void); /* by this CPU */
    /* Stripes of an input from number `first` on, of which none is the last; acc is aligned to 64
     * bytes. Scrambles where a block of stripes ends. */
    void (*rows)(uint64_t acc[BT_XXH3_LANES], const bt_fold_rows *rows, uint32_t first,
                 bt_fold_kind kind);
    /* The last stripe. */
    void (*last)(uint64_t acc[BT_XXH3_LANES], uint8_t *to, const uint8_t *from, bt_fold_kind kind);
    void (*finish)(void); /* after BT_FOLD_STREAM: makes the stores visible to every reader */
} bt_fold_ops;

/* All versions in this build, *n of them, best first; supported or not. */
const bt_fold_ops *bt_fold_versions(size_t *n);
/* The best one that this CPU runs; NULL: none, libxxhash is better than plain C. */
const bt_fold_ops *bt_fold_best(void);

#endif
