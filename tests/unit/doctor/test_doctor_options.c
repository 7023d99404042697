/* SPDX-License-Identifier: Apache-2.0 */
#include "doctor/doctor_options.h"
#include "support/test.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static bt_doctor_options options;
static bt_strbuf info;

/* Up to eight arguments; NULL ends them. */
static baton_status parse(char *const *arguments)
{
    static char *argv[10];
    int argc = 1;
    argv[0] = (char *)(uintptr_t) "baton-doctor";
    for (; arguments[argc - 1] != NULL; argc++)
        argv[argc] = arguments[argc - 1];
    bt_strbuf_clear(&info);
    return bt_doctor_options_parse(argc, argv, &options, &info);
}

#define ARGUMENTS(...) ((char *const[]){__VA_ARGS__, NULL})

static int tidy(void **state)
{
    bt_doctor_options_free(&options);
    bt_strbuf_free(&info);
    return bt_test_teardown(state);
}

static void defaults_look_at_this_machine(void **state)
{
    (void)state;
    assert_ok(parse((char *const[]){NULL}));
    assert_string_equal(options.root, "");
    assert_int_equal(options.color, BT_DOCTOR_COLOR_AUTO);
    assert_false(options.json);
    assert_int_equal(options.file.data.n_data_devices, 0);
}

static void the_hand_offs_keys_are_read(void **state)
{
    (void)state;
    char path[] = "/tmp/baton-doctor-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    dprintf(fd, "role: receiver\npool_bytes: 1GiB\ndata_devices: eth0\n");
    close(fd);
    char config[64];
    snprintf(config, sizeof(config), "--config=%s", path);
    assert_ok(parse(ARGUMENTS(config, (char[]){"--set"}, (char[]){"data_devices=eth1,mlx5_0:1"},
                              (char[]){"--json"}, (char[]){"--color=never"})));
    unlink(path);
    assert_int_equal(options.file.pool_bytes, 1 << 30);
    assert_int_equal(options.file.data.n_data_devices, 2);
    assert_string_equal(options.file.data.data_devices[1], "mlx5_0:1");
    assert_true(options.json);
    assert_int_equal(options.color, BT_DOCTOR_COLOR_NEVER);
}

static void peers_are_names_or_addresses_with_a_port(void **state)
{
    (void)state;
    static const struct {
        const char *text, *host;
        uint16_t port;
    } good[] = {{"decode-1:7300", "decode-1", 7300},
                {"127.0.0.1:1", "127.0.0.1", 1},
                {"[::1]:65535", "::1", 65535},
                {"::1:7300", "::1", 7300}};
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        char text[64];
        strcpy(text, good[i].text);
        assert_ok(
            parse(ARGUMENTS((char[]){"--peer"}, text, (char[]){"--timeout"}, (char[]){"2s"})));
        assert_string_equal(options.host, good[i].host);
        assert_int_equal(options.init_port, good[i].port);
        assert_int_equal(options.timeout_ms, 2000);
        bt_doctor_options_free(&options);
    }
    static const char *const wrong[] = {"host",    "host:",      ":7300",      "host:0",
                                        "host:-1", "host:7300x", "host:65536", "host: 1"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        char text[64];
        strcpy(text, wrong[i]);
        assert_fails(parse(ARGUMENTS((char[]){"--peer"}, text)), BATON_ERR_INVALID_ARG, "--peer");
        bt_doctor_options_free(&options);
    }
}

static void nonsense_is_refused(void **state)
{
    (void)state;
    assert_fails(parse(ARGUMENTS((char[]){"--sett"}, (char[]){"a=b"})), BATON_ERR_INVALID_ARG,
                 "--set");
    bt_doctor_options_free(&options);
    assert_fails(parse(ARGUMENTS((char[]){"--set"}, (char[]){"pool_byte=1"})), BATON_ERR_CONFIG,
                 "pool_bytes");
    bt_doctor_options_free(&options);
    assert_fails(parse(ARGUMENTS((char[]){"--config"}, (char[]){"/does/not/exist"})), BATON_ERR_IO,
                 "/does/not/exist");
    bt_doctor_options_free(&options);
    assert_fails(parse(ARGUMENTS((char[]){"--root"}, (char[]){"/does/not/exist"})),
                 BATON_ERR_INVALID_ARG, "--root");
}

static void help_fits_on_a_screen_or_two(void **state)
{
    (void)state;
    assert_ok(parse(ARGUMENTS((char[]){"--help"})));
    unsigned lines = 0;
    for (const char *at = bt_strbuf_text(&info); *at != '\0'; at++)
        lines += *at == '\n';
    assert_true(lines > 10 && lines < 60);
    assert_non_null(strstr(bt_strbuf_text(&info), "Exit status"));
}

int main(void)
{
#define HERE(fn) cmocka_unit_test_setup_teardown(fn, bt_test_setup, tidy)
    const struct CMUnitTest tests[] = {
        HERE(defaults_look_at_this_machine),
        HERE(the_hand_offs_keys_are_read),
        HERE(peers_are_names_or_addresses_with_a_port),
        HERE(nonsense_is_refused),
        HERE(help_fits_on_a_screen_or_two),
    };
    return bt_run_tests(tests);
}
