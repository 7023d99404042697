/* SPDX-License-Identifier: Apache-2.0 */
/* What senders and receivers have in common: layout, views, counters. */
#include "engine/handoffrole.h"

#include <stdio.h>
#include <string.h>

#include "core/alloc.h"
#include "core/fail.h"

baton_status bt_handoff_layout(const bt_handoff_options *options, baton_layout *layout)
{
    const bt_kv_cache *cache = options->cache;
    if (options->tp == 0 || options->tp > BT_HANDOFF_MAX_RANKS ||
        cache->n_kv_heads % options->tp != 0)
        return bt_fail(BATON_ERR_INVALID_ARG,
                       "hand-off: tp: wanted a divisor of the %u KV heads, at most %d, found %u",
                       cache->n_kv_heads, BT_HANDOFF_MAX_RANKS, options->tp);
    *layout = (baton_layout){
        .dtype = cache->dtype,
        .n_layers = cache->n_layers,
        .n_planes = 2,
        .n_kv_heads = cache->n_kv_heads / options->tp,
        .head_dim = cache->head_dim,
        .chunk_tokens = options->chunk_tokens,
        .block_tokens = cache->block_tokens,
        .tp_size = options->tp,
        .pp_size = 1,
    };
    snprintf(layout->model, sizeof(layout->model), "llama-%016llx",
             (unsigned long long)options->fingerprint);
    return BATON_OK;
}

baton_status bt_handoff_view_open(const bt_handoff_options *options, uint32_t rank,
                                  bt_handoff_view *view)
{
    const bt_kv_cache *cache = options->cache;
    uint32_t n_heads = cache->n_kv_heads / options->tp;
    view->planes = bt_calloc(cache->n_layers, sizeof(*view->planes));
    if (view->planes == NULL)
        return bt_fail(BATON_ERR_NO_MEMORY, "hand-off: %u layers", cache->n_layers);
    return bt_kv_cache_view(cache, rank * n_heads, n_heads, view->planes, &view->kv);
}

void bt_handoff_view_close(bt_handoff_view *view)
{
    bt_free(view->planes);
    view->planes = NULL;
}

void bt_handoff_add_stats(void *sum, const void *stats, size_t bytes)
{
    for (size_t at = 0; at < bytes; at += sizeof(uint64_t)) {
        uint64_t total, more;
        memcpy(&total, (const char *)sum + at, sizeof(total));
        memcpy(&more, (const char *)stats + at, sizeof(more));
        total += more;
        memcpy((char *)sum + at, &total, sizeof(total));
    }
}

void bt_handoff_put_metrics(bt_strbuf *out, const bt_handoff_metric *metrics, size_t n,
                            const void *stats)
{
    for (size_t i = 0; i < n; i++) {
        uint64_t value;
        memcpy(&value, (const char *)stats + metrics[i].offset, sizeof(value));
        bt_prom_family(out, metrics[i].name, metrics[i].type, metrics[i].help);
        bt_prom_u64(out, metrics[i].name, NULL, 0, value);
    }
}
