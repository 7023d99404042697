/* SPDX-License-Identifier: Apache-2.0 */
/* A token list as runs, which are computed once and replayed for every plane.
 *
 *   slots   4 5 6 7 | 20 21 | 3        runs  {slot 4, token 0, n 4} {20, 4, 2} {3, 6, 1}
 *
 * A run is tokens that are neighbours in the page and one token stride apart in the plane; blocks
 * that are neighbours in memory merge into one run. Skipped tokens are in no run.
 * Thread rule: any thread. */
#ifndef BT_KERNELS_KV_RUNS_H
#define BT_KERNELS_KV_RUNS_H
#include <baton/kv.h>

typedef struct {
    uint64_t paged_bytes; /* offset from the plane's base */
    uint32_t token;       /* first, in the page */
    uint32_t n_tokens;
} bt_kv_run;

/* On the stack: no allocation in this path. A chunk of 256 tokens is one batch at worst. */
enum { BT_KV_RUNS_PER_BATCH = 256 };

/* Fills runs from token *next on, and moves *next past what they cover. Returns their number. The
 * tokens have been checked (kv_check.h). */
uint32_t bt_kv_collect_runs(const baton_kv_view *view, const baton_kv_tokens *tokens,
                            uint32_t *next, bt_kv_run runs[BT_KV_RUNS_PER_BATCH]);

#endif
