/* SPDX-License-Identifier: Apache-2.0 */
/* baton-doctor as a process: what it prints, and its exit status. */
#include "support/children.h"
#include "support/fakesys.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

static char *run(int wanted, const char *const *args)
{
    bt_child *child = bt_child_start("baton-doctor", args);
    int status = bt_child_wait(child);
    char *text = bt_child_text(child->out);
    if (status != wanted) {
        char *log = bt_child_text(child->log);
        fail_msg("wanted exit status %d, found %d:\n%s\n%s", wanted, status, text, log);
    }
    return text;
}

#define ARGS(...) ((const char *const[]){__VA_ARGS__, NULL})

static json_t *run_json(int wanted, const char *const *args)
{
    json_error_t error;
    char *text = run(wanted, args);
    json_t *json = json_loads(text, JSON_REJECT_DUPLICATES, &error);
    if (json == NULL)
        fail_msg("line %d: %s in\n%s", error.line, error.text, text);
    free(text);
    return json;
}

static bool has_finding(json_t *json, const char *id)
{
    json_t *findings = json_object_get(json, "findings");
    for (size_t i = 0; i < json_array_size(findings); i++)
        if (strcmp(json_string_value(json_object_get(json_array_get(findings, i), "id")), id) == 0)
            return true;
    return false;
}

static void a_report_ends_with_the_verdict(void **state)
{
    (void)state;
    /* Which warnings this machine deserves is its own affair; a device it has not is broken. */
    char *text = run(2, ARGS("--set", "data_devices=none-such"));
    assert_non_null(strstr(text, "baton-doctor "));
    assert_non_null(strstr(text, "none-such"));
    assert_non_null(strstr(text, "\nverdict: broken ("));
    assert_null(strchr(text, '\033')); /* not a terminal */
    free(text);
    text = run(2, ARGS("--set", "data_devices=none-such", "--color", "always"));
    assert_non_null(strchr(text, '\033'));
    free(text);
}

static void json_is_all_there_is_on_stdout(void **state)
{
    (void)state;
    /* UCX complains about the variable, but not into the report. */
    setenv("UCX_NO_SUCH_VARIABLE", "1", 1);
    json_t *json = run_json(2, ARGS("--json", "--set", "data_devices=none-such"));
    unsetenv("UCX_NO_SUCH_VARIABLE");
    assert_int_equal(json_integer_value(json_object_get(json, "exit_status")), 2);
    assert_true(has_finding(json, "data-device-unknown"));
    json_t *ucx = json_object_get(json, "ucx");
    assert_true(json_is_true(json_object_get(ucx, "opens")));
    assert_string_equal(json_string_value(json_object_get(json_object_get(ucx, "environment"),
                                                          "UCX_NO_SUCH_VARIABLE")),
                        "1");
    assert_true(json_array_size(json_object_get(ucx, "transports")) > 0);
    json_decref(json);
}

/* 1 is for warnings: a machine with a port that is down. */
static void warnings_have_an_exit_status_of_their_own(void **state)
{
    (void)state;
    bt_fakesys fake;
    bt_fakesys_make(&fake);
    bt_fakesys_file(&fake, "772", "sys/class/net/lo/type");
    bt_fakesys_add_rdma(&fake, &(bt_fakesys_rdma){.name = "mlx5_0", .state = "1: DOWN"});
    json_t *json = run_json(1, ARGS("--json", "--root", fake.root));
    assert_true(has_finding(json, "rdma-port-inactive"));
    assert_string_equal(json_string_value(json_object_get(json, "verdict")), "warning");
    json_decref(json);
    bt_fakesys_remove(&fake);
}

static void a_wrong_command_line_is_refused(void **state)
{
    (void)state;
    free(run(2, ARGS("--no-such-flag")));
    free(run(2, ARGS("--config", "/does/not/exist")));
    free(run(2, ARGS("--root", "/does/not/exist")));
    char *text = run(0, ARGS("--version"));
    assert_non_null(strstr(text, baton_version()));
    free(text);
    text = run(0, ARGS("--help"));
    assert_non_null(strstr(text, "Exit status"));
    free(text);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_child_test(a_report_ends_with_the_verdict),
        bt_child_test(json_is_all_there_is_on_stdout),
        bt_child_test(warnings_have_an_exit_status_of_their_own),
        bt_child_test(a_wrong_command_line_is_refused),
    };
    return bt_run_tests(tests);
}
