/* SPDX-License-Identifier: Apache-2.0 */
#include "bench/perf_setup.h"

#include "core/fail.h"

#include <inttypes.h>

baton_status bt_perf_setup_send(bt_perf_control *control, const bt_perf_options *o)
{
    return bt_perf_send(
        control,
        "setup pages=%u page_bytes=%" PRIu64 " pool_pages=%u seed=%" PRIu64
        " order=%d paged=%d layers=%u heads=%u head_dim=%u block_tokens=%u "
        "digests=%d progress=%d transport=%d flip_byte=%d memory=%d copy_threads=%u "
        "data_lanes=%u huge_pages=%d",
        o->n_pages, o->page_bytes, o->pool_pages, o->seed, (int)o->order, o->paged,
        o->shape.n_layers, o->shape.n_heads, o->shape.head_dim, o->shape.block_tokens,
        (int)o->digests, (int)o->progress, (int)o->transport, o->flip_byte, (int)o->memory,
        o->copy_threads, o->data_lanes, (int)o->huge_pages);
}

static baton_status parse_shape(const char *line, bt_perf_shape *shape)
{
    uint64_t layers, heads, head_dim, block_tokens;
    BATON_TRY(bt_perf_field(line, "layers", 1, BT_PERF_MAX_LAYERS, &layers));
    BATON_TRY(bt_perf_field(line, "heads", 1, 1024, &heads));
    BATON_TRY(bt_perf_field(line, "head_dim", 1, 1024, &head_dim));
    BATON_TRY(bt_perf_field(line, "block_tokens", 1, 4096, &block_tokens));
    *shape = (bt_perf_shape){.n_layers = (uint32_t)layers,
                             .n_heads = (uint32_t)heads,
                             .head_dim = (uint32_t)head_dim,
                             .block_tokens = (uint32_t)block_tokens};
    return BATON_OK;
}

baton_status bt_perf_setup_parse(const char *line, bt_perf_options *o)
{
    uint64_t pages, page_bytes, pool_pages, seed, order, paged, digests, progress, transport,
        flip_byte, memory, copy_threads, data_lanes, huge_pages;
    BATON_TRY(bt_perf_field(line, "pages", 1, BT_PERF_MAX_PAGES, &pages));
    BATON_TRY(bt_perf_field(line, "page_bytes", 1, BT_PERF_MAX_PAGE_BYTES, &page_bytes));
    BATON_TRY(bt_perf_field(line, "pool_pages", pages, BT_PERF_MAX_POOL_PAGES, &pool_pages));
    BATON_TRY(bt_perf_field(line, "seed", 0, UINT64_MAX, &seed));
    BATON_TRY(bt_perf_field(line, "order", 0, BT_PERF_DESCENDING, &order));
    BATON_TRY(bt_perf_field(line, "paged", 0, 1, &paged));
    BATON_TRY(parse_shape(line, &o->shape));
    BATON_TRY(bt_perf_field(line, "digests", 0, BATON_DIGESTS_FULL, &digests));
    BATON_TRY(bt_perf_field(line, "progress", 0, BATON_PROGRESS_MANUAL, &progress));
    BATON_TRY(bt_perf_field(line, "transport", 0, BT_PERF_LOOP, &transport));
    BATON_TRY(bt_perf_field(line, "flip_byte", 0, 1, &flip_byte));
    BATON_TRY(bt_perf_field(line, "memory", 0, BATON_MEMORY_CUDA_HOST, &memory));
    BATON_TRY(bt_perf_field(line, "copy_threads", 0, 64, &copy_threads));
    BATON_TRY(bt_perf_field(line, "data_lanes", 0, 8, &data_lanes));
    BATON_TRY(bt_perf_field(line, "huge_pages", 0, BT_PERF_HUGE_ON, &huge_pages));
    o->n_pages = (uint32_t)pages;
    o->page_bytes = page_bytes;
    o->pool_pages = (uint32_t)pool_pages;
    o->seed = seed;
    o->order = (bt_perf_order)order;
    o->paged = paged != 0;
    o->digests = (baton_digests)digests;
    o->flip_byte = flip_byte != 0;
    o->progress = (baton_progress_mode)progress;
    o->transport = (bt_perf_transport)transport;
    o->memory = (baton_memory_kind)memory;
    o->huge_pages = (bt_perf_huge)huge_pages;
    o->copy_threads = (uint32_t)copy_threads;
    o->data_lanes = (uint32_t)data_lanes;
    return BATON_OK;
}
