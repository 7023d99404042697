/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "core/log.h"

static int evaluated;
static int evaluate(void)
{
    return ++evaluated;
}

static void arguments_of_a_dropped_line_are_not_evaluated(void **state)
{
    (void)state;
    evaluated = 0;
    bt_debug("n=%d", evaluate());
    assert_int_equal(evaluated, 0);
    baton_log_set_level(BATON_LOG_DEBUG);
    bt_debug("n=%d", evaluate());
    assert_int_equal(evaluated, 1);
    assert_int_equal(bt_log_seen("n=1"), 1);
}

static void an_expected_warning_passes(void **state)
{
    (void)state;
    bt_expect_log("slow path");
    bt_warn("slow path chosen peer=%d", 1);
    assert_int_equal(bt_log_seen("slow path chosen"), 1);
}

static void level_names_are_parsed(void **state)
{
    (void)state;
    baton_log_level level;
    assert_ok(baton_log_level_parse("debug", &level));
    assert_int_equal(level, BATON_LOG_DEBUG);
    assert_fails(baton_log_level_parse("loud", &level), BATON_ERR_INVALID_ARG, "found 'loud'");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(arguments_of_a_dropped_line_are_not_evaluated),
        bt_test(an_expected_warning_passes),
        bt_test(level_names_are_parsed),
    };
    return bt_run_tests(tests);
}
