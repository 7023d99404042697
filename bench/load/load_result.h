/* SPDX-License-Identifier: Apache-2.0 */
/* A run as JSON: one flat object with the names that `vllm bench serve --save-result` writes, and
 * some more. Times are in seconds but for the members that end in _ms.
 * Thread rule: any thread (no state). */
#ifndef BT_BENCH_LOAD_RESULT_H
#define BT_BENCH_LOAD_RESULT_H
#include "bench/load/load_summary.h"
#include "core/strbuf.h"

#include <time.h>

/* date: when the run ended. more: further members, each begun with ",\n  "; "" for none. */
void bt_load_result_json(const bt_load_options *options, const bt_load_result *result,
                         const bt_load_summary *summary, time_t date, const char *more,
                         bt_strbuf *out);
/* Where the options say that it is to be saved. Errors: NO_MEMORY. */
baton_status bt_load_result_path(const bt_load_options *options, const bt_load_result *result,
                                 time_t date, bt_strbuf *path);
/* Writes text there; the folder is made when it is missing. Errors: IO and others of opening. */
baton_status bt_load_result_save(const bt_load_options *options, const char *path,
                                 const bt_strbuf *text);

#endif
