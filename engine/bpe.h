/* SPDX-License-Identifier: Apache-2.0 */
/* Byte-pair merges of one piece of text: the pair of the lowest rank merges first, the leftmost of
 * equal ones, until no pair is left. A heap keeps a piece of n bytes at O(n log n), so that a long
 * word from a client costs no quadratic time.
 *
 * Thread rule: owner thread. */
#ifndef BT_ENGINE_BPE_H
#define BT_ENGINE_BPE_H
#include "engine/tokenizer.h"

typedef struct {
    uint32_t id;         /* BT_NO_TOKEN once merged into its left neighbour */
    uint32_t prev, next; /* BT_NO_TOKEN: none */
} bt_bpe_symbol;

typedef struct {
    uint32_t rank;
    uint32_t at;          /* symbol on the left */
    uint32_t left, right; /* ids when queued: another pair there now means a stale entry */
} bt_bpe_candidate;

/* Working memory, kept from piece to piece; zeroed memory is a fresh one. */
typedef struct {
    bt_bpe_symbol *symbols;
    bt_bpe_candidate *heap; /* the smallest (rank, at) on top */
    size_t n_symbols, symbols_capacity, n_heap, heap_capacity;
} bt_bpe;

/* Appends the ids of text[n] to list. Errors: NO_MEMORY. */
baton_status bt_bpe_encode(bt_bpe *bpe, const bt_tokenizer *tokenizer, const uint8_t *text,
                           size_t n, bt_token_list *list);
void bt_bpe_clear(bt_bpe *bpe);

#endif
