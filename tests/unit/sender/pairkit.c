/* SPDX-License-Identifier: Apache-2.0 */
#include "pairkit.h"

#include <stdio.h>
#include <stdlib.h>

#include "transport/rails.h"

static baton_layout layout(const pair_options *options)
{
    return (baton_layout){
        .model = "pair",
        .dtype = BATON_DTYPE_BF16,
        .n_layers = options->is_layered ? PAIR_LAYERS : 1,
        .n_planes = 2,
        .n_kv_heads = 1,
        .head_dim = (uint32_t)PAIR_TOKEN_BYTES / 4 / (options->is_layered ? PAIR_LAYERS : 1),
        .chunk_tokens = PAIR_CHUNK,
        .block_tokens = 4,
        .tp_size = 1,
        .pp_size = 1,
    };
}

static void bus_put(pair *kit, bool to_receiver, uint32_t sender, int port, const void *frame,
                    size_t bytes)
{
    for (uint32_t i = 0; i <= kit->n_duplicates && !kit->is_closing; i++) {
        assert_true(kit->n_frames < PAIR_MAX_FRAMES);
        assert_true(bytes <= sizeof(kit->frames[0].data));
        pair_frame *slot = &kit->frames[kit->n_frames++];
        *slot = (pair_frame){
            .to_receiver = to_receiver, .sender = sender, .port = port, .bytes = bytes};
        memcpy(slot->data, frame, bytes);
    }
}

/* Routing id of a sender's connection to a port: [index, port]. */
static void rx_send(void *ctx, bt_rx_port port, const bt_rx_route *route, const void *frame,
                    size_t bytes)
{
    assert_int_equal(route->bytes[1], port);
    bus_put(ctx, false, route->bytes[0], (int)port, frame, bytes);
}

static void rx_notice(void *ctx, const char *address, const char *request, baton_status status,
                      const char *text)
{
    (void)address, (void)request, (void)text;
    pair *kit = ctx;
    kit->n_receiver_notices++;
    kit->receiver_notice = status;
}

static void rx_event(void *ctx, const baton_receiver_event *event)
{
    pair *kit = ctx;
    kit->n_ready += event->kind == BATON_RECEIVER_READY;
    kit->n_failed += event->kind == BATON_RECEIVER_FAILED;
    kit->n_expired += event->kind == BATON_RECEIVER_EXPIRED;
    kit->last_event = *event;
}

static void rx_peer_fds(void *ctx, bt_rx_peer *peer, int worker_fd, int pidfd, bool added)
{
    (void)ctx, (void)peer, (void)worker_fd, (void)pidfd, (void)added;
}

static baton_status tx_open(void *ctx, bt_tx_peer *peer)
{
    (void)ctx, (void)peer;
    return BATON_OK;
}

static void tx_close(void *ctx, bt_tx_peer *peer)
{
    (void)ctx, (void)peer;
}

static void tx_send(void *ctx, bt_tx_peer *peer, bt_tx_port port, const void *frame, size_t bytes)
{
    pair_sender *sender = ctx;
    peer->shell = sender;
    bus_put(sender->kit, true, sender->index, (int)port, frame, bytes);
}

static void tx_notice(void *ctx, const char *address, const char *request, baton_status status,
                      const char *text, uint32_t retry_ms)
{
    (void)address, (void)request, (void)text;
    pair_sender *sender = ctx;
    sender->n_notices++;
    sender->last_notice = status;
    sender->notice_retry_ms = retry_ms;
}

static void tx_watch(void *ctx, bt_tx_peer *peer, int pidfd)
{
    (void)ctx, (void)peer, (void)pidfd;
}

static bool tx_is_connected(void *ctx, bt_tx_peer *peer)
{
    (void)peer;
    return !((const pair_sender *)ctx)->kit->receiver_has_hung_up;
}

/* Doorbells: "r" is the receiver's, "s" a sender's. Both sides look into their rings anyway. */
static const uint8_t bell_r[] = "r", bell_s[] = "s";

static bool rx_ring(void *ctx, bt_blob doorbell)
{
    pair *kit = ctx;
    assert_true(bt_blob_is_text(doorbell, "s"));
    kit->n_rung[1]++;
    return !kit->senders_are_deaf;
}

static bool tx_ring(void *ctx, bt_blob doorbell)
{
    const pair_sender *sender = ctx;
    assert_true(bt_blob_is_text(doorbell, "r"));
    sender->kit->n_rung[0]++;
    return !sender->kit->receiver_is_deaf;
}

static bt_transport *lane_of(pair *kit, bt_loop_net *net)
{
    const bt_transport_options options = {.backend = "loop", .clock = &kit->clock, .loop_net = net};
    bt_transport *transport;
    assert_ok(bt_transport_create(&options, &transport));
    return transport;
}

static bt_transport *transport_of(pair *kit)
{
    bt_transport *transport = lane_of(kit, kit->net);
    if (kit->second_lane == NULL)
        return transport;
    bt_transport *lanes[] = {transport, lane_of(kit, kit->second_lane)};
    assert_ok(bt_rails_join(lanes, 2, &transport));
    return transport;
}

/* BATON_TEST_COMMIT=socket: what a test leaves open goes the other way. */
static baton_commit_choice commit_of(const pair_options *options)
{
    const char *wanted = getenv("BATON_TEST_COMMIT");
    bool is_socket = wanted != NULL && strcmp(wanted, "socket") == 0;
    return is_socket ? BATON_COMMIT_SOCKET : options->commit;
}

static void create_sender(pair *kit, uint32_t index, const pair_options *options)
{
    pair_sender *sender = &kit->senders[index];
    sender->kit = kit;
    sender->index = index;
    sender->transport = transport_of(kit);
    for (uint8_t port = 0; port < BT_RX_N_PORTS; port++)
        sender->routes[port] = (bt_rx_route){.n = 2, .bytes = {(uint8_t)index, port}};
    baton_sender_options tx_options = {
        .layout = layout(options),
        .digests = options->digests,
        .path = options->path,
        .commit = commit_of(options),
        .staging_chunks = 2,
        .copy_threads = options->copy_threads,
        .skip_measure = !options->measure,
        .notice = "tcp://127.0.0.1:1",
        .data = {.clock = &kit->clock,
                 .require_rdma = options->sender_floor.require_rdma,
                 .min_gbps = options->sender_floor.min_gbps},
    };
    tx_options.probe = options->probe;
    tx_options.layout.n_layers += options->probe;
    bt_tx_defaults(&tx_options);
    const bt_tx_out out = {.open = tx_open,
                           .close = tx_close,
                           .send = tx_send,
                           .notice = tx_notice,
                           .watch = tx_watch,
                           .is_connected = tx_is_connected,
                           .ring = options->rings ? tx_ring : NULL,
                           .doorbell = bt_blob_of(bell_s, options->rings),
                           .ctx = sender};
    assert_ok(bt_tx_create(&tx_options, sender->transport, &out, &sender->tx));
}

static void create_receiver(pair *kit, const pair_options *options)
{
    kit->rx_transport = transport_of(kit);
    baton_receiver_options rx_options = {
        .layout = layout(options),
        .digests = options->digests,
        .pool_bytes = (uint64_t)options->n_pages * PAIR_PAGE_BYTES,
        .n_regions = options->n_regions != 0 ? options->n_regions : 1,
        .memory = options->memory,
        .data = {.clock = &kit->clock,
                 .require_rdma = options->receiver_floor.require_rdma,
                 .min_gbps = options->receiver_floor.min_gbps},
    };
    bt_rx_defaults(&rx_options);
    const bt_rx_out out = {.send = rx_send,
                           .notice = rx_notice,
                           .event = rx_event,
                           .peer_fds = rx_peer_fds,
                           .ring = options->rings ? rx_ring : NULL,
                           .doorbell = bt_blob_of(bell_r, options->rings),
                           .ctx = kit};
    assert_ok(bt_rx_create(&rx_options, kit->rx_transport, &out, &kit->rx));
}

void pair_create(pair *kit, const pair_options *options)
{
    memset(kit, 0, sizeof(*kit));
    kit->manual = (bt_manual_clock){.now_ns = BT_NS_PER_S, .tick_ns = 1};
    kit->clock = bt_manual_clock_ops(&kit->manual);
    assert_ok(bt_loop_net_create(7, &kit->clock, &kit->net));
    if (options->two_lanes)
        assert_ok(bt_loop_net_create(8, &kit->clock, &kit->second_lane));
    bt_loop_set_mapping(kit->net, options->mapped, false);
    bt_loop_set_device(kit->net, options->reaches_device);
    create_receiver(kit, options);
    kit->n_senders = options->n_senders != 0 ? options->n_senders : 1;
    for (uint32_t i = 0; i < kit->n_senders; i++)
        create_sender(kit, i, options);
}

void pair_restart_receiver(pair *kit, const pair_options *options)
{
    bt_rx_destroy(kit->rx);
    bt_transport_destroy(kit->rx_transport);
    kit->n_frames = 0;
    create_receiver(kit, options);
}

void pair_destroy(pair *kit)
{
    kit->is_closing = true;
    for (uint32_t i = 0; i < kit->n_senders; i++) {
        bt_tx_destroy(kit->senders[i].tx);
        bt_transport_destroy(kit->senders[i].transport);
    }
    bt_rx_destroy(kit->rx);
    bt_transport_destroy(kit->rx_transport);
    bt_loop_net_destroy(kit->net);
    bt_loop_net_destroy(kit->second_lane);
}

static void deliver(pair *kit, const pair_frame *frame)
{
    bt_message message;
    pair_sender *sender = &kit->senders[frame->sender];
    if (kit->receiver_is_cut)
        return;
    assert_ok(bt_message_decode(frame->data, frame->bytes, &message));
    if (kit->filter != NULL && !kit->filter(kit, frame, &message))
        return;
    if (frame->to_receiver)
        bt_rx_handle(kit->rx, (bt_rx_port)frame->port, &sender->routes[frame->port], frame->data,
                     frame->bytes);
    else if (sender->tx != NULL && sender->tx->peers != NULL)
        bt_tx_handle(sender->tx, sender->tx->peers, (bt_tx_port)frame->port, frame->data,
                     frame->bytes);
}

static void poll_events(pair_sender *sender)
{
    baton_sender_event event;
    while (bt_tx_poll(sender->tx, &event, 1) == 1) {
        if (event.kind == BATON_SENDER_SOURCE_FREE)
            sender->n_source_free++;
        else
            sender->end = event;
        sender->n_done += event.kind == BATON_SENDER_DONE;
        sender->n_failed += event.kind == BATON_SENDER_FAILED;
        if (sender->n_events < 256)
            sender->events[sender->n_events++] = event;
    }
}

void pair_turn(pair *kit)
{
    for (uint32_t i = 0; i < kit->n_senders; i++) {
        if (kit->senders[i].tx != NULL)
            bt_tx_progress(kit->senders[i].tx);
    }
    bt_rx_progress(kit->rx);
    bt_loop_deliver(kit->net);
    if (kit->second_lane != NULL)
        bt_loop_deliver(kit->second_lane);
    while (kit->n_frames > 0) {
        pair_frame frame = kit->frames[0];
        memmove(kit->frames, kit->frames + 1, --kit->n_frames * sizeof(kit->frames[0]));
        deliver(kit, &frame);
    }
    for (uint32_t i = 0; i < kit->n_senders; i++) {
        if (kit->senders[i].tx != NULL)
            poll_events(&kit->senders[i]);
    }
}

void pair_run(pair *kit)
{
    /* Enough rounds for every message chain there is; both sides are idle long before. */
    for (int round = 0; round < 60; round++)
        pair_turn(kit);
    assert_ok(bt_store_verify(kit->rx->store));
}

void pair_advance(pair *kit, uint64_t ms)
{
    pair_run(kit);
    for (uint64_t step; ms > 0; ms -= step) {
        step = ms < 50 ? ms : 50;
        kit->manual.now_ns += step * BT_NS_PER_MS;
        pair_run(kit);
    }
}

void pair_tokens(uint32_t id, uint32_t shared, uint32_t n, uint32_t *tokens)
{
    for (uint32_t i = 0; i < n; i++)
        tokens[i] = i < shared ? i : 1000 * (id + 1) + i;
}

baton_transfer pair_begin(pair *kit, uint32_t sender, const char *request, const uint32_t *tokens,
                          uint32_t n, uint32_t deadline_ms)
{
    bt_tx *tx = kit->senders[sender].tx;
    baton_key keys[PAIR_MAX_CHUNKS];
    uint32_t n_keys, last;
    assert_ok(baton_keys_of_tokens(&tx->root, tokens, n, keys, PAIR_MAX_CHUNKS, &n_keys, &last));
    const baton_transfer_options options = {.request = request,
                                            .host = "127.0.0.1",
                                            .init_port = 1,
                                            .alloc_port = 2,
                                            .keys = keys,
                                            .n_chunks = n_keys,
                                            .last_tokens = last,
                                            .deadline_ms = deadline_ms,
                                            .traceparent = kit->traceparent};
    baton_transfer transfer;
    assert_ok(bt_tx_begin(tx, &options, &transfer));
    return transfer;
}

size_t pair_chunk(const uint32_t *tokens, uint32_t n, uint32_t i, uint8_t *data)
{
    uint32_t first = i * PAIR_CHUNK, end = first + PAIR_CHUNK < n ? first + PAIR_CHUNK : n;
    bt_rng rng = {.state = 99};
    for (uint32_t t = 0; t < end; t++) /* KV depends on the whole prefix */
        rng.state = rng.state * 31 + tokens[t];
    bt_rng_fill(&rng, data, (end - first) * PAIR_TOKEN_BYTES);
    return (end - first) * PAIR_TOKEN_BYTES;
}

void pair_push_all(pair *kit, uint32_t sender, baton_transfer transfer, const uint32_t *tokens,
                   uint32_t n, uint8_t *data)
{
    bt_tx *tx = kit->senders[sender].tx;
    uint32_t n_chunks = (n - 1) / PAIR_CHUNK + 1;
    for (uint32_t i = 0; i < n_chunks; i++) {
        uint8_t *at = data + (size_t)i * PAIR_PAGE_BYTES;
        const bt_tx_source source = {.data = at, .bytes = pair_chunk(tokens, n, i, at)};
        assert_ok(bt_tx_push(tx, transfer, i, &source));
    }
    assert_ok(bt_tx_post(tx, BT_TX_FINISH, transfer));
}

uint32_t pair_check(pair *kit, const uint32_t *tokens, uint32_t n)
{
    baton_pin *pin;
    uint32_t matched;
    assert_ok(bt_rx_lookup(kit->rx, tokens, n, &pin, &matched));
    for (uint32_t i = 0; pin != NULL && i < baton_pin_chunks(pin); i++) {
        uint8_t wanted[PAIR_PAGE_BYTES];
        baton_pinned_chunk chunk;
        assert_ok(baton_pin_chunk(pin, i, &chunk));
        assert_int_equal(pair_chunk(tokens, matched, i, wanted), chunk.bytes);
        assert_memory_equal(chunk.page, wanted, chunk.bytes);
    }
    if (pin != NULL)
        assert_ok(bt_rx_unpin(kit->rx, pin));
    return matched;
}

void pair_check_clean(pair *kit)
{
    baton_receiver_stats stats;
    bt_rx_get_stats(kit->rx, &stats);
    assert_int_equal(stats.pages_reserved, 0);
    assert_int_equal(stats.pages_quarantined, 0);
    assert_int_equal(stats.pages_free + stats.pages_landed + stats.pages_retired,
                     stats.pages_total);
    assert_int_equal(stats.holds_live, 0);
    assert_int_equal(stats.pins_live, 0);
    assert_int_equal(stats.tickets_live, 0);
    for (uint32_t i = 0; i < kit->n_senders; i++) {
        if (kit->senders[i].tx == NULL)
            continue;
        baton_sender_stats tx_stats;
        bt_tx_get_stats(kit->senders[i].tx, &tx_stats);
        assert_int_equal(tx_stats.transfers_live, 0);
        assert_int_equal(kit->senders[i].tx->n_free_slots,
                         kit->senders[i].tx->staging != NULL ? 2 : 0);
    }
}
