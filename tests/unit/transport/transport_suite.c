/* SPDX-License-Identifier: Apache-2.0 */
#include "transport_suite.h"

#include <stdlib.h>

#include "support/test.h"

static const bt_suite_backend *backend;

enum { REGION_BYTES = 1 << 20 };

static void put_and_flush(bt_pair *pair, const bt_run *runs, uint32_t n_runs)
{
    assert_ok(bt_endpoint_put(pair->endpoint, pair->source, pair->remote, runs, n_runs, 1));
    assert_ok(bt_endpoint_flush(pair->endpoint, 2));
    bt_pair_wait(pair, BT_EVENT_PUT, 1);
    bt_pair_wait(pair, BT_EVENT_FLUSH, 2);
}

static void assert_run_landed(const bt_run *run)
{
    assert_memory_equal((void *)(uintptr_t)run->remote_addr, (void *)(uintptr_t)run->local_addr,
                        run->bytes);
}

static void scattered_runs_land_and_nothing_else_changes(void **state)
{
    (void)state;
    enum { PAGE = 4096, N_RUNS = 100 };
    bt_pair pair;
    bt_pair_open(&pair, backend->open, REGION_BYTES);
    bt_pair_fill(&pair, 1);
    bt_run runs[N_RUNS];
    bt_rng rng = {2};
    uint8_t *expected = calloc(1, REGION_BYTES);
    for (uint32_t i = 0; i < N_RUNS; i++) {
        size_t from = bt_rng_below(&rng, REGION_BYTES / PAGE) * PAGE;
        runs[i] = bt_pair_run(&pair, from, (2 * i + 1) * PAGE, PAGE);
        memcpy(expected + (2 * i + 1) * PAGE, (uint8_t *)pair.source->base + from, PAGE);
    }
    put_and_flush(&pair, runs, N_RUNS);
    assert_memory_equal(pair.pool->base, expected, REGION_BYTES);
    free(expected);
    bt_pair_close(&pair);
}

static void odd_sizes_and_descending_addresses_land(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 2, 3, 7, 63, 64, 65, 511, 4095, 4097, 65537, 262147};
    enum { N_RUNS = sizeof(sizes) / sizeof(sizes[0]) };
    bt_pair pair;
    bt_pair_open(&pair, backend->open, REGION_BYTES);
    bt_pair_fill(&pair, 3);
    bt_run runs[N_RUNS];
    size_t end = REGION_BYTES, from = 1;
    for (uint32_t i = 0; i < N_RUNS; i++) {
        end -= sizes[i] + 1;
        runs[i] = bt_pair_run(&pair, from, end, sizes[i]);
        from += sizes[i];
    }
    put_and_flush(&pair, runs, N_RUNS);
    for (uint32_t i = 0; i < N_RUNS; i++) {
        assert_run_landed(&runs[i]);
        assert_int_equal(((uint8_t *)(uintptr_t)runs[i].remote_addr)[runs[i].bytes], 0);
    }
    bt_pair_close(&pair);
}

/* Copies as a put of the runs must, piece by piece. */
static void copy_runs(const bt_pair *pair, const bt_run *runs, uint32_t n_runs, uint8_t *expected)
{
    uint64_t base = (uint64_t)(uintptr_t)pair->pool->base;
    for (uint32_t r = 0; r < n_runs; r++)
        for (uint32_t i = 0; i < bt_run_count(&runs[r]); i++)
            memcpy(expected + (bt_run_remote(&runs[r], i) - base),
                   (void *)(uintptr_t)bt_run_local(&runs[r], i), runs[r].bytes);
}

/* Runs of regular pieces, ascending and descending at either end, small ones and such that do not
 * fit into one message, in one put. */
static void regular_runs_land_piece_by_piece(void **state)
{
    (void)state;
    enum { BYTES = 8 << 20, PAGE = 4096 };
    static const struct {
        size_t from, to, bytes;
        uint32_t count;
        int64_t local_stride, remote_stride;
    } shapes[] = {
        {0, 0, PAGE, 40, PAGE, PAGE},
        {100 * PAGE, 200 * PAGE, PAGE, 40, -PAGE, PAGE},
        {300 * PAGE, 300 * PAGE, PAGE, 40, PAGE, -PAGE},
        {400 * PAGE, 400 * PAGE, 1000, 33, 3 * PAGE, -2 * PAGE},
        {5, 1000 * PAGE, 300000, 3, 300000, 400001},
        {7, 500 * PAGE, 131072, 2, 0, 131072},
        {9, 600 * PAGE, 1, 100, 1, 2},
        {11, 700 * PAGE, 65537, 1, 0, 0},
    };
    enum { N = sizeof(shapes) / sizeof(shapes[0]) };
    bt_pair pair;
    bt_pair_open(&pair, backend->open, BYTES);
    bt_pair_fill(&pair, 30);
    bt_run runs[N];
    for (uint32_t i = 0; i < N; i++) {
        runs[i] = bt_pair_run(&pair, shapes[i].from, shapes[i].to, shapes[i].bytes);
        runs[i].count = shapes[i].count;
        runs[i].local_stride = shapes[i].local_stride;
        runs[i].remote_stride = shapes[i].remote_stride;
    }
    uint8_t *expected = calloc(1, BYTES);
    copy_runs(&pair, runs, N, expected);
    put_and_flush(&pair, runs, N);
    assert_memory_equal(pair.pool->base, expected, BYTES);
    free(expected);
    bt_pair_close(&pair);
}

static void random_runs_land_as_they_were_joined(void **state)
{
    (void)state;
    enum { PAGE = 512, PAGES = REGION_BYTES / PAGE, ROUNDS = 40, MAX = 300 };
    bt_pair pair;
    bt_pair_open(&pair, backend->open, REGION_BYTES);
    bt_rng rng = {31};
    uint8_t *expected = calloc(1, REGION_BYTES);
    bt_run runs[MAX];
    for (uint32_t round = 0; round < ROUNDS; round++) {
        bt_pair_fill(&pair, round);
        memset(expected, 0, REGION_BYTES);
        uint32_t n_runs = 0, n_pages = 1 + (uint32_t)bt_rng_below(&rng, MAX);
        size_t from = bt_rng_below(&rng, PAGES), to = from;
        for (uint32_t i = 0; i < n_pages; i++) {
            uint64_t next = bt_rng_below(&rng, 8);
            from = next < 5 ? (from + 1) % PAGES : bt_rng_below(&rng, PAGES);
            to = next < 3 ? (to + 1) % PAGES : (to + PAGES - 1 - next % 2) % PAGES;
            /* Each target page once, whatever the order of arrival. */
            if (memcmp(expected + to * PAGE, (uint8_t[PAGE]){0}, PAGE) != 0)
                continue;
            bt_run page = bt_pair_run(&pair, from * PAGE, to * PAGE, PAGE);
            copy_runs(&pair, &page, 1, expected);
            if (n_runs == 0 || !bt_run_join(&runs[n_runs - 1], &page))
                runs[n_runs++] = page;
        }
        put_and_flush(&pair, runs, n_runs);
        assert_memory_equal(pair.pool->base, expected, REGION_BYTES);
    }
    free(expected);
    bt_pair_close(&pair);
}

static void one_large_run_lands(void **state)
{
    (void)state;
    enum { BYTES = 24 << 20 };
    bt_pair pair;
    bt_pair_open(&pair, backend->open, BYTES);
    bt_pair_fill(&pair, 4);
    bt_run run = bt_pair_run(&pair, 0, 0, BYTES);
    put_and_flush(&pair, &run, 1);
    assert_run_landed(&run);
    bt_pair_close(&pair);
}

static void memory_that_was_never_registered_can_be_put(void **state)
{
    (void)state;
    enum { BYTES = 100000 };
    bt_pair pair;
    bt_pair_open(&pair, backend->open, REGION_BYTES);
    bt_pair_fill(&pair, 5);
    uint8_t *own = malloc(BYTES);
    memcpy(own, pair.source->base, BYTES);
    bt_run run = bt_pair_run(&pair, 0, 5, BYTES);
    run.local_addr = (uint64_t)(uintptr_t)own;
    assert_ok(bt_endpoint_put(pair.endpoint, NULL, pair.remote, &run, 1, 1));
    bt_pair_wait(&pair, BT_EVENT_PUT, 1);
    memset(own, 0xee, BYTES); /* allowed: the bytes have left */
    assert_ok(bt_endpoint_flush(pair.endpoint, 2));
    bt_pair_wait(&pair, BT_EVENT_FLUSH, 2);
    assert_memory_equal((uint8_t *)pair.pool->base + 5, pair.source->base, BYTES);
    free(own);
    bt_pair_close(&pair);
}

static void registered_memory_of_the_caller_is_a_source_and_a_target(void **state)
{
    (void)state;
    enum { BYTES = 3 * 4096 };
    bt_pair pair;
    bt_pair_open(&pair, backend->open, REGION_BYTES);
    uint8_t *from = aligned_alloc(4096, BYTES), *to = aligned_alloc(4096, BYTES);
    bt_rng rng = {6};
    bt_rng_fill(&rng, from, BYTES);
    memset(to, 0, BYTES);
    bt_memory *source, *target;
    bt_remote *remote;
    assert_ok(bt_memory_register(pair.transport_a, from, BYTES, BATON_MEMORY_HOST, &source));
    assert_ok(bt_memory_register(pair.transport_b, to, BYTES, BATON_MEMORY_HOST, &target));
    assert_ok(bt_remote_import(pair.endpoint, target->rkey, target->rkey_bytes, &remote));
    bt_run run = {.local_addr = (uint64_t)(uintptr_t)from,
                  .remote_addr = (uint64_t)(uintptr_t)to,
                  .bytes = BYTES};
    assert_ok(bt_endpoint_put(pair.endpoint, source, remote, &run, 1, 1));
    assert_ok(bt_endpoint_flush(pair.endpoint, 2));
    bt_pair_wait(&pair, BT_EVENT_PUT, 1);
    bt_pair_wait(&pair, BT_EVENT_FLUSH, 2);
    assert_memory_equal(from, to, BYTES);
    bt_remote_release(remote);
    bt_memory_free(source);
    bt_memory_free(target);
    bt_pair_close(&pair);
    free(from);
    free(to);
}

static void bad_puts_are_refused_before_anything_moves(void **state)
{
    (void)state;
    bt_pair pair;
    bt_pair_open(&pair, backend->open, REGION_BYTES);
    bt_pair_fill(&pair, 7);
    bt_run good = bt_pair_run(&pair, 0, 0, 64);
    assert_fails(bt_endpoint_put(pair.endpoint, pair.source, pair.remote, &good, 0, 1),
                 BATON_ERR_INVALID_ARG, "1 run");
    const bt_run bad[] = {
        bt_pair_run(&pair, 0, 0, 0),
        bt_pair_run(&pair, REGION_BYTES - 63, 0, 64),
        bt_pair_run(&pair, 0, REGION_BYTES - 63, 64),
        bt_pair_run(&pair, (size_t)-1, 0, 64),
        bt_pair_run(&pair, 0, (size_t)-1, 64),
        bt_pair_run(&pair, 0, 0, SIZE_MAX),
        bt_pair_run(&pair, REGION_BYTES, REGION_BYTES, 1),
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        bt_run runs[2] = {good, bad[i]};
        assert_fails(bt_endpoint_put(pair.endpoint, pair.source, pair.remote, runs, 2, 1),
                     BATON_ERR_INVALID_ARG, NULL);
    }
    static const struct {
        uint32_t count;
        int64_t local_stride, remote_stride;
    } outside[] = {{2, REGION_BYTES - 63, 0},
                   {2, 0, REGION_BYTES - 63},
                   {2, -1, 0},
                   {2, 0, -1},
                   {3, INT64_MAX, 0},
                   {UINT32_MAX, 0, INT64_MIN},
                   {5, 0, INT64_MAX / 2 + 1},
                   {REGION_BYTES / 64 + 1, 0, 64}};
    for (size_t i = 0; i < sizeof(outside) / sizeof(outside[0]); i++) {
        bt_run run = good;
        run.count = outside[i].count;
        run.local_stride = outside[i].local_stride;
        run.remote_stride = outside[i].remote_stride;
        assert_fails(bt_endpoint_put(pair.endpoint, pair.source, pair.remote, &run, 1, 1),
                     BATON_ERR_INVALID_ARG, NULL);
    }
    assert_ok(bt_endpoint_flush(pair.endpoint, 2));
    bt_pair_wait(&pair, BT_EVENT_FLUSH, 2); /* and no event of a refused put */
    assert_int_equal(((uint8_t *)pair.pool->base)[0], 0);
    bt_pair_close(&pair);
}

/* Counts events by user_data until n have come. */
static void collect(bt_pair *pair, bt_event_kind kind, uint32_t *counts, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        bt_event event = bt_pair_next_event(pair);
        assert_ok(event.status);
        assert_int_equal(event.kind, kind);
        assert_true(event.user_data < n);
        counts[event.user_data]++;
    }
}

static void every_operation_is_reported_exactly_once(void **state)
{
    (void)state;
    enum { N = 500 };
    bt_pair pair;
    bt_pair_open(&pair, backend->open, REGION_BYTES);
    bt_pair_fill(&pair, 8);
    for (uint32_t i = 0; i < N; i++) {
        bt_run run = bt_pair_run(&pair, i * 1024, i * 1024, 1024);
        assert_ok(bt_endpoint_put(pair.endpoint, pair.source, pair.remote, &run, 1, i));
    }
    uint32_t counts[N] = {0};
    collect(&pair, BT_EVENT_PUT, counts, N);
    for (uint32_t i = 0; i < N; i++)
        assert_int_equal(counts[i], 1);
    assert_ok(bt_endpoint_flush(pair.endpoint, 1));
    assert_ok(bt_endpoint_flush(pair.endpoint, 0));
    uint32_t flushes[2] = {0};
    collect(&pair, BT_EVENT_FLUSH, flushes, 2);
    assert_int_equal(flushes[0] + flushes[1], 2);
    assert_memory_equal(pair.pool->base, pair.source->base, N * 1024);
    bt_event event;
    assert_int_equal(bt_worker_progress(pair.writer, &event, 1), 0);
    bt_pair_close(&pair);
}

static void flush_of_nothing_is_reported(void **state)
{
    (void)state;
    bt_pair pair;
    bt_pair_open(&pair, backend->open, REGION_BYTES);
    assert_ok(bt_endpoint_flush(pair.endpoint, 9));
    bt_pair_wait(&pair, BT_EVENT_FLUSH, 9);
    bt_pair_close(&pair);
}

/* Progresses both ends until the target has reported a message; puts may finish meanwhile. */
static bt_event next_message(bt_pair *pair)
{
    for (;;) {
        bt_event event;
        if (bt_worker_progress(pair->target, &event, 1) == 1)
            return event;
        if (bt_worker_progress(pair->writer, &event, 1) == 1)
            assert_true(event.kind == BT_EVENT_PUT && event.status == BATON_OK);
    }
}

/* Lets everything that was posted finish. */
static void finish_all(bt_pair *pair)
{
    assert_ok(bt_endpoint_flush(pair->endpoint, 999));
    for (;;) {
        bt_event event = bt_pair_next_event(pair);
        assert_ok(event.status);
        if (event.user_data == 999)
            return;
    }
}

static void assert_message(const bt_event *event, const void *bytes, size_t n_bytes)
{
    assert_int_equal(event->kind, BT_EVENT_MESSAGE);
    assert_ok(event->status);
    assert_int_equal(event->n_bytes, n_bytes);
    assert_memory_equal(event->bytes, bytes, n_bytes);
}

static void a_message_comes_behind_everything_put_before_it(void **state)
{
    (void)state;
    enum { ROUNDS = 20, BYTES = REGION_BYTES };
    bt_pair pair;
    bt_pair_open(&pair, backend->open, REGION_BYTES);
    for (uint64_t round = 1; round <= ROUNDS; round++) {
        bt_pair_fill(&pair, round);
        bt_run runs[2] = {bt_pair_run(&pair, 0, BYTES / 2, BYTES / 2),
                          bt_pair_run(&pair, BYTES / 2, 0, BYTES / 2)};
        assert_ok(bt_endpoint_put(pair.endpoint, pair.source, pair.remote, &runs[0], 1, 1));
        assert_ok(bt_endpoint_put(pair.endpoint, pair.source, pair.remote, &runs[1], 1, 2));
        char text[] = "committed";
        assert_ok(bt_endpoint_send(pair.endpoint, text, sizeof(text)));
        memset(text, 'x', sizeof(text)); /* it was copied */
        bt_event event = next_message(&pair);
        assert_message(&event, "committed", sizeof(text));
        assert_run_landed(&runs[0]);
        assert_run_landed(&runs[1]);
        finish_all(&pair);
    }
    bt_pair_close(&pair);
}

static void messages_of_all_sizes_come_once_and_in_order(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 7, 100, 4096, 9000, BT_SEND_BYTES_MAX, 2};
    enum { N = sizeof(sizes) / sizeof(sizes[0]) };
    bt_pair pair;
    bt_pair_open(&pair, backend->open, REGION_BYTES);
    bt_pair_fill(&pair, 20);
    const uint8_t *bytes = pair.source->base;
    for (uint32_t i = 0; i < N; i++) {
        bt_run run = bt_pair_run(&pair, 0, i * 100, 100);
        assert_ok(bt_endpoint_put(pair.endpoint, pair.source, pair.remote, &run, 1, i));
        assert_ok(bt_endpoint_send(pair.endpoint, bytes + i, sizes[i]));
    }
    for (uint32_t i = 0; i < N; i++) {
        bt_event event = next_message(&pair);
        assert_message(&event, bytes + i, sizes[i]);
        assert_memory_equal((uint8_t *)pair.pool->base + i * 100, bytes, 100);
    }
    finish_all(&pair);
    assert_fails(bt_endpoint_send(pair.endpoint, bytes, 0), BATON_ERR_INVALID_ARG, "1 to");
    assert_fails(bt_endpoint_send(pair.endpoint, bytes, BT_SEND_BYTES_MAX + 1),
                 BATON_ERR_INVALID_ARG, "1 to");
    bt_pair_close(&pair);
}

static void a_message_wakes_a_sleeping_target(void **state)
{
    (void)state;
    bt_pair pair;
    bt_pair_open(&pair, backend->open, REGION_BYTES);
    assert_ok(bt_endpoint_send(pair.endpoint, "bell", 4));
    bt_event event = bt_next_event(pair.target, &pair.writer, 1);
    assert_message(&event, "bell", 4);
    bt_pair_close(&pair);
}

static void closing_with_flush_lands_what_was_posted(void **state)
{
    (void)state;
    bt_pair pair;
    bt_pair_open(&pair, backend->open, REGION_BYTES);
    bt_pair_fill(&pair, 10);
    bt_run run = bt_pair_run(&pair, 0, 0, REGION_BYTES);
    assert_ok(bt_endpoint_put(pair.endpoint, pair.source, pair.remote, &run, 1, 1));
    bt_remote_release(pair.remote);
    pair.remote = NULL;
    bt_endpoint_close(pair.endpoint, BT_CLOSE_FLUSH, 3);
    pair.endpoint = NULL;
    bt_pair_wait(&pair, BT_EVENT_PUT, 1);
    bt_pair_wait(&pair, BT_EVENT_CLOSED, 3);
    assert_run_landed(&run);
    bt_pair_close(&pair);
}

static void closing_by_force_ends_every_operation_once(void **state)
{
    (void)state;
    enum { N = 20 };
    bt_pair pair;
    bt_pair_open(&pair, backend->open, REGION_BYTES);
    bt_pair_fill(&pair, 11);
    bt_run run = bt_pair_run(&pair, 0, 0, REGION_BYTES);
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
    enum { N = 8, BYTES = REGION_BYTES / N };
    bt_pair pair;
    bt_pair_open(&pair, backend->open, REGION_BYTES);
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
    collect(&pair, BT_EVENT_PUT, counts, N);
    for (uint32_t i = 0; i < N; i++)
        assert_ok(bt_endpoint_flush(endpoints[i], i));
    collect(&pair, BT_EVENT_FLUSH, counts, N);
    assert_memory_equal(pair.pool->base, pair.source->base, REGION_BYTES);
    for (uint32_t i = 0; i < N; i++) {
        bt_remote_release(remotes[i]);
        bt_endpoint_close(endpoints[i], BT_CLOSE_FLUSH, i);
    }
    collect(&pair, BT_EVENT_CLOSED, counts, N);
    for (uint32_t i = 0; i < N; i++)
        assert_int_equal(counts[i], 3);
    bt_pair_close(&pair);
}

/* One worker per peer on the target: killing one must not disturb the others. */
static void destroying_one_worker_leaves_the_others(void **state)
{
    (void)state;
    bt_pair pair;
    bt_pair_open(&pair, backend->open, REGION_BYTES);
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
    bt_run run = bt_pair_run(&pair, 0, 0, REGION_BYTES);
    put_and_flush(&pair, &run, 1);
    assert_run_landed(&run);
    bt_pair_close(&pair);
}

static void destroying_the_target_worker_fails_the_endpoint(void **state)
{
    (void)state;
    if (backend->puts_are_mapped)
        skip();
    bt_pair pair;
    bt_pair_open(&pair, backend->open, REGION_BYTES);
    bt_pair_fill(&pair, 14);
    bt_run run = bt_pair_run(&pair, 0, 0, 4096);
    put_and_flush(&pair, &run, 1);
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
    if (backend->puts_are_mapped)
        skip();
    bt_pair pair;
    bt_pair_open(&pair, backend->open, REGION_BYTES);
    bt_pair_fill(&pair, 16);
    bt_run first = bt_pair_run(&pair, 0, 0, 4096);
    put_and_flush(&pair, &first, 1);
    bt_run late = bt_pair_run(&pair, 0, 4096, 32768);
    assert_ok(bt_endpoint_put(pair.endpoint, pair.source, pair.remote, &late, 1, 3));
    bt_event event = bt_next_event(pair.writer, NULL, 0); /* the target does not progress */
    assert_int_equal(event.kind, BT_EVENT_PUT);
    assert_ok(event.status);
    bt_worker_destroy(pair.target);
    pair.target = NULL;
    memset(pair.pool->base, 0, pair.pool->bytes); /* as if given to another request */
    assert_int_equal(bt_pair_next_event(&pair).kind, BT_EVENT_FAILED);
    for (size_t i = 0; i < REGION_BYTES; i++)
        assert_int_equal(((uint8_t *)pair.pool->base)[i], 0);
    bt_pair_close(&pair);
}

static void a_new_worker_can_be_connected_after_the_old_one_died(void **state)
{
    (void)state;
    bt_pair pair;
    bt_pair_open(&pair, backend->open, REGION_BYTES);
    bt_pair_fill(&pair, 15);
    bt_run run = bt_pair_run(&pair, 0, 0, 4096);
    put_and_flush(&pair, &run, 1);
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
    put_and_flush(&pair, &run, 1);
    assert_run_landed(&run);
    bt_pair_close(&pair);
}

static void mapped_memory_is_the_targets_memory(void **state)
{
    (void)state;
    bt_pair pair;
    bt_pair_open(&pair, backend->open, REGION_BYTES);
    uint64_t base = (uint64_t)(uintptr_t)pair.pool->base;
    void *mapped = NULL;
    baton_status status = bt_remote_map(pair.remote, base + 4096, &mapped);
    if (backend->can_map) {
        assert_ok(status);
        memset(mapped, 0x5a, 100);
        assert_int_equal(((uint8_t *)pair.pool->base)[4096], 0x5a);
        assert_int_equal(((uint8_t *)pair.pool->base)[4195], 0x5a);
        assert_int_equal(((uint8_t *)pair.pool->base)[4196], 0);
    } else {
        assert_fails(status, BATON_ERR_UNREACHABLE, NULL);
        assert_null(mapped);
    }
    assert_fails(bt_remote_map(pair.remote, base + REGION_BYTES, &mapped), BATON_ERR_INVALID_ARG,
                 "cannot map");
    assert_fails(bt_remote_map(pair.remote, base - 1, &mapped), BATON_ERR_INVALID_ARG,
                 "cannot map");
    bt_pair_close(&pair);
}

static void damaged_addresses_and_keys_are_refused(void **state)
{
    (void)state;
    bt_pair pair;
    bt_pair_open(&pair, backend->open, REGION_BYTES);
    bt_endpoint *endpoint;
    bt_remote *remote;
    size_t n = pair.target->address_bytes, n_key = pair.pool->rkey_bytes;
    for (size_t cut = 1; cut < n; cut += 7) {
        uint8_t *bytes = bt_guarded_copy(pair.target->address, cut);
        assert_fails(bt_endpoint_connect(pair.writer, bytes, cut, 1, &endpoint),
                     BATON_ERR_INVALID_ARG, NULL);
        bt_guarded_free(bytes, cut);
    }
    uint8_t *address = bt_guarded_copy(pair.target->address, n);
    uint8_t *key = bt_guarded_copy(pair.pool->rkey, n_key);
    for (size_t i = 0; i < n; i++) {
        address[i] ^= 0x10;
        assert_true(bt_endpoint_connect(pair.writer, address, n, 1, &endpoint) < 0);
        address[i] ^= 0x10;
    }
    for (size_t i = 0; i < n_key; i++) {
        key[i] ^= 0x10;
        assert_true(bt_remote_import(pair.endpoint, key, n_key, &remote) < 0);
        key[i] ^= 0x10;
    }
    /* One is no other. */
    assert_fails(bt_endpoint_connect(pair.writer, key, n_key, 1, &endpoint), BATON_ERR_INVALID_ARG,
                 NULL);
    assert_fails(bt_remote_import(pair.endpoint, address, n, &remote), BATON_ERR_INVALID_ARG, NULL);
    assert_fails(bt_endpoint_connect(pair.writer, address, 0, 1, &endpoint), BATON_ERR_INVALID_ARG,
                 NULL);
    assert_fails(bt_remote_import(pair.endpoint, key, BT_RKEY_BYTES_MAX + 1, &remote),
                 BATON_ERR_INVALID_ARG, NULL);
    bt_guarded_free(address, n);
    bt_guarded_free(key, n_key);
    bt_pair_close(&pair);
}

static void destroying_workers_with_everything_open_leaks_nothing(void **state)
{
    (void)state;
    bt_pair pair;
    bt_pair_open(&pair, backend->open, REGION_BYTES);
    bt_run run = bt_pair_run(&pair, 0, 0, REGION_BYTES);
    for (uint32_t i = 0; i < 10; i++)
        assert_ok(bt_endpoint_put(pair.endpoint, pair.source, pair.remote, &run, 1, i));
    assert_ok(bt_endpoint_flush(pair.endpoint, 10));
    assert_ok(bt_endpoint_send(pair.endpoint, "late", 4));
    bt_remote_release(pair.remote);
    pair.remote = NULL;
    pair.endpoint = NULL; /* the worker closes it */
    bt_pair_close(&pair);
}

static void the_path_is_known_after_connecting(void **state)
{
    (void)state;
    bt_pair pair;
    bt_pair_open(&pair, backend->open, REGION_BYTES);
    bt_run run = bt_pair_run(&pair, 0, 0, 4096);
    put_and_flush(&pair, &run, 1);
    bt_path path;
    bt_endpoint_path(pair.endpoint, &path);
    assert_true(path.transport[0] != '\0' && path.device[0] != '\0' && path.n_rails >= 1);
    assert_int_equal(path.puts_are_mapped, backend->puts_are_mapped);
    print_message("path: %s over %s, %u rails\n", path.transport, path.device, path.n_rails);
    bt_pair_close(&pair);
}

int bt_transport_suite(const bt_suite_backend *tested)
{
    backend = tested;
    const struct CMUnitTest tests[] = {
        bt_test(scattered_runs_land_and_nothing_else_changes),
        bt_test(odd_sizes_and_descending_addresses_land),
        bt_test(regular_runs_land_piece_by_piece),
        bt_test(random_runs_land_as_they_were_joined),
        bt_test(one_large_run_lands),
        bt_test(memory_that_was_never_registered_can_be_put),
        bt_test(registered_memory_of_the_caller_is_a_source_and_a_target),
        bt_test(bad_puts_are_refused_before_anything_moves),
        bt_test(every_operation_is_reported_exactly_once),
        bt_test(flush_of_nothing_is_reported),
        bt_test(a_message_comes_behind_everything_put_before_it),
        bt_test(messages_of_all_sizes_come_once_and_in_order),
        bt_test(a_message_wakes_a_sleeping_target),
        bt_test(closing_with_flush_lands_what_was_posted),
        bt_test(closing_by_force_ends_every_operation_once),
        bt_test(many_endpoints_write_to_one_worker),
        bt_test(destroying_one_worker_leaves_the_others),
        bt_test(destroying_the_target_worker_fails_the_endpoint),
        bt_test(a_late_write_does_not_land_after_the_targets_worker_is_destroyed),
        bt_test(a_new_worker_can_be_connected_after_the_old_one_died),
        bt_test(mapped_memory_is_the_targets_memory),
        bt_test(damaged_addresses_and_keys_are_refused),
        bt_test(destroying_workers_with_everything_open_leaks_nothing),
        bt_test(the_path_is_known_after_connecting),
    };
    return bt_run_tests(tests);
}
