/* SPDX-License-Identifier: Apache-2.0 */
/* Where PCI devices sit, and how far apart two of them are. The path of a device is the chain of
 * bridges above it, as the kernel's device tree names them:
 *
 *   sys/devices/pci0000:80/0000:80:01.0/0000:81:00.0/0000:82:08.0/0000:83:00.0/infiniband/mlx5_0
 *               host bridge  root port     switch: up    switch: down  the device
 *
 * Thread rule: any thread. */
#ifndef BT_TRANSPORT_PCIPATH_H
#define BT_TRANSPORT_PCIPATH_H
#include <stdbool.h>
#include <stdint.h>

enum { BT_PCI_ADDRESS_BYTES = 20, BT_PCI_DEPTH_MAX = 16 };

typedef struct {
    uint32_t domain;
    uint8_t bus, device, function;
} bt_pci_address;

typedef struct {
    uint32_t host_domain; /* of the host bridge, pci0000:80 */
    uint8_t host_bus;
    uint8_t n;                              /* 0: no PCI device */
    bt_pci_address steps[BT_PCI_DEPTH_MAX]; /* [n], from the root port to the device */
} bt_pci_path;

/* From near to far; a comparison with < says "nearer". */
typedef enum {
    BT_DISTANCE_SWITCH,    /* one switch apart (or functions of one card) */
    BT_DISTANCE_ROOT_PORT, /* several switches below one root port */
    BT_DISTANCE_NUMA,      /* one NUMA node or host bridge */
    BT_DISTANCE_CROSS,     /* another NUMA node */
    BT_DISTANCE_UNKNOWN,
    BT_N_DISTANCES,
} bt_distance;

/* "0000:83:00.0", or a domain of up to 8 digits. */
bool bt_pci_parse(const char *text, bt_pci_address *address);
void bt_pci_format(const bt_pci_address *address, char text[BT_PCI_ADDRESS_BYTES]);
/* From "sys/devices/pci...": the chain up to the last PCI device in it. False, and n 0, when there
 * is none or it is too deep. */
bool bt_pci_path_parse(const char *device_path, bt_pci_path *path);
/* The device itself; path->n > 0. */
const bt_pci_address *bt_pci_leaf(const bt_pci_path *path);
/* numa_a, numa_b: NUMA nodes, negative when unknown; paths with n 0 are known by those alone. */
bt_distance bt_pci_distance(const bt_pci_path *a, int numa_a, const bt_pci_path *b, int numa_b);
/* "same switch", "same root port", "same NUMA node", "other NUMA node", "unknown". */
const char *bt_distance_name(bt_distance distance);

#endif
