/* SPDX-License-Identifier: Apache-2.0 */
/* Small facts from /sys, /proc and /dev, below a root that tests put elsewhere. Nothing there is
 * trusted: reads are bounded, names and texts are checked, what is no regular file is not opened
 * for long (a pipe cannot make us wait), and loops of links end where the kernel ends them.
 *
 * Paths are relative to the root, as "sys/class/net/lo/mtu". What cannot be read is simply not
 * there: no call sets an error text.
 *
 * Thread rule: any thread. */
#ifndef BT_TRANSPORT_SYSFSREAD_H
#define BT_TRANSPORT_SYSFSREAD_H
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    BT_SYSFS_PATH_BYTES = 1024,
    BT_SYSFS_NAME_BYTES = 64,
    BT_SYSFS_FILE_BYTES = 64 * 1024, /* the most that is read of any file */
    BT_SYSFS_ENTRIES_MAX = 4096,     /* looked at in a folder */
};

typedef struct {
    char (*names)[BT_SYSFS_NAME_BYTES]; /* [n], in natural order: mlx5_2 before mlx5_10 */
    uint32_t n;
    bool is_cut; /* the folder has more than BT_SYSFS_ENTRIES_MAX entries */
} bt_sysfs_list;

/* root of the machine itself. */
#define BT_SYSFS_ROOT ""

/* The first line of a file that holds one value: without the spaces around it, bytes that cannot be
 * printed as '?'. False, and "" in text, when there is none or it does not fit. */
__attribute__((format(printf, 4, 5))) bool bt_sysfs_text(const char *root, char *text, size_t bytes,
                                                         const char *path, ...);
/* A whole number, decimal or 0x; nothing may follow it. False leaves *value. */
__attribute__((format(printf, 3, 4))) bool bt_sysfs_number(const char *root, int64_t *value,
                                                           const char *path, ...);
/* At most BT_SYSFS_FILE_BYTES of a file, 0-terminated; NULL when there is none. Freed with bt_free.
 */
__attribute__((format(printf, 2, 3))) char *bt_sysfs_file(const char *root, const char *path, ...);
/* Whether there is anything. */
__attribute__((format(printf, 2, 3))) bool bt_sysfs_exists(const char *root, const char *path, ...);
/* Whether this process may read and write it. */
__attribute__((format(printf, 2, 3))) bool bt_sysfs_is_open(const char *root, const char *path,
                                                            ...);
/* Names in a folder that are made of letters, digits and ._:-@ and fit; empty when there is no such
 * folder. Freed with bt_sysfs_list_free. */
__attribute__((format(printf, 3, 4))) void bt_sysfs_names(const char *root, bt_sysfs_list *list,
                                                          const char *path, ...);
void bt_sysfs_list_free(bt_sysfs_list *list);
/* Where a link leads, relative to the root. False when it leads nowhere or out of the root. */
__attribute__((format(printf, 4, 5))) bool bt_sysfs_resolve(const char *root, char *target,
                                                            size_t bytes, const char *path, ...);

#endif
