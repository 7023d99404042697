/* SPDX-License-Identifier: Apache-2.0 */
/* AVX-512: a panel is two registers; up to 12 rows share each load of weights (24 sums, which is
 * what two units with a latency of four cycles need and the register file holds). */
#include "engine/tensorops_simd.h"

#ifdef __x86_64__
#include <immintrin.h>

#define BT_TARGET __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,avx2,fma,f16c")))
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

const bt_ops *bt_ops_avx512(void)
{
    static const bt_ops ops = {"avx512",  tile_f32,  tile_bf16,     tile_f16,
                               max_block, exp_block, silu_multiply, widen_bf16};
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
