/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/bpe.h"

#include "core/alloc.h"
#include "core/fail.h"
#include "engine/tokenizer_impl.h"

static bool comes_before(const bt_bpe_candidate *a, const bt_bpe_candidate *b)
{
    return a->rank != b->rank ? a->rank < b->rank : a->at < b->at;
}

static void heap_push(bt_bpe *bpe, bt_bpe_candidate candidate)
{
    size_t at = bpe->n_heap++;
    while (at > 0) {
        size_t parent = (at - 1) / 2;
        if (!comes_before(&candidate, &bpe->heap[parent]))
            break;
        bpe->heap[at] = bpe->heap[parent];
        at = parent;
    }
    bpe->heap[at] = candidate;
}

static bt_bpe_candidate heap_pop(bt_bpe *bpe)
{
    bt_bpe_candidate top = bpe->heap[0];
    bt_bpe_candidate last = bpe->heap[--bpe->n_heap];
    size_t at = 0;
    for (;;) {
        size_t child = 2 * at + 1;
        if (child >= bpe->n_heap)
            break;
        if (child + 1 < bpe->n_heap && comes_before(&bpe->heap[child + 1], &bpe->heap[child]))
            child++;
        if (!comes_before(&bpe->heap[child], &last))
            break;
        bpe->heap[at] = bpe->heap[child];
        at = child;
    }
    bpe->heap[at] = last;
    return top;
}

static void queue_pair(bt_bpe *bpe, const bt_vocab *vocab, uint32_t at)
{
    const bt_bpe_symbol *left = &bpe->symbols[at];
    if (left->next == BT_NO_TOKEN)
        return;
    uint32_t right = bpe->symbols[left->next].id;
    const bt_merge *merge = bt_vocab_merge(vocab, left->id, right);
    if (merge != NULL)
        heap_push(bpe, (bt_bpe_candidate){merge->rank, at, left->id, right});
}

/* Every merge queues at most two pairs, and n bytes merge at most n - 1 times. */
static baton_status reserve(bt_bpe *bpe, size_t n)
{
    if (n > bpe->symbols_capacity) {
        bt_bpe_symbol *symbols = bt_realloc(bpe->symbols, n, sizeof(*symbols));
        if (symbols == NULL)
            return bt_fail(BATON_ERR_NO_MEMORY, "bpe: %zu symbols", n);
        bpe->symbols = symbols;
        bpe->symbols_capacity = n;
    }
    if (3 * n > bpe->heap_capacity) {
        bt_bpe_candidate *heap = bt_realloc(bpe->heap, 3 * n, sizeof(*heap));
        if (heap == NULL)
            return bt_fail(BATON_ERR_NO_MEMORY, "bpe: heap of %zu pairs", 3 * n);
        bpe->heap = heap;
        bpe->heap_capacity = 3 * n;
    }
    return BATON_OK;
}

static void merge_pair(bt_bpe *bpe, const bt_vocab *vocab, const bt_bpe_candidate *pair)
{
    bt_bpe_symbol *left = &bpe->symbols[pair->at];
    if (left->id != pair->left || left->next == BT_NO_TOKEN ||
        bpe->symbols[left->next].id != pair->right)
        return;
    bt_bpe_symbol *right = &bpe->symbols[left->next];
    left->id = bt_vocab_merge(vocab, pair->left, pair->right)->merged;
    left->next = right->next;
    right->id = BT_NO_TOKEN;
    if (left->next != BT_NO_TOKEN)
        bpe->symbols[left->next].prev = pair->at;
    if (left->prev != BT_NO_TOKEN)
        queue_pair(bpe, vocab, left->prev);
    queue_pair(bpe, vocab, pair->at);
}

baton_status bt_bpe_encode(bt_bpe *bpe, const bt_tokenizer *tokenizer, const uint8_t *text,
                           size_t n, bt_token_list *list)
{
    if (n == 0)
        return BATON_OK;
    BATON_TRY(reserve(bpe, n));
    for (size_t i = 0; i < n; i++)
        bpe->symbols[i] = (bt_bpe_symbol){
            .id = tokenizer->byte_ids[text[i]],
            .prev = i != 0 ? (uint32_t)i - 1 : BT_NO_TOKEN,
            .next = i + 1 < n ? (uint32_t)i + 1 : BT_NO_TOKEN,
        };
    bpe->n_heap = 0;
    for (size_t i = 0; i < n; i++)
        queue_pair(bpe, &tokenizer->vocab, (uint32_t)i);
    while (bpe->n_heap != 0) {
        bt_bpe_candidate pair = heap_pop(bpe);
        merge_pair(bpe, &tokenizer->vocab, &pair);
    }
    for (uint32_t at = 0; at != BT_NO_TOKEN; at = bpe->symbols[at].next)
        BATON_TRY(bt_token_list_push(list, bpe->symbols[at].id));
    return BATON_OK;
}

void bt_bpe_clear(bt_bpe *bpe)
{
    bt_free(bpe->symbols);
    bt_free(bpe->heap);
    *bpe = (bt_bpe){0};
}
