/* SPDX-License-Identifier: Apache-2.0 */
#include "support/fakesys.h"

#include <ftw.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { PATH_BYTES = 1024 };

void bt_fakesys_make(bt_fakesys *fake)
{
    snprintf(fake->root, sizeof(fake->root), "/tmp/baton-fakesys-XXXXXX");
    assert_non_null(mkdtemp(fake->root));
}

static int remove_one(const char *path, const struct stat *facts, int type, struct FTW *where)
{
    (void)facts, (void)type, (void)where;
    return remove(path);
}

void bt_fakesys_remove(bt_fakesys *fake)
{
    assert_int_equal(nftw(fake->root, remove_one, 16, FTW_DEPTH | FTW_PHYS), 0);
}

/* The whole path, with the folders above it made. */
static void prepare(const bt_fakesys *fake, const char *path, char full[PATH_BYTES])
{
    int n = snprintf(full, PATH_BYTES, "%s/%s", fake->root, path);
    assert_true(n > 0 && n < PATH_BYTES);
    for (char *slash = full + strlen(fake->root) + 1; (slash = strchr(slash, '/')) != NULL;
         slash++) {
        *slash = '\0';
        (void)mkdir(full, 0755); /* there already, or the next one fails */
        *slash = '/';
    }
}

void bt_fakesys_file(const bt_fakesys *fake, const char *text, const char *path, ...)
{
    char name[PATH_BYTES], full[PATH_BYTES];
    va_list args;
    va_start(args, path);
    vsnprintf(name, sizeof(name), path, args);
    va_end(args);
    prepare(fake, name, full);
    FILE *file = fopen(full, "w");
    assert_non_null(file);
    fprintf(file, "%s\n", text);
    assert_int_equal(fclose(file), 0);
}

void bt_fakesys_huge(const bt_fakesys *fake, char byte, size_t n, const char *path)
{
    char full[PATH_BYTES];
    prepare(fake, path, full);
    FILE *file = fopen(full, "w");
    assert_non_null(file);
    for (size_t i = 0; i < n; i++)
        putc(byte, file);
    assert_int_equal(fclose(file), 0);
}

void bt_fakesys_raw_link(const bt_fakesys *fake, const char *target, const char *path)
{
    char full[PATH_BYTES];
    prepare(fake, path, full);
    assert_int_equal(symlink(target, full), 0);
}

void bt_fakesys_link(const bt_fakesys *fake, const char *target, const char *path)
{
    char relative[PATH_BYTES] = "";
    for (const char *at = path; (at = strchr(at, '/')) != NULL; at++)
        strcat(relative, "../");
    strcat(relative, target);
    bt_fakesys_raw_link(fake, relative, path);
}

void bt_fakesys_folder(const bt_fakesys *fake, const char *path)
{
    char full[PATH_BYTES], below[PATH_BYTES];
    snprintf(below, sizeof(below), "%s/x", path);
    prepare(fake, below, full);
}

static void add_port(const bt_fakesys *fake, const bt_fakesys_rdma *rdma, const char *folder)
{
    const char *state = rdma->state != NULL ? rdma->state : "4: ACTIVE";
    const char *rate = rdma->rate != NULL ? rdma->rate : "400 Gb/sec (4X NDR)";
    const char *layer = rdma->layer != NULL ? rdma->layer : "InfiniBand";
    bool ethernet = strcmp(layer, "Ethernet") == 0;
    bt_fakesys_file(fake, state, "%s/state", folder);
    bt_fakesys_file(fake, strcmp(state, "4: ACTIVE") == 0 ? "5: LinkUp" : "3: Disabled",
                    "%s/phys_state", folder);
    bt_fakesys_file(fake, rate, "%s/rate", folder);
    bt_fakesys_file(fake, layer, "%s/link_layer", folder);
    bt_fakesys_file(fake, "fe80:0000:0000:0000:9c63:c003:00b2:8a5e", "%s/gids/0", folder);
    bt_fakesys_file(fake, "0000:0000:0000:0000:0000:0000:0000:0000", "%s/gids/1", folder);
    bt_fakesys_file(fake, ethernet ? "RoCE v2" : "IB/RoCE v1", "%s/gid_attrs/types/0", folder);
    if (ethernet)
        bt_fakesys_file(fake, "eth0", "%s/gid_attrs/ndevs/0", folder);
}

void bt_fakesys_add_rdma(const bt_fakesys *fake, const bt_fakesys_rdma *rdma)
{
    char device[PATH_BYTES], node[PATH_BYTES], port[PATH_BYTES], class[PATH_BYTES];
    const char *place = rdma->place != NULL ? rdma->place : "virtual";
    snprintf(device, sizeof(device), "sys/devices/%.256s/infiniband/%s", place, rdma->name);
    snprintf(port, sizeof(port), "%.512s/ports/1", device);
    bt_fakesys_file(fake, "9c63:c003:00b2:8a5e", "%s/node_guid", device);
    bt_fakesys_file(fake, "28.39.1002", "%s/fw_ver", device);
    bt_fakesys_file(fake, "MT4129", "%s/hca_type", device);
    add_port(fake, rdma, port);
    if (rdma->place != NULL)
        bt_fakesys_raw_link(fake, "../..", strcat(strcpy(class, device), "/device"));
    if (rdma->place != NULL && rdma->numa != NULL)
        bt_fakesys_file(fake, rdma->numa, "sys/devices/%s/numa_node", place);
    snprintf(class, sizeof(class), "sys/class/infiniband/%s", rdma->name);
    bt_fakesys_link(fake, device, class);
    snprintf(node, sizeof(node), "sys/class/infiniband_verbs/uverbs%u/ibdev", rdma->node);
    bt_fakesys_file(fake, rdma->name, "%s", node);
    if (!rdma->without_node)
        bt_fakesys_file(fake, "", "dev/infiniband/uverbs%u", rdma->node);
}

void bt_fakesys_add_gpu(const bt_fakesys *fake, const char *place, const char *numa)
{
    char device[PATH_BYTES], bus[PATH_BYTES];
    const char *address = strrchr(place, '/');
    address = address != NULL ? address + 1 : place;
    snprintf(device, sizeof(device), "sys/devices/%.256s", place);
    bt_fakesys_file(fake, "0x10de", "%s/vendor", device);
    bt_fakesys_file(fake, "0x2335", "%s/device", device);
    bt_fakesys_file(fake, "0x030200", "%s/class", device);
    if (numa != NULL)
        bt_fakesys_file(fake, numa, "%s/numa_node", device);
    snprintf(bus, sizeof(bus), "sys/bus/pci/devices/%.64s", address);
    bt_fakesys_link(fake, device, bus);
    bt_fakesys_file(fake, "Model: \t\t NVIDIA H200\nIRQ: 90",
                    "proc/driver/nvidia/gpus/%s/information", address);
}

void bt_fakesys_add_nodes(const bt_fakesys *fake, unsigned n)
{
    for (unsigned i = 0; i < n; i++) {
        char path[64];
        snprintf(path, sizeof(path), "sys/devices/system/node/node%u", i);
        bt_fakesys_folder(fake, path);
    }
}
