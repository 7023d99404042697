/* SPDX-License-Identifier: Apache-2.0 */
#include "core/texttable.h"

#include "core/alloc.h"

#include <stdio.h>
#include <string.h>

static bool has_room(bt_table *table)
{
    if (table->n_rows < table->max_rows)
        return true;
    uint32_t wanted = table->max_rows == 0 ? 32 : 2 * table->max_rows;
    bt_table_line *rows = NULL;
    if (wanted <= BT_TABLE_ROWS_MAX)
        rows = bt_realloc(table->rows, wanted, sizeof(*rows));
    if (rows == NULL)
        return false;
    table->rows = rows;
    table->max_rows = wanted;
    return true;
}

void bt_table_row(bt_table *table)
{
    table->is_full |= !has_room(table);
    if (!table->is_full)
        table->rows[table->n_rows++] = (bt_table_line){0};
}

void bt_table_cell(bt_table *table, const char *text, ...)
{
    char cell[BT_TABLE_CELL_BYTES];
    if (table->is_full || table->n_rows == 0)
        return;
    bt_table_line *row = &table->rows[table->n_rows - 1];
    if (row->n == BT_TABLE_COLUMNS_MAX)
        return;
    va_list args;
    va_start(args, text);
    vsnprintf(cell, sizeof(cell), text, args);
    va_end(args);
    row->cells[row->n] = table->texts.length;
    bt_strbuf_append(&table->texts, cell, strlen(cell) + 1);
    table->is_full = table->texts.failed;
    row->n += !table->is_full;
}

static const char *cell_at(const bt_table *table, const bt_table_line *row, uint32_t column)
{
    return column < row->n ? table->texts.data + row->cells[column] : "";
}

/* Characters, not bytes: what follows a first byte of UTF-8 takes no place. */
static size_t width_of(const char *text)
{
    size_t width = 0;
    for (; *text != 0; text++)
        width += ((unsigned char)*text & 0xc0) != 0x80;
    return width;
}

static size_t column_width(const bt_table *table, uint32_t column)
{
    size_t widest = 0;
    for (uint32_t i = 0; i < table->n_rows; i++) {
        size_t width = width_of(cell_at(table, &table->rows[i], column));
        widest = width > widest ? width : widest;
    }
    return widest;
}

void bt_table_print(bt_table *table, size_t indent, bt_strbuf *out)
{
    size_t widths[BT_TABLE_COLUMNS_MAX];
    for (uint32_t column = 0; column < BT_TABLE_COLUMNS_MAX; column++)
        widths[column] = column_width(table, column);
    for (uint32_t i = 0; i < table->n_rows; i++) {
        const bt_table_line *row = &table->rows[i];
        bt_strbuf_fill(out, ' ', indent);
        for (uint32_t column = 0; column < row->n; column++) {
            const char *cell = cell_at(table, row, column);
            bt_strbuf_puts(out, cell);
            if (column + 1 < row->n)
                bt_strbuf_fill(out, ' ', widths[column] - width_of(cell) + 2);
        }
        bt_strbuf_putc(out, '\n');
    }
    bt_free(table->rows);
    bt_strbuf_free(&table->texts);
    *table = (bt_table){0};
}
