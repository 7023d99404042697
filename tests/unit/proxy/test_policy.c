/* SPDX-License-Identifier: Apache-2.0 */
/* Policies over simulated engines: loads in an array, and nothing behind them. */
#include "proxy/policy.h"
#include "support/test.h"

#include <stdio.h>

enum { MANY = 1000 };

static bt_load loads[MANY];
static uint64_t tried[(MANY + 63) / 64];
static uint32_t picked[MANY];

static bt_policy_state state_of(bt_policy policy)
{
    memset(loads, 0, sizeof(loads));
    memset(tried, 0, sizeof(tried));
    memset(picked, 0, sizeof(picked));
    return (bt_policy_state){.policy = policy, .seed = 42};
}

static void name_engines(uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        loads[i].id = (uint64_t)(i + 1) * UINT64_C(0x9e3779b97f4a7c15);
}

static bt_policy_ask ask_of(uint32_t n)
{
    return (bt_policy_ask){.loads = loads, .n = n, .tried = tried};
}

static void pick_n(bt_policy_state *policy, uint32_t n_engines, uint32_t n_picks)
{
    bt_policy_ask ask = ask_of(n_engines);
    for (uint32_t i = 0; i < n_picks; i++) {
        bt_choice choice = bt_policy_pick(policy, &ask);
        assert_in_range(choice.index, 0, n_engines - 1);
        picked[choice.index]++;
    }
}

static void every_policy_has_a_name_and_names_an_untried_engine_that_is_up(void **unused)
{
    (void)unused;
    for (unsigned p = 0; p < BT_N_POLICIES; p++) {
        bt_policy_state policy = state_of((bt_policy)p);
        bt_policy_ask ask = ask_of(70);
        assert_non_null(bt_policy_name(p));
        assert_int_equal(bt_policy_pick(&policy, &(bt_policy_ask){.loads = loads}).index, -1);
        /* Of seventy, 3 and 66 are left, and 3 is down. */
        tried[0] = ~(UINT64_C(1) << 3);
        tried[1] = 0x3f & ~(UINT64_C(1) << 2);
        loads[3].is_down = true;
        assert_int_equal(bt_policy_candidates(&ask), 1);
        for (int i = 0; i < 20; i++)
            assert_int_equal(bt_policy_pick(&policy, &ask).index, 66);
        loads[66].is_down = true; /* nothing is up: then one that is down */
        assert_int_equal(bt_policy_candidates(&ask), 2);
        tried[1] |= UINT64_C(1) << 2;
        for (int i = 0; i < 20; i++)
            assert_int_equal(bt_policy_pick(&policy, &ask).index, 3);
        tried[0] = UINT64_MAX;
        assert_int_equal(bt_policy_candidates(&ask), 0);
        assert_int_equal(bt_policy_pick(&policy, &ask).index, -1);
    }
    assert_null(bt_policy_name(BT_N_POLICIES));
}

static void the_same_seed_makes_the_same_picks(void **unused)
{
    (void)unused;
    for (unsigned p = 0; p < BT_N_POLICIES; p++) {
        bt_policy_state one = state_of((bt_policy)p), same = one, other = one;
        bt_policy_ask ask = ask_of(50);
        uint32_t n_differ = 0;
        other.seed = 43;
        for (int i = 0; i < 200; i++) {
            int index = bt_policy_pick(&one, &ask).index;
            assert_int_equal(bt_policy_pick(&same, &ask).index, index);
            n_differ += bt_policy_pick(&other, &ask).index != index;
        }
        bool is_by_lot = p == BT_POLICY_RANDOM || p == BT_POLICY_POWER_OF_TWO;
        assert_int_equal(n_differ > 100, is_by_lot);
    }
}

static void lots_fall_on_everyone_alike(void **unused)
{
    (void)unused;
    bt_policy_state policy = state_of(BT_POLICY_RANDOM);
    pick_n(&policy, 10, 10000);
    /* 1000 each; 30 is the standard deviation. */
    for (int i = 0; i < 10; i++)
        assert_in_range(picked[i], 850, 1150);
}

/* Also when most of the pool is down, so that draws hardly ever hit. */
static void lots_fall_on_the_few_that_are_up_alike(void **unused)
{
    (void)unused;
    bt_policy_state policy = state_of(BT_POLICY_RANDOM);
    for (uint32_t i = 0; i < MANY; i++)
        loads[i].is_down = i % 250 != 7;
    pick_n(&policy, MANY, 4000);
    for (uint32_t i = 7; i < MANY; i += 250)
        assert_in_range(picked[i], 850, 1150);
}

/* Balls into bins: m = 20 n. With one choice the fullest is far above the mean, with two hardly. */
static uint32_t fullest(bt_policy p, uint32_t n, uint32_t n_picks)
{
    bt_policy_state policy = state_of(p);
    bt_policy_ask ask = ask_of(n);
    uint32_t most = 0;
    for (uint32_t i = 0; i < n_picks; i++) {
        int index = bt_policy_pick(&policy, &ask).index;
        bt_load_add(&loads[index], (bt_burden){.queued_tokens = 100});
    }
    for (uint32_t i = 0; i < n; i++)
        most = loads[i].legs > most ? loads[i].legs : most;
    return most;
}

static void of_two_drawn_the_lighter_keeps_a_pool_even(void **unused)
{
    (void)unused;
    assert_true(fullest(BT_POLICY_RANDOM, 200, 4000) > 28);
    assert_true(fullest(BT_POLICY_POWER_OF_TWO, 200, 4000) <= 24);
    assert_int_equal(fullest(BT_POLICY_LEAST_LOADED, 200, 4000), 20);
    assert_int_equal(fullest(BT_POLICY_ROUND_ROBIN, 200, 4000), 20);
}

static void one_that_is_heavy_gets_nothing_of_two(void **unused)
{
    (void)unused;
    bt_policy_state policy = state_of(BT_POLICY_POWER_OF_TWO);
    bt_load_add(&loads[1], (bt_burden){.held_tokens = 1 << 20});
    pick_n(&policy, 3, 300);
    assert_int_equal(picked[1], 0);
    /* Alone it gets all. */
    tried[0] = 5;
    bt_policy_ask ask = ask_of(3);
    bt_choice choice = bt_policy_pick(&policy, &ask);
    assert_int_equal(choice.index, 1);
    assert_string_equal(choice.why, "only");
}

static void least_loaded_counts_legs_queued_and_held_tokens(void **unused)
{
    (void)unused;
    bt_policy_state policy = state_of(BT_POLICY_LEAST_LOADED);
    bt_policy_ask ask = ask_of(3);
    const bt_burden small = {.queued_tokens = 100}, large = {.queued_tokens = 100000};
    const bt_burden held = {.held_tokens = 5000};
    bt_load_add(&loads[0], small);
    bt_load_add(&loads[0], small);
    bt_load_add(&loads[1], large);
    assert_int_equal(bt_policy_pick(&policy, &ask).index, 2);
    bt_load_add(&loads[2], held);
    assert_int_equal(bt_policy_pick(&policy, &ask).index, 0);
    bt_load_computed(&loads[1], large);
    assert_int_equal(bt_policy_pick(&policy, &ask).index, 1);
    bt_load_remove(&loads[1], (bt_burden){0});
    bt_load_remove(&loads[0], small);
    bt_load_remove(&loads[0], small);
    bt_load_remove(&loads[2], held);
    for (int i = 0; i < 3; i++)
        assert_int_equal(bt_load_cost(&loads[i]), 0);
}

static void equals_take_turns(void **unused)
{
    (void)unused;
    bt_policy_state policy = state_of(BT_POLICY_LEAST_LOADED);
    pick_n(&policy, 7, 70);
    for (int i = 0; i < 7; i++)
        assert_int_equal(picked[i], 10);
}

/* Sessions. */

enum { N_SESSIONS = 10000 };

static int engine_of[N_SESSIONS];

static uint32_t place_sessions(bt_policy_state *policy, uint32_t n_engines, bool is_first)
{
    uint32_t n_moved = 0;
    bt_policy_ask ask = ask_of(n_engines);
    for (uint64_t i = 0; i < N_SESSIONS; i++) {
        bt_policy_request request = {.session = i * 2654435761u + 1};
        ask.request = &request;
        int index = bt_policy_pick(policy, &ask).index;
        n_moved += !is_first && index != engine_of[i];
        engine_of[i] = index;
    }
    return n_moved;
}

static void sessions_stay_and_few_move_when_engines_come_and_go(void **unused)
{
    (void)unused;
    enum { N = 10 };
    bt_policy_state policy = state_of(BT_POLICY_CONSISTENT_HASH);
    name_engines(N + 1);
    place_sessions(&policy, N, true);
    for (uint32_t i = 0; i < N_SESSIONS; i++)
        picked[engine_of[i]]++;
    for (int i = 0; i < N; i++)
        assert_in_range(picked[i], 850, 1150);
    bt_load_add(&loads[3], (bt_burden){.held_tokens = 1 << 20}); /* load is no matter */
    assert_int_equal(place_sessions(&policy, N, false), 0);
    /* One that comes takes its share, and nobody else moves anything. */
    uint32_t n_moved = place_sessions(&policy, N + 1, false);
    assert_in_range(n_moved, 750, 1070);
    uint32_t n_there = 0;
    for (uint32_t i = 0; i < N_SESSIONS; i++)
        n_there += engine_of[i] == N;
    assert_int_equal(n_moved, n_there);
    /* One that goes down gives away its own only, and has them back when it answers. */
    assert_int_equal(place_sessions(&policy, N, false), n_there);
    loads[3].is_down = true;
    assert_int_equal(place_sessions(&policy, N, false), picked[3]);
    loads[3].is_down = false;
    assert_int_equal(place_sessions(&policy, N, false), picked[3]);
}

static void without_a_session_the_least_loaded_is_taken(void **unused)
{
    (void)unused;
    bt_policy_state policy = state_of(BT_POLICY_CONSISTENT_HASH);
    bt_policy_request request = {0};
    bt_policy_ask ask = ask_of(2);
    ask.request = &request;
    bt_load_add(&loads[0], (bt_burden){0});
    bt_choice choice = bt_policy_pick(&policy, &ask);
    assert_int_equal(choice.index, 1);
    assert_string_equal(choice.why, "least");
}

/* Prefixes. */

typedef struct {
    bt_prefix_blocks blocks;
    bt_policy_request request;
} prompt;

/* As many tokens as a quarter of its bytes: text from `begin` in blocks that are all alike but for
 * the chain. */
static const bt_policy_request *prompt_of(prompt *p, char begin, size_t n_blocks)
{
    static char text[256 * 64];
    memset(text, 'x', sizeof(text));
    text[0] = begin;
    size_t n = n_blocks * BT_PREFIX_BLOCK_BYTES;
    bt_prefix_blocks_of(text, n, 0, &p->blocks);
    p->request =
        (bt_policy_request){.prompt = &p->blocks, .n_prompt_tokens = n / 4, .n_prompt_bytes = n};
    return &p->request;
}

static bt_policy_state prefix_state(uint64_t window)
{
    bt_policy_state policy = state_of(BT_POLICY_PREFIX_AWARE);
    policy.window_tokens = window;
    assert_ok(bt_prefix_index_create(1 << 20, &policy.prefix));
    return policy;
}

static void prompts_that_begin_alike_go_to_one_engine_while_that_saves_work(void **unused)
{
    (void)unused;
    static prompt long_one, longer, other;
    bt_policy_state policy = prefix_state(1 << 20);
    bt_policy_ask ask = ask_of(4);
    ask.request = prompt_of(&long_one, 'a', 32); /* 2048 tokens */
    bt_choice first = bt_policy_pick(&policy, &ask);
    assert_string_equal(first.why, "least");
    assert_int_equal(first.matched_tokens, 0);
    bt_load *load = &loads[first.index];
    /* The conversation goes on, where 2048 of 2560 tokens are known. */
    bt_load_add(load,
                (bt_burden){.queued_tokens = 1700}); /* with its leg 1956: less than it saves */
    ask.request = prompt_of(&longer, 'a', 40);
    bt_choice next = bt_policy_peek(&policy, &ask);
    assert_int_equal(next.index, first.index);
    assert_string_equal(next.why, "prefix");
    assert_int_equal(next.matched_tokens, 2048);
    /* What begins otherwise does not; nor does it when waiting there costs more than it saves. */
    ask.request = prompt_of(&other, 'b', 40);
    assert_int_not_equal(bt_policy_peek(&policy, &ask).index, first.index);
    bt_load_add(load, (bt_burden){.queued_tokens = 0}); /* one more leg: 2212 */
    ask.request = &longer.request;
    assert_int_not_equal(bt_policy_peek(&policy, &ask).index, first.index);
    bt_prefix_index_destroy(policy.prefix);
}

static void affinity_ends_at_the_window_at_a_new_life_and_when_it_was_tried(void **unused)
{
    (void)unused;
    static prompt one;
    bt_policy_state policy = prefix_state(1000);
    bt_policy_ask ask = ask_of(2);
    ask.request = prompt_of(&one, 'a', 40);
    int first = bt_policy_pick(&policy, &ask).index;
    bt_load_add(&loads[first], (bt_burden){.queued_tokens = 700}); /* 956 */
    assert_int_equal(bt_policy_peek(&policy, &ask).index, first);
    tried[0] = UINT64_C(1) << first;
    assert_int_equal(bt_policy_peek(&policy, &ask).index, 1 - first);
    tried[0] = 0;
    loads[first].life++;
    assert_int_equal(bt_policy_peek(&policy, &ask).index, 1 - first);
    loads[first].life--;
    bt_load_add(&loads[first], (bt_burden){0}); /* 1212 */
    assert_int_equal(bt_policy_peek(&policy, &ask).index, 1 - first);
    bt_prefix_index_destroy(policy.prefix);
}

/* All begin alike, and nothing ends: the pool fills evenly all the same. */
static void one_prefix_for_all_does_not_pin_one_engine(void **unused)
{
    (void)unused;
    static prompt one;
    bt_policy_state policy = prefix_state(4096);
    bt_policy_ask ask = ask_of(8);
    ask.request = prompt_of(&one, 'a', 4);
    for (int i = 0; i < 800; i++) {
        int index = bt_policy_pick(&policy, &ask).index;
        bt_load_add(&loads[index], (bt_burden){.queued_tokens = 256});
    }
    for (int i = 0; i < 8; i++)
        assert_in_range(loads[i].legs, 95, 105);
    bt_prefix_index_destroy(policy.prefix);
}

/* Pairs. */

static void a_cold_pair_costs_its_handshake_where_load_is_compared(void **unused)
{
    (void)unused;
    static const bt_policy by_load[] = {BT_POLICY_POWER_OF_TWO, BT_POLICY_LEAST_LOADED,
                                        BT_POLICY_PREFIX_AWARE};
    for (size_t p = 0; p < 3; p++) {
        static bt_pair pairs[2];
        bt_policy_state policy = state_of(by_load[p]);
        bt_policy_request request = {.pairs = pairs, .decode_life = 9, .cold_tokens = 1000};
        bt_policy_ask ask = ask_of(2);
        ask.request = &request;
        memset(pairs, 0, sizeof(pairs));
        bt_pair_warm(&pairs[1], 0, 9);
        bt_load_add(&loads[1], (bt_burden){.queued_tokens = 700}); /* 956 */
        for (int i = 0; i < 10; i++)
            assert_int_equal(bt_policy_pick(&policy, &ask).index, 1);
        /* A new life of either end is another pair. */
        loads[1].life = 1;
        assert_int_equal(bt_policy_pick(&policy, &ask).index, 0);
        loads[1].life = 0;
        request.decode_life = 10;
        assert_int_equal(bt_policy_pick(&policy, &ask).index, 0);
        request.decode_life = 9;
        bt_load_add(&loads[1], (bt_burden){0}); /* 1212: dearer than the handshake */
        assert_int_equal(bt_policy_pick(&policy, &ask).index, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(every_policy_has_a_name_and_names_an_untried_engine_that_is_up),
        bt_test(the_same_seed_makes_the_same_picks),
        bt_test(lots_fall_on_everyone_alike),
        bt_test(lots_fall_on_the_few_that_are_up_alike),
        bt_test(of_two_drawn_the_lighter_keeps_a_pool_even),
        bt_test(one_that_is_heavy_gets_nothing_of_two),
        bt_test(least_loaded_counts_legs_queued_and_held_tokens),
        bt_test(equals_take_turns),
        bt_test(sessions_stay_and_few_move_when_engines_come_and_go),
        bt_test(without_a_session_the_least_loaded_is_taken),
        bt_test(prompts_that_begin_alike_go_to_one_engine_while_that_saves_work),
        bt_test(affinity_ends_at_the_window_at_a_new_life_and_when_it_was_tried),
        bt_test(one_prefix_for_all_does_not_pin_one_engine),
        bt_test(a_cold_pair_costs_its_handshake_where_load_is_compared),
    };
    return bt_run_tests(tests);
}
