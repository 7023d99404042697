/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "wire/zmq_wait.h"

#include <poll.h>
#include <stdio.h>
#include <sys/socket.h>
#include <netinet/in.h>
#include <arpa/inet.h>
#include <unistd.h>

static void *context;

static int open_context(void **state)
{
    assert_int_equal(bt_test_setup(state), 0);
    assert_ok(bt_zmq_context_create(&context));
    return 0;
}

static int close_context(void **state)
{
    bt_zmq_context_destroy(context);
    return bt_test_teardown(state);
}

static void *open_socket(const bt_zmq_options *options)
{
    void *socket = NULL;
    assert_ok(bt_zmq_open(context, options, &socket));
    return socket;
}

typedef struct {
    void *router, *dealer;
    uint16_t port;
} link_pair;

static link_pair open_link(const bt_zmq_options *router, const bt_zmq_options *dealer)
{
    link_pair link = {.router = open_socket(router), .dealer = open_socket(dealer)};
    assert_ok(bt_zmq_bind(link.router, "127.0.0.1", 0, &link.port));
    assert_true(link.port > 0);
    assert_ok(bt_zmq_connect(link.dealer, "127.0.0.1", link.port));
    assert_true(wait_for(link.dealer, ZMQ_POLLOUT));
    return link;
}

static void close_link(link_pair *link)
{
    bt_zmq_close(link->dealer);
    bt_zmq_close(link->router);
}

static const bt_zmq_options router_options = {.type = ZMQ_ROUTER};
static const bt_zmq_options dealer_options = {.type = ZMQ_DEALER};

static void messages_go_there_and_back(void **state)
{
    (void)state;
    link_pair link = open_link(&router_options, &dealer_options);
    bt_zmq_message message;
    assert_int_equal(bt_zmq_recv(link.router, &message), BATON_IN_PROGRESS);
    const bt_blob hello = bt_blob_of_text("hello");
    assert_ok(bt_zmq_send(link.dealer, &hello, 1));
    assert_true(wait_for(link.router, ZMQ_POLLIN));
    assert_ok(bt_zmq_recv(link.router, &message));
    assert_int_equal(message.n_parts, 2);
    assert_true(bt_blob_is_text(bt_zmq_part(&message, 1), "hello"));

    const bt_blob answer[] = {bt_zmq_part(&message, 0), bt_blob_of(NULL, 0)};
    assert_ok(bt_zmq_send(link.router, answer, 2));
    bt_zmq_message_close(&message);
    assert_true(wait_for(link.dealer, ZMQ_POLLIN));
    assert_ok(bt_zmq_recv(link.dealer, &message));
    assert_int_equal(message.n_parts, 1);
    assert_int_equal(bt_zmq_part(&message, 0).bytes, 0);
    bt_zmq_message_close(&message);
    close_link(&link);
}

static void too_many_parts_are_dropped_whole(void **state)
{
    (void)state;
    link_pair link = open_link(&router_options, &dealer_options);
    const bt_blob part = bt_blob_of_text("x");
    for (unsigned i = 0; i < 20; i++)
        assert_int_equal(zmq_send(link.dealer, "x", 1, i < 19 ? ZMQ_SNDMORE : 0), 1);
    assert_ok(bt_zmq_send(link.dealer, &part, 1));
    bt_zmq_message message;
    assert_true(wait_for(link.router, ZMQ_POLLIN));
    assert_fails(bt_zmq_recv(link.router, &message), BATON_ERR_BAD_MESSAGE,
                 "at most 4 parts, found 21");
    assert_true(wait_for(link.router, ZMQ_POLLIN));
    assert_ok(bt_zmq_recv(link.router, &message));
    assert_int_equal(message.n_parts, 2);
    bt_zmq_message_close(&message);
    bt_blob five[5] = {part, part, part, part, part};
    assert_fails(bt_zmq_send(link.dealer, five, 5), BATON_ERR_INVALID_ARG, "5 parts");
    close_link(&link);
}

/* Another dealer comes, and is heard. */
static void hear_from_another(const link_pair *link)
{
    const bt_blob late = bt_blob_of_text("late");
    bt_zmq_message message;
    bool is_late = false;
    void *dealer = open_socket(&dealer_options);
    assert_ok(bt_zmq_connect(dealer, "127.0.0.1", link->port));
    assert_true(wait_for(dealer, ZMQ_POLLOUT));
    assert_ok(bt_zmq_send(dealer, &late, 1));
    while (!is_late) {
        assert_true(wait_for(link->router, ZMQ_POLLIN));
        assert_ok(bt_zmq_recv(link->router, &message));
        is_late = bt_blob_is_text(bt_zmq_part(&message, 1), "late");
        bt_zmq_message_close(&message);
    }
    bt_zmq_close(dealer);
}

/* Who calls itself like another one does not get what is meant for that one. */
static void a_routing_id_is_not_taken_over(void **state)
{
    (void)state;
    link_pair link = open_link(&router_options, &dealer_options);
    const bt_blob hello = bt_blob_of_text("hello");
    bt_zmq_message message;
    bt_zmq_event event;
    assert_ok(bt_zmq_send(link.dealer, &hello, 1));
    assert_true(wait_for(link.router, ZMQ_POLLIN));
    assert_ok(bt_zmq_recv(link.router, &message));
    bt_blob id = bt_zmq_part(&message, 0);
    void *thief = zmq_socket(context, ZMQ_DEALER), *monitor;
    const int no_linger = 0;
    zmq_setsockopt(thief, ZMQ_LINGER, &no_linger, sizeof(no_linger));
    assert_int_equal(zmq_setsockopt(thief, ZMQ_ROUTING_ID, id.data, id.bytes), 0);
    assert_ok(bt_zmq_monitor_open(context, thief, &monitor));
    assert_ok(bt_zmq_connect(thief, "127.0.0.1", link.port));
    assert_true(wait_for(monitor, ZMQ_POLLIN));
    assert_ok(bt_zmq_monitor_next(monitor, &event));
    assert_int_equal(event, BT_ZMQ_CONNECTED);
    assert_int_equal(zmq_send(thief, "mine", 4, 0), 4);
    hear_from_another(&link); /* the router knows of the thief from here on, if ever */
    const bt_blob answer[] = {id, bt_blob_of_text("secret")};
    assert_ok(bt_zmq_send(link.router, answer, 2));
    assert_true(wait_for(link.dealer, ZMQ_POLLIN));
    bt_zmq_message_close(&message);
    bt_zmq_close(monitor);
    bt_zmq_close(thief);
    close_link(&link);
}

static void a_port_in_use_is_named(void **state)
{
    (void)state;
    char text[32];
    uint16_t port = 0;
    void *first = open_socket(&router_options), *second = open_socket(&router_options);
    assert_ok(bt_zmq_bind(first, "localhost", 0, &port));
    snprintf(text, sizeof(text), "127.0.0.1 port %u", port);
    assert_fails(bt_zmq_bind(second, "127.0.0.1", port, NULL), BATON_ERR_ADDRESS_IN_USE, text);
    bt_zmq_close(first);
    bt_zmq_close(second);
}

static void only_addresses_get_to_zmq(void **state)
{
    (void)state;
    void *socket = open_socket(&dealer_options);
    assert_fails(bt_zmq_connect(socket, "127.0.0.1;127.0.0.2", 1), BATON_ERR_INVALID_ARG, NULL);
    assert_fails(bt_zmq_connect(socket, "*", 1), BATON_ERR_INVALID_ARG, NULL);
    assert_fails(bt_zmq_connect(socket, "", 1), BATON_ERR_INVALID_ARG, NULL);
    assert_fails(bt_zmq_connect(socket, "127.0.0.1", 0), BATON_ERR_INVALID_ARG, "port 0");
    assert_fails(bt_zmq_bind(socket, "203.0.113.7", 0, NULL), BATON_ERR_UNREACHABLE, "203.0.113.7");
    bt_zmq_close(socket);
}

static void urls_are_taken_apart(void **state)
{
    (void)state;
    char host[BT_ZMQ_HOST_BYTES];
    uint16_t port = 0;
    assert_ok(bt_zmq_parse_url("tcp://127.0.0.1:7500", host, &port));
    assert_string_equal(host, "127.0.0.1");
    assert_int_equal(port, 7500);
    assert_ok(bt_zmq_parse_url("tcp://[::1]:65535", host, &port));
    assert_string_equal(host, "::1");
    const char *const bad[] = {"",
                               "tcp://",
                               "tcp://:1",
                               "tcp://a",
                               "tcp://a:",
                               "tcp://a:0",
                               "tcp://a:65536",
                               "tcp://a:1x",
                               "tcp://a: 1",
                               "tcp://a:+1",
                               "tcp://::1:1",
                               "tcp://[a]:1",
                               "tcp://a/b:1",
                               "tcp://*:1",
                               "ipc:///tmp/x:1"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_fails(bt_zmq_parse_url(bad[i], host, &port), BATON_ERR_INVALID_ARG, "tcp://");
    static char long_url[600] = "tcp://";
    memset(long_url + 6, 'a', 500);
    strcat(long_url, ":1");
    assert_fails(bt_zmq_parse_url(long_url, host, &port), BATON_ERR_INVALID_ARG, NULL);
    void *socket = open_socket(&dealer_options);
    assert_ok(bt_zmq_connect_url(socket, "tcp://127.0.0.1:1"));
    bt_zmq_close(socket);
}

static void a_full_queue_says_try_again(void **state)
{
    (void)state;
    const bt_zmq_options queueing = {
        .type = ZMQ_PUSH, .send_messages = 3, .queue_unconnected = true};
    const bt_zmq_options strict = {.type = ZMQ_PUSH};
    const bt_blob part = bt_blob_of_text("x");
    void *socket = open_socket(&queueing);
    assert_ok(bt_zmq_connect(socket, "127.0.0.1", 1)); /* nobody listens there */
    for (unsigned i = 0; i < 3; i++)
        assert_ok(bt_zmq_send(socket, &part, 1));
    assert_int_equal(bt_zmq_send(socket, &part, 1), BATON_IN_PROGRESS);
    bt_zmq_close(socket);
    socket = open_socket(&strict);
    assert_ok(bt_zmq_connect(socket, "127.0.0.1", 1));
    assert_int_equal(bt_zmq_send(socket, &part, 1), BATON_IN_PROGRESS);
    bt_zmq_close(socket);
}

static void an_unknown_peer_is_unreachable(void **state)
{
    (void)state;
    void *router = open_socket(&router_options);
    const bt_blob parts[] = {bt_blob_of_text("nobody"), bt_blob_of_text("x")};
    assert_fails(bt_zmq_send(router, parts, 2), BATON_ERR_UNREACHABLE, NULL);
    bt_zmq_close(router);
}

static void a_part_over_the_cap_cuts_the_peer_off(void **state)
{
    (void)state;
    const bt_zmq_options small = {.type = ZMQ_ROUTER, .max_part_bytes = 100};
    link_pair link = open_link(&small, &dealer_options);
    void *monitor = NULL;
    assert_ok(bt_zmq_monitor_open(context, link.dealer, &monitor));
    static uint8_t large[101];
    const bt_blob part = bt_blob_of(large, sizeof(large));
    assert_ok(bt_zmq_send(link.dealer, &part, 1));
    bt_zmq_event event = BT_ZMQ_CONNECTED; /* which may have come after the monitor was opened */
    while (event == BT_ZMQ_CONNECTED) {
        assert_true(wait_for(monitor, ZMQ_POLLIN));
        assert_ok(bt_zmq_monitor_next(monitor, &event));
    }
    assert_int_equal(event, BT_ZMQ_DISCONNECTED);
    bt_zmq_message message;
    assert_int_equal(bt_zmq_recv(link.router, &message), BATON_IN_PROGRESS);
    bt_zmq_monitor_close(monitor, link.dealer);
    close_link(&link);
}

static void the_monitor_tells_of_connections(void **state)
{
    (void)state;
    void *router = open_socket(&router_options), *dealer = open_socket(&dealer_options);
    void *monitor = NULL;
    uint16_t port = 0;
    bt_zmq_event event;
    assert_ok(bt_zmq_monitor_open(context, dealer, &monitor));
    assert_int_equal(bt_zmq_monitor_next(monitor, &event), BATON_IN_PROGRESS);
    assert_ok(bt_zmq_bind(router, "127.0.0.1", 0, &port));
    assert_ok(bt_zmq_connect(dealer, "127.0.0.1", port));
    assert_true(wait_for(monitor, ZMQ_POLLIN));
    assert_ok(bt_zmq_monitor_next(monitor, &event));
    assert_int_equal(event, BT_ZMQ_CONNECTED);
    bt_zmq_close(router);
    assert_true(wait_for(monitor, ZMQ_POLLIN));
    assert_ok(bt_zmq_monitor_next(monitor, &event));
    assert_int_equal(event, BT_ZMQ_DISCONNECTED);
    bt_zmq_monitor_close(monitor, dealer);
    bt_zmq_close(dealer);
}

static void the_descriptor_wakes_a_poll(void **state)
{
    (void)state;
    link_pair link = open_link(&router_options, &dealer_options);
    bool readable = false, writable = false;
    struct pollfd item = {.events = POLLIN};
    assert_ok(bt_zmq_fd(link.router, &item.fd));
    const bt_blob part = bt_blob_of_text("x");
    assert_ok(bt_zmq_send(link.dealer, &part, 1));
    while (!readable) {
        assert_int_equal(poll(&item, 1, HANG_GUARD_MS), 1);
        assert_ok(bt_zmq_events(link.router, &readable, &writable));
    }
    close_link(&link);
}

static void ipv6_loopback_works_where_there_is_one(void **state)
{
    (void)state;
    struct sockaddr_in6 address = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT};
    int probe = socket(AF_INET6, SOCK_STREAM, 0);
    bool has_ipv6 = probe >= 0 && bind(probe, (struct sockaddr *)&address, sizeof(address)) == 0;
    if (probe >= 0)
        close(probe);
    if (!has_ipv6)
        return;
    uint16_t port = 0;
    void *router = open_socket(&router_options), *dealer = open_socket(&dealer_options);
    assert_ok(bt_zmq_bind(router, "::1", 0, &port));
    assert_ok(bt_zmq_connect(dealer, "::1", port));
    assert_true(wait_for(dealer, ZMQ_POLLOUT));
    bt_zmq_close(router);
    bt_zmq_close(dealer);
}

static void without_keys_only_loopback_is_bound(void **state)
{
    (void)state;
    assert_ok(bt_zmq_check_bind_allowed("127.0.0.1", false, false));
    assert_ok(bt_zmq_check_bind_allowed("127.8.9.1", false, false));
    assert_ok(bt_zmq_check_bind_allowed("::1", false, false));
    assert_ok(bt_zmq_check_bind_allowed("localhost", false, false));
    assert_ok(bt_zmq_check_bind_allowed("0.0.0.0", true, false));
    assert_ok(bt_zmq_check_bind_allowed("*", false, true));
    const char *const open_hosts[] = {
        "0.0.0.0",     "*",           "10.0.0.1",  "::",       "eth0",
        "127.0.0.1.x", "127.0.0.999", "128.0.0.1", "127.0.0.", "1127.0.0.1"};
    for (size_t i = 0; i < sizeof(open_hosts) / sizeof(open_hosts[0]); i++)
        assert_fails(bt_zmq_check_bind_allowed(open_hosts[i], false, false), BATON_ERR_PERMISSION,
                     "set allow_unauthenticated");
}

#define zmq_test(fn) cmocka_unit_test_setup_teardown(fn, open_context, close_context)

int main(void)
{
    const struct CMUnitTest tests[] = {
        zmq_test(messages_go_there_and_back),
        zmq_test(too_many_parts_are_dropped_whole),
        zmq_test(a_routing_id_is_not_taken_over),
        zmq_test(a_port_in_use_is_named),
        zmq_test(only_addresses_get_to_zmq),
        zmq_test(urls_are_taken_apart),
        zmq_test(a_full_queue_says_try_again),
        zmq_test(an_unknown_peer_is_unreachable),
        zmq_test(a_part_over_the_cap_cuts_the_peer_off),
        zmq_test(the_monitor_tells_of_connections),
        zmq_test(the_descriptor_wakes_a_poll),
        zmq_test(ipv6_loopback_works_where_there_is_one),
        zmq_test(without_keys_only_loopback_is_bound),
    };
    return bt_run_tests(tests);
}
