/* SPDX-License-Identifier: Apache-2.0 */
#include "sender/txdevice.h"

#include "core/alloc.h"
#include "core/log.h"
#include "sender/txgather.h"

#include <assert.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* Doorbells wake the owner at once; this is for those that the driver would not take, and for what
 * was given up. */
#define LOOK_AGAIN_NS BT_NS_PER_MS
#define LOOK_AT_LOST_NS (100 * BT_NS_PER_MS)

typedef struct bt_tx_device tx_device;
typedef bt_tx_device_copy device_copy;

/* With the context entered. */
static baton_status make_streams(tx_device *device)
{
    const bt_cuda_driver *driver = device->cuda->driver;
    bt_cu_stream *streams[] = {&device->gathers, &device->copies, &device->watch};
    bt_cu_result result = BT_CU_SUCCESS;
    for (size_t i = 0; i < 3 && result == BT_CU_SUCCESS; i++)
        result = driver->stream_create(streams[i], BT_CU_STREAM_NON_BLOCKING);
    for (uint32_t i = 0; i < device->n_slots && result == BT_CU_SUCCESS; i++) {
        result = driver->event_create(&device->slots[i].gathered, BT_CU_EVENT_DISABLE_TIMING);
        if (result == BT_CU_SUCCESS)
            result = driver->event_create(&device->slots[i].done, BT_CU_EVENT_DISABLE_TIMING);
    }
    if (result != BT_CU_SUCCESS)
        return bt_fail_cuda(driver, result, "wanted streams and events");
    return BATON_OK;
}

static baton_status fill_device(tx_device *device)
{
    bt_tx *tx = device->tx;
    BATON_TRY(bt_transport_cuda(tx->transport, &device->cuda));
    device->slots = bt_calloc(tx->options.staging_chunks, sizeof(*device->slots));
    device->free_slots = bt_calloc(tx->options.staging_chunks, sizeof(*device->free_slots));
    if (device->slots == NULL || device->free_slots == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "staging: %u slots", tx->options.staging_chunks);
    device->n_slots = tx->options.staging_chunks;
    for (uint32_t i = 0; i < device->n_slots; i++)
        device->free_slots[device->n_free_slots++] = i;
    BATON_TRY(bt_cuda_waker_open(tx->bell, &device->waker));
    BATON_TRY(bt_cuda_enter(device->cuda));
    baton_status status = make_streams(device);
    device->kernels = bt_kv_kernels_get(device->cuda->driver);
    if (device->kernels != NULL && !device->kernels->can_run(false))
        device->kernels = NULL;
    device->kernels_digest = device->kernels != NULL && device->kernels->can_run(true);
    bt_cuda_leave(device->cuda);
    BATON_TRY(status);
    return device->kernels_digest
               ? bt_cuda_alloc_pinned(device->cuda, device->n_slots * sizeof(*device->digests),
                                      (void **)&device->digests)
               : BATON_OK;
}

static baton_status get_device(bt_tx *tx, tx_device **device_p)
{
    if (tx->device == NULL) {
        tx_device *device = bt_calloc(1, sizeof(*device));
        if (device == NULL)
            return bt_fail(BATON_ERR_NO_MEMORY, "sender: a GPU's state");
        device->tx = tx;
        device->last = &device->first;
        baton_status status = fill_device(device);
        if (status != BATON_OK) {
            bt_tx_device_destroy(device);
            return status;
        }
        bt_info("sender: moves device memory gpu=\"%s\" path=%s pages=%u kernels=%s",
                device->cuda->name, tx->transport->reaches_device ? "direct" : "staged",
                device->n_slots, device->kernels != NULL ? "yes" : "no");
        tx->device = device;
    }
    *device_p = tx->device;
    return BATON_OK;
}

/* The users' events are not waited for; nothing of ours is behind them but a ring for nobody. */
static void destroy_streams(tx_device *device)
{
    if (device->cuda == NULL || bt_cuda_enter(device->cuda) != BATON_OK)
        return;
    const bt_cuda_driver *driver = device->cuda->driver;
    bt_cu_stream streams[] = {device->gathers, device->copies, device->watch};
    for (size_t i = 0; i < 3; i++) {
        if (streams[i] != NULL)
            driver->stream_destroy(streams[i]);
    }
    for (uint32_t i = 0; i < device->n_slots; i++) {
        if (device->slots[i].gathered != NULL)
            driver->event_destroy(device->slots[i].gathered);
        if (device->slots[i].done != NULL)
            driver->event_destroy(device->slots[i].done);
    }
    bt_cuda_leave(device->cuda);
}

static void free_copies(device_copy *copy)
{
    for (device_copy *next; copy != NULL; copy = next) {
        next = copy->next;
        bt_free(copy);
    }
}

static baton_status query(const tx_device *device, bt_cu_event event)
{
    BATON_TRY(bt_cuda_enter(device->cuda));
    bt_cu_result result = device->cuda->driver->event_query(event);
    bt_cuda_leave(device->cuda);
    if (result == BT_CU_SUCCESS)
        return BATON_OK;
    if (result == BT_CU_NOT_READY)
        return BATON_IN_PROGRESS;
    return bt_fail_cuda(device->cuda->driver, result, "wanted an event of the GPU");
}

static void free_memory(tx_device *device)
{
    destroy_streams(device);
    bt_memory_free(device->pinned);
    bt_cuda_free_pinned(device->cuda, device->digests);
    bt_cuda_free_pinned(device->cuda, device->parts);
    bt_cuda_free(device->cuda, device->sample_room);
    if (device->device_memory != NULL)
        bt_memory_free(device->device_memory);
    else if (device->cuda != NULL)
        bt_cuda_free(device->cuda, device->device_pages);
}

/* All that was queued for a RUNNING copy, or one that was given up, is done. */
static baton_status has_ended(const tx_device *device, const device_copy *copy)
{
    baton_status status = query(device, device->slots[copy->slot].done);
    return status == BATON_OK && copy->is_unmarked ? BATON_IN_PROGRESS : status;
}

/* Of those that were given up, one has still not ended. */
static bool owes_copies(const tx_device *device)
{
    const device_copy *copy = device->lost;
    while (copy != NULL && has_ended(device, copy) != BATON_IN_PROGRESS)
        copy = copy->next;
    return copy != NULL;
}

/* What was queued on our streams still writes our pages: it is waited for as long as a copy that
 * runs is, but not again for what was given up. */
static bool streams_end(const tx_device *device)
{
    uint64_t put_ns = device->tx->options.timeouts.put_ms * BT_NS_PER_MS;
    uint64_t until_ns = bt_deadline_ns(bt_now_ns(&bt_clock_monotonic), put_ns);
    bool ends = !owes_copies(device);
    for (const device_copy *copy = device->first; ends && copy != NULL; copy = copy->next) {
        if (copy->state == BT_TX_COPY_RUNNING)
            ends = !copy->is_unmarked &&
                   bt_cuda_wait(device->cuda, device->slots[copy->slot].done, until_ns);
    }
    return ends;
}

/* To wait for the GPU would be for ever, and to free what it may still write is no choice: streams,
 * pages and the transport they are registered with stay until the process ends. */
static void leave_memory(tx_device *device)
{
    bt_error("sender: the GPU has not ended its copies in %u ms: %u pages are left to it, and what "
             "was pushed may still be read",
             device->tx->options.timeouts.put_ms, device->n_slots);
    bt_memory_abandon(device->pinned);
    bt_memory_abandon(device->device_memory);
    bt_transport_abandon(device->tx->transport);
}

void bt_tx_device_destroy(tx_device *device)
{
    if (device == NULL)
        return;
    bt_cuda_waker_close(device->waker);
    if (streams_end(device))
        free_memory(device);
    else
        leave_memory(device);
    free_copies(device->first);
    free_copies(device->spare);
    free_copies(device->lost);
    bt_free(device->slots);
    bt_free(device->free_slots);
    bt_free(device);
}

bool bt_tx_device_wants(const bt_tx_source *source)
{
    bool is_readable =
        source->memory != BATON_MEMORY_CUDA_DEVICE || source->page != NULL || source->is_direct;
    return source->ready != NULL || !is_readable;
}

/* The owner wakes up when the user's event has completed. */
static void watch_event(tx_device *device, bt_cu_event event)
{
    if (bt_cuda_enter(device->cuda) != BATON_OK)
        return;
    if (device->cuda->driver->stream_wait_event(device->watch, event, 0) == BT_CU_SUCCESS)
        bt_cuda_waker_queue(device->waker, device->cuda, device->watch);
    bt_cuda_leave(device->cuda);
}

static baton_status start(bt_tx *tx, const device_copy *wanted)
{
    tx_device *device;
    const bt_sample *sample;
    BATON_TRY(get_device(tx, &device));
    BATON_TRY(bt_tx_chunk_sample(tx, wanted->transfer, wanted->chunk, &sample));
    device_copy *copy = device->spare;
    if (copy != NULL)
        device->spare = copy->next;
    else
        copy = bt_calloc(1, sizeof(*copy));
    if (copy == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "sender: a copy of a GPU");
    bool has_digest = wanted->transfer->peer->digests != BT_DIGESTS_OFF;
    *copy = *wanted;
    copy->state = wanted->source->ready != NULL ? BT_TX_COPY_WAITING : BT_TX_COPY_READY;
    copy->sample = sample;
    copy->takes_digest = has_digest && device->kernels_digest &&
                         (wanted->is_copying == NULL || wanted->part.to != NULL) &&
                         (sample == NULL || bt_sample_suits_gpu(sample));
    copy->needs_host |= has_digest && !copy->takes_digest;
    *device->last = copy;
    device->last = &copy->next;
    if (copy->state == BT_TX_COPY_WAITING)
        watch_event(device, copy->source->ready);
    return BATON_OK;
}

baton_status bt_tx_device_start(bt_tx *tx, bt_tx_transfer *transfer, uint32_t chunk,
                                bool needs_host)
{
    const device_copy wanted = {.transfer = transfer,
                                .chunk = chunk,
                                .source = &transfer->chunks[chunk].source,
                                .bytes = bt_tx_chunk_bytes(tx, transfer, chunk),
                                .needs_host = needs_host};
    BATON_TRY(start(tx, &wanted));
    transfer->chunks[chunk].state = BT_TX_CHUNK_COPYING;
    return BATON_OK;
}

baton_status bt_tx_device_start_group(bt_tx *tx, bt_tx_transfer *transfer, uint32_t chunk,
                                      bool needs_host, bt_tx_source *source, bool *is_copying,
                                      bt_tx_digest_part part)
{
    uint64_t layer_bytes = bt_tx_chunk_bytes(tx, transfer, chunk) / tx->options.layout.n_layers;
    const device_copy wanted = {.transfer = transfer,
                                .chunk = chunk,
                                .source = source,
                                .bytes = layer_bytes * source->n_layers,
                                .is_copying = is_copying,
                                .part = part,
                                .needs_host = needs_host};
    BATON_TRY(start(tx, &wanted));
    *is_copying = true;
    return BATON_OK;
}

/* Nothing on the GPU is under way for it, or it is done. */
static void end_copying(const device_copy *copy)
{
    if (copy->is_copying != NULL)
        *copy->is_copying = false;
    else
        copy->transfer->chunks[copy->chunk].state = BT_TX_CHUNK_PUSHED;
}

static void unlink_copy(tx_device *device, device_copy **at)
{
    device_copy *copy = *at;
    *at = copy->next;
    if (copy->next == NULL)
        device->last = at;
}

static void remove_copy(tx_device *device, device_copy **at)
{
    device_copy *copy = *at;
    unlink_copy(device, at);
    copy->next = device->spare;
    device->spare = copy;
}

/* Starts a READY copy in a free slot. When queueing fails half way, the slot is taken until the GPU
 * has done that half, and so is the source. */
static baton_status run(tx_device *device, device_copy *copy)
{
    BATON_TRY(bt_tx_gather_room(device, copy));
    BATON_TRY(bt_cuda_enter(device->cuda));
    copy->slot = device->free_slots[--device->n_free_slots];
    copy->state = BT_TX_COPY_RUNNING;
    copy->started_ns = bt_now_ns(device->tx->clock);
    copy->failure = bt_tx_gather_queue(device, copy);
    if (copy->failure != BATON_OK) {
        snprintf(device->failure, sizeof(device->failure), "%s", baton_last_error());
        copy->is_unmarked = bt_tx_gather_mark(device, copy->slot) != BT_CU_SUCCESS;
    }
    bt_cuda_leave(device->cuda);
    return BATON_OK;
}

/* Where no copy is needed after all. */
static bool is_movable(const tx_device *device, const device_copy *copy)
{
    bt_tx_source *source = copy->source;
    if (source->memory != BATON_MEMORY_CUDA_DEVICE)
        return true;
    source->is_direct = !copy->needs_host && source->view == NULL &&
                        bt_tx_find_registered(device->tx, source->data, source->bytes) != NULL;
    return source->is_direct && !copy->takes_digest;
}

/* All is behind us: the user's memory is free, and the page stands for it, or it is put from where
 * it is. */
static void put_in_place(tx_device *device, const device_copy *copy)
{
    bt_tx *tx = device->tx;
    bt_tx_source *source = copy->source;
    bt_memory *memory = copy->needs_host ? device->pinned : device->device_memory;
    bool is_part = copy->part.to != NULL;
    uint64_t digest = copy->takes_digest && !is_part ? device->digests[copy->slot] : 0;
    if (copy->takes_digest && is_part)
        memcpy(copy->part.to, bt_tx_gather_part(device, copy), copy->part.bytes);
    if (source->is_direct) {
        source->has_digest = true;
        source->digest = digest;
        device->free_slots[device->n_free_slots++] = copy->slot;
        return;
    }
    uint32_t first_layer = source->first_layer, n_layers = source->n_layers;
    bt_tx_source_free(tx, copy->transfer, copy->chunk, source);
    *source = (bt_tx_source){
        .data = (uint8_t *)memory->base + copy->slot * tx->page_bytes,
        .bytes = (size_t)copy->bytes,
        .first_layer = first_layer,
        .n_layers = n_layers,
        .memory = memory->kind,
        .page = memory,
        .device_slot = copy->slot,
        .has_digest = copy->takes_digest,
        .digest = digest,
    };
    if (copy->needs_host)
        bt_tx_stat(tx, &tx->stats.bytes_staged_total, copy->bytes);
}

/* One step; OK: the copy is done with and the chunk can be moved. */
static baton_status advance(tx_device *device, device_copy *copy)
{
    bt_tx_source *source = copy->source;
    if (copy->state == BT_TX_COPY_WAITING) {
        baton_status status = query(device, source->ready);
        if (status != BATON_OK)
            return status;
        bt_tx_source_is_there(source);
        copy->state = BT_TX_COPY_READY;
    }
    if (copy->state == BT_TX_COPY_READY) {
        if (is_movable(device, copy))
            return BATON_OK;
        if (device->n_free_slots == 0)
            return BATON_IN_PROGRESS;
        BATON_TRY(run(device, copy));
    }
    baton_status status = has_ended(device, copy);
    if (status == BATON_IN_PROGRESS)
        return status;
    if (status == BATON_OK && copy->failure == BATON_OK) {
        put_in_place(device, copy);
        return BATON_OK;
    }
    device->free_slots[device->n_free_slots++] = copy->slot; /* also of a device that has failed */
    return copy->failure != BATON_OK ? bt_fail(copy->failure, "%s", device->failure) : status;
}

/* What it was for goes on. False: its transfer ended or failed, and may have taken other copies out
 * of the list. */
static bool finish(tx_device *device, const device_copy *copy, baton_status status)
{
    bt_tx_transfer *transfer = copy->transfer;
    end_copying(copy);
    if (transfer->state == BT_TX_DRAINING) {
        bt_tx_transfer_settle(device->tx, transfer);
        return false;
    }
    if (status != BATON_OK) {
        bt_tx_transfer_fail(device->tx, transfer, status, baton_last_error());
        return false;
    }
    if (copy->is_copying == NULL)
        bt_tx_chunk_is_ready(transfer, copy->chunk);
    return true;
}

static bool is_late(const tx_device *device, const device_copy *copy, uint64_t now_ns)
{
    uint64_t limit_ns = device->tx->options.timeouts.put_ms * BT_NS_PER_MS;
    return copy->state == BT_TX_COPY_RUNNING && bt_elapsed_ns(now_ns, copy->started_ns) >= limit_ns;
}

/* Takes a copy that never ends from its transfer, which can end then; page and source are not free.
 */
static void give_up(tx_device *device, device_copy **at)
{
    bt_tx *tx = device->tx;
    device_copy *copy = *at;
    bt_tx_transfer *transfer = copy->transfer;
    unlink_copy(device, at);
    copy->next = device->lost;
    device->lost = copy;
    copy->source_free = bt_tx_source_event(tx, transfer, copy->chunk, copy->source);
    bt_tx_source_release(copy->source);
    if (copy->is_copying == NULL)
        transfer->chunks[copy->chunk].source_busy = false;
    bt_tx_transfer_hangs(tx, transfer, copy->chunk);
}

/* False: the list has changed under it, and the walk must start anew. */
static bool advance_all(tx_device *device, uint64_t now_ns)
{
    for (device_copy **at = &device->first; *at != NULL;) {
        device_copy *copy = *at;
        baton_status status = advance(device, copy);
        if (status != BATON_IN_PROGRESS) {
            const device_copy done = *copy;
            remove_copy(device, at);
            if (!finish(device, &done, status))
                return false;
        } else if (is_late(device, copy, now_ns)) {
            give_up(device, at);
            return false;
        } else {
            at = &copy->next;
        }
    }
    return true;
}

/* Those that have ended after all, or never will, on a device that has failed. */
static void find_lost(tx_device *device)
{
    for (device_copy **at = &device->lost; *at != NULL;) {
        device_copy *copy = *at;
        if (has_ended(device, copy) == BATON_IN_PROGRESS) {
            at = &copy->next;
            continue;
        }
        *at = copy->next;
        device->free_slots[device->n_free_slots++] = copy->slot;
        bt_tx_event_source_free(device->tx, &copy->source_free);
        copy->next = device->spare;
        device->spare = copy;
    }
}

void bt_tx_device_progress(bt_tx *tx)
{
    if (tx->device == NULL)
        return;
    find_lost(tx->device);
    while (!advance_all(tx->device, bt_now_ns(tx->clock)))
        ;
}

uint64_t bt_tx_device_wake_ns(const bt_tx *tx, uint64_t now_ns)
{
    if (tx->device == NULL || (tx->device->first == NULL && tx->device->lost == NULL))
        return BT_NEVER_NS;
    if (tx->device->first == NULL)
        return bt_deadline_ns(now_ns, LOOK_AT_LOST_NS);
    for (const device_copy *copy = tx->device->first; copy != NULL; copy = copy->next) {
        if (copy->state == BT_TX_COPY_READY && tx->device->n_free_slots > 0)
            return now_ns;
    }
    return bt_deadline_ns(now_ns, LOOK_AGAIN_NS);
}

bool bt_tx_device_is_busy(bt_tx *tx, bt_tx_transfer *transfer)
{
    bool is_busy = false;
    if (tx->device == NULL)
        return false;
    for (device_copy **at = &tx->device->first; *at != NULL;) {
        if ((*at)->transfer != transfer) {
            at = &(*at)->next;
        } else if ((*at)->state == BT_TX_COPY_RUNNING) {
            is_busy = true;
            at = &(*at)->next;
        } else {
            end_copying(*at);
            remove_copy(tx->device, at);
        }
    }
    return is_busy;
}

void bt_tx_device_give(bt_tx *tx, bt_tx_source *source)
{
    tx_device *device = tx->device;
    assert(source->page != NULL && device->n_free_slots < device->n_slots);
    device->free_slots[device->n_free_slots++] = source->device_slot;
    source->page = NULL;
}
