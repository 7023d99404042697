/* SPDX-License-Identifier: Apache-2.0 */
/* One value: from text to the field of a struct, and back. */
#include "core/configstate.h"

#include "core/alloc.h"
#include "core/fail.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

typedef struct {
    const char *suffix;
    uint64_t factor;
} unit;

/* The first unit that divides a number is the one it is shown in. */
static const unit byte_units[] = {{"TiB", UINT64_C(1) << 40},
                                  {"GiB", UINT64_C(1) << 30},
                                  {"MiB", UINT64_C(1) << 20},
                                  {"KiB", UINT64_C(1) << 10},
                                  {"", 1},
                                  {"B", 1},
                                  {"T", UINT64_C(1) << 40},
                                  {"G", UINT64_C(1) << 30},
                                  {"M", UINT64_C(1) << 20},
                                  {"K", UINT64_C(1) << 10},
                                  {"TB", 1000000000000},
                                  {"GB", 1000000000},
                                  {"MB", 1000000},
                                  {"KB", 1000},
                                  {NULL, 0}};
static const unit ms_units[] = {{"h", 3600000}, {"m", 60000},   {"s", 1000}, {"ms", 1},
                                {"", 1},        {"min", 60000}, {NULL, 0}};
static const unit plain_units[] = {{"", 1}, {NULL, 0}};

static const unit *units_of(bt_config_type type)
{
    if (type == BT_CONFIG_BYTES)
        return byte_units;
    return type == BT_CONFIG_DURATION ? ms_units : plain_units;
}

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Decimal digits, or hexadecimal ones after 0x; then one of the units. */
static bool parse_unsigned(const char *text, const unit *units, uint64_t *value)
{
    bool hex = text[0] == '0' && (text[1] == 'x' || text[1] == 'X');
    const char *digits = hex ? text + 2 : text;
    if (!is_digit(digits[0]) && !(hex && strchr("abcdefABCDEF", digits[0]) && digits[0] != '\0'))
        return false;
    char *rest;
    errno = 0;
    unsigned long long number = strtoull(digits, &rest, hex ? 16 : 10);
    if (errno != 0)
        return false;
    if (*rest == ' ' && rest[1] != '\0')
        rest++;
    for (; units->suffix != NULL; units++) {
        if (strcasecmp(rest, units->suffix) == 0)
            return bt_mul_u64(number, units->factor, value);
    }
    return false;
}

static bool in_limits(const bt_config_entry *entry, double value)
{
    if (entry->min == 0 && entry->max == 0)
        return true;
    return value >= entry->min && (entry->max < entry->min || value <= entry->max);
}

/* Copies a number into a field of 2, 4 or 8 bytes; false when it does not fit. */
static bool store_unsigned(uint64_t number, size_t size, void *field)
{
    uint16_t half = (uint16_t)number;
    uint32_t word = (uint32_t)number;
    if (size == sizeof(half) && half == number)
        memcpy(field, &half, sizeof(half));
    else if (size == sizeof(word) && word == number)
        memcpy(field, &word, sizeof(word));
    else if (size == sizeof(number))
        memcpy(field, &number, sizeof(number));
    else
        return false;
    return true;
}

static uint64_t load_unsigned(size_t size, const void *field)
{
    uint16_t half;
    uint32_t word;
    uint64_t number;
    if (size == sizeof(half))
        return memcpy(&half, field, sizeof(half)), half;
    if (size == sizeof(word))
        return memcpy(&word, field, sizeof(word)), word;
    return memcpy(&number, field, sizeof(number)), number;
}

static bool read_unsigned(const bt_config_entry *entry, const char *text, size_t size, void *field)
{
    uint64_t number;
    return parse_unsigned(text, units_of(entry->type), &number) &&
           in_limits(entry, (double)number) && store_unsigned(number, size, field);
}

static bool read_int32(const bt_config_entry *entry, const char *text, void *field)
{
    bool negative = text[0] == '-';
    uint64_t magnitude;
    if (!parse_unsigned(negative ? text + 1 : text, plain_units, &magnitude) ||
        magnitude > (uint64_t)INT32_MAX + negative)
        return false;
    int32_t number = (int32_t)(negative ? -(int64_t)magnitude : (int64_t)magnitude);
    if (!in_limits(entry, number))
        return false;
    memcpy(field, &number, sizeof(number));
    return true;
}

static bool read_double(const bt_config_entry *entry, const char *text, void *field)
{
    /* strtod alone would take blanks, "inf", "nan" and hexadecimal floats. */
    size_t n = strspn(text, "0123456789+-.eE");
    if (n == 0 || text[n] != '\0')
        return false;
    char *rest;
    double number = strtod(text, &rest);
    if (rest == text || *rest != '\0' || !isfinite(number) || !in_limits(entry, number))
        return false;
    memcpy(field, &number, sizeof(number));
    return true;
}

static bool read_bool(const char *text, void *field)
{
    static const char *const words[] = {"false", "true", "no", "yes", "off", "on", "0", "1"};
    for (size_t i = 0; i < sizeof(words) / sizeof(words[0]); i++) {
        if (strcasecmp(text, words[i]) == 0) {
            bool value = i % 2 == 1;
            memcpy(field, &value, sizeof(value));
            return true;
        }
    }
    return false;
}

static bool read_enum(const bt_config_entry *entry, const char *text, void *field)
{
    for (int i = 0; entry->names[i] != NULL; i++) {
        if (strcmp(text, entry->names[i]) == 0) {
            memcpy(field, &i, sizeof(i));
            return true;
        }
    }
    return false;
}

static bool read_number(const bt_config_entry *entry, const char *text, void *field)
{
    switch (entry->type) {
    case BT_CONFIG_BOOL:
        return read_bool(text, field);
    case BT_CONFIG_INT32:
        return read_int32(entry, text, field);
    case BT_CONFIG_DOUBLE:
        return read_double(entry, text, field);
    case BT_CONFIG_ENUM:
        return read_enum(entry, text, field);
    default:
        return read_unsigned(entry, text, entry->size, field);
    }
}

static bool is_list_type(bt_config_type type)
{
    return type == BT_CONFIG_PORTS || type == BT_CONFIG_STRINGS;
}

static baton_status refuse(const bt_config_entry *entry, const char *place, const char *key,
                           const char *found)
{
    bt_strbuf wanted = {0}, shown = {0};
    bt_config_describe(entry, &wanted);
    bt_strbuf_escape(&shown, found);
    baton_status status = bt_fail(BATON_ERR_CONFIG, "%s: %s: wanted %s, found %.80s", place, key,
                                  bt_strbuf_text(&wanted), bt_strbuf_text(&shown));
    bt_strbuf_free(&wanted);
    bt_strbuf_free(&shown);
    return status;
}

static baton_status refuse_text(const bt_config_entry *entry, const char *place, const char *key,
                                const char *text)
{
    char found[80];
    snprintf(found, sizeof(found), "'%.60s%s'", text, strlen(text) > 60 ? "..." : "");
    return refuse(entry, place, key, found);
}

static baton_status no_memory(const char *place, const char *key)
{
    return bt_fail(BATON_ERR_NO_MEMORY, "%s: %s: no memory for its value", place, key);
}

/* A text "a, b" as the list [a, b]: blanks around items and empty items are dropped. */
static baton_status split(const char *place, const char *key, const char *text,
                          bt_config_arena *arena, bt_config_value *list)
{
    size_t n_max = 1;
    for (const char *at = text; *at != '\0'; at++)
        n_max += *at == ',';
    const char **items = bt_config_arena_calloc(arena, n_max, sizeof(*items));
    if (items == NULL)
        return no_memory(place, key);
    size_t n = 0;
    for (const char *at = text; *at != '\0';) {
        at += strspn(at, ", \t");
        size_t length = strcspn(at, ",");
        const char *next = at + length;
        while (length > 0 && (at[length - 1] == ' ' || at[length - 1] == '\t'))
            length--;
        if (length > 0 && (items[n++] = bt_config_arena_strndup(arena, at, length)) == NULL)
            return no_memory(place, key);
        at = next;
    }
    *list = (bt_config_value){.shape = BT_CONFIG_LIST, .items = items, .n = n};
    return BATON_OK;
}

static baton_status parse_list(const bt_config_entry *entry, const char *place, const char *key,
                               const bt_config_value *list, bt_config_arena *arena, void *target)
{
    if (list->n > BT_CONFIG_MAX_ITEMS)
        return bt_fail(BATON_ERR_CONFIG, "%s: %s: wanted at most %d items, found %zu", place, key,
                       BT_CONFIG_MAX_ITEMS, list->n);
    bool ports = entry->type == BT_CONFIG_PORTS;
    size_t item_bytes = ports ? sizeof(uint16_t) : sizeof(char *);
    uint8_t *items = bt_config_arena_calloc(arena, list->n, item_bytes);
    if (items == NULL)
        return no_memory(place, key);
    for (size_t i = 0; i < list->n; i++) {
        uint8_t *item = items + i * item_bytes;
        if (ports && !read_unsigned(entry, list->items[i], sizeof(uint16_t), item))
            return refuse_text(entry, place, key, list->items[i]);
        if (ports)
            continue;
        char *copy = bt_config_arena_strndup(arena, list->items[i], strlen(list->items[i]));
        if (copy == NULL)
            return no_memory(place, key);
        memcpy(item, &copy, sizeof(copy));
    }
    uint32_t n = (uint32_t)list->n;
    memcpy((uint8_t *)target + entry->offset, &items, sizeof(items));
    memcpy((uint8_t *)target + entry->count_offset, &n, sizeof(n));
    return BATON_OK;
}

static baton_status parse_string(const char *place, const char *key, const char *text,
                                 bt_config_arena *arena, void *field)
{
    char *copy = bt_config_arena_strndup(arena, text, strlen(text));
    if (copy == NULL)
        return no_memory(place, key);
    memcpy(field, &copy, sizeof(copy));
    return BATON_OK;
}

baton_status bt_config_parse(const bt_config_entry *entry, const char *place, const char *key,
                             const bt_config_value *value, bt_config_arena *arena, void *target)
{
    assert(value->shape != BT_CONFIG_NULL); /* the callers' business */
    if (value->shape == BT_CONFIG_MAP)
        return refuse(entry, place, key, "a mapping");
    if (value->shape == BT_CONFIG_NESTED)
        return refuse(entry, place, key, "a list of lists or mappings");
    if (is_list_type(entry->type)) {
        bt_config_value list = *value;
        if (value->shape == BT_CONFIG_TEXT)
            BATON_TRY(split(place, key, value->items[0], arena, &list));
        return parse_list(entry, place, key, &list, arena, target);
    }
    if (value->shape == BT_CONFIG_LIST)
        return refuse(entry, place, key, "a list");
    void *field = (uint8_t *)target + entry->offset;
    if (entry->type == BT_CONFIG_STRING)
        return parse_string(place, key, value->items[0], arena, field);
    if (!read_number(entry, value->items[0], field))
        return refuse_text(entry, place, key, value->items[0]);
    return BATON_OK;
}

static void put_unsigned(bt_config_type type, uint64_t number, bt_strbuf *out)
{
    const unit *shown = units_of(type);
    while (number == 0 ? shown->suffix[0] != '\0' : number % shown->factor != 0)
        shown++;
    bt_strbuf_printf(out, "%" PRIu64 "%s", number / shown->factor, shown->suffix);
}

static void put_double(double number, bt_strbuf *out)
{
    char text[40];
    snprintf(text, sizeof(text), "%.15g", number);
    if (strtod(text, NULL) != number)
        snprintf(text, sizeof(text), "%.17g", number);
    bt_strbuf_puts(out, text);
}

static void put_string(const char *text, bt_strbuf *out)
{
    if (text == NULL) {
        bt_strbuf_puts(out, "null");
        return;
    }
    bt_strbuf_putc(out, '"');
    bt_strbuf_escape(out, text);
    bt_strbuf_putc(out, '"');
}

/* A kept target may hold a number that has no name. */
static void put_name(const bt_config_entry *entry, int32_t number, bt_strbuf *out)
{
    for (int32_t i = 0; entry->names[i] != NULL; i++) {
        if (i == number) {
            bt_strbuf_puts(out, entry->names[i]);
            return;
        }
    }
    bt_strbuf_printf(out, "%" PRId32, number);
}

static void put_list(const bt_config_entry *entry, const void *target, bt_strbuf *out)
{
    const uint8_t *items;
    memcpy(&items, (const uint8_t *)target + entry->offset, sizeof(items));
    uint64_t n = load_unsigned(sizeof(uint32_t), (const uint8_t *)target + entry->count_offset);
    bt_strbuf_putc(out, '[');
    for (uint64_t i = 0; i < n; i++) {
        bt_strbuf_puts(out, i > 0 ? ", " : "");
        if (entry->type == BT_CONFIG_PORTS)
            put_unsigned(entry->type, load_unsigned(sizeof(uint16_t), items + 2 * i), out);
        else
            put_string(((const char *const *)(const void *)items)[i], out);
    }
    bt_strbuf_putc(out, ']');
}

void bt_config_format(const bt_config_entry *entry, const void *target, bt_strbuf *out)
{
    const void *field = (const uint8_t *)target + entry->offset;
    union {
        int32_t number;
        double real;
        bool truth;
        const char *text;
    } value = {0};
    if (!is_list_type(entry->type))
        memcpy(&value, field, entry->size);
    switch (entry->type) {
    case BT_CONFIG_BOOL:
        bt_strbuf_puts(out, value.truth ? "true" : "false");
        break;
    case BT_CONFIG_INT32:
        bt_strbuf_printf(out, "%" PRId32, value.number);
        break;
    case BT_CONFIG_DOUBLE:
        put_double(value.real, out);
        break;
    case BT_CONFIG_STRING:
        put_string(value.text, out);
        break;
    case BT_CONFIG_ENUM:
        put_name(entry, value.number, out);
        break;
    case BT_CONFIG_PORTS:
    case BT_CONFIG_STRINGS:
        put_list(entry, target, out);
        break;
    default:
        put_unsigned(entry->type, load_unsigned(entry->size, field), out);
    }
}

static void put_limit(const bt_config_entry *entry, double limit, bt_strbuf *out)
{
    bool scaled = entry->type == BT_CONFIG_BYTES || entry->type == BT_CONFIG_DURATION;
    if (scaled && limit >= 0 && limit < 0x1p63)
        put_unsigned(entry->type, (uint64_t)limit, out);
    else
        put_double(limit, out);
}

static void describe_names(const bt_config_entry *entry, bt_strbuf *out)
{
    for (size_t i = 0; entry->names[i] != NULL; i++) {
        const char *before = i == 0 ? "" : entry->names[i + 1] == NULL ? " or " : ", ";
        bt_strbuf_printf(out, "%s%s", before, entry->names[i]);
    }
}

static const char *type_limits(bt_config_type type)
{
    if (type == BT_CONFIG_UINT16)
        return " from 0 to 65535";
    return type == BT_CONFIG_UINT32 || type == BT_CONFIG_UINT64 ? " from 0" : "";
}

void bt_config_describe(const bt_config_entry *entry, bt_strbuf *out)
{
    static const char *const texts[] = {
        [BT_CONFIG_BOOL] = "true or false",
        [BT_CONFIG_INT32] = "a whole number",
        [BT_CONFIG_UINT16] = "a whole number",
        [BT_CONFIG_UINT32] = "a whole number",
        [BT_CONFIG_UINT64] = "a whole number",
        [BT_CONFIG_DOUBLE] = "a number",
        [BT_CONFIG_BYTES] = "a size in bytes (1048576 or 64MiB)",
        [BT_CONFIG_DURATION] = "a time (250 for milliseconds, or 250ms, 30s, 5m)",
        [BT_CONFIG_STRING] = "a text",
        [BT_CONFIG_PORTS] = "a port or a list of ports (7300 or [7300, 7301])",
        [BT_CONFIG_STRINGS] = "a text or a list of texts (a or [a, b])",
    };
    if (entry->type == BT_CONFIG_ENUM) {
        describe_names(entry, out);
        return;
    }
    bt_strbuf_puts(out, texts[entry->type]);
    if (entry->min == 0 && entry->max == 0) {
        bt_strbuf_puts(out, type_limits(entry->type));
        return;
    }
    bt_strbuf_puts(out, entry->max < entry->min ? " of at least " : " from ");
    put_limit(entry, entry->min, out);
    if (entry->max < entry->min)
        return;
    bt_strbuf_puts(out, " to ");
    put_limit(entry, entry->max, out);
}
