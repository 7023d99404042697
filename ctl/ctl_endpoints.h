/* SPDX-License-Identifier: Apache-2.0 */
/* Who can be asked.
 * Thread rule: owner thread. */
#ifndef BT_CTL_ENDPOINTS_H
#define BT_CTL_ENDPOINTS_H
#include "ctl/ctl_options.h"

enum { BT_CTL_ADDRESS_BYTES = 256 };

typedef struct {
    uint32_t n;
    char at[BT_CTL_ENDPOINTS_MAX][BT_CTL_ADDRESS_BYTES];
} bt_ctl_endpoints;

/* Those of --at, else the sockets in the runtime folder that somebody listens at, by name. Errors:
 * NOT_FOUND (with what to do), INVALID_ARG. */
baton_status bt_ctl_endpoints_find(const bt_ctl_options *options, bt_ctl_endpoints *endpoints);

#endif
