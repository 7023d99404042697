/* SPDX-License-Identifier: Apache-2.0 */
/* Inside of txdevice.c: its state, and what is queued on the GPU for one copy (txgather.c).
 * Thread rule: owner thread. */
#ifndef BT_SENDER_TXGATHER_H
#define BT_SENDER_TXGATHER_H
#include "kernels/kv_kernels.h"
#include "sender/txdevice.h"

typedef enum { BT_TX_COPY_WAITING, BT_TX_COPY_READY, BT_TX_COPY_RUNNING } bt_tx_copy_state;

typedef struct bt_tx_device_copy {
    struct bt_tx_device_copy *next;
    bt_tx_copy_state state;
    bt_tx_transfer *transfer;
    uint32_t chunk;
    bt_tx_source *source;
    uint64_t bytes;
    bool *is_copying;       /* of a group of layers; NULL: the chunk's state says so */
    bt_tx_digest_part part; /* of a group */
    bool needs_host;
    bool takes_digest;       /* on the GPU */
    const bt_sample *sample; /* NULL: of all bytes */
    uint32_t slot;           /* RUNNING */
    uint64_t started_ns;
    baton_status failure;    /* of queueing it half way: it fails when the GPU has done that half */
    bool is_unmarked;        /* ... and when that is so cannot be found out */
    bt_tx_event source_free; /* lost: what is to be said should it end */
} bt_tx_device_copy;

typedef struct {
    bt_cu_event gathered, done;
} bt_tx_device_slot;

struct bt_tx_device {
    bt_tx *tx;
    bt_cuda *cuda;
    const bt_kv_kernels *kernels; /* NULL: none */
    bool kernels_digest;
    bt_cuda_waker *waker;
    bt_cu_stream gathers, copies; /* ours */
    bt_cu_stream watch;           /* waits for the users' events, only to wake the owner up */
    bt_memory *device_memory;     /* registered pages; NULL: puts do not reach device memory */
    void *device_pages;           /* [staging_chunks][page_bytes] */
    bt_memory *pinned;            /* [staging_chunks][page_bytes]; made when first needed */
    uint64_t *digests;            /* [staging_chunks] pinned; NULL: not the GPU's */
    void *sample_room;            /* lines of one chunk, of the device; made when first needed */
    uint8_t *parts;               /* [staging_chunks][part_bytes] pinned; made when first needed */
    uint64_t part_bytes;          /* the most of a group of layers */
    char failure[BATON_EVENT_TEXT_BYTES]; /* of the last copy that was queued half way */
    bt_tx_device_slot *slots;             /* [staging_chunks] */
    uint32_t *free_slots;                 /* stack */
    uint32_t n_slots, n_free_slots;
    bt_tx_device_copy *first, **last; /* oldest first */
    bt_tx_device_copy *spare;
    bt_tx_device_copy *lost; /* given up: their pages stay taken until they have ended after all */
};

/* Makes what the copy needs and has not been made yet: pages, pinned ones, places for parts of
 * digests. Errors: NO_MEMORY, TOO_LARGE, IO. */
baton_status bt_tx_gather_room(struct bt_tx_device *device, const bt_tx_device_copy *copy);
/* With the context entered: queues gather and, for the host, the copy behind it; the slot's `done`
 * is behind all. A source that is put from where it is only has its digest taken. When it fails,
 * some of that may have been queued. */
baton_status bt_tx_gather_queue(struct bt_tx_device *device, const bt_tx_device_copy *copy);
/* With the context entered: the slot's `done` comes behind all that is queued now. */
bt_cu_result bt_tx_gather_mark(const struct bt_tx_device *device, uint32_t slot);
/* Where the copy's part of a digest is once it is done. */
const void *bt_tx_gather_part(const struct bt_tx_device *device, const bt_tx_device_copy *copy);

#endif
