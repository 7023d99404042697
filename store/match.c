/* SPDX-License-Identifier: Apache-2.0 */
/* Lookup by tokens: the longest landed prefix. */
#include "store/storeparts.h"

#include <assert.h>
#include <string.h>

/* Which lengths up to `most` the chunks shorter than a full one have that follow `parent`. Many
 * prompts may differ only in their tails: their list is walked once, not once for each length. */
static void collect_tail_lengths(bt_store *store, const baton_key *parent, uint32_t most)
{
    memset(store->tail_lengths, 0, (most / 64 + 1) * sizeof(*store->tail_lengths));
    for (const bt_chunk *c = *bt_index_tails(store, parent); c != NULL; c = c->tail_next) {
        if (c->n_tokens <= most && bt_key_equal(&c->parent, parent))
            store->tail_lengths[c->n_tokens / 64] |= UINT64_C(1) << (c->n_tokens % 64);
    }
}

/* The longest landed chunk shorter than a full one that follows `chain` and whose tokens are a
 * prefix of tokens[n]; NULL if there is none. The index says which lengths there are, so that only
 * those are hashed, longest first. */
static bt_chunk *match_tail(bt_store *store, const baton_key_chain *chain, const uint32_t *tokens,
                            uint32_t n)
{
    uint32_t most = n < store->chunk_tokens ? n : store->chunk_tokens - 1;
    collect_tail_lengths(store, &chain->last, most);
    for (uint32_t length = most; length > 0; length--) {
        if ((store->tail_lengths[length / 64] >> (length % 64) & 1) == 0)
            continue;
        baton_key_chain fork = *chain;
        baton_key key;
        if (baton_key_chain_next(&fork, tokens, length, &key) != BATON_OK)
            return NULL;
        bt_chunk *chunk = bt_index_find(store, &key);
        if (chunk != NULL && chunk->n_tokens == length)
            return chunk;
    }
    return NULL;
}

uint32_t bt_store_match(bt_store *store, const baton_key_chain *root, const uint32_t *tokens,
                        uint32_t n, bt_chunk **chunks, uint32_t max, uint32_t *n_tokens)
{
    assert(root->chunk_tokens == store->chunk_tokens);
    baton_key_chain chain = *root;
    uint32_t n_chunks = 0, done = 0;
    while (n_chunks < max && n - done >= store->chunk_tokens) {
        baton_key_chain next = chain;
        baton_key key;
        if (baton_key_chain_next(&next, tokens + done, store->chunk_tokens, &key) != BATON_OK)
            break;
        bt_chunk *chunk = bt_index_find(store, &key);
        if (chunk == NULL || chunk->n_tokens != store->chunk_tokens)
            break;
        chunks[n_chunks++] = chunk;
        done += store->chunk_tokens;
        chain = next;
    }
    if (n_chunks < max && done < n) {
        bt_chunk *tail = match_tail(store, &chain, tokens + done, n - done);
        if (tail != NULL) {
            chunks[n_chunks++] = tail;
            done += tail->n_tokens;
        }
    }
    /* Last first: of one prompt the end is older than the beginning, and goes first. */
    for (uint32_t i = n_chunks; i-- > 0;)
        bt_chunk_touch(store, chunks[i]);
    *n_tokens = done;
    return n_chunks;
}
