/* SPDX-License-Identifier: Apache-2.0 */
/* Which kernels there are for a GPU's streams: this build's (CUDA, or none), or a test's.
 * Thread rule: any thread; bt_kv_kernels_use only before the first get, or between tests. */
#ifndef BT_KERNELS_KV_KERNELS_H
#define BT_KERNELS_KV_KERNELS_H
#include "core/cudadriver.h"

#include <baton/kv.h>
BATON_BEGIN_DECLS

/* All are called with the device's context current. */
typedef struct {
    /* The device runs them; digests: also those that take one. */
    bool (*can_run)(bool digests);
    /* baton_kv_gather_cuda, and with a digest (not NULL) baton_kv_gather_digest_cuda. */
    baton_status (*gather)(const baton_kv_view *view, const baton_kv_tokens *tokens,
                           uint32_t first_layer, uint32_t n_layers, void *page, uint64_t page_bytes,
                           uint64_t *digest, struct CUstream_st *stream);
    /* The same with the digests of the page's tiles (digest_tiles.h), in device or pinned memory.
     */
    baton_status (*gather_tiles)(const baton_kv_view *view, const baton_kv_tokens *tokens,
                                 uint32_t first_layer, uint32_t n_layers, void *page,
                                 uint64_t page_bytes, uint64_t *tiles, struct CUstream_st *stream);
    /* The digest of bytes[n], n > 0, that the device can read. *digest is written on the stream, in
     * device or pinned memory; both are borrowed until then. Errors: as above. */
    baton_status (*digest)(const void *bytes, uint64_t n, uint64_t *digest,
                           struct CUstream_st *stream);
    /* Those of their tiles. */
    baton_status (*digest_tiles)(const void *bytes, uint64_t n, uint64_t *tiles,
                                 struct CUstream_st *stream);
} bt_kv_kernels;

/* NULL: none. A driver that a test has given does not know this build's kernels, only the test's.
 */
const bt_kv_kernels *bt_kv_kernels_get(const bt_cuda_driver *driver);
/* For tests: those to use with a driver of theirs. NULL: none. */
void bt_kv_kernels_use(const bt_kv_kernels *kernels);
/* This build's; NULL: none. */
const bt_kv_kernels *bt_kv_kernels_built(void);

BATON_END_DECLS
#endif
