/* SPDX-License-Identifier: Apache-2.0 */
/* Layouts of serving engines, written as strides, and what makes a view sound. */
#include "core/alloc.h"
#include "core/fail.h"

#include <baton/kv.h>

#include <inttypes.h>
#include <stdbool.h>

/* One dimension of a plane: n steps of stride bytes. */
typedef struct {
    uint64_t n;
    uint64_t stride;
} dimension;

enum { PLANE_DIMENSIONS = 3, MAX_DIMENSIONS = 4 };

static void sort_by_stride(dimension *dims, size_t n)
{
    for (size_t i = 1; i < n; i++) {
        dimension moved = dims[i];
        size_t at = i;
        for (; at > 0 && dims[at - 1].stride > moved.stride; at--)
            dims[at] = dims[at - 1];
        dims[at] = moved;
    }
}

/* Nests the dimensions, smallest stride innermost: each step must pass over all that lies inside
 * it, so no two index tuples share a byte. *span: bytes from the first to the last, past it. */
static baton_status check_nesting(const dimension *given, size_t n, uint64_t head_bytes,
                                  uint64_t *span)
{
    dimension dims[MAX_DIMENSIONS];
    size_t kept = 0;
    for (size_t i = 0; i < n; i++) {
        if (given[i].n > 1)
            dims[kept++] = given[i];
    }
    sort_by_stride(dims, kept);
    *span = head_bytes;
    for (size_t i = 0; i < kept; i++) {
        if (dims[i].stride < *span)
            return bt_fail(BATON_ERR_INVALID_ARG,
                           "kv view: strides overlap: wanted a step of at least %" PRIu64
                           " bytes, found %" PRIu64,
                           *span, dims[i].stride);
        uint64_t steps;
        if (!bt_mul_u64(dims[i].n - 1, dims[i].stride, &steps) || !bt_add_u64(*span, steps, span))
            return bt_fail(BATON_ERR_TOO_LARGE,
                           "kv view: %" PRIu64 " steps of %" PRIu64 " bytes pass 64 bit", dims[i].n,
                           dims[i].stride);
    }
    return BATON_OK;
}

static baton_status check_layer(const baton_kv_view *view, uint32_t layer,
                                dimension dims[MAX_DIMENSIONS])
{
    uintptr_t k = (uintptr_t)view->planes[layer].k;
    uintptr_t v = (uintptr_t)view->planes[layer].v;
    bool two = view->n_planes == 2;
    if (k == 0 || two != (v != 0))
        return bt_fail(BATON_ERR_INVALID_ARG, "kv view: layer %u: wanted %s, found k %s, v %s",
                       layer, two ? "k and v" : "k alone", k == 0 ? "NULL" : "set",
                       v == 0 ? "NULL" : "set");
    /* K and V are one more dimension of two steps, so FlashInfer's interleaving needs no rule of
     * its own. */
    uintptr_t first = two && v < k ? v : k;
    dims[PLANE_DIMENSIONS] = (dimension){view->n_planes, k < v ? v - k : k - v};
    uint64_t span;
    BATON_TRY(check_nesting(dims, MAX_DIMENSIONS, view->head_bytes, &span));
    if (span > UINTPTR_MAX - first)
        return bt_fail(BATON_ERR_TOO_LARGE,
                       "kv view: layer %u: %" PRIu64 " bytes pass the end of the address space",
                       layer, span);
    return BATON_OK;
}

static baton_status check_counts(const baton_kv_view *view)
{
    if (view->n_layers == 0 || view->n_blocks == 0 || view->block_tokens == 0 ||
        view->n_kv_heads == 0 || view->head_bytes == 0)
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "kv view: wanted counts above 0, found %u layers, %u blocks, %u tokens a "
                       "block, %u heads, %" PRIu64 " bytes a head",
                       view->n_layers, view->n_blocks, view->block_tokens, view->n_kv_heads,
                       view->head_bytes);
    if (view->n_planes != 1 && view->n_planes != 2)
        return bt_fail(BATON_ERR_INVALID_ARG, "kv view: wanted 1 or 2 planes, found %u",
                       view->n_planes);
    if ((unsigned)view->memory > BATON_MEMORY_CUDA_HOST)
        return bt_fail(BATON_ERR_INVALID_ARG, "kv view: unknown memory kind %u",
                       (unsigned)view->memory);
    return BATON_OK;
}

baton_status baton_kv_view_check(const baton_kv_view *view)
{
    if (view == NULL || view->planes == NULL)
        return bt_fail(BATON_ERR_INVALID_ARG, "kv view: wanted a view with planes, found NULL");
    BATON_TRY(check_counts(view));
    dimension dims[MAX_DIMENSIONS] = {
        {view->n_blocks, view->block_stride_bytes},
        {view->block_tokens, view->token_stride_bytes},
        {view->n_kv_heads, view->head_stride_bytes},
    };
    for (uint32_t layer = 0; layer < view->n_layers; layer++)
        BATON_TRY(check_layer(view, layer, dims));
    return BATON_OK;
}

/* Bytes of one dense block of one plane; 0 when a factor is 0 (refused later, by the check). */
static baton_status block_bytes(const baton_kv_shape *shape, uint64_t *bytes)
{
    uint64_t heads = (uint64_t)shape->block_tokens * shape->n_kv_heads;
    if (!bt_mul_u64(heads, shape->head_bytes, bytes))
        return bt_fail(BATON_ERR_TOO_LARGE,
                       "kv view: a block of %u tokens x %u heads x %" PRIu64 " bytes passes 64 bit",
                       shape->block_tokens, shape->n_kv_heads, shape->head_bytes);
    return BATON_OK;
}

/* Strides of dense blocks; heads_first: [heads][tokens] in a block, else [tokens][heads]. The
 * products are parts of a block's bytes, which did not overflow. */
static baton_status set_strides(const baton_kv_shape *shape, bool heads_first, uint32_t n_planes,
                                baton_kv_view *view)
{
    uint64_t bytes;
    BATON_TRY(block_bytes(shape, &bytes));
    *view = (baton_kv_view){
        .n_layers = shape->n_layers,
        .n_planes = n_planes,
        .n_blocks = shape->n_blocks,
        .block_tokens = shape->block_tokens,
        .n_kv_heads = shape->n_kv_heads,
        .head_bytes = shape->head_bytes,
        .block_stride_bytes = bytes,
        .token_stride_bytes = shape->n_kv_heads * shape->head_bytes,
        .head_stride_bytes = shape->head_bytes,
        .memory = shape->memory,
    };
    if (heads_first) {
        view->token_stride_bytes = shape->head_bytes;
        view->head_stride_bytes = shape->block_tokens * shape->head_bytes;
    }
    return BATON_OK;
}

/* Fills planes and hands the view out. v_layers NULL: V lies v_offset bytes behind K, or there is
 * none when v_offset is 0. */
static baton_status set_planes(const baton_kv_view *draft, void *const *k_layers,
                               void *const *v_layers, uint64_t v_offset, baton_kv_plane *planes,
                               baton_kv_view *view)
{
    if (k_layers == NULL || planes == NULL)
        return bt_fail(BATON_ERR_INVALID_ARG, "kv view: wanted layers and planes, found NULL");
    for (uint32_t layer = 0; layer < draft->n_layers; layer++) {
        uintptr_t k = (uintptr_t)k_layers[layer];
        if (v_offset > UINTPTR_MAX - k)
            return bt_fail(BATON_ERR_TOO_LARGE, "kv view: layer %u passes the address space",
                           layer);
        planes[layer].k = k_layers[layer];
        planes[layer].v = NULL;
        if (v_layers != NULL)
            planes[layer].v = v_layers[layer];
        else if (v_offset != 0 && k != 0)
            planes[layer].v = (uint8_t *)k_layers[layer] + v_offset;
    }
    baton_kv_view done = *draft;
    done.planes = planes;
    BATON_TRY(baton_kv_view_check(&done));
    *view = done;
    return BATON_OK;
}

/* Bytes of one plane of n_blocks blocks. */
static baton_status plane_bytes(const baton_kv_view *view, uint64_t *bytes)
{
    if (!bt_mul_u64(view->n_blocks, view->block_stride_bytes, bytes))
        return bt_fail(BATON_ERR_TOO_LARGE, "kv view: %u blocks of %" PRIu64 " bytes pass 64 bit",
                       view->n_blocks, view->block_stride_bytes);
    return BATON_OK;
}

baton_status baton_kv_view_flash(const baton_kv_shape *shape, void *const *layers,
                                 baton_kv_plane *planes, baton_kv_view *view)
{
    baton_kv_view draft;
    uint64_t v_offset;
    BATON_TRY(set_strides(shape, false, 2, &draft));
    BATON_TRY(plane_bytes(&draft, &v_offset));
    return set_planes(&draft, layers, NULL, v_offset, planes, view);
}

baton_status baton_kv_view_split(const baton_kv_shape *shape, void *const *k_layers,
                                 void *const *v_layers, baton_kv_plane *planes, baton_kv_view *view)
{
    baton_kv_view draft;
    BATON_TRY(set_strides(shape, false, 2, &draft));
    return set_planes(&draft, k_layers, v_layers, 0, planes, view);
}

baton_status baton_kv_view_hnd(const baton_kv_shape *shape, void *const *k_layers,
                               void *const *v_layers, baton_kv_plane *planes, baton_kv_view *view)
{
    baton_kv_view draft;
    uint64_t v_offset;
    BATON_TRY(set_strides(shape, true, 2, &draft));
    BATON_TRY(plane_bytes(&draft, &v_offset));
    return set_planes(&draft, k_layers, v_layers, v_layers == NULL ? v_offset : 0, planes, view);
}

baton_status baton_kv_view_flashinfer(const baton_kv_shape *shape, int heads_first,
                                      void *const *layers, baton_kv_plane *planes,
                                      baton_kv_view *view)
{
    baton_kv_view draft;
    BATON_TRY(set_strides(shape, heads_first != 0, 2, &draft));
    uint64_t v_offset = draft.block_stride_bytes;
    if (!bt_mul_u64(v_offset, 2, &draft.block_stride_bytes))
        return bt_fail(BATON_ERR_TOO_LARGE, "kv view: two blocks of %" PRIu64 " bytes pass 64 bit",
                       v_offset);
    return set_planes(&draft, layers, NULL, v_offset, planes, view);
}

baton_status baton_kv_view_mla(const baton_kv_shape *shape, void *const *layers,
                               baton_kv_plane *planes, baton_kv_view *view)
{
    if (shape->n_kv_heads != 1)
        return bt_fail(BATON_ERR_INVALID_ARG, "kv view: wanted 1 KV head for MLA, found %u",
                       shape->n_kv_heads);
    baton_kv_view draft;
    BATON_TRY(set_strides(shape, false, 1, &draft));
    return set_planes(&draft, layers, NULL, 0, planes, view);
}
