/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "bench/perf_soak.h"

enum { N = 8 };

static bt_perf_rest rests[N];

static void begin(void)
{
    for (uint32_t i = 0; i < N; i++) {
        const bt_perf_usage usage = {
            .rss_kb = 20000 + i, .fds = 30, .maps = 200, .registered = 4, .remotes = 5};
        rests[i] = (bt_perf_rest){.n_transfers = 100 * (i + 1),
                                  .sender = usage,
                                  .receiver = usage,
                                  .pages_total = 320,
                                  .pages_usable = 320};
    }
}

static void flat_figures_are_good(void **state)
{
    (void)state;
    begin();
    assert_ok(bt_perf_soak_judge(rests, N));
    /* What grows only at first is warm-up; what shrinks does no harm. */
    rests[0].sender.rss_kb = 1000;
    rests[0].receiver.fds = 10;
    rests[N - 1].sender.fds = 5;
    assert_ok(bt_perf_soak_judge(rests, N));
}

static void whatever_grows_is_named(void **state)
{
    (void)state;
    static const struct {
        size_t offset;
        uint64_t more;
        const char *text;
    } cases[] = {
        {offsetof(bt_perf_rest, sender.rss_kb), 6000, "the sender's RSS (KiB) grew"},
        {offsetof(bt_perf_rest, receiver.fds), 1, "the receiver's descriptors grew from 30 to 31"},
        {offsetof(bt_perf_rest, sender.maps), 9, "the sender's mappings"},
        {offsetof(bt_perf_rest, receiver.registered), 1, "the receiver's UCX registrations"},
        {offsetof(bt_perf_rest, sender.remotes), 1, "the sender's unpacked keys"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        begin();
        *(uint64_t *)(void *)((char *)&rests[N - 2] + cases[i].offset) += cases[i].more;
        assert_fails(bt_perf_soak_judge(rests, N), BATON_ERR_STATE, cases[i].text);
    }
}

static void pages_that_do_not_come_back_are_a_leak(void **state)
{
    (void)state;
    begin();
    rests[2].pages_usable--;
    assert_fails(bt_perf_soak_judge(rests, N), BATON_ERR_STATE, "319 of 320 pages");
    begin();
    rests[N - 1].live = 1;
    assert_fails(bt_perf_soak_judge(rests, N), BATON_ERR_STATE, "1 tickets");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(flat_figures_are_good),
        bt_test(whatever_grows_is_named),
        bt_test(pages_that_do_not_come_back_are_a_leak),
    };
    return bt_run_tests(tests);
}
