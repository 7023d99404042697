/* SPDX-License-Identifier: Apache-2.0 */
/* Chunks that come in layer groups while the forward pass runs. A page holds its layers one behind
 * the other, so a group is one piece of it, and moves by itself; the chunk goes on as any other
 * when its last group has moved.
 *
 *   page  | layer 0 | layer 1 | ... | layer n-1 |     IDLE ─▶ LAYERED ─▶ POSTED or LANDED ─▶ ...
 *         '-- group 0 --'  '- group 1 -'                      all pushed  all moved
 *
 * Groups come in any order, and each adds its part to the chunk's digest when it moves, or the GPU
 * does on its way: the digests of its tiles (digest_tiles.h), or its lines of the sample. Where a
 * layer is no whole number of tiles, which is so in short last chunks, neighbours share tiles: then
 * the digest is taken by the CPU in the page's order, and a group waits until those before it have
 * moved.
 *
 * Where puts are used, a chunk has a staging slot only while something of it is on its way: who
 * waits for the engine holds nobody up. With a digest in order, which may look at the page again,
 * it keeps one from its first group to its last put; such chunks share half of the slots, and the
 * others wait for them. A group of a GPU's memory goes through a page of its own first
 * (txdevice.h), from which it is put, or copied where the CPU writes the peer's page or takes a
 * digest in order.
 *
 * Thread rule: owner thread; seen and count_seen belong to the inbox and its lock. */
#ifndef BT_SENDER_TXLAYERS_H
#define BT_SENDER_TXLAYERS_H
#include "sender/tx.h"

/* Takes a PUSH with a layer group over. */
void bt_tx_layers_pushed(bt_tx *tx, bt_tx_transfer *transfer, bt_tx_command *push);
/* Moves groups that can move; BUSY when a slot is missing. *more: there is more to do at once. */
baton_status bt_tx_layers_move(bt_tx *tx, bt_tx_transfer *transfer, bool *more);
/* A put of the chunk's has left. */
typedef enum {
    BT_TX_PUT_OTHERS, /* are on their way */
    BT_TX_PUT_PAUSE,  /* none is, and more layers are to come */
    BT_TX_PUT_LAST,   /* it was the last of all: also of chunks that were pushed whole */
} bt_tx_put_end;
bt_tx_put_end bt_tx_layers_put_done(bt_tx *tx, bt_tx_transfer *transfer, uint32_t chunk);
/* The chunk's slot is its own until its last put has left. */
bool bt_tx_layers_keep_slot(const bt_tx *tx, const bt_tx_transfer *transfer,
                            const bt_tx_chunk *chunk);
/* The sources of its groups that have not moved become free; of one chunk, or of all. */
void bt_tx_layers_drop_chunk(bt_tx *tx, bt_tx_transfer *transfer, uint32_t chunk);
void bt_tx_layers_drop(bt_tx *tx, bt_tx_transfer *transfer);
/* Of a transfer that reports to nobody any more. */
void bt_tx_layers_free(bt_tx_transfer *transfer);
/* Text for a chunk of which not all layers were pushed; false: it has none. */
bool bt_tx_layers_missing(const bt_tx *tx, const bt_tx_transfer *transfer, uint32_t chunk,
                          char *text, size_t size);

/* Inbox lock held. The layers are the chunk's, and none was pushed before; they count as pushed
 * from now on. Errors: OUT_OF_RANGE, INVALID_ARG, NO_MEMORY. */
baton_status bt_tx_layers_see(const bt_tx *tx, bt_tx_transfer *transfer, uint32_t chunk,
                              const bt_tx_source *source);

#endif
