/* SPDX-License-Identifier: Apache-2.0 */
/* The devices of this machine as /sys shows them: RDMA devices with their ports, net devices, GPUs,
 * and where on the PCI bus and on which NUMA node each of them is. Below a root that tests put
 * elsewhere. What is missing or makes no sense is unknown (-1, "", 0); what does not fit is counted
 * as left out.
 *
 * Thread rule: any thread; a topology is not changed after it was read. */
#ifndef BT_TRANSPORT_TOPOLOGY_H
#define BT_TRANSPORT_TOPOLOGY_H
#include <baton/status.h>

#include "transport/pcipath.h"
#include "transport/sysfsread.h"

enum {
    BT_TOPOLOGY_RDMA_MAX = 64,
    BT_TOPOLOGY_NETS_MAX = 128,
    BT_TOPOLOGY_GPUS_MAX = 64,
    BT_RDMA_PORTS_MAX = 4,
    BT_RDMA_GIDS_MAX = 8, /* kept; the first of up to BT_RDMA_GIDS_SEEN */
    BT_RDMA_GIDS_SEEN = 256,
    BT_GID_TEXT_BYTES = 40,
    BT_DEVICE_NAME_BYTES = BT_SYSFS_NAME_BYTES,
    BT_NIC_NAME_BYTES = BT_DEVICE_NAME_BYTES + 8, /* "mlx5_0:1" */
};

typedef struct {
    uint32_t index;
    char text[BT_GID_TEXT_BYTES]; /* "fe80:0000:...": as the kernel writes it */
    char type[24];                /* "IB/RoCE v1", "RoCE v2"; "" unknown */
    char net[BT_DEVICE_NAME_BYTES];
} bt_rdma_gid;

typedef struct {
    uint32_t number;     /* from 1 */
    char state[24];      /* "ACTIVE", "DOWN", "INIT" ...; "" unknown */
    char physical[24];   /* "LinkUp", "Disabled" ... */
    char link_layer[24]; /* "InfiniBand", "Ethernet" */
    char rate_text[48];  /* "100 Gb/sec (4X EDR)" */
    double gbps;         /* of rate_text, Gbit/s; 0 unknown */
    uint32_t n_gids;     /* all that are not zero */
    uint32_t n_kept;
    bt_rdma_gid gids[BT_RDMA_GIDS_MAX]; /* [n_kept] */
} bt_rdma_port;

/* Where a device is plugged in. */
typedef struct {
    bt_pci_path path;      /* n 0: no PCI device (rxe, siw, lo) */
    int numa_node;         /* -1 unknown */
    double gbps, max_gbps; /* of the PCI link as it runs, and as it could; 0 unknown */
} bt_pci_place;

/* A device of /sys is of no use without its node in /dev/infiniband, which containers often lack.
 */
typedef enum { BT_NODE_THERE, BT_NODE_MISSING, BT_NODE_FORBIDDEN } bt_device_node;

typedef struct {
    char name[BT_DEVICE_NAME_BYTES]; /* "mlx5_0" */
    char node_guid[24];
    char firmware[32];
    char board[48];                  /* hca_type, "MT4129" */
    char node[BT_DEVICE_NAME_BYTES]; /* "uverbs0"; "" none in /sys */
    bt_device_node node_state;
    bt_pci_place place;
    uint32_t n_ports;
    bt_rdma_port ports[BT_RDMA_PORTS_MAX]; /* [n_ports] */
} bt_rdma_device;

typedef struct {
    char name[BT_DEVICE_NAME_BYTES];
    char state[24]; /* operstate: "up", "down", "unknown" */
    bool is_loopback, is_virtual;
    uint32_t mtu;
    double gbps; /* 0 unknown */
    bt_pci_place place;
} bt_net_device;

typedef struct {
    bt_pci_address address;
    char model[64]; /* as the driver says; "" without driver */
    uint16_t device_id;
    bt_pci_place place;
} bt_gpu_device;

typedef struct {
    uint32_t n_numa_nodes; /* with memory or CPUs; at least 1 */
    uint32_t n_rdma, n_nets, n_gpus;
    uint32_t n_left_out; /* devices and ports that did not fit */
    bt_rdma_device rdma[BT_TOPOLOGY_RDMA_MAX];
    bt_net_device nets[BT_TOPOLOGY_NETS_MAX];
    bt_gpu_device gpus[BT_TOPOLOGY_GPUS_MAX];
} bt_topology;

/* root: BT_SYSFS_ROOT, or a folder with a sys/ and a dev/ of a test. A machine without any device
 * is no error. Freed with bt_topology_free. Errors: NO_MEMORY. */
baton_status bt_topology_read(const char *root, bt_topology **topology_p);
void bt_topology_free(bt_topology *topology); /* NULL is allowed. */

bool bt_rdma_port_is_active(const bt_rdma_port *port);
bt_distance bt_topology_distance(const bt_topology *topology, const bt_pci_place *a,
                                 const bt_pci_place *b);

/* Memory that NICs are chosen for. */
typedef struct {
    int numa_node;           /* host memory; -1: unknown, or all over the machine */
    const bt_pci_place *gpu; /* device memory; NULL: host memory. Borrowed for the call */
} bt_memory_place;

typedef struct {
    char name[BT_NIC_NAME_BYTES]; /* as UCX and data_devices name it: "mlx5_0:1" */
    const bt_rdma_device *device; /* borrowed from the topology */
    const bt_rdma_port *port;
    bt_distance distance;
    double gbps; /* what it is ranked by: the port's rate, half of it across NUMA nodes */
} bt_ranked_nic;

/* Every port that can carry data (active, device node there), the best for this memory first: by
 * the rate that arrives there, then by distance, then by name. Writes up to max; returns how many.
 */
uint32_t bt_topology_rank(const bt_topology *topology, const bt_memory_place *memory,
                          bt_ranked_nic *ranked, uint32_t max);
/* How many of ranked[n], from the first, are as good as the first (distance and rate): the rails to
 * use together. */
uint32_t bt_topology_rails(const bt_ranked_nic *ranked, uint32_t n);

#endif
