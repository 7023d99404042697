/* SPDX-License-Identifier: Apache-2.0 */
/* Whole hand-offs over soft RoCE, every byte verified by the receiver. Runs inside rdma-vm. */
#include "rdmakit.h"

#include <stdio.h>
#include <string.h>

#define WORK "--pages 24 --page-bytes 65536 --iterations 2 --warmup 1 --json "
enum { BYTES = 3 * 24 * 65536 };

/* And they cross the link between the two devices. */
static void hand_off(const char *tls, const char *arguments, const char *transport)
{
    uint64_t before = rdma_sent_bytes(0);
    bt_child *receiver = rdma_receiver("rxe1:1", tls);
    const char *output = rdma_output(rdma_sender(receiver, "rxe0:1", arguments), 0);
    rdma_assert_has(output, "\"verified\": 3");
    rdma_assert_has(output, transport);
    rdma_assert_has(output, "device=rxe0:1 rails=1");
    /* Slow as it is, it was measured; emulated ud may not end in time. */
    if (strcmp(transport, "transport=rc_verbs") == 0)
        assert_null(strstr(output, "wire_gbps=0 "));
    assert_true(rdma_sent_bytes(0) - before >= BYTES);
    bt_child_kill(receiver);
}

static void every_byte_arrives_over_rc(void **state)
{
    (void)state;
    hand_off("rc", WORK "--scatter --transport put", "transport=rc_verbs");
    hand_off("rc", WORK "--paged --digests full", "transport=rc_verbs");
    hand_off("rc", WORK "--descending --progress manual", "transport=rc_verbs");
}

static void every_byte_arrives_over_ud(void **state)
{
    (void)state;
    hand_off("ud", WORK "--scatter --transport put", "transport=ud_verbs");
    hand_off("ud", WORK "--paged --digests full", "transport=ud_verbs");
}

/* Without UCX_TLS: what is on this host can be mapped, and is not when puts are asked for. */
static void rc_is_what_ucx_chooses(void **state)
{
    (void)state;
    hand_off(NULL, WORK "--transport put", "transport=rc_verbs");
}

static void odd_sizes_arrive(void **state)
{
    (void)state;
    static const char *const sizes[] = {"1", "4097", "1000003"};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        char arguments[256];
        snprintf(arguments, sizeof(arguments),
                 "--pages 3 --iterations 1 --warmup 0 --digests full --json --page-bytes %s",
                 sizes[i]);
        rdma_hand_off("rxe0:1", "rxe1:1", "rc", arguments, "\"verified\": 1");
    }
}

static void a_wrong_byte_is_found(void **state)
{
    (void)state;
    bt_child *receiver = rdma_receiver("rxe1:1", "rc");
    bt_child *sender = rdma_sender(receiver, "rxe0:1", "--pages 4 --page-bytes 5000 --flip-byte");
    rdma_assert_has(rdma_output(sender, 1), "transfer 0, page 2: wrong byte at offset 2500");
    bt_child_kill(receiver);
}

int main(void)
{
    rdma_need_devices(2);
    const struct CMUnitTest tests[] = {
        bt_child_test(every_byte_arrives_over_rc), bt_child_test(every_byte_arrives_over_ud),
        bt_child_test(rc_is_what_ucx_chooses),     bt_child_test(odd_sizes_arrive),
        bt_child_test(a_wrong_byte_is_found),
    };
    return bt_run_tests(tests);
}
