/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "bench/load/load_options.h"

#include <math.h>

static bt_load_options options;

/* Up to eight arguments; NULL ends them. */
static baton_status parse(char *const *arguments)
{
    char *argv[10] = {(char[]){"baton-load"}};
    int argc = 1;
    for (; arguments[argc - 1] != NULL; argc++)
        argv[argc] = arguments[argc - 1];
    bt_strbuf info = {0};
    baton_status status = bt_load_options_parse(argc, argv, &options, &info);
    bt_strbuf_free(&info);
    return status;
}

#define ARGUMENTS(...) ((char *const[]){__VA_ARGS__, NULL})

static void defaults_are_a_small_streamed_run(void **state)
{
    (void)state;
    assert_ok(parse((char *const[]){NULL}));
    assert_string_equal(options.host, "127.0.0.1");
    assert_int_equal(options.port, 8000);
    assert_true(options.stream);
    assert_int_equal(options.input_tokens.min, 256);
    assert_int_equal(options.input_tokens.max, 256);
    assert_true(options.rate == 0);
    assert_true(options.burstiness == 1);
    assert_false(options.save_result);
    assert_int_equal(options.percentiles.n, 3);
    assert_false(options.shown[BT_LOAD_QUEUE]);
    assert_int_equal(options.concurrency, 8);
    assert_null(options.model);
    assert_null(options.dataset_path);
    bt_load_options_free(&options);
}

static void options_are_taken_over(void **state)
{
    (void)state;
    assert_ok(parse(ARGUMENTS("--base-url=http://localhost:81", "--random-input-len", "10:20",
                              "--no-stream", "--timeout=2s", "--request-rate=2.5", "--token-ids")));
    assert_string_equal(options.host, "localhost");
    assert_int_equal(options.port, 81);
    assert_int_equal(options.input_tokens.min, 10);
    assert_int_equal(options.input_tokens.max, 20);
    assert_false(options.stream);
    assert_true(options.token_ids);
    assert_int_equal(options.timeout_ms, 2000);
    assert_true(options.rate == 2.5);
    assert_true(options.concurrency == BT_LOAD_NO_LIMIT);
    bt_load_options_free(&options);
}

static void names_of_vllm_mean_what_they_mean_there(void **state)
{
    (void)state;
    assert_ok(parse(ARGUMENTS("--goodput", "ttft:200", "tpot:50.5", "--random-input-len=100",
                              "--random-range-ratio=0.5", "--burstiness=inf",
                              "--metric-percentiles=50,99.9")));
    assert_true(options.goals.is_set);
    assert_true(options.goals.limit_ms[BT_LOAD_TTFT] == 200);
    assert_true(options.goals.limit_ms[BT_LOAD_TPOT] == 50.5);
    assert_true(options.goals.limit_ms[BT_LOAD_E2EL] == 0);
    assert_int_equal(options.input_tokens.min, 50);
    assert_int_equal(options.input_tokens.max, 150);
    assert_int_equal(options.output_tokens.min, 32);
    assert_int_equal(options.output_tokens.max, 96);
    assert_true(isinf(options.burstiness));
    char name[BT_LOAD_PERCENTILE_CHARS];
    bt_load_percentile_name(options.percentiles.percent[1], name);
    assert_string_equal(name, "p99.9");
    bt_load_options_free(&options);
    assert_ok(parse(ARGUMENTS("--ramp-up-strategy=exponential", "--ramp-up-start-rps=2",
                              "--ramp-up-end-rps=32", "--result-filename=x")));
    assert_int_equal(options.ramp, BT_LOAD_EXPONENTIAL);
    assert_true(options.rate > 0 && options.save_result);
    bt_load_options_free(&options);
}

static void contradictions_are_refused(void **state)
{
    (void)state;
    static const struct {
        char *arguments[4];
        const char *text;
    } cases[] = {
        {{"--random-input-len=0"}, "--random-input-len: wanted N or MIN:MAX"},
        {{"--random-input-len=5:4"}, "MIN below MAX"},
        {{"--random-output-len=1:2:3"}, "--random-output-len"},
        {{"--random-output-len=12x"}, "--random-output-len"},
        {{"--base-url=https://a"}, ""},
        {{"--token-ids", "--backend=openai-chat"}, "--token-ids"},
        {{"--token-ids", "--dataset-path=x"}, "--token-ids"},
        {{"--token-ids", "--turns=2"}, "--turns"},
        {{"--num-prompts=0"}, "num-prompts"},
        {{"--request-rate=0"}, "--request-rate: wanted a number above 0"},
        {{"--request-rate=5x"}, "--request-rate: wanted a number above 0"},
        {{"--burstiness=-1"}, "--burstiness: wanted a number above 0"},
        {{"--goodput", "ttft:1", "tpot"}, "--goodput: wanted ttft:MS"},
        {{"--goodput=itl:5"}, "--goodput: wanted ttft:MS"},
        {{"--goodput=ttft:0"}, "--goodput: wanted ttft:MS"},
        {{"--goodput=ttft:5", "--no-stream"}, "e2el only"},
        {{"--metric-percentiles=101"}, "0 to 100"},
        {{"--metric-percentiles=1,2,3,4,5,6,7,8,9"}, "at most 8"},
        {{"--percentile-metrics=ttff"}, "found ttff"},
        {{"--ramp-up-strategy=linear"}, "--ramp-up-start-rps"},
        {{"--ramp-up-start-rps=1", "--ramp-up-end-rps=2"}, "--ramp-up-strategy"},
        {{"--find-rate"}, "--goodput with it"},
        {{"--header=a=1,=2"}, "--header: wanted KEY=VALUE"},
        {{"--metadata=tp"}, "KEY=VALUE"},
        {{"--endpoint=v1"}, "--endpoint"},
        {{"--bogus"}, "--bogus"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        baton_status status = parse(cases[i].arguments);
        assert_true(status < 0);
        assert_non_null(strstr(baton_last_error(), cases[i].text));
        bt_load_options_free(&options);
    }
}

static void help_names_every_option(void **state)
{
    (void)state;
    char *argv[] = {(char[]){"baton-load"}, (char[]){"--help"}};
    bt_strbuf info = {0};
    assert_ok(bt_load_options_parse(2, argv, &options, &info));
    static const char *const names[] = {
        "--base-url",         "--request-rate",     "--max-concurrency",
        "--random-input-len", "--dataset-path",     "--save-result",
        "--goodput",          "--ramp-up-strategy", "--turns"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        assert_non_null(strstr(bt_strbuf_text(&info), names[i]));
    bt_strbuf_free(&info);
    bt_load_options_free(&options);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(defaults_are_a_small_streamed_run),
        bt_test(options_are_taken_over),
        bt_test(names_of_vllm_mean_what_they_mean_there),
        bt_test(contradictions_are_refused),
        bt_test(help_names_every_option),
    };
    return bt_run_tests(tests);
}
