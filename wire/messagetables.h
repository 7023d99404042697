/* SPDX-License-Identifier: Apache-2.0 */
/* The fields of every control message, in the order they are written. Shared by the encoder and
 * the decoder (wire/messages.c), and by nobody else.
 * Thread rule: any thread. */
#ifndef BT_WIRE_MESSAGETABLES_H
#define BT_WIRE_MESSAGETABLES_H
#include "wire/messages.h"
#include "wire/packfields.h"

typedef struct {
    const bt_field *fields;
    size_t n_fields;
} bt_message_table;

/* The message's own fields. Offsets are from the start of bt_message. Depends on the type, and for
 * ALLOC_ANSWER on u.alloc_answer.outcome too. */
bt_message_table bt_message_fields(const bt_message *message);
bool bt_message_is_answer(bt_message_type type);

/* A reader over one field of a checked frame: limits of a whole frame. */
extern const bt_unpack_limits bt_message_limits;

/* One element of a packed list. */
baton_status bt_read_run(bt_packreader *reader, bt_page_run *run);
baton_status bt_read_range(bt_packreader *reader, bt_chunk_range *range);
/* A HEARTBEAT's array of four, or an answer's bare ticket. */
baton_status bt_read_ticket(bt_packreader *reader, bt_ticket_progress *ticket);

#endif
