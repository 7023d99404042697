/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "core/alloc.h"
#include "core/wakesocket.h"

#include <poll.h>

static bool is_readable(const bt_wakesocket *wake)
{
    struct pollfd fd = {.fd = bt_wakesocket_fd(wake), .events = POLLIN};
    return poll(&fd, 1, 0) == 1;
}

static bool ring(bt_wakesocket *from, const bt_wakesocket *to)
{
    size_t bytes;
    const char *name = bt_wakesocket_name(to, &bytes);
    return bt_wakesocket_ring(from, name, bytes);
}

static void a_ring_is_heard_until_it_is_silenced(void **state)
{
    (void)state;
    bt_wakesocket *a, *b;
    assert_ok(bt_wakesocket_create(&a));
    assert_ok(bt_wakesocket_create(&b));
    assert_false(is_readable(b));
    assert_true(ring(a, b));
    assert_true(is_readable(b));
    assert_false(is_readable(a));
    bt_wakesocket_silence(b);
    assert_false(is_readable(b));
    bt_wakesocket_silence(b); /* nothing to take: does not wait */
    bt_wakesocket_destroy(a);
    bt_wakesocket_destroy(b);
}

static void more_rings_than_the_kernel_queues_are_one(void **state)
{
    (void)state;
    bt_wakesocket *a, *b;
    assert_ok(bt_wakesocket_create(&a));
    assert_ok(bt_wakesocket_create(&b));
    for (int i = 0; i < 500; i++)
        assert_true(ring(a, b));
    for (int i = 0; i < 100 && is_readable(b); i++)
        bt_wakesocket_silence(b);
    assert_false(is_readable(b));
    bt_wakesocket_destroy(a);
    bt_wakesocket_destroy(b);
}

static void nobody_answers_for_a_name_that_is_gone(void **state)
{
    (void)state;
    bt_wakesocket *a, *b;
    assert_ok(bt_wakesocket_create(&a));
    assert_ok(bt_wakesocket_create(&b));
    char gone[BT_WAKE_NAME_BYTES_MAX + 1], huge[BT_WAKE_NAME_BYTES_MAX + 1];
    size_t bytes;
    const char *name = bt_wakesocket_name(b, &bytes);
    assert_true(bytes <= BT_WAKE_NAME_BYTES_MAX);
    memcpy(gone, name, bytes);
    bt_wakesocket_destroy(b);
    assert_false(bt_wakesocket_ring(a, gone, bytes));
    assert_false(bt_wakesocket_ring(a, gone, 0));
    memset(huge, 'x', sizeof(huge));
    assert_false(bt_wakesocket_ring(a, huge, sizeof(huge)));
    bt_wakesocket_destroy(a);
    bt_wakesocket_destroy(NULL);
}

static void an_allocation_may_fail(void **state)
{
    (void)state;
    bt_wakesocket *wake = NULL;
    bt_alloc_fail_at(1);
    assert_fails(bt_wakesocket_create(&wake), BATON_ERR_NO_MEMORY, "wake socket");
    bt_alloc_fail_at(0);
    assert_null(wake);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(a_ring_is_heard_until_it_is_silenced),
        bt_test(more_rings_than_the_kernel_queues_are_one),
        bt_test(nobody_answers_for_a_name_that_is_gone),
        bt_test(an_allocation_may_fail),
    };
    return bt_run_tests(tests);
}
