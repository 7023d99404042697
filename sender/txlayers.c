/* SPDX-License-Identifier: Apache-2.0 */
#include "sender/txdevice.h"
#include "sender/txlayers.h"

#include "core/alloc.h"
#include "kernels/digest.h"
#include "kernels/digest_tiles.h"
#include "kernels/kv_rows.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* A group that waits to be moved, or whose put reads its source. */
struct bt_tx_group {
    bt_tx_group *next;
    uint32_t chunk;
    bool is_copying; /* a GPU has it: txdevice.h */
    bool is_put;     /* from where it is: its source is free when the put has left */
    bt_tx_source source;
};

/* A chunk that comes in groups, from its first one on. */
struct bt_tx_layers {
    bt_digester digester; /* of a chunk with a digest of all in order, from its first layer on */
    uint64_t *tiles; /* in any order: the digests of the page's tiles; NULL: none was taken yet */
    uint8_t *sample; /* what a sampled digest is of; NULL: none was taken yet */
    uint32_t n_pushed, n_moved, n_puts;
    bt_tx_group *put; /* those whose puts read their sources; free when n_puts is 0 */
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

/* Of the chunk. */
static uint64_t layer_bytes(const bt_tx *tx, const bt_tx_transfer *transfer, uint32_t chunk)
{
    return bt_tx_chunk_bytes(tx, transfer, chunk) / tx->options.layout.n_layers;
}

/* A layer is whole tiles: each group has its own, and adds their digests when it comes. */
static bool has_own_tiles(const bt_tx *tx, const bt_tx_transfer *transfer, uint32_t chunk)
{
    return layer_bytes(tx, transfer, chunk) % BT_DIGEST_TILE_BYTES == 0;
}

/* Tiles that two groups share are digested in the page's order, as soon as both are there. */
static bool is_in_order(const bt_tx *tx, const bt_tx_transfer *transfer, uint32_t chunk)
{
    return transfer->peer->digests == BT_DIGESTS_TILES && !has_own_tiles(tx, transfer, chunk);
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

/* Where the group's part of the chunk's digest goes, and how large it is; to NULL: it has none of
 * its own. Errors: NO_MEMORY, TOO_LARGE. */
static baton_status part_of(const bt_tx *tx, bt_tx_transfer *transfer, const bt_tx_group *group,
                            bt_tx_digest_part *part)
{
    bt_tx_layers *layers = transfer->chunks[group->chunk].layers;
    uint32_t n_layers = tx->options.layout.n_layers;
    const bt_sample *sample;
    *part = (bt_tx_digest_part){0};
    BATON_TRY(bt_tx_chunk_sample(tx, transfer, group->chunk, &sample));
    bool has_tiles =
        transfer->peer->digests == BT_DIGESTS_TILES && has_own_tiles(tx, transfer, group->chunk);
    if (sample == NULL && !has_tiles)
        return BATON_OK;
    uint64_t of_layer =
        sample != NULL
            ? bt_sample_bytes(sample, 1)
            : sizeof(uint64_t) * bt_digest_n_tiles(layer_bytes(tx, transfer, group->chunk));
    uint8_t *all = sample != NULL ? layers->sample : (uint8_t *)layers->tiles;
    if (all == NULL)
        all = bt_calloc(n_layers, of_layer);
    if (all == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "digest: parts of chunk %u", group->chunk);
    if (sample != NULL)
        layers->sample = all;
    else
        layers->tiles = (uint64_t *)(void *)all;
    part->to = all + of_layer * group->source.first_layer;
    part->bytes = (size_t)(of_layer * group->source.n_layers);
    return BATON_OK;
}

/* The group's lines of the chunk's sample. */
static void take_lines(const bt_tx_source *source, const bt_sample *sample, const uint8_t *bytes,
                       uint8_t *lines)
{
    const bt_sample_source from = {.first_layer = source->first_layer,
                                   .n_layers = source->n_layers,
                                   .bytes = source->view != NULL ? bytes : source->data,
                                   .view = source->view,
                                   .tokens = &source->tokens};
    bt_sample_take(sample, &from, lines);
}

/* The group's bytes are the next of the chunk's, and lie at `bytes` in the page. */
static void add_in_order(const bt_tx *tx, const bt_tx_transfer *transfer, const bt_tx_group *group,
                         uint8_t *bytes)
{
    bt_tx_layers *layers = transfer->chunks[group->chunk].layers;
    uint64_t of_layer = layer_bytes(tx, transfer, group->chunk);
    if (group->source.first_layer == 0)
        bt_digester_begin(&layers->digester, bytes, of_layer * tx->options.layout.n_layers,
                          of_layer % 64 == 0, false);
    bt_digester_pass(&layers->digester, of_layer * group->source.n_layers);
}

/* What the CPU has to do for the group's digest, if anything. bytes: the group's, dense; in order,
 * they lie in the page. */
static baton_status add_to_digest(const bt_tx *tx, bt_tx_transfer *transfer,
                                  const bt_tx_group *group, uint8_t *bytes)
{
    const bt_tx_source *source = &group->source;
    const bt_sample *sample;
    bt_tx_digest_part part;
    if (transfer->peer->digests == BT_DIGESTS_OFF || source->has_digest)
        return BATON_OK;
    BATON_TRY(part_of(tx, transfer, group, &part));
    BATON_TRY(bt_tx_chunk_sample(tx, transfer, group->chunk, &sample));
    if (sample != NULL)
        take_lines(source, sample, bytes, transfer->chunks[group->chunk].layers->sample);
    else if (part.to != NULL)
        bt_digest_tiles(bytes, layer_bytes(tx, transfer, group->chunk) * source->n_layers, part.to);
    else
        add_in_order(tx, transfer, group, bytes);
    return BATON_OK;
}

/* Of a chunk whose layers have all moved. */
static baton_status end_digest(const bt_tx *tx, bt_tx_transfer *transfer, uint32_t i)
{
    bt_tx_chunk *chunk = &transfer->chunks[i];
    const bt_sample *sample;
    BATON_TRY(bt_tx_chunk_sample(tx, transfer, i, &sample));
    if (sample != NULL)
        chunk->digest =
            bt_digest(chunk->layers->sample, bt_sample_bytes(sample, tx->options.layout.n_layers));
    else if (is_in_order(tx, transfer, i))
        chunk->digest = bt_digester_end(&chunk->layers->digester);
    else if (transfer->peer->digests == BT_DIGESTS_TILES)
        chunk->digest = bt_digest_of_tiles(chunk->layers->tiles,
                                           bt_digest_n_tiles(bt_tx_chunk_bytes(tx, transfer, i)));
    return BATON_OK;
}

/* See baton_sender_options.spoil_byte; bytes: a copy, never the source. */
static void spoil(const bt_tx *tx, const bt_tx_group *group, uint8_t *bytes)
{
    if (tx->options.spoil_byte && group->chunk == 0 && group->source.first_layer == 0)
        bytes[0] ^= 1;
}

/* The copy, its digest, and the byte that a test wants spoiled. */
static baton_status fill(const bt_tx *tx, bt_tx_transfer *transfer, const bt_tx_group *group,
                         uint8_t *page, bool past_cache)
{
    const bt_tx_source *source = &group->source;
    bool reads_it = transfer->peer->digests == BT_DIGESTS_TILES && !source->has_digest;
    uint64_t bytes = layer_bytes(tx, transfer, group->chunk);
    uint8_t *to = page + bytes * source->first_layer;
    BATON_TRY(copy_group(source, to, bytes * source->n_layers, past_cache && !reads_it));
    BATON_TRY(add_to_digest(tx, transfer, group, to));
    spoil(tx, group, to);
    return BATON_OK;
}

/* A group that comes from a GPU lies in a page of ours, or is read where it is; unless its digest
 * is taken in order it needs no place in the chunk's staging slot. NULL: it does. */
static bt_memory *put_memory(bt_tx *tx, const bt_tx_transfer *transfer, const bt_tx_group *group)
{
    const bt_tx_source *source = &group->source;
    if (is_in_order(tx, transfer, group->chunk))
        return NULL;
    if (source->page != NULL)
        return source->page;
    return source->is_direct ? bt_tx_find_registered(tx, source->data, source->bytes) : NULL;
}

/* Where the put reads the group from. */
static baton_status stage_group(bt_tx *tx, bt_tx_transfer *transfer, bt_tx_group *group,
                                bt_memory **memory, uint8_t **local)
{
    bt_tx_chunk *chunk = &transfer->chunks[group->chunk];
    *memory = put_memory(tx, transfer, group);
    if (*memory != NULL) {
        group->is_put = true;
        *local = (uint8_t *)(uintptr_t)group->source.data;
        BATON_TRY(add_to_digest(tx, transfer, group, *local));
        if (group->source.page != NULL && (*memory)->kind != BATON_MEMORY_CUDA_DEVICE)
            spoil(tx, group, *local);
        return BATON_OK;
    }
    if (chunk->slot < 0)
        BATON_TRY(bt_tx_take_slot(tx, transfer, chunk));
    uint8_t *page = (uint8_t *)tx->staging->base + (uint64_t)chunk->slot * tx->page_bytes;
    *memory = tx->staging;
    *local = page + layer_bytes(tx, transfer, group->chunk) * group->source.first_layer;
    return fill(tx, transfer, group, page, false);
}

static baton_status put_group(bt_tx *tx, bt_tx_transfer *transfer, bt_tx_group *group,
                              const bt_tx_region *region)
{
    bt_tx_chunk *chunk = &transfer->chunks[group->chunk];
    uint8_t *local;
    bt_memory *memory;
    BATON_TRY(stage_group(tx, transfer, group, &memory, &local));
    uint64_t bytes = layer_bytes(tx, transfer, group->chunk);
    uint64_t offset = bytes * group->source.first_layer;
    const bt_run run = {.local_addr = (uint64_t)(uintptr_t)local,
                        .remote_addr = region->base + chunk->page * region->page_bytes + offset,
                        .bytes = bytes * group->source.n_layers};
    BATON_TRY(bt_endpoint_put(transfer->peer->endpoint, memory, region->remote, &run, 1,
                              transfer->id << BT_TX_CHUNK_BITS | group->chunk));
    transfer->n_partial += chunk->layers->n_moved == 0;
    chunk->layers->n_puts++;
    transfer->n_puts_out++;
    transfer->unflushed = true;
    transfer->progress_ns = bt_now_ns(tx->clock);
    return BATON_OK;
}

static baton_status complete_chunk(bt_tx *tx, bt_tx_transfer *transfer, uint32_t i, bool is_mapped)
{
    bt_tx_chunk *chunk = &transfer->chunks[i];
    BATON_TRY(end_digest(tx, transfer, i));
    transfer->n_posted++;
    if (is_mapped) {
        bt_tx_stat(tx, &tx->stats.bytes_mapped_total, bt_tx_chunk_bytes(tx, transfer, i));
        bt_tx_chunk_landed(tx, transfer, i);
        return BATON_OK;
    }
    transfer->n_partial--;
    chunk->state = BT_TX_CHUNK_POSTED;
    bt_tx_list_append(transfer, &transfer->posted, i);
    return BATON_OK;
}

/* Where it will be copied on to the chunk's staging slot, the chunk has that first: groups that
 * wait for one would keep the GPU's pages from those who have it. */
static baton_status start_on_device(bt_tx *tx, bt_tx_transfer *transfer, bt_tx_group *group,
                                    bool is_mapped)
{
    bt_tx_chunk *chunk = &transfer->chunks[group->chunk];
    bool needs_slot = !is_mapped && is_in_order(tx, transfer, group->chunk);
    bool needs_host = is_mapped || !transfer->peer->puts_from_device;
    bt_tx_digest_part part;
    BATON_TRY(part_of(tx, transfer, group, &part));
    if (needs_slot && chunk->slot < 0)
        BATON_TRY(bt_tx_take_slot(tx, transfer, chunk));
    BATON_TRY(bt_tx_device_start_group(tx, transfer, group->chunk, needs_host, &group->source,
                                       &group->is_copying, part));
    return BATON_IN_PROGRESS;
}

/* A GPU has not got it, and, with a digest in order, those before it have moved: it would hold a
 * page of ours that they may need. */
static bool can_move(const bt_tx *tx, const bt_tx_transfer *transfer, const bt_tx_group *group)
{
    if (group->is_copying)
        return false;
    return !is_in_order(tx, transfer, group->chunk) ||
           group->source.first_layer == transfer->chunks[group->chunk].layers->n_moved;
}

static baton_status move_group(bt_tx *tx, bt_tx_transfer *transfer, bt_tx_group *group)
{
    bt_tx_chunk *chunk = &transfer->chunks[group->chunk];
    const bt_tx_region *region;
    BATON_TRY(bt_tx_chunk_region(tx, transfer, group->chunk, &region));
    bool is_mapped = region->mapped != NULL;
    if (bt_tx_device_wants(&group->source))
        return start_on_device(tx, transfer, group, is_mapped);
    if (is_mapped) {
        uint8_t *page = region->mapped + chunk->page * region->page_bytes;
        BATON_TRY(fill(tx, transfer, group, page, true));
        __sync_synchronize(); /* as move_mapped */
        transfer->progress_ns = bt_now_ns(tx->clock);
    } else {
        BATON_TRY(put_group(tx, transfer, group, region));
    }
    chunk->layers->n_moved += group->source.n_layers;
    if (!group->is_put)
        bt_tx_source_free(tx, transfer, group->chunk, &group->source);
    if (chunk->layers->n_moved == tx->options.layout.n_layers)
        return complete_chunk(tx, transfer, group->chunk, is_mapped);
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

/* It has moved; its put may still read it. */
static void retire(const bt_tx_transfer *transfer, bt_tx_group *group)
{
    bt_tx_layers *layers = transfer->chunks[group->chunk].layers;
    if (!group->is_put) {
        bt_free(group);
        return;
    }
    group->next = layers->put;
    layers->put = group;
}

baton_status bt_tx_layers_move(bt_tx *tx, bt_tx_transfer *transfer, bool *more)
{
    uint64_t moved_bytes = 0;
    baton_status busy = BATON_OK;
    bt_tx_group *before = NULL, *group = transfer->first_group;
    while (group != NULL && moved_bytes < BT_TX_TURN_BYTES) {
        bt_tx_group *next = group->next;
        baton_status status =
            can_move(tx, transfer, group) ? move_group(tx, transfer, group) : BATON_IN_PROGRESS;
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
        bool is_waited_for = is_in_order(tx, transfer, group->chunk);
        unlink_group(transfer, before);
        retire(transfer, group);
        /* One that waited for this one may stand before it. */
        group = is_waited_for ? transfer->first_group : next;
        before = group == next ? before : NULL;
    }
    *more = group != NULL;
    return busy;
}

/* The event names the chunk, not the group: with the last put of several all of them are free. */
static void free_put(bt_tx *tx, bt_tx_transfer *transfer, uint32_t i)
{
    bt_tx_layers *layers = transfer->chunks[i].layers;
    for (bt_tx_group *group = layers->put, *next; group != NULL; group = next) {
        next = group->next;
        bt_tx_source_free(tx, transfer, i, &group->source);
        bt_free(group);
    }
    layers->put = NULL;
}

bt_tx_put_end bt_tx_layers_put_done(bt_tx *tx, bt_tx_transfer *transfer, uint32_t i)
{
    const bt_tx_chunk *chunk = &transfer->chunks[i];
    if (chunk->layers == NULL)
        return BT_TX_PUT_LAST;
    if (--chunk->layers->n_puts > 0)
        return BT_TX_PUT_OTHERS;
    free_put(tx, transfer, i);
    bool is_moved = chunk->state != BT_TX_CHUNK_IDLE && chunk->state != BT_TX_CHUNK_LAYERED;
    return is_moved ? BT_TX_PUT_LAST : BT_TX_PUT_PAUSE;
}

bool bt_tx_layers_keep_slot(const bt_tx *tx, const bt_tx_transfer *transfer,
                            const bt_tx_chunk *chunk)
{
    return chunk->layers != NULL && is_in_order(tx, transfer, (uint32_t)(chunk - transfer->chunks));
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
        if (!group->is_copying) /* else a GPU was never done with it: txdevice.h has the source */
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

static void free_groups(bt_tx_group *group)
{
    for (bt_tx_group *next; group != NULL; group = next) {
        next = group->next;
        bt_tx_source_release(&group->source);
        bt_free(group);
    }
}

void bt_tx_layers_free(bt_tx_transfer *transfer)
{
    free_groups(transfer->first_group);
    for (uint32_t i = 0; transfer->chunks != NULL && i < transfer->n_chunks; i++) {
        if (transfer->chunks[i].layers != NULL) {
            free_groups(transfer->chunks[i].layers->put);
            bt_free(transfer->chunks[i].layers->tiles);
            bt_free(transfer->chunks[i].layers->sample);
        }
        bt_free(transfer->chunks[i].layers);
    }
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
