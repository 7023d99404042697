/* SPDX-License-Identifier: Apache-2.0 */
/* Fast gather and scatter: the token list's runs, replayed for every plane with as few and as large
 * copies as the layout allows. */
#include "kernels/kv_copy.h"

#include "core/fail.h"
#include "kernels/kv_check.h"
#include "kernels/kv_index.h"
#include "kernels/kv_runs.h"

typedef struct {
    const baton_kv_view *view;
    const bt_rows_ops *ops;
    bool to_page;
} copy_job;

static void copy_rows(const copy_job *job, uint8_t *paged, uint64_t paged_step, uint8_t *page,
                      uint64_t page_step, uint64_t row_bytes, uint64_t n_rows)
{
    if (job->to_page)
        job->ops->copy(page, page_step, paged, paged_step, row_bytes, n_rows);
    else
        job->ops->copy(paged, paged_step, page, page_step, row_bytes, n_rows);
}

/* One run in one plane; base and page are the plane's. */
static void copy_run(const copy_job *job, const bt_kv_run *run, uint8_t *base, uint8_t *page)
{
    const baton_kv_view *view = job->view;
    uint64_t row_bytes = bt_kv_row_bytes(view);
    uint64_t token_step = view->token_stride_bytes;
    uint8_t *paged = base + run->paged_bytes;
    uint8_t *row = page + run->token * row_bytes;

    if (view->n_kv_heads > 1 && view->head_stride_bytes != view->head_bytes) {
        /* In the page's order: a scatter that goes head by head instead has half the speed. */
        for (uint32_t t = 0; t < run->n_tokens; t++)
            copy_rows(job, paged + t * token_step, view->head_stride_bytes, row + t * row_bytes,
                      view->head_bytes, view->head_bytes, view->n_kv_heads);
    } else if (token_step != row_bytes) {
        copy_rows(job, paged, token_step, row, row_bytes, row_bytes, run->n_tokens);
    } else {
        copy_rows(job, paged, 0, row, 0, run->n_tokens * row_bytes, 1);
    }
}

static void expect_run(const copy_job *job, const bt_kv_run *run, const uint8_t *base,
                       const uint8_t *page)
{
    uint64_t row_bytes = bt_kv_row_bytes(job->view);
    if (run->n_tokens * row_bytes >= BT_ROWS_PAGE_BYTES)
        bt_rows_expect(page + run->token * row_bytes, base + run->paged_bytes);
}

static void copy_plane(const copy_job *job, const bt_kv_run *runs, uint32_t n_runs, uint8_t *base,
                       uint8_t *page)
{
    for (uint32_t i = 0; i < n_runs; i++) {
        if (job->to_page && i + 1 < n_runs)
            expect_run(job, &runs[i + 1], base, page);
        copy_run(job, &runs[i], base, page);
    }
}

static void copy_layers(const copy_job *job, const baton_kv_tokens *tokens, uint32_t first_layer,
                        uint32_t n_layers, uint8_t *page)
{
    const baton_kv_view *view = job->view;
    bt_kv_run runs[BT_KV_RUNS_PER_BATCH];
    uint32_t next = 0;
    while (next < tokens->n_tokens) {
        uint32_t n_runs = bt_kv_collect_runs(view, tokens, &next, runs);
        for (uint32_t layer = 0; layer < n_layers; layer++) {
            for (uint32_t plane = 0; plane < view->n_planes; plane++)
                copy_plane(job, runs, n_runs, bt_kv_plane_base(view, first_layer + layer, plane),
                           page + bt_kv_page_offset(view, tokens->n_tokens, layer, plane, 0));
        }
    }
    job->ops->finish();
}

baton_status bt_kv_gather_with(const bt_rows_ops *ops, const baton_kv_view *view,
                               const baton_kv_tokens *tokens, uint32_t first_layer,
                               uint32_t n_layers, void *page, uint64_t page_bytes)
{
    BATON_TRY(bt_kv_copy_check(view, tokens, first_layer, n_layers, page, page_bytes));
    BATON_TRY(bt_kv_host_check(view));
    copy_job job = {view, ops, true};
    copy_layers(&job, tokens, first_layer, n_layers, page);
    return BATON_OK;
}

baton_status bt_kv_scatter_with(const bt_rows_ops *ops, const baton_kv_view *view,
                                const baton_kv_tokens *tokens, uint32_t first_layer,
                                uint32_t n_layers, const void *page, uint64_t page_bytes)
{
    BATON_TRY(bt_kv_copy_check(view, tokens, first_layer, n_layers, page, page_bytes));
    BATON_TRY(bt_kv_host_check(view));
    copy_job job = {view, ops, false};
    /* The page is only read in this direction. */
    copy_layers(&job, tokens, first_layer, n_layers, (uint8_t *)page);
    return BATON_OK;
}

static const bt_rows_ops *pick_ops(const baton_kv_view *view, const baton_kv_tokens *tokens,
                                   uint32_t n_layers)
{
    uint64_t bytes;
    bool is_sound = view != NULL && tokens != NULL &&
                    baton_kv_layers_bytes(view, n_layers, tokens->n_tokens, &bytes) == BATON_OK;
    return bt_rows_best(is_sound && bytes >= BT_KV_STREAM_MIN_BYTES);
}

baton_status baton_kv_gather(const baton_kv_view *view, const baton_kv_tokens *tokens,
                             uint32_t first_layer, uint32_t n_layers, void *page,
                             uint64_t page_bytes)
{
    return bt_kv_gather_with(pick_ops(view, tokens, n_layers), view, tokens, first_layer, n_layers,
                             page, page_bytes);
}

baton_status baton_kv_gather_stream(const baton_kv_view *view, const baton_kv_tokens *tokens,
                                    uint32_t first_layer, uint32_t n_layers, void *page,
                                    uint64_t page_bytes)
{
    return bt_kv_gather_with(bt_rows_best(true), view, tokens, first_layer, n_layers, page,
                             page_bytes);
}

baton_status baton_kv_scatter(const baton_kv_view *view, const baton_kv_tokens *tokens,
                              uint32_t first_layer, uint32_t n_layers, const void *page,
                              uint64_t page_bytes)
{
    return bt_kv_scatter_with(pick_ops(view, tokens, n_layers), view, tokens, first_layer, n_layers,
                              page, page_bytes);
}
