/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "core/traceparent.h"

#define GOOD "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

static bool reads(const char *text, bt_traceparent *out)
{
    size_t n = strlen(text);
    uint8_t *bytes = bt_guarded_copy(text, n);
    bool is_valid = bt_traceparent_read((const char *)bytes, n, out);
    bt_guarded_free(bytes, n);
    return is_valid;
}

static void a_valid_one_is_read_and_written_again(void **state)
{
    (void)state;
    bt_traceparent trace;
    char text[BT_TRACEPARENT_CHARS + 1];
    assert_true(reads(GOOD, &trace));
    assert_string_equal(trace.trace, "4bf92f3577b34da6a3ce929d0e0e4736");
    assert_string_equal(trace.parent, "00f067aa0ba902b7");
    assert_int_equal(trace.flags, 1);
    bt_traceparent_write(&trace, text);
    assert_string_equal(text, GOOD);
}

static void what_is_not_valid_is_none(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "00",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-0",
        GOOD "-more",
        GOOD " ",
        "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
        "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
        "00_4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736_00f067aa0ba902b7-01",
        "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7_01",
        "00-4bf92f3577b34da6a3ce929d0e0e473g-00f067aa0ba902b7-01",
        "cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01.more",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        bt_traceparent trace;
        char text[BT_TRACEPARENT_CHARS + 1];
        if (reads(bad[i], &trace))
            fail_msg("taken: %s", bad[i]);
        bt_traceparent_write(&trace, text);
        assert_string_equal(text, "");
        bt_traceparent_step(&trace);
        assert_string_equal(trace.parent, "");
    }
}

static void later_versions_may_say_more(void **state)
{
    (void)state;
    bt_traceparent trace;
    assert_true(reads("cc-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more", &trace));
    assert_string_equal(trace.trace, "4bf92f3577b34da6a3ce929d0e0e4736");
}

static void a_fresh_one_is_valid_and_a_step_stays_in_the_trace(void **state)
{
    (void)state;
    bt_traceparent trace, again, other;
    char text[BT_TRACEPARENT_CHARS + 1];
    bt_traceparent_make(&trace);
    bt_traceparent_make(&other);
    assert_string_not_equal(trace.trace, other.trace);
    bt_traceparent_write(&trace, text);
    assert_true(reads(text, &again));
    bt_traceparent_step(&again);
    assert_string_equal(again.trace, trace.trace);
    assert_string_not_equal(again.parent, trace.parent);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(a_valid_one_is_read_and_written_again),
        bt_test(what_is_not_valid_is_none),
        bt_test(later_versions_may_say_more),
        bt_test(a_fresh_one_is_valid_and_a_step_stays_in_the_trace),
    };
    return bt_run_tests(tests);
}
