/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "config_sample.h"
#include "core/alloc.h"
#include "core/args.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const bt_args_option options[] = {
    {.section = "Input and output",
     .name = "output",
     .value_name = "FILE",
     .fallback = "out.txt",
     .help = "Where the figures go."},
    {.name = "url", .value_name = "URL", .repeat = true, .help = "A server."},
    {.name = "json", .help = "As JSON."},
};
static const bt_args_spec spec = {.program = "baton-test",
                                  .summary = "Tests the command line.",
                                  .options = options,
                                  .n_options = 3,
                                  .positional = "[NAME]",
                                  .max_positional = 1,
                                  .tables = &sample_table,
                                  .n_tables = 1,
                                  .config_file = true};

/* Up to eight arguments; NULL ends them. */
static baton_status parse(char *const *arguments, bt_args **args)
{
    int argc = 1;
    char *argv[10] = {(char[]){"baton-test"}};
    for (; arguments[argc - 1] != NULL; argc++)
        argv[argc] = arguments[argc - 1];
    /* argv is not used behind parse: values point to the arguments themselves. */
    return bt_args_parse(&spec, argc, argv, args);
}

#define ARGUMENTS(...) ((char *const[]){__VA_ARGS__, NULL})

static void options_have_values_in_both_forms(void **state)
{
    (void)state;
    bt_args *args = NULL;
    assert_ok(parse(ARGUMENTS("--output", "a", "--url=b", "--url", "-", "--json", "name"), &args));
    assert_string_equal(bt_args_value(args, "output"), "a");
    assert_int_equal(bt_args_count(args, "url"), 2);
    assert_string_equal(bt_args_nth(args, "url", 0), "b");
    assert_string_equal(bt_args_value(args, "url"), "-");
    assert_int_equal(bt_args_count(args, "json"), 1);
    assert_int_equal(bt_args_n_positional(args), 1);
    assert_string_equal(bt_args_positional(args, 0), "name");
    bt_args_destroy(args);

    assert_ok(parse(ARGUMENTS("--output=", "--", "--json"), &args));
    assert_string_equal(bt_args_value(args, "output"), "");
    assert_null(bt_args_value(args, "url"));
    assert_int_equal(bt_args_count(args, "json"), 0);
    assert_string_equal(bt_args_positional(args, 0), "--json");
    bt_args_destroy(args);

    assert_ok(parse(ARGUMENTS("--json"), &args));
    assert_string_equal(bt_args_value(args, "output"), "out.txt"); /* the default */
    bt_args_destroy(args);
}

static void wrong_lines_are_refused_with_a_hint(void **state)
{
    (void)state;
    static const struct {
        char *arguments[4];
        const char *text;
    } cases[] = {
        {{"--outptu", "x"},
         "--outptu: wanted a known option, found an unknown one; did you mean "
         "--output?"},
        {{"--pool-byte=1"}, "did you mean --pool-bytes?"},
        {{"--temperature"}, "--temperature: wanted a known option, found an unknown one; see"},
        {{"--output"}, "--output: wanted a value, found the end of the line"},
        {{"--output", "--json"}, "--output: wanted a value, found another option"},
        {{"--json=1"}, "--json=1: wanted no value, found one"},
        {{"-x"}, "-x: wanted --name, found one dash"},
        {{"a", "b"}, "b: wanted fewer arguments, found this one more"},
        {{"--no-host"}, "unknown"},
        {{"--no-"}, "unknown"},
        {{"--=x"}, "unknown"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        bt_args *args = NULL;
        assert_fails(parse(cases[i].arguments, &args), BATON_ERR_INVALID_ARG, cases[i].text);
        assert_null(args);
    }
}

static bt_config *configured(char *const *arguments, baton_status wanted, const char *text)
{
    bt_args *args = NULL;
    bt_config *config = NULL;
    assert_ok(parse(arguments, &args));
    assert_ok(
        bt_config_create(&(bt_config_options){.tables = &sample_table, .n_tables = 1}, &config));
    if (wanted == BATON_OK)
        assert_ok(bt_args_configure(args, config));
    else
        assert_fails(bt_args_configure(args, config), wanted, text);
    bt_args_destroy(args);
    return config;
}

static void files_environment_and_flags_go_over_each_other(void **state)
{
    (void)state;
    char path[] = "/tmp/baton-test-args-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "nice: 1\nport: 1\nmax_peers: 1\n", 29), 29);
    close(fd);
    setenv("BATON_PORT", "2", 1);
    setenv("BATON_MAX_PEERS", "2", 1);
    bt_config *config = configured(
        ARGUMENTS("--max-peers", "3", "--config", path, "--require_rdma"), BATON_OK, NULL);
    unlink(path);
    unsetenv("BATON_PORT");
    unsetenv("BATON_MAX_PEERS");
    assert_int_equal(sample_target.nice, 1);
    assert_int_equal(sample_target.port, 2);
    assert_int_equal(sample_target.max_peers, 3);
    assert_true(sample_target.require_rdma);
    assert_string_equal(bt_config_origin(config, "max_peers"), "flag --max-peers");
    bt_config_destroy(config);
}

static void keys_may_be_given_in_all_forms(void **state)
{
    (void)state;
    bt_config_destroy(
        configured(ARGUMENTS("--require-rdma", "--nice", "-5", "--set", "port=7"), BATON_OK, NULL));
    assert_true(sample_target.require_rdma);
    assert_int_equal(sample_target.nice, -5);
    assert_int_equal(sample_target.port, 7);
    bt_config_destroy(configured(ARGUMENTS("--require-rdma", "--no-require-rdma"), BATON_OK, NULL));
    assert_false(sample_target.require_rdma);
    bt_config_destroy(configured(ARGUMENTS("--require-rdma", "yes", "name"), BATON_OK, NULL));
    assert_true(sample_target.require_rdma);
    bt_config_destroy(configured(ARGUMENTS("--require-rdma=off"), BATON_OK, NULL));
    assert_false(sample_target.require_rdma);
    bt_config_destroy(
        configured(ARGUMENTS("--init-port", "1,2", "--set=nice=3", "--nice=4"), BATON_OK, NULL));
    assert_int_equal(sample_target.n_init_port, 2);
    assert_int_equal(sample_target.nice, 4); /* the later one */
}

static void wrong_values_name_their_flag(void **state)
{
    (void)state;
    bt_config_destroy(configured(ARGUMENTS("--max-peers", "0"), BATON_ERR_CONFIG,
                                 "flag --max-peers: max_peers: wanted a whole number"));
    bt_config_destroy(
        configured(ARGUMENTS("--set", "hots=1"), BATON_ERR_CONFIG, "flag --set: hots: wanted"));
    bt_config_destroy(
        configured(ARGUMENTS("--config", "/nonexistent"), BATON_ERR_IO, "/nonexistent"));
}

static bool info_has(const char *argument, const char *text)
{
    bt_args *args = NULL;
    bt_strbuf out = {0};
    char copy[32];
    snprintf(copy, sizeof(copy), "%s", argument);
    assert_ok(parse(ARGUMENTS(copy, "--help-is-not-looked-at"), &args));
    bool found = bt_args_info(args, &out) && strstr(bt_strbuf_text(&out), text) != NULL;
    if (!found)
        print_error("wanted '%s' in:\n%s", text, bt_strbuf_text(&out));
    bt_strbuf_free(&out);
    bt_args_destroy(args);
    return found;
}

static void help_is_complete_and_aligned(void **state)
{
    (void)state;
    assert_true(info_has("--help", "Usage: baton-test [options] [NAME]\n\n"
                                   "Tests the command line.\n\n"
                                   "Input and output:\n"
                                   "  --output FILE "));
    assert_true(info_has("-h", "Where the figures go. (default: out.txt)\n"));
    assert_true(info_has("-h", "A server. May be repeated.\n"));
    assert_true(info_has("-h", "\nsample:\n  --require-rdma  "));
    assert_true(info_has("-h", "  --role sender|receiver  "));
    assert_true(info_has("-h", "  --version "));
    bt_strbuf out = {0};
    bt_args *args = NULL;
    assert_ok(parse(ARGUMENTS("-h"), &args));
    assert_true(bt_args_info(args, &out));
    size_t column = 0, help_column = 0;
    for (size_t i = 0; i < out.length; i++) {
        column = out.data[i] == '\n' ? 0 : column + 1;
        assert_true(column <= 100);
        if (strncmp(out.data + i, "A server.", 9) == 0)
            help_column = column;
        if (strncmp(out.data + i, "Seed of keys.", 13) == 0)
            assert_int_equal(column, help_column);
    }
    assert_true(help_column > 0);
    bt_strbuf_free(&out);
    bt_args_destroy(args);
}

static void version_and_reference_are_printed(void **state)
{
    (void)state;
    assert_true(info_has("--version", "baton-test "));
    assert_true(info_has("--version", baton_version()));
    bt_args *args = NULL;
    bt_strbuf out = {0};
    assert_ok(parse(ARGUMENTS("--print-reference"), &args));
    assert_true(bt_args_info(args, &out));
    assert_non_null(strstr(bt_strbuf_text(&out), "max_peers: 1024\n"));
    bt_strbuf_free(&out);
    bt_args_destroy(args);
    assert_ok(parse(ARGUMENTS("--print-config"), &args));
    assert_false(bt_args_info(args, &out));
    assert_int_equal(bt_args_count(args, "print-config"), 1);
    bt_args_destroy(args);
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    uint64_t nth = 1;
    for (;; nth++) {
        bt_args *args = NULL;
        bt_alloc_fail_at(nth);
        baton_status status = parse(ARGUMENTS("--json"), &args);
        bt_alloc_fail_at(0);
        bt_args_destroy(args);
        if (status == BATON_OK)
            break;
        assert_int_equal(status, BATON_ERR_NO_MEMORY);
    }
    assert_int_equal(nth, 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(options_have_values_in_both_forms),
        bt_test(wrong_lines_are_refused_with_a_hint),
        bt_test(files_environment_and_flags_go_over_each_other),
        bt_test(keys_may_be_given_in_all_forms),
        bt_test(wrong_values_name_their_flag),
        bt_test(help_is_complete_and_aligned),
        bt_test(version_and_reference_are_printed),
        bt_test(every_allocation_may_fail),
    };
    return bt_run_tests(tests);
}
