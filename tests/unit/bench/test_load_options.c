/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "bench/load/load_options.h"

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
    assert_int_equal(options.prompt_tokens.min, 256);
    assert_int_equal(options.prompt_tokens.max, 256);
    assert_int_equal(options.concurrency, 8);
    assert_null(options.model);
    assert_null(options.prompt_file);
    bt_load_options_free(&options);
}

static void options_are_taken_over(void **state)
{
    (void)state;
    assert_ok(parse(ARGUMENTS("--url=http://localhost:81", "--prompt-len", "10:20", "--no-stream",
                              "--timeout=2s", "--rate=2.5", "--token-ids")));
    assert_string_equal(options.host, "localhost");
    assert_int_equal(options.port, 81);
    assert_int_equal(options.prompt_tokens.min, 10);
    assert_int_equal(options.prompt_tokens.max, 20);
    assert_false(options.stream);
    assert_true(options.token_ids);
    assert_int_equal(options.timeout_ms, 2000);
    assert_true(options.rate == 2.5);
    assert_int_equal(options.concurrency, options.n_requests); /* no limit */
    bt_load_options_free(&options);
}

static void contradictions_are_refused(void **state)
{
    (void)state;
    static const struct {
        char *arguments[4];
        const char *text;
    } cases[] = {
        {{"--prompt-len=0"}, "--prompt-len: wanted N or MIN:MAX"},
        {{"--prompt-len=5:4"}, "MIN below MAX"},
        {{"--output-len=1:2:3"}, "--output-len"},
        {{"--output-len=12x"}, "--output-len"},
        {{"--url=https://a"}, ""},
        {{"--token-ids", "--chat"}, "--token-ids"},
        {{"--token-ids", "--prompt-file=x"}, "--token-ids"},
        {{"--prefix-len=300"}, "--prefix-len"},
        {{"--requests=0"}, "requests"},
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
    static const char *const names[] = {"--url",        "--rate",        "--concurrency",
                                        "--prompt-len", "--prompt-file", "--save",
                                        "--json",       "--token-ids",   "--timeout"};
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
        bt_test(contradictions_are_refused),
        bt_test(help_names_every_option),
    };
    return bt_run_tests(tests);
}
