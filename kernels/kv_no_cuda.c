/* SPDX-License-Identifier: Apache-2.0 */
/* The CUDA entry points of a build without CUDA: they exist and say so. */
#include "core/fail.h"
#include "kernels/kv_kernels.h"

#include <baton/kv.h>

static baton_status refuse(void)
{
    return bt_fail(BATON_ERR_UNSUPPORTED,
                   "kv: this build has no CUDA kernels; configure with -DBATON_CUDA=ON");
}

baton_status baton_kv_gather_cuda(const baton_kv_view *view, const baton_kv_tokens *tokens,
                                  uint32_t first_layer, uint32_t n_layers, void *page,
                                  uint64_t page_bytes, struct CUstream_st *stream)
{
    (void)view, (void)tokens, (void)first_layer, (void)n_layers;
    (void)page, (void)page_bytes, (void)stream;
    return refuse();
}

baton_status baton_kv_scatter_cuda(const baton_kv_view *view, const baton_kv_tokens *tokens,
                                   uint32_t first_layer, uint32_t n_layers, const void *page,
                                   uint64_t page_bytes, struct CUstream_st *stream)
{
    (void)view, (void)tokens, (void)first_layer, (void)n_layers;
    (void)page, (void)page_bytes, (void)stream;
    return refuse();
}

baton_status baton_kv_gather_digest_cuda(const baton_kv_view *view, const baton_kv_tokens *tokens,
                                         uint32_t first_layer, uint32_t n_layers, void *page,
                                         uint64_t page_bytes, uint64_t *digest,
                                         struct CUstream_st *stream)
{
    (void)view, (void)tokens, (void)first_layer, (void)n_layers;
    (void)page, (void)page_bytes, (void)digest, (void)stream;
    return refuse();
}

baton_status baton_kv_scatter_digest_cuda(const baton_kv_view *view, const baton_kv_tokens *tokens,
                                          uint32_t first_layer, uint32_t n_layers, const void *page,
                                          uint64_t page_bytes, uint64_t *digest,
                                          struct CUstream_st *stream)
{
    (void)view, (void)tokens, (void)first_layer, (void)n_layers;
    (void)page, (void)page_bytes, (void)digest, (void)stream;
    return refuse();
}

const bt_kv_kernels *bt_kv_kernels_built(void)
{
    return NULL;
}
