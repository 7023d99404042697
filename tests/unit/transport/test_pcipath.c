/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"
#include "transport/pcipath.h"

/* Two sockets. pci0000:00 is socket 0: port 01.0 leads to a switch (02) with a GPU (04) and a NIC
 * (05, two functions), port 02.0 to a switch (10) above another one (12) with a GPU (14), and to a
 * NIC (15) on the first of the two. pci0000:80 is socket 1. */
#define SWITCH_A "sys/devices/pci0000:00/0000:00:01.0/0000:02:00.0/"
#define SWITCH_B "sys/devices/pci0000:00/0000:00:02.0/0000:10:00.0/"
static const char *const gpu_a = SWITCH_A "0000:03:00.0/0000:04:00.0";
static const char *const nic_a = SWITCH_A "0000:03:01.0/0000:05:00.0/infiniband/mlx5_0";
static const char *const nic_a1 = SWITCH_A "0000:03:01.0/0000:05:00.1/infiniband/mlx5_1";
static const char *const gpu_b = SWITCH_B "0000:11:00.0/0000:12:00.0/0000:13:00.0/0000:14:00.0";
static const char *const nic_b = SWITCH_B "0000:11:01.0/0000:15:00.0/net/eth1";
static const char *const nic_far = "sys/devices/pci0000:80/0000:80:01.0/0000:81:00.0";

static bt_distance between(const char *a, int numa_a, const char *b, int numa_b)
{
    bt_pci_path path_a, path_b;
    assert_true(bt_pci_path_parse(a, &path_a));
    assert_true(bt_pci_path_parse(b, &path_b));
    bt_distance distance = bt_pci_distance(&path_a, numa_a, &path_b, numa_b);
    assert_int_equal(distance, bt_pci_distance(&path_b, numa_b, &path_a, numa_a));
    return distance;
}

static void addresses_are_read_and_written(void **state)
{
    (void)state;
    bt_pci_address address;
    char text[BT_PCI_ADDRESS_BYTES];
    assert_true(bt_pci_parse("0000:83:1f.7", &address));
    assert_int_equal(address.bus, 0x83);
    bt_pci_format(&address, text);
    assert_string_equal(text, "0000:83:1f.7");
    assert_true(bt_pci_parse("10000000:01:00.0", &address)); /* domains of VMD and Hyper-V */
    bt_pci_format(&address, text);
    assert_string_equal(text, "10000000:01:00.0");
}

static void what_is_no_address_is_refused(void **state)
{
    (void)state;
    bt_pci_address address;
    const char *const wrong[] = {
        "",           "0000:83:00",    "0000:83:00.8",       "0000:83:20.0",
        "000:83:0.0", "0000:83:00.0x", "0000:g3:00.0",       "0000:83:00.0:",
        "mlx5_0",     "pci0000:80",    "00000000000:83:00.0"};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        assert_false(bt_pci_parse(wrong[i], &address));
}

static void a_path_is_the_chain_of_bridges(void **state)
{
    (void)state;
    bt_pci_path path;
    char text[BT_PCI_ADDRESS_BYTES];
    assert_true(bt_pci_path_parse(nic_a, &path));
    assert_int_equal(path.n, 4);
    bt_pci_format(bt_pci_leaf(&path), text);
    assert_string_equal(text, "0000:05:00.0");
    assert_false(bt_pci_path_parse("sys/devices/virtual/infiniband/rxe0", &path));
    assert_int_equal(path.n, 0);
    assert_false(bt_pci_path_parse("sys/devices/pci0000:00", &path));
    assert_false(bt_pci_path_parse("", &path));
    /* A VMBus or ACPI prefix before the host bridge does not matter. */
    assert_true(
        bt_pci_path_parse("sys/devices/LNXSYSTM:00/pci1:00/pci0001:00/0001:00:00.0", &path));
    assert_int_equal(path.host_domain, 1);
}

static void a_chain_without_end_is_no_path(void **state)
{
    (void)state;
    bt_pci_path path;
    char text[1024] = "sys/devices/pci0000:00";
    for (unsigned i = 0; i <= BT_PCI_DEPTH_MAX; i++)
        strcat(text, "/0000:01:00.0");
    assert_false(bt_pci_path_parse(text, &path));
    assert_int_equal(path.n, 0);
}

static void distances_go_from_the_switch_to_the_other_socket(void **state)
{
    (void)state;
    assert_int_equal(between(gpu_a, 0, nic_a, 0), BT_DISTANCE_SWITCH);
    assert_int_equal(between(nic_a, 0, nic_a1, 0), BT_DISTANCE_SWITCH);
    assert_int_equal(between(nic_a, 0, nic_a, 0), BT_DISTANCE_SWITCH);
    assert_int_equal(between(gpu_b, 0, nic_b, 0), BT_DISTANCE_ROOT_PORT);
    assert_int_equal(between(gpu_a, 0, nic_b, 0), BT_DISTANCE_NUMA);
    assert_int_equal(between(gpu_a, 0, nic_far, 1), BT_DISTANCE_CROSS);
}

static void without_numa_nodes_the_host_bridge_decides(void **state)
{
    (void)state;
    assert_int_equal(between(gpu_a, -1, nic_b, -1), BT_DISTANCE_NUMA);
    assert_int_equal(between(gpu_a, -1, nic_far, 1), BT_DISTANCE_UNKNOWN);
    assert_int_equal(between(gpu_a, 0, nic_far, 0), BT_DISTANCE_NUMA);
    /* One host bridge that spans two nodes. */
    assert_int_equal(between(gpu_a, 0, nic_b, 1), BT_DISTANCE_CROSS);
}

static void devices_on_the_bus_itself_are_not_behind_one_switch(void **state)
{
    (void)state;
    const char *gpu = "sys/devices/pci0000:00/0000:00:05.0";
    const char *nic = "sys/devices/pci0000:00/0000:00:06.0";
    const char *nic1 = "sys/devices/pci0000:00/0000:00:06.1";
    assert_int_equal(between(gpu, -1, nic, -1), BT_DISTANCE_NUMA);
    assert_int_equal(between(nic, -1, nic1, -1), BT_DISTANCE_SWITCH);
}

static void what_is_no_pci_device_is_known_by_its_node(void **state)
{
    (void)state;
    const bt_pci_path none = {0};
    bt_pci_path path;
    assert_true(bt_pci_path_parse(nic_a, &path));
    assert_int_equal(bt_pci_distance(&none, 0, &path, 0), BT_DISTANCE_NUMA);
    assert_int_equal(bt_pci_distance(&none, 1, &path, 0), BT_DISTANCE_CROSS);
    assert_int_equal(bt_pci_distance(&none, -1, &none, -1), BT_DISTANCE_UNKNOWN);
}

static void every_distance_has_a_name(void **state)
{
    (void)state;
    for (unsigned i = 0; i < BT_N_DISTANCES; i++)
        assert_true(strlen(bt_distance_name((bt_distance)i)) > 0);
    assert_string_equal(bt_distance_name((bt_distance)99), "unknown");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(addresses_are_read_and_written),
        bt_test(what_is_no_address_is_refused),
        bt_test(a_path_is_the_chain_of_bridges),
        bt_test(a_chain_without_end_is_no_path),
        bt_test(distances_go_from_the_switch_to_the_other_socket),
        bt_test(without_numa_nodes_the_host_bridge_decides),
        bt_test(devices_on_the_bus_itself_are_not_behind_one_switch),
        bt_test(what_is_no_pci_device_is_known_by_its_node),
        bt_test(every_distance_has_a_name),
    };
    return bt_run_tests(tests);
}
