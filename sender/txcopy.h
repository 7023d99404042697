/* SPDX-License-Identifier: Apache-2.0 */
/* Copies chunks to pages, by the progress thread alone or shared with the threads of a crew
 * (copy_threads).
 *
 *   chunks of a turn ──▶ pieces: a small chunk, or a part of a large one ──▶ jobs of a few pieces
 *
 * A chunk with a digest of all its bytes is one piece; a sampled one is taken from the source, as a
 * piece of its own where the copy is divided. Thread rule: owner thread; a run uses the crew's. */
#ifndef BT_SENDER_TXCOPY_H
#define BT_SENDER_TXCOPY_H
#include "sender/copycrew.h"
#include "sender/tx.h"

enum {
    BT_TX_COPY_PIECES = 520,
    BT_TX_COPY_PARTS = 64,             /* of one chunk, at most, besides its sample */
    BT_TX_COPY_PART_BYTES = 256 << 10, /* a chunk of more than two of these is divided */
    BT_TX_COPY_JOB_BYTES = 128 << 10,  /* taken at once: worth the hand-over and its fence */
    BT_TX_COPY_TURN_THREADS = 4,       /* a turn grows with the threads up to here */
};

/* The digest that a copy is to take. */
typedef struct {
    uint64_t *digest;        /* NULL: none */
    const bt_sample *sample; /* NULL: of all bytes */
} bt_tx_wanted;

typedef struct {
    const bt_tx_source *source;
    uint8_t *to;
    uint64_t first, bytes;          /* contiguous sources: of the source; bytes 0: only the sample
                                       of the `first` ones is taken */
    uint32_t first_layer, n_layers; /* views */
    bt_tx_wanted wanted;
    bool past_cache;
} bt_tx_piece;

typedef struct {
    uint32_t chunk;
    uint8_t *page;
} bt_tx_copied;

typedef struct bt_tx_copies {
    bt_copycrew *crew;
    uint32_t n_pieces, n_jobs, n_chunks;
    uint64_t job_bytes; /* of the last job so far */
    bt_tx_piece pieces[BT_TX_COPY_PIECES];
    uint32_t first_piece[BT_TX_COPY_PIECES + 1]; /* of each job, and behind the last */
    bt_tx_copied chunks[BT_TX_COPY_PIECES];      /* as they were added */
} bt_tx_copies;

/* Errors: INVALID_ARG, NO_MEMORY, IO. */
baton_status bt_tx_copies_create(uint32_t n_threads, bt_tx_copies **copies_p);
void bt_tx_copies_destroy(bt_tx_copies *copies); /* NULL is allowed. */
/* One more chunk, whatever its size, can be added. */
bool bt_tx_copies_have_room(const bt_tx_copies *copies);
/* For the next run; source, page, digest and sample are borrowed until then. past_cache: nobody on
 * this core reads it again. */
void bt_tx_copies_add(bt_tx_copies *copies, uint32_t chunk, const bt_tx_source *source,
                      uint8_t *page, uint64_t bytes, bool past_cache, bt_tx_wanted wanted);
/* Copies what was added; on return all of it is globally visible, and no thread copies any more,
 * also after a failure. `chunks` stays until it is cleared. */
baton_status bt_tx_copies_run(bt_tx_copies *copies);
void bt_tx_copies_clear(bt_tx_copies *copies);
/* One chunk at once, shared where that is worth it. copies NULL: by this thread, and what went
 * past_cache is to be fenced by the caller. */
baton_status bt_tx_copy(bt_tx_copies *copies, const bt_tx_source *source, void *page,
                        uint64_t bytes, bool past_cache, bt_tx_wanted wanted);

#endif
