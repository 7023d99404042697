/* SPDX-License-Identifier: Apache-2.0 */
/* A sender whose receiver, another process, is not there, or is killed in the middle of a transfer:
 * one typed failure, and every source is free again. Argument: baton-perf, which is the receiver.
 */
#include <baton/sender.h>

#include "bench/perf_control.h"
#include "bench/perf_setup.h"
#include "bench/perf_work.h"
#include "support/test.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

enum { N_PAGES = 64, PAGE_BYTES = 65536, HANG_GUARD_MS = 60000 };

static const char *program;
static uint32_t data_lanes = 1;

typedef struct {
    bt_perf_work work;
    bt_perf_control control;
    pid_t child;
    uint16_t init_port, alloc_port;
    baton_sender *sender;
    baton_key keys[N_PAGES];
    uint32_t last_tokens;
    uint8_t *data;
    uint32_t n_free, n_ended;
    baton_sender_event end;
} bench;

static void start_receiver(bench *b)
{
    char line[BT_PERF_LINE_BYTES];
    uint64_t init_port, alloc_port;
    assert_ok(bt_perf_spawn(program, "receiver", &b->control, &b->child));
    const bt_perf_options setup = {.n_pages = N_PAGES,
                                   .page_bytes = PAGE_BYTES,
                                   .pool_pages = 2 * N_PAGES,
                                   .data_lanes = data_lanes,
                                   .shape = {1, 1, 1, 1}};
    assert_ok(bt_perf_setup_send(&b->control, &setup));
    assert_ok(bt_perf_receive(&b->control, true, line));
    if (!bt_perf_line_is(line, "ready"))
        fail_msg("%s", line);
    assert_ok(bt_perf_field(line, "init", 1, UINT16_MAX, &init_port));
    assert_ok(bt_perf_field(line, "alloc", 1, UINT16_MAX, &alloc_port));
    b->init_port = (uint16_t)init_port;
    b->alloc_port = (uint16_t)alloc_port;
}

static void open_bench(bench *b, baton_path_choice path)
{
    *b = (bench){
        .work = {.n_pages = N_PAGES, .page_bytes = PAGE_BYTES}, .control = {.fd = -1}, .child = -1};
    assert_ok(bt_perf_work_init(&b->work));
    uint32_t n_tokens = bt_perf_work_tokens(&b->work), n_keys;
    uint32_t *tokens = test_malloc(n_tokens * sizeof(*tokens));
    baton_key_chain chain;
    bt_perf_fill_tokens(&b->work, 1, tokens);
    assert_ok(baton_key_chain_init(&b->work.layout, 1, 0, NULL, &chain));
    assert_ok(
        baton_keys_of_tokens(&chain, tokens, n_tokens, b->keys, N_PAGES, &n_keys, &b->last_tokens));
    test_free(tokens);
    b->data = test_calloc(1, PAGE_BYTES);
    const baton_sender_options options = {.layout = b->work.layout,
                                          .path = path,
                                          .data = {.data_lanes = data_lanes},
                                          .timeouts = {.connect_ms = 500}};
    assert_ok(baton_sender_create(&options, &b->sender));
}

static void close_bench(bench *b)
{
    baton_sender_destroy(b->sender);
    bt_perf_close(&b->control);
    if (b->child > 0)
        waitpid(b->child, NULL, 0);
    test_free(b->data);
}

static baton_transfer begin(bench *b)
{
    const baton_transfer_options options = {.request = "r",
                                            .host = "127.0.0.1",
                                            .init_port = b->init_port,
                                            .alloc_port = b->alloc_port,
                                            .keys = b->keys,
                                            .n_chunks = N_PAGES,
                                            .last_tokens = b->last_tokens};
    baton_transfer transfer;
    assert_ok(baton_transfer_begin(b->sender, &options, &transfer));
    return transfer;
}

/* Until so many sources are free, or the transfer has ended. */
static void wait_events(bench *b, uint32_t n_free)
{
    baton_sender_event event;
    while (b->n_ended == 0 && b->n_free < n_free) {
        if (baton_sender_poll(b->sender, &event, 1) == 0) {
            struct pollfd fd = {.fd = baton_sender_event_fd(b->sender), .events = POLLIN};
            if (poll(&fd, 1, HANG_GUARD_MS) == 0)
                fail_msg("nothing happens: %u sources are free", b->n_free);
            continue;
        }
        if (event.kind == BATON_SENDER_SOURCE_FREE) {
            b->n_free++;
            continue;
        }
        b->end = event;
        b->n_ended++;
    }
}

/* A port that nobody listens on, and that nobody else can take while fd is open. */
static uint16_t silent_port(int *fd)
{
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t bytes = sizeof(address);
    *fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_int_equal(bind(*fd, (struct sockaddr *)&address, bytes), 0);
    assert_int_equal(getsockname(*fd, (struct sockaddr *)&address, &bytes), 0);
    return ntohs(address.sin_port);
}

static void nobody_at_the_address_is_said(void **state)
{
    (void)state;
    bench b;
    int fds[2];
    bt_expect_log("connection ended");
    open_bench(&b, BATON_PATH_AUTO);
    b.init_port = silent_port(&fds[0]);
    b.alloc_port = silent_port(&fds[1]);
    baton_transfer transfer = begin(&b);
    assert_ok(baton_transfer_push_bytes(b.sender, transfer, 0, b.data, PAGE_BYTES));
    wait_events(&b, UINT32_MAX);
    assert_int_equal(b.end.kind, BATON_SENDER_FAILED);
    assert_int_equal(b.end.status, BATON_ERR_CONNECT_TIMEOUT);
    assert_int_equal(b.n_free, 1);
    close_bench(&b);
    close(fds[0]);
    close(fds[1]);
}

static void lose_receiver(baton_path_choice path, uint32_t n_before)
{
    bench b;
    bt_expect_log("connection ended");
    bt_expect_log("ucx"); /* UCX may notice first */
    open_bench(&b, path);
    start_receiver(&b);
    baton_transfer transfer = begin(&b);
    uint32_t n_pushed = 0;
    for (; n_pushed < n_before; n_pushed++)
        assert_ok(baton_transfer_push_bytes(b.sender, transfer, n_pushed, b.data, PAGE_BYTES));
    wait_events(&b, n_before);
    assert_int_equal(b.n_ended, 0);
    kill(b.child, SIGKILL);
    for (; n_pushed < N_PAGES; n_pushed++) {
        if (baton_transfer_push_bytes(b.sender, transfer, n_pushed, b.data, PAGE_BYTES) < 0)
            break; /* it has ended already */
    }
    wait_events(&b, UINT32_MAX);
    assert_int_equal(b.end.kind, BATON_SENDER_FAILED);
    /* A process's sockets close a moment before it counts as exited: then it is UCX that tells. */
    if (b.end.status != BATON_ERR_PEER_GONE && b.end.status != BATON_ERR_TRANSPORT &&
        b.end.status != BATON_ERR_UNREACHABLE)
        fail_msg("%s: %s", baton_status_name(b.end.status), b.end.text);
    assert_int_equal(b.n_free, n_pushed);
    baton_sender_event event;
    assert_int_equal(baton_sender_poll(b.sender, &event, 1), 0);
    baton_sender_stats stats;
    baton_sender_get_stats(b.sender, &stats);
    assert_int_equal(stats.transfers_live, 0);
    assert_int_equal(stats.transfers_failed_total, 1);
    close_bench(&b);
}

static void a_receiver_killed_while_pages_are_mapped(void **state)
{
    (void)state;
    lose_receiver(BATON_PATH_MAPPED, 8);
}

static void a_receiver_killed_while_pages_are_put(void **state)
{
    (void)state;
    lose_receiver(BATON_PATH_PUT, 8);
}

/* Every lane has a thread of its own, and any of them may be the first to notice. */
static void a_receiver_killed_while_lanes_carry_pages(void **state)
{
    (void)state;
    data_lanes = 3;
    setenv("UCX_TLS", "tcp", 1);
    lose_receiver(BATON_PATH_PUT, 8);
    unsetenv("UCX_TLS");
    data_lanes = 1;
}

static void a_receiver_killed_before_anything_is_pushed(void **state)
{
    (void)state;
    lose_receiver(BATON_PATH_AUTO, 1);
}

int main(int argc, char **argv)
{
    if (argc < 2)
        bt_test_skip("wanted the path of baton-perf");
    program = argv[1];
    const struct CMUnitTest tests[] = {
        bt_test(nobody_at_the_address_is_said),
        bt_test(a_receiver_killed_while_pages_are_mapped),
        bt_test(a_receiver_killed_while_pages_are_put),
        bt_test(a_receiver_killed_while_lanes_carry_pages),
        bt_test(a_receiver_killed_before_anything_is_pushed),
    };
    return bt_run_tests(tests);
}
