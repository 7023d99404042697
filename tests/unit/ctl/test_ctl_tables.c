/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "ctl/ctl_tables.h"

static void shows(const char *command, const char *json, const char *wanted)
{
    bt_strbuf out = {0};
    json_error_t error;
    bt_ctl_answers answers = {.answers = json_loads(json, 0, &error), .failed = json_array()};
    if (answers.answers == NULL)
        fail_msg("%s", error.text);
    bt_ctl_put_table(command, &answers, false, &out);
    assert_string_equal(bt_strbuf_text(&out), wanted);
    bt_strbuf_free(&out);
    bt_ctl_answers_free(&answers);
}

static void transfers_are_rows(void **state)
{
    (void)state;
    shows("transfers",
          "[{\"role\":\"sender\",\"name\":\"p1\",\"rank\":0,\"pid\":7,\"next\":null,"
          "\"transfers\":[{\"request\":\"r\",\"state\":\"MOVING\",\"stage_ms\":1.5,"
          "\"age_ms\":12345,\"deadline_ms\":287655,\"peer\":\"h:1\",\"landed\":2,\"chunks\":3,"
          "\"bytes\":1572864,\"waits_for\":\"chunks\",\"trace\":null}]}]",
          "WHO            REQUEST  STATE   STAGE    AGE      DEADLINE  PEER  LANDED  BYTES    "
          "WAITS FOR  TRACE\n"
          "sender:p1/0@7  r        MOVING  1.50 ms  12.35 s  4m47s     h:1   2/3     1.5 MiB  "
          "chunks     -\n");
}

static void nothing_to_show_is_said(void **state)
{
    (void)state;
    shows("transfers", "[{\"role\":\"sender\",\"transfers\":[]}]", "no hand-off is under way\n");
    shows("leases", "[]", "nothing keeps a page\n");
    shows("peers", "[{\"peers\":3}, {\"role\":7}]", "no connection\n");
}

static void pages_come_behind_their_counts(void **state)
{
    (void)state;
    shows("pages",
          "[{\"role\":\"receiver\",\"name\":\"d\",\"rank\":1,\"pid\":7,\"next\":9,\"counts\":"
          "{\"total\":9,\"free\":8,\"landed\":1},\"pages\":[{\"page\":4,\"state\":\"LANDED\","
          "\"why\":\"w\",\"tokens\":8,\"holds\":1,\"pins\":0,\"n_owners\":6,\"owners\":["
          "{\"request\":\"r\",\"state\":\"HELD\",\"chunk\":2},{\"pin\":3,\"chunk\":0}]}]}]",
          "WHO             total  free  reserved  landed  quarantined  retired\n"
          "receiver:d/1@7  9      8     0         1       0            0\n"
          "WHO             PAGE  STATE   WHY  TOKENS  HOLDS  PINS  HELD BY\n"
          "receiver:d/1@7  4     LANDED  w    8       1      0     r (HELD, chunk 2); pin 3; 4 "
          "more\n"
          "... there are more: --limit\n");
}

static void who_did_not_answer_is_named(void **state)
{
    (void)state;
    bt_strbuf out = {0};
    bt_ctl_answers answers = {.answers = json_array(),
                              .failed = json_pack("[{s:s, s:s}]", "at", "x", "error", "x: \033!")};
    bt_ctl_put_failed(&answers, &out);
    assert_string_equal(bt_strbuf_text(&out), "baton-ctl: x: \\x1b!\n");
    bt_strbuf_free(&out);
    bt_ctl_answers_free(&answers);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(transfers_are_rows),
        bt_test(nothing_to_show_is_said),
        bt_test(pages_come_behind_their_counts),
        bt_test(who_did_not_answer_is_named),
    };
    return bt_run_tests(tests);
}
