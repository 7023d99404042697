/* SPDX-License-Identifier: Apache-2.0 */
/* Whether this process may open more descriptors, and map more memory. Foreign libraries abort
 * where there is none (libzmq's threads, UCX's), so whoever is about to make them take some asks
 * first, and refuses with an error that names the limit.
 *
 * Thread rule: any thread. Others may take what was free a moment ago: ask for more than is needed.
 */
#ifndef BT_CORE_FDROOM_H
#define BT_CORE_FDROOM_H
#include <baton/status.h>
#include <stdbool.h>
#include <stddef.h>

enum { BT_FDROOM_MAX = 256, BT_FDRESERVE_MAX = 4 };

/* How many descriptors can be opened now, at most n (up to BT_FDROOM_MAX). Errno: kept. */
uint32_t bt_fdroom(uint32_t n);
/* Errors: OVERLOADED ("what: wanted n free descriptors, found ...", and what to do). */
baton_status bt_fdroom_require(uint32_t n, const char *what);

/* As many bytes of address space can be mapped in one piece. Errors: NO_MEMORY, with the limit. */
baton_status bt_memroom_require(size_t bytes, const char *what);

/* Descriptors kept for the moment when there are no others. {0} has none. Owner thread. */
typedef struct {
    uint32_t n;
    int fds[BT_FDRESERVE_MAX];
} bt_fdreserve;
/* As many as can be had, up to n of them. */
void bt_fdreserve_fill(bt_fdreserve *reserve, uint32_t n);
/* Gives n of them up, for what is about to be opened; false: there is none. */
bool bt_fdreserve_spend(bt_fdreserve *reserve, uint32_t n);

#endif
