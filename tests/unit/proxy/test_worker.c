/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/worker.h"
#include "support/test.h"

#include <stdio.h>

static bt_worker_pool pool;

static void fill(bt_worker_pool *engines, bt_role role, uint32_t n, bt_policy policy)
{
    memset(engines, 0, sizeof(*engines));
    for (uint32_t i = 0; i < n; i++) {
        bt_worker_address at = {.host = "127.0.0.1", .port = (uint16_t)(8100 + i)};
        assert_ok(bt_worker_add(engines, role, &at, NULL));
    }
    engines->policy.policy = policy;
}

static bt_worker_pool *pool_of(uint32_t n, bt_policy policy)
{
    fill(&pool, BT_ROLE_PREFILL, n, policy);
    return &pool;
}

static void round_robin_takes_everyone_once_per_round(void **state)
{
    (void)state;
    bt_worker_pool *engines = pool_of(3, BT_POLICY_ROUND_ROBIN);
    for (int round = 0; round < 4; round++) {
        unsigned seen = 0;
        for (int i = 0; i < 3; i++)
            seen |= 1u << bt_worker_pick(engines, 0, NULL).index;
        assert_int_equal(seen, 7);
    }
}

static void equal_pools_are_not_married(void **state)
{
    (void)state;
    static bt_worker_pool prefill, decode;
    fill(&prefill, BT_ROLE_PREFILL, 2, BT_POLICY_ROUND_ROBIN);
    fill(&decode, BT_ROLE_DECODE, 2, BT_POLICY_ROUND_ROBIN);
    /* LMCache's proxies take one counter modulo both lengths: P0 only ever meets D0. */
    unsigned pairs = 0;
    for (int i = 0; i < 16; i++) {
        int d = bt_worker_pick(&decode, 0, NULL).index;
        int p = bt_worker_pick(&prefill, 0, NULL).index;
        pairs |= 1u << (2 * p + d);
    }
    assert_int_equal(pairs, 15);
}

static void legs_are_counted_while_they_last(void **state)
{
    (void)state;
    bt_worker_pool *engines = pool_of(2, BT_POLICY_LEAST_LOADED);
    const bt_burden burden = {.queued_tokens = 100, .held_tokens = 7};
    bt_worker_begin(&engines->workers[0], burden);
    assert_int_equal(bt_worker_pick(engines, 0, NULL).index, 1);
    assert_int_equal(engines->workers[0].load->legs, 1);
    assert_int_equal(engines->loads[0].queued_tokens, 100);
    assert_int_equal(engines->loads[0].held_tokens, 7);
    bt_worker_end(&engines->workers[0], burden);
    assert_int_equal(bt_load_cost(&engines->loads[0]), 0);
    assert_int_equal(engines->workers[0].requests, 1);
}

static void unreachable_engine_is_the_last_choice_until_it_answers(void **state)
{
    (void)state;
    bt_worker_pool *engines = pool_of(2, BT_POLICY_LEAST_LOADED);
    const bt_burden heavy = {.queued_tokens = 1 << 20};
    bt_worker_begin(&engines->workers[1], heavy);
    bt_worker_failed(&engines->workers[0], true);
    assert_int_equal(bt_worker_pick(engines, 0, NULL).index, 1);
    assert_int_equal(bt_worker_pick(engines, 2, NULL).index, 0);
    bt_worker_failed(&engines->workers[0], false);
    assert_int_equal(bt_worker_pick(engines, 0, NULL).index, 1);
    bt_worker_answered(&engines->workers[0]);
    assert_int_equal(bt_worker_pick(engines, 0, NULL).index, 0);
    assert_int_equal(engines->workers[0].failures, 2);
    bt_worker_end(&engines->workers[1], heavy);
}

static void tried_engines_are_not_named_again(void **state)
{
    (void)state;
    bt_worker_pool *engines = pool_of(2, BT_POLICY_ROUND_ROBIN);
    for (int i = 0; i < 4; i++)
        assert_int_equal(bt_worker_pick(engines, 1, NULL).index, 1);
    assert_int_equal(bt_worker_pick(engines, 3, NULL).index, -1);
    static bt_worker_pool empty;
    assert_int_equal(bt_worker_pick(&empty, 0, NULL).index, -1);
}

static void bad_addresses_and_too_many_are_refused(void **state)
{
    (void)state;
    memset(&pool, 0, sizeof(pool));
    bt_worker_address no_host = {.port = 1}, no_port = {.host = "h"};
    bt_worker_address v6 = {.host = "::1", .port = 80};
    assert_fails(bt_worker_add(&pool, BT_ROLE_DECODE, &no_host, NULL), BATON_ERR_INVALID_ARG,
                 "host");
    assert_fails(bt_worker_add(&pool, BT_ROLE_DECODE, &no_port, NULL), BATON_ERR_INVALID_ARG,
                 "\"h\":0");
    for (int i = 0; i < BT_MAX_WORKERS; i++)
        assert_ok(bt_worker_add(&pool, BT_ROLE_DECODE, &v6, NULL));
    assert_string_equal(pool.workers[0].name, "[::1]:80");
    assert_fails(bt_worker_add(&pool, BT_ROLE_DECODE, &v6, NULL), BATON_ERR_TOO_LARGE, "64");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(round_robin_takes_everyone_once_per_round),
        bt_test(equal_pools_are_not_married),
        bt_test(legs_are_counted_while_they_last),
        bt_test(unreachable_engine_is_the_last_choice_until_it_answers),
        bt_test(tried_engines_are_not_named_again),
        bt_test(bad_addresses_and_too_many_are_refused),
    };
    return bt_run_tests(tests);
}
