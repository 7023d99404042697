/* SPDX-License-Identifier: Apache-2.0 */
#include "doctor/doctor_table.h"

#include "core/alloc.h"

#include <stdio.h>
#include <string.h>

void bt_table_row(bt_table *table)
{
    bt_table_line *rows = NULL;
    if (table->n_rows < BT_TABLE_ROWS_MAX && !table->is_full)
        rows = bt_realloc(table->rows, table->n_rows + 1u, sizeof(*rows));
    table->is_full = rows == NULL;
    if (rows == NULL)
        return;
    table->rows = rows;
    memset(&rows[table->n_rows++], 0, sizeof(*rows));
}

void bt_table_cell(bt_table *table, const char *text, ...)
{
    if (table->is_full || table->n_rows == 0)
        return;
    bt_table_line *row = &table->rows[table->n_rows - 1];
    if (row->n == BT_TABLE_COLUMNS_MAX)
        return;
    va_list args;
    va_start(args, text);
    vsnprintf(row->cells[row->n++], BT_TABLE_CELL_BYTES, text, args);
    va_end(args);
}

static size_t column_width(const bt_table *table, uint32_t column)
{
    size_t widest = 0;
    for (uint32_t i = 0; i < table->n_rows; i++) {
        size_t width = strlen(table->rows[i].cells[column]);
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
            const char *cell = row->cells[column];
            bt_strbuf_puts(out, cell);
            if (column + 1 < row->n)
                bt_strbuf_fill(out, ' ', widths[column] - strlen(cell) + 2);
        }
        bt_strbuf_putc(out, '\n');
    }
    bt_free(table->rows);
    *table = (bt_table){0};
}
