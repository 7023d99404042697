/* SPDX-License-Identifier: Apache-2.0 */
/* Puts in messages, for transports that cannot write remote memory (tcp, ud), and notes: the bytes
 * of bt_endpoint_send on every transport.
 *
 * UCX emulates puts over them, but the emulation's acknowledgement is sent by the *target*, and
 * when the writer has died by then, every version up to 1.22 ends the target's process
 * (ucp_rma_sw_send_cmpl: "Fatal: unexpected error"). So puts to host memory go in active messages
 * of ours there, whose errors UCX reports. What is gained besides: the target checks every write
 * against its registered memory, and one answer per flush replaces one per piece.
 *
 *   writer                                         target
 *     PUT   endpoint id, number, run, data ------->  checked, copied, counted for that endpoint
 *     RUNS  endpoint id, number, list, data ------>  the same for several
 *     NOTE  endpoint id, number, data ------------->  held until all below its number have landed
 *     BOTH  endpoint id, number, list, data, note ->  RUNS and the NOTE behind it
 *     FLUSH endpoint id, flush, messages sent ----->
 *           <--- LANDED flush, landed, refused        landed < sent (several lanes): asked again
 *
 * PUT, RUNS, NOTE and BOTH of an endpoint are numbered together, from 0. UCX keeps the order of
 * messages on one lane, which is all it uses for messages of one segment (ours are, and none is a
 * rendezvous); with UCX_MAX_EAGER_LANES and small segments of the user's it may change it. The
 * target therefore goes by the numbers: `landed` is the first that is missing. A note behind a
 * refused put is never handed over; LANDED with flush -1 tells the writer, whose endpoint fails.
 *
 * Header, little-endian: 0 u32 magic "BTNM", 4 u32 type, 8 u64 endpoint id, then three u64:
 *   PUT 16 address, 24 bytes, 32 number
 *   RUNS and BOTH 16 u32 entries, 20 u32 bytes of the note (RUNS: 0), 24 bytes between list and
 *   note, 32 number
 *   NOTE 16 number, 24 bytes; FLUSH 16 flush, 24 sent; LANDED 16 flush, 24 landed, 32 refused
 * The list is the beginning of the data, an entry for each run: 0 u64 address of the first piece,
 * 8 i64 from one to the next, 16 u32 pieces, 20 u32 bytes of each.
 *
 * Thread rule: owner thread of the worker. */
#ifndef BT_TRANSPORT_UCX_MESSAGE_H
#define BT_TRANSPORT_UCX_MESSAGE_H
#include "transport/ucx_state.h"

enum {
    BT_UCX_HEADER_BYTES = 40,
    BT_UCX_ENTRY_BYTES = 24,
    BT_UCX_PIECES_MAX = 32, /* of one message */
    /* With UCX's headers and ours a part of a large piece fits one tcp segment of 128 KiB; pieces
     * that share a message leave room for their list. */
    BT_UCX_PART_BYTES_MAX = (128 << 10) - 256,
    BT_UCX_SHARED_BYTES_MAX = (128 << 10) - 256 - BT_UCX_PIECES_MAX * BT_UCX_ENTRY_BYTES,
    /* Pieces of at least so much on average are gathered by the kernel, in place of a copy to UCX's
     * segment. */
    BT_UCX_GATHER_BYTES_MIN = 16 << 10,
    BT_UCX_GATHER_PIECES_MAX =
        8 + 3, /* of such a message: with the list, and cut ones at its ends */
    /* A put that ends in no more than this waits for the note behind it: one system call at either
     * end instead of two, for a copy more. */
    BT_UCX_PARKED_BYTES_MAX = 16 << 10,
};
typedef enum {
    BT_UCX_PUT = 1,
    BT_UCX_FLUSH = 2,
    BT_UCX_LANDED = 3,
    BT_UCX_NOTE = 4,
    BT_UCX_RUNS = 5,
    BT_UCX_BOTH = 6,
} bt_ucx_message_type;

typedef struct {
    uint32_t type;
    uint64_t endpoint_id;
    uint64_t values[3];
} ucx_fields;

/* Local memory. */
typedef struct {
    const uint8_t *at;
    size_t bytes;
} ucx_piece;

/* A message on its way: UCX reads the header, and what `pieces` name, until it is sent. */
struct ucx_message {
    ucx_message *next;
    ucx_worker *worker;
    bt_op *op;                               /* it is a part of; NULL for answers and notes */
    ucx_note *note;                          /* its data, owned; NULL: others' */
    ucx_piece pieces[2 + BT_UCX_PIECES_MAX]; /* the list, what it speaks of, a note */
    uint32_t n_pieces;
    ucp_dt_iov_t gather[BT_UCX_GATHER_PIECES_MAX]; /* the same, for UCX */
    uint8_t header[BT_UCX_HEADER_BYTES];
    uint8_t list[BT_UCX_PIECES_MAX * BT_UCX_ENTRY_BYTES];
};

/* NULL: no memory. */
ucx_message *bt_ucx_message_take(ucx_worker *worker);
void bt_ucx_message_give(ucx_message *message);
/* Sends data[bytes], or the message's pieces; the message is given back when that fails or is done
 * at once. */
typedef enum {
    BT_UCX_PLAIN,    /* data[bytes] */
    BT_UCX_PACKED,   /* pieces, one behind the other, copied into UCX's own segment */
    BT_UCX_GATHERED, /* pieces, at most BT_UCX_GATHER_PIECES_MAX, read where they are */
} bt_ucx_shape;
typedef struct {
    ucx_fields fields;
    bt_ucx_shape shape;
    const void *data;
    size_t bytes;
    ucs_memory_type_t memory_type;
} ucx_sending;
ucs_status_t bt_ucx_message_send(ucx_message *message, ucp_ep_h handle, const ucx_sending *sending);
void bt_ucx_put_u64(uint8_t *at, uint64_t value);
uint64_t bt_ucx_get_u64(const uint8_t *at);

/* Errors: TRANSPORT. */
baton_status bt_ucx_messages_open(ucx_worker *worker);
/* After UCX's worker is gone. */
void bt_ucx_messages_close(ucx_worker *worker);
/* True when the endpoint has no lane that writes remote memory. */
bool bt_ucx_needs_messages(ucx_endpoint *endpoint);

/* Sends the runs as parts of the put, ucx_pack.c. */
ucs_status_t bt_ucx_send_runs(bt_op *op, const bt_run *runs, uint32_t n_runs,
                              ucs_memory_type_t memory_type);
/* The end of a put may be parked until its endpoint does the next thing, or its worker progresses:
 * sends it, with the note behind it (which it takes over) or alone (NULL). */
ucs_status_t bt_ucx_unpark(ucx_endpoint *endpoint, ucx_note *note);
void bt_ucx_unpark_all(ucx_worker *worker);
/* It is never sent. */
void bt_ucx_drop_parked(ucx_endpoint *endpoint, baton_status status, const char *detail);
/* A datatype for messages sent with is_packed; destroyed with ucp_dt_destroy. */
ucs_status_t bt_ucx_packed_create(ucp_datatype_t *packed_p);
/* Asks the target whether all has landed; the answer is a part of the flush. */
ucs_status_t bt_ucx_ask_landed(bt_op *op);
/* Starts an operation of kind FLUSH; not taken back on failure. */
baton_status bt_ucx_start_flush(ucx_endpoint *endpoint, bt_op *op);
/* As start_flush, for the puts outside of messages alone. */
baton_status bt_ucx_flush_rma(ucx_endpoint *endpoint, bt_op *op);
/* Errors: CLOSED, when the endpoint has failed. */
baton_status bt_ucx_check_open(const ucx_endpoint *endpoint);
/* No answers are expected any more: finishes the flushes that wait. */
void bt_ucx_abandon_flushes(ucx_endpoint *endpoint, baton_status status, const char *detail);

/* Of a worker's notes that wait; more are refused. */
enum { BT_UCX_NOTE_BYTES_MAX = 1 << 20, BT_UCX_NOTES_MAX = 4096 };
/* Of a worker's answers that have not left; more questions stay without one: their peer does not
 * read. */
enum { BT_UCX_ANSWERS_MAX = 4096 };
/* Sends a note, which it takes over. */
ucs_status_t bt_ucx_send_note(ucx_endpoint *endpoint, ucx_note *note);

/* Notes, ucx_note.c. */
ucx_note *bt_ucx_note_create(const void *bytes, size_t n_bytes); /* NULL: no memory. */
void bt_ucx_note_append(ucx_notes *notes, ucx_note *note);
ucx_note *bt_ucx_note_pop(ucx_notes *notes); /* NULL when empty. */
void bt_ucx_notes_clear(ucx_notes *notes);

#endif
