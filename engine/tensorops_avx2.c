/* SPDX-License-Identifier: Apache-2.0 */
/* AVX2 with FMA: a panel goes in two halves of two registers; up to six rows share each load of
 * weights (12 sums of the 16 registers). */
#include "engine/tensorops_simd.h"

#ifdef __x86_64__
#include <cpuid.h>
#include <immintrin.h>

#define BT_TARGET __attribute__((target("avx2,fma,f16c")))
#define BT_OWN_MOVES
#include "engine/tensorops_rows.h"

#define ALWAYS_INLINE static inline __attribute__((always_inline)) BT_TARGET
enum { LANES = 8, HALF_PANEL = 2 * LANES, MAX_ROWS = 6 };

ALWAYS_INLINE __m256 load_f32(const float *w)
{
    return _mm256_loadu_ps(w);
}

ALWAYS_INLINE __m256 load_bf16(const uint16_t *w)
{
    __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)w));
    return _mm256_castsi256_ps(_mm256_slli_epi32(wide, 16));
}

ALWAYS_INLINE __m256 load_f16(const uint16_t *w)
{
    return _mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)w));
}

/* ROWS is a constant after inlining, so that the sums are registers. */
#define DEFINE_TILE(NAME, TYPE, LOAD)                                                          \
    ALWAYS_INLINE void rows_##NAME(const bt_tile *tile, uint32_t first, uint32_t column,       \
                                   const uint32_t n_rows)                                      \
    {                                                                                          \
        const float *x = tile->x + first * tile->x_stride;                                     \
        float *out = tile->out + first * tile->out_stride + column;                            \
        const TYPE *w = (const TYPE *)tile->w + column;                                        \
        const size_t x_stride = tile->x_stride, w_stride = tile->w_stride;                     \
        __m256 low[MAX_ROWS], high[MAX_ROWS];                                                  \
        _Pragma("GCC unroll 6") for (uint32_t r = 0; r < n_rows; r++)                          \
        {                                                                                      \
            const float *start = out + r * tile->out_stride;                                   \
            low[r] = tile->accumulate ? _mm256_loadu_ps(start) : _mm256_setzero_ps();          \
            high[r] = tile->accumulate ? _mm256_loadu_ps(start + LANES) : _mm256_setzero_ps(); \
        }                                                                                      \
        for (uint32_t i = 0; i < tile->n_in; i++, w += w_stride) {                             \
            __m256 w_low = LOAD(w), w_high = LOAD(w + LANES);                                  \
            _Pragma("GCC unroll 6") for (uint32_t r = 0; r < n_rows; r++)                      \
            {                                                                                  \
                __m256 factor = _mm256_set1_ps(x[r * x_stride + i]);                           \
                low[r] = _mm256_fmadd_ps(factor, w_low, low[r]);                               \
                high[r] = _mm256_fmadd_ps(factor, w_high, high[r]);                            \
            }                                                                                  \
        }                                                                                      \
        _Pragma("GCC unroll 6") for (uint32_t r = 0; r < n_rows; r++)                          \
        {                                                                                      \
            _mm256_storeu_ps(out + r * tile->out_stride, low[r]);                              \
            _mm256_storeu_ps(out + r * tile->out_stride + LANES, high[r]);                     \
        }                                                                                      \
    }                                                                                          \
    static BT_TARGET void tile_##NAME(const bt_tile *tile)                                     \
    {                                                                                          \
        for (uint32_t column = 0; column < BT_PANEL; column += HALF_PANEL) {                   \
            uint32_t row = 0;                                                                  \
            for (; row + 6 <= tile->n_rows; row += 6)                                          \
                rows_##NAME(tile, row, column, 6);                                             \
            for (; row + 4 <= tile->n_rows; row += 4)                                          \
                rows_##NAME(tile, row, column, 4);                                             \
            for (; row + 2 <= tile->n_rows; row += 2)                                          \
                rows_##NAME(tile, row, column, 2);                                             \
            for (; row < tile->n_rows; row++)                                                  \
                rows_##NAME(tile, row, column, 1);                                             \
        }                                                                                      \
    }

DEFINE_TILE(f32, float, load_f32)
DEFINE_TILE(bf16, uint16_t, load_bf16)
DEFINE_TILE(f16, uint16_t, load_f16)

static BT_TARGET void widen_bf16(float *restrict out, const uint16_t *restrict in, size_t n)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        _mm256_storeu_ps(out + i, load_bf16(in + i));
    for (; i < n; i++) {
        uint32_t bits = (uint32_t)in[i] << 16;
        memcpy(&out[i], &bits, sizeof(bits));
    }
}

ALWAYS_INLINE void transpose_8(float *out, size_t out_stride, const float *in, size_t in_stride)
{
    __m256 b[LANES];
    for (size_t i = 0; i < LANES;
         i += 4) { /* b[i + c]: column c of both lanes of rows i to i + 3 */
        __m256 r0 = _mm256_loadu_ps(in + i * in_stride);
        __m256 r1 = _mm256_loadu_ps(in + (i + 1) * in_stride);
        __m256 r2 = _mm256_loadu_ps(in + (i + 2) * in_stride);
        __m256 r3 = _mm256_loadu_ps(in + (i + 3) * in_stride);
        __m256 low01 = _mm256_unpacklo_ps(r0, r1), high01 = _mm256_unpackhi_ps(r0, r1);
        __m256 low23 = _mm256_unpacklo_ps(r2, r3), high23 = _mm256_unpackhi_ps(r2, r3);
        b[i] = _mm256_shuffle_ps(low01, low23, 0x44);
        b[i + 1] = _mm256_shuffle_ps(low01, low23, 0xee);
        b[i + 2] = _mm256_shuffle_ps(high01, high23, 0x44);
        b[i + 3] = _mm256_shuffle_ps(high01, high23, 0xee);
    }
    for (size_t c = 0; c < 4; c++) {
        _mm256_storeu_ps(out + c * out_stride, _mm256_permute2f128_ps(b[c], b[4 + c], 0x20));
        _mm256_storeu_ps(out + (4 + c) * out_stride, _mm256_permute2f128_ps(b[c], b[4 + c], 0x31));
    }
}

static BT_TARGET void transpose(float *restrict out, size_t out_stride, const float *restrict in,
                                size_t in_stride)
{
    for (size_t r = 0; r < BT_LANES; r += LANES)
        for (size_t c = 0; c < BT_LANES; c += LANES)
            transpose_8(out + c * out_stride + r, out_stride, in + r * in_stride + c, in_stride);
}

/* clang 14 does not know "f16c" as a name for __builtin_cpu_supports. */
static bool has_f16c(void)
{
    unsigned a, b, c, d;
    return __get_cpuid(1, &a, &b, &c, &d) != 0 && (c & bit_F16C) != 0;
}

const bt_ops *bt_ops_avx2(void)
{
    static const bt_ops ops = {"avx2",    tile_f32,      tile_bf16,  tile_f16, max_block,
                               exp_block, silu_multiply, widen_bf16, transpose};
    bool there = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && has_f16c();
    return there ? &ops : NULL;
}

#else
const bt_ops *bt_ops_avx2(void)
{
    return NULL;
}
#endif
