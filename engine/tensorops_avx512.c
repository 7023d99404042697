/* SPDX-License-Identifier: Apache-2.0 */
/* AVX-512: a panel is two registers; up to 12 rows share each load of weights (24 sums, which is
 * what two units with a latency of four cycles need and the register file holds). */
#include "engine/tensorops_simd.h"

#ifdef __x86_64__
#include <immintrin.h>

#define BT_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")))
#define BT_OWN_BLOCKS
#define BT_OWN_MOVES
#include "engine/tensorops_rows.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline)) BT_TARGET
enum { LANES = 16, MAX_ROWS = 12 };

ALWAYS_INLINE __m512 load_f32(const float *w)
{
    return _mm512_loadu_ps(w);
}

ALWAYS_INLINE __m512 load_bf16(const uint16_t *w)
{
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)w));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}

ALWAYS_INLINE __m512 load_f16(const uint16_t *w)
{
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)w));
}

/* ROWS is a constant after inlining, so that the sums are registers. */
#define DEFINE_TILE(NAME, TYPE, LOAD)                                                          \
    ALWAYS_INLINE void rows_##NAME(const bt_tile *tile, uint32_t first, const uint32_t n_rows) \
    {                                                                                          \
        const float *x = tile->x + first * tile->x_stride;                                     \
        float *out = tile->out + first * tile->out_stride;                                     \
        const TYPE *w = tile->w;                                                               \
        const size_t x_stride = tile->x_stride, w_stride = tile->w_stride;                     \
        __m512 low[MAX_ROWS], high[MAX_ROWS];                                                  \
        _Pragma("GCC unroll 12") for (uint32_t r = 0; r < n_rows; r++)                         \
        {                                                                                      \
            const float *start = out + r * tile->out_stride;                                   \
            low[r] = tile->accumulate ? _mm512_loadu_ps(start) : _mm512_setzero_ps();          \
            high[r] = tile->accumulate ? _mm512_loadu_ps(start + LANES) : _mm512_setzero_ps(); \
        }                                                                                      \
        for (uint32_t i = 0; i < tile->n_in; i++, w += w_stride) {                             \
            __m512 w_low = LOAD(w), w_high = LOAD(w + LANES);                                  \
            _Pragma("GCC unroll 12") for (uint32_t r = 0; r < n_rows; r++)                     \
            {                                                                                  \
                __m512 factor = _mm512_set1_ps(x[r * x_stride + i]);                           \
                low[r] = _mm512_fmadd_ps(factor, w_low, low[r]);                               \
                high[r] = _mm512_fmadd_ps(factor, w_high, high[r]);                            \
            }                                                                                  \
        }                                                                                      \
        _Pragma("GCC unroll 12") for (uint32_t r = 0; r < n_rows; r++)                         \
        {                                                                                      \
            _mm512_storeu_ps(out + r * tile->out_stride, low[r]);                              \
            _mm512_storeu_ps(out + r * tile->out_stride + LANES, high[r]);                     \
        }                                                                                      \
    }                                                                                          \
    static BT_TARGET void tile_##NAME(const bt_tile *tile)                                     \
    {                                                                                          \
        uint32_t row = 0;                                                                      \
        for (; row + 12 <= tile->n_rows; row += 12)                                            \
            rows_##NAME(tile, row, 12);                                                        \
        for (; row + 8 <= tile->n_rows; row += 8)                                              \
            rows_##NAME(tile, row, 8);                                                         \
        for (; row + 4 <= tile->n_rows; row += 4)                                              \
            rows_##NAME(tile, row, 4);                                                         \
        for (; row + 2 <= tile->n_rows; row += 2)                                              \
            rows_##NAME(tile, row, 2);                                                         \
        for (; row < tile->n_rows; row++)                                                      \
            rows_##NAME(tile, row, 1);                                                         \
    }

DEFINE_TILE(f32, float, load_f32)
DEFINE_TILE(bf16, uint16_t, load_bf16)
DEFINE_TILE(f16, uint16_t, load_f16)

/* exp_one of tensorops_rows.h, operation by operation. */
ALWAYS_INLINE __m512 exp_16(__m512 x)
{
    const __m512 magic = _mm512_set1_ps(12582912.0f);
    x = _mm512_max_ps(_mm512_set1_ps(-87.0f), x); /* the second operand is what a NaN leaves */
    x = _mm512_min_ps(_mm512_set1_ps(88.0f), x);
    __m512 shifted = _mm512_fmadd_ps(x, _mm512_set1_ps(1.44269504088896341f), magic);
    __m512 n = _mm512_sub_ps(shifted, magic);
    __m512 r = _mm512_fmadd_ps(n, _mm512_set1_ps(-0.693359375f), x);
    r = _mm512_fmadd_ps(n, _mm512_set1_ps(2.12194440e-4f), r);
    __m512 p = _mm512_set1_ps(1.9875691500e-4f);
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.3981999507e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(8.3334519073e-3f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(4.1665795894e-2f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(1.6666665459e-1f));
    p = _mm512_fmadd_ps(p, r, _mm512_set1_ps(5.0000001201e-1f));
    p = _mm512_add_ps(_mm512_fmadd_ps(_mm512_mul_ps(p, r), r, r), _mm512_set1_ps(1.0f));
    __m512i power = _mm512_add_epi32(_mm512_castps_si512(shifted), _mm512_set1_epi32(127));
    return _mm512_mul_ps(p, _mm512_castsi512_ps(_mm512_slli_epi32(power, 23)));
}

/* Lanes below n of the 16 from first on. */
ALWAYS_INLINE __mmask16 below(uint32_t n, uint32_t first)
{
    uint32_t left = n > first ? n - first : 0;
    return (__mmask16)(left >= LANES ? 0xffffu : (1u << left) - 1u);
}

static BT_TARGET float max_block(float scores[BT_KEY_BLOCK], uint32_t n)
{
    const __m512 none = _mm512_set1_ps(-INFINITY);
    __m512 x[4];
    for (uint32_t i = 0; i < 4; i++) {
        x[i] = _mm512_mask_loadu_ps(none, below(n, i * LANES), scores + i * LANES);
        _mm512_storeu_ps(scores + i * LANES, x[i]);
    }
    __m512 lanes = _mm512_max_ps(_mm512_max_ps(x[0], x[1]), _mm512_max_ps(x[2], x[3]));
    __m256 m8 = _mm256_max_ps(_mm512_castps512_ps256(lanes), _mm512_extractf32x8_ps(lanes, 1));
    __m128 m4 = _mm_max_ps(_mm256_castps256_ps128(m8), _mm256_extractf128_ps(m8, 1));
    __m128 m2 = _mm_max_ps(m4, _mm_movehl_ps(m4, m4));
    return _mm_cvtss_f32(_mm_max_ss(m2, _mm_shuffle_ps(m2, m2, 1)));
}

static BT_TARGET float exp_block(float scores[BT_KEY_BLOCK], uint32_t n, float shift)
{
    __m512 x[4], by = _mm512_set1_ps(shift);
    for (uint32_t i = 0; i < 4; i++) {
        x[i] = exp_16(_mm512_sub_ps(_mm512_loadu_ps(scores + i * LANES), by));
        x[i] = _mm512_maskz_mov_ps(below(n, i * LANES), x[i]);
        _mm512_storeu_ps(scores + i * LANES, x[i]);
    }
    __m512 lanes = _mm512_add_ps(_mm512_add_ps(x[0], x[1]), _mm512_add_ps(x[2], x[3]));
    __m256 s8 = _mm256_add_ps(_mm512_castps512_ps256(lanes), _mm512_extractf32x8_ps(lanes, 1));
    __m128 s4 = _mm_add_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
    __m128 s2 = _mm_add_ps(s4, _mm_movehl_ps(s4, s4));
    return _mm_cvtss_f32(_mm_add_ss(s2, _mm_shuffle_ps(s2, s2, 1)));
}

static BT_TARGET void widen_bf16(float *restrict out, const uint16_t *restrict in, size_t n)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        _mm512_storeu_ps(out + i, load_bf16(in + i));
    if (i == n)
        return;
    __mmask16 rest = below((uint32_t)(n - i), 0);
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_maskz_loadu_epi16(rest, in + i));
    _mm512_mask_storeu_ps(out + i, rest, _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16)));
}

/* Transposes 4 x 4 within each 128-bit lane, then the lanes. */
static BT_TARGET void transpose(float *restrict out, size_t out_stride, const float *restrict in,
                                size_t in_stride)
{
    __m512 a[LANES], b[LANES];
    for (size_t i = 0; i < LANES; i++)
        a[i] = _mm512_loadu_ps(in + i * in_stride);
    for (size_t i = 0; i < LANES; i += 4) { /* b[i + c]: column c of each lane of rows i to i + 3 */
        __m512 low01 = _mm512_unpacklo_ps(a[i], a[i + 1]);
        __m512 high01 = _mm512_unpackhi_ps(a[i], a[i + 1]);
        __m512 low23 = _mm512_unpacklo_ps(a[i + 2], a[i + 3]);
        __m512 high23 = _mm512_unpackhi_ps(a[i + 2], a[i + 3]);
        b[i] = _mm512_shuffle_ps(low01, low23, 0x44);
        b[i + 1] = _mm512_shuffle_ps(low01, low23, 0xee);
        b[i + 2] = _mm512_shuffle_ps(high01, high23, 0x44);
        b[i + 3] = _mm512_shuffle_ps(high01, high23, 0xee);
    }
    for (size_t c = 0; c < 4; c++) { /* lane l of b[4 * g + c] goes to lane g of row 4 * l + c */
        __m512 even01 = _mm512_shuffle_f32x4(b[c], b[4 + c], 0x88);
        __m512 odd01 = _mm512_shuffle_f32x4(b[c], b[4 + c], 0xdd);
        __m512 even23 = _mm512_shuffle_f32x4(b[8 + c], b[12 + c], 0x88);
        __m512 odd23 = _mm512_shuffle_f32x4(b[8 + c], b[12 + c], 0xdd);
        _mm512_storeu_ps(out + c * out_stride, _mm512_shuffle_f32x4(even01, even23, 0x88));
        _mm512_storeu_ps(out + (4 + c) * out_stride, _mm512_shuffle_f32x4(odd01, odd23, 0x88));
        _mm512_storeu_ps(out + (8 + c) * out_stride, _mm512_shuffle_f32x4(even01, even23, 0xdd));
        _mm512_storeu_ps(out + (12 + c) * out_stride, _mm512_shuffle_f32x4(odd01, odd23, 0xdd));
    }
}

const bt_ops *bt_ops_avx512(void)
{
    static const bt_ops ops = {"avx512",  tile_f32,      tile_bf16,  tile_f16, max_block,
                               exp_block, silu_multiply, widen_bf16, transpose};
    bool there = __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                 __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
    return there && bt_ops_avx2() != NULL ? &ops : NULL;
}

#else
const bt_ops *bt_ops_avx512(void)
{
    return NULL;
}
#endif
