/* SPDX-License-Identifier: Apache-2.0 */
/* Bytes: gathers a chunk into the receiver's page where that is mapped here, else into a staging
 * page and puts it, or puts it from where it lies. */
#include "sender/tx.h"

#include "core/alloc.h"
#include "core/log.h"
#include "kernels/digest.h"
#include "kernels/kv_rows.h"
#include "sender/txcopy.h"
#include "sender/txdevice.h"
#include "sender/txlayers.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

void bt_tx_chunk_pushed(bt_tx *tx, bt_tx_transfer *transfer, bt_tx_command *push)
{
    bt_tx_chunk *chunk = &transfer->chunks[push->chunk];
    chunk->source = push->source;
    push->source = (bt_tx_source){0};
    if (chunk->state == BT_TX_CHUNK_PRESENT || transfer->state >= BT_TX_DRAINING) {
        bt_tx_source_free(tx, transfer, push->chunk, &chunk->source);
        return;
    }
    assert(chunk->state == BT_TX_CHUNK_IDLE);
    chunk->source_busy = true;
    chunk->state = BT_TX_CHUNK_PUSHED;
    transfer->n_pushed++;
    if (push->chunk < transfer->next_chunk)
        transfer->next_chunk = push->chunk;
}

void bt_tx_chunk_is_ready(bt_tx_transfer *transfer, uint32_t chunk)
{
    assert(transfer->chunks[chunk].state == BT_TX_CHUNK_PUSHED);
    if (chunk < transfer->next_chunk)
        transfer->next_chunk = chunk;
}

uint64_t bt_tx_chunk_bytes(const bt_tx *tx, const bt_tx_transfer *transfer, uint32_t chunk)
{
    uint32_t tokens =
        chunk + 1 == transfer->n_chunks ? transfer->last_tokens : tx->options.layout.chunk_tokens;
    return tokens * tx->token_bytes;
}

void bt_tx_list_append(bt_tx_transfer *transfer, bt_tx_list *list, uint32_t chunk)
{
    if (list->n++ == 0)
        list->first = chunk;
    else
        transfer->chunks[list->last].next = chunk;
    list->last = chunk;
}

uint32_t bt_tx_list_pop(const bt_tx_transfer *transfer, bt_tx_list *list)
{
    uint32_t chunk = list->first;
    assert(list->n > 0);
    list->first = transfer->chunks[chunk].next;
    list->n--;
    return chunk;
}

void bt_tx_count_landed(bt_tx *tx, bt_tx_transfer *transfer, uint32_t n, uint64_t bytes)
{
    transfer->n_landed += n;
    transfer->sent_bytes += bytes;
    transfer->progress_ns = bt_now_ns(tx->clock);
    pthread_mutex_lock(&tx->stats_lock);
    tx->stats.chunks_sent_total += n;
    tx->stats.bytes_sent_total += bytes;
    pthread_mutex_unlock(&tx->stats_lock);
}

static void landed(bt_tx_transfer *transfer, uint32_t i)
{
    transfer->chunks[i].state = BT_TX_CHUNK_LANDED;
    bt_tx_list_append(transfer, &transfer->landed, i);
}

void bt_tx_chunk_landed(bt_tx *tx, bt_tx_transfer *transfer, uint32_t i)
{
    landed(transfer, i);
    bt_tx_count_landed(tx, transfer, 1, bt_tx_chunk_bytes(tx, transfer, i));
}

static void free_source(bt_tx *tx, bt_tx_transfer *transfer, uint32_t i)
{
    bt_tx_chunk *chunk = &transfer->chunks[i];
    if (chunk->source_busy)
        bt_tx_source_free(tx, transfer, i, &chunk->source);
    chunk->source_busy = false;
}

/* See baton_sender_options.spoil_byte; page is a copy, never the source. */
static void spoil(const bt_tx *tx, uint32_t chunk, uint8_t *page)
{
    if (tx->options.spoil_byte && chunk == 0)
        page[0] ^= 1;
}

/* What one turn of a transfer has written into mapped pages: fenced and counted at its end. */
typedef struct {
    uint32_t n;
    uint64_t bytes;
} turn;

static void end_turn(bt_tx *tx, bt_tx_transfer *transfer, const turn *t)
{
    if (t->n == 0)
        return;
    /* Every store is globally visible before COMMIT leaves. Streaming ones need a fence of their
     * own kind, this one orders the rest. Not atomic_thread_fence: the reader is another process,
     * and ThreadSanitizer does not take it. */
    bt_rows_best(true)->finish();
    __sync_synchronize();
    bt_tx_count_landed(tx, transfer, t->n, t->bytes);
    bt_tx_stat(tx, &tx->stats.bytes_mapped_total, t->bytes);
}

/* The chunk's bytes are in its mapped page; end_turn fences them. */
static void copied(bt_tx *tx, bt_tx_transfer *transfer, uint32_t i, uint8_t *page, turn *t)
{
    spoil(tx, i, page);
    transfer->n_posted++;
    free_source(tx, transfer, i);
    landed(transfer, i);
    t->n++;
    t->bytes += bt_tx_chunk_bytes(tx, transfer, i);
}

/* Copies what the turn has put together for several threads. When that fails all of it stays
 * PUSHED, and the transfer ends. */
static baton_status run_copies(bt_tx *tx, bt_tx_transfer *transfer, turn *t)
{
    bt_tx_copies *copies = tx->copies;
    baton_status status = bt_tx_copies_run(copies);
    for (uint32_t n = 0; status == BATON_OK && n < copies->n_chunks; n++)
        copied(tx, transfer, copies->chunks[n].chunk, copies->chunks[n].page, t);
    bt_tx_copies_clear(copies);
    return status;
}

baton_status bt_tx_chunk_sample(const bt_tx *tx, bt_tx_transfer *transfer, uint32_t chunk,
                                const bt_sample **sample_p)
{
    *sample_p = NULL;
    if (transfer->peer->digests != BT_DIGESTS_SAMPLED)
        return BATON_OK;
    bool is_last = chunk + 1 == transfer->n_chunks;
    *sample_p = bt_samples_find(&transfer->samples, is_last);
    if (*sample_p != NULL)
        return BATON_OK;
    const baton_layout *layout = &tx->options.layout;
    return bt_samples_get(&transfer->samples, is_last, layout->n_layers, layout->n_planes,
                          bt_tx_chunk_bytes(tx, transfer, chunk),
                          bt_sample_seed(transfer->nonce, transfer->ticket, transfer->generation),
                          sample_p);
}

/* The CPU's digest of the chunk; none where none is wanted, or the GPU has taken it. */
static baton_status wanted_digest(const bt_tx *tx, bt_tx_transfer *transfer, uint32_t i,
                                  bt_tx_wanted *wanted)
{
    bt_tx_chunk *chunk = &transfer->chunks[i];
    *wanted = (bt_tx_wanted){0};
    if (transfer->peer->digests == BT_DIGESTS_OFF)
        return BATON_OK;
    if (chunk->source.has_digest) {
        chunk->digest = chunk->source.digest;
        return BATON_OK;
    }
    wanted->digest = &chunk->digest;
    return bt_tx_chunk_sample(tx, transfer, i, &wanted->sample);
}

/* The chunk behind this one, where it is one piece of memory and goes to the same region. */
static void expect_next(const bt_tx_transfer *transfer, uint32_t i, const bt_tx_region *region)
{
    const bt_tx_chunk *next = &transfer->chunks[i + 1];
    if (i + 1 < transfer->n_chunks && next->state == BT_TX_CHUNK_PUSHED &&
        next->source.view == NULL && next->region == transfer->chunks[i].region &&
        next->page < region->n_pages)
        bt_rows_expect(region->mapped + next->page * region->page_bytes, next->source.data);
}

static baton_status move_mapped(bt_tx *tx, bt_tx_transfer *transfer, uint32_t i,
                                const bt_tx_region *region, turn *t)
{
    bt_tx_chunk *chunk = &transfer->chunks[i];
    uint64_t bytes = bt_tx_chunk_bytes(tx, transfer, i);
    uint8_t *page = region->mapped + chunk->page * region->page_bytes;
    bt_tx_wanted wanted;
    BATON_TRY(wanted_digest(tx, transfer, i, &wanted));
    if (tx->copies != NULL) {
        if (!bt_tx_copies_have_room(tx->copies))
            BATON_TRY(run_copies(tx, transfer, t));
        bt_tx_copies_add(tx->copies, i, &chunk->source, page, bytes, true, wanted);
        transfer->next_chunk = i + 1; /* PUSHED until it has been copied */
        return BATON_OK;
    }
    expect_next(transfer, i, region);
    BATON_TRY(bt_tx_copy(NULL, &chunk->source, page, bytes, true, wanted));
    copied(tx, transfer, i, page, t);
    return BATON_OK;
}

static baton_status make_staging(bt_tx *tx)
{
    uint32_t n = tx->options.staging_chunks;
    size_t bytes;
    if (!bt_mul_size(n, (size_t)tx->page_bytes, &bytes))
        return bt_fail(BATON_ERR_TOO_LARGE, "staging: %u pages of %" PRIu64 " bytes", n,
                       tx->page_bytes);
    uint32_t *slots = bt_calloc(n, sizeof(*slots));
    if (slots == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "staging: %u slots", n);
    baton_status status = bt_memory_alloc(tx->transport, bytes, BATON_MEMORY_HOST, &tx->staging);
    if (status != BATON_OK) {
        bt_free(slots);
        return status;
    }
    for (uint32_t i = 0; i < n; i++) /* taken from the end: in order, so that runs are regular */
        slots[i] = n - 1 - i;
    tx->free_slots = slots;
    tx->n_free_slots = n;
    return BATON_OK;
}

bt_memory *bt_tx_find_registered(bt_tx *tx, const void *data, size_t bytes)
{
    uintptr_t from = (uintptr_t)data;
    uint32_t n = atomic_load_explicit(&tx->n_registered, memory_order_acquire); /* bt_tx_register */
    for (uint32_t k = 0, i = tx->last_registered; k < n; k++, i++) {
        i = i < n ? i : 0;
        uintptr_t base = (uintptr_t)tx->registered[i].base;
        if (from < base || bytes > tx->registered[i].bytes ||
            from - base > tx->registered[i].bytes - bytes)
            continue;
        tx->last_registered = i;
        return tx->registered[i].memory;
    }
    return NULL;
}

baton_status bt_tx_take_slot(bt_tx *tx, bt_tx_transfer *transfer, bt_tx_chunk *chunk)
{
    if (tx->staging == NULL)
        BATON_TRY(make_staging(tx));
    bool has_share = transfer->n_slots == 0 || transfer->n_slots < tx->slot_share;
    bool is_kept = bt_tx_layers_keep_slot(tx, transfer, chunk);
    uint32_t most_kept = (tx->options.staging_chunks + 1) / 2;
    if (tx->n_free_slots == 0 || !has_share || (is_kept && tx->n_kept_slots >= most_kept))
        return BATON_ERR_BUSY;
    chunk->slot = (int32_t)tx->free_slots[--tx->n_free_slots];
    transfer->n_slots++;
    chunk->keeps_slot = is_kept;
    tx->n_kept_slots += is_kept;
    return BATON_OK;
}

void bt_tx_give_slot(bt_tx *tx, bt_tx_transfer *transfer, bt_tx_chunk *chunk)
{
    if (chunk->slot < 0)
        return;
    tx->free_slots[tx->n_free_slots++] = (uint32_t)chunk->slot;
    chunk->slot = -1;
    transfer->n_slots--;
    tx->n_kept_slots -= chunk->keeps_slot;
    chunk->keeps_slot = false;
}

/* Where the put reads from: *local and *memory; and its digest. A staging slot when the source is
 * not one piece of registered memory; BUSY when there is none now. */
static baton_status stage(bt_tx *tx, bt_tx_transfer *transfer, uint32_t i, const void **local,
                          bt_memory **memory)
{
    bt_tx_chunk *chunk = &transfer->chunks[i];
    uint64_t bytes = bt_tx_chunk_bytes(tx, transfer, i);
    bt_tx_wanted wanted;
    BATON_TRY(wanted_digest(tx, transfer, i, &wanted));
    if (chunk->source.view == NULL &&
        (tx->options.path != BATON_PATH_STAGED || chunk->source.page != NULL)) {
        *memory = chunk->source.page != NULL ? chunk->source.page
                                             : bt_tx_find_registered(tx, chunk->source.data, bytes);
        *local = chunk->source.data;
        if (*memory != NULL) {
            if (wanted.digest != NULL)
                *wanted.digest = wanted.sample != NULL
                                     ? bt_sample_digest_page(wanted.sample, *local)
                                     : bt_digest(*local, bytes);
            return BATON_OK;
        }
    }
    BATON_TRY(bt_tx_take_slot(tx, transfer, chunk));
    uint8_t *page = (uint8_t *)tx->staging->base + (uint64_t)chunk->slot * tx->page_bytes;
    BATON_TRY(bt_tx_copy(tx->copies, &chunk->source, page, bytes, false, wanted));
    free_source(tx, transfer, i);
    *local = page;
    *memory = tx->staging;
    return BATON_OK;
}

/* Posts what has been put together as one put, named by its first chunk. */
static baton_status post_batch(bt_tx *tx, bt_tx_transfer *transfer)
{
    if (tx->batch.n_chunks == 0)
        return BATON_OK;
    uint32_t n = tx->batch.n_chunks, i = tx->batch.first;
    tx->batch.n_chunks = 0;
    BATON_TRY(bt_endpoint_put(transfer->peer->endpoint, tx->batch.memory, tx->batch.region->remote,
                              tx->batch.runs, tx->batch.n_runs,
                              transfer->id << BT_TX_CHUNK_BITS | i));
    transfer->chunks[tx->batch.last].put_next = UINT32_MAX;
    for (; n > 0; n--) {
        transfer->chunks[i].state = BT_TX_CHUNK_POSTED;
        bt_tx_list_append(transfer, &transfer->posted, i);
        transfer->n_posted++;
        i = transfer->chunks[i].put_next;
    }
    transfer->peer->puts_out_bytes += tx->batch.bytes;
    transfer->n_puts_out++;
    transfer->unflushed = true;
    transfer->progress_ns = bt_now_ns(tx->clock);
    return BATON_OK;
}

/* Adds the chunk, whose bytes are at local; adjacent ones become one run. */
static baton_status add_to_batch(bt_tx *tx, bt_tx_transfer *transfer, uint32_t i, bt_memory *memory,
                                 const bt_tx_region *region, const bt_run *run)
{
    bool is_other = tx->batch.memory != memory || tx->batch.region != region;
    if (is_other || tx->batch.n_runs == BT_TX_PUT_RUNS)
        BATON_TRY(post_batch(tx, transfer));
    if (tx->batch.n_chunks == 0) {
        tx->batch.memory = memory;
        tx->batch.region = region;
        tx->batch.n_runs = 0;
        tx->batch.bytes = 0;
        tx->batch.first = i;
    } else {
        transfer->chunks[tx->batch.last].put_next = i;
    }
    tx->batch.last = i;
    tx->batch.n_chunks++;
    tx->batch.bytes += run->bytes;
    if (tx->batch.n_runs == 0 || !bt_run_join(&tx->batch.runs[tx->batch.n_runs - 1], run))
        tx->batch.runs[tx->batch.n_runs++] = *run;
    return tx->batch.bytes >= BT_TX_PUT_BYTES ? post_batch(tx, transfer) : BATON_OK;
}

static baton_status move_put(bt_tx *tx, bt_tx_transfer *transfer, uint32_t i,
                             const bt_tx_region *region)
{
    bt_tx_chunk *chunk = &transfer->chunks[i];
    const void *local;
    bt_memory *memory;
    if (transfer->peer->puts_out_bytes >= BT_TX_PUTS_OUT_BYTES)
        return BATON_ERR_BUSY;
    BATON_TRY(stage(tx, transfer, i, &local, &memory));
    bool is_host_page = memory->kind != BATON_MEMORY_CUDA_DEVICE &&
                        (chunk->slot >= 0 || chunk->source.page != NULL);
    if (is_host_page) /* else local is the source itself, or the CPU cannot write it */
        spoil(tx, i, (uint8_t *)(uintptr_t)local);
    const bt_run run = {.local_addr = (uint64_t)(uintptr_t)local,
                        .remote_addr = region->base + chunk->page * region->page_bytes,
                        .bytes = bt_tx_chunk_bytes(tx, transfer, i)};
    transfer->next_chunk = i + 1;
    return add_to_batch(tx, transfer, i, memory, region, &run);
}

baton_status bt_tx_flush(bt_tx_transfer *transfer)
{
    if (transfer->flush_out || !transfer->unflushed)
        return BATON_OK;
    /* A flush that cannot be had covers nothing: the chunks stay POSTED. */
    BATON_TRY(bt_endpoint_flush(transfer->peer->endpoint, transfer->id << BT_TX_CHUNK_BITS));
    transfer->flush_out = true;
    transfer->unflushed = false;
    transfer->flushing = transfer->posted;
    transfer->posted = (bt_tx_list){0};
    for (uint32_t n = transfer->flushing.n, i = transfer->flushing.first; n > 0; n--) {
        transfer->chunks[i].state = BT_TX_CHUNK_FLUSHING;
        i = transfer->chunks[i].next;
    }
    return BATON_OK;
}

static bool next_pushed(bt_tx_transfer *transfer, uint32_t *chunk)
{
    while (transfer->next_chunk < transfer->n_chunks &&
           transfer->chunks[transfer->next_chunk].state != BT_TX_CHUNK_PUSHED)
        transfer->next_chunk++;
    *chunk = transfer->next_chunk;
    return transfer->next_chunk < transfer->n_chunks;
}

/* A region that the grant names but MEMREG has not told yet: asked for once. */
static baton_status ask_region(bt_tx *tx, bt_tx_transfer *transfer)
{
    if (transfer->asked_regions && transfer->peer->hello == NULL)
        return bt_fail(BATON_ERR_BAD_MESSAGE, "alloc: the grant names a region that is not there");
    transfer->asked_regions = true;
    bt_tx_ask_regions(tx, transfer->peer);
    return BATON_ERR_BUSY;
}

baton_status bt_tx_chunk_region(bt_tx *tx, bt_tx_transfer *transfer, uint32_t i,
                                const bt_tx_region **region_p)
{
    const bt_tx_chunk *chunk = &transfer->chunks[i];
    const bt_tx_region *region =
        bt_tx_region_find(transfer->peer, chunk->region, chunk->generation);
    if (region == NULL)
        return ask_region(tx, transfer);
    if (chunk->page >= region->n_pages)
        return bt_fail(BATON_ERR_BAD_MESSAGE, "alloc: page %u of %u", chunk->page, region->n_pages);
    *region_p = region;
    return BATON_OK;
}

static baton_status move_chunk(bt_tx *tx, bt_tx_transfer *transfer, uint32_t i, turn *t)
{
    const bt_tx_chunk *chunk = &transfer->chunks[i];
    const bt_tx_region *region;
    BATON_TRY(bt_tx_chunk_region(tx, transfer, i, &region));
    if (bt_tx_device_wants(&chunk->source))
        return bt_tx_device_start(tx, transfer, i,
                                  region->mapped != NULL || !transfer->peer->puts_from_device);
    if (region->mapped != NULL)
        return move_mapped(tx, transfer, i, region, t);
    return move_put(tx, transfer, i, region);
}

/* More threads need longer turns for the same share of waiting for each other. */
static uint64_t turn_bytes(const bt_tx *tx)
{
    uint32_t n = tx->options.copy_threads;
    n = n < BT_TX_COPY_TURN_THREADS ? n : BT_TX_COPY_TURN_THREADS;
    return (uint64_t)n * BT_TX_TURN_BYTES;
}

/* What several threads are to copy; after a failure nothing is. */
static baton_status end_copies(bt_tx *tx, bt_tx_transfer *transfer, baton_status status, turn *t)
{
    if (tx->copies == NULL)
        return status;
    if (status != BATON_OK && status != BATON_ERR_BUSY) {
        bt_tx_copies_clear(tx->copies);
        return status;
    }
    baton_status ran = run_copies(tx, transfer, t);
    return ran != BATON_OK ? ran : status;
}

bool bt_tx_move(bt_tx *tx, bt_tx_transfer *transfer)
{
    if (transfer->state != BT_TX_MOVING)
        return false;
    uint32_t chunk;
    turn t = {0};
    baton_status status = BATON_OK;
    bool more = next_pushed(transfer, &chunk);
    uint64_t most_bytes = turn_bytes(tx);
    for (uint64_t bytes = 0; more && status == BATON_OK && bytes < most_bytes;
         bytes += tx->page_bytes) {
        status = move_chunk(tx, transfer, chunk, &t);
        more = status == BATON_OK && next_pushed(transfer, &chunk);
    }
    status = end_copies(tx, transfer, status, &t);
    end_turn(tx, transfer, &t);
    if (status == BATON_OK || status == BATON_ERR_BUSY) {
        baton_status posted = post_batch(tx, transfer);
        status = posted != BATON_OK ? posted : status;
    }
    tx->batch.n_chunks = 0;
    bool more_layers = false;
    if ((status == BATON_OK || status == BATON_ERR_BUSY) && transfer->first_group != NULL)
        status = bt_tx_layers_move(tx, transfer, &more_layers);
    if (status == BATON_ERR_BUSY)
        status = BATON_OK;
    bool has_posted = transfer->posted.n > 0; /* layers of a chunk wait for the others */
    if (status == BATON_OK && has_posted &&
        bt_tx_commit_port(tx, transfer->peer) != BT_TX_DATA_PORT)
        status = bt_tx_flush(transfer);
    if (status != BATON_OK) {
        bt_tx_transfer_fail(tx, transfer, status, baton_last_error());
        return false;
    }
    bt_tx_commit(tx, transfer);
    return more || more_layers;
}

/* True when somebody waits for a share of what a put has given back. */
static bool wants_turn(const bt_tx_transfer *transfer)
{
    return transfer->state == BT_TX_MOVING &&
           (transfer->n_pushed > transfer->n_posted || transfer->first_group != NULL);
}

bool bt_tx_move_all(bt_tx *tx)
{
    bool more = false;
    uint32_t n_wanting = 0;
    baton_transfer last_turn = tx->turn, first_id = 0;
    for (const bt_tx_transfer *transfer = tx->first; transfer != NULL; transfer = transfer->next)
        n_wanting += wants_turn(transfer);
    tx->slot_share = n_wanting > 1 ? tx->options.staging_chunks / n_wanting : UINT32_MAX;
    for (int pass = 0; pass < 2; pass++) { /* those behind the last turn's first, then the others */
        for (bt_tx_transfer *transfer = tx->first, *next; transfer != NULL; transfer = next) {
            next = transfer->next;
            if ((transfer->id > last_turn) != (pass == 0))
                continue;
            uint32_t n_before = transfer->n_posted;
            more |= bt_tx_move(tx, transfer);
            if (first_id == 0 && transfer->n_posted != n_before)
                first_id = transfer->id;
        }
    }
    tx->turn = first_id != 0 ? first_id : last_turn;
    return more;
}

static void put_left(bt_tx *tx, bt_tx_transfer *transfer, uint32_t i)
{
    bt_tx_chunk *chunk = &transfer->chunks[i];
    chunk->put_done = true;
    free_source(tx, transfer, i);
    bt_tx_give_slot(tx, transfer, chunk);
}

static void on_put(bt_tx *tx, bt_tx_transfer *transfer, const bt_event *event)
{
    uint32_t i = (uint32_t)(event->user_data & ((1u << BT_TX_CHUNK_BITS) - 1));
    bt_tx_chunk *chunk = &transfer->chunks[i];
    transfer->n_puts_out--;
    if (chunk->layers != NULL) {
        bt_tx_put_end end = bt_tx_layers_put_done(tx, transfer, i);
        if (end == BT_TX_PUT_LAST)
            put_left(tx, transfer, i);
        else if (end == BT_TX_PUT_PAUSE && !chunk->keeps_slot)
            bt_tx_give_slot(tx, transfer, chunk);
        return;
    }
    for (; i != UINT32_MAX; i = transfer->chunks[i].put_next) {
        transfer->peer->puts_out_bytes -= bt_tx_chunk_bytes(tx, transfer, i);
        put_left(tx, transfer, i);
    }
}

static void on_flush(bt_tx *tx, bt_tx_transfer *transfer, const bt_event *event)
{
    uint32_t n = 0;
    uint64_t bytes = 0;
    transfer->flush_out = false;
    for (; event->status == BATON_OK && transfer->flushing.n > 0; n++) {
        uint32_t chunk = bt_tx_list_pop(transfer, &transfer->flushing);
        landed(transfer, chunk);
        bytes += bt_tx_chunk_bytes(tx, transfer, chunk);
    }
    bt_tx_count_landed(tx, transfer, n, bytes);
}

static void on_transfer_event(bt_tx *tx, const bt_event *event)
{
    bt_tx_transfer *transfer = bt_tx_transfer_find(tx, event->user_data >> BT_TX_CHUNK_BITS);
    assert(transfer != NULL); /* it lives until all it started has finished */
    transfer->progress_ns = bt_now_ns(tx->clock);
    if (transfer->commit != NULL) /* what COMMIT is behind still moves */
        transfer->commit->deadline_ns =
            bt_deadline_ns(transfer->progress_ns, tx->options.timeouts.commit_ms * BT_NS_PER_MS);
    if (event->kind == BT_EVENT_PUT)
        on_put(tx, transfer, event);
    else
        on_flush(tx, transfer, event);
    /* A failed put or flush says nothing about what arrived: only the endpoint's end does. */
    if (event->status != BATON_OK && transfer->peer->state == BT_TX_PEER_READY) {
        transfer->force_closed = true;
        bt_tx_owe_proof(tx, transfer->peer);
        bt_tx_peer_down(tx, transfer->peer, event->status, event->text);
    } else if (transfer->state == BT_TX_DRAINING) {
        bt_tx_transfer_settle(tx, transfer);
    } else if (transfer->is_answered) {
        bt_tx_transfer_finish(tx, transfer);
    } else {
        bt_tx_commit(tx, transfer);
    }
}

void bt_tx_on_event(bt_tx *tx, const bt_event *event)
{
    bt_tx_peer *peer = (bt_tx_peer *)(uintptr_t)event->user_data;
    switch (event->kind) {
    case BT_EVENT_PUT:
    case BT_EVENT_FLUSH:
        if (event->user_data == 0)
            tx->n_last_flushes--;
        else if (event->user_data >> BT_TX_CHUNK_BITS == 0)
            bt_tx_measure_event(tx, event);
        else
            on_transfer_event(tx, event);
        break;
    case BT_EVENT_CLOSED:
        bt_tx_peer_closed(tx, peer);
        break;
    case BT_EVENT_FAILED:
        bt_tx_peer_down(tx, peer, event->status, event->text);
        break;
    case BT_EVENT_MESSAGE: /* receivers answer through their sockets */
        bt_tx_stat(tx, &tx->stats.messages_dropped_total, 1);
        break;
    }
}

baton_status bt_tx_register(bt_tx *tx, void *base, size_t bytes, baton_memory_kind kind)
{
    uint32_t n = atomic_load_explicit(&tx->n_registered, memory_order_relaxed); /* ours to change */
    if (n == sizeof(tx->registered) / sizeof(tx->registered[0]))
        return bt_fail(BATON_ERR_TOO_LARGE,
                       "sender: wanted one more registered memory, %u are "
                       "allowed",
                       n);
    bt_memory *memory;
    BATON_TRY(bt_memory_register(tx->transport, base, bytes, kind, &memory));
    tx->registered[n].base = base;
    tx->registered[n].bytes = bytes;
    tx->registered[n].memory = memory;
    atomic_store_explicit(&tx->n_registered, n + 1, memory_order_release); /* find_registered */
    return BATON_OK;
}
