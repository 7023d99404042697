/* SPDX-License-Identifier: Apache-2.0 */
/* Addresses, keys and paths: what one end knows of the other. */
#include "suite_parts.h"

#include <sys/resource.h>

static void mapped_memory_is_the_targets_memory(void **state)
{
    (void)state;
    bt_pair pair;
    bt_pair_open(&pair, bt_suite_tested->open, BT_SUITE_REGION_BYTES);
    uint64_t base = (uint64_t)(uintptr_t)pair.pool->base;
    void *mapped = NULL;
    baton_status status = bt_remote_map(pair.remote, base + 4096, &mapped);
    if (bt_suite_tested->can_map) {
        assert_ok(status);
        memset(mapped, 0x5a, 100);
        assert_int_equal(((uint8_t *)pair.pool->base)[4096], 0x5a);
        assert_int_equal(((uint8_t *)pair.pool->base)[4195], 0x5a);
        assert_int_equal(((uint8_t *)pair.pool->base)[4196], 0);
    } else {
        assert_fails(status, BATON_ERR_UNREACHABLE, NULL);
        assert_null(mapped);
    }
    assert_fails(bt_remote_map(pair.remote, base + BT_SUITE_REGION_BYTES, &mapped),
                 BATON_ERR_INVALID_ARG, "cannot map");
    assert_fails(bt_remote_map(pair.remote, base - 1, &mapped), BATON_ERR_INVALID_ARG,
                 "cannot map");
    bt_pair_close(&pair);
}

static uint64_t minor_faults(void)
{
    struct rusage usage;
    assert_int_equal(getrusage(RUSAGE_SELF, &usage), 0);
    return (uint64_t)usage.ru_minflt;
}

/* ThreadSanitizer would touch its own memory for each page, which faults. */
__attribute__((no_sanitize("thread"))) static uint64_t faults_of_touching(volatile uint8_t *bytes,
                                                                          size_t n, size_t page)
{
    uint64_t before = minor_faults();
    for (size_t at = 0; at < n; at += page)
        bytes[at] = (uint8_t)(bytes[at + 1] + 1);
    return minor_faults() - before;
}

static void populated_pages_cost_no_fault_and_keep_what_they_hold(void **state)
{
    (void)state;
    enum { PAGE = 4096, PAGES = BT_SUITE_REGION_BYTES / PAGE };
    bt_pair pair;
    bt_pair_open(&pair, bt_suite_tested->open, BT_SUITE_REGION_BYTES);
    uint64_t base = (uint64_t)(uintptr_t)pair.pool->base;
    memset(pair.pool->base, 0x5a, BT_SUITE_REGION_BYTES);
    assert_false(bt_remote_populate(pair.remote, base - 1, 2));
    assert_false(bt_remote_populate(pair.remote, base, BT_SUITE_REGION_BYTES + 1));
    void *mapped = NULL;
    if (bt_suite_tested->can_map)
        assert_ok(bt_remote_map(pair.remote, base, &mapped));
    bool is_populated = bt_remote_populate(pair.remote, base, BT_SUITE_REGION_BYTES);
    assert_true(bt_suite_tested->can_map || !is_populated);
    if (is_populated) {
        assert_true(faults_of_touching(mapped, BT_SUITE_REGION_BYTES, PAGE) < PAGES / 4);
        for (size_t page = 0; page < PAGES; page++)
            assert_int_equal(((uint8_t *)pair.pool->base)[page * PAGE], 0x5b);
    }
    bt_pair_close(&pair);
}

static void damaged_addresses_and_keys_are_refused(void **state)
{
    (void)state;
    bt_pair pair;
    bt_pair_open(&pair, bt_suite_tested->open, BT_SUITE_REGION_BYTES);
    bt_endpoint *endpoint;
    bt_remote *remote;
    size_t n = pair.target->address_bytes, n_key = pair.pool->rkey_bytes;
    for (size_t cut = 1; cut < n; cut += 7) {
        uint8_t *bytes = bt_guarded_copy(pair.target->address, cut);
        assert_fails(bt_endpoint_connect(pair.writer, bytes, cut, 1, &endpoint),
                     BATON_ERR_INVALID_ARG, NULL);
        bt_guarded_free(bytes, cut);
    }
    uint8_t *address = bt_guarded_copy(pair.target->address, n);
    uint8_t *key = bt_guarded_copy(pair.pool->rkey, n_key);
    for (size_t i = 0; i < n; i++) {
        address[i] ^= 0x10;
        assert_true(bt_endpoint_connect(pair.writer, address, n, 1, &endpoint) < 0);
        address[i] ^= 0x10;
    }
    for (size_t i = 0; i < n_key; i++) {
        key[i] ^= 0x10;
        assert_true(bt_remote_import(pair.endpoint, key, n_key, &remote) < 0);
        key[i] ^= 0x10;
    }
    /* One is no other. */
    assert_fails(bt_endpoint_connect(pair.writer, key, n_key, 1, &endpoint), BATON_ERR_INVALID_ARG,
                 NULL);
    assert_fails(bt_remote_import(pair.endpoint, address, n, &remote), BATON_ERR_INVALID_ARG, NULL);
    assert_fails(bt_endpoint_connect(pair.writer, address, 0, 1, &endpoint), BATON_ERR_INVALID_ARG,
                 NULL);
    assert_fails(bt_remote_import(pair.endpoint, key, BT_RKEY_BYTES_MAX + 1, &remote),
                 BATON_ERR_INVALID_ARG, NULL);
    bt_guarded_free(address, n);
    bt_guarded_free(key, n_key);
    bt_pair_close(&pair);
}

static void the_path_is_known_after_connecting(void **state)
{
    (void)state;
    bt_pair pair;
    bt_pair_open(&pair, bt_suite_tested->open, BT_SUITE_REGION_BYTES);
    bt_run run = bt_pair_run(&pair, 0, 0, 4096);
    bt_suite_put_and_flush(&pair, &run, 1);
    bt_path path;
    bt_endpoint_path(pair.endpoint, &path);
    assert_true(path.transport[0] != '\0' && path.device[0] != '\0' && path.n_rails >= 1);
    assert_int_equal(path.puts_are_mapped, bt_suite_tested->puts_are_mapped);
    print_message("path: %s over %s, %u rails\n", path.transport, path.device, path.n_rails);
    bt_pair_close(&pair);
}

int bt_suite_names(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(mapped_memory_is_the_targets_memory),
        bt_test(populated_pages_cost_no_fault_and_keep_what_they_hold),
        bt_test(damaged_addresses_and_keys_are_refused),
        bt_test(the_path_is_known_after_connecting),
    };
    return bt_run_tests(tests);
}
