/* SPDX-License-Identifier: Apache-2.0 */
/* Gather and scatter written to be obviously right: what every faster version is compared with.
 * Contracts and errors: baton/kv.h.
 * Thread rule: any thread. */
#ifndef BT_KERNELS_KV_REFERENCE_H
#define BT_KERNELS_KV_REFERENCE_H
#include <baton/kv.h>

baton_status bt_kv_gather_reference(const baton_kv_view *view, const baton_kv_tokens *tokens,
                                    uint32_t first_layer, uint32_t n_layers, void *page,
                                    uint64_t page_bytes);
baton_status bt_kv_scatter_reference(const baton_kv_view *view, const baton_kv_tokens *tokens,
                                     uint32_t first_layer, uint32_t n_layers, const void *page,
                                     uint64_t page_bytes);

#endif
