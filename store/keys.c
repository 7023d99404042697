/* SPDX-License-Identifier: Apache-2.0 */
#include <baton/keys.h>

#include "core/fail.h"

#include <sodium.h>
#include <string.h>

/* Appends to the hash with a length in front, so that two fields never run into each other. */
static void hash_text(crypto_generichash_state *hash, const char *text)
{
    size_t bytes = text != NULL ? strlen(text) : 0;
    uint8_t length[8];
    for (size_t i = 0; i < sizeof(length); i++)
        length[i] = (uint8_t)((uint64_t)bytes >> (8 * i));
    crypto_generichash_update(hash, length, sizeof(length));
    if (bytes > 0)
        crypto_generichash_update(hash, (const uint8_t *)text, bytes);
}

static void put_u32(uint8_t *out, uint32_t value)
{
    for (size_t i = 0; i < 4; i++)
        out[i] = (uint8_t)(value >> (8 * i));
}

baton_status baton_key_chain_init(const baton_layout *layout, uint32_t world, uint32_t rank,
                                  const char *seed, baton_key_chain *chain)
{
    BATON_TRY(baton_layout_check(layout));
    if (world == 0 || rank >= world)
        return bt_fail(BATON_ERR_INVALID_ARG, "keys: wanted a rank below world %u, found %u", world,
                       rank);
    if (sodium_init() < 0)
        return bt_fail(BATON_ERR_UNSUPPORTED, "keys: libsodium does not start");

    /* Everything that two caches must share for their bytes to mean the same; block_tokens is not
     * among it: chunks are dense in tokens. */
    const uint32_t shape[] = {
        (uint32_t)layout->dtype,
        layout->n_layers,
        layout->n_planes,
        layout->n_kv_heads,
        layout->head_dim,
        layout->chunk_tokens,
        layout->tp_size,
        layout->pp_size,
        world,
        rank,
    };
    uint8_t packed[sizeof(shape)];
    for (size_t i = 0; i < sizeof(shape) / sizeof(shape[0]); i++)
        put_u32(packed + 4 * i, shape[i]);

    crypto_generichash_state hash;
    crypto_generichash_init(&hash, NULL, 0, BATON_KEY_BYTES);
    hash_text(&hash, "baton-keys-1");
    hash_text(&hash, seed);
    hash_text(&hash, layout->model);
    crypto_generichash_update(&hash, packed, sizeof(packed));
    crypto_generichash_final(&hash, chain->last.bytes, BATON_KEY_BYTES);
    chain->chunk_tokens = layout->chunk_tokens;
    return BATON_OK;
}

baton_status baton_key_chain_next(baton_key_chain *chain, const uint32_t *tokens, uint32_t n_tokens,
                                  baton_key *key)
{
    if (n_tokens == 0 || n_tokens > chain->chunk_tokens)
        return bt_fail(BATON_ERR_INVALID_ARG, "keys: wanted 1 to %u tokens in a chunk, found %u",
                       chain->chunk_tokens, n_tokens);
    crypto_generichash_state hash;
    crypto_generichash_init(&hash, NULL, 0, BATON_KEY_BYTES);
    crypto_generichash_update(&hash, chain->last.bytes, BATON_KEY_BYTES);
    uint8_t packed[256];
    for (uint32_t done = 0; done < n_tokens;) {
        uint32_t n = n_tokens - done < 64 ? n_tokens - done : 64;
        for (uint32_t i = 0; i < n; i++)
            put_u32(packed + 4 * i, tokens[done + i]);
        crypto_generichash_update(&hash, packed, 4 * (size_t)n);
        done += n;
    }
    crypto_generichash_final(&hash, key->bytes, BATON_KEY_BYTES);
    if (n_tokens == chain->chunk_tokens)
        chain->last = *key;
    return BATON_OK;
}

baton_status baton_keys_of_tokens(const baton_key_chain *chain, const uint32_t *tokens,
                                  uint32_t n_tokens, baton_key *keys, uint32_t max_keys,
                                  uint32_t *n_keys, uint32_t *last_tokens)
{
    if (n_tokens == 0)
        return bt_fail(BATON_ERR_INVALID_ARG, "keys: wanted at least 1 token, found 0");
    uint32_t n = (n_tokens - 1) / chain->chunk_tokens + 1;
    if (n > max_keys)
        return bt_fail(BATON_ERR_INVALID_ARG, "keys: wanted room for %u keys, found %u", n,
                       max_keys);
    baton_key_chain walk = *chain;
    uint32_t tail = n_tokens;
    for (uint32_t i = 0; i < n; i++, tail -= chain->chunk_tokens) {
        uint32_t window = tail < chain->chunk_tokens ? tail : chain->chunk_tokens;
        BATON_TRY(baton_key_chain_next(&walk, tokens + (size_t)i * chain->chunk_tokens, window,
                                       &keys[i]));
        *last_tokens = window;
    }
    *n_keys = n;
    return BATON_OK;
}
