/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "config_sample.h"
#include "core/configtable.h"

#include <stdio.h>

static baton_status load(const char *yaml, bt_config **config_p)
{
    assert_ok(bt_config_create(&(bt_config_options){.tables = &sample_table,
                                                    .n_tables = 1,
                                                    .foreign = bt_lmcache_keys,
                                                    .n_foreign = bt_n_lmcache_keys},
                               config_p));
    return bt_config_load_text(*config_p, "lmcache.yaml", yaml, strlen(yaml));
}

/* As shipped with LMCache 0.3: examples/disagg_prefill/xp1d/configs/lmcache-decoder-config.yaml. */
static void a_decoder_file_of_lmcache_starts_unchanged(void **state)
{
    (void)state;
    bt_expect_log("keys of another system, ignored: local_cpu, max_local_cpu_size, remote_serde, "
                  "enable_nixl, enable_xpyd, nixl_enable_gc");
    bt_config *config = NULL;
    assert_ok(load("local_cpu: False\n"
                   "max_local_cpu_size: 0\n"
                   "remote_serde: NULL\n"
                   "enable_nixl: True\n"
                   "enable_xpyd: True\n"
                   "nixl_role: \"receiver\"\n"
                   "nixl_peer_host: \"decoder7\"\n"
                   "nixl_peer_init_port: 7300\n"
                   "nixl_buffer_size: 2147483648 # 2GB\n"
                   "nixl_buffer_device: \"cuda\"\n"
                   "nixl_enable_gc: True\n"
                   "chunk_size: 512\n",
                   &config));
    assert_int_equal(bt_log_seen("ignored"), 1);
    assert_int_equal(sample_target.role, 1);
    assert_string_equal(sample_target.host, "decoder7");
    assert_int_equal(sample_target.init_port[0], 7300);
    assert_int_equal(sample_target.pool_bytes, INT64_C(2147483648));
    assert_int_equal(sample_target.memory_kind, 1);
    assert_int_equal(sample_target.chunk_tokens, 512);
    assert_string_equal(bt_config_origin(config, "host"), "lmcache.yaml:7");
    bt_config_destroy(config);
}

static void the_later_names_mean_the_same(void **state)
{
    (void)state;
    bt_config *config = NULL;
    assert_ok(load("pd_role: sender\npd_peer_host: a\npd_peer_init_port: [1, 2]\n"
                   "pd_buffer_size: 1048576\npd_buffer_device: cpu\n",
                   &config));
    assert_int_equal(sample_target.role, 0);
    assert_string_equal(sample_target.host, "a");
    assert_int_equal(sample_target.n_init_port, 2);
    assert_int_equal(sample_target.pool_bytes, 1 << 20);
    assert_int_equal(sample_target.memory_kind, 0);
    bt_config_destroy(config);
}

static void the_peer_host_is_a_key_of_its_own_and_wins_over_the_old_one(void **state)
{
    (void)state;
    static const char *const files[] = {"nixl_receiver_host: old\nnixl_peer_host: live\n",
                                        "nixl_peer_host: live\nnixl_receiver_host: old\n"};
    for (int i = 0; i < 2; i++) {
        bt_config *config = NULL;
        assert_ok(load(files[i], &config));
        assert_string_equal(sample_target.host, "live");
        bt_config_destroy(config);
    }
    bt_config *config = NULL;
    assert_ok(load("nixl_receiver_host: old\nnixl_receiver_port: 7\n", &config));
    assert_string_equal(sample_target.host, "old");
    assert_int_equal(sample_target.init_port[0], 7);
    bt_config_destroy(config);
    assert_ok(load("host: own\nnixl_peer_host: live\n", &config));
    assert_string_equal(sample_target.host, "own");
    bt_config_destroy(config);
}

static void two_names_for_one_key_must_agree(void **state)
{
    (void)state;
    bt_config *config = NULL;
    assert_ok(load("nixl_role: sender\npd_role: sender\n", &config));
    bt_config_destroy(config);
    assert_fails(load("nixl_role: sender\npd_role: receiver\n", &config), BATON_ERR_CONFIG,
                 "lmcache.yaml:2: pd_role: wanted sender for role, as lmcache.yaml:1 has it, found "
                 "receiver");
    bt_config_destroy(config);
}

static void wrong_values_are_refused_under_the_name_in_the_file(void **state)
{
    (void)state;
    bt_config *config = NULL;
    assert_fails(load("nixl_role: both\n", &config), BATON_ERR_CONFIG,
                 "lmcache.yaml:1: nixl_role: wanted sender or receiver, found 'both'");
    bt_config_destroy(config);
    assert_fails(load("\nnixl_buffer_device: tpu\n", &config), BATON_ERR_CONFIG,
                 "lmcache.yaml:2: nixl_buffer_device: wanted cpu or cuda, found 'tpu'");
    bt_config_destroy(config);
    assert_fails(load("chunk_size: 0\n", &config), BATON_ERR_CONFIG,
                 "chunk_size: wanted a whole number");
    bt_config_destroy(config);
}

static void only_keys_that_neither_system_knows_fail(void **state)
{
    (void)state;
    bt_config *config = NULL;
    assert_fails(load("local_cpu: true\nnixl_peer_hosts: a\n", &config), BATON_ERR_CONFIG,
                 "lmcache.yaml:2: nixl_peer_hosts: wanted a known key, found an unknown one; did "
                 "you mean nixl_peer_host?");
    bt_config_destroy(config);
}

/* spec/engine.md, section 1. */
static void every_documented_key_of_lmcache_is_known(void **state)
{
    (void)state;
    static const char *const keys[] = {
        "chunk_size",
        "local_cpu",
        "max_local_cpu_size",
        "local_disk",
        "max_local_disk_size",
        "remote_url",
        "remote_serde",
        "use_layerwise",
        "save_decode_cache",
        "pre_caching_hash_algorithm",
        "enable_blending",
        "blend_recompute_ratio",
        "blend_min_tokens",
        "blend_special_str",
        "enable_p2p",
        "lookup_url",
        "distributed_url",
        "error_handling",
        "enable_controller",
        "lmcache_instance_id",
        "controller_url",
        "lmcache_worker_port",
        "enable_nixl",
        "nixl_role",
        "nixl_receiver_host",
        "nixl_receiver_port",
        "nixl_buffer_size",
        "nixl_buffer_device",
        "nixl_enable_gc",
        "enable_xpyd",
        "nixl_peer_host",
        "nixl_peer_port",
        "nixl_peer_init_port",
        "nixl_peer_alloc_port",
        "nixl_proxy_host",
        "nixl_proxy_port",
        "weka_path",
        "gds_path",
        "cufile_buffer_size",
        "audit_actual_remote_url",
        "extra_config",
        "save_unfull_chunk",
        "blocking_timeout_secs",
        "external_lookup_client",
        "py_enable_gc",
        "cache_policy",
        "cache_engine_internal_api_server_enabled",
        "cache_engine_internal_api_server_port_start",
    };
    bt_strbuf yaml = {0};
    for (size_t i = 0; i < sizeof(keys) / sizeof(keys[0]); i++)
        bt_strbuf_printf(&yaml, "%s: null\n", keys[i]);
    bt_strbuf_puts(&yaml, "pd_proxy_host: {}\n");
    bt_expect_log("cache_engine_internal_api_server_port_start, pd_proxy_host"); /* not cut off */
    bt_config *config = NULL;
    assert_ok(load(bt_strbuf_text(&yaml), &config));
    assert_int_equal(bt_log_seen("ignored"), 1);
    bt_strbuf_free(&yaml);
    bt_config_destroy(config);
}

static void every_entry_says_why(void **state)
{
    (void)state;
    for (size_t i = 0; i < bt_n_lmcache_keys; i++) {
        const bt_foreign_key *key = &bt_lmcache_keys[i];
        assert_non_null(key->why);
        assert_true((key->translate == NULL) == (key->takes == NULL));
        for (size_t j = 0; j < i; j++)
            assert_string_not_equal(key->key, bt_lmcache_keys[j].key);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(a_decoder_file_of_lmcache_starts_unchanged),
        bt_test(the_later_names_mean_the_same),
        bt_test(the_peer_host_is_a_key_of_its_own_and_wins_over_the_old_one),
        bt_test(two_names_for_one_key_must_agree),
        bt_test(wrong_values_are_refused_under_the_name_in_the_file),
        bt_test(only_keys_that_neither_system_knows_fail),
        bt_test(every_documented_key_of_lmcache_is_known),
        bt_test(every_entry_says_why),
    };
    return bt_run_tests(tests);
}
