/* SPDX-License-Identifier: Apache-2.0 */
/* A pool in the memory of a GPU: how bytes get there, and from when on they may be read there.
 *
 *   direct:  sender ──RDMA, cuda_ipc──▶ device page        COMMIT: flush, digest, then visible
 *   staged:  sender ──any path──▶ pinned page ──copy──▶ device page  COMMIT: visible after the copy
 *
 * Staged is what happens where the transport cannot reach device memory, or the device can neither
 * order a NIC's writes nor be flushed. Every device page then has a pinned page of its own, which
 * is the one that senders know; pages, grants and quarantine mean that one. Copies go through one
 * stream, in order, so a late copy of an older grant is overwritten before anybody may look.
 *
 * Digests are of what peers wrote: the CPU's of a pinned page; of a direct one, a kernel's on the
 * same stream, into a pinned word of the page's own; without kernels, of a copy to the host.
 *
 * A COMMIT whose copies or digests are not done is kept and looked at again, from the start, when
 * they are. Pins of GPUs live until their event, also beyond their time limit: the GPU will finish.
 *
 * Thread rule: owner thread with rx->lock held, but for what says otherwise. */
#ifndef BT_RECEIVER_RXDEVICE_H
#define BT_RECEIVER_RXDEVICE_H
#include "receiver/rx.h"

/* Opens the GPU when the options ask for CUDA memory. Errors: UNSUPPORTED, NO_MEMORY, IO. */
baton_status bt_rx_device_create(bt_rx *rx);
/* Before the regions: waits for copies that are still under way. Those that have not ended by then
 * (monotonic) never will: rx->gpu_hangs. */
void bt_rx_device_stop(bt_rx *rx, uint64_t until_ns);
void bt_rx_device_destroy(bt_rx *rx);

/* Memory for a region of a device pool: region->memory (what peers write), region->pages (what
 * decode reads). Errors: NO_MEMORY, INVALID_ARG (pool_base is no device memory), IO. */
baton_status bt_rx_device_region(bt_rx *rx, bt_rx_region *region, size_t bytes);
/* What a GPU that hangs may still read or write is left to it. */
void bt_rx_device_region_free(bt_rx *rx, bt_rx_region *region);

/* The bytes of the chunks that a checked COMMIT names are where decode reads them. IN_PROGRESS:
 * they will be; call bt_rx_device_keep. Errors: IO. */
baton_status bt_rx_device_land(bt_rx *rx, bt_rx_ticket *ticket, const bt_msg_commit *commit);
/* Keeps a COMMIT, one of a ticket, until what it waits for is done; then it is handled anew. Others
 * of that ticket are dropped meanwhile. Errors: NO_MEMORY. */
baton_status bt_rx_device_keep(bt_rx *rx, const bt_rx_peer *peer, const bt_message *message);
/* The digest of what was written to a page, host memory included; the bytes of a COMMIT that has
 * landed. sample NULL: of all bytes. Lock not needed. Errors: NO_MEMORY, IO. */
baton_status bt_rx_device_digest(bt_rx *rx, bt_page_ref page, size_t bytes, const bt_sample *sample,
                                 uint64_t *digest);
/* That page is next, where the CPU will take its digest. Lock not needed. */
void bt_rx_device_expect(const bt_rx *rx, bt_page_ref page, const bt_sample *sample);
/* What a sampled digest of the chunk looks at, borrowed from the ticket; NULL: digests are of all
 * bytes. Errors: NO_MEMORY, TOO_LARGE. rxcommit.c. */
baton_status bt_rx_ticket_sample(const bt_rx *rx, bt_rx_ticket *ticket, uint32_t chunk,
                                 const bt_sample **sample_p);

/* Any thread, lock not held. An event behind what is queued on the stream. Errors: UNSUPPORTED, IO.
 */
baton_status bt_rx_device_mark(bt_rx *rx, struct CUstream_st *stream, bt_cu_event *event_p);
bool bt_rx_device_is_done(bt_rx *rx, bt_cu_event event);
/* False: it has not come by then (monotonic). */
bool bt_rx_device_wait(bt_rx *rx, bt_cu_event event, uint64_t until_ns);
void bt_rx_device_unmark(bt_rx *rx, bt_cu_event event);

/* Handles COMMITs whose copies are done. */
void bt_rx_device_progress(bt_rx *rx);
/* When to look again at the latest. */
uint64_t bt_rx_device_wake_ns(const bt_rx *rx, uint64_t now_ns);

#endif
