/* SPDX-License-Identifier: Apache-2.0 */
#include "config_sample.h"

static const char *const roles[] = {"sender", "receiver", NULL};
static const char *const memory_kinds[] = {"host", "cuda", "cuda_host", NULL};
static const bt_config_entry entries[] = {
    {BT_CONFIG_AT(sample, require_rdma), .type = BT_CONFIG_BOOL, .fallback = "false",
     .help = "Fail where there is no RDMA."},
    {BT_CONFIG_AT(sample, nice), .type = BT_CONFIG_INT32, .min = -20, .max = 19, .fallback = "-3",
     .help = "Priority."},
    {BT_CONFIG_AT(sample, port), .type = BT_CONFIG_UINT16, .fallback = "8000", .help = "Port."},
    {BT_CONFIG_AT(sample, max_peers), .type = BT_CONFIG_UINT32, .min = 1, .max = 4096,
     .fallback = "1024", .help = "Peers at the same time."},
    {BT_CONFIG_AT(sample, hash_seed), .type = BT_CONFIG_UINT64, .help = "Seed of keys."},
    {BT_CONFIG_AT(sample, ratio), .type = BT_CONFIG_DOUBLE, .min = 0, .max = 1, .fallback = "0.1",
     .help = "A share. Long help is broken into lines, so that a file which people read in an "
             "editor keeps to about a hundred columns and needs no side to side scrolling at all."},
    {BT_CONFIG_AT(sample, pool_bytes), .type = BT_CONFIG_BYTES, .min = 1 << 20, .max = 0x1p40,
     .fallback = "256MiB", .help = "Memory for pages."},
    {BT_CONFIG_AT(sample, lease_ms), .type = BT_CONFIG_DURATION, .min = 10, .max = -1,
     .fallback = "30s", .help = "Time of a hold."},
    {BT_CONFIG_AT(sample, host), .type = BT_CONFIG_STRING, .fallback = "127.0.0.1",
     .help = "Address."},
    {BT_CONFIG_AT(sample, role), .type = BT_CONFIG_ENUM, .names = roles, .fallback = "receiver",
     .help = "Which side this is."},
    {BT_CONFIG_LIST_AT(sample, init_port, n_init_port), .type = BT_CONFIG_PORTS, .min = 1,
     .max = 65535, .fallback = "7300", .help = "INIT ports, one per rank."},
    {BT_CONFIG_LIST_AT(sample, data_devices, n_data_devices), .type = BT_CONFIG_STRINGS,
     .fallback = "lo", .help = "Network devices for data."},
    {BT_CONFIG_AT(sample, memory_kind), .type = BT_CONFIG_ENUM, .names = memory_kinds,
     .fallback = "host", .help = "Where the pool lies."},
    {BT_CONFIG_AT(sample, chunk_tokens), .type = BT_CONFIG_UINT32, .min = 1, .max = 65536,
     .fallback = "256", .help = "Tokens per chunk."},
};

sample sample_target;
const bt_config_table sample_table = {.title = "sample",
                                      .entries = entries,
                                      .n_entries = sizeof(entries) / sizeof(entries[0]),
                                      .target = &sample_target};
