/* SPDX-License-Identifier: Apache-2.0 */
#include "receiver/rxdevice.h"

#include "core/alloc.h"
#include "core/log.h"
#include "kernels/digest.h"
#include "kernels/kv_rows.h"
#include "kernels/kv_kernels.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>

/* The driver rings the doorbell; this is for when it would not take the ring. */
#define LOOK_AGAIN_NS BT_NS_PER_MS

/* A page's copy to the device, or the digest of it there, for one grant. */
struct bt_rx_arrival {
    uint64_t ticket; /* 0: none */
    uint64_t batch;
};

/* What was queued for one COMMIT: done when the event behind them is. */
typedef struct copy_batch {
    struct copy_batch *next;
    bt_cu_event done;
} copy_batch;

/* A COMMIT that waits for its batch. */
typedef struct kept_commit {
    struct kept_commit *next;
    uint64_t epoch, batch;
    bt_message message; /* its blobs are in bytes */
    uint8_t bytes[];
} kept_commit;

struct bt_rx_device {
    bt_cuda *cuda;
    bt_cuda_waker *waker;
    bool is_direct;               /* peers write device memory */
    const bt_kv_kernels *kernels; /* of direct pages' digests; NULL: the CPU takes them */
    bt_cu_stream stream;
    copy_batch *first, **last, *spare; /* batches n_done + 1 ... n_queued */
    uint64_t n_queued, n_done;
    kept_commit *kept;
    baton_status status; /* why no copy will ever be done; OK: they will */
    void *sample_room;   /* of the device: lines of one page; made when first needed */
    void *host_page;     /* pinned, for reads of direct pages; made when first needed */
};
typedef struct bt_rx_device rx_device;

static bt_cu_address address_of(const void *memory)
{
    return (bt_cu_address)(uintptr_t)memory;
}

static baton_status make_stream(rx_device *device)
{
    BATON_TRY(bt_cuda_enter(device->cuda));
    bt_cu_result result =
        device->cuda->driver->stream_create(&device->stream, BT_CU_STREAM_NON_BLOCKING);
    bt_cuda_leave(device->cuda);
    if (result != BT_CU_SUCCESS)
        return bt_fail_cuda(device->cuda->driver, result, "wanted a stream");
    return BATON_OK;
}

/* Those that can take a digest: whether there will be some, senders say. */
static baton_status find_kernels(bt_rx *rx)
{
    rx_device *device = rx->device;
    if (!device->is_direct || rx->options.memory != BATON_MEMORY_CUDA_DEVICE)
        return BATON_OK;
    BATON_TRY(bt_cuda_enter(device->cuda));
    const bt_kv_kernels *kernels = bt_kv_kernels_get(device->cuda->driver);
    if (kernels != NULL && kernels->can_run(true))
        device->kernels = kernels;
    bt_cuda_leave(device->cuda);
    return BATON_OK;
}

baton_status bt_rx_device_create(bt_rx *rx)
{
    if (rx->options.memory == BATON_MEMORY_HOST)
        return BATON_OK;
    rx->device = bt_calloc(1, sizeof(*rx->device));
    if (rx->device == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "receiver: a GPU's state");
    rx_device *device = rx->device;
    device->last = &device->first;
    BATON_TRY(bt_transport_cuda(rx->transport, &device->cuda));
    BATON_TRY(bt_cuda_waker_open(rx->out.bell, &device->waker));
    BATON_TRY(make_stream(device));
    bool is_seen = device->cuda->orders_writes || device->cuda->can_flush;
    device->is_direct = rx->transport->reaches_device && is_seen;
    BATON_TRY(find_kernels(rx));
    bt_info("receiver: pool of a GPU gpu=\"%s\" memory=%s path=%s writes=%s", device->cuda->name,
            rx->options.memory == BATON_MEMORY_CUDA_DEVICE ? "cuda" : "cuda_host",
            device->is_direct || rx->options.memory == BATON_MEMORY_CUDA_HOST ? "direct" : "staged",
            device->cuda->orders_writes ? "ordered"
            : device->cuda->can_flush   ? "flushed"
                                        : "unordered");
    return BATON_OK;
}

static void free_batches(const rx_device *device, copy_batch *batch)
{
    for (copy_batch *next; batch != NULL; batch = next) {
        next = batch->next;
        device->cuda->driver->event_destroy(batch->done);
        bt_free(batch);
    }
}

void bt_rx_device_destroy(bt_rx *rx)
{
    rx_device *device = rx->device;
    if (device == NULL)
        return;
    for (kept_commit *kept = device->kept, *next; kept != NULL; kept = next) {
        next = kept->next;
        bt_free(kept);
    }
    if (!rx->gpu_hangs)
        bt_cuda_free(device->cuda, device->sample_room);
    if (!rx->gpu_hangs && device->cuda != NULL && bt_cuda_enter(device->cuda) == BATON_OK) {
        free_batches(device, device->first);
        free_batches(device, device->spare);
        if (device->stream != NULL)
            device->cuda->driver->stream_destroy(device->stream);
        bt_cuda_leave(device->cuda);
    }
    bt_cuda_waker_close(device->waker);
    if (!rx->gpu_hangs)
        bt_cuda_free_pinned(device->cuda, device->host_page);
    bt_free(device);
    rx->device = NULL;
}

static baton_status make_arrivals(const bt_rx *rx, bt_rx_region *region, size_t bytes)
{
    region->arrivals = bt_calloc(bytes / (size_t)rx->page_bytes, sizeof(*region->arrivals));
    if (region->arrivals == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "receiver: arrivals of %zu bytes", bytes);
    return BATON_OK;
}

static baton_status make_direct(bt_rx *rx, bt_rx_region *region, size_t bytes)
{
    if (rx->options.pool_base != NULL)
        BATON_TRY(bt_memory_register(rx->transport, rx->options.pool_base, bytes,
                                     BATON_MEMORY_CUDA_DEVICE, &region->memory));
    else
        BATON_TRY(bt_memory_alloc(rx->transport, bytes, BATON_MEMORY_CUDA_DEVICE, &region->memory));
    region->pages = region->memory->base;
    if (rx->device->kernels == NULL)
        return BATON_OK;
    BATON_TRY(make_arrivals(rx, region, bytes));
    return bt_cuda_alloc_pinned(rx->device->cuda,
                                bytes / (size_t)rx->page_bytes * sizeof(*region->digests),
                                (void **)&region->digests);
}

static baton_status make_staged(bt_rx *rx, bt_rx_region *region, size_t bytes)
{
    const bt_cuda *cuda = rx->device->cuda;
    BATON_TRY(make_arrivals(rx, region, bytes));
    if (rx->options.pool_base == NULL)
        BATON_TRY(bt_cuda_alloc(cuda, bytes, &region->pages));
    else if (bt_cuda_is_device_memory(cuda, rx->options.pool_base))
        region->pages = rx->options.pool_base;
    else
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "receiver: pool_base: wanted device memory, the driver knows it as "
                       "something else");
    return bt_memory_alloc(rx->transport, bytes, BATON_MEMORY_CUDA_HOST, &region->memory);
}

baton_status bt_rx_device_region(bt_rx *rx, bt_rx_region *region, size_t bytes)
{
    baton_status status =
        rx->device->is_direct ? make_direct(rx, region, bytes) : make_staged(rx, region, bytes);
    if (status != BATON_OK)
        bt_rx_device_region_free(rx, region);
    return status;
}

static void free_memory(const bt_rx *rx, const bt_rx_region *region)
{
    bt_memory_free(region->memory);
    if (region->digests != NULL)
        bt_cuda_free_pinned(rx->device->cuda, region->digests);
    bool is_staged = region->arrivals != NULL && !rx->device->is_direct;
    if (is_staged && region->pages != rx->options.pool_base)
        bt_cuda_free(rx->device->cuda, region->pages);
}

void bt_rx_device_region_free(bt_rx *rx, bt_rx_region *region)
{
    if (rx->gpu_hangs)
        bt_memory_abandon(region->memory);
    else
        free_memory(rx, region);
    bt_free(region->arrivals);
    region->memory = NULL;
    region->pages = NULL;
    region->arrivals = NULL;
    region->digests = NULL;
}

static void *landing_address(const bt_rx *rx, bt_page_ref page)
{
    return (uint8_t *)rx->regions[page.region].memory->base + (size_t)page.page * rx->page_bytes;
}

static copy_batch *take_batch(rx_device *device)
{
    copy_batch *batch = device->spare;
    if (batch != NULL) {
        device->spare = batch->next;
        batch->next = NULL;
        return batch;
    }
    batch = bt_calloc(1, sizeof(*batch));
    if (batch != NULL && device->cuda->driver->event_create(
                             &batch->done, BT_CU_EVENT_DISABLE_TIMING) == BT_CU_SUCCESS)
        return batch;
    bt_free(batch);
    return NULL;
}

static uint64_t sample_room_bytes(const bt_rx *rx)
{
    const baton_layout *layout = &rx->options.layout;
    return bt_sample_most_bytes(layout->n_layers, layout->n_planes, rx->page_bytes);
}

/* A sample's lines are gathered beside the page first; those that the GPU cannot are the CPU's, in
 * bt_rx_device_digest. */
static baton_status queue_digest(bt_rx *rx, bt_rx_ticket *ticket, uint32_t chunk, bt_page_ref page,
                                 uint64_t bytes)
{
    rx_device *device = rx->device;
    uint64_t *digest = &rx->regions[page.region].digests[page.page];
    const void *from = landing_address(rx, page);
    const bt_sample *sample;
    BATON_TRY(bt_rx_ticket_sample(rx, ticket, chunk, &sample));
    if (sample == NULL)
        return device->kernels->digest(from, bytes, digest, device->stream);
    if (!bt_sample_suits_gpu(sample))
        return BATON_OK;
    if (device->sample_room == NULL)
        BATON_TRY(bt_cuda_alloc(device->cuda, (size_t)sample_room_bytes(rx), &device->sample_room));
    return bt_sample_digest_gpu(device->kernels, sample, from, device->sample_room, digest,
                                device->stream);
}

/* What a COMMIT asks for, of one page: its copy to the device, or its digest. */
static baton_status queue_page(bt_rx *rx, bt_rx_ticket *ticket, uint32_t chunk, bt_page_ref page)
{
    const rx_device *device = rx->device;
    const bt_rx_region *region = &rx->regions[page.region];
    uint64_t bytes = bt_grant_tokens_of(rx->store, ticket->grant, chunk) * rx->token_bytes;
    region->arrivals[page.page] =
        (struct bt_rx_arrival){.ticket = ticket->id, .batch = device->n_queued + 1};
    if (device->is_direct)
        return queue_digest(rx, ticket, chunk, page, bytes);
    bt_cu_result result = device->cuda->driver->copy_async(address_of(bt_rx_page_address(rx, page)),
                                                           address_of(landing_address(rx, page)),
                                                           bytes, device->stream);
    if (result != BT_CU_SUCCESS)
        return bt_fail_cuda(device->cuda->driver, result, "wanted pages copied to the device");
    return BATON_OK;
}

/* Walks over the pages that a COMMIT names: chunks that have none of their own are there already.
 */
typedef struct {
    bt_list_cursor cursor;
    bt_chunk_range range; /* what is left of it */
} page_walk;

static bool next_page(page_walk *walk, const bt_rx_ticket *ticket, const bt_msg_commit *commit,
                      uint32_t *chunk, bt_page_ref *page)
{
    for (;;) {
        if (walk->range.count == 0 && !bt_message_next_range(commit, &walk->cursor, &walk->range))
            return false;
        if (walk->range.count == 0)
            continue;
        *chunk = walk->range.first++;
        walk->range.count--;
        if (bt_grant_page(ticket->grant, *chunk, page))
            return true;
    }
}

static struct bt_rx_arrival *arrival_of(const bt_rx *rx, bt_page_ref page)
{
    return &rx->regions[page.region].arrivals[page.page];
}

/* Nothing of the batch under way counts. What was queued does no harm: whatever is done to those
 * pages later comes behind it. */
static void forget_batch(bt_rx *rx, const bt_rx_ticket *ticket, const bt_msg_commit *commit)
{
    page_walk walk = {0};
    uint32_t chunk;
    bt_page_ref page;
    while (next_page(&walk, ticket, commit, &chunk, &page)) {
        struct bt_rx_arrival *arrival = arrival_of(rx, page);
        if (arrival->batch == rx->device->n_queued + 1)
            *arrival = (struct bt_rx_arrival){0};
    }
}

/* Queues what this COMMIT is the first to ask for; *n pages. *newest: the batch that the last of
 * its pages is in. */
static baton_status queue_pages(bt_rx *rx, bt_rx_ticket *ticket, const bt_msg_commit *commit,
                                uint32_t *n, uint64_t *newest)
{
    page_walk walk = {0};
    uint32_t chunk;
    bt_page_ref page;
    *n = 0;
    *newest = 0;
    while (next_page(&walk, ticket, commit, &chunk, &page)) {
        const struct bt_rx_arrival *arrival = arrival_of(rx, page);
        if (arrival->ticket != ticket->id) {
            BATON_TRY(queue_page(rx, ticket, chunk, page));
            (*n)++;
        }
        *newest = arrival->batch > *newest ? arrival->batch : *newest;
    }
    return BATON_OK;
}

/* With the context entered. */
static baton_status end_batch(rx_device *device, copy_batch *batch)
{
    bt_cu_result result = device->cuda->driver->event_record(batch->done, device->stream);
    if (result != BT_CU_SUCCESS)
        return bt_fail_cuda(device->cuda->driver, result, "wanted an event behind a copy");
    bt_cuda_waker_queue(device->waker, device->cuda, device->stream);
    *device->last = batch;
    device->last = &batch->next;
    device->n_queued++;
    return BATON_OK;
}

/* OK: what was queued for all of its pages is done. */
static baton_status land_queued(bt_rx *rx, bt_rx_ticket *ticket, const bt_msg_commit *commit)
{
    rx_device *device = rx->device;
    uint32_t n = 0;
    uint64_t newest = 0;
    BATON_TRY(bt_cuda_enter(device->cuda));
    copy_batch *batch = take_batch(device);
    baton_status status = batch != NULL
                              ? queue_pages(rx, ticket, commit, &n, &newest)
                              : bt_fail_cuda(device->cuda->driver, BT_CU_OUT_OF_MEMORY,
                                             "wanted an event for what a COMMIT waits for");
    if (status == BATON_OK && n > 0)
        status = end_batch(device, batch);
    if (batch != NULL && (status != BATON_OK || n == 0)) {
        batch->next = device->spare;
        device->spare = batch;
    }
    bt_cuda_leave(device->cuda);
    if (status != BATON_OK)
        forget_batch(rx, ticket, commit);
    BATON_TRY(status);
    return newest <= device->n_done ? BATON_OK : BATON_IN_PROGRESS;
}

/* What peers wrote is flushed before a kernel looks at it. */
static baton_status land_direct(bt_rx *rx, bt_rx_ticket *ticket, const bt_msg_commit *commit)
{
    BATON_TRY(bt_cuda_flush_writes(rx->device->cuda));
    bool is_digested = rx->device->kernels != NULL && commit->digests.bytes > 0;
    return is_digested ? land_queued(rx, ticket, commit) : BATON_OK;
}

baton_status bt_rx_device_land(bt_rx *rx, bt_rx_ticket *ticket, const bt_msg_commit *commit)
{
    rx_device *device = rx->device;
    if (device == NULL || rx->options.memory != BATON_MEMORY_CUDA_DEVICE)
        return BATON_OK;
    if (device->status != BATON_OK)
        return bt_fail(device->status, "receiver: the GPU has failed, nothing lands any more");
    return device->is_direct ? land_direct(rx, ticket, commit) : land_queued(rx, ticket, commit);
}

/* The COMMIT of this ticket that is kept. A sender has one under way at a time. */
static const kept_commit *find_kept(const rx_device *device, uint64_t ticket)
{
    const kept_commit *kept = device->kept;
    while (kept != NULL && kept->message.u.commit.name.ticket != ticket)
        kept = kept->next;
    return kept;
}

static bt_blob keep_blob(uint8_t **at, bt_blob blob)
{
    uint8_t *copy = *at;
    if (blob.bytes > 0)
        memcpy(copy, blob.data, blob.bytes);
    *at += blob.bytes;
    return bt_blob_of(copy, blob.bytes);
}

baton_status bt_rx_device_keep(bt_rx *rx, const bt_rx_peer *peer, const bt_message *message)
{
    rx_device *device = rx->device;
    const bt_msg_commit *commit = &message->u.commit;
    const kept_commit *before = find_kept(device, commit->name.ticket);
    if (before != NULL) { /* the sender asks again; or it asks for more than it may, for now */
        rx->stats.messages_dropped_total += before->message.id != message->id;
        return BATON_OK;
    }
    kept_commit *kept = bt_calloc(1, sizeof(*kept) + commit->packed_ranges.bytes +
                                         commit->digests.bytes + commit->name.nonce.bytes);
    if (kept == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "commit: %zu bytes", commit->digests.bytes);
    uint8_t *at = kept->bytes;
    kept->epoch = peer->epoch;
    kept->batch = device->n_queued;
    kept->message = (bt_message){.type = BT_MSG_COMMIT, .id = message->id, .epoch = message->epoch};
    bt_msg_commit *copy = &kept->message.u.commit;
    copy->name = commit->name;
    copy->final = commit->final;
    copy->n_ranges = commit->n_ranges;
    copy->packed_ranges = keep_blob(&at, commit->packed_ranges);
    copy->digests = keep_blob(&at, commit->digests);
    copy->name.nonce = keep_blob(&at, commit->name.nonce);
    kept_commit **last = &device->kept;
    while (*last != NULL)
        last = &(*last)->next;
    *last = kept;
    return BATON_OK;
}

void bt_rx_device_expect(const bt_rx *rx, bt_page_ref page, const bt_sample *sample)
{
    if (rx->regions[page.region].memory->kind == BATON_MEMORY_CUDA_DEVICE)
        return;
    const void *from = landing_address(rx, page);
    if (sample != NULL)
        bt_sample_expect(sample, from);
    else
        bt_rows_expect(from, from);
}

/* To host_page, on our stream: the engine's own streams would wait for the default one. */
static baton_status read_page(bt_rx *rx, const void *from, size_t bytes)
{
    rx_device *device = rx->device;
    const bt_cuda_driver *driver = device->cuda->driver;
    if (device->host_page == NULL)
        BATON_TRY(bt_cuda_alloc_pinned(device->cuda, (size_t)rx->page_bytes, &device->host_page));
    BATON_TRY(bt_cuda_enter(device->cuda));
    bt_cu_result result =
        driver->copy_async(address_of(device->host_page), address_of(from), bytes, device->stream);
    if (result == BT_CU_SUCCESS)
        result = driver->stream_synchronize(device->stream);
    bt_cuda_leave(device->cuda);
    if (result != BT_CU_SUCCESS)
        return bt_fail_cuda(driver, result, "wanted %zu bytes of a page", bytes);
    return BATON_OK;
}

baton_status bt_rx_device_digest(bt_rx *rx, bt_page_ref page, size_t bytes, const bt_sample *sample,
                                 uint64_t *digest)
{
    rx_device *device = rx->device;
    const bt_rx_region *region = &rx->regions[page.region];
    const void *from = landing_address(rx, page);
    if (region->digests != NULL && (sample == NULL || bt_sample_suits_gpu(sample))) {
        *digest = region->digests[page.page];
        return BATON_OK;
    }
    if (region->memory->kind == BATON_MEMORY_CUDA_DEVICE) {
        BATON_TRY(read_page(rx, from, bytes));
        from = device->host_page;
    }
    *digest = sample != NULL ? bt_sample_digest_page(sample, from) : bt_digest(from, bytes);
    return BATON_OK;
}

/* Counts batches whose event has come. */
static void count_done(rx_device *device)
{
    while (device->first != NULL && device->status == BATON_OK) {
        copy_batch *batch = device->first;
        bt_cu_result result = bt_cuda_query(device->cuda, batch->done);
        if (result == BT_CU_NOT_READY)
            return;
        if (result != BT_CU_SUCCESS) {
            device->status =
                bt_fail_cuda(device->cuda->driver, result, "wanted pages to land on the device");
            bt_error("receiver: nothing lands any more: %s", baton_last_error());
            return;
        }
        device->n_done++;
        device->first = batch->next;
        if (device->first == NULL)
            device->last = &device->first;
        batch->next = device->spare;
        device->spare = batch;
    }
}

static bt_rx_peer *find_peer(bt_rx *rx, uint64_t epoch)
{
    bt_rx_peer *peer = rx->peers;
    while (peer != NULL && peer->epoch != epoch)
        peer = peer->next;
    return peer;
}

/* A peer that has gone meanwhile has no ticket that could still be committed. */
void bt_rx_device_progress(bt_rx *rx)
{
    rx_device *device = rx->device;
    if (device == NULL)
        return;
    count_done(device);
    while (device->kept != NULL &&
           (device->kept->batch <= device->n_done || device->status != BATON_OK)) {
        kept_commit *kept = device->kept;
        device->kept = kept->next;
        bt_rx_peer *peer = find_peer(rx, kept->epoch);
        if (peer != NULL)
            bt_rx_on_commit(rx, peer, &kept->message);
        bt_free(kept);
    }
}

uint64_t bt_rx_device_wake_ns(const bt_rx *rx, uint64_t now_ns)
{
    bool has_copies = rx->device != NULL && rx->device->first != NULL;
    return has_copies || rx->n_leaving > 0 ? bt_deadline_ns(now_ns, LOOK_AGAIN_NS) : BT_NEVER_NS;
}

baton_status bt_rx_device_mark(bt_rx *rx, struct CUstream_st *stream, bt_cu_event *event_p)
{
    bt_cuda *cuda;
    BATON_TRY(bt_transport_cuda(rx->transport, &cuda));
    return bt_cuda_record(cuda, stream, event_p);
}

/* A device that has failed reads nothing any more. */
bool bt_rx_device_is_done(bt_rx *rx, bt_cu_event event)
{
    bt_cuda *cuda;
    return bt_transport_cuda(rx->transport, &cuda) != BATON_OK ||
           bt_cuda_query(cuda, event) != BT_CU_NOT_READY;
}

bool bt_rx_device_wait(bt_rx *rx, bt_cu_event event, uint64_t until_ns)
{
    bt_cuda *cuda;
    return bt_transport_cuda(rx->transport, &cuda) != BATON_OK ||
           bt_cuda_wait(cuda, event, until_ns);
}

/* To wait for the GPU would be for ever, and to free what it may still read or write is no choice:
 * the pool, the stream and the transport that they belong to stay until the process ends. */
static void leave_memory(bt_rx *rx)
{
    bt_error("receiver: the GPU has not ended its work in %u ms: the pool is left to it%s",
             rx->options.timeouts.put_ms,
             rx->options.pool_base != NULL ? ", and pool_base may still be written" : "");
    bt_transport_abandon(rx->transport);
}

/* Behind everything, also what a COMMIT had queued before it failed; without an event for that, the
 * batches have theirs. */
static bool stream_ends(bt_rx *rx, rx_device *device, uint64_t until_ns)
{
    bt_cu_event all;
    bool ends = true;
    if (bt_rx_device_mark(rx, device->stream, &all) == BATON_OK) {
        ends = bt_rx_device_wait(rx, all, until_ns);
        bt_rx_device_unmark(rx, all);
    }
    for (const copy_batch *batch = device->first; ends && batch != NULL; batch = batch->next)
        ends = bt_rx_device_wait(rx, batch->done, until_ns);
    return ends;
}

void bt_rx_device_stop(bt_rx *rx, uint64_t until_ns)
{
    rx_device *device = rx->device;
    if (device != NULL && device->stream != NULL && !stream_ends(rx, device, until_ns))
        rx->gpu_hangs = true;
    if (rx->gpu_hangs)
        leave_memory(rx);
}

void bt_rx_device_unmark(bt_rx *rx, bt_cu_event event)
{
    bt_cuda *cuda;
    if (bt_transport_cuda(rx->transport, &cuda) != BATON_OK || bt_cuda_enter(cuda) != BATON_OK)
        return;
    cuda->driver->event_destroy(event);
    bt_cuda_leave(cuda);
}
