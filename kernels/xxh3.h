/* SPDX-License-Identifier: Apache-2.0 */
/* XXH3-64 with seed 0 in its parts, for code that hashes in another order than one byte after the
 * other: many threads of a GPU, or a copy that hashes what it holds in registers. Written from the
 * specification, "XXH3 Algorithm Overview" in xxHash's doc/xxhash_spec.md; the names are its. Also
 * compiled as CUDA. Tests compare it with libxxhash bit for bit.
 *
 *   input of more than 240 bytes, stripes of 64 bytes = 8 lanes of 8 bytes:
 *   | 0 | 1 | ... | 15 |   | 16 | ... | 31 |   | 32 | ...        | last 64 bytes |
 *     sum into acc[8], scramble  sum, scramble    sum, no scramble   sum with a secret of its own
 *
 * A sum does not care for the order of its stripes; only the scrambles are one after the other.
 * Thread rule: any thread. */
#ifndef BT_KERNELS_XXH3_H
#define BT_KERNELS_XXH3_H
#include <stdint.h>

#ifdef __CUDACC__
#define BT_XXH3_INLINE static inline __host__ __device__
#else
#define BT_XXH3_INLINE static inline
#endif

enum {
    BT_XXH3_LANES = 8,
    BT_XXH3_STRIPE_BYTES = 64,
    BT_XXH3_BLOCK_STRIPES = 16, /* between two scrambles */
    BT_XXH3_SHORT_BYTES = 240,  /* the longest input that is hashed without stripes */
    /* Offsets into the secret. */
    BT_XXH3_SECRET_SCRAMBLE = 128,
    BT_XXH3_SECRET_LAST = 121,
    BT_XXH3_SECRET_MERGE = 11,
};

#define BT_XXH3_PRIME32_1 UINT64_C(0x9e3779b1)
#define BT_XXH3_PRIME32_2 UINT64_C(0x85ebca77)
#define BT_XXH3_PRIME32_3 UINT64_C(0xc2b2ae3d)
#define BT_XXH3_PRIME64_1 UINT64_C(0x9e3779b185ebca87)
#define BT_XXH3_PRIME64_2 UINT64_C(0xc2b2ae3d27d4eb4f)
#define BT_XXH3_PRIME64_3 UINT64_C(0x165667b19e3779f9)
#define BT_XXH3_PRIME64_4 UINT64_C(0x85ebca77c2b2ae63)
#define BT_XXH3_PRIME64_5 UINT64_C(0x27d4eb2f165667c5)

/* The default secret as little-endian words, then the accumulators' first values. */
#define BT_XXH3_WORDS                                                                              \
    {                                                                                              \
        UINT64_C(0xbe4ba423396cfeb8), UINT64_C(0x1cad21f72c81017c), UINT64_C(0xdb979083e96dd4de),  \
            UINT64_C(0x1f67b3b7a4a44072), UINT64_C(0x78e5c0cc4ee679cb),                            \
            UINT64_C(0x2172ffcc7dd05a82), UINT64_C(0x8e2443f7744608b8),                            \
            UINT64_C(0x4c263a81e69035e0), UINT64_C(0xcb00c391bb52283c),                            \
            UINT64_C(0xa32e531b8b65d088), UINT64_C(0x4ef90da297486471),                            \
            UINT64_C(0xd8acdea946ef1938), UINT64_C(0x3f349ce33f76faa8),                            \
            UINT64_C(0x1d4f0bc7c7bbdcf9), UINT64_C(0x3159b4cd4be0518a),                            \
            UINT64_C(0x647378d9c97e9fc8), UINT64_C(0xc3ebd33483acc5ea),                            \
            UINT64_C(0xeb6313faffa081c5), UINT64_C(0x49daf0b751dd0d17),                            \
            UINT64_C(0x9e68d429265516d3), UINT64_C(0xfca1477d58be162b),                            \
            UINT64_C(0xce31d07ad1b8f88f), UINT64_C(0x280416958f3acb45),                            \
            UINT64_C(0x7e404bbbcafbd7af), BT_XXH3_PRIME32_3, BT_XXH3_PRIME64_1, BT_XXH3_PRIME64_2, \
            BT_XXH3_PRIME64_3, BT_XXH3_PRIME64_4, BT_XXH3_PRIME32_2, BT_XXH3_PRIME64_5,            \
            BT_XXH3_PRIME32_1                                                                      \
    }
enum { BT_XXH3_FIRST_ACC = 24, BT_XXH3_N_WORDS = 32 };
static const uint64_t bt_xxh3_words[BT_XXH3_N_WORDS] = BT_XXH3_WORDS;
#ifdef __CUDACC__
/* Not __constant__: neighbouring threads read different words, which that memory serves in turn. */
static __device__ const uint64_t bt_xxh3_device_words[BT_XXH3_N_WORDS] = BT_XXH3_WORDS;
#endif

BT_XXH3_INLINE uint64_t bt_xxh3_word(uint32_t i)
{
#ifdef __CUDA_ARCH__
    return bt_xxh3_device_words[i];
#else
    return bt_xxh3_words[i];
#endif
}

/* Eight bytes of the secret from any offset up to 184. */
BT_XXH3_INLINE uint64_t bt_xxh3_secret(uint32_t offset)
{
    uint32_t bits = offset % 8 * 8;
    uint64_t word = bt_xxh3_word(offset / 8);
    return bits == 0 ? word : word >> bits | bt_xxh3_word(offset / 8 + 1) << (64 - bits);
}

BT_XXH3_INLINE uint64_t bt_xxh3_first_acc(uint32_t lane)
{
    return bt_xxh3_word(BT_XXH3_FIRST_ACC + lane);
}

/* Little-endian, from any address. */
BT_XXH3_INLINE uint64_t bt_xxh3_load(const uint8_t *bytes, uint32_t n)
{
    uint64_t value = 0;
    for (uint32_t i = 0; i < n; i++)
        value |= (uint64_t)bytes[i] << (8 * i);
    return value;
}

/* What lane `data` adds to its own accumulator; it adds itself to its neighbour's (lane ^ 1). */
BT_XXH3_INLINE uint64_t bt_xxh3_product(uint64_t data, uint64_t secret)
{
    uint64_t key = data ^ secret;
    return (key & UINT32_MAX) * (key >> 32);
}

BT_XXH3_INLINE uint64_t bt_xxh3_scramble(uint64_t acc, uint32_t lane)
{
    acc ^= acc >> 47;
    return (acc ^ bt_xxh3_secret(BT_XXH3_SECRET_SCRAMBLE + 8 * lane)) * BT_XXH3_PRIME32_1;
}

BT_XXH3_INLINE uint64_t bt_xxh3_fold_product(uint64_t a, uint64_t b)
{
    __extension__ typedef unsigned __int128 wide;
    wide product = (wide)a * b;
    return (uint64_t)product ^ (uint64_t)(product >> 64);
}

BT_XXH3_INLINE uint64_t bt_xxh3_avalanche(uint64_t hash)
{
    hash ^= hash >> 37;
    hash *= UINT64_C(0x165667919e3779f9);
    return hash ^ hash >> 32;
}

BT_XXH3_INLINE uint64_t bt_xxh3_merge(const uint64_t acc[BT_XXH3_LANES], uint64_t n_bytes)
{
    uint64_t hash = n_bytes * BT_XXH3_PRIME64_1;
    for (uint32_t i = 0; i < BT_XXH3_LANES; i += 2)
        hash += bt_xxh3_fold_product(acc[i] ^ bt_xxh3_secret(BT_XXH3_SECRET_MERGE + 8 * i),
                                     acc[i + 1] ^ bt_xxh3_secret(BT_XXH3_SECRET_MERGE + 8 * i + 8));
    return bt_xxh3_avalanche(hash);
}

/* The rest is for inputs of at most BT_XXH3_SHORT_BYTES. */

BT_XXH3_INLINE uint64_t bt_xxh3_avalanche_xxh64(uint64_t hash)
{
    hash ^= hash >> 33;
    hash *= BT_XXH3_PRIME64_2;
    hash ^= hash >> 29;
    hash *= BT_XXH3_PRIME64_3;
    return hash ^ hash >> 32;
}

BT_XXH3_INLINE uint64_t bt_xxh3_mix(const uint8_t *bytes, uint32_t secret)
{
    return bt_xxh3_fold_product(bt_xxh3_load(bytes, 8) ^ bt_xxh3_secret(secret),
                                bt_xxh3_load(bytes + 8, 8) ^ bt_xxh3_secret(secret + 8));
}

BT_XXH3_INLINE uint64_t bt_xxh3_up_to_16(const uint8_t *bytes, uint32_t n)
{
    if (n == 0)
        return bt_xxh3_avalanche_xxh64(bt_xxh3_secret(56) ^ bt_xxh3_secret(64));
    if (n <= 3) {
        uint64_t combined = (uint64_t)bytes[n - 1] | (uint64_t)n << 8 | (uint64_t)bytes[0] << 16 |
                            (uint64_t)bytes[n / 2] << 24;
        uint64_t secret = bt_xxh3_secret(0);
        return bt_xxh3_avalanche_xxh64(combined ^ ((secret ^ secret >> 32) & UINT32_MAX));
    }
    if (n <= 8) {
        uint64_t value = bt_xxh3_load(bytes, 4) << 32 | bt_xxh3_load(bytes + n - 4, 4);
        value ^= bt_xxh3_secret(8) ^ bt_xxh3_secret(16);
        value ^= (value << 49 | value >> 15) ^ (value << 24 | value >> 40);
        value *= UINT64_C(0x9fb21c651e98df25);
        value ^= (value >> 35) + n;
        value *= UINT64_C(0x9fb21c651e98df25);
        return value ^ value >> 28;
    }
    uint64_t low = bt_xxh3_load(bytes, 8) ^ bt_xxh3_secret(24) ^ bt_xxh3_secret(32);
    uint64_t high = bt_xxh3_load(bytes + n - 8, 8) ^ bt_xxh3_secret(40) ^ bt_xxh3_secret(48);
    uint64_t swapped = 0;
    for (uint32_t i = 0; i < 64; i += 8)
        swapped |= (low >> i & 0xff) << (56 - i);
    return bt_xxh3_avalanche(n + swapped + high + bt_xxh3_fold_product(low, high));
}

BT_XXH3_INLINE uint64_t bt_xxh3_short(const uint8_t *bytes, uint32_t n)
{
    if (n <= 16)
        return bt_xxh3_up_to_16(bytes, n);
    uint64_t acc = n * BT_XXH3_PRIME64_1;
    if (n <= 128) {
        for (uint32_t i = (n - 1) / 32 + 1; i-- > 0;)
            acc += bt_xxh3_mix(bytes + i * 16, i * 32) +
                   bt_xxh3_mix(bytes + n - 16 * (i + 1), i * 32 + 16);
        return bt_xxh3_avalanche(acc);
    }
    for (uint32_t i = 0; i < 8; i++)
        acc += bt_xxh3_mix(bytes + i * 16, i * 16);
    acc = bt_xxh3_avalanche(acc);
    for (uint32_t i = 8; i < n / 16; i++)
        acc += bt_xxh3_mix(bytes + i * 16, (i - 8) * 16 + 3);
    return bt_xxh3_avalanche(acc + bt_xxh3_mix(bytes + n - 16, 136 - 17));
}

#endif
