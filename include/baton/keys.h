/* SPDX-License-Identifier: Apache-2.0 */
/* Names of chunks by content. A prompt of n tokens is cut into windows of chunk_tokens; window i
 * has key
 *
 *   key[i] = BLAKE2b-256(key[i-1] || u32le token ... || u32le token)      (tokens of window i only)
 *   key[-1] = BLAKE2b-256(text("baton-keys-1") || text(seed) || text(model) || u32le dtype,
 * n_layers, n_planes, n_kv_heads, head_dim, chunk_tokens, tp_size, pp_size, world, rank) text(s) =
 * u64le length || bytes
 *
 * so a key names its tokens, everything before them, the model, the KV layout and the rank. The
 * last window may be shorter and has a key of its own. BLAKE2b is RFC 7693; source of the chain:
 * DESIGN "Words".
 *
 * Thread rule: any thread; a baton_key_chain belongs to its owner. */
#ifndef BATON_KEYS_H
#define BATON_KEYS_H
#include <baton/layout.h>
#include <baton/status.h>
BATON_BEGIN_DECLS

enum { BATON_KEY_BYTES = 32 };

typedef struct {
    uint8_t bytes[BATON_KEY_BYTES];
} baton_key;

/* Where hashing of one sequence stands: the key of the last full window. A plain value, copied to
 * fork a sequence. */
typedef struct {
    baton_key last;
    uint32_t chunk_tokens;
} baton_key_chain;

/* The chain before the first token. seed: an operator's own salt, NULL or "" for none; both sides
 * must agree, which INIT checks. Errors: INVALID_ARG (chunk_tokens 0, rank >= world). */
BATON_API baton_status baton_key_chain_init(const baton_layout *layout, uint32_t world,
                                            uint32_t rank, const char *seed,
                                            baton_key_chain *chain);
/* Key of the window tokens[n_tokens] (1 to chunk_tokens of them) that follows the chain. Advances
 * the chain only when the window is full. Errors: INVALID_ARG. */
BATON_API baton_status baton_key_chain_next(baton_key_chain *chain, const uint32_t *tokens,
                                            uint32_t n_tokens, baton_key *key);
/* Keys of a whole prompt: keys[ceil(n_tokens / chunk_tokens)]; writes how many to *n_keys and the
 * tokens of the last one to *last_tokens. chain is not changed. Errors: INVALID_ARG (0 tokens, or
 * max_keys too small). */
BATON_API baton_status baton_keys_of_tokens(const baton_key_chain *chain, const uint32_t *tokens,
                                            uint32_t n_tokens, baton_key *keys, uint32_t max_keys,
                                            uint32_t *n_keys, uint32_t *last_tokens);

BATON_END_DECLS
#endif
