/* SPDX-License-Identifier: Apache-2.0 */
/* How fast a peer is: a few rounds into its scratch area, bounded in bytes and time. Copies are cut
 * into slices of a turn each and puts are waited for by their events, so nothing blocks. Of several
 * rounds the best counts: what is asked is what the path can do, not who else ran meanwhile. The
 * source is out of the cache each time. */
#include "sender/tx.h"
#include "sender/txcopy.h"

#include "core/log.h"
#include "kernels/kv_rows.h"

#include <stdio.h>

enum {
    LEAST_BYTES = 4096, /* of a scratch area that is worth measuring with */
    SLICE_BYTES = 256 << 10,
    COPY_ROUNDS = 5, /* the first warms both sides up */
    TINY_BYTES = 64,
    TINY_PUTS = 8, /* of one round */
    POST_ROUNDS = 2,
    WIRE_BYTES_LEAST = 64 << 10, /* puts grow from this, so that slow wires have a figure in time */
    WIRE_GROWTH = 4,
    WIRE_ROUNDS = 3, /* of the whole area */
    /* Transfers wait for it: no longer than this where they need no puts. Where they do, the first
     * one has to make the connection anyway, and a slow wire gets the time for one figure. With a
     * floor, and for a probe, a connection is of no use before it is measured. */
    QUICK_MS = 20,
    WARM_UP_MS = 2000,
    FLOOR_MS = 500,
    CACHE_LINE = 64,
};

/* As a mapped chunk is copied: past the cache, by all copy_threads where it is worth that. */
static void copy_as_chunks(bt_tx *tx, void *to, const void *from, size_t bytes)
{
    const bt_tx_source source = {.data = from};
    (void)bt_tx_copy(tx->copies, &source, to, bytes, true,
                     (bt_tx_wanted){0}); /* cannot fail: no view */
    bt_rows_best(true)->finish();
}

/* What was just written would come out of the cache, which KV of a real size does not. */
static void drop_from_cache(const uint8_t *at, uint64_t bytes)
{
#if defined(__x86_64__)
    for (uint64_t i = 0; i < bytes; i += CACHE_LINE)
        __builtin_ia32_clflush(at + i);
    __builtin_ia32_mfence();
#elif defined(__aarch64__)
    for (uint64_t i = 0; i < bytes; i += CACHE_LINE)
        __asm__ volatile("dc civac, %0" ::"r"(at + i) : "memory");
    __asm__ volatile("dsb ish" ::: "memory");
#else
    (void)at;
    (void)bytes;
#endif
}

static uint64_t user_data_of(const bt_tx_measure *measure)
{
    return measure->id; /* below 2^BT_TX_CHUNK_BITS: no transfer's */
}

static baton_status take_scratch(bt_tx_peer *peer, const bt_msg_scratch *scratch)
{
    bt_tx_measure *measure = &peer->measure;
    BATON_TRY(bt_remote_import(peer->endpoint, scratch->rkey.data, scratch->rkey.bytes,
                               &measure->scratch));
    const bt_remote *remote = measure->scratch;
    if (scratch->base < remote->base || scratch->bytes > remote->bytes ||
        scratch->base - remote->base > remote->bytes - scratch->bytes)
        return bt_fail(BATON_ERR_BAD_MESSAGE,
                       "memreg: the scratch area lies outside of what its key is for");
    measure->base = scratch->base;
    measure->bytes =
        scratch->bytes < BT_TX_MEASURE_BYTES ? scratch->bytes : (uint64_t)BT_TX_MEASURE_BYTES;
    return BATON_OK;
}

static bool wants_copies(const bt_tx *tx, const bt_tx_peer *peer)
{
    return tx->options.path != BATON_PATH_PUT && tx->options.path != BATON_PATH_STAGED &&
           peer->n_regions > 0 && peer->regions[0].mapped != NULL;
}

static bool has_time(const bt_tx *tx, const bt_tx_peer *peer)
{
    return peer->min_bytes_per_s != 0 || tx->options.probe;
}

/* Nothing can be moved to the peer before the first put has made the connection. */
static bool needs_connection(const bt_tx *tx, const bt_tx_peer *peer)
{
    bool needs_puts = peer->n_regions > 0 && peer->regions[0].mapped == NULL;
    return needs_puts || bt_tx_path_may_fail(tx, peer) || has_time(tx, peer);
}

baton_status bt_tx_measure_start(bt_tx *tx, bt_tx_peer *peer, const bt_msg_scratch *scratch)
{
    bt_tx_measure *measure = &peer->measure;
    void *mapped = NULL;
    bool may_fail = bt_tx_path_may_fail(tx, peer);
    uint64_t limit_ms = needs_connection(tx, peer) ? WARM_UP_MS : QUICK_MS;
    *measure = (bt_tx_measure){0};
    tx->last_measure = tx->last_measure % ((1u << BT_TX_CHUNK_BITS) - 1) + 1;
    measure->id = tx->last_measure;
    measure->limit_ns = bt_deadline_ns(bt_now_ns(tx->clock), limit_ms * BT_NS_PER_MS);
    measure->state = may_fail ? BT_TX_MEASURE_WARM_UP : BT_TX_MEASURE_OFF;
    if (tx->options.skip_measure || scratch->bytes < LEAST_BYTES || peer->n_regions == 0)
        return BATON_OK;
    BATON_TRY(take_scratch(peer, scratch));
    if (tx->measure_memory == NULL &&
        bt_memory_alloc(tx->transport, BT_TX_MEASURE_BYTES, BATON_MEMORY_HOST,
                        &tx->measure_memory) != BATON_OK) {
        bt_debug("sender: path not measured: %s", baton_last_error());
        bt_remote_release(measure->scratch);
        measure->scratch = NULL;
        return BATON_OK;
    }
    if (wants_copies(tx, peer) &&
        bt_remote_map(measure->scratch, measure->base, &mapped) == BATON_OK) {
        measure->mapped = mapped;
        (void)bt_remote_populate(measure->scratch, measure->base, measure->bytes);
    }
    measure->state = measure->mapped != NULL ? BT_TX_MEASURE_COPY : BT_TX_MEASURE_STAGE;
    return BATON_OK;
}

void bt_tx_measure_stop(bt_tx_measure *measure)
{
    bt_remote_release(measure->scratch);
    measure->scratch = NULL;
    measure->mapped = NULL;
    measure->state = BT_TX_MEASURE_OFF;
    measure->id = 0;
}

/* The connection goes on. Puts that are under way still use the key, which stays as long as it. */
static void end(bt_tx_measure *measure)
{
    bt_remote *in_use = measure->n_out > 0 ? measure->scratch : NULL;
    if (in_use != NULL)
        measure->scratch = NULL;
    bt_tx_measure_stop(measure);
    measure->scratch = in_use;
}

static void enter(bt_tx_measure *measure, bt_tx_measure_state state)
{
    measure->state = state;
    measure->round = 0;
    measure->wire_bytes = measure->bytes < WIRE_BYTES_LEAST ? measure->bytes : WIRE_BYTES_LEAST;
}

static double gbps(uint64_t bytes, uint64_t ns)
{
    return (double)bytes / (double)(ns > 0 ? ns : 1);
}

static void keep_most(double *best, double found)
{
    *best = found > *best ? found : *best;
}

static void keep_least(double *best, double found)
{
    *best = *best == 0 || found < *best ? found : *best;
}

static void copy_slice(bt_tx *tx, bt_tx_measure *measure)
{
    bool to_peer = measure->state == BT_TX_MEASURE_COPY;
    uint64_t room = to_peer ? measure->bytes : BT_TX_MEASURE_BYTES / 2;
    uint64_t most = tx->copies != NULL ? room : SLICE_BYTES; /* shared, it takes no longer */
    uint64_t slice = room < most ? room : most;
    uint8_t *ours = tx->measure_memory->base;
    uint8_t *to = to_peer ? measure->mapped : ours + BT_TX_MEASURE_BYTES / 2;
    uint64_t n_slices = room / slice;
    drop_from_cache(ours, slice);
    uint64_t began_ns = bt_now_ns(tx->clock);
    tx->measure_copy(tx, to + measure->round % n_slices * slice, ours, slice);
    double found = gbps(slice, bt_now_ns(tx->clock) - began_ns);
    double *best = to_peer ? &measure->found.copy_gbps : &measure->found.stage_gbps;
    if (measure->round <= 1) /* the first one counts only where there is no other */
        *best = found;
    else
        keep_most(best, found);
    if (++measure->round == COPY_ROUNDS)
        enter(measure, to_peer ? BT_TX_MEASURE_STAGE : BT_TX_MEASURE_WARM_UP);
}

static baton_status post_round(bt_tx *tx, bt_tx_peer *peer)
{
    bt_tx_measure *measure = &peer->measure;
    bool is_large = measure->state == BT_TX_MEASURE_WIRE;
    uint32_t n_puts = measure->state == BT_TX_MEASURE_POST ? TINY_PUTS : 1;
    if (is_large)
        drop_from_cache(tx->measure_memory->base, measure->wire_bytes);
    measure->round_ns = bt_now_ns(tx->clock);
    for (uint32_t i = 0; i < n_puts && measure->scratch != NULL; i++) {
        const bt_run run = {.local_addr = (uint64_t)(uintptr_t)tx->measure_memory->base,
                            .remote_addr = measure->base,
                            .bytes = is_large ? measure->wire_bytes : TINY_BYTES};
        BATON_TRY(bt_endpoint_put(peer->endpoint, tx->measure_memory, measure->scratch, &run, 1,
                                  user_data_of(measure)));
        measure->n_out++;
    }
    measure->posted_ns = bt_elapsed_ns(bt_now_ns(tx->clock), measure->round_ns);
    BATON_TRY(bt_endpoint_flush(peer->endpoint, user_data_of(measure)));
    measure->n_out++;
    return BATON_OK;
}

/* The latency that a round of large puts does not have to pay more than once is not the wire's. */
static uint64_t without_latency(const bt_tx_figures *found, uint64_t ns)
{
    uint64_t flush_ns = (uint64_t)(found->flush_us * 1e3);
    return ns > 2 * flush_ns ? ns - flush_ns : ns;
}

static void end_warm_up(bt_tx *tx, bt_tx_peer *peer, uint64_t now_ns)
{
    bt_tx_measure *measure = &peer->measure;
    measure->quick_ns = measure->limit_ns;
    if (needs_connection(tx, peer)) {
        uint64_t quick_ms = has_time(tx, peer) ? FLOOR_MS : QUICK_MS;
        measure->quick_ns = bt_deadline_ns(now_ns, quick_ms * BT_NS_PER_MS);
        measure->limit_ns = bt_deadline_ns(now_ns, FLOOR_MS * BT_NS_PER_MS);
    }
    if (measure->scratch != NULL)
        enter(measure, BT_TX_MEASURE_POST);
    else
        end(measure);
}

/* Another round, so many times as long as this one, would end in time. */
static bool has_time_for(const bt_tx_measure *measure, uint64_t now_ns, uint64_t times)
{
    uint64_t took_ns = bt_elapsed_ns(now_ns, measure->round_ns);
    return now_ns < measure->quick_ns && took_ns <= (measure->quick_ns - now_ns) / times;
}

/* What a larger put has found replaces what smaller ones have. */
static void end_wire_round(bt_tx_measure *measure, uint64_t now_ns)
{
    bt_tx_figures *found = &measure->found;
    uint64_t took_ns = bt_elapsed_ns(now_ns, measure->round_ns);
    double now = gbps(measure->wire_bytes, without_latency(found, took_ns));
    if (measure->round == 1)
        found->wire_gbps = now;
    else
        keep_most(&found->wire_gbps, now);
    uint64_t left = measure->bytes / measure->wire_bytes;
    uint64_t times = left < WIRE_GROWTH ? left : WIRE_GROWTH;
    if (!has_time_for(measure, now_ns, times) || (times == 1 && measure->round == WIRE_ROUNDS)) {
        end(measure);
    } else if (times > 1) {
        measure->wire_bytes *= times;
        measure->round = 0;
    }
}

static void end_round(bt_tx *tx, bt_tx_peer *peer)
{
    bt_tx_measure *measure = &peer->measure;
    bt_tx_figures *found = &measure->found;
    uint64_t now_ns = bt_now_ns(tx->clock);
    measure->round++;
    if (measure->state == BT_TX_MEASURE_WARM_UP) {
        end_warm_up(tx, peer, now_ns);
    } else if (measure->state == BT_TX_MEASURE_POST) {
        uint64_t took_ns = bt_elapsed_ns(now_ns, measure->round_ns);
        keep_least(&found->post_us, (double)measure->posted_ns / 1e3 / TINY_PUTS);
        keep_least(&found->flush_us, (double)took_ns / 1e3);
        if (measure->round == POST_ROUNDS || !has_time_for(measure, now_ns, 1))
            enter(measure, BT_TX_MEASURE_WIRE);
    } else {
        end_wire_round(measure, now_ns);
    }
}

/* A put that fails says that puts cannot be had; who does not need them goes on without. */
static void fail(bt_tx *tx, bt_tx_peer *peer, baton_status status, const char *text)
{
    bool needs_puts = peer->n_regions == 0 || peer->regions[0].mapped == NULL;
    end(&peer->measure);
    if (needs_puts)
        bt_tx_peer_down(tx, peer, status, text);
}

bool bt_tx_measure_turn(bt_tx *tx, bt_tx_peer *peer, uint64_t now_ns)
{
    bt_tx_measure *measure = &peer->measure;
    if (measure->state != BT_TX_MEASURE_OFF && now_ns >= measure->limit_ns)
        end(measure);
    if (measure->state == BT_TX_MEASURE_OFF)
        return true;
    if (measure->state == BT_TX_MEASURE_COPY || measure->state == BT_TX_MEASURE_STAGE) {
        copy_slice(tx, measure);
    } else if (measure->n_out == 0) {
        baton_status status = post_round(tx, peer);
        if (status != BATON_OK) {
            char text[BT_ERROR_TEXT_BYTES];
            snprintf(text, sizeof(text), "%s", baton_last_error());
            fail(tx, peer, status, text);
        }
    }
    return false;
}

uint64_t bt_tx_measure_wake_ns(const bt_tx_measure *measure, uint64_t now_ns)
{
    bool waits = measure->state != BT_TX_MEASURE_OFF && measure->n_out != 0;
    return waits ? measure->limit_ns : now_ns;
}

bool bt_tx_measure_event(bt_tx *tx, const bt_event *event)
{
    bt_tx_peer *peer = tx->peers;
    while (peer != NULL && (peer->measure.id == 0 || peer->measure.id != event->user_data))
        peer = peer->next;
    if (peer == NULL || peer->state != BT_TX_PEER_MEASURE)
        return false;
    if (event->status != BATON_OK)
        fail(tx, peer, event->status, event->text);
    else if (--peer->measure.n_out == 0)
        end_round(tx, peer);
    return true;
}

void bt_tx_measure_defaults(bt_tx *tx)
{
    tx->measure_copy = copy_as_chunks;
}
