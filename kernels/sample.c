/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/sample.h"

#include "core/alloc.h"
#include "core/fail.h"
#include "kernels/digest.h"
#include "kernels/kv_index.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>
#define XXH_STATIC_LINKING_ONLY /* the state on the stack */
#include <xxhash.h>

enum { LINE = BT_SAMPLE_LINE_BYTES };

/* Digest of what comes in small pieces: digest.h's, for a sample that is nowhere whole. */
typedef struct {
    XXH3_state_t tiles; /* of the digests of finished tiles */
    uint32_t fill;
    uint8_t tile[BT_DIGEST_TILE_BYTES + LINE];
} hasher;

uint64_t bt_sample_seed(const uint8_t nonce[16], uint64_t ticket, uint32_t generation)
{
    uint8_t bytes[28];
    memcpy(bytes, nonce, 16);
    for (int i = 0; i < 8; i++)
        bytes[16 + i] = (uint8_t)(ticket >> (8 * i));
    for (int i = 0; i < 4; i++)
        bytes[24 + i] = (uint8_t)(generation >> (8 * i));
    return XXH3_64bits(bytes, sizeof(bytes));
}

/* splitmix64's step: where the stratum's first line lies, docs/protocol.md. */
static uint32_t place_of(uint64_t seed, uint64_t stratum)
{
    uint64_t x = seed + (stratum + 1) * UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ (x >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ (x >> 27)) * UINT64_C(0x94d049bb133111eb);
    return (uint32_t)((x ^ (x >> 31)) >> 32);
}

/* The seeded line of one stratum, in every piece. */
static void choose(bt_sample *sample, uint32_t stratum, uint64_t n_full, uint64_t seed)
{
    uint32_t first = stratum * BT_SAMPLE_STRATUM_LINES;
    uint64_t left = n_full - first;
    uint64_t n = left < BT_SAMPLE_STRATUM_LINES ? left : BT_SAMPLE_STRATUM_LINES;
    uint64_t place = place_of(seed, stratum);
    for (uint64_t piece = 0; piece < sample->n_pieces; piece++)
        sample->lines[piece * sample->n_lines + 1 + stratum] =
            first + (uint32_t)((place + piece * n / sample->n_pieces) % n);
}

baton_status bt_sample_create(uint32_t n_layers, uint32_t n_planes, uint64_t page_bytes,
                              uint64_t seed, bt_sample **sample_p)
{
    uint64_t n_pieces = (uint64_t)n_layers * n_planes, piece_bytes = page_bytes / n_pieces;
    uint64_t n_full = piece_bytes / LINE, last = (piece_bytes - 1) / LINE;
    uint64_t n_strata = (n_full + BT_SAMPLE_STRATUM_LINES - 1) / BT_SAMPLE_STRATUM_LINES;
    size_t bytes;
    assert(piece_bytes > 0 && piece_bytes * n_pieces == page_bytes);
    if (last > UINT32_MAX || n_pieces > UINT32_MAX ||
        !bt_mul_size((size_t)n_pieces, (size_t)(n_strata + 2) * sizeof(uint32_t), &bytes))
        return bt_fail(BATON_ERR_TOO_LARGE, "sample: of a page of %" PRIu64 " bytes", page_bytes);
    bt_sample *sample = bt_calloc(1, sizeof(*sample) + bytes);
    if (sample == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "sample: of a page of %" PRIu64 " bytes", page_bytes);
    uint64_t last_bytes = piece_bytes - last * LINE;
    sample->piece_bytes = piece_bytes;
    sample->n_pieces = (uint32_t)n_pieces;
    sample->n_planes = n_planes;
    sample->n_lines = (uint32_t)n_strata + 2;
    sample->taken_bytes = (last == 0 ? last_bytes : LINE) + n_strata * LINE + last_bytes;
    for (uint64_t piece = 0; piece < n_pieces; piece++)
        sample->lines[(piece + 1) * sample->n_lines - 1] = (uint32_t)last;
    for (uint32_t stratum = 0; stratum < n_strata; stratum++)
        choose(sample, stratum, n_full, seed);
    *sample_p = sample;
    return BATON_OK;
}

uint64_t bt_sample_most_bytes(uint32_t n_layers, uint32_t n_planes, uint64_t page_bytes)
{
    uint64_t n_pieces = (uint64_t)n_layers * n_planes, n_full = page_bytes / n_pieces / LINE;
    uint64_t n_strata = (n_full + BT_SAMPLE_STRATUM_LINES - 1) / BT_SAMPLE_STRATUM_LINES;
    return n_pieces * (n_strata + 2) * LINE;
}

void bt_sample_destroy(bt_sample *sample)
{
    bt_free(sample);
}

uint64_t bt_sample_bytes(const bt_sample *sample, uint32_t n_layers)
{
    return (uint64_t)n_layers * sample->n_planes * sample->taken_bytes;
}

static uint32_t line_bytes(const bt_sample *sample, uint64_t at)
{
    uint64_t left = sample->piece_bytes - at;
    return left < LINE ? (uint32_t)left : (uint32_t)LINE;
}

/* Byte `at` of source->bytes in paged KV, and how many lie there in one piece; of a token that is
 * skipped, or that the view has no layer for, in source->bytes. */
static const uint8_t *find_paged(const bt_sample_source *source, uint64_t at, uint64_t *n)
{
    const baton_kv_view *view = source->view;
    uint64_t row_bytes = bt_kv_row_bytes(view);
    uint64_t row = at / row_bytes, in_row = at % row_bytes;
    uint64_t plane = row / source->tokens->n_tokens, token = row % source->tokens->n_tokens;
    bool is_cut = view->head_stride_bytes != view->head_bytes;
    *n = is_cut ? view->head_bytes - in_row % view->head_bytes : row_bytes - in_row;
    if (plane >= (uint64_t)source->n_layers * view->n_planes)
        return source->bytes + at;
    int64_t slot = bt_kv_token_slot(view, source->tokens, (uint32_t)token);
    if (slot < 0)
        return source->bytes + at;
    uint32_t layer = source->first_layer + (uint32_t)(plane / view->n_planes);
    uint64_t offset =
        is_cut ? in_row / view->head_bytes * view->head_stride_bytes + in_row % view->head_bytes
               : in_row;
    return bt_kv_plane_base(view, layer, (uint32_t)(plane % view->n_planes)) +
           bt_kv_slot_offset(view, (uint64_t)slot) + offset;
}

static void read_paged(const bt_sample_source *source, uint64_t at, uint32_t n, uint8_t *to)
{
    while (n > 0) {
        uint64_t left;
        const uint8_t *from = find_paged(source, at, &left);
        uint32_t some = left < n ? (uint32_t)left : n;
        memcpy(to, from, some);
        to += some;
        at += some;
        n -= some;
    }
}

/* One line of a piece, which counts from the page's first; returns its bytes. */
static uint32_t read_line(const bt_sample *sample, const bt_sample_source *source, uint32_t piece,
                          uint32_t line, uint8_t *to)
{
    uint64_t at = (uint64_t)line * LINE;
    uint32_t n = line_bytes(sample, at);
    at += (piece - (uint64_t)source->first_layer * sample->n_planes) * sample->piece_bytes;
    if (source->view != NULL)
        read_paged(source, at, n, to);
    else if (n == LINE)
        memcpy(to, source->bytes + at, LINE);
    else
        memcpy(to, source->bytes + at, n);
    return n;
}

void bt_sample_take(const bt_sample *sample, const bt_sample_source *source, uint8_t *to)
{
    uint32_t first = source->first_layer * sample->n_planes;
    uint32_t end = first + source->n_layers * sample->n_planes;
    to += first * sample->taken_bytes;
    for (uint32_t piece = first; piece < end; piece++) {
        const uint32_t *lines = &sample->lines[(size_t)piece * sample->n_lines];
        for (uint32_t i = 0; i < sample->n_lines; i++)
            to += read_line(sample, source, piece, lines[i], to);
    }
}

static void end_tile(hasher *h, uint32_t bytes)
{
    uint64_t digest = XXH3_64bits(h->tile, bytes);
    uint8_t little[8];
    for (int i = 0; i < 8; i++)
        little[i] = (uint8_t)(digest >> (8 * i));
    XXH3_64bits_update(&h->tiles, little, sizeof(little));
    memmove(h->tile, h->tile + bytes, h->fill - bytes);
    h->fill -= bytes;
}

/* A sample of one tile is read where it can stay on the stack; libxxhash's state of a long one is
 * worth its while only then. */
uint64_t bt_sample_digest(const bt_sample *sample, const bt_sample_source *source)
{
    assert(source->first_layer == 0 && source->n_layers * sample->n_planes == sample->n_pieces);
    uint64_t bytes = bt_sample_bytes(sample, source->n_layers);
    if (bytes <= BT_DIGEST_TILE_BYTES) {
        uint8_t all[BT_DIGEST_TILE_BYTES];
        bt_sample_take(sample, source, all);
        return bt_digest(all, (size_t)bytes);
    }
    hasher h;
    XXH3_64bits_reset(&h.tiles);
    h.fill = 0;
    for (uint32_t piece = 0; piece < sample->n_pieces; piece++) {
        const uint32_t *lines = &sample->lines[(size_t)piece * sample->n_lines];
        for (uint32_t i = 0; i < sample->n_lines; i++) {
            h.fill += read_line(sample, source, piece, lines[i], h.tile + h.fill);
            if (h.fill >= BT_DIGEST_TILE_BYTES)
                end_tile(&h, BT_DIGEST_TILE_BYTES);
        }
    }
    if (h.fill > 0)
        end_tile(&h, h.fill);
    return XXH3_64bits_digest(&h.tiles);
}

uint64_t bt_sample_digest_page(const bt_sample *sample, const void *page)
{
    const bt_sample_source source = {.n_layers = sample->n_pieces / sample->n_planes,
                                     .bytes = page};
    return bt_sample_digest(sample, &source);
}

void bt_sample_expect(const bt_sample *sample, const void *page)
{
    enum { MOST = 64 }; /* more than a core fetches at once: the rest comes while these are read */
    uint32_t n = 0;
    for (uint32_t piece = 0; piece < sample->n_pieces && n < MOST; piece++) {
        const uint8_t *bytes = (const uint8_t *)page + piece * sample->piece_bytes;
        const uint32_t *lines = &sample->lines[(size_t)piece * sample->n_lines];
        for (uint32_t i = 0; i < sample->n_lines && n < MOST; i++, n++)
            __builtin_prefetch(bytes + (uint64_t)lines[i] * LINE);
    }
}

bool bt_sample_suits_gpu(const bt_sample *sample)
{
    return sample->piece_bytes % LINE == 0 &&
           sample->piece_bytes / LINE * sample->n_pieces <= UINT32_MAX &&
           (uint64_t)sample->n_pieces * sample->n_lines <= UINT32_MAX;
}

/* Lines of n_layers layers, whose bytes lie at `from`, to `to`. To the kernel they are tokens of
 * one plane, and the sample is the page that they are gathered to, with its digest on the way. */
static baton_status gather_lines(const bt_kv_kernels *kernels, const bt_sample *sample,
                                 uint32_t first_layer, uint32_t n_layers, const void *from,
                                 void *to, uint64_t *digest, struct CUstream_st *stream)
{
    assert(bt_sample_suits_gpu(sample));
    uint64_t in_piece = sample->piece_bytes / LINE;
    uint32_t n_pieces = n_layers * sample->n_planes, n = n_pieces * sample->n_lines;
    const uint32_t *lines =
        &sample->lines[(size_t)first_layer * sample->n_planes * sample->n_lines];
    int64_t *slots = bt_calloc(n, sizeof(*slots));
    if (slots == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "sample: %u lines", n);
    for (uint32_t i = 0; i < n; i++)
        slots[i] = (int64_t)(i / sample->n_lines * in_piece + lines[i]);
    const baton_kv_plane plane = {.k = (void *)(uintptr_t)from}; /* only read */
    const baton_kv_view view = {.n_layers = 1,
                                .n_planes = 1,
                                .n_blocks = (uint32_t)(in_piece * n_pieces),
                                .block_tokens = 1,
                                .n_kv_heads = 1,
                                .head_bytes = LINE,
                                .block_stride_bytes = LINE,
                                .token_stride_bytes = LINE,
                                .head_stride_bytes = LINE,
                                .memory = BATON_MEMORY_CUDA_DEVICE,
                                .planes = &plane};
    const baton_kv_tokens tokens = {.slots = slots, .n_tokens = n};
    baton_status status =
        kernels->gather(&view, &tokens, 0, 1, to, (uint64_t)n * LINE, digest, stream);
    bt_free(slots);
    return status;
}

baton_status bt_sample_digest_gpu(const bt_kv_kernels *kernels, const bt_sample *sample,
                                  const void *page, void *room, uint64_t *digest,
                                  struct CUstream_st *stream)
{
    return gather_lines(kernels, sample, 0, sample->n_pieces / sample->n_planes, page, room, digest,
                        stream);
}

baton_status bt_sample_take_gpu(const bt_kv_kernels *kernels, const bt_sample *sample,
                                uint32_t first_layer, uint32_t n_layers, const void *bytes,
                                void *to, struct CUstream_st *stream)
{
    return gather_lines(kernels, sample, first_layer, n_layers, bytes, to, NULL, stream);
}

baton_status bt_samples_get(bt_samples *samples, bool is_last, uint32_t n_layers, uint32_t n_planes,
                            uint64_t page_bytes, uint64_t seed, const bt_sample **sample_p)
{
    bt_sample **sample = is_last ? &samples->last : &samples->whole;
    if (*sample == NULL)
        BATON_TRY(bt_sample_create(n_layers, n_planes, page_bytes, seed, sample));
    *sample_p = *sample;
    return BATON_OK;
}

void bt_samples_clear(bt_samples *samples)
{
    bt_sample_destroy(samples->whole);
    bt_sample_destroy(samples->last);
    *samples = (bt_samples){0};
}
