/* SPDX-License-Identifier: Apache-2.0 */
/* Which pairs of a prefill and a decode engine have handed over before. The first hand-off of a
 * pair pays for their handshake: a warm pair has done that, in the present lives of both.
 *
 * Thread rule: any thread. Relaxed: nothing hangs on a mark but how good a choice is. */
#ifndef BT_PROXY_PAIRS_H
#define BT_PROXY_PAIRS_H
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

/* 0: never; else the lives of both when they did. */
typedef _Atomic uint32_t bt_pair;

static inline uint32_t bt_pair_mark(uint8_t prefill_life, uint8_t decode_life)
{
    return UINT32_C(1) << 16 | (uint32_t)prefill_life << 8 | decode_life;
}

static inline bool bt_pair_is_warm(const bt_pair *pair, uint8_t prefill_life, uint8_t decode_life)
{
    return atomic_load_explicit(pair, memory_order_relaxed) ==
           bt_pair_mark(prefill_life, decode_life);
}

/* They have handed over. Read first: while all are warm, loops do not fight for the line. */
static inline void bt_pair_warm(bt_pair *pair, uint8_t prefill_life, uint8_t decode_life)
{
    if (!bt_pair_is_warm(pair, prefill_life, decode_life))
        atomic_store_explicit(pair, bt_pair_mark(prefill_life, decode_life), memory_order_relaxed);
}

#endif
