/* SPDX-License-Identifier: Apache-2.0 */
/* Who a process is, in a way that another process on the same host can check, and how to notice
 * that it has exited: a pidfd becomes readable at once, whatever the process was doing.
 *
 * Thread rule: any thread. */
#ifndef BT_CORE_PROCESS_H
#define BT_CORE_PROCESS_H
#include <baton/status.h>

enum { BT_BOOT_ID_BYTES = 64 };

typedef struct {
    char boot[BT_BOOT_ID_BYTES]; /* of the host: changes with every boot; "" when unknown */
    uint64_t pid_ns;             /* inode of the pid namespace; 0 when unknown */
    uint64_t start;              /* clock ticks after boot: tells a reused pid apart */
    uint32_t pid;                /* in that namespace */
    uint32_t uid;                /* effective, in user_ns; known when ipc_ns is not 0 */
    /* Inodes of namespaces that decide whether memory can be shared; 0 when unknown. */
    uint64_t ipc_ns, mnt_ns, user_ns;
} bt_process;

void bt_process_self(bt_process *self);
/* A pidfd of the process, to be polled for reading and closed by the caller. Errors: UNREACHABLE
 * (another host or pid namespace, or a kernel without pidfds: it cannot be watched from here),
 * PEER_GONE (no such process any more). */
baton_status bt_process_watch(const bt_process *process, int *pidfd);
/* Both run on one host, as far as can be told. */
int bt_process_same_host(const bt_process *a, const bt_process *b);

#endif
