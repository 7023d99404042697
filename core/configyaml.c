/* SPDX-License-Identifier: Apache-2.0 */
/* The config's YAML: one mapping of keys to texts or lists of texts, read with libyaml's events.
 * Size, depth and list lengths are bounded and aliases refused, so that work and memory stay in
 * proportion to the file. */
#include "core/alloc.h"
#include "core/configstate.h"
#include "core/configtable.h"
#include "core/fail.h"
#include "core/log.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <yaml.h>

typedef struct {
    const char *key;
    size_t line;
} seen_key;

typedef struct {
    bt_config *config;
    const char *name; /* of the file, its tail when long */
    const uint8_t *text;
    yaml_parser_t parser;
    bt_strbuf place;    /* name:line of the pair at hand */
    bt_strbuf ignored;  /* foreign keys, with commas between them */
    const char **items; /* [items_capacity] the list at hand */
    size_t items_capacity;
    seen_key *seen; /* [seen_capacity] keys so far; only known ones get in, once: it stays short */
    size_t n_seen, seen_capacity;
} loader;

static baton_status no_memory(const loader *self)
{
    return bt_fail(BATON_ERR_NO_MEMORY, "%s: no memory to load it", self->name);
}

static size_t line_of(const yaml_event_t *event)
{
    return event->start_mark.line + 1;
}

/* Where libyaml stopped. Its reader (encoding, control characters) knows only the offset. */
static size_t problem_line(const loader *self)
{
    if (self->parser.error != YAML_READER_ERROR)
        return self->parser.problem_mark.line + 1;
    size_t line = 1;
    for (size_t i = 0; i < self->parser.problem_offset; i++)
        line += self->text[i] == '\n';
    return line;
}

static baton_status next_event(loader *self, yaml_event_t *event)
{
    if (!yaml_parser_parse(&self->parser, event)) {
        if (self->parser.error == YAML_MEMORY_ERROR)
            return no_memory(self);
        return bt_fail(BATON_ERR_CONFIG, "%s:%zu: wanted YAML, found an error: %s", self->name,
                       problem_line(self),
                       self->parser.problem != NULL ? self->parser.problem : "unknown");
    }
    if (event->type != YAML_ALIAS_EVENT)
        return BATON_OK;
    baton_status status =
        bt_fail(BATON_ERR_CONFIG, "%s:%zu: wanted a value, found an alias (*%.40s); write it out",
                self->name, line_of(event), (const char *)event->data.alias.anchor);
    yaml_event_delete(event);
    return status;
}

static bool is_start(const yaml_event_t *event)
{
    return event->type == YAML_SEQUENCE_START_EVENT || event->type == YAML_MAPPING_START_EVENT;
}

static bool is_end(const yaml_event_t *event)
{
    return event->type == YAML_SEQUENCE_END_EVENT || event->type == YAML_MAPPING_END_EVENT;
}

/* Reads past the rest of a list or mapping whose start has been read. depth: of that start. */
static baton_status skip_node(loader *self, int depth)
{
    for (int open = 1; open > 0;) {
        yaml_event_t event;
        BATON_TRY(next_event(self, &event));
        open += is_start(&event) - is_end(&event);
        size_t line = line_of(&event);
        yaml_event_delete(&event);
        if (depth + open > BT_CONFIG_MAX_DEPTH)
            return bt_fail(BATON_ERR_CONFIG, "%s:%zu: wanted at most %d levels, found more",
                           self->name, line, BT_CONFIG_MAX_DEPTH);
    }
    return BATON_OK;
}

/* The text of a scalar event, in the config's arena. */
static baton_status copy_scalar(loader *self, const yaml_event_t *event, const char **text)
{
    const char *value = (const char *)event->data.scalar.value;
    size_t n = event->data.scalar.length;
    if (memchr(value, '\0', n) != NULL)
        return bt_fail(BATON_ERR_CONFIG, "%s:%zu: wanted a text, found a 0 character in it",
                       self->name, line_of(event));
    *text = bt_config_arena_strndup(&self->config->arena, value, n);
    return *text != NULL ? BATON_OK : no_memory(self);
}

static bool is_null(const yaml_event_t *event)
{
    static const char *const words[] = {"", "~", "null", "Null", "NULL"};
    if (event->data.scalar.style != YAML_PLAIN_SCALAR_STYLE)
        return false;
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (strcmp((const char *)event->data.scalar.value, words[i]) == 0)
            return true;
    }
    return false;
}

/* Room for item n (0 is the first) of the list at hand. */
static baton_status reserve_item(loader *self, size_t n, size_t line)
{
    if (n >= BT_CONFIG_MAX_ITEMS)
        return bt_fail(BATON_ERR_CONFIG, "%s:%zu: wanted at most %d items in a list, found more",
                       self->name, line, BT_CONFIG_MAX_ITEMS);
    if (n < self->items_capacity)
        return BATON_OK;
    size_t capacity = self->items_capacity != 0 ? 2 * self->items_capacity : 16;
    const char **items = bt_realloc(self->items, capacity, sizeof(*items));
    if (items == NULL)
        return no_memory(self);
    self->items = items;
    self->items_capacity = capacity;
    return BATON_OK;
}

/* One item of a list; *n grows. Sets shape NESTED where it is no text. */
static baton_status read_item(loader *self, const yaml_event_t *event, bt_config_value *value)
{
    if (is_start(event)) {
        value->shape = BT_CONFIG_NESTED;
        return skip_node(self, 3);
    }
    BATON_TRY(reserve_item(self, value->n, line_of(event)));
    BATON_TRY(copy_scalar(self, event, &self->items[value->n]));
    value->n++;
    return BATON_OK;
}

static baton_status read_list(loader *self, bt_config_value *value)
{
    *value = (bt_config_value){.shape = BT_CONFIG_LIST};
    for (;;) {
        yaml_event_t event;
        BATON_TRY(next_event(self, &event));
        bool end = event.type == YAML_SEQUENCE_END_EVENT;
        baton_status status = end ? BATON_OK : read_item(self, &event, value);
        yaml_event_delete(&event);
        if (status < 0)
            return status;
        if (end)
            break;
    }
    value->items = self->items;
    return BATON_OK;
}

static baton_status read_scalar(loader *self, const yaml_event_t *event, bt_config_value *value)
{
    BATON_TRY(reserve_item(self, 0, line_of(event)));
    BATON_TRY(copy_scalar(self, event, &self->items[0]));
    *value = (bt_config_value){
        .shape = is_null(event) ? BT_CONFIG_NULL : BT_CONFIG_TEXT, .items = self->items, .n = 1};
    return BATON_OK;
}

static baton_status read_value(loader *self, bt_config_value *value)
{
    yaml_event_t event;
    BATON_TRY(next_event(self, &event));
    baton_status status;
    if (event.type == YAML_SCALAR_EVENT) {
        status = read_scalar(self, &event, value);
    } else if (event.type == YAML_SEQUENCE_START_EVENT) {
        status = read_list(self, value);
    } else {
        *value = (bt_config_value){.shape = BT_CONFIG_MAP};
        status = skip_node(self, 2);
    }
    yaml_event_delete(&event);
    return status;
}

static baton_status note_key(loader *self, const char *key, size_t line)
{
    for (size_t i = 0; i < self->n_seen; i++) {
        if (strcmp(self->seen[i].key, key) == 0)
            return bt_fail(BATON_ERR_CONFIG,
                           "%s: %s: wanted each key once, found it again; the first is in line %zu",
                           bt_strbuf_text(&self->place), key, self->seen[i].line);
    }
    if (self->n_seen == self->seen_capacity) {
        size_t capacity = self->seen_capacity != 0 ? 2 * self->seen_capacity : 32;
        seen_key *seen = bt_realloc(self->seen, capacity, sizeof(*seen));
        if (seen == NULL)
            return no_memory(self);
        self->seen = seen;
        self->seen_capacity = capacity;
    }
    self->seen[self->n_seen++] = (seen_key){key, line};
    return BATON_OK;
}

static const bt_foreign_key *find_foreign(const bt_config_options *options, const char *key)
{
    for (size_t i = 0; i < options->n_foreign; i++) {
        if (strcmp(options->foreign[i].key, key) == 0)
            return &options->foreign[i];
    }
    return NULL;
}

static baton_status translate(const loader *self, const bt_foreign_key *foreign,
                              bt_config_value *value)
{
    if (foreign->translate == NULL || value->shape != BT_CONFIG_TEXT)
        return BATON_OK;
    const char *text = foreign->translate(value->items[0]);
    if (text == NULL) {
        bt_strbuf shown = {0};
        bt_strbuf_escape(&shown, value->items[0]);
        baton_status status = bt_fail(BATON_ERR_CONFIG, "%s: %s: wanted %s, found '%.60s'",
                                      bt_strbuf_text(&self->place), foreign->key, foreign->takes,
                                      bt_strbuf_text(&shown));
        bt_strbuf_free(&shown);
        return status;
    }
    self->items[0] = text;
    return BATON_OK;
}

static baton_status apply_foreign(loader *self, const bt_foreign_key *foreign,
                                  bt_config_value *value)
{
    bt_config *config = self->config;
    bool used = false;
    if (foreign->baton_key != NULL) {
        BATON_TRY(translate(self, foreign, value));
        BATON_TRY(bt_config_assign(config, bt_strbuf_text(&self->place), foreign->key,
                                   foreign->baton_key, value, config->load,
                                   foreign->weak ? BT_RANK_WEAK : BT_RANK_FOREIGN, &used));
        used = used || bt_config_find(config->options.elsewhere, config->options.n_elsewhere,
                                      foreign->baton_key) != NULL;
    }
    if (!used)
        bt_strbuf_printf(&self->ignored, "%s%s", self->ignored.length > 0 ? ", " : "",
                         foreign->key);
    return BATON_OK;
}

static bool has_dash(const char *key)
{
    return strchr(key, '-') != NULL; /* equal to '_' only in flags */
}

static baton_status apply_pair(loader *self, const char *key, size_t line, bt_config_value *value)
{
    bt_config *config = self->config;
    const bt_config_options *options = &config->options;
    const char *place = bt_strbuf_text(&self->place);
    bool dash = has_dash(key);
    bool ours = !dash && bt_config_find(options->tables, options->n_tables, key) != NULL;
    bool others = !dash && bt_config_find(options->elsewhere, options->n_elsewhere, key) != NULL;
    const bt_foreign_key *foreign = find_foreign(options, key);
    if (!ours && !others && foreign == NULL)
        return bt_config_unknown_key(config, place, key);
    BATON_TRY(note_key(self, key, line));
    if (ours)
        return bt_config_assign(config, place, key, key, value, config->load, BT_RANK_NATIVE,
                                &ours);
    return others ? BATON_OK : apply_foreign(self, foreign, value);
}

static baton_status read_pair(loader *self, const yaml_event_t *event)
{
    size_t line = line_of(event);
    if (event->type != YAML_SCALAR_EVENT)
        return bt_fail(BATON_ERR_CONFIG, "%s:%zu: wanted a key, found a %s", self->name, line,
                       event->type == YAML_SEQUENCE_START_EVENT ? "list" : "mapping");
    const char *key;
    BATON_TRY(copy_scalar(self, event, &key));
    bt_config_value value = {0};
    BATON_TRY(read_value(self, &value));
    bt_strbuf_clear(&self->place);
    bt_strbuf_printf(&self->place, "%s:%zu", self->name, line);
    BATON_TRY(bt_strbuf_status(&self->place));
    return apply_pair(self, key, line, &value);
}

static baton_status read_pairs(loader *self)
{
    for (;;) {
        yaml_event_t event;
        BATON_TRY(next_event(self, &event));
        bool end = event.type == YAML_MAPPING_END_EVENT;
        baton_status status = end ? BATON_OK : read_pair(self, &event);
        yaml_event_delete(&event);
        if (status < 0 || end)
            return status;
    }
}

/* The root: a mapping, or nothing at all. */
static baton_status read_root(loader *self, const yaml_event_t *event)
{
    if (event->type == YAML_MAPPING_START_EVENT)
        return read_pairs(self);
    if (event->type == YAML_SCALAR_EVENT && is_null(event))
        return BATON_OK;
    return bt_fail(BATON_ERR_CONFIG, "%s:%zu: wanted 'key: value' lines, found a %s", self->name,
                   line_of(event), event->type == YAML_SCALAR_EVENT ? "text" : "list");
}

static baton_status read_stream(loader *self)
{
    int n_documents = 0;
    for (;;) {
        yaml_event_t event;
        BATON_TRY(next_event(self, &event));
        yaml_event_type_t type = event.type;
        baton_status status = BATON_OK;
        if (type == YAML_DOCUMENT_START_EVENT && ++n_documents > 1)
            status = bt_fail(BATON_ERR_CONFIG, "%s:%zu: wanted one document, found a second",
                             self->name, line_of(&event));
        else if (type == YAML_SCALAR_EVENT || is_start(&event))
            status = read_root(self, &event);
        yaml_event_delete(&event);
        if (status < 0 || type == YAML_STREAM_END_EVENT)
            return status;
    }
}

static baton_status warn_ignored(const loader *self)
{
    BATON_TRY(bt_strbuf_status(&self->ignored));
    if (self->ignored.length > 0)
        bt_warn("config: %s: keys of another system, ignored: %s", self->name,
                bt_strbuf_text(&self->ignored));
    return BATON_OK;
}

/* So much of a long path that a message still has room for what went wrong. */
static const char *short_name(const char *name)
{
    enum { MAX_NAME = 160 };
    size_t n = strlen(name);
    return n > MAX_NAME ? name + n - MAX_NAME : name;
}

baton_status bt_config_load_text(bt_config *config, const char *name, const void *text, size_t n)
{
    loader self = {.config = config, .name = short_name(name), .text = text};
    if (n > BT_CONFIG_MAX_FILE_BYTES)
        return bt_fail(BATON_ERR_TOO_LARGE, "%s: wanted at most %d bytes, found more", self.name,
                       BT_CONFIG_MAX_FILE_BYTES);
    if (!yaml_parser_initialize(&self.parser))
        return no_memory(&self);
    config->load++;
    yaml_parser_set_encoding(&self.parser, YAML_UTF8_ENCODING);
    yaml_parser_set_input_string(&self.parser, text, n);
    baton_status status = read_stream(&self);
    if (status == BATON_OK)
        status = warn_ignored(&self);
    yaml_parser_delete(&self.parser);
    bt_strbuf_free(&self.place);
    bt_strbuf_free(&self.ignored);
    bt_free(self.items);
    bt_free(self.seen);
    return status;
}

/* Reads until the end or one byte more than allowed, whatever size the file claims. */
static baton_status read_file(FILE *file, const char *path, uint8_t **text, size_t *n)
{
    size_t capacity = BT_CONFIG_MAX_FILE_BYTES + 1;
    uint8_t *bytes = bt_calloc(capacity, 1);
    if (bytes == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "%s: no memory to read it", short_name(path));
    size_t length = fread(bytes, 1, capacity, file);
    if (ferror(file)) {
        int err = errno;
        bt_free(bytes);
        return bt_fail_errno(BATON_ERR_IO, err, "%s: wanted to read it", short_name(path));
    }
    *text = bytes;
    *n = length;
    return BATON_OK;
}

baton_status bt_config_load_file(bt_config *config, const char *path)
{
    FILE *file = fopen(path, "rbe");
    if (file == NULL)
        return bt_fail_errno(BATON_ERR_IO, errno, "%s: wanted to open this config file",
                             short_name(path));
    uint8_t *text = NULL;
    size_t n = 0;
    baton_status status = read_file(file, path, &text, &n);
    fclose(file);
    if (status < 0)
        return status;
    status = bt_config_load_text(config, path, text, n);
    bt_free(text);
    return status;
}
