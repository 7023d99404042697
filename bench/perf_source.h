/* SPDX-License-Identifier: Apache-2.0 */
/* Where the sending end's pages lie: one after the other in shuffled, given or reverse order, or as
 * an engine's paged KV whose blocks are in that order.
 * Thread rule: owner thread. */
#ifndef BT_BENCH_PERF_SOURCE_H
#define BT_BENCH_PERF_SOURCE_H
#include "bench/perf_memory.h"
#include "bench/perf_options.h"
#include "bench/perf_work.h"

#include <baton/sender.h>

typedef struct bt_perf_source bt_perf_source;

/* work is borrowed. Errors: NO_MEMORY, INVALID_ARG, UNSUPPORTED (memory of a GPU without one). */
baton_status bt_perf_source_create(const bt_perf_work *work, bt_perf_order order,
                                   baton_memory_kind memory, bool huge, bt_perf_source **source_p);
void bt_perf_source_destroy(bt_perf_source *source); /* NULL is allowed. */
/* Makes the memory known to the sender, where that saves a copy. */
baton_status bt_perf_source_register(bt_perf_source *source, baton_sender *sender);
/* Writes an iteration's bytes; with flip_byte one of them is wrong. */
baton_status bt_perf_source_fill(bt_perf_source *source, uint32_t iteration, bool flip_byte);
baton_status bt_perf_source_push(bt_perf_source *source, baton_sender *sender,
                                 baton_transfer transfer, uint32_t page);

#endif
