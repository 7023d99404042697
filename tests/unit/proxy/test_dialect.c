/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/dialect.h"
#include "support/test.h"

#define TRACEPARENT "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

static const bt_worker_address two_ranks = {.host = "10.0.0.2",
                                            .port = 8200,
                                            .init_ports = {7300, 7301},
                                            .alloc_ports = {7400, 7401},
                                            .n_ranks = 2};
static const bt_worker_address no_ports = {.host = "10.0.0.2", .port = 8200};

static void check(bt_mode mode, bt_engines engines, const bt_worker_address *decoder,
                  const char *wanted)
{
    bt_strbuf out = {0};
    bt_dialect_values values = {"e.0.1.r", decoder, "tcp://10.0.0.1:8500", TRACEPARENT, 35000};
    bt_dialect_put_params(bt_dialect_find(mode, engines), &values, &out);
    assert_string_equal(bt_strbuf_text(&out), wanted);
    bt_strbuf_free(&out);
}

static void parameters_are_what_the_engines_expect(void **state)
{
    (void)state;
    check(BT_MODE_EARLY_FIRST_TOKEN, BT_ENGINES_LMCACHE, &two_ranks,
          "{\"ret_first_tok\":true,\"disagg_spec\":{\"req_id\":\"e.0.1.r\","
          "\"receiver_host\":\"10.0.0.2\",\"receiver_init_port\":[7300,7301],"
          "\"receiver_alloc_port\":[7400,7401]}}");
    check(BT_MODE_EARLY_FIRST_TOKEN, BT_ENGINES_BATON, &two_ranks,
          "{\"ret_first_tok\":true,\"disagg_spec\":{\"req_id\":\"e.0.1.r\","
          "\"receiver_host\":\"10.0.0.2\",\"receiver_init_port\":[7300,7301],"
          "\"receiver_alloc_port\":[7400,7401],\"notice_addr\":\"tcp://"
          "10.0.0.1:8500\",\"kv_wait_ms\":35000,\"traceparent\":\"" TRACEPARENT "\"}}");
    check(BT_MODE_DECODE_FIRST, BT_ENGINES_BATON, &two_ranks,
          "{\"disagg_spec\":{\"req_id\":\"e.0.1.r\",\"receiver_host\":\"10.0.0.2\","
          "\"receiver_init_port\":[7300,7301],\"receiver_alloc_port\":[7400,7401],"
          "\"notice_addr\":\"tcp://"
          "10.0.0.1:8500\",\"kv_wait_ms\":35000,\"traceparent\":\"" TRACEPARENT "\"}}");
    check(BT_MODE_DECODE_FIRST, BT_ENGINES_LMCACHE, &two_ranks,
          "{\"disagg_spec\":{\"req_id\":\"e.0.1.r\",\"receiver_host\":\"10.0.0.2\","
          "\"receiver_init_port\":[7300,7301],\"receiver_alloc_port\":[7400,7401]}}");
}

static void engines_without_ports_get_no_hand_off(void **state)
{
    (void)state;
    check(BT_MODE_EARLY_FIRST_TOKEN, BT_ENGINES_LMCACHE, &no_ports, "{\"ret_first_tok\":true}");
    check(BT_MODE_DECODE_FIRST, BT_ENGINES_BATON, &no_ports, "");
}

static void every_form_exists(void **state)
{
    (void)state;
    for (int mode = 0; mode < BT_N_MODES; mode++) {
        for (int engines = 0; engines < BT_N_ENGINES; engines++) {
            const bt_dialect *dialect = bt_dialect_find((bt_mode)mode, (bt_engines)engines);
            assert_int_equal(dialect->mode, mode);
            assert_int_equal(dialect->engines, engines);
            /* LMCache's receivers read nothing but ALLOC on that port. */
            assert_int_equal(dialect->answers_questions, engines == BT_ENGINES_BATON);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(parameters_are_what_the_engines_expect),
        bt_test(engines_without_ports_get_no_hand_off),
        bt_test(every_form_exists),
    };
    return bt_run_tests(tests);
}
