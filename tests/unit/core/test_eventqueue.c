/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "core/alloc.h"
#include "core/eventqueue.h"

#include <poll.h>

static bool is_readable(bt_eventqueue *queue)
{
    struct pollfd fd = {.fd = bt_eventqueue_fd(queue), .events = POLLIN};
    return poll(&fd, 1, 0) == 1;
}

static void events_come_out_in_order_and_the_fd_says_when(void **state)
{
    (void)state;
    bt_eventqueue *queue;
    assert_ok(bt_eventqueue_create(sizeof(uint32_t), &queue));
    uint32_t next_in = 0, next_out = 0, out[7];
    bt_rng rng = {.state = 1};
    for (int step = 0; step < 2000; step++) {
        assert_int_equal(is_readable(queue), next_in != next_out);
        if (bt_rng_below(&rng, 2) == 0) {
            uint32_t n = (uint32_t)bt_rng_below(&rng, 20);
            assert_ok(bt_eventqueue_reserve(queue, n + 1));
            for (uint32_t i = 0; i < n; i++, next_in++)
                bt_eventqueue_push(queue, &next_in);
            bt_eventqueue_unreserve(queue, 1);
        }
        uint32_t n = bt_eventqueue_pop(queue, out, 7);
        for (uint32_t i = 0; i < n; i++)
            assert_int_equal(out[i], next_out++);
    }
    bt_eventqueue_destroy(queue);
}

static void reserved_room_needs_no_memory(void **state)
{
    (void)state;
    bt_eventqueue *queue;
    assert_ok(bt_eventqueue_create(sizeof(uint32_t), &queue));
    assert_ok(bt_eventqueue_reserve(queue, 100));
    bt_alloc_fail_at(1);
    assert_fails(bt_eventqueue_reserve(queue, 1000), BATON_ERR_NO_MEMORY, "1100 events");
    bt_alloc_fail_at(1);
    for (uint32_t i = 0; i < 100; i++)
        bt_eventqueue_push(queue, &i);
    assert_int_equal(bt_alloc_count(), 0);
    bt_eventqueue_destroy(queue);
}

static void a_held_queue_wakes_its_reader_once(void **state)
{
    (void)state;
    bt_eventqueue *queue;
    uint32_t out[4];
    assert_ok(bt_eventqueue_create(sizeof(uint32_t), &queue));
    assert_ok(bt_eventqueue_reserve(queue, 4));
    bt_eventqueue_hold(queue);
    for (uint32_t i = 0; i < 2; i++)
        bt_eventqueue_push(queue, &i);
    assert_false(is_readable(queue));
    assert_int_equal(bt_eventqueue_pop(queue, out, 1), 1);
    bt_eventqueue_release(queue);
    assert_true(is_readable(queue));
    bt_eventqueue_hold(queue); /* takes back no wake-up */
    assert_true(is_readable(queue));
    assert_int_equal(bt_eventqueue_pop(queue, out, 4), 1);
    assert_int_equal(out[0], 1);
    assert_false(is_readable(queue));
    bt_eventqueue_release(queue);
    assert_false(is_readable(queue));
    bt_eventqueue_push(queue, &out[0]);
    assert_true(is_readable(queue));
    bt_eventqueue_destroy(queue);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(events_come_out_in_order_and_the_fd_says_when),
        bt_test(reserved_room_needs_no_memory),
        bt_test(a_held_queue_wakes_its_reader_once),
    };
    return bt_run_tests(tests);
}
