/* SPDX-License-Identifier: Apache-2.0 */
#include "core/histogram.h"

static unsigned bucket_of(uint64_t value)
{
    return value <= 1 ? 0 : 64U - (unsigned)__builtin_clzll(value - 1);
}

/* Plain fields with atomic access: relaxed, since a snapshot orders nothing and only must not read
 * a torn number. With one writer, load and store do without a locked instruction. */
static void add(uint64_t *counter, uint64_t n)
{
    __atomic_store_n(counter, *counter + n, __ATOMIC_RELAXED);
}

void bt_histogram_record(bt_histogram *histogram, uint64_t value)
{
    add(&histogram->buckets[bucket_of(value)], 1);
    add(&histogram->sum, value);
    if (value > histogram->max)
        __atomic_store_n(&histogram->max, value, __ATOMIC_RELAXED);
}

void bt_histogram_snapshot(const bt_histogram *histogram, bt_histogram *out)
{
    for (unsigned i = 0; i < BT_HISTOGRAM_BUCKETS; i++)
        out->buckets[i] = __atomic_load_n(&histogram->buckets[i], __ATOMIC_RELAXED);
    out->sum = __atomic_load_n(&histogram->sum, __ATOMIC_RELAXED);
    out->max = __atomic_load_n(&histogram->max, __ATOMIC_RELAXED);
}

void bt_histogram_merge(bt_histogram *histogram, const bt_histogram *other)
{
    for (unsigned i = 0; i < BT_HISTOGRAM_BUCKETS; i++)
        add(&histogram->buckets[i], other->buckets[i]);
    add(&histogram->sum, other->sum);
    if (other->max > histogram->max)
        __atomic_store_n(&histogram->max, other->max, __ATOMIC_RELAXED);
}

uint64_t bt_histogram_count(const bt_histogram *histogram)
{
    uint64_t count = 0;
    for (unsigned i = 0; i < BT_HISTOGRAM_BUCKETS; i++)
        count += histogram->buckets[i];
    return count;
}

uint64_t bt_histogram_bound(unsigned bucket)
{
    return bucket >= 64 ? UINT64_MAX : UINT64_C(1) << bucket;
}

/* The point in the bucket below which share (0 to 1) of its values are, if they are spread evenly.
 */
static uint64_t within(const bt_histogram *histogram, unsigned bucket, double share)
{
    uint64_t low = bucket == 0 ? 0 : bt_histogram_bound(bucket - 1);
    uint64_t high = bt_histogram_bound(bucket);
    if (high > histogram->max)
        high = histogram->max;
    if (share >= 1.0 || high <= low)
        return high;
    uint64_t value = low + (uint64_t)(share * (double)(high - low));
    return value < high ? value : high;
}

uint64_t bt_histogram_percentile(const bt_histogram *histogram, double percent)
{
    uint64_t count = bt_histogram_count(histogram);
    if (count == 0)
        return 0;
    double rank = percent / 100.0 * (double)count, below = 0;
    for (unsigned i = 0; i < BT_HISTOGRAM_BUCKETS; i++) {
        double here = (double)histogram->buckets[i];
        if (here > 0 && below + here >= rank)
            return within(histogram, i, rank > below ? (rank - below) / here : 0.0);
        below += here;
    }
    return histogram->max;
}
