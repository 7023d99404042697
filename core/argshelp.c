/* SPDX-License-Identifier: Apache-2.0 */
#include "core/argshelp.h"

#include <string.h>

enum { MAX_LEFT = 34, WRAP_COLUMN = 100 };

/* One line of help: what to type, what it does, its default. */
typedef struct {
    const char *name, *value_name, *help, *fallback;
    const char *const *names; /* of an enum, in place of value_name */
    bool repeat;
} help_line;

static const char *value_name_of(const bt_config_entry *entry)
{
    switch (entry->type) {
    case BT_CONFIG_BOOL:
    case BT_CONFIG_ENUM:
        return NULL;
    case BT_CONFIG_BYTES:
        return "SIZE";
    case BT_CONFIG_DURATION:
        return "TIME";
    case BT_CONFIG_STRING:
        return "TEXT";
    case BT_CONFIG_PORTS:
        return "PORT,...";
    case BT_CONFIG_STRINGS:
        return "TEXT,...";
    default:
        return "NUMBER";
    }
}

static help_line line_of_option(const bt_args_option *option)
{
    return (help_line){.name = option->name,
                       .value_name = option->value_name,
                       .help = option->help,
                       .fallback = option->fallback,
                       .repeat = option->repeat};
}

static help_line line_of_entry(const bt_config_entry *entry)
{
    bool flag = entry->type == BT_CONFIG_BOOL; /* "default: false" of a flag says nothing */
    bool off = flag && entry->fallback != NULL && strcmp(entry->fallback, "false") == 0;
    return (help_line){.name = entry->key,
                       .value_name = value_name_of(entry),
                       .help = entry->help,
                       .fallback = off ? NULL : entry->fallback,
                       .names = entry->names};
}

/* "  --pool-bytes SIZE" */
static void put_left(const help_line *line, bt_strbuf *out)
{
    bt_strbuf_puts(out, "  --");
    for (const char *at = line->name; *at != '\0'; at++)
        bt_strbuf_putc(out, *at == '_' ? '-' : *at);
    if (line->value_name != NULL)
        bt_strbuf_printf(out, " %s", line->value_name);
    for (size_t i = 0; line->names != NULL && line->names[i] != NULL; i++)
        bt_strbuf_printf(out, "%c%s", i == 0 ? ' ' : '|', line->names[i]);
}

/* text from column `indent` on, broken between words; *column is where the line stands. */
static void put_words(const char *text, size_t indent, size_t *column, bt_strbuf *out)
{
    for (const char *at = text; *at != '\0';) {
        at += strspn(at, " \n");
        size_t word = strcspn(at, " \n");
        if (word == 0)
            break;
        bool first = *column <= indent;
        if (!first && *column + 1 + word > WRAP_COLUMN) {
            bt_strbuf_putc(out, '\n');
            bt_strbuf_fill(out, ' ', indent);
            *column = indent;
            first = true;
        }
        bt_strbuf_puts(out, first ? "" : " ");
        bt_strbuf_append(out, at, word);
        *column += word + (first ? 0 : 1);
        at += word;
    }
}

static void put_line(const help_line *line, size_t indent, bt_strbuf *out)
{
    size_t start = out->length;
    put_left(line, out);
    size_t column = out->length - start;
    if (column + 2 > indent) {
        bt_strbuf_putc(out, '\n');
        column = 0;
    }
    bt_strbuf_fill(out, ' ', indent - column);
    column = indent;
    put_words(line->help != NULL ? line->help : "", indent, &column, out);
    if (line->repeat)
        put_words("May be repeated.", indent, &column, out);
    if (line->fallback != NULL && line->fallback[0] != '\0') {
        bt_strbuf text = {0};
        bt_strbuf_printf(&text, "(default: %s)", line->fallback);
        put_words(bt_strbuf_text(&text), indent, &column, out);
        out->failed |= text.failed;
        bt_strbuf_free(&text);
    }
    bt_strbuf_putc(out, '\n');
}

static void widen(const help_line *line, bt_strbuf *left, size_t *indent)
{
    bt_strbuf_clear(left);
    put_left(line, left);
    if (left->length + 2 > *indent && left->length + 2 <= MAX_LEFT)
        *indent = left->length + 2;
}

/* The column at which help starts: behind all but the longest options. */
static size_t indent_of(const bt_args_spec *spec)
{
    size_t indent = 0;
    bt_strbuf left = {0};
    const bt_args_option *option;
    for (size_t i = 0; (option = bt_args_option_at(spec, i)) != NULL; i++) {
        help_line line = line_of_option(option);
        widen(&line, &left, &indent);
    }
    for (size_t t = 0; t < spec->n_tables; t++) {
        for (size_t i = 0; i < spec->tables[t].n_entries; i++) {
            help_line line = line_of_entry(&spec->tables[t].entries[i]);
            widen(&line, &left, &indent);
        }
    }
    bt_strbuf_free(&left);
    return indent;
}

static void put_options(const bt_args_spec *spec, size_t from, size_t to, size_t indent,
                        bt_strbuf *out)
{
    const bt_args_option *option;
    for (size_t i = from; i < to && (option = bt_args_option_at(spec, i)) != NULL; i++) {
        if (option->section != NULL || i == 0)
            bt_strbuf_printf(out, "\n%s:\n", option->section != NULL ? option->section : "Options");
        help_line line = line_of_option(option);
        put_line(&line, indent, out);
    }
}

void bt_args_help(const bt_args_spec *spec, bt_strbuf *out)
{
    bt_strbuf_printf(out, "Usage: %s [options]%s%s\n\n", spec->program,
                     spec->positional != NULL ? " " : "",
                     spec->positional != NULL ? spec->positional : "");
    size_t column = 0, indent = indent_of(spec);
    put_words(spec->summary, 0, &column, out);
    bt_strbuf_putc(out, '\n');
    if (spec->lines != NULL)
        bt_strbuf_printf(out, "\n%s", spec->lines);
    put_options(spec, 0, spec->n_options, indent, out);
    for (size_t t = 0; t < spec->n_tables; t++) {
        bt_strbuf_printf(out, "\n%s:\n", spec->tables[t].title);
        for (size_t i = 0; i < spec->tables[t].n_entries; i++) {
            help_line line = line_of_entry(&spec->tables[t].entries[i]);
            put_line(&line, indent, out);
        }
    }
    put_options(spec, spec->n_options, SIZE_MAX, indent, out);
}
