/* SPDX-License-Identifier: Apache-2.0 */
/* Two "hosts" inside the virtual machine of rdma-vm: rxe0 (and rxe2) are one, rxe1 (and rxe3) the
 * other; net device vN carries rxeN. baton-perf runs on both. Thread rule: the test's thread. */
#ifndef BT_TESTS_RDMAKIT_H
#define BT_TESTS_RDMAKIT_H
#include "support/children.h"

/* Ends the program with 77 unless the devices are there. */
void rdma_need_devices(unsigned n);

/* baton-perf as a receiver on these devices; ready. tls: UCX_TLS of both sides from here on, NULL:
 * UCX's own. */
bt_child *rdma_receiver(const char *devices, const char *tls);
/* Until a baton-perf that was started as a receiver by other means is ready for rdma_sender. */
void rdma_wait_listening(bt_child *receiver);
/* A sender to it; arguments separated by spaces. */
bt_child *rdma_sender(const bt_child *receiver, const char *devices, const char *arguments);
/* Waits for its end, which must be this exit status; what it wrote, until the next call. */
const char *rdma_output(bt_child *sender, int status);
/* All of it: a receiver on peer_devices, a sender whose output must have wanted (JSON). */
void rdma_hand_off(const char *devices, const char *peer_devices, const char *tls,
                   const char *arguments, const char *wanted);
void rdma_assert_has(const char *output, const char *wanted);

/* A number of /sys/class/net/vN/statistics. */
uint64_t rdma_sent_bytes(unsigned net);
/* Runs a shell command, which must succeed. */
__attribute__((format(printf, 1, 2))) void rdma_shell(const char *format, ...);

#endif
