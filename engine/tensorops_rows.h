/* SPDX-License-Identifier: Apache-2.0 */
/* The vector functions of bt_ops in plain C, included once per SIMD level by tensorops*.c, which
 * defines BT_TARGET as the level's function attribute. The compiler may vectorise them as it likes:
 * every element has its own fixed chain of operations. A level that defines BT_OWN_BLOCKS or
 * BT_OWN_MOVES brings max_block and exp_block, or widen_bf16 and transpose, itself. (No include
 * guard: a template.)
 *
 * Thread rule: any thread. */
#include <math.h>
#include <string.h>

static inline __attribute__((always_inline)) BT_TARGET float exp_one(float x)
{
    /* Cody and Waite's reduction, x = n ln 2 + r, and a polynomial (Cephes expf) for e^r. Adding
     * 1.5 * 2^23 rounds n to an integer and leaves it in the low bits. */
    const float magic = 12582912.0f;
    x = x < -87.0f ? -87.0f : x;
    x = x > 88.0f ? 88.0f : x;
    float shifted = __builtin_fmaf(x, 1.44269504088896341f, magic);
    float n = shifted - magic;
    float r = __builtin_fmaf(n, -0.693359375f, x);
    r = __builtin_fmaf(n, 2.12194440e-4f, r);
    float p = 1.9875691500e-4f;
    p = __builtin_fmaf(p, r, 1.3981999507e-3f);
    p = __builtin_fmaf(p, r, 8.3334519073e-3f);
    p = __builtin_fmaf(p, r, 4.1665795894e-2f);
    p = __builtin_fmaf(p, r, 1.6666665459e-1f);
    p = __builtin_fmaf(p, r, 5.0000001201e-1f);
    p = __builtin_fmaf(p * r, r, r) + 1.0f;
    uint32_t bits;
    memcpy(&bits, &shifted, sizeof(bits));
    bits = (bits + 127u) << 23;
    float power;
    memcpy(&power, &bits, sizeof(power));
    return p * power;
}

#ifndef BT_OWN_BLOCKS /* the level has its own */
static BT_TARGET float max_block(float scores[BT_KEY_BLOCK], uint32_t n)
{
    for (uint32_t i = n; i < BT_KEY_BLOCK; i++)
        scores[i] = -INFINITY;
    float lanes[BT_LANES];
    for (uint32_t i = 0; i < BT_LANES; i++) {
        float a = scores[i] > scores[i + 16] ? scores[i] : scores[i + 16];
        float b = scores[i + 32] > scores[i + 48] ? scores[i + 32] : scores[i + 48];
        lanes[i] = a > b ? a : b;
    }
    for (uint32_t width = BT_LANES / 2; width > 0; width /= 2)
        for (uint32_t i = 0; i < width; i++)
            lanes[i] = lanes[i] > lanes[i + width] ? lanes[i] : lanes[i + width];
    return lanes[0];
}

static BT_TARGET float exp_block(float scores[BT_KEY_BLOCK], uint32_t n, float shift)
{
    for (uint32_t i = 0; i < BT_KEY_BLOCK; i++)
        scores[i] = exp_one(scores[i] - shift);
    for (uint32_t i = n; i < BT_KEY_BLOCK; i++)
        scores[i] = 0;
    float lanes[BT_LANES];
    for (uint32_t i = 0; i < BT_LANES; i++)
        lanes[i] = (scores[i] + scores[i + 16]) + (scores[i + 32] + scores[i + 48]);
    for (uint32_t width = BT_LANES / 2; width > 0; width /= 2)
        for (uint32_t i = 0; i < width; i++)
            lanes[i] += lanes[i + width];
    return lanes[0];
}
#endif

static BT_TARGET void silu_multiply(float *restrict gate, const float *restrict up, size_t n)
{
    for (size_t i = 0; i < n; i++)
        gate[i] = gate[i] / (1.0f + exp_one(-gate[i])) * up[i];
}

#ifndef BT_OWN_MOVES
static BT_TARGET void widen_bf16(float *restrict out, const uint16_t *restrict in, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        uint32_t bits = (uint32_t)in[i] << 16;
        memcpy(&out[i], &bits, sizeof(bits));
    }
}

static BT_TARGET void transpose(float *restrict out, size_t out_stride, const float *restrict in,
                                size_t in_stride)
{
    for (size_t r = 0; r < BT_LANES; r++)
        for (size_t c = 0; c < BT_LANES; c++)
            out[c * out_stride + r] = in[r * in_stride + c];
}
#endif
