/* SPDX-License-Identifier: Apache-2.0 */
/* What every copy checks before its first byte moves.
 * Thread rule: any thread. */
#ifndef BT_KERNELS_KV_CHECK_H
#define BT_KERNELS_KV_CHECK_H
#include <baton/kv.h>

/* The arguments of a gather or scatter: the view is sound, the layers are its own, every slot lies
 * in it and the page holds what will be moved. Memory kinds are the caller's business.
 * Errors: INVALID_ARG, OUT_OF_RANGE, TOO_LARGE. */
baton_status bt_kv_copy_check(const baton_kv_view *view, const baton_kv_tokens *tokens,
                              uint32_t first_layer, uint32_t n_layers, const void *page,
                              uint64_t page_bytes);
/* Errors: UNSUPPORTED for memory that the CPU cannot touch. */
baton_status bt_kv_host_check(const baton_kv_view *view);

#endif
