/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/kv_copies.h"

#include "core/fail.h"
#include "kernels/kv_check.h"
#include "kernels/kv_index.h"

/* Grows a piece while what follows touches it on both sides. */
typedef struct {
    const bt_cuda_driver *driver; /* NULL: only counts */
    bt_cu_stream stream;
    bt_cu_address to, from;
    uint64_t bytes;
    uint32_t n_pieces;
    bt_cu_result result;
} piece_writer;

static void end_piece(piece_writer *writer)
{
    if (writer->bytes == 0)
        return;
    writer->n_pieces++;
    if (writer->driver != NULL && writer->result == BT_CU_SUCCESS)
        writer->result =
            writer->driver->copy_async(writer->to, writer->from, writer->bytes, writer->stream);
    writer->bytes = 0;
}

static void add(piece_writer *writer, const uint8_t *to, const uint8_t *from, uint64_t bytes)
{
    bt_cu_address to_address = (uintptr_t)to, from_address = (uintptr_t)from;
    if (writer->to + writer->bytes != to_address || writer->from + writer->bytes != from_address)
        end_piece(writer);
    if (writer->bytes == 0) {
        writer->to = to_address;
        writer->from = from_address;
    }
    writer->bytes += bytes;
}

/* One plane of one layer to the page. */
static void add_plane(piece_writer *writer, const baton_kv_view *view,
                      const baton_kv_tokens *tokens, const uint8_t *base, const uint8_t *page)
{
    uint64_t row_bytes = bt_kv_row_bytes(view);
    for (uint32_t t = 0; t < tokens->n_tokens; t++) {
        int64_t slot = bt_kv_token_slot(view, tokens, t);
        if (slot < 0)
            continue;
        const uint8_t *from = base + bt_kv_slot_offset(view, (uint64_t)slot);
        for (uint32_t head = 0; head < view->n_kv_heads; head++)
            add(writer, page + t * row_bytes + head * view->head_bytes,
                from + head * view->head_stride_bytes, view->head_bytes);
    }
}

static void add_all(piece_writer *writer, const baton_kv_view *view, const baton_kv_tokens *tokens,
                    uint32_t first_layer, uint32_t n_layers, const uint8_t *page)
{
    for (uint32_t layer = 0; layer < n_layers; layer++) {
        for (uint32_t plane = 0; plane < view->n_planes; plane++)
            add_plane(writer, view, tokens, bt_kv_plane_base(view, first_layer + layer, plane),
                      page + bt_kv_page_offset(view, tokens->n_tokens, layer, plane, 0));
    }
    end_piece(writer);
}

baton_status bt_kv_gather_copies(const bt_cuda_driver *driver, const baton_kv_view *view,
                                 const baton_kv_tokens *tokens, uint32_t first_layer,
                                 uint32_t n_layers, void *page, uint64_t page_bytes,
                                 struct CUstream_st *stream)
{
    BATON_TRY(bt_kv_copy_check(view, tokens, first_layer, n_layers, page, page_bytes));
    piece_writer count = {0};
    add_all(&count, view, tokens, first_layer, n_layers, page);
    if (count.n_pieces > BT_KV_COPIES_MAX)
        return bt_fail(BATON_ERR_UNSUPPORTED,
                       "kv: a page of %u pieces wants CUDA kernels: wanted at most %d pieces, or a "
                       "build with -DBATON_CUDA=ON",
                       count.n_pieces, BT_KV_COPIES_MAX);
    piece_writer writer = {.driver = driver, .stream = stream};
    add_all(&writer, view, tokens, first_layer, n_layers, page);
    if (writer.result != BT_CU_SUCCESS)
        return bt_fail_cuda(driver, writer.result, "wanted paged KV copied");
    return BATON_OK;
}
