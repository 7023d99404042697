/* SPDX-License-Identifier: Apache-2.0 */
/* Pages from outside, for people who want to know what holds them. */
#include "store/storeparts.h"

uint32_t bt_store_region_pages(const bt_store *store, uint32_t region)
{
    bool is_there = region < BT_STORE_REGIONS_MAX && store->regions[region].used;
    return is_there ? store->regions[region].n_pages : 0;
}

bool bt_store_look(const bt_store *store, bt_page_ref page, bt_page_look *look)
{
    if (page.page >= bt_store_region_pages(store, page.region))
        return false;
    const bt_store_region *region = &store->regions[page.region];
    *look = (bt_page_look){.page = page,
                           .state = (bt_page_state)region->states[page.page],
                           .is_leaving = region->closed};
    if (look->state == BT_PAGE_LANDED) {
        const bt_chunk *chunk = &region->chunks[page.page];
        look->n_tokens = chunk->n_tokens;
        look->n_holds = chunk->n_holds;
        look->n_pins = chunk->n_pins;
    }
    return true;
}
