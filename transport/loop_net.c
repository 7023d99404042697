/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/loop_net.h"

#include <string.h>
#include <sys/timerfd.h>

#include "core/alloc.h"

void bt_loop_lock(bt_loop_net *net)
{
    pthread_mutex_lock(&net->lock);
}

void bt_loop_unlock(bt_loop_net *net)
{
    pthread_mutex_unlock(&net->lock);
}

baton_status bt_loop_net_create(uint64_t seed, const bt_clock *clock, bt_loop_net **net_p)
{
    bt_loop_net *net = bt_calloc(1, sizeof(*net));
    if (net == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "loop: no memory for a network");
    pthread_mutex_init(&net->lock, NULL);
    net->clock = clock != NULL ? clock : &bt_clock_monotonic;
    net->rng = seed;
    net->next_id = 1;
    *net_p = net;
    return BATON_OK;
}

void bt_loop_net_destroy(bt_loop_net *net)
{
    if (net == NULL)
        return;
    bt_loop_packets_clear(&net->in_flight);
    for (uint32_t i = 0; i < net->n_links; i++) {
        bt_loop_notes_clear(&net->links[i]->notes);
        bt_free(net->links[i]);
    }
    bt_free(net->links);
    while (net->freed != NULL) {
        loop_memory *memory = net->freed;
        net->freed = memory->next;
        bt_loop_free_memory(memory);
    }
    pthread_mutex_destroy(&net->lock);
    bt_free(net);
}

/* splitmix64: small, and the same on every machine. */
uint64_t bt_loop_random(bt_loop_net *net)
{
    uint64_t z = (net->rng += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

bt_loop_fault_state *bt_loop_faults_of(bt_loop_net *net, bt_loop_link *link)
{
    return link->has_faults ? &link->own : &net->all;
}

void bt_loop_free_memory(loop_memory *memory)
{
    if (memory->is_own)
        bt_free(memory->base.base);
    bt_free((void *)(uintptr_t)memory->base.rkey);
    bt_free(memory);
}

loop_worker *bt_loop_find_worker(bt_loop_net *net, uint64_t id)
{
    for (loop_worker *worker = net->workers; worker != NULL; worker = worker->next)
        if (worker->id == id)
            return worker;
    return NULL;
}

loop_memory *bt_loop_find_memory(bt_loop_net *net, uint64_t id)
{
    for (loop_memory *memory = net->memories; memory != NULL; memory = memory->next)
        if (memory->id == id)
            return memory;
    return NULL;
}

baton_status bt_loop_add_link(bt_loop_net *net, uint64_t target_id, bt_loop_link **link_p)
{
    if (net->n_links == net->cap_links) {
        uint32_t cap = net->cap_links != 0 ? 2 * net->cap_links : 8;
        bt_loop_link **links = bt_realloc(net->links, cap, sizeof(bt_loop_link *));
        if (links == NULL)
            return bt_fail(BATON_ERR_NO_MEMORY, "loop: no memory for %u links", cap);
        net->links = links;
        net->cap_links = cap;
    }
    bt_loop_link *link = bt_calloc(1, sizeof(*link));
    if (link == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "loop: no memory for a link");
    link->idx = net->n_links;
    link->target_id = target_id;
    net->links[net->n_links++] = link;
    *link_p = link;
    return BATON_OK;
}

/* A packet goes behind all that are not later; most are the latest, so the search starts there. */
static void insert_sorted(bt_loop_packets *list, bt_loop_packet *packet)
{
    bt_loop_packet *after = list->last;
    while (after != NULL && (after->due_ns > packet->due_ns ||
                             (after->due_ns == packet->due_ns && after->order > packet->order)))
        after = after->prev;
    packet->prev = after;
    packet->next = after != NULL ? after->next : list->first;
    if (packet->next != NULL)
        packet->next->prev = packet;
    else
        list->last = packet;
    if (after != NULL)
        after->next = packet;
    else
        list->first = packet;
}

static void unlink_packet(bt_loop_packets *list, bt_loop_packet *packet)
{
    if (packet->prev != NULL)
        packet->prev->next = packet->next;
    else
        list->first = packet->next;
    if (packet->next != NULL)
        packet->next->prev = packet->prev;
    else
        list->last = packet->prev;
    packet->prev = packet->next = NULL;
}

void bt_loop_packet_append(bt_loop_packets *list, bt_loop_packet *packet)
{
    packet->prev = list->last;
    packet->next = NULL;
    if (list->last != NULL)
        list->last->next = packet;
    else
        list->first = packet;
    list->last = packet;
}

void bt_loop_packets_clear(bt_loop_packets *list)
{
    while (list->first != NULL) {
        bt_loop_packet *packet = list->first;
        unlink_packet(list, packet);
        bt_free(packet);
    }
}

void bt_loop_send(bt_loop_net *net, bt_loop_packet *packet)
{
    if (packet->is_lost) {
        net->stats.runs_lost_total++;
        bt_free(packet); /* n_blocking keeps counting it: a flush behind it never ends */
        return;
    }
    net->stats.n_in_flight++;
    insert_sorted(&net->in_flight, packet);
}

void bt_loop_note_append(bt_loop_notes *list, bt_loop_note *note)
{
    note->next = NULL;
    if (list->last != NULL)
        list->last->next = note;
    else
        list->first = note;
    list->last = note;
}

bt_loop_note *bt_loop_note_pop(bt_loop_notes *list)
{
    bt_loop_note *note = list->first;
    if (note == NULL)
        return NULL;
    list->first = note->next;
    if (list->first == NULL)
        list->last = NULL;
    return note;
}

void bt_loop_notes_clear(bt_loop_notes *list)
{
    for (bt_loop_note *note; (note = bt_loop_note_pop(list)) != NULL;)
        bt_free(note);
}

/* Hands over the messages whose turn it is. */
static void report_notes(bt_loop_net *net, bt_loop_link *link)
{
    loop_worker *target = bt_loop_find_worker(net, link->target_id);
    while (link->notes.first != NULL && link->notes.first->has_come &&
           link->notes.first->n_before == 0) {
        bt_loop_note *note = bt_loop_note_pop(&link->notes);
        if (target == NULL) {
            bt_free(note);
            continue;
        }
        bt_loop_note_append(&target->received, note);
        bt_loop_wake(target);
    }
}

/* A first copy has arrived: flushes and messages that were posted behind it wait for one less. */
static void count_arrival(bt_loop_net *net, const bt_loop_packet *packet)
{
    bt_loop_link *link = packet->link;
    link->n_blocking--;
    for (bt_loop_note *note = link->notes.first; note != NULL; note = note->next)
        note->n_before -= packet->seq < note->seq;
    report_notes(net, link);
    loop_endpoint *endpoint = link->endpoint;
    if (endpoint == NULL)
        return;
    bt_op_queue waiting = endpoint->flushes;
    endpoint->flushes = (bt_op_queue){0};
    for (bt_op *op = bt_op_pop(&waiting); op != NULL; op = bt_op_pop(&waiting)) {
        loop_call *flush = (loop_call *)op;
        if (packet->seq < flush->flush_seq && --flush->n_before == 0)
            bt_loop_finish(endpoint, op);
        else
            bt_op_push(&endpoint->flushes, op);
    }
    bt_loop_try_close(endpoint);
}

/* What a device refuses shows as bytes that are not there, as on a real network. */
void bt_loop_copy(const bt_memory *memory, void *to, const void *from, size_t bytes)
{
    if (memory == NULL || memory->kind != BATON_MEMORY_CUDA_DEVICE)
        memcpy(to, from, bytes);
    else
        bt_cuda_copy(atomic_load_explicit(&memory->transport->cuda, memory_order_acquire), to, from,
                     bytes);
}

static void deliver(bt_loop_net *net, bt_loop_packet *packet)
{
    if (packet->note != NULL) {
        packet->note->has_come = true;
        report_notes(net, packet->link);
        return;
    }
    loop_memory *memory = bt_loop_find_memory(net, packet->memory_id);
    if (memory == NULL) {
        net->stats.runs_to_freed_memory_total++;
        if (packet->link->endpoint != NULL)
            bt_loop_fail(packet->link->endpoint, BATON_ERR_TRANSPORT,
                         "loop: the remote memory is not registered any more");
        return;
    }
    /* Within the region: bt_endpoint_put has checked the run against the key's bounds. */
    bt_loop_copy(&memory->base,
                 (uint8_t *)memory->base.base +
                     (packet->remote_addr - (uint64_t)(uintptr_t)memory->base.base),
                 packet->payload, packet->bytes);
    net->stats.runs_delivered_total++;
    if (!packet->is_duplicate)
        count_arrival(net, packet);
}

void bt_loop_deliver_due(bt_loop_net *net)
{
    uint64_t now_ns = bt_now_ns(net->clock);
    while (net->in_flight.first != NULL && net->in_flight.first->due_ns <= now_ns) {
        bt_loop_packet *packet = net->in_flight.first;
        unlink_packet(&net->in_flight, packet);
        deliver(net, packet);
        if (packet->duplicate_ns != 0 && !packet->is_duplicate) {
            packet->is_duplicate = true;
            packet->due_ns = packet->duplicate_ns;
            insert_sorted(&net->in_flight, packet);
            continue;
        }
        net->stats.n_in_flight--;
        bt_free(packet);
    }
}

void bt_loop_drop_for(bt_loop_net *net, uint64_t worker_id)
{
    bt_loop_packet *next;
    for (bt_loop_packet *packet = net->in_flight.first; packet != NULL; packet = next) {
        next = packet->next;
        if (packet->link->target_id != worker_id)
            continue;
        unlink_packet(&net->in_flight, packet);
        bt_free(packet);
        net->stats.n_in_flight--;
        net->stats.runs_dropped_total++;
    }
    for (uint32_t i = 0; i < net->n_links; i++)
        if (net->links[i]->target_id == worker_id)
            bt_loop_notes_clear(&net->links[i]->notes);
}

void bt_loop_wake(loop_worker *worker)
{
    const struct itimerspec at_once = {.it_value = {.tv_nsec = 1}};
    timerfd_settime(worker->fd, TFD_TIMER_ABSTIME, &at_once, NULL);
}

void bt_loop_finish(loop_endpoint *endpoint, bt_op *op)
{
    loop_worker *worker = (loop_worker *)endpoint->base.worker;
    bt_op_push(&worker->done, op);
    bt_loop_wake(worker);
}

void bt_loop_call_free(loop_call *call)
{
    bt_loop_packets_clear(&call->packets);
    bt_free(call);
}

static void cancel_queue(loop_endpoint *endpoint, bt_op_queue *queue, baton_status status,
                         const char *detail)
{
    for (bt_op *op = bt_op_pop(queue); op != NULL; op = bt_op_pop(queue)) {
        bt_loop_packets *packets = &((loop_call *)op)->packets;
        for (bt_loop_packet *packet = packets->first; packet != NULL; packet = packet->next)
            endpoint->link->n_blocking--;
        bt_loop_packets_clear(packets);
        bt_op_set_failure(op, status, detail);
        bt_loop_finish(endpoint, op);
    }
}

void bt_loop_cancel_calls(loop_endpoint *endpoint, baton_status status, const char *detail)
{
    cancel_queue(endpoint, &endpoint->flushes, status, detail);
    cancel_queue(endpoint, &endpoint->posted, status, detail);
}

void bt_loop_fail(loop_endpoint *endpoint, baton_status status, const char *detail)
{
    if (endpoint->has_failed)
        return;
    if (endpoint->waits_to_close) {
        bt_loop_force(endpoint);
        return;
    }
    endpoint->has_failed = true;
    bt_op_set_failure(endpoint->is_closing ? &endpoint->closed : &endpoint->failed, status, detail);
    if (!endpoint->is_closing)
        bt_loop_finish(endpoint, &endpoint->failed);
    bt_loop_cancel_calls(endpoint, status, detail);
    bt_loop_try_close(endpoint);
}

void bt_loop_force(loop_endpoint *endpoint)
{
    bt_loop_cancel_calls(endpoint, BATON_ERR_CANCELED, "loop: the endpoint was closed");
    endpoint->has_failed = true; /* nothing is waited for */
    bt_loop_try_close(endpoint);
}

void bt_loop_try_close(loop_endpoint *endpoint)
{
    bool waits = !endpoint->has_failed &&
                 (endpoint->link->n_blocking != 0 || endpoint->posted.first != NULL ||
                  endpoint->flushes.first != NULL);
    if (!endpoint->is_closing || endpoint->is_closed || waits)
        return;
    endpoint->is_closed = true;
    endpoint->link->endpoint = NULL; /* what is still in flight reports to nobody */
    bt_loop_finish(endpoint, &endpoint->closed);
}
