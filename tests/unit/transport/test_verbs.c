/* SPDX-License-Identifier: Apache-2.0 */
/* RDMA devices of machines made of files: which can be used, and with which GID. */
#include "support/fakecuda.h"
#include "support/fakesys.h"
#include "transport/verbs.h"

#include <stdio.h>

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

static baton_status check(const char *first, const char *second)
{
    const char *names[] = {first, second};
    return bt_verbs_check(fake.root, names, second != NULL ? 2 : 1);
}

static void active_ports_pass_and_net_devices_are_not_looked_at(void **state)
{
    (void)state;
    assert_ok(check("eth7", NULL));
    bt_fakesys_add_rdma(&fake, &(bt_fakesys_rdma){.name = "mlx5_0"});
    assert_ok(check("mlx5_0:1", "eth7"));
    assert_ok(bt_verbs_check(fake.root, NULL, 0));
}

static void what_cannot_be_used_is_said_with_what_is_there(void **state)
{
    (void)state;
    assert_fails(check("mlx5_0:1", NULL), BATON_ERR_UNREACHABLE, "found: none");
    bt_fakesys_add_rdma(&fake, &(bt_fakesys_rdma){.name = "mlx5_0", .node = 0});
    bt_fakesys_add_rdma(&fake, &(bt_fakesys_rdma){.name = "mlx5_1", .node = 1, .state = "1: DOWN"});
    bt_fakesys_add_rdma(&fake,
                        &(bt_fakesys_rdma){.name = "mlx5_2", .node = 2, .without_node = true});
    assert_fails(check("mlx5:1", NULL), BATON_ERR_UNREACHABLE,
                 "wanted the RDMA device mlx5:1, found: mlx5_0:1 (ACTIVE), mlx5_1:1 (DOWN)");
    assert_fails(check("mlx5_0:2", NULL), BATON_ERR_UNREACHABLE, "mlx5_0:2, found: mlx5_0:1");
    assert_fails(check("mlx5_0:", NULL), BATON_ERR_UNREACHABLE, "mlx5_0:, found");
    assert_fails(check("mlx5_0:1", "mlx5_1:1"), BATON_ERR_UNREACHABLE, "mlx5_1:1 DOWN");
    assert_fails(check("mlx5_2:1", NULL), BATON_ERR_PERMISSION, "/dev/infiniband/uverbs2 missing");
}

static void soft_roce_is_given_its_link_local_gid(void **state)
{
    (void)state;
    uint32_t index = 99;
    bt_fakesys_add_rdma(&fake, &(bt_fakesys_rdma){.name = "rxe0"});
    bt_fakesys_file(&fake, "0000:0000:0000:0000:0000:ffff:0a4d:0001",
                    "sys/devices/virtual/infiniband/rxe0/ports/1/gids/0");
    bt_fakesys_file(&fake, "fe80:0000:0000:0000:0052:44ff:fe4d:0001",
                    "sys/devices/virtual/infiniband/rxe0/ports/1/gids/1");
    assert_false(bt_verbs_soft_roce_gid(fake.root, "rxe0:1", &index)); /* a NIC, so far */
    bt_fakesys_file(&fake, "v0", "sys/devices/virtual/infiniband/rxe0/parent");
    assert_true(bt_verbs_soft_roce_gid(fake.root, "rxe0:1", &index));
    assert_int_equal(index, 1);
    assert_false(bt_verbs_soft_roce_gid(fake.root, "rxe0:2", &index));
    bt_fakesys_file(&fake, "2001:0db8:0000:0000:0052:44ff:fe4d:0001",
                    "sys/devices/virtual/infiniband/rxe0/ports/1/gids/1");
    assert_false(bt_verbs_soft_roce_gid(fake.root, "rxe0:1", &index));
}

static void auto_is_the_best_devices_as_rails(void **state)
{
    (void)state;
    char names[BT_VERBS_AUTO_MAX][BT_NIC_NAME_BYTES];
    assert_int_equal(bt_verbs_auto(fake.root, BATON_MEMORY_HOST, names), 0);
    bt_fakesys_add_rdma(
        &fake, &(bt_fakesys_rdma){.name = "mlx5_0", .node = 0, .rate = "100 Gb/sec (4X EDR)"});
    bt_fakesys_add_rdma(&fake, &(bt_fakesys_rdma){.name = "mlx5_1", .node = 1});
    assert_int_equal(bt_verbs_auto(fake.root, BATON_MEMORY_HOST, names), 1);
    assert_string_equal(names[0], "mlx5_1:1");
    for (unsigned i = 2; i < 5; i++) {
        char name[16];
        snprintf(name, sizeof(name), "mlx5_%u", i);
        bt_fakesys_add_rdma(&fake, &(bt_fakesys_rdma){.name = name, .node = i});
    }
    assert_int_equal(bt_verbs_auto(fake.root, BATON_MEMORY_HOST, names), BT_VERBS_AUTO_MAX);
    assert_string_equal(names[0], "mlx5_1:1");
    assert_string_equal(names[1], "mlx5_2:1");
}

/* Two sockets; on each a switch with a GPU and a NIC, and a NIC of the same rate on a port of its
 * own. The driver's first GPU is on the second one. */
#define SOCKET_0 "pci0000:00/0000:00:01.0/0000:01:00.0"
#define SOCKET_1 "pci0000:80/0000:80:01.0/0000:81:00.0"
static void add_two_sockets(bool has_gpus)
{
    bt_fakesys_add_nodes(&fake, 2);
    if (has_gpus) {
        bt_fakesys_add_gpu(&fake, SOCKET_0 "/0000:02:00.0/0000:03:00.0", "0");
        bt_fakesys_add_gpu(&fake, SOCKET_1 "/0000:82:00.0/0000:83:00.0", "1");
    }
    const bt_fakesys_rdma nics[] = {
        {.name = "mlx5_0", .place = SOCKET_0 "/0000:02:01.0/0000:04:00.0", .numa = "0", .node = 0},
        {.name = "mlx5_1", .place = "pci0000:00/0000:00:02.0/0000:05:00.0", .numa = "0", .node = 1},
        {.name = "mlx5_2", .place = "pci0000:80/0000:80:02.0/0000:85:00.0", .numa = "1", .node = 2},
        {.name = "mlx5_3", .place = SOCKET_1 "/0000:82:01.0/0000:84:00.0", .numa = "1", .node = 3},
    };
    for (size_t i = 0; i < sizeof(nics) / sizeof(nics[0]); i++)
        bt_fakesys_add_rdma(&fake, &nics[i]);
}

static void auto_is_the_device_beside_the_gpu_for_its_memory(void **state)
{
    (void)state;
    char names[BT_VERBS_AUTO_MAX][BT_NIC_NAME_BYTES];
    (void)bt_fakecuda_open();
    add_two_sockets(true);
    assert_int_equal(bt_verbs_auto(fake.root, BATON_MEMORY_CUDA_DEVICE, names), 1);
    assert_string_equal(names[0], "mlx5_3:1");
    /* Pinned memory is the host's. */
    for (int kind = 0; kind < 2; kind++) {
        baton_memory_kind memory = kind == 0 ? BATON_MEMORY_HOST : BATON_MEMORY_CUDA_HOST;
        assert_int_equal(bt_verbs_auto(fake.root, memory, names), 2);
        assert_string_equal(names[0], "mlx5_0:1");
        assert_string_equal(names[1], "mlx5_1:1");
    }
    bt_cuda_driver_use(NULL);
}

static void without_knowing_the_gpu_auto_is_the_hosts(void **state)
{
    (void)state;
    char names[BT_VERBS_AUTO_MAX][BT_NIC_NAME_BYTES];
    add_two_sockets(false);
    (void)bt_fakecuda_open(); /* of a machine that these files are not of */
    assert_int_equal(bt_verbs_auto(fake.root, BATON_MEMORY_CUDA_DEVICE, names), 2);
    assert_string_equal(names[0], "mlx5_0:1");
    bt_cuda_driver_use("/nowhere/libcuda.so.1");
    assert_int_equal(bt_verbs_auto(fake.root, BATON_MEMORY_CUDA_DEVICE, names), 2);
    assert_string_equal(names[0], "mlx5_0:1");
    bt_cuda_driver_use(NULL);
}

#define in_files(test) cmocka_unit_test_setup_teardown(test, make, clear)

int main(void)
{
    const struct CMUnitTest tests[] = {
        in_files(active_ports_pass_and_net_devices_are_not_looked_at),
        in_files(what_cannot_be_used_is_said_with_what_is_there),
        in_files(auto_is_the_best_devices_as_rails),
        in_files(auto_is_the_device_beside_the_gpu_for_its_memory),
        in_files(without_knowing_the_gpu_auto_is_the_hosts),
        in_files(soft_roce_is_given_its_link_local_gid),
    };
    return bt_run_tests(tests);
}
