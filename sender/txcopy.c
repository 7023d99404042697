/* SPDX-License-Identifier: Apache-2.0 */
#include "sender/txcopy.h"

#include "core/alloc.h"
#include "core/fail.h"
#include "kernels/digest.h"
#include "kernels/kv_check.h"
#include "kernels/kv_rows.h"

#include <assert.h>

/* The whole chunk, and the page's digest on the way. */
static baton_status copy_digested(const bt_tx_piece *piece)
{
    const bt_tx_source *source = piece->source;
    if (source->view == NULL) {
        *piece->wanted.digest =
            bt_digest_copy(piece->to, source->data, piece->bytes, piece->past_cache);
        return BATON_OK;
    }
    if (piece->past_cache)
        return baton_kv_gather_stream_digest(source->view, &source->tokens, 0, piece->n_layers,
                                             piece->to, piece->bytes, piece->wanted.digest);
    return baton_kv_gather_digest(source->view, &source->tokens, 0, piece->n_layers, piece->to,
                                  piece->bytes, piece->wanted.digest);
}

static baton_status copy_plain(const bt_tx_piece *piece)
{
    const bt_tx_source *source = piece->source;
    if (source->view == NULL) {
        const bt_rows_ops *ops = bt_rows_best(piece->past_cache);
        ops->copy(piece->to, 0, (const uint8_t *)source->data + piece->first, 0, piece->bytes, 1);
        return BATON_OK;
    }
    if (piece->past_cache)
        return baton_kv_gather_stream(source->view, &source->tokens, piece->first_layer,
                                      piece->n_layers, piece->to, piece->bytes);
    return baton_kv_gather(source->view, &source->tokens, piece->first_layer, piece->n_layers,
                           piece->to, piece->bytes);
}

/* Of what the copy has read, while it is still in the cache: that it was written is what the other
 * side looks at. */
static baton_status take_sample(const bt_tx_piece *piece)
{
    const bt_tx_source *source = piece->source;
    const bt_sample *sample = piece->wanted.sample;
    const bt_sample_source from = {
        .n_layers = sample->n_pieces / sample->n_planes,
        .bytes = source->view != NULL ? piece->to : source->data,
        .view = source->view,
        .tokens = &source->tokens,
    };
    bool is_alone = piece->bytes == 0; /* gather has not looked at the tokens, not on this thread */
    if (is_alone && source->view != NULL)
        BATON_TRY(bt_kv_copy_check(source->view, &source->tokens, 0, piece->n_layers, piece->to,
                                   piece->first));
    *piece->wanted.digest = bt_sample_digest(sample, &from);
    return BATON_OK;
}

static baton_status copy_piece(const bt_tx_piece *piece)
{
    if (piece->wanted.digest != NULL && piece->wanted.sample == NULL)
        return copy_digested(piece);
    if (piece->bytes > 0)
        BATON_TRY(copy_plain(piece));
    return piece->wanted.digest != NULL ? take_sample(piece) : BATON_OK;
}

static bt_tx_piece whole(const bt_tx_source *source, uint8_t *page, uint64_t bytes, bool past_cache,
                         bt_tx_wanted wanted)
{
    return (bt_tx_piece){.source = source,
                         .to = page,
                         .bytes = bytes,
                         .n_layers = source->view != NULL ? source->view->n_layers : 0,
                         .wanted = wanted,
                         .past_cache = past_cache};
}

static void expect_piece(const bt_tx_piece *piece)
{
    const bt_tx_source *source = piece->source;
    if (source->view == NULL)
        bt_rows_expect(piece->to, (const uint8_t *)source->data + piece->first);
}

/* Every thread fences what it has stored before it says so: streaming stores need a fence of their
 * own kind, the other one orders the rest (txmove.c, end_turn). */
static baton_status copy_job(void *ctx, uint32_t job)
{
    const bt_tx_copies *copies = ctx;
    baton_status status = BATON_OK;
    for (uint32_t i = copies->first_piece[job]; i < copies->first_piece[job + 1]; i++) {
        if (i + 1 < copies->first_piece[job + 1])
            expect_piece(&copies->pieces[i + 1]);
        if (status == BATON_OK)
            status = copy_piece(&copies->pieces[i]);
    }
    bt_rows_best(true)->finish();
    __sync_synchronize();
    return status;
}

static void add_piece(bt_tx_copies *copies, const bt_tx_piece *piece)
{
    assert(copies->n_pieces < BT_TX_COPY_PIECES);
    if (copies->n_jobs == 0 || copies->job_bytes >= BT_TX_COPY_JOB_BYTES) {
        copies->first_piece[copies->n_jobs++] = copies->n_pieces;
        copies->job_bytes = 0;
    }
    copies->pieces[copies->n_pieces++] = *piece;
    copies->first_piece[copies->n_jobs] = copies->n_pieces;
    copies->job_bytes += piece->bytes;
}

/* Bytes or layers of a part, of `n` in all, so that there are at most BT_TX_COPY_PARTS. */
static uint64_t part_of(uint64_t n, uint64_t wanted)
{
    uint64_t least = (n + BT_TX_COPY_PARTS - 1) / BT_TX_COPY_PARTS;
    return wanted > least ? wanted : least;
}

static void divide_bytes(bt_tx_copies *copies, const bt_tx_piece *all)
{
    uint64_t part = part_of(all->bytes, BT_TX_COPY_PART_BYTES);
    part = (part + 63) / 64 * 64; /* whole cache lines */
    for (uint64_t at = 0; at < all->bytes; at += part) {
        bt_tx_piece piece = *all;
        piece.first = at;
        piece.to += at;
        piece.bytes = all->bytes - at < part ? all->bytes - at : part;
        add_piece(copies, &piece);
    }
}

static void divide_layers(bt_tx_copies *copies, const bt_tx_piece *all)
{
    uint64_t layer_bytes = all->bytes / all->n_layers;
    uint64_t worth = (BT_TX_COPY_PART_BYTES + layer_bytes - 1) / layer_bytes;
    uint32_t part = (uint32_t)part_of(all->n_layers, worth);
    for (uint32_t layer = 0; layer < all->n_layers; layer += part) {
        bt_tx_piece piece = *all;
        piece.first_layer = layer;
        piece.n_layers = all->n_layers - layer < part ? all->n_layers - layer : part;
        piece.to += layer * layer_bytes;
        piece.bytes = piece.n_layers * layer_bytes;
        add_piece(copies, &piece);
    }
}

/* The view's tokens are so many bytes. */
static bool has_layers_of(const bt_tx_source *source, uint64_t bytes)
{
    uint64_t found;
    return baton_kv_chunk_bytes(source->view, source->tokens.n_tokens, &found) == BATON_OK &&
           found == bytes;
}

static bool is_of_all(const bt_tx_wanted *wanted)
{
    return wanted->digest != NULL && wanted->sample == NULL;
}

bool bt_tx_copies_have_room(const bt_tx_copies *copies)
{
    return copies->n_pieces + BT_TX_COPY_PARTS < BT_TX_COPY_PIECES;
}

void bt_tx_copies_add(bt_tx_copies *copies, uint32_t chunk, const bt_tx_source *source,
                      uint8_t *page, uint64_t bytes, bool past_cache, bt_tx_wanted wanted)
{
    assert(bt_tx_copies_have_room(copies));
    const bt_tx_piece all = whole(source, page, bytes, past_cache, wanted);
    copies->chunks[copies->n_chunks++] = (bt_tx_copied){.chunk = chunk, .page = page};
    bool is_one = is_of_all(&wanted) || bytes <= 2 * BT_TX_COPY_PART_BYTES ||
                  (source->view != NULL && !has_layers_of(source, bytes)); /* gather says why */
    if (is_one) {
        add_piece(copies, &all);
        return;
    }
    bt_tx_piece sample = all, copy = all;
    copy.wanted = (bt_tx_wanted){0};
    if (source->view == NULL)
        divide_bytes(copies, &copy);
    else
        divide_layers(copies, &copy);
    sample.first = bytes;
    sample.bytes = 0;
    if (wanted.digest != NULL)
        add_piece(copies, &sample);
}

void bt_tx_copies_clear(bt_tx_copies *copies)
{
    copies->n_pieces = copies->n_jobs = copies->n_chunks = 0;
    copies->job_bytes = 0;
}

baton_status bt_tx_copies_run(bt_tx_copies *copies)
{
    return bt_copycrew_run(copies->crew, copy_job, copies, copies->n_jobs);
}

baton_status bt_tx_copy(bt_tx_copies *copies, const bt_tx_source *source, void *page,
                        uint64_t bytes, bool past_cache, bt_tx_wanted wanted)
{
    if (copies == NULL || copies->n_pieces > 0 || is_of_all(&wanted) ||
        bytes <= 2 * BT_TX_COPY_PART_BYTES) {
        const bt_tx_piece all = whole(source, page, bytes, past_cache, wanted);
        return copy_piece(&all);
    }
    bt_tx_copies_add(copies, 0, source, page, bytes, past_cache, wanted);
    baton_status status = bt_tx_copies_run(copies);
    bt_tx_copies_clear(copies);
    return status;
}

baton_status bt_tx_copies_create(uint32_t n_threads, bt_tx_copies **copies_p)
{
    bt_tx_copies *copies = bt_calloc(1, sizeof(*copies));
    if (copies == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "sender: copies of a turn");
    baton_status status = bt_copycrew_create(n_threads, &copies->crew);
    if (status != BATON_OK) {
        bt_tx_copies_destroy(copies);
        return status;
    }
    *copies_p = copies;
    return BATON_OK;
}

void bt_tx_copies_destroy(bt_tx_copies *copies)
{
    if (copies == NULL)
        return;
    bt_copycrew_destroy(copies->crew);
    bt_free(copies);
}
