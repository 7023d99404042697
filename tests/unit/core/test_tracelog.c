/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "core/alloc.h"
#include "core/clock.h"
#include "core/tracelog.h"

#include <stdio.h>

static const char *const stages[] = {"first", "second", "third"};

/* A request that began at begin_ns and took so long. */
static void add(bt_tracelog *log, unsigned number, uint64_t begin_ns, uint64_t took_ns)
{
    bt_trace_record record = {.at_ns = {begin_ns, begin_ns + took_ns}, .tag = number};
    snprintf(record.request, sizeof(record.request), "r%u", number);
    bt_tracelog_add(log, &record);
}

static uint32_t count(const bt_tracelog *log)
{
    uint32_t n = 0, cursor = 0;
    while (bt_tracelog_next(log, &cursor) != NULL)
        n++;
    return n;
}

static const bt_trace_record *find(const bt_tracelog *log, const char *id)
{
    uint32_t cursor = 0;
    const bt_trace_record *record;
    while ((record = bt_tracelog_next(log, &cursor)) != NULL && !bt_trace_is(record, id))
        ;
    return record;
}

static void the_latest_and_the_slowest_are_kept_and_no_more(void **state)
{
    (void)state;
    bt_tracelog *log;
    assert_ok(bt_tracelog_create(&log));
    assert_int_equal(count(log), 0);
    assert_null(bt_tracelog_slowest(log, 0));
    /* The first 40 are slow, the slowest first; then come far more fast ones. */
    for (unsigned i = 0; i < 40; i++)
        add(log, i, 1000 + i, 1000000 - i);
    for (unsigned i = 40; i < 1000; i++)
        add(log, i, 1000 + i, 1 + i);
    assert_int_equal(count(log), BT_TRACELOG_RECENT + BT_TRACELOG_SLOWEST);
    assert_non_null(find(log, "r999"));
    assert_non_null(find(log, "r744"));
    assert_null(find(log, "r743"));
    assert_non_null(find(log, "r0"));
    assert_non_null(find(log, "r31"));
    assert_null(find(log, "r32"));
    for (uint32_t i = 0; i < BT_TRACELOG_SLOWEST; i++) {
        char wanted[8];
        snprintf(wanted, sizeof(wanted), "r%u", i);
        assert_string_equal(bt_tracelog_slowest(log, i)->request, wanted);
    }
    assert_null(bt_tracelog_slowest(log, BT_TRACELOG_SLOWEST));
    bt_tracelog_destroy(log);
}

static void a_slow_one_that_is_recent_comes_once(void **state)
{
    (void)state;
    bt_tracelog *log;
    assert_ok(bt_tracelog_create(&log));
    add(log, 1, 1000, 5);
    assert_int_equal(count(log), 1);
    bt_tracelog_destroy(log);
}

static void after_an_hour_it_is_not_slow_any_more(void **state)
{
    (void)state;
    bt_tracelog *log;
    assert_ok(bt_tracelog_create(&log));
    for (unsigned i = 0; i < BT_TRACELOG_SLOWEST; i++)
        add(log, i, 1000, BT_NS_PER_S);
    add(log, 100, 2 * 3600 * BT_NS_PER_S, 7);
    assert_non_null(bt_tracelog_slowest(log, BT_TRACELOG_SLOWEST - 1));
    assert_string_equal(bt_tracelog_slowest(log, BT_TRACELOG_SLOWEST - 1)->request, "r100");
    bt_tracelog_destroy(log);
}

static void a_stage_may_be_reached_after_the_end(void **state)
{
    (void)state;
    bt_tracelog *log;
    assert_ok(bt_tracelog_create(&log));
    add(log, 4, 1000, 5);
    add(log, 5, 1000, 5);
    bt_tracelog_stamp(log, 5, 2, 1234);
    bt_tracelog_stamp(log, 77, 2, 4321);
    bt_tracelog_stamp(NULL, 5, 2, 1);
    assert_int_equal(find(log, "r5")->at_ns[2], 1234);
    assert_int_equal(find(log, "r4")->at_ns[2], 0);
    bt_tracelog_destroy(log);
}

static void a_record_is_found_by_each_of_its_names(void **state)
{
    (void)state;
    const bt_trace_record record = {.trace = "abc", .request = "r", .alias = "mine"};
    assert_true(bt_trace_is(&record, "abc"));
    assert_true(bt_trace_is(&record, "r"));
    assert_true(bt_trace_is(&record, "mine"));
    assert_false(bt_trace_is(&record, "ab"));
    assert_false(bt_trace_is(&(bt_trace_record){0}, ""));
}

static void stages_come_in_the_order_in_which_they_were_reached(void **state)
{
    (void)state;
    bt_strbuf text = {0};
    bt_jsonwriter json = {.out = &text};
    bt_trace_record record = {.trace = "abc",
                              .request = "r\"",
                              .with = "w",
                              .text = "why",
                              .status = BATON_ERR_DEADLINE,
                              .at_ns = {3000000, 0, 1000000},
                              .n_chunks = 4,
                              .n_sent = 3,
                              .n_present = 1,
                              .bytes = 9};
    bt_trace_put(&json, &record, stages, 3);
    assert_string_equal(
        bt_strbuf_text(&text),
        "{\"trace\":\"abc\",\"request\":\"r\\\"\",\"with\":\"w\",\"status\":\"ERR_DEADLINE\","
        "\"text\":\"why\",\"took_ms\":2.000,\"chunks\":4,\"sent\":3,\"present\":1,\"bytes\":9,"
        "\"stages\":[{\"stage\":\"third\",\"at_ns\":1000000},{\"stage\":\"first\",\"at_ns\":"
        "3000000}]}");
    bt_strbuf_free(&text);
}

static void without_memory_there_is_no_log(void **state)
{
    (void)state;
    bt_tracelog *log = NULL;
    for (uint64_t nth = 1; nth <= 3; nth++) {
        bt_alloc_fail_at(nth);
        assert_fails(bt_tracelog_create(&log), BATON_ERR_NO_MEMORY, "traces");
    }
    bt_alloc_fail_at(0);
    assert_null(log);
    bt_tracelog_add(NULL, &(bt_trace_record){0});
    assert_null(bt_tracelog_slowest(NULL, 0));
    assert_int_equal(count(NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(the_latest_and_the_slowest_are_kept_and_no_more),
        bt_test(a_slow_one_that_is_recent_comes_once),
        bt_test(after_an_hour_it_is_not_slow_any_more),
        bt_test(a_stage_may_be_reached_after_the_end),
        bt_test(a_record_is_found_by_each_of_its_names),
        bt_test(stages_come_in_the_order_in_which_they_were_reached),
        bt_test(without_memory_there_is_no_log),
    };
    return bt_run_tests(tests);
}
