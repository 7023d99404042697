/* SPDX-License-Identifier: Apache-2.0 */
/* The loop backend's operations. Both ends may be used from different threads: everything that the
 * net shares is under its lock, which is never held while calling out. */
#include "transport/loop.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/timerfd.h>
#include <unistd.h>

#include "core/alloc.h"
#include "transport/loop_net.h"
#include "transport/seal.h"

static baton_status loop_create(const bt_transport_options *options, bt_transport **transport_p)
{
    if (options->loop_net == NULL)
        return bt_fail(BATON_ERR_INVALID_ARG, "loop: wanted a network in loop_net, found NULL");
    loop_transport *transport = bt_calloc(1, sizeof(*transport));
    if (transport == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "loop: no memory for a transport");
    transport->base.ops = &bt_loop_ops;
    transport->net = options->loop_net;
    transport->base.reaches_device = transport->net->reaches_device;
    *transport_p = &transport->base;
    return BATON_OK;
}

static void loop_destroy(bt_transport *base)
{
    loop_transport *transport = (loop_transport *)base;
    assert(transport->n_users == 0 && "workers or memories of the transport are still alive");
    bt_free(transport);
}

/* Packs `id`, and the region for a key. */
static baton_status pack_id(uint64_t id, const bt_memory *memory, uint8_t **bytes_p,
                            size_t *n_bytes)
{
    bt_seal seal = {.kind = memory != NULL ? BT_SEAL_KEY : BT_SEAL_ADDRESS,
                    .backend = BT_SEAL_LOOP,
                    .payload = (const uint8_t *)&id,
                    .payload_bytes = sizeof(id)};
    if (memory != NULL) {
        seal.base = (uint64_t)(uintptr_t)memory->base;
        seal.bytes = memory->bytes;
        seal.memory = memory->kind;
    }
    return bt_seal_pack(&seal, BT_RKEY_BYTES_MAX, bytes_p, n_bytes);
}

/* The id never leaves this process, so its byte order is the machine's. */
static baton_status open_id(bt_seal_kind kind, const void *bytes, size_t n_bytes, bt_seal *seal,
                            uint64_t *id)
{
    *seal = (bt_seal){.kind = kind, .backend = BT_SEAL_LOOP};
    BATON_TRY(bt_seal_open(bytes, n_bytes, seal));
    if (seal->payload_bytes != sizeof(*id))
        return bt_fail(BATON_ERR_INVALID_ARG, "loop: wanted an id of %zu bytes, found %zu",
                       sizeof(*id), seal->payload_bytes);
    memcpy(id, seal->payload, sizeof(*id));
    return BATON_OK;
}

static baton_status add_memory(bt_transport *base, void *block, size_t bytes,
                               baton_memory_kind kind, bool is_own, bt_memory **memory_p)
{
    loop_transport *transport = (loop_transport *)base;
    bt_loop_net *net = transport->net;
    loop_memory *memory = bt_calloc(1, sizeof(*memory));
    if (memory == NULL) {
        if (is_own)
            bt_free(block);
        return bt_fail(BATON_ERR_NO_MEMORY, "loop: no memory for a region");
    }
    memory->base = (bt_memory){.transport = base, .base = block, .bytes = bytes, .kind = kind};
    memory->is_own = is_own;
    bt_loop_lock(net);
    memory->id = net->next_id++;
    bt_loop_unlock(net);
    uint8_t *rkey;
    baton_status status = pack_id(memory->id, &memory->base, &rkey, &memory->base.rkey_bytes);
    if (status < 0) {
        bt_loop_free_memory(memory);
        return status;
    }
    memory->base.rkey = rkey;
    bt_loop_lock(net);
    memory->next = net->memories;
    net->memories = memory;
    transport->n_users++;
    bt_loop_unlock(net);
    *memory_p = &memory->base;
    return BATON_OK;
}

static baton_status loop_memory_alloc(bt_transport *transport, size_t bytes, baton_memory_kind kind,
                                      bt_memory **memory_p)
{
    void *block = bt_aligned_alloc(4096, bytes);
    if (block == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "loop: no memory for a region of %zu bytes", bytes);
    memset(block, 0, bytes);
    return add_memory(transport, block, bytes, kind, true, memory_p);
}

static baton_status loop_memory_register(bt_transport *transport, void *base, size_t bytes,
                                         baton_memory_kind kind, bt_memory **memory_p)
{
    return add_memory(transport, base, bytes, kind, false, memory_p);
}

static void loop_memory_free(bt_memory *base)
{
    loop_memory *memory = (loop_memory *)base;
    loop_transport *transport = (loop_transport *)base->transport;
    bt_loop_lock(transport->net);
    loop_memory **at = &transport->net->memories;
    while (*at != memory)
        at = &(*at)->next;
    *at = memory->next;
    transport->n_users--;
    bool is_mapped = memory->is_own && memory->is_mapped;
    if (is_mapped) {
        memory->next = transport->net->freed;
        transport->net->freed = memory;
    }
    bt_loop_unlock(transport->net);
    if (!is_mapped)
        bt_loop_free_memory(memory);
}

static baton_status loop_worker_create(bt_transport *base, bt_worker **worker_p)
{
    loop_transport *transport = (loop_transport *)base;
    bt_loop_net *net = transport->net;
    loop_worker *worker = bt_calloc(1, sizeof(*worker));
    if (worker == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "loop: no memory for a worker");
    worker->base.transport = base;
    worker->net = net;
    bt_loop_lock(net);
    worker->id = net->next_id++;
    bt_loop_unlock(net);
    uint8_t *address;
    baton_status status = pack_id(worker->id, NULL, &address, &worker->base.address_bytes);
    if (status < 0)
        goto fail_worker;
    worker->base.address = address;
    worker->fd = timerfd_create(CLOCK_MONOTONIC, TFD_CLOEXEC | TFD_NONBLOCK);
    if (worker->fd < 0) {
        status = bt_fail_errno(BATON_ERR_IO, errno, "loop: a timer to wake the worker");
        goto fail_address;
    }
    bt_loop_lock(net);
    worker->next = net->workers;
    net->workers = worker;
    transport->n_users++;
    bt_loop_unlock(net);
    *worker_p = &worker->base;
    return BATON_OK;

fail_address:
    bt_free(address);
fail_worker:
    bt_free(worker);
    return status;
}

/* Puts and flushes are calls of their own; the other operations are embedded in their endpoint. */
static void free_if_call(bt_op *op)
{
    if (op->kind == BT_EVENT_PUT || op->kind == BT_EVENT_FLUSH)
        bt_loop_call_free((loop_call *)op);
}

static void free_calls(bt_op_queue *queue)
{
    for (bt_op *op = bt_op_pop(queue); op != NULL; op = bt_op_pop(queue))
        free_if_call(op);
}

static void remove_worker(bt_loop_net *net, loop_worker *worker)
{
    loop_worker **at = &net->workers;
    while (*at != worker)
        at = &(*at)->next;
    *at = worker->next;
    if (!net->puts_are_mapped)
        bt_loop_drop_for(net, worker->id);
    for (uint32_t i = 0; i < net->n_links; i++)
        if (net->links[i]->target_id == worker->id && net->links[i]->endpoint != NULL)
            bt_loop_fail(net->links[i]->endpoint, BATON_ERR_UNREACHABLE,
                         "loop: the peer's worker is gone");
}

static void free_endpoint(loop_endpoint *endpoint)
{
    loop_endpoint **at = &((loop_worker *)endpoint->base.worker)->endpoints;
    while (*at != endpoint)
        at = &(*at)->next;
    *at = endpoint->next;
    bt_free(endpoint);
}

static void loop_worker_destroy(bt_worker *base)
{
    loop_worker *worker = (loop_worker *)base;
    bt_loop_net *net = worker->net;
    bt_loop_lock(net);
    remove_worker(net, worker);
    free_calls(&worker->done);
    bt_loop_notes_clear(&worker->received);
    bt_loop_notes_clear(&worker->reported);
    while (worker->endpoints != NULL) {
        loop_endpoint *endpoint = worker->endpoints;
        worker->endpoints = endpoint->next;
        if (!endpoint->is_closed)
            endpoint->link->endpoint = NULL;
        free_calls(&endpoint->posted);
        free_calls(&endpoint->flushes);
        bt_free(endpoint);
    }
    ((loop_transport *)base->transport)->n_users--;
    bt_loop_unlock(net);
    close(worker->fd);
    bt_free((void *)(uintptr_t)base->address);
    bt_free(worker);
}

static int loop_worker_fd(bt_worker *worker)
{
    return ((loop_worker *)worker)->fd;
}

static bool hangs(const loop_endpoint *endpoint)
{
    bt_loop_net *net = ((loop_worker *)endpoint->base.worker)->net;
    return bt_loop_faults_of(net, endpoint->link)->faults.hangs;
}

static bool has_posted(const loop_worker *worker)
{
    for (loop_endpoint *endpoint = worker->endpoints; endpoint != NULL; endpoint = endpoint->next)
        if (endpoint->posted.first != NULL && !hangs(endpoint))
            return true;
    return false;
}

/* Clears the fd, or sets it to when the next run is due. A manual clock is advanced by a test,
 * which then calls bt_loop_deliver. */
static void set_timer(bt_loop_net *net, loop_worker *worker)
{
    struct itimerspec timer = {0};
    const bt_loop_packet *first = net->in_flight.first;
    if (first != NULL && first->due_ns != BT_NEVER_NS &&
        net->clock->now_ns == bt_clock_monotonic.now_ns) {
        timer.it_value.tv_sec = (time_t)(first->due_ns / BT_NS_PER_S);
        timer.it_value.tv_nsec = (long)(first->due_ns % BT_NS_PER_S);
    }
    timerfd_settime(worker->fd, TFD_TIMER_ABSTIME, &timer, NULL);
}

static baton_status loop_worker_arm(bt_worker *base)
{
    loop_worker *worker = (loop_worker *)base;
    bt_loop_net *net = worker->net;
    bt_loop_lock(net);
    const bt_loop_packet *first = net->in_flight.first;
    bool is_busy = worker->done.first != NULL || worker->received.first != NULL ||
                   has_posted(worker) || (first != NULL && first->due_ns <= bt_now_ns(net->clock));
    if (!is_busy)
        set_timer(net, worker);
    bt_loop_unlock(net);
    return is_busy ? BATON_ERR_BUSY : BATON_OK;
}

/* Here the bytes leave local memory: whoever reuses it before the event spoils them. */
static void send_posted(bt_loop_net *net, loop_endpoint *endpoint)
{
    for (bt_op *op = bt_op_pop(&endpoint->posted); op != NULL; op = bt_op_pop(&endpoint->posted)) {
        bt_loop_packets packets = ((loop_call *)op)->packets;
        ((loop_call *)op)->packets = (bt_loop_packets){0};
        while (packets.first != NULL) {
            bt_loop_packet *packet = packets.first;
            packets.first = packet->next;
            bt_loop_copy(packet->local, packet->payload,
                         (const void *)(uintptr_t)packet->local_addr, packet->bytes);
            bt_loop_send(net, packet);
        }
        bt_loop_finish(endpoint, op);
    }
}

static uint32_t report_messages(loop_worker *worker, bt_event *events, uint32_t max)
{
    bt_loop_notes_clear(&worker->reported);
    uint32_t n = 0;
    while (n < max && worker->received.first != NULL) {
        bt_loop_note *note = bt_loop_note_pop(&worker->received);
        bt_loop_note_append(&worker->reported, note);
        events[n++] =
            (bt_event){.kind = BT_EVENT_MESSAGE, .bytes = note->bytes, .n_bytes = note->n_bytes};
    }
    return n;
}

static uint32_t loop_worker_progress(bt_worker *base, bt_event *events, uint32_t max)
{
    loop_worker *worker = (loop_worker *)base;
    bt_loop_net *net = worker->net;
    bt_loop_lock(net);
    for (loop_endpoint *endpoint = worker->endpoints; endpoint != NULL; endpoint = endpoint->next) {
        if (!hangs(endpoint))
            send_posted(net, endpoint);
    }
    bt_loop_deliver_due(net);
    uint32_t n = report_messages(worker, events, max);
    while (n < max && worker->done.first != NULL) {
        bt_op *op = bt_op_pop(&worker->done);
        bt_op_report(op, &events[n++]);
        if (op->kind == BT_EVENT_CLOSED)
            free_endpoint(op->owner);
        else
            free_if_call(op);
    }
    bt_loop_unlock(net);
    return n;
}

static baton_status loop_connect(bt_worker *base, const void *address, size_t address_bytes,
                                 uint64_t user_data, bt_endpoint **endpoint_p)
{
    loop_worker *worker = (loop_worker *)base;
    bt_loop_net *net = worker->net;
    bt_seal seal;
    uint64_t target_id = 0;
    BATON_TRY(open_id(BT_SEAL_ADDRESS, address, address_bytes, &seal, &target_id));
    loop_endpoint *endpoint = bt_calloc(1, sizeof(*endpoint));
    if (endpoint == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "loop: no memory for an endpoint");
    endpoint->base.worker = base;
    endpoint->failed = (bt_op){.kind = BT_EVENT_FAILED, .owner = endpoint, .user_data = user_data};
    endpoint->closed = (bt_op){.kind = BT_EVENT_CLOSED, .owner = endpoint};
    bt_loop_lock(net);
    baton_status status = bt_loop_add_link(net, target_id, &endpoint->link);
    if (status < 0) {
        bt_loop_unlock(net);
        bt_free(endpoint);
        return status;
    }
    endpoint->link->endpoint = endpoint;
    endpoint->next = worker->endpoints;
    worker->endpoints = endpoint;
    if (net->all.faults.unreachable || bt_loop_find_worker(net, target_id) == NULL)
        bt_loop_fail(endpoint, BATON_ERR_UNREACHABLE, "loop: nobody is at the address");
    bt_loop_unlock(net);
    *endpoint_p = &endpoint->base;
    return BATON_OK;
}

static void loop_close(bt_endpoint *base, bt_close_mode mode, uint64_t user_data)
{
    loop_endpoint *endpoint = (loop_endpoint *)base;
    bt_loop_net *net = ((loop_worker *)base->worker)->net;
    bt_loop_lock(net);
    assert(!endpoint->is_closing && endpoint->n_remotes == 0);
    endpoint->is_closing = true;
    endpoint->closed.user_data = user_data;
    if (mode == BT_CLOSE_FLUSH && endpoint->has_failed)
        bt_op_set_failure(&endpoint->closed, endpoint->failed.status, endpoint->failed.detail);
    endpoint->waits_to_close = mode == BT_CLOSE_FORCE && hangs(endpoint);
    if (mode == BT_CLOSE_FLUSH)
        bt_loop_try_close(endpoint);
    else if (!endpoint->waits_to_close)
        bt_loop_force(endpoint);
    bt_loop_unlock(net);
}

static void loop_path(bt_endpoint *base, bt_path *out)
{
    bt_loop_net *net = ((loop_worker *)base->worker)->net;
    *out = (bt_path){.transport = "loop", .device = "loop", .n_rails = 1};
    bt_loop_lock(net);
    out->puts_are_mapped = net->puts_are_mapped;
    out->puts_from_device = base->worker->transport->reaches_device;
    bt_loop_unlock(net);
}

static baton_status loop_import(bt_endpoint *base, const void *rkey, size_t rkey_bytes,
                                bt_remote **remote_p)
{
    bt_seal seal;
    uint64_t memory_id = 0;
    BATON_TRY(open_id(BT_SEAL_KEY, rkey, rkey_bytes, &seal, &memory_id));
    loop_remote *remote = bt_calloc(1, sizeof(*remote));
    if (remote == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "loop: no memory for a remote key");
    remote->base =
        (bt_remote){.endpoint = base, .base = seal.base, .bytes = seal.bytes, .kind = seal.memory};
    remote->memory_id = memory_id;
    ((loop_endpoint *)base)->n_remotes++;
    *remote_p = &remote->base;
    return BATON_OK;
}

static void loop_release_remote(bt_remote *base)
{
    ((loop_endpoint *)base->endpoint)->n_remotes--;
    bt_free(base);
}

static baton_status loop_map(bt_remote *base, uint64_t remote_addr, void **local_p)
{
    bt_loop_net *net = ((loop_worker *)base->endpoint->worker)->net;
    bt_loop_lock(net);
    loop_memory *memory = bt_loop_find_memory(net, ((loop_remote *)base)->memory_id);
    bool can_map = net->can_map && base->kind != BATON_MEMORY_CUDA_DEVICE && memory != NULL;
    if (can_map)
        memory->is_mapped = true;
    bt_loop_unlock(net);
    if (!can_map)
        return bt_fail(BATON_ERR_UNREACHABLE, "loop: the remote memory cannot be mapped here");
    *local_p = (void *)(uintptr_t)remote_addr;
    return BATON_OK;
}

/* There is nothing to fault in; it is counted. */
static bool loop_populate(bt_remote *base, uint64_t remote_addr, uint64_t bytes)
{
    (void)remote_addr;
    bt_loop_net *net = ((loop_worker *)base->endpoint->worker)->net;
    bt_loop_lock(net);
    const loop_memory *memory = bt_loop_find_memory(net, ((loop_remote *)base)->memory_id);
    bool is_mapped = memory != NULL && memory->is_mapped;
    net->stats.bytes_populated_total += is_mapped ? bytes : 0;
    bt_loop_unlock(net);
    return is_mapped;
}

/* All that faults decide about one run, fixed when it is posted. */
static void decide_fate(bt_loop_net *net, bt_loop_packet *packet, const bt_loop_faults *faults,
                        bool is_lost)
{
    uint64_t delay_ns = faults->delay_ns;
    if (faults->jitter_ns != 0)
        delay_ns += bt_loop_random(net) % faults->jitter_ns;
    uint64_t from_ns = bt_now_ns(net->clock);
    if (faults->bytes_per_s != 0) {
        uint64_t *busy_ns = &packet->link->busy_until_ns;
        from_ns = from_ns > *busy_ns ? from_ns : *busy_ns;
        from_ns += (uint64_t)((double)packet->bytes / (double)faults->bytes_per_s * 1e9);
        *busy_ns = from_ns;
    }
    packet->due_ns = bt_deadline_ns(from_ns, delay_ns);
    packet->order = faults->reorder ? bt_loop_random(net) : packet->seq;
    packet->is_lost = is_lost || bt_loop_random(net) % 100 < faults->drop_percent;
    if (bt_loop_random(net) % 100 < faults->duplicate_percent)
        packet->duplicate_ns = bt_deadline_ns(packet->due_ns, faults->duplicate_delay_ns);
    packet->is_stuck = faults->stuck;
    if (faults->stuck)
        packet->due_ns = BT_NEVER_NS;
}

/* One for each piece: each goes its own way. */
static bool make_packets_of(const bt_memory *local, const bt_run *run, uint64_t memory_id,
                            bt_loop_packets *packets)
{
    for (uint32_t i = 0; i < bt_run_count(run); i++) {
        size_t bytes;
        bt_loop_packet *packet = NULL;
        if (bt_add_size(sizeof(*packet), run->bytes, &bytes))
            packet = bt_calloc(1, bytes);
        if (packet == NULL)
            return false;
        packet->memory_id = memory_id;
        packet->local = local;
        packet->local_addr = bt_run_local(run, i);
        packet->remote_addr = bt_run_remote(run, i);
        packet->bytes = run->bytes;
        bt_loop_packet_append(packets, packet);
    }
    return true;
}

static baton_status make_packets(const bt_memory *local, const bt_run *runs, uint32_t n_runs,
                                 uint64_t memory_id, bt_loop_packets *packets)
{
    for (uint32_t i = 0; i < n_runs; i++) {
        if (!make_packets_of(local, &runs[i], memory_id, packets)) {
            bt_loop_packets_clear(packets);
            return bt_fail(BATON_ERR_NO_MEMORY, "loop: no memory for %u runs", n_runs);
        }
    }
    return BATON_OK;
}

/* With the net's lock. Errors: what the faults say. */
static baton_status post(loop_endpoint *endpoint, loop_call *call)
{
    bt_loop_net *net = ((loop_worker *)endpoint->base.worker)->net;
    bt_loop_fault_state *state = bt_loop_faults_of(net, endpoint->link);
    const bt_loop_faults *faults = &state->faults;
    uint64_t nth = ++state->n_puts;
    if (nth == faults->fail_nth_put ||
        (faults->fail_from_put != 0 && nth >= faults->fail_from_put)) {
        baton_status status = faults->fail_status < 0 ? faults->fail_status : BATON_ERR_TRANSPORT;
        if (faults->fail_in_call)
            return bt_fail(status, "loop: put %llu fails as ordered", (unsigned long long)nth);
        bt_op_set_failure(&call->op, status, "loop: the put fails as ordered");
        endpoint->link->has_failed_put = true;
        bt_loop_packets_clear(&call->packets);
    }
    for (bt_loop_packet *packet = call->packets.first; packet != NULL; packet = packet->next) {
        packet->link = endpoint->link;
        packet->seq = endpoint->link->next_seq++;
        decide_fate(net, packet, faults, nth == faults->drop_nth_put);
        endpoint->link->n_blocking++;
    }
    bt_op_push(&endpoint->posted, &call->op);
    return BATON_OK;
}

static baton_status call_on_dead_endpoint(void)
{
    return bt_fail(BATON_ERR_CLOSED, "loop: the endpoint has failed; wanted: close it");
}

static baton_status loop_put(bt_endpoint *base, bt_memory *local, bt_remote *remote,
                             const bt_run *runs, uint32_t n_runs, uint64_t user_data)
{
    loop_endpoint *endpoint = (loop_endpoint *)base;
    bt_loop_net *net = ((loop_worker *)base->worker)->net;
    loop_call *call = bt_calloc(1, sizeof(*call));
    if (call == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "loop: no memory for a put");
    call->op = (bt_op){.kind = BT_EVENT_PUT, .user_data = user_data};
    baton_status status =
        make_packets(local, runs, n_runs, ((loop_remote *)remote)->memory_id, &call->packets);
    if (status >= 0) {
        bt_loop_lock(net);
        status = endpoint->has_failed ? call_on_dead_endpoint() : post(endpoint, call);
        bt_loop_unlock(net);
    }
    if (status < 0)
        bt_loop_call_free(call);
    return status;
}

static baton_status loop_flush(bt_endpoint *base, uint64_t user_data)
{
    loop_endpoint *endpoint = (loop_endpoint *)base;
    bt_loop_net *net = ((loop_worker *)base->worker)->net;
    loop_call *call = bt_calloc(1, sizeof(*call));
    if (call == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "loop: no memory for a flush");
    call->op = (bt_op){.kind = BT_EVENT_FLUSH, .user_data = user_data};
    bt_loop_lock(net);
    bool has_failed = endpoint->has_failed;
    call->flush_seq = endpoint->link->next_seq;
    call->n_before = endpoint->link->n_blocking;
    if (!has_failed && call->n_before == 0 && endpoint->posted.first == NULL)
        bt_loop_finish(endpoint, &call->op);
    else if (!has_failed)
        bt_op_push(call->n_before != 0 ? &endpoint->flushes : &endpoint->posted, &call->op);
    bt_loop_unlock(net);
    if (has_failed) {
        bt_loop_call_free(call);
        return call_on_dead_endpoint();
    }
    return BATON_OK;
}

static baton_status make_note(const bt_loop_link *link, const void *bytes, size_t n_bytes,
                              bt_loop_packet *packet)
{
    bt_loop_note *note = bt_calloc(1, sizeof(*note) + n_bytes);
    if (note == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "loop: no memory for a message");
    note->seq = link->next_seq;
    note->n_before = link->n_blocking;
    note->n_bytes = n_bytes;
    memcpy(note->bytes, bytes, n_bytes);
    packet->note = note;
    return BATON_OK;
}

/* Sends one copy; the packet says when. With the net's lock. */
static baton_status send_copy(loop_endpoint *endpoint, const void *bytes, size_t n_bytes,
                              const bt_loop_packet *fate)
{
    bt_loop_link *link = endpoint->link;
    bt_loop_packet *packet = bt_calloc(1, sizeof(*packet));
    if (packet == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "loop: no memory for a message");
    *packet = *fate;
    baton_status status = make_note(link, bytes, n_bytes, packet);
    if (status < 0) {
        bt_free(packet);
        return status;
    }
    bt_loop_note_append(&link->notes, packet->note);
    bt_loop_send(((loop_worker *)endpoint->base.worker)->net, packet);
    return BATON_OK;
}

static baton_status loop_send(bt_endpoint *base, const void *bytes, size_t n_bytes)
{
    loop_endpoint *endpoint = (loop_endpoint *)base;
    bt_loop_net *net = ((loop_worker *)base->worker)->net;
    bt_loop_lock(net);
    if (endpoint->has_failed) {
        bt_loop_unlock(net);
        return call_on_dead_endpoint();
    }
    bt_loop_packet fate = {.link = endpoint->link, .seq = endpoint->link->next_seq};
    bt_loop_fault_state *state = bt_loop_faults_of(net, endpoint->link);
    decide_fate(net, &fate, &state->faults, ++state->n_messages == state->faults.drop_nth_message);
    bool is_repeated = fate.duplicate_ns != 0;
    fate.duplicate_ns = 0;
    baton_status status = BATON_OK;
    if (fate.is_lost || endpoint->link->has_failed_put)
        net->stats.messages_lost_total++;
    else
        status = send_copy(endpoint, bytes, n_bytes, &fate);
    if (status >= 0 && is_repeated && !fate.is_lost && !endpoint->link->has_failed_put)
        status = send_copy(endpoint, bytes, n_bytes, &fate);
    bt_loop_unlock(net);
    return status;
}

const bt_transport_ops bt_loop_ops = {
    .name = "loop",
    .create = loop_create,
    .destroy = loop_destroy,
    .memory_alloc = loop_memory_alloc,
    .memory_register = loop_memory_register,
    .memory_free = loop_memory_free,
    .worker_create = loop_worker_create,
    .worker_destroy = loop_worker_destroy,
    .worker_fd = loop_worker_fd,
    .worker_arm = loop_worker_arm,
    .worker_progress = loop_worker_progress,
    .connect = loop_connect,
    .close = loop_close,
    .path = loop_path,
    .import = loop_import,
    .release = loop_release_remote,
    .map = loop_map,
    .populate = loop_populate,
    .put = loop_put,
    .flush = loop_flush,
    .send = loop_send,
};
