/* SPDX-License-Identifier: Apache-2.0 */
/* What two engines must agree on before KV moves between them: the shape of one rank's KV cache.
 * It travels in INIT; a difference is refused with a field-by-field text, and it is mixed into
 * every chunk key.
 *
 * Thread rule: any thread. */
#ifndef BATON_LAYOUT_H
#define BATON_LAYOUT_H
#include <baton/status.h>
BATON_BEGIN_DECLS

enum { BATON_MODEL_NAME_BYTES = 128 };

typedef enum {
    BATON_DTYPE_F32 = 1,
    BATON_DTYPE_F16 = 2,
    BATON_DTYPE_BF16 = 3,
    BATON_DTYPE_F8_E4M3 = 4,
    BATON_DTYPE_F8_E5M2 = 5,
    BATON_DTYPE_U8 = 6,
} baton_dtype;

/* One rank's share. All fields are compared between peers but block_tokens, which may differ:
 * chunks are dense in tokens. */
typedef struct {
    char model[BATON_MODEL_NAME_BYTES]; /* name or content id of the weights, 0-terminated */
    baton_dtype dtype;
    uint32_t n_layers;
    uint32_t n_planes;     /* 2: K and V; 1: MLA's latent */
    uint32_t n_kv_heads;   /* of this rank */
    uint32_t head_dim;     /* elements */
    uint32_t chunk_tokens; /* tokens of a full chunk */
    uint32_t block_tokens; /* tokens of an engine's block */
    uint32_t tp_size;      /* ranks that share the heads */
    uint32_t pp_size;      /* stages that share the layers; 1 for now */
} baton_layout;

/* Errors: INVALID_ARG, naming the field: a 0, an unknown dtype, a name without end. */
BATON_API baton_status baton_layout_check(const baton_layout *layout);
/* OK when KV can move as it is; otherwise LAYOUT_MISMATCH and a text that names every field that
 * differs with both values: "layout: n_layers ours 32 theirs 40, dtype ours bf16 theirs f16". */
BATON_API baton_status baton_layout_match(const baton_layout *ours, const baton_layout *theirs);
/* Bytes of an element; 0 for an unknown dtype. */
BATON_API uint32_t baton_dtype_bytes(baton_dtype dtype);
/* "bf16" ...; "?" for an unknown dtype. */
BATON_API const char *baton_dtype_name(baton_dtype dtype);
/* Bytes of one token: n_layers * n_planes * n_kv_heads * head_dim * element. Errors: INVALID_ARG
 * (a field of 0, overflow). */
BATON_API baton_status baton_layout_token_bytes(const baton_layout *layout, uint64_t *bytes);

BATON_END_DECLS
#endif
