/* SPDX-License-Identifier: Apache-2.0 */
/* The parts of sender and receiver, and both whole, on the loop transport. */
#include <baton/receiver.h>
#include <baton/sender.h>

#include "core/adminserver.h"
#include "core/configtable.h"
#include "core/doorbell.h"
#include "core/eventqueue.h"
#include "core/pollset.h"
#include "core/ring.h"
#include "core/tracelog.h"
#include "core/wakesocket.h"
#include "sender/copycrew.h"
#include "store/store.h"
#include "support/oom.h"
#include "support/test.h"
#include "transport/loop.h"
#include "wire/control.h"
#include "wire/noticepush.h"

#include <string.h>

/* Defines attempt `name`: CREATE makes `thing`, DESTROY destroys it. */
#define ATTEMPT(name, type, create, destroy) \
    static baton_status name(void *ctx)      \
    {                                        \
        type *thing = NULL;                  \
        (void)ctx;                           \
        BATON_TRY(create);                   \
        destroy(thing);                      \
        return BATON_OK;                     \
    }

ATTEMPT(make_doorbell, bt_doorbell, bt_doorbell_create(&thing), bt_doorbell_destroy)
ATTEMPT(make_eventqueue, bt_eventqueue, bt_eventqueue_create(64, &thing), bt_eventqueue_destroy)
ATTEMPT(make_pollset, bt_pollset, bt_pollset_create(&thing), bt_pollset_destroy)
ATTEMPT(make_ring, bt_ring, bt_ring_create(64, 16, &thing), bt_ring_destroy)
ATTEMPT(make_tracelog, bt_tracelog, bt_tracelog_create(&thing), bt_tracelog_destroy)
ATTEMPT(make_wakesocket, bt_wakesocket, bt_wakesocket_create(&thing), bt_wakesocket_destroy)
ATTEMPT(make_store, bt_store, bt_store_create(16, 64, &thing), bt_store_destroy)
ATTEMPT(make_crew, bt_copycrew, bt_copycrew_create(3, &thing), bt_copycrew_destroy)

static void ring_nobody(void *ctx)
{
    (void)ctx;
}

ATTEMPT(make_admin, bt_admin,
        bt_admin_open(&(bt_admin_options){.where = "127.0.0.1:0",
                                          .role = "sender",
                                          .name = "scarce",
                                          .ring = ring_nobody},
                      &thing),
        bt_admin_close)

static baton_status make_control(void *ctx)
{
    bt_control control;
    void *socket = NULL;
    (void)ctx;
    BATON_TRY(bt_control_open_client(&(baton_security){0}, &control));
    bt_noticepush *push = NULL;
    baton_status status = bt_noticepush_create(control.context, NULL, &push);
    if (status == BATON_OK)
        status = bt_control_socket(&control, ZMQ_DEALER, 16, 0, &socket);
    bt_noticepush_destroy(push, 0);
    bt_control_socket_close(socket, 0);
    bt_control_close(&control);
    return status;
}

static baton_layout layout(void)
{
    return (baton_layout){.model = "scarce",
                          .dtype = BATON_DTYPE_BF16,
                          .n_layers = 1,
                          .n_planes = 2,
                          .n_kv_heads = 1,
                          .head_dim = 8,
                          .chunk_tokens = 8,
                          .block_tokens = 4,
                          .tp_size = 1,
                          .pp_size = 1};
}

static baton_status make_sender(void *ctx)
{
    baton_sender *sender = NULL;
    const baton_sender_options options = {
        .layout = layout(), .copy_threads = 3, .data = {.transport = "loop", .loop_net = ctx}};
    const char *const overrides[] = {"name=x", "data_devices=lo,eth0", "notice=tcp://127.0.0.1:5"};
    BATON_TRY(baton_sender_create_from_file(NULL, &options, overrides, 3, &sender));
    baton_sender_destroy(sender);
    return BATON_OK;
}

static baton_status make_receiver(void *ctx)
{
    baton_receiver *receiver = NULL;
    const baton_receiver_options options = {.layout = layout(),
                                            .pool_bytes = 8 * 8 * 32,
                                            .n_regions = 2,
                                            .data = {.transport = "loop", .loop_net = ctx}};
    const char *const overrides[] = {"name=x", "host=127.0.0.1"};
    BATON_TRY(baton_receiver_create_from_file(NULL, &options, overrides, 2, &receiver));
    baton_receiver_destroy(receiver);
    return BATON_OK;
}

static void without_memory(void **state)
{
    (void)state;
    static const bt_attempt attempts[] = {make_doorbell, make_eventqueue, make_pollset, make_ring,
                                          make_tracelog, make_wakesocket, make_store,   make_crew,
                                          make_admin,    make_control};
    for (size_t i = 0; i < sizeof(attempts) / sizeof(attempts[0]); i++)
        bt_check_scarce_memory(attempts[i], NULL);
}

static void without_descriptors(void **state)
{
    (void)state;
    static const bt_attempt attempts[] = {make_doorbell,   make_eventqueue, make_pollset, make_ring,
                                          make_wakesocket, make_admin,      make_control};
    for (size_t i = 0; i < sizeof(attempts) / sizeof(attempts[0]); i++)
        bt_check_scarce_descriptors(attempts[i], NULL);
}

static void without_threads(void **state)
{
    (void)state;
    bt_check_scarce_threads(make_crew, NULL);
    bt_check_scarce_threads(make_admin, NULL);
}

typedef void (*bt_check)(bt_attempt attempt, void *ctx);

static void check_whole(bt_check check)
{
    bt_loop_net *net;
    assert_ok(bt_loop_net_create(1, NULL, &net));
    check(make_sender, net);
    check(make_receiver, net);
    bt_loop_net_destroy(net);
}

static void whole_servers_without_memory(void **state)
{
    (void)state;
    check_whole(bt_check_scarce_memory);
}

static void whole_servers_without_descriptors(void **state)
{
    (void)state;
    check_whole(bt_check_scarce_descriptors);
}

static void whole_servers_without_threads(void **state)
{
    (void)state;
    check_whole(bt_check_scarce_threads);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(without_memory),
        bt_test(without_descriptors),
        bt_test(without_threads),
        bt_test(whole_servers_without_memory),
        bt_test(whole_servers_without_descriptors),
        bt_test(whole_servers_without_threads),
    };
    return bt_run_tests(tests);
}
