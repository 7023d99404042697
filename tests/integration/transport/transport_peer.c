/* SPDX-License-Identifier: Apache-2.0 */
/* The other side of the two-process tests. Arguments: socket, bytes of the region, transports ("-"
 * for the default, "no-tcp"), role, and maybe a data device.
 *   target: owns a region that the other process writes, and tells its checksums; sleeps unless
 *           there is work; ends when the socket closes.
 *   writer: is told a target, and puts to all of its region again and again until it is killed. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "peer_channel.h"

static const char *device; /* NULL: the default */

static baton_status open_target(const char *transports, size_t bytes, bt_transport **transport_p,
                                bt_worker **worker_p, bt_memory **memory_p)
{
    const bool no_tcp = strcmp(transports, "no-tcp") == 0;
    const bt_transport_options options = {
        .backend = "ucx",
        .data_devices = &device,
        .n_data_devices = device != NULL,
        .no_tcp = no_tcp,
        .transports = no_tcp || strcmp(transports, "-") == 0 ? NULL : transports};
    BATON_TRY(bt_transport_create(&options, transport_p));
    BATON_TRY(bt_worker_create(*transport_p, worker_p));
    return bt_memory_alloc(*transport_p, bytes, BATON_MEMORY_HOST, memory_p);
}

static bool say_hello(int fd, const bt_worker *worker, const bt_memory *memory)
{
    static peer_hello hello;
    hello.address_bytes = worker->address_bytes;
    hello.rkey_bytes = memory->rkey_bytes;
    memcpy(hello.address, worker->address, worker->address_bytes);
    memcpy(hello.rkey, memory->rkey, memory->rkey_bytes);
    hello.base = (uint64_t)(uintptr_t)memory->base;
    hello.bytes = memory->bytes;
    return peer_send(fd, &hello, sizeof(hello));
}

static bool answer(int fd, const bt_memory *memory)
{
    peer_question question;
    if (!peer_receive(fd, &question, sizeof(question)) || question.offset > memory->bytes ||
        question.bytes > memory->bytes - question.offset)
        return false;
    uint64_t hash =
        XXH64((const uint8_t *)memory->base + question.offset, (size_t)question.bytes, 0);
    return peer_send(fd, &hash, sizeof(hash));
}

static void serve(int fd, bt_worker *worker, const bt_memory *memory)
{
    for (;;) {
        bt_event event;
        bt_worker_progress(worker, &event, 1);
        int timeout_ms = bt_worker_arm(worker) == BATON_OK ? -1 : 0;
        struct pollfd fds[] = {{.fd = fd, .events = POLLIN},
                               {.fd = bt_worker_fd(worker), .events = POLLIN}};
        poll(fds, 2, timeout_ms);
        if (fds[0].revents != 0 && !answer(fd, memory))
            return;
    }
}

/* Ends only on failure. */
static baton_status write_for_ever(int fd, bt_worker *worker, bt_memory *source)
{
    static peer_hello hello;
    if (!peer_receive(fd, &hello, sizeof(hello)))
        return BATON_ERR_IO;
    bt_endpoint *endpoint;
    bt_remote *remote;
    BATON_TRY(bt_endpoint_connect(worker, hello.address, hello.address_bytes, 1, &endpoint));
    BATON_TRY(bt_remote_import(endpoint, hello.rkey, hello.rkey_bytes, &remote));
    memset(source->base, 0x77, source->bytes);
    const bt_run run = {.local_addr = (uint64_t)(uintptr_t)source->base,
                        .remote_addr = hello.base,
                        .bytes = source->bytes};
    for (uint32_t n_posted = 0, n_done = 0;;) {
        bt_event event;
        if (n_posted - n_done < 8) {
            BATON_TRY(bt_endpoint_put(endpoint, source, remote, &run, 1, n_posted++));
            BATON_TRY(bt_endpoint_flush(endpoint, n_posted));
        }
        while (bt_worker_progress(worker, &event, 1) == 1)
            n_done += event.kind == BT_EVENT_PUT;
    }
}

int main(int argc, char **argv)
{
    if (argc != 5 && argc != 6)
        return 2;
    int fd = atoi(argv[1]);
    device = argv[5]; /* or the NULL behind the last */
    bt_transport *transport = NULL;
    bt_worker *worker = NULL;
    bt_memory *memory = NULL;
    baton_status status =
        open_target(argv[3], strtoull(argv[2], NULL, 10), &transport, &worker, &memory);
    if (status >= 0 && strcmp(argv[4], "writer") == 0)
        status = write_for_ever(fd, worker, memory);
    else if (status >= 0 && say_hello(fd, worker, memory))
        serve(fd, worker, memory);
    if (status < 0)
        fprintf(stderr, "transport_peer: %s\n", baton_last_error());
    bt_worker_destroy(worker);
    bt_memory_free(memory);
    bt_transport_destroy(transport);
    return status < 0;
}
