/* SPDX-License-Identifier: Apache-2.0 */
#include "support/fakesys.h"
#include "transport/hostlimits.h"
#include "transport/sysfsread.h"

static bt_fakesys fake;
static bt_host_limits limits;

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

static void nothing_is_known_of_an_empty_machine(void **state)
{
    (void)state;
    bt_host_limits_read(fake.root, &limits);
    assert_false(limits.has_memlock || limits.has_shm || limits.may_lock_all);
    assert_int_equal(limits.n_huge, 0);
    assert_int_equal(limits.ptrace_scope, -1);
    assert_true(limits.cgroup_memory_bytes == BT_NO_LIMIT);
    assert_false(bt_host_has_gpudirect(&limits));
}

static void this_machine_has_limits(void **state)
{
    (void)state;
    bt_host_limits_read(BT_SYSFS_ROOT, &limits);
    assert_true(limits.has_memlock);
    assert_true(limits.memory_bytes > 0);
    assert_true(strlen(limits.kernel) > 0);
}

static void memlock_is_the_soft_limit(void **state)
{
    (void)state;
    bt_fakesys_file(&fake,
                    "Limit                     Soft Limit           Hard Limit           Units\n"
                    "Max locked memory         65536                unlimited            bytes",
                    "proc/self/limits");
    bt_fakesys_file(&fake, "Name:\tx\nCapEff:\t0000000000000400", "proc/self/status");
    bt_host_limits_read(fake.root, &limits);
    assert_true(limits.has_memlock);
    assert_int_equal(limits.memlock_bytes, 65536);
    assert_false(limits.may_lock_all);

    bt_fakesys_file(&fake, "Max locked memory  unlimited  unlimited  bytes", "proc/self/limits");
    bt_fakesys_file(&fake, "CapEff:\t000001ffffffffff", "proc/self/status");
    bt_host_limits_read(fake.root, &limits);
    assert_true(limits.memlock_bytes == BT_NO_LIMIT);
    assert_true(limits.may_lock_all);
}

static void huge_pages_are_listed_by_size(void **state)
{
    (void)state;
    bt_fakesys_file(&fake, "4", "sys/kernel/mm/hugepages/hugepages-1048576kB/nr_hugepages");
    bt_fakesys_file(&fake, "512", "sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages");
    bt_fakesys_file(&fake, "500", "sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages");
    bt_fakesys_file(&fake, "-7", "sys/kernel/mm/hugepages/hugepages-64kB/nr_hugepages");
    bt_fakesys_file(&fake, "1", "sys/kernel/mm/hugepages/hugepages-x/nr_hugepages");
    bt_fakesys_file(&fake, "always [madvise] never", "sys/kernel/mm/transparent_hugepage/enabled");
    bt_fakesys_file(&fake, "no brackets", "sys/kernel/mm/transparent_hugepage/shmem_enabled");
    bt_host_limits_read(fake.root, &limits);
    assert_int_equal(limits.n_huge, 3);
    assert_int_equal(limits.huge[0].page_bytes, 64 << 10);
    assert_int_equal(limits.huge[0].n_total, 0);
    assert_int_equal(limits.huge[1].page_bytes, 2 << 20);
    assert_int_equal(limits.huge[1].n_total, 512);
    assert_int_equal(limits.huge[1].n_free, 500);
    assert_int_equal(limits.huge[2].page_bytes, 1 << 30);
    assert_string_equal(limits.thp, "madvise");
    assert_string_equal(limits.thp_shmem, "");
}

static void the_smallest_cgroup_limit_counts(void **state)
{
    (void)state;
    bt_fakesys_file(&fake, "0::/kubepods/pod1/c1", "proc/self/cgroup");
    bt_fakesys_file(&fake, "8589934592", "sys/fs/cgroup/kubepods/pod1/memory.max");
    bt_fakesys_file(&fake, "max", "sys/fs/cgroup/kubepods/pod1/c1/memory.max");
    bt_fakesys_file(&fake, "68719476736", "sys/fs/cgroup/kubepods/memory.max");
    bt_fakesys_file(&fake, "150000 100000", "sys/fs/cgroup/kubepods/pod1/c1/cpu.max");
    bt_fakesys_file(&fake, "mlx5_0 hca_handle=2 hca_object=max",
                    "sys/fs/cgroup/kubepods/pod1/c1/rdma.max");
    bt_host_limits_read(fake.root, &limits);
    assert_int_equal(limits.cgroup_memory_bytes, UINT64_C(8) << 30);
    assert_true(limits.cgroup_cpus > 1.49 && limits.cgroup_cpus < 1.51);
    assert_string_equal(limits.cgroup_rdma, "mlx5_0 hca_handle=2 hca_object=max");
}

static void what_limits_nothing_is_no_limit(void **state)
{
    (void)state;
    bt_fakesys_file(&fake, "0::/", "proc/self/cgroup");
    bt_fakesys_file(&fake, "max", "sys/fs/cgroup/memory.max");
    bt_fakesys_file(&fake, "max 100000", "sys/fs/cgroup/cpu.max");
    bt_fakesys_file(&fake, "mlx5_0 hca_handle=max hca_object=max", "sys/fs/cgroup/rdma.max");
    bt_host_limits_read(fake.root, &limits);
    assert_true(limits.cgroup_memory_bytes == BT_NO_LIMIT);
    assert_false(limits.cgroup_cpus > 0);
    assert_string_equal(limits.cgroup_rdma, "");
}

static void version_1_hierarchies_are_read_too(void **state)
{
    (void)state;
    bt_fakesys_file(&fake, "9:name=systemd:/\n5:cpu,memory:/a/b\n0::/", "proc/self/cgroup");
    bt_fakesys_file(&fake, "1073741824", "sys/fs/cgroup/memory/memory.limit_in_bytes");
    bt_fakesys_file(&fake, "9223372036854771712", "sys/fs/cgroup/memory/a/memory.limit_in_bytes");
    bt_host_limits_read(fake.root, &limits);
    assert_int_equal(limits.cgroup_memory_bytes, 1 << 30);
    bt_fakesys_file(&fake, "9223372036854771712", "sys/fs/cgroup/memory/memory.limit_in_bytes");
    bt_host_limits_read(fake.root, &limits);
    assert_true(limits.cgroup_memory_bytes == BT_NO_LIMIT);
}

static void odd_cgroups_are_no_limit(void **state)
{
    (void)state;
    const char *const odd[] = {
        "",       ":::",      "0::/../../outside", "0:/",          "0::",
        "memory", "1:memory", "::\n::\n::",        "0::/a\n0::/b", "7:memory:/../x"};
    bt_fakesys_file(&fake, "1", "outside/memory.max");
    for (size_t i = 0; i < sizeof(odd) / sizeof(odd[0]); i++) {
        bt_fakesys_file(&fake, odd[i], "proc/self/cgroup");
        bt_host_limits_read(fake.root, &limits);
        assert_true(limits.cgroup_memory_bytes == BT_NO_LIMIT);
    }
    bt_fakesys_huge(&fake, ':', 200000, "proc/self/cgroup");
    bt_host_limits_read(fake.root, &limits);
    assert_true(limits.cgroup_memory_bytes == BT_NO_LIMIT);
}

static void gpudirect_is_peermem_or_dmabuf(void **state)
{
    (void)state;
    bt_fakesys_file(&fake, "5.10.0-30-amd64", "proc/sys/kernel/osrelease");
    bt_fakesys_file(&fake,
                    "NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  570.86.15  Release",
                    "proc/driver/nvidia/version");
    bt_host_limits_read(fake.root, &limits);
    assert_string_equal(limits.nvidia_driver, "570.86.15");
    assert_true(limits.nvidia_driver_is_open);
    assert_false(bt_host_has_gpudirect(&limits)); /* the kernel is too old */
    bt_fakesys_file(&fake, "6.1.0", "proc/sys/kernel/osrelease");
    bt_host_limits_read(fake.root, &limits);
    assert_true(bt_host_has_gpudirect(&limits));
    bt_fakesys_file(&fake, "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.104.05  Sat",
                    "proc/driver/nvidia/version");
    bt_host_limits_read(fake.root, &limits);
    assert_string_equal(limits.nvidia_driver, "535.104.05");
    assert_false(bt_host_has_gpudirect(&limits));
    bt_fakesys_folder(&fake, "sys/module/nv_peer_mem");
    bt_host_limits_read(fake.root, &limits);
    assert_string_equal(limits.peermem, "nv_peer_mem");
    assert_true(bt_host_has_gpudirect(&limits));
}

static void shared_memory_and_yama_are_seen(void **state)
{
    (void)state;
    bt_fakesys_folder(&fake, "dev/shm");
    bt_fakesys_file(&fake, "2", "proc/sys/kernel/yama/ptrace_scope");
    bt_fakesys_file(&fake, "MemTotal:       24684096 kB", "proc/meminfo");
    bt_host_limits_read(fake.root, &limits);
    assert_true(limits.has_shm && limits.shm_bytes > 0);
    assert_true(limits.shm_free_bytes <= limits.shm_bytes);
    assert_int_equal(limits.ptrace_scope, 2);
    assert_int_equal(limits.memory_bytes, UINT64_C(24684096) * 1024);
    bt_fakesys_file(&fake, "9", "proc/sys/kernel/yama/ptrace_scope");
    bt_host_limits_read(fake.root, &limits);
    assert_int_equal(limits.ptrace_scope, -1);
}

int main(void)
{
#define HERE(fn) cmocka_unit_test_setup_teardown(fn, make, clear)
    const struct CMUnitTest tests[] = {
        HERE(nothing_is_known_of_an_empty_machine),
        HERE(this_machine_has_limits),
        HERE(memlock_is_the_soft_limit),
        HERE(huge_pages_are_listed_by_size),
        HERE(the_smallest_cgroup_limit_counts),
        HERE(what_limits_nothing_is_no_limit),
        HERE(version_1_hierarchies_are_read_too),
        HERE(odd_cgroups_are_no_limit),
        HERE(gpudirect_is_peermem_or_dmabuf),
        HERE(shared_memory_and_yama_are_seen),
    };
    return bt_run_tests(tests);
}
