/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/vocab.h"

#include <string.h>

#include <xxhash.h>

#include "core/alloc.h"
#include "core/fail.h"

enum { FIRST_SLOTS = 1024 };

static bool piece_equals(const bt_vocab *vocab, uint32_t id, const void *piece, size_t n)
{
    const bt_piece *p = &vocab->pieces[id];
    return p->n_bytes == n && (n == 0 || memcmp(vocab->bytes + p->offset, piece, n) == 0);
}

/* The slot that holds piece, or the free one where it belongs. */
static uint32_t *piece_slot(const bt_vocab *vocab, const void *piece, size_t n)
{
    uint32_t mask = vocab->n_slots - 1;
    uint32_t at = (uint32_t)XXH3_64bits(piece, n) & mask;
    while (vocab->slots[at] != 0 && !piece_equals(vocab, vocab->slots[at] - 1, piece, n))
        at = (at + 1) & mask;
    return &vocab->slots[at];
}

static baton_status grow_slots(bt_vocab *vocab)
{
    if (vocab->n_used * 2 < vocab->n_slots)
        return BATON_OK;
    uint32_t n_slots = vocab->n_slots != 0 ? vocab->n_slots * 2 : FIRST_SLOTS;
    uint32_t *slots = bt_calloc(n_slots, sizeof(*slots));
    if (slots == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "vocabulary: hash table of %u slots", n_slots);
    bt_free(vocab->slots);
    vocab->slots = slots;
    vocab->n_slots = n_slots;
    for (uint32_t id = 0; id < vocab->n_ids; id++) {
        size_t n;
        const uint8_t *piece = bt_vocab_piece(vocab, id, &n);
        if (piece != NULL)
            *piece_slot(vocab, piece, n) = id + 1;
    }
    return BATON_OK;
}

static baton_status grow_ids(bt_vocab *vocab, uint32_t id)
{
    if (id < vocab->ids_capacity)
        return BATON_OK;
    uint32_t capacity = vocab->ids_capacity != 0 ? vocab->ids_capacity : FIRST_SLOTS;
    while (capacity <= id)
        capacity *= 2;
    bt_piece *pieces = bt_realloc(vocab->pieces, capacity, sizeof(*pieces));
    if (pieces == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "vocabulary: table of %u ids", capacity);
    memset(pieces + vocab->ids_capacity, 0, (capacity - vocab->ids_capacity) * sizeof(*pieces));
    vocab->pieces = pieces;
    vocab->ids_capacity = capacity;
    return BATON_OK;
}

static baton_status append_bytes(bt_vocab *vocab, const void *piece, size_t n)
{
    if (n > UINT32_MAX - vocab->n_bytes)
        return bt_fail(BATON_ERR_TOO_LARGE, "vocabulary: pieces take more than 4 GiB");
    if (vocab->n_bytes + n > vocab->bytes_capacity) {
        size_t capacity = (vocab->n_bytes + n) * 2;
        uint8_t *bytes = bt_realloc(vocab->bytes, capacity, 1);
        if (bytes == NULL)
            return bt_fail(BATON_ERR_NO_MEMORY, "vocabulary: %zu bytes of pieces", capacity);
        vocab->bytes = bytes;
        vocab->bytes_capacity = capacity;
    }
    memcpy(vocab->bytes + vocab->n_bytes, piece, n);
    vocab->n_bytes += n;
    return BATON_OK;
}

baton_status bt_vocab_add(bt_vocab *vocab, uint32_t id, const void *piece, size_t n)
{
    if (id >= BT_MAX_VOCAB)
        return bt_fail(BATON_ERR_TOO_LARGE, "vocabulary: wanted ids below %u, found %u",
                       BT_MAX_VOCAB, id);
    if (n == 0)
        return bt_fail(BATON_ERR_CORRUPT, "vocabulary: id %u has an empty piece", id);
    BATON_TRY(grow_ids(vocab, id));
    if (vocab->pieces[id].present)
        return bt_fail(BATON_ERR_CORRUPT, "vocabulary: id %u is given twice", id);
    BATON_TRY(grow_slots(vocab));
    uint32_t *slot = piece_slot(vocab, piece, n);
    if (*slot != 0)
        return bt_fail(BATON_ERR_CORRUPT, "vocabulary: ids %u and %u have the same piece",
                       *slot - 1, id);
    size_t offset = vocab->n_bytes;
    BATON_TRY(append_bytes(vocab, piece, n));
    vocab->pieces[id] =
        (bt_piece){.offset = (uint32_t)offset, .n_bytes = (uint32_t)n, .present = true};
    if (id >= vocab->n_ids)
        vocab->n_ids = id + 1;
    *slot = id + 1;
    vocab->n_used++;
    return BATON_OK;
}

uint32_t bt_vocab_find(const bt_vocab *vocab, const void *piece, size_t n)
{
    if (vocab->n_slots == 0)
        return BT_NO_TOKEN;
    uint32_t found = *piece_slot(vocab, piece, n);
    return found != 0 ? found - 1 : BT_NO_TOKEN;
}

const uint8_t *bt_vocab_piece(const bt_vocab *vocab, uint32_t id, size_t *n)
{
    *n = 0;
    if (id >= vocab->n_ids || !vocab->pieces[id].present)
        return NULL;
    *n = vocab->pieces[id].n_bytes;
    return vocab->bytes + vocab->pieces[id].offset;
}

static bt_merge *merge_slot(const bt_vocab *vocab, uint32_t left, uint32_t right)
{
    uint32_t pair[2] = {left, right};
    uint32_t mask = vocab->n_merge_slots - 1;
    uint32_t at = (uint32_t)XXH3_64bits(pair, sizeof(pair)) & mask;
    for (;; at = (at + 1) & mask) {
        bt_merge *merge = &vocab->merges[at];
        if (merge->merged == BT_NO_TOKEN || (merge->left == left && merge->right == right))
            return merge;
    }
}

static baton_status grow_merges(bt_vocab *vocab)
{
    if (vocab->n_merges * 2 < vocab->n_merge_slots)
        return BATON_OK;
    bt_vocab grown = {.n_merge_slots =
                          vocab->n_merge_slots != 0 ? vocab->n_merge_slots * 2 : FIRST_SLOTS};
    grown.merges = bt_calloc(grown.n_merge_slots, sizeof(*grown.merges));
    if (grown.merges == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "vocabulary: %u merge slots", grown.n_merge_slots);
    for (uint32_t i = 0; i < grown.n_merge_slots; i++)
        grown.merges[i].merged = BT_NO_TOKEN;
    for (uint32_t i = 0; i < vocab->n_merge_slots; i++) {
        const bt_merge *merge = &vocab->merges[i];
        if (merge->merged != BT_NO_TOKEN)
            *merge_slot(&grown, merge->left, merge->right) = *merge;
    }
    bt_free(vocab->merges);
    vocab->merges = grown.merges;
    vocab->n_merge_slots = grown.n_merge_slots;
    return BATON_OK;
}

baton_status bt_vocab_add_merge(bt_vocab *vocab, uint32_t left, uint32_t right, uint32_t rank,
                                uint32_t merged)
{
    BATON_TRY(grow_merges(vocab));
    bt_merge *slot = merge_slot(vocab, left, right);
    if (slot->merged == BT_NO_TOKEN) {
        *slot = (bt_merge){.left = left, .right = right, .rank = rank, .merged = merged};
        vocab->n_merges++;
    }
    return BATON_OK;
}

const bt_merge *bt_vocab_merge(const bt_vocab *vocab, uint32_t left, uint32_t right)
{
    if (vocab->n_merge_slots == 0)
        return NULL;
    const bt_merge *merge = merge_slot(vocab, left, right);
    return merge->merged != BT_NO_TOKEN ? merge : NULL;
}

void bt_vocab_clear(bt_vocab *vocab)
{
    bt_free(vocab->bytes);
    bt_free(vocab->pieces);
    bt_free(vocab->slots);
    bt_free(vocab->merges);
    *vocab = (bt_vocab){0};
}
