/* SPDX-License-Identifier: Apache-2.0 */
#include "receiver/rxshell.h"

#include "core/log.h"
#include "core/thread.h"

#include <string.h>

static baton_status open_port(baton_receiver *receiver, bt_rx_port port, uint16_t wanted)
{
    int fd;
    void **socket = &receiver->sockets[port];
    BATON_TRY(bt_control_socket(&receiver->control, ZMQ_ROUTER, BT_RX_SEND_MESSAGES, socket));
    BATON_TRY(bt_zmq_bind(*socket, receiver->options.host, wanted, &receiver->ports[port]));
    BATON_TRY(bt_zmq_fd(*socket, &fd));
    return bt_pollset_add(receiver->polls, fd, NULL);
}

baton_status bt_rxshell_open(baton_receiver *receiver)
{
    const baton_receiver_options *options = &receiver->options;
    BATON_TRY(open_port(receiver, BT_RX_INIT_PORT, options->init_port));
    BATON_TRY(open_port(receiver, BT_RX_ALLOC_PORT, options->alloc_port));
    if (receiver->wake != NULL)
        BATON_TRY(
            bt_pollset_add(receiver->polls, bt_wakesocket_fd(receiver->wake), receiver->wake));
    return bt_pollset_add(receiver->polls, bt_doorbell_fd(receiver->bell), NULL);
}

/* A peer that cannot be sent to (its queue is full, or it is gone) asks again, or is gone. */
static void send_frame(void *ctx, bt_rx_port port, const bt_rx_route *route, const void *frame,
                       size_t bytes)
{
    baton_receiver *receiver = ctx;
    const bt_blob parts[] = {bt_blob_of(route->bytes, route->n), bt_blob_of(frame, bytes)};
    baton_status status = bt_zmq_send(receiver->sockets[port], parts, 2);
    if (status == BATON_IN_PROGRESS)
        bt_debug("receiver: answer dropped, %d wait for this peer", BT_RX_SEND_MESSAGES);
    else if (status != BATON_OK)
        bt_debug("receiver: answer dropped: %s", baton_last_error());
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

static void watch(baton_receiver *receiver, int fd, void *tag, bool added)
{
    if (fd < 0)
        return;
    if (!added)
        bt_pollset_remove(receiver->polls, fd);
    else if (bt_pollset_add(receiver->polls, fd, tag) != BATON_OK)
        bt_warn("receiver: only the heartbeat notices a peer: %s", baton_last_error());
}

/* Only a pidfd needs to be told apart: workers are all progressed anyway. */
static void watch_peer(void *ctx, bt_rx_peer *peer, int worker_fd, int pidfd, bool added)
{
    watch(ctx, worker_fd, NULL, added);
    watch(ctx, pidfd, peer, added);
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
    }
    bt_rx_handle(receiver->rx, port, &route, frame.data, frame.bytes);
}

static bool serve_port(baton_receiver *receiver, bt_rx_port port)
{
    uint32_t n = 0;
    for (; n < BT_RX_FRAMES_PER_STEP; n++) {
        bt_zmq_message message;
        baton_status status = bt_zmq_recv(receiver->sockets[port], &message);
        if (status == BATON_ERR_BAD_MESSAGE) {
            bt_rx_handle(receiver->rx, port, &(bt_rx_route){0}, NULL, 0);
            continue;
        }
        if (status != BATON_OK)
            break;
        handle_message(receiver, port, &message);
        bt_zmq_message_close(&message);
    }
    return n > 0;
}

bool bt_rxshell_step(baton_receiver *receiver, uint64_t *deadline_ns)
{
    atomic_fetch_add_explicit(&receiver->n_steps, 1, memory_order_relaxed);
    uint64_t n_ring_frames = receiver->rx->stats.ring_messages_total;
    bt_rx_rings_handle(receiver->rx); /* first: who uses them is in a hurry */
    bool active = serve_port(receiver, BT_RX_INIT_PORT);
    active |= serve_port(receiver, BT_RX_ALLOC_PORT);
    if (bt_admin_pending(receiver->admin) != NULL)
        bt_rxshell_answer_admin(receiver);
    *deadline_ns = bt_rx_progress(receiver->rx);
    return active || receiver->rx->stats.ring_messages_total != n_ring_frames;
}

static bool has_frames(baton_receiver *receiver, bt_rx_port port)
{
    bool readable, writable;
    return bt_zmq_events(receiver->sockets[port], &readable, &writable) == BATON_OK && readable;
}

/* The sockets are asked last: a send may have swallowed the edge on their descriptors. */
bool bt_rxshell_prepare_sleep(baton_receiver *receiver)
{
    if (bt_doorbell_sleep(receiver->bell) && bt_rx_arm(receiver->rx) &&
        !has_frames(receiver, BT_RX_INIT_PORT) && !has_frames(receiver, BT_RX_ALLOC_PORT)) {
        receiver->is_asleep = true;
        return true;
    }
    bt_rx_disarm(receiver->rx);
    return false;
}

enum { TAGS_MAX = 64 };

static void woken(baton_receiver *receiver, void *const *tags, uint32_t n)
{
    receiver->is_asleep = false;
    bt_doorbell_wake(receiver->bell);
    bt_rx_disarm(receiver->rx);
    for (uint32_t i = 0; i < n; i++) {
        if (tags[i] == NULL)
            continue;
        if (tags[i] == receiver->wake)
            bt_wakesocket_silence(receiver->wake);
        else
            bt_rx_peer_exited(receiver->rx, tags[i]);
    }
}

bool bt_rxshell_wait(baton_receiver *receiver, uint64_t deadline_ns)
{
    void *tags[TAGS_MAX];
    uint64_t now_ns = bt_now_ns(receiver->rx->clock);
    uint32_t n = bt_pollset_wait(receiver->polls, now_ns, deadline_ns, tags, TAGS_MAX);
    woken(receiver, tags, n);
    return n > 0;
}

/* A user who polls pays a look at the rings and one system call while nothing happens. Rings that
 * are never empty leave every second turn to the poll set, which knows of exited processes. */
uint32_t bt_rxshell_turn(baton_receiver *receiver)
{
    void *tags[TAGS_MAX];
    uint64_t now_ns = bt_now_ns(receiver->rx->clock);
    bool is_called = bt_rx_rings_wait(receiver->rx);
    bool is_first = is_called && !receiver->was_called;
    uint32_t n = is_first ? 0 : bt_pollset_wait(receiver->polls, now_ns, 0, tags, TAGS_MAX);
    if (!receiver->is_asleep || is_called || n > 0 || now_ns >= receiver->wake_ns) {
        woken(receiver, tags, n);
        receiver->was_called = is_first;
        if (is_first) { /* the rest has the next turn */
            bt_rx_rings_handle(receiver->rx);
            return 0;
        }
        bool active = bt_rxshell_step(receiver, &receiver->wake_ns);
        now_ns = bt_now_ns(receiver->rx->clock);
        if (active || receiver->wake_ns <= now_ns || !bt_rxshell_prepare_sleep(receiver))
            return 0;
    }
    int ms = bt_wait_ms(now_ns, receiver->wake_ns);
    return ms < 0 ? UINT32_MAX : (uint32_t)ms;
}

static void *progress_thread(void *ctx)
{
    baton_receiver *receiver = ctx;
    uint64_t active_ns = 0, looked_ns = 0, deadline_ns;
    while (!atomic_load_explicit(&receiver->stopping, memory_order_acquire)) {
        uint64_t now_ns = bt_now_ns(&bt_clock_monotonic);
        if (now_ns - looked_ns >= BT_RX_LOOK_NS) { /* who never sleeps must hear of exits, too */
            bt_rxshell_wait(receiver, 0);
            looked_ns = now_ns;
        }
        if (bt_rxshell_step(receiver, &deadline_ns))
            active_ns = now_ns;
        if (now_ns - active_ns < BT_RX_SPIN_NS || !bt_rxshell_prepare_sleep(receiver))
            continue;
        if (bt_rxshell_wait(receiver, deadline_ns))
            active_ns = bt_now_ns(&bt_clock_monotonic);
    }
    return NULL;
}

baton_status bt_rxshell_start_thread(baton_receiver *receiver)
{
    BATON_TRY(bt_thread_start(&receiver->thread, "baton-receiver", progress_thread, receiver));
    receiver->has_thread = true;
    return BATON_OK;
}
