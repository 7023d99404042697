/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "config_sample.h"
#include "core/alloc.h"
#include "core/configtable.h"

#include <stdlib.h>

static bt_config *new_config(void)
{
    bt_config *config = NULL;
    memset(&sample_target, 0xee, sizeof(sample_target)); /* so that a missing default shows */
    assert_ok(
        bt_config_create(&(bt_config_options){.tables = &sample_table, .n_tables = 1}, &config));
    return config;
}

static void defaults_come_first(void **state)
{
    (void)state;
    bt_config *config = new_config();
    const sample *s = &sample_target;
    assert_false(s->require_rdma);
    assert_int_equal(s->nice, -3);
    assert_int_equal(s->port, 8000);
    assert_int_equal(s->max_peers, 1024);
    assert_int_equal(s->hash_seed, 0);
    assert_true(s->ratio == 0.1);
    assert_int_equal(s->pool_bytes, 256 << 20);
    assert_int_equal(s->lease_ms, 30000);
    assert_string_equal(s->host, "127.0.0.1");
    assert_int_equal(s->role, 1);
    assert_int_equal(s->n_init_port, 1);
    assert_int_equal(s->init_port[0], 7300);
    assert_int_equal(s->n_data_devices, 1);
    assert_string_equal(s->data_devices[0], "lo");
    assert_string_equal(bt_config_origin(config, "host"), "default");
    assert_null(bt_config_origin(config, "hots"));
    bt_config_destroy(config);
}

static void kept_targets_are_only_changed_by_what_is_said(void **state)
{
    (void)state;
    bt_config *config = NULL;
    memset(&sample_target, 0, sizeof(sample_target));
    sample_target.nice = 7;
    sample_target.host = "caller";
    assert_ok(bt_config_create(
        &(bt_config_options){.tables = &sample_table, .n_tables = 1, .keep = true}, &config));
    assert_ok(bt_config_set(config, "flag --port", "port", "1"));
    assert_int_equal(sample_target.nice, 7);
    assert_int_equal(sample_target.port, 1);
    assert_string_equal(sample_target.host, "caller");
    assert_string_equal(bt_config_origin(config, "nice"), "kept");
    assert_string_equal(bt_config_origin(config, "port"), "flag --port");
    bt_config_destroy(config);
}

static void the_environment_beats_defaults_and_flags_beat_it(void **state)
{
    (void)state;
    setenv("BATON_MAX_PEERS", "7", 1);
    setenv("BATON_HOST", "", 1); /* empty: not set */
    bt_config *config = new_config();
    assert_ok(bt_config_load_env(config));
    assert_int_equal(sample_target.max_peers, 7);
    assert_string_equal(sample_target.host, "127.0.0.1");
    assert_string_equal(bt_config_origin(config, "max_peers"), "env BATON_MAX_PEERS");
    assert_ok(bt_config_set(config, "flag --max-peers", "max-peers", "9"));
    assert_int_equal(sample_target.max_peers, 9);
    assert_ok(bt_config_set_pair(config, "flag --set", "max_peers=11"));
    assert_int_equal(sample_target.max_peers, 11);
    assert_ok(bt_config_set_pair(config, "flag --set", "host=a=b"));
    assert_string_equal(sample_target.host, "a=b");

    setenv("BATON_MAX_PEERS", "0", 1);
    assert_fails(bt_config_load_env(config), BATON_ERR_CONFIG,
                 "env BATON_MAX_PEERS: max_peers: wanted a whole number from 1 to "
                 "4096, found '0'");
    unsetenv("BATON_MAX_PEERS");
    unsetenv("BATON_HOST");
    bt_config_destroy(config);
}

static void bad_pairs_and_unknown_flags_are_refused(void **state)
{
    (void)state;
    bt_config *config = new_config();
    assert_fails(bt_config_set_pair(config, "flag --set", "host"), BATON_ERR_CONFIG,
                 "flag --set: wanted key=value, found 'host'");
    assert_fails(bt_config_set_pair(config, "flag --set", "=x"), BATON_ERR_CONFIG, "key=value");
    assert_fails(bt_config_set(config, "flag --pool-byte", "pool-byte", "1"), BATON_ERR_CONFIG,
                 "did you mean pool_bytes?");
    assert_fails(bt_config_set(config, "flag --x", "something_else", "1"), BATON_ERR_CONFIG,
                 "unknown one");
    bt_config_destroy(config);
}

static void good_texts_become_their_values(void **state)
{
    (void)state;
    static const struct {
        const char *key, *text, *shown;
    } cases[] = {
        {"require_rdma", "True", "require_rdma: true"},
        {"require_rdma", "on", "require_rdma: true"},
        {"require_rdma", "NO", "require_rdma: false"},
        {"nice", "-20", "nice: -20"},
        {"nice", "19", "nice: 19"},
        {"port", "65535", "port: 65535"},
        {"hash_seed", "18446744073709551615", "hash_seed: 18446744073709551615"},
        {"hash_seed", "0xff", "hash_seed: 255"},
        {"ratio", "1e-3", "ratio: 0.001"},
        {"ratio", "0.30000000000000004", "ratio: 0.30000000000000004"},
        {"pool_bytes", "1073741824", "pool_bytes: 1GiB"},
        {"pool_bytes", "64MiB", "pool_bytes: 64MiB"},
        {"pool_bytes", "64m", "pool_bytes: 64MiB"},
        {"pool_bytes", "2 GB", "pool_bytes: 1953125KiB"},
        {"pool_bytes", "1048577", "pool_bytes: 1048577"},
        {"lease_ms", "250", "lease_ms: 250ms"},
        {"lease_ms", "30s", "lease_ms: 30s"},
        {"lease_ms", "2h", "lease_ms: 2h"},
        {"lease_ms", "1500ms", "lease_ms: 1500ms"},
        {"host", "a \"b\"", "host: \"a \\\"b\\\"\""},
        {"host", "", "host: \"\""},
        {"role", "sender", "role: sender"},
        {"init_port", "7300", "init_port: [7300]"},
        {"init_port", "7300,7301", "init_port: [7300, 7301]"},
        {"init_port", " 7300 , ,7301, ", "init_port: [7300, 7301]"},
        {"data_devices", "lo,mlx5_0:1", "data_devices: [\"lo\", \"mlx5_0:1\"]"},
        {"data_devices", "", "data_devices: []"},
    };
    bt_config *config = new_config();
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        assert_ok(bt_config_set(config, "flag", cases[i].key, cases[i].text));
        bt_strbuf out = {0};
        bt_config_print(config, &out);
        if (strstr(bt_strbuf_text(&out), cases[i].shown) == NULL)
            fail_msg("wanted '%s' in:\n%s", cases[i].shown, bt_strbuf_text(&out));
        bt_strbuf_free(&out);
    }
    bt_config_destroy(config);
}

static void bad_texts_are_refused_and_change_nothing(void **state)
{
    (void)state;
    static const struct {
        const char *key, *text, *wanted;
    } cases[] = {
        {"require_rdma", "maybe", "wanted true or false, found 'maybe'"},
        {"require_rdma", "", "wanted true or false, found ''"},
        {"nice", "20", "from -20 to 19, found '20'"},
        {"nice", "--1", "a whole number"},
        {"nice", "2147483648", "a whole number"},
        {"nice", "9999999999999999999999", "a whole number"},
        {"port", "65536", "from 0 to 65535, found '65536'"},
        {"max_peers", "-1", "found '-1'"},
        {"max_peers", "12 apples", "found '12 apples'"},
        {"max_peers", "1.5", "found '1.5'"},
        {"max_peers", "4097", "from 1 to 4096, found '4097'"},
        {"max_peers", "4294967297", "found '4294967297'"},
        {"hash_seed", "18446744073709551616", "found '18446744073709551616'"},
        {"hash_seed", "0x", "found '0x'"},
        {"hash_seed", " 1", "found ' 1'"},
        {"hash_seed", "+1", "found '+1'"},
        {"ratio", "nan", "wanted a number from 0 to 1, found 'nan'"},
        {"ratio", "inf", "found 'inf'"},
        {"ratio", "0x1p3", "found '0x1p3'"},
        {"ratio", "1.01", "found '1.01'"},
        {"ratio", "1e", "found '1e'"},
        {"pool_bytes", "64Mib/s", "from 1MiB to 1TiB, found '64Mib/s'"},
        {"pool_bytes", "1023KiB", "found '1023KiB'"},
        {"pool_bytes", "99999999999TiB", "found '99999999999TiB'"},
        {"lease_ms", "9ms", "of at least 10ms, found '9ms'"},
        {"lease_ms", "3 fortnights", "found '3 fortnights'"},
        {"lease_ms", "2000h", "found '2000h'"}, /* more milliseconds than 32 bits hold */
        {"role", "both", "wanted sender or receiver, found 'both'"},
        {"memory_kind", "gpu\n", "wanted host, cuda or cuda_host, found 'gpu\\n'"},
        {"init_port", "7300,x", "found 'x'"},
        {"init_port", "0", "from 1 to 65535, found '0'"},
        {"init_port", "65537", "found '65537'"},
    };
    bt_config *config = new_config();
    bt_strbuf before = {0}, after = {0};
    bt_config_print(config, &before);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_fails(bt_config_set(config, "flag --f", cases[i].key, cases[i].text),
                     BATON_ERR_CONFIG, cases[i].wanted);
    bt_config_print(config, &after);
    assert_string_equal(bt_strbuf_text(&before), bt_strbuf_text(&after));
    bt_strbuf_free(&before);
    bt_strbuf_free(&after);
    bt_config_destroy(config);
}

static void tables_that_contradict_themselves_are_refused(void **state)
{
    (void)state;
    static const char *const names[] = {"a", NULL};
    const bt_config_entry bad[] = {
        {BT_CONFIG_AT(sample, max_peers), .type = BT_CONFIG_UINT64},
        {BT_CONFIG_AT(sample, host), .type = BT_CONFIG_BOOL},
        {BT_CONFIG_AT(sample, role), .type = BT_CONFIG_ENUM},
        {BT_CONFIG_AT(sample, nice), .type = BT_CONFIG_INT32, .names = names},
    };
    bt_config *config = NULL;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        const bt_config_table table = {"bad", &bad[i], 1, &sample_target};
        assert_fails(
            bt_config_create(&(bt_config_options){.tables = &table, .n_tables = 1}, &config),
            BATON_ERR_INVALID_ARG, bad[i].key);
    }
    const bt_config_entry outside = {BT_CONFIG_AT(sample, nice), .type = BT_CONFIG_INT32, .min = 0,
                                     .max = 5, .fallback = "6"};
    const bt_config_table table = {"outside", &outside, 1, &sample_target};
    assert_fails(bt_config_create(&(bt_config_options){.tables = &table, .n_tables = 1}, &config),
                 BATON_ERR_CONFIG, "default: nice");
    assert_null(config);
}

static void the_reference_loads_and_changes_nothing(void **state)
{
    (void)state;
    bt_strbuf reference = {0}, before = {0}, after = {0};
    const bt_config_table twice[] = {sample_table, sample_table};
    bt_config_reference(twice, 2, &reference);
    assert_ok(bt_strbuf_status(&reference));
    assert_non_null(strstr(bt_strbuf_text(&reference), "# Peers at the same time.\n"
                                                       "# Takes a whole number from 1 to 4096.\n"
                                                       "max_peers: 1024\n"));
    size_t column = 0;
    for (size_t i = 0; i < reference.length; i++) {
        column = reference.data[i] == '\n' ? 0 : column + 1;
        assert_true(column <= 100);
    }
    bt_config *config = new_config();
    bt_config_print(config, &before);
    assert_ok(bt_config_load_text(config, "reference.yaml", reference.data, reference.length));
    assert_string_equal(bt_config_origin(config, "hash_seed"), "default"); /* null */
    assert_non_null(strstr(bt_config_origin(config, "max_peers"), "reference.yaml:"));
    bt_config_destroy(config);
    config = new_config();
    bt_config_print(config, &after);
    assert_string_equal(bt_strbuf_text(&before), bt_strbuf_text(&after));
    bt_strbuf_free(&reference);
    bt_strbuf_free(&before);
    bt_strbuf_free(&after);
    bt_config_destroy(config);
}

static void a_key_in_two_tables_sets_both(void **state)
{
    (void)state;
    static sample other;
    bt_config_table two[] = {sample_table, sample_table};
    two[1].target = &other;
    bt_config *config = NULL;
    assert_ok(bt_config_create(&(bt_config_options){.tables = two, .n_tables = 2}, &config));
    assert_ok(bt_config_set(config, "flag", "nice", "4"));
    assert_int_equal(sample_target.nice, 4);
    assert_int_equal(other.nice, 4);
    bt_config_destroy(config);
}

static baton_status whole_life(void)
{
    static const char yaml[] = "host: x\ninit_port: [1, 2]\nlocal_cpu: true\nnixl_role: sender\n"
                               "pd_role: sender\n";
    bt_config *config = NULL;
    baton_status status = bt_config_create(&(bt_config_options){.tables = &sample_table,
                                                                .n_tables = 1,
                                                                .foreign = bt_lmcache_keys,
                                                                .n_foreign = bt_n_lmcache_keys},
                                           &config);
    if (status == BATON_OK)
        status = bt_config_load_text(config, "f", yaml, sizeof(yaml) - 1);
    if (status == BATON_OK)
        status = bt_config_load_env(config);
    if (status == BATON_OK)
        status = bt_config_set_pair(config, "flag", "data_devices=a,b,c");
    bt_strbuf out = {0};
    if (status == BATON_OK) {
        bt_config_print(config, &out);
        bt_config_reference(&sample_table, 1, &out);
        status = bt_strbuf_status(&out);
    }
    bt_strbuf_free(&out);
    bt_config_destroy(config);
    return status;
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    bt_expect_log("local_cpu");
    uint64_t nth = 1;
    for (;; nth++) {
        bt_alloc_fail_at(nth);
        baton_status status = whole_life();
        bool reached = bt_alloc_count() >= nth;
        bt_alloc_fail_at(0);
        if (!reached) {
            assert_ok(status);
            break;
        }
        assert_int_equal(status, BATON_ERR_NO_MEMORY);
    }
    assert_true(nth > 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(defaults_come_first),
        bt_test(kept_targets_are_only_changed_by_what_is_said),
        bt_test(the_environment_beats_defaults_and_flags_beat_it),
        bt_test(bad_pairs_and_unknown_flags_are_refused),
        bt_test(good_texts_become_their_values),
        bt_test(bad_texts_are_refused_and_change_nothing),
        bt_test(tables_that_contradict_themselves_are_refused),
        bt_test(the_reference_loads_and_changes_nothing),
        bt_test(a_key_in_two_tables_sets_both),
        bt_test(every_allocation_may_fail),
    };
    return bt_run_tests(tests);
}
