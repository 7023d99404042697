/* SPDX-License-Identifier: Apache-2.0 */
/* Connections to a process that has no descriptors for them. */
#include "wire/zmqgate.h"

#include "support/test.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { LIMIT = 128, N_CLIENTS = 5, WAIT_MS = 20000 };
static void *context, *server;
static bt_zmq_gate gate;
static uint16_t port;
static struct rlimit before;
static int taken[LIMIT], n_taken;

static void open_gate(const char *host)
{
    const bt_zmq_options options = {.type = ZMQ_ROUTER};
    assert_ok(bt_zmq_context_create(&context));
    assert_ok(bt_zmq_open(context, &options, &server));
    assert_ok(bt_zmq_gate_bind(server, host, 0, &port, &gate));
    assert_int_not_equal(port, 0);
}

static void close_gate(void)
{
    bt_zmq_gate_close(&gate);
    bt_zmq_close(server);
    bt_zmq_context_destroy(context);
}

static void take_all(void)
{
    int fd;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    setrlimit(RLIMIT_NOFILE, &(struct rlimit){LIMIT, before.rlim_max});
    while ((fd = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0)
        taken[n_taken++] = fd;
}

static void give_back(void)
{
    while (n_taken > 0)
        close(taken[--n_taken]);
    setrlimit(RLIMIT_NOFILE, &before);
}

static bool is_readable(int fd)
{
    struct pollfd polled = {.fd = fd, .events = POLLIN};
    return poll(&polled, 1, WAIT_MS) == 1;
}

static void connect_to(int fd)
{
    const struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    assert_int_equal(connect(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
}

/* A client is heard, and answered. */
static void check_talk(void)
{
    const bt_zmq_options options = {.type = ZMQ_DEALER, .queue_unconnected = true};
    void *client;
    bt_zmq_message message;
    int timeout = WAIT_MS;
    const bt_blob part = bt_blob_of("hello", 5);
    assert_ok(bt_zmq_open(context, &options, &client));
    assert_ok(bt_zmq_connect(client, "127.0.0.1", port));
    assert_ok(bt_zmq_send(client, &part, 1));
    zmq_pollitem_t polled = {.socket = server, .events = ZMQ_POLLIN};
    assert_int_equal(zmq_poll(&polled, 1, timeout), 1);
    assert_ok(bt_zmq_recv(server, &message));
    assert_int_equal(message.n_parts, 2);
    bt_zmq_message_close(&message);
    bt_zmq_close(client);
}

static void whoever_finds_no_descriptor_is_turned_away(void **state)
{
    (void)state;
    int clients[N_CLIENTS];
    open_gate("127.0.0.1");
    assert_true(gate.is_open);
    check_talk();
    for (int i = 0; i < N_CLIENTS; i++)
        clients[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    take_all();
    for (int i = 0; i < N_CLIENTS; i++)
        connect_to(clients[i]);
    uint32_t n_gone = 0;
    /* libzmq's thread wants them too, and may get one while a descriptor is free for a moment. */
    while (is_readable(gate.fd) && n_gone + gate.reserve.n < N_CLIENTS + BT_FDRESERVE_MAX) {
        assert_true(bt_zmq_gate_turn(&gate));
        n_gone = (uint32_t)gate.refused_total + (BT_FDRESERVE_MAX - gate.reserve.n);
        if (n_gone >= N_CLIENTS)
            break;
    }
    assert_true(gate.refused_total > 0);
    give_back();
    check_talk();
    for (int i = 0; i < N_CLIENTS; i++)
        close(clients[i]);
    close_gate();
}

static void with_descriptors_nobody_is_turned_away(void **state)
{
    (void)state;
    open_gate("*");
    assert_true(bt_zmq_gate_turn(&gate));
    check_talk();
    assert_true(bt_zmq_gate_turn(&gate));
    assert_int_equal(gate.refused_total, 0);
    close_gate();
}

static void without_a_reserve_nothing_can_be_done(void **state)
{
    (void)state;
    open_gate("127.0.0.1");
    bt_fdreserve_spend(&gate.reserve, BT_FDRESERVE_MAX);
    take_all();
    assert_false(bt_zmq_gate_turn(&gate));
    give_back();
    assert_true(bt_zmq_gate_turn(&gate));
    assert_int_equal(gate.reserve.n, BT_FDRESERVE_MAX);
    close_gate();
}

static void a_port_that_is_taken_is_refused_by_name(void **state)
{
    (void)state;
    void *second;
    uint16_t bound;
    bt_zmq_gate other;
    const bt_zmq_options options = {.type = ZMQ_ROUTER};
    open_gate("127.0.0.1");
    assert_ok(bt_zmq_open(context, &options, &second));
    assert_fails(bt_zmq_gate_bind(second, "127.0.0.1", port, &bound, &other),
                 BATON_ERR_ADDRESS_IN_USE, "which another socket has");
    assert_false(other.is_open);
    bt_zmq_gate_close(&other);
    bt_zmq_close(second);
    close_gate();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(whoever_finds_no_descriptor_is_turned_away),
        bt_test(with_descriptors_nobody_is_turned_away),
        bt_test(without_a_reserve_nothing_can_be_done),
        bt_test(a_port_that_is_taken_is_refused_by_name),
    };
    return bt_run_tests(tests);
}
