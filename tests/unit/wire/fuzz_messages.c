/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a control message. What is accepted must encode again, to a frame that is read the
 * same way: encoding that one once more gives the same bytes. */
#include "wire/messages.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static bt_page_run runs[BT_CHUNKS_MAX];
static bt_chunk_range ranges[BT_CHUNKS_MAX];
static bt_ticket_progress tickets[BT_HEARTBEAT_TICKETS_MAX];

static void require(bool holds)
{
    if (!holds)
        abort();
}

/* Encoding takes lists from arrays, decoding leaves them packed. */
static void unpack_lists(bt_message *message)
{
    bt_list_cursor cursor = {0};
    uint32_t n = 0;
    if (message->type == BT_MSG_ALLOC_ANSWER) {
        while (bt_message_next_run(&message->u.alloc_answer, &cursor, &runs[n]))
            require(n++ < BT_CHUNKS_MAX);
        require(n == message->u.alloc_answer.n_runs);
        message->u.alloc_answer.runs = runs;
    } else if (message->type == BT_MSG_COMMIT) {
        while (bt_message_next_range(&message->u.commit, &cursor, &ranges[n]))
            require(n++ < BT_CHUNKS_MAX);
        require(n == message->u.commit.n_ranges);
        message->u.commit.ranges = ranges;
    } else if (message->type == BT_MSG_HEARTBEAT || message->type == BT_MSG_HEARTBEAT_ANSWER) {
        while (bt_message_next_ticket(&message->u.heartbeat, &cursor, &tickets[n]))
            require(n++ < BT_HEARTBEAT_TICKETS_MAX);
        require(n == message->u.heartbeat.n_tickets);
        message->u.heartbeat.tickets = tickets;
    }
}

static void encode_again(const uint8_t *data, size_t size, bt_packwriter *writer)
{
    bt_message message;
    require(bt_message_decode(data, size, &message) == BATON_OK);
    unpack_lists(&message);
    bt_pack_init(writer, BT_FRAME_BYTES_MAX);
    require(bt_message_encode(&message, writer) == BATON_OK);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    bt_message message;
    baton_status status = bt_message_decode(data, size, &message);
    require(status == BATON_OK || status == BATON_ERR_BAD_MESSAGE ||
            status == BATON_ERR_VERSION_MISMATCH);
    if (status != BATON_OK)
        return 0;
    bt_packwriter first, second;
    encode_again(data, size, &first);
    encode_again(first.bytes, first.n, &second);
    require(first.n == second.n && memcmp(first.bytes, second.bytes, first.n) == 0);
    bt_pack_release(&first);
    bt_pack_release(&second);
    return 0;
}
