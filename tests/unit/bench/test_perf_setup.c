/* SPDX-License-Identifier: Apache-2.0 */
#include "support/test.h"

#include "bench/perf_setup.h"

#include <stdio.h>
#include <string.h>
#include <sys/socket.h>

static bt_perf_control near, far;

static void a_setup_arrives_as_it_was_sent(void **state)
{
    (void)state;
    int fds[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    near = (bt_perf_control){.fd = fds[0]};
    far = (bt_perf_control){.fd = fds[1]};
    const bt_perf_options sent = {.n_pages = 3,
                                  .page_bytes = 12345678901,
                                  .pool_pages = 7,
                                  .seed = UINT64_MAX,
                                  .order = BT_PERF_DESCENDING,
                                  .paged = true,
                                  .shape = {8, 4, 64, 16},
                                  .digests = BATON_DIGESTS_SAMPLED,
                                  .flip_byte = true,
                                  .progress = BATON_PROGRESS_MANUAL,
                                  .transport = BT_PERF_TCP,
                                  .memory = BATON_MEMORY_CUDA_HOST,
                                  .huge_pages = BT_PERF_HUGE_ON,
                                  .copy_threads = 5,
                                  .data_lanes = 3};
    bt_perf_options got = {0};
    char line[BT_PERF_LINE_BYTES];
    assert_ok(bt_perf_setup_send(&near, &sent));
    assert_ok(bt_perf_receive(&far, true, line));
    assert_ok(bt_perf_setup_parse(line, &got));
    assert_memory_equal(&got, &sent, sizeof(got));
    bt_perf_close(&near);
    bt_perf_close(&far);
}

static void a_setup_that_is_too_large_or_cut_is_refused(void **state)
{
    (void)state;
    static const char good[] =
        "setup pages=3 page_bytes=4096 pool_pages=3 seed=0 order=0 paged=0 layers=1 heads=1 "
        "head_dim=1 block_tokens=1 digests=0 progress=0 transport=0 flip_byte=0 memory=0 "
        "copy_threads=1 data_lanes=1 huge_pages=0";
    static const struct {
        const char *from, *to;
    } cases[] = {{"pages=3 ", "pages=0 "},         {"pages=3 ", "pages=65537 "},
                 {"pool_pages=3", "pool_pages=2"}, {"order=0", "order=9"},
                 {"layers=1", "layers=65"},        {"heads=1", "heads=x"},
                 {"transport=0", "transport=6"},   {" flip_byte=0", ""},
                 {"memory=0", "memory=3"},         {"copy_threads=1", "copy_threads=65"},
                 {"data_lanes=1", "data_lanes=9"}, {"huge_pages=0", "huge_pages=3"}};
    bt_perf_options options = {0};
    assert_ok(bt_perf_setup_parse(good, &options));
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        char line[512];
        const char *at = strstr(good, cases[i].from);
        assert_non_null(at);
        snprintf(line, sizeof(line), "%.*s%s%s", (int)(at - good), good, cases[i].to,
                 at + strlen(cases[i].from));
        assert_fails(bt_perf_setup_parse(line, &options), BATON_ERR_BAD_MESSAGE, NULL);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        bt_test(a_setup_arrives_as_it_was_sent),
        bt_test(a_setup_that_is_too_large_or_cut_is_refused),
    };
    return bt_run_tests(tests);
}
