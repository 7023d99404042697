/* SPDX-License-Identifier: Apache-2.0 */
#include "receiver/rxshell.h"

#include "core/log.h"
#include "core/thread.h"

#include <inttypes.h>
#include <sched.h>
#include <stdio.h>
#include <string.h>

static baton_status open_port(baton_receiver *receiver, bt_rx_port port, uint16_t wanted)
{
    int fd;
    void **socket = &receiver->sockets[port];
    uint32_t frame_bytes = port == BT_RX_INIT_PORT ? BT_GREETING_BYTES_MAX : BT_FRAME_BYTES_MAX;
    BATON_TRY(bt_control_socket(&receiver->control, ZMQ_ROUTER, BT_RX_SEND_MESSAGES, frame_bytes,
                                socket));
    BATON_TRY(bt_zmq_guard_watch(receiver->guard, receiver->control.context, *socket));
    bt_zmq_gate *gate = &receiver->gates[port];
    BATON_TRY(
        bt_zmq_gate_bind(*socket, receiver->options.host, wanted, &receiver->ports[port], gate));
    if (gate->is_open)
        BATON_TRY(bt_pollset_add(receiver->polls, gate->fd, &receiver->gate_is_due[port]));
    BATON_TRY(bt_zmq_fd(*socket, &fd));
    receiver->is_due[port] = true;
    return bt_pollset_add(receiver->polls, fd, &receiver->is_due[port]);
}

void bt_rxshell_ring(void *ctx)
{
    const baton_receiver *receiver = ctx;
    bt_doorbell_ring(receiver->bell);
}

baton_status bt_rxshell_open(baton_receiver *receiver)
{
    const baton_receiver_options *options = &receiver->options;
    const bt_zmq_guard_options guard = {
        .what = "receiver", .wake = bt_rxshell_ring, .ctx = receiver};
    BATON_TRY(bt_zmq_guard_create(&guard, &receiver->guard));
    BATON_TRY(open_port(receiver, BT_RX_INIT_PORT, options->init_port));
    BATON_TRY(open_port(receiver, BT_RX_ALLOC_PORT, options->alloc_port));
    BATON_TRY(bt_zmq_guard_start(receiver->guard));
    if (receiver->wake != NULL)
        BATON_TRY(bt_pollset_add(receiver->polls, bt_wakesocket_fd(receiver->wake),
                                 &receiver->wake_is_due));
    return bt_pollset_add(receiver->polls, bt_doorbell_fd(receiver->bell), &receiver->bell_is_due);
}

/* A peer that cannot be sent to (its queue is full, or it is gone) asks again, or is gone. A send
 * may swallow the edge on the socket's descriptor, so it is looked at again. */
static baton_status send_now(baton_receiver *receiver, bt_rx_port port, const bt_rx_route *route,
                             const void *frame, size_t bytes)
{
    baton_status status = bt_backlog_send(receiver->backlog, receiver->sockets[port],
                                          bt_blob_of(route->bytes, route->n),
                                          bt_blob_of(frame, bytes), bt_now_ns(&bt_clock_monotonic));
    receiver->is_due[port] = true;
    if (status == BATON_OK)
        return status;
    bt_debug("receiver: answer dropped: %s",
             status == BATON_IN_PROGRESS ? "many wait for this peer" : baton_last_error());
    atomic_fetch_add_explicit(&receiver->n_unsent, 1, memory_order_relaxed);
    if (status == BATON_ERR_BUSY) {
        receiver->deaf_port = port;
        receiver->deaf_route = *route;
    }
    return status;
}

static bool reach_peer(void *ctx, bt_rx_port port, const bt_rx_route *route, const void *frame,
                       size_t bytes)
{
    return send_now(ctx, port, route, frame, bytes) != BATON_ERR_UNREACHABLE;
}

void bt_rxshell_answer(baton_receiver *receiver)
{
    for (uint32_t i = 0; i < receiver->user.n_later; i++) {
        const bt_rx_later *later = &receiver->user.later[i];
        send_now(receiver, later->port, &later->route, later->frame, later->bytes);
    }
    receiver->user.n_later = 0;
}

/* Sending wakes a thread of ZeroMQ's, which may take this core: a user who polls sees first what
 * has come. Frames keep their order. */
static void send_frame(void *ctx, bt_rx_port port, const bt_rx_route *route, const void *frame,
                       size_t bytes)
{
    baton_receiver *receiver = ctx;
    if (!receiver->user.answers_later || receiver->user.n_later == BT_RX_LATER_MAX ||
        bytes > BT_RX_LATER_BYTES) {
        bt_rxshell_answer(receiver);
        send_now(receiver, port, route, frame, bytes);
        return;
    }
    bt_rx_later *later = &receiver->user.later[receiver->user.n_later++];
    later->port = port;
    later->route = *route;
    later->bytes = bytes;
    memcpy(later->frame, frame, bytes);
}

static void send_notice(void *ctx, const char *address, const char *request, baton_status status,
                        const char *text)
{
    baton_receiver *receiver = ctx;
    const bt_notice notice = {
        .id = bt_blob_of_text(request),
        .epoch = receiver->rx->epoch,
        .rank = receiver->options.rank,
        .world = receiver->options.world,
        .status = status,
        .text = bt_blob_of_text(text),
    };
    bt_noticepush_send(receiver->notices, address, &notice);
}

/* A user who does not poll must not cost memory without end: the newest events are kept. */
static void push_event(void *ctx, const baton_receiver_event *event)
{
    baton_receiver *receiver = ctx;
    baton_receiver_event oldest;
    uint32_t gone = 0;
    if (atomic_load_explicit(&receiver->n_events, memory_order_relaxed) >= BT_RX_EVENTS_MAX)
        gone = bt_eventqueue_pop(receiver->events, &oldest, 1);
    bool has_room = bt_eventqueue_reserve(receiver->events, 1) == BATON_OK;
    if (has_room)
        bt_eventqueue_push(receiver->events, event);
    atomic_fetch_add_explicit(&receiver->n_events, (uint32_t)has_room - gone, memory_order_relaxed);
    atomic_fetch_add_explicit(&receiver->n_dropped, gone + !has_room, memory_order_relaxed);
}

static void watch(baton_receiver *receiver, int fd, bool *flag, bool added)
{
    if (fd < 0)
        return;
    *flag = false;
    if (!added)
        bt_pollset_remove(receiver->polls, fd);
    else if (bt_pollset_add(receiver->polls, fd, flag) != BATON_OK)
        bt_warn("receiver: only the heartbeat notices a peer: %s", baton_last_error());
}

static void watch_peer(void *ctx, bt_rx_peer *peer, int worker_fd, int pidfd, bool added)
{
    watch(ctx, worker_fd, &peer->worker_is_due, added);
    watch(ctx, pidfd, &peer->has_exited, added);
}

static bool ring_peer(void *ctx, bt_blob doorbell)
{
    const baton_receiver *receiver = ctx;
    return bt_wakesocket_ring(receiver->wake, (const char *)doorbell.data, doorbell.bytes);
}

bt_rx_out bt_rxshell_out(baton_receiver *receiver)
{
    bt_rx_out out = {.send = send_frame,
                     .notice = send_notice,
                     .event = push_event,
                     .peer_fds = watch_peer,
                     .reach = reach_peer,
                     .ctx = receiver};
    if (receiver->wake != NULL) {
        out.ring = ring_peer;
        out.doorbell.data =
            (const uint8_t *)bt_wakesocket_name(receiver->wake, &out.doorbell.bytes);
    }
    return out;
}

/* Anything but one frame behind a routing id goes on as an empty frame, to be counted and dropped
 * like other garbage. */
static void handle_message(baton_receiver *receiver, bt_rx_port port, bt_zmq_message *message)
{
    bt_rx_route route = {0};
    bt_blob id = bt_zmq_part(message, 0), frame = {0};
    if (message->n_parts == 2 && id.bytes <= BT_RX_ROUTE_BYTES_MAX) {
        route.n = (uint8_t)id.bytes;
        memcpy(route.bytes, id.data, id.bytes);
        frame = bt_zmq_part(message, 1);
        if (receiver->control.security.has_keys)
            snprintf(route.user, sizeof(route.user), "%s", bt_zmq_user(message, 1));
    }
    bt_rx_handle(receiver->rx, port, &route, frame.data, frame.bytes);
}

static bool serve_port(baton_receiver *receiver, bt_rx_port port)
{
    if (!receiver->is_due[port])
        return false;
    for (uint32_t n = 0; n < BT_RX_FRAMES_PER_STEP; n++) {
        bt_zmq_message message;
        baton_status status = bt_zmq_guard_recv(receiver->guard, receiver->sockets[port], &message);
        if (status == BATON_ERR_BAD_MESSAGE) {
            bt_rx_handle(receiver->rx, port, &(bt_rx_route){0}, NULL, 0);
            continue;
        }
        if (status != BATON_OK) {
            /* Found empty, all that ZeroMQ knew was taken into account: what comes from here on
             * makes the descriptor readable. */
            receiver->is_due[port] = false;
            return n > 0;
        }
        handle_message(receiver, port, &message);
        bt_zmq_message_close(&message);
    }
    return true;
}

/* Somebody connects. */
static void serve_gate(baton_receiver *receiver, int port)
{
    bt_zmq_gate *gate = &receiver->gates[port];
    uint64_t n_refused = gate->refused_total, now_ns = bt_now_ns(receiver->rx->clock);
    if (!bt_zmq_gate_turn(gate)) {
        bt_pollset_remove(receiver->polls, gate->fd);
        receiver->gate_closed_ns[port] = bt_deadline_ns(now_ns, BT_RX_GATE_MS * BT_NS_PER_MS);
    }
    if (gate->refused_total == n_refused || now_ns < receiver->gate_logged_ns)
        return;
    receiver->gate_logged_ns = bt_deadline_ns(now_ns, BT_RX_GATE_LOG_MS * BT_NS_PER_MS);
    (void)bt_fdroom_require(1, "connections turned away");
    bt_warn("receiver: %s refused=%" PRIu64, baton_last_error(), gate->refused_total);
}

/* Looks again at gates that could do nothing; *deadline_ns: when it wants to. */
static void reopen_gates(baton_receiver *receiver, uint64_t *deadline_ns)
{
    for (int port = 0; port < BT_RX_N_PORTS; port++) {
        uint64_t *closed_ns = &receiver->gate_closed_ns[port];
        if (*closed_ns == 0)
            continue;
        if (bt_now_ns(receiver->rx->clock) < *closed_ns)
            *deadline_ns = *closed_ns < *deadline_ns ? *closed_ns : *deadline_ns;
        else if (bt_pollset_add(receiver->polls, receiver->gates[port].fd,
                                &receiver->gate_is_due[port]) == BATON_OK)
            *closed_ns = 0;
    }
}

static void tell_of_deaf(baton_receiver *receiver)
{
    const bt_rx_route route = receiver->deaf_route; /* there may be another at once */
    receiver->deaf_route.n = 0;
    bt_rx_deaf(receiver->rx, receiver->deaf_port, &route);
}

bool bt_rxshell_step(baton_receiver *receiver, uint64_t *deadline_ns)
{
    atomic_fetch_add_explicit(&receiver->n_steps, 1, memory_order_relaxed);
    uint64_t n_ring_frames = receiver->rx->stats.ring_messages_total;
    bool active = bt_rx_look(receiver->rx); /* first: who comes this way is in a hurry */
    active |= serve_port(receiver, BT_RX_INIT_PORT);
    active |= serve_port(receiver, BT_RX_ALLOC_PORT);
    *deadline_ns = bt_rx_progress(receiver->rx);
    if (receiver->deaf_route.n != 0)
        tell_of_deaf(receiver);
    if (bt_admin_pending(receiver->admin) != NULL)
        bt_rxshell_answer_admin(receiver);
    reopen_gates(receiver, deadline_ns);
    return active || receiver->rx->stats.ring_messages_total != n_ring_frames;
}

/* Before sleep is announced, so that no ring for it gets lost; and not on waking, when somebody
 * waits for what the ring was about. */
static void silence(baton_receiver *receiver)
{
    if (receiver->bell_is_due)
        bt_doorbell_silence(receiver->bell);
    if (receiver->wake_is_due)
        bt_wakesocket_silence(receiver->wake);
    receiver->bell_is_due = receiver->wake_is_due = false;
}

bool bt_rxshell_prepare_sleep(baton_receiver *receiver)
{
    silence(receiver);
    if (!receiver->is_due[BT_RX_INIT_PORT] && !receiver->is_due[BT_RX_ALLOC_PORT] &&
        bt_doorbell_sleep(receiver->bell) && bt_rx_arm(receiver->rx))
        return true;
    bt_rx_disarm(receiver->rx);
    return false;
}

static void handle_exits(baton_receiver *receiver)
{
    bt_rx_peer *peer = receiver->rx->peers;
    while (peer != NULL) {
        bt_rx_peer *next = peer->next;
        if (peer->has_exited)
            bt_rx_peer_exited(receiver->rx, peer);
        peer = next;
    }
}

/* Waits in the poll set until the deadline; true when something came. It is believed, but not for
 * ever. */
static bool look_around(baton_receiver *receiver, uint64_t deadline_ns)
{
    uint64_t now_ns = deadline_ns != 0 ? bt_now_ns(receiver->rx->clock) : 0;
    bool found = bt_pollset_wait(receiver->polls, now_ns, deadline_ns) > 0;
    receiver->looked_ns = bt_now_ns(&bt_clock_monotonic);
    if (receiver->looked_ns - receiver->doubted_ns < BT_RX_DOUBT_NS)
        return found;
    receiver->doubted_ns = receiver->looked_ns;
    receiver->is_due[BT_RX_INIT_PORT] = receiver->is_due[BT_RX_ALLOC_PORT] = true;
    return true;
}

/* Awake: nobody needs to ring from here on. */
static void wake_up(baton_receiver *receiver)
{
    bt_doorbell_wake(receiver->bell);
    bt_rx_disarm(receiver->rx);
    handle_exits(receiver);
    if (bt_zmq_guard_called(receiver->guard))
        receiver->is_due[BT_RX_INIT_PORT] = receiver->is_due[BT_RX_ALLOC_PORT] = true;
    for (int port = 0; port < BT_RX_N_PORTS; port++) {
        if (receiver->gate_is_due[port])
            serve_gate(receiver, port);
        receiver->gate_is_due[port] = false;
    }
}

static bool is_late(const baton_receiver *receiver)
{
    return bt_now_ns(receiver->rx->clock) >= receiver->user.wake_ns;
}

static uint32_t left_ms(const baton_receiver *receiver)
{
    int ms = bt_wait_ms(bt_now_ns(receiver->rx->clock), receiver->user.wake_ns);
    return ms < 0 ? UINT32_MAX : (uint32_t)ms;
}

/* Nothing is left to do. */
static uint32_t rest(baton_receiver *receiver, uint64_t now_ns)
{
    receiver->user.rest = BT_RX_BUSY;
    if (!bt_rxshell_prepare_sleep(receiver))
        return 0;
    receiver->user.rest = BT_RX_ASLEEP;
    if (!bt_pollhabit_is_relied(&receiver->user.habit, now_ns))
        return left_ms(receiver);
    bt_rx_disarm(receiver->rx);
    receiver->user.rest = bt_doorbell_wake(receiver->bell) ? BT_RX_BUSY : BT_RX_POLLED;
    return 0;
}

/* Nothing has come since. */
static uint32_t rest_on(baton_receiver *receiver, uint64_t now_ns)
{
    bt_pollhabit *habit = &receiver->user.habit;
    bool polls = bt_pollhabit_idle(habit, now_ns);
    if (receiver->user.rest == BT_RX_POLLED)
        return bt_pollhabit_is_relied(habit, now_ns) ? 0 : rest(receiver, now_ns);
    if (!polls)
        return left_ms(receiver);
    bt_pollhabit_rely(habit, now_ns);
    return rest(receiver, now_ns);
}

/* Handles what somebody waits for and leaves the rest to the next turn. */
static bool look_first(baton_receiver *receiver)
{
    receiver->user.answers_later = true;
    bool found = bt_rx_look(receiver->rx);
    receiver->user.answers_later = false;
    return found;
}

/* A user who polls pays a look at memory, and at the workers that bring COMMITs, while nothing
 * happens; sometimes one into the poll set, which knows of all else. When a look always finds
 * something, every second turn is a whole one. */
uint32_t bt_rxshell_turn(baton_receiver *receiver)
{
    uint64_t now_ns = bt_now_ns(&bt_clock_monotonic);
    receiver->user.has_looked = !receiver->user.has_looked && look_first(receiver);
    if (receiver->user.has_looked) {
        receiver->user.rest = BT_RX_BUSY;
        return 0;
    }
    bool must_step = receiver->user.rest == BT_RX_BUSY || is_late(receiver) ||
                     bt_doorbell_is_rung(receiver->bell);
    bool must_look = now_ns - receiver->looked_ns >= BT_RX_LOOK_NS;
    bool found = must_look && look_around(receiver, 0);
    if (!must_step && !found)
        return rest_on(receiver, now_ns);
    bt_rxshell_answer(receiver);
    wake_up(receiver);
    if (bt_rxshell_step(receiver, &receiver->user.wake_ns) || is_late(receiver)) {
        receiver->user.rest = BT_RX_BUSY;
        return 0;
    }
    return rest(receiver, bt_now_ns(&bt_clock_monotonic));
}

static void *progress_thread(void *ctx)
{
    baton_receiver *receiver = ctx;
    uint64_t active_ns = 0, deadline_ns;
    while (!atomic_load_explicit(&receiver->stopping, memory_order_acquire)) {
        uint64_t now_ns = bt_now_ns(&bt_clock_monotonic);
        if (now_ns - receiver->looked_ns >= BT_RX_LOOK_NS && look_around(receiver, 0))
            wake_up(receiver);
        if (bt_rxshell_step(receiver, &deadline_ns))
            active_ns = now_ns;
        if (now_ns - active_ns < BT_RX_SPIN_NS) {
            sched_yield(); /* to who was woken by what was handled, when there is no other core */
            continue;
        }
        if (!bt_rxshell_prepare_sleep(receiver))
            continue;
        /* destroy's ring may have been answered by wake_up, after the look at it up there. */
        if (atomic_load_explicit(&receiver->stopping, memory_order_acquire))
            break;
        if (look_around(receiver, deadline_ns))
            active_ns = receiver->looked_ns;
        wake_up(receiver);
    }
    return NULL;
}

baton_status bt_rxshell_start_thread(baton_receiver *receiver)
{
    BATON_TRY(bt_thread_start(&receiver->thread, "baton-receiver", progress_thread, receiver));
    receiver->has_thread = true;
    return BATON_OK;
}
