/* SPDX-License-Identifier: Apache-2.0 */
/* The fast copies with their row version given, for tests and benchmarks; everybody else calls
 * baton/kv.h, which picks one.
 * Thread rule: any thread. */
#ifndef BT_KERNELS_KV_COPY_H
#define BT_KERNELS_KV_COPY_H
#include <baton/kv.h>

#include "kernels/kv_rows.h"

/* Contracts and errors: baton_kv_gather and baton_kv_scatter. */
baton_status bt_kv_gather_with(const bt_rows_ops *ops, const baton_kv_view *view,
                               const baton_kv_tokens *tokens, uint32_t first_layer,
                               uint32_t n_layers, void *page, uint64_t page_bytes);
baton_status bt_kv_scatter_with(const bt_rows_ops *ops, const baton_kv_view *view,
                                const baton_kv_tokens *tokens, uint32_t first_layer,
                                uint32_t n_layers, const void *page, uint64_t page_bytes);

#endif
