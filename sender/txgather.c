/* SPDX-License-Identifier: Apache-2.0 */
#include "sender/txgather.h"

#include "core/alloc.h"
#include "core/fail.h"
#include "kernels/digest_tiles.h"
#include "kernels/kv_copies.h"

#include <inttypes.h>

typedef struct bt_tx_device tx_device;
typedef bt_tx_device_copy device_copy;

static bt_cu_address address_of(const void *memory)
{
    return (bt_cu_address)(uintptr_t)memory;
}

/* A group's own, or all that the view has. */
static uint32_t layers_of(const bt_tx_source *source)
{
    return source->n_layers != 0 ? source->n_layers : source->view->n_layers;
}

static baton_status make_pages(tx_device *device)
{
    bt_tx *tx = device->tx;
    size_t bytes;
    if (!bt_mul_size(device->n_slots, (size_t)tx->page_bytes, &bytes))
        return bt_fail(BATON_ERR_TOO_LARGE, "staging: %u pages of %" PRIu64 " bytes",
                       device->n_slots, tx->page_bytes);
    if (!tx->transport->reaches_device)
        return bt_cuda_alloc(device->cuda, bytes, &device->device_pages);
    BATON_TRY(
        bt_memory_alloc(tx->transport, bytes, BATON_MEMORY_CUDA_DEVICE, &device->device_memory));
    device->device_pages = device->device_memory->base;
    return BATON_OK;
}

static baton_status make_sample_room(tx_device *device)
{
    const bt_tx *tx = device->tx;
    const baton_layout *layout = &tx->options.layout;
    uint64_t bytes = bt_sample_most_bytes(layout->n_layers, layout->n_planes, tx->page_bytes);
    return bt_cuda_alloc(device->cuda, (size_t)bytes, &device->sample_room);
}

static uint64_t part_bytes_of(const bt_tx *tx)
{
    const baton_layout *layout = &tx->options.layout;
    uint64_t lines = bt_sample_most_bytes(layout->n_layers, layout->n_planes, tx->page_bytes);
    uint64_t tiles = sizeof(uint64_t) * bt_digest_n_tiles(tx->page_bytes);
    return lines > tiles ? lines : tiles;
}

static baton_status make_parts(tx_device *device)
{
    device->part_bytes = part_bytes_of(device->tx);
    return bt_cuda_alloc_pinned(device->cuda, (size_t)(device->n_slots * device->part_bytes),
                                (void **)&device->parts);
}

static void *part_of(const tx_device *device, const device_copy *copy)
{
    return device->parts + copy->slot * device->part_bytes;
}

const void *bt_tx_gather_part(const tx_device *device, const device_copy *copy)
{
    return part_of(device, copy);
}

/* Of dense bytes on the device. One room is enough for the lines of all samples, which are taken
 * one after the other. */
static baton_status take_digest(tx_device *device, const device_copy *copy, const void *from)
{
    if (!copy->takes_digest)
        return BATON_OK;
    const bt_kv_kernels *kernels = device->kernels;
    uint64_t *digest = &device->digests[copy->slot];
    if (copy->part.to != NULL && copy->sample != NULL)
        return bt_sample_take_gpu(kernels, copy->sample, copy->source->first_layer,
                                  copy->source->n_layers, from, part_of(device, copy),
                                  device->gathers);
    if (copy->part.to != NULL)
        return kernels->digest_tiles(from, copy->bytes, part_of(device, copy), device->gathers);
    if (copy->sample == NULL)
        return kernels->digest(from, copy->bytes, digest, device->gathers);
    if (device->sample_room == NULL)
        BATON_TRY(make_sample_room(device));
    return bt_sample_digest_gpu(kernels, copy->sample, from, device->sample_room, digest,
                                device->gathers);
}

/* A digest of all bytes is taken on the way. */
static baton_status gather_with_kernels(tx_device *device, const device_copy *copy, void *page)
{
    const bt_tx_source *source = copy->source;
    const bt_kv_kernels *kernels = device->kernels;
    uint32_t n_layers = layers_of(source);
    bool is_on_its_way = copy->takes_digest && copy->sample == NULL;
    if (is_on_its_way && copy->part.to != NULL)
        return kernels->gather_tiles(source->view, &source->tokens, source->first_layer, n_layers,
                                     page, copy->bytes, part_of(device, copy), device->gathers);
    BATON_TRY(kernels->gather(source->view, &source->tokens, source->first_layer, n_layers, page,
                              copy->bytes, is_on_its_way ? &device->digests[copy->slot] : NULL,
                              device->gathers));
    return is_on_its_way ? BATON_OK : take_digest(device, copy, page);
}

/* The chunk, or a group of its layers, to `page` on the device, and its digest. */
static baton_status gather(tx_device *device, const device_copy *copy, void *page)
{
    const bt_tx_source *source = copy->source;
    const bt_cuda_driver *driver = device->cuda->driver;
    if (source->view == NULL) {
        bt_cu_result result = driver->copy_async(address_of(page), address_of(source->data),
                                                 copy->bytes, device->gathers);
        if (result != BT_CU_SUCCESS)
            return bt_fail_cuda(driver, result, "wanted a copy");
        return take_digest(device, copy, page);
    }
    if (device->kernels != NULL)
        return gather_with_kernels(device, copy, page);
    return bt_kv_gather_copies(driver, source->view, &source->tokens, source->first_layer,
                               layers_of(source), page, copy->bytes, device->gathers);
}

baton_status bt_tx_gather_queue(tx_device *device, const device_copy *copy)
{
    const bt_cuda_driver *driver = device->cuda->driver;
    const bt_tx_device_slot *slot = &device->slots[copy->slot];
    const bt_tx_source *source = copy->source;
    uint64_t at = copy->slot * device->tx->page_bytes;
    /* Without pages there are only sources that are put from where they are. */
    uint8_t *page = device->device_pages != NULL ? (uint8_t *)device->device_pages + at : NULL;
    BATON_TRY(source->is_direct ? take_digest(device, copy, source->data)
                                : gather(device, copy, page));
    bt_cu_stream last = device->gathers;
    bt_cu_result result = BT_CU_SUCCESS;
    if (copy->needs_host) {
        last = device->copies;
        result = driver->event_record(slot->gathered, device->gathers);
        if (result == BT_CU_SUCCESS)
            result = driver->stream_wait_event(last, slot->gathered, 0);
        if (result == BT_CU_SUCCESS)
            result = driver->copy_async(address_of((uint8_t *)device->pinned->base + at),
                                        address_of(page), copy->bytes, last);
    }
    if (result == BT_CU_SUCCESS)
        result = driver->event_record(slot->done, last);
    if (result != BT_CU_SUCCESS)
        return bt_fail_cuda(driver, result, "wanted a copy to the host");
    bt_cuda_waker_queue(device->waker, device->cuda, last);
    return BATON_OK;
}

bt_cu_result bt_tx_gather_mark(const tx_device *device, uint32_t slot)
{
    const bt_cuda_driver *driver = device->cuda->driver;
    const bt_tx_device_slot *events = &device->slots[slot];
    bt_cu_result result = driver->event_record(events->gathered, device->gathers);
    if (result == BT_CU_SUCCESS)
        result = driver->stream_wait_event(device->copies, events->gathered, 0);
    if (result == BT_CU_SUCCESS)
        result = driver->event_record(events->done, device->copies);
    return result;
}

static baton_status make_pinned(tx_device *device)
{
    return bt_memory_alloc(device->tx->transport,
                           (size_t)device->n_slots * (size_t)device->tx->page_bytes,
                           BATON_MEMORY_CUDA_HOST, &device->pinned);
}

baton_status bt_tx_gather_room(tx_device *device, const device_copy *copy)
{
    if (device->device_pages == NULL && !copy->source->is_direct)
        BATON_TRY(make_pages(device));
    if (copy->part.to != NULL && device->parts == NULL && copy->takes_digest)
        BATON_TRY(make_parts(device));
    return copy->needs_host && device->pinned == NULL ? make_pinned(device) : BATON_OK;
}
