/* SPDX-License-Identifier: Apache-2.0 */
#include "transport_suite.h"

#include <poll.h>

#include "support/test.h"

enum { MAX_WORKERS = 16, HANG_GUARD_S = 300 };

void bt_pair_open(bt_pair *pair, baton_status (*open)(bt_transport **), size_t bytes)
{
    *pair = (bt_pair){0};
    assert_ok(open(&pair->transport_a));
    assert_ok(open(&pair->transport_b));
    assert_ok(bt_worker_create(pair->transport_a, &pair->writer));
    assert_ok(bt_worker_create(pair->transport_b, &pair->target));
    assert_ok(bt_memory_alloc(pair->transport_a, bytes, BATON_MEMORY_HOST, &pair->source));
    assert_ok(bt_memory_alloc(pair->transport_b, bytes, BATON_MEMORY_HOST, &pair->pool));
    assert_ok(bt_endpoint_connect(pair->writer, pair->target->address, pair->target->address_bytes,
                                  77, &pair->endpoint));
    assert_ok(
        bt_remote_import(pair->endpoint, pair->pool->rkey, pair->pool->rkey_bytes, &pair->remote));
}

void bt_pair_close(bt_pair *pair)
{
    bt_remote_release(pair->remote);
    if (pair->endpoint != NULL) {
        bt_endpoint_close(pair->endpoint, BT_CLOSE_FORCE, 78);
        bt_pair_wait(pair, BT_EVENT_CLOSED, 78);
    }
    bt_worker_destroy(pair->writer);
    bt_worker_destroy(pair->target);
    bt_memory_free(pair->source);
    bt_memory_free(pair->pool);
    bt_transport_destroy(pair->transport_a);
    bt_transport_destroy(pair->transport_b);
}

bt_run bt_pair_run(const bt_pair *pair, size_t source_offset, size_t pool_offset, size_t bytes)
{
    return (bt_run){.local_addr = (uint64_t)(uintptr_t)pair->source->base + source_offset,
                    .remote_addr = (uint64_t)(uintptr_t)pair->pool->base + pool_offset,
                    .bytes = bytes};
}

void bt_pair_fill(bt_pair *pair, uint64_t seed)
{
    bt_rng rng = {seed};
    bt_rng_fill(&rng, pair->source->base, pair->source->bytes);
    memset(pair->pool->base, 0, pair->pool->bytes);
}

/* Sleeps until one of the workers may have work. */
static void wait_for_work(bt_worker *const *workers, uint32_t n)
{
    struct pollfd fds[MAX_WORKERS];
    assert_true(n <= MAX_WORKERS);
    for (uint32_t i = 0; i < n; i++) {
        baton_status status = bt_worker_arm(workers[i]);
        if (status == BATON_ERR_BUSY)
            return;
        assert_ok(status);
        fds[i] = (struct pollfd){.fd = bt_worker_fd(workers[i]), .events = POLLIN};
    }
    if (poll(fds, n, HANG_GUARD_S * 1000) == 0)
        fail_msg("no event in %d s: a worker's fd does not wake up, or an operation got lost",
                 HANG_GUARD_S);
}

bt_event bt_next_event(bt_worker *worker, bt_worker *const *others, uint32_t n)
{
    bt_worker *all[MAX_WORKERS] = {worker};
    uint32_t n_all = 1;
    for (uint32_t i = 0; i < n; i++)
        if (others[i] != NULL)
            all[n_all++] = others[i];
    for (;;) {
        bt_event event;
        if (bt_worker_progress(worker, &event, 1) == 1)
            return event;
        for (uint32_t i = 1; i < n_all; i++) {
            bt_event unexpected;
            assert_int_equal(bt_worker_progress(all[i], &unexpected, 1), 0);
        }
        wait_for_work(all, n_all);
    }
}

bt_event bt_pair_next_event(bt_pair *pair)
{
    return bt_next_event(pair->writer, &pair->target, 1);
}

void bt_pair_wait(bt_pair *pair, bt_event_kind kind, uint64_t user_data)
{
    bt_event event = bt_pair_next_event(pair);
    if (event.status < 0)
        print_error("event %d: %s\n", (int)event.kind, event.text);
    assert_int_equal(event.kind, kind);
    assert_int_equal(event.user_data, user_data);
    assert_ok(event.status);
}
