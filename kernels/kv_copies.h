/* SPDX-License-Identifier: Apache-2.0 */
/* Gather without kernels: the device's copy engine, one copy for each piece that is contiguous on
 * both sides. For builds without CUDA kernels, and for drivers that cannot run them.
 * Thread rule: any thread, with the context entered. */
#ifndef BT_KERNELS_KV_COPIES_H
#define BT_KERNELS_KV_COPIES_H
#include <baton/kv.h>

#include "core/cudadriver.h"

/* More pieces for a page cost more than they are worth. */
enum { BT_KV_COPIES_MAX = 16384 };

/* As baton_kv_gather_cuda. Errors: those, and UNSUPPORTED (over BT_KV_COPIES_MAX pieces). */
baton_status bt_kv_gather_copies(const bt_cuda_driver *driver, const baton_kv_view *view,
                                 const baton_kv_tokens *tokens, uint32_t first_layer,
                                 uint32_t n_layers, void *page, uint64_t page_bytes,
                                 struct CUstream_st *stream);

#endif
