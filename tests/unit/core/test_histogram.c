/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "core/histogram.h"

#include <pthread.h>
#include <stdlib.h>

static void every_value_is_in_the_bucket_whose_bounds_hold_it(void **state)
{
    (void)state;
    const uint64_t values[] = {0, 1, 2, 3, 4, 5, 1024, 1025, UINT64_C(1) << 63, UINT64_MAX};
    for (size_t i = 0; i < sizeof(values) / sizeof(values[0]); i++) {
        bt_histogram histogram = {0};
        bt_histogram_record(&histogram, values[i]);
        unsigned bucket = 0;
        while (histogram.buckets[bucket] == 0)
            bucket++;
        assert_true(values[i] <= bt_histogram_bound(bucket));
        assert_true(bucket == 0 || values[i] > bt_histogram_bound(bucket - 1));
        assert_int_equal(bt_histogram_count(&histogram), 1);
    }
}

static int by_value(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Against the exact answer of a sorted list. */
static void percentiles_are_within_a_factor_of_two(void **state)
{
    (void)state;
    enum { N = 5000 };
    static uint64_t values[N];
    bt_rng rng = {.state = 3};
    bt_histogram histogram = {0};
    for (int i = 0; i < N; i++) {
        values[i] = 1 + bt_rng_below(&rng, UINT64_C(1) << (1 + bt_rng_below(&rng, 40)));
        bt_histogram_record(&histogram, values[i]);
    }
    qsort(values, N, sizeof(values[0]), by_value);
    for (int percent = 1; percent <= 100; percent++) {
        uint64_t exact = values[percent * N / 100 - 1];
        uint64_t estimate = bt_histogram_percentile(&histogram, percent);
        assert_true(estimate >= exact / 2 && estimate <= exact * 2);
    }
    assert_int_equal(bt_histogram_percentile(&histogram, 100), values[N - 1]);
}

static void an_empty_histogram_answers_zero(void **state)
{
    (void)state;
    bt_histogram histogram = {0};
    assert_int_equal(bt_histogram_percentile(&histogram, 99), 0);
    assert_int_equal(bt_histogram_count(&histogram), 0);
}

static void merging_equals_recording_both(void **state)
{
    (void)state;
    bt_histogram a = {0}, b = {0}, both = {0}, copy;
    bt_rng rng = {.state = 9};
    for (int i = 0; i < 100; i++) {
        uint64_t value = bt_rng_below(&rng, 100000);
        bt_histogram_record(i % 3 == 0 ? &a : &b, value);
        bt_histogram_record(&both, value);
    }
    bt_histogram_merge(&a, &b);
    bt_histogram_snapshot(&a, &copy);
    assert_memory_equal(&copy, &both, sizeof(both));
}

enum { N_RECORDED = 100000 };

static void *record_many(void *arg)
{
    for (uint64_t i = 1; i <= N_RECORDED; i++)
        bt_histogram_record(arg, i);
    return NULL;
}

static void snapshots_may_be_taken_while_another_thread_records(void **state)
{
    (void)state;
    static bt_histogram histogram;
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, record_many, &histogram), 0);
    uint64_t before = 0;
    while (before < N_RECORDED) {
        bt_histogram copy;
        bt_histogram_snapshot(&histogram, &copy);
        uint64_t count = bt_histogram_count(&copy);
        assert_true(count >= before && count <= N_RECORDED);
        before = count;
    }
    pthread_join(thread, NULL);
    assert_int_equal(histogram.max, N_RECORDED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(every_value_is_in_the_bucket_whose_bounds_hold_it),
        bt_test(percentiles_are_within_a_factor_of_two),
        bt_test(an_empty_histogram_answers_zero),
        bt_test(merging_equals_recording_both),
        bt_test(snapshots_may_be_taken_while_another_thread_records),
    };
    return bt_run_tests(tests);
}
