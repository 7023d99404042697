/* SPDX-License-Identifier: Apache-2.0 */
/* Writers that die within milliseconds of connecting, before the connection is whole, do the target
 * no harm. UCX before 1.14 ends its process there unless the writer greets first
 * (transport/ucx_greet.h).
 *
 *   test_ucx_haste [KILLS [SEED]]
 */
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "support/children.h"
#include "transport/transport.h"

/* A connection is whole, and a flush answered, after a few wake-ups of the writer. */
enum { LIFE_MAX = 10, AFTER_MAX_ROUNDS = 200, ADDRESS_BYTES_MAX = 16 << 10, LOOK_MS = 2 };

static uint32_t n_kills = 48;
static uint64_t seed = 1;

static baton_status open_worker(bt_transport **transport_p, bt_worker **worker_p)
{
    const bt_transport_options options = {.backend = "ucx", .transports = "tcp"};
    BATON_TRY(bt_transport_create(&options, transport_p));
    return bt_worker_create(*transport_p, worker_p);
}

/* Works until there is nothing to do. True: its flush has ended. */
static bool work(bt_worker *worker)
{
    bt_event event;
    bool is_flushed = false;
    do {
        while (bt_worker_progress(worker, &event, 1) > 0)
            is_flushed = is_flushed || event.kind == BT_EVENT_FLUSH;
    } while (bt_worker_arm(worker) == BATON_ERR_BUSY);
    return is_flushed;
}

static void sleep_a_while(bt_worker *worker, int ms)
{
    struct pollfd fd = {.fd = bt_worker_fd(worker), .events = POLLIN};
    poll(&fd, 1, ms);
}

/* Connects to the address, says something, and dies when it has been woken so many times, or has
 * heard that it has arrived. */
static int run_writer(const char *hex, uint64_t life)
{
    static uint8_t address[ADDRESS_BYTES_MAX];
    size_t n = strlen(hex) / 2;
    for (size_t i = 0; i < n && n <= sizeof(address); i++)
        sscanf(hex + 2 * i, "%2hhx", &address[i]);
    bt_transport *transport;
    bt_worker *worker;
    bt_endpoint *endpoint;
    if (open_worker(&transport, &worker) < 0 ||
        bt_endpoint_connect(worker, address, n, 0, &endpoint) < 0 ||
        bt_endpoint_send(endpoint, "x", 1) < 0 || bt_endpoint_flush(endpoint, 0) < 0)
        return 1;
    for (uint64_t woken = 0; woken < life && !work(worker); woken++)
        sleep_a_while(worker, -1);
    return raise(SIGKILL);
}

static bt_child *start_writer(const bt_worker *target, uint64_t n_wakeups)
{
    static char hex[2 * ADDRESS_BYTES_MAX + 1], life[24];
    assert_true(target->address_bytes <= ADDRESS_BYTES_MAX);
    for (size_t i = 0; i < target->address_bytes; i++)
        snprintf(hex + 2 * i, 3, "%02x", target->address[i]);
    snprintf(life, sizeof(life), "%llu", (unsigned long long)n_wakeups);
    return bt_child_start("test_ucx_haste", (const char *const[]){"writer", hex, life, NULL});
}

/* Each writer has a worker of its own here, as every peer of a receiver has. */
static void writers_that_are_killed_while_they_connect_do_no_harm(void **state)
{
    (void)state;
    bt_rng rng = {.state = seed};
    bt_transport *transport;
    bt_worker *worker;
    bt_event event;
    assert_ok(open_worker(&transport, &worker));
    uint32_t n_heard = 0;
    for (uint32_t i = 0; i < n_kills; i++) {
        bt_child *writer = start_writer(worker, bt_rng_below(&rng, LIFE_MAX));
        while (!bt_child_has_ended(writer)) {
            while (bt_worker_progress(worker, &event, 1) > 0)
                n_heard += event.kind == BT_EVENT_MESSAGE;
            if (bt_worker_arm(worker) == BATON_OK)
                sleep_a_while(worker, LOOK_MS);
        }
        for (uint64_t left = bt_rng_below(&rng, AFTER_MAX_ROUNDS); left > 0; left--)
            n_heard += bt_worker_progress(worker, &event, 1);
        assert_int_equal(bt_child_wait(writer), 128 + SIGKILL);
        bt_child_forget(writer);
        bt_worker_destroy(worker);
        assert_ok(bt_worker_create(transport, &worker));
    }
    bt_worker_destroy(worker);
    bt_transport_destroy(transport);
    printf("%u writers were killed, %u of them after they were heard\n", n_kills, n_heard);
    assert_true(n_kills < 48 || (n_heard > 0 && n_heard < n_kills)); /* before, and after */
}

int main(int argc, char **argv)
{
    if (argc > 3 && strcmp(argv[1], "writer") == 0)
        return run_writer(argv[2], strtoull(argv[3], NULL, 10));
    if (argc > 1)
        n_kills = (uint32_t)strtoul(argv[1], NULL, 10);
    if (argc > 2)
        seed = strtoull(argv[2], NULL, 10);
    const struct CMUnitTest tests[] = {
        bt_child_test(writers_that_are_killed_while_they_connect_do_no_harm)};
    return bt_run_tests(tests);
}
