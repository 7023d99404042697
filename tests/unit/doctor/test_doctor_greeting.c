/* SPDX-License-Identifier: Apache-2.0 */
/* Greetings against everything that may listen on a port. */
#include "doctor/doctor_greeting.h"
#include "support/test.h"

#include <arpa/inet.h>
#include <pthread.h>
#include <stdio.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PATIENT_MS = 30000, HASTY_MS = 100 };

/* Accepts one connection, says `bytes` in pieces, and hangs up. */
typedef struct {
    int listener;
    uint16_t port;
    const void *bytes;
    size_t n, piece;
    pthread_t thread;
} server;

static void listen_on_any_port(server *s)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof(address);
    s->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(s->listener >= 0);
    assert_int_equal(bind(s->listener, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(s->listener, 4), 0);
    assert_int_equal(getsockname(s->listener, (struct sockaddr *)&address, &bytes), 0);
    s->port = ntohs(address.sin_port);
}

static void *serve(void *arg)
{
    server *s = arg;
    int fd = accept(s->listener, NULL, NULL);
    for (size_t at = 0; at < s->n; at += s->piece) {
        size_t left = s->n - at;
        if (send(fd, (const char *)s->bytes + at, left < s->piece ? left : s->piece, MSG_NOSIGNAL) <
            0)
            break;
    }
    char greeting[12]; /* what is not read makes the end a reset */
    size_t got = 0;
    for (ssize_t n;
         got < sizeof(greeting) && (n = recv(fd, greeting + got, sizeof(greeting) - got, 0)) > 0;)
        got += (size_t)n;
    close(fd);
    return NULL;
}

static baton_status ask(const void *bytes, size_t n, size_t piece, bt_greeting *greeting)
{
    server s = {.bytes = bytes, .n = n, .piece = piece};
    listen_on_any_port(&s);
    assert_int_equal(pthread_create(&s.thread, NULL, serve, &s), 0);
    baton_status status = bt_greeting_ask("127.0.0.1", s.port, PATIENT_MS, greeting);
    assert_int_equal(pthread_join(s.thread, NULL), 0);
    close(s.listener);
    return status;
}

static void fill_greeting(uint8_t bytes[64], const char *mechanism)
{
    memset(bytes, 0, 64);
    bytes[0] = 0xff;
    bytes[9] = 0x7f;
    bytes[10] = 3;
    bytes[11] = 1;
    memcpy(bytes + 12, mechanism, strlen(mechanism));
}

static void zeromq_sockets_say_their_mechanism(void **state)
{
    (void)state;
    static const char *const mechanisms[] = {"NULL", "CURVE", "ABCDEFGHIJKLMNOPQRST"};
    for (size_t i = 0; i < sizeof(mechanisms) / sizeof(mechanisms[0]); i++) {
        uint8_t bytes[64];
        bt_greeting greeting;
        fill_greeting(bytes, mechanisms[i]);
        assert_ok(ask(bytes, sizeof(bytes), i == 1 ? 1 : 64, &greeting));
        assert_string_equal(greeting.mechanism, mechanisms[i]);
        assert_string_equal(greeting.host, "127.0.0.1");
    }
}

static void other_services_are_quoted(void **state)
{
    (void)state;
    bt_greeting greeting;
    const char http[] = "HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n";
    assert_fails(ask(http, strlen(http), 7, &greeting), BATON_ERR_BAD_MESSAGE, "HTTP/1.");
    const char ssh[] = "SSH-2.0-\x1b[31mOpenSSH\r\n";
    assert_fails(ask(ssh, strlen(ssh), 64, &greeting), BATON_ERR_BAD_MESSAGE, "SSH-2.0-.[31m");
    assert_fails(ask("", 0, 1, &greeting), BATON_ERR_CLOSED, "closes them at once");
    const uint8_t half[] = {0xff, 0, 0};
    assert_fails(ask(half, sizeof(half), 1, &greeting), BATON_ERR_BAD_MESSAGE, "ZeroMQ");
}

static void silence_ends_at_the_deadline(void **state)
{
    (void)state;
    server s = {0};
    bt_greeting greeting;
    listen_on_any_port(&s); /* connections wait in its backlog for ever */
    assert_fails(bt_greeting_ask("127.0.0.1", s.port, HASTY_MS, &greeting), BATON_ERR_INIT_TIMEOUT,
                 "says nothing within 100 ms");
    close(s.listener);
}

static void nobody_there_is_unreachable(void **state)
{
    (void)state;
    server s = {0};
    bt_greeting greeting;
    listen_on_any_port(&s);
    close(s.listener);
    assert_fails(bt_greeting_ask("127.0.0.1", s.port, PATIENT_MS, &greeting), BATON_ERR_UNREACHABLE,
                 "Connection refused");
    assert_fails(bt_greeting_ask("localhost", s.port, PATIENT_MS, &greeting), BATON_ERR_UNREACHABLE,
                 "Connection refused");
    assert_fails(bt_greeting_ask("no such name", 1, PATIENT_MS, &greeting), BATON_ERR_UNREACHABLE,
                 "no such name");
}

static void odd_greetings_are_refused(void **state)
{
    (void)state;
    char mechanism[BT_GREETING_MECHANISM_BYTES];
    uint8_t bytes[64];
    fill_greeting(bytes, "NULL");
    for (size_t n = 0; n < 32; n++) {
        uint8_t *guarded = bt_guarded_copy(bytes, n);
        assert_int_equal(bt_greeting_parse(guarded, n, mechanism), BATON_IN_PROGRESS);
        bt_guarded_free(guarded, n);
    }
    assert_ok(bt_greeting_parse(bytes, 32, mechanism));
    bytes[10] = 1;
    assert_fails(bt_greeting_parse(bytes, 64, mechanism), BATON_ERR_BAD_MESSAGE, "version 1");
    fill_greeting(bytes, "");
    assert_fails(bt_greeting_parse(bytes, 64, mechanism), BATON_ERR_BAD_MESSAGE, "ZeroMQ");
    fill_greeting(bytes, "nu\x1bll");
    assert_fails(bt_greeting_parse(bytes, 64, mechanism), BATON_ERR_BAD_MESSAGE, "ZeroMQ");
    fill_greeting(bytes, "NULL");
    bytes[9] = 0;
    assert_fails(bt_greeting_parse(bytes, 10, mechanism), BATON_ERR_BAD_MESSAGE, "ZeroMQ");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(zeromq_sockets_say_their_mechanism), bt_test(other_services_are_quoted),
        bt_test(silence_ends_at_the_deadline),       bt_test(nobody_there_is_unreachable),
        bt_test(odd_greetings_are_refused),
    };
    return bt_run_tests(tests);
}
