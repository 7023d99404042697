/* SPDX-License-Identifier: Apache-2.0 */
#include "rdmakit.h"

#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

void rdma_need_devices(unsigned n)
{
    char path[64];
    snprintf(path, sizeof(path), "/sys/class/infiniband/rxe%u", n - 1);
    if (access(path, F_OK) != 0)
        bt_test_skip("wanted a virtual machine with soft RoCE devices (tests/rdma/in_vm.sh)");
}

static void set_transports(const char *tls)
{
    if (tls != NULL)
        setenv("UCX_TLS", tls, 1);
    else
        unsetenv("UCX_TLS");
}

static bool has_line(void *ctx)
{
    const bt_child *child = ctx;
    char *text = bt_child_text(child->out);
    bool has = strchr(text, '\n') != NULL;
    free(text);
    return has;
}

void rdma_wait_listening(bt_child *receiver)
{
    bt_wait_until(has_line, receiver, "a receiver that listens");
    char *text = bt_child_text(receiver->out);
    const char *at = strstr(text, "--peer ");
    assert_non_null(at);
    snprintf(receiver->ready, sizeof(receiver->ready), "%s", at + strlen("--peer "));
    receiver->ready[strcspn(receiver->ready, " \n")] = '\0';
    free(text);
}

bt_child *rdma_receiver(const char *devices, const char *tls)
{
    set_transports(tls);
    bt_child *receiver = bt_child_start(
        "baton-perf", (const char *const[]){"--role", "receiver", "--devices", devices, NULL});
    rdma_wait_listening(receiver);
    return receiver;
}

bt_child *rdma_sender(const bt_child *receiver, const char *devices, const char *arguments)
{
    char copy[512];
    const char *words[BT_CHILD_ARGS_MAX] = {"--role",    "sender", "--peer",   receiver->ready,
                                            "--devices", devices,  "--verbose"};
    unsigned n = 7;
    snprintf(copy, sizeof(copy), "%s", arguments);
    for (char *word = strtok(copy, " "); word != NULL; word = strtok(NULL, " "))
        words[n++] = word;
    words[n] = NULL;
    return bt_child_start("baton-perf", words);
}

void rdma_assert_has(const char *output, const char *wanted)
{
    if (strstr(output, wanted) == NULL)
        fail_msg("wanted '%s', found:\n%s", wanted, output);
}

const char *rdma_output(bt_child *sender, int status)
{
    static char output[16384];
    int found = bt_child_wait(sender);
    char *out = bt_child_text(sender->out), *log = bt_child_text(sender->log);
    snprintf(output, sizeof(output), "%s\n%s", out, log);
    free(out);
    free(log);
    if (found != status)
        fail_msg("wanted exit status %d, found %d:\n%s", status, found, output);
    return output;
}

void rdma_hand_off(const char *devices, const char *peer_devices, const char *tls,
                   const char *arguments, const char *wanted)
{
    bt_child *receiver = rdma_receiver(peer_devices, tls);
    const char *output = rdma_output(rdma_sender(receiver, devices, arguments), 0);
    rdma_assert_has(output, wanted);
    bt_child_kill(receiver);
}

uint64_t rdma_sent_bytes(unsigned net)
{
    char path[64];
    unsigned long long bytes = 0;
    snprintf(path, sizeof(path), "/sys/class/net/v%u/statistics/tx_bytes", net);
    FILE *file = fopen(path, "r");
    assert_non_null(file);
    assert_int_equal(fscanf(file, "%llu", &bytes), 1);
    fclose(file);
    return bytes;
}

void rdma_shell(const char *format, ...)
{
    char command[512];
    va_list args;
    va_start(args, format);
    vsnprintf(command, sizeof(command), format, args);
    va_end(args);
    if (system(command) != 0)
        fail_msg("failed: %s", command);
}
