/* SPDX-License-Identifier: Apache-2.0 */
/* Two saved results side by side, of baton-load or of `vllm bench serve`.
 * Thread rule: any thread (no state). */
#ifndef BT_BENCH_LOAD_COMPARE_H
#define BT_BENCH_LOAD_COMPARE_H
#include "core/strbuf.h"
#include "http/jsonscan.h"

/* A result as it was read. */
typedef struct {
    const char *path; /* borrowed */
    bt_strbuf text;   /* owned */
    bt_json_value root;
} bt_load_saved;

/* *saved is to be freed also after a failure. Errors: NOT_FOUND and others of opening, IO,
 * BAD_MESSAGE (no result), TOO_LARGE, NO_MEMORY. */
baton_status bt_load_saved_read(const char *path, bt_load_saved *saved);
void bt_load_saved_free(bt_load_saved *saved);

/* What differs in what was asked for, and every figure with its change. *worst: by how many percent
 * the figure that changed most for the worse did; 0: none did. */
void bt_load_compare(const bt_load_saved *before, const bt_load_saved *after, bt_strbuf *out,
                     double *worst);
/* Distributions of both, one chart a metric, as SVG. Errors: INVALID_ARG (saved without
 * --save-detailed), IO, NO_MEMORY. */
baton_status bt_load_compare_chart(const bt_load_saved *before, const bt_load_saved *after,
                                   const char *path);

#endif
