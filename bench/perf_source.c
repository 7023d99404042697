/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/perf_source.h"

#include "core/alloc.h"
#include "core/fail.h"

#include <inttypes.h>

enum { PLANES_MAX = BT_PERF_MAX_LAYERS };

struct bt_perf_source {
    const bt_perf_work *work;
    bt_perf_memory memory;
    uint32_t *slots; /* [n_slots] flat: the slot of each page; paged: the block of each position */
    uint32_t n_slots;
    uint8_t *page; /* [page_bytes] paged: a page before it is scattered */
    /* Of the memory, and of its image. */
    baton_kv_view view, image_view;
    baton_kv_plane planes[PLANES_MAX], image_planes[PLANES_MAX];
};

static void order_slots(bt_perf_source *source, bt_perf_order order)
{
    uint32_t n = source->n_slots;
    for (uint32_t i = 0; i < n; i++)
        source->slots[i] = order == BT_PERF_DESCENDING ? n - 1 - i : i;
    for (uint32_t i = n; order == BT_PERF_SCATTER && i > 1; i--) { /* Fisher and Yates */
        uint32_t j = (uint32_t)(bt_perf_mix(source->work->seed + i) % i);
        uint32_t taken = source->slots[j];
        source->slots[j] = source->slots[i - 1];
        source->slots[i - 1] = taken;
    }
}

static baton_status make_view(const bt_perf_source *source, uint8_t *base, baton_memory_kind memory,
                              baton_kv_plane *planes, baton_kv_view *view)
{
    const baton_layout *layout = &source->work->layout;
    const baton_kv_shape shape = {
        .n_layers = layout->n_layers,
        .n_blocks = source->n_slots,
        .block_tokens = layout->block_tokens,
        .n_kv_heads = layout->n_kv_heads,
        .head_bytes = (uint64_t)layout->head_dim * baton_dtype_bytes(layout->dtype),
        .memory = memory,
    };
    void *layers[PLANES_MAX];
    size_t layer_bytes = source->memory.bytes / layout->n_layers;
    for (uint32_t i = 0; i < layout->n_layers; i++)
        layers[i] = base + i * layer_bytes;
    return baton_kv_view_flash(&shape, layers, planes, view);
}

static baton_status make_views(bt_perf_source *source)
{
    BATON_TRY(
        make_view(source, source->memory.base, source->memory.kind, source->planes, &source->view));
    return make_view(source, source->memory.image, BATON_MEMORY_HOST, source->image_planes,
                     &source->image_view);
}

static baton_status measure(bt_perf_source *source, size_t *bytes)
{
    const bt_perf_work *work = source->work;
    uint32_t block_tokens = work->layout.block_tokens;
    uint64_t slot_bytes = work->page_bytes;
    source->n_slots = work->n_pages;
    if (work->paged) {
        source->n_slots = (bt_perf_work_tokens(work) + block_tokens - 1) / block_tokens;
        slot_bytes = work->page_bytes / work->layout.chunk_tokens * block_tokens;
    }
    if (!bt_mul_size(source->n_slots, (size_t)slot_bytes, bytes))
        return bt_fail(BATON_ERR_TOO_LARGE, "perf: %u times %" PRIu64 " bytes", source->n_slots,
                       slot_bytes);
    return BATON_OK;
}

baton_status bt_perf_source_create(const bt_perf_work *work, bt_perf_order order,
                                   baton_memory_kind memory, bool huge, bt_perf_source **source_p)
{
    size_t bytes;
    bt_perf_source *source = bt_calloc(1, sizeof(*source));
    if (source == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "perf: source");
    source->work = work;
    baton_status status = measure(source, &bytes);
    if (status == BATON_OK)
        status = bt_perf_memory_open(memory, bytes, huge, &source->memory);
    if (status != BATON_OK)
        goto fail;
    source->slots = bt_calloc(source->n_slots, sizeof(*source->slots));
    source->page = bt_calloc(1, work->paged ? (size_t)work->page_bytes : 1);
    if (source->slots == NULL || source->page == NULL) {
        status = bt_fail(BATON_ERR_NO_MEMORY, "perf: source of %zu bytes", bytes);
        goto fail;
    }
    order_slots(source, order);
    if (work->paged)
        status = make_views(source);
    if (status != BATON_OK)
        goto fail;
    *source_p = source;
    return BATON_OK;

fail:
    bt_perf_source_destroy(source);
    return status;
}

void bt_perf_source_destroy(bt_perf_source *source)
{
    if (source == NULL)
        return;
    bt_perf_memory_close(&source->memory);
    bt_free(source->slots);
    bt_free(source->page);
    bt_free(source);
}

baton_status bt_perf_source_register(bt_perf_source *source, baton_sender *sender)
{
    const bt_perf_memory *memory = &source->memory;
    baton_status status = baton_sender_register(sender, memory->base, memory->bytes, memory->kind);
    /* Device memory that the transport does not reach is staged, registered or not. */
    bool is_staged = status == BATON_ERR_UNSUPPORTED && memory->kind == BATON_MEMORY_CUDA_DEVICE;
    return is_staged ? BATON_OK : status;
}

static size_t flat_offset(const bt_perf_source *source, uint32_t page)
{
    return source->slots[page] * (size_t)source->work->page_bytes;
}

/* Where a page's tokens are: the blocks from its first token's on. */
static baton_kv_tokens tokens_of(const bt_perf_source *source, uint32_t page)
{
    const baton_layout *layout = &source->work->layout;
    uint64_t first = (uint64_t)page * layout->chunk_tokens, skip = first % layout->block_tokens;
    return (baton_kv_tokens){
        .blocks = source->slots + first / layout->block_tokens,
        .n_blocks = (uint32_t)((skip + layout->chunk_tokens - 1) / layout->block_tokens + 1),
        .n_tokens = layout->chunk_tokens,
        .first_token = skip,
    };
}

static baton_status fill_paged(bt_perf_source *source, uint32_t iteration, uint32_t page,
                               bool flip_byte)
{
    const bt_perf_work *work = source->work;
    baton_kv_tokens tokens = tokens_of(source, page);
    bt_perf_fill_page(work, iteration, page, source->page);
    source->page[work->page_bytes / 2] ^= flip_byte;
    return baton_kv_scatter(&source->image_view, &tokens, 0, source->view.n_layers, source->page,
                            work->page_bytes);
}

baton_status bt_perf_source_fill(bt_perf_source *source, uint32_t iteration, bool flip_byte)
{
    const bt_perf_work *work = source->work;
    for (uint32_t page = 0; page < work->n_pages; page++) {
        bool flip = flip_byte && page == work->n_pages / 2;
        if (work->paged) {
            BATON_TRY(fill_paged(source, iteration, page, flip));
            continue;
        }
        uint8_t *at = source->memory.image + flat_offset(source, page);
        bt_perf_fill_page(work, iteration, page, at);
        at[work->page_bytes / 2] ^= flip;
    }
    return bt_perf_memory_upload(&source->memory);
}

baton_status bt_perf_source_push(bt_perf_source *source, baton_sender *sender,
                                 baton_transfer transfer, uint32_t page)
{
    baton_source from = {.memory = source->memory.kind};
    baton_kv_tokens tokens;
    if (source->work->paged) {
        tokens = tokens_of(source, page);
        from.view = &source->view;
        from.tokens = &tokens;
    } else {
        from.data = source->memory.base + flat_offset(source, page);
        from.bytes = (size_t)source->work->page_bytes;
    }
    return baton_transfer_push_source(sender, transfer, page, &from);
}
