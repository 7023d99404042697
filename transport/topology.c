/* SPDX-License-Identifier: Apache-2.0 */
/* Reading /sys. Formats: Documentation/ABI/stable/sysfs-class-infiniband, testing/sysfs-bus-pci and
 * testing/sysfs-class-net of the kernel. */
#include "transport/topology.h"

#include "core/alloc.h"
#include "core/fail.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { NVIDIA = 0x10de, CLASS_DISPLAY = 0x03, ARPHRD_LOOPBACK_TYPE = 772 };

/* "16.0 GT/s PCIe" x lanes, without what the line code takes: 8 of 10 bits up to 5 GT/s, 128 of 130
 * above. */
static double pci_link_gbps(const char *root, const char *folder, const char *which)
{
    char speed[48];
    int64_t lanes = 0;
    if (!bt_sysfs_text(root, speed, sizeof(speed), "%s/%s_link_speed", folder, which) ||
        !bt_sysfs_number(root, &lanes, "%s/%s_link_width", folder, which))
        return 0;
    double gts = strtod(speed, NULL);
    if (!(gts > 0 && gts <= 256) || lanes < 1 || lanes > 32)
        return 0;
    return gts * (double)lanes * (gts > 5 ? 128.0 / 130.0 : 0.8);
}

/* Cuts what hangs below the PCI device, as in ".../0000:00:03.0/virtio0". */
static void cut_to_device(char *folder, const bt_pci_path *path)
{
    char leaf[BT_PCI_ADDRESS_BYTES];
    bt_pci_format(bt_pci_leaf(path), leaf);
    char *at = NULL;
    for (char *next = strstr(folder, leaf); next != NULL; next = strstr(next + 1, leaf))
        at = next;
    if (at != NULL)
        at[strlen(leaf)] = '\0';
}

/* device: its folder in the device tree, relative to the root. */
static void read_place(const char *root, const char *device, bt_pci_place *place)
{
    int64_t node;
    char folder[BT_SYSFS_PATH_BYTES];
    snprintf(folder, sizeof(folder), "%s", device);
    *place = (bt_pci_place){.numa_node = -1};
    if (bt_pci_path_parse(folder, &place->path))
        cut_to_device(folder, &place->path);
    if (bt_sysfs_number(root, &node, "%s/numa_node", folder) && node >= 0 && node < 4096)
        place->numa_node = (int)node;
    place->gbps = pci_link_gbps(root, folder, "current");
    place->max_gbps = pci_link_gbps(root, folder, "max");
}

/* Of "<class folder>/<name>/device". */
static void read_class_place(const char *root, const char *class, const char *name,
                             bt_pci_place *place)
{
    char folder[BT_SYSFS_PATH_BYTES];
    *place = (bt_pci_place){.numa_node = -1};
    if (bt_sysfs_resolve(root, folder, sizeof(folder), "sys/class/%s/%s/device", class, name))
        read_place(root, folder, place);
}

/* "4: ACTIVE" without its number. */
static void read_state(const char *root, char *state, size_t bytes, const char *folder,
                       const char *file)
{
    char text[48];
    state[0] = '\0';
    if (!bt_sysfs_text(root, text, sizeof(text), "%s/%s", folder, file))
        return;
    const char *colon = strchr(text, ':');
    const char *word = colon != NULL ? colon + 1 + strspn(colon + 1, " ") : text;
    snprintf(state, bytes, "%s", word);
}

static bool is_zero_gid(const char *text)
{
    return strspn(text, "0:") == strlen(text);
}

static void read_gid(const char *root, const char *folder, uint32_t index, bt_rdma_port *port)
{
    bt_rdma_gid gid = {.index = index};
    if (!bt_sysfs_text(root, gid.text, sizeof(gid.text), "%s/gids/%u", folder, index) ||
        is_zero_gid(gid.text))
        return;
    port->n_gids++;
    if (port->n_kept == BT_RDMA_GIDS_MAX)
        return;
    bt_sysfs_text(root, gid.type, sizeof(gid.type), "%s/gid_attrs/types/%u", folder, index);
    bt_sysfs_text(root, gid.net, sizeof(gid.net), "%s/gid_attrs/ndevs/%u", folder, index);
    port->gids[port->n_kept++] = gid;
}

static void read_port(const char *root, const char *folder, uint32_t number, bt_rdma_port *port)
{
    *port = (bt_rdma_port){.number = number};
    read_state(root, port->state, sizeof(port->state), folder, "state");
    read_state(root, port->physical, sizeof(port->physical), folder, "phys_state");
    bt_sysfs_text(root, port->link_layer, sizeof(port->link_layer), "%s/link_layer", folder);
    bt_sysfs_text(root, port->rate_text, sizeof(port->rate_text), "%s/rate", folder);
    double gbps = strtod(port->rate_text, NULL);
    port->gbps = gbps > 0 && gbps < 1e6 ? gbps : 0;
    bt_sysfs_list gids;
    bt_sysfs_names(root, &gids, "%s/gids", folder);
    for (uint32_t i = 0; i < gids.n && i < BT_RDMA_GIDS_SEEN; i++) {
        char *end;
        unsigned long index = strtoul(gids.names[i], &end, 10);
        if (*end == '\0' && index < UINT16_MAX)
            read_gid(root, folder, (uint32_t)index, port);
    }
    bt_sysfs_list_free(&gids);
}

static void read_ports(const char *root, bt_topology *topology, bt_rdma_device *device)
{
    bt_sysfs_list ports;
    bt_sysfs_names(root, &ports, "sys/class/infiniband/%s/ports", device->name);
    for (uint32_t i = 0; i < ports.n; i++) {
        char folder[256], *end;
        unsigned long number = strtoul(ports.names[i], &end, 10);
        if (*end != '\0' || number == 0 || number > 255)
            continue;
        if (device->n_ports == BT_RDMA_PORTS_MAX) {
            topology->n_left_out++;
            continue;
        }
        snprintf(folder, sizeof(folder), "sys/class/infiniband/%s/ports/%lu", device->name, number);
        read_port(root, folder, (uint32_t)number, &device->ports[device->n_ports++]);
    }
    bt_sysfs_list_free(&ports);
}

static void read_rdma(const char *root, bt_topology *topology)
{
    bt_sysfs_list names;
    bt_sysfs_names(root, &names, "sys/class/infiniband");
    for (uint32_t i = 0; i < names.n; i++) {
        const char *name = names.names[i];
        if (!bt_sysfs_exists(root, "sys/class/infiniband/%s/.", name))
            continue;
        if (topology->n_rdma == BT_TOPOLOGY_RDMA_MAX) {
            topology->n_left_out++;
            continue;
        }
        bt_rdma_device *device = &topology->rdma[topology->n_rdma++];
        snprintf(device->name, sizeof(device->name), "%s", name);
        bt_sysfs_text(root, device->node_guid, sizeof(device->node_guid),
                      "sys/class/infiniband/%s/node_guid", name);
        bt_sysfs_text(root, device->firmware, sizeof(device->firmware),
                      "sys/class/infiniband/%s/fw_ver", name);
        bt_sysfs_text(root, device->board, sizeof(device->board),
                      "sys/class/infiniband/%s/hca_type", name);
        read_class_place(root, "infiniband", name, &device->place);
        read_ports(root, topology, device);
    }
    topology->n_left_out += names.is_cut;
    bt_sysfs_list_free(&names);
}

static bt_device_node find_node(const char *root, const char *node)
{
    if (node[0] == '\0' || !bt_sysfs_exists(root, "dev/infiniband/%s", node))
        return BT_NODE_MISSING;
    return bt_sysfs_is_open(root, "dev/infiniband/%s", node) ? BT_NODE_THERE : BT_NODE_FORBIDDEN;
}

static void read_nodes(const char *root, bt_topology *topology)
{
    bt_sysfs_list nodes;
    bt_sysfs_names(root, &nodes, "sys/class/infiniband_verbs");
    for (uint32_t i = 0; i < nodes.n; i++) {
        char owner[BT_DEVICE_NAME_BYTES];
        if (!bt_sysfs_text(root, owner, sizeof(owner), "sys/class/infiniband_verbs/%s/ibdev",
                           nodes.names[i]))
            continue;
        for (uint32_t d = 0; d < topology->n_rdma; d++) {
            bt_rdma_device *device = &topology->rdma[d];
            if (strcmp(device->name, owner) == 0)
                snprintf(device->node, sizeof(device->node), "%s", nodes.names[i]);
        }
    }
    bt_sysfs_list_free(&nodes);
    for (uint32_t d = 0; d < topology->n_rdma; d++)
        topology->rdma[d].node_state = find_node(root, topology->rdma[d].node);
}

static void read_net(const char *root, const char *name, bt_net_device *net)
{
    int64_t number;
    *net = (bt_net_device){0};
    snprintf(net->name, sizeof(net->name), "%s", name);
    bt_sysfs_text(root, net->state, sizeof(net->state), "sys/class/net/%s/operstate", name);
    net->is_loopback = bt_sysfs_number(root, &number, "sys/class/net/%s/type", name) &&
                       number == ARPHRD_LOOPBACK_TYPE;
    if (bt_sysfs_number(root, &number, "sys/class/net/%s/mtu", name) && number > 0 &&
        number <= UINT32_MAX)
        net->mtu = (uint32_t)number;
    if (bt_sysfs_number(root, &number, "sys/class/net/%s/speed", name) && number > 0 &&
        number < 100 * 1000 * 1000)
        net->gbps = (double)number / 1000;
    read_class_place(root, "net", name, &net->place);
    net->is_virtual = !bt_sysfs_exists(root, "sys/class/net/%s/device", name);
}

static void read_nets(const char *root, bt_topology *topology)
{
    bt_sysfs_list names;
    bt_sysfs_names(root, &names, "sys/class/net");
    for (uint32_t i = 0; i < names.n; i++) {
        if (!bt_sysfs_exists(root, "sys/class/net/%s/.", names.names[i]))
            continue; /* bonding_masters is a file */
        if (topology->n_nets == BT_TOPOLOGY_NETS_MAX)
            topology->n_left_out++;
        else
            read_net(root, names.names[i], &topology->nets[topology->n_nets++]);
    }
    topology->n_left_out += names.is_cut;
    bt_sysfs_list_free(&names);
}

/* "Model: \t\t NVIDIA H200" in the driver's own file. */
static void read_model(const char *root, const char *address, char *model, size_t bytes)
{
    char *text = bt_sysfs_file(root, "proc/driver/nvidia/gpus/%s/information", address);
    char *at = text != NULL ? strstr(text, "Model:") : NULL;
    model[0] = '\0';
    if (at != NULL) {
        at += strlen("Model:");
        at += strspn(at, " \t");
        snprintf(model, bytes, "%.*s", (int)strcspn(at, "\n"), at);
        for (char *c = model; *c != '\0'; c++)
            *c = *c >= ' ' && *c < 0x7f ? *c : '?';
    }
    bt_free(text);
}

static bool is_gpu(const char *root, const char *name)
{
    int64_t class, vendor;
    return bt_sysfs_number(root, &vendor, "sys/bus/pci/devices/%s/vendor", name) &&
           bt_sysfs_number(root, &class, "sys/bus/pci/devices/%s/class", name) &&
           vendor == NVIDIA && class >> 16 == CLASS_DISPLAY;
}

static void read_gpu(const char *root, const char *name, bt_gpu_device *gpu)
{
    char folder[BT_SYSFS_PATH_BYTES];
    int64_t id;
    read_model(root, name, gpu->model, sizeof(gpu->model));
    if (bt_sysfs_number(root, &id, "sys/bus/pci/devices/%s/device", name) && id >= 0 &&
        id <= UINT16_MAX)
        gpu->device_id = (uint16_t)id;
    gpu->place = (bt_pci_place){.numa_node = -1};
    if (bt_sysfs_resolve(root, folder, sizeof(folder), "sys/bus/pci/devices/%s", name))
        read_place(root, folder, &gpu->place);
}

static void read_gpus(const char *root, bt_topology *topology)
{
    bt_sysfs_list names;
    bt_sysfs_names(root, &names, "sys/bus/pci/devices");
    for (uint32_t i = 0; i < names.n; i++) {
        bt_pci_address address;
        if (!bt_pci_parse(names.names[i], &address) || !is_gpu(root, names.names[i]))
            continue;
        if (topology->n_gpus == BT_TOPOLOGY_GPUS_MAX) {
            topology->n_left_out++;
            continue;
        }
        bt_gpu_device *gpu = &topology->gpus[topology->n_gpus++];
        gpu->address = address;
        read_gpu(root, names.names[i], gpu);
    }
    topology->n_left_out += names.is_cut;
    bt_sysfs_list_free(&names);
}

static uint32_t count_numa_nodes(const char *root)
{
    bt_sysfs_list names;
    uint32_t n = 0;
    bt_sysfs_names(root, &names, "sys/devices/system/node");
    for (uint32_t i = 0; i < names.n; i++) {
        char *end;
        if (strncmp(names.names[i], "node", 4) != 0 || names.names[i][4] == '\0')
            continue;
        strtoul(names.names[i] + 4, &end, 10);
        n += *end == '\0';
    }
    bt_sysfs_list_free(&names);
    return n > 0 ? n : 1;
}

baton_status bt_topology_read(const char *root, bt_topology **topology_p)
{
    bt_topology *topology = bt_calloc(1, sizeof(*topology));
    if (topology == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "topology: %zu bytes", sizeof(*topology));
    topology->n_numa_nodes = count_numa_nodes(root);
    read_rdma(root, topology);
    read_nodes(root, topology);
    read_nets(root, topology);
    read_gpus(root, topology);
    *topology_p = topology;
    return BATON_OK;
}

void bt_topology_free(bt_topology *topology)
{
    bt_free(topology);
}
