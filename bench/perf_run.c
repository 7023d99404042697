/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/perf_run.h"

#include "bench/perf_usage.h"
#include "core/alloc.h"
#include "core/clock.h"
#include "core/fail.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static baton_status move(bt_perf_pair *pair, uint32_t iteration, bt_perf_sample *sample)
{
    baton_transfer transfer;
    baton_sender_event end;
    uint32_t n_pages = pair->work.n_pages;
    uint64_t cpu_ns = bt_perf_cpu_ns(), start_ns = bt_now_ns(&bt_clock_monotonic);
    BATON_TRY(bt_perf_pair_begin(pair, iteration, &transfer));
    for (uint32_t page = 0; page < n_pages; page++)
        BATON_TRY(bt_perf_pair_push(pair, transfer, page));
    BATON_TRY(baton_transfer_finish(pair->sender, transfer));
    BATON_TRY(bt_perf_pair_end(pair, true, n_pages, &end));
    *sample = (bt_perf_sample){.wall_ns = bt_now_ns(&bt_clock_monotonic) - start_ns,
                               .move_ns = end.move_ns,
                               .sender_cpu_ns = bt_perf_cpu_ns() - cpu_ns};
    return BATON_OK;
}

/* Whether what was measured is enough. */
static bool is_enough(const bt_perf_options *o, const bt_perf_result *result, uint64_t start_ns)
{
    if (result->n_samples == o->n_iterations)
        return true;
    return result->n_samples > 0 && o->budget_ns > 0 &&
           bt_now_ns(&bt_clock_monotonic) - start_ns >= o->budget_ns;
}

static baton_status iterate_all(bt_perf_pair *pair, uint64_t start_ns, bt_perf_result *result)
{
    const bt_perf_options *o = pair->options;
    for (uint32_t i = 0; !is_enough(o, result, start_ns); i++) {
        bt_perf_sample sample;
        BATON_TRY(bt_perf_pair_prepare(pair, i));
        BATON_TRY(move(pair, i, &sample));
        if (i == 0)
            result->connect_ns = bt_now_ns(&bt_clock_monotonic) - start_ns;
        BATON_TRY(bt_perf_pair_check(pair, i, i, &sample.receiver_cpu_ns));
        if (i >= o->n_warmup)
            result->samples[result->n_samples++] = sample;
    }
    return BATON_OK;
}

/* Whether a side that holds kb of memory has the pages that were asked for. */
static baton_status check_huge(bt_perf_huge asked, const char *what, uint64_t kb, uint64_t huge_kb)
{
    enum { TOO_SMALL_KB = 4096 };
    if (asked == BT_PERF_HUGE_OFF && huge_kb > 0)
        return bt_fail(BATON_ERR_STATE, "perf: --huge-pages off: found %" PRIu64 " KiB in the %s",
                       huge_kb, what);
    if (asked == BT_PERF_HUGE_ON && kb >= TOO_SMALL_KB && huge_kb < kb / 2)
        return bt_fail(BATON_ERR_UNSUPPORTED,
                       "perf: --huge-pages on: wanted %" PRIu64 " KiB of the %s in huge pages, "
                       "found %" PRIu64 " (/sys/kernel/mm/transparent_hugepage/: enabled madvise "
                       "for the source, shmem_enabled advise for the pool)",
                       kb, what, huge_kb);
    return BATON_OK;
}

/* What memory the transfers went between; both sides have touched all of it by now. */
static baton_status look_at_pages(bt_perf_pair *pair, bt_perf_result *result)
{
    const bt_perf_options *o = pair->options;
    char line[BT_PERF_LINE_BYTES];
    BATON_TRY(bt_perf_send(&pair->control, "usage"));
    BATON_TRY(bt_perf_expect(&pair->control, "usage", line));
    BATON_TRY(bt_perf_field(line, "huge_kb", 0, UINT64_MAX, &result->receiver_huge_kb));
    result->sender_huge_kb = bt_perf_huge_kb();
    BATON_TRY(check_huge(o->huge_pages, "source", o->n_pages * o->page_bytes / 1024,
                         result->sender_huge_kb));
    return check_huge(o->huge_pages, "pool", o->pool_pages * o->page_bytes / 1024,
                      result->receiver_huge_kb);
}

baton_status bt_perf_run(const bt_perf_options *options, const char *program,
                         bt_perf_result *result)
{
    bt_perf_pair pair;
    uint64_t start_ns = bt_now_ns(&bt_clock_monotonic);
    *result = (bt_perf_result){.samples = bt_calloc(options->n_iterations, sizeof(bt_perf_sample))};
    if (result->samples == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "perf: %u iterations", options->n_iterations);
    baton_status status = bt_perf_pair_open(options, program, &pair);
    if (status == BATON_OK)
        status = iterate_all(&pair, start_ns, result);
    if (status == BATON_OK)
        status = look_at_pages(&pair, result);
    result->n_verified = pair.n_verified;
    if (pair.sender != NULL)
        result->way = bt_perf_pair_path(&pair);
    snprintf(result->path, sizeof(result->path), "%s", pair.path);
    return bt_perf_pair_close(&pair, status);
}

void bt_perf_result_free(bt_perf_result *result)
{
    bt_free(result->samples);
    result->samples = NULL;
}
