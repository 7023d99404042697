/* SPDX-License-Identifier: Apache-2.0 */
#include "doctorkit.h"

#include <stdio.h>

bt_doctorkit kit;

int bt_doctorkit_setup(void **state)
{
    memset(&kit, 0, sizeof(kit));
    bt_fakesys_make(&kit.fake);
    bt_fakesys_add_nodes(&kit.fake, 1);
    bt_fakesys_file(&kit.fake, "6.1.0-test", "proc/sys/kernel/osrelease");
    bt_fakesys_file(&kit.fake, "MemTotal:       67108864 kB", "proc/meminfo");
    bt_fakesys_file(&kit.fake, "Max locked memory  unlimited  unlimited  bytes",
                    "proc/self/limits");
    bt_fakesys_file(&kit.fake, "772", "sys/class/net/lo/type");
    bt_fakesys_file(&kit.fake, "65536", "sys/class/net/lo/mtu");
    bt_fakesys_file(&kit.fake, "unknown", "sys/class/net/lo/operstate");
    return bt_test_setup(state);
}

int bt_doctorkit_teardown(void **state)
{
    bt_doctor_facts_free(&kit.facts);
    bt_fakesys_remove(&kit.fake);
    return bt_test_teardown(state);
}

void bt_doctorkit_add_gpu_server(void)
{
    bt_fakesys_add_nodes(&kit.fake, 2);
    for (unsigned socket = 0; socket < 2; socket++) {
        char root[64], gpu[128], nic[128], numa[8], name[16];
        snprintf(root, sizeof(root), "pci0000:%u0/0000:%u0:01.0/0000:%u1:00.0", socket * 8,
                 socket * 8, socket * 8);
        snprintf(gpu, sizeof(gpu), "%s/0000:%u2:00.0/0000:%u3:00.0", root, socket * 8, socket * 8);
        snprintf(nic, sizeof(nic), "%s/0000:%u2:01.0/0000:%u4:00.0", root, socket * 8, socket * 8);
        snprintf(numa, sizeof(numa), "%u", socket);
        snprintf(name, sizeof(name), "mlx5_%u", socket);
        bt_fakesys_add_gpu(&kit.fake, gpu, numa);
        bt_fakesys_add_rdma(
            &kit.fake,
            &(bt_fakesys_rdma){.name = name, .place = nic, .numa = numa, .node = socket});
    }
    bt_fakesys_file(&kit.fake,
                    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release",
                    "proc/driver/nvidia/version");
}

void bt_doctorkit_read(char *const *environment)
{
    bt_doctor_facts *facts = &kit.facts;
    bt_doctor_facts_free(facts);
    assert_ok(bt_doctor_facts_read(kit.fake.root, environment, &kit.file, facts));
    facts->ucx_status = BATON_OK;
    facts->offers = (bt_ucx_offers){.header_version = "1.13",
                                    .runtime_version = "1.18.0",
                                    .runtime_major = 1,
                                    .runtime_minor = 18,
                                    .has_cuda = true};
    bt_ucx_offers_parse("resource 0 : tcp/lo\nresource 1 : tcp/eth0\nresource 2 : posix/memory\n"
                        "resource 3 : cuda_ipc/cuda\nresource 4 : rc_mlx5/mlx5_0:1\n"
                        "resource 5 : rc_mlx5/mlx5_1:1\n",
                        &facts->offers);
    /* Of the file system that the fake lies on. */
    facts->limits.has_shm = true;
    facts->limits.shm_bytes = facts->limits.shm_free_bytes = UINT64_C(32) << 30;
}

void bt_doctorkit_check(char *const *environment)
{
    bt_doctorkit_read(environment);
    kit.findings = (bt_doctor_findings){0};
    bt_doctor_check(&kit.facts, &kit.findings);
}

void bt_doctorkit_add_peer(void)
{
    kit.facts.peer =
        (bt_doctor_peer){.was_asked = true,
                         .address = "127.0.0.1:7300",
                         .greeting = {.host = "127.0.0.1", .mechanism = "NULL", .connect_ms = 0.25},
                         .found = {.connected = true,
                                   .path = BATON_PATH_MAPPED,
                                   .transport = "tcp",
                                   .device = "lo",
                                   .n_rails = 1,
                                   .copy_gbps = 20,
                                   .stage_gbps = 24,
                                   .wire_gbps = 5.5,
                                   .post_us = 1.5,
                                   .flush_us = 60}};
}

unsigned bt_doctorkit_found(bt_doctor_severity severity, const char *id)
{
    unsigned n = 0;
    for (uint32_t i = 0; i < kit.findings.n; i++)
        n +=
            kit.findings.items[i].severity == severity && strcmp(kit.findings.items[i].id, id) == 0;
    return n;
}

void bt_doctorkit_assert_fine(void)
{
    for (uint32_t i = 0; i < kit.findings.n; i++)
        if (kit.findings.items[i].severity != BT_DOCTOR_FINE)
            fail_msg("%s: %s", kit.findings.items[i].id, kit.findings.items[i].text);
    assert_int_equal(bt_doctor_worst(&kit.findings), BT_DOCTOR_FINE);
}
