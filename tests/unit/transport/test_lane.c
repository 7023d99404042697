/* SPDX-License-Identifier: Apache-2.0 */
/* Lanes around loops: what a call cannot say any more comes as an event, nothing is lost when the
 * owner is slow or memory is short, and a destroyed worker is written no more. */
#include "transport/lane.h"

#include <string.h>

#include "core/alloc.h"
#include "core/thread.h"
#include "support/test.h"
#include "transport/loop.h"
#include "transport/rails.h"
#include "transport_suite.h"

enum { N_LANES = 2, REGION_BYTES = 1 << 20 };

static bt_loop_net *nets[N_LANES];
static bt_pair pair;

static baton_status open_loop(uint32_t i, bt_transport **transport_p)
{
    const bt_transport_options options = {.backend = "loop", .loop_net = nets[i]};
    return bt_transport_create(&options, transport_p);
}

static baton_status open_lane(bt_transport **transport_p)
{
    bt_transport *loop;
    BATON_TRY(open_loop(0, &loop));
    return bt_lane_create(loop, transport_p);
}

static baton_status open_lanes(bt_transport **transport_p)
{
    bt_transport *lanes[N_LANES];
    for (uint32_t i = 0; i < N_LANES; i++) {
        assert_ok(open_loop(i, &lanes[i]));
        assert_ok(bt_lane_create(lanes[i], &lanes[i]));
    }
    return bt_rails_join(lanes, N_LANES, transport_p);
}

static void make_nets(void)
{
    for (uint32_t i = 0; i < N_LANES; i++)
        assert_ok(bt_loop_net_create(7 + i, NULL, &nets[i]));
}

static void destroy_nets(void)
{
    for (uint32_t i = 0; i < N_LANES; i++)
        bt_loop_net_destroy(nets[i]);
}

static void begin(baton_status (*open)(bt_transport **))
{
    make_nets();
    bt_pair_open(&pair, open, REGION_BYTES);
    bt_pair_fill(&pair, 3);
}

static void end(void)
{
    bt_pair_close(&pair);
    destroy_nets();
}

static void a_lane_that_cannot_be_made_is_refused(void **state)
{
    (void)state;
    make_nets();
    bt_transport *lane = NULL;
    bt_thread_fail_at(1);
    baton_status status = open_lane(&lane);
    bt_thread_fail_at(0);
    assert_fails(status, BATON_ERR_IO, "starting the thread baton-lane");
    bt_transport *loop;
    for (uint64_t nth = 1; nth <= 2; nth++) {
        assert_ok(open_loop(0, &loop));
        bt_alloc_fail_at(nth);
        status = bt_lane_create(loop, &lane);
        bt_alloc_fail_at(0);
        assert_int_equal(status, BATON_ERR_NO_MEMORY);
    }
    assert_null(lane);
    destroy_nets();
}

/* One more lane than the first: those that were made go. */
static void lanes_of_ucx_are_all_or_none(void **state)
{
    (void)state;
    const bt_transport_options options = {.backend = "ucx", .transports = "tcp", .n_lanes = 3};
    bt_transport *transport = NULL;
    bt_thread_fail_at(2);
    baton_status status = bt_transport_create(&options, &transport);
    bt_thread_fail_at(0);
    assert_fails(status, BATON_ERR_IO, "baton-lane");
    assert_null(transport);
}

/* Everything that one transfer needs; false: some of it could not be had. */
static bool try_all(void)
{
    bt_transport *transport = NULL;
    bt_worker *writer = NULL, *target = NULL;
    bt_endpoint *endpoint = NULL;
    bt_memory *pool = NULL;
    bt_remote *remote = NULL;
    baton_status status = open_lane(&transport);
    if (status == BATON_OK)
        status = bt_worker_create(transport, &writer);
    if (status == BATON_OK)
        status = bt_worker_create(transport, &target);
    if (status == BATON_OK)
        status = bt_memory_alloc(transport, 4096, BATON_MEMORY_HOST, &pool);
    if (status == BATON_OK)
        status = bt_endpoint_connect(writer, target->address, target->address_bytes, 1, &endpoint);
    if (status == BATON_OK)
        status = bt_remote_import(endpoint, pool->rkey, pool->rkey_bytes, &remote);
    if (status != BATON_OK)
        assert_int_equal(status, BATON_ERR_NO_MEMORY);
    bt_remote_release(remote);
    bt_worker_destroy(writer);
    bt_worker_destroy(target);
    bt_memory_free(pool);
    bt_transport_destroy(transport);
    return status == BATON_OK;
}

static void no_memory_is_an_error_and_leaks_nothing(void **state)
{
    (void)state;
    uint64_t nth = 0;
    bool is_done = false;
    for (nth = 1; !is_done; nth++) {
        make_nets();
        bt_alloc_fail_at(nth);
        is_done = try_all();
        bt_alloc_fail_at(0);
        destroy_nets();
    }
    assert_true(nth > 10); /* it did fail now and then */
}

/* The call has long returned when the backend refuses the put. */
static void a_put_that_is_refused_ends_in_a_failed_event(void **state)
{
    (void)state;
    begin(open_lane);
    assert_ok(
        bt_loop_set_faults(nets[0], 0, &(bt_loop_faults){.fail_nth_put = 2, .fail_in_call = true}));
    bt_run run = bt_pair_run(&pair, 0, 0, 4096);
    for (uint64_t i = 1; i <= 3; i++)
        assert_ok(bt_endpoint_put(pair.endpoint, pair.source, pair.remote, &run, 1, i));
    unsigned come = 0; /* bit i: put i */
    for (int i = 0; i < 3; i++) {
        bt_event event = bt_pair_next_event(&pair);
        assert_int_equal(event.kind, BT_EVENT_PUT);
        assert_true(event.user_data < 4 && (come >> event.user_data & 1) == 0);
        come |= 1U << event.user_data;
        assert_int_equal(event.status, event.user_data == 2 ? BATON_ERR_TRANSPORT : BATON_OK);
        assert_true((event.text[0] != '\0') == (event.user_data == 2));
    }
    end();
}

static void a_lane_that_breaks_fails_the_endpoint_once(void **state)
{
    (void)state;
    begin(open_lanes);
    assert_ok(bt_loop_set_faults(nets[1], 0, &(bt_loop_faults){.stuck = true}));
    bt_run run = bt_pair_run(&pair, 0, 0, REGION_BYTES);
    assert_ok(bt_endpoint_put(pair.endpoint, pair.source, pair.remote, &run, 1, 1));
    assert_ok(bt_endpoint_flush(pair.endpoint, 2));
    assert_ok(bt_endpoint_send(pair.endpoint, "never", 5));
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
    assert_fails(bt_endpoint_put(pair.endpoint, pair.source, pair.remote, &run, 1, 3),
                 BATON_ERR_CLOSED, "has failed");
    end();
}

/* What was sent behind a put that one lane refuses later is not sent: it would speak of bytes that
 * never come. */
static void nothing_overtakes_a_put_that_failed(void **state)
{
    (void)state;
    begin(open_lanes);
    assert_ok(
        bt_loop_set_faults(nets[1], 0, &(bt_loop_faults){.fail_nth_put = 1, .fail_in_call = true}));
    bt_run run = bt_pair_run(&pair, 0, 0, REGION_BYTES);
    assert_ok(bt_endpoint_put(pair.endpoint, pair.source, pair.remote, &run, 1, 1));
    assert_ok(bt_endpoint_send(pair.endpoint, "never", 5));
    uint32_t n_put = 0, n_failed = 0;
    while (n_put == 0 || n_failed == 0) {
        bt_event event = bt_pair_next_event(&pair);
        assert_true(event.status < 0 && event.text[0] != '\0');
        n_put += event.kind == BT_EVENT_PUT;
        n_failed += event.kind == BT_EVENT_FAILED;
    }
    assert_int_equal(n_put + n_failed, 2);
    assert_fails(bt_endpoint_send(pair.endpoint, "x", 1), BATON_ERR_CLOSED, "has failed");
    end();
}

/* What is sent on an endpoint that has failed meanwhile adds no second failure. */
static void sending_on_a_broken_lane_fails_once(void **state)
{
    (void)state;
    begin(open_lane);
    bt_loop_cut(nets[0], 0);
    for (int i = 0; i < 10; i++)
        assert_ok(bt_endpoint_send(pair.endpoint, "x", 1));
    bt_event event = bt_pair_next_event(&pair);
    assert_int_equal(event.kind, BT_EVENT_FAILED);
    assert_int_equal(event.user_data, 77);
    bt_remote_release(pair.remote);
    pair.remote = NULL;
    bt_endpoint_close(pair.endpoint, BT_CLOSE_FORCE, 5);
    pair.endpoint = NULL;
    event = bt_pair_next_event(&pair); /* not another failure */
    assert_int_equal(event.kind, BT_EVENT_CLOSED);
    assert_int_equal(event.user_data, 5);
    end();
}

/* Many times what the ring between the thread and its owner holds. */
static void a_slow_owner_misses_nothing(void **state)
{
    (void)state;
    enum { N = 1000 };
    begin(open_lane);
    for (uint64_t i = 0; i < N; i++) {
        bt_run run = bt_pair_run(&pair, i * 8, i * 8, 8);
        assert_ok(bt_endpoint_put(pair.endpoint, pair.source, pair.remote, &run, 1, i));
    }
    assert_ok(bt_endpoint_flush(pair.endpoint, N));
    for (uint64_t i = 0; i <= N; i++)
        bt_pair_wait(&pair, i < N ? BT_EVENT_PUT : BT_EVENT_FLUSH, i);
    for (uint32_t i = 0; i < N; i++)
        assert_ok(bt_endpoint_send(pair.endpoint, &i, sizeof(i)));
    for (uint32_t i = 0; i < N; i++) {
        bt_event event = bt_next_event(pair.target, &pair.writer, 1);
        assert_int_equal(event.kind, BT_EVENT_MESSAGE);
        assert_int_equal(event.n_bytes, sizeof(i));
        assert_memory_equal(event.bytes, &i, sizeof(i));
    }
    assert_memory_equal(pair.pool->base, pair.source->base, N * 8);
    end();
}

/* The writer is the test's own thread, the target has a lane. */
static baton_status open_lane_for_the_second(bt_transport **transport_p)
{
    static uint32_t n_opened;
    return n_opened++ % 2 == 0 ? open_loop(0, transport_p) : open_lane(transport_p);
}

/* The target's thread has no memory for a message that has come: it passes it on later. */
static void a_message_waits_for_memory(void **state)
{
    (void)state;
    begin(open_lane_for_the_second);
    assert_ok(bt_loop_set_faults(nets[0], 0, &(bt_loop_faults){.stuck = true}));
    assert_ok(bt_endpoint_send(pair.endpoint, "first", 5));
    assert_ok(bt_endpoint_send(pair.endpoint, "second", 6));
    bt_event event;
    assert_int_equal(bt_worker_progress(pair.writer, &event, 1), 0);
    bt_alloc_fail_at(1);
    bt_loop_release(nets[0], 0);
    event = bt_next_event(pair.target, &pair.writer, 1);
    assert_memory_equal(event.bytes, "first", 5);
    event = bt_next_event(pair.target, &pair.writer, 1);
    assert_memory_equal(event.bytes, "second", 6);
    assert_int_equal(bt_alloc_count(), 3); /* one failed */
    bt_alloc_fail_at(0);
    end();
}

/* Writes go on while the target's worker is destroyed: from then on nothing comes. */
static void nothing_lands_once_a_worker_is_destroyed(void **state)
{
    (void)state;
    for (uint32_t round = 0; round < 20; round++) {
        begin(open_lanes);
        bt_run run = bt_pair_run(&pair, 0, 0, REGION_BYTES);
        for (uint64_t i = 0; i < 16; i++)
            assert_ok(bt_endpoint_put(pair.endpoint, pair.source, pair.remote, &run, 1, i));
        for (uint32_t i = 0; i < round % 8; i++) {
            bt_event event;
            bt_worker_progress(pair.writer, &event, 1);
        }
        bt_worker_destroy(pair.target);
        pair.target = NULL;
        memset(pair.pool->base, 0, REGION_BYTES); /* as if given to another request */
        bt_endpoint_flush(pair.endpoint, 99);
        bt_event event;
        do {
            event = bt_pair_next_event(&pair);
        } while (event.kind != BT_EVENT_FAILED);
        for (uint64_t i = 0; i < REGION_BYTES; i += 64)
            assert_int_equal(((uint8_t *)pair.pool->base)[i], 0);
        bt_remote_release(pair.remote);
        pair.remote = NULL;
        pair.endpoint = NULL; /* the worker closes it */
        end();
    }
}

static baton_status open_ucx(bt_transport **transport_p)
{
    const bt_transport_options options = {
        .backend = "ucx", .transports = "tcp", .n_lanes = N_LANES};
    return bt_transport_create(&options, transport_p);
}

/* Small puts go over one lane each: threads of the target write the same page one after the other,
 * and its owner looks at it in between. */
static void lanes_write_one_page_in_turns(void **state)
{
    (void)state;
    enum { PAGE = 4096, TURNS = 12 };
    bt_pair_open(&pair, open_ucx, REGION_BYTES);
    bt_pair_fill(&pair, 4);
    for (uint64_t i = 0; i < TURNS; i++) {
        bt_run run = bt_pair_run(&pair, i * PAGE, 0, PAGE);
        assert_ok(bt_endpoint_put(pair.endpoint, pair.source, pair.remote, &run, 1, i));
        bt_pair_wait(&pair, BT_EVENT_PUT, i);
        assert_ok(bt_endpoint_flush(pair.endpoint, i));
        bt_pair_wait(&pair, BT_EVENT_FLUSH, i);
        bt_worker_observe(pair.target);
        assert_memory_equal(pair.pool->base, (uint8_t *)pair.source->base + i * PAGE, PAGE);
        memset(pair.pool->base, 0, PAGE);
        bt_worker_observe(pair.target);
    }
    bt_pair_close(&pair);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(a_lane_that_cannot_be_made_is_refused),
        bt_test(lanes_of_ucx_are_all_or_none),
        bt_test(no_memory_is_an_error_and_leaks_nothing),
        bt_test(a_put_that_is_refused_ends_in_a_failed_event),
        bt_test(a_lane_that_breaks_fails_the_endpoint_once),
        bt_test(nothing_overtakes_a_put_that_failed),
        bt_test(sending_on_a_broken_lane_fails_once),
        bt_test(a_slow_owner_misses_nothing),
        bt_test(a_message_waits_for_memory),
        bt_test(nothing_lands_once_a_worker_is_destroyed),
        bt_test(lanes_write_one_page_in_turns),
    };
    return bt_run_tests(tests);
}
