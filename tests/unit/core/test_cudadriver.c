/* SPDX-License-Identifier: Apache-2.0 */
/* Finding the driver, the device and its promises; and the fake one keeping its own. */
#include "core/cudadevice.h"

#include "core/alloc.h"
#include "support/fakecuda.h"
#include "support/test.h"

#include <poll.h>

static const fakecuda *gpu;

static void nothing_is_left(void)
{
    fakecuda_counts counts;
    gpu->counts(&counts);
    assert_int_equal(counts.contexts + counts.allocations + counts.pins, 0);
    assert_int_equal(counts.streams + counts.events + counts.queued, 0);
}

static void without_a_driver_the_text_says_what_to_do(void **state)
{
    (void)state;
    bt_cuda *cuda = NULL;
    bt_cuda_driver_use("/nowhere/libcuda.so.1");
    for (int i = 0; i < 2; i++) /* the second answer is remembered */
        assert_fails(bt_cuda_open(&cuda), BATON_ERR_UNSUPPORTED, "wanted NVIDIA's driver");
    assert_null(cuda);
}

static void a_library_that_is_no_driver_is_refused(void **state)
{
    (void)state;
    bt_cuda *cuda;
    bt_cuda_driver_use("libm.so.6");
    assert_fails(bt_cuda_open(&cuda), BATON_ERR_UNSUPPORTED, "wanted cuInit in libm.so.6");
}

static void a_driver_without_a_device_is_refused(void **state)
{
    (void)state;
    bt_cuda *cuda;
    gpu = bt_fakecuda_open();
    gpu->fail_call(FAKECUDA_INIT, 1, BT_CU_NO_DEVICE);
    assert_fails(bt_cuda_open(&cuda), BATON_ERR_UNSUPPORTED, "no CUDA-capable device");
    gpu = bt_fakecuda_open();
    gpu->set_devices(0);
    assert_fails(bt_cuda_open(&cuda), BATON_ERR_UNSUPPORTED, "CUDA_VISIBLE_DEVICES");
    nothing_is_left();
}

static void device_memory_is_zeroed_copied_and_known(void **state)
{
    (void)state;
    gpu = bt_fakecuda_open();
    bt_cuda *cuda;
    void *memory;
    uint8_t bytes[100], zero[100] = {0};
    assert_ok(bt_cuda_open(&cuda));
    assert_string_equal(cuda->name, "a fake GPU");
    assert_ok(bt_cuda_alloc(cuda, sizeof(bytes), &memory));
    assert_true(bt_cuda_is_device_memory(cuda, memory));
    assert_false(bt_cuda_is_device_memory(cuda, bytes));
    assert_ok(bt_cuda_copy(cuda, bytes, memory, sizeof(bytes)));
    assert_memory_equal(bytes, zero, sizeof(bytes));
    memset(bytes, 7, sizeof(bytes));
    assert_ok(bt_cuda_copy(cuda, memory, bytes, sizeof(bytes)));
    assert_memory_equal(gpu->host(memory), bytes, sizeof(bytes));
    bt_cuda_free(cuda, memory);
    bt_cuda_close(cuda);
    nothing_is_left();
}

static void running_out_of_memory_is_told_with_the_size(void **state)
{
    (void)state;
    gpu = bt_fakecuda_open();
    bt_cuda *cuda;
    void *memory;
    assert_ok(bt_cuda_open(&cuda));
    gpu->fail_call(FAKECUDA_ALLOC, 1, BT_CU_OUT_OF_MEMORY);
    assert_fails(bt_cuda_alloc(cuda, 12345, &memory), BATON_ERR_NO_MEMORY, "12345 bytes");
    gpu->fail_call(FAKECUDA_PIN, 1, BT_CU_OUT_OF_MEMORY);
    assert_fails(bt_cuda_pin(cuda, &memory, 8), BATON_ERR_NO_MEMORY, "ulimit -l");
    bt_cuda_close(cuda);
    bt_alloc_fail_at(1);
    assert_fails(bt_cuda_open(&cuda), BATON_ERR_NO_MEMORY, NULL);
    nothing_is_left();
}

static void a_copy_outside_of_memory_breaks_the_context_for_good(void **state)
{
    (void)state;
    gpu = bt_fakecuda_open();
    bt_cuda *cuda;
    void *memory;
    uint8_t bytes[101];
    assert_ok(bt_cuda_open(&cuda));
    assert_ok(bt_cuda_alloc(cuda, 100, &memory));
    assert_fails(bt_cuda_copy(cuda, bytes, memory, 101), BATON_ERR_IO, "illegal memory access");
    assert_fails(bt_cuda_copy(cuda, bytes, memory, 1), BATON_ERR_IO, "illegal memory access");
    bt_cuda_free(cuda, memory);
    bt_cuda_close(cuda);
    nothing_is_left();
}

/* {ordering, flush options} -> flushes of one call, or a refusal. */
static void writes_are_flushed_where_the_device_does_not_order_them(void **state)
{
    (void)state;
    static const struct {
        int ordering, options;
        uint64_t n_flushes;
        baton_status status;
    } cases[] = {
        {0, 1, 1, BATON_OK},
        {0, 3, 1, BATON_OK},
        {100, 1, 0, BATON_OK},
        {200, 1, 0, BATON_OK},
        {100, 0, 0, BATON_OK},
        {0, 0, 0, BATON_ERR_UNSUPPORTED},
        {0, 2, 0, BATON_ERR_UNSUPPORTED},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        gpu = bt_fakecuda_open();
        gpu->set_write_ordering(cases[i].ordering, cases[i].options);
        bt_cuda *cuda;
        assert_ok(bt_cuda_open(&cuda));
        assert_int_equal(bt_cuda_flush_writes(cuda), cases[i].status);
        fakecuda_counts counts;
        gpu->counts(&counts);
        assert_int_equal(counts.flushes_total, cases[i].n_flushes);
        bt_cuda_close(cuda);
    }
    gpu->set_write_ordering(0, 1);
    bt_cuda *cuda;
    assert_ok(bt_cuda_open(&cuda));
    gpu->fail_call(FAKECUDA_FLUSH, 1, BT_CU_ILLEGAL_ADDRESS);
    assert_fails(bt_cuda_flush_writes(cuda), BATON_ERR_IO, "illegal memory access");
    bt_cuda_close(cuda);
    nothing_is_left();
}

static bool is_readable(int fd)
{
    struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
    return poll(&poll_fd, 1, 0) == 1;
}

static void a_stream_rings_when_it_gets_there_and_never_after_close(void **state)
{
    (void)state;
    gpu = bt_fakecuda_open();
    gpu->set_mode(FAKECUDA_HELD);
    bt_cuda *cuda;
    bt_cuda_waker *waker;
    bt_doorbell *bell;
    bt_cu_stream stream;
    assert_ok(bt_doorbell_create(&bell));
    assert_ok(bt_cuda_open(&cuda));
    assert_ok(bt_cuda_enter(cuda));
    assert_ok(bt_cuda_waker_open(bell, &waker));
    assert_int_equal(cuda->driver->stream_create(&stream, 0), BT_CU_SUCCESS);
    assert_true(bt_doorbell_sleep(bell));
    bt_cuda_waker_queue(waker, cuda, stream);
    assert_false(is_readable(bt_doorbell_fd(bell)));
    assert_int_equal(gpu->step(10), 1);
    assert_true(is_readable(bt_doorbell_fd(bell)));
    bt_doorbell_wake(bell);
    bt_cuda_waker_queue(waker, cuda, stream);
    gpu->fail_call(FAKECUDA_LAUNCH_HOST, 1, BT_CU_OUT_OF_MEMORY);
    bt_cuda_waker_queue(waker, cuda, stream); /* only costs time */
    bt_cuda_waker_close(waker);
    bt_doorbell_destroy(bell);
    assert_int_equal(gpu->step(10), 1); /* finds nobody */
    cuda->driver->stream_destroy(stream);
    bt_cuda_leave(cuda);
    bt_cuda_close(cuda);
    nothing_is_left();
}

static void calls_without_a_context_fail(void **state)
{
    (void)state;
    gpu = bt_fakecuda_open();
    bt_cuda *cuda;
    bt_cu_stream stream;
    bt_cu_event event;
    assert_ok(bt_cuda_open(&cuda));
    assert_int_equal(cuda->driver->stream_create(&stream, 0), BT_CU_INVALID_CONTEXT);
    assert_int_equal(cuda->driver->event_create(&event, 0), BT_CU_INVALID_CONTEXT);
    bt_cuda_close(cuda);
}

static void a_copy_reads_its_source_when_it_runs(void **state)
{
    (void)state;
    gpu = bt_fakecuda_open();
    gpu->set_mode(FAKECUDA_HELD);
    bt_cuda *cuda;
    bt_cu_stream streams[2];
    bt_cu_event event;
    uint8_t from = 1, to = 0;
    assert_ok(bt_cuda_open(&cuda));
    assert_ok(bt_cuda_enter(cuda));
    const bt_cuda_driver *driver = cuda->driver;
    for (int i = 0; i < 2; i++)
        assert_int_equal(driver->stream_create(&streams[i], 0), BT_CU_SUCCESS);
    assert_int_equal(driver->event_create(&event, 0), BT_CU_SUCCESS);
    assert_int_equal(driver->event_query(event), BT_CU_SUCCESS); /* never recorded */
    driver->event_record(event, streams[0]);
    driver->stream_wait_event(streams[1], event, 0);
    driver->copy_async((uintptr_t)&to, (uintptr_t)&from, 1, streams[1]);
    assert_int_equal(driver->event_query(event), BT_CU_NOT_READY);
    from = 2;
    assert_int_equal(gpu->step(1), 1);
    assert_int_equal(driver->event_query(event), BT_CU_SUCCESS);
    assert_int_equal(to, 0);
    assert_int_equal(gpu->step(10), 2);
    assert_int_equal(to, 2);
    fakecuda_counts counts;
    gpu->counts(&counts);
    assert_int_equal(counts.pageable_total, 2);
    driver->event_destroy(event);
    for (int i = 0; i < 2; i++)
        driver->stream_destroy(streams[i]);
    bt_cuda_leave(cuda);
    bt_cuda_close(cuda);
    nothing_is_left();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(without_a_driver_the_text_says_what_to_do),
        bt_test(a_library_that_is_no_driver_is_refused),
        bt_test(a_driver_without_a_device_is_refused),
        bt_test(device_memory_is_zeroed_copied_and_known),
        bt_test(running_out_of_memory_is_told_with_the_size),
        bt_test(a_copy_outside_of_memory_breaks_the_context_for_good),
        bt_test(writes_are_flushed_where_the_device_does_not_order_them),
        bt_test(a_stream_rings_when_it_gets_there_and_never_after_close),
        bt_test(calls_without_a_context_fail),
        bt_test(a_copy_reads_its_source_when_it_runs),
    };
    return bt_run_tests(tests);
}
