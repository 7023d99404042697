/* SPDX-License-Identifier: Apache-2.0 */
/* RDMA devices as data_devices names them, with their port: "mlx5_0:1". Which of a list can carry
 * data, and what UCX has to be told about one.
 *
 * Thread rule: any thread. */
#ifndef BT_TRANSPORT_VERBS_H
#define BT_TRANSPORT_VERBS_H
#include <baton/kv.h>
#include <baton/status.h>
#include <stdbool.h>

#include "transport/topology.h"

/* Whether it names an RDMA device; net devices ("eth0") have no port. */
bool bt_verbs_is_name(const char *device);

/* What data_devices: auto stands for: the RDMA devices that are best for this memory, as rails if
 * they are equal. Host memory is where the process is bound to; of device memory it is the GPU's
 * own place on the PCI bus that counts (the one that bt_cuda_open would take). names[n] of the
 * return value, 0 when there is none that can carry data. */
enum { BT_VERBS_AUTO_MAX = 2 };
uint32_t bt_verbs_auto(const char *root, baton_memory_kind memory,
                       char names[BT_VERBS_AUTO_MAX][BT_NIC_NAME_BYTES]);

/* All RDMA devices among devices[n] are there, their ports are active, and this process may open
 * them. root: see bt_topology_read. Errors: UNREACHABLE, PERMISSION (the text says what is there),
 * NO_MEMORY. */
baton_status bt_verbs_check(const char *root, const char *const *devices, uint32_t n);

/* The GID that UCX before 1.19 can connect a soft RoCE device with. That UCX tells IPv4 from IPv6
 * by a field of the completion that soft RoCE does not fill in (openucx/ucx pull request 10209), so
 * with an IPv4 GID, its own choice, no peer ever answers. False: no soft RoCE, or it has no such
 * GID. */
bool bt_verbs_soft_roce_gid(const char *root, const char *device, uint32_t *index);

#endif
