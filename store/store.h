/* SPDX-License-Identifier: Apache-2.0 */
/* Which page holds what: page states, the index of landed chunks, grants that reserve and hold,
 * pins that protect while decode reads. It deals in page numbers and never touches their bytes.
 *
 *   FREE --grant--> RESERVED --commit--> LANDED --evicted (no hold, no pin)--> FREE
 *                      |   \--abort, drained------------------------------> FREE
 *                      \--abort--> QUARANTINED --proof--> FREE
 *                                       \-------retire--> RETIRED, until its region is removed
 *
 *   The moves of a page are a table: core/states.def.
 *
 *   free + reserved + landed + quarantined + retired = all pages, after every call.
 *
 * A grant is one request's claim: each of its chunks is RESERVED (a page that the sender writes) or
 * HELD (a landed chunk that must not be evicted before decode has come). Grants are all or nothing.
 *
 * Thread rule: owner thread, or the owner's lock. */
#ifndef BT_STORE_STORE_H
#define BT_STORE_STORE_H
#include <baton/keys.h>
#include <baton/status.h>

#include "core/states.h"

#include <stdbool.h>

enum { BT_STORE_REGIONS_MAX = 64 };

typedef struct bt_store bt_store;
typedef struct bt_grant bt_grant;
typedef struct bt_chunk bt_chunk; /* a landed chunk; valid while held or pinned */

typedef struct {
    uint32_t region; /* slot, below BT_STORE_REGIONS_MAX */
    uint32_t page;
} bt_page_ref;

typedef struct {
    uint64_t pages[BT_N_PAGE_STATES];
    uint64_t pages_total;
    uint64_t evicted_total, duplicate_total, landed_total, present_total;
    uint64_t moves_refused_total; /* that no page may make: a bug of ours */
} bt_store_stats;

/* max_pages: about how many pages there will be, for the size of the hash tables. */
baton_status bt_store_create(uint32_t chunk_tokens, uint32_t max_pages, bt_store **store_p);
void bt_store_destroy(bt_store *store); /* All grants and pins must be gone. NULL is allowed. */

/* Adds n_pages free pages as region slot `region`. Errors: INVALID_ARG (slot taken), NO_MEMORY. */
baton_status bt_store_region_add(bt_store *store, uint32_t region, uint32_t n_pages);
/* Grants take no more pages of it; its landed chunks go as soon as nobody holds or pins them. */
void bt_store_region_close(bt_store *store, uint32_t region);
bool bt_store_region_is_closed(const bt_store *store, uint32_t region);
/* Nothing but free and retired pages is left in it. */
bool bt_store_region_is_idle(const bt_store *store, uint32_t region);
/* Errors: STATE (not closed, or not idle). */
baton_status bt_store_region_remove(bt_store *store, uint32_t region);
uint32_t bt_store_region_retired(const bt_store *store, uint32_t region);

/* Secures a request whole: chunks that have landed are held, pages reserved for the others, unused
 * landed chunks evicted for them, least recently used first. keys[n_keys] are chained: keys[i-1],
 * for i = 0 `root`, is the parent. Errors: NO_PAGES (not now), TOO_LARGE (more chunks than pages in
 * all), INVALID_ARG (a key has landed with another token count), NO_MEMORY. */
baton_status bt_store_grant(bt_store *store, const baton_key *root, const baton_key *keys,
                            uint32_t n_keys, uint32_t last_tokens, bt_grant **grant_p);
uint32_t bt_grant_chunks(const bt_grant *grant);
uint32_t bt_grant_held(const bt_grant *grant); /* how many of them are held: present or committed */
uint32_t bt_grant_tokens_of(const bt_store *store, const bt_grant *grant, uint32_t chunk);
/* The page reserved for a chunk; false when it is held (or was, before an abort). */
bool bt_grant_page(const bt_grant *grant, uint32_t chunk, bt_page_ref *page);
/* The chunk has landed: publishes it and turns the reservation into a hold. When another request
 * published the same key first, that one is held and this page is free again: *duplicate. Once
 * held, it is OK to commit again. Errors: OUT_OF_RANGE, STATE (aborted). */
baton_status bt_store_commit(bt_store *store, bt_grant *grant, uint32_t chunk, bool *duplicate);
/* Ends the grant: holds go; reserved pages are free when drained, else in quarantine, and the grant
 * lives on until bt_grant_prove or bt_grant_retire. Returns true when it is gone now. */
bool bt_grant_end(bt_store *store, bt_grant *grant, bool drained);
/* The writer is proven done: quarantined pages are free. The grant is gone. */
void bt_grant_prove(bt_store *store, bt_grant *grant);
/* There is no proof and will be none: quarantined pages are retired. The grant is gone. */
void bt_grant_retire(bt_store *store, bt_grant *grant);

/* The longest landed prefix of the tokens: up to max chunks into chunks[]; a last one may be short.
 * Returns how many; *n_tokens what they cover. Marks them recently used. Valid until the next call
 * that may evict, unless pinned. */
uint32_t bt_store_match(bt_store *store, const baton_key_chain *root, const uint32_t *tokens,
                        uint32_t n, bt_chunk **chunks, uint32_t max, uint32_t *n_tokens);
void bt_chunk_pin(bt_store *store, bt_chunk *chunk);
void bt_chunk_unpin(bt_store *store, bt_chunk *chunk);
const baton_key *bt_chunk_key(const bt_chunk *chunk);
uint32_t bt_chunk_tokens(const bt_chunk *chunk);
bt_page_ref bt_chunk_page(const bt_chunk *chunk);

/* A page from outside, for people. */
typedef struct {
    bt_page_ref page;
    bt_page_state state;
    uint32_t n_tokens, n_holds, n_pins; /* LANDED */
    bool is_leaving;                    /* its region is closed */
} bt_page_look;
/* False: there is no such page. */
bool bt_store_look(const bt_store *store, bt_page_ref page, bt_page_look *look);
uint32_t bt_store_region_pages(const bt_store *store, uint32_t region); /* 0: there is none */
/* The page of a grant's chunk, whatever it is to it: reserved, held, in quarantine. False: none. */
bool bt_grant_claims(const bt_grant *grant, uint32_t chunk, bt_page_ref *page);

void bt_store_get_stats(const bt_store *store, bt_store_stats *stats);
/* Recounts everything from the pages up and compares; a test hook, also asserted in dev builds.
 * Errors: CORRUPT, naming what disagrees. */
baton_status bt_store_verify(const bt_store *store);

#endif
