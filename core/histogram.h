/* SPDX-License-Identifier: Apache-2.0 */
/* Counts of values (nanoseconds, bytes) by powers of two: constant memory and time, and a
 * percentile that is never off by more than a factor of two.
 *
 *   bucket 0: 0 and 1     bucket i: above 2^(i-1), up to 2^i     bucket 64: above 2^63
 *
 * Thread rule: one thread records; any thread takes a snapshot, and works on its own snapshot.
 * A snapshot taken meanwhile may miss the newest values, or hold one in count but not in sum. */
#ifndef BT_CORE_HISTOGRAM_H
#define BT_CORE_HISTOGRAM_H
#include <stdint.h>

enum { BT_HISTOGRAM_BUCKETS = 65 };

typedef struct {
    uint64_t buckets[BT_HISTOGRAM_BUCKETS];
    uint64_t sum; /* wraps around after 2^64 */
    uint64_t max;
} bt_histogram; /* zero-initialised is empty */

void bt_histogram_record(bt_histogram *histogram, uint64_t value);
void bt_histogram_snapshot(const bt_histogram *histogram, bt_histogram *out);
/* Adds the counts of other; both of the calling thread. */
void bt_histogram_merge(bt_histogram *histogram, const bt_histogram *other);
uint64_t bt_histogram_count(const bt_histogram *histogram);
/* The value that percent (0 to 100) of all values do not exceed, estimated within its bucket;
 * at most the largest value recorded. 0 when empty. */
uint64_t bt_histogram_percentile(const bt_histogram *histogram, double percent);
/* Largest value of a bucket: 2^bucket, UINT64_MAX for the last. */
uint64_t bt_histogram_bound(unsigned bucket);

#endif
