/* SPDX-License-Identifier: Apache-2.0 */
/* The common suite over UCX. An argument gives the transports; "no-tcp" turns tcp off instead,
 * which leaves shared memory between workers of one host, and "lanes" takes three connections over
 * tcp. Two more give RDMA devices, which the ends of a pair take in turns. */
#include <stdio.h>
#include <string.h>

#include "transport/ucx_state.h"
#include "transport_suite.h"

static const char *transports;
static bool no_tcp, has_lanes;
static const char *const *devices; /* [2]; NULL: the default */
static unsigned n_opened;

static baton_status open_ucx(bt_transport **transport_p)
{
    const bt_transport_options options = {.backend = "ucx",
                                          .data_devices =
                                              devices != NULL ? &devices[n_opened++ % 2] : NULL,
                                          .n_data_devices = devices != NULL,
                                          .transports = transports,
                                          .no_tcp = no_tcp,
                                          .n_lanes = has_lanes ? 3 : 0};
    return bt_transport_create(&options, transport_p);
}

int main(int argc, char **argv)
{
    no_tcp = argc > 1 && strcmp(argv[1], "no-tcp") == 0;
    has_lanes = argc > 1 && strcmp(argv[1], "lanes") == 0;
    if (has_lanes && bt_ucx_is_older(14)) {
        puts("skipped: UCX before 1.14 ends the target's process when a writer goes while it is "
             "connecting, and a lane's thread connects without being asked");
        return 77;
    }
    transports = has_lanes ? "tcp" : argc > 1 && !no_tcp ? argv[1] : NULL;
    devices = argc > 3 ? (const char *const *)&argv[2] : NULL;
    bool is_net = devices != NULL || (transports != NULL && strcmp(transports, "tcp") == 0);
    const bt_suite_backend backend = {.name = "ucx",
                                      .open = open_ucx,
                                      .can_map = !is_net,
                                      .puts_are_mapped = argc > 1 && !is_net};
    return bt_transport_suite(&backend);
}
