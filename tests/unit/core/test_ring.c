/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "core/alloc.h"
#include "core/ring.h"

#include <poll.h>
#include <pthread.h>
#include <sched.h>

static bool bell_rings(const bt_ring *ring)
{
    struct pollfd bell = {.fd = bt_ring_fd(ring), .events = POLLIN};
    return poll(&bell, 1, 0) == 1;
}

static bt_ring *new_ring(uint32_t capacity, size_t record_bytes)
{
    bt_ring *ring = NULL;
    assert_ok(bt_ring_create(capacity, record_bytes, &ring));
    return ring;
}

static void records_come_out_in_order_over_many_laps(void **state)
{
    (void)state;
    bt_ring *ring = new_ring(4, sizeof(uint32_t));
    bt_rng rng = {.state = 7};
    uint32_t pushed = 0, popped = 0, record;
    for (int step = 0; step < 10000; step++) {
        if (bt_rng_below(&rng, 2) == 0) {
            baton_status wanted = pushed - popped == 4 ? BATON_ERR_BUSY : BATON_OK;
            baton_status found = bt_ring_push(ring, &pushed);
            assert_int_equal(found, wanted);
            pushed += found == BATON_OK;
        } else if (bt_ring_pop(ring, &record)) {
            assert_int_equal(record, popped);
            popped++;
        } else {
            assert_int_equal(popped, pushed);
        }
    }
    assert_true(popped > 1000);
    bt_ring_destroy(ring);
}

static void a_full_ring_is_busy_and_takes_nothing(void **state)
{
    (void)state;
    bt_ring *ring = new_ring(2, 3);
    assert_ok(bt_ring_push(ring, "aa"));
    assert_ok(bt_ring_push(ring, "bb"));
    assert_fails(bt_ring_push(ring, "cc"), BATON_ERR_BUSY, "all 2 are taken");
    char record[3];
    assert_true(bt_ring_pop(ring, record));
    assert_string_equal(record, "aa");
    assert_ok(bt_ring_push(ring, "dd"));
    assert_true(bt_ring_pop(ring, record));
    assert_string_equal(record, "bb");
    assert_true(bt_ring_pop(ring, record));
    assert_string_equal(record, "dd");
    assert_false(bt_ring_pop(ring, record));
    bt_ring_destroy(ring);
}

static void bad_sizes_are_refused(void **state)
{
    (void)state;
    bt_ring *ring = NULL;
    const uint32_t capacities[] = {0, 1, 3, 12, UINT32_MAX, UINT32_C(1) << 31};
    for (size_t i = 0; i < sizeof(capacities) / sizeof(capacities[0]); i++)
        assert_fails(bt_ring_create(capacities[i], 8, &ring), BATON_ERR_INVALID_ARG,
                     "power of two");
    assert_fails(bt_ring_create(8, 0, &ring), BATON_ERR_INVALID_ARG, "found 0");
    assert_fails(bt_ring_create(8, SIZE_MAX, &ring), BATON_ERR_INVALID_ARG, "bytes");
    assert_null(ring);
}

static void the_bell_rings_only_for_an_announced_sleeper(void **state)
{
    (void)state;
    bt_ring *ring = new_ring(8, sizeof(int));
    int record = 1;
    assert_ok(bt_ring_push(ring, &record));
    assert_false(bell_rings(ring));

    assert_false(bt_ring_announce_sleep(ring)); /* something is there: stay awake */
    assert_ok(bt_ring_push(ring, &record));
    assert_false(bell_rings(ring)); /* and the announcement is withdrawn */

    while (bt_ring_pop(ring, &record)) {
    }
    assert_true(bt_ring_announce_sleep(ring));
    assert_false(bell_rings(ring));
    assert_ok(bt_ring_push(ring, &record));
    assert_true(bell_rings(ring));
    bt_ring_end_sleep(ring);
    assert_false(bell_rings(ring));
    assert_ok(bt_ring_push(ring, &record));
    assert_false(bell_rings(ring));
    bt_ring_destroy(ring);
}

static void every_allocation_may_fail(void **state)
{
    (void)state;
    uint64_t nth = 1;
    for (;; nth++) {
        bt_ring *ring = NULL;
        bt_alloc_fail_at(nth);
        baton_status status = bt_ring_create(8, 16, &ring);
        bt_alloc_fail_at(0);
        if (status == BATON_OK) {
            bt_ring_destroy(ring);
            break;
        }
        assert_int_equal(status, BATON_ERR_NO_MEMORY);
        assert_null(ring);
    }
    assert_int_equal(nth, 3);
}

enum { N_PRODUCERS = 4, N_RECORDS = 20000 };

typedef struct {
    uint32_t producer, count;
    uint64_t check; /* so that a torn record is noticed */
    uint64_t filler[3];
} parcel;

typedef struct {
    bt_ring *ring;
    uint32_t producer;
} producer_arg;

static uint64_t check_of(uint32_t producer, uint32_t count)
{
    return ((uint64_t)producer << 32 | count) * UINT64_C(0x9e3779b97f4a7c15);
}

static void *produce(void *arg)
{
    const producer_arg *self = arg;
    for (uint32_t i = 0; i < N_RECORDS; i++) {
        uint64_t check = check_of(self->producer, i);
        parcel record = {self->producer, i, check, {check, check, check}};
        while (bt_ring_push(self->ring, &record) == BATON_ERR_BUSY)
            sched_yield();
    }
    return NULL;
}

/* Sleeps without a limit: a lost wake-up shows as a hang, which the test's time limit ends. */
static void take_one(bt_ring *ring, parcel *record)
{
    while (!bt_ring_pop(ring, record)) {
        if (!bt_ring_announce_sleep(ring))
            continue;
        struct pollfd bell = {.fd = bt_ring_fd(ring), .events = POLLIN};
        poll(&bell, 1, -1);
        bt_ring_end_sleep(ring);
    }
}

static void many_producers_lose_nothing_and_keep_their_order(void **state)
{
    (void)state;
    bt_ring *ring = new_ring(16, sizeof(parcel));
    pthread_t threads[N_PRODUCERS];
    producer_arg args[N_PRODUCERS];
    for (uint32_t i = 0; i < N_PRODUCERS; i++) {
        args[i] = (producer_arg){ring, i};
        assert_int_equal(pthread_create(&threads[i], NULL, produce, &args[i]), 0);
    }
    uint32_t next[N_PRODUCERS] = {0};
    for (uint32_t n = 0; n < N_PRODUCERS * N_RECORDS; n++) {
        parcel record;
        take_one(ring, &record);
        assert_true(record.producer < N_PRODUCERS);
        assert_int_equal(record.count, next[record.producer]);
        next[record.producer]++;
        uint64_t check = check_of(record.producer, record.count);
        assert_true(record.check == check && record.filler[2] == check);
    }
    for (int i = 0; i < N_PRODUCERS; i++)
        pthread_join(threads[i], NULL);
    parcel none;
    assert_false(bt_ring_pop(ring, &none));
    bt_ring_destroy(ring);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(records_come_out_in_order_over_many_laps),
        bt_test(a_full_ring_is_busy_and_takes_nothing),
        bt_test(bad_sizes_are_refused),
        bt_test(the_bell_rings_only_for_an_announced_sleeper),
        bt_test(every_allocation_may_fail),
        bt_test(many_producers_lose_nothing_and_keep_their_order),
    };
    return bt_run_tests(tests);
}
