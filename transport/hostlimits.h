/* SPDX-License-Identifier: Apache-2.0 */
/* What this machine allows a process: locked memory, huge pages, shared memory, what containers and
 * cgroups take away, and what the kernel and NVIDIA's driver offer for RDMA to GPU memory. Below a
 * root that tests put elsewhere (transport/sysfsread.h). What cannot be found out is unknown.
 *
 * Thread rule: any thread. */
#ifndef BT_TRANSPORT_HOSTLIMITS_H
#define BT_TRANSPORT_HOSTLIMITS_H
#include <stdbool.h>
#include <stdint.h>

enum { BT_HUGE_SIZES_MAX = 8 };
#define BT_NO_LIMIT UINT64_MAX

typedef struct {
    uint64_t page_bytes, n_total, n_free;
} bt_huge_pages;

typedef struct {
    char kernel[64];        /* release, "6.1.0-56-amd64" */
    uint64_t memory_bytes;  /* of the machine; 0 unknown */
    bool has_memlock;       /* memlock_bytes is known */
    uint64_t memlock_bytes; /* soft limit, BT_NO_LIMIT: none; what RDMA may register */
    bool may_lock_all;      /* CAP_IPC_LOCK: the limit does not count */
    uint32_t n_huge;
    bt_huge_pages huge[BT_HUGE_SIZES_MAX]; /* [n_huge], small ones first */
    char thp[16];       /* transparent huge pages: "always", "madvise", "never"; "" unknown */
    char thp_shmem[16]; /* the same for shared memory: "always", "within_size", ... */
    bool has_shm;       /* /dev/shm is there; the next two are known */
    uint64_t shm_bytes, shm_free_bytes;
    int ptrace_scope; /* of Yama; -1: no Yama. 2 and 3 keep others from mapping our memory */

    uint64_t cgroup_memory_bytes; /* the smallest limit above this process; BT_NO_LIMIT: none */
    double cgroup_cpus;           /* 0: no limit */
    char cgroup_rdma[128];        /* rdma.max where it limits something, "" otherwise */

    char peermem[32];       /* module that lets NICs reach GPU memory, "nvidia_peermem"; "" none */
    char nvidia_driver[32]; /* version; "" no driver */
    bool nvidia_driver_is_open;  /* the open kernel modules, which can export dma-bufs */
    bool kernel_has_dmabuf_rdma; /* 5.12 and newer */
} bt_host_limits;

void bt_host_limits_read(const char *root, bt_host_limits *limits);
/* NICs can read and write GPU memory themselves, as far as can be told without trying. */
bool bt_host_has_gpudirect(const bt_host_limits *limits);

#endif
