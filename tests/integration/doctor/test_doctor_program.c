/* SPDX-License-Identifier: Apache-2.0 */
/* baton-doctor as a process: what it prints, and its exit status. */
#include "support/children.h"
#include "support/fakesys.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

/* wanted: the exit status, -1: whatever the report itself says. */
static char *run(int wanted, const char *const *args)
{
    bt_child *child = bt_child_start("baton-doctor", args);
    int status = bt_child_wait(child);
    char *text = bt_child_text(child->out);
    if (wanted >= 0 ? status != wanted : status > 1) {
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
    json = run_json(0, ARGS("--json", "--root", fake.root, "--accept", "rdma-port-inactive",
                            "--accept", "shm-missing"));
    assert_true(has_finding(json, "rdma-port-inactive"));
    assert_string_equal(json_string_value(json_object_get(json, "verdict")), "fine");
    json_decref(json);
    bt_fakesys_remove(&fake);
}

static bt_child *start_receiver(const char *const *more)
{
    const char *args[BT_CHILD_ARGS_MAX] = {"--role", "decode", "--random-weights", "1"};
    unsigned n = 4;
    for (; more != NULL && *more != NULL; more++)
        args[n++] = *more;
    bt_child *child = bt_child_start("baton-engine", args);
    bt_child_wait_ready(child);
    return child;
}

static const char *address(char text[32], const bt_child *child, const char *key)
{
    snprintf(text, 32, "127.0.0.1:%u", bt_child_port(child, key, 0));
    return text;
}

static const char *peer_text(json_t *json, const char *key)
{
    const char *text = json_string_value(json_object_get(json_object_get(json, "peer"), key));
    return text != NULL ? text : "";
}

static void a_receiver_is_measured(void **state)
{
    (void)state;
    char where[32];
    bt_child *receiver = start_receiver(NULL);
    /* What the machine lacks may be a warning. */
    json_t *json = run_json(-1, ARGS("--json", "--peer", address(where, receiver, "init_ports=")));
    json_t *peer = json_object_get(json, "peer");
    assert_string_equal(peer_text(json, "status"), "OK");
    assert_string_equal(peer_text(json, "mechanism"), "NULL");
    assert_string_equal(peer_text(json, "address"), where);
    assert_true(strlen(peer_text(json, "path")) > 0);
    assert_true(json_real_value(json_object_get(peer, "gbytes_per_s")) > 0);
    assert_true(json_real_value(json_object_get(peer, "wire_gbytes_per_s")) > 0);
    assert_true(has_finding(json, "peer-path"));
    json_decref(json);

    json = run_json(-1, ARGS("--json", "--set", "path=put", "--peer", where));
    assert_string_equal(peer_text(json, "path"), "put");
    json_decref(json);
    /* A floor that nothing reaches. */
    json = run_json(2, ARGS("--json", "--set", "min_gbps=1000000", "--peer", where));
    assert_string_equal(peer_text(json, "status"), "ERR_PATH");
    assert_true(has_finding(json, "peer-path-refused"));
    json_decref(json);
    bt_child_stop(receiver);
}

static bool has_greeted(void *ctx)
{
    const bt_child *child = ctx;
    char *text = bt_child_text(child->out);
    bool has = strchr(text, '\n') != NULL;
    free(text);
    return has;
}

/* Where no engine runs yet. */
static void the_receiver_of_baton_perf_is_measured(void **state)
{
    (void)state;
    char where[32] = "";
    bt_child *receiver =
        bt_child_start("baton-perf", (const char *const[]){"--role", "receiver", NULL});
    bt_wait_until(has_greeted, receiver, "a receiver that listens");
    char *text = bt_child_text(receiver->out), *at = strstr(text, "init=");
    assert_non_null(at);
    snprintf(where, sizeof(where), "%.*s", (int)strcspn(at + 5, " \n"), at + 5);
    free(text);
    for (int i = 0; i < 2; i++) {
        json_t *json = run_json(-1, ARGS("--json", "--peer", where));
        assert_string_equal(peer_text(json, "status"), "OK");
        assert_true(has_finding(json, "peer-path"));
        json_decref(json);
    }
    bt_child_kill(receiver);
}

static void other_ports_are_no_receiver(void **state)
{
    (void)state;
    char where[32];
    bt_child *receiver = start_receiver(NULL);
    json_t *json = run_json(2, ARGS("--json", "--peer", address(where, receiver, " port=")));
    assert_string_equal(peer_text(json, "status"), "ERR_BAD_MESSAGE"); /* HTTP */
    assert_true(has_finding(json, "peer-not-baton"));
    json_decref(json);
    json = run_json(2, ARGS("--json", "--timeout", "500ms", "--peer",
                            address(where, receiver, "alloc_ports=")));
    assert_string_equal(peer_text(json, "status"), "ERR_CONNECT_TIMEOUT");
    assert_non_null(strstr(peer_text(json, "text"), "does not answer INIT"));
    json_decref(json);
    bt_child_freeze(receiver); /* alive, but says nothing: only the kernel accepts */
    json = run_json(
        2, ARGS("--json", "--timeout", "500ms", "--peer", address(where, receiver, "init_ports=")));
    assert_true(strstr(peer_text(json, "status"), "TIMEOUT") != NULL);
    json_decref(json);
    bt_child_kill(receiver);
    json = run_json(2, ARGS("--json", "--peer", where));
    assert_string_equal(peer_text(json, "status"), "ERR_UNREACHABLE");
    json_decref(json);
}

static void make_keys(const char *folder, const char *name)
{
    char path[256];
    snprintf(path, sizeof(path), "%s/%s", folder, name);
    bt_child *child = bt_child_start("baton-keygen", ARGS("--quiet", path));
    assert_int_equal(bt_child_wait(child), 0);
}

static void keys_are_used_and_their_lack_is_named(void **state)
{
    (void)state;
    char folder[] = "/tmp/baton-doctor-XXXXXX", where[32];
    char command[512], key[256], clients[256], server[256], ours[256], other[256];
    assert_non_null(mkdtemp(folder));
    make_keys(folder, "receiver");
    make_keys(folder, "sender");
    make_keys(folder, "other");
    snprintf(command, sizeof(command), "mkdir %s/allowed && cp %s/sender.pub %s/allowed", folder,
             folder, folder);
    assert_int_equal(system(command), 0);
    snprintf(key, sizeof(key), "key_file=%s/receiver.key", folder);
    snprintf(clients, sizeof(clients), "clients_path=%s/allowed", folder);
    snprintf(server, sizeof(server), "server_key=%s/receiver.pub", folder);
    snprintf(ours, sizeof(ours), "key_file=%s/sender.key", folder);
    snprintf(other, sizeof(other), "key_file=%s/other.key", folder);
    bt_child *receiver = start_receiver(ARGS("--set", key, "--set", clients));
    address(where, receiver, "init_ports=");

    json_t *json = run_json(-1, ARGS("--json", "--set", ours, "--set", server, "--peer", where));
    assert_string_equal(peer_text(json, "status"), "OK");
    assert_string_equal(peer_text(json, "mechanism"), "CURVE");
    json_decref(json);
    json = run_json(2, ARGS("--json", "--peer", where));
    assert_string_equal(peer_text(json, "status"), "ERR_AUTH");
    assert_non_null(strstr(peer_text(json, "text"), "key_file"));
    json_decref(json);
    json = run_json(
        2, ARGS("--json", "--timeout", "500ms", "--set", other, "--set", server, "--peer", where));
    assert_string_equal(peer_text(json, "status"), "ERR_AUTH");
    assert_non_null(strstr(peer_text(json, "text"), "clients_path"));
    assert_true(has_finding(json, "peer-keys"));
    json_decref(json);
    bt_child_stop(receiver);
    snprintf(command, sizeof(command), "rm -rf %s", folder);
    assert_int_equal(system(command), 0);
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
        bt_child_test(a_receiver_is_measured),
        bt_child_test(the_receiver_of_baton_perf_is_measured),
        bt_child_test(other_ports_are_no_receiver),
        bt_child_test(keys_are_used_and_their_lack_is_named),
        bt_child_test(a_wrong_command_line_is_refused),
    };
    return bt_run_tests(tests);
}
