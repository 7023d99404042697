/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "bench/perf_work.h"

static uint64_t layout_page_bytes(const bt_perf_work *work)
{
    uint64_t token_bytes;
    assert_ok(baton_layout_check(&work->layout));
    assert_ok(baton_layout_token_bytes(&work->layout, &token_bytes));
    return token_bytes * work->layout.chunk_tokens;
}

static void every_size_has_a_layout(void **state)
{
    (void)state;
    static const uint64_t sizes[] = {
        1,       2, 97, 4096, 65536, 65537, 262144, 262147, 1000003, 64 << 20, UINT64_C(3) << 30,
        12345678};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        bt_perf_work work = {.n_pages = 3, .page_bytes = sizes[i]};
        assert_ok(bt_perf_work_init(&work));
        assert_int_equal(layout_page_bytes(&work), sizes[i]);
    }
    bt_perf_work prime = {.n_pages = 1, .page_bytes = 1048583};
    assert_fails(bt_perf_work_init(&prime), BATON_ERR_INVALID_ARG, "found 1048583");
    bt_perf_work paged = {.n_pages = 2, .page_bytes = 3 * 4096, .paged = true};
    assert_ok(bt_perf_work_init(&paged));
    assert_int_equal(layout_page_bytes(&paged), 3 * 4096);
    paged.page_bytes = 5000;
    assert_fails(bt_perf_work_init(&paged), BATON_ERR_INVALID_ARG, "multiple of 4096");
    bt_perf_work many = {.n_pages = 65536, .page_bytes = 262147};
    assert_fails(bt_perf_work_init(&many), BATON_ERR_INVALID_ARG, "--pages");
}

static void the_first_wrong_byte_is_found(void **state)
{
    (void)state;
    for (uint64_t n = 1; n < 40; n++) {
        const bt_perf_work work = {.n_pages = 4, .page_bytes = n, .seed = 3};
        uint8_t bytes[40];
        bt_perf_fill_page(&work, 5, 2, bytes);
        assert_int_equal(bt_perf_check_page(&work, 5, 2, bytes), n);
        for (uint64_t i = 0; i < n; i++) {
            bytes[i] ^= 0x10;
            assert_int_equal(bt_perf_check_page(&work, 5, 2, bytes), i);
            bytes[i] ^= 0x10;
        }
    }
}

static void bytes_of_another_place_are_wrong(void **state)
{
    (void)state;
    const bt_perf_work work = {.n_pages = 4, .page_bytes = 64, .seed = 3};
    uint8_t bytes[64 + 8];
    bt_perf_fill_page(&work, 5, 2, bytes);
    assert_true(bt_perf_check_page(&work, 5, 3, bytes) < 64);
    assert_true(bt_perf_check_page(&work, 6, 2, bytes) < 64);
    assert_true(bt_perf_check_page(&work, 5, 2, bytes + 8) < 64);
}

static void names_and_tokens_differ_between_transfers(void **state)
{
    (void)state;
    bt_perf_work work = {.n_pages = 3, .page_bytes = 4096};
    uint32_t a[3], b[3];
    char name[BT_PERF_REQUEST_BYTES];
    assert_ok(bt_perf_work_init(&work));
    assert_int_equal(bt_perf_work_tokens(&work), 3);
    bt_perf_fill_tokens(&work, 7, a);
    bt_perf_fill_tokens(&work, 8, b);
    assert_int_not_equal(a[0], b[0]);
    bt_perf_request_name(7, name);
    assert_string_equal(name, "perf-7");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(every_size_has_a_layout),
        bt_test(the_first_wrong_byte_is_found),
        bt_test(bytes_of_another_place_are_wrong),
        bt_test(names_and_tokens_differ_between_transfers),
    };
    return bt_run_tests(tests);
}
