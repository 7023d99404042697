/* SPDX-License-Identifier: Apache-2.0 */
/* Puts in messages, for transports that cannot write remote memory (tcp, ud).
 *
 * UCX emulates puts over them, but the emulation's acknowledgement is sent by the *target*, and
 * when the writer has died by then, every version up to 1.22 ends the target's process
 * (ucp_rma_sw_send_cmpl: "Fatal: unexpected error"). So puts to host memory go in active messages
 * of ours there, whose errors UCX reports. What is gained besides: the target checks every write
 * against its registered memory, and one answer per flush replaces one per piece.
 *
 *   writer                                         target
 *     PUT   endpoint id, address, bytes, data ---->  checked, copied, counted for that endpoint
 *     FLUSH endpoint id, flush, messages sent ---->
 *           <--- LANDED flush, landed, refused       when landed < sent (several rails): asked
 * again
 *
 * Header, little-endian: 0 u32 magic "BTNM", 4 u32 type, 8 u64 endpoint id, then two u64:
 *   PUT 16 address, 24 bytes; FLUSH 16 flush, 24 sent; LANDED 16 flush, 24 landed, 32 refused.
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
/* No answers are expected any more: finishes the flushes that wait. */
void bt_ucx_abandon_flushes(ucx_endpoint *endpoint, ucs_status_t status);

#endif
