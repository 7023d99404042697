/* SPDX-License-Identifier: Apache-2.0 */
/* Options from a YAML file, then BATON_* environment variables, then flags. One table per struct
 * says for each key where it goes, what it may be and what it is by default; the table drives
 * loading, checking, `--print-config` and reference.yaml.
 *
 *   static const bt_config_entry pool_entries[] = {
 *       {BT_CONFIG_AT(struct options, pool_bytes), .type = BT_CONFIG_BYTES, .min = 1 << 20,
 *        .max = 1e15, .fallback = "256MiB", .help = "Memory for pages."},
 *       {BT_CONFIG_LIST_AT(struct options, data_devices, n_data_devices), ...},
 *   };
 *   const bt_config_table table = {"pool", pool_entries, 2, &options};
 *   bt_config_create(&(bt_config_options){.tables = &table, .n_tables = 1}, &config);
 *   bt_config_load_file(config, path); bt_config_load_env(config); bt_config_set(config, ...);
 *
 * Every error is ERR_CONFIG with "place: key: wanted ..., found ...", place being file:line, "env
 * BATON_KEY" or "flag --key". After an error the targets hold part of the new values: destroy.
 *
 * Thread rule: owner thread. */
#ifndef BT_CORE_CONFIGTABLE_H
#define BT_CORE_CONFIGTABLE_H
#include "core/foreignkeys.h"
#include "core/strbuf.h"

#include <stdbool.h>

typedef struct bt_config bt_config;

enum {
    BT_CONFIG_MAX_FILE_BYTES = 1024 * 1024,
    BT_CONFIG_MAX_DEPTH = 16,
    BT_CONFIG_MAX_ITEMS = 1024, /* of a list */
};

typedef enum {
    BT_CONFIG_BOOL,   /* bool: true, yes, on, 1 and their opposites, in any case */
    BT_CONFIG_INT32,  /* int32_t */
    BT_CONFIG_UINT16, /* uint16_t, a single port for example */
    BT_CONFIG_UINT32, /* uint32_t; decimal or 0x */
    BT_CONFIG_UINT64, /* uint64_t; decimal or 0x */
    BT_CONFIG_DOUBLE, /* double */
    BT_CONFIG_BYTES,  /* uint64_t or uint32_t: 1048576, 64MiB (K, M, G, T are binary, MB is 10^6) */
    BT_CONFIG_DURATION, /* uint64_t or uint32_t, milliseconds: 250, 250ms, 30s, 5m, 1h */
    BT_CONFIG_STRING,   /* const char *; owned by the config */
    BT_CONFIG_ENUM,     /* int or an enum: index of the name in names */
    BT_CONFIG_PORTS,    /* const uint16_t * and uint32_t: 7300, "7300,7301", [7300, 7301] */
    BT_CONFIG_STRINGS,  /* const char *const * and uint32_t: a, "a,b", [a, b] */
} bt_config_type;

typedef struct {
    const char *key;     /* lower case, a-z 0-9 _ */
    size_t offset, size; /* of the field in the target; BT_CONFIG_AT fills key, offset and size */
    size_t count_offset; /* lists: of the uint32_t that holds the number of items */
    bt_config_type type;
    double min, max; /* of numbers, of every port; max < min: no upper limit; both 0: no limits */
    const char *fallback;     /* default, as one would write it; NULL: the field stays zero */
    const char *const *names; /* ENUM: ends with NULL */
    const char *help;         /* one or more sentences */
} bt_config_entry;

#define BT_CONFIG_AT(struct_type, field) \
    .key = #field, .offset = offsetof(struct_type, field), .size = sizeof(((struct_type *)0)->field)
#define BT_CONFIG_LIST_AT(struct_type, field, n_field) \
    BT_CONFIG_AT(struct_type, field), .count_offset = offsetof(struct_type, n_field)

typedef struct {
    const char *title;
    const bt_config_entry *entries; /* [n_entries], borrowed as long as the config lives */
    size_t n_entries;
    void *target; /* the struct; unused for `elsewhere` */
} bt_config_table;

typedef struct {
    const bt_config_table *tables; /* [n_tables]; a key in several tables sets all of them */
    size_t n_tables;
    const bt_config_table *elsewhere; /* [n_elsewhere] keys of the same file that others read */
    size_t n_elsewhere;
    const bt_foreign_key *foreign; /* [n_foreign], core/foreignkeys.h; NULL: none */
    size_t n_foreign;
    bool keep; /* targets keep what they hold, instead of getting the defaults */
} bt_config_options;

/* Applies the defaults. The arrays of options are borrowed as long as the config lives; strings and
 * lists in the targets live as long as the config. Errors: INVALID_ARG (a table that contradicts
 * itself), CONFIG (a default that its own limits refuse), NO_MEMORY. */
baton_status bt_config_create(const bt_config_options *options, bt_config **config_p);
void bt_config_destroy(bt_config *config); /* NULL is allowed. */

/* Warns once, in one line, about all foreign keys that it ignores. Errors: CONFIG (unknown or
 * repeated key, wrong value, no YAML), IO, TOO_LARGE, NO_MEMORY. */
baton_status bt_config_load_file(bt_config *config, const char *path);
/* As load_file; name stands for the path in messages. */
baton_status bt_config_load_text(bt_config *config, const char *name, const void *text, size_t n);
/* BATON_<KEY> of every key in the tables; an empty value counts as not set. */
baton_status bt_config_load_env(bt_config *config);
/* One key from a text; '-' in key counts as '_'. place: "flag --pool-bytes". Lists: "a,b". */
baton_status bt_config_set(bt_config *config, const char *place, const char *key, const char *text);
/* "key=value", as --set and the libraries' overrides take it. */
baton_status bt_config_set_pair(bt_config *config, const char *place, const char *pair);

/* The entry of a key in the tables ('-' counts as '_'), or NULL. */
const bt_config_entry *bt_config_find(const bt_config_table *tables, size_t n_tables,
                                      const char *key);
/* Where a key's value is from: "default", "kept", "file.yaml:7", "env BATON_ROLE", "flag --role";
 * NULL for an unknown key. Borrowed until the next load or set. */
const char *bt_config_origin(const bt_config *config, const char *key);
/* All values as YAML, each with its origin as a comment. */
void bt_config_print(const bt_config *config, bt_strbuf *out);
/* All keys with help, limits and defaults, as a YAML file that loads and changes nothing. */
void bt_config_reference(const bt_config_table *tables, size_t n_tables, bt_strbuf *out);
/* "a size in bytes (1048576, 64MiB) from 1MiB to 1GiB": what a key takes. */
void bt_config_describe(const bt_config_entry *entry, bt_strbuf *out);

#endif
