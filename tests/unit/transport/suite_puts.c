/* SPDX-License-Identifier: Apache-2.0 */
/* What a put must do: every byte at its place, every operation reported once. */
#include "suite_parts.h"

#include <stdlib.h>

static void scattered_runs_land_and_nothing_else_changes(void **state)
{
    (void)state;
    enum { PAGE = 4096, N_RUNS = 100 };
    bt_pair pair;
    bt_pair_open(&pair, bt_suite_tested->open, BT_SUITE_REGION_BYTES);
    bt_pair_fill(&pair, 1);
    bt_run runs[N_RUNS];
    bt_rng rng = {2};
    uint8_t *expected = calloc(1, BT_SUITE_REGION_BYTES);
    for (uint32_t i = 0; i < N_RUNS; i++) {
        size_t from = bt_rng_below(&rng, BT_SUITE_REGION_BYTES / PAGE) * PAGE;
        runs[i] = bt_pair_run(&pair, from, (2 * i + 1) * PAGE, PAGE);
        memcpy(expected + (2 * i + 1) * PAGE, (uint8_t *)pair.source->base + from, PAGE);
    }
    bt_suite_put_and_flush(&pair, runs, N_RUNS);
    assert_memory_equal(pair.pool->base, expected, BT_SUITE_REGION_BYTES);
    free(expected);
    bt_pair_close(&pair);
}

static void odd_sizes_and_descending_addresses_land(void **state)
{
    (void)state;
    static const size_t sizes[] = {1, 2, 3, 7, 63, 64, 65, 511, 4095, 4097, 65537, 262147};
    enum { N_RUNS = sizeof(sizes) / sizeof(sizes[0]) };
    bt_pair pair;
    bt_pair_open(&pair, bt_suite_tested->open, BT_SUITE_REGION_BYTES);
    bt_pair_fill(&pair, 3);
    bt_run runs[N_RUNS];
    size_t end = BT_SUITE_REGION_BYTES, from = 1;
    for (uint32_t i = 0; i < N_RUNS; i++) {
        end -= sizes[i] + 1;
        runs[i] = bt_pair_run(&pair, from, end, sizes[i]);
        from += sizes[i];
    }
    bt_suite_put_and_flush(&pair, runs, N_RUNS);
    for (uint32_t i = 0; i < N_RUNS; i++) {
        bt_suite_assert_landed(&runs[i]);
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
    bt_pair_open(&pair, bt_suite_tested->open, BYTES);
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
    bt_suite_put_and_flush(&pair, runs, N);
    assert_memory_equal(pair.pool->base, expected, BYTES);
    free(expected);
    bt_pair_close(&pair);
}

static void random_runs_land_as_they_were_joined(void **state)
{
    (void)state;
    enum { PAGE = 512, PAGES = BT_SUITE_REGION_BYTES / PAGE, ROUNDS = 40, MAX = 300 };
    bt_pair pair;
    bt_pair_open(&pair, bt_suite_tested->open, BT_SUITE_REGION_BYTES);
    bt_rng rng = {31};
    uint8_t *expected = calloc(1, BT_SUITE_REGION_BYTES);
    bt_run runs[MAX];
    for (uint32_t round = 0; round < ROUNDS; round++) {
        bt_pair_fill(&pair, round);
        memset(expected, 0, BT_SUITE_REGION_BYTES);
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
        bt_suite_put_and_flush(&pair, runs, n_runs);
        assert_memory_equal(pair.pool->base, expected, BT_SUITE_REGION_BYTES);
    }
    free(expected);
    bt_pair_close(&pair);
}

static void one_large_run_lands(void **state)
{
    (void)state;
    enum { BYTES = 24 << 20 };
    bt_pair pair;
    bt_pair_open(&pair, bt_suite_tested->open, BYTES);
    bt_pair_fill(&pair, 4);
    bt_run run = bt_pair_run(&pair, 0, 0, BYTES);
    bt_suite_put_and_flush(&pair, &run, 1);
    bt_suite_assert_landed(&run);
    bt_pair_close(&pair);
}

static void memory_that_was_never_registered_can_be_put(void **state)
{
    (void)state;
    enum { BYTES = 100000 };
    bt_pair pair;
    bt_pair_open(&pair, bt_suite_tested->open, BT_SUITE_REGION_BYTES);
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
    bt_pair_open(&pair, bt_suite_tested->open, BT_SUITE_REGION_BYTES);
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
    bt_pair_open(&pair, bt_suite_tested->open, BT_SUITE_REGION_BYTES);
    bt_pair_fill(&pair, 7);
    bt_run good = bt_pair_run(&pair, 0, 0, 64);
    assert_fails(bt_endpoint_put(pair.endpoint, pair.source, pair.remote, &good, 0, 1),
                 BATON_ERR_INVALID_ARG, "1 run");
    const bt_run bad[] = {
        bt_pair_run(&pair, 0, 0, 0),
        bt_pair_run(&pair, BT_SUITE_REGION_BYTES - 63, 0, 64),
        bt_pair_run(&pair, 0, BT_SUITE_REGION_BYTES - 63, 64),
        bt_pair_run(&pair, (size_t)-1, 0, 64),
        bt_pair_run(&pair, 0, (size_t)-1, 64),
        bt_pair_run(&pair, 0, 0, SIZE_MAX),
        bt_pair_run(&pair, BT_SUITE_REGION_BYTES, BT_SUITE_REGION_BYTES, 1),
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        bt_run runs[2] = {good, bad[i]};
        assert_fails(bt_endpoint_put(pair.endpoint, pair.source, pair.remote, runs, 2, 1),
                     BATON_ERR_INVALID_ARG, NULL);
    }
    static const struct {
        uint32_t count;
        int64_t local_stride, remote_stride;
    } outside[] = {{2, BT_SUITE_REGION_BYTES - 63, 0},
                   {2, 0, BT_SUITE_REGION_BYTES - 63},
                   {2, -1, 0},
                   {2, 0, -1},
                   {3, INT64_MAX, 0},
                   {UINT32_MAX, 0, INT64_MIN},
                   {5, 0, INT64_MAX / 2 + 1},
                   {BT_SUITE_REGION_BYTES / 64 + 1, 0, 64}};
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

static void every_operation_is_reported_exactly_once(void **state)
{
    (void)state;
    enum { N = 500 };
    bt_pair pair;
    bt_pair_open(&pair, bt_suite_tested->open, BT_SUITE_REGION_BYTES);
    bt_pair_fill(&pair, 8);
    for (uint32_t i = 0; i < N; i++) {
        bt_run run = bt_pair_run(&pair, i * 1024, i * 1024, 1024);
        assert_ok(bt_endpoint_put(pair.endpoint, pair.source, pair.remote, &run, 1, i));
    }
    uint32_t counts[N] = {0};
    bt_suite_collect(&pair, BT_EVENT_PUT, counts, N);
    for (uint32_t i = 0; i < N; i++)
        assert_int_equal(counts[i], 1);
    assert_ok(bt_endpoint_flush(pair.endpoint, 1));
    assert_ok(bt_endpoint_flush(pair.endpoint, 0));
    uint32_t flushes[2] = {0};
    bt_suite_collect(&pair, BT_EVENT_FLUSH, flushes, 2);
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
    bt_pair_open(&pair, bt_suite_tested->open, BT_SUITE_REGION_BYTES);
    assert_ok(bt_endpoint_flush(pair.endpoint, 9));
    bt_pair_wait(&pair, BT_EVENT_FLUSH, 9);
    bt_pair_close(&pair);
}

int bt_suite_puts(void)
{
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
    };
    return bt_run_tests(tests);
}
