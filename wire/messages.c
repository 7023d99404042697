/* SPDX-License-Identifier: Apache-2.0 */
#include "wire/messages.h"

#include "core/fail.h"
#include "wire/messagetables.h"

enum { DIGEST_BYTES = 8, N_COMMON = 4 /* type, v, epoch, id */ };

static const char *const type_names[] = {
#define MESSAGE_NAME(name) [BT_MSG_##name] = #name,
    BT_MESSAGE_TYPES(MESSAGE_NAME)
#undef MESSAGE_NAME
};
enum { N_TYPES = sizeof(type_names) / sizeof(type_names[0]) };

const char *bt_message_type_name(bt_message_type type)
{
    return (unsigned)type < N_TYPES ? type_names[type] : "?";
}

/* Chunks in the ranges, each counted as often as it is named. */
static uint64_t count_chunks(const bt_msg_commit *commit)
{
    uint64_t n = 0;
    bt_list_cursor cursor = {0};
    bt_chunk_range range;
    if (commit->ranges != NULL) {
        for (uint32_t i = 0; i < commit->n_ranges; i++)
            n += commit->ranges[i].count;
        return n;
    }
    while (bt_message_next_range(commit, &cursor, &range))
        n += range.count;
    return n;
}

/* What one field's table row cannot say: NULL, or what is wrong. */
static const char *find_fault(const bt_message *message)
{
    const bt_msg_alloc_answer *answer = &message->u.alloc_answer;
    const bt_msg_commit *commit = &message->u.commit;
    switch (message->type) {
    case BT_MSG_INIT:
    case BT_MSG_INIT_ANSWER:
        if (message->status >= 0 && message->u.init.rank >= message->u.init.world)
            return "rank is not below world";
        break;
    case BT_MSG_ALLOC:
        if (message->u.alloc.keys.bytes % BATON_KEY_BYTES != 0)
            return "keys are not whole";
        break;
    case BT_MSG_ALLOC_ANSWER:
        if (message->status >= 0 && answer->outcome == BT_ALLOC_REFUSED)
            return "refused without a status";
        break;
    case BT_MSG_COMMIT:
        if (count_chunks(commit) > BT_CHUNKS_MAX)
            return "ranges of too many chunks";
        if (commit->digests.bytes != 0 &&
            commit->digests.bytes != count_chunks(commit) * DIGEST_BYTES)
            return "not one digest per chunk";
        break;
    case BT_MSG_CANCEL:
        if (message->u.end.name.nonce.bytes % BT_NONCE_BYTES != 0)
            return "nonce is neither empty nor whole";
        break;
    case BT_MSG_DRAINED:
        if (message->u.drained.nonce.bytes % BT_NONCE_BYTES != 0)
            return "nonce is neither empty nor whole";
        break;
    default:
        break;
    }
    return message->status > 0 ? "status is above 0" : NULL;
}

/* The last run ends within the request. Runs are ascending, so no other can end later. */
static baton_status check_runs(const bt_message *message)
{
    const bt_msg_alloc_answer *answer = &message->u.alloc_answer;
    if (message->type != BT_MSG_ALLOC_ANSWER || answer->outcome != BT_ALLOC_GRANTED)
        return BATON_OK;
    bt_list_cursor cursor = {0};
    bt_page_run run = {0};
    while (bt_message_next_run(answer, &cursor, &run)) {
    }
    if (run.first + run.count > answer->n_chunks)
        return bt_fail(BATON_ERR_BAD_MESSAGE, "ALLOC_ANSWER: a run ends at chunk %u of %u",
                       run.first + run.count, answer->n_chunks);
    return BATON_OK;
}

static uint32_t count_lists(const bt_message *message, uint32_t *max)
{
    switch (message->type) {
    case BT_MSG_MEMREG_ANSWER:
        *max = BT_REGIONS_MAX;
        return message->u.memreg_answer.n_regions;
    case BT_MSG_HEARTBEAT:
    case BT_MSG_HEARTBEAT_ANSWER:
        *max = BT_HEARTBEAT_TICKETS_MAX;
        return message->u.heartbeat.n_tickets;
    case BT_MSG_ALLOC_ANSWER:
        *max = BT_CHUNKS_MAX;
        return message->u.alloc_answer.n_runs;
    case BT_MSG_COMMIT:
        *max = BT_CHUNKS_MAX;
        return message->u.commit.n_ranges;
    default:
        *max = 0;
        return 0;
    }
}

static baton_status check_before_encode(const bt_message *message)
{
    uint32_t max = 0, n = 0;
    if ((unsigned)message->type >= N_TYPES)
        return bt_fail(BATON_ERR_INVALID_ARG, "message: type %d", (int)message->type);
    const char *name = type_names[message->type];
    if (message->status >= 0 && (n = count_lists(message, &max)) > max)
        return bt_fail(BATON_ERR_INVALID_ARG, "%s: %u list elements, at most %u", name, n, max);
    const char *fault = find_fault(message);
    if (fault != NULL)
        return bt_fail(BATON_ERR_INVALID_ARG, "%s: %s", name, fault);
    return BATON_OK;
}

/* The common fields behind id. Which ones a type has: */
static const bt_field peer_epoch_field = {
    .name = "peer_epoch", .type = BT_FIELD_U64, .offset = offsetof(bt_message, peer_epoch)};
static const bt_field answer_fields[] = {
    {.name = "status", .type = BT_FIELD_I32, .offset = offsetof(bt_message, status)},
    {.name = "text",
     .type = BT_FIELD_STR,
     .offset = offsetof(bt_message, text),
     .max = BT_TEXT_BYTES_MAX},
};

baton_status bt_message_encode(const bt_message *message, bt_packwriter *writer)
{
    BATON_TRY(check_before_encode(message));
    bt_message_table table = bt_message_fields(message);
    bool is_answer = bt_message_is_answer(message->type);
    bool has_peer = message->type != BT_MSG_INIT;
    size_t n_pairs = table.n_fields + N_COMMON + (has_peer ? 1U : 0U) + (is_answer ? 2U : 0U);
    bt_pack_map(writer, (uint32_t)n_pairs);
    bt_pack_key_str(writer, "type", type_names[message->type]);
    bt_pack_key_u64(writer, "v", BT_PROTOCOL_VERSION);
    bt_pack_key_u64(writer, "epoch", message->epoch);
    bt_pack_key_u64(writer, "id", message->id);
    if (has_peer)
        bt_pack_fields(writer, &peer_epoch_field, 1, message);
    if (is_answer)
        bt_pack_fields(writer, answer_fields, 2, message);
    bt_pack_fields(writer, table.fields, table.n_fields, message);
    return bt_pack_finish(writer);
}

static baton_status read_type(bt_packreader *reader, void *value)
{
    bt_blob name;
    BATON_TRY(bt_unpack_str(reader, &name));
    for (unsigned type = 0; type < N_TYPES; type++) {
        if (bt_blob_is_text(name, type_names[type])) {
            *(bt_message_type *)value = (bt_message_type)type;
            return BATON_OK;
        }
    }
    return bt_unpack_fail(reader, "no such message");
}

/* First pass: what every version of the protocol has. */
static const bt_field first_fields[] = {
    {.name = "type",
     .type = BT_FIELD_CALL,
     .offset = offsetof(bt_message, type),
     .read = read_type},
    {.name = "v", .type = BT_FIELD_U32, .offset = offsetof(bt_message, v)},
    {.name = "epoch", .type = BT_FIELD_U64, .offset = offsetof(bt_message, epoch), .min = 1},
    {.name = "id", .type = BT_FIELD_U64, .offset = offsetof(bt_message, id)},
};
/* Only here to tell an ALLOC_ANSWER's tables apart. */
static const bt_field outcome_field = {.name = "outcome",
                                       .type = BT_FIELD_U32,
                                       .offset = offsetof(bt_message, u.alloc_answer.outcome)};

/* Reads some of the frame's fields, from its start again. */
static baton_status read_pass(const bt_packreader *start, const bt_field *fields, size_t n_fields,
                              bt_message *message)
{
    bt_packreader reader = *start;
    return bt_unpack_fields(&reader, fields, n_fields, message, NULL);
}

static baton_status read_own_fields(const bt_packreader *start, bt_message *message)
{
    if (message->type != BT_MSG_INIT)
        BATON_TRY(read_pass(start, &peer_epoch_field, 1, message));
    if (bt_message_is_answer(message->type))
        BATON_TRY(read_pass(start, answer_fields, 2, message));
    if (message->type == BT_MSG_ALLOC_ANSWER)
        BATON_TRY(read_pass(start, &outcome_field, 1, message));
    bt_message_table table = bt_message_fields(message);
    return read_pass(start, table.fields, table.n_fields, message);
}

/* Who greets in our version with what that version does not know is newer, or older, than it says:
 * it must be told, and not wait for an answer in vain. */
static baton_status name_stranger(const bt_message *message, baton_status status)
{
    char detail[BT_ERROR_TEXT_BYTES]; /* a copy: bt_fail writes where the text is now */
    bool greets = message->type == BT_MSG_INIT || message->type == BT_MSG_INIT_ANSWER;
    if (status != BATON_ERR_BAD_MESSAGE || !greets)
        return status;
    bt_blob_to_text(bt_blob_of_text(baton_last_error()), detail, sizeof(detail));
    return bt_fail(BATON_ERR_VERSION_MISMATCH, "%s; use one version of Baton on both ends", detail);
}

baton_status bt_message_decode(const void *frame, size_t bytes, bt_message *message)
{
    bt_packreader reader;
    if (bytes > BT_FRAME_BYTES_MAX)
        return bt_fail(BATON_ERR_BAD_MESSAGE, "message: wanted at most %d bytes, found %zu",
                       BT_FRAME_BYTES_MAX, bytes);
    *message = (bt_message){0};
    BATON_TRY(bt_unpack_open(&reader, "message", frame, bytes, &bt_message_limits));
    BATON_TRY(read_pass(&reader, first_fields, N_COMMON, message));
    reader.what = type_names[message->type];
    if (message->v != BT_PROTOCOL_VERSION)
        return bt_fail(BATON_ERR_VERSION_MISMATCH, "%s: protocol version: ours %d theirs %u",
                       reader.what, BT_PROTOCOL_VERSION, message->v);
    BATON_TRY(name_stranger(message, read_own_fields(&reader, message)));
    const char *fault = find_fault(message);
    if (fault != NULL)
        return name_stranger(message, bt_fail(BATON_ERR_BAD_MESSAGE, "%s: %s", reader.what, fault));
    return check_runs(message);
}

/* Places a reader at element cursor->index of a packed list; false at its end. The bytes were
 * checked by bt_message_decode. */
static bool begin_element(bt_blob packed, uint32_t n, bt_list_cursor *cursor, bt_packreader *reader)
{
    uint32_t count = 0;
    if (cursor->index >= n)
        return false;
    *reader = (bt_packreader){.what = "list",
                              .bytes = packed.data,
                              .n = packed.bytes,
                              .pos = cursor->offset,
                              .limits = bt_message_limits};
    return cursor->index > 0 || bt_unpack_array(reader, &count) == BATON_OK;
}

static bool end_element(baton_status status, const bt_packreader *reader, bt_list_cursor *cursor)
{
    cursor->offset = reader->pos;
    cursor->index++;
    return status == BATON_OK;
}

bool bt_message_next_run(const bt_msg_alloc_answer *answer, bt_list_cursor *cursor,
                         bt_page_run *run)
{
    bt_packreader reader;
    return begin_element(answer->packed_runs, answer->n_runs, cursor, &reader) &&
           end_element(bt_read_run(&reader, run), &reader, cursor);
}

bool bt_message_next_range(const bt_msg_commit *commit, bt_list_cursor *cursor,
                           bt_chunk_range *range)
{
    bt_packreader reader;
    return begin_element(commit->packed_ranges, commit->n_ranges, cursor, &reader) &&
           end_element(bt_read_range(&reader, range), &reader, cursor);
}

bool bt_message_next_ticket(const bt_msg_heartbeat *heartbeat, bt_list_cursor *cursor,
                            bt_ticket_progress *ticket)
{
    bt_packreader reader;
    return begin_element(heartbeat->packed_tickets, heartbeat->n_tickets, cursor, &reader) &&
           end_element(bt_read_ticket(&reader, ticket), &reader, cursor);
}
