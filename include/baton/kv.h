/* SPDX-License-Identifier: Apache-2.0 */
/* Paged KV and chunk pages: where an engine keeps its KV cache, and the copies between there and
 * the dense pages that travel.
 *
 *   paged KV, any layout                         chunk page, always
 *   layer l: K plane, V plane           gather   [n_layers][n_planes][n_tokens][n_kv_heads][head]
 *   slot = block * block_tokens + i    -------->  token t of the page is token t of the list;
 *   tokens lie in scattered slots      <--------  dense, no padding: a short last chunk is compact
 *                                      scatter
 *
 * A layout is nothing but three strides and one base per plane, so that every engine's layout is
 * the same code path. A head's bytes (head_dim elements of any size) are always contiguous.
 *
 * Thread rule: any thread; two calls must not write the same bytes at the same time. */
#ifndef BATON_KV_H
#define BATON_KV_H
#include <baton/status.h>
BATON_BEGIN_DECLS

typedef enum {
    BATON_MEMORY_HOST,
    BATON_MEMORY_CUDA_DEVICE,
    BATON_MEMORY_CUDA_HOST, /* pinned: both the CPU and the device reach it */
} baton_memory_kind;

/* First byte of slot 0, head 0 of one layer, both borrowed. */
typedef struct {
    void *k;
    void *v; /* NULL when the view has one plane (MLA) */
} baton_kv_plane;

/* Where paged KV lies. Byte (layer, plane, slot, head, i) is at
 *   plane base + slot / block_tokens * block_stride + slot % block_tokens * token_stride
 *              + head * head_stride + i,   i < head_bytes. */
typedef struct {
    uint32_t n_layers;
    uint32_t n_planes; /* 2: K and V; 1: MLA */
    uint32_t n_blocks;
    uint32_t block_tokens;
    uint32_t n_kv_heads;
    uint64_t head_bytes; /* head_dim * bytes of an element */
    uint64_t block_stride_bytes;
    uint64_t token_stride_bytes;
    uint64_t head_stride_bytes;
    baton_memory_kind memory;
    const baton_kv_plane *planes; /* [n_layers], borrowed while the view is used */
} baton_kv_view;

/* What the initialisers below need besides pointers. */
typedef struct {
    uint32_t n_layers;
    uint32_t n_blocks;
    uint32_t block_tokens;
    uint32_t n_kv_heads; /* 1 for MLA */
    uint64_t head_bytes; /* MLA: the whole latent row */
    baton_memory_kind memory;
} baton_kv_shape;

/* Initialisers: fill planes[n_layers] and the strides, and check the result with
 * baton_kv_view_check, whose errors they return. layers, k_layers, v_layers: [n_layers] pointers to
 * dense tensors, read during the call only. view->planes is `planes`: it must outlive the view. */

/* One tensor per layer, [2][n_blocks][block_tokens][n_kv_heads][head_dim]: vLLM flash-attention. */
BATON_API baton_status baton_kv_view_flash(const baton_kv_shape *shape, void *const *layers,
                                           baton_kv_plane *planes, baton_kv_view *view);
/* K and V tensors of their own, each [n_blocks][block_tokens][n_kv_heads][head_dim]. For SGLang's
 * [n_slots][n_kv_heads][head_dim] use block_tokens 1. */
BATON_API baton_status baton_kv_view_split(const baton_kv_shape *shape, void *const *k_layers,
                                           void *const *v_layers, baton_kv_plane *planes,
                                           baton_kv_view *view);
/* K and V, each [n_blocks][n_kv_heads][block_tokens][head_dim]. v_layers NULL: one tensor
 * [2][n_blocks][n_kv_heads][block_tokens][head_dim] per layer in k_layers. */
BATON_API baton_status baton_kv_view_hnd(const baton_kv_shape *shape, void *const *k_layers,
                                         void *const *v_layers, baton_kv_plane *planes,
                                         baton_kv_view *view);
/* FlashInfer, one tensor per layer: [n_blocks][2][block_tokens][n_kv_heads][head_dim], or with
 * heads_first != 0 [n_blocks][2][n_kv_heads][block_tokens][head_dim]. */
BATON_API baton_status baton_kv_view_flashinfer(const baton_kv_shape *shape, int heads_first,
                                                void *const *layers, baton_kv_plane *planes,
                                                baton_kv_view *view);
/* One plane per layer, [n_blocks][block_tokens][head_bytes]. shape->n_kv_heads must be 1. */
BATON_API baton_status baton_kv_view_mla(const baton_kv_shape *shape, void *const *layers,
                                         baton_kv_plane *planes, baton_kv_view *view);

/* The view can be used: counts not 0, pointers set, no two (slot, head) share a byte, K and V of a
 * layer do not either, and no offset overflows. Whether layers overlap each other is not checked.
 * Errors: INVALID_ARG, TOO_LARGE (an offset overflows). */
BATON_API baton_status baton_kv_view_check(const baton_kv_view *view);

/* Which tokens, in page order. Arrays are borrowed for the call. */
typedef struct {
    /* [n_tokens]; a negative slot is skipped: neither side's bytes of that token are touched.
     * NULL: the block table below says where. */
    const int64_t *slots;
    const uint32_t *blocks; /* [n_blocks] */
    uint32_t n_blocks;
    uint32_t n_tokens;
    uint64_t first_token; /* token t is at position p = first_token + t of the sequence, that is in
                             blocks[p / block_tokens] at offset p % block_tokens */
} baton_kv_tokens;

/* Bytes of a chunk page of n_tokens tokens, all layers: *bytes. n_tokens 0 gives 0.
 * Errors: TOO_LARGE. */
BATON_API baton_status baton_kv_chunk_bytes(const baton_kv_view *view, uint32_t n_tokens,
                                            uint64_t *bytes);
/* As above for n_layers layers, which need not be the view's number. */
BATON_API baton_status baton_kv_layers_bytes(const baton_kv_view *view, uint32_t n_layers,
                                             uint32_t n_tokens, uint64_t *bytes);

/* Copies the tokens of layers [first_layer, first_layer + n_layers) from paged KV to a page, which
 * holds these layers only: [n_layers][n_planes][n_tokens][n_kv_heads][head_dim]. page_bytes says
 * how much may be written; more than needed is fine, the rest is not touched. page and paged KV
 * must not overlap. Everything is checked before the first byte moves.
 * Errors: INVALID_ARG (view, NULL), OUT_OF_RANGE (slot, block, layer), TOO_LARGE (page too small),
 * UNSUPPORTED (device memory: use baton_kv_gather_cuda). */
BATON_API baton_status baton_kv_gather(const baton_kv_view *view, const baton_kv_tokens *tokens,
                                       uint32_t first_layer, uint32_t n_layers, void *page,
                                       uint64_t page_bytes);
/* As baton_kv_gather, with stores that bypass the cache where the CPU has them: for a page that
 * another process or a device reads, not this core. Globally visible, fenced, on return. */
BATON_API baton_status baton_kv_gather_stream(const baton_kv_view *view,
                                              const baton_kv_tokens *tokens, uint32_t first_layer,
                                              uint32_t n_layers, void *page, uint64_t page_bytes);
/* The way back: page to paged KV. Slots that occur twice in the list get the later token. */
BATON_API baton_status baton_kv_scatter(const baton_kv_view *view, const baton_kv_tokens *tokens,
                                        uint32_t first_layer, uint32_t n_layers, const void *page,
                                        uint64_t page_bytes);

/* The three above, and the page's digest as docs/protocol.md defines it, of all n_layers layers, in
 * the same pass over memory. A skipped token counts with the bytes that the page has of it, so they
 * must be set. *digest is set only on success. */
BATON_API baton_status baton_kv_gather_digest(const baton_kv_view *view,
                                              const baton_kv_tokens *tokens, uint32_t first_layer,
                                              uint32_t n_layers, void *page, uint64_t page_bytes,
                                              uint64_t *digest);
BATON_API baton_status baton_kv_gather_stream_digest(const baton_kv_view *view,
                                                     const baton_kv_tokens *tokens,
                                                     uint32_t first_layer, uint32_t n_layers,
                                                     void *page, uint64_t page_bytes,
                                                     uint64_t *digest);
BATON_API baton_status baton_kv_scatter_digest(const baton_kv_view *view,
                                               const baton_kv_tokens *tokens, uint32_t first_layer,
                                               uint32_t n_layers, const void *page,
                                               uint64_t page_bytes, uint64_t *digest);

/* The same on a GPU: paged KV in device or pinned memory, page reachable by the device. One kernel
 * for all layers, queued on the stream (NULL: the default one) of the current device; page, paged
 * KV and digest are borrowed until the stream has passed this point; view (with its planes, which
 * are read by the CPU: an array of device addresses in host memory) and tokens only for the call.
 * Any alignment works. Where page, planes, strides and head_bytes are multiples of 16, all accesses
 * are of 16 bytes; else of 8, 4, 2 or 1, which is slower. The list of tokens travels with the
 * launch while layers * planes + tokens is at most 448; a longer one, and a digest, take memory
 * from the device's pool and give it back on the stream. Order of duplicate slots in a scatter is
 * undefined. Errors: as above, NO_MEMORY; UNSUPPORTED in a build without CUDA, or on a GPU that it
 * was not compiled for. */
struct CUstream_st;
BATON_API baton_status baton_kv_gather_cuda(const baton_kv_view *view,
                                            const baton_kv_tokens *tokens, uint32_t first_layer,
                                            uint32_t n_layers, void *page, uint64_t page_bytes,
                                            struct CUstream_st *stream);
BATON_API baton_status baton_kv_scatter_cuda(const baton_kv_view *view,
                                             const baton_kv_tokens *tokens, uint32_t first_layer,
                                             uint32_t n_layers, const void *page,
                                             uint64_t page_bytes, struct CUstream_st *stream);
/* *digest, in device or pinned memory, is written on the stream; there must be bytes to digest. A
 * slot that occurs twice does no harm to it. */
BATON_API baton_status baton_kv_gather_digest_cuda(const baton_kv_view *view,
                                                   const baton_kv_tokens *tokens,
                                                   uint32_t first_layer, uint32_t n_layers,
                                                   void *page, uint64_t page_bytes,
                                                   uint64_t *digest, struct CUstream_st *stream);
BATON_API baton_status baton_kv_scatter_digest_cuda(const baton_kv_view *view,
                                                    const baton_kv_tokens *tokens,
                                                    uint32_t first_layer, uint32_t n_layers,
                                                    const void *page, uint64_t page_bytes,
                                                    uint64_t *digest, struct CUstream_st *stream);

BATON_END_DECLS
#endif
