/* SPDX-License-Identifier: Apache-2.0 */
/* Networks that lose, reorder, repeat and corrupt packets, and links that go down and come back:
 * what arrives is right, or there is a typed error; never a wrong byte. Over rc between rxe0 and
 * rxe1, and over tcp between this namespace and another one, joined by w0 and w1. Runs inside
 * rdma-vm. */
#include "rdmakit.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>

#define WORK "--pages 8 --page-bytes 65536 --iterations 2 --warmup 0 --json"

/* Programs that run in the other namespace, under the names that bt_child_start looks for. */
static const char away[] = "/tmp/away";

static void make_network(void)
{
    rdma_shell("ip netns add away && ip link add w0 type veth peer name w1 netns away &&"
               " ip addr add 10.78.0.1/24 dev w0 && ip link set w0 up &&"
               " ip -n away addr add 10.78.0.2/24 dev w1 && ip -n away link set w1 up &&"
               " ip -n away link set lo up");
    rdma_shell("mkdir -p %s && printf '#!/bin/sh\\nexec ip netns exec away %s/baton-perf \"$@\"\\n'"
               " >%s/baton-perf && chmod 755 %s/baton-perf",
               away, getenv("BATON_BIN"), away, away);
}

/* A receiver beyond the link; ready. */
static bt_child *tcp_receiver(void)
{
    static char here[256];
    snprintf(here, sizeof(here), "%s", getenv("BATON_BIN"));
    setenv("UCX_TLS", "tcp", 1);
    setenv("BATON_BIN", away, 1);
    bt_child *receiver =
        bt_child_start("baton-perf", (const char *const[]){"--role", "receiver", "--devices", "w1",
                                                           "--listen", "10.78.0.2:0", NULL});
    rdma_wait_listening(receiver);
    setenv("BATON_BIN", here, 1);
    return receiver;
}

/* Right, or a typed error; baton-perf ends with 1 for a wrong byte. */
static void check_end(bt_child *sender, const char *what)
{
    int status = bt_child_wait(sender);
    char *out = bt_child_text(sender->out), *log = bt_child_text(sender->log);
    print_message("%s: %s\n", what, status == 0 ? "recovered" : "failed");
    if (status == 0)
        rdma_assert_has(out, "\"verified\": 2");
    else if (status != 2 || strstr(log, "ERR_") == NULL)
        fail_msg("%s: ended with %d:\n%s\n%s", what, status, out, log);
    free(out);
    free(log);
}

static const char *const faults[] = {"loss 1%", "delay 1ms reorder 25% 50%", "corrupt 1%",
                                     "duplicate 5%"};
enum { N_FAULTS = sizeof(faults) / sizeof(faults[0]) };

static void over(bool tcp, bool digests)
{
    bt_child *receiver = tcp ? tcp_receiver() : rdma_receiver("rxe1:1", "rc");
    const char *work = digests ? WORK " --digests full" : WORK;
    for (unsigned i = 0; i < N_FAULTS; i++) {
        char what[128];
        snprintf(what, sizeof(what), "%s, %s, digests %s", faults[i], tcp ? "tcp" : "rc",
                 digests ? "on" : "off");
        rdma_shell("tc qdisc add dev %s root netem %s", tcp ? "w0" : "v0", faults[i]);
        check_end(rdma_sender(receiver, tcp ? "w0" : "rxe0:1", work), what);
        rdma_shell("tc qdisc del dev %s root", tcp ? "w0" : "v0");
    }
    rdma_assert_has(rdma_output(rdma_sender(receiver, tcp ? "w0" : "rxe0:1", work), 0),
                    "\"verified\": 2");
    bt_child_kill(receiver);
}

static void bytes_are_right_over_a_bad_rdma_network(void **state)
{
    (void)state;
    over(false, false);
    over(false, true);
}

static void bytes_are_right_over_a_bad_tcp_network(void **state)
{
    (void)state;
    over(true, false);
    over(true, true);
}

static uint64_t bytes_on_link(void)
{
    FILE *file = fopen("/sys/class/net/w0/statistics/tx_bytes", "r");
    unsigned long long bytes = 0;
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%llu", &bytes), 1);
    fclose(file);
    return bytes;
}

static bool has_moved(void *ctx)
{
    return bytes_on_link() > *(const uint64_t *)ctx;
}

/* Nobody says anything, and no device is gone: the sender's own limits end it. */
static void a_tcp_link_that_goes_down_fails_the_transfer_and_can_come_back(void **state)
{
    (void)state;
    uint64_t some = bytes_on_link() + (UINT64_C(4) << 20);
    bt_child *receiver = tcp_receiver();
    bt_child *sender =
        rdma_sender(receiver, "w0", "--pages 16 --page-bytes 65536 --iterations 100000 --warmup 0");
    bt_wait_until(has_moved, &some, "bytes on the link");
    rdma_shell("ip link set w0 down");
    const char *output = rdma_output(sender, 2);
    /* An ALLOC that was just asked waits as long as silence is put up with. */
    if (strstr(output, "ERR_PEER_SILENT") == NULL && strstr(output, "ERR_ALLOC_TIMEOUT") == NULL)
        fail_msg("wanted ERR_PEER_SILENT or ERR_ALLOC_TIMEOUT, found %s", output);
    rdma_shell("ip link set w0 up");
    bt_child_kill(receiver); /* its benchmark's channel is as dead as the link was */
    receiver = tcp_receiver();
    rdma_assert_has(rdma_output(rdma_sender(receiver, "w0", WORK), 0), "\"verified\": 2");
    bt_child_kill(receiver);
}

/* Down and up again before anybody gives up: the same processes go on, on the same connections. */
static void a_tcp_link_that_blinks_costs_nothing_but_time(void **state)
{
    (void)state;
    enum { BLINKS = 3 };
    uint64_t some = bytes_on_link();
    bt_child *receiver = tcp_receiver();
    bt_child *sender = rdma_sender(
        receiver, "w0",
        "--pages 16 --page-bytes 65536 --iterations 100 --warmup 0 --digests full --json");
    for (int i = 0; i < BLINKS; i++) {
        some += UINT64_C(4) << 20;
        bt_wait_until(has_moved, &some, "bytes on the link");
        assert_false(bt_child_has_ended(sender));
        rdma_shell("ip link set w0 down && ip link set w0 up");
    }
    rdma_assert_has(rdma_output(sender, 0), "\"verified\": 100");
    bt_child_kill(receiver);
}

int main(void)
{
    rdma_need_devices(2);
    make_network();
    const struct CMUnitTest tests[] = {
        bt_child_test(bytes_are_right_over_a_bad_rdma_network),
        bt_child_test(bytes_are_right_over_a_bad_tcp_network),
        bt_child_test(a_tcp_link_that_blinks_costs_nothing_but_time),
        bt_child_test(a_tcp_link_that_goes_down_fails_the_transfer_and_can_come_back),
    };
    return bt_run_tests(tests);
}
