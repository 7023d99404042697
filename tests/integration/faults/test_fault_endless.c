/* SPDX-License-Identifier: Apache-2.0 */
/* Peers that make whoever listens hold what they send: messages that do not end, frames of which
 * the rest does not come, notices without number. What is held has a bound, and good requests end
 * well meanwhile. */
#include "rawpeer.h"

#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { N_REQUESTS = 4, PROMPT_TOKENS = 40 };

typedef struct {
    bt_node prefill, decode, proxy;
    uint16_t notices; /* port */
    long decode_kib, proxy_kib;
} endless_test;

static void open_test(endless_test *t)
{
    bt_node_start(&t->prefill, "prefill", NULL);
    bt_node_start(&t->decode, "decode", NULL);
    bt_proxy_start(&t->proxy, &t->prefill, 1, &t->decode, 1, NULL);
    t->notices = bt_child_port(t->proxy.child, "notices=127.0.0.1:", 0);
    bt_check_completion(&t->proxy, &t->decode, 1, PROMPT_TOKENS);
    t->decode_kib = bt_child_rss_kib(t->decode.child);
    t->proxy_kib = bt_child_rss_kib(t->proxy.child);
}

/* A sanitizer keeps what was freed. */
static void check_memory(const endless_test *t, long more_mib)
{
    if (BT_HAS_SANITIZER)
        return;
    assert_in_range(bt_child_rss_kib(t->decode.child), 1, t->decode_kib + more_mib * 1024);
    assert_in_range(bt_child_rss_kib(t->proxy.child), 1, t->proxy_kib + more_mib * 1024);
}

static void close_test(endless_test *t)
{
    bt_check_completion(&t->proxy, &t->decode, 99, PROMPT_TOKENS);
    bt_check_idle_prefill(&t->prefill);
    bt_check_idle_decode(&t->decode);
    bt_child_stop(t->proxy.child);
    bt_child_stop(t->prefill.child);
    bt_child_stop(t->decode.child);
}

/* A connection whose handshake is done; as a DEALER, or a PUSH. -1: it was refused. No asserts: not
 * always the test's thread. */
static int join(uint16_t port, const char *as)
{
    static const uint8_t greeting[64] = {0xff, [9] = 0x7f, 3, 0, 'N', 'U', 'L', 'L'};
    const struct sockaddr_in at = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const struct timeval guard = {.tv_sec = BT_GUARD_SECONDS};
    const size_t head = 24, n_as = strlen(as);
    uint8_t heard[512] = {0}, ready[64] = "\x04\0\x05READY\x0bSocket-Type\0\0\0";
    ready[1] = (uint8_t)(head - 2 + n_as);
    ready[head - 1] = (uint8_t)n_as;
    memcpy(ready + head, as, n_as);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &guard, sizeof(guard));
    if (connect(fd, (const struct sockaddr *)&at, sizeof(at)) == 0 &&
        send(fd, greeting, sizeof(greeting), MSG_NOSIGNAL) > 0 &&
        send(fd, ready, head + n_as, MSG_NOSIGNAL) > 0 &&
        recv(fd, heard, sizeof(greeting) + 2, MSG_WAITALL) > (ssize_t)sizeof(greeting) &&
        recv(fd, heard, heard[sizeof(greeting) + 1], MSG_WAITALL) > 0)
        return fd;
    close(fd);
    return -1;
}

/* A thread that sends parts of a message that does not end, and begins anew when it is cut. */
typedef struct {
    uint16_t port;
    const char *as;
    uint8_t part_bytes;
    _Atomic bool must_stop; /* relaxed: the join orders the rest */
    pthread_t thread;
} endless;

static void *be_endless(void *ctx)
{
    endless *e = ctx;
    uint8_t parts[32 << 10] = {0};
    const size_t each = 2 + (size_t)e->part_bytes, n = sizeof(parts) / each * each;
    for (size_t at = 0; at < n; at += each) {
        parts[at] = 1; /* more follow */
        parts[at + 1] = e->part_bytes;
    }
    int fd = -1;
    while (!atomic_load_explicit(&e->must_stop, memory_order_relaxed)) {
        if (fd < 0)
            fd = join(e->port, e->as);
        ssize_t sent = 1;
        for (size_t at = 0; at < n && sent > 0; at += (size_t)(sent > 0 ? sent : 0))
            sent = send(fd, parts + at, n - at, MSG_NOSIGNAL);
        if (sent <= 0 && fd >= 0) {
            close(fd);
            fd = -1;
        }
    }
    if (fd >= 0)
        close(fd);
    return NULL;
}

static void messages_that_do_not_end_cost_little(void **state)
{
    (void)state;
    enum { N_CUTS = 4, MORE_MIB = 384 };
    endless_test t;
    open_test(&t);
    endless peers[] = {{.port = t.decode.init_ports[0], .as = "DEALER", .part_bytes = 200},
                       {.port = t.decode.alloc_ports[0], .as = "DEALER", .part_bytes = 200},
                       {.port = t.decode.alloc_ports[0], .as = "DEALER", .part_bytes = 0},
                       {.port = t.notices, .as = "PUSH", .part_bytes = 200}};
    const size_t n = sizeof(peers) / sizeof(peers[0]);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(pthread_create(&peers[i].thread, NULL, be_endless, &peers[i]), 0);
    for (unsigned i = 0; i < N_REQUESTS; i++) {
        bt_check_completion(&t.proxy, &t.decode, 10 + i, PROMPT_TOKENS);
        check_memory(&t, MORE_MIB);
    }
    bt_wait_metric(&t.decode, "baton_receiver_connections_cut_total", N_CUTS);
    bt_wait_metric(&t.proxy, "baton_proxy_notice_connections_cut_total", N_CUTS);
    check_memory(&t, MORE_MIB);
    for (size_t i = 0; i < n; i++) {
        atomic_store_explicit(&peers[i].must_stop, true, memory_order_relaxed);
        assert_int_equal(pthread_join(peers[i].thread, NULL), 0);
    }
    assert_true(bt_child_has_logged(t.decode.child, "receiver: connection cut: "));
    assert_true(bt_child_has_logged(t.proxy.child, "notice port: connection cut: "));
    close_test(&t);
}

/* Each has less than the largest frame there may be. */
static void parts_of_frames_have_a_bound_in_all(void **state)
{
    (void)state;
    enum { N = 1000, EACH = 256 << 10, ALL_MIB = 64, MORE_MIB = 192, LEFT = ALL_MIB * 4 };
    static const uint8_t head[9] = {2, [6] = 0x40}; /* 4 MiB follow, the last of its message */
    static const uint8_t some[EACH];
    static int fds[N];
    endless_test t;
    open_test(&t);
    for (int i = 0; i < N; i++) {
        fds[i] = join(t.decode.alloc_ports[0], "DEALER");
        assert_true(fds[i] >= 0);
        assert_int_equal(send(fds[i], head, sizeof(head), MSG_NOSIGNAL), sizeof(head));
        for (ssize_t at = 0, sent = 1; at < EACH && sent > 0; at += sent)
            sent = send(fds[i], some + at, (size_t)(EACH - at), MSG_NOSIGNAL);
        if (i % (N / N_REQUESTS) == 0)
            bt_check_completion(&t.proxy, &t.decode, 10 + (unsigned)i, PROMPT_TOKENS);
    }
    bt_wait_metric(&t.decode, "baton_receiver_connections_cut_total", N - LEFT);
    check_memory(&t, MORE_MIB);
    bt_check_completion(&t.proxy, &t.decode, 9, PROMPT_TOKENS);
    for (int i = 0; i < N; i++)
        close(fds[i]);
    close_test(&t);
}

/* Notices that are for others, and what is none; as fast as they are taken. */
typedef struct {
    char url[64];
    unsigned at_least;
    _Atomic bool must_stop; /* relaxed: the join orders the rest */
} notice_flood;

static void *send_notices(void *ctx)
{
    notice_flood *f = ctx;
    void *context = NULL, *push = NULL;
    uint8_t bytes[BT_NOTICE_BYTES_MAX];
    bt_packwriter writer;
    const bt_notice notice = {
        .id = bt_blob_of_text("of somebody else"), .epoch = 7, .world = 1, .status = BATON_OK};
    bt_pack_init_fixed(&writer, bytes, sizeof(bytes));
    if (bt_notice_encode(&notice, &writer) != BATON_OK ||
        bt_zmq_context_create(&context) != BATON_OK ||
        bt_zmq_open(context, &(bt_zmq_options){.type = ZMQ_PUSH, .queue_unconnected = true},
                    &push) != BATON_OK ||
        bt_zmq_connect_url(push, f->url) != BATON_OK)
        return NULL; /* which is seen in the proxy's metrics */
    for (unsigned i = 0;
         i < f->at_least || !atomic_load_explicit(&f->must_stop, memory_order_relaxed);) {
        const bt_blob part = bt_blob_of(bytes, writer.n - i % 2);
        if (bt_zmq_send(push, &part, 1) == BATON_OK)
            i++;
        else
            sched_yield();
    }
    bt_zmq_close(push);
    bt_zmq_context_destroy(context);
    return NULL;
}

static void floods_of_notices_keep_none_from_getting_through(void **state)
{
    (void)state;
    enum { N_NOTICES = 100000, MORE_MIB = 24 };
    endless_test t;
    pthread_t thread;
    open_test(&t);
    const char *ready = "baton_proxy_kv_notices_total{result=\"ready\"}";
    const double n_ready = bt_metric(&t.proxy, ready);
    notice_flood flood = {.at_least = N_NOTICES};
    snprintf(flood.url, sizeof(flood.url), "tcp://127.0.0.1:%u", t.notices);
    assert_int_equal(pthread_create(&thread, NULL, send_notices, &flood), 0);
    for (unsigned i = 0; i < N_REQUESTS; i++) {
        bt_check_completion(&t.proxy, &t.decode, 10 + i, PROMPT_TOKENS);
        check_memory(&t, MORE_MIB);
    }
    atomic_store_explicit(&flood.must_stop, true, memory_order_relaxed);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(bt_metric(&t.proxy, ready) == n_ready + N_REQUESTS);
    assert_true(bt_metric(&t.proxy, "baton_proxy_notice_malformed_total") > 0);
    assert_true(bt_metric(&t.proxy, "baton_proxy_notice_foreign_total") > 0);
    assert_true(bt_metric(&t.proxy, "baton_proxy_notice_connections_cut_total") == 0);
    check_memory(&t, MORE_MIB);
    close_test(&t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_child_test(messages_that_do_not_end_cost_little),
        bt_child_test(parts_of_frames_have_a_bound_in_all),
        bt_child_test(floods_of_notices_keep_none_from_getting_through),
    };
    return bt_run_tests(tests);
}
