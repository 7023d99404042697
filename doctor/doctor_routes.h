/* SPDX-License-Identifier: Apache-2.0 */
/* Which way bytes would take for each pair of memory kinds, from here to a receiver on a machine
 * like this one, and why not a better one. The sender's own function chooses (sender/txpath.h),
 * without the measurement that decides between two that are possible; what may be chosen from is
 * found out here from what the machine has.
 * Thread rule: owner thread. */
#ifndef BT_DOCTOR_ROUTES_H
#define BT_DOCTOR_ROUTES_H
#include "doctor/doctor_facts.h"

enum { BT_DOCTOR_ROUTES_MAX = 12, BT_DOCTOR_ROUTE_BYTES = 160 };

typedef struct {
    baton_memory_kind from; /* HOST (pinned memory goes the same way) or CUDA_DEVICE */
    baton_memory_kind pool;
    bool same_host;
    const char *path;                /* "mapped", "put", "staged"; "" none */
    char how[BT_DOCTOR_ROUTE_BYTES]; /* "stores through posix" */
    char why[BT_DOCTOR_ROUTE_BYTES]; /* what stands between this and a better one; "" nothing */
} bt_doctor_route;

/* Host memory first; without GPUs only that. Returns how many. */
uint32_t bt_doctor_routes(const bt_doctor_facts *facts,
                          bt_doctor_route routes[BT_DOCTOR_ROUTES_MAX]);
/* "host", "cuda", "cuda_host": as memory_kind has it. */
const char *bt_doctor_memory_name(baton_memory_kind kind);

#endif
