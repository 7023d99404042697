/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "bench/perf_quantiles.h"

static void assert_quantiles(const bt_perf_quantiles *q, double min, double median, double p90,
                             double p99, double max)
{
    const double wanted[] = {min, median, p90, p99, max};
    const double found[] = {q->min, q->median, q->p90, q->p99, q->max};
    for (int i = 0; i < 5; i++) {
        if (found[i] < wanted[i] || found[i] > wanted[i])
            fail_msg("%d: wanted %f, found %f", i, wanted[i], found[i]);
    }
}

static void quantiles_are_values_that_were_seen(void **state)
{
    (void)state;
    bt_perf_values values;
    assert_ok(bt_perf_values_create(200, &values));
    for (uint32_t i = 200; i-- > 0;)
        bt_perf_values_add(&values, (i + 1) * UINT64_C(1000));
    bt_perf_quantiles q = bt_perf_quantiles_of(&values);
    assert_quantiles(&q, 1, 100.5, 180, 198, 200);
    bt_perf_values_free(&values);
}

static void a_single_value_is_every_quantile(void **state)
{
    (void)state;
    bt_perf_values values;
    assert_ok(bt_perf_values_create(1, &values));
    bt_perf_values_add(&values, 2500);
    bt_perf_quantiles q = bt_perf_quantiles_of(&values);
    assert_quantiles(&q, 2.5, 2.5, 2.5, 2.5, 2.5);
    bt_perf_values_free(&values);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(quantiles_are_values_that_were_seen),
        bt_test(a_single_value_is_every_quantile),
    };
    return bt_run_tests(tests);
}
