/* SPDX-License-Identifier: Apache-2.0 */
/* Chunks that a GPU has a part in: their source is there only after an event, or lies in device
 * memory. What comes out is a chunk that txmove.c moves like any other.
 *
 *   PUSHED ─▶ WAITING ──event──▶ READY ──a page is free──▶ RUNNING ──event──▶ PUSHED again
 *                │                 │                       gather on the GPU     source: the page
 *                └──── host memory, or puts read the source where it is ────▶ PUSHED again
 *
 * A page of ours is one of staging_chunks. Where puts reach device memory, the page is there, and
 * put from there; else (also for mapped peers) it is copied on to pinned memory, chunk k while
 * chunk k+1 is gathered. A page is taken only for a transfer that has its grant, and given back
 * only when nobody reads it any more: what is queued on a GPU cannot be called back, so a transfer
 * that is canceled waits for its copies. A digest is taken by the gather itself and comes back with
 * it, also of a source that is put from where it is; only without kernels (kernels/kv_kernels.h) it
 * is the CPU's, and wants pinned memory. With a group of layers comes its part of the chunk's: the
 * digests of its tiles, or its lines of the sample.
 *
 * A copy that has not ended after put_ms is given up: its transfer fails with GPU_TIMEOUT, its page
 * stays taken, and its source gets no SOURCE_FREE, because the GPU may still carry it out. Should
 * it do so, the page comes back and the source is free after all. A peer's pages are not concerned:
 * nothing on our streams writes them.
 *
 * Thread rule: owner thread. */
#ifndef BT_SENDER_TXDEVICE_H
#define BT_SENDER_TXDEVICE_H
#include "sender/tx.h"

/* The chunk cannot be moved as it is. */
bool bt_tx_device_wants(const bt_tx_source *source);
/* Takes a PUSHED chunk over: it is COPYING. needs_host: the CPU must be able to read it, whatever
 * becomes of its digest. Errors: UNSUPPORTED, NO_MEMORY, IO. */
baton_status bt_tx_device_start(bt_tx *tx, bt_tx_transfer *transfer, uint32_t chunk,
                                bool needs_host);
/* What a group of layers is in its chunk's digest, of all bytes the digests of its tiles; to NULL:
 * it is none, because no digest is wanted, or because tiles are not the group's alone. */
typedef struct {
    void *to; /* borrowed as long as the transfer lives; written when source->has_digest */
    size_t bytes;
} bt_tx_digest_part;
/* The same for a group of its layers: *is_copying is true until source is one that can be moved.
 * Both live as long as the transfer. */
baton_status bt_tx_device_start_group(bt_tx *tx, bt_tx_transfer *transfer, uint32_t chunk,
                                      bool needs_host, bt_tx_source *source, bool *is_copying,
                                      bt_tx_digest_part part);
/* Moves all of them on; fails transfers whose GPU fails. */
void bt_tx_device_progress(bt_tx *tx);
/* When progress has something to do again at the latest; now_ns: at once. */
uint64_t bt_tx_device_wake_ns(const bt_tx *tx, uint64_t now_ns);
/* For a transfer that has failed: gives up what has not started; true while something is on its way
 * on the GPU. */
bool bt_tx_device_is_busy(bt_tx *tx, bt_tx_transfer *transfer);
/* The page of a source goes back. */
void bt_tx_device_give(bt_tx *tx, bt_tx_source *source);
/* Waits for the GPU, for put_ms at most, and not when it owes a copy that was given up: then what
 * it may still touch is left to it. NULL is allowed. */
void bt_tx_device_destroy(struct bt_tx_device *device);

#endif
