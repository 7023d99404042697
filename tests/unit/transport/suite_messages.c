/* SPDX-License-Identifier: Apache-2.0 */
/* Messages: behind the data, once, in order. */
#include "suite_parts.h"

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
    enum { ROUNDS = 20, BYTES = BT_SUITE_REGION_BYTES };
    bt_pair pair;
    bt_pair_open(&pair, bt_suite_tested->open, BT_SUITE_REGION_BYTES);
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
        bt_suite_assert_landed(&runs[0]);
        bt_suite_assert_landed(&runs[1]);
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
    bt_pair_open(&pair, bt_suite_tested->open, BT_SUITE_REGION_BYTES);
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
    bt_pair_open(&pair, bt_suite_tested->open, BT_SUITE_REGION_BYTES);
    assert_ok(bt_endpoint_send(pair.endpoint, "bell", 4));
    bt_event event = bt_next_event(pair.target, &pair.writer, 1);
    assert_message(&event, "bell", 4);
    bt_pair_close(&pair);
}

int bt_suite_messages(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(a_message_comes_behind_everything_put_before_it),
        bt_test(messages_of_all_sizes_come_once_and_in_order),
        bt_test(a_message_wakes_a_sleeping_target),
    };
    return bt_run_tests(tests);
}
