/* SPDX-License-Identifier: Apache-2.0 */
/* Which key has which value, and who said so. */
#include "core/configtable.h"

#include "core/alloc.h"
#include "core/configstate.h"
#include "core/fail.h"
#include "core/suggest.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct bt_config_block {
    bt_config_block *next;
    max_align_t bytes[];
};

void *bt_config_arena_calloc(bt_config_arena *arena, size_t n, size_t size)
{
    size_t bytes;
    if (!bt_mul_size(n, size, &bytes) || !bt_add_size(bytes, sizeof(bt_config_block), &bytes))
        return NULL;
    bt_config_block *block = bt_calloc(1, bytes);
    if (block == NULL)
        return NULL;
    block->next = arena->blocks;
    arena->blocks = block;
    return block->bytes;
}

char *bt_config_arena_strndup(bt_config_arena *arena, const char *text, size_t n)
{
    char *copy = bt_config_arena_calloc(arena, n + 1, 1);
    if (copy != NULL)
        memcpy(copy, text, n);
    return copy;
}

static void free_arena(bt_config_arena *arena)
{
    while (arena->blocks != NULL) {
        bt_config_block *next = arena->blocks->next;
        bt_free(arena->blocks);
        arena->blocks = next;
    }
}

bool bt_config_key_equal(const char *a, const char *b)
{
    for (; *a != '\0' && *b != '\0'; a++, b++) {
        if ((*a == '-' ? '_' : *a) != (*b == '-' ? '_' : *b))
            return false;
    }
    return *a == *b;
}

const bt_config_entry *bt_config_find(const bt_config_table *tables, size_t n_tables,
                                      const char *key)
{
    for (size_t t = 0; t < n_tables; t++) {
        for (size_t i = 0; i < tables[t].n_entries; i++) {
            if (bt_config_key_equal(tables[t].entries[i].key, key))
                return &tables[t].entries[i];
        }
    }
    return NULL;
}

/* The size of field that a type may have, or its alternative; 0: none. */
static bool size_fits(const bt_config_entry *entry)
{
    switch (entry->type) {
    case BT_CONFIG_BOOL:
        return entry->size == sizeof(bool);
    case BT_CONFIG_UINT16:
        return entry->size == sizeof(uint16_t);
    case BT_CONFIG_INT32:
    case BT_CONFIG_UINT32:
    case BT_CONFIG_ENUM:
        return entry->size == sizeof(uint32_t);
    case BT_CONFIG_UINT64:
    case BT_CONFIG_DOUBLE:
        return entry->size == sizeof(uint64_t);
    case BT_CONFIG_BYTES:
    case BT_CONFIG_DURATION:
        return entry->size == sizeof(uint32_t) || entry->size == sizeof(uint64_t);
    case BT_CONFIG_STRING:
        return entry->size == sizeof(char *);
    case BT_CONFIG_PORTS:
    case BT_CONFIG_STRINGS:
        return entry->size == sizeof(char *) && entry->count_offset != entry->offset;
    }
    return false;
}

static baton_status check_entry(const bt_config_entry *entry)
{
    if (!size_fits(entry))
        return bt_fail(BATON_ERR_INVALID_ARG, "config: %s: its field has %zu bytes, not its type's",
                       entry->key, entry->size);
    if ((entry->type == BT_CONFIG_ENUM) != (entry->names != NULL))
        return bt_fail(BATON_ERR_INVALID_ARG, "config: %s: names go with ENUM and only with it",
                       entry->key);
    return BATON_OK;
}

static baton_status apply_default(bt_config *config, bt_config_slot *slot)
{
    const bt_config_entry *entry = slot->entry;
    BATON_TRY(check_entry(entry));
    slot->origin = config->options.keep ? "kept" : "default";
    if (config->options.keep)
        return BATON_OK;
    memset((uint8_t *)slot->target + entry->offset, 0, entry->size);
    if (entry->type == BT_CONFIG_PORTS || entry->type == BT_CONFIG_STRINGS)
        memset((uint8_t *)slot->target + entry->count_offset, 0, sizeof(uint32_t));
    if (entry->fallback == NULL)
        return BATON_OK;
    const bt_config_value value = {.shape = BT_CONFIG_TEXT, .items = &entry->fallback, .n = 1};
    return bt_config_parse(entry, "default", entry->key, &value, &config->arena, slot->target);
}

static baton_status make_slots(bt_config *config)
{
    const bt_config_options *options = &config->options;
    size_t n = 0;
    for (size_t t = 0; t < options->n_tables; t++)
        n += options->tables[t].n_entries;
    config->slots = bt_calloc(n, sizeof(*config->slots));
    if (config->slots == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "config: no memory for %zu keys", n);
    for (size_t t = 0; t < options->n_tables; t++) {
        const bt_config_table *table = &options->tables[t];
        for (size_t i = 0; i < table->n_entries; i++) {
            bt_config_slot *slot = &config->slots[config->n_slots++];
            slot->entry = &table->entries[i];
            slot->target = table->target;
            BATON_TRY(apply_default(config, slot));
        }
    }
    return BATON_OK;
}

baton_status bt_config_create(const bt_config_options *options, bt_config **config_p)
{
    bt_config *config = bt_calloc(1, sizeof(*config));
    if (config == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "config: no memory for its head");
    config->options = *options;
    baton_status status = make_slots(config);
    if (status < 0) {
        bt_config_destroy(config);
        return status;
    }
    *config_p = config;
    return BATON_OK;
}

void bt_config_destroy(bt_config *config)
{
    if (config == NULL)
        return;
    free_arena(&config->arena);
    bt_free(config->slots);
    bt_free(config);
}

/* A second word for a key in the same file: the higher rank stays, and equals must agree. */
static baton_status assign_again(bt_config *config, bt_config_slot *slot, const char *place,
                                 const char *key, const bt_config_value *value)
{
    bt_strbuf before = {0}, after = {0};
    bt_config_format(slot->entry, slot->target, &before);
    baton_status status =
        bt_config_parse(slot->entry, place, key, value, &config->arena, slot->target);
    if (status == BATON_OK) {
        bt_config_format(slot->entry, slot->target, &after);
        status = before.failed ? bt_strbuf_status(&before) : bt_strbuf_status(&after);
    }
    if (status == BATON_OK && strcmp(bt_strbuf_text(&before), bt_strbuf_text(&after)) != 0)
        status = bt_fail(BATON_ERR_CONFIG,
                         "%s: %s: wanted %.60s for %s, as %s has it, found %.60s; keep one", place,
                         key, bt_strbuf_text(&before), slot->entry->key, slot->origin,
                         bt_strbuf_text(&after));
    bt_strbuf_free(&before);
    bt_strbuf_free(&after);
    return status;
}

static baton_status assign_slot(bt_config *config, bt_config_slot *slot, const char *place,
                                const char *key, const bt_config_value *value, uint32_t load,
                                bt_config_rank rank)
{
    if (load != 0 && slot->load == load && rank < slot->rank)
        return BATON_OK;
    if (load != 0 && slot->load == load && rank == slot->rank)
        return assign_again(config, slot, place, key, value);
    BATON_TRY(bt_config_parse(slot->entry, place, key, value, &config->arena, slot->target));
    char *origin = bt_config_arena_strndup(&config->arena, place, strlen(place));
    if (origin == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "%s: %s: no memory for its origin", place, key);
    slot->origin = origin;
    slot->load = load;
    slot->rank = rank;
    return BATON_OK;
}

baton_status bt_config_assign(bt_config *config, const char *place, const char *key,
                              const char *baton_key, const bt_config_value *value, uint32_t load,
                              bt_config_rank rank, bool *found)
{
    *found = false;
    for (size_t i = 0; i < config->n_slots; i++) {
        if (!bt_config_key_equal(config->slots[i].entry->key, baton_key))
            continue;
        *found = true;
        if (value->shape != BT_CONFIG_NULL)
            BATON_TRY(assign_slot(config, &config->slots[i], place, key, value, load, rank));
    }
    return BATON_OK;
}

static void offer_tables(bt_suggest *near, const bt_config_table *tables, size_t n_tables)
{
    for (size_t t = 0; t < n_tables; t++) {
        for (size_t i = 0; i < tables[t].n_entries; i++)
            bt_suggest_offer(near, tables[t].entries[i].key);
    }
}

baton_status bt_config_unknown_key(const bt_config *config, const char *place, const char *key)
{
    const bt_config_options *options = &config->options;
    bt_suggest near = {.word = key};
    offer_tables(&near, options->tables, options->n_tables);
    offer_tables(&near, options->elsewhere, options->n_elsewhere);
    for (size_t i = 0; i < options->n_foreign; i++)
        bt_suggest_offer(&near, options->foreign[i].key);
    bt_strbuf shown = {0};
    bt_strbuf_escape(&shown, key);
    baton_status status =
        bt_fail(BATON_ERR_CONFIG, "%s: %.80s: wanted a known key, found an unknown one%s%s%s",
                place, bt_strbuf_text(&shown), near.best != NULL ? "; did you mean " : "",
                near.best != NULL ? near.best : "", near.best != NULL ? "?" : "");
    bt_strbuf_free(&shown);
    return status;
}

baton_status bt_config_set(bt_config *config, const char *place, const char *key, const char *text)
{
    const bt_config_value value = {.shape = BT_CONFIG_TEXT, .items = &text, .n = 1};
    bool found;
    BATON_TRY(bt_config_assign(config, place, key, key, &value, 0, BT_RANK_NATIVE, &found));
    return found ? BATON_OK : bt_config_unknown_key(config, place, key);
}

baton_status bt_config_set_pair(bt_config *config, const char *place, const char *pair)
{
    const char *equals = strchr(pair, '=');
    if (equals == NULL || equals == pair)
        return bt_fail(BATON_ERR_CONFIG, "%s: wanted key=value, found '%.80s'", place, pair);
    char *key = bt_strndup(pair, (size_t)(equals - pair));
    if (key == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "%s: no memory for its key", place);
    baton_status status = bt_config_set(config, place, key, equals + 1);
    bt_free(key);
    return status;
}

static void env_place(const char *key, bt_strbuf *place)
{
    bt_strbuf_clear(place);
    bt_strbuf_puts(place, "env BATON_");
    for (; *key != '\0'; key++)
        bt_strbuf_putc(place, *key >= 'a' && *key <= 'z' ? (char)(*key - 'a' + 'A') : *key);
}

baton_status bt_config_load_env(bt_config *config)
{
    bt_strbuf place = {0};
    baton_status status = BATON_OK;
    for (size_t i = 0; i < config->n_slots && status == BATON_OK; i++) {
        bt_config_slot *slot = &config->slots[i];
        env_place(slot->entry->key, &place);
        status = bt_strbuf_status(&place);
        if (status < 0)
            break;
        const char *text = getenv(bt_strbuf_text(&place) + strlen("env "));
        if (text == NULL || text[0] == '\0')
            continue;
        const bt_config_value value = {.shape = BT_CONFIG_TEXT, .items = &text, .n = 1};
        status = assign_slot(config, slot, bt_strbuf_text(&place), slot->entry->key, &value, 0,
                             BT_RANK_NATIVE);
    }
    bt_strbuf_free(&place);
    return status;
}

const char *bt_config_origin(const bt_config *config, const char *key)
{
    for (size_t i = 0; i < config->n_slots; i++) {
        if (bt_config_key_equal(config->slots[i].entry->key, key))
            return config->slots[i].origin;
    }
    return NULL;
}
