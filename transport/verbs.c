/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/verbs.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/cudadevice.h"
#include "core/fail.h"

bool bt_verbs_is_name(const char *device)
{
    return strchr(device, ':') != NULL;
}

static const bt_rdma_port *find_port(const bt_topology *topology, const char *name,
                                     const bt_rdma_device **device_p)
{
    size_t length = strcspn(name, ":");
    unsigned long number = name[length] == ':' ? strtoul(name + length + 1, NULL, 10) : 0;
    for (uint32_t d = 0; d < topology->n_rdma; d++) {
        const bt_rdma_device *device = &topology->rdma[d];
        if (strlen(device->name) != length || strncmp(device->name, name, length) != 0)
            continue;
        *device_p = device;
        for (uint32_t p = 0; p < device->n_ports; p++)
            if (device->ports[p].number == number)
                return &device->ports[p];
    }
    return NULL;
}

/* "mlx5_0:1 (ACTIVE), mlx5_1:1 (DOWN)". */
static const char *list_ports(const bt_topology *topology, char *text, size_t bytes)
{
    size_t used = (size_t)snprintf(text, bytes, "%s", topology->n_rdma == 0 ? "none" : "");
    for (uint32_t d = 0; d < topology->n_rdma; d++)
        for (uint32_t p = 0; p < topology->rdma[d].n_ports && used < bytes; p++)
            used +=
                (size_t)snprintf(text + used, bytes - used, "%s%s:%u (%s)", used != 0 ? ", " : "",
                                 topology->rdma[d].name, topology->rdma[d].ports[p].number,
                                 topology->rdma[d].ports[p].state);
    return text;
}

/* The NUMA node of a process that is bound to some of the CPUs; -1 when it may run on all. */
static int home_node(void)
{
    cpu_set_t mask;
    unsigned cpu, node;
    bool is_bound = sched_getaffinity(0, sizeof(mask), &mask) == 0 &&
                    CPU_COUNT(&mask) < sysconf(_SC_NPROCESSORS_ONLN);
    return is_bound && getcpu(&cpu, &node) == 0 ? (int)node : -1;
}

/* Of the GPU that device memory will be on; NULL: not known. */
static const bt_pci_place *find_gpu(const bt_topology *topology)
{
    char text[BT_CUDA_PCI_BYTES];
    bt_pci_address wanted;
    if (bt_cuda_pci_address(text) != BATON_OK || !bt_pci_parse(text, &wanted))
        return NULL;
    for (uint32_t i = 0; i < topology->n_gpus; i++) {
        const bt_pci_address *found = &topology->gpus[i].address;
        if (found->domain == wanted.domain && found->bus == wanted.bus &&
            found->device == wanted.device && found->function == wanted.function)
            return &topology->gpus[i].place;
    }
    return NULL;
}

uint32_t bt_verbs_auto(const char *root, baton_memory_kind memory,
                       char names[BT_VERBS_AUTO_MAX][BT_NIC_NAME_BYTES])
{
    bt_topology *topology;
    bt_ranked_nic ranked[BT_VERBS_AUTO_MAX];
    if (bt_topology_read(root, &topology) != BATON_OK)
        return 0;
    bool is_device = memory == BATON_MEMORY_CUDA_DEVICE;
    const bt_memory_place place = {.numa_node = home_node(),
                                   .gpu = is_device ? find_gpu(topology) : NULL};
    uint32_t n = bt_topology_rank(topology, &place, ranked, BT_VERBS_AUTO_MAX);
    n = bt_topology_rails(ranked, n);
    for (uint32_t i = 0; i < n; i++)
        snprintf(names[i], BT_NIC_NAME_BYTES, "%s", ranked[i].name);
    bt_topology_free(topology);
    return n;
}

static baton_status check(const bt_topology *topology, const char *name)
{
    char there[256];
    const bt_rdma_device *device = NULL;
    const bt_rdma_port *port = find_port(topology, name, &device);
    if (port == NULL)
        return bt_fail(BATON_ERR_UNREACHABLE, "data_devices: wanted the RDMA device %s, found: %s",
                       name, list_ports(topology, there, sizeof(there)));
    if (device->node_state != BT_NODE_THERE)
        return bt_fail(BATON_ERR_PERMISSION,
                       "data_devices: wanted to open %s, found /dev/infiniband/%s %s: give the "
                       "container the device (--device /dev/infiniband)",
                       name, device->node,
                       device->node_state == BT_NODE_MISSING ? "missing" : "forbidden");
    if (!bt_rdma_port_is_active(port))
        return bt_fail(
            BATON_ERR_UNREACHABLE,
            "data_devices: wanted an active port, found %s %s, link %s: set the link up, "
            "or check cable and switch",
            name, port->state, port->physical);
    return BATON_OK;
}

baton_status bt_verbs_check(const char *root, const char *const *devices, uint32_t n)
{
    uint32_t n_verbs = 0;
    for (uint32_t i = 0; i < n; i++)
        n_verbs += bt_verbs_is_name(devices[i]);
    if (n_verbs == 0)
        return BATON_OK;
    bt_topology *topology;
    BATON_TRY(bt_topology_read(root, &topology));
    baton_status status = BATON_OK;
    for (uint32_t i = 0; i < n && status == BATON_OK; i++)
        if (bt_verbs_is_name(devices[i]))
            status = check(topology, devices[i]);
    bt_topology_free(topology);
    return status;
}

bool bt_verbs_soft_roce_gid(const char *root, const char *device, uint32_t *index)
{
    int length = (int)strcspn(device, ":");
    /* Its driver alone says above which net device it is. */
    if (!bt_sysfs_exists(root, "sys/class/infiniband/%.*s/parent", length, device))
        return false;
    bt_topology *topology;
    const bt_rdma_device *found;
    if (bt_topology_read(root, &topology) != BATON_OK)
        return false;
    const bt_rdma_port *port = find_port(topology, device, &found);
    bool has_gid = false;
    for (uint32_t i = 0; port != NULL && i < port->n_kept && !has_gid; i++) {
        has_gid = strncmp(port->gids[i].text, "fe80:", 5) == 0;
        *index = port->gids[i].index;
    }
    bt_topology_free(topology);
    return has_gid;
}
