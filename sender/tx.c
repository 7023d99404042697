/* SPDX-License-Identifier: Apache-2.0 */
/* Life of the state machine, what goes in and what comes out. */
#include "sender/txadmin.h"
#include "sender/txcopy.h"
#include "sender/txdevice.h"
#include "sender/txlayers.h"

#include "core/alloc.h"
#include "core/log.h"

#include <inttypes.h>
#include <sodium.h>
#include <string.h>
#include <unistd.h>

enum {
    PUSH_ROUNDS = 64,
    COPY_ROUNDS = 16,
    COPY_NS = 1000000, /* of turns that only copy, before the sockets and the transport are asked */
};

static void default_u32(uint32_t *value, uint32_t fallback)
{
    if (*value == 0)
        *value = fallback;
}

void bt_tx_defaults(baton_sender_options *options)
{
    if (options->name == NULL)
        options->name = "sender";
    default_u32(&options->world, 1);
    default_u32(&options->staging_chunks, 8);
    default_u32(&options->copy_threads, 1);
    default_u32(&options->layerwise_min_tokens, 64);
    default_u32(&options->timeouts.connect_ms, 5000);
    default_u32(&options->timeouts.init_ms, 5000);
    default_u32(&options->timeouts.alloc_ms, 5000);
    default_u32(&options->timeouts.put_ms, 10000);
    default_u32(&options->timeouts.flush_ms, 10000);
    default_u32(&options->timeouts.commit_ms, 10000);
    default_u32(&options->timeouts.request_ms, 300000);
}

baton_status bt_tx_create(const baton_sender_options *options, bt_transport *transport,
                          const bt_tx_out *out, bt_tx **tx_p)
{
    baton_key_chain root;
    uint64_t token_bytes;
    if (!(options->data.min_gbps >= 0 && options->data.min_gbps <= BT_TX_MIN_GBPS_MAX))
        return bt_fail(BATON_ERR_INVALID_ARG, "sender: min_gbps: wanted 0 to %d, found %g",
                       BT_TX_MIN_GBPS_MAX, options->data.min_gbps);
    if (options->path == BATON_PATH_MAPPED && options->data.require_rdma)
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "sender: path: wanted auto, put or staged beside require_rdma, found "
                       "mapped");
    if (strlen(options->name) > BT_PEER_NAME_BYTES_MAX)
        return bt_fail(BATON_ERR_INVALID_ARG, "sender: name: wanted at most %d bytes, found %zu",
                       BT_PEER_NAME_BYTES_MAX, strlen(options->name));
    BATON_TRY(baton_key_chain_init(&options->layout, options->world, options->rank,
                                   options->key_seed, &root));
    BATON_TRY(baton_layout_token_bytes(&options->layout, &token_bytes));

    bt_tx *tx = bt_calloc(1, sizeof(*tx));
    if (tx == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "sender: state");
    pthread_mutex_init(&tx->inbox.lock, NULL);
    pthread_mutex_init(&tx->stats_lock, NULL);
    bt_pack_init(&tx->writer, BT_FRAME_BYTES_MAX);
    tx->inbox.last = &tx->inbox.first;
    tx->inbox.next_transfer = 1;
    tx->next_id = 1;
    tx->options = *options;
    tx->out = *out;
    tx->transport = transport;
    tx->root = root;
    tx->token_bytes = token_bytes;
    tx->page_bytes = token_bytes * options->layout.chunk_tokens;
    tx->clock = options->data.clock != NULL ? options->data.clock : &bt_clock_monotonic;
    bt_process_self(&tx->self);
    do {
        randombytes_buf(&tx->epoch, sizeof(tx->epoch));
    } while (tx->epoch == 0);
    tx->jitter = tx->epoch;
    bt_tx_measure_defaults(tx);
    baton_status status = bt_eventqueue_create(sizeof(bt_tx_event), &tx->events);
    if (status == BATON_OK)
        status = bt_worker_create(transport, &tx->worker);
    if (status == BATON_OK && options->copy_threads > 1)
        status = bt_tx_copies_create(options->copy_threads, &tx->copies);
    if (status != BATON_OK) {
        bt_tx_destroy(tx);
        return status;
    }
    *tx_p = tx;
    return BATON_OK;
}

static void free_peer(bt_tx *tx, bt_tx_peer *peer)
{
    for (uint32_t i = 0; i < peer->n_regions; i++)
        bt_remote_release(peer->regions[i].remote);
    bt_tx_measure_stop(&peer->measure);
    bt_tx_ring_close(peer);
    /* One that is being closed goes with its worker. */
    if (peer->endpoint != NULL && peer->state != BT_TX_PEER_CLOSING)
        bt_endpoint_close(peer->endpoint, BT_CLOSE_FORCE, 0);
    tx->out.close(tx->out.ctx, peer);
    if (peer->pidfd >= 0)
        close(peer->pidfd);
    bt_free(peer);
}

static void bury_dead(bt_tx *tx)
{
    while (tx->dead != NULL) {
        bt_tx_transfer *transfer = tx->dead;
        tx->dead = transfer->hash_next;
        bt_tx_transfer_free(transfer);
    }
}

/* Frees without reporting; a shell that wants every transfer reported calls bt_tx_close first. */
void bt_tx_destroy(bt_tx *tx)
{
    if (tx == NULL)
        return;
    for (bt_tx_command *command; (command = bt_tx_next_command(tx)) != NULL;) {
        if (command->kind == BT_TX_BEGIN)
            bt_tx_transfer_free(command->transfer);
        bt_tx_command_free(command);
    }
    while (tx->pending != NULL)
        bt_tx_pending_drop(tx, tx->pending);
    for (bt_tx_transfer *transfer = tx->first, *next; transfer != NULL; transfer = next) {
        next = transfer->next;
        bt_tx_transfer_free(transfer);
    }
    bury_dead(tx);
    for (bt_tx_peer *peer = tx->peers, *next; peer != NULL; peer = next) {
        next = peer->next;
        free_peer(tx, peer);
    }
    bt_worker_destroy(tx->worker);
    bt_tx_device_destroy(tx->device);
    bt_tx_copies_destroy(tx->copies);
    for (uint32_t i = 0; i < tx->n_registered; i++)
        bt_memory_free(tx->registered[i].memory);
    bt_memory_free(tx->staging);
    bt_memory_free(tx->measure_memory);
    bt_free(tx->free_slots);
    bt_tx_events_destroy(tx);
    bt_tracelog_destroy(tx->traces);
    bt_pack_release(&tx->writer);
    bt_free(tx->ring_frame);
    pthread_mutex_destroy(&tx->inbox.lock);
    pthread_mutex_destroy(&tx->stats_lock);
    bt_free(tx);
}

void bt_tx_stat(bt_tx *tx, uint64_t *counter, uint64_t n)
{
    pthread_mutex_lock(&tx->stats_lock);
    *counter += n;
    pthread_mutex_unlock(&tx->stats_lock);
}

void bt_tx_get_stats(bt_tx *tx, baton_sender_stats *stats)
{
    pthread_mutex_lock(&tx->stats_lock);
    *stats = tx->stats;
    pthread_mutex_unlock(&tx->stats_lock);
    pthread_mutex_lock(&tx->inbox.lock);
    stats->transfers_live = tx->inbox.n_live;
    pthread_mutex_unlock(&tx->inbox.lock);
}

baton_status bt_tx_encode(bt_tx *tx, bt_message *message)
{
    message->v = BT_PROTOCOL_VERSION;
    message->epoch = tx->epoch;
    bt_pack_reset(&tx->writer);
    return bt_message_encode(message, &tx->writer);
}

void bt_tx_send(bt_tx *tx, bt_tx_peer *peer, bt_tx_port port, bt_message *message)
{
    message->peer_epoch = peer->epoch;
    if (bt_tx_encode(tx, message) == BATON_OK)
        tx->out.send(tx->out.ctx, peer, port, tx->writer.bytes, tx->writer.n);
    else
        bt_error("sender: %s not sent: %s", bt_message_type_name(message->type),
                 baton_last_error());
}

static void on_transfer_answer(bt_tx *tx, bt_tx_pending *pending, const bt_message *message)
{
    bt_tx_transfer *transfer = pending->transfer;
    if (message->type == BT_MSG_ALLOC_ANSWER && transfer != NULL)
        bt_tx_on_alloc_answer(tx, transfer, message);
    else if (message->type == BT_MSG_COMMIT_ANSWER && transfer != NULL)
        bt_tx_on_commit_answer(tx, transfer, message);
    else
        bt_tx_pending_drop(tx, pending); /* of CANCEL or RELEASE: nobody waits for it */
}

static void on_answer(bt_tx *tx, bt_tx_peer *peer, const bt_message *message)
{
    bt_tx_pending *pending = bt_tx_pending_find(tx, peer, message->id);
    if (pending == NULL || message->type != (bt_message_type)(pending->type + 1)) {
        bt_tx_stat(tx, &tx->stats.messages_stale_total, 1);
    } else if (message->type == BT_MSG_INIT_ANSWER) {
        bt_tx_on_init_answer(tx, peer, message);
    } else if (message->status == BATON_ERR_STALE && message->epoch != peer->epoch) {
        bt_tx_peer_down(tx, peer, BATON_ERR_PEER_RESTARTED, "the receiver has restarted");
    } else if (message->type == BT_MSG_MEMREG_ANSWER) {
        bt_tx_on_memreg_answer(tx, peer, message);
    } else {
        on_transfer_answer(tx, pending, message);
    }
}

void bt_tx_handle(bt_tx *tx, bt_tx_peer *peer, bt_tx_port port, const void *frame, size_t bytes)
{
    (void)port;
    bt_message message;
    baton_status status = bt_message_decode(frame, bytes, &message);
    char text[BT_ERROR_TEXT_BYTES];
    if (status == BATON_ERR_VERSION_MISMATCH && message.type == BT_MSG_INIT_ANSWER) {
        snprintf(text, sizeof(text), "%s", baton_last_error());
        message.status = status;
        message.text = bt_blob_of_text(text);
        message.peer_epoch = tx->epoch; /* not read; but its id must be one of ours */
    } else if (status != BATON_OK) {
        bt_tx_stat(tx, &tx->stats.messages_dropped_total, 1);
        bt_debug("sender: frame dropped: %s", baton_last_error());
        return;
    }
    if (message.peer_epoch != tx->epoch ||
        (message.type != BT_MSG_INIT_ANSWER && message.status != BATON_ERR_STALE &&
         message.epoch != peer->epoch)) {
        bt_tx_stat(tx, &tx->stats.messages_stale_total, 1);
        return;
    }
    tx->active_ns = bt_now_ns(tx->clock);
    if (message.epoch == peer->epoch)
        peer->last_heard_ns = tx->active_ns;
    switch (message.type) {
    case BT_MSG_REVOKE:
        bt_tx_on_revoke(tx, peer, &message);
        break;
    case BT_MSG_HEARTBEAT_ANSWER:
        bt_tx_on_heartbeat_answer(tx, peer, &message);
        break;
    case BT_MSG_INIT_ANSWER:
    case BT_MSG_MEMREG_ANSWER:
    case BT_MSG_ALLOC_ANSWER:
    case BT_MSG_COMMIT_ANSWER:
    case BT_MSG_CANCEL_ANSWER:
    case BT_MSG_RELEASE_ANSWER:
        on_answer(tx, peer, &message);
        break;
    default:
        bt_tx_stat(tx, &tx->stats.messages_dropped_total, 1);
    }
}

static void run_command(bt_tx *tx, bt_tx_command *command)
{
    if (command->kind == BT_TX_CONNECT) {
        bt_tx_peer *peer;
        if (bt_tx_peer_get(tx, command->host, command->init_port, command->alloc_port, &peer) ==
            BATON_OK)
            peer->keep = true;
        else
            bt_warn("sender: not connected in advance: %s", baton_last_error());
        return;
    }
    if (command->kind == BT_TX_BEGIN) {
        bt_tx_transfer_start(tx, command->transfer);
        return;
    }
    /* A transfer takes its waiting commands along when it ends, so this one is there. */
    bt_tx_transfer *transfer = command->transfer;
    if (command->kind == BT_TX_PUSH && command->source.n_layers != 0)
        bt_tx_layers_pushed(tx, transfer, command);
    else if (command->kind == BT_TX_PUSH)
        bt_tx_chunk_pushed(tx, transfer, command);
    else if (command->kind == BT_TX_ASK)
        bt_tx_transfer_ask(tx, transfer);
    else if (command->kind == BT_TX_FINISH)
        bt_tx_finish_seen(tx, transfer);
    else
        bt_tx_transfer_fail(tx, transfer, BATON_ERR_CANCELED, "canceled");
    bt_tx_note_chunks(tx, transfer);
}

static void run_commands(bt_tx *tx)
{
    bool has_run = false;
    for (bt_tx_command *command; (command = bt_tx_next_command(tx)) != NULL; has_run = true) {
        run_command(tx, command);
        bt_tx_command_free(command);
    }
    if (has_run)
        tx->active_ns = bt_now_ns(tx->clock);
}

/* True when something had happened. */
static bool progress_worker(bt_tx *tx)
{
    enum { MAX_EVENTS = 32, MAX_ROUNDS = 32 }; /* peers can make some: timers have their turn */
    bt_event events[MAX_EVENTS];
    uint32_t n = MAX_EVENTS, n_all = 0;
    for (uint32_t round = 0; round < MAX_ROUNDS && n == MAX_EVENTS; round++) {
        n = bt_worker_progress(tx->worker, events, MAX_EVENTS);
        for (uint32_t i = 0; i < n; i++)
            bt_tx_on_event(tx, &events[i]);
        n_all += n;
    }
    return n_all > 0;
}

/* When the earliest of the timers is due. Heartbeats set the pace while there is a connection; a
 * sender without peers sleeps until somebody calls. */
static uint64_t next_wake_ns(const bt_tx *tx, uint64_t now_ns)
{
    uint64_t wake_ns = BT_NEVER_NS;
    for (const bt_tx_peer *peer = tx->peers; peer != NULL; peer = peer->next) {
        uint64_t due_ns = bt_tx_peer_wake_ns(tx, peer, now_ns);
        wake_ns = due_ns < wake_ns ? due_ns : wake_ns;
    }
    for (const bt_tx_pending *pending = tx->pending; pending != NULL; pending = pending->next)
        wake_ns = pending->again_ns < wake_ns ? pending->again_ns : wake_ns;
    uint64_t device_ns = bt_tx_device_wake_ns(tx, now_ns);
    wake_ns = device_ns < wake_ns ? device_ns : wake_ns;
    if (tx->first != NULL && wake_ns > now_ns + 100 * BT_NS_PER_MS)
        wake_ns = now_ns + 100 * BT_NS_PER_MS; /* deadlines of transfers and stages */
    return wake_ns;
}

/* Nothing is under way that UCX or a GPU has to be asked about. */
static bool only_copies(const bt_tx *tx)
{
    for (const bt_tx_transfer *transfer = tx->first; transfer != NULL; transfer = transfer->next) {
        if (transfer->n_puts_out > 0 || transfer->flush_out || transfer->n_told > 0)
            return false;
    }
    return bt_tx_device_wake_ns(tx, 0) == BT_NEVER_NS;
}

/* The sockets, UCX and waking the user take 15 us and more between two turns, a turn of copying
 * takes 250: so turns follow each other for a while. Control rings and commands cost a look. */
static bool move_on(bt_tx *tx)
{
    uint64_t until_ns = bt_now_ns(tx->clock) + COPY_NS;
    bool more = bt_tx_move_all(tx); /* ahead of the worker, which a mapped page does not need */
    for (int round = 1;
         more && round < COPY_ROUNDS && only_copies(tx) && bt_now_ns(tx->clock) < until_ns;
         round++) {
        bt_tx_rings_serve(tx);
        run_commands(tx);
        more = bt_tx_move_all(tx);
    }
    return more;
}

uint64_t bt_tx_progress(bt_tx *tx)
{
    bury_dead(tx);
    bt_tx_rings_serve(tx);
    run_commands(tx);
    bt_eventqueue_hold(tx->events); /* one wake-up for all sources that become free in a turn */
    bt_tx_device_progress(tx);
    bool more = move_on(tx);
    /* A user who pushes chunk by chunk: the rest of a turn would cost more than a small chunk. */
    for (int round = 0; !more && round < PUSH_ROUNDS && bt_tx_has_commands(tx); round++) {
        run_commands(tx);
        more = bt_tx_move_all(tx);
    }
    bool has_events = progress_worker(tx);
    if (has_events && !more)
        more = bt_tx_move_all(tx);
    bt_tx_events_flush(tx);
    bt_eventqueue_release(tx->events);
    uint64_t now_ns = bt_now_ns(tx->clock);
    bt_tx_pending_tick(tx, now_ns);
    bt_tx_transfers_tick(tx, now_ns);
    bt_tx_peers_tick(tx, now_ns);
    bt_tx_events_flush(tx);
    if (more || has_events)
        tx->active_ns = now_ns;
    if (more)
        return now_ns;
    uint64_t populate_ns = bt_tx_populate_idle(tx, now_ns);
    uint64_t wake_ns = next_wake_ns(tx, now_ns);
    return populate_ns < wake_ns ? populate_ns : wake_ns;
}

bool bt_tx_arm(bt_tx *tx)
{
    return bt_worker_arm(tx->worker) == BATON_OK && !bt_tx_has_commands(tx) &&
           bt_tx_rings_sleep(tx);
}

void bt_tx_disarm(bt_tx *tx)
{
    for (bt_tx_peer *peer = tx->peers; peer != NULL; peer = peer->next)
        bt_framering_end_sleep(&peer->from_receiver);
}

void bt_tx_peer_exited(bt_tx *tx, bt_tx_peer *peer)
{
    bt_tx_peer_down(tx, peer, BATON_ERR_PEER_GONE, "the receiver's process has exited");
}

bool bt_tx_close(bt_tx *tx)
{
    pthread_mutex_lock(&tx->inbox.lock);
    tx->inbox.closed = true;
    pthread_mutex_unlock(&tx->inbox.lock);
    bt_tx_progress(tx);
    for (bt_tx_transfer *transfer = tx->first, *next; transfer != NULL; transfer = next) {
        next = transfer->next;
        if (transfer->state < BT_TX_DRAINING)
            bt_tx_transfer_fail(tx, transfer, BATON_ERR_CLOSED, "the sender is closing");
    }
    return tx->first == NULL && bt_tx_peers_close(tx);
}
