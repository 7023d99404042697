/* SPDX-License-Identifier: Apache-2.0 */
/* One random paged cache and token list, in one of the layouts of serving engines, together with
 * an index formula written straight from the layout's shape: the oracle that owes nothing to
 * strides.
 *
 * Thread rule: the test's thread. */
#ifndef BT_TESTS_KV_CASE_H
#define BT_TESTS_KV_CASE_H
#include "support/test.h"

#include <baton/kv.h>

typedef enum {
    LAYOUT_FLASH,          /* [L][2][n_blocks][B][H][D] */
    LAYOUT_SPLIT,          /* [2][L][n_blocks][B][H][D] */
    LAYOUT_SPLIT_PADDED,   /* the same with PADDING_BYTES between blocks */
    LAYOUT_SLOTS,          /* [2][L][n_slots][H][D], block_tokens 1 */
    LAYOUT_HND,            /* [2][L][n_blocks][H][B][D] */
    LAYOUT_HND_FUSED,      /* [L][2][n_blocks][H][B][D] */
    LAYOUT_FLASHINFER,     /* [L][n_blocks][2][B][H][D] */
    LAYOUT_FLASHINFER_HND, /* [L][n_blocks][2][H][B][D] */
    LAYOUT_CROSS_LAYER,    /* [n_blocks][L][2][B][H][D] */
    LAYOUT_MLA,            /* [L][n_blocks][B][D] */
    N_LAYOUTS
} kv_layout;

enum { MAX_LAYERS = 4, MAX_TOKENS = 600, PADDING_BYTES = 24 };

typedef struct {
    kv_layout layout;
    baton_kv_shape shape;
    baton_kv_plane planes[MAX_LAYERS];
    baton_kv_view view;
    uint8_t *arena; /* [arena_bytes], ends at an unreadable page */
    uint64_t arena_bytes;

    int64_t slots[MAX_TOKENS]; /* what the token list means, whichever form it has */
    uint32_t blocks[MAX_TOKENS];
    baton_kv_tokens tokens;
    uint32_t first_layer;
    uint32_t n_layers;
    uint64_t page_bytes; /* needed for them */
} kv_case;

void kv_case_create(kv_case *c, bt_rng *rng);
void kv_case_free(kv_case *c);
/* Offset in the arena of a slot's head, by the layout's shape. */
uint64_t kv_case_offset(const kv_case *c, uint32_t layer, uint32_t plane, uint64_t slot,
                        uint32_t head);
/* The same cache with another arena's bytes in the place of its own: *copy borrows nothing but
 * shapes; freed with kv_case_free. */
void kv_case_clone(const kv_case *c, kv_case *copy);

#endif
