/* SPDX-License-Identifier: Apache-2.0 */
/* One line of time from what several processes know, on one host and on two. */
#include "support/test.h"

#include "ctl/ctl_trace.h"

#include <stdio.h>

/* Answers as endpoints send them. */
static bt_ctl_answers answers_of(const char *json)
{
    json_error_t error;
    bt_ctl_answers answers = {.answers = json_loads(json, 0, &error), .failed = json_array()};
    if (answers.answers == NULL)
        fail_msg("%s", error.text);
    return answers;
}

/* "stage@after" of every entry. */
static void expect(const bt_ctl_answers *answers, const char *wanted)
{
    char text[512] = "";
    size_t i, n = 0;
    json_t *stage, *timeline = bt_ctl_timeline(answers);
    json_array_foreach(timeline, i, stage)
    {
        n += (size_t)snprintf(text + n, sizeof(text) - n, "%s%s@%.0f", i > 0 ? " " : "",
                              json_string_value(json_object_get(stage, "stage")),
                              json_number_value(json_object_get(stage, "after_ms")));
    }
    assert_string_equal(text, wanted);
    json_decref(timeline);
}

static void processes_of_one_host_share_their_clock(void **state)
{
    (void)state;
    /* The second one's wall clock was read 5 ms late: that must not move its stages. */
    bt_ctl_answers answers = answers_of(
        "[{\"role\":\"proxy\",\"pid\":1,\"boot\":\"b\",\"now_ns\":1000000000,"
        "\"wall_ns\":5000000000,\"traces\":[{\"request\":\"r\",\"stages\":["
        "{\"stage\":\"received\",\"at_ns\":900000000},{\"stage\":\"done\",\"at_ns\":950000000}]}]},"
        "{\"role\":\"sender\",\"pid\":2,\"boot\":\"b\",\"now_ns\":1001000000,"
        "\"wall_ns\":5006000000,\"traces\":[{\"request\":\"r\",\"stages\":["
        "{\"stage\":\"opened\",\"at_ns\":949000000}]}]}]");
    expect(&answers, "received@0 opened@49 done@50");
    bt_ctl_answers_free(&answers);
}

static void hosts_are_put_together_by_their_wall_clocks(void **state)
{
    (void)state;
    bt_ctl_answers answers = answers_of(
        "[{\"role\":\"sender\",\"pid\":1,\"boot\":\"a\",\"now_ns\":7000000000,"
        "\"wall_ns\":90000000000,\"traces\":[{\"request\":\"r\",\"stages\":["
        "{\"stage\":\"opened\",\"at_ns\":6000000000},{\"stage\":\"granted\",\"at_ns\":6003000000}]"
        "}]},"
        "{\"role\":\"receiver\",\"pid\":2,\"boot\":\"b\",\"now_ns\":100000000,"
        "\"wall_ns\":90000000000,\"traces\":[{\"request\":\"r\",\"stages\":["
        "{\"stage\":\"alloc\",\"at_ns\":-899000000}]}]}]");
    expect(&answers, "opened@0 alloc@1 granted@3");
    bt_ctl_answers_free(&answers);
}

static void nobody_who_knows_anything_makes_no_line(void **state)
{
    (void)state;
    bt_ctl_answers answers = answers_of("[{\"role\":\"proxy\",\"traces\":[]}, {}, {\"traces\":7}]");
    expect(&answers, "");
    bt_ctl_answers_free(&answers);
}

/* What others say is shown, and cannot steer a terminal. */
static void foreign_texts_are_escaped(void **state)
{
    (void)state;
    bt_ctl_answers answers = answers_of(
        "[{\"role\":\"sender\",\"name\":\"\\u001b[31m\",\"pid\":1,\"traces\":[{\"request\":"
        "\"\\u001b]0;x\\u0007\",\"status\":\"OK\",\"took_ms\":12.5,\"stages\":["
        "{\"stage\":\"opened\",\"at_ns\":1000000},{\"stage\":\"granted\",\"at_ns\":13500000}]}]}]");
    bt_strbuf out = {0};
    json_t *timeline = bt_ctl_timeline(&answers);
    bt_ctl_put_trace(&answers, timeline, &out);
    bt_ctl_put_slow(&answers, 10, &out);
    assert_null(strchr(bt_strbuf_text(&out), '\033'));
    assert_null(strchr(bt_strbuf_text(&out), '\007'));
    assert_non_null(strstr(bt_strbuf_text(&out), "12.5 ms from opened to granted"));
    json_decref(timeline);
    bt_strbuf_free(&out);
    bt_ctl_answers_free(&answers);
}

static void attempts_are_told_apart(void **state)
{
    (void)state;
    bt_ctl_answers answers =
        answers_of("[{\"role\":\"proxy\",\"pid\":1,\"boot\":\"b\",\"traces\":["
                   "{\"request\":\"one\",\"stages\":[{\"stage\":\"received\",\"at_ns\":1}]},"
                   "{\"request\":\"two\",\"stages\":[{\"stage\":\"received\",\"at_ns\":2}]}]}]");
    bt_strbuf out = {0};
    json_t *timeline = bt_ctl_timeline(&answers);
    bt_ctl_put_trace(&answers, timeline, &out);
    const char *line = strstr(bt_strbuf_text(&out), "AFTER");
    assert_non_null(line);
    assert_non_null(strstr(line, "one"));
    assert_non_null(strstr(line, "two"));
    json_decref(timeline);
    bt_strbuf_free(&out);
    bt_ctl_answers_free(&answers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(processes_of_one_host_share_their_clock),
        bt_test(hosts_are_put_together_by_their_wall_clocks),
        bt_test(nobody_who_knows_anything_makes_no_line),
        bt_test(foreign_texts_are_escaped),
        bt_test(attempts_are_told_apart),
    };
    return bt_run_tests(tests);
}
