/* SPDX-License-Identifier: Apache-2.0 */
/* What tests order: faults, cuts, releases, and a look at what is in flight. */
#include "transport/loop_net.h"

#include "core/alloc.h"

/* What has waited for a fault to be taken back goes on. */
static void end_hangs(bt_loop_net *net)
{
    for (uint32_t i = 0; i < net->n_links; i++) {
        loop_endpoint *endpoint = net->links[i]->endpoint;
        if (endpoint == NULL || bt_loop_faults_of(net, net->links[i])->faults.hangs)
            continue;
        if (endpoint->waits_to_close)
            bt_loop_force(endpoint);
        else if (endpoint->posted.first != NULL)
            bt_loop_wake((loop_worker *)endpoint->base.worker);
    }
}

baton_status bt_loop_set_faults(bt_loop_net *net, uint32_t link, const bt_loop_faults *faults)
{
    bt_loop_fault_state state = {0};
    if (faults != NULL)
        state.faults = *faults;
    bt_loop_lock(net);
    uint32_t n_links = net->n_links;
    if (link == BT_LOOP_ALL_LINKS) {
        net->all = state;
        for (uint32_t i = 0; i < n_links; i++)
            net->links[i]->has_faults = false;
    } else if (link < n_links) {
        net->links[link]->own = state;
        net->links[link]->has_faults = true;
    }
    end_hangs(net);
    bt_loop_unlock(net);
    if (link != BT_LOOP_ALL_LINKS && link >= n_links)
        return bt_fail(BATON_ERR_OUT_OF_RANGE, "loop: wanted one of %u links, found link %u",
                       n_links, link);
    return BATON_OK;
}

/* Stuck runs are due at the end of time and so at the end of the list; freed, they queue up again
 * in the order they had. */
void bt_loop_release(bt_loop_net *net, uint32_t link)
{
    bt_loop_lock(net);
    bt_loop_packets all = net->in_flight;
    net->in_flight = (bt_loop_packets){0};
    net->stats.n_in_flight = 0;
    uint64_t now_ns = bt_now_ns(net->clock);
    while (all.first != NULL) {
        bt_loop_packet *packet = all.first;
        all.first = packet->next;
        if (packet->is_stuck && (link == BT_LOOP_ALL_LINKS || packet->link->idx == link)) {
            packet->is_stuck = false;
            packet->due_ns = now_ns;
        }
        bt_loop_send(net, packet);
    }
    for (loop_worker *worker = net->workers; worker != NULL; worker = worker->next)
        bt_loop_wake(worker);
    bt_loop_unlock(net);
}

void bt_loop_cut(bt_loop_net *net, uint32_t link)
{
    bt_loop_lock(net);
    for (uint32_t i = 0; i < net->n_links; i++)
        if ((link == BT_LOOP_ALL_LINKS || i == link) && net->links[i]->endpoint != NULL)
            bt_loop_fail(net->links[i]->endpoint, BATON_ERR_UNREACHABLE, "loop: the link was cut");
    bt_loop_unlock(net);
}

void bt_loop_set_mapping(bt_loop_net *net, bool can_map, bool puts_are_mapped)
{
    bt_loop_lock(net);
    net->can_map = can_map;
    net->puts_are_mapped = puts_are_mapped;
    bt_loop_unlock(net);
}

void bt_loop_set_device(bt_loop_net *net, bool reaches_device)
{
    bt_loop_lock(net);
    net->reaches_device = reaches_device;
    bt_loop_unlock(net);
}

void bt_loop_deliver(bt_loop_net *net)
{
    bt_loop_lock(net);
    bt_loop_deliver_due(net);
    bt_loop_unlock(net);
}

uint64_t bt_loop_next_due_ns(bt_loop_net *net)
{
    bt_loop_lock(net);
    uint64_t due_ns = net->in_flight.first != NULL ? net->in_flight.first->due_ns : BT_NEVER_NS;
    bt_loop_unlock(net);
    return due_ns;
}

void bt_loop_get_stats(bt_loop_net *net, bt_loop_stats *out)
{
    bt_loop_lock(net);
    *out = net->stats;
    out->n_links = net->n_links;
    bt_loop_unlock(net);
}
