/* SPDX-License-Identifier: Apache-2.0 */
/* A machine made of files: a folder of its own with sys/, proc/ and dev/ as transport/sysfsread.h
 * reads them. Gone with bt_fakesys_remove. Thread rule: the test's thread. */
#ifndef BT_TESTS_FAKESYS_H
#define BT_TESTS_FAKESYS_H
#include "support/test.h"

typedef struct {
    char root[64];
} bt_fakesys;

void bt_fakesys_make(bt_fakesys *fake);
void bt_fakesys_remove(bt_fakesys *fake);

/* A file with text and a newline, and the folders above it. */
__attribute__((format(printf, 3, 4))) void bt_fakesys_file(const bt_fakesys *fake, const char *text,
                                                           const char *path, ...);
/* A file of n times the byte. */
void bt_fakesys_huge(const bt_fakesys *fake, char byte, size_t n, const char *path);
/* A link at path that leads to target, which is relative to the root. */
void bt_fakesys_link(const bt_fakesys *fake, const char *target, const char *path);
/* A link at path with exactly this target. */
void bt_fakesys_raw_link(const bt_fakesys *fake, const char *target, const char *path);
void bt_fakesys_folder(const bt_fakesys *fake, const char *path);

typedef struct {
    const char *name;  /* "mlx5_0" */
    const char *place; /* folder in the device tree, "pci0000:00/0000:00:01.0/0000:01:00.0"; NULL: a
                          virtual device */
    const char *numa;  /* "0"; NULL: no such file */
    const char *state; /* of port 1, NULL: "4: ACTIVE" */
    const char *rate;  /* NULL: "400 Gb/sec (4X NDR)" */
    const char *layer; /* NULL: "InfiniBand" */
    unsigned node;     /* uverbs number */
    bool without_node; /* no /dev/infiniband/uverbsN */
} bt_fakesys_rdma;

/* One port, one GID. */
void bt_fakesys_add_rdma(const bt_fakesys *fake, const bt_fakesys_rdma *rdma);
/* place: as above; its last part is the address. */
void bt_fakesys_add_gpu(const bt_fakesys *fake, const char *place, const char *numa);
void bt_fakesys_add_nodes(const bt_fakesys *fake, unsigned n);

#endif
