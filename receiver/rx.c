/* SPDX-License-Identifier: Apache-2.0 */
/* Life of the state machine, what goes in and what comes out. */
#include "receiver/rxadmin.h"
#include "receiver/rxdevice.h"

#include "core/alloc.h"
#include "core/log.h"

#include <assert.h>
#include <sodium.h>
#include <string.h>

static void default_u32(uint32_t *value, uint32_t fallback)
{
    if (*value == 0)
        *value = fallback;
}

void bt_rx_defaults(baton_receiver_options *options)
{
    if (options->name == NULL)
        options->name = "receiver";
    if (options->host == NULL)
        options->host = "127.0.0.1";
    if (options->pool_bytes == 0)
        options->pool_bytes = UINT64_C(256) << 20;
    default_u32(&options->world, 1);
    default_u32(&options->n_regions, options->pool_base != NULL ? 1 : 4);
    default_u32(&options->max_queued, 1024);
    default_u32(&options->max_peers, 1024);
    default_u32(&options->max_deadline_ms, 3600000);
    default_u32(&options->timeouts.request_ms, 300000);
    default_u32(&options->timeouts.silent_ms, 5000);
    default_u32(&options->timeouts.heartbeat_ms, 500);
    default_u32(&options->timeouts.lease_ms, 30000);
    default_u32(&options->timeouts.pin_ms, 30000);
    default_u32(&options->timeouts.put_ms, 10000);
}

static baton_status check_options(const baton_receiver_options *options)
{
    if (strlen(options->name) > BT_PEER_NAME_BYTES_MAX)
        return bt_fail(BATON_ERR_INVALID_ARG, "receiver: name: wanted at most %d bytes, found %zu",
                       BT_PEER_NAME_BYTES_MAX, strlen(options->name));
    if (options->memory < BATON_MEMORY_HOST || options->memory > BATON_MEMORY_CUDA_HOST)
        return bt_fail(BATON_ERR_INVALID_ARG, "receiver: memory: found kind %d",
                       (int)options->memory);
    if (!(options->data.min_gbps >= 0 && options->data.min_gbps <= BT_RX_MIN_GBPS_MAX))
        return bt_fail(BATON_ERR_INVALID_ARG, "receiver: min_gbps: wanted 0 to %d, found %g",
                       BT_RX_MIN_GBPS_MAX, options->data.min_gbps);
    if (options->n_regions > BT_STORE_REGIONS_MAX / 2)
        return bt_fail(BATON_ERR_INVALID_ARG, "receiver: n_regions: wanted at most %d, found %u",
                       BT_STORE_REGIONS_MAX / 2, options->n_regions);
    if (options->pool_base != NULL && options->n_regions != 1)
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "receiver: n_regions: wanted 1 with a pool_base, found %u",
                       options->n_regions);
    return BATON_OK;
}

static void random_id(uint64_t *id)
{
    do {
        randombytes_buf(id, sizeof(*id));
    } while (*id == 0);
}

baton_status bt_rx_create(const baton_receiver_options *options, bt_transport *transport,
                          const bt_rx_out *out, bt_rx **rx_p)
{
    BATON_TRY(check_options(options));
    baton_key_chain root;
    uint64_t token_bytes, page_bytes;
    BATON_TRY(baton_key_chain_init(&options->layout, options->world, options->rank,
                                   options->key_seed, &root));
    BATON_TRY(baton_layout_token_bytes(&options->layout, &token_bytes));
    if (!bt_mul_u64(token_bytes, options->layout.chunk_tokens, &page_bytes))
        return bt_fail(BATON_ERR_INVALID_ARG, "receiver: layout: a chunk has over 2^64 bytes");

    bt_rx *rx = bt_calloc(1, sizeof(*rx));
    if (rx == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "receiver: state");
    baton_status status = BATON_ERR_NO_MEMORY;
    pthread_mutex_init(&rx->lock, NULL);
    bt_pack_init(&rx->writer, BT_FRAME_BYTES_MAX);
    rx->options = *options;
    rx->transport = transport;
    rx->out = *out;
    rx->root = root;
    rx->token_bytes = token_bytes;
    rx->page_bytes = page_bytes;
    rx->clock = options->data.clock != NULL ? options->data.clock : &bt_clock_monotonic;
    rx->next_ticket = 1;
    random_id(&rx->epoch);
    bt_process_self(&rx->self);
    rx->by_id = bt_calloc(BT_RX_BUCKETS, sizeof(*rx->by_id));
    rx->ended = bt_calloc(BT_RX_ENDED_MAX, sizeof(*rx->ended));
    rx->commands = bt_calloc(BT_RX_COMMANDS_MAX, sizeof(*rx->commands));
    if (rx->by_id == NULL || rx->ended == NULL || rx->commands == NULL) {
        bt_fail(BATON_ERR_NO_MEMORY, "receiver: tables");
        goto fail;
    }
    status = bt_rx_device_create(rx);
    if (status == BATON_OK)
        status = bt_rx_regions_create(rx);
    if (status != BATON_OK)
        goto fail;
    *rx_p = rx;
    return BATON_OK;

fail:
    bt_rx_destroy(rx);
    return status;
}

/* Tickets first, then peers (their workers may still write), then the memory. */
void bt_rx_destroy(bt_rx *rx)
{
    if (rx == NULL)
        return;
    uint64_t until_ns =
        bt_deadline_ns(bt_now_ns(&bt_clock_monotonic), rx->options.timeouts.put_ms * BT_NS_PER_MS);
    bt_rx_pins_finish(rx, until_ns);
    assert(rx->n_pins == 0);
    for (bt_rx_ticket *ticket = rx->first_ticket, *next; ticket != NULL; ticket = next) {
        next = ticket->next;
        if (ticket->state != BT_TICKET_REVOKED)
            bt_rx_ticket_fail(rx, ticket, BATON_ERR_CLOSED, "the receiver is closing");
    }
    while (rx->peers != NULL)
        bt_rx_peer_lost(rx, rx->peers, BATON_ERR_CLOSED, true);
    bt_rx_device_stop(rx, until_ns);
    bt_rx_regions_destroy(rx);
    bt_rx_device_destroy(rx);
    bt_store_destroy(rx->store);
    bt_tracelog_destroy(rx->traces);
    bt_pack_release(&rx->writer);
    bt_free(rx->ring_frame);
    bt_free(rx->commands);
    bt_free(rx->ended);
    bt_free(rx->by_id);
    pthread_mutex_destroy(&rx->lock);
    bt_free(rx);
}

void bt_rx_send(bt_rx *rx, bt_rx_port port, const bt_rx_route *route, bt_message *message)
{
    bool by_ring = rx->ring_peer != NULL && route == &rx->ring_peer->routes[BT_RX_ALLOC_PORT];
    if (route->n == 0 && !by_ring)
        return;
    message->v = BT_PROTOCOL_VERSION;
    message->epoch = rx->epoch;
    bt_pack_reset(&rx->writer);
    if (bt_message_encode(message, &rx->writer) != BATON_OK) {
        bt_error("receiver: %s not sent: %s", bt_message_type_name(message->type),
                 baton_last_error());
        return;
    }
    if (!(by_ring && bt_rx_ring_send(rx, route)) && route->n != 0)
        rx->out.send(rx->out.ctx, port, route, rx->writer.bytes, rx->writer.n);
}

/* Every request type is followed by its answer in the list of types. */
static bt_message_type answer_type(bt_message_type request)
{
    return (bt_message_type)(request + 1);
}

void bt_rx_answer(bt_rx *rx, bt_rx_port port, const bt_rx_route *route, const bt_message *request,
                  bt_message *answer)
{
    answer->type = answer_type(request->type);
    answer->id = request->id;
    answer->peer_epoch = request->epoch;
    bt_rx_send(rx, port, route, answer);
}

void bt_rx_answer_failure(bt_rx *rx, bt_rx_port port, const bt_rx_route *route,
                          const bt_message *request, baton_status status)
{
    const char *text = baton_last_error();
    bt_message answer = {.status = status, .text = bt_blob_of_text(text)};
    if (request->type == BT_MSG_ALLOC)
        answer.u.alloc_answer.outcome = BT_ALLOC_REFUSED;
    bt_rx_answer(rx, port, route, request, &answer);
}

static void on_init_port(bt_rx *rx, const bt_rx_route *route, const bt_message *message)
{
    if (message->type == BT_MSG_INIT)
        bt_rx_on_init(rx, route, message);
    else if (message->type == BT_MSG_MEMREG)
        bt_rx_on_memreg(rx, route, message);
    else
        rx->stats.messages_dropped_total++;
}

void bt_rx_on_alloc_port(bt_rx *rx, const bt_rx_route *route, const bt_message *message)
{
    /* A proxy asks by request and needs no INIT. */
    if (message->type == BT_MSG_RELEASE) {
        bt_rx_on_release(rx, route, message);
        return;
    }
    if (message->type == BT_MSG_STATUS) {
        bt_rx_on_status(rx, route, message);
        return;
    }
    static void (*const handlers[])(bt_rx *, bt_rx_peer *, const bt_message *) = {
        [BT_MSG_ALLOC] = bt_rx_on_alloc,         [BT_MSG_COMMIT] = bt_rx_on_commit,
        [BT_MSG_CANCEL] = bt_rx_on_cancel,       [BT_MSG_DRAINED] = bt_rx_on_drained,
        [BT_MSG_HEARTBEAT] = bt_rx_on_heartbeat,
    };
    if ((size_t)message->type >= sizeof(handlers) / sizeof(handlers[0]) ||
        handlers[message->type] == NULL) {
        rx->stats.messages_dropped_total++;
        return;
    }
    bt_rx_peer *peer = bt_rx_sender(rx, BT_RX_ALLOC_PORT, route, message);
    if (peer != NULL)
        handlers[message->type](rx, peer, message);
}

void bt_rx_handle(bt_rx *rx, bt_rx_port port, const bt_rx_route *route, const void *frame,
                  size_t bytes)
{
    bt_message message;
    baton_status status = bt_message_decode(frame, bytes, &message);
    pthread_mutex_lock(&rx->lock);
    rx->stats.messages_total++;
    if (status == BATON_ERR_VERSION_MISMATCH && message.type == BT_MSG_INIT) {
        bt_rx_refuse_init(rx, port, route, &message, status);
    } else if (status != BATON_OK) {
        rx->stats.messages_dropped_total++;
        bt_debug("receiver: frame dropped: %s", baton_last_error());
    } else if (port == BT_RX_INIT_PORT) {
        on_init_port(rx, route, &message);
    } else {
        bt_rx_on_alloc_port(rx, route, &message);
    }
    pthread_mutex_unlock(&rx->lock);
}

static void run_commands(bt_rx *rx)
{
    for (uint32_t i = 0; i < rx->n_commands; i++) {
        const bt_rx_command *command = &rx->commands[i];
        if (command->kind == BT_RX_CONSUMED)
            bt_rx_consume(rx, command);
        else if (command->kind == BT_RX_UNPINNED)
            bt_rx_trace_released(rx, command);
        else
            bt_rx_release_request(rx, command->request, strlen(command->request));
    }
    rx->n_commands = 0;
}

void bt_rx_handle_behind(bt_rx *rx, bt_rx_peer *peer, const void *frame, size_t bytes)
{
    bt_message message;
    rx->stats.messages_total++;
    if (bt_message_decode(frame, bytes, &message) != BATON_OK || message.type != BT_MSG_COMMIT) {
        rx->stats.messages_dropped_total++;
        bt_debug("receiver: frame behind the data dropped peer=%s", peer->name);
    } else if (message.epoch != peer->epoch || message.peer_epoch != rx->epoch || peer->is_deaf) {
        rx->stats.messages_stale_total++;
    } else {
        bt_rx_peer_heard(rx, peer);
        bt_rx_on_commit(rx, peer, &message);
    }
}

/* The target side of one-sided writes has no completions of its own; progress serves the transport
 * (tcp needs it to move bytes), and a failed endpoint shows as the peer's silence or exit. True:
 * the peer said something. */
static bool progress_worker(bt_rx *rx, bt_rx_peer *peer)
{
    enum { MAX_EVENTS = 16, MAX_ROUNDS = 16 }; /* of one peer: others and timers have their turn */
    bt_event events[MAX_EVENTS];
    uint32_t n = MAX_EVENTS;
    bool has_spoken = false;
    for (uint32_t round = 0; round < MAX_ROUNDS && n == MAX_EVENTS; round++) {
        n = bt_worker_progress(peer->worker, events, MAX_EVENTS);
        for (uint32_t i = 0; i < n; i++) {
            if (events[i].kind != BT_EVENT_MESSAGE)
                continue;
            has_spoken = peer->is_fed = true;
            bt_rx_handle_behind(rx, peer, events[i].bytes, events[i].n_bytes);
        }
    }
    return has_spoken;
}

/* A look at a worker may be a system call: at more of them the poll set is cheaper, which names
 * those that have something. */
enum { FED_PEERS_MAX = 4 };

static bool is_worth_a_look(const bt_rx *rx)
{
    uint32_t n_fed = 0;
    for (const bt_rx_peer *peer = rx->peers; peer != NULL; peer = peer->next)
        n_fed += peer->is_fed;
    return n_fed > 0 && n_fed <= FED_PEERS_MAX;
}

bool bt_rx_look(bt_rx *rx)
{
    bool rings = bt_rx_rings_wait(rx), workers = is_worth_a_look(rx), found = rings;
    if (!rings && !workers)
        return false;
    pthread_mutex_lock(&rx->lock);
    if (rings)
        run_commands(rx); /* they may free pages for what is asked */
    for (bt_rx_peer *peer = rx->peers; peer != NULL; peer = peer->next) {
        if (rings)
            bt_rx_ring_serve(rx, peer);
        if (workers && peer->is_fed)
            found |= progress_worker(rx, peer);
    }
    pthread_mutex_unlock(&rx->lock);
    return found;
}

uint64_t bt_rx_progress(bt_rx *rx)
{
    pthread_mutex_lock(&rx->lock);
    uint64_t now_ns = bt_now_ns(rx->clock);
    run_commands(rx); /* they may free pages for what is asked next */
    for (bt_rx_peer *peer = rx->peers; peer != NULL; peer = peer->next)
        bt_rx_ring_serve(rx, peer);
    for (bt_rx_peer *peer = rx->peers; peer != NULL; peer = peer->next)
        progress_worker(rx, peer);
    bt_rx_device_progress(rx);
    bt_rx_tickets_tick(rx, now_ns);
    bt_rx_peers_tick(rx, now_ns);
    bt_rx_pins_tick(rx, now_ns);
    bt_rx_regions_tick(rx);
    bt_rx_pump_queue(rx);
    uint64_t device_ns = bt_rx_device_wake_ns(rx, now_ns);
    bool is_idle = rx->n_peers == 0 && rx->n_tickets == 0 && rx->n_pins == 0 && rx->n_debtors == 0;
    pthread_mutex_unlock(&rx->lock);
    if (is_idle)
        return BT_NEVER_NS;
    uint64_t wake_ns = bt_deadline_ns(now_ns, rx->options.timeouts.heartbeat_ms * BT_NS_PER_MS);
    return device_ns < wake_ns ? device_ns : wake_ns;
}

bool bt_rx_arm(bt_rx *rx)
{
    bool armed = true;
    pthread_mutex_lock(&rx->lock);
    for (bt_rx_peer *peer = rx->peers; peer != NULL && armed; peer = peer->next)
        armed = bt_worker_arm(peer->worker) == BATON_OK;
    armed = armed && rx->n_commands == 0 && bt_rx_rings_sleep(rx);
    pthread_mutex_unlock(&rx->lock);
    return armed;
}

void bt_rx_disarm(bt_rx *rx)
{
    for (bt_rx_peer *peer = rx->peers; peer != NULL; peer = peer->next)
        bt_framering_end_sleep(&peer->from_sender);
}

void bt_rx_peer_exited(bt_rx *rx, bt_rx_peer *peer)
{
    pthread_mutex_lock(&rx->lock);
    bt_rx_ring_serve(rx, peer); /* its last words */
    bt_rx_peer_lost(rx, peer, BATON_ERR_PEER_GONE, true);
    pthread_mutex_unlock(&rx->lock);
}
