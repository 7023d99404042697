/* SPDX-License-Identifier: Apache-2.0 */
/* Which NICs are best for some memory. A NIC on another NUMA node counts half of its rate: about
 * what is left across sockets (openucx/ucx issue 11259), and enough that of NICs of one kind the
 * near ones win, while a much faster far one still does. */
#include "transport/topology.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

bool bt_rdma_port_is_active(const bt_rdma_port *port)
{
    return strcmp(port->state, "ACTIVE") == 0;
}

/* A machine with one node has nothing far away. */
static bt_distance on_this_machine(const bt_topology *topology, bt_distance distance)
{
    bool is_one_node = topology->n_numa_nodes == 1;
    return is_one_node && distance > BT_DISTANCE_NUMA ? BT_DISTANCE_NUMA : distance;
}

bt_distance bt_topology_distance(const bt_topology *topology, const bt_pci_place *a,
                                 const bt_pci_place *b)
{
    return on_this_machine(topology,
                           bt_pci_distance(&a->path, a->numa_node, &b->path, b->numa_node));
}

static bt_distance distance_to_memory(const bt_topology *topology, const bt_pci_place *nic,
                                      const bt_memory_place *memory)
{
    if (memory->gpu != NULL)
        return bt_topology_distance(topology, nic, memory->gpu);
    const bt_pci_path nowhere = {0};
    return on_this_machine(
        topology, bt_pci_distance(&nic->path, nic->numa_node, &nowhere, memory->numa_node));
}

/* Negative when a is the better one. */
static int compare(const void *left, const void *right)
{
    const bt_ranked_nic *a = left, *b = right;
    if (a->gbps > b->gbps || a->gbps < b->gbps)
        return a->gbps > b->gbps ? -1 : 1;
    if (a->distance != b->distance)
        return a->distance < b->distance ? -1 : 1;
    return strverscmp(a->name, b->name);
}

/* All ports of the machine fit: at most BT_TOPOLOGY_RDMA_MAX * BT_RDMA_PORTS_MAX. */
static uint32_t collect(const bt_topology *topology, const bt_memory_place *memory,
                        bt_ranked_nic *all)
{
    uint32_t n = 0;
    for (uint32_t d = 0; d < topology->n_rdma; d++) {
        const bt_rdma_device *device = &topology->rdma[d];
        bt_distance distance = distance_to_memory(topology, &device->place, memory);
        for (uint32_t p = 0; p < device->n_ports && device->node_state == BT_NODE_THERE; p++) {
            const bt_rdma_port *port = &device->ports[p];
            if (!bt_rdma_port_is_active(port))
                continue;
            double share = distance >= BT_DISTANCE_CROSS ? 0.5 : 1;
            bt_ranked_nic *nic = &all[n++];
            *nic = (bt_ranked_nic){
                .device = device, .port = port, .distance = distance, .gbps = port->gbps * share};
            snprintf(nic->name, sizeof(nic->name), "%s:%u", device->name, port->number);
        }
    }
    return n;
}

uint32_t bt_topology_rank(const bt_topology *topology, const bt_memory_place *memory,
                          bt_ranked_nic *ranked, uint32_t max)
{
    bt_ranked_nic all[BT_TOPOLOGY_RDMA_MAX * BT_RDMA_PORTS_MAX];
    uint32_t n = collect(topology, memory, all);
    qsort(all, n, sizeof(all[0]), compare);
    n = n < max ? n : max;
    memcpy(ranked, all, n * sizeof(all[0]));
    return n;
}

uint32_t bt_topology_rails(const bt_ranked_nic *ranked, uint32_t n)
{
    uint32_t rails = 0;
    while (rails < n && ranked[rails].distance == ranked[0].distance &&
           !(ranked[rails].gbps < ranked[0].gbps))
        rails++;
    return rails;
}
