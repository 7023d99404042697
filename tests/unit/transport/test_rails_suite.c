/* SPDX-License-Identifier: Apache-2.0 */
/* The common suite over three rails, each of which is a loop of its own. */
#include "transport/loop.h"
#include "transport/rails.h"
#include "transport_suite.h"

enum { N_RAILS = 3 };

static bt_loop_net *nets[N_RAILS];

static baton_status open_rails(bt_transport **transport_p)
{
    bt_transport *rails[N_RAILS];
    for (uint32_t i = 0; i < N_RAILS; i++) {
        const bt_transport_options options = {.backend = "loop", .loop_net = nets[i]};
        BATON_TRY(bt_transport_create(&options, &rails[i]));
    }
    return bt_rails_join(rails, N_RAILS, transport_p);
}

int main(void)
{
    for (uint32_t i = 0; i < N_RAILS; i++) {
        if (bt_loop_net_create(1 + i, NULL, &nets[i]) < 0)
            return 1;
        bt_loop_set_mapping(nets[i], true, false);
    }
    const bt_suite_backend backend = {.name = "rails", .open = open_rails, .can_map = true};
    int status = bt_transport_suite(&backend);
    for (uint32_t i = 0; i < N_RAILS; i++)
        bt_loop_net_destroy(nets[i]);
    return status;
}
