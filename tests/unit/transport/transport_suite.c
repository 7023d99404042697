/* SPDX-License-Identifier: Apache-2.0 */
#include "transport_suite.h"

#include "suite_parts.h"

const bt_suite_backend *bt_suite_tested;

void bt_suite_put_and_flush(bt_pair *pair, const bt_run *runs, uint32_t n_runs)
{
    assert_ok(bt_endpoint_put(pair->endpoint, pair->source, pair->remote, runs, n_runs, 1));
    assert_ok(bt_endpoint_flush(pair->endpoint, 2));
    bt_pair_wait(pair, BT_EVENT_PUT, 1);
    bt_pair_wait(pair, BT_EVENT_FLUSH, 2);
}

void bt_suite_assert_landed(const bt_run *run)
{
    assert_memory_equal((void *)(uintptr_t)run->remote_addr, (void *)(uintptr_t)run->local_addr,
                        run->bytes);
}

void bt_suite_collect(bt_pair *pair, bt_event_kind kind, uint32_t *counts, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        bt_event event = bt_pair_next_event(pair);
        assert_ok(event.status);
        assert_int_equal(event.kind, kind);
        assert_true(event.user_data < n);
        counts[event.user_data]++;
    }
}

int bt_transport_suite(const bt_suite_backend *tested)
{
    bt_suite_tested = tested;
    int n_failed = bt_suite_puts() + bt_suite_messages() + bt_suite_lives() + bt_suite_names();
    return n_failed == 0 ? 0 : 1;
}
