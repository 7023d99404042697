/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/perf_work.h"

#include "core/fail.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* A small model's KV cache: 4 KiB a token. */
static const bt_perf_shape small_shape = {
    .n_layers = 4, .n_heads = 4, .head_dim = 64, .block_tokens = 16};

enum {
    FIELD_MAX = 65536, /* of heads and head_dim, docs/protocol.md */
    TOKENS_MAX = 1 << 20,
};

uint64_t bt_perf_mix(uint64_t x)
{
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return x ^ (x >> 31);
}

static uint64_t largest_divisor(uint64_t n, uint64_t max)
{
    uint64_t divisor = n < max ? n : max;
    while (n % divisor != 0)
        divisor--;
    return divisor;
}

static baton_status paged_layout(const bt_perf_work *work, baton_layout *layout)
{
    const bt_perf_shape *shape = work->shape.n_layers != 0 ? &work->shape : &small_shape;
    uint64_t token_bytes = UINT64_C(2) * 2 * shape->n_layers * shape->n_heads * shape->head_dim;
    uint64_t tokens = work->page_bytes / token_bytes;
    if (tokens == 0 || work->page_bytes % token_bytes != 0 || tokens > TOKENS_MAX)
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "--page-bytes: wanted a multiple of %" PRIu64 " (a token's bytes) with "
                       "--paged, found %" PRIu64,
                       token_bytes, work->page_bytes);
    layout->dtype = BATON_DTYPE_BF16;
    layout->n_layers = shape->n_layers;
    layout->n_planes = 2;
    layout->n_kv_heads = shape->n_heads;
    layout->head_dim = shape->head_dim;
    layout->chunk_tokens = (uint32_t)tokens;
    layout->block_tokens = shape->block_tokens;
    return BATON_OK;
}

/* As few tokens as can be: hashing them is no part of moving. */
static baton_status flat_layout(const bt_perf_work *work, baton_layout *layout)
{
    uint64_t dim = largest_divisor(work->page_bytes, FIELD_MAX);
    uint64_t heads = largest_divisor(work->page_bytes / dim, FIELD_MAX);
    uint64_t tokens = work->page_bytes / dim / heads;
    if (tokens > TOKENS_MAX)
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "--page-bytes: wanted a product of numbers up to %d, %d and %d, found "
                       "%" PRIu64,
                       FIELD_MAX, FIELD_MAX, TOKENS_MAX, work->page_bytes);
    layout->dtype = BATON_DTYPE_U8;
    layout->n_layers = layout->n_planes = layout->block_tokens = 1;
    layout->n_kv_heads = (uint32_t)heads;
    layout->head_dim = (uint32_t)dim;
    layout->chunk_tokens = (uint32_t)tokens;
    return BATON_OK;
}

baton_status bt_perf_work_init(bt_perf_work *work)
{
    baton_layout layout = {.model = "baton-perf", .tp_size = 1, .pp_size = 1};
    BATON_TRY(work->paged ? paged_layout(work, &layout) : flat_layout(work, &layout));
    if ((uint64_t)layout.chunk_tokens * work->n_pages > UINT32_MAX / 2)
        return bt_fail(
            BATON_ERR_INVALID_ARG, "--pages: wanted at most %" PRIu64 " of %u tokens, found %u",
            UINT64_C(0x7fffffff) / layout.chunk_tokens, layout.chunk_tokens, work->n_pages);
    work->layout = layout;
    return BATON_OK;
}

uint32_t bt_perf_work_tokens(const bt_perf_work *work)
{
    return work->n_pages * work->layout.chunk_tokens;
}

void bt_perf_fill_tokens(const bt_perf_work *work, uint32_t iteration, uint32_t *tokens)
{
    uint32_t n = bt_perf_work_tokens(work);
    for (uint32_t i = 0; i < n; i++)
        tokens[i] = iteration + i; /* the first one tells iterations apart */
}

static uint64_t first_word(const bt_perf_work *work, uint32_t iteration, uint32_t page)
{
    return bt_perf_mix(bt_perf_mix(work->seed) ^ ((uint64_t)iteration << 32 | page));
}

/* Word i of a page is first_word + i * STEP: cheap, and a word that comes from another place,
 * another page or another iteration is wrong. */
#define STEP UINT64_C(0x9e3779b97f4a7c15)

void bt_perf_fill_page(const bt_perf_work *work, uint32_t iteration, uint32_t page, void *bytes)
{
    uint8_t *to = bytes;
    uint64_t word = first_word(work, iteration, page), i = 0;
    for (; i + sizeof(word) <= work->page_bytes; i += sizeof(word), word += STEP)
        memcpy(to + i, &word, sizeof(word));
    memcpy(to + i, &word, work->page_bytes - i);
}

/* The last, or only, few bytes. */
static uint64_t check_tail(const uint8_t *bytes, uint64_t at, uint64_t end, uint64_t word)
{
    uint8_t wanted[sizeof(word)];
    memcpy(wanted, &word, sizeof(word));
    for (uint64_t i = 0; at + i < end && i < sizeof(word); i++) {
        if (bytes[at + i] != wanted[i])
            return at + i;
    }
    return end;
}

uint64_t bt_perf_check_page(const bt_perf_work *work, uint32_t iteration, uint32_t page,
                            const void *bytes)
{
    const uint8_t *from = bytes;
    uint64_t word = first_word(work, iteration, page), i = 0, found;
    for (; i + sizeof(word) <= work->page_bytes; i += sizeof(word), word += STEP) {
        memcpy(&found, from + i, sizeof(found));
        if (found != word)
            break;
    }
    return check_tail(from, i, work->page_bytes, word);
}

void bt_perf_request_name(uint32_t iteration, char name[BT_PERF_REQUEST_BYTES])
{
    snprintf(name, BT_PERF_REQUEST_BYTES, "perf-%" PRIu32, iteration);
}
