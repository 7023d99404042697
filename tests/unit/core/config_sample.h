/* SPDX-License-Identifier: Apache-2.0 */
/* One key of every type, for the tests of config and args.
 *
 * Thread rule: the test's thread. */
#ifndef BT_TESTS_CORE_CONFIG_SAMPLE_H
#define BT_TESTS_CORE_CONFIG_SAMPLE_H
#include "core/configtable.h"

typedef struct {
    bool require_rdma;
    int32_t nice;
    uint16_t port;
    uint32_t max_peers;
    uint64_t hash_seed;
    double ratio;
    uint64_t pool_bytes;
    uint32_t lease_ms;
    const char *host;
    int role;
    const uint16_t *init_port;
    uint32_t n_init_port;
    const char *const *data_devices;
    uint32_t n_data_devices;
    int memory_kind;
    uint32_t chunk_tokens;
} sample;

extern sample sample_target;
extern const bt_config_table sample_table; /* of sample_target */

#endif
