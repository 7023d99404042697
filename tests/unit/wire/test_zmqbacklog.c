/* SPDX-License-Identifier: Apache-2.0 */
/* Connections that do not read what a ROUTER says to them. */
#include "wire/zmqbacklog.h"

#include "core/alloc.h"
#include "support/test.h"
#include "wire/zmq_wait.h"

#include <stdlib.h>

enum { FRAME_BYTES = 4096, ALL_BYTES = 1 << 20, EACH_BYTES = 96 << 10, PATIENCE_NS = 1000 };
enum { N_DEALERS = 24, ROUTE_BYTES = 5, ATTEMPTS_MAX = 1000000 };

static void *context, *router, *dealers[N_DEALERS];
static uint8_t routes[N_DEALERS][ROUTE_BYTES];
static bt_backlog *backlog;
static uint8_t frame[FRAME_BYTES];
static uint64_t now_ns, most_waited;

static void shrink_buffers(void *socket)
{
    const int bytes = 16 << 10;
    assert_int_equal(zmq_setsockopt(socket, ZMQ_SNDBUF, &bytes, sizeof(bytes)), 0);
    assert_int_equal(zmq_setsockopt(socket, ZMQ_RCVBUF, &bytes, sizeof(bytes)), 0);
}

/* Connects, and says something so that the router knows it. */
static void open_dealer(unsigned i, uint16_t port)
{
    const bt_zmq_options options = {.type = ZMQ_DEALER, .recv_messages = 1};
    const bt_blob hello = bt_blob_of_text("hello");
    bt_zmq_message message;
    assert_ok(bt_zmq_open(context, &options, &dealers[i]));
    shrink_buffers(dealers[i]);
    assert_ok(bt_zmq_connect(dealers[i], "127.0.0.1", port));
    assert_true(wait_for(dealers[i], ZMQ_POLLOUT));
    assert_ok(bt_zmq_send(dealers[i], &hello, 1));
    assert_true(wait_for(router, ZMQ_POLLIN));
    assert_ok(bt_zmq_recv(router, &message));
    bt_blob route = bt_zmq_part(&message, 0);
    assert_int_equal(route.bytes, ROUTE_BYTES);
    memcpy(routes[i], route.data, ROUTE_BYTES);
    bt_zmq_message_close(&message);
}

static void open_all(unsigned n)
{
    const bt_zmq_options options = {.type = ZMQ_ROUTER, .send_messages = 4096};
    const bt_backlog_limits limits = {ALL_BYTES, EACH_BYTES, PATIENCE_NS};
    uint16_t port;
    now_ns = 1;
    most_waited = 0;
    assert_ok(bt_backlog_create(&limits, &backlog));
    assert_ok(bt_zmq_context_create(&context));
    assert_ok(bt_zmq_open(context, &options, &router));
    shrink_buffers(router);
    assert_ok(bt_zmq_bind(router, "127.0.0.1", 0, &port));
    for (unsigned i = 0; i < n; i++)
        open_dealer(i, port);
}

static void close_all(void)
{
    for (unsigned i = 0; i < N_DEALERS; i++) {
        bt_zmq_close(dealers[i]);
        dealers[i] = NULL;
    }
    bt_zmq_close(router);
    bt_zmq_context_destroy(context);
    assert_int_equal(bt_backlog_waiting(backlog), 0); /* whatever nobody read */
    bt_backlog_destroy(backlog);
}

static baton_status say(unsigned i, size_t bytes)
{
    baton_status status = bt_backlog_send(backlog, router, bt_blob_of(routes[i], ROUTE_BYTES),
                                          bt_blob_of(frame, bytes), now_ns);
    uint64_t waiting = bt_backlog_waiting(backlog);
    most_waited = waiting > most_waited ? waiting : most_waited;
    assert_true(waiting <= ALL_BYTES); /* here, since without a bound it would go on for ever */
    return status;
}

/* Until it is known not to read; how many frames it was sent. */
static unsigned fill(unsigned i)
{
    unsigned n = 0, attempts = 0;
    for (baton_status status; (status = say(i, FRAME_BYTES)) != BATON_ERR_BUSY; attempts++) {
        assert_true(attempts < ATTEMPTS_MAX);
        assert_true(status == BATON_OK || status == BATON_IN_PROGRESS);
        n += status == BATON_OK;
        now_ns += status == BATON_OK ? 0 : PATIENCE_NS;
        if (status == BATON_IN_PROGRESS)
            zmq_poll(NULL, 0, 1); /* what the kernel still takes, is taken */
    }
    assert_non_null(strstr(baton_last_error(), "bytes wait for a peer that does not read"));
    return n;
}

static void hear(unsigned i, unsigned n)
{
    for (; n > 0; n--) {
        bt_zmq_message message;
        assert_true(wait_for(dealers[i], ZMQ_POLLIN));
        assert_ok(bt_zmq_recv(dealers[i], &message));
        assert_memory_equal(bt_zmq_part(&message, 0).data, frame, bt_zmq_part(&message, 0).bytes);
        bt_zmq_message_close(&message);
    }
}

static void who_does_not_read_costs_so_much_and_no_more(void **state)
{
    (void)state;
    open_all(2);
    memset(frame, 7, sizeof(frame));
    unsigned n = fill(0);
    assert_true(most_waited > EACH_BYTES / 2 && most_waited <= EACH_BYTES);
    for (int i = 0; i < 1000; i++) { /* beside it, who reads hears everything */
        assert_ok(say(1, FRAME_BYTES));
        hear(1, 1);
    }
    hear(0, n);
    assert_ok(say(0, FRAME_BYTES));
    hear(0, 1);
    close_all();
}

static void a_full_connection_that_takes_some_is_not_given_up(void **state)
{
    (void)state;
    open_all(1);
    fill(0);
    for (int i = 0; i < 20; i++) {
        uint64_t before = bt_backlog_waiting(backlog);
        while (bt_backlog_waiting(backlog) == before)
            hear(0, 1);
        now_ns += 10 * PATIENCE_NS;
        while (say(0, FRAME_BYTES) == BATON_OK) {
        }
        assert_int_not_equal(say(0, EACH_BYTES), BATON_ERR_BUSY);
    }
    close_all();
}

static void all_together_have_a_bound_and_leave_room(void **state)
{
    (void)state;
    open_all(N_DEALERS);
    for (unsigned i = 0; i + 1 < N_DEALERS; i++)
        fill(i);
    assert_true(most_waited > EACH_BYTES && most_waited < ALL_BYTES);
    for (int i = 0; i < 100; i++) {
        assert_ok(say(N_DEALERS - 1, FRAME_BYTES));
        hear(N_DEALERS - 1, 1);
    }
    close_all();
}

static void what_waits_for_a_lost_connection_is_let_go(void **state)
{
    (void)state;
    open_all(2);
    fill(0);
    bt_zmq_close(dealers[0]);
    dealers[0] = NULL;
    for (int i = 0; bt_backlog_waiting(backlog) > 0; i++) {
        bool readable, writable;
        assert_true(i < HANG_GUARD_MS);
        assert_ok(bt_zmq_events(router, &readable, &writable)); /* sees what has ended */
        zmq_poll(NULL, 0, 1);
    }
    assert_int_equal(say(0, 1), BATON_ERR_UNREACHABLE);
    assert_ok(say(1, FRAME_BYTES));
    hear(1, 1);
    close_all();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(who_does_not_read_costs_so_much_and_no_more),
        bt_test(a_full_connection_that_takes_some_is_not_given_up),
        bt_test(all_together_have_a_bound_and_leave_room),
        bt_test(what_waits_for_a_lost_connection_is_let_go),
    };
    return bt_run_tests(tests);
}
