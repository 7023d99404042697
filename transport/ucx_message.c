/* SPDX-License-Identifier: Apache-2.0 */
#include "transport/ucx_message.h"

#include <string.h>

#include "core/alloc.h"
#include "core/log.h"

enum {
    MESSAGE_ID = 0, /* of UCX's active messages; we have one */
    MAGIC = 0x4d4e5442,
    HEADER_BYTES = 40,
    MESSAGES_PER_SLAB = 64,
    SENDERS_MAX = 1024, /* endpoints of one peer over the life of a worker */
    WINDOW = 4096,      /* of messages, among which several lanes may change the order */
};
/* No flush has this number: LANDED then says that a put was refused. */
static const uint64_t no_flush = UINT64_MAX;
typedef enum { TYPE_PUT = 1, TYPE_FLUSH = 2, TYPE_LANDED = 3, TYPE_NOTE = 4 } message_type;

/* With header and UCX's own, one message fits one tcp segment of ours (128 KiB). */
static const uint64_t data_bytes_max = (128 << 10) - 256;

/* A message on its way: UCX reads the header until it is sent. */
struct ucx_message {
    ucx_message *next;
    ucx_worker *worker;
    bt_op *op;      /* it is a part of; NULL for answers and notes */
    ucx_note *note; /* its data, owned; NULL: others' */
    uint8_t header[HEADER_BYTES];
};
struct ucx_message_slab {
    struct ucx_message_slab *next;
    ucx_message messages[MESSAGES_PER_SLAB];
};

typedef struct {
    uint32_t type;
    uint64_t endpoint_id;
    uint64_t values[3];
} message_fields;

static void put_u64(uint8_t *at, uint64_t value)
{
    for (uint32_t i = 0; i < 8; i++)
        at[i] = (uint8_t)(value >> (8 * i));
}

static uint64_t get_u64(const uint8_t *at)
{
    uint64_t value = 0;
    for (uint32_t i = 0; i < 8; i++)
        value |= (uint64_t)at[i] << (8 * i);
    return value;
}

static void pack_header(uint8_t *header, const message_fields *fields)
{
    put_u64(header, MAGIC | (uint64_t)fields->type << 32);
    put_u64(header + 8, fields->endpoint_id);
    for (uint32_t i = 0; i < 3; i++)
        put_u64(header + 16 + 8 * i, fields->values[i]);
}

static bool unpack_header(const uint8_t *header, size_t n_bytes, message_fields *fields)
{
    if (n_bytes != HEADER_BYTES || (uint32_t)get_u64(header) != MAGIC)
        return false;
    fields->type = (uint32_t)(get_u64(header) >> 32);
    fields->endpoint_id = get_u64(header + 8);
    for (uint32_t i = 0; i < 3; i++)
        fields->values[i] = get_u64(header + 16 + 8 * i);
    return true;
}

static void give_message(ucx_message *message)
{
    bt_free(message->note);
    message->note = NULL;
    message->next = message->worker->free_messages;
    message->worker->free_messages = message;
}

static ucx_message *take_message(ucx_worker *worker)
{
    if (worker->free_messages == NULL) {
        struct ucx_message_slab *slab = bt_calloc(1, sizeof(*slab));
        if (slab == NULL)
            return NULL;
        slab->next = worker->slabs;
        worker->slabs = slab;
        for (uint32_t i = 0; i < MESSAGES_PER_SLAB; i++) {
            slab->messages[i].worker = worker;
            give_message(&slab->messages[i]);
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
    ucp_request_free(request);
    give_message(message);
    if (op == NULL)
        return;
    if (status != UCS_OK)
        bt_ucx_record_failure(op, status);
    if (status != UCS_OK && op->kind == BT_EVENT_FLUSH)
        stop_waiting(op, status); /* no question, no answer */
    bt_ucx_finish_part(op);
}

/* Sends the message, which is given back when that fails or is done at once. */
static ucs_status_t send_message(ucx_message *message, ucp_ep_h handle,
                                 const message_fields *fields, const void *data, size_t bytes,
                                 ucs_memory_type_t memory_type)
{
    bt_op *op = message->op;
    bool wants_answer = fields->type == TYPE_FLUSH || fields->type == TYPE_NOTE;
    pack_header(message->header, fields);
    /* Eager: a rendezvous would have the target fetch the data, and needs its answer. The target
     * answers through the endpoint that the flag makes known to it. */
    const ucp_request_param_t params = {
        .op_attr_mask = UCP_OP_ATTR_FIELD_CALLBACK | UCP_OP_ATTR_FIELD_USER_DATA |
                        UCP_OP_ATTR_FIELD_FLAGS | UCP_OP_ATTR_FIELD_MEMORY_TYPE,
        .flags = UCP_AM_SEND_FLAG_EAGER | (wants_answer ? UCP_AM_SEND_FLAG_REPLY : 0),
        .cb = {.send = on_sent},
        .user_data = message,
        .memory_type = memory_type};
    ucs_status_ptr_t request =
        ucp_am_send_nbx(handle, MESSAGE_ID, message->header, HEADER_BYTES, data, bytes, &params);
    if (request == NULL || UCS_PTR_IS_ERR(request)) {
        give_message(message);
        return UCS_PTR_STATUS(request);
    }
    if (op != NULL)
        op->n_pending++;
    return UCS_OK;
}

static ucs_status_t send_part(ucx_worker *worker, ucp_ep_h handle, bt_op *op,
                              const message_fields *fields, const void *data, size_t bytes,
                              ucs_memory_type_t memory_type)
{
    ucx_message *message = take_message(worker);
    if (message == NULL)
        return UCS_ERR_NO_MEMORY;
    message->op = op;
    return send_message(message, handle, fields, data, bytes, memory_type);
}

ucs_status_t bt_ucx_send_note(ucx_endpoint *endpoint, ucx_note *note)
{
    ucx_message *message = take_message((ucx_worker *)endpoint->base.worker);
    if (message == NULL) {
        bt_free(note);
        return UCS_ERR_NO_MEMORY;
    }
    message->note = note;
    const message_fields fields = {TYPE_NOTE, endpoint->id, {endpoint->n_messages, note->n_bytes}};
    ucs_status_t status = send_message(message, endpoint->handle, &fields, note->bytes,
                                       note->n_bytes, UCS_MEMORY_TYPE_HOST);
    endpoint->n_messages += status == UCS_OK;
    return status;
}

ucs_status_t bt_ucx_send_run(bt_op *op, const bt_run *run, ucs_memory_type_t memory_type)
{
    ucx_endpoint *endpoint = op->owner;
    for (uint64_t done = 0; done < run->bytes;) {
        uint64_t bytes = run->bytes - done < data_bytes_max ? run->bytes - done : data_bytes_max;
        const message_fields fields = {
            TYPE_PUT, endpoint->id, {run->remote_addr + done, bytes, endpoint->n_messages}};
        ucs_status_t status =
            send_part((ucx_worker *)endpoint->base.worker, endpoint->handle, op, &fields,
                      (const void *)(uintptr_t)(run->local_addr + done), bytes, memory_type);
        if (status != UCS_OK)
            return status;
        endpoint->n_messages++;
        done += bytes;
    }
    return UCS_OK;
}

static ucs_status_t send_question(bt_op *op)
{
    ucx_endpoint *endpoint = op->owner;
    const message_fields fields = {TYPE_FLUSH, endpoint->id, {op->tag, op->n_wanted}};
    return send_part((ucx_worker *)endpoint->base.worker, endpoint->handle, op, &fields, NULL, 0,
                     UCS_MEMORY_TYPE_HOST);
}

ucs_status_t bt_ucx_ask_landed(bt_op *op)
{
    ucx_endpoint *endpoint = op->owner;
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

/* Copies under the lock, so that memory cannot be freed meanwhile. False: not our memory. */
static bool land(ucx_transport *transport, uint64_t address, const void *data, size_t bytes)
{
    bool is_ours = false;
    pthread_mutex_lock(&transport->lock);
    for (ucx_memory *memory = transport->memories; memory != NULL && !is_ours;
         memory = memory->next) {
        uint64_t base = (uint64_t)(uintptr_t)memory->base.base;
        is_ours = memory->base.kind != BATON_MEMORY_CUDA_DEVICE && address >= base &&
                  address - base <= memory->base.bytes &&
                  bytes <= memory->base.bytes - (address - base);
    }
    if (is_ours)
        memcpy((void *)(uintptr_t)address, data, bytes);
    pthread_mutex_unlock(&transport->lock);
    return is_ours;
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

static void take_put(ucx_worker *worker, const message_fields *fields, const void *data,
                     size_t bytes)
{
    ucx_sender *sender = find_sender(worker, fields->endpoint_id);
    if (sender == NULL)
        return; /* never counted, so its flush never ends: the writer's deadline tells */
    if (bytes != fields->values[1] ||
        !land((ucx_transport *)worker->base.transport, fields->values[0], data, bytes))
        refuse(sender, "a put outside registered memory", bytes);
    else if (!count_landed(sender, fields->values[2]))
        refuse(sender, "a put out of order", bytes);
    else if (worker->held.first != NULL)
        release_held(worker, sender);
}

static void answer(ucx_worker *worker, ucp_ep_h reply_ep, const ucx_sender *sender, uint64_t flush)
{
    const message_fields fields = {
        TYPE_LANDED, sender->endpoint_id, {flush, sender->n_landed, sender->n_refused}};
    /* A writer that is gone does not miss the answer. */
    send_part(worker, reply_ep, NULL, &fields, NULL, 0, UCS_MEMORY_TYPE_HOST);
}

static bool keep_note(ucx_worker *worker, ucx_sender *sender, uint64_t n_before, const void *data,
                      size_t bytes)
{
    if (worker->held.n_bytes + worker->received.n_bytes + bytes > BT_UCX_NOTE_BYTES_MAX)
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

static void take_note(ucx_worker *worker, const message_fields *fields, const void *data,
                      size_t bytes, ucp_ep_h reply_ep)
{
    ucx_sender *sender = find_sender(worker, fields->endpoint_id);
    if (sender == NULL)
        return;
    uint64_t number = fields->values[0];
    bool is_sane = bytes != 0 && bytes <= BT_SEND_BYTES_MAX && bytes == fields->values[1] &&
                   number >= sender->n_landed && number - sender->n_landed < WINDOW;
    if (sender->n_refused == 0 && (!is_sane || !keep_note(worker, sender, number, data, bytes)))
        refuse(sender, "a message out of order, or too many", bytes);
    if (sender->n_refused != 0 && reply_ep != NULL)
        answer(worker, reply_ep, sender, no_flush);
}

static void take_question(ucx_worker *worker, const message_fields *fields, ucp_ep_h reply_ep)
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

static void take_answer(const ucx_worker *worker, const message_fields *fields)
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
    message_fields fields;
    /* A rendezvous brings no data, only an offer of it; we make none. */
    if ((param->recv_attr & UCP_AM_RECV_ATTR_FLAG_RNDV) != 0 ||
        !unpack_header(header, header_bytes, &fields))
        return UCS_OK;
    bool can_reply = (param->recv_attr & UCP_AM_RECV_ATTR_FIELD_REPLY_EP) != 0;
    if (fields.type == TYPE_PUT)
        take_put(worker, &fields, data, bytes);
    else if (fields.type == TYPE_FLUSH)
        take_question(worker, &fields, can_reply ? param->reply_ep : NULL);
    else if (fields.type == TYPE_LANDED)
        take_answer(worker, &fields);
    else if (fields.type == TYPE_NOTE)
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
    ucs_status_t status = ucp_worker_set_am_recv_handler(worker->handle, &params);
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
