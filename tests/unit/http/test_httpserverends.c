/* SPDX-License-Identifier: Apache-2.0 */
/* Clients that leave or take nothing, more of them than there may be, and servers that end. */
#include "serverkit.h"
#include "support/test.h"
#include "support/tlskit.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

static void a_client_that_leaves_is_noticed_once(void **state)
{
    (void)state;
    world w;
    world_start(&w, (bt_http_server_options){0});
    for (unsigned round = 1; round <= 3; round++) {
        int fd = raw_connect(w.port);
        raw_send_text(fd, "GET /hold HTTP/1.1\r\nHost: h\r\n\r\n");
        sem_wait(&w.arrived);
        if (round == 2)
            shutdown(fd, SHUT_WR);
        if (round == 3) {
            struct linger reset = {.l_onoff = 1};
            setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof(reset));
        }
        if (round != 2)
            close(fd);
        sem_wait(&w.gone);
        if (round == 2)
            close(fd);
        assert_int_equal(w.n_gone, round);
    }
    bt_http_server_stats stats = world_stats(&w);
    assert_int_equal(stats.n_requests, 0);
    assert_int_equal(stats.gone_total, 3);
    world_stop(&w);
}

static void set_gone_late(void *arg)
{
    world *w = arg;
    bt_http_on_gone(w->held, world_on_gone, w);
    assert_int_equal(w->n_gone, 0); /* never inside the call */
}

static void leaving_is_told_to_who_asks_late(void **state)
{
    (void)state;
    world w;
    world_start(&w, (bt_http_server_options){0});
    int fd = raw_connect(w.port);
    raw_send_text(fd, "GET /late HTTP/1.1\r\nHost: h\r\n\r\n");
    sem_wait(&w.arrived);
    close(fd);
    while (world_stats(&w).gone_total == 0)
        sched_yield();
    loop_thread_call(&w.runner, set_gone_late, &w);
    sem_wait(&w.gone);
    world_stop(&w);
}

static void a_slow_reader_holds_the_stream_back_and_gets_all(void **state)
{
    (void)state;
    world w;
    world_start(&w, (bt_http_server_options){.max_queued_bytes = 256 * 1024});
    int fd = raw_connect(w.port);
    raw_send_text(fd, "GET /big HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n");
    size_t n = raw_read_all(fd, w.out, OUT_BYTES);
    assert_true(n > BIG_BYTES);
    assert_memory_equal(w.out + n - 7, "\r\n0\r\n\r\n", 7);
    close(fd);
    loop_thread_stop(&w.runner);
    assert_true(w.n_drained > 1);
    assert_true(w.n_freed >= BIG_BYTES / (64 * 1024));
    loop_thread_start(&w.runner, w.runner.loop);
    world_stop(&w);
}

static void a_reader_that_takes_nothing_is_cut_off(void **state)
{
    (void)state;
    world w;
    world_start(&w, (bt_http_server_options){.max_queued_bytes = 8 << 20, .write_timeout_ms = 50});
    int fd = raw_connect(w.port);
    int small = 4096;
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof(small));
    raw_send_text(fd, "GET /stall HTTP/1.1\r\nHost: h\r\n\r\n");
    sem_wait(&w.gone); /* the answer is queued whole and never read */
    assert_int_equal(w.n_gone, 1);
    close(fd);
    world_stop(&w);
}

static void connections_above_the_limit_get_503(void **state)
{
    (void)state;
    world w;
    world_start(&w, (bt_http_server_options){.max_connections = 1});
    int fd = raw_connect(w.port);
    raw_send_text(fd, "GET /echo HTTP/1.1\r\nHost: h\r\n\r\n");
    raw_read_until(fd, "\r\n\r\n", w.out, OUT_BYTES);
    assert_has(world_exchange(&w, ""), "HTTP/1.1 503 ");
    close(fd);
    world_stop(&w);
}

enum { DESCRIPTORS = 512 };

/* Holds all descriptors that this process may have. */
typedef struct {
    struct rlimit usual;
    int fds[DESCRIPTORS], n;
} shortage;

static void begin_shortage(shortage *s)
{
    int fd;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &s->usual), 0);
    setrlimit(RLIMIT_NOFILE, &(struct rlimit){DESCRIPTORS, s->usual.rlim_max});
    for (s->n = 0; (fd = open("/dev/null", O_RDONLY | O_CLOEXEC)) >= 0;)
        s->fds[s->n++] = fd;
}

static void end_shortage(shortage *s)
{
    setrlimit(RLIMIT_NOFILE, &s->usual);
    while (s->n > 0)
        close(s->fds[--s->n]);
}

static void connect_to(int fd, uint16_t port)
{
    const struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    tlskit_forget(fd);
    assert_int_equal(connect(fd, (const struct sockaddr *)&address, sizeof(address)), 0);
}

static void ask_on(world *w, int fd)
{
    raw_send_text(fd, "GET /echo HTTP/1.1\r\nHost: h\r\n\r\n");
    raw_read_until(fd, "\r\n\r\n", w->out, OUT_BYTES);
    assert_has(w->out, "HTTP/1.1 200 ");
}

static void without_descriptors_who_comes_is_turned_away_and_who_is_there_served(void **state)
{
    (void)state;
    enum { N = 10 };
    world w;
    shortage all;
    int waiting[N];
    world_start(&w, (bt_http_server_options){0});
    bt_expect_log("connections turned away");
    int fd = raw_connect(w.port);
    ask_on(&w, fd);
    for (int i = 0; i < N; i++)
        waiting[i] = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    begin_shortage(&all);
    for (int i = 0; i < N; i++) {
        connect_to(waiting[i], w.port);
        assert_int_equal(raw_read_all(waiting[i], w.out, OUT_BYTES), 0);
        ask_on(&w, fd);
    }
    end_shortage(&all);
    assert_int_equal(world_stats(&w).refused_total, N);
    assert_int_equal(bt_log_seen("connections turned away"), 1); /* not a line each */
    assert_has(world_exchange(&w, "GET /echo HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n"),
               "HTTP/1.1 200 ");
    for (int i = 0; i < N; i++)
        close(waiting[i]);
    close(fd);
    world_stop(&w);
}

/* As when another thread has taken what the server had kept for this. */
static void without_even_a_reserved_one_who_comes_waits_and_who_is_there_is_served(void **state)
{
    (void)state;
    world w;
    struct rlimit usual;
    world_start(&w, (bt_http_server_options){0});
    bt_expect_log("connections turned away");
    int fd = raw_connect(w.port), waiting = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    ask_on(&w, fd);
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &usual), 0);
    setrlimit(RLIMIT_NOFILE, &(struct rlimit){3, usual.rlim_max});
    connect_to(waiting, w.port);
    for (int i = 0; i < 100; i++)
        ask_on(&w, fd);
    setrlimit(RLIMIT_NOFILE, &usual);
    tlskit_connect(waiting);
    ask_on(&w, waiting);
    close(waiting);
    close(fd);
    world_stop(&w);
}

static void a_port_in_use_is_named(void **state)
{
    (void)state;
    world w;
    world_start(&w, (bt_http_server_options){0});
    bt_loop *loop;
    bt_http_server *second;
    assert_ok(bt_loop_create(&loop));
    bt_http_server_options options = {.port = w.port, .on_request = world_on_request};
    assert_fails(bt_http_server_create(loop, &options, &second), BATON_ERR_ADDRESS_IN_USE,
                 "choose another port");
    options.host = "localhost";
    assert_fails(bt_http_server_create(loop, &options, &second), BATON_ERR_INVALID_ARG, "numeric");
    options.on_request = NULL;
    assert_fails(bt_http_server_create(loop, &options, &second), BATON_ERR_INVALID_ARG,
                 "on_request");
    bt_loop_destroy(loop);
    world_stop(&w);
}

static void loops_share_a_port_with_reuse_port(void **state)
{
    (void)state;
    world w;
    world_start(&w, (bt_http_server_options){.reuse_port = true});
    bt_loop *loop;
    bt_http_server *second;
    assert_ok(bt_loop_create(&loop));
    bt_http_server_options options = {
        .port = w.port, .reuse_port = true, .on_request = world_on_request};
    assert_ok(bt_http_server_create(loop, &options, &second));
    bt_http_server_destroy(second);
    bt_loop_destroy(loop);
    world_stop(&w);
}

static void stop_loop(void *arg)
{
    bt_loop_stop(arg);
}

static void begin_drain(void *arg)
{
    world *w = arg;
    bt_http_server_drain(w->server, stop_loop, w->runner.loop);
}

static void draining_finishes_what_runs_and_closes_what_idles(void **state)
{
    (void)state;
    world w;
    world_start(&w, (bt_http_server_options){0});
    int idle = raw_connect(w.port), busy = raw_connect(w.port);
    raw_send_text(idle, "GET /echo HTTP/1.1\r\nHost: h\r\n\r\n");
    raw_read_until(idle, "\r\n\r\n", w.out, OUT_BYTES);
    raw_send_text(busy, "GET /hold HTTP/1.1\r\nHost: h\r\n\r\n");
    sem_wait(&w.arrived);
    loop_thread_call(&w.runner, begin_drain, &w);
    assert_int_equal(raw_read_all(idle, w.out, OUT_BYTES), 0);
    close(idle);
    loop_thread_call(&w.runner, world_release_held, &w);
    raw_read_all(busy, w.out, OUT_BYTES);
    assert_has(w.out, "Connection: close\r\n");
    assert_has(w.out, "{}");
    close(busy);
    pthread_join(w.runner.thread, NULL); /* the drain's end has stopped the loop */
    loop_thread_start(&w.runner, w.runner.loop);
    world_stop(&w);
}

static void destroying_the_server_tells_requests_in_flight(void **state)
{
    (void)state;
    world w;
    world_start(&w, (bt_http_server_options){0});
    int fd = raw_connect(w.port);
    raw_send_text(fd, "GET /hold HTTP/1.1\r\nHost: h\r\n\r\n");
    sem_wait(&w.arrived);
    world_stop(&w);
    assert_int_equal(w.n_gone, 1);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(a_client_that_leaves_is_noticed_once),
        bt_test(leaving_is_told_to_who_asks_late),
        bt_test(a_slow_reader_holds_the_stream_back_and_gets_all),
        bt_test(a_reader_that_takes_nothing_is_cut_off),
        bt_test(connections_above_the_limit_get_503),
        bt_test(without_descriptors_who_comes_is_turned_away_and_who_is_there_served),
        bt_test(without_even_a_reserved_one_who_comes_waits_and_who_is_there_is_served),
        bt_test(a_port_in_use_is_named),
        bt_test(loops_share_a_port_with_reuse_port),
        bt_test(draining_finishes_what_runs_and_closes_what_idles),
        bt_test(destroying_the_server_tells_requests_in_flight),
    };
    return bt_run_tests(tests);
}
