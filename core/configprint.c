/* SPDX-License-Identifier: Apache-2.0 */
/* The config as a text: the values in force, and the reference of all keys. */
#include "core/alloc.h"
#include "core/configstate.h"
#include "core/configtable.h"

#include <string.h>

enum { ORIGIN_COLUMN = 40, WRAP_COLUMN = 96 };

void bt_config_print(const bt_config *config, bt_strbuf *out)
{
    const bt_config_slot *slot = config->slots;
    for (size_t t = 0; t < config->options.n_tables; t++) {
        const bt_config_table *table = &config->options.tables[t];
        bt_strbuf_printf(out, "%s# %s\n", t > 0 ? "\n" : "", table->title);
        for (size_t i = 0; i < table->n_entries; i++, slot++) {
            size_t start = out->length;
            bt_strbuf_printf(out, "%s: ", slot->entry->key);
            bt_config_format(slot->entry, slot->target, out);
            size_t used = out->length - start;
            bt_strbuf_fill(out, ' ', used < ORIGIN_COLUMN ? ORIGIN_COLUMN - used : 1);
            bt_strbuf_puts(out, "# ");
            bt_strbuf_escape(out, slot->origin);
            bt_strbuf_putc(out, '\n');
        }
    }
}

/* text in comment lines, broken between words. */
static void put_comment(const char *text, bt_strbuf *out)
{
    size_t column = 0;
    for (const char *at = text; *at != '\0';) {
        at += strspn(at, " \n");
        size_t word = strcspn(at, " \n");
        if (word == 0)
            break;
        if (column > 0 && column + 1 + word > WRAP_COLUMN) {
            bt_strbuf_putc(out, '\n');
            column = 0;
        }
        bt_strbuf_puts(out, column == 0 ? "# " : " ");
        bt_strbuf_append(out, at, word);
        column += word + (column == 0 ? 2 : 1);
        at += word;
    }
    bt_strbuf_putc(out, '\n');
}

static void put_reference(const bt_config_entry *entry, bt_strbuf *out)
{
    bt_strbuf wanted = {0};
    bt_strbuf_puts(&wanted, "Takes ");
    bt_config_describe(entry, &wanted);
    bt_strbuf_putc(&wanted, '.');
    bt_strbuf_putc(out, '\n');
    if (entry->help != NULL)
        put_comment(entry->help, out);
    put_comment(bt_strbuf_text(&wanted), out);
    out->failed |= wanted.failed;
    bt_strbuf_free(&wanted);

    const char *fallback = entry->fallback;
    bool text = entry->type == BT_CONFIG_STRING || entry->type == BT_CONFIG_STRINGS;
    if (fallback == NULL) {
        bt_strbuf_printf(out, "%s: null\n", entry->key);
    } else if (text) {
        bt_strbuf_printf(out, "%s: \"", entry->key);
        bt_strbuf_escape(out, fallback);
        bt_strbuf_puts(out, "\"\n");
    } else {
        bt_strbuf_printf(out, "%s: %s%s%s\n", entry->key, fallback[0] == '\0' ? "[" : "", fallback,
                         fallback[0] == '\0' ? "]" : "");
    }
}

/* A key that an earlier table has too was written there; twice would not load. */
static bool written_before(const bt_config_table *tables, size_t t, size_t i)
{
    return bt_config_find(tables, t, tables[t].entries[i].key) != NULL;
}

void bt_config_reference(const bt_config_table *tables, size_t n_tables, bt_strbuf *out)
{
    for (size_t t = 0; t < n_tables; t++) {
        bt_strbuf_printf(out, "%s# ---- %s ----\n", t > 0 ? "\n" : "", tables[t].title);
        for (size_t i = 0; i < tables[t].n_entries; i++) {
            if (!written_before(tables, t, i))
                put_reference(&tables[t].entries[i], out);
        }
    }
}
