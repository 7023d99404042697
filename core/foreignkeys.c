/* SPDX-License-Identifier: Apache-2.0 */
#include "core/foreignkeys.h"

#include <string.h>

/* "cuda" and "cuda:1" are both the current device: a rank of an engine sees one. */
static const char *memory_kind_of_device(const char *value)
{
    if (strcmp(value, "cpu") == 0)
        return "host";
    if (strcmp(value, "cuda") == 0 || strncmp(value, "cuda:", 5) == 0)
        return "cuda";
    return NULL;
}

#define SAME(name, baton, text)                            \
    {                                                      \
        .key = (name), .baton_key = (baton), .why = (text) \
    }
#define WEAK(name, baton, text)                                          \
    {                                                                    \
        .key = (name), .baton_key = (baton), .why = (text), .weak = true \
    }
#define DEVICE(name)                                                                  \
    {                                                                                 \
        .key = (name), .baton_key = BT_KEY_MEMORY_KIND, .why = "where the pool lies", \
        .translate = memory_kind_of_device, .takes = "cpu or cuda"                    \
    }
#define IGNORED(name, text)          \
    {                                \
        .key = (name), .why = (text) \
    }

/* The keys up to 0.3.x (P is nixl_) and their later names (P is pd_). nixl_peer_host is a key of
 * its own and not the old name of nixl_receiver_host: the latter only counts where it stands
 * alone, as in files from before several receivers. */
#define PEER_KEYS(P)                                                               \
    SAME(P "role", BT_KEY_ROLE, "which side this is"),                             \
        SAME(P "peer_host", BT_KEY_HOST, "the receiver's address"),                \
        SAME(P "peer_init_port", BT_KEY_INIT_PORT, "INIT ports, one per rank"),    \
        SAME(P "peer_alloc_port", BT_KEY_ALLOC_PORT, "ALLOC ports, one per rank"), \
        SAME(P "proxy_host", BT_KEY_PROXY_HOST, "where notices go"),               \
        SAME(P "proxy_port", BT_KEY_PROXY_PORT, "where notices go"),               \
        SAME(P "buffer_size", BT_KEY_POOL_BYTES, "size of the pool"), DEVICE(P "buffer_device")

static const char no_tier[] = "no offloading tier";
static const char always[] = "always so";
static const char never[] = "no such mode";
static const char no_controller[] = "no controller";
static const char not_python[] = "nothing to collect";

const bt_foreign_key bt_lmcache_keys[] = {
    PEER_KEYS("nixl_"),
    PEER_KEYS("pd_"),
    WEAK("nixl_receiver_host", BT_KEY_HOST, "the receiver's address"),
    WEAK("nixl_receiver_port", BT_KEY_INIT_PORT, "the receiver's INIT port"),
    WEAK("nixl_peer_port", BT_KEY_INIT_PORT, "the receiver's INIT port"),
    SAME("chunk_size", BT_KEY_CHUNK_TOKENS, "tokens per chunk"),
    IGNORED("enable_nixl", always),
    IGNORED("enable_xpyd", always),
    IGNORED("enable_pd", always),
    IGNORED("transfer_channel", "UCX chooses the path"),
    IGNORED("nixl_backends", "UCX chooses the path"),
    IGNORED("nixl_pool_size", "pool_bytes says it"),
    IGNORED("nixl_path", no_tier),
    IGNORED("enable_nixl_storage", no_tier),
    IGNORED("nixl_enable_gc", not_python),
    IGNORED("py_enable_gc", not_python),
    IGNORED("local_cpu", no_tier),
    IGNORED("max_local_cpu_size", no_tier),
    IGNORED("reserve_local_cpu_size", no_tier),
    IGNORED("local_disk", no_tier),
    IGNORED("max_local_disk_size", no_tier),
    IGNORED("remote_url", no_tier),
    IGNORED("remote_serde", no_tier),
    IGNORED("weka_path", no_tier),
    IGNORED("gds_path", no_tier),
    IGNORED("cufile_buffer_size", no_tier),
    IGNORED("audit_actual_remote_url", no_tier),
    IGNORED("cache_policy", "the pool's prefix cache is LRU"),
    IGNORED("use_layerwise", "the sender decides per push"),
    IGNORED("save_decode_cache", "only prefill is handed off"),
    IGNORED("save_unfull_chunk", always),
    IGNORED("pre_caching_hash_algorithm", "keys are BLAKE2b on both sides"),
    IGNORED("enable_blending", never),
    IGNORED("blend_recompute_ratio", never),
    IGNORED("blend_recompute_ratios", never),
    IGNORED("blend_thresholds", never),
    IGNORED("blend_check_layers", never),
    IGNORED("blend_min_tokens", never),
    IGNORED("blend_special_str", never),
    IGNORED("enable_p2p", never),
    IGNORED("p2p_host", never),
    IGNORED("p2p_init_ports", never),
    IGNORED("p2p_lookup_ports", never),
    IGNORED("lookup_url", never),
    IGNORED("distributed_url", never),
    IGNORED("external_lookup_client", never),
    IGNORED("error_handling", always),
    IGNORED("blocking_timeout_secs", "every wait has a deadline of its own"),
    IGNORED("enable_controller", no_controller),
    IGNORED("lmcache_instance_id", no_controller),
    IGNORED("controller_url", no_controller),
    IGNORED("controller_pull_url", no_controller),
    IGNORED("controller_reply_url", no_controller),
    IGNORED("lmcache_worker_port", no_controller),
    IGNORED("lmcache_worker_ports", no_controller),
    IGNORED("lmcache_worker_ids", no_controller),
    IGNORED("cache_engine_internal_api_server_enabled", "counters come from the engine's /metrics"),
    IGNORED("cache_engine_internal_api_server_port_start", "as above"),
    IGNORED("internal_api_server_enabled", "counters come from the engine's /metrics"),
    IGNORED("internal_api_server_host", "as above"),
    IGNORED("internal_api_server_port_start", "as above"),
    IGNORED("extra_config", "settings of parts that do not exist here"),
};
const size_t bt_n_lmcache_keys = sizeof(bt_lmcache_keys) / sizeof(bt_lmcache_keys[0]);
