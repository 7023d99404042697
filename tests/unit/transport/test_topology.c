/* SPDX-License-Identifier: Apache-2.0 */
/* Machines made of files: what is read, and which NICs are chosen. */
#include "core/alloc.h"
#include "support/fakesys.h"
#include "transport/topology.h"

#include <stdio.h>

static bt_fakesys fake;
static bt_topology *topology;

static int make(void **state)
{
    bt_fakesys_make(&fake);
    topology = NULL;
    return bt_test_setup(state);
}

static int clear(void **state)
{
    bt_topology_free(topology);
    bt_fakesys_remove(&fake);
    return bt_test_teardown(state);
}

static void read_it(void)
{
    assert_ok(bt_topology_read(fake.root, &topology));
}

/* Two sockets; on each a switch with a GPU and a 400 Gbit/s NIC, and a NIC on a port of its own. */
#define SOCKET_0 "pci0000:00/0000:00:01.0/0000:01:00.0"
#define SOCKET_1 "pci0000:80/0000:80:01.0/0000:81:00.0"
static void two_sockets(void)
{
    bt_fakesys_add_nodes(&fake, 2);
    bt_fakesys_add_gpu(&fake, SOCKET_0 "/0000:02:00.0/0000:03:00.0", "0");
    bt_fakesys_add_gpu(&fake, SOCKET_1 "/0000:82:00.0/0000:83:00.0", "1");
    const bt_fakesys_rdma nics[] = {
        {.name = "mlx5_0", .place = SOCKET_0 "/0000:02:01.0/0000:04:00.0", .numa = "0", .node = 0},
        {.name = "mlx5_1", .place = "pci0000:00/0000:00:02.0/0000:05:00.0", .numa = "0", .node = 1},
        {.name = "mlx5_2", .place = SOCKET_1 "/0000:82:01.0/0000:84:00.0", .numa = "1", .node = 2},
        {.name = "mlx5_10",
         .place = "pci0000:80/0000:80:02.0/0000:85:00.0",
         .numa = "1",
         .node = 3},
    };
    for (size_t i = 0; i < sizeof(nics) / sizeof(nics[0]); i++)
        bt_fakesys_add_rdma(&fake, &nics[i]);
}

static void an_empty_machine_has_nothing(void **state)
{
    (void)state;
    read_it();
    assert_int_equal(topology->n_rdma + topology->n_nets + topology->n_gpus, 0);
    assert_int_equal(topology->n_numa_nodes, 1);
    bt_ranked_nic nic;
    assert_int_equal(bt_topology_rank(topology, &(bt_memory_place){.numa_node = 0}, &nic, 1), 0);
    assert_int_equal(bt_topology_rails(&nic, 0), 0);
}

static void this_machine_can_be_read(void **state)
{
    (void)state;
    assert_ok(bt_topology_read(BT_SYSFS_ROOT, &topology));
    assert_true(topology->n_numa_nodes >= 1);
    bool has_lo = topology->n_nets == 0; /* no /sys at all */
    for (uint32_t i = 0; i < topology->n_nets; i++)
        has_lo = has_lo || (topology->nets[i].is_loopback && topology->nets[i].is_virtual);
    assert_true(has_lo);
}

static void rdma_devices_are_read_with_their_ports(void **state)
{
    (void)state;
    two_sockets();
    bt_fakesys_file(&fake, "32.0 GT/s PCIe", "sys/devices/%s/current_link_speed",
                    SOCKET_0 "/0000:02:01.0/0000:04:00.0");
    bt_fakesys_file(&fake, "16", "sys/devices/%s/current_link_width",
                    SOCKET_0 "/0000:02:01.0/0000:04:00.0");
    read_it();
    assert_int_equal(topology->n_rdma, 4);
    assert_int_equal(topology->n_numa_nodes, 2);
    const bt_rdma_device *device = &topology->rdma[0];
    assert_string_equal(device->name, "mlx5_0");
    assert_string_equal(topology->rdma[3].name, "mlx5_10");
    assert_string_equal(device->node_guid, "9c63:c003:00b2:8a5e");
    assert_string_equal(device->firmware, "28.39.1002");
    assert_string_equal(device->board, "MT4129");
    assert_string_equal(device->node, "uverbs0");
    assert_int_equal(device->node_state, BT_NODE_THERE);
    assert_int_equal(device->place.numa_node, 0);
    assert_int_equal(device->place.path.n, 4);
    assert_true(device->place.gbps > 504 && device->place.gbps < 505);
    assert_int_equal(device->n_ports, 1);
    const bt_rdma_port *port = &device->ports[0];
    assert_int_equal(port->number, 1);
    assert_string_equal(port->state, "ACTIVE");
    assert_string_equal(port->physical, "LinkUp");
    assert_string_equal(port->link_layer, "InfiniBand");
    assert_true(port->gbps > 399 && port->gbps < 401);
    assert_int_equal(port->n_gids, 1); /* the zero one is no GID */
    assert_string_equal(port->gids[0].text, "fe80:0000:0000:0000:9c63:c003:00b2:8a5e");
    assert_string_equal(port->gids[0].type, "IB/RoCE v1");
}

static void nets_and_gpus_are_read(void **state)
{
    (void)state;
    two_sockets();
    bt_fakesys_file(&fake, "772", "sys/class/net/lo/type");
    bt_fakesys_file(&fake, "65536", "sys/class/net/lo/mtu");
    bt_fakesys_file(&fake, "unknown", "sys/class/net/lo/operstate");
    bt_fakesys_file(&fake, "1", "sys/class/net/eth0/type");
    bt_fakesys_file(&fake, "25000", "sys/class/net/eth0/speed");
    bt_fakesys_file(&fake, "up", "sys/class/net/eth0/operstate");
    bt_fakesys_file(&fake, "", "sys/class/net/bonding_masters");
    bt_fakesys_file(&fake, "-1", "sys/class/net/veth0/speed");
    bt_fakesys_folder(&fake, "sys/devices/pci0000:80/0000:80:02.0/0000:85:00.0/virtio7");
    bt_fakesys_link(&fake, "sys/devices/pci0000:80/0000:80:02.0/0000:85:00.0/virtio7",
                    "sys/class/net/eth0/device");
    read_it();
    assert_int_equal(topology->n_nets, 3);
    const bt_net_device *eth = &topology->nets[0], *lo = &topology->nets[1];
    assert_string_equal(eth->name, "eth0");
    assert_true(eth->gbps > 24.9 && eth->gbps < 25.1);
    assert_int_equal(eth->place.numa_node, 1);
    assert_false(eth->is_virtual || eth->is_loopback);
    assert_true(lo->is_loopback && lo->is_virtual);
    assert_int_equal(lo->mtu, 65536);
    assert_true(topology->nets[2].gbps < 0.1); /* -1 is unknown */
    assert_int_equal(topology->n_gpus, 2);
    assert_string_equal(topology->gpus[0].model, "NVIDIA H200");
    assert_int_equal(topology->gpus[0].device_id, 0x2335);
    assert_int_equal(topology->gpus[1].place.numa_node, 1);
    assert_int_equal(topology->gpus[1].address.bus, 0x83);
}

static void distances_between_devices_are_known(void **state)
{
    (void)state;
    two_sockets();
    read_it();
    const bt_pci_place *gpu = &topology->gpus[0].place;
    const bt_distance wanted[] = {BT_DISTANCE_SWITCH, BT_DISTANCE_NUMA, BT_DISTANCE_CROSS,
                                  BT_DISTANCE_CROSS};
    for (uint32_t i = 0; i < 4; i++)
        assert_int_equal(bt_topology_distance(topology, gpu, &topology->rdma[i].place), wanted[i]);
}

static void the_nic_beside_a_gpu_comes_first(void **state)
{
    (void)state;
    two_sockets();
    read_it();
    bt_ranked_nic nics[8];
    const bt_memory_place memory = {.numa_node = -1, .gpu = &topology->gpus[1].place};
    assert_int_equal(bt_topology_rank(topology, &memory, nics, 8), 4);
    assert_string_equal(nics[0].name, "mlx5_2:1");
    assert_int_equal(nics[0].distance, BT_DISTANCE_SWITCH);
    assert_string_equal(nics[1].name, "mlx5_10:1");
    assert_int_equal(nics[1].distance, BT_DISTANCE_NUMA);
    assert_string_equal(nics[2].name, "mlx5_0:1");
    assert_string_equal(nics[3].name, "mlx5_1:1");
    assert_true(nics[3].gbps > 199 && nics[3].gbps < 201);
    assert_int_equal(bt_topology_rails(nics, 4), 1);
}

static void host_memory_takes_the_nics_of_its_node(void **state)
{
    (void)state;
    two_sockets();
    read_it();
    bt_ranked_nic nics[8];
    assert_int_equal(bt_topology_rank(topology, &(bt_memory_place){.numa_node = 0}, nics, 8), 4);
    assert_string_equal(nics[0].name, "mlx5_0:1");
    assert_string_equal(nics[1].name, "mlx5_1:1");
    assert_int_equal(bt_topology_rails(nics, 4), 2);
    /* Room for one: the best. */
    assert_int_equal(bt_topology_rank(topology, &(bt_memory_place){.numa_node = 1}, nics, 1), 1);
    assert_string_equal(nics[0].name, "mlx5_2:1");
    /* Memory all over the machine: every NIC is as good. */
    assert_int_equal(bt_topology_rank(topology, &(bt_memory_place){.numa_node = -1}, nics, 8), 4);
    assert_int_equal(bt_topology_rails(nics, 4), 4);
}

static void a_much_faster_nic_wins_from_the_other_socket(void **state)
{
    (void)state;
    bt_fakesys_add_nodes(&fake, 2);
    bt_fakesys_add_rdma(&fake, &(bt_fakesys_rdma){.name = "mlx5_0",
                                                  .place = "pci0000:00/0000:00:01.0/0000:01:00.0",
                                                  .numa = "0",
                                                  .rate = "25 Gb/sec (1X EDR)",
                                                  .layer = "Ethernet"});
    bt_fakesys_add_rdma(&fake, &(bt_fakesys_rdma){.name = "mlx5_1",
                                                  .place = "pci0000:80/0000:80:01.0/0000:81:00.0",
                                                  .numa = "1",
                                                  .node = 1});
    read_it();
    bt_ranked_nic nics[2];
    assert_int_equal(bt_topology_rank(topology, &(bt_memory_place){.numa_node = 0}, nics, 2), 2);
    assert_string_equal(nics[0].name, "mlx5_1:1");
    assert_string_equal(topology->rdma[0].ports[0].gids[0].type, "RoCE v2");
    assert_string_equal(topology->rdma[0].ports[0].gids[0].net, "eth0");
}

static void ports_that_cannot_carry_data_are_not_ranked(void **state)
{
    (void)state;
    const bt_fakesys_rdma nics[] = {
        {.name = "down", .place = "pci0000:00/0000:00:01.0/0000:01:00.0", .state = "1: DOWN"},
        {.name = "noted",
         .place = "pci0000:00/0000:00:02.0/0000:02:00.0",
         .node = 1,
         .without_node = true},
        {.name = "rxe0", .layer = "Ethernet", .node = 2},
    };
    for (size_t i = 0; i < sizeof(nics) / sizeof(nics[0]); i++)
        bt_fakesys_add_rdma(&fake, &nics[i]);
    read_it();
    assert_int_equal(topology->n_rdma, 3);
    assert_string_equal(topology->rdma[0].ports[0].state, "DOWN");
    assert_int_equal(topology->rdma[1].node_state, BT_NODE_MISSING);
    assert_int_equal(topology->rdma[2].place.path.n, 0);
    bt_ranked_nic nics_ranked[4];
    assert_int_equal(bt_topology_rank(topology, &(bt_memory_place){.numa_node = 0}, nics_ranked, 4),
                     1);
    assert_string_equal(nics_ranked[0].name, "rxe0:1");
    assert_int_equal(nics_ranked[0].distance, BT_DISTANCE_NUMA); /* one node: nothing is far */
}

static void odd_contents_are_unknown(void **state)
{
    (void)state;
    bt_fakesys_raw_link(&fake, "loop", "sys/class/infiniband/loop");
    bt_fakesys_file(&fake, "", "sys/class/infiniband/a-file");
    bt_fakesys_file(&fake, "\x01\x02", "sys/class/infiniband/odd/node_guid");
    bt_fakesys_huge(&fake, '9', 100000, "sys/class/infiniband/odd/hca_type");
    bt_fakesys_file(&fake, "nonsense", "sys/class/infiniband/odd/ports/1/state");
    bt_fakesys_file(&fake, "-5 Gb/sec", "sys/class/infiniband/odd/ports/1/rate");
    bt_fakesys_file(&fake, "", "sys/class/infiniband/odd/ports/x/state");
    bt_fakesys_file(&fake, "", "sys/class/infiniband/odd/ports/0/state");
    bt_fakesys_raw_link(&fake, "gids", "sys/class/infiniband/odd/ports/1/gids");
    bt_fakesys_raw_link(&fake, "../odd/device", "sys/class/infiniband/odd/device");
    bt_fakesys_file(&fake, "0x10de", "sys/bus/pci/devices/not-an-address/vendor");
    bt_fakesys_file(&fake, "0x10de", "sys/bus/pci/devices/0000:01:00.0/vendor");
    bt_fakesys_file(&fake, "gpu", "sys/bus/pci/devices/0000:01:00.0/class");
    bt_fakesys_file(&fake, "0x10de", "sys/bus/pci/devices/0000:01:00.1/vendor");
    bt_fakesys_file(&fake, "0x040300", "sys/bus/pci/devices/0000:01:00.1/class"); /* its sound */
    bt_fakesys_file(&fake, "999999", "sys/bus/pci/devices/0000:02:00.0/numa_node");
    bt_fakesys_file(&fake, "0x10de", "sys/bus/pci/devices/0000:02:00.0/vendor");
    bt_fakesys_file(&fake, "0x030000", "sys/bus/pci/devices/0000:02:00.0/class");
    read_it();
    assert_int_equal(topology->n_rdma, 1);
    const bt_rdma_device *odd = &topology->rdma[0];
    assert_string_equal(odd->node_guid, "??");
    assert_string_equal(odd->board, "");
    assert_int_equal(odd->place.numa_node, -1);
    assert_int_equal(odd->node_state, BT_NODE_MISSING);
    assert_int_equal(odd->n_ports, 1);
    assert_string_equal(odd->ports[0].state, "nonsense");
    assert_false(odd->ports[0].gbps > 0);
    assert_int_equal(odd->ports[0].n_gids, 0);
    assert_int_equal(topology->n_gpus, 1);
    assert_int_equal(topology->gpus[0].place.numa_node, -1);
    assert_string_equal(topology->gpus[0].model, "");
}

static void what_does_not_fit_is_counted(void **state)
{
    (void)state;
    for (unsigned i = 0; i < BT_TOPOLOGY_RDMA_MAX + 3; i++) {
        char name[32];
        snprintf(name, sizeof(name), "mlx5_%u", i);
        bt_fakesys_add_rdma(&fake, &(bt_fakesys_rdma){.name = name, .node = i});
    }
    for (unsigned i = 2; i < 8; i++)
        bt_fakesys_file(&fake, "1: DOWN", "sys/class/infiniband/mlx5_0/ports/%u/state", i);
    for (unsigned i = 2; i < 300; i++)
        bt_fakesys_file(&fake, "fe80::1", "sys/class/infiniband/mlx5_1/ports/1/gids/%u", i);
    read_it();
    assert_int_equal(topology->n_rdma, BT_TOPOLOGY_RDMA_MAX);
    assert_int_equal(topology->rdma[0].n_ports, BT_RDMA_PORTS_MAX);
    assert_int_equal(topology->n_left_out, 3 + 7 - BT_RDMA_PORTS_MAX);
    assert_int_equal(topology->rdma[1].ports[0].n_kept, BT_RDMA_GIDS_MAX);
    assert_int_equal(topology->rdma[1].ports[0].n_gids, BT_RDMA_GIDS_SEEN - 1);
    bt_ranked_nic nics[BT_TOPOLOGY_RDMA_MAX + 8];
    assert_int_equal(bt_topology_rank(topology, &(bt_memory_place){.numa_node = 0}, nics,
                                      BT_TOPOLOGY_RDMA_MAX + 8),
                     BT_TOPOLOGY_RDMA_MAX);
}

static void no_memory_is_an_error_or_less_is_known(void **state)
{
    (void)state;
    two_sockets();
    bt_alloc_fail_at(1);
    bt_topology *none = NULL;
    assert_fails(bt_topology_read(fake.root, &none), BATON_ERR_NO_MEMORY, "topology");
    assert_null(none);
    for (uint64_t nth = 2; nth < 12; nth++) {
        bt_topology *some;
        bt_alloc_fail_at(nth);
        assert_ok(bt_topology_read(fake.root, &some));
        bt_topology_free(some);
    }
    bt_alloc_fail_at(0);
}

int main(void)
{
#define HERE(fn) cmocka_unit_test_setup_teardown(fn, make, clear)
    const struct CMUnitTest tests[] = {
        HERE(an_empty_machine_has_nothing),
        HERE(this_machine_can_be_read),
        HERE(rdma_devices_are_read_with_their_ports),
        HERE(nets_and_gpus_are_read),
        HERE(distances_between_devices_are_known),
        HERE(the_nic_beside_a_gpu_comes_first),
        HERE(host_memory_takes_the_nics_of_its_node),
        HERE(a_much_faster_nic_wins_from_the_other_socket),
        HERE(ports_that_cannot_carry_data_are_not_ranked),
        HERE(odd_contents_are_unknown),
        HERE(what_does_not_fit_is_counted),
        HERE(no_memory_is_an_error_or_less_is_known),
    };
    return bt_run_tests(tests);
}
