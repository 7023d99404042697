/* SPDX-License-Identifier: Apache-2.0 */
/* Argument: a socket. Is told a late_orders, begins the request "old", and when a byte comes pushes
 * its chunks. A page in the middle of one of them cannot be read: whoever copies it stops the whole
 * process there, and goes on with the copy after SIGCONT. Exits with 0 when the transfer has
 * failed, with 1 when it was done. */
#include "latewriter.h"

#include <baton/sender.h>

#include "sender/txshell.h"

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <unistd.h>

enum { SYSTEM_PAGE = 4096 };

static uint8_t *source, *trap;

static void on_trap(int number, siginfo_t *info, void *context)
{
    (void)number, (void)context;
    const uint8_t *at = info->si_addr;
    if (at < trap || at >= trap + SYSTEM_PAGE)
        _exit(3);
    raise(SIGSTOP);
    mprotect(trap, SYSTEM_PAGE, PROT_READ);
}

static void set_trap(uint32_t chunk)
{
    size_t bytes = (size_t)LATE_CHUNKS * LATE_PAGE_BYTES;
    source = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (source == MAP_FAILED)
        _exit(2);
    memset(source, LATE_OLD, bytes);
    trap = source + (size_t)chunk * LATE_PAGE_BYTES + LATE_PAGE_BYTES / 2;
    const struct sigaction action = {.sa_sigaction = on_trap, .sa_flags = SA_SIGINFO};
    sigaction(SIGSEGV, &action, NULL);
    mprotect(trap, SYSTEM_PAGE, PROT_NONE);
}

static baton_status open_sender(const late_orders *orders, baton_sender **sender_p)
{
    static const char *device;
    device = orders->device;
    if (orders->transports[0] != 0)
        setenv("UCX_TLS", orders->transports, 1);
    /* Measuring connects: nothing has to be waited for when the chunks come. */
    const baton_sender_options options = {.layout = late_layout(),
                                          .path = orders->is_mapped ? BATON_PATH_MAPPED
                                                                    : BATON_PATH_STAGED,
                                          .admin = "off",
                                          .timeouts = late_timeouts(),
                                          .progress = BATON_PROGRESS_MANUAL,
                                          .data = {.data_devices = &device,
                                                   .n_data_devices = device[0] != 0,
                                                   .no_tcp = orders->is_mapped}};
    BATON_TRY(baton_sender_create(&options, sender_p));
    if (orders->is_on_another_host)
        (*sender_p)->tx->self.boot[0] ^= 1;
    return BATON_OK;
}

static baton_status begin(baton_sender *sender, const late_orders *orders, baton_transfer *transfer)
{
    const baton_layout layout = late_layout();
    uint32_t tokens[LATE_TOKENS], n_keys, last_tokens;
    baton_key keys[LATE_CHUNKS];
    baton_key_chain chain;
    late_tokens(LATE_OLD_PROMPT, tokens);
    BATON_TRY(baton_key_chain_init(&layout, 1, 0, NULL, &chain));
    BATON_TRY(baton_keys_of_tokens(&chain, tokens, LATE_TOKENS, keys, LATE_CHUNKS, &n_keys,
                                   &last_tokens));
    const baton_transfer_options options = {.request = "old",
                                            .host = "127.0.0.1",
                                            .init_port = orders->init_port,
                                            .alloc_port = orders->alloc_port,
                                            .keys = keys,
                                            .n_chunks = n_keys,
                                            .last_tokens = last_tokens};
    return baton_transfer_begin(sender, &options, transfer);
}

static baton_status push(baton_sender *sender, baton_transfer transfer)
{
    for (uint32_t i = 0; i < LATE_CHUNKS; i++)
        BATON_TRY(baton_transfer_push_bytes(sender, transfer, i,
                                            source + (size_t)i * LATE_PAGE_BYTES, LATE_PAGE_BYTES));
    return baton_transfer_finish(sender, transfer);
}

/* The test is told once everything that connecting needs has been said. */
static void connect_first(int fd, baton_sender *sender)
{
    while (sender->tx->peers == NULL || sender->tx->peers->state != BT_TX_PEER_READY)
        baton_sender_progress(sender);
    if (send(fd, "", 1, 0) != 1)
        _exit(2);
}

/* Drives the sender until the transfer's end; pushes when told so. */
static baton_status run(int fd, baton_sender *sender, baton_transfer transfer, bool *is_done)
{
    bool has_pushed = false;
    for (;;) {
        baton_sender_event event;
        uint8_t go;
        baton_sender_progress(sender);
        if (!has_pushed && recv(fd, &go, 1, MSG_DONTWAIT) == 1) {
            BATON_TRY(push(sender, transfer));
            has_pushed = true;
        }
        if (baton_sender_poll(sender, &event, 1) == 0 || event.kind == BATON_SENDER_SOURCE_FREE)
            continue;
        *is_done = event.kind == BATON_SENDER_DONE;
        return BATON_OK;
    }
}

int main(int argc, char **argv)
{
    late_orders orders;
    int fd = argc == 2 ? atoi(argv[1]) : -1;
    if (recv(fd, &orders, sizeof(orders), MSG_WAITALL) != (ssize_t)sizeof(orders))
        return 2;
    baton_sender *sender = NULL;
    baton_transfer transfer;
    bool is_done = false;
    baton_status status = open_sender(&orders, &sender);
    if (status == BATON_OK) {
        set_trap(orders.stops_in_chunk);
        status = begin(sender, &orders, &transfer);
    }
    if (status == BATON_OK) {
        connect_first(fd, sender);
        status = run(fd, sender, transfer, &is_done);
    }
    if (status != BATON_OK)
        fprintf(stderr, "latewriter: %s\n", baton_last_error());
    baton_sender_destroy(sender);
    return status != BATON_OK ? 2 : is_done;
}
