/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/pcipath.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* n_min to n_max hex digits, then `end`; the text behind that, or NULL. */
static const char *hex(const char *text, int n_min, int n_max, char end, uint32_t *value)
{
    int n = 0;
    *value = 0;
    for (; n < n_max && isxdigit((unsigned char)text[n]); n++) {
        char c = (char)tolower((unsigned char)text[n]);
        *value = *value * 16 + (uint32_t)(c <= '9' ? c - '0' : c - 'a' + 10);
    }
    return n >= n_min && text[n] == end ? text + n + (end != '\0') : NULL;
}

bool bt_pci_parse(const char *text, bt_pci_address *address)
{
    uint32_t domain, bus, device, function;
    const char *at = hex(text, 4, 8, ':', &domain);
    at = at != NULL ? hex(at, 2, 2, ':', &bus) : NULL;
    at = at != NULL ? hex(at, 2, 2, '.', &device) : NULL;
    at = at != NULL ? hex(at, 1, 1, '\0', &function) : NULL;
    if (at == NULL || device > 31 || function > 7)
        return false;
    *address = (bt_pci_address){.domain = domain,
                                .bus = (uint8_t)bus,
                                .device = (uint8_t)device,
                                .function = (uint8_t)function};
    return true;
}

void bt_pci_format(const bt_pci_address *address, char text[BT_PCI_ADDRESS_BYTES])
{
    snprintf(text, BT_PCI_ADDRESS_BYTES, "%04" PRIx32 ":%02x:%02x.%x", address->domain,
             address->bus, address->device & 31u, address->function & 7u);
}

static bool parse_host_bridge(const char *text, bt_pci_path *path)
{
    uint32_t domain, bus;
    if (strncmp(text, "pci", 3) != 0)
        return false;
    const char *at = hex(text + 3, 4, 8, ':', &domain);
    at = at != NULL ? hex(at, 2, 2, '\0', &bus) : NULL;
    if (at == NULL)
        return false;
    path->host_domain = domain;
    path->host_bus = (uint8_t)bus;
    return true;
}

bool bt_pci_path_parse(const char *device_path, bt_pci_path *path)
{
    *path = (bt_pci_path){0};
    bool has_host = false;
    for (const char *at = device_path; *at != '\0';) {
        char step[64];
        size_t n = strcspn(at, "/");
        bt_pci_address address;
        if (n < sizeof(step)) {
            memcpy(step, at, n);
            step[n] = '\0';
            if (!has_host)
                has_host = parse_host_bridge(step, path);
            else if (bt_pci_parse(step, &address)) {
                if (path->n == BT_PCI_DEPTH_MAX) {
                    *path = (bt_pci_path){0};
                    return false;
                }
                path->steps[path->n++] = address;
            }
        }
        at += n + (at[n] == '/');
    }
    if (path->n == 0)
        *path = (bt_pci_path){0};
    return path->n > 0;
}

const bt_pci_address *bt_pci_leaf(const bt_pci_path *path)
{
    return &path->steps[path->n - 1];
}

static bool same_slot(const bt_pci_address *a, const bt_pci_address *b)
{
    return a->domain == b->domain && a->bus == b->bus && a->device == b->device;
}

static bool same_address(const bt_pci_address *a, const bt_pci_address *b)
{
    return same_slot(a, b) && a->function == b->function;
}

static bool same_host_bridge(const bt_pci_path *a, const bt_pci_path *b)
{
    return a->n > 0 && b->n > 0 && a->host_domain == b->host_domain && a->host_bus == b->host_bus;
}

static bt_distance distance_by_numa(int a, int b)
{
    if (a < 0 || b < 0)
        return BT_DISTANCE_UNKNOWN;
    return a == b ? BT_DISTANCE_NUMA : BT_DISTANCE_CROSS;
}

/* Both hang below one root port, `shared` bridges of theirs are the same. */
static bt_distance distance_below_port(const bt_pci_path *a, const bt_pci_path *b, uint32_t shared)
{
    if (shared == a->n || shared == b->n) /* one is the other, or its bridge */
        return BT_DISTANCE_SWITCH;
    bool same_card =
        shared + 1u == a->n && a->n == b->n && same_slot(&a->steps[shared], &b->steps[shared]);
    /* A switch is a port upwards and, below it, a port downwards for each device. */
    bool one_switch = shared >= 2 && shared + 2u >= a->n && shared + 2u >= b->n;
    return same_card || one_switch ? BT_DISTANCE_SWITCH : BT_DISTANCE_ROOT_PORT;
}

bt_distance bt_pci_distance(const bt_pci_path *a, int numa_a, const bt_pci_path *b, int numa_b)
{
    if (same_host_bridge(a, b)) {
        uint32_t shared = 0;
        while (shared < a->n && shared < b->n && same_address(&a->steps[shared], &b->steps[shared]))
            shared++;
        bool same_card_of_bridge = a->n == 1 && b->n == 1 && same_slot(&a->steps[0], &b->steps[0]);
        if (shared > 0 || same_card_of_bridge)
            return distance_below_port(a, b, shared);
        bt_distance by_numa = distance_by_numa(numa_a, numa_b);
        return by_numa == BT_DISTANCE_UNKNOWN ? BT_DISTANCE_NUMA : by_numa;
    }
    return distance_by_numa(numa_a, numa_b);
}

const char *bt_distance_name(bt_distance distance)
{
    static const char *const names[BT_N_DISTANCES] = {
        [BT_DISTANCE_SWITCH] = "same switch",  [BT_DISTANCE_ROOT_PORT] = "same root port",
        [BT_DISTANCE_NUMA] = "same NUMA node", [BT_DISTANCE_CROSS] = "other NUMA node",
        [BT_DISTANCE_UNKNOWN] = "unknown",
    };
    return (unsigned)distance < BT_N_DISTANCES ? names[distance] : "unknown";
}
