/* SPDX-License-Identifier: Apache-2.0 */
/* Gather and scatter that digest the page on their way. They go through the page from its first to
 * its last byte, which is the order of the digest:
 *
 *   for layer, plane, run of tokens:  [tokens before the run that are skipped]  [rows of the run]
 */
#include "core/fail.h"
#include "kernels/digest.h"
#include "kernels/kv_check.h"
#include "kernels/kv_copy.h"
#include "kernels/kv_index.h"
#include "kernels/kv_runs.h"

typedef struct {
    const baton_kv_view *view;
    const baton_kv_tokens *tokens;
    bt_digester digester;
    bool to_page;
    /* The runs of one batch; a list of many lone tokens has several, made anew for each plane. */
    bt_kv_run *runs; /* [BT_KV_RUNS_PER_BATCH] */
    uint32_t n_runs;
    bool is_whole; /* they are all there are */
} digest_job;

/* The page's next rows, which lie in paged KV from `paged` on, `step` bytes apart. */
static void move_rows(digest_job *job, uint8_t *paged, uint64_t step, uint64_t row_bytes,
                      uint32_t n_rows)
{
    bt_digester *d = &job->digester;
    if (job->to_page)
        bt_digester_copy(d, paged, step, row_bytes, n_rows);
    else
        bt_digester_give(d, paged, step, row_bytes, n_rows, d->kind);
}

static void move_run(digest_job *job, const bt_kv_run *run, uint8_t *base)
{
    const baton_kv_view *view = job->view;
    uint64_t row_bytes = bt_kv_row_bytes(view);
    uint64_t step = view->token_stride_bytes;
    uint8_t *paged = base + run->paged_bytes;
    if (view->n_kv_heads > 1 && view->head_stride_bytes != view->head_bytes) {
        for (uint32_t t = 0; t < run->n_tokens; t++)
            move_rows(job, paged + t * step, view->head_stride_bytes, view->head_bytes,
                      view->n_kv_heads);
        return;
    }
    if (step == row_bytes)
        move_rows(job, paged, 0, run->n_tokens * row_bytes, 1);
    else
        move_rows(job, paged, step, row_bytes, run->n_tokens);
}

/* One plane; `token` counts through the page's rows of it. */
static void move_plane(digest_job *job, uint8_t *base)
{
    uint64_t row_bytes = bt_kv_row_bytes(job->view);
    uint32_t n_tokens = job->tokens->n_tokens;
    uint32_t next = job->is_whole ? n_tokens : 0;
    uint32_t token = 0;
    do {
        if (!job->is_whole)
            job->n_runs = bt_kv_collect_runs(job->view, job->tokens, &next, job->runs);
        for (uint32_t i = 0; i < job->n_runs; i++) {
            bt_digester_pass(&job->digester, (job->runs[i].token - token) * row_bytes);
            move_run(job, &job->runs[i], base);
            token = job->runs[i].token + job->runs[i].n_tokens;
        }
    } while (next < n_tokens);
    bt_digester_pass(&job->digester, (n_tokens - token) * row_bytes);
}

/* A row is whole stripes when its pieces are. */
static bool has_whole_stripes(const baton_kv_view *view)
{
    bool is_cut = view->n_kv_heads > 1 && view->head_stride_bytes != view->head_bytes;
    uint64_t piece = is_cut ? view->head_bytes : bt_kv_row_bytes(view);
    return piece % BT_XXH3_STRIPE_BYTES == 0;
}

static void move_planes(digest_job *job, uint32_t first_layer, uint32_t n_layers)
{
    const baton_kv_view *view = job->view;
    bt_kv_run runs[BT_KV_RUNS_PER_BATCH];
    uint32_t next = 0;
    job->runs = runs;
    job->n_runs = bt_kv_collect_runs(view, job->tokens, &next, runs);
    job->is_whole = next == job->tokens->n_tokens;
    for (uint32_t layer = 0; layer < n_layers; layer++) {
        for (uint32_t plane = 0; plane < view->n_planes; plane++)
            move_plane(job, bt_kv_plane_base(view, first_layer + layer, plane));
    }
}

static baton_status move_layers(digest_job *job, uint32_t first_layer, uint32_t n_layers,
                                uint8_t *page, uint64_t page_bytes, bool streams, uint64_t *digest)
{
    const baton_kv_view *view = job->view;
    BATON_TRY(bt_kv_copy_check(view, job->tokens, first_layer, n_layers, page, page_bytes));
    BATON_TRY(bt_kv_host_check(view));
    uint64_t bytes;
    BATON_TRY(baton_kv_layers_bytes(view, n_layers, job->tokens->n_tokens, &bytes));
    bt_digester_begin(&job->digester, page, bytes, has_whole_stripes(view),
                      streams || bytes >= BT_KV_STREAM_MIN_BYTES);
    if (bytes > 0) /* else the tokens have not been checked */
        move_planes(job, first_layer, n_layers);
    *digest = bt_digester_end(&job->digester);
    return BATON_OK;
}

baton_status baton_kv_gather_digest(const baton_kv_view *view, const baton_kv_tokens *tokens,
                                    uint32_t first_layer, uint32_t n_layers, void *page,
                                    uint64_t page_bytes, uint64_t *digest)
{
    digest_job job = {.view = view, .tokens = tokens, .to_page = true};
    return move_layers(&job, first_layer, n_layers, page, page_bytes, false, digest);
}

baton_status baton_kv_gather_stream_digest(const baton_kv_view *view, const baton_kv_tokens *tokens,
                                           uint32_t first_layer, uint32_t n_layers, void *page,
                                           uint64_t page_bytes, uint64_t *digest)
{
    digest_job job = {.view = view, .tokens = tokens, .to_page = true};
    return move_layers(&job, first_layer, n_layers, page, page_bytes, true, digest);
}

baton_status baton_kv_scatter_digest(const baton_kv_view *view, const baton_kv_tokens *tokens,
                                     uint32_t first_layer, uint32_t n_layers, const void *page,
                                     uint64_t page_bytes, uint64_t *digest)
{
    digest_job job = {.view = view, .tokens = tokens, .to_page = false};
    /* The page is only read in this direction. */
    return move_layers(&job, first_layer, n_layers, (uint8_t *)page, page_bytes, false, digest);
}
