/* SPDX-License-Identifier: Apache-2.0 */
#include "proxy/proxyflags.h"
#include "support/test.h"

#include <stdio.h>

static bt_proxy_flag_room room;
static bt_proxy_options options;
static bt_args *args;

/* line: flags separated by spaces. */
static baton_status parse(const char *line)
{
    static char copy[1024];
    static char *argv[64];
    int argc = 0;
    snprintf(copy, sizeof(copy), "baton-proxy %s", line);
    for (char *word = strtok(copy, " "); word != NULL; word = strtok(NULL, " "))
        argv[argc++] = word;
    bt_args_destroy(args);
    args = NULL;
    baton_status status = bt_args_parse(&bt_proxy_args_spec, argc, argv, &args);
    return status != BATON_OK ? status : bt_proxy_flags_read(args, &room, &options);
}

static void free_args(void)
{
    bt_args_destroy(args);
    args = NULL;
}

static void defaults_are_those_of_the_replaced_proxy(void **state)
{
    (void)state;
    assert_ok(parse(""));
    assert_int_equal(options.n_prefill + options.n_decode, 2);
    assert_string_equal(options.prefill[0].host, "localhost");
    assert_int_equal(options.prefill[0].port, 8100);
    assert_int_equal(options.decode[0].port, 8200);
    assert_int_equal(options.decode[0].n_ranks, 1);
    assert_int_equal(options.decode[0].init_ports[0], 8300);
    assert_int_equal(options.decode[0].alloc_ports[0], 8400);
    assert_int_equal(options.port, 8000);
    assert_int_equal(options.notice_port, 8500);
    assert_string_equal(options.host, "127.0.0.1");
    assert_int_equal(options.notices, BT_NOTICES_AUTO);
    assert_int_equal(options.mode, BT_MODE_EARLY_FIRST_TOKEN);
    assert_int_equal(options.chat_mode, BT_MODE_EARLY_FIRST_TOKEN);
    free_args();
}

static void one_port_and_a_count_go_up(void **state)
{
    (void)state;
    assert_ok(parse("--host localhost --port 9100 --prefiller-host localhost --prefiller-port 7100 "
                    "--num-prefillers 2 --decoder-host 10.0.0.9 --decoder-port 7200 "
                    "--decoder-init-port 7300,7310 --decoder-alloc-port 7400,7410 "
                    "--num-decoders 3 --proxy-host localhost --proxy-port 7500"));
    assert_int_equal(options.n_prefill, 2);
    assert_int_equal(options.prefill[1].port, 7101);
    assert_int_equal(options.n_decode, 3);
    assert_string_equal(options.decode[2].host, "10.0.0.9");
    assert_int_equal(options.decode[2].port, 7202);
    assert_int_equal(options.decode[2].n_ranks, 2);
    assert_int_equal(options.decode[2].init_ports[1], 7312);
    assert_int_equal(options.decode[2].alloc_ports[0], 7402);
    assert_int_equal(options.notice_port, 7500);
    free_args();
}

static void lists_are_paired(void **state)
{
    (void)state;
    assert_ok(parse("--prefiller-host a --prefiller-port 1,2,3 --decoder-host x,y "
                    "--decoder-port 9 --decoder-init-port 5 --decoder-alloc-port 6"));
    assert_int_equal(options.n_prefill, 3);
    assert_string_equal(options.prefill[2].host, "a");
    assert_int_equal(options.prefill[2].port, 3);
    assert_int_equal(options.n_decode, 2);
    assert_string_equal(options.decode[1].host, "y");
    assert_int_equal(options.decode[1].port, 9);
    assert_int_equal(options.decode[1].init_ports[0], 5);
    assert_ok(parse("--prefiller-host a,b --prefiller-port 1,2"));
    assert_string_equal(options.prefill[1].host, "b");
    assert_int_equal(options.prefill[1].port, 2);
    free_args();
}

static void engines_may_be_urls(void **state)
{
    (void)state;
    assert_ok(parse("--prefill http://p0:80 --prefill=p1:81 "
                    "--decode http://[::1]:82,init=1,2,alloc=3,4 --mode decode-first "
                    "--chat-mode early-first-token --notices 2 --decode-policy least_loaded "
                    "--prefill-policy power_of_two"));
    assert_int_equal(options.n_prefill, 2);
    assert_string_equal(options.prefill[1].host, "p1");
    assert_string_equal(options.decode[0].host, "::1");
    assert_int_equal(options.decode[0].n_ranks, 2);
    assert_int_equal(options.decode[0].init_ports[1], 2);
    assert_int_equal(options.decode[0].alloc_ports[1], 4);
    assert_int_equal(options.mode, BT_MODE_DECODE_FIRST);
    assert_int_equal(options.chat_mode, BT_MODE_EARLY_FIRST_TOKEN);
    assert_int_equal(options.notices, 2);
    assert_int_equal(options.decode_policy, BT_POLICY_LEAST_LOADED);
    assert_int_equal(options.prefill_policy, BT_POLICY_POWER_OF_TWO);
    assert_ok(parse("--prefill p:1 --decode d:2"));
    assert_int_equal(options.decode[0].n_ranks, 0);
    assert_int_equal(options.prefill_policy, BT_POLICY_ROUND_ROBIN);
    assert_int_equal(options.decode_policy, BT_POLICY_ROUND_ROBIN);
    free_args();
}

static void engines_say_how_they_hand_over(void **state)
{
    (void)state;
    assert_ok(parse("--dialect nixl-pull --prefill http://p:1,kv_host=10.0.0.1 --prefill "
                    "http://q:2,dialect=moriio-read,zmq=host:10.0.0.3;handshake:1;notify:2,tp=8,"
                    "dp=2 --decode d:3 --decode http://e:4,dialect=moriio-read,zmq=x:1,"
                    "init=5,6,handshake=7,alloc=8,9,notify=10"));
    assert_int_equal(options.prefill[0].dialect, BT_DIALECT_NIXL_PULL);
    assert_string_equal(options.prefill[0].kv_host, "10.0.0.1");
    assert_int_equal(options.prefill[1].dialect, BT_DIALECT_MORIIO_READ);
    assert_string_equal(options.prefill[1].zmq, "host:10.0.0.3,handshake:1,notify:2");
    assert_int_equal(options.prefill[1].tp, 8);
    assert_int_equal(options.prefill[1].dp, 2);
    assert_int_equal(options.decode[0].dialect, BT_DIALECT_NIXL_PULL);
    assert_int_equal(options.decode[1].handshake_port, 7);
    assert_int_equal(options.decode[1].notify_port, 10);
    assert_int_equal(options.decode[1].n_ranks, 2);
    assert_int_equal(options.decode[1].alloc_ports[1], 9);
    assert_ok(parse("--dialect shared-store --num-prefillers 2"));
    assert_int_equal(options.prefill[1].dialect, BT_DIALECT_SHARED_STORE);
    assert_int_equal(options.decode[0].dialect, BT_DIALECT_SHARED_STORE);
    free_args();
}

static void policies_have_their_figures(void **state)
{
    (void)state;
    assert_ok(parse("--prefill-policy prefix_aware --decode-policy consistent_hash "
                    "--session-header X-User --prefix-memory 3 --prefix-window 99 --explain "
                    "--local-below 600 --local-queue 5000 --cold-pair 70 --decode-room 90 "
                    "--room-ms 7"));
    assert_int_equal(options.prefill_policy, BT_POLICY_PREFIX_AWARE);
    assert_int_equal(options.decode_policy, BT_POLICY_CONSISTENT_HASH);
    assert_string_equal(options.session_header, "X-User");
    assert_int_equal(options.prefix_bytes, 3 << 20);
    assert_int_equal(options.prefix_window, 99);
    assert_int_equal(options.local_below, 600);
    assert_int_equal(options.cold_pair, 70);
    assert_int_equal(options.decode_room, 90);
    assert_int_equal(options.ms.room, 7);
    assert_int_equal(options.local_queue, 5000);
    assert_true(options.explain);
    assert_ok(parse(""));
    assert_string_equal(options.session_header, "X-Session-Id");
    assert_int_equal(options.prefix_bytes, 16 << 20);
    assert_int_equal(options.prefix_window, 16384);
    assert_int_equal(options.local_below, 0);
    assert_int_equal(options.local_queue, 8192);
    assert_false(options.explain);
    free_args();
}

static void wrong_values_are_named(void **state)
{
    (void)state;
    static const struct {
        const char *line, *text;
    } wrong[] = {
        {"--port 70000", "--port: wanted 0 to 65535"},
        {"--port x", "found \"x\""},
        {"--decode-policy best", "--decode-policy: wanted one of round_robin, random,"},
        {"--prefix-memory 0", "--prefix-memory: wanted 1 to"},
        {"--mode fast", "--mode: wanted early-first-token"},
        {"--prefiller-port 1,2 --prefiller-host a,b,c", "as many hosts as ports"},
        {"--prefiller-port 1,x", "found \"x\""},
        {"--decoder-init-port 1,2", "as many of both"},
        {"--decode http://d:1,init=3", "found 1 and 0"},
        {"--decode http://d:1,foo=3", "foo=3"},
        {"--decode http://d:1,init=0,alloc=1", "wanted a port"},
        {"--decode ftp://d:1", "ftp"},
        {"--dialect nixl", "wanted one of lmcache-pd, nixl-pull, "},
        {"--decode http://d:1,dialect=x", "found \"x\""},
        {"--dialect p2p-nccl --prefill http://p:1", "p2p-nccl needs zmq=HOST:PORT"},
        {"--dialect p2p-nccl", "p2p-nccl needs zmq=HOST:PORT"},
        {"--prefill http://p:1,zmq=a\r\nX:1", "wanted a host"},
        {"--prefill http://p:1,zmq=", "wanted a host"},
        {"--prefill http://p:1,tp=0", "1 to 1024 ranks"},
        {"--prefill http://p:1,notify=70000", "wanted a port"},
        {"--prefill http://p:1,2", "wanted init="},
        {"--prefiller-port 65535 --num-prefillers 2", "too high"},
        {"--notices 65", "--notices"},
        {"--kv-wait-ms 0", "--kv-wait-ms"},
        {"--no-such-flag 1", "no-such-flag"},
    };
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        assert_true(parse(wrong[i].line) < 0);
        if (strstr(baton_last_error(), wrong[i].text) == NULL)
            fail_msg("%s: %s", wrong[i].line, baton_last_error());
    }
    free_args();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(defaults_are_those_of_the_replaced_proxy),
        bt_test(one_port_and_a_count_go_up),
        bt_test(lists_are_paired),
        bt_test(engines_may_be_urls),
        bt_test(engines_say_how_they_hand_over),
        bt_test(policies_have_their_figures),
        bt_test(wrong_values_are_named),
    };
    return bt_run_tests(tests);
}
