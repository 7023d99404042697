/* SPDX-License-Identifier: Apache-2.0 */
/* bf16 and IEEE half precision, to f32 (exact) and back (round to nearest even). Thread rule: any
 * thread. */
#ifndef BT_ENGINE_HALF_H
#define BT_ENGINE_HALF_H
#include <stdint.h>
#include <string.h>

static inline float bt_f32_of_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof(value));
    return value;
}

static inline uint32_t bt_bits_of_f32(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof(bits));
    return bits;
}

static inline float bt_bf16_to_f32(uint16_t half)
{
    return bt_f32_of_bits((uint32_t)half << 16);
}

static inline uint16_t bt_f32_to_bf16(float value)
{
    uint32_t bits = bt_bits_of_f32(value);
    uint32_t rounded = (bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16;
    /* A NaN must not become infinite when its payload lies in the bits that go. */
    uint32_t quiet = (bits >> 16) | 0x40u;
    return (uint16_t)((bits & 0x7fffffffu) > 0x7f800000u ? quiet : rounded);
}

static inline float bt_f16_to_f32(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16;
    uint32_t exponent = (half >> 10) & 0x1fu, mantissa = half & 0x3ffu;
    if (exponent == 0x1f) /* infinite or NaN, made quiet as hardware does */
        return bt_f32_of_bits(sign | 0x7f800000u | mantissa << 13 | (mantissa ? 0x400000u : 0u));
    if (exponent != 0)
        return bt_f32_of_bits(sign | (exponent + 112u) << 23 | mantissa << 13);
    float tiny = (float)mantissa * 0x1p-24f; /* zero or subnormal */
    return bt_f32_of_bits(bt_bits_of_f32(tiny) | sign);
}

static inline uint16_t bt_f32_to_f16(float value)
{
    uint32_t bits = bt_bits_of_f32(value), magnitude = bits & 0x7fffffffu;
    uint16_t sign = (uint16_t)((bits >> 16) & 0x8000u);
    if (magnitude > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00u | ((magnitude >> 13) & 0x3ffu));
    if (magnitude >= 0x477ff000u) /* 65520 and above round to infinite */
        return (uint16_t)(sign | 0x7c00u);
    if (magnitude < 0x38800000u) { /* below 2^-14: adding 0.5 rounds to steps of 2^-24 */
        uint32_t sum = bt_bits_of_f32(bt_f32_of_bits(magnitude) + 0.5f);
        return (uint16_t)(sign | (sum - 0x3f000000u));
    }
    uint32_t rounded = magnitude + 0xfffu + ((magnitude >> 13) & 1u);
    return (uint16_t)(sign | ((rounded - 0x38000000u) >> 13));
}

#endif
