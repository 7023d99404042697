/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "bench/perf_control.h"

#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

static bt_perf_control a, b;
static char line[BT_PERF_LINE_BYTES];

static void open_channel(void)
{
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    a = (bt_perf_control){.fd = fds[0]};
    b = (bt_perf_control){.fd = fds[1]};
}

static void close_channel(void)
{
    bt_perf_close(&a);
    bt_perf_close(&b);
}

static void write_raw(const char *bytes, size_t n)
{
    assert_int_equal(write(a.fd, bytes, n), (ssize_t)n);
}

static void lines_come_whole_and_in_order(void **state)
{
    (void)state;
    open_channel();
    assert_int_equal(bt_perf_receive(&b, false, line), BATON_IN_PROGRESS);
    write_raw("check iter", 10);
    assert_int_equal(bt_perf_receive(&b, false, line), BATON_IN_PROGRESS);
    write_raw("ation=1\nsecond\n\nfou", 19);
    assert_ok(bt_perf_receive(&b, true, line));
    assert_string_equal(line, "check iteration=1");
    assert_ok(bt_perf_receive(&b, true, line));
    assert_string_equal(line, "second");
    assert_ok(bt_perf_receive(&b, true, line));
    assert_string_equal(line, "");
    assert_ok(bt_perf_send(&a, "rth %s", "two\nlines"));
    assert_ok(bt_perf_receive(&b, true, line));
    assert_string_equal(line, "fourth two lines");
    bt_perf_close(&a);
    assert_fails(bt_perf_receive(&b, true, line), BATON_ERR_PEER_GONE, "closed");
    close_channel();
}

static void lines_without_end_are_refused(void **state)
{
    (void)state;
    static char bytes[BT_PERF_LINE_BYTES];
    open_channel();
    memset(bytes, 'x', sizeof(bytes));
    write_raw(bytes, sizeof(bytes));
    assert_fails(bt_perf_receive(&b, true, line), BATON_ERR_TOO_LARGE, "longer");
    bytes[sizeof(bytes) - 1] = '\0';
    assert_fails(bt_perf_send(&a, "%s", bytes), BATON_ERR_TOO_LARGE, "");
    close_channel();
}

static void fields_are_numbers_within_limits(void **state)
{
    (void)state;
    static const char text[] = "setup pages=12 big=18446744073709551615 over=18446744073709551616 "
                               "sign=-1 word=x none= tail=5y";
    uint64_t value = 0;
    assert_true(bt_perf_line_is(text, "setup"));
    assert_false(bt_perf_line_is(text, "set"));
    assert_ok(bt_perf_field(text, "pages", 12, 12, &value));
    assert_int_equal(value, 12);
    assert_ok(bt_perf_field(text, "big", 0, UINT64_MAX, &value));
    assert_true(value == UINT64_MAX);
    assert_fails(bt_perf_field(text, "pages", 13, 20, &value), BATON_ERR_BAD_MESSAGE, "pages");
    assert_fails(bt_perf_field(text, "pages", 1, 11, &value), BATON_ERR_BAD_MESSAGE, "pages");
    static const char *const bad[] = {"over", "sign", "word", "none", "tail", "ages", "missing"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_fails(bt_perf_field(text, bad[i], 0, UINT64_MAX, &value), BATON_ERR_BAD_MESSAGE,
                     bad[i]);
}

static void sockets_meet(void **state)
{
    (void)state;
    int listener;
    uint16_t port = 0;
    assert_ok(bt_perf_listen("127.0.0.1", &port, &listener));
    assert_true(port != 0);
    assert_ok(bt_perf_connect("127.0.0.1", port, &a));
    b = (bt_perf_control){.fd = accept(listener, NULL, NULL)};
    assert_ok(bt_perf_send(&a, "hello"));
    assert_ok(bt_perf_receive(&b, true, line));
    assert_string_equal(line, "hello");
    int second;
    assert_fails(bt_perf_listen("127.0.0.1", &port, &second), BATON_ERR_ADDRESS_IN_USE, "");
    close_channel();
    close(listener);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(lines_come_whole_and_in_order),
        bt_test(lines_without_end_are_refused),
        bt_test(fields_are_numbers_within_limits),
        bt_test(sockets_meet),
    };
    return bt_run_tests(tests);
}
