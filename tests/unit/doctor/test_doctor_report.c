/* SPDX-License-Identifier: Apache-2.0 */
/* The whole report of a GPU server made of files, as text against report.golden and as JSON.
 * GOLDEN_OUT=FILE writes the text there, to compare and to replace the golden one. */
#include "doctor/doctor_json.h"
#include "doctor/doctor_text.h"
#include "doctorkit.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

static void a_server_with_a_few_faults(void)
{
    bt_doctorkit_add_gpu_server();
    bt_fakesys_file(&kit.fake, "1: DOWN", "sys/class/infiniband/mlx5_1/ports/1/state");
    bt_fakesys_file(&kit.fake, "up", "sys/class/net/eth0/operstate");
    bt_fakesys_file(&kit.fake, "100000", "sys/class/net/eth0/speed");
    bt_fakesys_file(&kit.fake, "9000", "sys/class/net/eth0/mtu");
    bt_fakesys_file(&kit.fake, "512", "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages");
    bt_fakesys_file(&kit.fake, "500", "sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    bt_fakesys_file(&kit.fake, "always [madvise] never",
                    "sys/kernel/mm/transparent_hugepage/enabled");
    bt_fakesys_file(&kit.fake, "Max locked memory  8388608  8388608  bytes", "proc/self/limits");
    const char *const devices[] = {"mlx5_0:1"};
    kit.file.data.data_devices = devices;
    kit.file.data.n_data_devices = 1;
    bt_doctorkit_read((char *[]){(char[]){"UCX_LOG_LEVEL=info"}, NULL});
    bt_doctorkit_add_peer();
    bt_doctor_check(&kit.facts, &kit.findings);
}

static void the_text_is_the_golden_one(void **state)
{
    (void)state;
    a_server_with_a_few_faults();
    bt_strbuf out = {0};
    assert_ok(bt_doctor_text(&kit.facts, &kit.findings, false, &out));
    const char *copy = getenv("GOLDEN_OUT");
    if (copy != NULL) {
        FILE *file = fopen(copy, "w");
        assert_non_null(file);
        fputs(bt_strbuf_text(&out), file);
        assert_int_equal(fclose(file), 0);
    }
    static char golden[64 * 1024];
    FILE *file = fopen(GOLDEN, "r");
    assert_non_null(file);
    size_t n = fread(golden, 1, sizeof(golden) - 1, file);
    golden[n] = '\0';
    fclose(file);
    assert_string_equal(bt_strbuf_text(&out), golden);
    bt_strbuf_free(&out);
}

static void colors_change_nothing_else(void **state)
{
    (void)state;
    a_server_with_a_few_faults();
    bt_strbuf plain = {0}, colored = {0}, stripped = {0};
    assert_ok(bt_doctor_text(&kit.facts, &kit.findings, false, &plain));
    assert_ok(bt_doctor_text(&kit.facts, &kit.findings, true, &colored));
    assert_null(strchr(bt_strbuf_text(&plain), '\033'));
    assert_non_null(strstr(bt_strbuf_text(&colored), "\033[31m"));
    for (const char *at = bt_strbuf_text(&colored); *at != '\0'; at++) {
        if (*at == '\033')
            at = strchr(at, 'm');
        else
            bt_strbuf_putc(&stripped, *at);
    }
    assert_string_equal(bt_strbuf_text(&stripped), bt_strbuf_text(&plain));
    bt_strbuf_free(&plain);
    bt_strbuf_free(&colored);
    bt_strbuf_free(&stripped);
}

static json_t *report(void)
{
    bt_strbuf out = {0};
    json_error_t error;
    assert_ok(bt_doctor_json(&kit.facts, &kit.findings, &out));
    json_t *json = json_loads(bt_strbuf_text(&out), JSON_REJECT_DUPLICATES, &error);
    if (json == NULL)
        fail_msg("%s in\n%s", error.text, bt_strbuf_text(&out));
    bt_strbuf_free(&out);
    return json;
}

static const char *text_at(json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));
    assert_non_null(text);
    return text;
}

static void json_says_the_same(void **state)
{
    (void)state;
    a_server_with_a_few_faults();
    json_t *json = report();
    json_t *rdma = json_object_get(json, "rdma");
    assert_int_equal(json_array_size(rdma), 2);
    json_t *port = json_array_get(json_object_get(json_array_get(rdma, 0), "ports"), 0);
    assert_string_equal(text_at(port, "name"), "mlx5_0:1");
    assert_string_equal(text_at(port, "state"), "ACTIVE");
    assert_true(json_real_value(json_object_get(port, "gbps")) > 399);
    json_t *gpu = json_array_get(json_object_get(json, "gpus"), 0);
    assert_string_equal(text_at(json_object_get(gpu, "distances"), "mlx5_0"), "same switch");
    assert_string_equal(text_at(json_object_get(gpu, "distances"), "mlx5_1"), "other NUMA node");
    assert_string_equal(text_at(json_array_get(json_object_get(gpu, "nearest"), 0), "port"),
                        "mlx5_0:1");
    assert_int_equal(json_array_size(json_object_get(gpu, "nearest")), 1);
    json_t *way = json_array_get(json_object_get(json, "ways"), 0);
    assert_string_equal(text_at(way, "path"), "mapped");
    assert_true(json_is_null(json_object_get(way, "why")));
    json_t *limits = json_object_get(json, "limits");
    assert_int_equal(json_integer_value(json_object_get(limits, "memlock_bytes")), 8388608);
    assert_true(json_is_null(json_object_get(limits, "cgroup_memory_bytes")));
    json_t *peer = json_object_get(json, "peer");
    assert_true(json_is_true(json_object_get(peer, "connected")));
    assert_string_equal(text_at(peer, "status"), "OK");
    assert_string_equal(text_at(peer, "path"), "mapped");
    assert_true(json_real_value(json_object_get(peer, "gbytes_per_s")) > 19);
    assert_string_equal(text_at(json, "verdict"), "broken");
    assert_int_equal(json_integer_value(json_object_get(json, "exit_status")), 2);
    assert_int_equal(json_array_size(json_object_get(json, "findings")), kit.findings.n);
    json_decref(json);
}

static void texts_of_peers_cannot_break_the_json(void **state)
{
    (void)state;
    bt_doctorkit_read(NULL);
    bt_doctorkit_add_peer();
    kit.facts.peer.status = BATON_ERR_LAYOUT_MISMATCH;
    strcpy(kit.facts.peer.text, "\"}\xff\xfe\x1b[31m");
    bt_doctor_check(&kit.facts, &kit.findings);
    json_t *json = report();
    assert_string_equal(text_at(json_object_get(json, "peer"), "text"), "\"}???[31m");
    assert_string_equal(text_at(json_object_get(json, "peer"), "status"), "ERR_LAYOUT_MISMATCH");
    json_decref(json);
}

static void an_empty_machine_is_json_too(void **state)
{
    (void)state;
    bt_doctorkit_check(NULL);
    json_t *json = report();
    assert_int_equal(json_array_size(json_object_get(json, "rdma")), 0);
    assert_true(json_is_null(json_object_get(json, "peer")));
    assert_string_equal(text_at(json, "verdict"), "fine");
    json_decref(json);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_doctor_test(the_text_is_the_golden_one),
        bt_doctor_test(colors_change_nothing_else),
        bt_doctor_test(json_says_the_same),
        bt_doctor_test(texts_of_peers_cannot_break_the_json),
        bt_doctor_test(an_empty_machine_is_json_too),
    };
    return bt_run_tests(tests);
}
