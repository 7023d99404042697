/* SPDX-License-Identifier: Apache-2.0 */
/* The classic failure over real queue pairs: the receiver gives a request up and uses its page
 * again, and the old sender's bytes, which were on the way, come. And what a flush does. Arguments:
 * UCX_TLS. Runs inside rdma-vm. */
#include "rdmakit.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>

#include "transport/ucx_state.h"
#include "transport_suite.h"

enum { REGION_BYTES = 64 * 1024, PAGE = 16 * 1024, DELAY_MS = 600, OLD = 0x11, NEW = 0x22 };

static const char *transports;
static bt_pair pair;

static baton_status open_one(bt_transport **transport_p)
{
    static const char *const devices[] = {"rxe0:1", "rxe1:1"};
    static unsigned n_opened;
    const bt_transport_options options = {.backend = "ucx",
                                          .data_devices = &devices[n_opened++ % 2],
                                          .n_data_devices = 1,
                                          .transports = transports};
    return bt_transport_create(&options, transport_p);
}

/* Both ends progress for so long. */
static void run_ms(int ms)
{
    bt_event event;
    for (int i = 0; i < ms; i += 10) {
        bt_worker_progress(pair.writer, &event, 1);
        if (pair.target != NULL)
            bt_worker_progress(pair.target, &event, 1);
        poll(NULL, 0, 10);
    }
}

/* A put of the old request is on its way when the page is given to a new one. */
static void begin(void)
{
    bt_pair_open(&pair, open_one, REGION_BYTES);
    assert_ok(bt_endpoint_flush(pair.endpoint, 1)); /* connects */
    bt_pair_wait(&pair, BT_EVENT_FLUSH, 1);
    memset(pair.source->base, OLD, REGION_BYTES);
    rdma_shell("tc qdisc add dev v0 root netem delay %dms", DELAY_MS);
    const bt_run run = bt_pair_run(&pair, 0, 0, PAGE);
    assert_ok(bt_endpoint_put(pair.endpoint, pair.source, pair.remote, &run, 1, 2));
    bt_event event;
    for (int i = 0; i < 100; i++) /* posts it */
        bt_worker_progress(pair.writer, &event, 1);
}

static void end(void)
{
    rdma_shell("tc qdisc del dev v0 root");
    bt_remote_release(pair.remote);
    bt_endpoint_close(pair.endpoint, BT_CLOSE_FORCE, 3);
    while (bt_pair_next_event(&pair).kind != BT_EVENT_CLOSED) {
    }
    pair.remote = NULL;
    pair.endpoint = NULL;
    bt_pair_close(&pair);
}

/* What may happen without proof: closing an endpoint stops nothing that has left. */
static void without_proof_the_page_is_overwritten(void **state)
{
    (void)state;
    begin();
    memset(pair.pool->base, NEW, REGION_BYTES);
    run_ms(3 * DELAY_MS);
    assert_int_equal(*(volatile uint8_t *)pair.pool->base, OLD);
    end();
}

/* The proof that quarantine waits for: the worker, and with it the queue pair, is gone. */
static void after_the_workers_end_nothing_comes(void **state)
{
    (void)state;
    begin();
    bt_worker_destroy(pair.target);
    pair.target = NULL;
    memset(pair.pool->base, NEW, REGION_BYTES);
    run_ms(3 * DELAY_MS);
    for (size_t i = 0; i < REGION_BYTES; i++)
        assert_int_equal(((volatile uint8_t *)pair.pool->base)[i], NEW);
    end();
}

/* Over queue pairs a flush is more than acknowledgements; messages are counted by the target. */
static void a_flush_reads_back_where_there_are_queue_pairs(void **state)
{
    (void)state;
    bt_pair_open(&pair, open_one, REGION_BYTES);
    const ucx_endpoint *endpoint = (const ucx_endpoint *)pair.endpoint;
    assert_ok(bt_endpoint_flush(pair.endpoint, 1));
    bt_pair_wait(&pair, BT_EVENT_FLUSH, 1);
    assert_int_equal(endpoint->n_read_backs, 0); /* nothing was put */
    for (uint32_t i = 1; i < 4; i++) {
        const bt_run run = bt_pair_run(&pair, 0, PAGE, PAGE);
        assert_ok(bt_endpoint_put(pair.endpoint, pair.source, pair.remote, &run, 1, 2));
        bt_pair_wait(&pair, BT_EVENT_PUT, 2);
        assert_ok(bt_endpoint_flush(pair.endpoint, 3));
        bt_pair_wait(&pair, BT_EVENT_FLUSH, 3);
        assert_int_equal(endpoint->n_read_backs, strcmp(transports, "rc") == 0 ? i : 0);
    }
    bt_pair_close(&pair);
}

int main(int argc, char **argv)
{
    transports = argc > 1 ? argv[1] : "rc";
    rdma_need_devices(2);
    const struct CMUnitTest tests[] = {
        bt_child_test(without_proof_the_page_is_overwritten),
        bt_child_test(a_flush_reads_back_where_there_are_queue_pairs),
        bt_child_test(after_the_workers_end_nothing_comes),
    };
    return bt_run_tests(tests);
}
