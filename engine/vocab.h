/* SPDX-License-Identifier: Apache-2.0 */
/* A tokenizer's tables: token id to bytes and back, and the merges of byte-pair encoding. Both
 * lookups are open-addressed hash tables that never get more than half full.
 *
 * Thread rule: set up before threads start; lookups from any thread. */
#ifndef BT_ENGINE_VOCAB_H
#define BT_ENGINE_VOCAB_H
#include <baton/status.h>
#include <stdbool.h>

#define BT_NO_TOKEN UINT32_MAX
/* More ids than any known model has; what a file claims beyond is refused. */
#define BT_MAX_VOCAB (UINT32_C(1) << 21)

typedef struct {
    uint32_t offset, n_bytes; /* in bt_vocab.bytes */
    bool present;             /* ids may have gaps */
    bool added;               /* found in text before it is split and merged */
    bool special;             /* left out of decoded text */
} bt_piece;

typedef struct {
    uint32_t left, right; /* ids */
    uint32_t rank;        /* the lowest rank merges first */
    uint32_t merged;      /* BT_NO_TOKEN: free slot */
} bt_merge;

typedef struct {
    uint8_t *bytes; /* all pieces, one after another */
    size_t n_bytes, bytes_capacity;
    bt_piece *pieces; /* [n_ids] */
    uint32_t n_ids, ids_capacity;
    uint32_t *slots; /* [n_slots], id + 1; 0: free */
    uint32_t n_slots, n_used;
    bt_merge *merges; /* [n_merge_slots] */
    uint32_t n_merge_slots, n_merges;
} bt_vocab;

/* Gives id the bytes piece[n]. Ids and pieces are both unique.
 * Errors: CORRUPT (id or piece given twice), TOO_LARGE (id), NO_MEMORY. */
baton_status bt_vocab_add(bt_vocab *vocab, uint32_t id, const void *piece, size_t n);
/* The id of piece[n], or BT_NO_TOKEN. */
uint32_t bt_vocab_find(const bt_vocab *vocab, const void *piece, size_t n);
/* The bytes of id, borrowed until the vocabulary changes; NULL with *n 0 for an id that is not
 * there. Not terminated. */
const uint8_t *bt_vocab_piece(const bt_vocab *vocab, uint32_t id, size_t *n);

/* Says that `left` followed by `right` becomes `merged`. A pair given before keeps its rank.
 * Errors: NO_MEMORY. */
baton_status bt_vocab_add_merge(bt_vocab *vocab, uint32_t left, uint32_t right, uint32_t rank,
                                uint32_t merged);
/* The merge of a pair, or NULL. */
const bt_merge *bt_vocab_merge(const bt_vocab *vocab, uint32_t left, uint32_t right);

/* Frees what vocab owns, not vocab itself, which may be zeroed memory. */
void bt_vocab_clear(bt_vocab *vocab);

#endif
