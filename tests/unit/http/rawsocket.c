/* SPDX-License-Identifier: Apache-2.0 */
#include "rawsocket.h"

#include "support/test.h"
#include "support/tlskit.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <semaphore.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { HANG_GUARD_S = 300 };

static void *run_loop(void *arg)
{
    loop_thread *runner = arg;
    bt_loop_run(runner->loop);
    return NULL;
}

void loop_thread_start(loop_thread *runner, bt_loop *loop)
{
    runner->loop = loop;
    assert_int_equal(pthread_create(&runner->thread, NULL, run_loop, runner), 0);
}

void loop_thread_stop(loop_thread *runner)
{
    bt_loop_stop(runner->loop);
    pthread_join(runner->thread, NULL);
}

typedef struct {
    bt_loop_fn fn;
    void *arg;
    sem_t done;
} remote_call;

static void run_call(void *arg)
{
    remote_call *call = arg;
    call->fn(call->arg);
    sem_post(&call->done);
}

void loop_thread_call(loop_thread *runner, bt_loop_fn fn, void *arg)
{
    remote_call call = {.fn = fn, .arg = arg};
    sem_init(&call.done, 0, 0);
    assert_ok(bt_loop_post(runner->loop, run_call, &call));
    while (sem_wait(&call.done) != 0)
        assert_int_equal(errno, EINTR);
    sem_destroy(&call.done);
}

static void set_guard(int fd)
{
    struct timeval guard = {.tv_sec = HANG_GUARD_S};
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &guard, sizeof(guard));
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &guard, sizeof(guard));
}

int raw_connect(uint16_t port)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_port = htons(port)};
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(fd >= 0);
    set_guard(fd);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    tlskit_connect(fd);
    return fd;
}

void raw_send(int fd, const void *bytes, size_t n)
{
    tlskit_send(fd, bytes, n);
}

void raw_send_text(int fd, const char *text)
{
    raw_send(fd, text, strlen(text));
}

size_t raw_read_until(int fd, const char *end, char *out, size_t cap)
{
    size_t used = 0, end_bytes = strlen(end);
    out[0] = '\0';
    while (used + 1 < cap) {
        if (end_bytes > 0 && used >= end_bytes && strcmp(out + used - end_bytes, end) == 0)
            return used;
        long got = tlskit_recv(fd, out + used, cap - 1 - used);
        if (got < 0 && (errno == EAGAIN || errno == EWOULDBLOCK))
            fail_msg("hang guard: nothing came after '%s'", out);
        if (got <= 0)
            return used;
        used += (size_t)got;
        out[used] = '\0';
    }
    return used;
}

size_t raw_read_all(int fd, char *out, size_t cap)
{
    return raw_read_until(fd, "", out, cap);
}

int raw_listen(uint16_t *port)
{
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t bytes = sizeof(address);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    int fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(listen(fd, 16), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &bytes), 0);
    set_guard(fd);
    *port = ntohs(address.sin_port);
    return fd;
}

int raw_accept(int listener)
{
    int fd = accept(listener, NULL, NULL);
    assert_true(fd >= 0);
    tlskit_forget(fd);
    set_guard(fd);
    return fd;
}
