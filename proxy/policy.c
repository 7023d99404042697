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
    unsigned needs; /* BT_NEEDS_... */
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

/* What waits at an engine, and the handshake of a pair that has none yet. */
static uint64_t cost_of(const bt_policy_ask *ask, uint32_t i)
{
    const bt_policy_request *request = ask->request;
    const bt_load *load = &ask->loads[i];
    uint64_t cost = bt_load_cost(load);
    if (request == NULL || request->pairs == NULL || request->cold_tokens == 0)
        return cost;
    uint8_t life = atomic_load_explicit(&load->life, memory_order_relaxed);
    bool is_warm = bt_pair_is_warm(&request->pairs[i], life, request->decode_life);
    return is_warm ? cost : cost + request->cold_tokens;
}

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
            return (bt_choice){.index = (int)idx, .why = "turn"};
    }
    return (bt_choice){.index = -1, .why = "none"};
}

static bt_choice pick_by_lot(const bt_policy_state *state, const bt_policy_ask *ask, turn at)
{
    int drawn = draw(ask, state->seed + at.number, at.takes_down, -1);
    return (bt_choice){.index = drawn, .why = "lot"};
}

/* Nearly as even as asking all (Mitzenmacher 2001), and many loops that read the same figures do
 * not all go to the same engine. */
static bt_choice pick_of_two(const bt_policy_state *state, const bt_policy_ask *ask, turn at)
{
    uint64_t seed = state->seed + 2 * at.number;
    int one = draw(ask, seed, at.takes_down, -1);
    if (one < 0)
        return (bt_choice){.index = -1, .why = "none"};
    int other = draw(ask, seed + 1, at.takes_down, one);
    if (other < 0)
        return (bt_choice){.index = one, .why = "only"};
    bool is_lighter = cost_of(ask, (uint32_t)other) < cost_of(ask, (uint32_t)one);
    return (bt_choice){.index = is_lighter ? other : one, .why = "lighter"};
}

/* Among equals, whose turn it is. */
static bt_choice pick_least_loaded(const bt_policy_state *state, const bt_policy_ask *ask, turn at)
{
    bt_choice best = {.index = -1, .why = "least"};
    uint64_t best_cost = UINT64_MAX;
    uint32_t idx = start_of(state, ask, at);
    for (uint32_t i = 0; i < ask->n; i++, idx = idx + 1 == ask->n ? 0 : idx + 1) {
        uint64_t cost = cost_of(ask, idx);
        if (cost < best_cost && may_take(ask, idx, at.takes_down)) {
            best.index = (int)idx;
            best_cost = cost;
        }
    }
    return best;
}

/* Rendezvous hashing (Thaler, Ravishankar 1998): a session's engine is the one whose hash with it
 * is the highest. When an engine goes, only its own sessions move, to all others alike; one that
 * comes takes its share from all others alike. */
static bt_choice pick_by_session(const bt_policy_state *state, const bt_policy_ask *ask, turn at)
{
    uint64_t session = ask->request == NULL ? 0 : ask->request->session;
    bt_choice best = {.index = -1, .why = "session"};
    uint64_t best_score = 0;
    if (session == 0)
        return pick_least_loaded(state, ask, at);
    for (uint32_t i = 0; i < ask->n; i++) {
        uint64_t score = mix(session ^ ask->loads[i].id);
        if ((best.index < 0 || score > best_score) && may_take(ask, i, at.takes_down)) {
            best.index = (int)i;
            best_score = score;
        }
    }
    return best;
}

/* Of the match, in tokens; 0 when the engine cannot be taken, or has forgotten. */
static uint64_t matched_tokens(const bt_policy_ask *ask, const bt_prefix_match *match, turn at)
{
    const bt_policy_request *request = ask->request;
    uint32_t i = match->engine;
    if (i >= ask->n || !may_take(ask, i, at.takes_down) || request->n_prompt_bytes == 0 ||
        match->life != atomic_load_explicit(&ask->loads[i].life, memory_order_relaxed))
        return 0;
    uint64_t bytes = (uint64_t)match->n_blocks * BT_PREFIX_BLOCK_BYTES;
    return (uint64_t)((double)request->n_prompt_tokens * (double)bytes /
                      (double)request->n_prompt_bytes);
}

/* The engine with the least to do, were the prompt given to it: what waits there, and what of the
 * prompt it has not seen. An engine that has seen it is preferred for as much as that saves, and
 * never when it is busier than the least busy one by more than the window: else one engine gets
 * everything that begins alike. */
static bt_choice pick_by_prefix(const bt_policy_state *state, const bt_policy_ask *ask, turn at)
{
    bt_prefix_match matches[BT_PREFIX_MATCHES];
    bt_choice best = pick_least_loaded(state, ask, at);
    const bt_policy_request *request = ask->request;
    if (best.index < 0 || request == NULL || request->prompt == NULL || state->prefix == NULL)
        return best;
    uint64_t least = cost_of(ask, (uint32_t)best.index);
    uint64_t best_cost = least + request->n_prompt_tokens;
    uint32_t n = bt_prefix_index_find(state->prefix, request->prompt, matches);
    for (uint32_t i = 0; i < n; i++) {
        uint64_t matched = matched_tokens(ask, &matches[i], at);
        uint64_t load = cost_of(ask, matched > 0 ? matches[i].engine : 0);
        if (matched == 0 || load > least + state->window_tokens)
            continue;
        uint64_t cost = load + request->n_prompt_tokens - matched;
        if (cost < best_cost || (cost == best_cost && matched > best.matched_tokens)) {
            best = (bt_choice){(int)matches[i].engine, "prefix", matched};
            best_cost = cost;
        }
    }
    return best;
}

static const policy_row policies[BT_N_POLICIES] = {
    [BT_POLICY_ROUND_ROBIN] = {"round_robin", 0, pick_in_turn},
    [BT_POLICY_RANDOM] = {"random", 0, pick_by_lot},
    [BT_POLICY_POWER_OF_TWO] = {"power_of_two", 0, pick_of_two},
    [BT_POLICY_LEAST_LOADED] = {"least_loaded", 0, pick_least_loaded},
    [BT_POLICY_CONSISTENT_HASH] = {"consistent_hash", BT_NEEDS_SESSION, pick_by_session},
    [BT_POLICY_PREFIX_AWARE] = {"prefix_aware", BT_NEEDS_PROMPT, pick_by_prefix},
};

static bt_choice pick(const bt_policy_state *state, const bt_policy_ask *ask, uint64_t number)
{
    const policy_row *row = &policies[state->policy];
    if (ask->n == 0)
        return (bt_choice){.index = -1, .why = "none"};
    bt_choice choice = row->pick(state, ask, (turn){.number = number});
    if (choice.index < 0)
        choice = row->pick(state, ask, (turn){.number = number, .takes_down = true});
    return choice;
}

bt_choice bt_policy_pick(bt_policy_state *state, const bt_policy_ask *ask)
{
    uint64_t number = atomic_fetch_add_explicit(&state->turn, 1, memory_order_relaxed);
    bt_choice choice = pick(state, ask, number);
    bool is_noted = choice.index >= 0 && state->prefix != NULL && ask->request != NULL &&
                    ask->request->prompt != NULL;
    if (is_noted)
        bt_prefix_index_note(
            state->prefix, ask->request->prompt, (uint32_t)choice.index,
            atomic_load_explicit(&ask->loads[choice.index].life, memory_order_relaxed));
    return choice;
}

bt_choice bt_policy_peek(const bt_policy_state *state, const bt_policy_ask *ask)
{
    return pick(state, ask, atomic_load_explicit(&state->turn, memory_order_relaxed));
}

unsigned bt_policy_needs(bt_policy policy)
{
    return policies[policy].needs;
}

const char *bt_policy_name(unsigned policy)
{
    return policy < BT_N_POLICIES ? policies[policy].name : NULL;
}
