/* SPDX-License-Identifier: Apache-2.0 */
/* Digest of a sample of a chunk page: 64 bits over a few lines of every piece, which both sides
 * choose alike from a seed of the ticket's (docs/protocol.md, Sampled digests).
 *
 *   page   [n_layers][n_planes] pieces of [n_tokens][n_kv_heads][head_dim]
 *   piece  | first line | ... one line of each 16 KiB, at a seeded place ... | last line |
 *   sample   all these lines, one behind the other; its digest is digest.h's
 *
 * A line is 64 bytes, counted from the piece's first; the last one may be shorter. From piece to
 * piece the seeded places move on evenly, so that all pieces together look at every place: a
 * token's row that is missing in all of them is seen when they hold 16 KiB of it and more.
 * Thread rule: a sample is not changed after create; any thread. */
#ifndef BT_KERNELS_SAMPLE_H
#define BT_KERNELS_SAMPLE_H
#include "kernels/kv_kernels.h"

#include <stdbool.h>

enum { BT_SAMPLE_LINE_BYTES = 64, BT_SAMPLE_STRATUM_LINES = 256 };

typedef struct {
    uint64_t piece_bytes;
    uint64_t taken_bytes; /* of each piece */
    uint32_t n_pieces, n_planes;
    uint32_t n_lines; /* of each piece */
    uint32_t lines[]; /* [n_pieces][n_lines] numbers in the piece, ascending */
} bt_sample;

/* The layers of a page, or some of them, where they are read. */
typedef struct {
    uint32_t first_layer, n_layers;
    const uint8_t *bytes;      /* dense, from first_layer on; with a view the page that it was
                                  gathered to, which has the bytes of skipped tokens */
    const baton_kv_view *view; /* NULL: none */
    const baton_kv_tokens *tokens;
} bt_sample_source;

uint64_t bt_sample_seed(const uint8_t nonce[16], uint64_t ticket, uint32_t generation);
/* page_bytes: of its tokens, all layers and planes. Errors: NO_MEMORY, TOO_LARGE. */
baton_status bt_sample_create(uint32_t n_layers, uint32_t n_planes, uint64_t page_bytes,
                              uint64_t seed, bt_sample **sample_p);
/* What a sample of such a page takes at most. */
uint64_t bt_sample_most_bytes(uint32_t n_layers, uint32_t n_planes, uint64_t page_bytes);
void bt_sample_destroy(bt_sample *sample); /* NULL is allowed. */
/* Bytes of n_layers layers' lines. */
uint64_t bt_sample_bytes(const bt_sample *sample, uint32_t n_layers);
/* Their lines to `to`, which has room for the whole sample: at their place in it. */
void bt_sample_take(const bt_sample *sample, const bt_sample_source *source, uint8_t *to);
/* Of all layers. */
uint64_t bt_sample_digest(const bt_sample *sample, const bt_sample_source *source);
/* Of a dense page. */
uint64_t bt_sample_digest_page(const bt_sample *sample, const void *page);
/* The page's lines are about to be read: hides their way from memory. */
void bt_sample_expect(const bt_sample *sample, const void *page);

/* A GPU can take it: lines are whole. */
bool bt_sample_suits_gpu(const bt_sample *sample);
/* The same of a dense page that the device can read, with kernels that digest; the lines are
 * gathered to `room`, memory of the device, [bt_sample_bytes]; who queues on one stream only needs
 * one. *digest as bt_kv_kernels.digest. Errors: NO_MEMORY, and the gather's. */
baton_status bt_sample_digest_gpu(const bt_kv_kernels *kernels, const bt_sample *sample,
                                  const void *page, void *room, uint64_t *digest,
                                  struct CUstream_st *stream);
/* The lines of some layers, whose dense bytes the device can read, to `to`, device or pinned
 * memory, [bt_sample_bytes of n_layers]. Errors: as above. */
baton_status bt_sample_take_gpu(const bt_kv_kernels *kernels, const bt_sample *sample,
                                uint32_t first_layer, uint32_t n_layers, const void *bytes,
                                void *to, struct CUstream_st *stream);

/* Those of a ticket: of its whole chunks, and of its last one. All zero at first. */
typedef struct {
    bt_sample *whole, *last;
} bt_samples;

/* NULL: it was not wanted yet. */
static inline const bt_sample *bt_samples_find(const bt_samples *samples, bool is_last)
{
    return is_last ? samples->last : samples->whole;
}

/* Makes it when it is first wanted. Errors: as bt_sample_create. */
baton_status bt_samples_get(bt_samples *samples, bool is_last, uint32_t n_layers, uint32_t n_planes,
                            uint64_t page_bytes, uint64_t seed, const bt_sample **sample_p);
void bt_samples_clear(bt_samples *samples);

#endif
