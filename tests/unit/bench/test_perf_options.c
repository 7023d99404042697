/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "bench/perf_options.h"

static bt_perf_options options;

/* Up to eight arguments; NULL ends them. */
static baton_status parse(char *const *arguments)
{
    char *argv[10] = {(char[]){"baton-perf"}};
    int argc = 1;
    for (; arguments[argc - 1] != NULL; argc++)
        argv[argc] = arguments[argc - 1];
    bt_strbuf info = {0};
    baton_status status = bt_perf_options_parse(argc, argv, &options, &info);
    bt_strbuf_free(&info);
    return status;
}

#define ARGUMENTS(...) ((char *const[]){__VA_ARGS__, NULL})

static void defaults_are_the_scattered_pair(void **state)
{
    (void)state;
    assert_ok(parse((char *const[]){NULL}));
    assert_int_equal(options.n_pages, 256);
    assert_int_equal(options.page_bytes, 262144);
    assert_int_equal(options.pool_pages, 256);
    assert_int_equal(options.order, BT_PERF_SCATTER);
    assert_int_equal(options.role, BT_PERF_PAIR);
    assert_int_equal(options.transport, BT_PERF_AUTO);
    assert_int_equal(options.control_fd, -1);
    bt_perf_options_free(&options);
}

static void options_are_taken_over(void **state)
{
    (void)state;
    assert_ok(parse(ARGUMENTS("--pages=3", "--page-bytes", "64KiB", "--descending", "--transport",
                              "tcp", "--progress=manual", "--pool-pages=7")));
    assert_int_equal(options.n_pages, 3);
    assert_int_equal(options.page_bytes, 65536);
    assert_int_equal(options.order, BT_PERF_DESCENDING);
    assert_int_equal(options.transport, BT_PERF_TCP);
    assert_int_equal(options.progress, BATON_PROGRESS_MANUAL);
    assert_int_equal(options.pool_pages, 7);
    bt_perf_options_free(&options);
    assert_ok(parse(ARGUMENTS("--role=sender", "--peer=node7:7400", "--devices=mlx5_0:1,eth0")));
    assert_string_equal(options.host, "node7");
    assert_int_equal(options.port, 7400);
    assert_int_equal(options.n_devices, 2);
    bt_perf_options_free(&options);
    assert_ok(parse(ARGUMENTS("--loop")));
    assert_int_equal(options.transport, BT_PERF_LOOP);
    bt_perf_options_free(&options);
}

static void contradictions_are_refused(void **state)
{
    (void)state;
    static const struct {
        char *arguments[4];
        const char *text;
    } cases[] = {
        {{"--scatter", "--contiguous"}, "one of --scatter"},
        {{"--latency", "--transport=all"}, "--transport all"},
        {{"--plot=a.svg"}, "--plot"},
        {{"--curve", "--role=receiver"}, "--curve"},
        {{"--soak=5", "--senders=2"}, "--soak"},
        {{"--receivers=2", "--loop"}, "--senders"},
        {{"--senders=17"}, "senders"},
        {{"--role=worker"}, "--control-fd"},
        {{"--latency", "--alloc"}, "one of --curve"},
        {{"--produce=20", "--curve"}, "one of --curve"},
        {{"--loop", "--transport=put"}, "--transport put"},
        {{"--loop", "--role=receiver"}, "--loop"},
        {{"--pages=4", "--pool-pages=3"}, "--pool-pages: wanted at least 4, found 3"},
        {{"--role=sender"}, "--peer"},
        {{"--peer=a:1"}, "--peer"},
        {{"--role=sender", "--peer=a"}, "--peer: wanted host:port"},
        {{"--role=sender", "--peer=:7"}, "--peer: wanted host:port"},
        {{"--role=sender", "--peer=a:70000"}, "--peer: wanted host:port"},
        {{"--role=sender", "--peer=a:7x"}, "--peer: wanted host:port"},
        {{"--role=receiver", "--listen=a:-1"}, "--listen: wanted host:port"},
        {{"--control-fd=3"}, "--control-fd"},
        {{"--transport=rdma"}, "transport"},
        {{"--page-bytes=0"}, "page"},
        {{"--bogus"}, "--bogus"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        baton_status status = parse(cases[i].arguments);
        assert_true(status < 0);
        if (strstr(baton_last_error(), cases[i].text) == NULL)
            fail_msg("wanted '%s', found: %s", cases[i].text, baton_last_error());
        bt_perf_options_free(&options);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(defaults_are_the_scattered_pair),
        bt_test(options_are_taken_over),
        bt_test(contradictions_are_refused),
    };
    return bt_run_tests(tests);
}
