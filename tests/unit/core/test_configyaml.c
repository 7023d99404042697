/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "config_sample.h"
#include "core/alloc.h"
#include "core/configtable.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static const bt_config_entry elsewhere_entries[] = {{.key = "log_level"}, {.key = "tiers"}};
static const bt_config_table elsewhere = {"log", elsewhere_entries, 2, NULL};

/* Loads yaml, placed so that reading behind its end faults. The config is left in *config_p. */
static baton_status load(const char *yaml, size_t n, bt_config **config_p)
{
    assert_ok(bt_config_create(&(bt_config_options){.tables = &sample_table,
                                                    .n_tables = 1,
                                                    .elsewhere = &elsewhere,
                                                    .n_elsewhere = 1,
                                                    .foreign = bt_lmcache_keys,
                                                    .n_foreign = bt_n_lmcache_keys},
                               config_p));
    uint8_t *guarded = bt_guarded_copy(yaml, n);
    baton_status status = bt_config_load_text(*config_p, "f.yaml", guarded, n);
    bt_guarded_free(guarded, n);
    return status;
}

#define assert_loads(yaml, config_p) assert_ok(load((yaml), strlen(yaml), (config_p)))

static void assert_refused(const char *yaml, size_t n, const char *text)
{
    bt_config *config = NULL;
    assert_fails(load(yaml, n, &config), BATON_ERR_CONFIG, text);
    bt_config_destroy(config);
}

static void values_and_their_lines_are_known(void **state)
{
    (void)state;
    bt_config *config = NULL;
    assert_loads("# a comment\n"
                 "max_peers: 5\n"
                 "host: \"h\\u00e9\"\n"
                 "pool_bytes: '1073741824'\n"
                 "lease_ms: 5s  # five\n"
                 "require_rdma: yes\n"
                 "role: sender\n"
                 "ratio: ~\n"
                 "nice:\n"
                 "data_devices:\n  - lo\n  - eth0\n"
                 "log_level: {deep: [1, {2: 3}]}\n",
                 &config);
    assert_int_equal(sample_target.max_peers, 5);
    assert_string_equal(sample_target.host, "h\xc3\xa9");
    assert_int_equal(sample_target.pool_bytes, 1 << 30);
    assert_int_equal(sample_target.lease_ms, 5000);
    assert_true(sample_target.require_rdma);
    assert_int_equal(sample_target.role, 0);
    assert_true(sample_target.ratio == 0.1);
    assert_int_equal(sample_target.nice, -3);
    assert_int_equal(sample_target.n_data_devices, 2);
    assert_string_equal(sample_target.data_devices[1], "eth0");
    assert_string_equal(bt_config_origin(config, "max_peers"), "f.yaml:2");
    assert_string_equal(bt_config_origin(config, "data_devices"), "f.yaml:10");
    assert_string_equal(bt_config_origin(config, "ratio"), "default");
    bt_strbuf out = {0};
    bt_config_print(config, &out);
    assert_non_null(strstr(bt_strbuf_text(&out), "# sample\n"));
    assert_non_null(strstr(bt_strbuf_text(&out),
                           "lease_ms: 5s                            # f.yaml:5"
                           "\n"));
    bt_strbuf_free(&out);
    bt_config_destroy(config);
}

static void port_lists_are_equal_in_all_their_forms(void **state)
{
    (void)state;
    static const char *const one[] = {"init_port: 7300", "init_port: \"7300\"", "init_port: [7300]",
                                      "init_port:\n- 7300\n"};
    static const char *const two[] = {"init_port: 7300,7301", "init_port: \"7300, 7301\"",
                                      "init_port: [7300, 7301]", "init_port: ['7300', 7301]"};
    for (size_t i = 0; i < 4; i++) {
        bt_config *config = NULL;
        assert_loads(one[i], &config);
        assert_int_equal(sample_target.n_init_port, 1);
        assert_int_equal(sample_target.init_port[0], 7300);
        bt_config_destroy(config);
        assert_loads(two[i], &config);
        assert_int_equal(sample_target.n_init_port, 2);
        assert_int_equal(sample_target.init_port[0], 7300);
        assert_int_equal(sample_target.init_port[1], 7301);
        bt_config_destroy(config);
    }
}

static void an_empty_file_changes_nothing(void **state)
{
    (void)state;
    static const char *const empty[] = {"", "# only this\n", "---\n", "---\n...\n", "{}", "~\n"};
    for (size_t i = 0; i < sizeof(empty) / sizeof(empty[0]); i++) {
        bt_config *config = NULL;
        assert_loads(empty[i], &config);
        bt_config_destroy(config);
    }
}

static void wrong_content_is_refused_with_file_and_line(void **state)
{
    (void)state;
    static const struct {
        const char *yaml, *text;
    } cases[] = {
        {"nice: 1\nhots: x\n", "f.yaml:2: hots: wanted a known key, found an unknown one; did you "
                               "mean host?"},
        {"temperature: 1\n", "f.yaml:1: temperature: wanted a known key"},
        {"pool-bytes: 1\n", "f.yaml:1: pool-bytes: wanted a known key"},
        {"Host: x\n", "did you mean host?"},
        {"\"a\\nb\": 1\n", "f.yaml:1: a\\nb: wanted a known key"},
        {"\n\nmax_peers: lots\n", "f.yaml:3: max_peers: wanted a whole number from 1 "
                                  "to 4096, found 'lots'"},
        {"max_peers: [1]\n", "found a list"},
        {"max_peers: {a: 1}\n", "found a mapping"},
        {"host: [a]\n", "f.yaml:1: host: wanted a text, found a list"},
        {"role: true\n", "wanted sender or receiver, found 'true'"},
        {"init_port: [7300, [7301]]\n", "found a list of lists or mappings"},
        {"init_port: [7300, -1]\n", "found '-1'"},
        {"data_devices: {a: b}\n", "found a mapping"},
        {"host: a\nnice: 1\nhost: a\n",
         "f.yaml:3: host: wanted each key once, found it again; the first is in line 1"},
        {"local_cpu: true\nlocal_cpu: false\n", "f.yaml:2: local_cpu: wanted each key once"},
        {"- a\n- b\n", "f.yaml:1: wanted 'key: value' lines, found a list"},
        {"just words\n", "found a text"},
        {"? [a]\n: b\n", "f.yaml:1: wanted a key, found a list"},
        {"host: a\n---\nhost: b\n", "f.yaml:2: wanted one document, found a second"},
        {"host: &x a\nlog_level: *x\n", "f.yaml:2: wanted a value, found an alias (*x)"},
        {"<<: {a: b}\n", "wanted a known key"},
        {"host: \"a\\0b\"\n", "f.yaml:1: wanted a text, found a 0 character in it"},
        {"host: [a\n", "f.yaml:"},
        {"host: b: c\n", "f.yaml:1: wanted YAML, found an error"},
        {"host: \"a\n", "wanted YAML, found an error"},
        {"\thost: a\n", "f.yaml:1: wanted YAML"},
        {"host: a\nnice: \xff\n", "f.yaml:2: wanted YAML"},
        {"host: \xc3\x28\n", "f.yaml:1: wanted YAML"},
        {"host: \xed\xa0\x80\n", "f.yaml:1: wanted YAML"}, /* a surrogate */
        {"nice: 1\nhost: \x01\n", "f.yaml:2: wanted YAML"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_refused(cases[i].yaml, strlen(cases[i].yaml), cases[i].text);
    assert_refused("host: \0\n", 8, "wanted YAML");
    assert_refused("\xff\xfeh\0:\0 \0a\0", 10, "wanted YAML"); /* UTF-16 */
}

static void depth_length_and_size_are_bounded(void **state)
{
    (void)state;
    enum { N = 200000 };
    static char text[N + 64];
    int n = snprintf(text, sizeof(text), "log_level: ");
    memset(text + n, '[', N);
    assert_refused(text, (size_t)n + N, "wanted at most 16 levels");
    n = snprintf(text, sizeof(text), "host: ");
    memset(text + n, '[', N);
    assert_refused(text, (size_t)n + N, "wanted at most 16 levels");

    n = snprintf(text, sizeof(text), "data_devices: [");
    for (int i = 0; i < 1025; i++)
        n += snprintf(text + n, sizeof(text) - (size_t)n, "a,");
    n += snprintf(text + n, sizeof(text) - (size_t)n, "]");
    assert_refused(text, (size_t)n, "wanted at most 1024 items");
    n = snprintf(text, sizeof(text), "data_devices: \"");
    for (int i = 0; i < 1025; i++)
        n += snprintf(text + n, sizeof(text) - (size_t)n, "a,");
    n += snprintf(text + n, sizeof(text) - (size_t)n, "\"");
    assert_refused(text, (size_t)n, "wanted at most 1024 items, found 1025");

    size_t large = BT_CONFIG_MAX_FILE_BYTES + 1;
    char *huge = bt_calloc(large, 1);
    memset(huge, '#', large);
    bt_config *config = NULL;
    assert_fails(load(huge, large, &config), BATON_ERR_TOO_LARGE, "wanted at most 1048576 bytes");
    bt_config_destroy(config);
    assert_ok(load(huge, large - 1, &config));
    bt_config_destroy(config);
    bt_free(huge);
}

static void files_are_read_and_bad_ones_named(void **state)
{
    (void)state;
    char path[] = "/tmp/baton-test-config-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "nice: 3\nrole: 1\n", 16), 16);
    close(fd);
    bt_config *config = NULL;
    assert_loads("", &config);
    assert_fails(bt_config_load_file(config, path), BATON_ERR_CONFIG, path);
    assert_non_null(strstr(baton_last_error(), ":2: role: wanted sender or receiver"));
    assert_int_equal(sample_target.nice, 3);

    assert_int_equal(truncate(path, 4 << 20), 0);
    assert_fails(bt_config_load_file(config, path), BATON_ERR_TOO_LARGE, "at most 1048576");
    unlink(path);
    assert_fails(bt_config_load_file(config, path), BATON_ERR_IO, "No such file");
    assert_fails(bt_config_load_file(config, "/tmp"), BATON_ERR_IO, "/tmp");
    char longest[3000];
    memset(longest, 'd', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    assert_fails(bt_config_load_file(config, longest), BATON_ERR_IO, "File name too long");
    bt_config_destroy(config);
}

static void a_later_file_goes_over_an_earlier_one(void **state)
{
    (void)state;
    bt_config *config = NULL;
    assert_loads("nice: 3\nport: 1\n", &config);
    assert_ok(bt_config_load_text(config, "g.yaml", "nice: 4\n", 8));
    assert_int_equal(sample_target.nice, 4);
    assert_int_equal(sample_target.port, 1);
    assert_string_equal(bt_config_origin(config, "nice"), "g.yaml:1");
    bt_config_destroy(config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(values_and_their_lines_are_known),
        bt_test(port_lists_are_equal_in_all_their_forms),
        bt_test(an_empty_file_changes_nothing),
        bt_test(wrong_content_is_refused_with_file_and_line),
        bt_test(depth_length_and_size_are_bounded),
        bt_test(files_are_read_and_bad_ones_named),
        bt_test(a_later_file_goes_over_an_earlier_one),
    };
    return bt_run_tests(tests);
}
