/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/ucx_message.h"

#include <string.h>

#include "core/alloc.h"
#include "core/log.h"

enum {
    MESSAGE_ID = 0, /* of UCX's active messages; we have one */
    MAGIC = 0x4d4e5442,
    MESSAGES_PER_SLAB = 64,
    SENDERS_MAX = 1024, /* endpoints of one peer over the life of a worker */
    WINDOW = 4096,      /* of messages, among which several lanes may change the order */
};
/* No flush has this number: LANDED then says that a put was refused. */
static const uint64_t no_flush = UINT64_MAX;

/* Pieces of a put at the target. */
typedef struct {
    uint64_t address;
    int64_t stride;
    uint32_t count, bytes;
} ucx_entry;

struct ucx_message_slab {
    struct ucx_message_slab *next;
    ucx_message messages[MESSAGES_PER_SLAB];
};

void bt_ucx_put_u64(uint8_t *at, uint64_t value)
{
    for (uint32_t i = 0; i < 8; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

uint64_t bt_ucx_get_u64(const uint8_t *at)
{
    uint64_t value = 0;
    for (uint32_t i = 0; i < 8; i++)
        value |= (uint64_t)at[i] << (8 * i);
    return value;
}

static void pack_header(uint8_t *header, const ucx_fields *fields)
{
    bt_ucx_put_u64(header, MAGIC | (uint64_t)fields->type << 32);
    bt_ucx_put_u64(header + 8, fields->endpoint_id);
    for (uint32_t i = 0; i < 3; i++)
        bt_ucx_put_u64(header + 16 + 8 * i, fields->values[i]);
}

static bool unpack_header(const uint8_t *header, size_t n_bytes, ucx_fields *fields)
{
    if (n_bytes != BT_UCX_HEADER_BYTES || (uint32_t)bt_ucx_get_u64(header) != MAGIC)
        return false;
    fields->type = (uint32_t)(bt_ucx_get_u64(header) >> 32);
    fields->endpoint_id = bt_ucx_get_u64(header + 8);
    for (uint32_t i = 0; i < 3; i++)
        fields->values[i] = bt_ucx_get_u64(header + 16 + 8 * i);
    return true;
}

void bt_ucx_message_give(ucx_message *message)
{
    bt_free(message->note);
    message->note = NULL;
    message->next = message->worker->free_messages;
    message->worker->free_messages = message;
}

ucx_message *bt_ucx_message_take(ucx_worker *worker)
{
    if (worker->free_messages == NULL) {
        struct ucx_message_slab *slab = bt_calloc(1, sizeof(*slab));
        if (slab == NULL)
            return NULL;
        slab->next = worker->slabs;
        worker->slabs = slab;
        for (uint32_t i = 0; i < MESSAGES_PER_SLAB; i++) {
            slab->messages[i].worker = worker;
            bt_ucx_message_give(&slab->messages[i]);
        }
    }
    ucx_message *message = worker->free_messages;
    worker->free_messages = message->next;
    message->op = NULL;
    return message;
}

/* The flush waits for an answer no more; its part ends. */
static void stop_waiting(bt_op *op, ucs_status_t status)
{
    if (!bt_op_remove(&((ucx_endpoint *)op->owner)->flushes, op))
        return;
    if (status != UCS_OK)
        bt_ucx_record_failure(op, status);
    bt_ucx_finish_part(op);
}

void bt_ucx_abandon_flushes(ucx_endpoint *endpoint, baton_status status, const char *detail)
{
    while (endpoint->flushes.first != NULL) {
        bt_op_set_failure(endpoint->flushes.first, status, detail);
        stop_waiting(endpoint->flushes.first, UCS_OK);
    }
}

static void on_sent(void *request, ucs_status_t status, void *user_data)
{
    ucx_message *message = user_data;
    bt_op *op = message->op;
    message->worker->n_answers -= op == NULL && message->note == NULL;
    ucp_request_free(request);
    bt_ucx_message_give(message);
    if (op == NULL)
        return;
    if (status != UCS_OK)
        bt_ucx_record_failure(op, status);
    if (status != UCS_OK && op->kind == BT_EVENT_FLUSH)
        stop_waiting(op, status); /* no question, no answer */
    bt_ucx_finish_part(op);
}

typedef struct {
    const void *buffer;
    size_t count;
    ucp_datatype_t datatype;
} ucx_data;

static ucx_data data_of(ucx_message *message, const ucx_sending *sending)
{
    if (sending->shape == BT_UCX_PACKED)
        return (ucx_data){message, 1, message->worker->packed};
    if (sending->shape == BT_UCX_PLAIN)
        return (ucx_data){sending->data, sending->bytes, ucp_dt_make_contig(1)};
    for (uint32_t i = 0; i < message->n_pieces; i++)
        message->gather[i] =
            (ucp_dt_iov_t){(void *)(uintptr_t)message->pieces[i].at, message->pieces[i].bytes};
    return (ucx_data){message->gather, message->n_pieces, ucp_dt_make_iov()};
}

ucs_status_t bt_ucx_message_send(ucx_message *message, ucp_ep_h handle, const ucx_sending *sending)
{
    bt_op *op = message->op;
    uint32_t type = sending->fields.type;
    bool wants_answer = type == BT_UCX_FLUSH || type == BT_UCX_NOTE || type == BT_UCX_BOTH;
    pack_header(message->header, &sending->fields);
    const ucx_data data = data_of(message, sending);
    /* Eager: a rendezvous would have the target fetch the data, and needs its answer. The target
     * answers through the endpoint that the flag makes known to it. */
    const ucp_request_param_t params = {
        .op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA |
                        UCP_OP_ATTR_FIELD_FLAGS | UCP_OP_ATTR_FIELD_MEMORY_TYPE |
                        UCP_OP_ATTR_FIELD_DATATYPE,
        .flags = UCP_AM_SEND_FLAG_EAGER | (wants_answer ? UCP_AM_SEND_FLAG_REPLY : 0),
        .cb = {.send = on_sent},
        .user_data = message,
        .datatype = data.datatype,
        .memory_type = sending->memory_type};
    ucs_status_ptr_t request = ucp_am_send_nbx(
        handle, MESSAGE_ID, message->header, BT_UCX_HEADER_BYTES, data.buffer, data.count, &params);
    if (request == NULL || UCS_PTR_IS_ERR(request)) {
        bt_ucx_message_give(message);
        return UCS_PTR_STATUS(request);
    }
    if (op != NULL)
        op->n_pending++;
    message->worker->n_answers += op == NULL && message->note == NULL;
    return UCS_OK;
}

/* Sends a header alone. */
static ucs_status_t send_bare(ucx_worker *worker, ucp_ep_h handle, bt_op *op,
                              const ucx_fields *fields)
{
    ucx_message *message = bt_ucx_message_take(worker);
    if (message == NULL)
        return UCS_ERR_NO_MEMORY;
    message->op = op;
    return bt_ucx_message_send(
        message, handle, &(ucx_sending){.fields = *fields, .memory_type = UCS_MEMORY_TYPE_HOST});
}

ucs_status_t bt_ucx_send_note(ucx_endpoint *endpoint, ucx_note *note)
{
    if (endpoint->parked != NULL)
        return bt_ucx_unpark(endpoint, note);
    ucx_message *message = bt_ucx_message_take((ucx_worker *)endpoint->base.worker);
    if (message == NULL) {
        bt_free(note);
        return UCS_ERR_NO_MEMORY;
    }
    message->note = note;
    const ucx_sending sending = {
        .fields = {BT_UCX_NOTE, endpoint->id, {endpoint->n_messages, note->n_bytes}},
        .data = note->bytes,
        .bytes = note->n_bytes,
        .memory_type = UCS_MEMORY_TYPE_HOST};
    ucs_status_t status = bt_ucx_message_send(message, endpoint->handle, &sending);
    endpoint->n_messages += status == UCS_OK;
    return status;
}

static ucs_status_t send_question(bt_op *op)
{
    ucx_endpoint *endpoint = op->owner;
    const ucx_fields fields = {BT_UCX_FLUSH, endpoint->id, {op->tag, op->n_wanted}};
    return send_bare((ucx_worker *)endpoint->base.worker, endpoint->handle, op, &fields);
}

ucs_status_t bt_ucx_ask_landed(bt_op *op)
{
    ucx_endpoint *endpoint = op->owner;
    if (endpoint->parked != NULL)
        bt_ucx_unpark(endpoint, NULL);
    op->tag = endpoint->next_flush++;
    op->n_wanted = endpoint->n_messages;
    ucs_status_t status = send_question(op);
    if (status != UCS_OK)
        return status;
    op->n_pending++;
    bt_op_push(&endpoint->flushes, op);
    return UCS_OK;
}

static ucx_sender *find_sender(ucx_worker *worker, uint64_t endpoint_id)
{
    for (uint32_t i = worker->n_senders; i-- > 0;) /* the newest is the busiest */
        if (worker->senders[i].endpoint_id == endpoint_id)
            return &worker->senders[i];
    if (worker->n_senders == SENDERS_MAX)
        return NULL;
    if (worker->n_senders == worker->cap_senders) {
        uint32_t cap = worker->cap_senders != 0 ? 2 * worker->cap_senders : 4;
        ucx_sender *senders = bt_realloc(worker->senders, cap, sizeof(*senders));
        if (senders == NULL)
            return NULL;
        worker->senders = senders;
        worker->cap_senders = cap;
    }
    ucx_sender *sender = &worker->senders[worker->n_senders++];
    *sender = (ucx_sender){.endpoint_id = endpoint_id};
    return sender;
}

/* Pieces at regular distances lie in memory of ours that the CPU can write, all of it. Lock held.
 */
static bool is_ours(const ucx_transport *transport, const ucx_entry *entry)
{
    int64_t way;
    if (entry->count == 0 || entry->bytes == 0 ||
        __builtin_mul_overflow(entry->stride, (int64_t)entry->count - 1, &way))
        return false;
    uint64_t last = entry->address + (uint64_t)way;
    for (const ucx_memory *memory = transport->memories; memory != NULL; memory = memory->next) {
        uint64_t base = (uint64_t)(uintptr_t)memory->base.base, size = memory->base.bytes;
        if (memory->base.kind != BATON_MEMORY_CUDA_DEVICE && size <= INT64_MAX &&
            entry->bytes <= size && entry->address - base <= size - entry->bytes &&
            last - base <= size - entry->bytes)
            return true;
    }
    return false;
}

/* With lanes several threads copy, and what makes one of them come after another, or after the
 * owner, is often a peer: a page that was written on one lane is granted again, and written on
 * another. That says nothing in C, so everybody passes here before and after: release pairs with
 * the acquire of whoever comes later. */
static void order_copies(void)
{
    static _Atomic(uint64_t) n_passed;
    atomic_fetch_add_explicit(&n_passed, 1, memory_order_acq_rel);
}

/* Copies under the lock, so that memory cannot be freed meanwhile; all of the entries or none.
 * False: not our memory, or not as much data as they want. */
static bool land(ucx_transport *transport, const ucx_entry *entries, uint32_t n_entries,
                 const uint8_t *data, size_t bytes)
{
    uint64_t wanted = 0;
    bool is_good = true;
    order_copies();
    pthread_mutex_lock(&transport->lock);
    for (uint32_t e = 0; e < n_entries && is_good; e++) {
        is_good =
            is_ours(transport, &entries[e]) &&
            !__builtin_add_overflow(wanted, (uint64_t)entries[e].count * entries[e].bytes, &wanted);
    }
    is_good = is_good && wanted == bytes;
    for (uint32_t e = 0; e < n_entries && is_good; e++) {
        for (uint64_t i = 0; i < entries[e].count; i++) {
            uint64_t to = entries[e].address + i * (uint64_t)entries[e].stride;
            memcpy((void *)(uintptr_t)to, data, entries[e].bytes);
            data += entries[e].bytes;
        }
    }
    pthread_mutex_unlock(&transport->lock);
    order_copies();
    return is_good;
}

void bt_ucx_worker_observe(bt_worker *base)
{
    (void)base;
    order_copies();
}

static bool land_put(ucx_worker *worker, const ucx_fields *fields, const void *data, size_t bytes)
{
    const ucx_entry entry = {.address = fields->values[0], .count = 1, .bytes = (uint32_t)bytes};
    return bytes == fields->values[1] && bytes <= UINT32_MAX &&
           land((ucx_transport *)worker->base.transport, &entry, 1, data, bytes);
}

static bool land_runs(ucx_worker *worker, const ucx_fields *fields, const uint8_t *data,
                      size_t bytes)
{
    ucx_entry entries[BT_UCX_PIECES_MAX];
    uint64_t n = (uint32_t)fields->values[0], list_bytes = n * BT_UCX_ENTRY_BYTES;
    if (n == 0 || n > BT_UCX_PIECES_MAX || bytes < list_bytes ||
        bytes - list_bytes != fields->values[1])
        return false;
    for (uint32_t e = 0; e < n; e++) {
        const uint8_t *at = data + e * BT_UCX_ENTRY_BYTES;
        uint64_t sizes = bt_ucx_get_u64(at + 16);
        entries[e] = (ucx_entry){.address = bt_ucx_get_u64(at),
                                 .stride = (int64_t)bt_ucx_get_u64(at + 8),
                                 .count = (uint32_t)sizes,
                                 .bytes = (uint32_t)(sizes >> 32)};
    }
    return land((ucx_transport *)worker->base.transport, entries, (uint32_t)n, data + list_bytes,
                bytes - list_bytes);
}

static uint64_t *word_of(ucx_sender *sender, uint64_t number)
{
    return &sender->ahead[number % WINDOW / 64];
}

/* The message has landed. False: too far ahead of others to tell. */
static bool count_landed(ucx_sender *sender, uint64_t number)
{
    if (number < sender->n_landed)
        return true; /* said before */
    if (number > sender->n_landed) {
        if (number - sender->n_landed >= WINDOW)
            return false;
        if (sender->ahead == NULL)
            sender->ahead = bt_calloc(WINDOW / 64, sizeof(*sender->ahead));
        if (sender->ahead == NULL)
            return false;
        *word_of(sender, number) |= UINT64_C(1) << (number % 64);
        return true;
    }
    sender->n_landed++;
    while (sender->ahead != NULL &&
           (*word_of(sender, sender->n_landed) & UINT64_C(1) << (sender->n_landed % 64)) != 0) {
        *word_of(sender, sender->n_landed) &= ~(UINT64_C(1) << (sender->n_landed % 64));
        sender->n_landed++;
    }
    return true;
}

static void refuse(ucx_sender *sender, const char *what, size_t bytes)
{
    if (sender->n_refused++ == 0)
        bt_warn("ucx: refused %s bytes=%zu", what, bytes);
}

/* Hands over the messages that nothing is missing before any more; true when there were some. */
static bool release_some(ucx_worker *worker, ucx_sender *sender)
{
    bool is_any = false;
    ucx_notes waiting = worker->held;
    worker->held = (ucx_notes){0};
    for (ucx_note *note; (note = bt_ucx_note_pop(&waiting)) != NULL;) {
        bool is_next =
            note->endpoint_id == sender->endpoint_id && note->n_before <= sender->n_landed;
        bt_ucx_note_append(is_next ? &worker->received : &worker->held, note);
        if (is_next)
            count_landed(sender, note->n_before);
        is_any = is_any || is_next;
    }
    return is_any;
}

static void release_held(ucx_worker *worker, ucx_sender *sender)
{
    while (release_some(worker, sender))
        ;
}

static void take_put(ucx_worker *worker, const ucx_fields *fields, const void *data, size_t bytes)
{
    ucx_sender *sender = find_sender(worker, fields->endpoint_id);
    if (sender == NULL)
        return; /* never counted, so its flush never ends: the writer's deadline tells */
    bool is_landed = fields->type == BT_UCX_RUNS
                         ? fields->values[0] >> 32 == 0 && land_runs(worker, fields, data, bytes)
                         : land_put(worker, fields, data, bytes);
    if (!is_landed)
        refuse(sender, "a put outside registered memory", bytes);
    else if (!count_landed(sender, fields->values[2]))
        refuse(sender, "a put out of order", bytes);
    else if (worker->held.first != NULL)
        release_held(worker, sender);
}

static void answer(ucx_worker *worker, ucp_ep_h reply_ep, const ucx_sender *sender, uint64_t flush)
{
    const ucx_fields fields = {
        BT_UCX_LANDED, sender->endpoint_id, {flush, sender->n_landed, sender->n_refused}};
    /* A writer that is gone does not miss the answer; nor does one that reads none. */
    if (worker->n_answers < BT_UCX_ANSWERS_MAX)
        send_bare(worker, reply_ep, NULL, &fields);
}

static bool keep_note(ucx_worker *worker, ucx_sender *sender, uint64_t n_before, const void *data,
                      size_t bytes)
{
    if (worker->held.n_bytes + worker->received.n_bytes + bytes > BT_UCX_NOTE_BYTES_MAX ||
        worker->held.n + worker->received.n >= BT_UCX_NOTES_MAX)
        return false;
    ucx_note *note = bt_ucx_note_create(data, bytes);
    if (note == NULL)
        return false;
    note->endpoint_id = sender->endpoint_id;
    note->n_before = n_before;
    bt_ucx_note_append(&worker->held, note);
    release_held(worker, sender);
    return true;
}

/* A note takes the number of its message, and is counted when it is handed over. */
static void take_numbered_note(ucx_worker *worker, ucx_sender *sender, uint64_t number,
                               const void *data, size_t bytes, ucp_ep_h reply_ep)
{
    bool is_sane = bytes != 0 && bytes <= BT_SEND_BYTES_MAX && number >= sender->n_landed &&
                   number - sender->n_landed < WINDOW;
    if (sender->n_refused == 0 && (!is_sane || !keep_note(worker, sender, number, data, bytes)))
        refuse(sender, "a message out of order, or too many", bytes);
    if (sender->n_refused != 0 && reply_ep != NULL)
        answer(worker, reply_ep, sender, no_flush);
}

static void take_note(ucx_worker *worker, const ucx_fields *fields, const void *data, size_t bytes,
                      ucp_ep_h reply_ep)
{
    ucx_sender *sender = find_sender(worker, fields->endpoint_id);
    bool is_whole = bytes == fields->values[1];
    if (sender != NULL)
        take_numbered_note(worker, sender, fields->values[0], data, is_whole ? bytes : 0, reply_ep);
}

static void take_both(ucx_worker *worker, const ucx_fields *fields, const uint8_t *data,
                      size_t bytes, ucp_ep_h reply_ep)
{
    ucx_sender *sender = find_sender(worker, fields->endpoint_id);
    uint64_t note_bytes = fields->values[0] >> 32;
    if (sender == NULL)
        return;
    if (note_bytes > bytes || !land_runs(worker, fields, data, bytes - note_bytes))
        refuse(sender, "a put outside registered memory", bytes);
    /* Also when it was refused: the writer hears of it. */
    size_t before = note_bytes > bytes ? 0 : bytes - note_bytes;
    take_numbered_note(worker, sender, fields->values[2], data + before, bytes - before, reply_ep);
}

static void take_question(ucx_worker *worker, const ucx_fields *fields, ucp_ep_h reply_ep)
{
    ucx_sender *sender = find_sender(worker, fields->endpoint_id);
    if (sender != NULL && reply_ep != NULL)
        answer(worker, reply_ep, sender, fields->values[0]);
}

static bt_op *find_flush(const ucx_endpoint *endpoint, uint64_t tag)
{
    bt_op *op = endpoint->flushes.first;
    while (op != NULL && op->tag != tag)
        op = op->next;
    return op;
}

static void take_answer(const ucx_worker *worker, const ucx_fields *fields)
{
    static const char refused[] = "the target refused a put outside its memory";
    ucx_endpoint *endpoint = worker->endpoints;
    while (endpoint != NULL && endpoint->id != fields->endpoint_id)
        endpoint = endpoint->next;
    if (endpoint == NULL)
        return;
    if (fields->values[0] == no_flush && fields->values[2] != 0) {
        bt_ucx_fail(endpoint, BATON_ERR_REFUSED, refused);
        return;
    }
    bt_op *op = find_flush(endpoint, fields->values[0]);
    if (op == NULL)
        return;
    if (fields->values[2] != 0) {
        bt_op_set_failure(op, BATON_ERR_REFUSED, refused);
        stop_waiting(op, UCS_OK);
    } else if (fields->values[1] >= op->n_wanted) {
        stop_waiting(op, UCS_OK);
    } else {
        ucs_status_t status = send_question(op);
        if (status != UCS_OK)
            stop_waiting(op, status);
    }
}

/* Called by UCX from within progress. Nothing of the message is trusted. */
static ucs_status_t on_message(void *arg, const void *header, size_t header_bytes, void *data,
                               size_t bytes, const ucp_am_recv_param_t *param)
{
    ucx_worker *worker = arg;
    ucx_fields fields;
    /* A rendezvous brings no data, only an offer of it; we make none. */
    if ((param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) != 0 ||
        !unpack_header(header, header_bytes, &fields))
        return UCS_OK;
    bool can_reply = (param->recv_attr & UCP_AM_RECV_ATTR_FIELD_REPLY_EP) != 0;
    if (fields.type == BT_UCX_PUT || fields.type == BT_UCX_RUNS)
        take_put(worker, &fields, data, bytes);
    else if (fields.type == BT_UCX_BOTH)
        take_both(worker, &fields, data, bytes, can_reply ? param->reply_ep : NULL);
    else if (fields.type == BT_UCX_FLUSH)
        take_question(worker, &fields, can_reply ? param->reply_ep : NULL);
    else if (fields.type == BT_UCX_LANDED)
        take_answer(worker, &fields);
    else if (fields.type == BT_UCX_NOTE)
        take_note(worker, &fields, data, bytes, can_reply ? param->reply_ep : NULL);
    return UCS_OK;
}

baton_status bt_ucx_messages_open(ucx_worker *worker)
{
    const ucp_am_handler_param_t params = {
        .field_mask = UCP_AM_HANDLER_PARAM_FIELD_ID | UCP_AM_HANDLER_PARAM_FIELD_FLAGS |
                      UCP_AM_HANDLER_PARAM_FIELD_CB | UCP_AM_HANDLER_PARAM_FIELD_ARG,
        .id = MESSAGE_ID,
        .flags = UCP_AM_FLAG_WHOLE_MSG,
        .cb = on_message,
        .arg = worker};
    ucs_status_t status = bt_ucx_packed_create(&worker->packed);
    worker->has_packed = status == UCS_OK;
    if (status == UCS_OK)
        status = ucp_worker_set_am_recv_handler(worker->handle, &params);
    return status == UCS_OK ? BATON_OK : bt_fail_ucs(status, "setting a message handler");
}

void bt_ucx_messages_close(ucx_worker *worker)
{
    while (worker->slabs != NULL) {
        struct ucx_message_slab *slab = worker->slabs;
        worker->slabs = slab->next;
        for (uint32_t i = 0; i < MESSAGES_PER_SLAB; i++)
            bt_free(slab->messages[i].note);
        bt_free(slab);
    }
    if (worker->has_packed)
        ucp_dt_destroy(worker->packed);
    for (uint32_t i = 0; i < worker->n_senders; i++)
        bt_free(worker->senders[i].ahead);
    bt_free(worker->senders);
    bt_ucx_notes_clear(&worker->held);
    bt_ucx_notes_clear(&worker->received);
    bt_ucx_notes_clear(&worker->reported);
}

/* "tcp" and "ud_*" alone; anything else in the list writes remote memory itself. */
bool bt_ucx_needs_messages(ucx_endpoint *endpoint)
{
    bt_path path;
    bt_ucx_path(&endpoint->base, &path);
    for (const char *at = path.transport; *at != '\0';) {
        size_t length = strcspn(at, ",");
        if (!(length == 3 && strncmp(at, "tcp", 3) == 0) && strncmp(at, "ud_", 3) != 0)
            return false;
        at += length + (at[length] == ',');
    }
    return path.transport[0] != '\0';
}
