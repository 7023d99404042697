/* SPDX-License-Identifier: Apache-2.0 */
/* Every warning on a machine that deserves it, and none on one that does not. */
#include "doctorkit.h"

static void a_plain_machine_is_fine(void **state)
{
    (void)state;
    bt_doctorkit_check(NULL);
    bt_doctorkit_assert_fine();
}

static void a_gpu_server_is_fine(void **state)
{
    (void)state;
    bt_doctorkit_add_gpu_server();
    bt_doctorkit_check(NULL);
    bt_doctorkit_assert_fine();
    /* Only that peers on other hosts cannot be reached over lo. */
    assert_int_equal(bt_doctorkit_found(BT_DOCTOR_FINE, "rdma-unused"), 1);
}

static void old_versions_of_ucx_are_named(void **state)
{
    (void)state;
    static const struct {
        uint32_t minor;
        const char *header, *id;
        bt_doctor_severity severity;
    } cases[] = {{12, "1.12", "ucx-too-old", BT_DOCTOR_BROKEN},
                 {13, "1.13", "ucx-old", BT_DOCTOR_FINE}, /* over lo alone */
                 {15, "1.18", "ucx-older-than-built", BT_DOCTOR_BROKEN}};
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        bt_doctorkit_read(NULL);
        kit.findings = (bt_doctor_findings){0};
        kit.facts.offers.runtime_minor = cases[i].minor;
        strcpy(kit.facts.offers.header_version, cases[i].header);
        bt_doctor_check(&kit.facts, &kit.findings);
        assert_int_equal(bt_doctorkit_found(cases[i].severity, cases[i].id), 1);
        assert_int_equal(bt_doctor_worst(&kit.findings), cases[i].severity);
    }
}

static void warnings_can_be_accepted(void **state)
{
    (void)state;
    bt_doctorkit_add_gpu_server();
    bt_doctorkit_read(NULL);
    strcpy(kit.facts.devices[0], "mlx5_0:1");
    kit.facts.offers.runtime_minor = 13;
    strcpy(kit.facts.offers.header_version, "1.13");
    bt_doctor_check(&kit.facts, &kit.findings);
    assert_int_equal(bt_doctorkit_found(BT_DOCTOR_WARNING, "ucx-old"), 1);
    assert_int_equal(bt_doctorkit_found(BT_DOCTOR_WARNING, "data-network-open"), 1);
    bt_doctor_accept(&kit.findings, "data-network-open");
    assert_int_equal(bt_doctor_worst(&kit.findings), BT_DOCTOR_WARNING);
    bt_doctor_accept(&kit.findings, "ucx-old");
    assert_int_equal(bt_doctor_worst(&kit.findings), BT_DOCTOR_FINE);
    assert_int_equal(bt_doctorkit_found(BT_DOCTOR_FINE, "ucx-old"), 1);
    bt_doctor_find(&kit.findings, BT_DOCTOR_BROKEN, "ucx-old", "broken is broken");
    bt_doctor_accept(&kit.findings, "ucx-old");
    assert_int_equal(bt_doctor_worst(&kit.findings), BT_DOCTOR_BROKEN);
}

static void what_ucx_lacks_is_named(void **state)
{
    (void)state;
    bt_doctorkit_add_gpu_server();
    bt_doctorkit_read(NULL);
    kit.facts.offers.n_offers = 2; /* tcp */
    kit.facts.offers.has_cuda = false;
    bt_doctor_check(&kit.facts, &kit.findings);
    assert_int_equal(bt_doctorkit_found(BT_DOCTOR_WARNING, "no-shared-memory"), 1);
    assert_int_equal(bt_doctorkit_found(BT_DOCTOR_WARNING, "ucx-without-verbs"), 1);
    assert_int_equal(bt_doctorkit_found(BT_DOCTOR_WARNING, "ucx-without-cuda"), 1);
}

static void a_ucx_that_does_not_open_is_broken(void **state)
{
    (void)state;
    bt_doctorkit_read(NULL);
    kit.facts.ucx_status = BATON_ERR_TRANSPORT;
    strcpy(kit.facts.ucx_text, "ucx: nothing to use");
    bt_doctor_check(&kit.facts, &kit.findings);
    assert_int_equal(bt_doctorkit_found(BT_DOCTOR_BROKEN, "ucx-does-not-open"), 1);
}

static void variables_that_win_over_us_are_named(void **state)
{
    (void)state;
    bt_doctorkit_check((char *[]){(char[]){"UCX_TLS=tcp\x1b[31m"}, (char[]){"UCX_LOG_LEVEL=info"},
                                  (char[]){"PATH=/bin"}, (char[]){"UCX_NET_DEVICES=lo,nic0"},
                                  (char[]){"UCX_TCP_TX_SEG_SIZE=8k"}, NULL});
    assert_int_equal(kit.facts.n_variables, 4);
    assert_string_equal(kit.facts.variables[0].value, "tcp?[31m"); /* terminals are safe */
    assert_int_equal(bt_doctorkit_found(BT_DOCTOR_WARNING, "ucx-environment"), 3);
    assert_int_equal(kit.facts.n_devices, 2);
    assert_int_equal(bt_doctorkit_found(BT_DOCTOR_BROKEN, "data-device-unknown"), 1);
}

static void device_nodes_that_a_container_lacks_are_named(void **state)
{
    (void)state;
    bt_fakesys_add_rdma(&kit.fake, &(bt_fakesys_rdma){.name = "mlx5_0", .without_node = true});
    bt_doctorkit_check(NULL);
    assert_int_equal(bt_doctorkit_found(BT_DOCTOR_WARNING, "rdma-node-missing"), 1);

    /* Who wants to use it cannot start. */
    const char *const devices[] = {"mlx5_0:1"};
    kit.file.data.data_devices = devices;
    kit.file.data.n_data_devices = 1;
    bt_doctorkit_check(NULL);
    assert_int_equal(bt_doctorkit_found(BT_DOCTOR_BROKEN, "rdma-node-missing"), 1);
}

static void device_nodes_that_may_not_be_opened_are_named(void **state)
{
    (void)state;
    bt_fakesys_add_rdma(&kit.fake, &(bt_fakesys_rdma){.name = "mlx5_0"});
    bt_doctorkit_read(NULL);
    kit.facts.topology->rdma[0].node_state = BT_NODE_FORBIDDEN; /* root may open everything */
    bt_doctor_check(&kit.facts, &kit.findings);
    assert_int_equal(bt_doctorkit_found(BT_DOCTOR_WARNING, "rdma-node-forbidden"), 1);
}

static void ports_that_do_not_work_are_named(void **state)
{
    (void)state;
    bt_fakesys_add_rdma(&kit.fake,
                        &(bt_fakesys_rdma){.name = "mlx5_0", .state = "1: DOWN", .node = 0});
    bt_fakesys_add_rdma(&kit.fake, &(bt_fakesys_rdma){.name = "mlx5_1", .node = 1});
    bt_fakesys_add_rdma(&kit.fake,
                        &(bt_fakesys_rdma){.name = "mlx5_2", .layer = "Ethernet", .node = 2});
    bt_fakesys_file(&kit.fake, "0000:0000:0000:0000:0000:0000:0000:0000",
                    "sys/class/infiniband/mlx5_1/ports/1/gids/0");
    bt_fakesys_file(&kit.fake, "IB/RoCE v1",
                    "sys/class/infiniband/mlx5_2/ports/1/gid_attrs/types/0");
    bt_doctorkit_check(NULL);
    assert_int_equal(bt_doctorkit_found(BT_DOCTOR_WARNING, "rdma-port-inactive"), 1);
    assert_int_equal(bt_doctorkit_found(BT_DOCTOR_WARNING, "rdma-no-gid"), 1);
    assert_int_equal(bt_doctorkit_found(BT_DOCTOR_WARNING, "rdma-no-roce-v2"), 1);
    const char *const devices[] = {"mlx5_0:1"};
    kit.file.data.data_devices = devices;
    kit.file.data.n_data_devices = 1;
    bt_doctorkit_check(NULL);
    assert_int_equal(bt_doctorkit_found(BT_DOCTOR_BROKEN, "data-device-down"), 1);
}

static void a_slow_slot_is_named(void **state)
{
    (void)state;
    bt_doctorkit_add_gpu_server();
    bt_doctorkit_read(NULL);
    kit.facts.topology->rdma[0].place.gbps = 126;
    kit.facts.topology->rdma[0].place.max_gbps = 504;
    bt_doctor_check(&kit.facts, &kit.findings);
    assert_int_equal(bt_doctorkit_found(BT_DOCTOR_WARNING, "pcie-degraded"), 1);
}

static void little_locked_memory_matters_where_there_is_rdma(void **state)
{
    (void)state;
    bt_fakesys_file(&kit.fake, "Max locked memory  65536  65536  bytes", "proc/self/limits");
    bt_doctorkit_check(NULL);
    bt_doctorkit_assert_fine();
    bt_fakesys_add_rdma(&kit.fake, &(bt_fakesys_rdma){.name = "mlx5_0"});
    bt_doctorkit_check(NULL);
    assert_int_equal(bt_doctorkit_found(BT_DOCTOR_WARNING, "memlock-small"), 1);
    const char *const devices[] = {"mlx5_0:1"};
    kit.file.data.data_devices = devices;
    kit.file.data.n_data_devices = 1;
    bt_doctorkit_check(NULL);
    assert_int_equal(bt_doctorkit_found(BT_DOCTOR_BROKEN, "memlock-small"), 1);
    /* CAP_IPC_LOCK lifts the limit, and so does a small pool. */
    bt_fakesys_file(&kit.fake, "CapEff:\t000001ffffffffff", "proc/self/status");
    bt_doctorkit_check(NULL);
    assert_int_equal(bt_doctorkit_found(BT_DOCTOR_BROKEN, "memlock-small"), 0);
    bt_fakesys_file(&kit.fake, "CapEff:\t0", "proc/self/status");
    kit.file.pool_bytes = 65536;
    bt_doctorkit_check(NULL);
    assert_int_equal(bt_doctorkit_found(BT_DOCTOR_BROKEN, "memlock-small"), 0);
}

static void a_pool_that_does_not_fit_is_named(void **state)
{
    (void)state;
    kit.file.pool_bytes = UINT64_C(16) << 30;
    bt_doctorkit_read(NULL);
    kit.facts.limits.shm_free_bytes = 64 << 20;
    bt_doctor_check(&kit.facts, &kit.findings);
    assert_int_equal(bt_doctorkit_found(BT_DOCTOR_WARNING, "shm-small"), 1);
    kit.findings = (bt_doctor_findings){0};
    kit.facts.limits.has_shm = false;
    bt_doctor_check(&kit.facts, &kit.findings);
    assert_int_equal(bt_doctorkit_found(BT_DOCTOR_WARNING, "shm-missing"), 1);

    bt_fakesys_file(&kit.fake, "0::/pod", "proc/self/cgroup");
    bt_fakesys_file(&kit.fake, "1073741824", "sys/fs/cgroup/pod/memory.max");
    bt_fakesys_file(&kit.fake, "mlx5_0 hca_handle=2 hca_object=100", "sys/fs/cgroup/pod/rdma.max");
    bt_doctorkit_check(NULL);
    assert_int_equal(bt_doctorkit_found(BT_DOCTOR_BROKEN, "cgroup-memory"), 1);
    assert_int_equal(bt_doctorkit_found(BT_DOCTOR_WARNING, "cgroup-rdma"), 1);
    kit.file.pool_bytes = UINT64_C(128) << 30;
    bt_fakesys_file(&kit.fake, "max", "sys/fs/cgroup/pod/memory.max");
    bt_doctorkit_check(NULL);
    assert_int_equal(bt_doctorkit_found(BT_DOCTOR_BROKEN, "memory-small"), 1);
}

static void gpus_without_direct_access_are_named(void **state)
{
    (void)state;
    bt_doctorkit_add_gpu_server();
    bt_fakesys_file(&kit.fake, "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat",
                    "proc/driver/nvidia/version");
    bt_doctorkit_check(NULL);
    assert_int_equal(bt_doctorkit_found(BT_DOCTOR_WARNING, "no-gpudirect"), 1);
    kit.findings = (bt_doctor_findings){0};
    kit.facts.limits.nvidia_driver[0] = '\0';
    bt_doctor_check(&kit.facts, &kit.findings);
    assert_int_equal(bt_doctorkit_found(BT_DOCTOR_WARNING, "gpu-without-driver"), 1);
}

static void a_gpu_far_from_every_nic_is_named(void **state)
{
    (void)state;
    bt_doctorkit_add_gpu_server();
    bt_fakesys_file(&kit.fake, "1: DOWN", "sys/class/infiniband/mlx5_1/ports/1/state");
    bt_doctorkit_check(NULL);
    assert_int_equal(bt_doctorkit_found(BT_DOCTOR_WARNING, "gpu-nic-far"), 1);
}

static void data_ports_beyond_loopback_are_named(void **state)
{
    (void)state;
    bt_fakesys_file(&kit.fake, "up", "sys/class/net/eth0/operstate");
    bt_fakesys_file(&kit.fake, "down", "sys/class/net/eth1/operstate");
    const char *const devices[] = {"eth0", "eth1", "nic7"};
    kit.file.data.data_devices = devices;
    kit.file.data.n_data_devices = 3;
    bt_doctorkit_check(NULL);
    assert_int_equal(bt_doctorkit_found(BT_DOCTOR_WARNING, "data-network-open"), 2);
    assert_int_equal(bt_doctorkit_found(BT_DOCTOR_BROKEN, "data-device-down"), 1);
    assert_int_equal(bt_doctorkit_found(BT_DOCTOR_BROKEN, "data-device-unknown"), 1);
}

static void rdma_that_is_not_used_is_named(void **state)
{
    (void)state;
    bt_doctorkit_add_gpu_server();
    bt_fakesys_file(&kit.fake, "up", "sys/class/net/eth0/operstate");
    const char *const tcp[] = {"eth0"}, *const rdma[] = {"mlx5_0:1"};
    kit.file.data.data_devices = tcp;
    kit.file.data.n_data_devices = 1;
    bt_doctorkit_check(NULL);
    assert_int_equal(bt_doctorkit_found(BT_DOCTOR_WARNING, "rdma-unused"), 1);
    kit.file.data.data_devices = rdma;
    bt_doctorkit_check(NULL);
    assert_int_equal(bt_doctorkit_found(BT_DOCTOR_WARNING, "rdma-unused"), 0);
    assert_int_equal(bt_doctorkit_found(BT_DOCTOR_WARNING, "data-network-open"), 1);
    assert_int_equal(bt_doctor_worst(&kit.findings), BT_DOCTOR_WARNING);
}

static void open_control_ports_are_named(void **state)
{
    (void)state;
    kit.file.security.allow_unauthenticated = true;
    bt_doctorkit_check(NULL);
    assert_int_equal(bt_doctorkit_found(BT_DOCTOR_WARNING, "unauthenticated"), 1);
    kit.file.security.key_file = "a.key";
    bt_doctorkit_check(NULL);
    assert_int_equal(bt_doctorkit_found(BT_DOCTOR_WARNING, "unauthenticated"), 0);
}

static void check_peer_again(void)
{
    kit.findings = (bt_doctor_findings){0};
    bt_doctor_check(&kit.facts, &kit.findings);
}

static void a_good_peer_is_fine(void **state)
{
    (void)state;
    bt_doctorkit_read(NULL);
    bt_doctorkit_add_peer();
    check_peer_again();
    bt_doctorkit_assert_fine();
    assert_int_equal(bt_doctorkit_found(BT_DOCTOR_FINE, "peer-path"), 1);
}

static void a_peer_that_cannot_be_used_is_broken(void **state)
{
    (void)state;
    static const struct {
        baton_status status;
        const char *id;
    } cases[] = {{BATON_ERR_UNREACHABLE, "peer-unreachable"},
                 {BATON_ERR_CONNECT_TIMEOUT, "peer-unreachable"},
                 {BATON_ERR_INIT_TIMEOUT, "peer-silent"},
                 {BATON_ERR_BAD_MESSAGE, "peer-not-baton"},
                 {BATON_ERR_AUTH, "peer-keys"},
                 {BATON_ERR_PATH, "peer-path-refused"},
                 {BATON_ERR_TRANSPORT, "peer-failed"}};
    bt_doctorkit_read(NULL);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        bt_doctorkit_add_peer();
        kit.facts.peer.status = cases[i].status;
        check_peer_again();
        assert_int_equal(bt_doctorkit_found(BT_DOCTOR_BROKEN, cases[i].id), 1);
    }
}

static void slow_ways_to_a_peer_are_named(void **state)
{
    (void)state;
    bt_doctorkit_add_gpu_server();
    bt_fakesys_file(&kit.fake, "up", "sys/class/net/eth0/operstate");
    bt_fakesys_file(&kit.fake, "100000", "sys/class/net/eth0/speed");
    bt_doctorkit_read(NULL);
    bt_doctorkit_add_peer();
    baton_sender_peer *found = &kit.facts.peer.found;
    found->copy_gbps = 3; /* a mapping that is not what memory can do */
    check_peer_again();
    assert_int_equal(bt_doctorkit_found(BT_DOCTOR_WARNING, "peer-slow"), 1);

    found->path = BATON_PATH_STAGED;
    strcpy(found->device, "eth0");
    strcpy(found->why_not_mapped, "another IPC namespace (ours 1, theirs 2)");
    found->wire_gbps = 11;
    check_peer_again();
    assert_int_equal(bt_doctorkit_found(BT_DOCTOR_WARNING, "peer-over-tcp"), 1);
    assert_int_equal(bt_doctorkit_found(BT_DOCTOR_WARNING, "peer-not-mapped"), 1);
    assert_int_equal(bt_doctorkit_found(BT_DOCTOR_WARNING, "peer-slow"), 0);
    found->wire_gbps = 1; /* of 12.5 */
    strcpy(found->why_not_mapped, "another host");
    check_peer_again();
    assert_int_equal(bt_doctorkit_found(BT_DOCTOR_WARNING, "peer-not-mapped"), 0);
    assert_int_equal(bt_doctorkit_found(BT_DOCTOR_WARNING, "peer-slow"), 1);
    found->wire_gbps = 0;
    check_peer_again();
    assert_int_equal(bt_doctorkit_found(BT_DOCTOR_WARNING, "peer-not-measured"), 1);

    strcpy(found->transport, "rc_mlx5");
    strcpy(found->device, "mlx5_0:1,mlx5_1:1");
    found->wire_gbps = 20; /* of 50 */
    strcpy(kit.facts.peer.greeting.host, "10.0.0.2");
    check_peer_again();
    assert_int_equal(bt_doctorkit_found(BT_DOCTOR_WARNING, "peer-slow"), 1);
    assert_int_equal(bt_doctorkit_found(BT_DOCTOR_WARNING, "peer-over-tcp"), 0);
    assert_int_equal(bt_doctorkit_found(BT_DOCTOR_WARNING, "peer-unauthenticated"), 1);
    strcpy(kit.facts.peer.greeting.mechanism, "CURVE");
    check_peer_again();
    assert_int_equal(bt_doctorkit_found(BT_DOCTOR_WARNING, "peer-unauthenticated"), 0);
}

static void findings_that_do_not_fit_still_count(void **state)
{
    (void)state;
    for (unsigned i = 0; i < BT_DOCTOR_FINDINGS_MAX + 5; i++)
        bt_doctor_find(&kit.findings, BT_DOCTOR_WARNING, "many", "%u", i);
    bt_doctor_find(&kit.findings, BT_DOCTOR_BROKEN, "last", "this one decides");
    assert_int_equal(kit.findings.n, BT_DOCTOR_FINDINGS_MAX);
    assert_int_equal(kit.findings.n_left_out, 6);
    assert_int_equal(bt_doctor_worst(&kit.findings), BT_DOCTOR_BROKEN);
}

static void sizes_are_short(void **state)
{
    (void)state;
    char text[BT_DOCTOR_SIZE_BYTES];
    assert_string_equal(bt_doctor_size(0, text), "0 bytes");
    assert_string_equal(bt_doctor_size(8 << 20, text), "8 MiB");
    assert_string_equal(bt_doctor_size(UINT64_C(3) << 29, text), "1.5 GiB");
    assert_string_equal(bt_doctor_size(BT_NO_LIMIT, text), "no limit");
    assert_string_equal(bt_doctor_size(BT_NO_LIMIT - 1, text), "16 EiB");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_doctor_test(a_plain_machine_is_fine),
        bt_doctor_test(a_gpu_server_is_fine),
        bt_doctor_test(old_versions_of_ucx_are_named),
        bt_doctor_test(warnings_can_be_accepted),
        bt_doctor_test(what_ucx_lacks_is_named),
        bt_doctor_test(a_ucx_that_does_not_open_is_broken),
        bt_doctor_test(variables_that_win_over_us_are_named),
        bt_doctor_test(device_nodes_that_a_container_lacks_are_named),
        bt_doctor_test(device_nodes_that_may_not_be_opened_are_named),
        bt_doctor_test(ports_that_do_not_work_are_named),
        bt_doctor_test(a_slow_slot_is_named),
        bt_doctor_test(little_locked_memory_matters_where_there_is_rdma),
        bt_doctor_test(a_pool_that_does_not_fit_is_named),
        bt_doctor_test(gpus_without_direct_access_are_named),
        bt_doctor_test(a_gpu_far_from_every_nic_is_named),
        bt_doctor_test(data_ports_beyond_loopback_are_named),
        bt_doctor_test(rdma_that_is_not_used_is_named),
        bt_doctor_test(open_control_ports_are_named),
        bt_doctor_test(a_good_peer_is_fine),
        bt_doctor_test(a_peer_that_cannot_be_used_is_broken),
        bt_doctor_test(slow_ways_to_a_peer_are_named),
        bt_doctor_test(findings_that_do_not_fit_still_count),
        bt_doctor_test(sizes_are_short),
    };
    return bt_run_tests(tests);
}
