/* SPDX-License-Identifier: Apache-2.0 */
/* Sequences of frames into the receiver's state machine. An input is records of
 *
 *   what (u8): 0 init port, 1 alloc port, 2 time, 3 ring, 4 ring memory, 5 behind the data
 *   n (u16, little-endian): bytes that follow, or ms
 *
 * 3 writes the bytes as a frame into the ring of a peer that has one, 4 into the ring's memory from
 * its start, as a hostile sender can,
 *
 * from one of two peers (bit 7 of what). The receiver's epoch is fixed, so that frames of a corpus
 * are meant for it. After each record the store must agree with itself. */
#include "receiver/rx.h"
#include "core/log.h"
#include "transport/loop.h"
#include "fuzz/fuzzinput.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define FUZZ_EPOCH UINT64_C(0x0102030405060708)
enum { RECORD_BYTES = 3, WHAT_TIME = 2, WHAT_RING = 3, WHAT_MEMORY = 4, WHAT_BEHIND = 5 };

static void no_send(void *ctx, bt_rx_port port, const bt_rx_route *route, const void *frame,
                    size_t bytes)
{
    (void)ctx, (void)port, (void)route, (void)frame, (void)bytes;
}

static void no_notice(void *ctx, const char *address, const char *request, baton_status status,
                      const char *text)
{
    (void)ctx, (void)address, (void)request, (void)status, (void)text;
}

static void no_event(void *ctx, const baton_receiver_event *event)
{
    (void)ctx, (void)event;
}

static void no_fds(void *ctx, bt_rx_peer *peer, int worker_fd, int pidfd, bool added)
{
    (void)ctx, (void)peer, (void)worker_fd, (void)pidfd, (void)added;
}

static bool ring(void *ctx, bt_blob doorbell)
{
    (void)ctx, (void)doorbell;
    return true;
}

static void check(bt_rx *rx)
{
    baton_receiver_stats stats;
    fuzz_must(bt_store_verify(rx->store) == BATON_OK);
    bt_rx_get_stats(rx, &stats);
    fuzz_must(stats.pages_free + stats.pages_reserved + stats.pages_landed +
                  stats.pages_quarantined + stats.pages_retired ==
              stats.pages_total);
    fuzz_must(stats.moves_refused_total == 0);
}

static bt_rx_peer *ringed_peer(const bt_rx *rx)
{
    bt_rx_peer *peer = rx->peers;
    while (peer != NULL && peer->ring_memory == NULL)
        peer = peer->next;
    return peer;
}

static void feed_ring(bt_rx *rx, uint8_t what, const uint8_t *data, size_t n)
{
    bt_rx_peer *peer = ringed_peer(rx);
    if (peer == NULL)
        return;
    uint8_t *memory = peer->ring_memory->base;
    if (what == WHAT_MEMORY) {
        memcpy(memory, data, n < BT_RX_RING_IN_BYTES ? n : BT_RX_RING_IN_BYTES);
    } else {
        bt_framering writer = peer->from_sender; /* where the reader stands */
        bool must_ring;
        bt_framering_write(&writer, data, n, &must_ring);
    }
    bt_rx_progress(rx);
}

static void feed_behind(bt_rx *rx, const uint8_t *data, size_t n)
{
    pthread_mutex_lock(&rx->lock);
    if (rx->peers != NULL)
        bt_rx_handle_behind(rx, rx->peers, data, n);
    pthread_mutex_unlock(&rx->lock);
}

static void feed(bt_rx *rx, bt_manual_clock *time, const uint8_t *data, size_t size)
{
    while (size >= RECORD_BYTES) {
        uint8_t what = data[0] & 0x7f;
        size_t n = data[1] | (size_t)data[2] << 8;
        const bt_rx_route route = {.n = 1, .bytes = {(uint8_t)(data[0] >> 7)}};
        data += RECORD_BYTES;
        size -= RECORD_BYTES;
        if (what == WHAT_TIME) {
            time->now_ns += n * BT_NS_PER_MS;
            bt_rx_progress(rx);
        } else if (what == WHAT_RING || what == WHAT_MEMORY) {
            n = n < size ? n : size;
            feed_ring(rx, what, data, n);
            data += n;
            size -= n;
        } else if (what == WHAT_BEHIND) {
            n = n < size ? n : size;
            feed_behind(rx, data, n);
            data += n;
            size -= n;
        } else {
            n = n < size ? n : size;
            bt_rx_handle(rx, what == 0 ? BT_RX_INIT_PORT : BT_RX_ALLOC_PORT, &route, data, n);
            data += n;
            size -= n;
        }
        check(rx);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bt_manual_clock time = {.now_ns = 1000 * BT_NS_PER_S};
    bt_clock clock = bt_manual_clock_ops(&time);
    bt_loop_net *net;
    bt_transport *transport;
    bt_rx *rx;
    baton_log_set_sink(fuzz_drop_line, NULL);
    fuzz_must(bt_loop_net_create(1, &clock, &net) == BATON_OK);
    baton_receiver_options options = {
        .layout = {.model = "kit",
                   .dtype = BATON_DTYPE_BF16,
                   .n_layers = 2,
                   .n_planes = 2,
                   .n_kv_heads = 1,
                   .head_dim = 4,
                   .chunk_tokens = 8,
                   .block_tokens = 4,
                   .tp_size = 1,
                   .pp_size = 1},
        .pool_bytes = 8 * 8 * 32,
        .n_regions = 2,
        .data = {.transport = "loop", .loop_net = net, .clock = &clock},
    };
    const bt_rx_out out = {.send = no_send,
                           .notice = no_notice,
                           .event = no_event,
                           .peer_fds = no_fds,
                           .ring = ring,
                           .doorbell = {.data = (const uint8_t *)"r", .bytes = 1}};
    bt_rx_defaults(&options);
    fuzz_must(bt_transport_open(&options.data, options.memory, &transport) == BATON_OK);
    fuzz_must(bt_rx_create(&options, transport, &out, &rx) == BATON_OK);
    rx->epoch = FUZZ_EPOCH;
    rx->self = (bt_process){.boot = "fuzz", .pid_ns = 1, .start = 1, .pid = 1};
    feed(rx, &time, data, size);
    bt_rx_destroy(rx);
    bt_transport_destroy(transport);
    bt_loop_net_destroy(net);
    return 0;
}
