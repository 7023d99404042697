/* SPDX-License-Identifier: Apache-2.0 */
/* What breaks on real networks: peers and links that go, GIDs that lead nowhere, too little locked
 * memory. Each ends in a typed failure in bounded time. Runs inside rdma-vm. */
#include "rdmakit.h"

#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "transport/transport.h"

#define FOR_EVER "--pages 16 --page-bytes 65536 --iterations 100000 --warmup 0"

static bool has_moved(void *ctx)
{
    return rdma_sent_bytes(0) > *(uint64_t *)ctx;
}

/* A sender in the middle of its transfers. */
static bt_child *start_moving(const bt_child *receiver)
{
    uint64_t enough = rdma_sent_bytes(0) + 4 * 1024 * 1024;
    bt_child *sender = rdma_sender(receiver, "rxe0:1", FOR_EVER);
    bt_wait_until(has_moved, &enough, "bytes on the link");
    return sender;
}

static void a_peer_that_is_killed_fails_the_transfer(void **state)
{
    (void)state;
    bt_child *receiver = rdma_receiver("rxe1:1", "rc");
    bt_child *sender = start_moving(receiver);
    bt_child_kill(receiver);
    rdma_output(sender, 2);
    rdma_hand_off("rxe0:1", "rxe1:1", "rc", "--pages 2 --iterations 1 --json", "\"verified\": 4");
}

/* Retry count exceeded: nothing arrives any more, and no device says so. */
static void a_network_that_loses_everything_fails_the_transfer(void **state)
{
    (void)state;
    bt_child *receiver = rdma_receiver("rxe1:1", "rc");
    bt_child *sender = start_moving(receiver);
    rdma_shell("tc qdisc add dev v0 root netem loss 100%%");
    rdma_assert_has(rdma_output(sender, 2), "ERR_UNREACHABLE: Endpoint timeout");
    rdma_shell("tc qdisc del dev v0 root");
    rdma_assert_has(rdma_output(rdma_sender(receiver, "rxe0:1", "--iterations 1 --pages 2"), 0),
                    "verified");
    bt_child_kill(receiver);
}

static bool are_ports_active(void *ctx)
{
    (void)ctx;
    return system("cd /sys/class/infiniband && grep -q ACTIVE rxe0/ports/1/state &&"
                  " grep -q ACTIVE rxe1/ports/1/state && grep -q fe80 rxe0/ports/1/gids/0 &&"
                  " grep -q fe80 rxe1/ports/1/gids/0") == 0;
}

/* The receiver's own device goes with the link: UCX 1.13 may end that process (docs/rdma.md). */
static void a_link_that_goes_down_fails_the_transfer_and_can_come_back(void **state)
{
    (void)state;
    bt_child *receiver = rdma_receiver("rxe1:1", "rc");
    bt_child *sender = start_moving(receiver);
    rdma_shell("ip link set v1 down");
    rdma_output(sender, 2);
    const char *device = "rxe0:1";
    const bt_transport_options options = {
        .backend = "ucx", .data_devices = &device, .n_data_devices = 1};
    bt_transport *transport;
    assert_fails(bt_transport_create(&options, &transport), BATON_ERR_UNREACHABLE,
                 "wanted an active port, found rxe0:1 DOWN");
    rdma_shell("ip link set v1 up");
    bt_child_signal(receiver, SIGKILL); /* if it is still there */
    bt_child_wait(receiver);
    bt_wait_until(are_ports_active, NULL, "active ports with a GID");
    rdma_hand_off("rxe0:1", "rxe1:1", "rc", "--pages 2 --iterations 1 --json", "\"verified\": 4");
}

static void what_is_lost_on_the_way_is_sent_again(void **state)
{
    (void)state;
    rdma_shell("tc qdisc add dev v0 root netem loss 1%% duplicate 2%%");
    rdma_hand_off("rxe0:1", "rxe1:1", "rc", "--pages 4 --page-bytes 65536 --iterations 1 --json",
                  "\"verified\": 4");
    rdma_shell("tc qdisc del dev v0 root");
}

static void devices_that_are_not_there_are_named(void **state)
{
    (void)state;
    bt_child *receiver = rdma_receiver("rxe1:1", NULL);
    const char *output = rdma_output(rdma_sender(receiver, "rxe9:1", "--iterations 1"), 2);
    rdma_assert_has(output, "wanted the RDMA device rxe9:1, found: rxe0:1 (ACTIVE)");
    bt_child_kill(receiver);
}

static void a_gid_that_is_not_there_is_an_error(void **state)
{
    (void)state;
    bt_child *receiver = rdma_receiver("rxe1:1", "rc");
    setenv("UCX_IB_GID_INDEX", "9", 1);
    const char *output = rdma_output(rdma_sender(receiver, "rxe0:1", "--iterations 1"), 2);
    unsetenv("UCX_IB_GID_INDEX");
    rdma_assert_has(output, "UCX_IB_GID_INDEX");
    bt_child_kill(receiver);
}

static void gids_of_two_families_are_an_error_at_connect(void **state)
{
    (void)state;
    bt_child *receiver = rdma_receiver("rxe1:1", "rc");
    setenv("UCX_IB_GID_INDEX", "1", 1); /* IPv4; the receiver has its link-local one */
    const char *output = rdma_output(rdma_sender(receiver, "rxe0:1", "--iterations 1"), 2);
    unsetenv("UCX_IB_GID_INDEX");
    rdma_assert_has(output,
                    "ERR_UNREACHABLE: ucx: connecting to a peer's worker: its RDMA address");
    bt_child_kill(receiver);
}

static void devices_without_ipv4_work_over_their_link_local_gids(void **state)
{
    (void)state;
    rdma_shell("ip -4 addr flush dev v0 && ip -4 addr flush dev v1");
    rdma_hand_off("rxe0:1", "rxe1:1", "rc", "--pages 2 --iterations 1 --json", "\"verified\": 4");
    rdma_shell("ip addr add 10.77.0.1/24 dev v0 && ip addr add 10.77.0.2/24 dev v1");
}

/* As a user without CAP_IPC_LOCK, in a process of its own: the limit is the process's. */
static int register_too_much(int out)
{
    const char *device = "rxe0:1";
    const bt_transport_options options = {
        .backend = "ucx", .data_devices = &device, .n_data_devices = 1, .transports = "rc"};
    bt_transport *transport;
    bt_memory *memory;
    setrlimit(RLIMIT_MEMLOCK, &(struct rlimit){1 << 20, 1 << 20});
    if (setgid(65534) != 0 || setuid(65534) != 0)
        return 1;
    baton_status status = bt_transport_create(&options, &transport);
    if (status == BATON_OK)
        status = bt_memory_alloc(transport, 8 << 20, BATON_MEMORY_HOST, &memory);
    dprintf(out, "%s: %s", baton_status_name(status), baton_last_error());
    return status == BATON_OK;
}

static void too_little_locked_memory_says_what_to_do(void **state)
{
    (void)state;
    int fds[2], status;
    char text[1024] = "";
    assert_int_equal(pipe(fds), 0);
    pid_t child = fork();
    if (child == 0)
        _exit(register_too_much(fds[1]));
    close(fds[1]);
    for (size_t n = 0; n + 1 < sizeof(text);) {
        ssize_t got = read(fds[0], text + n, sizeof(text) - 1 - n);
        if (got <= 0)
            break;
        n += (size_t)got;
    }
    close(fds[0]);
    assert_int_equal(waitpid(child, &status, 0), child);
    rdma_assert_has(text, "ERR_NO_MEMORY");
    rdma_assert_has(text, "found a limit of 1024 KiB (ulimit -l): raise it");
    assert_int_equal(status, 0);
}

int main(void)
{
    rdma_need_devices(2);
    const struct CMUnitTest tests[] = {
        bt_child_test(a_peer_that_is_killed_fails_the_transfer),
        bt_child_test(a_network_that_loses_everything_fails_the_transfer),
        bt_child_test(a_link_that_goes_down_fails_the_transfer_and_can_come_back),
        bt_child_test(what_is_lost_on_the_way_is_sent_again),
        bt_child_test(devices_that_are_not_there_are_named),
        bt_child_test(a_gid_that_is_not_there_is_an_error),
        bt_child_test(gids_of_two_families_are_an_error_at_connect),
        bt_child_test(devices_without_ipv4_work_over_their_link_local_gids),
        bt_child_test(too_little_locked_memory_says_what_to_do),
    };
    return bt_run_tests(tests);
}
