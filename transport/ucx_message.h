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
 *     NOTE  endpoint id, number, data ------------->  held until all below its number have landed
 *     FLUSH endpoint id, flush, messages sent ----->
 *           <--- LANDED flush, landed, refused        landed < sent (several lanes): asked again
 *
 * PUT and NOTE of an endpoint are numbered together, from 0. UCX keeps the order of messages on one
 * lane, which is all it uses for messages of one segment (ours are, and none is a rendezvous); with
 * UCX_MAX_EAGER_LANES and small segments of the user's it may change it. The target therefore goes
 * by the numbers: `landed` is the first that is missing. A note behind a refused put is never
 * handed over; LANDED with flush -1 tells the writer, whose endpoint fails.
 *
 * Header, little-endian: 0 u32 magic "BTNM", 4 u32 type, 8 u64 endpoint id, then three u64:
 *   PUT 16 address, 24 bytes, 32 number; NOTE 16 number, 24 bytes; FLUSH 16 flush, 24 sent;
 *   LANDED 16 flush, 24 landed, 32 refused.
 * Thread rule: owner thread of the worker. */
#ifndef BT_TRANSPORT_UCX_MESSAGE_H
#define BT_TRANSPORT_UCX_MESSAGE_H
#include "transport/ucx_state.h"

/* Errors: TRANSPORT. */
baton_status bt_ucx_messages_open(ucx_worker *worker);
/* After UCX's worker is gone. */
void bt_ucx_messages_close(ucx_worker *worker);
/* True when the endpoint has no lane that writes remote memory. */
bool bt_ucx_needs_messages(ucx_endpoint *endpoint);

/* Sends one run as parts of the put. */
ucs_status_t bt_ucx_send_run(bt_op *op, const bt_run *run, ucs_memory_type_t memory_type);
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

enum { BT_UCX_NOTE_BYTES_MAX = 1 << 20 }; /* of a worker's notes that wait; more are refused */
/* Sends a note, which it takes over. */
ucs_status_t bt_ucx_send_note(ucx_endpoint *endpoint, ucx_note *note);

/* Notes, ucx_note.c. */
ucx_note *bt_ucx_note_create(const void *bytes, size_t n_bytes); /* NULL: no memory. */
void bt_ucx_note_append(ucx_notes *notes, ucx_note *note);
ucx_note *bt_ucx_note_pop(ucx_notes *notes); /* NULL when empty. */
void bt_ucx_notes_clear(ucx_notes *notes);

#endif
