/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "bench/load/load_arrivals.h"

#include <math.h>

enum { N = 20000 };

static bt_load_options options;
static uint64_t due[N];

static int make_options(void **state)
{
    options = (bt_load_options){.seed = 3, .burstiness = 1, .burst_size = 1};
    return bt_test_setup(state);
}

static double gap_ms(uint32_t i)
{
    return (double)(due[i] - due[i - 1]) / 1e6;
}

/* Standard deviation of the gaps over their mean: 1 for Poisson, 1 / sqrt(burstiness) else. */
static double variation(void)
{
    double sum = 0, squares = 0;
    for (uint32_t i = 1; i < N; i++) {
        sum += gap_ms(i);
        squares += gap_ms(i) * gap_ms(i);
    }
    double mean = sum / (N - 1);
    return sqrt(squares / (N - 1) - mean * mean) / mean;
}

static void the_rate_is_kept_whatever_the_gaps(void **state)
{
    (void)state;
    static const double shapes[] = {0.25, 0.5, 1, 2, 9};
    for (size_t k = 0; k < sizeof(shapes) / sizeof(shapes[0]); k++) {
        options.burstiness = shapes[k];
        bt_load_arrivals(&options, 50, N, due);
        assert_true(fabs((double)due[N - 1] - 20e6 * N) < 1e3);
        /* The seed is fixed, so this is no lottery. */
        assert_true(fabs(variation() * sqrt(shapes[k]) - 1) < 0.05);
    }
}

static void constant_gaps_are_equal(void **state)
{
    (void)state;
    options.burstiness = INFINITY;
    bt_load_arrivals(&options, 50, N, due);
    for (uint32_t i = 1; i < N; i++)
        assert_true(fabs(gap_ms(i) - 20) < 1e-3);
}

static void a_burst_arrives_at_once(void **state)
{
    (void)state;
    options.burst_size = 4;
    options.burstiness = INFINITY;
    bt_load_arrivals(&options, 50, N, due);
    for (uint32_t i = 1; i < N; i++)
        assert_true(fabs(gap_ms(i) - (i % 4 == 0 ? 80 : 0)) < 1e-3);
    assert_true(fabs((double)due[N - 1] - 20e6 * N) < 1e3);
}

static void a_ramp_changes_the_rate(void **state)
{
    (void)state;
    options.burstiness = INFINITY;
    options.ramp_start = 10;
    options.ramp_end = 1000;
    options.ramp = BT_LOAD_LINEAR;
    bt_load_arrivals(&options, 1, 101, due);
    assert_true(fabs(gap_ms(1) - 1e3 / (10 + 9.9)) < 1e-3);
    assert_true(fabs(gap_ms(50) - 1e3 / 505) < 1e-3);
    assert_true(fabs(gap_ms(100) - 1) < 1e-3);
    options.ramp = BT_LOAD_EXPONENTIAL;
    bt_load_arrivals(&options, 1, 101, due);
    assert_true(fabs(gap_ms(50) - 1e3 / 100) < 1e-3);
    assert_true(fabs(gap_ms(100) - 1) < 1e-3);
}

static void a_seed_says_when(void **state)
{
    (void)state;
    static uint64_t again[100];
    bt_load_arrivals(&options, 50, 100, due);
    bt_load_arrivals(&options, 50, 100, again);
    assert_memory_equal(due, again, sizeof(again));
    options.seed = 4;
    bt_load_arrivals(&options, 50, 100, again);
    assert_memory_not_equal(due, again, sizeof(again));
}

#define load_test(fn) cmocka_unit_test_setup_teardown(fn, make_options, bt_test_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        load_test(the_rate_is_kept_whatever_the_gaps),
        load_test(constant_gaps_are_equal),
        load_test(a_burst_arrives_at_once),
        load_test(a_ramp_changes_the_rate),
        load_test(a_seed_says_when),
    };
    return bt_run_tests(tests);
}
