/* SPDX-License-Identifier: Apache-2.0 */
/* Peers: one receiver rank each, from INIT to the endpoint that writes its pages. Their moves:
 * core/states.def.
 *
 *   DOWN ──▶ INIT ──▶ MEMREG ──▶ MEASURE ──▶ READY
 *    ▲ ▲       │         │          │           │
 *    │ └───────┘         ▼          ▼           ▼
 *    └───────────────  CLOSING (only with an endpoint) */
#include "sender/tx.h"

#include "core/alloc.h"
#include "core/log.h"
#include "wire/digests.h"

#include <assert.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { BACK_OFF_FIRST_MS = 50, BACK_OFF_MAX_MS = 5000, FORGET_MS = 10000 };
enum { REFUSED_MS = 5000 }; /* a path that is not good enough is looked at again so often */
/* A receiver sees within seconds that we are gone; 60 s later it retires the pages and does without
 * the proof. */
enum { PROOF_MS = 70000 };

static bool guard_holds(const bt_tx_peer *peer, bt_tx_peer_guard guard)
{
    return guard == BT_TX_PEER_IF_NONE ||
           (peer->endpoint != NULL) == (guard == BT_TX_PEER_IF_ENDPOINT);
}

/* The only way that a peer changes its state. False: the event is not legal there, or its guard
 * fails; that is counted, and changes nothing. */
static bool move(bt_tx *tx, bt_tx_peer *peer, bt_tx_peer_change event)
{
    const bt_move *next = bt_state_next(&bt_peer_states, peer->state, event);
    if (next == NULL || !guard_holds(peer, next->guard)) {
        bt_tx_stat(tx, &tx->stats.moves_refused_total, 1);
        bt_error("sender: refused: %s of a peer that is %s peer=%s:%u",
                 bt_state_event_name(&bt_peer_states, event),
                 bt_state_name(&bt_peer_states, peer->state), peer->host, peer->init_port);
        return false;
    }
    pthread_mutex_lock(&tx->stats_lock);
    tx->stats.peers_ready -= peer->state == BT_TX_PEER_READY;
    tx->stats.peers_ready += next->to == BT_TX_PEER_READY;
    pthread_mutex_unlock(&tx->stats_lock);
    peer->state = next->to;
    return true;
}

baton_status bt_tx_peer_get(bt_tx *tx, const char *host, uint16_t init_port, uint16_t alloc_port,
                            bt_tx_peer **peer_p)
{
    for (bt_tx_peer *peer = tx->peers; peer != NULL; peer = peer->next) {
        if (peer->init_port == init_port && peer->alloc_port == alloc_port &&
            strcmp(peer->host, host) == 0) {
            *peer_p = peer;
            return BATON_OK;
        }
    }
    bt_tx_peer *peer = bt_calloc(1, sizeof(*peer));
    if (peer == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "sender: peer");
    snprintf(peer->host, sizeof(peer->host), "%s", host);
    peer->init_port = init_port;
    peer->alloc_port = alloc_port;
    peer->pidfd = -1;
    peer->connection = ++tx->last_connection;
    baton_status status = tx->out.open(tx->out.ctx, peer);
    if (status != BATON_OK) {
        bt_free(peer);
        return status;
    }
    snprintf(peer->shown.host, sizeof(peer->shown.host), "%s", host);
    peer->shown.init_port = init_port;
    peer->shown.alloc_port = alloc_port;
    pthread_mutex_lock(&tx->stats_lock);
    peer->next = tx->peers;
    tx->peers = peer;
    pthread_mutex_unlock(&tx->stats_lock);
    *peer_p = peer;
    return BATON_OK;
}

static bool has_transfers(const bt_tx *tx, const bt_tx_peer *peer)
{
    for (const bt_tx_transfer *transfer = tx->first; transfer != NULL; transfer = transfer->next) {
        if (transfer->peer == peer)
            return true;
    }
    return false;
}

static bool is_wanted(const bt_tx *tx, const bt_tx_peer *peer)
{
    bool is_wanted_by_itself = peer->keep || bt_now_ns(tx->clock) < peer->owes_proof_until_ns;
    return !tx->is_closing && (is_wanted_by_itself || has_transfers(tx, peer));
}

static void back_off(bt_tx *tx, bt_tx_peer *peer)
{
    uint64_t ms = BACK_OFF_FIRST_MS;
    for (uint32_t i = 0; i < peer->n_failures && ms < BACK_OFF_MAX_MS; i++)
        ms *= 2;
    ms = ms < BACK_OFF_MAX_MS ? ms : BACK_OFF_MAX_MS;
    /* A quarter up or down (a linear congruential step, Knuth's MMIX constants), so that many
     * senders do not come back in step. */
    tx->jitter = tx->jitter * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
    ms = ms * 3 / 4 + (tx->jitter >> 33) % (ms / 2 + 1);
    peer->n_failures++;
    peer->next_attempt_ns = bt_deadline_ns(bt_now_ns(tx->clock), ms * BT_NS_PER_MS);
}

static void send_init(bt_tx *tx, bt_tx_peer *peer)
{
    bt_message message = {.type = BT_MSG_INIT,
                          .u.init = {
                              .name = bt_blob_of_text(tx->options.name),
                              .rank = tx->options.rank,
                              .world = tx->options.world,
                              .layout = tx->options.layout,
                              .seed = bt_blob_of(tx->root.last.bytes, BATON_KEY_BYTES),
                              .digests = bt_digests_of(tx->options.digests),
                              .connection = peer->connection,
                              .probe = tx->options.probe,
                              .process = {.boot = bt_blob_of_text(tx->self.boot),
                                          .pid_ns = tx->self.pid_ns,
                                          .start = tx->self.start,
                                          .pid = tx->self.pid,
                                          .uid = tx->self.uid,
                                          .ipc_ns = tx->self.ipc_ns,
                                          .mnt_ns = tx->self.mnt_ns,
                                          .user_ns = tx->self.user_ns},
                          }};
    peer->refusal = BATON_OK;
    if (bt_tx_request(tx, peer, NULL, BT_TX_INIT_PORT, &message, tx->options.timeouts.connect_ms,
                      &peer->hello) == BATON_OK)
        move(tx, peer, BT_TX_PEER_ON_HELLO);
    else
        back_off(tx, peer);
}

void bt_tx_ask_regions(bt_tx *tx, bt_tx_peer *peer)
{
    if (peer->hello != NULL)
        return;
    bt_message message = {.type = BT_MSG_MEMREG, .u.doorbell = tx->out.doorbell};
    bt_tx_request(tx, peer, NULL, BT_TX_INIT_PORT, &message, tx->options.timeouts.init_ms,
                  &peer->hello);
}

static void watch_process(bt_tx *tx, bt_tx_peer *peer)
{
    if (bt_process_watch(&peer->process, &peer->pidfd) == BATON_OK)
        tx->out.watch(tx->out.ctx, peer, peer->pidfd);
    else if (tx->out.follow != NULL)
        tx->out.follow(tx->out.ctx, peer);
}

/* What the receiver says will be used is what we want, or stronger. */
static baton_status check_digests(const bt_tx *tx, uint32_t agreed)
{
    uint32_t ours = bt_digests_of(tx->options.digests);
    BATON_TRY(bt_digests_check(agreed));
    if (bt_digests_stronger(ours, agreed) != agreed)
        return bt_fail(BATON_ERR_BAD_MESSAGE, "init: digests: wanted %u or stronger, found %u",
                       ours, agreed);
    return BATON_OK;
}

void bt_tx_on_init_answer(bt_tx *tx, bt_tx_peer *peer, const bt_message *message)
{
    const bt_msg_init *init = &message->u.init;
    bt_tx_pending_drop(tx, peer->hello);
    if (peer->state != BT_TX_PEER_INIT)
        return;
    char text[BT_ERROR_TEXT_BYTES];
    if (message->status != BATON_OK) {
        bt_blob_to_text(message->text, text, sizeof(text));
        bt_tx_peer_down(tx, peer, (baton_status)message->status, text);
        return;
    }
    peer->epoch = message->epoch;
    peer->digests = init->digests;
    peer->heartbeat_ms = init->heartbeat_ms;
    peer->silent_ms = init->silent_ms;
    peer->last_heard_ns = bt_now_ns(tx->clock);
    bt_blob_to_text(init->name, peer->name, sizeof(peer->name));
    peer->process = (bt_process){.pid_ns = init->process.pid_ns,
                                 .start = init->process.start,
                                 .pid = init->process.pid,
                                 .uid = init->process.uid,
                                 .ipc_ns = init->process.ipc_ns,
                                 .mnt_ns = init->process.mnt_ns,
                                 .user_ns = init->process.user_ns};
    bt_tx_path_floors(tx, peer, init);
    bt_blob_to_text(init->process.boot, peer->process.boot, sizeof(peer->process.boot));
    bool is_probe = tx->options.probe;
    baton_status status =
        is_probe ? BATON_OK : baton_layout_match(&tx->options.layout, &init->layout);
    if (status == BATON_OK)
        status = check_digests(tx, init->digests);
    if (status == BATON_OK && init->page_bytes != tx->page_bytes && !is_probe)
        status = bt_fail(BATON_ERR_LAYOUT_MISMATCH,
                         "layout: page_bytes ours %" PRIu64 " theirs %" PRIu64, tx->page_bytes,
                         init->page_bytes);
    if (status == BATON_OK)
        status = bt_endpoint_connect(tx->worker, init->worker.data, init->worker.bytes,
                                     (uint64_t)(uintptr_t)peer, &peer->endpoint);
    if (status != BATON_OK) {
        snprintf(text, sizeof(text), "%s", baton_last_error());
        bt_tx_peer_down(tx, peer, status, text);
        return;
    }
    peer->endpoint->may_not_attach = !bt_tx_path_may_attach(&tx->self, &peer->process);
    peer->first_id = tx->next_id;
    peer->connection = ++tx->last_connection; /* the next endpoint needs a worker of its own */
    peer->owes_proof_until_ns = 0;
    watch_process(tx, peer);
    move(tx, peer, BT_TX_PEER_ON_ACCEPTED);
    bt_tx_ask_regions(tx, peer);
    if (peer->hello == NULL) /* nothing would ever end this wait */
        bt_tx_peer_down(tx, peer, BATON_ERR_NO_MEMORY, "init: no memory for MEMREG");
}

const bt_tx_region *bt_tx_region_find(bt_tx_peer *peer, uint32_t region, uint32_t generation)
{
    for (uint32_t n = 0, i = peer->last_region; n < peer->n_regions; n++, i++) {
        i = i < peer->n_regions ? i : 0;
        const bt_tx_region *found = &peer->regions[i];
        if (found->region != region || found->generation != generation)
            continue;
        peer->last_region = i;
        return found;
    }
    return NULL;
}

static baton_status import_region(bt_tx *tx, bt_tx_peer *peer, const bt_msg_region *region)
{
    if (bt_tx_region_find(peer, region->region, region->generation) != NULL)
        return BATON_OK;
    uint64_t bytes;
    bool has_our_pages = tx->options.probe || region->page_bytes == tx->page_bytes;
    if (!has_our_pages || !bt_mul_u64(region->page_bytes, region->n_pages, &bytes) ||
        region->base > UINT64_MAX - bytes || peer->n_regions == BT_REGIONS_MAX)
        return bt_fail(BATON_ERR_BAD_MESSAGE, "memreg: region %u has no sensible size",
                       region->region);
    bt_tx_region *new = &peer->regions[peer->n_regions];
    *new = (bt_tx_region){
        .region = region->region,
        .generation = region->generation,
        .n_pages = region->n_pages,
        .base = region->base,
        .page_bytes = region->page_bytes,
    };
    BATON_TRY(
        bt_remote_import(peer->endpoint, region->rkey.data, region->rkey.bytes, &new->remote));
    peer->n_regions++;
    peer->is_populated = false;
    if (new->base < new->remote->base || bytes > new->remote->bytes ||
        new->base - new->remote->base > new->remote->bytes - bytes)
        return bt_fail(BATON_ERR_BAD_MESSAGE,
                       "memreg: region %u lies outside of what its key is for", region->region);
    return bt_tx_path_map(tx, peer, region, new);
}

static void send_heartbeat(bt_tx *tx, bt_tx_peer *peer, const bt_ticket_progress *tickets,
                           uint32_t n)
{
    bt_message message = {.type = BT_MSG_HEARTBEAT,
                          .id = tx->next_id++,
                          .u.heartbeat = {.tickets = tickets, .n_tickets = n}};
    bt_tx_send(tx, peer, BT_TX_ALLOC_PORT, &message);
}

/* Names every ticket: a message holds only so many. */
static void send_heartbeats(bt_tx *tx, bt_tx_peer *peer, uint64_t now_ns)
{
    bt_ticket_progress tickets[BT_HEARTBEAT_TICKETS_MAX];
    uint32_t n = 0;
    for (const bt_tx_transfer *t = tx->first; t != NULL; t = t->next) {
        if (t->peer != peer || !t->has_ticket)
            continue;
        if (n == BT_HEARTBEAT_TICKETS_MAX) {
            send_heartbeat(tx, peer, tickets, n);
            n = 0;
        }
        tickets[n++] = (bt_ticket_progress){.ticket = t->ticket,
                                            .posted = t->n_posted,
                                            .sent = t->n_landed,
                                            .landed = t->n_committed};
    }
    send_heartbeat(tx, peer, tickets, n);
    peer->last_heartbeat_ns = now_ns;
}

/* Remembered, and said to every transfer until the next attempt. */
static void refuse(bt_tx *tx, bt_tx_peer *peer, baton_status status)
{
    peer->refusal = status;
    snprintf(peer->refusal_text, sizeof(peer->refusal_text), "%s", baton_last_error());
    bt_tx_stat(tx, &tx->stats.peers_refused_total, 1);
    bt_tx_peer_down(tx, peer, status, peer->refusal_text);
    peer->next_attempt_ns = bt_deadline_ns(bt_now_ns(tx->clock), REFUSED_MS * BT_NS_PER_MS);
}

/* Its figures are in: good enough, or not. */
static void on_measured(bt_tx *tx, bt_tx_peer *peer)
{
    baton_status status = bt_tx_path_settle(tx, peer);
    if (status != BATON_OK) {
        refuse(tx, peer, status);
        return;
    }
    peer->n_failures = 0;
    peer->last_heard_ns = peer->last_heartbeat_ns = bt_now_ns(tx->clock);
    move(tx, peer, BT_TX_PEER_ON_MEASURED);
    if (bt_framering_is_up(&peer->to_receiver)) /* its answer lets the rings be used */
        send_heartbeats(tx, peer, peer->last_heartbeat_ns);
    bt_tx_path_publish(tx, peer, BATON_OK, "");
    bt_tx_peer_is_ready(tx, peer);
}

void bt_tx_on_memreg_answer(bt_tx *tx, bt_tx_peer *peer, const bt_message *message)
{
    bt_tx_pending_drop(tx, peer->hello);
    if (peer->state != BT_TX_PEER_MEMREG && peer->state != BT_TX_PEER_READY)
        return;
    baton_status status = (baton_status)message->status;
    if (status != BATON_OK)
        bt_fail(status, "memreg: refused by the receiver");
    for (uint32_t i = 0; status == BATON_OK && i < message->u.memreg_answer.n_regions; i++)
        status = import_region(tx, peer, &message->u.memreg_answer.regions[i]);
    bool is_first = peer->state == BT_TX_PEER_MEMREG;
    if (status == BATON_OK && is_first)
        status = bt_tx_measure_start(tx, peer, &message->u.memreg_answer.scratch);
    if (status != BATON_OK) {
        char text[BT_ERROR_TEXT_BYTES];
        snprintf(text, sizeof(text), "%s", baton_last_error());
        bt_tx_peer_down(tx, peer, status, text);
        return;
    }
    if (!is_first)
        return;
    bt_tx_ring_open(tx, peer, &message->u.memreg_answer.ring);
    move(tx, peer, BT_TX_PEER_ON_REGIONS);
    if (peer->measure.state == BT_TX_MEASURE_OFF &&
        bt_tx_populate_ahead(tx, peer, bt_now_ns(tx->clock)))
        on_measured(tx, peer);
}

/* What a lost connection means for a transfer. Before a grant nothing is at the receiver, so a
 * receiver that only forgot us is asked again. */
static void lose_transfer(bt_tx *tx, bt_tx_transfer *transfer, baton_status reason,
                          const char *text)
{
    bool asks_again = reason == BATON_ERR_PEER_RESTARTED;
    if (transfer->state == BT_TX_WAIT_GRANT && asks_again) {
        bt_tx_transfer_move(tx, transfer, BT_TX_ON_FORGOTTEN);
        transfer->has_ticket = false; /* its place in the queue was the old receiver's */
    } else if (transfer->state != BT_TX_WAIT_PEER || !asks_again) {
        bt_tx_transfer_fail(tx, transfer, reason, text);
    }
}

static bool has_exited(const bt_tx_peer *peer)
{
    struct pollfd fd = {.fd = peer->pidfd, .events = POLLIN};
    return peer->pidfd >= 0 && poll(&fd, 1, 0) == 1;
}

void bt_tx_owe_proof(bt_tx *tx, bt_tx_peer *peer)
{
    peer->owes_proof_until_ns = bt_deadline_ns(bt_now_ns(tx->clock), PROOF_MS * BT_NS_PER_MS);
}

/* A CANCEL or RELEASE that was not answered may not have been heard. */
static bool has_farewell(const bt_tx *tx, const bt_tx_peer *peer)
{
    const bt_tx_pending *pending = tx->pending;
    while (pending != NULL && (pending->peer != peer || pending->transfer != NULL ||
                               (pending->type != BT_MSG_CANCEL && pending->type != BT_MSG_RELEASE)))
        pending = pending->next;
    return pending != NULL;
}

void bt_tx_peer_down(bt_tx *tx, bt_tx_peer *peer, baton_status reason, const char *text)
{
    if (peer->state == BT_TX_PEER_DOWN || peer->state == BT_TX_PEER_CLOSING)
        return;
    if (has_exited(peer)) { /* whoever noticed first: the transport's own words say less */
        reason = BATON_ERR_PEER_GONE;
        text = "the receiver's process has exited";
    }
    bool was_ready = peer->state == BT_TX_PEER_READY;
    if (was_ready)
        bt_tx_stat(tx, &tx->stats.peers_lost_total, 1);
    bt_warn("sender: connection ended: %s peer=%s:%u", text, peer->host, peer->init_port);
    if (reason != BATON_ERR_PEER_GONE && has_farewell(tx, peer))
        bt_tx_owe_proof(tx, peer);
    bt_tx_pending_drop_peer(tx, peer);
    if (peer->pidfd >= 0) {
        tx->out.watch(tx->out.ctx, peer, -1);
        close(peer->pidfd);
        peer->pidfd = -1;
    }
    move(tx, peer, BT_TX_PEER_ON_LOST);
    /* The owner of a transfer learns of the end only once the endpoint is gone: see settle. */
    for (bt_tx_transfer *transfer = tx->first, *next; transfer != NULL; transfer = next) {
        next = transfer->next;
        if (transfer->peer != peer)
            continue;
        transfer->force_closed = transfer->force_closed || transfer->n_puts_out > 0 ||
                                 transfer->flush_out || transfer->unflushed;
        /* Its ALLOC was sent: there may be a grant that we have not seen. */
        if (transfer->state != BT_TX_WAIT_PEER && reason != BATON_ERR_PEER_GONE)
            bt_tx_owe_proof(tx, peer);
        lose_transfer(tx, transfer, reason, text);
    }
    for (uint32_t i = 0; i < peer->n_regions; i++)
        bt_remote_release(peer->regions[i].remote);
    bt_tx_ring_close(peer);
    peer->n_regions = 0;
    peer->populate_until_ns = 0;
    bt_tx_measure_stop(&peer->measure);
    bt_tx_path_publish(tx, peer, reason, text);
    peer->why_not_mapped[0] = 0;
    peer->should_map = false;
    peer->epoch = 0;
    back_off(tx, peer);
    peer->closing_ns = bt_now_ns(tx->clock);
    peer->is_overdue = false;
    if (peer->endpoint != NULL)
        bt_endpoint_close(peer->endpoint, BT_CLOSE_FORCE, (uint64_t)(uintptr_t)peer);
}

/* Not before the endpoints have been made whole: UCX 1.13 aborts the receiver's process when it
 * cannot answer one that is gone already (openucx/ucx pull request 8175). */
bool bt_tx_peers_close(bt_tx *tx)
{
    for (bt_tx_peer *peer = tx->peers; peer != NULL && !tx->is_closing; peer = peer->next) {
        bool is_open = peer->state == BT_TX_PEER_READY || peer->state == BT_TX_PEER_MEMREG ||
                       peer->state == BT_TX_PEER_MEASURE;
        if (is_open && !has_exited(peer))
            tx->n_last_flushes += bt_endpoint_flush(peer->endpoint, 0) == BATON_OK;
    }
    tx->is_closing = true;
    return tx->n_last_flushes == 0;
}

void bt_tx_peer_closed(bt_tx *tx, bt_tx_peer *peer)
{
    peer->endpoint = NULL;
    move(tx, peer, BT_TX_PEER_ON_CLOSED);
    if (peer->is_overdue)
        peer->next_attempt_ns = bt_now_ns(tx->clock);
    for (bt_tx_transfer *transfer = tx->first, *next; transfer != NULL; transfer = next) {
        next = transfer->next;
        if (transfer->peer == peer && transfer->state == BT_TX_DRAINING)
            bt_tx_transfer_settle(tx, transfer);
    }
}

/* Nobody can say when the transport will let go of the endpoint, so nobody is kept waiting for it.
 * What it may still read or write stays as it is, and a next connection has to wait: on some paths
 * only the end of this one says that its last writes have ended. */
static void closing_tick(bt_tx *tx, bt_tx_peer *peer, uint64_t now_ns)
{
    uint32_t flush_ms = tx->options.timeouts.flush_ms;
    if (peer->is_overdue || bt_elapsed_ns(now_ns, peer->closing_ns) < flush_ms * BT_NS_PER_MS)
        return;
    peer->is_overdue = true;
    peer->next_attempt_ns = BT_NEVER_NS;
    peer->refusal = BATON_ERR_CONNECT_TIMEOUT;
    snprintf(peer->refusal_text, sizeof(peer->refusal_text),
             "connect: the connection before this one has not closed in %" PRIu32 " ms", flush_ms);
    bt_warn("sender: a connection does not close, sources may still be read peer=%s:%u", peer->host,
            peer->init_port);
    for (bt_tx_transfer *transfer = tx->first, *next; transfer != NULL; transfer = next) {
        next = transfer->next;
        if (transfer->peer != peer)
            continue;
        if (transfer->state == BT_TX_DRAINING)
            bt_tx_transfer_overdue(tx, transfer);
        else
            bt_tx_transfer_fail(tx, transfer, peer->refusal, peer->refusal_text);
    }
}

static uint64_t beats_missed_ns(const bt_tx_peer *peer)
{
    enum { MISSED_BEATS = 2 };
    return bt_deadline_ns(peer->last_heard_ns, MISSED_BEATS * BT_NS_PER_MS * peer->heartbeat_ms);
}

static bool is_connected(const bt_tx *tx, bt_tx_peer *peer)
{
    return peer->pidfd >= 0 || tx->out.is_connected == NULL ||
           tx->out.is_connected(tx->out.ctx, peer);
}

/* A process that exits closes its connections: where nobody can watch the process, this tells a
 * dead receiver from a slow or stopped one, before the transport has tried in vain for long enough.
 * It decides only when heartbeats are missing, so that a connection that is made anew is none that
 * has gone. */
static void ready_tick(bt_tx *tx, bt_tx_peer *peer, uint64_t now_ns)
{
    if (tx->options.probe) /* has nothing more to say, nor to hear */
        return;
    bool is_missed = now_ns >= beats_missed_ns(peer);
    bool is_due =
        bt_elapsed_ns(now_ns, peer->last_heartbeat_ns) >= peer->heartbeat_ms * BT_NS_PER_MS;
    bool has_hung_up = (is_missed || is_due) && !is_connected(tx, peer);
    if (bt_elapsed_ns(now_ns, peer->last_heard_ns) >= peer->silent_ms * BT_NS_PER_MS)
        bt_tx_peer_down(tx, peer, BATON_ERR_PEER_SILENT, "nothing heard from the receiver");
    else if (has_hung_up && is_missed)
        bt_tx_peer_down(tx, peer, BATON_ERR_UNREACHABLE, "the receiver has hung up");
    else if (is_due)
        send_heartbeats(tx, peer, now_ns);
}

/* A peer that nobody wants any more: its sockets go too. */
static void forget(bt_tx *tx, bt_tx_peer *peer)
{
    bt_tx_peer **link = &tx->peers;
    while (*link != peer)
        link = &(*link)->next;
    pthread_mutex_lock(&tx->stats_lock);
    *link = peer->next;
    pthread_mutex_unlock(&tx->stats_lock);
    bt_tx_pending_drop_peer(tx, peer);
    tx->out.close(tx->out.ctx, peer);
    bt_free(peer);
}

void bt_tx_peers_tick(bt_tx *tx, uint64_t now_ns)
{
    for (bt_tx_peer *peer = tx->peers, *next; peer != NULL; peer = next) {
        next = peer->next;
        if (peer->state == BT_TX_PEER_READY)
            ready_tick(tx, peer, now_ns);
        else if (peer->state == BT_TX_PEER_MEASURE && bt_tx_measure_turn(tx, peer, now_ns) &&
                 bt_tx_populate_ahead(tx, peer, now_ns))
            on_measured(tx, peer);
        else if (peer->state == BT_TX_PEER_CLOSING)
            closing_tick(tx, peer, now_ns);
        else if (peer->state != BT_TX_PEER_DOWN || now_ns < peer->next_attempt_ns)
            continue;
        else if (is_wanted(tx, peer))
            send_init(tx, peer);
        else if (bt_elapsed_ns(now_ns, peer->next_attempt_ns) >= FORGET_MS * BT_NS_PER_MS)
            forget(tx, peer);
    }
}

static uint64_t ready_wake_ns(const bt_tx_peer *peer, uint64_t now_ns)
{
    uint64_t beat_ns = peer->last_heartbeat_ns + peer->heartbeat_ms * BT_NS_PER_MS;
    uint64_t missed_ns = beats_missed_ns(peer);
    return missed_ns > now_ns && missed_ns < beat_ns ? missed_ns : beat_ns;
}

uint64_t bt_tx_peer_wake_ns(const bt_tx *tx, const bt_tx_peer *peer, uint64_t now_ns)
{
    switch (peer->state) {
    case BT_TX_PEER_READY:
        if (tx->options.probe)
            return BT_NEVER_NS;
        return ready_wake_ns(peer, now_ns);
    case BT_TX_PEER_MEASURE:
        return bt_tx_measure_wake_ns(&peer->measure, now_ns);
    case BT_TX_PEER_DOWN:
        if (is_wanted(tx, peer))
            return peer->next_attempt_ns;
        return bt_deadline_ns(peer->next_attempt_ns, FORGET_MS * BT_NS_PER_MS);
    case BT_TX_PEER_CLOSING:
        return now_ns + 100 * BT_NS_PER_MS;
    default:
        return BT_NEVER_NS; /* its hello has a deadline of its own */
    }
}
