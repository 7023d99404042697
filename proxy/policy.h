/* SPDX-License-Identifier: Apache-2.0 */
/* How one engine is chosen among those of a role: policies, as rows of a table.
 *
 *   name, what it needs --> row --> pick(state, ask, turn) --> engine, and why
 *
 * A pick reads the engines' loads and what the ask says of the request; it changes nothing but the
 * state's turn and prefix index, so that a test gives it loads of its own. What is drawn by lot
 * comes from the state's seed and turn: the same seed makes the same picks.
 *
 * Loads are global atomics that all threads add to and read with relaxed order: a figure that is a
 * moment old makes a choice a little less good, never wrong.
 *
 * Thread rule: init before threads start; everything else from any thread. */
#ifndef BT_PROXY_POLICY_H
#define BT_PROXY_POLICY_H
#include "proxy/pairs.h"
#include "proxy/prefixindex.h"

#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

typedef enum {
    BT_POLICY_ROUND_ROBIN,
    BT_POLICY_RANDOM,
    BT_POLICY_POWER_OF_TWO,
    BT_POLICY_LEAST_LOADED,
    BT_POLICY_CONSISTENT_HASH,
    BT_POLICY_PREFIX_AWARE,
    BT_N_POLICIES
} bt_policy;

/* What one leg brings to an engine, from its start to its end. */
typedef struct {
    uint64_t queued_tokens; /* of the prompt, to be computed there */
    uint64_t held_tokens;   /* of KV that are, or will be, kept there */
} bt_burden;

/* How busy one engine is. A cache line each, so that loops that count on different engines do not
 * fight for one. */
typedef struct {
    _Atomic uint32_t legs;          /* that it is working on */
    _Atomic bool is_down;           /* could not be reached: others are preferred */
    _Atomic uint64_t queued_tokens; /* sums of the legs' burdens */
    _Atomic uint64_t held_tokens;
    uint64_t id;          /* hash of the engine's name; set before threads start */
    _Atomic uint8_t life; /* of the engine: what it knew in a former one is lost */
    char pad[24];
} bt_load;

/* What some policies must know of the request; all may be zero. Borrowed. */
typedef struct {
    uint64_t session; /* hash of what names the client's session; 0: nothing does */
    const bt_prefix_blocks *prompt;
    uint64_t n_prompt_tokens, n_prompt_bytes;
    const bt_pair
        *pairs; /* [n] each prefill engine with the decode engine chosen; NULL: no matter */
    uint8_t decode_life;
    uint64_t cold_tokens; /* what a pair's first hand-off costs */
} bt_policy_request;

enum { BT_NEEDS_SESSION = 1, BT_NEEDS_PROMPT = 2 };

/* What is known when an engine is to be chosen. Borrowed. */
typedef struct {
    const bt_load *loads; /* [n] */
    uint32_t n;
    const uint64_t *tried;            /* [(n + 63) / 64] bit i: not engine i; NULL: any */
    const bt_policy_request *request; /* NULL: nothing is known of it */
} bt_policy_ask;

typedef struct {
    bt_policy policy;
    uint64_t seed;
    bool shifts;             /* round robin starts one further after each full round */
    bt_prefix_index *prefix; /* who has seen what; owned; NULL: not kept */
    uint64_t window_tokens;  /* an engine busier than the least busy by more is not preferred */
    _Atomic uint64_t turn;
} bt_policy_state;

typedef struct {
    int index; /* -1: every engine is among the tried */
    const char *why;
    uint64_t matched_tokens; /* of the prompt, which the engine has seen; prefix_aware only */
} bt_choice;

/* The engine that the state's policy names. Engines that are down are named only when nothing else
 * is left. */
bt_choice bt_policy_pick(bt_policy_state *state, const bt_policy_ask *ask);
/* The same, but nothing is noted: what a pick would say now. */
bt_choice bt_policy_peek(const bt_policy_state *state, const bt_policy_ask *ask);
/* Engines that a pick can name: untried, and up when one of them is. */
uint32_t bt_policy_candidates(const bt_policy_ask *ask);

/* BT_NEEDS_...: what of the request is worth finding out. */
unsigned bt_policy_needs(bt_policy policy);
/* "round_robin", ...; NULL beyond the last. */
const char *bt_policy_name(unsigned policy);

/* What least_loaded compares: tokens queued and held, and as many as a chunk has for each leg. */
uint64_t bt_load_cost(const bt_load *load);
void bt_load_add(bt_load *load, bt_burden burden);
void bt_load_remove(bt_load *load, bt_burden burden);
/* The burden's queued tokens are computed; what is removed later has none. */
void bt_load_computed(bt_load *load, bt_burden burden);

#endif
