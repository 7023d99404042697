/* SPDX-License-Identifier: Apache-2.0 */
/* The fast copies with their row version given, for tests and benchmarks; everybody else calls
 * baton/kv.h, which picks one.
 * Thread rule: any thread. */
#ifndef BT_KERNELS_KV_COPY_H
#define BT_KERNELS_KV_COPY_H
#include <baton/kv.h>

#include "kernels/kv_rows.h"

/* A copy that passes the caches by anyway is faster with streaming stores: chunks of 32 MiB 13
 * against 11 GB/s to a page and 16 against 10 to paged KV, on a Zen 5 with 32 MiB of L3
 * (bench_kernels); a smaller one is left where its reader finds it. */
enum { BT_KV_STREAM_MIN_BYTES = 8 << 20 };

/* Contracts and errors: baton_kv_gather and baton_kv_scatter. */
baton_status bt_kv_gather_with(const bt_rows_ops *ops, const baton_kv_view *view,
                               const baton_kv_tokens *tokens, uint32_t first_layer,
                               uint32_t n_layers, void *page, uint64_t page_bytes);
baton_status bt_kv_scatter_with(const bt_rows_ops *ops, const baton_kv_view *view,
                                const baton_kv_tokens *tokens, uint32_t first_layer,
                                uint32_t n_layers, const void *page, uint64_t page_bytes);

#endif
