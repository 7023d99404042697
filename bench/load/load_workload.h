/* SPDX-License-Identifier: Apache-2.0 */
/* What the requests of a run ask: prompts made up from the seed or read from a file, lengths, and
 * conversations, whose turns begin with all that was said before.
 *
 *   request      0       1       2       3     ...       with 2 turns
 *                [ conversation 0 ]      [ conversation 1 ]
 *   prompt       a       a A b   c       c C d           A: the answer to a
 *
 * A request is the same in every run with the same options, in whatever order requests are sent,
 * but for the answers in it.
 * Thread rule: any thread once created. */
#ifndef BT_BENCH_LOAD_WORKLOAD_H
#define BT_BENCH_LOAD_WORKLOAD_H
#include "bench/load/load_options.h"
#include "bench/load/load_record.h"
#include "core/strbuf.h"

typedef struct bt_load_workload bt_load_workload;

/* options are borrowed. Errors: those of bt_load_prompts_read, NO_MEMORY. */
baton_status bt_load_workload_create(const bt_load_options *options, bt_load_workload **workload_p);
void bt_load_workload_destroy(bt_load_workload *workload); /* NULL is allowed. */

/* The body of request i, JSON, into *body (emptied first). earlier[i % n_turns] are the turns
 * before it; those that failed are left out. Errors: NO_MEMORY. */
baton_status bt_load_workload_body(const bt_load_workload *workload, uint32_t i,
                                   const bt_load_record *earlier, const char *model,
                                   bt_strbuf *body);

#endif
