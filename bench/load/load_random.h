/* SPDX-License-Identifier: Apache-2.0 */
/* Random numbers (splitmix64), a stream of their own for every request and purpose: what a request
 * is does not depend on the order in which requests are made.
 * Thread rule: any thread (no state). */
#ifndef BT_BENCH_LOAD_RANDOM_H
#define BT_BENCH_LOAD_RANDOM_H
#include <stdint.h>

typedef enum {
    BT_LOAD_FOR_SAMPLING,
    BT_LOAD_FOR_PROMPT,
    BT_LOAD_FOR_OUTPUT,
    BT_LOAD_FOR_GAP,
    BT_LOAD_FOR_PREFIX,
    BT_LOAD_FOR_LENGTH,
} bt_load_purpose;

static inline uint64_t bt_load_mix(uint64_t z)
{
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

/* The state of a stream at its beginning. */
static inline uint64_t bt_load_stream(uint64_t seed, bt_load_purpose purpose, uint32_t i)
{
    return bt_load_mix(bt_load_mix(seed + (uint64_t)purpose) + i);
}

static inline uint64_t bt_load_next(uint64_t *state)
{
    return bt_load_mix(*state += UINT64_C(0x9e3779b97f4a7c15));
}

/* In (0, 1]. */
static inline double bt_load_next_uniform(uint64_t *state)
{
    return (double)((bt_load_next(state) >> 11) + 1) * 0x1p-53;
}

#endif
