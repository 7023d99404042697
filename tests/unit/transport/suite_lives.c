/* SPDX-License-Identifier: Apache-2.0 */
/* Endpoints and workers that come and go, and what is proven by their end. */
#include "suite_parts.h"

static void closing_with_flush_lands_what_was_posted(void **state)
{
    (void)state;
    bt_pair pair;
    bt_pair_open(&pair, bt_suite_tested->open, BT_SUITE_REGION_BYTES);
    bt_pair_fill(&pair, 10);
    bt_run run = bt_pair_run(&pair, 0, 0, BT_SUITE_REGION_BYTES);
    assert_ok(bt_endpoint_put(pair.endpoint, pair.source, pair.remote, &run, 1, 1));
    bt_remote_release(pair.remote);
    pair.remote = NULL;
    bt_endpoint_close(pair.endpoint, BT_CLOSE_FLUSH, 3);
    pair.endpoint = NULL;
    bt_pair_wait(&pair, BT_EVENT_PUT, 1);
    bt_pair_wait(&pair, BT_EVENT_CLOSED, 3);
    bt_suite_assert_landed(&run);
    bt_pair_close(&pair);
}

static void closing_by_force_ends_every_operation_once(void **state)
{
    (void)state;
    enum { N = 20 };
    bt_pair pair;
    bt_pair_open(&pair, bt_suite_tested->open, BT_SUITE_REGION_BYTES);
    bt_pair_fill(&pair, 11);
    bt_run run = bt_pair_run(&pair, 0, 0, BT_SUITE_REGION_BYTES);
    for (uint32_t i = 0; i < N; i++)
        assert_ok(bt_endpoint_put(pair.endpoint, pair.source, pair.remote, &run, 1, i));
    assert_ok(bt_endpoint_flush(pair.endpoint, N));
    bt_remote_release(pair.remote);
    pair.remote = NULL;
    bt_endpoint_close(pair.endpoint, BT_CLOSE_FORCE, N + 1);
    pair.endpoint = NULL;
    uint32_t counts[N + 2] = {0};
    for (uint32_t i = 0; i < N + 2; i++) {
        bt_event event = bt_pair_next_event(&pair);
        assert_true(event.user_data < N + 2 && event.kind != BT_EVENT_FAILED);
        assert_int_equal(event.kind == BT_EVENT_CLOSED, i == N + 1); /* the last of all */
        if (event.status < 0)
            assert_int_equal(event.status, BATON_ERR_CANCELED);
        counts[event.user_data]++;
    }
    for (uint32_t i = 0; i < N + 2; i++)
        assert_int_equal(counts[i], 1);
    bt_pair_close(&pair);
}

static void many_endpoints_write_to_one_worker(void **state)
{
    (void)state;
    enum { N = 8, BYTES = BT_SUITE_REGION_BYTES / N };
    bt_pair pair;
    bt_pair_open(&pair, bt_suite_tested->open, BT_SUITE_REGION_BYTES);
    bt_pair_fill(&pair, 12);
    bt_endpoint *endpoints[N];
    bt_remote *remotes[N];
    for (uint32_t i = 0; i < N; i++) {
        assert_ok(bt_endpoint_connect(pair.writer, pair.target->address, pair.target->address_bytes,
                                      i, &endpoints[i]));
        assert_ok(
            bt_remote_import(endpoints[i], pair.pool->rkey, pair.pool->rkey_bytes, &remotes[i]));
        bt_run run = bt_pair_run(&pair, i * BYTES, i * BYTES, BYTES);
        assert_ok(bt_endpoint_put(endpoints[i], pair.source, remotes[i], &run, 1, i));
    }
    uint32_t counts[N] = {0};
    bt_suite_collect(&pair, BT_EVENT_PUT, counts, N);
    for (uint32_t i = 0; i < N; i++)
        assert_ok(bt_endpoint_flush(endpoints[i], i));
    bt_suite_collect(&pair, BT_EVENT_FLUSH, counts, N);
    assert_memory_equal(pair.pool->base, pair.source->base, BT_SUITE_REGION_BYTES);
    for (uint32_t i = 0; i < N; i++) {
        bt_remote_release(remotes[i]);
        bt_endpoint_close(endpoints[i], BT_CLOSE_FLUSH, i);
    }
    bt_suite_collect(&pair, BT_EVENT_CLOSED, counts, N);
    for (uint32_t i = 0; i < N; i++)
        assert_int_equal(counts[i], 3);
    bt_pair_close(&pair);
}

/* One worker per peer on the target: killing one must not disturb the others. */
static void destroying_one_worker_leaves_the_others(void **state)
{
    (void)state;
    bt_pair pair;
    bt_pair_open(&pair, bt_suite_tested->open, BT_SUITE_REGION_BYTES);
    bt_pair_fill(&pair, 13);
    bt_worker *writer, *target;
    bt_endpoint *endpoint;
    assert_ok(bt_worker_create(pair.transport_a, &writer));
    assert_ok(bt_worker_create(pair.transport_b, &target));
    assert_ok(bt_endpoint_connect(writer, target->address, target->address_bytes, 5, &endpoint));
    assert_ok(bt_endpoint_flush(endpoint, 6));
    bt_event event = bt_next_event(writer, &target, 1);
    assert_int_equal(event.kind, BT_EVENT_FLUSH);
    bt_worker_destroy(writer);
    bt_worker_destroy(target);
    bt_run run = bt_pair_run(&pair, 0, 0, BT_SUITE_REGION_BYTES);
    bt_suite_put_and_flush(&pair, &run, 1);
    bt_suite_assert_landed(&run);
    bt_pair_close(&pair);
}

static void destroying_the_target_worker_fails_the_endpoint(void **state)
{
    (void)state;
    if (bt_suite_tested->puts_are_mapped)
        skip();
    bt_pair pair;
    bt_pair_open(&pair, bt_suite_tested->open, BT_SUITE_REGION_BYTES);
    bt_pair_fill(&pair, 14);
    bt_run run = bt_pair_run(&pair, 0, 0, 4096);
    bt_suite_put_and_flush(&pair, &run, 1);
    bt_worker_destroy(pair.target);
    pair.target = NULL;
    memset(pair.pool->base, 0, pair.pool->bytes);
    /* Some transports notice at once, others only when something is sent. */
    bool is_refused = bt_endpoint_put(pair.endpoint, pair.source, pair.remote, &run, 1, 1) < 0;
    bool has_failed = false;
    for (uint32_t n_put = is_refused ? 1 : 0; !has_failed || n_put == 0;) {
        bt_event event = bt_pair_next_event(&pair);
        has_failed = has_failed || event.kind == BT_EVENT_FAILED;
        n_put += event.kind == BT_EVENT_PUT;
        if (event.kind == BT_EVENT_FAILED) {
            assert_int_equal(event.user_data, 77);
            assert_true(event.status < 0 && event.text[0] != '\0');
        }
    }
    assert_int_equal(((uint8_t *)pair.pool->base)[0], 0);
    assert_true(bt_endpoint_put(pair.endpoint, pair.source, pair.remote, &run, 1, 1) < 0);
    assert_fails(bt_endpoint_send(pair.endpoint, "x", 1), BATON_ERR_CLOSED, "has failed");
    bt_pair_close(&pair);
}

/* The proof that lets a receiver use pages again: bytes that wait for the dead worker are lost. */
static void a_late_write_does_not_land_after_the_targets_worker_is_destroyed(void **state)
{
    (void)state;
    if (bt_suite_tested->puts_are_mapped)
        skip();
    bt_pair pair;
    bt_pair_open(&pair, bt_suite_tested->open, BT_SUITE_REGION_BYTES);
    bt_pair_fill(&pair, 16);
    bt_run first = bt_pair_run(&pair, 0, 0, 4096);
    bt_suite_put_and_flush(&pair, &first, 1);
    bt_run late = bt_pair_run(&pair, 0, 4096, 32768);
    assert_ok(bt_endpoint_put(pair.endpoint, pair.source, pair.remote, &late, 1, 3));
    bt_event event = bt_next_event(pair.writer, NULL, 0); /* the target does not progress */
    assert_int_equal(event.kind, BT_EVENT_PUT);
    assert_ok(event.status);
    bt_worker_destroy(pair.target);
    pair.target = NULL;
    memset(pair.pool->base, 0, pair.pool->bytes); /* as if given to another request */
    assert_int_equal(bt_pair_next_event(&pair).kind, BT_EVENT_FAILED);
    for (size_t i = 0; i < BT_SUITE_REGION_BYTES; i++)
        assert_int_equal(((uint8_t *)pair.pool->base)[i], 0);
    bt_pair_close(&pair);
}

/* The same while much is on its way, and where threads copy it. */
static void nothing_lands_once_the_targets_worker_is_destroyed(void **state)
{
    (void)state;
    enum { PUTS = 16, FLUSH = PUTS, ROUNDS = 3 }; /* verbs need 25 s to give a peer up */
    if (bt_suite_tested->can_map)                 /* then a put may be a store of the writer's */
        skip();
    for (uint32_t round = 0; round < ROUNDS; round++) {
        bt_pair pair;
        bt_pair_open(&pair, bt_suite_tested->open, BT_SUITE_REGION_BYTES);
        bt_pair_fill(&pair, 17 + round);
        bt_run run = bt_pair_run(&pair, 0, 0, BT_SUITE_REGION_BYTES);
        bt_suite_put_and_flush(&pair, &run, 1);
        for (uint64_t i = 0; i < PUTS; i++)
            assert_ok(bt_endpoint_put(pair.endpoint, pair.source, pair.remote, &run, 1, i));
        assert_ok(bt_endpoint_flush(pair.endpoint, FLUSH));
        for (uint32_t i = 0; i < 3 * round; i++)
            assert_int_equal(bt_next_event(pair.writer, &pair.target, 1).kind, BT_EVENT_PUT);
        bt_worker_destroy(pair.target);
        pair.target = NULL;
        memset(pair.pool->base, 0, pair.pool->bytes); /* as if given to another request */
        while (bt_pair_next_event(&pair).kind != BT_EVENT_FAILED)
            ;
        for (size_t i = 0; i < BT_SUITE_REGION_BYTES; i++)
            assert_int_equal(((uint8_t *)pair.pool->base)[i], 0);
        bt_remote_release(pair.remote);
        pair.remote = NULL;
        pair.endpoint = NULL; /* the worker closes it */
        bt_pair_close(&pair);
    }
}

static void a_new_worker_can_be_connected_after_the_old_one_died(void **state)
{
    (void)state;
    bt_pair pair;
    bt_pair_open(&pair, bt_suite_tested->open, BT_SUITE_REGION_BYTES);
    bt_pair_fill(&pair, 15);
    bt_run run = bt_pair_run(&pair, 0, 0, 4096);
    bt_suite_put_and_flush(&pair, &run, 1);
    bt_remote_release(pair.remote);
    bt_endpoint_close(pair.endpoint, BT_CLOSE_FORCE, 1);
    bt_pair_wait(&pair, BT_EVENT_CLOSED, 1);
    bt_worker_destroy(pair.target);
    assert_ok(bt_worker_create(pair.transport_b, &pair.target));
    assert_ok(bt_endpoint_connect(pair.writer, pair.target->address, pair.target->address_bytes, 77,
                                  &pair.endpoint));
    assert_ok(
        bt_remote_import(pair.endpoint, pair.pool->rkey, pair.pool->rkey_bytes, &pair.remote));
    memset(pair.pool->base, 0, pair.pool->bytes);
    bt_suite_put_and_flush(&pair, &run, 1);
    bt_suite_assert_landed(&run);
    bt_pair_close(&pair);
}

static void destroying_workers_with_everything_open_leaks_nothing(void **state)
{
    (void)state;
    bt_pair pair;
    bt_pair_open(&pair, bt_suite_tested->open, BT_SUITE_REGION_BYTES);
    bt_run run = bt_pair_run(&pair, 0, 0, BT_SUITE_REGION_BYTES);
    for (uint32_t i = 0; i < 10; i++)
        assert_ok(bt_endpoint_put(pair.endpoint, pair.source, pair.remote, &run, 1, i));
    assert_ok(bt_endpoint_flush(pair.endpoint, 10));
    assert_ok(bt_endpoint_send(pair.endpoint, "late", 4));
    bt_remote_release(pair.remote);
    pair.remote = NULL;
    pair.endpoint = NULL; /* the worker closes it */
    bt_pair_close(&pair);
}

int bt_suite_lives(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(closing_with_flush_lands_what_was_posted),
        bt_test(closing_by_force_ends_every_operation_once),
        bt_test(many_endpoints_write_to_one_worker),
        bt_test(destroying_one_worker_leaves_the_others),
        bt_test(destroying_the_target_worker_fails_the_endpoint),
        bt_test(a_late_write_does_not_land_after_the_targets_worker_is_destroyed),
        bt_test(nothing_lands_once_the_targets_worker_is_destroyed),
        bt_test(a_new_worker_can_be_connected_after_the_old_one_died),
        bt_test(destroying_workers_with_everything_open_leaks_nothing),
    };
    return bt_run_tests(tests);
}
