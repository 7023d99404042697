/* SPDX-License-Identifier: Apache-2.0 */
/* Rails of different speed, under a manual clock: nothing is said to have arrived before the
 * slowest has brought its share. */
#include "transport/rails.h"

#include <string.h>

#include "core/alloc.h"
#include "support/test.h"
#include "transport/loop.h"
#include "transport/seal.h"
#include "transport_suite.h"

enum { N_RAILS = 2, REGION_BYTES = 1 << 20 };

static bt_loop_net *nets[N_RAILS];
static bt_manual_clock manual;
static bt_clock test_clock;
static bt_pair pair;

static baton_status open_some(uint32_t n, bt_transport **transport_p)
{
    bt_transport *rails[N_RAILS];
    for (uint32_t i = 0; i < n; i++) {
        const bt_transport_options options = {.backend = "loop", .loop_net = nets[i]};
        baton_status status = bt_transport_create(&options, &rails[i]);
        if (status < 0) {
            while (i-- > 0)
                bt_transport_destroy(rails[i]);
            return status;
        }
    }
    return bt_rails_join(rails, n, transport_p);
}

static baton_status open_rails(bt_transport **transport_p)
{
    return open_some(N_RAILS, transport_p);
}

static void make_nets(void)
{
    manual.now_ns = 1000;
    test_clock = bt_manual_clock_ops(&manual);
    for (uint32_t i = 0; i < N_RAILS; i++)
        assert_ok(bt_loop_net_create(42 + i, &test_clock, &nets[i]));
}

static void destroy_nets(void)
{
    for (uint32_t i = 0; i < N_RAILS; i++)
        bt_loop_net_destroy(nets[i]);
}

static void begin(const bt_loop_faults *of_second)
{
    make_nets();
    bt_pair_open(&pair, open_rails, REGION_BYTES);
    bt_pair_fill(&pair, 1);
    assert_ok(bt_loop_set_faults(nets[1], 0, of_second));
}

static void end(void)
{
    bt_pair_close(&pair);
    destroy_nets();
}

static void put_all(uint64_t user_data)
{
    enum { PAGE = 12345, N = REGION_BYTES / PAGE };
    static bt_run runs[N];
    for (uint32_t i = 0; i < N; i++) /* descending here, ascending there */
        runs[i] = bt_pair_run(&pair, (N - 1 - i) * PAGE, i * PAGE, PAGE);
    assert_ok(bt_endpoint_put(pair.endpoint, pair.source, pair.remote, runs, N, user_data));
}

static bool has_landed(void)
{
    enum { PAGE = 12345, N = REGION_BYTES / PAGE };
    for (uint32_t i = 0; i < N; i++)
        if (memcmp((uint8_t *)pair.pool->base + i * PAGE,
                   (uint8_t *)pair.source->base + (N - 1 - i) * PAGE, PAGE) != 0)
            return false;
    return true;
}

static void assert_no_event(void)
{
    bt_event event;
    for (int i = 0; i < 10; i++) {
        assert_int_equal(bt_worker_progress(pair.writer, &event, 1), 0);
        assert_int_equal(bt_worker_progress(pair.target, &event, 1), 0);
    }
}

/* Both rails carry a share; the second one's is late and comes in any order. */
static void a_flush_waits_for_the_slow_rail(void **state)
{
    (void)state;
    begin(&(bt_loop_faults){.delay_ns = 500, .jitter_ns = 100, .reorder = true});
    put_all(1);
    assert_ok(bt_endpoint_flush(pair.endpoint, 2));
    bt_pair_wait(&pair, BT_EVENT_PUT, 1);
    assert_no_event();
    assert_false(has_landed());
    bt_loop_stats first, second;
    bt_loop_get_stats(nets[0], &first);
    bt_loop_get_stats(nets[1], &second);
    assert_true(first.runs_delivered_total > 0 && second.runs_delivered_total == 0);
    manual.now_ns += 499;
    assert_no_event();
    manual.now_ns += 101;
    bt_pair_wait(&pair, BT_EVENT_FLUSH, 2);
    assert_true(has_landed());
    end();
}

static void a_message_stays_behind_the_puts_of_the_slow_rail(void **state)
{
    (void)state;
    begin(&(bt_loop_faults){.delay_ns = 500});
    put_all(1);
    assert_ok(bt_endpoint_send(pair.endpoint, "commit", 6));
    assert_ok(bt_endpoint_send(pair.endpoint, "again", 5));
    bt_pair_wait(&pair, BT_EVENT_PUT, 1);
    assert_no_event();
    manual.now_ns += 500;
    bt_event event = bt_next_event(pair.target, &pair.writer, 1);
    assert_int_equal(event.kind, BT_EVENT_MESSAGE);
    assert_int_equal(event.n_bytes, 6);
    assert_memory_equal(event.bytes, "commit", 6);
    assert_true(has_landed());
    event = bt_next_event(pair.target, &pair.writer, 1);
    assert_memory_equal(event.bytes, "again", 5);
    end();
}

static void a_rail_that_breaks_fails_the_endpoint_once(void **state)
{
    (void)state;
    begin(&(bt_loop_faults){.stuck = true});
    put_all(1);
    assert_ok(bt_endpoint_flush(pair.endpoint, 2));
    bt_pair_wait(&pair, BT_EVENT_PUT, 1);
    bt_loop_cut(nets[1], 0);
    uint32_t n_failed = 0, n_flush = 0;
    while (n_failed == 0 || n_flush == 0) {
        bt_event event = bt_pair_next_event(&pair);
        n_failed += event.kind == BT_EVENT_FAILED;
        n_flush += event.kind == BT_EVENT_FLUSH;
        assert_true(event.status < 0 && event.text[0] != '\0');
    }
    assert_int_equal(n_failed, 1);
    assert_fails(bt_endpoint_flush(pair.endpoint, 3), BATON_ERR_CLOSED, "has failed");
    end();
}

static void small_puts_take_turns(void **state)
{
    (void)state;
    begin(NULL);
    for (uint32_t i = 0; i < 10; i++) {
        bt_run run = bt_pair_run(&pair, i * 64, i * 64, 64);
        assert_ok(bt_endpoint_put(pair.endpoint, pair.source, pair.remote, &run, 1, i));
        bt_pair_wait(&pair, BT_EVENT_PUT, i);
    }
    assert_ok(bt_endpoint_flush(pair.endpoint, 99));
    bt_pair_wait(&pair, BT_EVENT_FLUSH, 99);
    for (uint32_t i = 0; i < N_RAILS; i++) {
        bt_loop_stats stats;
        bt_loop_get_stats(nets[i], &stats);
        assert_int_equal(stats.runs_delivered_total, 5);
    }
    assert_memory_equal(pair.pool->base, pair.source->base, 640);
    end();
}

/* One byte from a worker of `ours` into memory of `theirs`, over one rail. */
static void check_one_rail(bt_transport *ours, bt_transport *theirs)
{
    bt_worker *writer, *target;
    bt_memory *pool;
    bt_endpoint *endpoint;
    bt_remote *remote;
    assert_ok(bt_worker_create(ours, &writer));
    assert_ok(bt_worker_create(theirs, &target));
    assert_ok(bt_memory_alloc(theirs, 4096, BATON_MEMORY_HOST, &pool));
    assert_ok(bt_endpoint_connect(writer, target->address, target->address_bytes, 1, &endpoint));
    assert_ok(bt_remote_import(endpoint, pool->rkey, pool->rkey_bytes, &remote));
    bt_path path;
    bt_endpoint_path(endpoint, &path);
    assert_int_equal(path.n_rails, 1);
    uint8_t byte = 77;
    bt_run run = {.local_addr = (uint64_t)(uintptr_t)&byte,
                  .remote_addr = (uint64_t)(uintptr_t)pool->base,
                  .bytes = 1};
    assert_ok(bt_endpoint_put(endpoint, NULL, remote, &run, 1, 2));
    assert_int_equal(bt_next_event(writer, &target, 1).kind, BT_EVENT_PUT);
    assert_ok(bt_endpoint_flush(endpoint, 3));
    assert_int_equal(bt_next_event(writer, &target, 1).kind, BT_EVENT_FLUSH);
    assert_int_equal(*(uint8_t *)pool->base, 77);
    assert_ok(bt_endpoint_send(endpoint, "commit", 6));
    bt_event event = bt_next_event(target, &writer, 1);
    assert_int_equal(event.kind, BT_EVENT_MESSAGE);
    assert_memory_equal(event.bytes, "commit", 6);
    bt_remote_release(remote);
    bt_worker_destroy(writer);
    bt_worker_destroy(target);
    bt_memory_free(pool);
}

/* Either side may have more; a peer without rails is one. */
static void as_many_rails_are_used_as_both_ends_have(void **state)
{
    (void)state;
    make_nets();
    bt_transport *two, *plain;
    const bt_transport_options options = {.backend = "loop", .loop_net = nets[0]};
    assert_ok(open_rails(&two));
    assert_ok(bt_transport_create(&options, &plain));
    check_one_rail(two, plain);
    check_one_rail(plain, two);
    bt_transport_destroy(plain);
    bt_transport_destroy(two);
    destroy_nets();
}

/* What a peer could send in place of an address: sealed well, but not what is inside. */
static void parts_that_do_not_fit_are_refused(void **state)
{
    (void)state;
    static const uint8_t bad[][12] = {
        {0},                         /* none */
        {9, 0, 0, 0},                /* more than there can be */
        {1, 0, 0, 0, 5, 0, 0, 0, 1}, /* longer than the rest */
        {1, 0, 0, 0, 0xff, 0xff, 0xff, 0xff},
        {2, 0, 0, 0, 1, 0, 0, 0, 1}, /* the second is missing */
        {1, 0, 0, 0, 1, 0, 0, 0, 1}, /* something behind the last */
    };
    static const size_t lengths[] = {4, 4, 9, 8, 9, 12};
    begin(NULL);
    bt_transport *plain;
    bt_worker *without_rails;
    const bt_transport_options options = {.backend = "loop", .loop_net = nets[0]};
    assert_ok(bt_transport_create(&options, &plain));
    assert_ok(bt_worker_create(plain, &without_rails));
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        const bt_seal seal = {.kind = BT_SEAL_ADDRESS,
                              .backend = BT_SEAL_RAILS,
                              .payload = bad[i],
                              .payload_bytes = lengths[i]};
        uint8_t *sealed;
        size_t n;
        bt_endpoint *endpoint;
        assert_ok(bt_seal_pack(&seal, BT_ADDRESS_BYTES_MAX, &sealed, &n));
        uint8_t *guarded = bt_guarded_copy(sealed, n);
        assert_fails(bt_endpoint_connect(pair.writer, guarded, n, 1, &endpoint),
                     BATON_ERR_INVALID_ARG, "parts");
        assert_fails(bt_endpoint_connect(without_rails, guarded, n, 1, &endpoint),
                     BATON_ERR_INVALID_ARG, "parts");
        bt_guarded_free(guarded, n);
        bt_free(sealed);
    }
    bt_worker_destroy(without_rails);
    bt_transport_destroy(plain);
    end();
}

static void no_memory_is_an_error_and_leaks_nothing(void **state)
{
    (void)state;
    begin(NULL);
    bt_transport *transport;
    bt_worker *worker;
    bt_memory *memory;
    bt_endpoint *endpoint;
    bt_remote *remote;
    bool has_worked = false;
    for (uint64_t nth = 1; nth < 12; nth++) {
        bt_alloc_fail_at(nth);
        if (open_rails(&transport) == BATON_OK)
            bt_transport_destroy(transport);
        bt_alloc_fail_at(nth);
        if (bt_worker_create(pair.transport_a, &worker) == BATON_OK)
            bt_worker_destroy(worker);
        bt_alloc_fail_at(nth);
        if (bt_memory_alloc(pair.transport_a, 4096, BATON_MEMORY_HOST, &memory) == BATON_OK)
            bt_memory_free(memory);
        bt_alloc_fail_at(nth);
        if (bt_remote_import(pair.endpoint, pair.pool->rkey, pair.pool->rkey_bytes, &remote) ==
            BATON_OK)
            bt_remote_release(remote);
        bt_alloc_fail_at(nth);
        has_worked = bt_endpoint_connect(pair.writer, pair.target->address,
                                         pair.target->address_bytes, 5, &endpoint) == BATON_OK;
        bt_alloc_fail_at(0);
    }
    assert_true(has_worked);
    end();
}

static void two_rdma_devices_are_two_rails(void **state)
{
    (void)state;
    static const char *const devices[] = {"a:1", "lo", "b:1"};
    bt_transport_options options = {.backend = "ucx", .data_devices = devices, .n_data_devices = 2};
    assert_false(bt_rails_are_wanted(&options));
    options.n_data_devices = 3;
    assert_true(bt_rails_are_wanted(&options));
    bt_transport *transport;
    assert_fails(bt_transport_create(&options, &transport), BATON_ERR_UNREACHABLE, "a:1");
}

/* Lanes multiply with rails, and there is a limit to both. */
static void lanes_beyond_the_limit_are_refused(void **state)
{
    (void)state;
    static const char *const devices[] = {"a:1", "b:1", "c:1"};
    bt_transport_options options = {
        .backend = "ucx", .data_devices = devices, .n_data_devices = 3, .n_lanes = 3};
    bt_transport *transport;
    assert_fails(bt_transport_create(&options, &transport), BATON_ERR_TOO_LARGE, "up to 2 over 3");
    options = (bt_transport_options){.backend = "ucx", .n_lanes = 9};
    assert_fails(bt_transport_create(&options, &transport), BATON_ERR_TOO_LARGE, "found 9");
}

/* Ends with other numbers of lanes, and none at all, over real connections. */
static void as_many_lanes_are_used_as_both_ends_have(void **state)
{
    (void)state;
    for (uint32_t ours = 1; ours <= 3; ours += 2) {
        const uint32_t theirs = 4 - ours;
        bt_transport *here, *there;
        bt_transport_options options = {.backend = "ucx", .transports = "tcp", .n_lanes = ours};
        assert_ok(bt_transport_create(&options, &here));
        options.n_lanes = theirs;
        assert_ok(bt_transport_create(&options, &there));
        check_one_rail(here, there);
        bt_transport_destroy(here);
        bt_transport_destroy(there);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(a_flush_waits_for_the_slow_rail),
        bt_test(a_message_stays_behind_the_puts_of_the_slow_rail),
        bt_test(a_rail_that_breaks_fails_the_endpoint_once),
        bt_test(small_puts_take_turns),
        bt_test(as_many_rails_are_used_as_both_ends_have),
        bt_test(parts_that_do_not_fit_are_refused),
        bt_test(no_memory_is_an_error_and_leaks_nothing),
        bt_test(two_rdma_devices_are_two_rails),
        bt_test(lanes_beyond_the_limit_are_refused),
        bt_test(as_many_lanes_are_used_as_both_ends_have),
    };
    return bt_run_tests(tests);
}
