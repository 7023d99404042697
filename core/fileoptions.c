/* SPDX-License-Identifier: Apache-2.0 */
#include "core/fileoptions.h"

#include "core/fail.h"

#include <stdio.h>
#include <string.h>

static const char *const roles[] = {"any", "sender", "receiver", NULL};
static const char *const digests[] = {"off", "sampled", "full", NULL};
static const char *const progress_modes[] = {"thread", "manual", NULL};
static const char *const memory_kinds[] = {"host", "cuda", "cuda_host", NULL};
static const char *const hash_algorithms[] = {"blake2b", NULL};
static const char *const layerwise_modes[] = {"auto", "off", "on", NULL};
static const char *const paths[] = {"auto", "mapped", "put", "staged", NULL};
static const char *const commits[] = {"auto", "socket", NULL};

/* A field under a key of its own name, or of another. */
#define AT(field) BT_CONFIG_AT(bt_file_options, field)
#define AS(name, field)                                        \
    .key = (name), .offset = offsetof(bt_file_options, field), \
    .size = sizeof(((bt_file_options *)0)->field)
#define LIST(field) BT_CONFIG_LIST_AT(bt_file_options, field, n_##field)
#define MILLISECONDS(name, default_, text)                                               \
    {                                                                                    \
        AS(#name, timeouts.name), .type = BT_CONFIG_DURATION, .min = 1, .max = 86400000, \
                                  .fallback = (default_), .help = (text)                 \
    }

static const bt_config_entry common_entries[] = {
    {AS(BT_KEY_ROLE, role), .type = BT_CONFIG_ENUM, .names = roles, .fallback = "any",
     .help = "Which side the file is for; starting the other one with it fails. any: both."},
    {AT(name), .type = BT_CONFIG_STRING, .help = "Name in logs and to the peer."},
    {AS(BT_KEY_HOST, host), .type = BT_CONFIG_STRING, .fallback = "127.0.0.1",
     .help = "Receiver: the address to bind. Sender: a receiver to connect to ahead of the first "
             "transfer, when ports are set too. Other addresses than loopback need keys, or "
             "allow_unauthenticated."},
    {LIST(init_port), .type = BT_CONFIG_PORTS,
     .help = "INIT ports, one per rank: 7300, \"7300,7301\" or [7300, 7301]. None: any free one."},
    {LIST(alloc_port), .type = BT_CONFIG_PORTS, .help = "ALLOC ports, one per rank, as init_port."},
    {AS(BT_KEY_PROXY_HOST, proxy_host), .type = BT_CONFIG_STRING,
     .help = "Where notices go, with proxy_port, if a request names no address of its own."},
    {AS(BT_KEY_PROXY_PORT, proxy_port), .type = BT_CONFIG_UINT16, .help = "As proxy_host."},
    {AT(notice), .type = BT_CONFIG_STRING,
     .help = "As proxy_host and proxy_port in one: tcp://host:port."},
    {LIST(notice_allow), .type = BT_CONFIG_STRINGS,
     .help = "Notice addresses that requests may name besides; * allows any. None: loopback."},
    {AT(digests), .type = BT_CONFIG_ENUM, .names = digests, .fallback = "off",
     .help = "full: XXH3-64 of every chunk, checked before it can be looked up. sampled: of the "
             "first and last line of each layer and one of each 16 KiB between, which finds "
             "swapped, stale and torn pages. Of two sides that differ the stronger one decides."},
    {AT(progress), .type = BT_CONFIG_ENUM, .names = progress_modes, .fallback = "thread",
     .help = "Who drives the library: a thread of its own, or the program that uses it."},
    {AT(admin), .type = BT_CONFIG_STRING, .fallback = "auto",
     .help = "Where baton-ctl asks what goes on: auto (a Unix socket of this user's in "
             "$XDG_RUNTIME_DIR/baton, else /tmp/baton-UID), off, unix:PATH (a folder: a socket in "
             "it), or 127.0.0.1:PORT (+ rank; any local user may ask)."},
    {AS(BT_KEY_CHUNK_TOKENS, chunk_tokens), .type = BT_CONFIG_UINT32, .max = 1 << 20,
     .help = "Tokens of a chunk. The engine decides; another number here is refused."},
    {AS(BT_KEY_HASH_SEED, hash_seed), .type = BT_CONFIG_STRING,
     .help = "Salt of chunk keys. The engine decides; another one here is refused."},
    {AS(BT_KEY_HASH_ALGORITHM, hash_algorithm), .type = BT_CONFIG_ENUM, .names = hash_algorithms,
     .fallback = "blake2b", .help = "How chunk keys are made of tokens."},
    {AS("key_file", security.key_file), .type = BT_CONFIG_STRING,
     .help = "CURVE secret key of this side, as baton-keygen makes it. None: no encryption."},
    {AS("server_key", security.server_key), .type = BT_CONFIG_STRING,
     .help = "Sender: file with the receivers' public key."},
    {AS("clients_path", security.clients_path), .type = BT_CONFIG_STRING,
     .help =
         "Receiver: folder with the public keys (*.pub) of the senders and proxies that are let "
         "in. Read again when it changes."},
    {AS("proxy_key", security.proxy_key), .type = BT_CONFIG_STRING,
     .help = "File with the proxies' public key. With a key_file, notices leave only with it."},
    {AS("allow_unauthenticated", security.allow_unauthenticated), .type = BT_CONFIG_BOOL,
     .fallback = "false",
     .help = "Receiver: bind to other addresses than loopback without keys. Whoever reaches the "
             "ports may then write the pool."},
    {AS("transport", data.transport), .type = BT_CONFIG_STRING, .fallback = "ucx",
     .help = "Carries the bytes."},
    {AS("data_devices", data.data_devices),
     .count_offset = offsetof(bt_file_options, data.n_data_devices), .type = BT_CONFIG_STRINGS,
     .fallback = "lo",
     .help = "Network devices of the data path: lo, eth0, mlx5_0:1; several RDMA devices are "
             "rails. auto: the RDMA devices that are best for this process and its memory_kind, at "
             "most two, or lo. Its ports have no authentication: this network must be closed."},
    {AT(data_tcp), .type = BT_CONFIG_BOOL, .fallback = "true",
     .help = "Whether bytes may go over tcp; without, only shared memory and RDMA."},
    {AS("data_lanes", data.data_lanes), .type = BT_CONFIG_UINT32, .min = 1, .max = 8,
     .fallback = "1",
     .help = "Connections to a peer that share what is put, of each RDMA device where there are "
             "several: as many as both ends allow, 8 in all. With more than one, each has a thread "
             "at either end. More help where one core does not fill the link, or one window (a "
             "network with delay); COMMIT then waits for all of them."},
    {AS("require_rdma", data.require_rdma), .type = BT_CONFIG_BOOL, .fallback = "false",
     .help = "Connecting fails unless bytes go by RDMA (rc, dc or ud; device memory also by "
             "cuda_ipc). A receiver says it to its senders."},
    {AS("min_gbps", data.min_gbps), .type = BT_CONFIG_DOUBLE, .max = 1e6, .fallback = "0",
     .help = "Connecting fails when the measured bandwidth is below: GB/s, 10^9 bytes a second. "
             "0: no floor. A receiver says it to its senders."},
    {AT(control_ring), .type = BT_CONFIG_BOOL, .fallback = "true",
     .help = "Whether peers of one host pass control messages through shared memory too."},
    MILLISECONDS(connect_ms, "5s", "Until a receiver has answered at all."),
    MILLISECONDS(init_ms, "5s", "Until a connection stands."),
    MILLISECONDS(alloc_ms, "5s", "Until the first answer to a request for pages."),
    MILLISECONDS(put_ms, "10s", "Without progress of a write; a GPU's copy, in all."),
    MILLISECONDS(flush_ms, "10s",
                 "Without progress of a flush; also until a connection that was closed by force "
                 "has to be gone."),
    MILLISECONDS(commit_ms, "10s", "Until a commit is answered."),
    MILLISECONDS(request_ms, "300s", "A whole request, unless it has its own deadline."),
    {AS("peer_silent_ms", timeouts.silent_ms), .type = BT_CONFIG_DURATION, .min = 1,
     .max = 24 * 3600 * 1000.0, .fallback = "5s",
     .help = "A peer that says nothing for so long is gone."},
    MILLISECONDS(heartbeat_ms, "500ms", "Between two signs of life."),
    MILLISECONDS(lease_ms, "30s", "A complete request waits so long for decode."),
    MILLISECONDS(pin_ms, "30s", "Decode may read pinned pages for so long."),
};

static const bt_config_entry receiver_entries[] = {
    {AS(BT_KEY_POOL_BYTES, pool_bytes), .type = BT_CONFIG_BYTES, .max = 0x1p46,
     .fallback = "256MiB", .help = "Receiver: memory for chunks, rounded down to whole ones."},
    {AS(BT_KEY_MEMORY_KIND, memory_kind), .type = BT_CONFIG_ENUM, .names = memory_kinds,
     .fallback = "host",
     .help =
         "Receiver: where the pool lies: host memory, a GPU's memory (cuda), or host memory "
         "that a GPU reaches (cuda_host). Sender: where most KV is pushed from; only data_devices "
         "auto goes by it."},
    {AT(n_regions), .type = BT_CONFIG_UINT32, .min = 1, .max = 32, .fallback = "4",
     .help = "Receiver: pieces of the pool, so that one can be replaced."},
    {AT(max_queued), .type = BT_CONFIG_UINT32, .min = 1, .max = 1 << 20, .fallback = "1024",
     .help = "Receiver: requests that wait for pages; more are told to come back later."},
    {AT(max_peers), .type = BT_CONFIG_UINT32, .min = 1, .max = 65536, .fallback = "1024",
     .help = "Receiver: senders at the same time."},
    {AT(max_deadline_ms), .type = BT_CONFIG_DURATION, .min = 1, .max = 24 * 3600 * 1000.0,
     .fallback = "1h",
     .help = "Receiver: for so long at most a sender may hold pages, or wait for them, for one "
             "request; a longer deadline counts as this."},
};

static const bt_config_entry sender_entries[] = {
    {AT(path), .type = BT_CONFIG_ENUM, .names = paths, .fallback = "auto",
     .help = "Sender: how pages are written. mapped: straight into the receiver's memory on the "
             "same host. put: through the transport, from registered memory where the source lies "
             "in it. staged: through the transport, from a staging page. auto: mapped, or by put "
             "where that is measured to be faster when connecting; put when memory is registered, "
             "else staged."},
    {AT(measure), .type = BT_CONFIG_BOOL, .fallback = "true",
     .help = "Sender: measure the path when connecting, a few milliseconds and MiB. Without, auto "
             "is mapped where that is possible."},
    {AT(commit), .type = BT_CONFIG_ENUM, .names = commits, .fallback = "auto",
     .help = "Sender: how the receiver hears that chunks are complete: behind their bytes, on the "
             "same path, where puts carry them (auto), or always through the control socket after "
             "a flush (socket)."},
    {AT(layerwise), .type = BT_CONFIG_ENUM, .names = layerwise_modes, .fallback = "auto",
     .help =
         "Sender: whether an engine that can do so pushes a chunk in four groups of layers while "
         "it computes them, instead of whole afterwards. auto: for prompts of "
         "layerwise_min_tokens or more."},
    {AT(layerwise_min_tokens), .type = BT_CONFIG_UINT32, .min = 1, .max = 1 << 30, .fallback = "64",
     .help = "Sender: see layerwise."},
    {AT(staging_chunks), .type = BT_CONFIG_UINT32, .min = 1, .max = 4096, .fallback = "8",
     .help = "Sender: chunks gathered ahead of the wire where writes go through the transport."},
    {AT(copy_threads), .type = BT_CONFIG_UINT32, .min = 1, .max = 64, .fallback = "1",
     .help = "Sender: threads that copy chunks to pages, the progress thread included. 1: it "
             "alone. More help where one core does not fill the memory's bandwidth and others are "
             "idle; helpers sleep while there is nothing to copy. Chunks of at most 512 KiB that "
             "are staged, pushes by layers and sources on a GPU have one thread."},
};

#define TABLE(name, rows)                                                                 \
    {                                                                                     \
        .title = (name), .entries = (rows), .n_entries = sizeof(rows) / sizeof((rows)[0]) \
    }
const bt_config_table bt_file_tables[BT_N_FILE_TABLES] = {
    TABLE("Both sides", common_entries),
    TABLE("Receiver", receiver_entries),
    TABLE("Sender", sender_entries),
};

static baton_status load_all(bt_config *config, const char *path, const char *const *overrides,
                             uint32_t n_overrides)
{
    if (path != NULL)
        BATON_TRY(bt_config_load_file(config, path));
    BATON_TRY(bt_config_load_env(config));
    for (uint32_t i = 0; i < n_overrides; i++)
        BATON_TRY(bt_config_set_pair(config, "override", overrides[i]));
    return BATON_OK;
}

static baton_status check_role(const bt_config *config, bt_file_role wanted,
                               const bt_file_options *options)
{
    if (wanted == BT_FILE_ROLE_ANY || options->role == BT_FILE_ROLE_ANY ||
        options->role == (int)wanted)
        return BATON_OK;
    return bt_fail(BATON_ERR_CONFIG, "%s: role: wanted %s, found %s",
                   bt_config_origin(config, BT_KEY_ROLE), roles[wanted], roles[options->role]);
}

/* An address of its own says more than host and port of a proxy. */
static baton_status make_notice(const bt_config *config, bt_file_options *options)
{
    bool has_host = options->proxy_host != NULL && options->proxy_host[0] != 0;
    if (!has_host || strcmp(bt_config_origin(config, "notice"), "kept") != 0)
        return BATON_OK;
    if (options->proxy_port == 0)
        return bt_fail(BATON_ERR_CONFIG,
                       "%s: proxy_host: wanted a proxy_port beside it, found none",
                       bt_config_origin(config, BT_KEY_PROXY_HOST));
    bool is_ipv6 = strchr(options->proxy_host, ':') != NULL;
    int n =
        snprintf(options->notice_url, sizeof(options->notice_url), "tcp://%s%s%s:%u",
                 is_ipv6 ? "[" : "", options->proxy_host, is_ipv6 ? "]" : "", options->proxy_port);
    if (n < 0 || (size_t)n >= sizeof(options->notice_url))
        return bt_fail(BATON_ERR_CONFIG, "%s: proxy_host: wanted a host name, found %d bytes",
                       bt_config_origin(config, BT_KEY_PROXY_HOST), n);
    options->notice = options->notice_url;
    return BATON_OK;
}

static baton_status finish(const bt_config *config, bt_file_role role, bt_file_options *options)
{
    BATON_TRY(check_role(config, role, options));
    options->data.no_tcp = !options->data_tcp;
    options->data.no_control_ring = !options->control_ring;
    return make_notice(config, options);
}

/* keep: what options hold counts as set by the program. */
static baton_status create_config(bt_file_options *options, bool keep, bt_config **config_p)
{
    memcpy(options->tables, bt_file_tables, sizeof(options->tables));
    for (int i = 0; i < BT_N_FILE_TABLES; i++)
        options->tables[i].target = options;
    const bt_config_options wanted = {.tables = options->tables,
                                      .n_tables = BT_N_FILE_TABLES,
                                      .foreign = bt_lmcache_keys,
                                      .n_foreign = bt_n_lmcache_keys,
                                      .keep = keep};
    return bt_config_create(&wanted, config_p);
}

baton_status bt_file_options_print(const char *path, const char *const *overrides,
                                   uint32_t n_overrides, bt_strbuf *out)
{
    bt_file_options options = {0};
    bt_config *config;
    BATON_TRY(create_config(&options, false, &config));
    baton_status status = load_all(config, path, overrides, n_overrides);
    if (status == BATON_OK)
        bt_config_print(config, out);
    bt_config_destroy(config);
    return status;
}

baton_status bt_file_options_load(const char *path, bt_file_role role, const char *const *overrides,
                                  uint32_t n_overrides, bt_file_options *options,
                                  bt_config **config_p)
{
    bt_config *config;
    options->data_tcp = !options->data.no_tcp;
    options->control_ring = !options->data.no_control_ring;
    BATON_TRY(create_config(options, true, &config));
    baton_status status = load_all(config, path, overrides, n_overrides);
    if (status == BATON_OK)
        status = finish(config, role, options);
    if (status != BATON_OK) {
        bt_config_destroy(config);
        return status;
    }
    *config_p = config;
    return BATON_OK;
}

baton_status bt_file_port(const bt_config *config, const char *key, const uint16_t *ports,
                          uint32_t n_ports, uint32_t rank, uint16_t *port)
{
    if (n_ports > 0 && rank >= n_ports)
        return bt_fail(BATON_ERR_CONFIG, "%s: %s: wanted a port for each rank up to %u, found %u",
                       bt_config_origin(config, key), key, rank, n_ports);
    *port = n_ports > 0 ? ports[rank] : 0;
    return BATON_OK;
}

baton_status bt_file_check_keys(const bt_config *config, const bt_file_options *file,
                                const baton_layout *layout, const char *key_seed)
{
    if (file->chunk_tokens != 0 && file->chunk_tokens != layout->chunk_tokens)
        return bt_fail(BATON_ERR_CONFIG,
                       "%s: chunk_tokens: wanted %u, as the engine has it, found %u",
                       bt_config_origin(config, BT_KEY_CHUNK_TOKENS), layout->chunk_tokens,
                       file->chunk_tokens);
    if (file->hash_seed != NULL && strcmp(file->hash_seed, key_seed != NULL ? key_seed : "") != 0)
        return bt_fail(BATON_ERR_CONFIG, "%s: hash_seed: wanted the engine's, found another one",
                       bt_config_origin(config, BT_KEY_HASH_SEED));
    return BATON_OK;
}
