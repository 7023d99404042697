/* SPDX-License-Identifier: Apache-2.0 */
#include "core/alloc.h"
#include "core/texttable.h"
#include "support/test.h"

static void columns_are_as_wide_as_they_need_to_be(void **state)
{
    (void)state;
    bt_table table = {0};
    bt_strbuf out = {0};
    bt_table_row(&table);
    bt_table_cell(&table, "NAME");
    bt_table_cell(&table, "N");
    bt_table_row(&table);
    bt_table_cell(&table, "a longer name");
    bt_table_cell(&table, "%d", 7);
    bt_table_row(&table);
    bt_table_print(&table, 2, &out);
    assert_string_equal(bt_strbuf_text(&out), "  NAME           N\n  a longer name  7\n  \n");
    assert_int_equal(table.n_rows, 0);
    bt_strbuf_free(&out);
}

static void what_does_not_fit_is_cut(void **state)
{
    (void)state;
    bt_table table = {0};
    bt_strbuf out = {0};
    bt_table_cell(&table, "no row yet");
    for (unsigned row = 0; row < BT_TABLE_ROWS_MAX + 4; row++) {
        bt_table_row(&table);
        for (unsigned column = 0; column < BT_TABLE_COLUMNS_MAX + 4; column++)
            bt_table_cell(&table, "%*s", 2 * BT_TABLE_CELL_BYTES, "x");
    }
    assert_int_equal(table.n_rows, BT_TABLE_ROWS_MAX);
    bt_table_print(&table, 0, &out);
    assert_ok(bt_strbuf_status(&out));
    bt_strbuf_free(&out);
}

static void without_memory_rows_are_dropped(void **state)
{
    (void)state;
    bt_table table = {0};
    bt_strbuf out = {0};
    bt_alloc_fail_at(1);
    bt_table_row(&table);
    bt_table_cell(&table, "lost");
    bt_alloc_fail_at(0);
    bt_table_print(&table, 0, &out);
    assert_string_equal(bt_strbuf_text(&out), "");
    bt_strbuf_free(&out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(columns_are_as_wide_as_they_need_to_be),
        bt_test(what_does_not_fit_is_cut),
        bt_test(without_memory_rows_are_dropped),
    };
    return bt_run_tests(tests);
}
