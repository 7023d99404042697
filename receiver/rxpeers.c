/* SPDX-License-Identifier: Apache-2.0 */
/* Peers: a sender rank's life here, from INIT until it exits, goes silent or is replaced. */
#include "receiver/rx.h"

#include "core/alloc.h"
#include "core/log.h"
#include "wire/digests.h"

#include <assert.h>
#include <inttypes.h>
#include <string.h>
#include <unistd.h>

static bt_rx_peer *find_peer(bt_rx *rx, uint64_t epoch)
{
    bt_rx_peer *peer = rx->peers;
    while (peer != NULL && peer->epoch != epoch)
        peer = peer->next;
    return peer;
}

void bt_rx_peer_heard(bt_rx *rx, bt_rx_peer *peer)
{
    peer->last_heard_ns = bt_now_ns(rx->clock);
    if (peer->is_silent) {
        peer->is_silent = false;
        bt_info("receiver: peer is heard again peer=%s epoch=%016" PRIx64, peer->name, peer->epoch);
    }
}

static void heard(bt_rx *rx, bt_rx_peer *peer, bt_rx_port port, const bt_rx_route *route)
{
    if (route != &peer->routes[port]) /* as a frame of its ring has it */
        peer->routes[port] = *route;
    bt_rx_peer_heard(rx, peer);
}

/* An epoch is no secret: where there are keys, only who has said INIT speaks for it. What came by
 * its own ring is its own. */
static bool is_its_own(const bt_rx_peer *peer, bt_rx_port port, const bt_rx_route *route)
{
    return route == &peer->routes[port] ||
           strcmp(route->user, peer->routes[BT_RX_INIT_PORT].user) == 0;
}

/* It may still take its writers out of the way, and nothing else. */
static bool is_listened_to(const bt_rx_peer *peer, bt_message_type type)
{
    return !peer->is_deaf || type == BT_MSG_CANCEL || type == BT_MSG_DRAINED;
}

static bool has_answer(bt_message_type type)
{
    return type != BT_MSG_DRAINED;
}

bt_rx_peer *bt_rx_sender(bt_rx *rx, bt_rx_port port, const bt_rx_route *route,
                         const bt_message *message)
{
    bt_rx_peer *peer = find_peer(rx, message->epoch);
    if (peer != NULL && message->peer_epoch == rx->epoch && is_its_own(peer, port, route) &&
        is_listened_to(peer, message->type)) {
        if (!peer->is_deaf)
            heard(rx, peer, port, route);
        return peer;
    }
    rx->stats.messages_stale_total++;
    bt_fail(BATON_ERR_STALE, "receiver: %s of an unknown epoch: send INIT first",
            bt_message_type_name(message->type));
    if (has_answer(message->type))
        bt_rx_answer_failure(rx, port, route, message, BATON_ERR_STALE);
    return NULL;
}

bool bt_rx_seen_before(bt_rx_peer *peer, uint64_t id)
{
    if (id > peer->newest_id) {
        uint64_t step = id - peer->newest_id;
        if (step >= BT_RX_ID_WINDOW) {
            memset(peer->seen_ids, 0, sizeof(peer->seen_ids));
        } else {
            for (uint64_t i = id; i != peer->newest_id; i--) /* ends for the largest id, too */
                peer->seen_ids[i % BT_RX_ID_WINDOW / 64] &= ~(UINT64_C(1) << (i % 64));
        }
        peer->newest_id = id;
    } else if (peer->newest_id - id >= BT_RX_ID_WINDOW) {
        return true;
    }
    uint64_t *word = &peer->seen_ids[id % BT_RX_ID_WINDOW / 64];
    uint64_t bit = UINT64_C(1) << (id % 64);
    bool seen = (*word & bit) != 0;
    *word |= bit;
    return seen;
}

static baton_status check_init(const bt_rx *rx, const bt_msg_init *init)
{
    if (init->probe != 0) /* gets no pages, so nothing of it has to fit */
        return BATON_OK;
    if (init->rank != rx->options.rank || init->world != rx->options.world)
        return bt_fail(BATON_ERR_LAYOUT_MISMATCH,
                       "init: rank ours %u of %u theirs %u of %u: each sender rank pairs with the "
                       "receiver of its own rank",
                       rx->options.rank, rx->options.world, init->rank, init->world);
    BATON_TRY(bt_digests_check(init->digests));
    BATON_TRY(baton_layout_check(&init->layout));
    BATON_TRY(baton_layout_match(&rx->options.layout, &init->layout));
    if (!bt_blob_equals(init->seed, bt_blob_of(rx->root.last.bytes, BATON_KEY_BYTES)))
        return bt_fail(BATON_ERR_LAYOUT_MISMATCH,
                       "init: key_seed ours and theirs differ: set the same one on both sides");
    return BATON_OK;
}

static void peer_free(bt_rx *rx, bt_rx_peer *peer)
{
    if (peer->worker != NULL)
        rx->out.peer_fds(rx->out.ctx, peer, bt_worker_fd(peer->worker), peer->pidfd, false);
    bt_worker_destroy(peer->worker);
    bt_rx_ring_close(peer);
    if (peer->pidfd >= 0)
        close(peer->pidfd);
    bt_free(peer);
}

static void process_from_message(const bt_process_id *from, bt_process *to)
{
    *to = (bt_process){.pid_ns = from->pid_ns,
                       .start = from->start,
                       .pid = from->pid,
                       .uid = from->uid,
                       .ipc_ns = from->ipc_ns,
                       .mnt_ns = from->mnt_ns,
                       .user_ns = from->user_ns};
    bt_blob_to_text(from->boot, to->boot, sizeof(to->boot));
}

static bool is_route(const bt_rx_route *a, const bt_rx_route *b)
{
    return a->n == b->n && memcmp(a->bytes, b->bytes, b->n) == 0;
}

/* A worker is memory and descriptors: a connection that says INIT again and again gets no more of
 * them, and no line in the log for each. */
static baton_status check_route(const bt_rx *rx, const bt_rx_route *route)
{
    uint32_t n = 0;
    for (const bt_rx_peer *peer = rx->peers; peer != NULL; peer = peer->next)
        n += is_route(&peer->routes[BT_RX_INIT_PORT], route);
    if (n < BT_RX_PEERS_PER_ROUTE)
        return BATON_OK;
    return bt_fail(BATON_ERR_OVERLOADED, "init: this connection speaks for %u senders already", n);
}

/* Who has nothing to do here and has not been heard of for two heartbeats; the quietest. */
static bt_rx_peer *find_idle(bt_rx *rx)
{
    uint64_t quiet_ns = 2 * rx->options.timeouts.heartbeat_ms * BT_NS_PER_MS;
    uint64_t now_ns = bt_now_ns(rx->clock);
    bt_rx_peer *idle = NULL;
    for (bt_rx_peer *peer = rx->peers; peer != NULL; peer = peer->next)
        peer->has_tickets = false;
    for (bt_rx_ticket *ticket = rx->first_ticket; ticket != NULL; ticket = ticket->next) {
        if (ticket->peer != NULL)
            ticket->peer->has_tickets = true;
    }
    for (bt_rx_peer *peer = rx->peers; peer != NULL; peer = peer->next) {
        bool is_quiet = bt_elapsed_ns(now_ns, peer->last_heard_ns) >= quiet_ns;
        if (!peer->has_tickets && is_quiet &&
            (idle == NULL || peer->last_heard_ns < idle->last_heard_ns))
            idle = peer;
    }
    return idle;
}

/* Room for one more peer, if need be by forgetting one that can come back with an INIT. */
static baton_status make_room(bt_rx *rx)
{
    if (rx->n_peers < rx->options.max_peers)
        return BATON_OK;
    bt_rx_peer *idle = find_idle(rx);
    if (idle == NULL)
        return bt_fail(BATON_ERR_OVERLOADED, "init: wanted one more peer, %u are allowed",
                       rx->options.max_peers);
    bt_rx_peer_lost(rx, idle, BATON_ERR_PEER_SILENT, false);
    return BATON_OK;
}

static baton_status peer_create(bt_rx *rx, uint64_t epoch, const bt_rx_route *route,
                                const bt_msg_init *init, bt_rx_peer **peer_p)
{
    BATON_TRY(check_route(rx, route));
    BATON_TRY(make_room(rx));
    bt_rx_peer *peer = bt_calloc(1, sizeof(*peer));
    if (peer == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "init: peer");
    peer->epoch = epoch;
    peer->connection = init->connection;
    peer->pidfd = -1;
    bt_blob_to_text(init->name, peer->name, sizeof(peer->name));
    process_from_message(&init->process, &peer->process);
    peer->same_host = bt_process_same_host(&rx->self, &peer->process);
    baton_status status = bt_process_watch(&peer->process, &peer->pidfd);
    if (status == BATON_OK || status == BATON_ERR_UNREACHABLE)
        status = bt_worker_create(rx->transport, &peer->worker);
    if (status != BATON_OK) {
        peer_free(rx, peer);
        return status;
    }
    peer->next = rx->peers;
    rx->peers = peer;
    rx->n_peers++;
    rx->out.peer_fds(rx->out.ctx, peer, bt_worker_fd(peer->worker), peer->pidfd, true);
    bt_info("receiver: peer connected peer=%s pid=%u epoch=%016" PRIx64 " watched=%s", peer->name,
            peer->process.pid, epoch, peer->pidfd >= 0 ? "pidfd" : "heartbeats");
    *peer_p = peer;
    return BATON_OK;
}

static void answer_init(bt_rx *rx, const bt_rx_route *route, const bt_message *message,
                        const bt_rx_peer *peer)
{
    bt_message answer = {
        .u.init = {
            .name = bt_blob_of_text(rx->options.name),
            .rank = rx->options.rank,
            .world = rx->options.world,
            .layout = rx->options.layout,
            .digests = peer->digests,
            .process = {.boot = bt_blob_of_text(rx->self.boot),
                        .pid_ns = rx->self.pid_ns,
                        .start = rx->self.start,
                        .pid = rx->self.pid,
                        .uid = rx->self.uid,
                        .ipc_ns = rx->self.ipc_ns,
                        .mnt_ns = rx->self.mnt_ns,
                        .user_ns = rx->self.user_ns},
            .worker = bt_blob_of(peer->worker->address, peer->worker->address_bytes),
            .page_bytes = rx->page_bytes,
            .lease_ms = rx->options.timeouts.lease_ms,
            .heartbeat_ms = rx->options.timeouts.heartbeat_ms,
            .silent_ms = rx->options.timeouts.silent_ms,
            .require_rdma = rx->options.data.require_rdma,
            .min_bytes_per_s = (uint64_t)(rx->options.data.min_gbps * 1e9),
        }};
    bt_rx_answer(rx, BT_RX_INIT_PORT, route, message, &answer);
}

/* Fails every ticket of the peer that is still moving. Held ones do not need it any more. */
static void fail_tickets(bt_rx *rx, bt_rx_peer *peer, baton_status reason, const char *text)
{
    for (bt_rx_ticket *ticket = rx->first_ticket, *next; ticket != NULL; ticket = next) {
        next = ticket->next;
        if (ticket->peer != peer)
            continue;
        if (ticket->state == BT_TICKET_QUEUED || ticket->state == BT_TICKET_GRANTED)
            bt_rx_ticket_fail(rx, ticket, reason, text);
    }
}

static void settle_tickets(bt_rx *rx, bt_rx_peer *peer, bt_rx_ticket_change proof)
{
    for (bt_rx_ticket *ticket = rx->first_ticket, *next; ticket != NULL; ticket = next) {
        next = ticket->next;
        if (ticket->peer == peer && ticket->state == BT_TICKET_REVOKED)
            bt_rx_ticket_settle(rx, ticket, proof);
    }
}

/* The sender's endpoint to the old worker was closed by force. It is alive and says so, hence no
 * mapped write of its is under way either: with the worker, every write of the peer has ended. */
static baton_status renew_worker(bt_rx *rx, bt_rx_peer *peer, uint32_t connection)
{
    bt_worker *fresh;
    BATON_TRY(bt_worker_create(rx->transport, &fresh));
    const char *text = "the sender's connection was closed by force";
    fail_tickets(rx, peer, BATON_ERR_TRANSPORT, text);
    rx->out.peer_fds(rx->out.ctx, peer, bt_worker_fd(peer->worker), peer->pidfd, false);
    bt_worker_destroy(peer->worker);
    bt_rx_ring_close(peer); /* what its old connection still says is of no use */
    peer->worker = fresh;
    peer->connection = connection;
    rx->out.peer_fds(rx->out.ctx, peer, bt_worker_fd(peer->worker), peer->pidfd, true);
    settle_tickets(rx, peer, BT_TICKET_ON_UNPLUGGED);
    bt_rx_pump_queue(rx);
    return BATON_OK;
}

static baton_status greet(bt_rx *rx, const bt_rx_route *route, const bt_message *message,
                          bt_rx_peer **peer_p)
{
    const bt_msg_init *init = &message->u.init;
    bt_rx_peer *peer = find_peer(rx, message->epoch);
    BATON_TRY(check_init(rx, init));
    if (peer == NULL)
        return peer_create(rx, message->epoch, route, init, peer_p);
    if (!is_its_own(peer, BT_RX_INIT_PORT, route))
        return bt_fail(BATON_ERR_AUTH, "init: this epoch is of a sender with another key");
    if (init->connection > peer->connection)
        BATON_TRY(renew_worker(rx, peer, init->connection));
    *peer_p = peer;
    return BATON_OK;
}

/* A line a second at most: whoever causes it can do so again as often as it likes. */
static bool is_worth_a_line(const bt_rx *rx, uint64_t *logged_ns)
{
    uint64_t now_ns = bt_now_ns(rx->clock);
    if (*logged_ns != 0 && bt_elapsed_ns(now_ns, *logged_ns) < BT_NS_PER_S)
        return false;
    *logged_ns = now_ns;
    return true;
}

static void log_refusal(bt_rx *rx)
{
    if (is_worth_a_line(rx, &rx->refusal_logged_ns))
        bt_warn("receiver: peer refused: %s", baton_last_error());
    else
        bt_debug("receiver: peer refused: %s", baton_last_error());
}

void bt_rx_refuse_init(bt_rx *rx, bt_rx_port port, const bt_rx_route *route,
                       const bt_message *message, baton_status status)
{
    log_refusal(rx);
    bt_rx_answer_failure(rx, port, route, message, status);
}

void bt_rx_on_init(bt_rx *rx, const bt_rx_route *route, const bt_message *message)
{
    bt_rx_peer *peer;
    baton_status status = greet(rx, route, message, &peer);
    if (status != BATON_OK) {
        bt_rx_refuse_init(rx, BT_RX_INIT_PORT, route, message, status);
        return;
    }
    peer->is_deaf = false;
    peer->is_probe = message->u.init.probe != 0;
    peer->digests =
        bt_digests_stronger(bt_digests_of(rx->options.digests), message->u.init.digests);
    heard(rx, peer, BT_RX_INIT_PORT, route);
    answer_init(rx, route, message, peer);
}

void bt_rx_on_memreg(bt_rx *rx, const bt_rx_route *route, const bt_message *message)
{
    bt_rx_peer *peer = bt_rx_sender(rx, BT_RX_INIT_PORT, route, message);
    if (peer == NULL)
        return;
    bt_message answer = {0};
    bt_rx_regions_fill(rx, &answer.u.memreg_answer);
    bt_rx_ring_offer(rx, peer, message->u.doorbell, &answer.u.memreg_answer.ring);
    bt_rx_answer(rx, BT_RX_INIT_PORT, route, message, &answer);
}

void bt_rx_on_heartbeat(bt_rx *rx, bt_rx_peer *peer, const bt_message *message)
{
    bt_ticket_progress unknown[BT_HEARTBEAT_TICKETS_MAX], live;
    uint32_t n_unknown = 0;
    bt_list_cursor cursor = {0};
    while (bt_message_next_ticket(&message->u.heartbeat, &cursor, &live)) {
        bt_rx_ticket *ticket = bt_rx_ticket_find(rx, live.ticket);
        if (ticket != NULL && ticket->peer == peer)
            ticket->named_ns = bt_now_ns(rx->clock);
        else
            unknown[n_unknown++] = (bt_ticket_progress){.ticket = live.ticket};
    }
    bt_message answer = {.u.heartbeat = {.tickets = unknown, .n_tickets = n_unknown}};
    bt_rx_answer(rx, BT_RX_ALLOC_PORT, &peer->routes[BT_RX_ALLOC_PORT], message, &answer);
}

/* Bit r: the peer has pages in quarantine in region r. */
static uint64_t regions_of(const bt_rx *rx, const bt_rx_peer *peer)
{
    uint64_t regions = 0;
    for (const bt_rx_ticket *ticket = rx->first_ticket; ticket != NULL; ticket = ticket->next) {
        if (ticket->peer != peer || ticket->state != BT_TICKET_REVOKED)
            continue;
        for (uint32_t chunk = 0; chunk < ticket->n_chunks; chunk++) {
            bt_page_ref page;
            if (bt_grant_claims(ticket->grant, chunk, &page))
                regions |= UINT64_C(1) << page.region;
        }
    }
    return regions;
}

static void remove_peer(bt_rx *rx, bt_rx_peer *peer, bt_rx_ticket_change proof)
{
    bt_rx_peer **link = &rx->peers;
    while (*link != peer)
        link = &(*link)->next;
    *link = peer->next;
    rx->n_peers--;
    /* The order is the proof: what this worker still had in its queues is gone before a page is
     * free again. */
    rx->out.peer_fds(rx->out.ctx, peer, bt_worker_fd(peer->worker), peer->pidfd, false);
    bt_worker_destroy(peer->worker);
    peer->worker = NULL;
    if (proof == BT_TICKET_ON_PATIENCE)
        bt_rx_regions_owe(rx, regions_of(rx, peer), &peer->pidfd);
    settle_tickets(rx, peer, proof);
    for (bt_rx_ticket *ticket = rx->first_ticket; ticket != NULL; ticket = ticket->next) {
        if (ticket->peer == peer) /* held: it needs its sender no more */
            ticket->peer = NULL;
    }
    peer_free(rx, peer);
}

static void send_revokes(bt_rx *rx, bt_rx_peer *peer, uint64_t now_ns)
{
    for (const bt_rx_ticket *ticket = rx->first_ticket; ticket != NULL; ticket = ticket->next) {
        if (ticket->peer != peer || ticket->state != BT_TICKET_REVOKED)
            continue;
        bt_message revoke = {
            .type = BT_MSG_REVOKE,
            .id = ticket->alloc_id,
            .peer_epoch = peer->epoch,
            .text = bt_blob_of_text(ticket->reason_text),
            .u.end = {.name = {.ticket = ticket->id, .generation = ticket->generation},
                      .reason = ticket->reason},
        };
        bt_rx_send(rx, BT_RX_ALLOC_PORT, &peer->routes[BT_RX_ALLOC_PORT], &revoke);
    }
    peer->last_revoke_ns = now_ns;
}

void bt_rx_peer_lost(bt_rx *rx, bt_rx_peer *peer, baton_status reason, bool exited)
{
    if (reason != BATON_ERR_CLOSED) {
        rx->stats.peers_lost_total++;
        bt_info("receiver: peer lost: %s peer=%s epoch=%016" PRIx64, baton_strerror(reason),
                peer->name, peer->epoch);
    }
    fail_tickets(rx, peer, reason, baton_strerror(reason));
    if (reason == BATON_ERR_CLOSED || reason == BATON_ERR_DRAIN_TIMEOUT)
        send_revokes(rx, peer, bt_now_ns(rx->clock)); /* the only time that all are said */
    bt_rx_ticket_change proof = BT_TICKET_ON_PATIENCE;
    if (exited)
        proof = BT_TICKET_ON_EXITED;
    else if (!peer->same_host)
        proof = BT_TICKET_ON_UNPLUGGED;
    remove_peer(rx, peer, proof);
}

static uint64_t oldest_revoked_ns(const bt_rx *rx, const bt_rx_peer *peer)
{
    uint64_t oldest_ns = BT_NEVER_NS;
    for (const bt_rx_ticket *ticket = rx->first_ticket; ticket != NULL; ticket = ticket->next) {
        if (ticket->peer != peer || ticket->state != BT_TICKET_REVOKED)
            continue;
        if (ticket->revoked_ns < oldest_ns)
            oldest_ns = ticket->revoked_ns;
    }
    return oldest_ns;
}

/* A process that exits closes its connection: where nobody can watch the process, this tells a dead
 * peer from a slow one. Looked at only when heartbeats are missing, so that a connection that is
 * made anew is none that has gone. */
static bool has_hung_up(bt_rx *rx, bt_rx_peer *peer, uint64_t now_ns)
{
    enum { MISSED_BEATS = 2 };
    uint64_t beat_ns = rx->options.timeouts.heartbeat_ms * BT_NS_PER_MS;
    const bt_rx_route *route = &peer->routes[BT_RX_ALLOC_PORT];
    if (rx->out.reach == NULL || peer->pidfd >= 0 || peer->is_silent || route->n == 0 ||
        bt_elapsed_ns(now_ns, peer->last_heard_ns) < MISSED_BEATS * beat_ns ||
        bt_elapsed_ns(now_ns, peer->last_reach_ns) < beat_ns)
        return false;
    peer->last_reach_ns = now_ns;
    bt_message nothing = {.type = BT_MSG_HEARTBEAT_ANSWER,
                          .v = BT_PROTOCOL_VERSION,
                          .epoch = rx->epoch,
                          .peer_epoch = peer->epoch};
    bt_pack_reset(&rx->writer);
    return bt_message_encode(&nothing, &rx->writer) == BATON_OK &&
           !rx->out.reach(rx->out.ctx, BT_RX_ALLOC_PORT, route, rx->writer.bytes, rx->writer.n);
}

/* A silent peer on this host may be stopped in the middle of a copy into a mapped page: only its
 * own word or its exit is proof, so it stays until one of them comes or patience ends. */
static void silent_peer(bt_rx *rx, bt_rx_peer *peer, baton_status reason)
{
    if (!peer->is_silent) {
        peer->is_silent = true;
        fail_tickets(rx, peer, reason, baton_strerror(reason));
    }
    if (!peer->same_host || peer->n_revoked == 0)
        bt_rx_peer_lost(rx, peer, reason, false);
}

/* Whether it speaks or not: a sender whose stages end as they should has said DRAINED long ago, so
 * what would still come is of no use to wait for. */
static bool patience_has_ended(const bt_rx *rx, const bt_rx_peer *peer, uint64_t now_ns)
{
    return peer->n_revoked > 0 &&
           bt_elapsed_ns(now_ns, oldest_revoked_ns(rx, peer)) >= BT_RX_RETIRE_NS;
}

/* From here on it ages like one that says nothing: its pages wait for the same proof. */
static void deafen(bt_rx *rx, bt_rx_peer *peer)
{
    static const char text[] = "the sender does not read what it is told";
    peer->is_deaf = true;
    rx->stats.peers_deaf_total++;
    if (is_worth_a_line(rx, &rx->deaf_logged_ns))
        bt_warn("receiver: peer not listened to any more: %s peer=%s epoch=%016" PRIx64, text,
                peer->name, peer->epoch);
    fail_tickets(rx, peer, BATON_ERR_PEER_SILENT, text);
}

void bt_rx_deaf(bt_rx *rx, bt_rx_port port, const bt_rx_route *route)
{
    pthread_mutex_lock(&rx->lock);
    for (bt_rx_peer *peer = rx->peers; peer != NULL; peer = peer->next) {
        if (!peer->is_deaf && is_route(&peer->routes[port], route))
            deafen(rx, peer);
    }
    bt_rx_pump_queue(rx);
    pthread_mutex_unlock(&rx->lock);
}

void bt_rx_peers_tick(bt_rx *rx, uint64_t now_ns)
{
    uint64_t silent_ns = rx->options.timeouts.silent_ms * BT_NS_PER_MS;
    uint64_t again_ns = rx->options.timeouts.heartbeat_ms * BT_NS_PER_MS;
    for (bt_rx_peer *peer = rx->peers, *next; peer != NULL; peer = next) {
        next = peer->next;
        if (peer->n_revoked > 0 && bt_elapsed_ns(now_ns, peer->last_revoke_ns) >= again_ns)
            send_revokes(rx, peer, now_ns);
        if (patience_has_ended(rx, peer, now_ns))
            bt_rx_peer_lost(rx, peer, BATON_ERR_DRAIN_TIMEOUT, false);
        else if (bt_elapsed_ns(now_ns, peer->last_heard_ns) >= silent_ns)
            silent_peer(rx, peer, BATON_ERR_PEER_SILENT);
        else if (has_hung_up(rx, peer, now_ns))
            silent_peer(rx, peer, BATON_ERR_PEER_GONE);
    }
}
