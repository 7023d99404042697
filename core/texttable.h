/* SPDX-License-Identifier: Apache-2.0 */
/* A table of texts whose columns are as wide as they need to be. Zero-initialise it.
 * Thread rule: owner thread. */
#ifndef BT_CORE_TEXTTABLE_H
#define BT_CORE_TEXTTABLE_H
#include "core/strbuf.h"

enum { BT_TABLE_COLUMNS_MAX = 24, BT_TABLE_ROWS_MAX = 8192, BT_TABLE_CELL_BYTES = 352 };

typedef struct {
    size_t cells[BT_TABLE_COLUMNS_MAX]; /* [n] where each text begins */
    uint32_t n;
} bt_table_line;

typedef struct {
    bt_table_line *rows; /* [n_rows] of room for [max_rows], owned until it is printed */
    uint32_t n_rows, max_rows;
    bt_strbuf texts; /* the cells', each with a 0 behind it */
    bool is_full;    /* no memory or too many rows: the rest is dropped */
} bt_table;

void bt_table_row(bt_table *table);
/* The next cell of the last row, cut to fit. */
__attribute__((format(printf, 2, 3))) void bt_table_cell(bt_table *table, const char *text, ...);
/* Lines that start with `indent` blanks; empties the table. */
void bt_table_print(bt_table *table, size_t indent, bt_strbuf *out);

#endif
