/* SPDX-License-Identifier: Apache-2.0 */
/* Connections that make ZeroMQ hold memory, beside some that do not. */
#include "wire/zmqguard.h"

#include "core/alloc.h"
#include "support/test.h"
#include "wire/zmq_wait.h"
#include "wire/zmqheld.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/tcp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

enum { FRAME_MAX = 64 << 10, NOISE = 64 << 10, AHEAD = 32, ROUTE_BYTES = 5 };
/* More than kernels buffer, and less than a test can wait for. */
#define ENDLESS_BYTES (UINT64_C(4) << 30)

static void *context, *server;
static uint16_t port;
static bt_zmq_guard *guard;
static _Atomic unsigned n_called; /* relaxed: only its value matters */

static void call_us(void *ctx)
{
    (void)ctx;
    atomic_fetch_add_explicit(&n_called, 1, memory_order_relaxed);
}

static void open_guard_of(int type, const bt_zmq_guard_options *limits)
{
    const bt_zmq_options options = {
        .type = type, .recv_messages = AHEAD, .max_part_bytes = FRAME_MAX};
    bt_zmq_guard_options filled = *limits;
    filled.what = "test";
    filled.wake = call_us;
    atomic_store_explicit(&n_called, 0, memory_order_relaxed);
    assert_ok(bt_zmq_context_create(&context));
    assert_ok(bt_zmq_open(context, &options, &server));
    assert_ok(bt_zmq_guard_create(&filled, &guard));
    assert_ok(bt_zmq_guard_watch(guard, context, server));
    assert_ok(bt_zmq_bind(server, "127.0.0.1", 0, &port));
    assert_ok(bt_zmq_guard_start(guard));
}

static void open_guard(const bt_zmq_guard_options *limits)
{
    open_guard_of(ZMQ_ROUTER, limits);
}

static void close_guard(void)
{
    bt_zmq_guard_destroy(guard);
    bt_zmq_close(server);
    bt_zmq_context_destroy(context);
}

/* Takes what there is; how many messages. */
static unsigned serve(void)
{
    bt_zmq_message message;
    unsigned n = 0;
    baton_status status;
    while ((status = bt_zmq_guard_recv(guard, server, &message)) != BATON_IN_PROGRESS) {
        n += status == BATON_OK;
        bt_zmq_message_close(&message);
    }
    return n;
}

/* For a ms, or until something comes. */
static unsigned serve_soon(void)
{
    zmq_pollitem_t item = {.socket = server, .events = ZMQ_POLLIN};
    zmq_poll(&item, 1, 1);
    return serve();
}

static void wait_cuts(uint64_t n)
{
    for (int ms = 0; bt_zmq_guard_cut_total(guard) < n; ms++) {
        assert_true(ms < HANG_GUARD_MS);
        serve_soon();
    }
}

/* The guard has looked so often, and found something to ask for. */
static void wait_called(unsigned n, bool serving)
{
    unsigned before = atomic_load_explicit(&n_called, memory_order_relaxed);
    for (int ms = 0; atomic_load_explicit(&n_called, memory_order_relaxed) - before < n; ms++) {
        assert_true(ms < HANG_GUARD_MS);
        if (serving)
            serve_soon();
        else
            zmq_poll(NULL, 0, 1);
    }
}

static void *open_dealer(const bt_zmq_options *more)
{
    void *dealer;
    bt_zmq_options options = more != NULL ? *more : (bt_zmq_options){0};
    options.type = ZMQ_DEALER;
    assert_ok(bt_zmq_open(context, &options, &dealer));
    assert_ok(bt_zmq_connect(dealer, "127.0.0.1", port));
    assert_true(wait_for(dealer, ZMQ_POLLOUT));
    return dealer;
}

static void say(void *dealer, size_t bytes)
{
    static uint8_t body[FRAME_MAX];
    bt_blob part = bt_blob_of(body, bytes);
    assert_true(wait_for(dealer, ZMQ_POLLOUT));
    assert_ok(bt_zmq_send(dealer, &part, 1));
}

/* False: it was cut. */
static bool push(int fd, const void *bytes, size_t n)
{
    ssize_t sent = send(fd, bytes, n, MSG_NOSIGNAL);
    assert_true(sent > 0 || errno == EPIPE || errno == ECONNRESET);
    return sent > 0;
}

/* n bytes, if they come. */
static void hear_out(int fd, uint8_t *heard, size_t n)
{
    (void)!recv(fd, heard, n, MSG_WAITALL);
}

/* A peer that is no ZeroMQ; as a DEALER, or a PUSH. Whoever does not wait for READY is refused. */
static int dial(const char *as)
{
    static const uint8_t greeting[64] = {0xff, [9] = 0x7f, 3, 0, 'N', 'U', 'L', 'L'};
    const struct sockaddr_in at = {
        .sin_family = AF_INET, .sin_port = htons(port), .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    const struct timeval patience = {.tv_sec = HANG_GUARD_MS / 1000};
    uint8_t heard[512] = {0};
    uint8_t ready[64] = "\x04\0\x05READY\x0bSocket-Type\0\0\0";
    size_t n_as = strlen(as), n = 24;
    ready[1] = (uint8_t)(n - 2 + n_as);
    ready[n - 1] = (uint8_t)n_as;
    memcpy(ready + n, as, n_as);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_true(fd >= 0);
    setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof(patience));
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    assert_int_equal(connect(fd, (const struct sockaddr *)&at, sizeof(at)), 0);
    push(fd, greeting, sizeof(greeting));
    push(fd, ready, n + n_as);
    hear_out(fd, heard, sizeof(greeting) + 2);
    hear_out(fd, heard + sizeof(greeting) + 2, heard[sizeof(greeting) + 1]);
    return fd;
}

/* Of a frame of claimed bytes, the last of its message. */
static void push_some(int fd, uint64_t claimed, size_t bytes)
{
    static uint8_t some[FRAME_MAX];
    uint8_t head[9] = {2};
    for (int i = 0; i < 8; i++)
        head[1 + i] = (uint8_t)(claimed >> (56 - 8 * i));
    assert_true(push(fd, head, sizeof(head)));
    for (size_t n = 0; n < bytes; n += sizeof(some))
        push(fd, some, bytes - n < sizeof(some) ? bytes - n : sizeof(some));
}

static bool was_cut(int fd)
{
    uint8_t heard[256];
    ssize_t n;
    while ((n = recv(fd, heard, sizeof(heard), MSG_DONTWAIT)) > 0) {
    }
    return n == 0 || errno == ECONNRESET;
}

/* Parts that are not the last, of so many bytes, until it is cut; each sent in one piece. */
typedef struct {
    size_t part_bytes;
    uint64_t sent_bytes; /* the thread's, until it has ended */
    int fd;
    _Atomic bool has_ended; /* release by the thread, acquire by the test */
} endless;

/* All of it, unless it is cut meanwhile. */
static bool send_all(int fd, const uint8_t *bytes, size_t n)
{
    for (size_t at = 0; at < n;) {
        ssize_t sent = send(fd, bytes + at, n - at, MSG_NOSIGNAL);
        if (sent <= 0)
            return false;
        at += (size_t)sent;
    }
    return true;
}

static void *be_endless(void *ctx)
{
    endless *e = ctx;
    static uint8_t parts[64 << 10];
    const uint8_t head[2] = {1, (uint8_t)e->part_bytes}; /* more */
    size_t each = sizeof(head) + e->part_bytes, n = sizeof(parts) / each * each;
    for (size_t at = 0; at < n; at += each)
        memcpy(parts + at, head, sizeof(head));
    while (e->sent_bytes < ENDLESS_BYTES && send_all(e->fd, parts, n))
        e->sent_bytes += n;
    atomic_store_explicit(&e->has_ended, true, memory_order_release);
    return NULL;
}

static void check_endless(int type, const char *as, size_t part_bytes)
{
    pthread_t thread;
    open_guard_of(type, &(bt_zmq_guard_options){.noise_bytes = NOISE});
    bt_expect_log("connection cut");
    endless e = {.part_bytes = part_bytes, .fd = dial(as)};
    assert_int_equal(pthread_create(&thread, NULL, be_endless, &e), 0);
    while (!atomic_load_explicit(&e.has_ended, memory_order_acquire))
        serve_soon();
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_true(e.sent_bytes < ENDLESS_BYTES);
    wait_cuts(1);
    close(e.fd);
    close_guard();
}

static void who_does_not_end_a_message_is_cut(void **state)
{
    (void)state;
    check_endless(ZMQ_ROUTER, "DEALER", 200);
    check_endless(ZMQ_ROUTER, "DEALER", 0);
    check_endless(ZMQ_PULL, "PUSH", 200);
}

/* It reads what it is given all the while, and others are heard. */
static void others_are_heard_meanwhile(void **state)
{
    (void)state;
    enum { N_MESSAGES = 200 };
    pthread_t thread;
    unsigned n = 0;
    open_guard(&(bt_zmq_guard_options){.noise_bytes = NOISE});
    bt_expect_log("connection cut");
    void *dealer = open_dealer(NULL);
    endless e = {.part_bytes = 200, .fd = dial("DEALER")};
    assert_int_equal(pthread_create(&thread, NULL, be_endless, &e), 0);
    for (unsigned i = 0; i < N_MESSAGES; i++) {
        say(dealer, FRAME_MAX);
        n += serve_soon();
    }
    while (n < N_MESSAGES)
        n += serve_soon();
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(n, N_MESSAGES);
    wait_cuts(1);
    close(e.fd);
    bt_zmq_close(dealer);
    close_guard();
}

/* Frames that nobody would be cut for alone. Who has something else unfinished for a moment is not
 * the one, since others have had it for longer. */
static void parts_of_frames_have_a_bound_in_all(void **state)
{
    (void)state;
    enum { N = 100, EACH = FRAME_MAX / 2, ALL = 1 << 20, MOST = ALL / EACH };
    int fds[N];
    unsigned n_left = 0;
    open_guard(&(bt_zmq_guard_options){.unfinished_bytes = ALL});
    bt_expect_log("messages of all connections that do not end");
    void *dealer = open_dealer(NULL);
    for (int i = 0; i < N; i++) {
        fds[i] = dial("DEALER");
        push_some(fds[i], FRAME_MAX, EACH);
    }
    wait_cuts(N - MOST);
    wait_called(4, true);
    for (int i = 0; i < N; i++) {
        n_left += !was_cut(fds[i]);
        close(fds[i]);
    }
    assert_in_range(n_left, MOST - 1, MOST);
    say(dealer, 1);
    while (serve_soon() == 0) {
    }
    bt_zmq_close(dealer);
    close_guard();
}

/* The owner takes nothing for a long time. */
static void messages_may_wait_for_us(void **state)
{
    (void)state;
    enum { N_MESSAGES = 2 * AHEAD, N_DEALERS = 3 };
    void *dealers[N_DEALERS];
    unsigned n = 0;
    open_guard(&(bt_zmq_guard_options){.noise_bytes = NOISE});
    for (int i = 0; i < N_DEALERS; i++) {
        dealers[i] = open_dealer(NULL);
        for (int k = 0; k < N_MESSAGES; k++)
            say(dealers[i], FRAME_MAX);
    }
    wait_called(10, false);
    while (n < N_DEALERS * N_MESSAGES)
        n += serve_soon();
    assert_int_equal(bt_zmq_guard_cut_total(guard), 0);
    for (int i = 0; i < N_DEALERS; i++)
        bt_zmq_close(dealers[i]);
    close_guard();
}

/* But not without a bound. */
static void what_waits_for_us_has_a_bound_too(void **state)
{
    (void)state;
    enum { ALL = 1 << 20, N_MESSAGES = AHEAD };
    open_guard(&(bt_zmq_guard_options){.held_bytes = ALL});
    bt_expect_log("messages of all connections that are not read");
    void *dealer = open_dealer(NULL);
    for (int i = 0; i < N_MESSAGES; i++)
        say(dealer, FRAME_MAX);
    for (int ms = 0; bt_zmq_guard_cut_total(guard) == 0; ms++) {
        assert_true(ms < HANG_GUARD_MS);
        zmq_poll(NULL, 0, 1);
    }
    bt_zmq_close(dealer);
    close_guard();
}

/* The largest frame there may be, in pieces, with looks between. */
static void a_slow_frame_arrives(void **state)
{
    (void)state;
    enum { N_PIECES = 8, PIECE = FRAME_MAX / N_PIECES };
    static uint8_t piece[PIECE];
    open_guard(&(bt_zmq_guard_options){.noise_bytes = 1000});
    int fd = dial("DEALER");
    push_some(fd, FRAME_MAX, FRAME_MAX - PIECE);
    wait_called(0, true);
    for (int i = 0; i < 200; i++) /* two looks at least */
        assert_int_equal(serve_soon(), 0);
    assert_true(push(fd, piece, PIECE));
    while (serve_soon() == 0) {
    }
    assert_int_equal(bt_zmq_guard_cut_total(guard), 0);
    close(fd);
    close_guard();
}

/* However many messages come, nothing adds up. */
static void who_says_much_is_not_cut(void **state)
{
    (void)state;
    enum { N_MESSAGES = 5000 };
    unsigned n = 0;
    open_guard(&(bt_zmq_guard_options){.noise_bytes = NOISE, .unfinished_bytes = 4 * FRAME_MAX});
    void *dealers[] = {open_dealer(NULL), open_dealer(NULL)};
    for (unsigned i = 0; i < N_MESSAGES; i++) {
        say(dealers[i % 2], i % 100 == 0 ? FRAME_MAX : i % 512);
        n += serve();
    }
    while (n < N_MESSAGES)
        n += serve_soon();
    assert_int_equal(bt_zmq_guard_cut_total(guard), 0);
    bt_zmq_close(dealers[0]);
    bt_zmq_close(dealers[1]);
    close_guard();
}

static uint64_t received(int fd)
{
    struct tcp_info info = {0};
    socklen_t bytes = sizeof(info);
    assert_int_equal(getsockopt(fd, IPPROTO_TCP, TCP_INFO, &info, &bytes), 0);
    return info.tcpi_bytes_received;
}

static bt_zmq_arrival hear(bool is_curve)
{
    bt_zmq_message message;
    bt_zmq_arrival arrival = {.is_router = true, .is_curve = is_curve};
    assert_true(wait_for(server, ZMQ_POLLIN));
    assert_ok(bt_zmq_recv_from(server, &message, &arrival));
    bt_zmq_message_close(&message);
    return arrival;
}

static void check_wire_bytes(bool is_curve)
{
    static const size_t sizes[] = {0, 1, 33, 221, 222, 223, 254, 255, 256, 8192, FRAME_MAX};
    bt_curve_keys keys[2];
    bt_zap *zap = NULL;
    bt_zmq_options ours = {.type = ZMQ_ROUTER}, theirs = {0};
    char folder[] = "/tmp/baton-guard-XXXXXX", path[64];
    assert_ok(bt_zmq_context_create(&context));
    assert_non_null(mkdtemp(folder));
    if (is_curve) {
        assert_ok(bt_curve_generate(&keys[0]));
        assert_ok(bt_curve_generate(&keys[1]));
        snprintf(path, sizeof(path), "%s/a", folder);
        assert_ok(bt_curve_save(path, &keys[1]));
        assert_ok(bt_zap_create(context, folder, &zap));
        ours.server_keys = &keys[0];
        ours.zap = zap;
        theirs.client_keys = &keys[1];
        theirs.server_public = keys[0].public_key;
    }
    assert_ok(bt_zmq_open(context, &ours, &server));
    assert_ok(bt_zmq_bind(server, "127.0.0.1", 0, &port));
    void *dealer = open_dealer(&theirs);
    say(dealer, 1);
    int fd = hear(is_curve).fd;
    assert_true(fd >= 0);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        uint64_t before = received(fd);
        say(dealer, sizes[i]);
        bt_zmq_arrival arrival = hear(is_curve);
        assert_int_equal(arrival.fd, fd);
        assert_int_equal(arrival.wire_bytes, received(fd) - before);
    }
    bt_zmq_close(dealer);
    bt_zmq_close(server);
    bt_zap_destroy(zap);
    bt_zmq_context_destroy(context);
    if (is_curve) {
        for (const char *const *end = (const char *const[]){".key", ".pub", NULL}; *end; end++) {
            snprintf(path, sizeof(path), "%s/a%s", folder, *end);
            unlink(path);
        }
    }
    rmdir(folder);
}

static void frames_are_as_long_as_is_thought(void **state)
{
    (void)state;
    check_wire_bytes(false);
    check_wire_bytes(true);
}

static void without_memory_nobody_is_let_in_unwatched(void **state)
{
    (void)state;
    bt_zmq_guard *none;
    const bt_zmq_guard_options options = {.what = "test", .wake = call_us};
    bt_alloc_fail_at(1);
    assert_fails(bt_zmq_guard_create(&options, &none), BATON_ERR_NO_MEMORY, "guard");
    open_guard(&options);
    bt_alloc_fail_at(1);
    int fd = dial("DEALER");
    for (int ms = 0; !was_cut(fd); ms++) {
        assert_true(ms < HANG_GUARD_MS);
        serve_soon();
    }
    bt_alloc_fail_at(0);
    void *dealer = open_dealer(NULL);
    say(dealer, 1);
    while (serve_soon() == 0) {
    }
    close(fd);
    bt_zmq_close(dealer);
    close_guard();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(who_does_not_end_a_message_is_cut),
        bt_test(others_are_heard_meanwhile),
        bt_test(parts_of_frames_have_a_bound_in_all),
        bt_test(messages_may_wait_for_us),
        bt_test(what_waits_for_us_has_a_bound_too),
        bt_test(a_slow_frame_arrives),
        bt_test(who_says_much_is_not_cut),
        bt_test(frames_are_as_long_as_is_thought),
        bt_test(without_memory_nobody_is_let_in_unwatched),
    };
    return bt_run_tests(tests);
}
