/* SPDX-License-Identifier: Apache-2.0 */
/* What the requests of a run ask: prompts made up from the seed or read from a file, lengths, and
 * the gaps between arrivals. Request i is the same in every run with the same options, in whatever
 * order requests are sent.
 * Thread rule: any thread once created. */
#ifndef BT_BENCH_LOAD_WORKLOAD_H
#define BT_BENCH_LOAD_WORKLOAD_H
#include "bench/load/load_options.h"
#include "core/strbuf.h"

typedef struct bt_load_workload bt_load_workload;

/* options are borrowed. Reads the prompt file: one prompt a line, or, when its name ends in .jsonl,
 * one JSON value a line: a string, or an object with "prompt" (text or token ids) or "messages"
 * (with chat), and optionally "max_tokens". Errors: NOT_FOUND, IO, BAD_MESSAGE (file and line),
 * INVALID_ARG (no prompt in it), NO_MEMORY. */
baton_status bt_load_workload_create(const bt_load_options *options, bt_load_workload **workload_p);
void bt_load_workload_destroy(bt_load_workload *workload); /* NULL is allowed. */

/* The body of request i, JSON, into *body (emptied first). Errors: NO_MEMORY. */
baton_status bt_load_workload_body(const bt_load_workload *workload, uint32_t i, const char *model,
                                   bt_strbuf *body);
/* Nanoseconds between the arrivals of request i and i + 1: exponential with mean 1 / rate. */
uint64_t bt_load_workload_gap_ns(const bt_load_workload *workload, uint32_t i);

#endif
