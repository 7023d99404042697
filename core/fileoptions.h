/* SPDX-License-Identifier: Apache-2.0 */
/* What a configuration file says about a hand-off's two sides: one set of keys for senders and
 * receivers, so that one file may serve both and existing deployments' files start either.
 *
 *   options of the program ◀─ file (its own keys, or LMCache's) ◀─ BATON_* ◀─ overrides
 *
 * sender/senderconfig.c and receiver/receiverconfig.c turn it into their options.
 * Thread rule: owner thread. */
#ifndef BT_CORE_FILEOPTIONS_H
#define BT_CORE_FILEOPTIONS_H
#include <baton/options.h>

#include "core/configtable.h"

typedef enum { BT_FILE_ROLE_ANY, BT_FILE_ROLE_SENDER, BT_FILE_ROLE_RECEIVER } bt_file_role;

enum { BT_FILE_NOTICE_BYTES = 272 };

enum { BT_N_FILE_TABLES = 3 };

/* Texts and lists belong to the config, or to who filled them in before the load. */
typedef struct {
    int role; /* bt_file_role */
    const char *name, *host;
    const uint16_t *init_port, *alloc_port; /* [n], one per rank */
    uint32_t n_init_port, n_alloc_port;
    const char *proxy_host;
    uint16_t proxy_port;
    const char *notice, *admin;
    const char *const *notice_allow;
    uint32_t n_notice_allow;
    int digests, progress, memory_kind, path, layerwise, commit, hash_algorithm;
    const char *hash_seed;
    uint32_t chunk_tokens;
    uint64_t pool_bytes;
    uint32_t n_regions, max_queued, max_peers, max_deadline_ms, staging_chunks, copy_threads,
        layerwise_min_tokens;
    bool data_tcp, measure, control_ring;
    baton_security security;
    baton_data_path data;
    baton_timeouts timeouts;
    bt_config_table tables[BT_N_FILE_TABLES]; /* the config borrows them */
    char notice_url[BT_FILE_NOTICE_BYTES];    /* where `notice` is made of proxy_host and port */
} bt_file_options;

/* Titles, entries; without targets. For reference files and --help. */
extern const bt_config_table bt_file_tables[BT_N_FILE_TABLES];

/* options hold what the program wants by itself, and get what file (NULL: none), environment and
 * overrides ([n] "key=value") say; they live as long as *config_p. Errors: CONFIG (place: key:
 * wanted ..., found ...; also a role other than `role`, where that is not ANY), IO, NO_MEMORY. */
baton_status bt_file_options_load(const char *path, bt_file_role role, const char *const *overrides,
                                  uint32_t n_overrides, bt_file_options *options,
                                  bt_config **config_p);
/* Appends every key's value and where it is from, with the defaults of what nobody set. Errors: as
 * bt_file_options_load. */
baton_status bt_file_options_print(const char *path, const char *const *overrides,
                                   uint32_t n_overrides, bt_strbuf *out);
/* Port of a rank from a list, 0 from an empty one. key: for the error. Errors: CONFIG (more ranks
 * than ports). */
baton_status bt_file_port(const bt_config *config, const char *key, const uint16_t *ports,
                          uint32_t n_ports, uint32_t rank, uint16_t *port);
/* What the program's own hashing decides, and the file may only repeat: chunk_tokens and hash_seed.
 * Errors: CONFIG. */
baton_status bt_file_check_keys(const bt_config *config, const bt_file_options *file,
                                const baton_layout *layout, const char *key_seed);

#endif
