/* SPDX-License-Identifier: Apache-2.0 */
/* A sender's sockets, with nobody but bare ROUTERs at their other ends. */
#include <baton/sender.h>

#include "sender/txshell.h"
#include "support/test.h"
#include "transport/loop.h"

#include <poll.h>

enum { HANG_GUARD_MS = 60000 };

typedef struct {
    bt_loop_net *net;
    baton_sender *sender;
    bt_tx_out out;
    bt_tx_peer peer;
    void *context, *ports[BT_TX_N_PORTS];
} shell_test;

static void listen_on(shell_test *t, bt_tx_port port, uint16_t *number)
{
    assert_ok(bt_zmq_open(t->context, &(bt_zmq_options){.type = ZMQ_ROUTER}, &t->ports[port]));
    assert_ok(bt_zmq_bind(t->ports[port], "127.0.0.1", *number, number));
}

static void open_shell(shell_test *t)
{
    *t = (shell_test){.peer = {.host = "127.0.0.1", .pidfd = -1}};
    assert_ok(bt_loop_net_create(1, NULL, &t->net));
    assert_ok(bt_zmq_context_create(&t->context));
    listen_on(t, BT_TX_INIT_PORT, &t->peer.init_port);
    listen_on(t, BT_TX_ALLOC_PORT, &t->peer.alloc_port);
    const baton_sender_options options = {.layout = {.model = "shell",
                                                     .dtype = BATON_DTYPE_F32,
                                                     .n_layers = 2,
                                                     .n_planes = 2,
                                                     .n_kv_heads = 1,
                                                     .head_dim = 8,
                                                     .chunk_tokens = 16,
                                                     .block_tokens = 8,
                                                     .tp_size = 1,
                                                     .pp_size = 1},
                                          .admin = "off",
                                          .progress = BATON_PROGRESS_MANUAL,
                                          .data = {.transport = "loop", .loop_net = t->net}};
    assert_ok(baton_sender_create(&options, &t->sender));
    t->out = bt_txshell_out(t->sender);
    assert_ok(t->out.open(t->out.ctx, &t->peer));
}

static void close_shell(shell_test *t)
{
    t->out.close(t->out.ctx, &t->peer);
    baton_sender_destroy(t->sender);
    for (int port = 0; port < BT_TX_N_PORTS; port++)
        bt_zmq_close(t->ports[port]);
    bt_zmq_context_destroy(t->context);
    bt_loop_net_destroy(t->net);
}

static void wait_until_connected(shell_test *t, bool wanted)
{
    for (int ms = 0; t->out.is_connected(t->out.ctx, &t->peer) != wanted; ms++) {
        assert_true(ms < HANG_GUARD_MS);
        poll(NULL, 0, 1);
    }
}

static void await_frame(const shell_test *t)
{
    bt_zmq_message message;
    for (int ms = 0; bt_zmq_recv(t->ports[BT_TX_INIT_PORT], &message) != BATON_OK; ms++) {
        assert_true(ms < HANG_GUARD_MS);
        poll(NULL, 0, 1);
    }
    bt_zmq_message_close(&message);
}

/* What came is the proof that a connection stands: nothing is known before. */
static void a_peer_that_is_followed_is_seen_to_go_and_to_come_back(void **state)
{
    (void)state;
    shell_test t;
    open_shell(&t);
    t.out.send(t.out.ctx, &t.peer, BT_TX_INIT_PORT, "x", 1);
    await_frame(&t);
    assert_true(t.out.is_connected(t.out.ctx, &t.peer));
    t.out.follow(t.out.ctx, &t.peer);
    assert_true(t.out.is_connected(t.out.ctx, &t.peer));
    bt_zmq_close(t.ports[BT_TX_INIT_PORT]);
    wait_until_connected(&t, false);
    listen_on(&t, BT_TX_INIT_PORT, &t.peer.init_port);
    wait_until_connected(&t, true);
    t.out.follow(t.out.ctx, &t.peer); /* it has answered again */
    assert_true(t.out.is_connected(t.out.ctx, &t.peer));
    bt_zmq_close(t.ports[BT_TX_INIT_PORT]);
    t.ports[BT_TX_INIT_PORT] = NULL;
    wait_until_connected(&t, false);
    close_shell(&t);
}

/* libzmq's thread, which tells of the end of a connection, must find somebody who listens. */
static void a_followed_peer_may_be_forgotten_at_any_time(void **state)
{
    (void)state;
    for (int round = 0; round < 20; round++) {
        shell_test t;
        open_shell(&t);
        t.out.follow(t.out.ctx, &t.peer);
        t.out.send(t.out.ctx, &t.peer, BT_TX_INIT_PORT, "x", 1);
        if (round % 2 == 0)
            poll(NULL, 0, 1);
        close_shell(&t);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(a_peer_that_is_followed_is_seen_to_go_and_to_come_back),
        bt_test(a_followed_peer_may_be_forgotten_at_any_time),
    };
    return bt_run_tests(tests);
}
