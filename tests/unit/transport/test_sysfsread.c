/* SPDX-License-Identifier: Apache-2.0 */
#include "core/alloc.h"
#include "support/fakesys.h"
#include "transport/sysfsread.h"

#include <stdio.h>
#include <sys/stat.h>

static bt_fakesys fake;

static int make(void **state)
{
    bt_fakesys_make(&fake);
    return bt_test_setup(state);
}

static int clear(void **state)
{
    bt_fakesys_remove(&fake);
    return bt_test_teardown(state);
}

static void texts_are_trimmed_and_made_printable(void **state)
{
    (void)state;
    char text[32];
    bt_fakesys_file(&fake, "  4X \x01\xff bytes\t", "sys/odd");
    assert_true(bt_sysfs_text(fake.root, text, sizeof(text), "sys/%s", "odd"));
    assert_string_equal(text, "4X ?? bytes");
}

static void a_value_that_does_not_fit_is_unknown(void **state)
{
    (void)state;
    char text[8] = "before";
    bt_fakesys_file(&fake, "12345678", "sys/long");
    assert_false(bt_sysfs_text(fake.root, text, sizeof(text), "sys/long"));
    assert_string_equal(text, "");
    bt_fakesys_file(&fake, "1234567", "sys/fits");
    assert_true(bt_sysfs_text(fake.root, text, sizeof(text), "sys/fits"));
    assert_string_equal(text, "1234567");
}

static void huge_files_are_read_in_part_or_not_at_all(void **state)
{
    (void)state;
    char text[600];
    bt_fakesys_huge(&fake, 'a', 300000, "sys/huge");
    assert_false(bt_sysfs_text(fake.root, text, sizeof(text), "sys/huge"));
    char *file = bt_sysfs_file(fake.root, "sys/huge");
    assert_non_null(file);
    assert_int_equal(strlen(file), BT_SYSFS_FILE_BYTES);
    bt_free(file);
}

static void numbers_are_whole_or_unknown(void **state)
{
    (void)state;
    int64_t value = 42;
    const char *const wrong[] = {"", "x", "12x", "1 2", "99999999999999999999", "0x"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        bt_fakesys_file(&fake, wrong[i], "sys/wrong");
        assert_false(bt_sysfs_number(fake.root, &value, "sys/wrong"));
        assert_int_equal(value, 42);
    }
    bt_fakesys_file(&fake, "-1", "sys/minus");
    assert_true(bt_sysfs_number(fake.root, &value, "sys/minus"));
    assert_int_equal(value, -1);
    bt_fakesys_file(&fake, "0x10de", "sys/hex");
    assert_true(bt_sysfs_number(fake.root, &value, "sys/hex"));
    assert_int_equal(value, 0x10de);
}

static void pipes_folders_and_loops_are_not_read(void **state)
{
    (void)state;
    char text[32], path[128];
    snprintf(path, sizeof(path), "%s/pipe", fake.root);
    assert_int_equal(mkfifo(path, 0600), 0);
    bt_fakesys_folder(&fake, "sys/folder");
    bt_fakesys_raw_link(&fake, "loop", "sys/loop");
    assert_false(bt_sysfs_text(fake.root, text, sizeof(text), "pipe"));
    assert_false(bt_sysfs_text(fake.root, text, sizeof(text), "sys/folder"));
    assert_false(bt_sysfs_text(fake.root, text, sizeof(text), "sys/loop"));
    assert_false(bt_sysfs_exists(fake.root, "sys/loop"));
    assert_null(bt_sysfs_file(fake.root, "sys/loop"));
    assert_false(bt_sysfs_resolve(fake.root, path, sizeof(path), "sys/loop"));
}

static void names_are_in_natural_order_without_odd_ones(void **state)
{
    (void)state;
    bt_sysfs_list list;
    const char *const names[] = {"mlx5_10", "mlx5_2", "0000:83:00.0",
                                 ".hidden", "a b",    "line\nend"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        bt_fakesys_file(&fake, "", "sys/class/x/%s", names[i]);
    bt_sysfs_names(fake.root, &list, "sys/class/x");
    assert_int_equal(list.n, 3);
    assert_string_equal(list.names[0], "0000:83:00.0");
    assert_string_equal(list.names[1], "mlx5_2");
    assert_string_equal(list.names[2], "mlx5_10");
    assert_false(list.is_cut);
    bt_sysfs_list_free(&list);
    bt_sysfs_names(fake.root, &list, "sys/class/none");
    assert_int_equal(list.n, 0);
    bt_sysfs_list_free(&list);
}

static void a_folder_without_end_is_cut(void **state)
{
    (void)state;
    bt_sysfs_list list;
    for (unsigned i = 0; i < BT_SYSFS_ENTRIES_MAX + 10; i++)
        bt_fakesys_file(&fake, "", "many/%u", i);
    bt_sysfs_names(fake.root, &list, "many");
    assert_true(list.is_cut);
    assert_true(list.n <= BT_SYSFS_ENTRIES_MAX + 2);
    bt_sysfs_list_free(&list);
}

static void links_out_of_the_root_lead_nowhere(void **state)
{
    (void)state;
    char target[256];
    bt_fakesys_file(&fake, "0", "sys/devices/pci0000:00/0000:00:01.0/numa_node");
    bt_fakesys_link(&fake, "sys/devices/pci0000:00/0000:00:01.0", "sys/class/net/eth0/device");
    bt_fakesys_raw_link(&fake, "/etc", "sys/class/net/evil/device");
    assert_true(
        bt_sysfs_resolve(fake.root, target, sizeof(target), "sys/class/net/%s/device", "eth0"));
    assert_string_equal(target, "sys/devices/pci0000:00/0000:00:01.0");
    assert_false(bt_sysfs_resolve(fake.root, target, sizeof(target), "sys/class/net/evil/device"));
    assert_string_equal(target, "");
}

static void paths_that_are_too_long_are_not_there(void **state)
{
    (void)state;
    char text[8], longest[BT_SYSFS_PATH_BYTES + 8];
    memset(longest, 'a', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    assert_false(bt_sysfs_text(fake.root, text, sizeof(text), "%s", longest));
    assert_false(bt_sysfs_exists(fake.root, "%s", longest));
}

int main(void)
{
#define HERE(fn) cmocka_unit_test_setup_teardown(fn, make, clear)
    const struct CMUnitTest tests[] = {
        HERE(texts_are_trimmed_and_made_printable),
        HERE(a_value_that_does_not_fit_is_unknown),
        HERE(huge_files_are_read_in_part_or_not_at_all),
        HERE(numbers_are_whole_or_unknown),
        HERE(pipes_folders_and_loops_are_not_read),
        HERE(names_are_in_natural_order_without_odd_ones),
        HERE(a_folder_without_end_is_cut),
        HERE(links_out_of_the_root_lead_nowhere),
        HERE(paths_that_are_too_long_are_not_there),
    };
    return bt_run_tests(tests);
}
