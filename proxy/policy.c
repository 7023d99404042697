/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/policy.h"

#include <stddef.h>

enum { LEG_TOKENS = 256, DRAWS = 8 };

/* One pick's place in the order of all. */
typedef struct {
    uint64_t number;
    bool takes_down; /* nothing else is left */
} turn;

typedef struct {
    const char *name;
    bt_choice (*pick)(const bt_policy_state *state, const bt_policy_ask *ask, turn at);
} policy_row;

/* Loads. */

uint64_t bt_load_cost(const bt_load *load)
{
    uint64_t legs = atomic_load_explicit(&load->legs, memory_order_relaxed);
    return legs * LEG_TOKENS + atomic_load_explicit(&load->queued_tokens, memory_order_relaxed) +
           atomic_load_explicit(&load->held_tokens, memory_order_relaxed);
}

void bt_load_add(bt_load *load, bt_burden burden)
{
    atomic_fetch_add_explicit(&load->legs, 1, memory_order_relaxed);
    atomic_fetch_add_explicit(&load->queued_tokens, burden.queued_tokens, memory_order_relaxed);
    atomic_fetch_add_explicit(&load->held_tokens, burden.held_tokens, memory_order_relaxed);
}

void bt_load_remove(bt_load *load, bt_burden burden)
{
    atomic_fetch_sub_explicit(&load->legs, 1, memory_order_relaxed);
    atomic_fetch_sub_explicit(&load->queued_tokens, burden.queued_tokens, memory_order_relaxed);
    atomic_fetch_sub_explicit(&load->held_tokens, burden.held_tokens, memory_order_relaxed);
}

void bt_load_computed(bt_load *load, bt_burden burden)
{
    atomic_fetch_sub_explicit(&load->queued_tokens, burden.queued_tokens, memory_order_relaxed);
}

/* Candidates. */

static bool may_take(const bt_policy_ask *ask, uint32_t i, bool takes_down)
{
    if (ask->tried != NULL && (ask->tried[i / 64] >> (i % 64) & 1) != 0)
        return false;
    return takes_down || !atomic_load_explicit(&ask->loads[i].is_down, memory_order_relaxed);
}

/* Candidates but `except`; -1: no exception. */
static uint32_t count(const bt_policy_ask *ask, bool takes_down, int except)
{
    uint32_t n = 0;
    for (uint32_t i = 0; i < ask->n; i++)
        n += (int)i != except && may_take(ask, i, takes_down);
    return n;
}

uint32_t bt_policy_candidates(const bt_policy_ask *ask)
{
    uint32_t n_up = count(ask, false, -1);
    return n_up > 0 ? n_up : count(ask, true, -1);
}

/* Drawing lots. */

/* splitmix64 (Steele, Lea, Flood 2014): every value of a counter gives a number that looks drawn.
 */
static uint64_t mix(uint64_t x)
{
    x += UINT64_C(0x9e3779b97f4a7c15);
    x = (x ^ x >> 30) * UINT64_C(0xbf58476d1ce4e5b9);
    x = (x ^ x >> 27) * UINT64_C(0x94d049bb133111eb);
    return x ^ x >> 31;
}

/* Below n, each as likely as any other to within n / 2^32. */
static uint32_t below(uint64_t drawn, uint32_t n)
{
    return (uint32_t)((drawn >> 32) * n >> 32);
}

/* A candidate other than `except`, each as likely; -1: there is none. Nearly always the first draw
 * is one; counting them all is for pools in which few are. */
static int draw(const bt_policy_ask *ask, uint64_t seed, bool takes_down, int except)
{
    uint64_t drawn = mix(seed);
    for (int i = 0; i < DRAWS; i++, drawn = mix(drawn)) {
        uint32_t at = below(drawn, ask->n);
        if ((int)at != except && may_take(ask, at, takes_down))
            return (int)at;
    }
    uint32_t n = count(ask, takes_down, except);
    uint32_t left = n == 0 ? 0 : below(drawn, n);
    for (uint32_t i = 0; i < ask->n; i++) {
        if ((int)i != except && may_take(ask, i, takes_down) && left-- == 0)
            return (int)i;
    }
    return -1;
}

/* Policies. */

/* Two counters modulo two lengths marry pools of equal size: P0 would only ever meet D0. */
static uint32_t start_of(const bt_policy_state *state, const bt_policy_ask *ask, turn at)
{
    uint64_t start = at.number + (state->shifts ? at.number / ask->n : 0);
    return (uint32_t)(start % ask->n);
}

static bt_choice pick_in_turn(const bt_policy_state *state, const bt_policy_ask *ask, turn at)
{
    uint32_t idx = start_of(state, ask, at);
    for (uint32_t i = 0; i < ask->n; i++, idx = idx + 1 == ask->n ? 0 : idx + 1) {
        if (may_take(ask, idx, at.takes_down))
            return (bt_choice){(int)idx, "turn"};
    }
    return (bt_choice){-1, "none"};
}

static bt_choice pick_by_lot(const bt_policy_state *state, const bt_policy_ask *ask, turn at)
{
    return (bt_choice){draw(ask, state->seed + at.number, at.takes_down, -1), "lot"};
}

/* Nearly as even as asking all (Mitzenmacher 2001), and many loops that read the same figures do
 * not all go to the same engine. */
static bt_choice pick_of_two(const bt_policy_state *state, const bt_policy_ask *ask, turn at)
{
    uint64_t seed = state->seed + 2 * at.number;
    int one = draw(ask, seed, at.takes_down, -1);
    if (one < 0)
        return (bt_choice){-1, "none"};
    int other = draw(ask, seed + 1, at.takes_down, one);
    if (other < 0)
        return (bt_choice){one, "only"};
    bool is_lighter = bt_load_cost(&ask->loads[other]) < bt_load_cost(&ask->loads[one]);
    return (bt_choice){is_lighter ? other : one, "lighter"};
}

/* Among equals, whose turn it is. */
static bt_choice pick_least_loaded(const bt_policy_state *state, const bt_policy_ask *ask, turn at)
{
    bt_choice best = {-1, "least"};
    uint64_t best_cost = UINT64_MAX;
    uint32_t idx = start_of(state, ask, at);
    for (uint32_t i = 0; i < ask->n; i++, idx = idx + 1 == ask->n ? 0 : idx + 1) {
        uint64_t cost = bt_load_cost(&ask->loads[idx]);
        if (cost < best_cost && may_take(ask, idx, at.takes_down)) {
            best.index = (int)idx;
            best_cost = cost;
        }
    }
    return best;
}

static const policy_row policies[BT_N_POLICIES] = {
    [BT_POLICY_ROUND_ROBIN] = {"round_robin", pick_in_turn},
    [BT_POLICY_RANDOM] = {"random", pick_by_lot},
    [BT_POLICY_POWER_OF_TWO] = {"power_of_two", pick_of_two},
    [BT_POLICY_LEAST_LOADED] = {"least_loaded", pick_least_loaded},
};

bt_choice bt_policy_pick(bt_policy_state *state, const bt_policy_ask *ask)
{
    const policy_row *row = &policies[state->policy];
    if (ask->n == 0)
        return (bt_choice){-1, "none"};
    turn at = {.number = atomic_fetch_add_explicit(&state->turn, 1, memory_order_relaxed)};
    bt_choice choice = row->pick(state, ask, at);
    if (choice.index < 0) {
        at.takes_down = true;
        choice = row->pick(state, ask, at);
    }
    return choice;
}

const char *bt_policy_name(unsigned policy)
{
    return policy < BT_N_POLICIES ? policies[policy].name : NULL;
}
