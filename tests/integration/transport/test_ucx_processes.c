/* SPDX-License-Identifier: Apache-2.0 */
/* UCX between two processes: what one process alone cannot show. Arguments: the peer program,
 * transports as it takes them, and maybe a data device of this process and one of the other. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>
#include <xxhash.h>

#include "peer_channel.h"
#include "support/test.h"

enum { REGION_BYTES = 8 << 20, HANG_GUARD_MS = 60 * 1000 };

static const char *peer_program;
static const char *transports;
static const char *device, *peer_device; /* NULL: the default */

static bool can_map(void)
{
    return strcmp(transports, "-") == 0 || (strcmp(transports, "tcp") != 0 && device == NULL);
}

typedef struct {
    pid_t pid;
    int fd;
    peer_hello hello;
} peer;

static peer *start_process(const char *role)
{
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    peer *started = calloc(1, sizeof(*started));
    char fd_text[16], bytes_text[16];
    snprintf(fd_text, sizeof(fd_text), "%d", fds[1]);
    snprintf(bytes_text, sizeof(bytes_text), "%d", REGION_BYTES);
    started->pid = fork();
    if (started->pid == 0) {
        close(fds[0]);
        execl(peer_program, peer_program, fd_text, bytes_text, transports, role, peer_device,
              (char *)NULL);
        _exit(127);
    }
    close(fds[1]);
    fcntl(fds[0], F_SETFD, FD_CLOEXEC);
    started->fd = fds[0];
    return started;
}

static peer *start_peer(void)
{
    peer *started = start_process("target");
    assert_true(peer_receive(started->fd, &started->hello, sizeof(started->hello)));
    return started;
}

/* Closing the socket ends the peer. Gives its exit status. */
static int stop_peer(peer *started)
{
    int status = 0;
    close(started->fd);
    assert_int_equal(waitpid(started->pid, &status, 0), started->pid);
    free(started);
    return status;
}

/* Collected at once: to UCX a process is alive as long as /proc knows it, zombie or not. */
static void kill_peer(peer *target)
{
    kill(target->pid, SIGKILL);
    int status;
    assert_int_equal(waitpid(target->pid, &status, 0), target->pid);
    assert_int_equal(WTERMSIG(status), SIGKILL);
    close(target->fd);
    free(target);
}

static uint64_t ask_hash(const peer *asked, uint64_t offset, uint64_t bytes)
{
    const peer_question question = {offset, bytes};
    uint64_t hash = 0;
    assert_true(peer_send(asked->fd, &question, sizeof(question)));
    assert_true(peer_receive(asked->fd, &hash, sizeof(hash)));
    return hash;
}

/* The writing side, connected to a peer. */
typedef struct {
    bt_transport *transport;
    bt_worker *worker;
    bt_memory *source;
    bt_endpoint *endpoint;
    bt_remote *remote;
} writer;

static void open_writer(writer *opened)
{
    const bool no_tcp = strcmp(transports, "no-tcp") == 0;
    const bt_transport_options options = {
        .backend = "ucx",
        .data_devices = &device,
        .n_data_devices = device != NULL,
        .no_tcp = no_tcp,
        .transports = no_tcp || strcmp(transports, "-") == 0 ? NULL : transports};
    *opened = (writer){0};
    assert_ok(bt_transport_create(&options, &opened->transport));
    assert_ok(bt_worker_create(opened->transport, &opened->worker));
    assert_ok(bt_memory_alloc(opened->transport, REGION_BYTES, BATON_MEMORY_HOST, &opened->source));
    bt_rng rng = {99};
    bt_rng_fill(&rng, opened->source->base, REGION_BYTES);
}

static void connect_writer(writer *opened, const peer *to)
{
    assert_ok(bt_endpoint_connect(opened->worker, to->hello.address, to->hello.address_bytes, 77,
                                  &opened->endpoint));
    assert_ok(
        bt_remote_import(opened->endpoint, to->hello.rkey, to->hello.rkey_bytes, &opened->remote));
}

static bt_event next_event(writer *opened)
{
    for (;;) {
        bt_event event;
        if (bt_worker_progress(opened->worker, &event, 1) == 1)
            return event;
        if (bt_worker_arm(opened->worker) == BATON_ERR_BUSY)
            continue;
        struct pollfd fd = {.fd = bt_worker_fd(opened->worker), .events = POLLIN};
        if (poll(&fd, 1, HANG_GUARD_MS) == 0)
            fail_msg("no event in %d ms", HANG_GUARD_MS);
    }
}

static void wait_for(writer *opened, bt_event_kind kind)
{
    bt_event event = next_event(opened);
    if (event.status < 0)
        print_error("event %d: %s\n", (int)event.kind, event.text);
    assert_int_equal(event.kind, kind);
    assert_ok(event.status);
}

static void disconnect_writer(writer *opened, bt_close_mode mode)
{
    bt_remote_release(opened->remote);
    bt_endpoint_close(opened->endpoint, mode, 5);
    while (next_event(opened).kind != BT_EVENT_CLOSED) {
    }
}

static void close_writer(writer *opened)
{
    bt_worker_destroy(opened->worker);
    bt_memory_free(opened->source);
    bt_transport_destroy(opened->transport);
}

static void put_all(writer *opened, const peer *to)
{
    enum { PAGE = 32 * 1024, N = REGION_BYTES / PAGE };
    static bt_run runs[N];
    for (uint32_t i = 0; i < N; i++) /* descending here, ascending there: nothing merges */
        runs[i] =
            (bt_run){.local_addr = (uint64_t)(uintptr_t)opened->source->base + (N - 1 - i) * PAGE,
                     to->hello.base + i * PAGE,
                     PAGE};
    assert_ok(bt_endpoint_put(opened->endpoint, opened->source, opened->remote, runs, N, 1));
    wait_for(opened, BT_EVENT_PUT);
    assert_ok(bt_endpoint_flush(opened->endpoint, 2));
    wait_for(opened, BT_EVENT_FLUSH);
    for (uint32_t i = 0; i < N; i += 17)
        assert_int_equal(ask_hash(to, i * PAGE, PAGE),
                         XXH64((void *)(uintptr_t)runs[i].local_addr, PAGE, 0));
}

static void flushed_puts_are_seen_by_the_other_process(void **state)
{
    (void)state;
    writer opened;
    open_writer(&opened);
    peer *target = start_peer();
    connect_writer(&opened, target);
    for (int round = 0; round < 3; round++)
        put_all(&opened, target);
    bt_path path;
    bt_endpoint_path(opened.endpoint, &path);
    print_message("path: %s over %s, mapped %d\n", path.transport, path.device,
                  path.puts_are_mapped);
    disconnect_writer(&opened, BT_CLOSE_FLUSH);
    assert_int_equal(stop_peer(target), 0);
    close_writer(&opened);
}

static void stores_into_the_mapping_are_seen_by_the_other_process(void **state)
{
    (void)state;
    writer opened;
    open_writer(&opened);
    peer *target = start_peer();
    connect_writer(&opened, target);
    uint8_t *mapped;
    baton_status status = bt_remote_map(opened.remote, target->hello.base + 4096, (void **)&mapped);
    if (!can_map()) {
        assert_fails(status, BATON_ERR_UNREACHABLE, "mapping");
    } else {
        assert_ok(status);
        memcpy(mapped, opened.source->base, REGION_BYTES - 4096);
        __builtin_ia32_sfence();
        assert_int_equal(ask_hash(target, 4096, REGION_BYTES - 4096),
                         XXH64(opened.source->base, REGION_BYTES - 4096, 0));
        uint64_t zeros[512] = {0};
        assert_int_equal(ask_hash(target, 0, 4096), XXH64(zeros, sizeof(zeros), 0));
    }
    disconnect_writer(&opened, BT_CLOSE_FORCE);
    assert_int_equal(stop_peer(target), 0);
    close_writer(&opened);
}

/* And what stays mapped of the dead one can still be written without harm. */
static void a_killed_peer_fails_the_endpoint_and_a_new_one_can_be_connected(void **state)
{
    (void)state;
    writer opened;
    open_writer(&opened);
    for (int round = 0; round < 2; round++) {
        peer *target = start_peer();
        connect_writer(&opened, target);
        put_all(&opened, target);
        uint8_t *mapped = NULL;
        if (can_map())
            assert_ok(bt_remote_map(opened.remote, target->hello.base, (void **)&mapped));
        const uint64_t base = target->hello.base;
        kill_peer(target);
        bt_event event = next_event(&opened);
        assert_int_equal(event.kind, BT_EVENT_FAILED);
        assert_int_equal(event.user_data, 77);
        assert_int_equal(event.status, BATON_ERR_UNREACHABLE);
        bt_run run = {.local_addr = (uint64_t)(uintptr_t)opened.source->base,
                      .remote_addr = base,
                      .bytes = 64};
        assert_fails(bt_endpoint_put(opened.endpoint, opened.source, opened.remote, &run, 1, 1),
                     BATON_ERR_CLOSED, NULL);
        if (mapped != NULL)
            memset(mapped, 1, REGION_BYTES);
        disconnect_writer(&opened, BT_CLOSE_FORCE);
    }
    close_writer(&opened);
}

/* With puts under way: each ends once, none hangs. */
static void a_peer_killed_during_puts_ends_every_operation(void **state)
{
    (void)state;
    enum { N = 64 };
    writer opened;
    open_writer(&opened);
    peer *target = start_peer();
    connect_writer(&opened, target);
    put_all(&opened, target);
    bt_run run = {.local_addr = (uint64_t)(uintptr_t)opened.source->base,
                  .remote_addr = target->hello.base,
                  .bytes = REGION_BYTES};
    kill(target->pid, SIGSTOP); /* so that puts pile up, where the transport lets them */
    uint32_t n_wanted = 1;      /* FAILED */
    for (uint32_t i = 0; i < N; i++, n_wanted++)
        assert_ok(bt_endpoint_put(opened.endpoint, opened.source, opened.remote, &run, 1, i));
    assert_ok(bt_endpoint_flush(opened.endpoint, N));
    n_wanted++;
    kill_peer(target);
    uint32_t n_failed = 0;
    for (uint32_t i = 0; i < n_wanted; i++)
        n_failed += next_event(&opened).kind == BT_EVENT_FAILED;
    assert_int_equal(n_failed, 1);
    disconnect_writer(&opened, BT_CLOSE_FORCE);
    close_writer(&opened);
}

/* A peer that is alive but does nothing must not hold up a forced close, nor a worker's end. */
static void a_stopped_peer_holds_up_neither_a_forced_close_nor_the_workers_end(void **state)
{
    (void)state;
    enum { N = 16 };
    for (int is_closed_first = 0; is_closed_first < 2; is_closed_first++) {
        writer opened;
        open_writer(&opened);
        peer *target = start_peer();
        connect_writer(&opened, target);
        put_all(&opened, target);
        bt_run run = {.local_addr = (uint64_t)(uintptr_t)opened.source->base,
                      .remote_addr = target->hello.base,
                      .bytes = REGION_BYTES};
        kill(target->pid, SIGSTOP);
        for (uint32_t i = 0; i < N; i++)
            assert_ok(bt_endpoint_put(opened.endpoint, opened.source, opened.remote, &run, 1, i));
        assert_ok(bt_endpoint_flush(opened.endpoint, N));
        bt_remote_release(opened.remote);
        if (is_closed_first) {
            bt_endpoint_close(opened.endpoint, BT_CLOSE_FORCE, N + 1);
            for (uint32_t i = 0; i < N + 2; i++)
                assert_int_equal(next_event(&opened).kind == BT_EVENT_CLOSED, i == N + 1);
        }
        close_writer(&opened);
        kill(target->pid, SIGCONT);
        assert_int_equal(stop_peer(target), 0);
    }
}

/* What a target sends back to a dead writer must not end the target: UCX's own emulation of puts
 * over tcp aborts there. */
static void a_writer_killed_during_puts_does_not_take_the_target_along(void **state)
{
    (void)state;
    writer target; /* the same parts: a transport, a worker, a region */
    open_writer(&target);
    const volatile uint8_t *last = (uint8_t *)target.source->base + REGION_BYTES - 1;
    for (int round = 0; round < 8; round++) {
        memset(target.source->base, 0, REGION_BYTES);
        peer *killed = start_process("writer");
        peer_hello hello = {.base = (uint64_t)(uintptr_t)target.source->base,
                            .bytes = REGION_BYTES,
                            .address_bytes = target.worker->address_bytes,
                            .rkey_bytes = target.source->rkey_bytes};
        memcpy(hello.address, target.worker->address, hello.address_bytes);
        memcpy(hello.rkey, target.source->rkey, hello.rkey_bytes);
        assert_true(peer_send(killed->fd, &hello, sizeof(hello)));
        bt_event event;
        while (*last != 0x77) /* a whole region has come, and more is on its way */
            bt_worker_progress(target.worker, &event, 1);
        kill_peer(killed);
        for (int i = 0; i < 1000; i++)
            assert_int_equal(bt_worker_progress(target.worker, &event, 1), 0);
        bt_worker_destroy(target.worker);
        assert_ok(bt_worker_create(target.transport, &target.worker));
    }
    close_writer(&target);
}

static void several_peers_are_written_by_one_worker(void **state)
{
    (void)state;
    enum { N = 3 };
    writer opened;
    open_writer(&opened);
    peer *targets[N];
    writer links[N];
    for (uint32_t i = 0; i < N; i++) {
        targets[i] = start_peer();
        links[i] = opened;
        connect_writer(&links[i], targets[i]);
    }
    for (uint32_t i = 0; i < N; i++)
        put_all(&links[i], targets[i]);
    for (uint32_t i = 0; i < N; i++) {
        disconnect_writer(&links[i], BT_CLOSE_FLUSH);
        assert_int_equal(stop_peer(targets[i]), 0);
    }
    close_writer(&opened);
}

int main(int argc, char **argv)
{
    if (argc != 3 && argc != 5)
        return 2;
    peer_program = argv[1];
    transports = argv[2];
    device = argc == 5 ? argv[3] : NULL;
    peer_device = argc == 5 ? argv[4] : NULL;
    const struct CMUnitTest tests[] = {
        bt_test(flushed_puts_are_seen_by_the_other_process),
        bt_test(stores_into_the_mapping_are_seen_by_the_other_process),
        bt_test(a_killed_peer_fails_the_endpoint_and_a_new_one_can_be_connected),
        bt_test(a_peer_killed_during_puts_ends_every_operation),
        bt_test(a_stopped_peer_holds_up_neither_a_forced_close_nor_the_workers_end),
        bt_test(a_writer_killed_during_puts_does_not_take_the_target_along),
        bt_test(several_peers_are_written_by_one_worker),
    };
    return bt_run_tests(tests);
}
