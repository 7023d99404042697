/* SPDX-License-Identifier: Apache-2.0 */
#include "sender/txshell.h"

#include "core/alloc.h"
#include "core/fdroom.h"
#include "core/log.h"
#include "core/thread.h"

#include <sched.h>

static baton_status open_socket(baton_sender *sender, bt_tx_link *link, bt_tx_port port,
                                uint16_t number)
{
    int fd;
    void **socket = &link->sockets[port];
    BATON_TRY(bt_control_socket(&sender->control, ZMQ_DEALER, BT_TX_SEND_MESSAGES,
                                BT_FRAME_BYTES_MAX, socket));
    BATON_TRY(bt_zmq_connect(*socket, link->peer->host, number));
    BATON_TRY(bt_zmq_fd(*socket, &fd));
    link->is_due[port] = true;
    return bt_pollset_add(sender->polls, fd, &link->is_due[port]);
}

static void close_link(baton_sender *sender, bt_tx_link *link)
{
    if (link->monitor != NULL)
        bt_zmq_monitor_close(link->monitor, link->sockets[BT_TX_INIT_PORT]);
    for (int port = 0; port < BT_TX_N_PORTS; port++) {
        int fd;
        if (link->sockets[port] != NULL && bt_zmq_fd(link->sockets[port], &fd) == BATON_OK)
            bt_pollset_remove(sender->polls, fd);
        bt_control_socket_close(link->sockets[port], BT_TX_FLUSH_MS);
    }
    if (link->pidfd >= 0)
        bt_pollset_remove(sender->polls, link->pidfd);
    bt_free(link);
}

static baton_status open_peer(void *ctx, bt_tx_peer *peer)
{
    enum { PEER_FDS = 24 }; /* two sockets, a watched process, an endpoint and its memory */
    baton_sender *sender = ctx;
    BATON_TRY(bt_fdroom_require(PEER_FDS, "sender: one more receiver"));
    bt_tx_link *link = bt_calloc(1, sizeof(*link));
    if (link == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "sender: sockets of a peer");
    link->peer = peer;
    link->pidfd = -1;
    baton_status status = open_socket(sender, link, BT_TX_INIT_PORT, peer->init_port);
    if (status == BATON_OK)
        status = open_socket(sender, link, BT_TX_ALLOC_PORT, peer->alloc_port);
    if (status != BATON_OK) {
        close_link(sender, link);
        return status;
    }
    peer->shell = link;
    link->next = sender->links;
    sender->links = link;
    return BATON_OK;
}

static void close_peer(void *ctx, bt_tx_peer *peer)
{
    baton_sender *sender = ctx;
    bt_tx_link **at = &sender->links;
    while (*at != peer->shell)
        at = &(*at)->next;
    bt_tx_link *link = *at;
    *at = link->next;
    close_link(sender, link);
}

/* What cannot be sent now is sent again by the state machine, or was not worth it. A send may
 * swallow the edge on the socket's descriptor, so it is looked at again. */
static void send_frame(void *ctx, bt_tx_peer *peer, bt_tx_port port, const void *frame,
                       size_t bytes)
{
    (void)ctx;
    bt_tx_link *link = peer->shell;
    const bt_blob part = bt_blob_of(frame, bytes);
    link->is_due[port] = true;
    if (bt_zmq_send(link->sockets[port], &part, 1) != BATON_OK)
        bt_debug("sender: frame not sent now peer=%s:%u", peer->host, peer->init_port);
}

static void send_notice(void *ctx, const char *address, const char *request, baton_status status,
                        const char *text, uint32_t retry_ms)
{
    baton_sender *sender = ctx;
    const bt_notice notice = {
        .id = bt_blob_of_text(request),
        .epoch = sender->tx->epoch,
        .rank = sender->options.rank,
        .world = sender->options.world,
        .status = status,
        .retry_ms = retry_ms,
        .text = bt_blob_of_text(text),
    };
    bt_noticepush_send(sender->notices, address, &notice);
}

static void watch_peer(void *ctx, bt_tx_peer *peer, int pidfd)
{
    baton_sender *sender = ctx;
    bt_tx_link *link = peer->shell;
    if (link->pidfd >= 0)
        bt_pollset_remove(sender->polls, link->pidfd);
    link->pidfd = -1;
    link->has_exited = false;
    if (pidfd < 0)
        return;
    if (bt_pollset_add(sender->polls, pidfd, &link->has_exited) == BATON_OK)
        link->pidfd = pidfd;
    else
        bt_warn("sender: only the heartbeat notices a peer: %s", baton_last_error());
}

/* Called when something has come over the connection; what the monitor still holds of the past ends
 * with how it was made. */
static void follow_peer(void *ctx, bt_tx_peer *peer)
{
    const baton_sender *sender = ctx;
    bt_tx_link *link = peer->shell;
    link->is_connected = true;
    if (link->monitor == NULL &&
        bt_zmq_monitor_open(sender->control.context, link->sockets[BT_TX_INIT_PORT],
                            &link->monitor) != BATON_OK)
        bt_warn("sender: only the heartbeat notices a peer: %s", baton_last_error());
}

static bool is_peer_connected(void *ctx, bt_tx_peer *peer)
{
    (void)ctx;
    bt_tx_link *link = peer->shell;
    bt_zmq_event event;
    while (link->monitor != NULL && bt_zmq_monitor_next(link->monitor, &event) == BATON_OK)
        link->is_connected = event == BT_ZMQ_CONNECTED;
    return link->is_connected || link->monitor == NULL;
}

static bool ring_peer(void *ctx, bt_blob doorbell)
{
    const baton_sender *sender = ctx;
    return bt_wakesocket_ring(sender->wake, (const char *)doorbell.data, doorbell.bytes);
}

bt_tx_out bt_txshell_out(baton_sender *sender)
{
    bt_tx_out out = {.open = open_peer,
                     .close = close_peer,
                     .send = send_frame,
                     .notice = send_notice,
                     .watch = watch_peer,
                     .follow = follow_peer,
                     .is_connected = is_peer_connected,
                     .ctx = sender};
    if (sender->wake != NULL) {
        out.ring = ring_peer;
        out.doorbell.data = (const uint8_t *)bt_wakesocket_name(sender->wake, &out.doorbell.bytes);
    }
    return out;
}

baton_status bt_txshell_open(baton_sender *sender)
{
    BATON_TRY(bt_pollset_add(sender->polls, bt_doorbell_fd(sender->bell), &sender->bell_is_due));
    if (sender->wake != NULL)
        BATON_TRY(
            bt_pollset_add(sender->polls, bt_wakesocket_fd(sender->wake), &sender->wake_is_due));
    int fd = bt_worker_fd(sender->tx->worker);
    return fd >= 0 ? bt_pollset_add(sender->polls, fd, &sender->worker_is_due) : BATON_OK;
}

static bool serve_port(baton_sender *sender, bt_tx_link *link, bt_tx_port port)
{
    if (!link->is_due[port])
        return false;
    for (uint32_t n = 0; n < BT_TX_FRAMES_PER_STEP; n++) {
        bt_zmq_message message;
        baton_status status = bt_zmq_recv(link->sockets[port], &message);
        if (status == BATON_ERR_BAD_MESSAGE) {
            bt_tx_handle(sender->tx, link->peer, port, NULL, 0); /* counted and dropped */
            continue;
        }
        if (status != BATON_OK) {
            /* Found empty, all that ZeroMQ knew was taken into account: what comes from here on
             * makes the descriptor readable. */
            link->is_due[port] = false;
            return n > 0;
        }
        bt_blob frame = message.n_parts == 1 ? bt_zmq_part(&message, 0) : (bt_blob){0};
        bt_tx_handle(sender->tx, link->peer, port, frame.data, frame.bytes);
        bt_zmq_message_close(&message);
    }
    return true;
}

bool bt_txshell_step(baton_sender *sender, uint64_t *deadline_ns)
{
    atomic_fetch_add_explicit(&sender->n_steps, 1, memory_order_relaxed);
    uint64_t n_ring_frames = sender->tx->n_ring_frames;
    if (bt_admin_pending(sender->admin) != NULL)
        bt_txshell_answer_admin(sender);
    *deadline_ns = bt_tx_progress(sender->tx);
    bool active = sender->tx->n_ring_frames != n_ring_frames;
    for (bt_tx_link *link = sender->links; link != NULL; link = link->next) {
        active |= serve_port(sender, link, BT_TX_INIT_PORT);
        active |= serve_port(sender, link, BT_TX_ALLOC_PORT);
    }
    return active;
}

static bool has_due_sockets(const baton_sender *sender)
{
    const bt_tx_link *link = sender->links;
    while (link != NULL && !link->is_due[BT_TX_INIT_PORT] && !link->is_due[BT_TX_ALLOC_PORT])
        link = link->next;
    return link != NULL;
}

/* Before sleep is announced, so that no ring for it gets lost; and not on waking, when somebody
 * waits for what the ring was about. */
static void silence(baton_sender *sender)
{
    if (sender->bell_is_due)
        bt_doorbell_silence(sender->bell);
    if (sender->wake_is_due)
        bt_wakesocket_silence(sender->wake);
    sender->bell_is_due = sender->wake_is_due = false;
}

bool bt_txshell_prepare_sleep(baton_sender *sender)
{
    silence(sender);
    if (!has_due_sockets(sender) && bt_doorbell_sleep(sender->bell) && bt_tx_arm(sender->tx))
        return true;
    bt_tx_disarm(sender->tx);
    return false;
}

static void handle_exits(baton_sender *sender)
{
    for (bt_tx_link *link = sender->links, *next; link != NULL; link = next) {
        next = link->next;
        if (link->has_exited)
            bt_tx_peer_exited(sender->tx, link->peer);
    }
}

/* Waits in the poll set until the deadline; true when something came. It is believed, but not for
 * ever. */
static bool look_around(baton_sender *sender, uint64_t deadline_ns)
{
    uint64_t now_ns = deadline_ns != 0 ? bt_now_ns(sender->tx->clock) : 0;
    bool found = bt_pollset_wait(sender->polls, now_ns, deadline_ns) > 0;
    sender->looked_ns = bt_now_ns(&bt_clock_monotonic);
    if (sender->looked_ns - sender->doubted_ns < BT_TX_DOUBT_NS)
        return found;
    sender->doubted_ns = sender->looked_ns;
    for (bt_tx_link *link = sender->links; link != NULL; link = link->next)
        link->is_due[BT_TX_INIT_PORT] = link->is_due[BT_TX_ALLOC_PORT] = true;
    return found || sender->links != NULL;
}

/* Awake: nobody needs to ring from here on. */
static void wake_up(baton_sender *sender)
{
    bt_doorbell_wake(sender->bell);
    bt_tx_disarm(sender->tx);
    handle_exits(sender);
}

static bool is_late(const baton_sender *sender)
{
    return bt_now_ns(sender->tx->clock) >= sender->user.wake_ns;
}

static uint32_t left_ms(const baton_sender *sender)
{
    int ms = bt_wait_ms(bt_now_ns(sender->tx->clock), sender->user.wake_ns);
    return ms < 0 ? UINT32_MAX : (uint32_t)ms;
}

/* Nothing is left to do. */
static uint32_t rest(baton_sender *sender, uint64_t now_ns)
{
    sender->user.rest = BT_TX_BUSY;
    if (!bt_txshell_prepare_sleep(sender))
        return 0;
    sender->user.rest = BT_TX_ASLEEP;
    if (!bt_pollhabit_is_relied(&sender->user.habit, now_ns))
        return left_ms(sender);
    bt_tx_disarm(sender->tx);
    sender->user.rest = bt_doorbell_wake(sender->bell) ? BT_TX_BUSY : BT_TX_POLLED;
    return 0;
}

/* Nothing has come since. */
static uint32_t rest_on(baton_sender *sender, uint64_t now_ns)
{
    bt_pollhabit *habit = &sender->user.habit;
    bool polls = bt_pollhabit_idle(habit, now_ns);
    if (sender->user.rest == BT_TX_POLLED)
        return bt_pollhabit_is_relied(habit, now_ns) ? 0 : rest(sender, now_ns);
    if (!polls)
        return left_ms(sender);
    bt_pollhabit_rely(habit, now_ns);
    return rest(sender, now_ns);
}

/* A user who polls pays a look at memory while nothing happens, and sometimes one into the poll
 * set, which knows of all that is not there. */
uint32_t bt_txshell_turn(baton_sender *sender)
{
    uint64_t now_ns = bt_now_ns(&bt_clock_monotonic);
    bool must_step = sender->user.rest == BT_TX_BUSY || bt_doorbell_is_rung(sender->bell) ||
                     bt_tx_rings_wait(sender->tx) || is_late(sender);
    bool found = now_ns - sender->looked_ns >= BT_TX_LOOK_NS && look_around(sender, 0);
    if (!must_step && !found)
        return rest_on(sender, now_ns);
    wake_up(sender);
    if (bt_txshell_step(sender, &sender->user.wake_ns) || is_late(sender)) {
        sender->user.rest = BT_TX_BUSY;
        return 0;
    }
    return rest(sender, bt_now_ns(&bt_clock_monotonic));
}

static void *progress_thread(void *ctx)
{
    baton_sender *sender = ctx;
    uint64_t active_ns = 0, deadline_ns;
    while (!atomic_load_explicit(&sender->stopping, memory_order_acquire)) {
        uint64_t now_ns = bt_now_ns(&bt_clock_monotonic);
        if (now_ns - sender->looked_ns >= BT_TX_LOOK_NS && look_around(sender, 0))
            wake_up(sender);
        bool active = bt_txshell_step(sender, &deadline_ns);
        if (active || deadline_ns <= bt_now_ns(sender->tx->clock)) {
            active_ns = now_ns;
            continue;
        }
        if (now_ns - active_ns < BT_TX_SPIN_NS) {
            sched_yield(); /* to who was woken by what was done, when there is no other core */
            continue;
        }
        if (!bt_txshell_prepare_sleep(sender))
            continue;
        /* destroy's ring may have been answered by wake_up, after the look at it up there. */
        if (atomic_load_explicit(&sender->stopping, memory_order_acquire))
            break;
        if (look_around(sender, deadline_ns))
            active_ns = sender->looked_ns;
        wake_up(sender);
    }
    return NULL;
}

baton_status bt_txshell_start_thread(baton_sender *sender)
{
    BATON_TRY(bt_thread_start(&sender->thread, "baton-sender", progress_thread, sender));
    sender->has_thread = true;
    return BATON_OK;
}

void bt_txshell_drain(baton_sender *sender)
{
    /* Beyond the flush's own deadline, which ends in a failure that is reported. */
    uint64_t limit_ns = 2 * (uint64_t)sender->options.timeouts.flush_ms * BT_NS_PER_MS;
    uint64_t deadline_ns;
    uint64_t give_up_ns = bt_deadline_ns(bt_now_ns(&bt_clock_monotonic), limit_ns);
    bool has_transfers = true;
    while (!bt_tx_close(sender->tx) && bt_now_ns(&bt_clock_monotonic) < give_up_ns) {
        if (has_transfers && sender->tx->first == NULL) /* only the connections are left */
            give_up_ns = bt_now_ns(&bt_clock_monotonic) + BT_TX_CLOSE_MS * BT_NS_PER_MS;
        has_transfers = sender->tx->first != NULL;
        if (!bt_txshell_step(sender, &deadline_ns) && bt_txshell_prepare_sleep(sender))
            look_around(sender, bt_now_ns(sender->tx->clock) + 10 * BT_NS_PER_MS);
        wake_up(sender);
    }
}
