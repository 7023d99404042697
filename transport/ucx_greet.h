/* SPDX-License-Identifier: Apache-2.0 */
/* Greetings over tcp, for UCX before 1.14. With a writer's first message UCX asks the target who it
 * is, and the target's answer waits until its own direction of the tcp connection is open, which
 * takes a word of the writer. A writer that dies just then ends the *target's* process
 * (ucp_request.c, "got REP message"; openucx/ucx pull request 8175). So both directions are opened
 * before, by endpoints on which nothing but a flush waits, which UCX takes back safely; what is
 * posted is held meanwhile (ucx_wire.c).
 *
 *   writer                                               target
 *     flush: its direction is open
 *     GREETING endpoint id, the worker's address ------> makes an endpoint to that address
 *                                                        flush: the other direction is open
 *     what was held is posted     <--------------------- WELCOME endpoint id
 *
 * Both messages are ucx_message.h's, and short: what fits a segment, on a connection that is open
 * and idle, UCX sends without asking anything.
 *
 * Thread rule: owner thread of the worker. */
#ifndef BT_TRANSPORT_UCX_GREET_H
#define BT_TRANSPORT_UCX_GREET_H
#include "transport/ucx_message.h"

/* Of a worker, at once; more greetings stay unanswered. */
enum { BT_UCX_WAYS_MAX = 64 };

/* Writer: the endpoint must greet before it sends messages. */
bool bt_ucx_must_greet(const ucx_endpoint *endpoint);
ucs_status_t bt_ucx_greet(ucx_endpoint *endpoint);
/* Both are called from within UCX's progress; nothing of the message is trusted. */
void bt_ucx_take_greeting(ucx_worker *worker, const ucx_fields *fields, const void *address,
                          size_t bytes);
void bt_ucx_take_welcome(ucx_worker *worker, const ucx_fields *fields);
/* Target: opens and closes ways back, outside of UCX's progress. */
void bt_ucx_ways_progress(ucx_worker *worker);
/* After UCX's worker is gone. */
void bt_ucx_ways_free(ucx_worker *worker);

#endif
