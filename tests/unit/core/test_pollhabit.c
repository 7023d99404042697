/* SPDX-License-Identifier: Apache-2.0 */
#include "core/pollhabit.h"
#include "support/test.h"

static const uint64_t start_ns = 1000 * 1000 * 1000;

static bool call_often(bt_pollhabit *habit, uint64_t from_ns, uint64_t every_ns, uint32_t n)
{
    bool polls = false;
    for (uint32_t i = 0; i < n; i++)
        polls = bt_pollhabit_idle(habit, from_ns + i * every_ns);
    return polls;
}

static void who_comes_back_at_once_again_and_again_polls(void **state)
{
    (void)state;
    bt_pollhabit habit = {0};
    assert_false(call_often(&habit, start_ns, 500, BT_POLLHABIT_CALLS));
    assert_true(bt_pollhabit_idle(&habit, start_ns + BT_POLLHABIT_CALLS * 500));
    assert_true(bt_pollhabit_idle(&habit, start_ns + BT_POLLHABIT_CALLS * 500 + 1));
}

static void who_sleeps_in_between_does_not(void **state)
{
    (void)state;
    bt_pollhabit habit = {0};
    assert_false(call_often(&habit, start_ns, BT_POLLHABIT_GAP_NS, 1000));
    assert_true(call_often(&habit, start_ns, 500, 1000));
    assert_false(bt_pollhabit_idle(&habit, start_ns + 1000 * 500 + BT_POLLHABIT_GAP_NS));
    assert_false(bt_pollhabit_idle(&habit, start_ns + 1000 * 500 + BT_POLLHABIT_GAP_NS + 1));
}

static void a_habit_is_relied_on_for_a_while(void **state)
{
    (void)state;
    bt_pollhabit habit = {0};
    assert_false(bt_pollhabit_is_relied(&habit, start_ns));
    bt_pollhabit_rely(&habit, start_ns);
    assert_true(bt_pollhabit_is_relied(&habit, start_ns));
    assert_true(bt_pollhabit_is_relied(&habit, start_ns + BT_POLLHABIT_NS - 1));
    assert_false(bt_pollhabit_is_relied(&habit, start_ns + BT_POLLHABIT_NS));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(who_comes_back_at_once_again_and_again_polls),
        bt_test(who_sleeps_in_between_does_not),
        bt_test(a_habit_is_relied_on_for_a_while),
    };
    return bt_run_tests(tests);
}
