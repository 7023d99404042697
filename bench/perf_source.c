/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/perf_source.h"

#include "core/alloc.h"
#include "core/fail.h"

#include <errno.h>
#include <inttypes.h>
#include <sys/mman.h>

enum { PLANES_MAX = BT_PERF_MAX_LAYERS };

struct bt_perf_source {
    const bt_perf_work *work;
    uint8_t *base; /* [bytes] */
    size_t bytes;
    uint32_t *slots; /* [n_slots] flat: the slot of each page; paged: the block of each position */
    uint32_t n_slots;
    uint8_t *page; /* [page_bytes] paged: a page before it is scattered */
    baton_kv_view view;
    baton_kv_plane planes[PLANES_MAX];
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

static baton_status make_view(bt_perf_source *source)
{
    const baton_layout *layout = &source->work->layout;
    const baton_kv_shape shape = {
        .n_layers = layout->n_layers,
        .n_blocks = source->n_slots,
        .block_tokens = layout->block_tokens,
        .n_kv_heads = layout->n_kv_heads,
        .head_bytes = (uint64_t)layout->head_dim * baton_dtype_bytes(layout->dtype),
    };
    void *layers[PLANES_MAX];
    size_t layer_bytes = source->bytes / layout->n_layers;
    for (uint32_t i = 0; i < layout->n_layers; i++)
        layers[i] = source->base + i * layer_bytes;
    return baton_kv_view_flash(&shape, layers, source->planes, &source->view);
}

static baton_status measure(bt_perf_source *source)
{
    const bt_perf_work *work = source->work;
    uint32_t block_tokens = work->layout.block_tokens;
    uint64_t slot_bytes = work->page_bytes;
    source->n_slots = work->n_pages;
    if (work->paged) {
        source->n_slots = (bt_perf_work_tokens(work) + block_tokens - 1) / block_tokens;
        slot_bytes = work->page_bytes / work->layout.chunk_tokens * block_tokens;
    }
    if (!bt_mul_size(source->n_slots, (size_t)slot_bytes, &source->bytes))
        return bt_fail(BATON_ERR_TOO_LARGE, "perf: %u times %" PRIu64 " bytes", source->n_slots,
                       slot_bytes);
    return BATON_OK;
}

baton_status bt_perf_source_create(const bt_perf_work *work, bt_perf_order order,
                                   bt_perf_source **source_p)
{
    bt_perf_source *source = bt_calloc(1, sizeof(*source));
    if (source == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "perf: source");
    source->work = work;
    source->base = MAP_FAILED;
    baton_status status = measure(source);
    if (status != BATON_OK)
        goto fail;
    source->slots = bt_calloc(source->n_slots, sizeof(*source->slots));
    source->page = bt_calloc(1, work->paged ? (size_t)work->page_bytes : 1);
    source->base =
        mmap(NULL, source->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (source->slots == NULL || source->page == NULL || source->base == MAP_FAILED) {
        status = bt_fail(BATON_ERR_NO_MEMORY, "perf: source of %zu bytes", source->bytes);
        goto fail;
    }
    order_slots(source, order);
    if (work->paged)
        status = make_view(source);
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
    if (source->base != MAP_FAILED)
        munmap(source->base, source->bytes);
    bt_free(source->slots);
    bt_free(source->page);
    bt_free(source);
}

baton_status bt_perf_source_register(bt_perf_source *source, baton_sender *sender)
{
    return baton_sender_register(sender, source->base, source->bytes, BATON_MEMORY_HOST);
}

static uint8_t *flat_page(const bt_perf_source *source, uint32_t page)
{
    return source->base + source->slots[page] * (size_t)source->work->page_bytes;
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
    return baton_kv_scatter(&source->view, &tokens, 0, source->view.n_layers, source->page,
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
        bt_perf_fill_page(work, iteration, page, flat_page(source, page));
        flat_page(source, page)[work->page_bytes / 2] ^= flip;
    }
    return BATON_OK;
}

baton_status bt_perf_source_push(bt_perf_source *source, baton_sender *sender,
                                 baton_transfer transfer, uint32_t page)
{
    if (!source->work->paged)
        return baton_transfer_push_bytes(sender, transfer, page, flat_page(source, page),
                                         (size_t)source->work->page_bytes);
    baton_kv_tokens tokens = tokens_of(source, page);
    return baton_transfer_push(sender, transfer, page, &source->view, &tokens);
}
