/* SPDX-License-Identifier: Apache-2.0 */
/* Hand-offs over two rails, whose links differ. Runs inside rdma-vm with four devices. */
#include "rdmakit.h"

#define OURS "rxe0:1,rxe2:1"
#define THEIRS "rxe1:1,rxe3:1"
#define WORK "--pages 16 --page-bytes 131072 --iterations 3 --warmup 1 --json "
enum { BYTES = 4 * 16 * 131072 };

/* Each link carries its share. */
static void both_rails_carry_the_bytes(void **state)
{
    (void)state;
    const uint64_t before[] = {rdma_sent_bytes(0), rdma_sent_bytes(2)};
    bt_child *receiver = rdma_receiver(THEIRS, "rc");
    const char *output = rdma_output(rdma_sender(receiver, OURS, WORK "--digests full"), 0);
    rdma_assert_has(output, "device=rxe0:1,rxe2:1 rails=2");
    rdma_assert_has(output, "\"verified\": 4");
    assert_true(rdma_sent_bytes(0) - before[0] > BYTES / 3);
    assert_true(rdma_sent_bytes(2) - before[1] > BYTES / 3);
    bt_child_kill(receiver);
}

/* The receiver checks every byte as soon as COMMIT has let it: no digests, which would wait for
 * nothing, but would find it. */
static void commit_waits_for_the_rail_that_is_late_and_out_of_order(void **state)
{
    (void)state;
    rdma_shell("tc qdisc add dev v2 root netem delay 30ms");
    rdma_hand_off(OURS, THEIRS, "rc", WORK, "\"verified\": 4");
    rdma_hand_off(OURS, THEIRS, "rc", WORK "--paged --progress manual", "\"verified\": 4");
    rdma_shell("tc qdisc change dev v2 root netem delay 5ms reorder 2%% 50%%");
    rdma_hand_off(OURS, THEIRS, "rc", WORK, "\"verified\": 4");
    rdma_shell("tc qdisc del dev v2 root");
}

static void a_peer_with_one_rail_is_reached(void **state)
{
    (void)state;
    rdma_hand_off(OURS, "rxe1:1", "rc", WORK, "rails=1");
}

static void a_sender_with_one_rail_reaches_a_receiver_with_two(void **state)
{
    (void)state;
    rdma_hand_off("rxe0:1", THEIRS, "rc", WORK, "device=rxe0:1 rails=1");
}

/* Of four equal devices auto takes two. */
static void auto_takes_the_best_devices_as_rails(void **state)
{
    (void)state;
    rdma_hand_off("auto", "rxe0:1,rxe1:1", "rc", WORK, "device=rxe0:1,rxe1:1 rails=2");
}

int main(void)
{
    rdma_need_devices(4);
    const struct CMUnitTest tests[] = {
        bt_child_test(both_rails_carry_the_bytes),
        bt_child_test(commit_waits_for_the_rail_that_is_late_and_out_of_order),
        bt_child_test(auto_takes_the_best_devices_as_rails),
        bt_child_test(a_peer_with_one_rail_is_reached),
        bt_child_test(a_sender_with_one_rail_reaches_a_receiver_with_two),
    };
    return bt_run_tests(tests);
}
