/* SPDX-License-Identifier: Apache-2.0 */
/* The common suite over three lanes, each of which has a thread that drives a loop of its own. */
#include "transport/lane.h"
#include "transport/loop.h"
#include "transport/rails.h"
#include "transport_suite.h"

enum { N_LANES = 3 };

static bt_loop_net *nets[N_LANES];

static baton_status open_lanes(bt_transport **transport_p)
{
    bt_transport *lanes[N_LANES];
    for (uint32_t i = 0; i < N_LANES; i++) {
        const bt_transport_options options = {.backend = "loop", .loop_net = nets[i]};
        BATON_TRY(bt_transport_create(&options, &lanes[i]));
        BATON_TRY(bt_lane_create(lanes[i], &lanes[i]));
    }
    return bt_rails_join(lanes, N_LANES, transport_p);
}

int main(void)
{
    for (uint32_t i = 0; i < N_LANES; i++) {
        if (bt_loop_net_create(1 + i, NULL, &nets[i]) < 0)
            return 1;
        bt_loop_set_mapping(nets[i], true, false);
    }
    const bt_suite_backend backend = {.name = "lanes", .open = open_lanes, .can_map = true};
    int status = bt_transport_suite(&backend);
    for (uint32_t i = 0; i < N_LANES; i++)
        bt_loop_net_destroy(nets[i]);
    return status;
}
