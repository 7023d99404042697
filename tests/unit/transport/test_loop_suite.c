/* SPDX-License-Identifier: Apache-2.0 */
/* The common suite over the loop transport. */
#include "transport/loop.h"
#include "transport_suite.h"

static bt_loop_net *net;

static baton_status open_loop(bt_transport **transport_p)
{
    const bt_transport_options options = {.backend = "loop", .loop_net = net};
    return bt_transport_create(&options, transport_p);
}

int main(void)
{
    if (bt_loop_net_create(1, NULL, &net) < 0)
        return 1;
    bt_loop_set_mapping(net, true, false);
    const bt_suite_backend backend = {.name = "loop", .open = open_loop, .can_map = true};
    int status = bt_transport_suite(&backend);
    bt_loop_net_destroy(net);
    return status;
}
