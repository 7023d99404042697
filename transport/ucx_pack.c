/* SPDX-License-Identifier: Apache-2.0 */
/* Writer's side of puts in messages: cuts what is larger than a message, and puts small pieces
 * together into one with a list, so that they do not cost a message each.
 *
 * Small pieces are copied into UCX's segment when it is sent (a generic datatype). UCX's own lists
 * of pieces (iov) save the copy, which is a sixth of the sender's CPU time when pieces are large;
 * but 1.13 ends the process on some of their lengths (proto_am.inl: "state.offset <
 * req->send.length"), so they are left to later versions.
 *
 * A small end of a put is parked: the COMMIT behind it mostly comes at once, and leaves with it. */
#include <string.h>

#include "transport/ucx_message.h"

enum {
    CUT_BYTES_MIN = 4 << 10, /* a piece is cut to fill a message when so much has room */
    GATHER_MINOR = 17,       /* 1.x of UCX that sends lists of pieces */
};

typedef struct {
    bt_op *op;
    ucs_memory_type_t memory_type;
    ucx_message *message; /* being filled; NULL: none */
    uint32_t n_pieces;    /* of local memory */
    uint32_t n_entries;
    uint64_t bytes;
    bt_run last; /* the last entry; its local side is not sent */
} packing;

/* The message is of no use any more, and its pieces were not sent. */
static void drop(packing *p)
{
    if (p->message != NULL)
        bt_ucx_message_give(p->message);
    p->message = NULL;
}

static void write_entry(packing *p)
{
    uint8_t *at = p->message->list + (p->n_entries - 1) * BT_UCX_ENTRY_BYTES;
    uint32_t count = bt_run_count(&p->last);
    bt_ucx_put_u64(at, p->last.remote_addr);
    bt_ucx_put_u64(at + 8, count > 1 ? (uint64_t)p->last.remote_stride : 0);
    bt_ucx_put_u64(at + 16, count | p->last.bytes << 32);
}

static bool should_gather(const packing *p)
{
    return !bt_ucx_is_older(GATHER_MINOR) && p->memory_type == UCS_MEMORY_TYPE_HOST &&
           p->n_pieces < BT_UCX_GATHER_PIECES_MAX &&
           p->bytes >= (uint64_t)p->n_pieces * BT_UCX_GATHER_BYTES_MIN;
}

/* Sends what has been put together: a plain put when it is one piece. */
static ucs_status_t send_packed(packing *p)
{
    ucx_endpoint *endpoint = p->op->owner;
    ucx_message *message = p->message;
    if (message == NULL)
        return UCS_OK;
    p->message = NULL;
    ucx_sending sending = {.memory_type = p->memory_type};
    if (p->n_pieces == 1 && bt_run_count(&p->last) == 1 && p->n_entries == 1) {
        sending.fields = (ucx_fields){
            BT_UCX_PUT, endpoint->id, {p->last.remote_addr, p->bytes, endpoint->n_messages}};
        sending.data = message->pieces[1].at;
        sending.bytes = p->bytes;
    } else {
        sending.fields =
            (ucx_fields){BT_UCX_RUNS, endpoint->id, {p->n_entries, p->bytes, endpoint->n_messages}};
        message->pieces[0] =
            (ucx_piece){.at = message->list, .bytes = p->n_entries * BT_UCX_ENTRY_BYTES};
        message->n_pieces = 1 + p->n_pieces;
        sending.shape = should_gather(p) ? BT_UCX_GATHERED : BT_UCX_PACKED;
    }
    ucs_status_t status = bt_ucx_message_send(message, endpoint->handle, &sending);
    endpoint->n_messages += status == UCS_OK;
    return status;
}

static bool may_park(const packing *p)
{
    return p->message != NULL && p->bytes <= BT_UCX_PARKED_BYTES_MAX &&
           p->memory_type == UCS_MEMORY_TYPE_HOST;
}

static void park(packing *p)
{
    ucx_endpoint *endpoint = p->op->owner;
    ucx_message *message = p->message;
    p->message = NULL;
    message->n_pieces = 1 + p->n_pieces;
    message->pieces[0] =
        (ucx_piece){.at = message->list, .bytes = p->n_entries * BT_UCX_ENTRY_BYTES};
    endpoint->parked = message;
    endpoint->n_parked_entries = p->n_entries;
    endpoint->parked_bytes = p->bytes;
    endpoint->parked_number = endpoint->n_messages++;
    p->op->n_pending++;
    message->worker->n_parked++;
}

static ucx_message *take_parked(ucx_endpoint *endpoint)
{
    ucx_message *message = endpoint->parked;
    endpoint->parked = NULL;
    message->worker->n_parked--;
    return message;
}

ucs_status_t bt_ucx_unpark(ucx_endpoint *endpoint, ucx_note *note)
{
    ucx_message *message = take_parked(endpoint);
    bt_op *op = message->op;
    uint64_t note_bytes = note != NULL ? note->n_bytes : 0;
    if (note != NULL)
        message->pieces[message->n_pieces++] =
            (ucx_piece){.at = note->bytes, .bytes = note->n_bytes};
    message->note = note;
    const ucx_sending sending = {.fields = {note != NULL ? BT_UCX_BOTH : BT_UCX_RUNS,
                                            endpoint->id,
                                            {endpoint->n_parked_entries | note_bytes << 32,
                                             endpoint->parked_bytes, endpoint->parked_number}},
                                 .shape = BT_UCX_PACKED,
                                 .memory_type = UCS_MEMORY_TYPE_HOST};
    ucs_status_t status = bt_ucx_message_send(message, endpoint->handle, &sending);
    if (status != UCS_OK) { /* its number will always be missing */
        bt_ucx_record_failure(op, status);
        bt_ucx_fail(endpoint, bt_status_from_ucs(status), ucs_status_string(status));
    }
    bt_ucx_finish_part(op);
    return status;
}

void bt_ucx_unpark_all(ucx_worker *worker)
{
    for (ucx_endpoint *endpoint = worker->endpoints; endpoint != NULL; endpoint = endpoint->next) {
        if (endpoint->parked == NULL)
            continue;
        if (endpoint->has_failed)
            bt_ucx_drop_parked(endpoint, endpoint->failed.status, endpoint->failed.detail);
        else
            bt_ucx_unpark(endpoint, NULL);
    }
}

void bt_ucx_drop_parked(ucx_endpoint *endpoint, baton_status status, const char *detail)
{
    if (endpoint->parked == NULL)
        return;
    ucx_message *message = take_parked(endpoint);
    bt_op *op = message->op;
    bt_ucx_message_give(message);
    bt_op_set_failure(op, status, detail);
    bt_ucx_finish_part(op);
}

static ucs_status_t begin(packing *p)
{
    ucx_endpoint *endpoint = p->op->owner;
    p->message = bt_ucx_message_take((ucx_worker *)endpoint->base.worker);
    if (p->message == NULL)
        return UCS_ERR_NO_MEMORY;
    p->message->op = p->op;
    p->n_pieces = p->n_entries = 0;
    p->bytes = 0;
    return UCS_OK;
}

/* A list and the pieces of one message lie in one kind of memory. */
static bool fits(const packing *p, uint64_t bytes)
{
    return p->n_pieces < BT_UCX_PIECES_MAX && p->n_entries < BT_UCX_PIECES_MAX &&
           p->bytes + bytes <= BT_UCX_SHARED_BYTES_MAX && p->memory_type == UCS_MEMORY_TYPE_HOST;
}

/* At most a message's worth. */
static ucs_status_t add_piece(packing *p, const bt_run *piece)
{
    ucs_status_t status = UCS_OK;
    if (p->message != NULL && !fits(p, piece->bytes))
        status = send_packed(p);
    if (status == UCS_OK && p->message == NULL)
        status = begin(p);
    if (status != UCS_OK)
        return status;
    const uint8_t *from = (const uint8_t *)(uintptr_t)piece->local_addr;
    ucx_piece *before = &p->message->pieces[p->n_pieces];
    if (p->n_pieces > 0 && before->at + before->bytes == from)
        before->bytes += piece->bytes;
    else
        p->message->pieces[++p->n_pieces] = (ucx_piece){.at = from, .bytes = piece->bytes};
    /* The target reads pieces one behind the other: its side alone decides what is regular. */
    const bt_run remote = {
        .local_addr = piece->remote_addr, .remote_addr = piece->remote_addr, .bytes = piece->bytes};
    if (p->n_entries == 0 || !bt_run_join(&p->last, &remote)) {
        p->last = remote;
        p->n_entries++;
    }
    write_entry(p);
    p->bytes += piece->bytes;
    return UCS_OK;
}

/* How much of what is left of a piece the next message takes: what fills a segment goes alone, and
 * the rest fills messages up, since the target moves the beginning of a message that it has read
 * along with the end of another. */
static uint64_t cut(const packing *p, uint64_t left)
{
    if (left >= BT_UCX_PART_BYTES_MAX)
        return BT_UCX_PART_BYTES_MAX;
    if (p->message == NULL || !fits(p, CUT_BYTES_MIN) || fits(p, left))
        return left;
    return BT_UCX_SHARED_BYTES_MAX - p->bytes;
}

static ucs_status_t add_run(packing *p, const bt_run *run)
{
    ucs_status_t status = UCS_OK;
    for (uint32_t i = 0; i < bt_run_count(run); i++) {
        for (uint64_t done = 0; done < run->bytes && status == UCS_OK;) {
            const bt_run piece = {.local_addr = bt_run_local(run, i) + done,
                                  .remote_addr = bt_run_remote(run, i) + done,
                                  .bytes = cut(p, run->bytes - done)};
            status = add_piece(p, &piece);
            done += piece.bytes;
        }
    }
    return status;
}

ucs_status_t bt_ucx_send_runs(bt_op *op, const bt_run *runs, uint32_t n_runs,
                              ucs_memory_type_t memory_type)
{
    packing p = {.op = op, .memory_type = memory_type};
    ucs_status_t status = UCS_OK;
    for (uint32_t i = 0; i < n_runs && status == UCS_OK; i++)
        status = add_run(&p, &runs[i]);
    if (status == UCS_OK && may_park(&p))
        park(&p);
    else if (status == UCS_OK)
        status = send_packed(&p);
    drop(&p);
    return status;
}

/* UCX's view of a message's pieces as one datatype: it asks for the bytes when it has room. */
static void *start_pack(void *context, const void *buffer, size_t count)
{
    (void)context, (void)count;
    return (void *)(uintptr_t)buffer; /* const, but UCX's states are not */
}

static size_t packed_size(void *state)
{
    const ucx_message *message = state;
    size_t bytes = 0;
    for (uint32_t i = 0; i < message->n_pieces; i++)
        bytes += message->pieces[i].bytes;
    return bytes;
}

static size_t pack(void *state, size_t offset, void *to, size_t max_bytes)
{
    const ucx_message *message = state;
    size_t done = 0;
    for (uint32_t i = 0; i < message->n_pieces && done < max_bytes; i++) {
        const ucx_piece *piece = &message->pieces[i];
        if (offset >= piece->bytes) {
            offset -= piece->bytes;
            continue;
        }
        size_t bytes = piece->bytes - offset;
        if (bytes > max_bytes - done)
            bytes = max_bytes - done;
        memcpy((uint8_t *)to + done, piece->at + offset, bytes);
        done += bytes;
        offset = 0;
    }
    return done;
}

/* Messages are received whole, so UCX never unpacks. */
static void *start_unpack(void *context, void *buffer, size_t count)
{
    (void)context, (void)buffer, (void)count;
    return NULL;
}

static ucs_status_t unpack(void *state, size_t offset, const void *from, size_t bytes)
{
    (void)state, (void)offset, (void)from, (void)bytes;
    return UCS_ERR_UNSUPPORTED;
}

static void finish(void *state)
{
    (void)state;
}

ucs_status_t bt_ucx_packed_create(ucp_datatype_t *packed_p)
{
    static const ucp_generic_dt_ops_t ops = {.start_pack = start_pack,
                                             .start_unpack = start_unpack,
                                             .packed_size = packed_size,
                                             .pack = pack,
                                             .unpack = unpack,
                                             .finish = finish};
    return ucp_dt_create_generic(&ops, NULL, packed_p);
}
