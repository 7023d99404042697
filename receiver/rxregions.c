/* SPDX-License-Identifier: Apache-2.0 */
/* The pool's regions: registered memory cut into pages of one chunk. */
#include "receiver/rxdevice.h"

#include "core/log.h"

#include <inttypes.h>
#include <poll.h>
#include <string.h>
#include <unistd.h>

static baton_status add_region(bt_rx *rx, uint32_t slot, uint32_t n_pages)
{
    bt_rx_region *region = &rx->regions[slot];
    size_t bytes = (size_t)(n_pages * rx->page_bytes);
    if (rx->options.memory == BATON_MEMORY_CUDA_DEVICE)
        BATON_TRY(bt_rx_device_region(rx, region, bytes));
    else if (rx->options.pool_base != NULL)
        BATON_TRY(bt_memory_register(rx->transport, rx->options.pool_base, bytes,
                                     rx->options.memory, &region->memory));
    else
        BATON_TRY(bt_memory_alloc(rx->transport, bytes, rx->options.memory, &region->memory));
    if (region->pages == NULL)
        region->pages = region->memory->base;
    baton_status status = bt_store_region_add(rx->store, slot, n_pages);
    if (status != BATON_OK) {
        bt_rx_device_region_free(rx, region);
        return status;
    }
    region->used = true;
    region->n_pages = n_pages;
    region->generation = ++rx->next_generation;
    return BATON_OK;
}

baton_status bt_rx_regions_create(bt_rx *rx)
{
    uint64_t n_pages = rx->options.pool_bytes / rx->page_bytes;
    if (n_pages == 0 || n_pages > UINT32_MAX / 8)
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "receiver: pool_bytes: wanted room for at least one chunk of %" PRIu64
                       " bytes and at most 2^29 of them, found %" PRIu64 " bytes",
                       rx->page_bytes, rx->options.pool_bytes);
    uint32_t n_regions =
        n_pages < rx->options.n_regions ? (uint32_t)n_pages : rx->options.n_regions;
    BATON_TRY(bt_store_create(rx->options.layout.chunk_tokens, (uint32_t)n_pages, &rx->store));
    for (uint32_t i = 0; i < n_regions; i++) {
        uint32_t share = (uint32_t)(n_pages / n_regions) + (i < n_pages % n_regions);
        BATON_TRY(add_region(rx, i, share));
    }
    BATON_TRY(bt_memory_alloc(rx->transport, BT_RX_SCRATCH_BYTES, BATON_MEMORY_HOST, &rx->scratch));
    uint64_t max_tickets = rx->options.max_queued + 4 * n_pages + 1024;
    rx->max_tickets = max_tickets < UINT32_MAX ? (uint32_t)max_tickets : UINT32_MAX;
    return BATON_OK;
}

void bt_rx_regions_destroy(bt_rx *rx)
{
    for (uint32_t i = 0; i < BT_STORE_REGIONS_MAX; i++) {
        if (rx->regions[i].used)
            bt_rx_device_region_free(rx, &rx->regions[i]);
        rx->regions[i] = (bt_rx_region){0};
    }
    for (uint32_t i = 0; i < rx->n_debtors; i++)
        close(rx->debtors[i].pidfd);
    rx->n_debtors = 0;
    bt_memory_free(rx->scratch);
    rx->scratch = NULL;
}

void bt_rx_regions_fill(bt_rx *rx, bt_msg_memreg_answer *answer)
{
    for (uint32_t i = 0; i < BT_STORE_REGIONS_MAX; i++) {
        const bt_rx_region *region = &rx->regions[i];
        if (!region->used || region->is_emptied)
            continue;
        answer->regions[answer->n_regions++] = (bt_msg_region){
            .region = i,
            .generation = region->generation,
            .kind = rx->options.pool_base != NULL ? BT_REGION_ENGINE : BT_REGION_POOL,
            .memory = (uint32_t)region->memory->kind,
            .base = (uint64_t)(uintptr_t)region->memory->base,
            .page_bytes = rx->page_bytes,
            .n_pages = region->n_pages,
            .rkey = bt_blob_of(region->memory->rkey, region->memory->rkey_bytes),
        };
    }
    answer->scratch =
        (bt_msg_scratch){.base = (uint64_t)(uintptr_t)rx->scratch->base,
                         .bytes = rx->scratch->bytes,
                         .rkey = bt_blob_of(rx->scratch->rkey, rx->scratch->rkey_bytes)};
}

void *bt_rx_page_address(bt_rx *rx, bt_page_ref page)
{
    return (uint8_t *)rx->regions[page.region].pages + (size_t)page.page * rx->page_bytes;
}

static bool free_slot(const bt_rx *rx, uint32_t *slot)
{
    for (uint32_t i = 0; i < BT_STORE_REGIONS_MAX; i++) {
        if (!rx->regions[i].used) {
            *slot = i;
            return true;
        }
    }
    return false;
}

/* The fresh region comes first, so that capacity never dips; the old one empties and stays mapped
 * while a writer that was never proven done may still write it. */
static void replace_region(bt_rx *rx, uint32_t old)
{
    uint32_t slot;
    if (rx->options.pool_base != NULL)
        return;
    baton_status status =
        free_slot(rx, &slot)
            ? add_region(rx, slot, rx->regions[old].n_pages)
            : bt_fail(BATON_ERR_TOO_LARGE, "all %d regions are in use, or may still be written",
                      BT_STORE_REGIONS_MAX);
    if (status != BATON_OK) {
        if (!rx->regions[old].is_stuck)
            bt_warn("receiver: region not replaced: %s region=%u", baton_last_error(), old);
        rx->regions[old].is_stuck = true;
        return;
    }
    bt_store_region_close(rx->store, old);
    bt_warn("receiver: region with retired pages replaced region=%u by=%u", old, slot);
}

void bt_rx_regions_owe(bt_rx *rx, uint64_t regions, int *pidfd)
{
    if (regions == 0)
        return;
    if (*pidfd < 0 || rx->n_debtors == BT_STORE_REGIONS_MAX) {
        rx->owed_for_ever |= regions;
        return;
    }
    rx->debtors[rx->n_debtors++] = (bt_rx_debtor){*pidfd, regions};
    *pidfd = -1;
}

/* The proof comes late: who has exited writes no more. */
static void look_at_debtors(bt_rx *rx)
{
    uint64_t now_ns = bt_now_ns(rx->clock);
    uint64_t again_ns = rx->options.timeouts.heartbeat_ms * BT_NS_PER_MS;
    if (rx->n_debtors == 0 || bt_elapsed_ns(now_ns, rx->debtors_looked_ns) < again_ns)
        return;
    rx->debtors_looked_ns = now_ns;
    for (uint32_t i = rx->n_debtors; i-- > 0;) {
        struct pollfd exited = {.fd = rx->debtors[i].pidfd, .events = POLLIN};
        if (poll(&exited, 1, 0) != 1)
            continue;
        close(rx->debtors[i].pidfd);
        rx->debtors[i] = rx->debtors[--rx->n_debtors];
    }
}

static bool is_owed(const bt_rx *rx, uint32_t region)
{
    uint64_t owed = rx->owed_for_ever;
    for (uint32_t i = 0; i < rx->n_debtors; i++)
        owed |= rx->debtors[i].regions;
    return (owed >> region & 1) != 0;
}

/* What a GPU has to do with a region is not followed here: such a pool keeps its memory. */
static void free_emptied(bt_rx *rx)
{
    for (uint32_t i = 0; i < BT_STORE_REGIONS_MAX; i++) {
        bt_rx_region *region = &rx->regions[i];
        if (!region->used || !region->is_emptied || rx->device != NULL || is_owed(rx, i))
            continue;
        bt_rx_device_region_free(rx, region);
        *region = (bt_rx_region){0};
        bt_info("receiver: memory of a replaced region is free, its writers have exited region=%u",
                i);
    }
}

void bt_rx_regions_tick(bt_rx *rx)
{
    look_at_debtors(rx);
    free_emptied(rx);
    for (uint32_t i = 0; i < BT_STORE_REGIONS_MAX; i++) {
        bt_rx_region *region = &rx->regions[i];
        if (!region->used || region->is_emptied)
            continue;
        if (!bt_store_region_is_closed(rx->store, i)) {
            if (bt_store_region_retired(rx->store, i) > 0)
                replace_region(rx, i);
        } else if (bt_store_region_is_idle(rx->store, i)) {
            region->is_emptied = bt_store_region_remove(rx->store, i) == BATON_OK;
        }
    }
}
