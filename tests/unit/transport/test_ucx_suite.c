/* SPDX-License-Identifier: Apache-2.0 */
/* The common suite over UCX. An argument gives the transports; "no-tcp" turns tcp off instead,
 * which leaves shared memory between workers of one host. */
#include <string.h>

#include "transport_suite.h"

static const char *transports;
static bool no_tcp;

static baton_status open_ucx(bt_transport **transport_p)
{
    const bt_transport_options options = {
        .backend = "ucx", .transports = transports, .no_tcp = no_tcp};
    return bt_transport_create(&options, transport_p);
}

int main(int argc, char **argv)
{
    no_tcp = argc > 1 && strcmp(argv[1], "no-tcp") == 0;
    transports = argc > 1 && !no_tcp ? argv[1] : NULL;
    bool tcp_only = transports != NULL && strcmp(transports, "tcp") == 0;
    const bt_suite_backend backend = {.name = "ucx",
                                      .open = open_ucx,
                                      .can_map = !tcp_only,
                                      .puts_are_mapped = argc > 1 && !tcp_only};
    return bt_transport_suite(&backend);
}
