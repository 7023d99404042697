/* SPDX-License-Identifier: Apache-2.0 */
#include "support/fakekernels.h"

#include "core/alloc.h"
#include "core/fail.h"
#include "kernels/kv_check.h"
#include "kernels/kv_gpu.h"

#include <string.h>

static const fakecuda *the_gpu;
static _Atomic uint64_t digests_total; /* both ends launch, each on its own thread */

/* A launch's arguments; addresses are the device's until it runs. */
typedef struct {
    bt_gpu_copy copy;
    uint32_t unit;
    bool is_page_pinned;
    uint64_t table[]; /* [bt_gpu_table_entries] */
} arguments;

static bool can_run(bool digests)
{
    (void)digests;
    return true;
}

/* False: no memory of the device. */
static bool translate(arguments *launched)
{
    bt_gpu_copy *copy = &launched->copy;
    uint64_t *table = launched->table;
    if (!launched->is_page_pinned)
        copy->page = the_gpu->host(copy->page);
    for (uint32_t i = 0; i < copy->n_planes; i++) {
        void *plane = the_gpu->host((void *)(uintptr_t)table[i]);
        if (table[i] != 0 && plane == NULL)
            return false;
        table[i] = (uintptr_t)plane;
    }
    return copy->page != NULL;
}

static void play(void *user_data)
{
    arguments *launched = user_data;
    bt_gpu_copy *copy = &launched->copy;
    uint64_t n_tiles = bt_gpu_n_tiles(copy);
    uint32_t n_done = 0;
    bt_gpu_shared *shared = bt_aligned_alloc(16, sizeof(*shared));
    uint64_t *own_tiles = bt_calloc(n_tiles, sizeof(*own_tiles));
    bool digests = copy->digest != NULL || copy->tiles != NULL;
    if (copy->digest != NULL)
        copy->tiles = own_tiles;
    copy->n_done = copy->digest != NULL ? &n_done : NULL;
    copy->table = launched->table;
    if (shared == NULL || own_tiles == NULL || !translate(launched)) {
        the_gpu->break_context(BT_CU_ILLEGAL_ADDRESS);
    } else {
        for (uint64_t tile = n_tiles; tile-- > 0;)
            bt_gpu_run_tile(copy, shared, tile, launched->unit, digests);
    }
    bt_free(own_tiles);
    bt_free(shared);
}

/* The real device writes to pinned memory and its own, and faults elsewhere. */
static baton_status check_reachable(const bt_cuda_driver *driver, const void *pointer)
{
    unsigned type;
    if (pointer == NULL || driver->pointer_attribute(&type, BT_CU_POINTER_MEMORY_TYPE,
                                                     (uintptr_t)pointer) == BT_CU_SUCCESS)
        return BATON_OK;
    return bt_fail(BATON_ERR_INVALID_ARG, "kv: wanted device or pinned memory");
}

static baton_status launch(arguments *wanted, size_t bytes, struct CUstream_st *stream)
{
    const bt_cuda_driver *driver;
    BATON_TRY(bt_cuda_driver_get(&driver));
    BATON_TRY(check_reachable(driver, wanted->copy.digest));
    BATON_TRY(check_reachable(driver, wanted->copy.tiles));
    BATON_TRY(check_reachable(driver, wanted->copy.page));
    digests_total += wanted->copy.digest != NULL || wanted->copy.tiles != NULL;
    wanted->is_page_pinned = the_gpu->host(wanted->copy.page) == NULL;
    bt_cu_result result = the_gpu->launch(stream, play, wanted, bytes);
    return result == BT_CU_SUCCESS ? BATON_OK : bt_fail_cuda(driver, result, "wanted a kernel");
}

static baton_status gather_any(const baton_kv_view *view, const baton_kv_tokens *tokens,
                               uint32_t first_layer, uint32_t n_layers, void *page,
                               uint64_t page_bytes, uint64_t *digest, uint64_t *tiles,
                               struct CUstream_st *stream)
{
    bt_gpu_copy copy;
    BATON_TRY(bt_kv_copy_check(view, tokens, first_layer, n_layers, page, page_bytes));
    BATON_TRY(bt_gpu_plan(view, tokens, n_layers, page, true, &copy));
    copy.digest = digest;
    copy.tiles = tiles;
    size_t bytes = sizeof(arguments) + sizeof(uint64_t) * bt_gpu_table_entries(&copy);
    arguments *made = bt_calloc(1, bytes);
    if (made == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "kv: %zu bytes", bytes);
    made->copy = copy;
    bt_gpu_fill_table(view, tokens, first_layer, &copy, made->table, &made->unit);
    baton_status status = launch(made, bytes, stream);
    bt_free(made);
    return status;
}

static baton_status gather(const baton_kv_view *view, const baton_kv_tokens *tokens,
                           uint32_t first_layer, uint32_t n_layers, void *page, uint64_t page_bytes,
                           uint64_t *digest, struct CUstream_st *stream)
{
    return gather_any(view, tokens, first_layer, n_layers, page, page_bytes, digest, NULL, stream);
}

static baton_status gather_tiles(const baton_kv_view *view, const baton_kv_tokens *tokens,
                                 uint32_t first_layer, uint32_t n_layers, void *page,
                                 uint64_t page_bytes, uint64_t *tiles, struct CUstream_st *stream)
{
    return gather_any(view, tokens, first_layer, n_layers, page, page_bytes, NULL, tiles, stream);
}

static baton_status digest_any(const void *from, uint64_t n, uint64_t *digest, uint64_t *tiles,
                               struct CUstream_st *stream)
{
    size_t bytes = sizeof(arguments) + 2 * sizeof(uint64_t);
    arguments *made = bt_calloc(1, bytes);
    if (made == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "kv: %zu bytes", bytes);
    bt_gpu_plan_digest(from, n, &made->copy, &made->unit);
    made->copy.digest = digest;
    made->copy.tiles = tiles;
    memcpy(made->table, made->copy.small_table, 2 * sizeof(uint64_t));
    baton_status status = launch(made, bytes, stream);
    bt_free(made);
    return status;
}

static baton_status digest_bytes(const void *from, uint64_t n, uint64_t *digest,
                                 struct CUstream_st *stream)
{
    return digest_any(from, n, digest, NULL, stream);
}

static baton_status digest_tiles(const void *from, uint64_t n, uint64_t *tiles,
                                 struct CUstream_st *stream)
{
    return digest_any(from, n, NULL, tiles, stream);
}

void bt_fakekernels_use(const fakecuda *gpu)
{
    static const bt_kv_kernels kernels = {can_run, gather, gather_tiles, digest_bytes,
                                          digest_tiles};
    the_gpu = gpu;
    digests_total = 0;
    bt_kv_kernels_use(gpu != NULL ? &kernels : NULL);
}

uint64_t bt_fakekernels_digests(void)
{
    return digests_total;
}
