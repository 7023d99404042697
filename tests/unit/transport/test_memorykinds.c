/* SPDX-License-Identifier: Apache-2.0 */
/* Pinned and device memory behind the seam, on a fake driver: over loop, which can be told to reach
 * device memory, and over UCX, which cannot reach a fake one. */
#include "core/alloc.h"
#include "support/fakecuda.h"
#include "support/test.h"
#include "transport/loop.h"
#include "transport_suite.h"

enum { BYTES = 100000 };

static const fakecuda *gpu;
static bt_loop_net *net;

static void check_empty(void)
{
    fakecuda_counts counts;
    gpu->counts(&counts);
    assert_int_equal(counts.contexts + counts.allocations + counts.pins, 0);
}

static void make_loop(bool reaches_device)
{
    gpu = bt_fakecuda_open();
    assert_ok(bt_loop_net_create(1, NULL, &net));
    bt_loop_set_mapping(net, true, false);
    bt_loop_set_device(net, reaches_device);
}

static baton_status open_loop(bt_transport **transport_p)
{
    return bt_transport_create(&(bt_transport_options){.backend = "loop", .loop_net = net},
                               transport_p);
}

static baton_status open_ucx(bt_transport **transport_p)
{
    return bt_transport_create(&(bt_transport_options){.backend = "ucx"}, transport_p);
}

static void no_driver_is_an_error_only_for_cuda_kinds(void **state)
{
    (void)state;
    bt_cuda_driver_use("/nowhere/libcuda.so.1");
    bt_transport *transport;
    bt_memory *memory;
    assert_ok(open_ucx(&transport));
    assert_ok(bt_memory_alloc(transport, BYTES, BATON_MEMORY_HOST, &memory));
    bt_memory_free(memory);
    assert_fails(bt_memory_alloc(transport, BYTES, BATON_MEMORY_CUDA_HOST, &memory),
                 BATON_ERR_UNSUPPORTED, "wanted NVIDIA's driver");
    assert_fails(bt_memory_alloc(transport, BYTES, BATON_MEMORY_CUDA_DEVICE, &memory),
                 BATON_ERR_UNSUPPORTED, "wanted NVIDIA's driver");
    bt_transport_destroy(transport);
}

static void a_transport_that_does_not_reach_devices_says_what_is_missing(void **state)
{
    (void)state;
    make_loop(false);
    bt_transport *transport;
    bt_memory *memory;
    uint8_t device[1];
    assert_ok(open_loop(&transport));
    assert_fails(bt_memory_alloc(transport, BYTES, BATON_MEMORY_CUDA_DEVICE, &memory),
                 BATON_ERR_UNSUPPORTED, "staged through pinned memory");
    assert_fails(bt_memory_register(transport, device, 1, BATON_MEMORY_CUDA_DEVICE, &memory),
                 BATON_ERR_INVALID_ARG, "as device memory");
    bt_transport_destroy(transport);
    bt_loop_net_destroy(net);
    check_empty();
}

static void pinned_memory_is_put_and_mapped_like_host_memory(void **state)
{
    (void)state;
    baton_status (*const opens[])(bt_transport **) = {open_loop, open_ucx};
    for (int i = 0; i < 2; i++) {
        make_loop(false);
        bt_pair pair;
        bt_pair_open(&pair, opens[i], BYTES);
        bt_memory *source, *target;
        bt_remote *remote;
        assert_ok(bt_memory_alloc(pair.transport_a, BYTES, BATON_MEMORY_CUDA_HOST, &source));
        assert_ok(bt_memory_alloc(pair.transport_b, BYTES, BATON_MEMORY_CUDA_HOST, &target));
        fakecuda_counts counts;
        gpu->counts(&counts);
        assert_int_equal(counts.pins, 2);
        assert_int_equal(target->kind, BATON_MEMORY_CUDA_HOST);
        assert_ok(bt_remote_import(pair.endpoint, target->rkey, target->rkey_bytes, &remote));
        bt_rng rng = {7};
        bt_rng_fill(&rng, source->base, BYTES);
        const bt_run run = {.local_addr = (uintptr_t)source->base,
                            .remote_addr = (uintptr_t)target->base,
                            .bytes = BYTES};
        assert_ok(bt_endpoint_put(pair.endpoint, source, remote, &run, 1, 1));
        assert_ok(bt_endpoint_flush(pair.endpoint, 2));
        bt_pair_wait(&pair, BT_EVENT_PUT, 1);
        bt_pair_wait(&pair, BT_EVENT_FLUSH, 2);
        assert_memory_equal(target->base, source->base, BYTES);
        void *mapped;
        assert_ok(bt_remote_map(remote, (uintptr_t)target->base, &mapped));
        assert_memory_equal(mapped, source->base, BYTES);
        bt_remote_release(remote);
        bt_memory_free(source);
        bt_memory_free(target);
        bt_pair_close(&pair);
        bt_loop_net_destroy(net);
        check_empty();
    }
}

static void device_memory_is_put_from_and_to_and_never_mapped(void **state)
{
    (void)state;
    make_loop(true);
    bt_pair pair;
    bt_pair_open(&pair, open_loop, BYTES);
    bt_memory *source, *target;
    bt_remote *remote;
    void *own;
    bt_cuda *cuda;
    assert_ok(bt_transport_cuda(pair.transport_a, &cuda));
    assert_ok(bt_cuda_alloc(cuda, BYTES, &own));
    assert_ok(bt_memory_register(pair.transport_a, own, BYTES, BATON_MEMORY_CUDA_DEVICE, &source));
    assert_ok(bt_memory_alloc(pair.transport_b, BYTES, BATON_MEMORY_CUDA_DEVICE, &target));
    assert_int_equal(((uint8_t *)gpu->host(target->base))[BYTES - 1], 0); /* zeroed */
    assert_ok(bt_remote_import(pair.endpoint, target->rkey, target->rkey_bytes, &remote));
    void *mapped;
    assert_fails(bt_remote_map(remote, (uintptr_t)target->base, &mapped), BATON_ERR_UNREACHABLE,
                 NULL);
    bt_rng rng = {8};
    bt_rng_fill(&rng, gpu->host(own), BYTES);
    const bt_run run = {.local_addr = (uintptr_t)own + 1,
                        .remote_addr = (uintptr_t)target->base,
                        .bytes = BYTES - 1};
    assert_ok(bt_endpoint_put(pair.endpoint, source, remote, &run, 1, 1));
    assert_ok(bt_endpoint_flush(pair.endpoint, 2));
    bt_pair_wait(&pair, BT_EVENT_PUT, 1);
    bt_pair_wait(&pair, BT_EVENT_FLUSH, 2);
    assert_memory_equal(gpu->host(target->base), (uint8_t *)gpu->host(own) + 1, BYTES - 1);
    bt_remote_release(remote);
    bt_memory_free(source);
    bt_memory_free(target);
    bt_cuda_free(cuda, own);
    bt_pair_close(&pair);
    bt_loop_net_destroy(net);
    check_empty();
}

static void what_cannot_be_had_leaves_nothing(void **state)
{
    (void)state;
    static const baton_memory_kind kinds[] = {BATON_MEMORY_CUDA_HOST, BATON_MEMORY_CUDA_DEVICE};
    static const fakecuda_call calls[] = {FAKECUDA_PIN, FAKECUDA_ALLOC};
    for (int i = 0; i < 2; i++) {
        make_loop(true);
        bt_transport *transport;
        bt_memory *memory = NULL;
        assert_ok(open_loop(&transport));
        gpu->fail_call(calls[i], 1, BT_CU_OUT_OF_MEMORY);
        assert_fails(bt_memory_alloc(transport, BYTES, kinds[i], &memory), BATON_ERR_NO_MEMORY,
                     "100000 bytes");
        for (uint64_t nth = 1; memory == NULL; nth++) {
            bt_alloc_fail_at(nth);
            baton_status status = bt_memory_alloc(transport, BYTES, kinds[i], &memory);
            assert_true(status == BATON_OK || status == BATON_ERR_NO_MEMORY);
        }
        bt_alloc_fail_at(0);
        bt_memory_free(memory);
        bt_transport_destroy(transport);
        bt_loop_net_destroy(net);
        check_empty();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(no_driver_is_an_error_only_for_cuda_kinds),
        bt_test(a_transport_that_does_not_reach_devices_says_what_is_missing),
        bt_test(pinned_memory_is_put_and_mapped_like_host_memory),
        bt_test(device_memory_is_put_from_and_to_and_never_mapped),
        bt_test(what_cannot_be_had_leaves_nothing),
    };
    return bt_run_tests(tests);
}
