/* SPDX-License-Identifier: Apache-2.0 */
#include "sender/txlayers.h"

#include "core/alloc.h"
#include "kernels/digest.h"
#include "kernels/kv_rows.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* A group that waits to be moved. */
struct bt_tx_group {
    bt_tx_group *next;
    uint32_t chunk;
    bt_tx_source source;
};

/* A chunk that comes in groups, from its first one on. */
struct bt_tx_layers {
    bt_digester digester; /* of a chunk with a digest, from its first layer on */
    uint32_t n_pushed, n_moved, n_puts;
};

baton_status bt_tx_layers_see(const bt_tx *tx, bt_tx_transfer *transfer, uint32_t chunk,
                              const bt_tx_source *source)
{
    uint32_t n_layers = tx->options.layout.n_layers;
    if (source->first_layer >= n_layers || source->n_layers > n_layers - source->first_layer)
        return bt_fail(BATON_ERR_OUT_OF_RANGE, "push: chunk %u: layers %u + %u of %u", chunk,
                       source->first_layer, source->n_layers, n_layers);
    if (transfer->seen == NULL) {
        size_t n;
        if (bt_mul_size(transfer->n_chunks, n_layers, &n))
            transfer->seen = bt_calloc(n, 1);
        if (transfer->seen == NULL)
            return bt_fail(BATON_ERR_NO_MEMORY, "push: layers of %u chunks", transfer->n_chunks);
    }
    uint8_t *seen = transfer->seen + (size_t)chunk * n_layers + source->first_layer;
    for (uint32_t i = 0; i < source->n_layers; i++) {
        if (seen[i] != 0)
            return bt_fail(BATON_ERR_INVALID_ARG, "push: layer %u of chunk %u was pushed before",
                           source->first_layer + i, chunk);
    }
    memset(seen, 1, source->n_layers);
    return BATON_OK;
}

static bt_tx_layers *layers_create(void)
{
    bt_tx_layers *layers = bt_aligned_alloc(64, sizeof(*layers));
    if (layers != NULL)
        memset(layers, 0, sizeof(*layers));
    return layers;
}

void bt_tx_layers_pushed(bt_tx *tx, bt_tx_transfer *transfer, bt_tx_command *push)
{
    uint32_t i = push->chunk;
    bt_tx_chunk *chunk = &transfer->chunks[i];
    bool is_wanted = chunk->state != BT_TX_CHUNK_PRESENT && transfer->state < BT_TX_DRAINING;
    bt_tx_group *group = is_wanted ? bt_calloc(1, sizeof(*group)) : NULL;
    if (group != NULL && chunk->layers == NULL)
        chunk->layers = layers_create();
    if (group == NULL || chunk->layers == NULL) {
        bt_free(group);
        bt_tx_source_free(tx, transfer, i, &push->source);
        if (is_wanted)
            bt_tx_transfer_fail(tx, transfer, BATON_ERR_NO_MEMORY, "push: a group of layers");
        push->source = (bt_tx_source){0};
        return;
    }
    assert(chunk->state == BT_TX_CHUNK_IDLE);
    *group = (bt_tx_group){.chunk = i, .source = push->source};
    push->source = (bt_tx_source){0};
    *(transfer->last_group != NULL ? &transfer->last_group->next : &transfer->first_group) = group;
    transfer->last_group = group;
    chunk->layers->n_pushed += group->source.n_layers;
    if (chunk->layers->n_pushed == tx->options.layout.n_layers) {
        chunk->state = BT_TX_CHUNK_LAYERED;
        transfer->n_pushed++;
    }
}

/* Copies a group to its place in the page. */
static baton_status copy_group(const bt_tx_source *source, uint8_t *to, uint64_t bytes,
                               bool past_cache)
{
    if (source->view == NULL) {
        const bt_rows_ops *ops = bt_rows_best(past_cache);
        ops->copy(to, 0, source->data, 0, bytes, 1);
        ops->finish();
        return BATON_OK;
    }
    if (past_cache)
        return baton_kv_gather_stream(source->view, &source->tokens, source->first_layer,
                                      source->n_layers, to, bytes);
    return baton_kv_gather(source->view, &source->tokens, source->first_layer, source->n_layers, to,
                           bytes);
}

/* Of the chunk. */
static uint64_t layer_bytes(const bt_tx *tx, const bt_tx_transfer *transfer, uint32_t chunk)
{
    return bt_tx_chunk_bytes(tx, transfer, chunk) / tx->options.layout.n_layers;
}

/* What was copied to its place in `page` is the next of the chunk's bytes. */
static void add_to_digest(const bt_tx *tx, const bt_tx_transfer *transfer, const bt_tx_group *group,
                          uint8_t *page)
{
    bt_tx_layers *layers = transfer->chunks[group->chunk].layers;
    uint64_t bytes = layer_bytes(tx, transfer, group->chunk);
    if (group->source.first_layer == 0)
        bt_digester_begin(&layers->digester, page, bytes * tx->options.layout.n_layers,
                          bytes % 64 == 0, false);
    bt_digester_pass(&layers->digester, bytes * group->source.n_layers);
}

/* The copy, its digest, and the byte that a test wants spoiled. */
static baton_status fill(const bt_tx *tx, const bt_tx_transfer *transfer, const bt_tx_group *group,
                         uint8_t *page, bool past_cache)
{
    const bt_tx_source *source = &group->source;
    bool has_digest = transfer->peer->digests != BT_DIGESTS_OFF;
    uint64_t bytes = layer_bytes(tx, transfer, group->chunk);
    uint8_t *to = page + bytes * source->first_layer;
    BATON_TRY(copy_group(source, to, bytes * source->n_layers, past_cache && !has_digest));
    if (has_digest)
        add_to_digest(tx, transfer, group, page);
    if (tx->options.spoil_byte && group->chunk == 0 && source->first_layer == 0)
        page[0] ^= 1;
    return BATON_OK;
}

static baton_status put_group(bt_tx *tx, bt_tx_transfer *transfer, const bt_tx_group *group,
                              const bt_tx_region *region)
{
    bt_tx_chunk *chunk = &transfer->chunks[group->chunk];
    if (chunk->slot < 0)
        BATON_TRY(bt_tx_take_slot(tx, transfer, chunk));
    uint8_t *page = (uint8_t *)tx->staging->base + (uint64_t)chunk->slot * tx->page_bytes;
    BATON_TRY(fill(tx, transfer, group, page, false));
    uint64_t bytes = layer_bytes(tx, transfer, group->chunk);
    uint64_t offset = bytes * group->source.first_layer;
    const bt_run run = {.local_addr = (uint64_t)(uintptr_t)page + offset,
                        .remote_addr = region->base + chunk->page * region->page_bytes + offset,
                        .bytes = bytes * group->source.n_layers};
    BATON_TRY(bt_endpoint_put(transfer->peer->endpoint, tx->staging, region->remote, &run, 1,
                              transfer->id << BT_TX_CHUNK_BITS | group->chunk));
    transfer->n_partial += chunk->layers->n_moved == 0;
    chunk->layers->n_puts++;
    transfer->n_puts_out++;
    transfer->unflushed = true;
    transfer->progress_ns = bt_now_ns(tx->clock);
    return BATON_OK;
}

static void complete_chunk(bt_tx *tx, bt_tx_transfer *transfer, uint32_t i, bool is_mapped)
{
    bt_tx_chunk *chunk = &transfer->chunks[i];
    if (transfer->peer->digests != BT_DIGESTS_OFF)
        chunk->digest = bt_digester_end(&chunk->layers->digester);
    transfer->n_posted++;
    if (is_mapped) {
        bt_tx_stat(tx, &tx->stats.bytes_mapped_total, bt_tx_chunk_bytes(tx, transfer, i));
        bt_tx_chunk_landed(tx, transfer, i);
        return;
    }
    transfer->n_partial--;
    chunk->state = BT_TX_CHUNK_POSTED;
    bt_tx_list_append(transfer, &transfer->posted, i);
}

/* With digests a group is moved when those before it have been. */
static bool is_in_order(const bt_tx_transfer *transfer, const bt_tx_group *group)
{
    return transfer->peer->digests == BT_DIGESTS_OFF ||
           group->source.first_layer == transfer->chunks[group->chunk].layers->n_moved;
}

static baton_status move_group(bt_tx *tx, bt_tx_transfer *transfer, bt_tx_group *group)
{
    bt_tx_chunk *chunk = &transfer->chunks[group->chunk];
    const bt_tx_region *region;
    BATON_TRY(bt_tx_chunk_region(tx, transfer, group->chunk, &region));
    bool is_mapped = region->mapped != NULL;
    if (is_mapped) {
        uint8_t *page = region->mapped + chunk->page * region->page_bytes;
        BATON_TRY(fill(tx, transfer, group, page, true));
        __sync_synchronize(); /* as move_mapped */
        transfer->progress_ns = bt_now_ns(tx->clock);
    } else {
        BATON_TRY(put_group(tx, transfer, group, region));
    }
    chunk->layers->n_moved += group->source.n_layers;
    bt_tx_source_free(tx, transfer, group->chunk, &group->source);
    if (chunk->layers->n_moved == tx->options.layout.n_layers)
        complete_chunk(tx, transfer, group->chunk, is_mapped);
    return BATON_OK;
}

/* Takes the group behind `before` (NULL: the first) out of the list. */
static void unlink_group(bt_tx_transfer *transfer, bt_tx_group *before)
{
    bt_tx_group **link = before != NULL ? &before->next : &transfer->first_group;
    bt_tx_group *group = *link;
    *link = group->next;
    if (transfer->last_group == group)
        transfer->last_group = before;
}

baton_status bt_tx_layers_move(bt_tx *tx, bt_tx_transfer *transfer, bool *more)
{
    uint64_t moved_bytes = 0;
    baton_status busy = BATON_OK;
    bt_tx_group *before = NULL, *group = transfer->first_group;
    while (group != NULL && moved_bytes < BT_TX_TURN_BYTES) {
        bt_tx_group *next = group->next;
        baton_status status =
            is_in_order(transfer, group) ? move_group(tx, transfer, group) : BATON_IN_PROGRESS;
        if (status == BATON_ERR_BUSY)
            busy = status; /* another chunk may have its slot */
        else if (status < 0)
            return status;
        if (status != BATON_OK) {
            before = group;
            group = next;
            continue;
        }
        moved_bytes += layer_bytes(tx, transfer, group->chunk) * group->source.n_layers;
        unlink_group(transfer, before);
        bt_free(group);
        /* One that waited for this one may stand before it. */
        group = transfer->peer->digests != BT_DIGESTS_OFF ? transfer->first_group : next;
        before = group == next ? before : NULL;
    }
    *more = group != NULL;
    return busy;
}

bt_tx_put_end bt_tx_layers_put_done(bt_tx_chunk *chunk)
{
    if (chunk->layers == NULL)
        return BT_TX_PUT_LAST;
    if (--chunk->layers->n_puts > 0)
        return BT_TX_PUT_OTHERS;
    bool is_moved = chunk->state != BT_TX_CHUNK_IDLE && chunk->state != BT_TX_CHUNK_LAYERED;
    return is_moved ? BT_TX_PUT_LAST : BT_TX_PUT_PAUSE;
}

bool bt_tx_layers_keep_slot(const bt_tx_transfer *transfer, const bt_tx_chunk *chunk)
{
    return chunk->layers != NULL && transfer->peer->digests != BT_DIGESTS_OFF;
}

static void drop(bt_tx *tx, bt_tx_transfer *transfer, uint32_t first, uint32_t end)
{
    bt_tx_group *before = NULL;
    for (bt_tx_group *group = transfer->first_group, *next; group != NULL; group = next) {
        next = group->next;
        if (group->chunk < first || group->chunk >= end) {
            before = group;
            continue;
        }
        bt_tx_source_free(tx, transfer, group->chunk, &group->source);
        unlink_group(transfer, before);
        bt_free(group);
    }
}

void bt_tx_layers_drop_chunk(bt_tx *tx, bt_tx_transfer *transfer, uint32_t chunk)
{
    if (transfer->first_group != NULL)
        drop(tx, transfer, chunk, chunk + 1);
}

void bt_tx_layers_drop(bt_tx *tx, bt_tx_transfer *transfer)
{
    drop(tx, transfer, 0, UINT32_MAX);
}

void bt_tx_layers_free(bt_tx_transfer *transfer)
{
    for (bt_tx_group *group = transfer->first_group, *next; group != NULL; group = next) {
        next = group->next;
        bt_free(group->source.owned);
        bt_free(group);
    }
    for (uint32_t i = 0; transfer->chunks != NULL && i < transfer->n_chunks; i++)
        bt_free(transfer->chunks[i].layers);
    bt_free(transfer->seen);
}

bool bt_tx_layers_missing(const bt_tx *tx, const bt_tx_transfer *transfer, uint32_t chunk,
                          char *text, size_t size)
{
    const bt_tx_layers *layers = transfer->chunks[chunk].layers;
    if (layers == NULL)
        return false;
    snprintf(text, size, "finish: %u of the %u layers of chunk %u were pushed", layers->n_pushed,
             tx->options.layout.n_layers, chunk);
    return true;
}
