/* SPDX-License-Identifier: Apache-2.0 */
/* The descriptors that an owner sleeps on (epoll, level-triggered, readable), each with a flag that
 * says whether it was readable. Its own descriptor can be polled by others.
 *
 * Thread rule: owner thread. */
#ifndef BT_CORE_POLLSET_H
#define BT_CORE_POLLSET_H
#include <baton/status.h>
#include <stdbool.h>
#include <stdint.h>

typedef struct bt_pollset bt_pollset;

/* Errors: NO_MEMORY, IO. */
baton_status bt_pollset_create(bt_pollset **set_p);
void bt_pollset_destroy(bt_pollset *set); /* NULL is allowed. */
int bt_pollset_fd(const bt_pollset *set); /* Borrowed until destroy. */
/* Waits set *is_readable and never clear it; borrowed until remove. Errors: IO, NO_MEMORY. */
baton_status bt_pollset_add(bt_pollset *set, int fd, bool *is_readable);
/* Before the fd is closed. */
void bt_pollset_remove(bt_pollset *set, int fd);
/* Waits until now_ns reaches until_ns (BT_NEVER_NS: for ever) or a descriptor is readable; returns
 * how many flags were set. The rest of very many are for the next wait. */
uint32_t bt_pollset_wait(bt_pollset *set, uint64_t now_ns, uint64_t until_ns);
/* The milliseconds from now to until, rounded up; -1 for BT_NEVER_NS, as poll takes it. */
int bt_wait_ms(uint64_t now_ns, uint64_t until_ns);

#endif
