/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/digest_fold.h"

#ifdef __x86_64__
#include <immintrin.h>

#define AVX512 __attribute__((target("avx512f,avx512dq")))
#define AVX2 __attribute__((target("avx2")))
#define ALWAYS_INLINE __attribute__((always_inline)) static inline

enum { HALF = BT_XXH3_STRIPE_BYTES / 2 };

static const uint8_t *secret_at(uint32_t offset)
{
    return (const uint8_t *)bt_xxh3_words + offset;
}

static bool has_avx512(void)
{
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq");
}

static bool has_avx2(void)
{
    return __builtin_cpu_supports("avx2");
}

static void fence_streams(void)
{
    _mm_sfence();
}

AVX512 ALWAYS_INLINE __m512i add_stripe_512(__m512i acc, uint8_t *to, const uint8_t *from,
                                            const uint8_t *secret, bt_fold_kind kind)
{
    __m512i data = _mm512_loadu_si512(from);
    if (kind == BT_FOLD_STREAM)
        _mm512_stream_si512((__m512i *)to, data);
    else if (kind == BT_FOLD_COPY)
        _mm512_storeu_si512(to, data);
    __m512i key = _mm512_xor_si512(data, _mm512_loadu_si512(secret));
    __m512i product = _mm512_mul_epu32(key, _mm512_srli_epi64(key, 32));
    __m512i swapped = _mm512_shuffle_epi32(data, _MM_PERM_BADC); /* neighbours change places */
    return _mm512_add_epi64(acc, _mm512_add_epi64(product, swapped));
}

AVX512 ALWAYS_INLINE __m512i scramble_512(__m512i acc)
{
    acc = _mm512_xor_si512(acc, _mm512_srli_epi64(acc, 47));
    acc = _mm512_xor_si512(acc, _mm512_loadu_si512(secret_at(BT_XXH3_SECRET_SCRAMBLE)));
    return _mm512_mullo_epi64(acc, _mm512_set1_epi64((long long)BT_XXH3_PRIME32_1));
}

AVX512 ALWAYS_INLINE void add_rows_512(uint64_t *acc, const bt_fold_rows *rows, uint32_t first,
                                       bt_fold_kind kind)
{
    __m512i sum = _mm512_load_si512(acc);
    uint32_t in_block = first % BT_XXH3_BLOCK_STRIPES;
    for (uint32_t row = 0; row < rows->n_rows; row++) {
        const uint8_t *from = rows->from + row * rows->from_step;
        uint8_t *to = kind == BT_FOLD_READ ? NULL : rows->to + row * rows->to_step;
        for (uint32_t i = 0; i < rows->row_stripes; i++) {
            uint64_t at = (uint64_t)i * BT_XXH3_STRIPE_BYTES;
            sum = add_stripe_512(sum, kind == BT_FOLD_READ ? NULL : to + at, from + at,
                                 secret_at(8 * in_block), kind);
            if (++in_block == BT_XXH3_BLOCK_STRIPES) {
                sum = scramble_512(sum);
                in_block = 0;
            }
        }
    }
    _mm512_store_si512(acc, sum);
}

AVX512 static void rows_512(uint64_t acc[BT_XXH3_LANES], const bt_fold_rows *rows, uint32_t first,
                            bt_fold_kind kind)
{
    if (kind == BT_FOLD_STREAM)
        add_rows_512(acc, rows, first, BT_FOLD_STREAM);
    else if (kind == BT_FOLD_COPY)
        add_rows_512(acc, rows, first, BT_FOLD_COPY);
    else
        add_rows_512(acc, rows, first, BT_FOLD_READ);
}

AVX512 static void last_512(uint64_t acc[BT_XXH3_LANES], uint8_t *to, const uint8_t *from,
                            bt_fold_kind kind)
{
    __m512i sum = _mm512_load_si512(acc);
    _mm512_store_si512(acc, add_stripe_512(sum, to, from, secret_at(BT_XXH3_SECRET_LAST), kind));
}

/* Half a stripe: lanes 0 to 3 or 4 to 7. */
AVX2 ALWAYS_INLINE __m256i add_half_256(__m256i acc, uint8_t *to, const uint8_t *from,
                                        const uint8_t *secret, bt_fold_kind kind)
{
    __m256i data = _mm256_loadu_si256((const __m256i *)from);
    if (kind == BT_FOLD_STREAM)
        _mm256_stream_si256((__m256i *)to, data);
    else if (kind == BT_FOLD_COPY)
        _mm256_storeu_si256((__m256i *)to, data);
    __m256i key = _mm256_xor_si256(data, _mm256_loadu_si256((const __m256i *)secret));
    __m256i product = _mm256_mul_epu32(key, _mm256_srli_epi64(key, 32));
    __m256i swapped = _mm256_shuffle_epi32(data, _MM_SHUFFLE(1, 0, 3, 2));
    return _mm256_add_epi64(acc, _mm256_add_epi64(product, swapped));
}

/* AVX2 multiplies 32 by 32 bits only; the prime has 32. */
AVX2 ALWAYS_INLINE __m256i scramble_256(__m256i acc, const uint8_t *secret)
{
    __m256i prime = _mm256_set1_epi32((int)(uint32_t)BT_XXH3_PRIME32_1);
    acc = _mm256_xor_si256(acc, _mm256_srli_epi64(acc, 47));
    acc = _mm256_xor_si256(acc, _mm256_loadu_si256((const __m256i *)secret));
    __m256i low = _mm256_mul_epu32(acc, prime);
    __m256i high = _mm256_mul_epu32(_mm256_srli_epi64(acc, 32), prime);
    return _mm256_add_epi64(low, _mm256_slli_epi64(high, 32));
}

AVX2 ALWAYS_INLINE void add_rows_256(uint64_t *acc, const bt_fold_rows *rows, uint32_t first,
                                     bt_fold_kind kind)
{
    __m256i low = _mm256_load_si256((const __m256i *)acc);
    __m256i high = _mm256_load_si256((const __m256i *)(acc + 4));
    uint32_t in_block = first % BT_XXH3_BLOCK_STRIPES;
    for (uint32_t row = 0; row < rows->n_rows; row++) {
        const uint8_t *from = rows->from + row * rows->from_step;
        uint8_t *to = kind == BT_FOLD_READ ? NULL : rows->to + row * rows->to_step;
        for (uint32_t i = 0; i < rows->row_stripes; i++) {
            const uint8_t *secret = secret_at(8 * in_block);
            uint64_t at = (uint64_t)i * BT_XXH3_STRIPE_BYTES;
            low = add_half_256(low, kind == BT_FOLD_READ ? NULL : to + at, from + at, secret, kind);
            high = add_half_256(high, kind == BT_FOLD_READ ? NULL : to + at + HALF,
                                from + at + HALF, secret + HALF, kind);
            if (++in_block == BT_XXH3_BLOCK_STRIPES) {
                low = scramble_256(low, secret_at(BT_XXH3_SECRET_SCRAMBLE));
                high = scramble_256(high, secret_at(BT_XXH3_SECRET_SCRAMBLE + HALF));
                in_block = 0;
            }
        }
    }
    _mm256_store_si256((__m256i *)acc, low);
    _mm256_store_si256((__m256i *)(acc + 4), high);
}

AVX2 static void rows_256(uint64_t acc[BT_XXH3_LANES], const bt_fold_rows *rows, uint32_t first,
                          bt_fold_kind kind)
{
    if (kind == BT_FOLD_STREAM)
        add_rows_256(acc, rows, first, BT_FOLD_STREAM);
    else if (kind == BT_FOLD_COPY)
        add_rows_256(acc, rows, first, BT_FOLD_COPY);
    else
        add_rows_256(acc, rows, first, BT_FOLD_READ);
}

AVX2 static void last_256(uint64_t acc[BT_XXH3_LANES], uint8_t *to, const uint8_t *from,
                          bt_fold_kind kind)
{
    const uint8_t *secret = secret_at(BT_XXH3_SECRET_LAST);
    __m256i low = _mm256_load_si256((const __m256i *)acc);
    __m256i high = _mm256_load_si256((const __m256i *)(acc + 4));
    low = add_half_256(low, to, from, secret, kind);
    high = add_half_256(high, kind == BT_FOLD_READ ? NULL : to + HALF, from + HALF, secret + HALF,
                        kind);
    _mm256_store_si256((__m256i *)acc, low);
    _mm256_store_si256((__m256i *)(acc + 4), high);
}

static const bt_fold_ops versions[] = {
    {"avx512", has_avx512, rows_512, last_512, fence_streams},
    {"avx2", has_avx2, rows_256, last_256, fence_streams},
};

const bt_fold_ops *bt_fold_versions(size_t *n)
{
    *n = sizeof(versions) / sizeof(versions[0]);
    return versions;
}
#else
const bt_fold_ops *bt_fold_versions(size_t *n)
{
    *n = 0;
    return NULL;
}
#endif

const bt_fold_ops *bt_fold_best(void)
{
    size_t n;
    const bt_fold_ops *ops = bt_fold_versions(&n);
    for (size_t i = 0; i < n; i++) {
        if (ops[i].is_supported())
            return &ops[i];
    }
    return NULL;
}
