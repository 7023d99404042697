/* SPDX-License-Identifier: Apache-2.0 */
/* What the config's own files share; others include core/configtable.h.
 * Thread rule: owner thread. */
#ifndef BT_CORE_CONFIGSTATE_H
#define BT_CORE_CONFIGSTATE_H
#include "core/configtable.h"

/* Memory that is freed all at once: strings and lists that the targets point to. */
typedef struct bt_config_block bt_config_block;
typedef struct {
    bt_config_block *blocks;
} bt_config_arena;
void *bt_config_arena_calloc(bt_config_arena *arena, size_t n, size_t size);
char *bt_config_arena_strndup(bt_config_arena *arena, const char *text, size_t n);

/* A value as written, before the key's type is looked at. */
typedef enum {
    BT_CONFIG_TEXT,   /* items[0] */
    BT_CONFIG_LIST,   /* items[n] */
    BT_CONFIG_NULL,   /* null, ~ or nothing: the key counts as not set */
    BT_CONFIG_MAP,    /* a mapping */
    BT_CONFIG_NESTED, /* a list that holds lists or mappings */
} bt_config_shape;
typedef struct {
    bt_config_shape shape;
    const char *const *items; /* borrowed */
    size_t n;
} bt_config_value;

/* Who says a value within one file: the higher rank wins, whatever the order. */
typedef enum { BT_RANK_WEAK = 1, BT_RANK_FOREIGN, BT_RANK_NATIVE } bt_config_rank;

typedef struct {
    const bt_config_entry *entry;
    void *target;
    const char *origin; /* in the arena, or constant */
    uint32_t load;      /* the file load that set it last; 0: none */
    bt_config_rank rank;
} bt_config_slot;

struct bt_config {
    bt_config_options options;
    bt_config_slot *slots; /* [n_slots], one per entry of every table, in order */
    size_t n_slots;
    uint32_t load; /* counts file loads */
    bt_config_arena arena;
};

/* Checks value against the entry's type and limits and stores it in the target. */
baton_status bt_config_parse(const bt_config_entry *entry, const char *place, const char *key,
                             const bt_config_value *value, bt_config_arena *arena, void *target);
/* The value that target holds, as YAML. */
void bt_config_format(const bt_config_entry *entry, const void *target, bt_strbuf *out);
/* place in messages: key as the user wrote it; baton_key: where it goes. NULL values change
 * nothing. load 0: not from a file. *found is whether a table has the key. */
baton_status bt_config_assign(bt_config *config, const char *place, const char *key,
                              const char *baton_key, const bt_config_value *value, uint32_t load,
                              bt_config_rank rank, bool *found);
baton_status bt_config_unknown_key(const bt_config *config, const char *place, const char *key);
bool bt_config_key_equal(const char *a, const char *b); /* '-' equals '_' */

#endif
